"""The lwAFTR's decisions, with packets made by scapy (RFC 7596 6, 8.1)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.sctp import SCTP

from b4client.lab.binding import MAX_TRAINS, TRAIN_LIFE_S, Aftr, Binding, BindingTable, Ends, Fate, ends_of
from b4client.model.portset import PortSet

A = IPv4Address("192.0.2.18")
PORTS = PortSet(6, 8, 0x34)
MINE, OTHERS = 1232, 1236  # RFC 7597 Appendix A: 1232-1235 are PSID 0x34's
B4 = IPv6Address("2001:db8::1").packed
NEIGHBOUR = IPv6Address("2001:db8::2").packed
STRANGER = IPv6Address("2001:db8::3").packed
SERVER = "198.51.100.10"


@pytest.fixture
def aftr() -> Aftr:
    return Aftr(
        BindingTable(
            [
                Binding(A, PORTS, IPv6Address(B4)),
                Binding(A, PortSet(6, 8, 0x35), IPv6Address(NEIGHBOUR)),
                Binding(IPv4Address("192.0.2.99"), None, IPv6Address("2001:db8::99")),
            ]
        )
    )


def up(port: int, layer: type = UDP, address: str = str(A)) -> bytes:
    return bytes(IP(src=address, dst=SERVER) / layer(sport=port, dport=80) / b"data")


def echo(source: str, destination: str, identifier: int, kind: int = 8) -> bytes:
    return bytes(IP(src=source, dst=destination) / ICMP(type=kind, id=identifier) / b"ping")


@pytest.mark.parametrize("layer", [TCP, UDP, SCTP])
def test_upward_by_port(aftr: Aftr, layer: type) -> None:
    assert aftr.upward(up(MINE, layer), B4, 0) is Fate.DECAPSULATED
    assert aftr.upward(up(OTHERS, layer), B4, 0) is Fate.DROP_OUTSIDE_PORT_SET
    assert aftr.counters["decapsulated"] == aftr.counters["drop-outside-port-set"] == 1


def test_upward_from_somebody_else(aftr: Aftr) -> None:
    # The port is bound, but to another softwire: outside *this* one's set.
    assert aftr.upward(up(MINE), NEIGHBOUR, 0) is Fate.DROP_OUTSIDE_PORT_SET
    assert aftr.upward(up(MINE), STRANGER, 0) is Fate.DROP_UNKNOWN_SOFTWIRE
    assert aftr.upward(up(MINE, address="192.0.2.19"), B4, 0) is Fate.DROP_FOREIGN_ADDRESS
    assert aftr.upward(up(MINE, address="192.0.2.99"), B4, 0) is Fate.DROP_FOREIGN_ADDRESS


def test_downward(aftr: Aftr) -> None:
    def down(port: int, address: IPv4Address = A) -> bytes:
        return bytes(IP(src=SERVER, dst=str(address)) / TCP(sport=80, dport=port))

    assert aftr.downward(down(MINE), 0) == (Fate.ENCAPSULATED, B4)
    assert aftr.downward(down(OTHERS), 0) == (Fate.ENCAPSULATED, NEIGHBOUR)
    assert aftr.downward(down(1240), 0) == (Fate.DROP_NO_BINDING, b"")
    assert aftr.downward(down(MINE, IPv4Address("192.0.2.20")), 0) == (Fate.DROP_NO_BINDING, b"")
    assert aftr.downward(down(7, IPv4Address("192.0.2.99")), 0)[0] is Fate.ENCAPSULATED  # unshared: every port


def test_icmp_query_goes_by_its_identifier(aftr: Aftr) -> None:
    assert aftr.upward(echo(str(A), SERVER, MINE), B4, 0) is Fate.DECAPSULATED
    assert aftr.upward(echo(str(A), SERVER, 7), B4, 0) is Fate.DROP_OUTSIDE_PORT_SET
    assert aftr.downward(echo(SERVER, str(A), MINE, kind=0), 0) == (Fate.ENCAPSULATED, B4)


def test_icmp_error_goes_by_what_it_quotes(aftr: Aftr) -> None:
    sent = IP(up(MINE))
    error = bytes(IP(src="203.0.113.1", dst=str(A)) / ICMP(type=3, code=3) / sent)
    assert aftr.downward(error, 0) == (Fate.ENCAPSULATED, B4)
    short = bytes(IP(src="203.0.113.1", dst=str(A)) / ICMP(type=11, code=0) / bytes(sent)[:28])
    assert aftr.downward(short, 0) == (Fate.ENCAPSULATED, B4)
    quoted_echo = bytes(IP(src="203.0.113.1", dst=str(A)) / ICMP(type=3, code=1) / IP(echo(str(A), SERVER, MINE)))
    assert aftr.downward(quoted_echo, 0) == (Fate.ENCAPSULATED, B4)
    came = IP(src=SERVER, dst=str(A)) / UDP(sport=80, dport=MINE)
    assert aftr.upward(bytes(IP(src=str(A), dst=SERVER) / ICMP(type=3, code=3) / came), B4, 0) is Fate.DECAPSULATED
    spoofed = bytes(IP(src="192.0.2.1", dst=SERVER) / ICMP(type=3, code=3) / came)
    assert aftr.upward(spoofed, B4, 0) is Fate.DROP_FOREIGN_ADDRESS
    elsewhere = bytes(IP(src=SERVER, dst="192.0.2.99") / ICMP(type=3, code=3) / sent)
    assert aftr.downward(elsewhere, 0)[0] is Fate.DROP_NO_BINDING


def test_fragments_share_the_fate_of_the_first(aftr: Aftr) -> None:
    whole = IP(src=str(A), dst=SERVER, id=77) / UDP(sport=MINE, dport=80) / bytes(3000)
    first, second, third = (bytes(f) for f in fragment(whole, fragsize=1400))
    assert aftr.upward(second, B4, 0) is Fate.DROP_FRAGMENT
    assert aftr.upward(first, B4, 0) is Fate.DECAPSULATED
    assert aftr.upward(second, B4, 1) is Fate.DECAPSULATED
    assert aftr.upward(third, STRANGER, 1) is Fate.DROP_FRAGMENT  # of another softwire
    assert aftr.upward(third, B4, TRAIN_LIFE_S + 1) is Fate.DROP_FRAGMENT
    down = IP(src=SERVER, dst=str(A), id=78) / UDP(sport=80, dport=MINE) / bytes(3000)
    first, second, _ = (bytes(f) for f in fragment(down, fragsize=1400))
    assert [aftr.downward(f, 0) for f in (first, second)] == [(Fate.ENCAPSULATED, B4)] * 2


def test_memory_for_fragments_is_bounded(aftr: Aftr) -> None:
    for number in range(MAX_TRAINS + 10):
        packet = IP(src=str(A), dst=SERVER, id=number, flags="MF") / UDP(sport=MINE, dport=80) / bytes(16)
        assert aftr.upward(bytes(packet), B4, 0) is Fate.DECAPSULATED
    assert len(aftr._trains) == MAX_TRAINS


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        bytes(20),
        b"\x65" + up(MINE)[1:],
        up(MINE)[:21],
        b"\x44" + up(MINE)[1:],
        bytes(IP(src=str(A), dst=SERVER, proto=17) / b"abc"),
        bytes(IP(src=str(A), dst=SERVER, proto=1) / b"\x08\0\0\0"),
        bytes(IP(src=str(A), dst=SERVER) / ICMP(type=3, code=3) / b"short"),
    ],
)
def test_malformed(aftr: Aftr, packet: bytes) -> None:
    assert aftr.upward(packet, B4, 0) is Fate.DROP_MALFORMED


@pytest.mark.parametrize("protocol", [0, 2, 47, 50, 255])
def test_protocols_without_ports_cannot_be_shared(aftr: Aftr, protocol: int) -> None:
    packet = bytes(IP(src=str(A), dst=SERVER, proto=protocol) / bytes(16))
    assert aftr.upward(packet, B4, 0) is Fate.DROP_UNSUPPORTED
    redirect_kind = bytes(IP(src=str(A), dst=SERVER) / ICMP(type=42) / bytes(16))
    assert aftr.upward(redirect_kind, B4, 0) is Fate.DROP_UNSUPPORTED


@given(st.binary(max_size=120))
def test_any_octets_have_a_fate(data: bytes) -> None:
    assert isinstance(ends_of(data), Ends | Fate)


@given(st.binary(max_size=100))
def test_any_ipv4_body_has_a_fate(body: bytes) -> None:
    for protocol in (1, 6, 17, 47):
        packet = bytes(IP(src=str(A), dst=SERVER, proto=protocol) / body)
        assert isinstance(ends_of(packet), Ends | Fate)


@pytest.mark.parametrize(
    "text",
    ["192.0.2.1,b4=2001:db8::1", "192.0.2.18,a=6,k=8,psid=0x34,b4=2001:db8::1", "192.0.2.1,a=0,k=4,psid=0x0,b4=::2"],
)
def test_binding_as_text_round_trip(text: str) -> None:
    assert str(Binding.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a binding"),
        ("192.0.2.1", "not a binding"),
        ("192.0.2.1,b4", "not a binding"),
        ("192.0.2.1,x=1,b4=::1", "not a binding"),
        ("192.0.2.1,psid=1,b4=::1", "psid without k"),
        ("192.0.2.1,k=8,psid=256,b4=::1", "does not fit"),
        ("192.0.2.300,b4=::1", "192.0.2.300"),
        ("192.0.2.1,b4=192.0.2.1", "192.0.2.1"),
    ],
)
def test_binding_as_text_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Binding.parse(text)


def test_no_port_is_bound_twice() -> None:
    table = BindingTable([Binding(A, PORTS, IPv6Address(B4))])
    for ports in (PORTS, None, PortSet(0, 6, 1), PortSet(6, 4, 3)):
        with pytest.raises(ValueError, match="overlaps"):
            table.add(Binding(A, ports, IPv6Address(NEIGHBOUR)))
    table.add(Binding(A, PortSet(6, 8, 0x33), IPv6Address(NEIGHBOUR)))
    assert len(list(table)) == 2


def test_removed_binding_is_gone() -> None:
    binding = Binding(A, PORTS, IPv6Address(B4))
    table = BindingTable([binding])
    table.remove(binding)
    assert not list(table)
    assert not table.knows(B4)
    with pytest.raises(KeyError):
        table.remove(binding)
