"""The lwAFTR's decisions (RFC 7596 6.2 and 8.1, RFC 7597 8, RFC 6333 7.1, RFC 2473 7.2): each fate, with its packet."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from aftrcase import (
    ALICE,
    ALICE_B4,
    ALICE_PORT,
    BOB,
    BOB_B4,
    BOB_PORT,
    BR,
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
    checksum_is_right,
    echo,
    icmp_error,
    longer,
    out,
)
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.sctp import SCTP
from scapy.packet import Packet

from b4client.lab.aftrcore import TO_INTERNET, TO_SENDER, TO_SOFTWIRE, Aftr
from b4client.lab.aftrpacket import checksum
from b4client.lab.binding import Binding, BindingTable, parse_rule
from b4client.model.portset import PortSet

# ---- upward


@pytest.mark.parametrize("layer", [TCP, UDP, SCTP])
@pytest.mark.parametrize("octets", [bytes, longer])
def test_upward_by_port(case: Case, layer: type, octets: type) -> None:
    mine = octets(IP(src=str(SHARED), dst=SERVER) / layer(sport=ALICE_PORT, dport=80) / b"data")
    done = case.up(mine)
    assert done.fate == "decapsulated"
    assert done.outcomes == ((TO_INTERNET, mine, None, b""),)
    bobs = octets(IP(src=str(SHARED), dst=SERVER) / layer(sport=BOB_PORT, dport=80) / b"data")
    done = case.up(bobs)
    assert (done.fate, done.outcomes) == ("drop-outside-port-set", ())
    assert case.up(bobs, BOB_B4).fate == "decapsulated"


def test_options_that_look_like_ports(case: Case) -> None:
    """They stand where the ports stand without options, and do not even change the sum of the first twenty octets."""
    for port, fate, down in ((BOB_PORT, "drop-outside-port-set", BOB_B4), (ALICE_PORT, "decapsulated", ALICE_B4)):
        other = ALICE_PORT if port == BOB_PORT else BOB_PORT
        options = other.to_bytes(2, "big") + (0xFFFF - other).to_bytes(2, "big")
        octets = bytearray(longer(out(port)))
        octets[20:24] = options
        octets[10:12] = b"\0\0"
        octets[10:12] = checksum(bytes(octets[:24]))
        assert not int.from_bytes(octets[:20], "big") % 0xFFFF
        assert case.up(bytes(octets)).fate == fate
        octets = bytearray(longer(back(port)))
        octets[20:24] = options[2:] + options[:2]
        octets[10:12] = b"\0\0"
        octets[10:12] = checksum(bytes(octets[:24]))
        done = case.down(bytes(octets))
        assert done.outcomes[0][2].b4 == down.packed  # type: ignore[union-attr]


def test_upward_from_somebody_else(case: Case) -> None:
    # The port is bound, but to another softwire: outside *this* one's set.
    assert case.up(out(), BOB_B4).fate == "drop-outside-port-set"
    assert case.up(out(), STRANGER).fate == "drop-unknown-softwire"
    assert case.up(out(source=OTHER)).fate == "drop-foreign-ipv4-address"
    assert case.up(out(source="192.0.2.20")).fate == "drop-foreign-ipv4-address"
    assert case.up(out(source=WHOLE)).fate == "drop-foreign-ipv4-address"
    assert case.up(out(port=UNBOUND_PORT)).fate == "drop-outside-port-set"
    assert case.up(out(port=7, source=WHOLE), DAVE_B4).fate == "decapsulated"


def test_octets_behind_the_packet_stay_behind(case: Case) -> None:
    for packet in (bytes(out()), longer(out()), longer(out() / bytes(1000))):
        assert case.up(packet + b"padding").outcomes == ((TO_INTERNET, packet, None, b""),)
    for packet in (bytes(back()), longer(back(size=1000))):
        ((_, octets, _, _),) = case.down(packet + b"padding").outcomes
        assert octets == packet


# ---- downward


@pytest.mark.parametrize("octets", [bytes, longer])
def test_downward_by_port(case: Case, octets: type) -> None:
    def to(port: int, address: IPv4Address = SHARED) -> tuple[str, IPv6Address | None]:
        done = case.down(octets(IP(src=SERVER, dst=str(address)) / TCP(sport=80, dport=port)))
        if not done.outcomes:
            return done.fate, None
        ((where, _, customer, _),) = done.outcomes
        assert where is TO_SOFTWIRE
        assert customer is not None
        return done.fate, customer.binding.b4

    assert to(ALICE_PORT) == ("encapsulated", ALICE_B4)
    assert to(BOB_PORT) == ("encapsulated", BOB_B4)
    assert to(UNBOUND_PORT) == ("drop-no-binding", None)
    assert to(ALICE_PORT, IPv4Address("192.0.2.20")) == ("drop-no-binding", None)
    assert to(7, WHOLE) == ("encapsulated", DAVE_B4)


def test_bindings_take_effect_at_once(case: Case) -> None:
    table = case.aftr.table
    table.remove(ALICE)
    assert case.up(out()).fate == "drop-unknown-softwire"
    assert case.down(back()).fate == "drop-no-binding"
    assert case.up(out(BOB_PORT), BOB_B4).fate == "decapsulated"
    table.add(Binding(ALICE.address, ALICE.ports, BOB_B4))
    assert case.up(out(), BOB_B4).fate == "decapsulated"
    assert case.down(back()).outcomes[0][2].b4 == BOB_B4.packed  # type: ignore[union-attr]


# ---- both ends of one packet: the hairpin (RFC 7596 6.2)


@pytest.mark.parametrize(
    ("destination", "port", "b4"),
    [(SHARED, BOB_PORT, BOB_B4), (OTHER, CAROL_PORT, IPv6Address("2001:db8::c")), (WHOLE, 9, DAVE_B4)],
)
@pytest.mark.parametrize("octets", [bytes, longer])
def test_hairpin(case: Case, destination: IPv4Address, port: int, b4: IPv6Address, octets: type) -> None:
    sent = octets(IP(src=str(SHARED), dst=str(destination), ttl=9) / UDP(sport=ALICE_PORT, dport=port) / b"hello")
    done = case.up(sent)
    assert done.fate == "hairpinned"
    ((where, octets_out, customer, _),) = done.outcomes
    assert (where, customer and customer.b4) == (TO_SOFTWIRE, b4.packed)
    # We are one router on the way; the rest is as it was, and the checksum is right.
    assert done.packet.ttl == 8
    assert checksum_is_right(done.packet)
    assert octets_out[12:] == sent[12:]


def test_hairpin_checks_both_ends(case: Case) -> None:
    assert case.up(out(BOB_PORT, OTHER)).fate == "drop-outside-port-set"
    nobody = IP(src=str(SHARED), dst=str(SHARED)) / UDP(sport=ALICE_PORT, dport=UNBOUND_PORT)
    done = case.up(nobody)
    assert (done.fate, done.outcomes) == ("drop-hairpin-no-binding", ())


def test_our_own_addresses_never_go_to_the_internet(case: Case) -> None:
    """Those of the pool that nobody has, too: they would only come back."""
    packet = out(destination="192.0.2.200")
    assert case.up(packet).fate == "decapsulated"  # nobody said that it is ours
    case.aftr.table = BindingTable([ALICE], pools=[IPv4Network("192.0.2.0/24"), IPv4Network("203.0.113.0/32")])
    assert case.up(packet).fate == "drop-hairpin-no-binding"
    assert case.up(out(destination="203.0.113.0")).fate == "drop-hairpin-no-binding"
    # A whole address could use any protocol, so that it is nobody's is all that can be said of this one.
    assert case.down(IP(src=SERVER, dst="192.0.2.200", proto=47) / bytes(8)).fate == "drop-no-binding"
    for elsewhere in ("203.0.113.1", "192.0.3.0", "192.0.1.255"):
        assert case.up(out(destination=elsewhere)).fate == "decapsulated"


def test_hairpin_by_policy(case: Case) -> None:
    packet = IP(src=str(SHARED), dst=str(SHARED)) / UDP(sport=ALICE_PORT, dport=BOB_PORT)
    case = Case(hairpin=False)
    assert case.up(packet).fate == "drop-hairpin-policy"
    assert case.up(out()).fate == "decapsulated"


def test_hairpin_of_icmp(case: Case) -> None:
    assert case.up(echo(SHARED, SHARED, ALICE_PORT)).fate == "hairpinned"  # to itself: the identifier is both ends'
    assert case.up(echo(SHARED, WHOLE, ALICE_PORT)).fate == "hairpinned"
    assert case.up(echo(SHARED, OTHER, ALICE_PORT)).outcomes[0][2].binding.address == OTHER  # type: ignore[union-attr]
    # Bob answers Alice's packet with an error.
    error = icmp_error(SHARED, SHARED, IP(src=str(SHARED), dst=str(SHARED)) / UDP(sport=ALICE_PORT, dport=BOB_PORT))
    done = case.up(error, BOB_B4)
    assert done.fate == "hairpinned"
    assert done.outcomes[0][2].b4 == ALICE_B4.packed  # type: ignore[union-attr]


def test_hairpin_ends_with_the_time_to_live(case: Case) -> None:
    last = IP(src=str(SHARED), dst=str(OTHER), ttl=2) / UDP(sport=ALICE_PORT, dport=CAROL_PORT)
    assert case.up(last).packet.ttl == 1
    packet = IP(src=str(SHARED), dst=str(OTHER), ttl=1) / UDP(sport=ALICE_PORT, dport=CAROL_PORT) / b"x"
    done = case.up(packet)
    assert done.counted == {"drop-hairpin-ttl": 1, "icmpv4-time-exceeded": 1}
    ((where, message, _, to),) = done.outcomes
    assert (where, to, message[:2]) == (TO_SENDER, SHARED.packed, b"\x0b\x00")
    assert message[8:] == bytes(packet)
    assert checksum_is_right(ICMP(message))


# ---- protocols without ports (RFC 7618 7.1)


@pytest.mark.parametrize("protocol", [0, 2, 47, 50, 255])
def test_protocols_without_ports_need_a_whole_address(case: Case, protocol: int) -> None:
    def gre(source: object, destination: object) -> Packet:
        return IP(src=str(source), dst=str(destination), proto=protocol) / bytes(16)

    assert case.up(gre(SHARED, SERVER)).fate == "drop-unsupported-protocol"
    assert case.up(gre(SHARED, SERVER), STRANGER).fate == "drop-unknown-softwire"
    assert case.up(gre(OTHER, SERVER)).fate == "drop-foreign-ipv4-address"
    assert case.down(gre(SERVER, SHARED)).fate == "drop-unsupported-protocol"
    assert case.down(gre(SERVER, "192.0.2.20")).fate == "drop-no-binding"
    assert case.up(gre(WHOLE, SERVER), DAVE_B4).fate == "decapsulated"
    assert case.down(gre(SERVER, WHOLE)).fate == "encapsulated"
    assert case.up(gre(WHOLE, SHARED), DAVE_B4).fate == "drop-hairpin-no-binding"


# ---- what is no packet


def test_malformed(case: Case) -> None:
    good = bytes(out())
    for packet in (
        b"",
        b"\x45",
        bytes(20),
        b"\x65" + good[1:],
        b"\x44" + good[1:],
        b"\x4f" + good[1:],
        bytes(IP(src=str(SHARED), dst=SERVER, len=19) / b"abcdefgh"),
        bytes(IP(src=str(SHARED), dst=SERVER, proto=17) / b"abc"),
        bytes(IP(src=str(SHARED), dst=SERVER, proto=1) / b"\x08\0\0\0"),
        bytes(IP(src=str(SHARED), dst=SERVER) / ICMP(type=3, code=3) / b"short"),
    ):
        assert case.up(packet).fate == "drop-malformed"
        assert case.down(packet).fate == "drop-malformed"


def test_as_short_as_can_be(case: Case) -> None:
    """Four octets with the ports, eight of ICMP: what is behind them is the receiver's business."""
    ports = ALICE_PORT.to_bytes(2, "big") + b"\0\x50"
    for octets in (bytes, longer):
        assert case.up(octets(IP(src=str(SHARED), dst=SERVER, proto=17) / ports)).fate == "decapsulated"
        assert case.up(octets(IP(src=str(SHARED), dst=SERVER) / ICMP(id=ALICE_PORT))).fate == "decapsulated"


def test_cut_at_every_octet(case: Case) -> None:
    for whole in (
        bytes(out()),
        longer(out()),
        bytes(icmp_error(SHARED, SERVER, back())),
        bytes(echo(SHARED, SERVER, 1232)),
    ):
        for length in range(len(whole)):
            assert case.up(whole[:length]).fate == "drop-malformed"
        assert case.up(whole).fate == "decapsulated"
    for whole in (bytes(back()), longer(back()), bytes(icmp_error(ROUTER, SHARED, out()))):
        for length in range(len(whole)):
            assert case.down(whole[:length]).fate == "drop-malformed"
        assert case.down(whole).fate == "encapsulated"
    case.balance()


def test_every_wrong_bit_of_a_header(case: Case) -> None:
    """One bit of the header turned: the checksum or a length tells."""
    for packet in (bytes(out()), longer(out())):
        for bit in range(8 * (packet[0] & 15) * 4):
            wrong = bytearray(packet)
            wrong[bit // 8] ^= 0x80 >> bit % 8
            assert case.up(bytes(wrong), traffic_class=0).fate in ("drop-bad-checksum", "drop-malformed")


# ---- traffic class (RFC 6333 7.1, RFC 2983, RFC 6040)


@pytest.mark.parametrize("outer", [0, 1, 2, 3, 0xB8, 0xBB, 0xFF])
@pytest.mark.parametrize("inner", [0, 1, 2, 3, 0x28, 0x2A])
def test_traffic_class_is_carried_over(case: Case, inner: int, outer: int) -> None:
    """The normal mode of RFC 6040 4.2, written as its table: (inner ECN, outer ECN) -> ECN onwards, or dropped."""
    table = {
        0: (0, 0, 0, None),
        2: (2, 1, 2, 3),
        1: (1, 1, 1, 3),
        3: (3, 3, 3, 3),
    }
    expected = table[inner & 3][outer & 3]
    for destination in (SERVER, str(OTHER)):
        packet = IP(src=str(SHARED), dst=destination, tos=inner) / UDP(sport=ALICE_PORT, dport=CAROL_PORT) / b"x"
        done = case.up(packet, traffic_class=outer)
        if expected is None:
            assert done.fate == "drop-congestion"
            continue
        assert done.packet.tos == outer & 0xFC | expected
        assert checksum_is_right(done.packet)
        assert bytes(done.packet)[20:] == bytes(packet)[20:]


def test_downward_nothing_is_changed(case: Case) -> None:
    for tos in (0, 3, 0xB8, 0xFF):
        packet = back(tos=tos, ttl=3)
        assert bytes(case.down(packet).packet) == bytes(packet)


# ---- too big (RFC 2473 7.2)


def test_too_big_with_df(case: Case) -> None:
    fits, big = back(size=1460 - 28, flags="DF"), back(size=1461 - 28, flags="DF")
    assert case.down(fits).fate == "encapsulated"
    done = case.down(big)
    assert done.counted == {"drop-too-big": 1, "icmpv4-too-big": 1}
    ((where, message, _, to),) = done.outcomes
    assert (where, to) == (TO_SENDER, IPv4Address(SERVER).packed)
    icmp = ICMP(message)
    assert (icmp.type, icmp.code, icmp.nexthopmtu) == (3, 4, 1460)
    assert message[8:] == bytes(big)[:548]
    assert checksum_is_right(icmp)
    assert case.down(back(size=1461 - 28)).fate == "encapsulated"  # DF clear: fragmented outside


def test_too_big_between_customers(case: Case) -> None:
    packet = IP(src=str(SHARED), dst=str(OTHER), flags="DF") / UDP(sport=ALICE_PORT, dport=CAROL_PORT) / bytes(1433)
    done = case.up(packet)
    assert done.fate == "drop-too-big"
    assert done.outcomes[0][3] == SHARED.packed


def test_too_big_and_nobody_to_tell(case: Case) -> None:
    error = IP(bytes(icmp_error(ROUTER, SHARED, bytes(out()) + bytes(1500))))
    error.flags, error.chksum = "DF", None
    done = case.down(error)
    assert (done.counted, done.outcomes) == ({"drop-too-big": 1, "icmpv4-suppressed": 1}, ())


def test_other_link_and_other_policy() -> None:
    assert Case(link_mtu=2000).down(back(size=1900, flags="DF")).fate == "encapsulated"
    assert Case(link_mtu=1280).down(back(size=1241 - 28, flags="DF")).fate == "drop-too-big"
    assert Case(link_mtu=1280).down(back(size=1240 - 28, flags="DF")).fate == "encapsulated"
    assert Case(honour_df=False).down(back(size=9000, flags="DF")).fate == "encapsulated"


# ---- what the customers have done


def test_customers_are_counted(case: Case) -> None:
    table = case.aftr.table
    alice, bob = table.customer(ALICE), table.customer(BOB)
    assert alice is not None
    assert bob is not None
    for _ in range(3):
        case.up(out())
    case.up(longer(out(ALICE_PORT + 1)))
    case.up(out(BOB_PORT))  # refused
    case.down(back())
    case.up(IP(src=str(SHARED), dst=str(SHARED)) / UDP(sport=ALICE_PORT, dport=BOB_PORT))
    one = len(bytes(out()))
    case.now += 5
    line = alice.to_json(case.now)
    assert line["binding"] == str(ALICE)
    assert (line["address"], line["offset"], line["psid_len"], line["psid"]) == (str(SHARED), 6, 8, 0x34)
    assert (line["ports"], line["b4"], line["until"], line["derived"]) == (63 * 4, str(ALICE_B4), None, False)
    assert (line["packets_up"], line["octets_up"]) == (5, 4 * one + 4 + 28)
    assert (line["packets_down"], line["octets_down"]) == (1, len(bytes(back())))
    assert (line["refused_up"], line["last_seen_s"]) == (1, 5.0)
    assert (line["ports_seen"], line["ports_seen_ranges"]) == (2, ["1232-1233"])
    quiet = bob.to_json(case.now)
    assert (quiet["packets_up"], quiet["packets_down"], quiet["last_seen_s"]) == (0, 1, None)
    assert quiet["ports_seen_ranges"] == []


def test_by_mapping_rule() -> None:
    """A border relay without a table (RFC 7597 5.3, 8.1; Appendix A examples 2 and 3)."""
    ce = IPv6Address("2001:db8:12:3400:0:c000:212:34")
    case = Case()
    case.aftr = Aftr(BindingTable(rules=[parse_rule("192.0.2.0/24,v6=2001:db8::/40,ea=16")]), BR)
    assert case.down(IP(src="1.2.3.4", dst="192.0.2.18") / TCP(dport=1232)).outcomes[0][2].b4 == ce.packed  # type: ignore[union-attr]
    assert case.up(IP(src="192.0.2.18", dst="1.2.3.4") / TCP(sport=1232, dport=80), ce).fate == "decapsulated"
    assert case.up(IP(src="192.0.2.18", dst="1.2.3.4") / TCP(sport=1236, dport=80), ce).fate == "drop-outside-port-set"
    assert case.up(IP(src="192.0.2.19", dst="1.2.3.4") / TCP(sport=1232, dport=80), ce).fate == (
        "drop-foreign-ipv4-address"
    )
    assert case.up(IP(src="192.0.2.18", dst="1.2.3.4") / TCP(sport=1232), STRANGER).fate == "drop-unknown-softwire"
    assert case.up(IP(src="192.0.2.18", dst="192.0.2.77") / UDP(sport=1232, dport=2000), ce).fate == "hairpinned"


def test_full_port_load_of_64_customers() -> None:
    """Every port of a shared address, up and down: never a packet with a foreign port."""
    ends = [IPv6Address(0x20010DB8 << 96 | number) for number in range(64)]
    case = Case(*(Binding(SHARED, PortSet(0, 6, number), b4) for number, b4 in enumerate(ends)))
    up, down = bytearray(bytes(out(0))), bytearray(bytes(back(0)))
    for port in range(0, 65536, 3):
        up[20:22] = down[22:24] = port.to_bytes(2, "big")
        assert case.aftr.upward(bytes(up), ends[port >> 10].packed, 0, 0.0)
        assert not case.aftr.upward(bytes(up), ends[(port >> 10) ^ 1].packed, 0, 0.0)
        ((_, _, customer, _),) = case.aftr.downward(bytes(down), 0.0)
        assert customer is not None
        assert customer.b4 == ends[port >> 10].packed
    assert case.aftr.counters["drop-outside-port-set"] == case.aftr.counters["decapsulated"] == 21846
