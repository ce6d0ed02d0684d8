"""The lwAFTR's memory for IPv4 fragments (RFC 7597 8.3.2). Pure; every size in it has an upper bound.

Only the first fragment of a datagram has ports. It decides, and those behind it share its fate; one that overtook it
waits for at most ``HOLD_S`` seconds. Nothing is reassembled. Nothing that overlaps goes on either: a fragment that
would rewrite octets of one before it ends the whole datagram, one that repeats them is dropped by itself.
"""

from __future__ import annotations

import bisect
import collections
import enum
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from b4client.lab.aftrpacket import Fragment

MAX_TRAINS: Final = 1024
"""Datagrams whose first fragment is remembered; beyond, the oldest is forgotten."""
TRAIN_LIFE_S: Final = 30.0
MAX_GAPS: Final = 32
"""Pieces of a datagram with gaps between them. Fragments come nearly in order; who sends these does something else."""
MAX_WAITING: Final = 256
MAX_WAITING_OCTETS: Final = 1 << 20
MAX_WAITING_EACH: Final = 1 << 17
OVERHEAD: Final = 256
"""Datagrams, and octets of all and of one, that wait for a first fragment; what a fragment costs beside its octets."""
HOLD_S: Final = 2.0

Key = tuple[object, ...]
Verdict = TypeVar("Verdict")
"""What the first fragment decided for all."""
Held = TypeVar("Held")
"""A fragment that waits, with what is needed to carry on."""


class Place(enum.Enum):
    """What a fragment does to the datagram it belongs to."""

    FITS = "brings octets that were not there"
    AGAIN = "brings what was there before, by itself harmless and useless"
    OVERLAPS = "would rewrite octets, or the end of the datagram: nothing more of it may go on"
    SCATTERS = "leaves more gaps than are remembered: nothing more of it may go on"


@dataclass(slots=True)
class Train(Generic[Verdict]):
    """A datagram of which fragments go by. ``spans`` are the octets that were there: ascending, with gaps between."""

    verdict: Verdict
    until: float
    spans: list[tuple[int, int]] = field(default_factory=list)
    end: int | None = None

    def place(self, fragment: Fragment) -> Place:
        """Note the octets of ``fragment``."""
        start, end = fragment.start, fragment.end
        spans = self.spans
        at = bisect.bisect_right(spans, (start, 65536))
        before = spans[at - 1] if at else (-1, -1)
        after = spans[at] if at < len(spans) else (65536, 65536)
        if before[0] <= start and end <= before[1]:
            return Place.AGAIN
        beyond = self.end is not None and (end > self.end or not fragment.more)
        if before[1] > start or after[0] < end or beyond or (not fragment.more and spans and spans[-1][1] > end):
            return Place.OVERLAPS
        if not fragment.more:
            self.end = end
        first, last = (at - 1, before[0]) if before[1] == start else (at, start)
        if after[0] == end:
            spans[first : at + 1] = [(last, after[1])]
        else:
            spans[first:at] = [(last, end)]
        return Place.FITS if len(spans) <= MAX_GAPS else Place.SCATTERS

    @property
    def complete(self) -> bool:
        """True when every octet has gone by."""
        return self.end is not None and self.spans == [(0, self.end)]


@dataclass(slots=True)
class _Waiting(Generic[Held]):
    until: float
    octets: int = 0
    fragments: list[tuple[int, Held]] = field(default_factory=list)


class FragmentMemory(Generic[Verdict, Held]):
    """Trains by their key, and fragments that wait. Both in the order in which they end, so that ending is cheap."""

    def __init__(self) -> None:
        self._trains: collections.OrderedDict[Key, Train[Verdict]] = collections.OrderedDict()
        self._waiting: collections.OrderedDict[Key, _Waiting[Held]] = collections.OrderedDict()
        self._octets = 0

    def __len__(self) -> int:
        return len(self._trains)

    @property
    def waiting(self) -> int:
        """Fragments that wait."""
        return sum(len(waiting.fragments) for waiting in self._waiting.values())

    def train(self, key: Key) -> Train[Verdict] | None:
        """The datagram whose first fragment was seen."""
        return self._trains.get(key)

    def begin(self, key: Key, verdict: Verdict, now: float) -> tuple[Train[Verdict], list[Held]]:
        """A first fragment: its datagram, which begins anew if the key was in use, and those that waited for it.

        A sender has 65536 identifications for all it sends to one place, and comes round in less than a train's life.
        """
        self._trains.pop(key, None)
        train = self._trains[key] = Train(verdict, now + TRAIN_LIFE_S)
        if len(self._trains) > MAX_TRAINS:
            self._trains.popitem(last=False)
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return train, []
        self._octets -= waiting.octets
        return train, [held for _, held in waiting.fragments]

    def end(self, key: Key) -> None:
        """Forget a datagram."""
        self._trains.pop(key, None)

    def hold(self, key: Key, held: Held, octets: int, now: float) -> bool:
        """Let a fragment of ``octets`` wait for its first; False when there is no room."""
        octets += OVERHEAD
        waiting = self._waiting.get(key)
        there = 0 if waiting is None else waiting.octets
        if there + octets > MAX_WAITING_EACH or self._octets + octets > MAX_WAITING_OCTETS:
            return False
        if waiting is None:
            if len(self._waiting) >= MAX_WAITING:
                return False
            waiting = self._waiting[key] = _Waiting(now + HOLD_S)
        waiting.fragments.append((octets, held))
        waiting.octets += octets
        self._octets += octets
        return True

    def expire(self, now: float) -> list[Held]:
        """Forget what is over; returns the fragments that waited in vain."""
        trains, waiting = self._trains, self._waiting
        while trains and next(iter(trains.values())).until <= now:
            trains.popitem(last=False)
        lost: list[Held] = []
        while waiting and (first := next(iter(waiting.values()))).until <= now:
            waiting.popitem(last=False)
            self._octets -= first.octets
            lost += [held for _, held in first.fragments]
        return lost
