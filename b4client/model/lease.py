"""The DHCPv4 lease as the client holds it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from b4client.model.portset import PortSet


@dataclass(frozen=True, slots=True)
class LeasedSoftwire:
    """What the server says about the softwire beside an address (RFC 8539).

    ``brs`` are border relays (DHCPv6 option 90), ``bind_prefix`` is where it wants the softwire's source to come from
    (137), ``saddr`` is the source that it has stored for the lease (DHCPv4 option 109 of an ACK; None in an offer).
    """

    brs: tuple[IPv6Address, ...]
    bind_prefix: IPv6Network | None = None
    saddr: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class Lease4:
    """An IPv4 address, and the ports of it that are ours, until an instant.

    ``ports`` is None for an address that is not shared. The four instants are seconds on the boot clock
    (CLOCK_BOOTTIME), counted from when the REQUEST was *sent* (RFC 2131 4.4.1 [S-6]); ``t1_at``, ``t2_at`` and
    ``expires_at`` are ``math.inf`` for an infinite lease. ``options`` holds the ACK's other DHCPv4 options
    (code, value) as they came, for DNS and the like. ``softwire`` is there when RFC 8539 is in use.
    """

    address: IPv4Address
    ports: PortSet | None
    server_id: IPv4Address
    requested_at: float
    t1_at: float
    t2_at: float
    expires_at: float
    options: tuple[tuple[int, bytes], ...] = ()
    softwire: LeasedSoftwire | None = None

    def same_binding(self, other: Lease4 | None) -> bool:
        """True when address and port set are equal, whatever the times and other options say (RFC 7618 6 [S-16])."""
        return other is not None and (self.address, self.ports) == (other.address, other.ports)


@dataclass(frozen=True, slots=True)
class StoredLease:
    """A lease read back from disk, for INIT-REBOOT (RFC 7618 6 [S-4]).

    ``source`` is the IPv6 address from which DHCP 4o6 was spoken when the lease was granted. ``lease`` has its
    instants on the present boot clock; ``trusted`` is False when the clocks do not allow that conversion (another boot
    and a wall clock that cannot be right): then the address may be asked for again, not used before the answer.
    """

    lease: Lease4
    source: IPv6Address
    trusted: bool = True
