"""What the lwAFTR remembers of one binding while it lasts: traffic, and the ports that were seen lately. Pure."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from b4client.model.portset import PortRange

if TYPE_CHECKING:
    from b4client.lab.binding import Binding

RECENT_S = 60.0
MAP_OCTETS = 65536 // 8
MAX_RANGES = 16
"""Ranges of ports in a customer's line of the table; ``ports`` tells them all."""


class PortsSeen:
    """The ports of one address that were seen lately: one bit a port, so that no traffic makes it grow.

    A port is remembered for at least ``RECENT_S`` seconds and at most twice as long: there are two maps, the older one
    is forgotten when the newer one has become old.
    """

    __slots__ = ("_new", "_old", "_turn_at")

    def __init__(self) -> None:
        self._new = self._old = bytearray()
        self._turn_at = -1.0

    def note(self, port: int, now: float) -> None:
        """``port`` is in use at ``now``."""
        if now >= self._turn_at:
            self._turn(now)
        self._new[port >> 3] |= 1 << (port & 7)

    def _turn(self, now: float) -> None:
        # What is older than both maps' time is no longer recent, even if nothing came in between.
        self._old = self._new if now < self._turn_at + RECENT_S else bytearray()
        self._new = bytearray(MAP_OCTETS)
        self._turn_at = now + RECENT_S

    def _bits(self, now: float) -> int:
        """The map as a number: bit n for port n."""
        if now >= self._turn_at + RECENT_S:
            return 0
        return int.from_bytes(self._new, "little") | int.from_bytes(self._old, "little")

    def count(self, now: float) -> int:
        """How many ports were seen lately."""
        return self._bits(now).bit_count()

    def ranges(self, now: float) -> Iterator[PortRange]:
        """The ports that were seen lately, ascending; there may be 32768 ranges."""
        bits, at = self._bits(now), 0
        while bits:
            gap = (bits & -bits).bit_length() - 1
            bits >>= gap
            # Adding one to a run of ones leaves the bit behind it.
            run = (~bits & (bits + 1)).bit_length() - 1
            yield PortRange(at + gap, at + gap + run - 1)
            bits >>= run
            at += gap + run


class Softwire:
    """What the bindings of one B4 have in common: how many of each IPv4 address, and packets that were not its own."""

    __slots__ = ("addresses", "refused")

    def __init__(self) -> None:
        self.addresses: collections.Counter[bytes] = collections.Counter()
        self.refused = 0


class Customer:
    """One binding in force. ``b4`` is the softwire's end in 16 octets, ``destination`` the same for a socket.

    ``up`` counts what came out of the softwire and was rightful, ``down`` what went into it; octets are those of the
    IPv4 packets. ``until`` is the end of the lease on the wall clock, None for a binding without an end; ``derived``
    tells that it follows from a mapping rule. ``bound`` becomes False when the binding is taken away.
    """

    __slots__ = (
        "b4",
        "binding",
        "bound",
        "derived",
        "destination",
        "last_seen",
        "octets_down",
        "octets_up",
        "packets_down",
        "packets_up",
        "ports_seen",
        "softwire",
        "until",
    )

    def __init__(self, binding: Binding, *, derived: bool = False) -> None:
        self.binding = binding
        self.b4 = binding.b4.packed
        self.destination = (str(binding.b4), 0)
        self.softwire = Softwire()
        self.bound = True
        self.derived = derived
        self.until: float | None = None
        self.packets_up = self.octets_up = self.packets_down = self.octets_down = 0
        self.ports_seen = PortsSeen()
        self.last_seen: float | None = None

    def sent(self, port: int | None, octets: int, now: float) -> None:
        """A rightful packet came out of the softwire."""
        self.packets_up += 1
        self.octets_up += octets
        self.last_seen = now
        if port is not None:
            self.ports_seen.note(port, now)

    def received(self, octets: int) -> None:
        """A packet went into the softwire. Says nothing about the port's use: anybody may send to it."""
        self.packets_down += 1
        self.octets_down += octets

    def to_json(self, now: float) -> dict[str, Any]:
        """The customer's line of the table. ``last_seen_s`` is the age of the last packet out of the softwire."""
        ports = self.binding.ports
        shared = (
            {"offset": None, "psid_len": None, "psid": None}
            if ports is None
            else {"offset": ports.offset_len, "psid_len": ports.psid_len, "psid": ports.psid}
        )
        return {
            "binding": str(self.binding),
            "address": str(self.binding.address),
            **shared,
            "ports": 65536 if ports is None else ports.port_count,
            "b4": str(self.binding.b4),
            "until": self.until,
            "derived": self.derived,
            "packets_up": self.packets_up,
            "octets_up": self.octets_up,
            "packets_down": self.packets_down,
            "octets_down": self.octets_down,
            "refused_up": self.softwire.refused,
            "ports_seen": self.ports_seen.count(now),
            "ports_seen_ranges": [str(r) for r in itertools.islice(self.ports_seen.ranges(now), MAX_RANGES)],
            "last_seen_s": None if self.last_seen is None else round(now - self.last_seen, 3),
        }
