"""What is read out of packets, where they go, whom they may come from; with bounds that hold whoever sends."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR, fragment
from scapy.packet import Packet, Raw

from b4client.dataplane import meshgate
from b4client.dataplane.innerends import Ends, ends_of
from b4client.dataplane.mesh import MeshTable, Owner, Rule
from b4client.dataplane.meshgate import MeshGate, Verdict

OURS, THEIRS, INTERNET = "192.0.2.18", "192.0.2.19", "198.51.100.10"
OUR_PORT, THEIR_PORT = 1232, 8080
RULE = Rule(int(IPv4Address("192.0.2.0")), 24, int(IPv6Address("2001:db8::")), 40, 16, 6)
US = int(IPv6Address("2001:db8:12:3400:0:c000:212:34"))
THEM = int(IPv6Address("2001:db8:13:e400:0:c000:213:e4"))
NOW = 1000.0


def number(address: str) -> int:
    return int(IPv4Address(address))


@pytest.fixture
def gate() -> MeshGate:
    return MeshGate(MeshTable([RULE]), US)


def out(layer: Packet, target: str = THEIRS) -> bytes:
    return bytes(IP(src=OURS, dst=target) / layer)


# ---- reading packets


@pytest.mark.parametrize(
    ("packet", "ports"),
    [
        (UDP(sport=1232, dport=8080), (1232, 8080)),
        (TCP(sport=1232, dport=8080), (1232, 8080)),
        (ICMP(type=8, id=1233), (1233, 1233)),
        (ICMP(type=0, id=1233), (1233, 1233)),
        (ICMP(type=3, code=3) / IP(src=THEIRS, dst=OURS) / UDP(sport=8080, dport=1232), (1232, 8080)),
        (ICMP(type=11) / IP(src=THEIRS, dst=OURS, options=[IPOption_RR()]) / TCP(sport=8080, dport=1232), (1232, 8080)),
        (ICMP(type=3) / IP(src=THEIRS, dst=OURS) / ICMP(type=8, id=8081), (8081, 8081)),
        # An error of somebody on the way: his own address has no port in it.
        (ICMP(type=11) / IP(src=THEIRS, dst=INTERNET) / UDP(sport=8080, dport=53), (None, 8080)),
        (ICMP(type=3) / IP(src=INTERNET, dst=OURS) / UDP(sport=8080, dport=1232), (1232, None)),
        # Nobody sends an error about an error, or about a fragment behind the first.
        (ICMP(type=3) / IP(src=THEIRS, dst=OURS) / ICMP(type=3), (None, None)),
        (ICMP(type=3) / IP(src=THEIRS, dst=OURS, frag=8) / UDP(sport=8080, dport=1232), (None, None)),
        (ICMP(type=9), (None, None)),
        (Raw(b"GRE or whatever"), (None, None)),
    ],
)
def test_both_ends(packet: Packet, ports: tuple[int | None, int | None]) -> None:
    found = ends_of(out(packet))
    assert found == Ends(number(OURS), ports[0], number(THEIRS), ports[1], None, True)


def test_fragments() -> None:
    first, second = fragment(IP(src=OURS, dst=THEIRS, id=7) / UDP(sport=1, dport=2) / Raw(bytes(1000)), fragsize=800)
    ends = [ends_of(bytes(piece)) for piece in (first, second)]
    assert ends[0] is not None
    assert ends[1] is not None
    assert (ends[0].first, ends[0].source_port) == (True, 1)
    assert (ends[1].first, ends[1].source_port) == (False, None)
    assert ends[0].datagram == ends[1].datagram is not None


@given(st.binary(max_size=120), st.integers(0, 40))
def test_whatever_comes(octets: bytes, at: int) -> None:
    """Also behind a header that says "ICMP error"."""
    ends_of(octets, at)
    ends_of(bytes(IP(src=OURS, dst=THEIRS, proto=1)) + b"\x03\x03\0\0\0\0\0\0" + octets)


# ---- outward


def test_where_a_packet_goes(gate: MeshGate) -> None:
    them = Owner(THEM, 0)
    assert gate.owner(out(UDP(sport=OUR_PORT, dport=THEIR_PORT))) == them
    assert gate.owner(out(UDP(sport=OUR_PORT, dport=THEIR_PORT + 4))) != them
    assert gate.owner(out(TCP(sport=OUR_PORT, dport=THEIR_PORT))) == them
    assert gate.owner(out(ICMP(type=8, id=THEIR_PORT))) == them
    assert gate.owner(out(UDP(sport=OUR_PORT, dport=80))) is None
    assert gate.owner(out(UDP(sport=OUR_PORT, dport=THEIR_PORT), INTERNET)) is None
    assert gate.owner(out(Raw(b"no ports"))) is None
    error = ICMP(type=3, code=3) / IP(src=THEIRS, dst=OURS) / UDP(sport=THEIR_PORT, dport=OUR_PORT)
    assert gate.owner(out(error)) == them


def test_fragments_go_where_the_first_went(gate: MeshGate) -> None:
    whole = IP(src=OURS, dst=THEIRS, id=7) / UDP(sport=OUR_PORT, dport=THEIR_PORT) / Raw(bytes(3000))
    pieces = [bytes(piece) for piece in fragment(whole, fragsize=1000)]
    assert gate.owner(pieces[1]) is None  # nothing is known yet: the relay sorts it out
    assert {gate.owner(piece) for piece in pieces} == {Owner(THEM, 0)}
    other = bytes(fragment(IP(src=OURS, dst=THEIRS, id=8) / UDP() / Raw(bytes(3000)), fragsize=1000)[1])
    assert gate.owner(other) is None


def test_tables_outward_are_bounded(gate: MeshGate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshgate, "MAX_KNOWN", 8)
    monkeypatch.setattr(meshgate, "MAX_DATAGRAMS", 8)
    monkeypatch.setattr(meshgate, "MAX_NARROW", 8)
    big = IP(src=OURS, dst=THEIRS) / UDP(sport=OUR_PORT, dport=THEIR_PORT) / Raw(bytes(1000))
    first = bytes(fragment(big, fragsize=800)[0])
    for n in range(50):
        gate.owner(out(UDP(sport=OUR_PORT, dport=2000 + n)))
        gate.owner(first[:4] + n.to_bytes(2, "big") + first[6:])
        gate.narrow(n, 1240, NOW)
    assert len(gate._owners) <= 8
    assert len(gate._outward) <= 8
    assert len(gate._narrow) <= 8


def test_a_narrow_path(gate: MeshGate) -> None:
    assert gate.all_wide
    gate.narrow(THEM, 1360, NOW)
    assert not gate.all_wide
    assert gate.mtu(THEM, 1460, NOW + 1) == 1360
    assert gate.mtu(US, 1460, NOW + 1) == 1460
    assert gate.mtu(THEM, 1300, NOW + 1) == 1300
    assert gate.mtu(THEM, 1460, NOW + meshgate.NARROW_S) == 1460


# ---- inward


def judge(gate: MeshGate, packet: Packet | bytes, source: int = THEM, now: float = NOW) -> Verdict:
    buffer = bytearray(meshgate.VNET_LEN) + bytes(packet)
    if gate.recognises(source.to_bytes(16, "big"), buffer, meshgate.VNET_LEN, len(buffer)):
        return Verdict.ADMITTED
    return gate.judge(source.to_bytes(16, "big"), buffer, meshgate.VNET_LEN, len(buffer), tos=0, now=now)


def inbound(port: int = THEIR_PORT, source: str = THEIRS, size: int = 0) -> Packet:
    return IP(src=source, dst=OURS, id=7) / UDP(sport=port, dport=OUR_PORT) / Raw(bytes(size))


def test_who_is_admitted(gate: MeshGate) -> None:
    for _ in range(2):  # as found, and as remembered
        assert judge(gate, inbound()) is Verdict.ADMITTED
        assert judge(gate, inbound(THEIR_PORT + 4)) is Verdict.SPOOFED
        assert judge(gate, inbound(80)) is Verdict.SPOOFED
        assert judge(gate, inbound(source="192.0.2.20")) is Verdict.SPOOFED
        assert judge(gate, inbound(source=INTERNET)) is Verdict.SPOOFED
        assert judge(gate, inbound(), THEM + 1) is Verdict.SPOOFED
        assert judge(gate, inbound(), int(IPv6Address("2001:db9::1"))) is Verdict.FOREIGN
        assert judge(gate, IP(src=THEIRS, dst=OURS) / Raw(b"no ports")) is Verdict.SPOOFED
    assert gate.received == [2]


def test_a_datagram_in_pieces(gate: MeshGate) -> None:
    pieces = fragment(inbound(size=3000), fragsize=1000)
    assert judge(gate, pieces[2]) is Verdict.HELD
    assert judge(gate, pieces[2], THEM + 1) is Verdict.SPOOFED
    assert judge(gate, pieces[0]) is Verdict.ADMITTED
    first = bytearray(meshgate.VNET_LEN) + bytes(pieces[0])
    source = THEM.to_bytes(16, "big")
    waited = gate.waiting_for(source, first, meshgate.VNET_LEN, len(first))
    assert [held.packet[meshgate.VNET_LEN :] for held in waited] == [bytes(pieces[2])]
    assert gate.waiting_for(source, first, meshgate.VNET_LEN, len(first)) == []
    assert judge(gate, pieces[1]) is Verdict.ADMITTED
    # Who shares the address sends a piece of the same datagram: not of his own, and not into theirs.
    neighbour = int(IPv6Address("2001:db8:13:3400:0:c000:213:34"))
    assert judge(gate, pieces[1], neighbour) is Verdict.HELD
    # Identifications come again; what was said of the last one does not hold for ever.
    assert judge(gate, pieces[1], now=NOW + meshgate.DATAGRAM_LIFE_S) is Verdict.HELD


def test_pieces_that_wait_are_few_and_given_up(gate: MeshGate) -> None:
    piece = bytes(fragment(inbound(size=3000), fragsize=1000)[1])
    verdicts = [judge(gate, piece[:4] + n.to_bytes(2, "big") + piece[6:]) for n in range(100)]
    assert verdicts == [Verdict.HELD] * meshgate.MAX_HELD + [Verdict.DROPPED] * (100 - meshgate.MAX_HELD)
    assert gate.expire(NOW + meshgate.HOLD_S - 0.1) == 0
    assert gate.expire(NOW + meshgate.HOLD_S) == meshgate.MAX_HELD
    assert judge(gate, piece, now=NOW + meshgate.HOLD_S) is Verdict.HELD


def test_pieces_that_wait_are_short_together(gate: MeshGate) -> None:
    piece = bytes(fragment(inbound(size=40000), fragsize=30000)[1][:1])
    big = piece[:2] + (20 + 30000).to_bytes(2, "big") + piece[4:20] + bytes(30000)
    verdicts = [judge(gate, big) for _ in range(20)]
    assert verdicts.count(Verdict.HELD) == meshgate.MAX_HELD_OCTETS // len(big)


def test_tables_inward_are_bounded(gate: MeshGate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshgate, "MAX_KNOWN", 8)
    monkeypatch.setattr(meshgate, "MAX_DATAGRAMS", 8)
    first = bytes(fragment(inbound(size=1000), fragsize=800)[0])
    for n in range(100):
        assert judge(gate, inbound((1 + n // 4 % 63) * 1024 + (0xE4 << 2) + n % 4)) is Verdict.ADMITTED
        assert judge(gate, first[:4] + n.to_bytes(2, "big") + first[6:]) is Verdict.ADMITTED
    assert len(gate._senders) <= 8
    assert len(gate._inward) <= 8
