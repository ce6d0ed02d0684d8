"""What the machine shows of itself: plain values for ``b4client status`` and for tests. Times are remaining seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from b4client.model.lease import Lease4
from b4client.model.lease6 import Leased6
from b4client.model.portset import PortSet
from b4client.model.softwire import SoftwireConfig
from b4client.wire.dhcp4 import Option

MAX_RANGES_SHOWN = 64


@dataclass(frozen=True, slots=True)
class PortsStatus:
    """A port set. ``ranges`` are the first 64 of ``range_count``."""

    offset: int
    psid_len: int
    psid: int
    port_count: int
    range_count: int
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, ports: PortSet) -> PortsStatus:
        """The view of ``ports``."""
        shown = (ports.range_at(i) for i in range(min(ports.range_count, MAX_RANGES_SHOWN)))
        return cls(
            ports.offset_len,
            ports.psid_len,
            ports.psid,
            ports.port_count,
            ports.range_count,
            tuple((r.first, r.last) for r in shown),
        )


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """The lease in hand; the times are None for an infinite lease. ``dns`` and ``options`` as the server gave them."""

    address: str
    ports: PortsStatus | None
    server_id: str
    age_s: float
    t1_in_s: float | None
    t2_in_s: float | None
    expires_in_s: float | None
    options: dict[str, str]

    @classmethod
    def of(cls, lease: Lease4, now: float) -> LeaseStatus:
        """The view of ``lease`` at ``now``."""

        def remaining(instant: float) -> float | None:
            return None if math.isinf(instant) else round(instant - now, 3)

        return cls(
            str(lease.address),
            None if lease.ports is None else PortsStatus.of(lease.ports),
            str(lease.server_id),
            round(now - lease.requested_at, 3),
            remaining(lease.t1_at),
            remaining(lease.t2_at),
            remaining(lease.expires_at),
            {_option_name(code): value.hex() for code, value in lease.options},
        )


@dataclass(frozen=True, slots=True)
class SoftwireStatus:
    """The softwire that is wanted, in the names of RFC 8676 where it has them."""

    mode: str
    binding_ipv6_addr: str
    br_ipv6_addr: str
    ipv4: str
    installed: bool
    problem: str | None
    ports: PortsStatus | None = None
    ipv4_prefix: str | None = None
    forwarding_rules: int = 0

    @classmethod
    def of(cls, config: SoftwireConfig, *, installed: bool, problem: str | None) -> SoftwireStatus:
        """The view of ``config``."""
        return cls(
            config.mode.value,
            str(config.local),
            str(config.remote),
            str(config.ipv4),
            installed,
            problem,
            None if config.ports is None else PortsStatus.of(config.ports),
            None if config.ipv4_prefix is None else str(config.ipv4_prefix),
            len(config.rules),
        )


@dataclass(frozen=True, slots=True)
class Lease6Status:
    """An address (``/128``) or prefix of DHCPv6; the times are None for ever, and 0 at least."""

    network: str
    preferred_in_s: float | None
    valid_in_s: float | None

    @classmethod
    def of(cls, item: Leased6, now: float) -> Lease6Status:
        """The view of ``item`` at ``now``."""

        def remaining(instant: float) -> float | None:
            return None if math.isinf(instant) else max(round(instant - now, 3), 0.0)

        return cls(str(item.network), remaining(item.preferred_until), remaining(item.valid_until))


@dataclass(frozen=True, slots=True)
class ProvisioningStatus:
    """What DHCPv6 said about IPv4. ``servers_4o6`` None: option 88 absent; empty: present without address.

    ``mechanism`` is the one in force: ``lw4o6``, ``map-e``, ``ds-lite`` or ``rfc8539``.
    ``mode`` is ``dhcp6.mode``; ``leases`` what it gives to the WAN, or what was handed over.
    """

    state: str
    refresh_in_s: float | None
    servers_4o6: tuple[str, ...] | None
    brs: tuple[str, ...]
    containers: tuple[str, ...]
    problems: tuple[str, ...]
    mechanism: str | None = None
    aftr: str | None = None
    mode: str = "stateless"
    leases: tuple[Lease6Status, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """The whole view. ``waiting_for`` says in words what stands between here and IPv4, None when nothing does."""

    state: str
    state_for_s: float
    waiting_for: str | None
    deadline_in_s: float | None
    source: str | None
    destinations: tuple[str, ...]
    provisioning: ProvisioningStatus
    lease: LeaseStatus | None
    softwire: SoftwireStatus | None
    identity: dict[str, str] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)


def _option_name(code: int) -> str:
    try:
        return Option(code).name.lower()
    except ValueError:
        return str(code)
