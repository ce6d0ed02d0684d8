"""Where the packets of a mesh go and whether they come from whom they say (RFC 7597 5.4, 8.1, 8.3.2). Pure.

The pump asks this for every packet when there are forwarding rules. What was found is kept, in tables that are emptied
when they are full; fragments behind the first share its fate, and those that overtake it wait, few and not for long.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from typing import Final, NamedTuple

from b4client.dataplane.innerends import PORT_PROTOCOLS, Buffer, Datagram, ends_of
from b4client.dataplane.mesh import MeshTable, Owner

MAX_KNOWN: Final = 8192
"""Ends that are remembered in each direction."""
MAX_DATAGRAMS: Final = 512
DATAGRAM_LIFE_S: Final = 30.0
MAX_HELD: Final = 64
MAX_HELD_OCTETS: Final = 1 << 18
HOLD_S: Final = 2.0
MAX_NARROW: Final = 1024
NARROW_S: Final = 600.0
"""Paths that are narrower than the softwire, and how long that is believed (RFC 8201 4: 5 to 10 minutes)."""

VNET_LEN: Final = 10
"""Octets of the virtio header."""

Source = tuple[int, Datagram]
"""An outer source address and the datagram inside: fragments of different senders never meet."""


class Verdict(enum.Enum):
    """What becomes of a packet from a customer edge."""

    ADMITTED = "its sender has the address and port that it names"
    SPOOFED = "its sender has another address or port"
    FOREIGN = "its sender is in no rule's prefix"
    HELD = "a fragment that overtook the first one"
    DROPPED = "a fragment without a first one, and too many wait"


class Held(NamedTuple):
    """A fragment that waits: the packet with its virtio header before it, and the traffic class that it came with."""

    packet: bytes
    tos: int


class MeshGate:
    """Both directions of a mesh. ``local`` is the IPv6 address of our own customer edge.

    ``sent`` and ``received`` count packets by rule. Addresses are numbers.
    """

    def __init__(self, table: MeshTable, local: int) -> None:
        self.table = table
        self.local = local
        self.sent = [0] * len(table.rules)
        self.received = [0] * len(table.rules)
        self._owners: dict[bytes, Owner | None] = {}
        self._senders: dict[bytes, int] = {}
        self._outward: OrderedDict[Datagram, Owner | None] = OrderedDict()
        self._inward: OrderedDict[Source, tuple[float, Verdict, int]] = OrderedDict()
        self._held: OrderedDict[Source, tuple[float, list[Held]]] = OrderedDict()
        self._held_count = self._held_octets = 0
        self._narrow: dict[int, tuple[float, int]] = {}

    # ---- outward

    def owner(self, packet: bytes) -> Owner | None:
        """To whom an IPv4 ``packet`` goes; None is the border relay."""
        head = (packet[0] & 15) * 4
        if packet[9] in PORT_PROTOCOLS and not packet[6] & 0x3F and not packet[7]:
            key = packet[16:20] + packet[head + 2 : head + 4]
            try:
                return self._owners[key]
            except KeyError:
                owner = self._find(packet)
                if len(self._owners) >= MAX_KNOWN:
                    self._owners.clear()
                self._owners[key] = owner
                return owner
        return self._find(packet)

    def quoted_owner(self, quoted: bytes) -> Owner | None:
        """To whom a packet went that an ICMPv6 error quotes, of which the end may be missing."""
        ends = ends_of(quoted)
        if ends is None:
            return None
        if not ends.first and ends.datagram is not None:
            return self._outward.get(ends.datagram)
        return self.table.owner(ends.target, ends.target_port)

    def _find(self, packet: bytes) -> Owner | None:
        ends = ends_of(packet)
        if ends is None:
            return None
        if ends.datagram is None:
            return self.table.owner(ends.target, ends.target_port)
        if not ends.first:
            # The kernel makes fragments, the first one first. What it cannot be told from any more the relay sorts out.
            return self._outward.get(ends.datagram)
        owner = self._outward[ends.datagram] = self.table.owner(ends.target, ends.target_port)
        if len(self._outward) > MAX_DATAGRAMS:
            self._outward.popitem(last=False)
        return owner

    def mtu(self, address: int, otherwise: int, now: float) -> int:
        """The IPv4 MTU towards a customer edge in octets: ``otherwise``, or what a narrower path has told."""
        until, mtu = self._narrow.get(address, (0.0, otherwise))
        return min(mtu, otherwise) if until > now else otherwise

    @property
    def all_wide(self) -> bool:
        """True while no path is known to be narrow: then nobody needs to ask for ``mtu``."""
        return not self._narrow

    def narrow(self, address: int, mtu: int, now: float) -> None:
        """Note that the path to a customer edge takes IPv4 packets of ``mtu`` octets only."""
        if len(self._narrow) >= MAX_NARROW:
            self._narrow.clear()
        self._narrow[address] = (now + NARROW_S, mtu)

    # ---- inward

    def recognises(self, source: bytes, packet: Buffer, at: int, end: int) -> bool:
        """True when ``judge`` has admitted the same ends before: its short way for most packets."""
        key = self._sender_key(source, packet, at, end)
        rule = None if key is None else self._senders.get(key)
        if rule is None:
            return False
        self.received[rule] += 1
        return True

    @staticmethod
    def _sender_key(source: bytes, packet: Buffer, at: int, end: int) -> bytes | None:
        head = at + (packet[at] & 15) * 4
        if packet[at + 6] & 0x3F or packet[at + 7] or packet[at + 9] not in PORT_PROTOCOLS or head + 4 > end:
            return None
        return source + packet[at + 12 : at + 16] + packet[head : head + 2]

    def judge(self, source: bytes, packet: Buffer, at: int, end: int, *, tos: int, now: float) -> Verdict:
        """Whether what came from ``source`` (16 octets) may be the IPv4 packet at ``at`` of ``packet``, which ends at
        ``end``; before it stands the virtio header."""
        key = self._sender_key(source, packet, at, end)
        ends = ends_of(packet[at:end])
        sender = int.from_bytes(source, "big")
        if ends is None or not self.table.covers(sender):
            return Verdict.FOREIGN
        if ends.datagram is not None and not ends.first:
            held = Held(bytes(packet[at - VNET_LEN : end]), tos)
            return self._judge_later((sender, ends.datagram), ends.source, held, now)
        owner = self.table.owner(ends.source, ends.source_port)
        passes = owner is not None and owner.address == sender
        verdict = Verdict.ADMITTED if passes else Verdict.SPOOFED
        rule = owner.rule if owner is not None else 0
        if passes:
            self.received[rule] += 1
        if ends.datagram is not None:
            self._inward.pop((sender, ends.datagram), None)
            self._inward[sender, ends.datagram] = (now + DATAGRAM_LIFE_S, verdict, rule)
            if len(self._inward) > MAX_DATAGRAMS:
                self._inward.popitem(last=False)
        elif passes and key is not None:
            if len(self._senders) >= MAX_KNOWN:
                self._senders.clear()
            self._senders[key] = rule
        return verdict

    def _judge_later(self, key: Source, ipv4: int, held: Held, now: float) -> Verdict:
        """A fragment behind the first: no port shows whose it is."""
        until, verdict, rule = self._inward.get(key, (0.0, Verdict.DROPPED, 0))
        if until > now:
            if verdict is Verdict.ADMITTED:
                self.received[rule] += 1
            return verdict
        if not self.table.plausible(key[0], ipv4):
            return Verdict.SPOOFED
        if self._held_count >= MAX_HELD or self._held_octets + len(held.packet) > MAX_HELD_OCTETS:
            return Verdict.DROPPED
        self._held.setdefault(key, (now + HOLD_S, []))[1].append(held)
        self._held_count += 1
        self._held_octets += len(held.packet)
        return Verdict.HELD

    @property
    def holds(self) -> bool:
        """True while fragments wait."""
        return bool(self._held)

    def waiting_for(self, source: bytes, packet: Buffer, at: int, end: int) -> list[Held]:
        """The fragments that overtook the one that has just passed, in the order in which they came."""
        if not self._held:
            return []
        ends = ends_of(packet[at:end])
        if ends is None or ends.datagram is None or not ends.first:
            return []
        _, found = self._held.pop((int.from_bytes(source, "big"), ends.datagram), (0.0, []))
        self._release(found)
        return found

    def expire(self, now: float) -> int:
        """Give up fragments that waited in vain; returns how many."""
        lost = 0
        while self._held and next(iter(self._held.values()))[0] <= now:
            _, (_, found) = self._held.popitem(last=False)
            self._release(found)
            lost += len(found)
        return lost

    def _release(self, found: list[Held]) -> None:
        self._held_count -= len(found)
        self._held_octets -= sum(len(held.packet) for held in found)
