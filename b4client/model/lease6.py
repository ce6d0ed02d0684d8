"""What DHCPv6 leases to the WAN: addresses (IA_NA) and delegated prefixes (IA_PD), with their ends (RFC 8415 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network


@dataclass(frozen=True, slots=True)
class Leased6:
    """One address (a /128) or prefix. The instants are seconds on the boot clock, ``math.inf`` for ever.

    After ``preferred_until`` it is not used for anything new, after ``valid_until`` not at all.
    """

    network: IPv6Network
    preferred_until: float
    valid_until: float

    @property
    def address(self) -> IPv6Address:
        """The address of a /128."""
        return self.network.network_address


@dataclass(frozen=True, slots=True)
class Lease6:
    """Everything that is held at one time; nothing twice."""

    addresses: tuple[Leased6, ...] = ()
    prefixes: tuple[Leased6, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.addresses or self.prefixes)

    @property
    def every(self) -> tuple[Leased6, ...]:
        """Addresses and prefixes together."""
        return (*self.addresses, *self.prefixes)

    def at(self, now: float) -> Lease6:
        """What of it is valid at ``now``; the same object when that is everything."""
        if all(item.valid_until > now for item in self.every):
            return self
        return Lease6(
            tuple(item for item in self.addresses if item.valid_until > now),
            tuple(item for item in self.prefixes if item.valid_until > now),
        )

    def without(self, addresses: frozenset[IPv6Address]) -> Lease6:
        """All but these addresses."""
        return replace(self, addresses=tuple(item for item in self.addresses if item.address not in addresses))

    def preferred_first(self, now: float) -> tuple[Leased6, ...]:
        """The prefixes, those that should be used for something new before the deprecated ones."""
        return tuple(sorted(self.prefixes, key=lambda item: item.preferred_until <= now))

    @property
    def networks(self) -> tuple[tuple[IPv6Network, ...], tuple[IPv6Network, ...]]:
        """Addresses and prefixes without their times: equal when a renewal changed nothing else."""
        return tuple(i.network for i in self.addresses), tuple(i.network for i in self.prefixes)


@dataclass(frozen=True, slots=True)
class Binding6:
    """A lease with the server that granted it (its DUID), and when to renew (T1) and rebind (T2)."""

    server: bytes
    lease: Lease6
    t1_at: float
    t2_at: float
