"""What the laboratory's DHCP 4o6 server may lease: whole addresses, and addresses with port sets (RFC 7618 8).

A laboratory, not a production server: pools are small enough to be searched in order. Pure.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from b4client.model.portset import PORT_BITS, PortRange, PortSet

SYSTEM_PORTS = PortRange(0, 1023)
"""What is reserved unless the operator says otherwise (RFC 7618 8 and 9 [SV-7])."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What one lease is of: an address and the ports of it (None: all). The key of a lease (RFC 7618 8 [SV-2])."""

    address: IPv4Address
    ports: PortSet | None

    def overlaps(self, other: Slot) -> bool:
        """True when some port of the same address is in both."""
        if self.address != other.address:
            return False
        mine, theirs = self.ports, other.ports
        if mine is None or theirs is None:
            return True
        if mine.offset_len == theirs.offset_len:
            # With one offset the shorter PSID covers the longer ones that begin with it.
            common = min(mine.psid_len, theirs.psid_len)
            return mine.psid >> (mine.psid_len - common) == theirs.psid >> (theirs.psid_len - common)
        return mine.overlaps(theirs)

    def to_json(self) -> dict[str, Any]:
        """For the lease file; the inverse is ``from_json``."""
        if self.ports is None:
            return {"address": str(self.address)}
        ports = self.ports
        return {
            "address": str(self.address),
            "offset": ports.offset_len,
            "psid_len": ports.psid_len,
            "psid": ports.psid,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Slot:
        """Raises ValueError and KeyError for what ``to_json`` never wrote."""
        ports = PortSet(value["offset"], value["psid_len"], value["psid"]) if "psid_len" in value else None
        return cls(IPv4Address(value["address"]), ports)

    def __str__(self) -> str:
        return str(self.address) if self.ports is None else f"{self.address} {self.ports}"


def _check_range(first: IPv4Address, last: IPv4Address) -> None:
    if first > last:
        raise ValueError(f"the pool {first} - {last} ends before it begins")


@dataclass(frozen=True, slots=True)
class FullPool:
    """Whole addresses ``first`` to ``last``, both included. Raises ValueError."""

    first: IPv4Address
    last: IPv4Address

    def __post_init__(self) -> None:
        _check_range(self.first, self.last)

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last


@dataclass(frozen=True, slots=True)
class SharedPool:
    """Addresses ``first`` to ``last`` that are leased with port sets of ``psid_len`` bits at ``offset_len``.

    ``hints`` are the other PSID lengths that a client gets when it asks for one of them (RFC 7618 6 [SV-4]);
    sets of different length then stand on one address, never on one port. Raises ValueError.
    """

    first: IPv4Address
    last: IPv4Address
    offset_len: int = 0
    psid_len: int = 6
    hints: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_range(self.first, self.last)
        for length in (self.psid_len, *self.hints):
            PortSet(self.offset_len, length, 0)

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last

    def permits(self, psid_len: int) -> bool:
        """True when a set of this PSID length may be leased from here."""
        return psid_len == self.psid_len or psid_len in self.hints


@functools.lru_cache(maxsize=256)
def usable_psids(offset_len: int, psid_len: int, reserved: tuple[PortRange, ...]) -> tuple[int, ...]:
    """The PSIDs whose sets hold no reserved port, ascending [SV-7]."""
    shift = PORT_BITS - offset_len - psid_len
    mask = (1 << psid_len) - 1
    floor = 1 << (PORT_BITS - offset_len) if offset_len else 0
    lost: set[int] = set()
    for ports in reserved:
        first = max(ports.first, floor)
        # A PSID comes back every 2**(16-a) ports: no more than that need be looked at, in steps of one range.
        last = min(ports.last, first + (1 << (PORT_BITS - offset_len)) - 1)
        if first <= last:
            lost.update((block & mask) for block in range(first >> shift, (last >> shift) + 1))
    return tuple(psid for psid in range(1 << psid_len) if psid not in lost)


@dataclass(frozen=True, slots=True)
class Pools:
    """All that may be leased, and the ports that may not.

    ``ignore_portparams`` gives whole addresses also to clients that would take shared ones (RFC 7618 8.1).
    Raises ValueError when an address stands in two pools.
    """

    shared: tuple[SharedPool, ...] = ()
    full: tuple[FullPool, ...] = ()
    reserved: tuple[PortRange, ...] = (SYSTEM_PORTS,)
    ignore_portparams: bool = False

    def __post_init__(self) -> None:
        ordered = sorted(self._all(), key=lambda pool: pool.first)
        for one, two in itertools.pairwise(ordered):
            if one.last >= two.first:
                raise ValueError(f"{two.first} is in two pools")

    def gives_shared(self, wants_shared: bool) -> bool:
        """True when a client that lists option 159 (``wants_shared``) is to get a shared address."""
        return wants_shared and bool(self.shared) and not (self.ignore_portparams and self.full)

    def holds(self, address: IPv4Address) -> bool:
        """True when the address is in some pool."""
        return any(address in pool for pool in self._all())

    def _all(self) -> list[SharedPool | FullPool]:
        return [*self.shared, *self.full]

    def valid(self, slot: Slot, *, wants_shared: bool) -> bool:
        """True when ``slot`` may be leased to a client that lists option 159, or to one that does not (8.1 [SV-8])."""
        if slot.ports is None:
            return any(slot.address in pool for pool in self.full)
        if not wants_shared:
            return False
        ports = slot.ports
        return any(
            slot.address in pool
            and ports.offset_len == pool.offset_len
            and pool.permits(ports.psid_len)
            and ports.psid in self.usable(pool, ports.psid_len)
            for pool in self.shared
        )

    def usable(self, pool: SharedPool, psid_len: int) -> tuple[int, ...]:
        """The PSIDs of this length that may be leased from ``pool``."""
        return usable_psids(pool.offset_len, psid_len, self.reserved)

    def length_for(self, pool: SharedPool, hint: int | None) -> int:
        """The PSID length that a client with this hint gets from ``pool`` [SV-4]."""
        return hint if hint is not None and pool.permits(hint) else pool.psid_len

    def shared_addresses(self, hint: int | None) -> Iterator[tuple[SharedPool, IPv4Address]]:
        """The shared addresses, those of pools that permit the hinted length first."""
        ordered = sorted(self.shared, key=lambda pool: hint is not None and not pool.permits(hint))
        for pool in ordered:
            for number in range(int(pool.first), int(pool.last) + 1):
                yield pool, IPv4Address(number)

    def full_addresses(self) -> Iterator[IPv4Address]:
        """The whole addresses."""
        for pool in self.full:
            for number in range(int(pool.first), int(pool.last) + 1):
                yield IPv4Address(number)
