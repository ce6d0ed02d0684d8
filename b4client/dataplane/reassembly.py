"""Reassembly of IPv6 fragments from the BR (RFC 8200 4.5, RFC 5722, RFC 6946). Pure: time is an argument.

The packet socket sees tunnel packets before the kernel reassembles them. RFC 6333 5.3 has the B4 do it before it
decapsulates [L-10]. Hostile input: the number of packets under way, their fragments and octets are bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_PACKETS = 64
MAX_FRAGMENTS = 64
MAX_OCTETS = 65535
LIFETIME_S = 60.0
"""How long the rest may be waited for (RFC 8200 4.5)."""
_CE = 3


@dataclass(frozen=True, slots=True)
class Fragment:
    """One fragment: the fields of its Fragment header, ``offset`` in octets; ``tos`` is its traffic class."""

    identification: int
    next_header: int
    offset: int
    more: bool
    payload: bytes
    tos: int


@dataclass(slots=True)
class _Packet:
    until: float
    parts: dict[int, bytes] = field(default_factory=dict)
    total: int | None = None
    next_header: int = 0
    tos: int = 0
    congested: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """A packet that is complete: what follows the Fragment header, its next header, the traffic class to go by."""

    payload: bytes
    next_header: int
    tos: int


class Reassembler:
    """The packets of one pair of addresses that are under way. ``dropped`` counts fragments that came to nothing."""

    def __init__(self) -> None:
        self._packets: dict[int, _Packet] = {}
        self.dropped = 0

    def add(self, fragment: Fragment, now: float) -> Whole | None:
        """Take one fragment; the whole packet when it was the last one missing, else None."""
        identification, offset, payload = fragment.identification, fragment.offset, fragment.payload
        if offset == 0 and not fragment.more:
            # An atomic fragment stands for itself (RFC 6946).
            return Whole(payload, fragment.next_header, fragment.tos)
        self._expire(now)
        packet = self._packets.get(identification)
        if packet is None:
            if len(self._packets) >= MAX_PACKETS:
                self._forget(next(iter(self._packets)))  # the oldest
            packet = self._packets[identification] = _Packet(now + LIFETIME_S)
        if packet.refused:
            self.dropped += 1
            return None
        if packet.parts.get(offset) == payload:
            return None  # the same once more
        if not self._fits(packet, offset, fragment.more, payload):
            # RFC 5722: with an overlap the whole packet goes, what has come of it and what comes still.
            self.dropped += 1 + len(packet.parts)
            packet.parts.clear()
            packet.refused = True
            return None
        packet.parts[offset] = payload
        packet.congested |= fragment.tos & 3 == _CE
        if not fragment.more:
            packet.total = offset + len(payload)
        if offset == 0:
            packet.next_header, packet.tos = fragment.next_header, fragment.tos
        if packet.total is None or sum(map(len, packet.parts.values())) != packet.total:
            return None
        del self._packets[identification]
        # Congestion that one fragment met the packet has met (RFC 3168 5.3).
        tos = packet.tos | _CE if packet.congested else packet.tos
        return Whole(b"".join(part for _, part in sorted(packet.parts.items())), packet.next_header, tos)

    @staticmethod
    def _fits(packet: _Packet, offset: int, more: bool, payload: bytes) -> bool:
        end = offset + len(payload)
        if not payload or (more and len(payload) % 8) or end > MAX_OCTETS or len(packet.parts) >= MAX_FRAGMENTS:
            return False
        if packet.total is not None and (not more or end > packet.total):
            return False
        if not more and any(at + len(part) > offset for at, part in packet.parts.items()):
            return False
        return all(end <= at or at + len(part) <= offset for at, part in packet.parts.items())

    def _expire(self, now: float) -> None:
        # Insertion order is the order of expiry.
        while self._packets and next(iter(self._packets.values())).until <= now:
            self._forget(next(iter(self._packets)))

    def _forget(self, identification: int) -> None:
        self.dropped += len(self._packets.pop(identification).parts)

    def take_dropped(self) -> int:
        """How many fragments came to nothing since the last call."""
        dropped, self.dropped = self.dropped, 0
        return dropped
