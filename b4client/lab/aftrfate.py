"""What can become of a packet in the laboratory's lwAFTR, by name (RFC 7596 6 and 8, RFC 7597 8). Pure.

Every packet that comes to the lwAFTR, from either side, ends in exactly one ``Fate``; one that waits for the first
fragment of its datagram has none yet. What the lwAFTR does besides is counted under ``EVENTS``.
"""

from __future__ import annotations

import enum
from typing import Final


class Fate(enum.StrEnum):
    """What became of a packet; the value is its counter's name."""

    DECAPSULATED = "decapsulated"
    ENCAPSULATED = "encapsulated"
    HAIRPINNED = "hairpinned"
    DROP_UNKNOWN_SOFTWIRE = "drop-unknown-softwire"
    DROP_FOREIGN_ADDRESS = "drop-foreign-ipv4-address"
    DROP_OUTSIDE_PORT_SET = "drop-outside-port-set"
    DROP_NO_BINDING = "drop-no-binding"
    DROP_HAIRPIN_NO_BINDING = "drop-hairpin-no-binding"
    DROP_HAIRPIN_POLICY = "drop-hairpin-policy"
    DROP_HAIRPIN_TTL = "drop-hairpin-ttl"
    DROP_TOO_BIG = "drop-too-big"
    DROP_CONGESTION = "drop-congestion"
    DROP_MALFORMED = "drop-malformed"
    DROP_CHECKSUM = "drop-bad-checksum"
    DROP_UNSUPPORTED = "drop-unsupported-protocol"
    DROP_ICMP_POLICY = "drop-icmp-policy"
    DROP_FRAGMENT = "drop-fragment-without-first"
    DROP_FRAGMENT_OVERLAP = "drop-fragment-overlap"
    DROP_FRAGMENT_MEMORY = "drop-fragment-memory"


FATES: Final = {
    Fate.DECAPSULATED: "from a softwire, source rightful, given to the IPv4 side",
    Fate.ENCAPSULATED: "from the IPv4 side, sent into the softwire that its destination is bound to",
    Fate.HAIRPINNED: "from a softwire into another one, never on the IPv4 side",
    Fate.DROP_UNKNOWN_SOFTWIRE: "from an IPv6 address that no binding has",
    Fate.DROP_FOREIGN_ADDRESS: "from a softwire, with an IPv4 source address of which that softwire has no port",
    Fate.DROP_OUTSIDE_PORT_SET: "from a softwire, with a source port (ICMP: identifier) that is not its own",
    Fate.DROP_NO_BINDING: "from the IPv4 side, to an address and port (ICMP: identifier) that nobody is bound to",
    Fate.DROP_HAIRPIN_NO_BINDING: "from a softwire to an address of ours and a port that nobody is bound to",
    Fate.DROP_HAIRPIN_POLICY: "from a softwire to another one, which the policy forbids",
    Fate.DROP_HAIRPIN_TTL: "from a softwire to another one, and the time to live is over",
    Fate.DROP_TOO_BIG: "longer than the softwire's MTU, and DF forbids to fragment (RFC 2473 7.2)",
    Fate.DROP_CONGESTION: "met congestion in the IPv6 network, and its sender cannot be told (RFC 6040 4.2)",
    Fate.DROP_MALFORMED: "no IPv4 packet, cut short, or with lengths that contradict each other",
    Fate.DROP_CHECKSUM: "wrong checksum of the IPv4 header, of an ICMP error, or of the IPv4 header quoted in it",
    Fate.DROP_UNSUPPORTED: "a protocol without ports on a shared address, or an ICMP type that names no port",
    Fate.DROP_ICMP_POLICY: "an ICMP type that the policy keeps out",
    Fate.DROP_FRAGMENT: "a fragment whose first one, with the ports, was never seen",
    Fate.DROP_FRAGMENT_OVERLAP: "a fragment over octets that another one brought already, and what follows it",
    Fate.DROP_FRAGMENT_MEMORY: "a fragment that nothing more can be remembered of: too many wait, or too many gaps",
}
"""Every fate in a sentence. Fragments behind the first share its fate (RFC 7597 8.3.2)."""

REJECTED: Final = frozenset((Fate.DROP_UNKNOWN_SOFTWIRE, Fate.DROP_FOREIGN_ADDRESS, Fate.DROP_OUTSIDE_PORT_SET))
"""What may be answered with ICMPv6 type 1 code 5: no match in the binding table (RFC 7596 6.2)."""

HELD: Final = "fragments-held"
REJECTS: Final = "icmpv6-rejects"
REJECTS_SUPPRESSED: Final = "icmpv6-rejects-suppressed"
UNREACHABLE: Final = "icmpv4-unreachable"
TOO_BIG: Final = "icmpv4-too-big"
TIME_EXCEEDED: Final = "icmpv4-time-exceeded"
ICMPV4_SUPPRESSED: Final = "icmpv4-suppressed"
TUNNEL_TOO_BIG: Final = "icmpv6-too-big"
TUNNEL_UNREACHABLE: Final = "icmpv6-unreachable"
TUNNEL_FOREIGN: Final = "icmpv6-foreign"
SEND_FAILED: Final = "drop-send-failed"
QUEUE_FULL: Final = "drop-queue-full"

EVENTS: Final = {
    HELD: "fragments that had to wait for the first of their datagram; each gets its fate later",
    REJECTS: 'ICMPv6 "source address failed policy" (type 1 code 5), sent to softwires without binding',
    REJECTS_SUPPRESSED: "the same, not sent because there were too many, or the sender is no single host",
    UNREACHABLE: 'ICMPv4 "host unreachable" (type 3 code 1), sent',
    TOO_BIG: 'ICMPv4 "fragmentation needed" (type 3 code 4), sent',
    TIME_EXCEEDED: 'ICMPv4 "time to live exceeded" (type 11 code 0), sent for a packet between two softwires',
    ICMPV4_SUPPRESSED: "ICMPv4 errors not sent because there were too many, or RFC 1812 4.3.2.7 forbids one",
    TUNNEL_TOO_BIG: 'ICMPv6 "packet too big" received about a packet in a softwire (RFC 2473 8)',
    TUNNEL_UNREACHABLE: "other ICMPv6 errors received about a packet in a softwire (RFC 2473 8)",
    TUNNEL_FOREIGN: "ICMPv6 errors received that quote nothing that went into a softwire",
    SEND_FAILED: "packets with a good fate, and ICMP messages, that the kernel then refused to take",
    QUEUE_FULL: "packets lost before they were read, because a queue of the kernel was full; they have no fate",
}
"""Every other counter in a sentence."""

COUNTERS: Final[dict[str, str]] = {**{fate.value: sentence for fate, sentence in FATES.items()}, **EVENTS}
"""All counters of the lwAFTR, in the order in which they are shown."""
