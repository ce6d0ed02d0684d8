"""IPv4 packets as the lwAFTR reads them: both ends with their ports, fragments, and small repairs. Pure.

Written for the laboratory alone, and not shared with the client's data plane: two ends that share a mistake agree about
it, and no test would see it. Everything here runs on hostile input: lengths are checked before octets are read.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from b4client.lab.aftrfate import Fate

PORT_PROTOCOLS: Final = frozenset((6, 17, 33, 132, 136))
"""TCP, UDP, DCCP, SCTP, UDP-Lite: the source and the destination port are their first four octets."""
ICMP: Final = 1
ICMP_QUERIES: Final = frozenset((0, 8, 13, 14, 15, 16, 17, 18))
"""ICMP types with an identifier: echo, timestamp, information, address mask; requests and replies."""
ICMP_ERRORS: Final = frozenset((3, 4, 5, 11, 12))
"""ICMP types that quote a packet."""
DF: Final = 0x4000
MF: Final = 0x2000
OFFSET: Final = 0x1FFF
MAX_PACKET: Final = 65535

_HEADER = struct.Struct("!BBHHHBBxx4s4s")


class Fragment(NamedTuple):
    """Where a fragment belongs: octets ``start`` to ``end`` of the datagram ``key``, and whether more come behind."""

    key: tuple[bytes, bytes, int, int]
    start: int
    end: int
    more: bool


class Ends(NamedTuple):
    """Both ends of a packet as the binding sees them.

    The ports are None in fragments behind the first, and for protocols without ports. For an ICMP query both are the
    identifier. For an ICMP error they are those of the *quoted* packet, turned round: the error travels to whoever sent
    the packet, so the quoted source is the error's destination. ``icmp_type`` is None for anything but ICMP.
    """

    protocol: int
    source: bytes
    source_port: int | None
    destination: bytes
    destination_port: int | None
    icmp_type: int | None = None
    fragment: Fragment | None = None


class _Header(NamedTuple):
    protocol: int
    source: bytes
    destination: bytes
    body: bytes
    fragment: Fragment | None


def ends_of(packet: bytes) -> Ends | Fate:
    """The ends of an IPv4 packet, or the fate of one that has none."""
    header = _header(packet)
    if isinstance(header, Fate):
        return header
    protocol, source, destination, body, fragment = header
    if fragment is not None and fragment.start:
        return Ends(protocol, source, None, destination, None, None, fragment)
    if protocol in PORT_PROTOCOLS:
        if len(body) < 4:
            return Fate.DROP_MALFORMED
        return Ends(protocol, source, _u16(body, 0), destination, _u16(body, 2), None, fragment)
    if protocol != ICMP:
        return Ends(protocol, source, None, destination, None, None, fragment)
    if len(body) < 8:
        return Fate.DROP_MALFORMED
    kind = body[0]
    if kind in ICMP_QUERIES:
        identifier = _u16(body, 4)
        return Ends(protocol, source, identifier, destination, identifier, kind, fragment)
    if kind not in ICMP_ERRORS:
        return Fate.DROP_UNSUPPORTED
    if fragment is None and sum16(body):
        return Fate.DROP_CHECKSUM  # RFC 5508 REQ-3
    quoted = quoted_ends(body[8:])
    if isinstance(quoted, Fate):
        return quoted
    inner_source, from_port, inner_destination, to_port = quoted
    return Ends(protocol, inner_destination, to_port, inner_source, from_port, kind, fragment)


def quoted_ends(quoted: bytes) -> tuple[bytes, int, bytes, int] | Fate:
    """(source, its port, destination, its port) of a packet quoted in an ICMP error, of which the end may be missing.

    IP options are skipped, the checksum of the transport is not looked at (RFC 5508 REQ-3).
    """
    header = _header(quoted, whole=False)
    if isinstance(header, Fate):
        return header
    protocol, source, destination, body, fragment = header
    if fragment is not None and fragment.start:
        return Fate.DROP_UNSUPPORTED  # a later fragment quotes no port
    if protocol in PORT_PROTOCOLS and len(body) >= 4:
        return source, _u16(body, 0), destination, _u16(body, 2)
    if protocol == ICMP and len(body) >= 8 and body[0] in ICMP_QUERIES:
        return source, _u16(body, 4), destination, _u16(body, 4)
    return Fate.DROP_MALFORMED if protocol in PORT_PROTOCOLS else Fate.DROP_UNSUPPORTED


def _u16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _header(packet: bytes, *, whole: bool = True) -> _Header | Fate:
    if len(packet) < 20:
        return Fate.DROP_MALFORMED
    first, _, total, identification, flags, _, protocol, source, destination = _HEADER.unpack_from(packet)
    length = (first & 15) * 4
    if first >> 4 != 4 or length < 20 or len(packet) < length or total < length or (whole and len(packet) < total):
        return Fate.DROP_MALFORMED
    if sum16(packet[:length]):
        return Fate.DROP_CHECKSUM
    fragment = None
    if flags & (MF | OFFSET):
        start, more = (flags & OFFSET) * 8, bool(flags & MF)
        end = start + total - length
        # All but the last carry a multiple of eight octets, and no datagram is longer than its length field can say.
        if end == start or end + length > MAX_PACKET or (more and end % 8):
            return Fate.DROP_MALFORMED
        fragment = Fragment((source, destination, protocol, identification), start, end, more)
    return _Header(protocol, source, destination, packet[length:total], fragment)


def sum16(data: bytes) -> int:
    """The one's complement sum of ``data`` in 16-bit words, less 0xffff: 0 where a checksum in it is right."""
    if len(data) & 1:
        data += b"\0"
    # 2^16 = 1 modulo 65535, so that the remainder of the whole as one number is the sum of its words.
    return int.from_bytes(data, "big") % 0xFFFF


def checksum(data: bytes) -> bytes:
    """The Internet checksum of ``data``, whose own checksum field is zero (RFC 1071)."""
    return (0xFFFF - sum16(data)).to_bytes(2, "big")


def changed(packet: bytes, *, tos: int | None = None, ttl: int | None = None) -> bytes:
    """``packet`` with another type of service or time to live, and the header checksum that belongs to it."""
    length = (packet[0] & 15) * 4
    header = bytearray(packet[:length])
    if tos is not None:
        header[1] = tos
    if ttl is not None:
        header[8] = ttl
    header[10:12] = b"\0\0"
    header[10:12] = checksum(bytes(header))
    return bytes(header) + packet[length:]


def carried_tos(outer: int, inner: int) -> int | None:
    """The type of service that a packet leaves the softwire with; None where it must be dropped.

    The DSCP is the outer one: what the IPv6 network made of it goes on (RFC 6333 7.1, RFC 2983 uniform model). The ECN
    field follows RFC 6040 4.2: congestion met on the way is told on, and where it cannot be told the packet is dropped.
    """
    ecn = inner & 3
    if outer & 3 == 3:
        if not ecn:
            return None
        ecn = 3
    elif (outer & 3, ecn) == (1, 2):
        ecn = 1
    return outer & 0xFC | ecn
