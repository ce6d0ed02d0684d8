"""What the machines want done. Imperatives; plain frozen values, interpreted in order by ``daemon.loop``."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address

from b4client.model.lease import Lease4
from b4client.model.lease6 import Binding6, Lease6
from b4client.model.softwire import SoftwireConfig


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``data`` from UDP port 546 of the WAN to ``destination`` port 547.

    ``source`` is the address to send from: the link-local one for ff02::1:2, one of wider scope for unicast
    (RFC 7341 9 [F-5]). ``after_kernel``: not before the changes of the kernel that were asked for before it are done.
    """

    data: bytes
    destination: IPv6Address
    source: IPv6Address
    after_kernel: bool = False


@dataclass(frozen=True, slots=True)
class SaveLease:
    """Keep the lease over restarts, with the IPv6 source it was obtained from [S-17]."""

    lease: Lease4
    source: IPv6Address


@dataclass(frozen=True, slots=True)
class ForgetLease:
    """The stored lease is worth nothing any more."""


@dataclass(frozen=True, slots=True)
class Install:
    """Make the data plane this. Answered by Installed or InstallFailed. Idempotent."""

    config: SoftwireConfig


@dataclass(frozen=True, slots=True)
class PrepareAddress:
    """Add this IPv6 address to the WAN and wait until duplicate address detection is through (RFC 4862 5.4).

    It is ours: what is installed later may use it, and Withdraw takes it away. Answered by AddressReady or
    AddressFailed. Idempotent.
    """

    address: IPv6Address


@dataclass(frozen=True, slots=True)
class Resolve:
    """Find the IPv6 addresses of ``name`` (an absolute host name of RFC 6334). Answered by Resolved."""

    name: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take the softwire, its address, routes and NAT state away, at once. ``reason`` in words, for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConfigureWan:
    """Make the WAN hold these addresses, and keep these prefixes from looping (RFC 7084 WPD-5); what an earlier one of
    these named and this does not is taken away. Idempotent. Answered by AddressDuplicated where that is so."""

    lease: Lease6


@dataclass(frozen=True, slots=True)
class SaveBinding:
    """Keep the DHCPv6 leases over restarts; None: there are none."""

    binding: Binding6 | None


@dataclass(frozen=True, slots=True)
class Report:
    """Something an operator wants to know. ``kind`` is a stable name (``"bound"``), ``level`` a syslog word
    (``"debug"``, ``"info"``, ``"warning"``, ``"error"``), ``text`` one sentence, ``fields`` its facts."""

    kind: str
    level: str
    text: str
    fields: tuple[tuple[str, str | int | float | None], ...] = ()


Effect = (
    Send | SaveLease | ForgetLease | Install | PrepareAddress | Resolve | Withdraw | ConfigureWan | SaveBinding | Report
)


def without_needless_repetitions(effects: list[Effect]) -> list[Effect]:
    """Drop what another effect of the same step makes needless: a Withdraw before an Install (which replaces what is
    there in one transaction), a second Withdraw, a second ForgetLease."""
    kept: list[Effect] = []
    replaced = forgotten = False
    for effect in reversed(effects):
        if (isinstance(effect, Withdraw) and replaced) or (isinstance(effect, ForgetLease) and forgotten):
            continue
        replaced = replaced or isinstance(effect, Install | Withdraw)
        forgotten = forgotten or isinstance(effect, ForgetLease)
        kept.append(effect)
    return kept[::-1]
