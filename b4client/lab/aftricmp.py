"""ICMP that the lwAFTR itself says and hears (RFC 7596 6.2 and 8, RFC 2473 8, RFC 4443, RFC 1812 4.3.2). Pure.

Messages are made without the IP header, which the kernel puts before them with an address of its own.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from b4client.lab.aftrpacket import ICMP, ICMP_QUERIES, OFFSET, checksum
from b4client.lab.aftrpolicy import IPV6_MIN_MTU

IPV6_HEADER: Final = 40
HOP_LIMIT: Final = 64
PROTO_IPIP: Final = 4
PROTO_ICMPV6: Final = 58
NEXT_FRAGMENT: Final = 44

UNREACHABLE: Final = 3
HOST_UNREACHABLE: Final = 1
FRAGMENTATION_NEEDED: Final = 4
TIME_EXCEEDED: Final = 11
V6_UNREACHABLE: Final = 1
V6_TOO_BIG: Final = 2
V6_PARAMETER_PROBLEM: Final = 4
SOURCE_POLICY: Final = 5
"""Types and codes of ICMPv4; types of ICMPv6, and the code "source address failed ingress/egress policy"."""

QUOTED_V6: Final = IPV6_MIN_MTU - IPV6_HEADER - 8
"""Octets of the invoking packet in an ICMPv6 error: 1280 in all (RFC 4443 2.4 c)."""
QUOTED_V4: Final = 576 - 20 - 8
"""Octets of the offending packet in an ICMPv4 error: 576 in all (RFC 1812 4.3.2.3)."""


class TokenBucket:
    """At most ``burst`` at once and ``rate`` a second in the long run (RFC 4443 2.4 f). A rate of 0: none at all."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self._tokens, self._at = burst, 0.0

    def take(self, now: float) -> bool:
        """True when one more may be sent at ``now`` (seconds)."""
        if not self.rate:
            return False
        if now > self._at:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
            self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def source_policy_error(packet: bytes, b4: bytes, aftr: bytes, traffic_class: int) -> bytes | None:
    """ICMPv6 type 1 code 5 from ``aftr`` to ``b4`` about the IPv4 ``packet`` in its softwire.

    None where RFC 4443 2.4 e.6 forbids it: the source is no single host that an answer could reach. (A packet in a
    softwire is never an ICMPv6 error, and came to our unicast address.) The socket has taken the IPv6 header away: it
    is made again for the quotation, with what is known of it; the hop limit and the flow label are not.
    """
    if b4[0] == 0xFF or b"\xfe\x80" <= b4[:2] < b"\xfe\xc0" or b4[:15] == bytes(15):
        return None
    head = struct.pack("!IHBB16s16s", 6 << 28 | traffic_class << 20, len(packet), PROTO_IPIP, HOP_LIMIT, b4, aftr)
    message = struct.pack("!BBHI", V6_UNREACHABLE, SOURCE_POLICY, 0, 0) + (head + packet)[:QUOTED_V6]
    pseudo = aftr + b4 + struct.pack("!IxxxB", len(message), PROTO_ICMPV6)
    return message[:2] + checksum(pseudo + message) + message[4:]


def icmpv4_error(kind: int, code: int, packet: bytes, mtu: int = 0) -> tuple[bytes, bytes] | None:
    """(message, destination) of an ICMPv4 error to the sender of ``packet``, an IPv4 packet or its beginning.

    ``mtu`` is the next hop's for "fragmentation needed". None where RFC 1812 4.3.2.7 forbids it: about an ICMP error,
    about a fragment that is not the first, to or about what is no single host.
    """
    length = (packet[0] & 15) * 4
    source, destination = packet[12:16], packet[16:20]
    if len(packet) < length + 8 or int.from_bytes(packet[6:8], "big") & OFFSET:
        return None
    if packet[9] == ICMP and packet[length] not in ICMP_QUERIES:
        return None
    if source[0] in (0, 127) or source[0] >= 224 or destination[0] >= 224:
        return None
    message = struct.pack("!BBHHH", kind, code, 0, 0, mtu) + packet[:QUOTED_V4]
    return message[:2] + checksum(message) + message[4:], source


class TunnelError(NamedTuple):
    """An ICMPv6 error about a packet that went into a softwire (RFC 2473 8).

    ``packet`` is the beginning of the IPv4 packet inside, None when the error quotes none of it (about a fragment of
    the IPv6 packet behind the first, or cut too short). ``mtu`` is set for "packet too big" only.
    """

    mtu: int | None
    b4: bytes
    packet: bytes | None


def tunnel_error(message: bytes, aftr: bytes) -> TunnelError | None:
    """What an ICMPv6 ``message`` (without IPv6 header, checksum verified) says about a packet of ours, if it does."""
    if len(message) < 8 + IPV6_HEADER or not V6_UNREACHABLE <= message[0] <= V6_PARAMETER_PROBLEM:
        return None
    version, next_header, source, b4 = struct.unpack_from("!BxxxxxBx16s16s", message, 8)
    if version >> 4 != 6 or source != aftr:
        return None
    inner, at = True, 8 + IPV6_HEADER
    if next_header == NEXT_FRAGMENT:
        if len(message) < at + 8:
            return None
        next_header, offset = struct.unpack_from("!BxH", message, at)
        inner, at = offset < 8, at + 8
    if next_header != PROTO_IPIP:
        return None
    packet = message[at:] if inner and len(message) >= at + 28 and message[at] >> 4 == 4 else None
    mtu = None
    if message[0] == V6_TOO_BIG:
        # Nothing below 1280 is a path of IPv6: whoever says so is wrong or malicious (RFC 8201 4).
        mtu = max(int.from_bytes(message[4:8], "big"), IPV6_MIN_MTU)
    return TunnelError(mtu, b4, packet)
