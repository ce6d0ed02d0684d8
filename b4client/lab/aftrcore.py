"""The lwAFTR's mind: what becomes of a packet, and what is said about it (RFC 7596 6 and 8, RFC 7597 8). Pure.

Octets and the time go in, outcomes come out, a counter grows. ``aftr`` only moves the octets::

    softwire ───► upward ────────► TO_INTERNET   source address and port must belong to the softwire
                    └────────────► TO_SOFTWIRE   hairpin: the destination is another customer's
    IPv4 side ──► downward ──────► TO_SOFTWIRE   destination address and port lead to the softwire
    ICMPv6 ─────► tunnel_error ──► TO_SENDER     an error inside a softwire is told to who sent the IPv4 packet
"""

from __future__ import annotations

import collections
import enum
import struct
from ipaddress import IPv6Address
from typing import Final, NamedTuple

from b4client.lab import aftrfate, aftricmp
from b4client.lab.aftrcustomer import Customer
from b4client.lab.aftrfate import REJECTED, Fate
from b4client.lab.aftrfragments import FragmentMemory, Key, Place, Train
from b4client.lab.aftricmp import IPV6_HEADER, TokenBucket
from b4client.lab.aftrpacket import (
    DF,
    MAX_PACKET,
    MF,
    OFFSET,
    PORT_PROTOCOLS,
    Ends,
    carried_tos,
    changed,
    ends_of,
    quoted_ends,
)
from b4client.lab.aftrpolicy import IPV6_MIN_MTU, IcmpPolicy, Policy
from b4client.lab.binding import BindingTable

MAX_PATHS: Final = 4096
PATH_LIFE_S: Final = 600.0
"""How many path MTUs are known, and how long one is believed (as the kernel does; RFC 8201 4)."""


class Exit(enum.Enum):
    """Where an outcome's octets must go."""

    INTERNET = "an IPv4 packet to the IPv4 side"
    SOFTWIRE = "an IPv4 packet into a softwire; its type of service is the traffic class outside"
    SENDER = "an ICMPv4 message, without IP header, to an IPv4 address"
    B4 = "an ICMPv6 message, without IP header, to an IPv6 address"


TO_INTERNET, TO_SOFTWIRE, TO_SENDER, TO_B4 = Exit.INTERNET, Exit.SOFTWIRE, Exit.SENDER, Exit.B4
Outcome = tuple[Exit, bytes, Customer | None, bytes]
"""Exit, octets, the softwire for TO_SOFTWIRE, the address (4 or 16 octets) for TO_SENDER and TO_B4."""
Outcomes = tuple[Outcome, ...]


class _Verdict(NamedTuple):
    """What the ports say: a fate, whose packet it is going up, and into which softwire it goes if into any."""

    fate: Fate
    owner: Customer | None = None
    target: Customer | None = None

    @property
    def stands(self) -> bool:
        """False once a binding that it rests on is gone."""
        return (self.owner is None or self.owner.bound) and (self.target is None or self.target.bound)


class _Carry(NamedTuple):
    """A packet on its way: ``b4`` is the softwire that it came out of, None when it came from the IPv4 side."""

    packet: bytes
    ends: Ends
    b4: bytes | None
    traffic_class: int


_HEADER = struct.Struct("!BBHxxHxBxx4s4sHH")
_MIN_TUNNEL_MTU: Final = IPV6_MIN_MTU - IPV6_HEADER
_DECAPSULATED, _ENCAPSULATED = Fate.DECAPSULATED, Fate.ENCAPSULATED
_SAID: Final = {
    (aftricmp.UNREACHABLE, aftricmp.HOST_UNREACHABLE): aftrfate.UNREACHABLE,
    (aftricmp.UNREACHABLE, aftricmp.FRAGMENTATION_NEEDED): aftrfate.TOO_BIG,
    (aftricmp.TIME_EXCEEDED, 0): aftrfate.TIME_EXCEEDED,
}
_ICMP_NEEDS: Final = {0: IcmpPolicy.ECHO, 8: IcmpPolicy.ECHO, **dict.fromkeys(range(13, 19), IcmpPolicy.QUERIES)}


class Aftr:
    """An lwAFTR without sockets: a table, a memory for fragments, and a counter for every fate.

    ``address`` is the softwires' end here. Methods take the time in seconds, and never raise whatever the octets are.
    """

    def __init__(self, table: BindingTable, address: IPv6Address, policy: Policy | None = None) -> None:
        self.table = table
        self.address = address.packed
        self.counters: dict[str, int] = dict.fromkeys(aftrfate.COUNTERS, 0)
        self.fragments: FragmentMemory[_Verdict, _Carry] = FragmentMemory()
        self._paths: collections.OrderedDict[bytes, tuple[int, float]] = collections.OrderedDict()
        self.set_policy(policy or Policy())

    def set_policy(self, policy: Policy) -> None:
        """Act by ``policy`` from now on."""
        self.policy = policy
        self._rejects = TokenBucket(policy.reject_rate, max(policy.reject_rate, 1.0))
        self._icmpv4 = TokenBucket(policy.icmpv4_rate, max(policy.icmpv4_rate, 1.0))

    # ---- packets

    def upward(self, packet: bytes, b4: bytes, traffic_class: int, now: float) -> Outcomes:
        """An IPv4 ``packet`` that came out of the softwire of ``b4`` (16 octets), in a packet of ``traffic_class``."""
        # Nearly all packets are whole, without options, of a protocol with ports, for the Internet: they take the short
        # way, which decides exactly as the long one.
        if len(packet) >= 24:
            first, tos, total, flags, protocol, source, destination, port, _ = _HEADER.unpack_from(packet)
            if (
                first == 0x45
                and not flags & (MF | OFFSET)
                and protocol in PORT_PROTOCOLS
                and 24 <= total == len(packet)
                and tos == traffic_class
                and not int.from_bytes(packet[:20], "big") % 0xFFFF
                and not self.table.has(destination)
            ):
                customer = self.table.find(source, port)
                if customer is not None and customer.b4 == b4:
                    self.counters[_DECAPSULATED] += 1
                    customer.sent(port, total, now)
                    return ((TO_INTERNET, packet, None, b""),)
        return self._long_way(packet, b4, traffic_class, now)

    def downward(self, packet: bytes, now: float) -> Outcomes:
        """An IPv4 ``packet`` from the IPv4 side."""
        if len(packet) >= 24:
            first, _, total, flags, protocol, _, destination, _, port = _HEADER.unpack_from(packet)
            if (
                first == 0x45
                and not flags & (MF | OFFSET)
                and protocol in PORT_PROTOCOLS
                and 24 <= total == len(packet)
                and not int.from_bytes(packet[:20], "big") % 0xFFFF
            ):
                customer = self.table.find(destination, port)
                if customer is not None and (total <= _MIN_TUNNEL_MTU or not self._too_big(packet, customer, now)):
                    self.counters[_ENCAPSULATED] += 1
                    customer.received(total)
                    return ((TO_SOFTWIRE, packet, customer, b""),)
        return self._long_way(packet, None, 0, now)

    def _long_way(self, packet: bytes, b4: bytes | None, traffic_class: int, now: float) -> Outcomes:
        ends = ends_of(packet)
        if isinstance(ends, Fate):
            self.counters[ends] += 1
            return ()
        carry = _Carry(packet[: packet[2] << 8 | packet[3]], ends, b4, traffic_class)
        if ends.fragment is not None:
            return self._fragment((b4, *ends.fragment.key), carry, now)
        return self._finish(self._judge(carry), carry, now)

    def tick(self, now: float) -> None:
        """Let end what is over; to be called now and then."""
        for _ in self.fragments.expire(now):
            self.counters[Fate.DROP_FRAGMENT] += 1

    # ---- verdicts

    def _judge(self, carry: _Carry) -> _Verdict:
        """What the ports say of a packet that is whole, or of a first fragment."""
        packet, ends, b4, _ = carry
        if ends.icmp_type is not None and _ICMP_NEEDS.get(ends.icmp_type, IcmpPolicy.ERRORS) > self.policy.icmp:
            return _Verdict(Fate.DROP_ICMP_POLICY)
        if b4 is None:
            target = self._target(carry)
            if target is not None:
                return _Verdict(Fate.ENCAPSULATED, None, target)
            shared = ends.destination_port is None and self.table.taken(ends.destination)
            return _Verdict(Fate.DROP_UNSUPPORTED if shared else Fate.DROP_NO_BINDING)
        port = ends.source_port
        owner = self.table.whole(ends.source) if port is None else self.table.find(ends.source, port)
        if owner is None or owner.b4 != b4:
            return _Verdict(self._refusal(ends, b4))
        if packet[12:16] != ends.source:
            # An ICMP error is matched by what it quotes, and must not come from another address than that.
            return _Verdict(Fate.DROP_FOREIGN_ADDRESS)
        if not self.table.has(packet[16:20]):
            return _Verdict(Fate.DECAPSULATED, owner)
        if not self.policy.hairpin:
            return _Verdict(Fate.DROP_HAIRPIN_POLICY, owner)
        target = self._target(carry)
        return _Verdict(Fate.DROP_HAIRPIN_NO_BINDING if target is None else Fate.HAIRPINNED, owner, target)

    def _target(self, carry: _Carry) -> Customer | None:
        ends = carry.ends
        if carry.packet[16:20] != ends.destination:
            return None
        port = ends.destination_port
        return self.table.whole(ends.destination) if port is None else self.table.find(ends.destination, port)

    def _refusal(self, ends: Ends, b4: bytes) -> Fate:
        if not self.table.knows(b4):
            return Fate.DROP_UNKNOWN_SOFTWIRE
        self.table.refuse(b4)
        if not self.table.bound_to(b4, ends.source):
            return Fate.DROP_FOREIGN_ADDRESS
        return Fate.DROP_UNSUPPORTED if ends.source_port is None else Fate.DROP_OUTSIDE_PORT_SET

    # ---- fragments

    def _fragment(self, key: Key, carry: _Carry, now: float) -> Outcomes:
        fragment = carry.ends.fragment
        assert fragment is not None  # noqa: S101 - only fragments come here
        self.tick(now)
        # Who has no binding at all gets no part of the memory either: its fate does not hang on the ports.
        if carry.b4 is None and not self.table.taken(carry.packet[16:20]):
            return self._finish(_Verdict(Fate.DROP_NO_BINDING), carry, now)
        if carry.b4 is not None and not self.table.knows(carry.b4):
            return self._finish(_Verdict(Fate.DROP_UNKNOWN_SOFTWIRE), carry, now)
        if not fragment.start:
            train, waiting = self.fragments.begin(key, self._judge(carry), now)
            outcomes = self._in_train(key, train, carry, now)
            for held in waiting:
                outcomes += self._in_train(key, train, held, now)
            return outcomes
        known = self.fragments.train(key)
        if known is not None:
            return self._in_train(key, known, carry, now)
        if self.fragments.hold(key, carry, len(carry.packet), now):
            self.counters[aftrfate.HELD] += 1
            return ()
        return self._finish(_Verdict(Fate.DROP_FRAGMENT_MEMORY), carry, now)

    def _in_train(self, key: Key, train: Train[_Verdict], carry: _Carry, now: float) -> Outcomes:
        """Fragments share the fate of the first (RFC 7597 8.3.2), for as long as its binding lasts."""
        fragment = carry.ends.fragment
        assert fragment is not None  # noqa: S101 - only fragments come here
        if not train.verdict.stands:
            train.verdict = _Verdict(Fate.DROP_NO_BINDING if carry.b4 is None else Fate.DROP_OUTSIDE_PORT_SET)
        place = train.place(fragment)
        if place is Place.AGAIN:
            return self._finish(_Verdict(Fate.DROP_FRAGMENT_OVERLAP), carry, now)
        if place is Place.OVERLAPS:
            train.verdict = _Verdict(Fate.DROP_FRAGMENT_OVERLAP)
        elif place is Place.SCATTERS:
            train.verdict = _Verdict(Fate.DROP_FRAGMENT_MEMORY)
        if train.complete:
            self.fragments.end(key)
        return self._finish(train.verdict, carry, now)

    # ---- what follows from a verdict

    def _finish(self, verdict: _Verdict, carry: _Carry, now: float) -> Outcomes:
        """Count the fate, carry it out, say what is to be said."""
        fate, owner, target = verdict
        packet, ends, _, traffic_class = carry
        if owner is not None and fate in (Fate.DECAPSULATED, Fate.HAIRPINNED) and packet[1] != traffic_class:
            tos = carried_tos(traffic_class, packet[1])
            if tos is None:
                fate = Fate.DROP_CONGESTION
            elif tos != packet[1]:
                packet = changed(packet, tos=tos)
        if fate is Fate.HAIRPINNED:
            if packet[8] <= 1:
                fate = Fate.DROP_HAIRPIN_TTL
            else:
                packet = changed(packet, ttl=packet[8] - 1)
        if target is not None and fate in (Fate.HAIRPINNED, Fate.ENCAPSULATED) and self._too_big(packet, target, now):
            fate = Fate.DROP_TOO_BIG
        self.counters[fate] += 1
        if fate is Fate.DECAPSULATED and owner is not None:
            owner.sent(ends.source_port, len(packet), now)
            return ((TO_INTERNET, packet, None, b""),)
        if fate in (Fate.ENCAPSULATED, Fate.HAIRPINNED) and target is not None:
            if owner is not None:
                owner.sent(ends.source_port, len(packet), now)
            target.received(len(packet))
            return ((TO_SOFTWIRE, packet, target, b""),)
        return self._say(fate, carry, target, now)

    def _say(self, fate: Fate, carry: _Carry, target: Customer | None, now: float) -> Outcomes:
        """The ICMP message that a dropped packet is answered with, if any."""
        policy, packet, fragment = self.policy, carry.packet, carry.ends.fragment
        if fragment is not None and fragment.start:
            return ()
        if fate in REJECTED and policy.reject and carry.b4 is not None:
            return self._reject(packet, carry.b4, carry.traffic_class, now)
        if fate is Fate.DROP_TOO_BIG and target is not None:
            mtu = self.tunnel_mtu(target.b4, now)
            return self._tell(aftricmp.UNREACHABLE, aftricmp.FRAGMENTATION_NEEDED, packet, now, mtu)
        if fate is Fate.DROP_HAIRPIN_TTL:
            return self._tell(aftricmp.TIME_EXCEEDED, 0, packet, now)
        if fate in (Fate.DROP_NO_BINDING, Fate.DROP_HAIRPIN_NO_BINDING) and policy.unreachable:
            return self._tell(aftricmp.UNREACHABLE, aftricmp.HOST_UNREACHABLE, packet, now)
        return ()

    def _reject(self, packet: bytes, b4: bytes, traffic_class: int, now: float) -> Outcomes:
        message = aftricmp.source_policy_error(packet, b4, self.address, traffic_class)
        if message is None or not self._rejects.take(now):
            self.counters[aftrfate.REJECTS_SUPPRESSED] += 1
            return ()
        self.counters[aftrfate.REJECTS] += 1
        return ((TO_B4, message, None, b4),)

    def _tell(self, kind: int, code: int, packet: bytes, now: float, mtu: int = 0) -> Outcomes:
        error = aftricmp.icmpv4_error(kind, code, packet, mtu)
        if error is None or not self._icmpv4.take(now):
            self.counters[aftrfate.ICMPV4_SUPPRESSED] += 1
            return ()
        self.counters[_SAID[kind, code]] += 1
        return ((TO_SENDER, error[0], None, error[1]),)

    # ---- the softwires' paths

    def tunnel_mtu(self, b4: bytes, now: float) -> int:
        """The longest IPv4 packet that the path to ``b4`` takes unfragmented, in octets (RFC 2473 6.7)."""
        mtu, until = self._paths.get(b4, (self.policy.link_mtu, now))
        return min(mtu if until > now else MAX_PACKET, self.policy.link_mtu) - IPV6_HEADER

    def _too_big(self, packet: bytes, target: Customer, now: float) -> bool:
        if not packet[6] << 8 & DF or not self.policy.honour_df:
            return False  # the kernel fragments the IPv6 packet (RFC 2473 7.2 b, RFC 6333 6.3)
        return len(packet) > self.tunnel_mtu(target.b4, now)

    def tunnel_error(self, message: bytes, now: float) -> Outcomes:
        """An ICMPv6 ``message`` without IPv6 header, its checksum verified: RFC 2473 8 if it is about our packet."""
        error = aftricmp.tunnel_error(message, self.address)
        if error is None or not self.table.knows(error.b4) or not self._went_into(error.packet, error.b4):
            self.counters[aftrfate.TUNNEL_FOREIGN] += 1
            return ()
        packet = error.packet
        if error.mtu is None:
            self.counters[aftrfate.TUNNEL_UNREACHABLE] += 1
            if packet is None:
                return ()
            return self._tell(aftricmp.UNREACHABLE, aftricmp.HOST_UNREACHABLE, packet, now)
        self.counters[aftrfate.TUNNEL_TOO_BIG] += 1
        if error.mtu < self.policy.link_mtu:
            self._paths.pop(error.b4, None)
            self._paths[error.b4] = (error.mtu, now + PATH_LIFE_S)
            if len(self._paths) > MAX_PATHS:
                self._paths.popitem(last=False)
        mtu = error.mtu - IPV6_HEADER
        if packet is None or not packet[6] << 8 & DF or not self.policy.honour_df or packet[2] << 8 | packet[3] <= mtu:
            return ()
        return self._tell(aftricmp.UNREACHABLE, aftricmp.FRAGMENTATION_NEEDED, packet, now, mtu)

    def _went_into(self, packet: bytes | None, b4: bytes) -> bool:
        """True when the beginning of an IPv4 packet is one of a packet that would go into the softwire of ``b4``."""
        if packet is None:
            return True
        ends = quoted_ends(packet)
        if ends is Fate.DROP_UNSUPPORTED:
            return self.table.bound_to(b4, packet[16:20])
        customer = None if isinstance(ends, Fate) else self.table.find(ends[2], ends[3])
        return customer is not None and customer.b4 == b4
