"""IPv4-in-IPv6 packets as octets: what the userspace softwire checks, changes and answers. Pure: no socket, no clock.

Everything here runs on hostile input: sizes are checked before octets are read, and whatever is held back is bounded.
"""

from __future__ import annotations

import struct

IPV6_HEADER_LEN = 40
FRAGMENT_HEADER_LEN = 8
MAX_PACKET = 65535
PROTO_ICMP = 1
PROTO_IPIP = 4
NEXT_FRAGMENT = 44
NEXT_DESTINATION_OPTIONS = 60
DF = 0x40
"""The DF bit in octet 6 of an IPv4 header."""

TOO_BIG = 4
HOST_UNREACHABLE = 1
"""Codes of the ICMPv4 destination unreachable message (type 3)."""

ERROR_SOURCE = bytes((192, 0, 0, 1))
"""Source of our ICMPv4 errors: the far end of a softwire (RFC 6333 5.7). The kernel drops what comes in with an address
of this host, and the dummy address 192.0.0.8 (RFC 7600) is one, at the loop of ``recirculation``."""

_CE = 3
_ECT1 = 1
_ECT0 = 2
_MAX_EXTENSIONS = 4
_QUOTED = 548
"""Octets of the offending packet in an ICMPv4 error: 576 in all (RFC 1812 4.3.2.3)."""


def checksum(data: bytes) -> int:
    """Internet checksum of ``data`` (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    # 2^16 = 1 modulo 65535, so one big remainder is the one's complement sum; only all-zero octets sum to 0.
    total = int.from_bytes(data, "big") % 0xFFFF
    return 0xFFFF - total if total or not any(data) else 0


def icmp_unreachable(code: int, mtu: int, offending: bytes) -> bytes | None:
    """A complete ICMPv4 type 3 packet to the sender of ``offending`` (an IPv4 packet or its beginning).

    ``mtu`` is the next-hop MTU for code 4, else 0. None where RFC 1812 4.3.2.7 forbids an answer: ICMP errors,
    fragments but the first, senders or targets that are no single host, and quotes too short to be understood.
    """
    if len(offending) < 28 or offending[0] >> 4 != 4 or offending[0] & 15 < 5:
        return None
    header_len = (offending[0] & 15) * 4
    if len(offending) < header_len + 8 or ((offending[6] & 0x1F) << 8 | offending[7]):
        return None
    if offending[9] == PROTO_ICMP and offending[header_len] not in (0, 8, 13, 14):
        return None
    source, target = offending[12:16], offending[16:20]
    if source[0] in (0, 127) or source[0] >= 224 or target[0] >= 224:
        return None
    body = struct.pack("!BBHHH", 3, code, 0, 0, mtu) + offending[:_QUOTED]
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0xC0, 20 + len(body), 0, 0, 64, PROTO_ICMP, 0, ERROR_SOURCE, source)
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + body


def carried_tos(outer: int, inner: int) -> int | None:
    """The ToS octet that a packet leaves the tunnel with; None when it must be dropped.

    DSCP is the outer one (uniform model, RFC 2983; RFC 6333 7.1). ECN is RFC 6040 4.2: congestion met inside the tunnel
    reaches the receiver, and a packet of a sender without ECN that met it is lost.
    """
    outer_ecn, inner_ecn = outer & 3, inner & 3
    ecn = inner_ecn
    if outer_ecn == _CE:
        if not inner_ecn:
            return None
        ecn = _CE
    elif outer_ecn == _ECT1 and inner_ecn == _ECT0:
        ecn = _ECT1
    return (outer & 0xFC) | ecn


def set_tos(packet: bytearray, at: int, tos: int) -> None:
    """Write the ToS octet of the IPv4 header at ``at`` and mend its checksum (RFC 1624)."""
    total = 0xFFFF - int.from_bytes(packet[at + 10 : at + 12], "big")
    total += 0xFFFF - packet[at + 1] + tos
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    packet[at + 1] = tos
    packet[at + 10 : at + 12] = (0xFFFF - total).to_bytes(2, "big")


def skip_options(packet: bytes | bytearray | memoryview, next_header: int, at: int, end: int) -> tuple[int, int] | None:
    """Walk destination options (the encapsulation limit of RFC 2473 5.1 comes in one) from ``at``.

    Returns the first other next header and its offset; None when the chain is cut short or too long.
    """
    for _ in range(_MAX_EXTENSIONS):
        if next_header != NEXT_DESTINATION_OPTIONS:
            return next_header, at
        if at + 8 > end:
            return None
        next_header, at = packet[at], at + 8 + packet[at + 1] * 8
    return None
