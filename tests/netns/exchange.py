"""A captured exchange, unwrapped, and requirements table T as data: what each message must and must not carry."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from b4client.lab.ladder import Datagram, read_pcap
from b4client.wire import dhcp4, dhcp4o6, dhcp6

MULTICAST = IPv6Address("ff02::1:2")
ZERO = IPv4Address("0.0.0.0")
NO, MUST, MAY = "must not", "must", "may"

TABLE_T: dict[str, dict[int | str, object]] = {
    # RFC 2131 4.3.2, 4.3.6, 4.4.1 table 5; RFC 7341 8; RFC 7618 5 to 7
    "DISCOVER": {"U": False, "ciaddr": False, 50: MAY, 54: NO, 55: MUST, 61: MUST, 159: MAY, 109: NO},
    "REQUEST selecting": {"U": False, "ciaddr": False, 50: MUST, 54: MUST, 55: MUST, 61: MUST, 159: MUST},
    "REQUEST init-reboot": {"U": False, "ciaddr": False, 50: MUST, 54: NO, 55: MUST, 61: MUST, 159: MUST},
    "REQUEST renewing": {"U": True, "ciaddr": True, 50: NO, 54: NO, 55: MUST, 61: MUST, 159: MUST},
    "REQUEST rebinding": {"U": False, "ciaddr": True, 50: NO, 54: NO, 55: MUST, 61: MUST, 159: MUST},
    "RELEASE": {"U": True, "ciaddr": True, 50: NO, 54: MUST, 55: NO, 61: MUST, 159: MUST, 109: NO},
}


@dataclass(frozen=True)
class Said:
    """One DHCP 4o6 message of a capture: the datagram, the outer and the inner message."""

    datagram: Datagram
    outer: dhcp4o6.Dhcp4o6Message
    inner: dhcp4.Dhcp4Message

    @property
    def kind(self) -> dhcp4.MessageType:
        return dhcp4.MessageType(self.inner.message_type or 0)

    @property
    def row(self) -> str:
        """The column of table T that a client's message belongs to, by what it is for."""
        if self.kind is not dhcp4.MessageType.REQUEST:
            return self.kind.name
        if self.inner.ciaddr == ZERO:
            return "REQUEST selecting" if self.inner.get(54) else "REQUEST init-reboot"
        return "REQUEST renewing" if self.outer.unicast else "REQUEST rebinding"


def read_4o6(path: Path) -> list[Said]:
    """The DHCPV4-QUERY and DHCPV4-RESPONSE messages of a capture, in order."""
    found = []
    for datagram in read_pcap(path):
        if datagram.payload[0] in (20, 21):
            outer = dhcp4o6.decode(datagram.payload)
            found.append(Said(datagram, outer, dhcp4.decode(outer.dhcp4)))
    return found


def read_dhcp6(path: Path) -> list[tuple[Datagram, dhcp6.Dhcp6Message]]:
    """The other DHCPv6 messages of a capture, in order."""
    return [(d, dhcp6.decode(d.payload)) for d in read_pcap(path) if d.payload[0] not in (20, 21)]


def check_against_table_t(said: Said, *, shared: bool = True) -> None:
    """Everything that table T and RFC 7341 say about a client's message of this kind."""
    expected = TABLE_T[said.row]
    outer, inner, datagram = said.outer, said.inner, said.datagram
    # Outer: ports, type, flags; one option 87 (the decoder refuses another number); nothing else without RFC 8539.
    assert (datagram.source_port, datagram.destination_port) == (546, 547)
    assert outer.msg_type == 20
    assert outer.flags == (0x800000 if expected["U"] else 0), said.row
    assert outer.options == ()
    # [F-5] link-local towards multicast, wider scope towards unicast.
    assert datagram.source.is_link_local == (datagram.destination == MULTICAST)
    # Fixed fields.
    assert inner.op == 1
    assert inner.hops == 0
    assert not inner.broadcast
    assert (inner.yiaddr, inner.siaddr, inner.giaddr) == (ZERO, ZERO, ZERO)
    assert (inner.ciaddr != ZERO) == expected["ciaddr"], said.row
    assert (inner.sname, inner.file) == (b"", b"")
    for code, rule in expected.items():
        if isinstance(code, int) and rule != MAY:
            needed = rule == MUST and not (code == 159 and not shared)
            assert (inner.get(code) is not None) == needed, f"{said.row}: option {code} {rule}"
    requested = inner.get(55)
    if requested is not None:
        assert 159 in requested
        assert 108 not in requested  # [S-19]
    assert inner.get(61)[:1] == b"\xff"  # type: ignore[index]  # RFC 4361 [Q-7]
