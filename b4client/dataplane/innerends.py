"""Both ends of an IPv4 packet as mapping rules see them: addresses, ports or identifiers, place in a datagram. Pure.

Everything here runs on hostile input: lengths are checked before octets are read.
"""

from __future__ import annotations

from typing import Final, NamedTuple

PORT_PROTOCOLS: Final = frozenset((6, 17, 33, 132, 136))
"""TCP, UDP, DCCP, SCTP, UDP-Lite: their first four octets are the source and the destination port."""
ICMP: Final = 1
QUERIES: Final = frozenset((0, 8, 13, 14, 15, 16, 17, 18))
"""ICMP types with an identifier, which stands for both ports (RFC 7597 8.2)."""
ERRORS: Final = frozenset((3, 4, 5, 11, 12))
"""ICMP types that quote a packet."""

Datagram = tuple[bytes, bytes]
"""What the fragments of a datagram have in common: addresses, identification with protocol."""
Buffer = bytes | bytearray | memoryview


class Ends(NamedTuple):
    """Addresses as numbers. A port is None where the packet shows none.

    ``datagram`` is None for what is no fragment; ``first`` is True for what begins a datagram, whole or not.
    An ICMP error travels to whoever sent the packet that it quotes, from where that packet went to: its ports are the
    quoted ones, turned round, each only where the address is the same.
    """

    source: int
    source_port: int | None
    target: int
    target_port: int | None
    datagram: Datagram | None
    first: bool


def ends_of(packet: Buffer, at: int = 0) -> Ends | None:
    """The ends of the IPv4 packet at ``at``, of which the end may be missing; None when it is no packet."""
    size = len(packet)
    if size < at + 20 or packet[at] >> 4 != 4 or packet[at] & 15 < 5:
        return None
    body = at + (packet[at] & 15) * 4
    source, target = (int.from_bytes(packet[at + i : at + i + 4], "big") for i in (12, 16))
    place = (packet[at + 6] << 8 | packet[at + 7]) & 0x3FFF
    datagram = (bytes(packet[at + 12 : at + 20]), bytes((*packet[at + 4 : at + 6], packet[at + 9]))) if place else None
    first = not place & 0x1FFF
    source_port, target_port = _ports(packet, body, packet[at + 9], source, target) if first else (None, None)
    return Ends(source, source_port, target, target_port, datagram, first)


def _ports(
    packet: Buffer, body: int, protocol: int, source: int, target: int, *, quoted: bool = False
) -> tuple[int | None, int | None]:
    size = len(packet)
    if protocol in PORT_PROTOCOLS and size >= body + 4:
        return packet[body] << 8 | packet[body + 1], packet[body + 2] << 8 | packet[body + 3]
    if protocol != ICMP or size < body + 8:
        return None, None
    if packet[body] in QUERIES:
        identifier = packet[body + 4] << 8 | packet[body + 5]
        return identifier, identifier
    if quoted or packet[body] not in ERRORS:
        return None, None  # nobody sends an error about an error
    at = body + 8
    if size < at + 20 or packet[at] >> 4 != 4 or packet[at] & 15 < 5 or (packet[at + 6] & 0x1F) << 8 | packet[at + 7]:
        return None, None
    sender, receiver = (int.from_bytes(packet[at + i : at + i + 4], "big") for i in (12, 16))
    from_port, to_port = _ports(packet, at + (packet[at] & 15) * 4, packet[at + 9], sender, receiver, quoted=True)
    return to_port if receiver == source else None, from_port if sender == target else None
