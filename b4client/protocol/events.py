"""What can happen to the machines. Past participles; plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address

from b4client.model.lease6 import Lease6
from b4client.model.settings import ProtocolSettings
from b4client.model.softwire import PortForward, SoftwireConfig
from b4client.wire.dhcp6 import Options


@dataclass(frozen=True, slots=True)
class Woke:
    """The deadline has passed (or the shell woke early: harmless)."""


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """The WAN as it is now. ``up`` is carrier and IFF_UP; ``link_local`` and ``addresses`` (global and ULA, preferred
    ones first) hold only addresses that may be used as a source: not tentative, not deprecated, not failed.

    ``moved`` says that the link may be another one than before (carrier was lost and came back) [D-13]. ``elsewhere``
    are addresses of other interfaces, for a WAN that has none of its own.
    """

    up: bool
    link_local: IPv6Address | None
    addresses: tuple[IPv6Address, ...]
    moved: bool = False
    elsewhere: tuple[IPv6Address, ...] = ()


@dataclass(frozen=True, slots=True)
class DatagramReceived:
    """One UDP payload that arrived on port 546 of the WAN from ``source``."""

    data: bytes
    source: IPv6Address


@dataclass(frozen=True, slots=True)
class InformationHandedOver:
    """Another DHCPv6 client hands over all that it holds now: the ``options`` of the Reply, and its leases. Ignored
    unless ``dhcp6_mode`` is ``external``."""

    options: Options
    lease: Lease6


@dataclass(frozen=True, slots=True)
class AddressDuplicated:
    """Duplicate address detection failed for an address that was leased (RFC 8415 18.2.10.1)."""

    address: IPv6Address


@dataclass(frozen=True, slots=True)
class SendFailed:
    """The shell could not send: ``reason`` in words. The next retransmission is the remedy; counted and shown."""

    reason: str


@dataclass(frozen=True, slots=True)
class Installed:
    """The data plane is what ``config`` wants."""

    config: SoftwireConfig


@dataclass(frozen=True, slots=True)
class InstallFailed:
    """The data plane could not be made what ``config`` wants, and is what it was before."""

    config: SoftwireConfig
    reason: str


@dataclass(frozen=True, slots=True)
class AddressReady:
    """``address`` is on the WAN and may be used."""

    address: IPv6Address


@dataclass(frozen=True, slots=True)
class AddressFailed:
    """``address`` could not be had: another host has it, or the kernel refused."""

    address: IPv6Address
    reason: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """``name`` has these IPv6 addresses; none, and ``reason`` in words, when that could not be found out."""

    name: str
    addresses: tuple[IPv6Address, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RenewRequested:
    """An operator asks for a renewal now (BOUND, RENEWING); ignored elsewhere."""


@dataclass(frozen=True, slots=True)
class RebindRequested:
    """An operator asks for a rebinding now (BOUND, RENEWING, REBINDING); ignored elsewhere."""


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """An operator gives the lease back; the client stays idle until RestartRequested."""


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """An operator wants the exchange anew, beginning with the DHCPv6 information."""


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    """The operator changed the configuration: from now on these hold. ``mtu`` and ``forwards`` as in SoftwireConfig."""

    settings: ProtocolSettings
    mtu: int | None
    forwards: tuple[PortForward, ...]


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The daemon is about to end. ``release`` gives the lease back, ``withdraw`` takes the softwire down."""

    withdraw: bool = False
    release: bool = False


Event = (
    Woke
    | LinkChanged
    | DatagramReceived
    | InformationHandedOver
    | AddressDuplicated
    | SendFailed
    | Installed
    | InstallFailed
    | AddressReady
    | AddressFailed
    | Resolved
    | RenewRequested
    | RebindRequested
    | ReleaseRequested
    | RestartRequested
    | SettingsChanged
    | StopRequested
)
