"""What the lwAFTR says and hears by ICMP: RFC 7596 6.2 and 8, RFC 4443 2.4, RFC 2473 8, RFC 1812 4.3.2.7."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from aftrcase import (
    ALICE_B4,
    ALICE_PORT,
    BOB_B4,
    BOB_PORT,
    BR,
    CAROL_B4,
    CAROL_PORT,
    DAVE_B4,
    OTHER,
    ROUTER,
    SERVER,
    SHARED,
    STRANGER,
    UNBOUND_PORT,
    WHOLE,
    Case,
    back,
    echo,
    icmp_error,
    out,
)
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet

from b4client.lab.aftrcore import PATH_LIFE_S, TO_B4, TO_SENDER
from b4client.lab.aftricmp import TokenBucket, icmpv4_error, source_policy_error

# ---- ICMPv6 type 1 code 5


@pytest.mark.parametrize(
    ("packet", "b4", "fate"),
    [
        (out(), STRANGER, "drop-unknown-softwire"),
        (out(BOB_PORT, tos=0xB8), ALICE_B4, "drop-outside-port-set"),
        (out(source=OTHER), ALICE_B4, "drop-foreign-ipv4-address"),
    ],
)
@pytest.mark.parametrize("size", [0, 1300])
def test_reject(packet: Packet, b4: IPv6Address, fate: str, size: int) -> None:
    octets = bytes(packet / bytes(size))
    case = Case(reject=True)
    done = case.up(octets, b4, traffic_class=octets[1])
    assert done.counted == {fate: 1, "icmpv6-rejects": 1}
    ((where, message, _, to),) = done.outcomes
    assert (where, to) == (TO_B4, b4.packed)
    # As much as fits in 1280 octets, from the packet's beginning; checksum and pseudo-header by scapy.
    assert len(message) == min(8 + 40 + len(octets), 1280 - 40)
    whole = IPv6(bytes(IPv6(src=str(BR), dst=str(b4), nh=58) / message))
    error = whole[ICMPv6DestUnreach]
    assert (error.type, error.code, error.unused) == (1, 5, 0)
    received = error.cksum
    error.cksum = None
    assert received == IPv6(bytes(whole))[ICMPv6DestUnreach].cksum
    quoted = message[8:]
    outer = struct.unpack_from("!IHBB16s16s", quoted)
    assert outer == (6 << 28 | octets[1] << 20, len(octets), 4, 64, b4.packed, BR.packed)
    assert quoted[40:] == octets[: 1280 - 88]


def test_reject_is_off_unless_asked_for() -> None:
    assert Case().up(out(), STRANGER).outcomes == ()


def test_rejects_are_limited_together() -> None:
    case = Case(reject=True, reject_rate=2)
    counted = [case.up(out(), IPv6Address(int(STRANGER) + n)).counted for n in range(4)]
    sent = {"drop-unknown-softwire": 1, "icmpv6-rejects": 1}
    suppressed = {"drop-unknown-softwire": 1, "icmpv6-rejects-suppressed": 1}
    assert counted == [sent, sent, suppressed, suppressed]
    case.now += 0.5
    assert [case.up(out(), STRANGER).counted for _ in range(2)] == [sent, suppressed]
    case.now += 3600
    assert [case.up(out(), STRANGER).counted for _ in range(3)] == [sent, sent, suppressed]


@pytest.mark.parametrize("source", ["ff02::1", "::", "::1", "fe80::1", "febf::1"])
def test_no_reject_to_what_is_no_single_host(source: str) -> None:
    case = Case(reject=True)
    assert case.up(out(), IPv6Address(source)).counted == {
        "drop-unknown-softwire": 1,
        "icmpv6-rejects-suppressed": 1,
    }
    assert source_policy_error(bytes(out()), IPv6Address(source).packed, BR.packed, 0) is None


def test_token_bucket() -> None:
    bucket = TokenBucket(10, 5)
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert [bucket.take(100.125) for _ in range(2)] == [True, False]
    assert not bucket.take(99.0)  # a clock that goes back gives nothing
    assert sum(bucket.take(100.125 + n / 1024) for n in range(1, 10241)) == 100
    assert not TokenBucket(0, 5).take(1.0)


# ---- ICMPv4


def test_unreachable() -> None:
    packet = back(UNBOUND_PORT)
    assert Case().down(packet).counted == {"drop-no-binding": 1}
    done = Case(unreachable=True).down(packet)
    assert done.counted == {"drop-no-binding": 1, "icmpv4-unreachable": 1}
    ((where, message, _, to),) = done.outcomes
    assert (where, to) == (TO_SENDER, IPv4Address(SERVER).packed)
    assert (message[:2], message[4:8], message[8:]) == (b"\x03\x01", bytes(4), bytes(packet))


def test_unreachable_is_for_what_nobody_has() -> None:
    case = Case(unreachable=True)
    assert case.up(out(BOB_PORT)).counted == {"drop-outside-port-set": 1}
    assert case.down(IP(src=SERVER, dst=str(SHARED), proto=47) / bytes(8)).counted == {"drop-unsupported-protocol": 1}
    assert case.down(echo(SERVER, SHARED, ALICE_PORT, 13)).counted == {"drop-icmp-policy": 1}


def test_unreachable_between_customers() -> None:
    packet = IP(src=str(SHARED), dst=str(SHARED)) / UDP(sport=ALICE_PORT, dport=UNBOUND_PORT)
    done = Case(unreachable=True).up(packet)
    assert done.counted == {"drop-hairpin-no-binding": 1, "icmpv4-unreachable": 1}
    assert done.outcomes[0][3] == SHARED.packed


def test_icmpv4_is_limited() -> None:
    case = Case(unreachable=True, icmpv4_rate=1)
    assert "icmpv4-unreachable" in case.down(back(UNBOUND_PORT)).counted
    assert case.down(back(UNBOUND_PORT)).counted == {"drop-no-binding": 1, "icmpv4-suppressed": 1}


@pytest.mark.parametrize(
    "packet",
    [
        icmp_error(ROUTER, SHARED, out()),
        IP(src=ROUTER, dst=str(SHARED)) / ICMP(type=42) / bytes(8),
        IP(src=SERVER, dst=str(SHARED), proto=17, frag=2) / bytes(16),
        *(IP(src=source, dst=str(SHARED)) / UDP() for source in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "240.0.0.1")),
        IP(src="255.255.255.255", dst=str(SHARED)) / UDP(),
        IP(src=SERVER, dst="224.0.0.1") / UDP(),
        IP(src=SERVER, dst=str(SHARED), proto=17) / bytes(7),
    ],
)
def test_no_icmpv4_about_these(packet: Packet) -> None:
    """RFC 1812 4.3.2.7."""
    assert icmpv4_error(3, 1, bytes(packet)) is None


@pytest.mark.parametrize("kind", [0, 8, 13, 14])
def test_icmpv4_about_queries(kind: int) -> None:
    answer = icmpv4_error(3, 1, bytes(echo(SERVER, SHARED, 7, kind)))
    assert answer is not None
    assert answer[1] == IPv4Address(SERVER).packed


# ---- ICMPv6 errors from inside a softwire (RFC 2473 8)


def tunnel(packet: Packet, b4: IPv6Address = ALICE_B4, source: IPv6Address = BR) -> Packet:
    return IPv6(src=str(source), dst=str(b4)) / packet


def message(error: Packet, packet: Packet) -> bytes:
    """An ICMPv6 error as the raw socket gives it; its checksum the kernel has seen to."""
    return bytes(error) + bytes(packet)


@pytest.mark.parametrize(
    "error",
    [
        *(ICMPv6DestUnreach(code=code) for code in range(7)),
        ICMPv6TimeExceeded(),
        ICMPv6ParamProblem(code=1),
    ],
)
def test_unreachable_is_relayed(error: Packet) -> None:
    packet = back(size=600)
    case = Case()
    done = case.error(message(error, tunnel(packet)))
    assert done.counted == {"icmpv6-unreachable": 1, "icmpv4-unreachable": 1}
    ((where, octets, _, to),) = done.outcomes
    assert (where, to, octets[:2]) == (TO_SENDER, IPv4Address(SERVER).packed, b"\x03\x01")
    assert octets[8:] == bytes(packet)[:548]


def test_relayed_to_a_customer_whose_packet_was_turned_round() -> None:
    packet = IP(src=str(OTHER), dst=str(SHARED)) / UDP(sport=CAROL_PORT, dport=ALICE_PORT) / b"x"
    done = Case().error(message(ICMPv6DestUnreach(), tunnel(packet)))
    assert done.outcomes[0][3] == OTHER.packed


def test_too_big_is_learnt_and_relayed() -> None:
    case = Case()
    packet = back(size=1432, flags="DF")
    assert case.down(packet).fate == "encapsulated"
    done = case.error(message(ICMPv6PacketTooBig(mtu=1400), tunnel(packet)))
    assert done.counted == {"icmpv6-too-big": 1, "icmpv4-too-big": 1}
    ((_, octets, _, _),) = done.outcomes
    assert ICMP(octets).nexthopmtu == 1360
    # From now on the lwAFTR knows by itself, for this softwire only.
    assert case.down(back(size=1361 - 28, flags="DF")).fate == "drop-too-big"
    assert case.down(back(size=1360 - 28, flags="DF")).fate == "encapsulated"
    assert case.down(back(BOB_PORT, size=1432, flags="DF")).fate == "encapsulated"
    case.now += PATH_LIFE_S
    assert case.down(packet).fate == "encapsulated"


def test_too_big_without_df_is_learnt_only() -> None:
    case = Case()
    assert case.error(message(ICMPv6PacketTooBig(mtu=1400), tunnel(back(size=1432)))).counted == {"icmpv6-too-big": 1}
    assert case.aftr.tunnel_mtu(ALICE_B4.packed, case.now) == 1360


def test_too_big_is_not_told_where_df_is_not_honoured() -> None:
    case = Case(honour_df=False)
    done = case.error(message(ICMPv6PacketTooBig(mtu=1400), tunnel(back(size=1432, flags="DF"))))
    assert (done.counted, done.outcomes) == ({"icmpv6-too-big": 1}, ())


def test_too_big_that_cannot_be() -> None:
    """Below 1280 is no path of IPv6; and what the packet fits into was not the trouble."""
    case = Case()
    done = case.error(message(ICMPv6PacketTooBig(mtu=68), tunnel(back(size=1432, flags="DF"))))
    assert ICMP(done.outcomes[0][1]).nexthopmtu == 1240
    assert case.error(message(ICMPv6PacketTooBig(mtu=9000), tunnel(back(size=1432, flags="DF")))).outcomes == ()
    assert case.aftr.tunnel_mtu(ALICE_B4.packed, case.now) == 1240
    assert case.error(message(ICMPv6PacketTooBig(mtu=1400), tunnel(back(flags="DF")))).outcomes == ()


def test_about_fragments_of_the_outer_packet() -> None:
    case = Case()
    inner = bytes(back(size=1600, flags="DF"))
    head = IPv6(src=str(BR), dst=str(ALICE_B4))
    first = head / IPv6ExtHdrFragment(nh=4, m=1) / inner[:1240]
    later = head / IPv6ExtHdrFragment(nh=4, offset=155) / inner[1240:]
    # The second of the smallest fragments; its octets would pass for an IPv4 packet of another's.
    second = head / IPv6ExtHdrFragment(nh=4, offset=1, m=1) / bytes(back(BOB_PORT, flags="DF"))
    assert case.error(message(ICMPv6PacketTooBig(mtu=1300), second)).counted == {"icmpv6-too-big": 1}
    done = case.error(message(ICMPv6PacketTooBig(mtu=1280), first))
    assert done.counted == {"icmpv6-too-big": 1, "icmpv4-too-big": 1}
    assert case.error(message(ICMPv6PacketTooBig(mtu=1280), later)).counted == {"icmpv6-too-big": 1}
    assert case.error(message(ICMPv6DestUnreach(), later)).counted == {"icmpv6-unreachable": 1}
    later.dst = str(STRANGER)
    assert case.error(message(ICMPv6PacketTooBig(mtu=1280), later)).counted == {"icmpv6-foreign": 1}


def test_errors_about_errors_are_not_relayed() -> None:
    done = Case().error(message(ICMPv6DestUnreach(), tunnel(icmp_error(ROUTER, SHARED, out()))))
    assert done.counted == {"icmpv6-unreachable": 1, "icmpv4-suppressed": 1}


def test_about_protocols_without_ports() -> None:
    gre = IP(src=SERVER, dst=str(WHOLE), proto=47) / bytes(40)
    done = Case().error(message(ICMPv6DestUnreach(), tunnel(gre, DAVE_B4)))
    assert done.counted == {"icmpv6-unreachable": 1, "icmpv4-unreachable": 1}


@pytest.mark.parametrize(
    "packet",
    [
        tunnel(back(), STRANGER),
        tunnel(back(), ALICE_B4, STRANGER),
        tunnel(back(BOB_PORT)),
        tunnel(back(UNBOUND_PORT)),
        tunnel(back(), CAROL_B4),
        tunnel(IP(src=SERVER, dst=str(WHOLE), proto=47) / bytes(40)),
        IPv6(src=str(BR), dst=str(ALICE_B4)) / UDP(sport=7, dport=8) / bytes(40),
        IPv6(src=str(BR), dst=str(ALICE_B4)) / IPv6ExtHdrFragment(nh=17) / bytes(back()),
    ],
)
def test_about_nothing_of_ours(packet: Packet) -> None:
    case = Case()
    for error in (ICMPv6DestUnreach(), ICMPv6PacketTooBig(mtu=1280)):
        done = case.error(message(error, packet))
        assert (done.counted, done.outcomes) == ({"icmpv6-foreign": 1}, ())
    for b4 in (ALICE_B4, BOB_B4, CAROL_B4, DAVE_B4):
        assert case.aftr.tunnel_mtu(b4.packed, case.now) == 1460


@pytest.mark.parametrize("kind", [0, 5, 100, 127, 128, 129, 135, 255])
def test_other_kinds_are_foreign(kind: int) -> None:
    octets = bytearray(message(ICMPv6DestUnreach(), tunnel(back())))
    octets[0] = kind
    assert Case().error(bytes(octets)).counted == {"icmpv6-foreign": 1}


def test_cut_at_every_octet() -> None:
    packet = back(size=1400, flags="DF")
    for whole in (
        message(ICMPv6PacketTooBig(mtu=1280), tunnel(packet)),
        message(ICMPv6PacketTooBig(mtu=1280), IPv6(src=str(BR), dst=str(ALICE_B4)) / IPv6ExtHdrFragment(nh=4) / packet),
    ):
        inner = len(whole) - len(bytes(packet))
        for length in range(inner + 40):
            case = Case()
            counted = case.error(whole[:length]).counted
            if length < inner:
                assert counted == {"icmpv6-foreign": 1}
            elif length < inner + 28:
                assert counted == {"icmpv6-too-big": 1}
            else:
                assert counted == {"icmpv6-too-big": 1, "icmpv4-too-big": 1}


def test_paths_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("b4client.lab.aftrcore.MAX_PATHS", 2)
    case = Case()
    for port, b4 in ((ALICE_PORT, ALICE_B4), (BOB_PORT, BOB_B4), (CAROL_PORT, CAROL_B4)):
        address = OTHER if b4 is CAROL_B4 else SHARED
        case.error(message(ICMPv6PacketTooBig(mtu=1400), tunnel(back(port, address), b4)))
    mtus = [case.aftr.tunnel_mtu(b4.packed, case.now) for b4 in (ALICE_B4, BOB_B4, CAROL_B4)]
    assert mtus == [1460, 1360, 1360]
