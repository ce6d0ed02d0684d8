"""An lwAFTR with four customers, and what it did with a packet, for tests. Packets are made by scapy."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.packet import Packet

from b4client.lab.aftrcore import Aftr, Outcomes
from b4client.lab.aftrfate import COUNTERS, FATES
from b4client.lab.aftrpolicy import Policy
from b4client.lab.binding import Binding, BindingTable
from b4client.model.portset import PortSet

SHARED, OTHER, WHOLE = IPv4Address("192.0.2.18"), IPv4Address("192.0.2.19"), IPv4Address("192.0.2.99")
ALICE_B4, BOB_B4, CAROL_B4, DAVE_B4 = (IPv6Address(f"2001:db8::{name}") for name in ("a", "b", "c", "d"))
STRANGER = IPv6Address("2001:db8::bad")
BR = IPv6Address("2001:db8:ffff::1")
SERVER, ROUTER = "198.51.100.10", "203.0.113.1"
ALICE_PORT, BOB_PORT, CAROL_PORT = 1232, 1236, 1232
"""RFC 7597 Appendix A: with a = 6 and k = 8, 1232-1235 are PSID 0x34's, 1236-1239 PSID 0x35's."""
UNBOUND_PORT = 1240
ALICE = Binding(SHARED, PortSet(6, 8, 0x34), ALICE_B4)
BOB = Binding(SHARED, PortSet(6, 8, 0x35), BOB_B4)
CAROL = Binding(OTHER, PortSet(6, 8, 0x34), CAROL_B4)
DAVE = Binding(WHOLE, None, DAVE_B4)


class Done(NamedTuple):
    """What became of a packet: the counters that grew, and what must leave."""

    counted: dict[str, int]
    outcomes: Outcomes

    @property
    def fate(self) -> str:
        """The one fate that was counted."""
        (fate,) = [name for name in self.counted if name in set(FATES)]
        assert self.counted[fate] == 1
        return fate

    @property
    def packet(self) -> Packet:
        """The one IPv4 packet that must leave."""
        ((_, octets, _, _),) = self.outcomes
        return IP(octets)


class Case:
    """An lwAFTR under test. ``up`` and ``down`` tell what it did; ``now`` is its clock."""

    def __init__(self, *bindings: Binding, **policy: object) -> None:
        table = BindingTable(bindings or (ALICE, BOB, CAROL, DAVE))
        self.aftr = Aftr(table, BR, Policy(**policy))  # type: ignore[arg-type]
        self.now = 100.0
        self.fed = 0

    def up(self, packet: Packet | bytes, b4: IPv6Address = ALICE_B4, traffic_class: int | None = None) -> Done:
        """From a softwire; the traffic class outside is that inside unless it is given."""
        octets = bytes(packet)
        outside = (octets[1] if len(octets) > 1 else 0) if traffic_class is None else traffic_class
        self.fed += 1
        return self.watch(lambda: self.aftr.upward(octets, b4.packed, outside, self.now))

    def down(self, packet: Packet | bytes) -> Done:
        """From the IPv4 side."""
        self.fed += 1
        return self.watch(lambda: self.aftr.downward(bytes(packet), self.now))

    def error(self, message: bytes) -> Done:
        """An ICMPv6 message from the IPv6 network."""
        return self.watch(lambda: self.aftr.tunnel_error(message, self.now))

    def watch(self, work: Callable[[], Outcomes | None]) -> Done:
        """Whatever grows by ``work``."""
        before = dict(self.aftr.counters)
        outcomes = work() or ()
        assert self.aftr.counters.keys() == COUNTERS.keys()
        grown = {name: value - before[name] for name, value in self.aftr.counters.items()}
        return Done({name: value for name, value in grown.items() if value}, outcomes)

    def balance(self) -> None:
        """Every packet has exactly one fate, or waits."""
        fates = sum(self.aftr.counters[fate] for fate in FATES)
        assert fates + self.aftr.fragments.waiting == self.fed


def longer(packet: Packet) -> bytes:
    """The same packet with IP options, so that the short way cannot be taken."""
    packet = packet.copy()
    packet[IP].options = [IPOption_NOP()] * 4
    return bytes(packet)


def checksum_is_right(layer: Packet) -> bool:
    """The checksum of an IP or ICMP layer is the one that scapy would write."""
    again = layer.copy()
    del again.chksum
    return bool(layer.__class__(bytes(again)).chksum == layer.chksum)


def out(port: int = ALICE_PORT, destination: object = SERVER, source: object = SHARED, **ip: object) -> Packet:
    """A UDP packet of a customer."""
    return IP(src=str(source), dst=str(destination), **ip) / UDP(sport=port, dport=80) / b"data"


def back(port: int = ALICE_PORT, address: object = SHARED, size: int = 4, **ip: object) -> Packet:
    """A UDP packet of ``size`` octets for a customer."""
    return IP(src=SERVER, dst=str(address), **ip) / UDP(sport=80, dport=port) / bytes(size)


def echo(source: object, destination: object, identifier: int, kind: int = 8) -> Packet:
    """An ICMP message with an identifier."""
    return IP(src=str(source), dst=str(destination)) / ICMP(type=kind, id=identifier) / b"ping"


def icmp_error(source: object, destination: object, quoted: Packet | bytes, kind: int = 3, code: int = 1) -> Packet:
    """An ICMP error that quotes a packet."""
    return IP(src=str(source), dst=str(destination)) / ICMP(type=kind, code=code) / bytes(quoted)
