"""The softwire: what the kernel should look like, as one value."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from b4client.model.portset import PortSet

IPV6_HEADER_LEN = 40
"""Octets that IPv4-in-IPv6 costs (RFC 2473, RFC 6333 5.3)."""
MIN_IPV6_MTU = 1280


class Mode(enum.Enum):
    """Which mechanism of RFC 8026 is in force."""

    LW4O6 = "lw4o6"
    MAP_E = "map-e"
    DS_LITE = "ds-lite"


class Encapsulation(enum.Enum):
    """Who encapsulates: the kernel's ip6_tunnel, the userspace softwire on a TUN, or the better one that works."""

    AUTO = "auto"
    KERNEL = "kernel"
    USERSPACE = "userspace"


@dataclass(frozen=True, slots=True)
class ForwardingRule:
    """A forwarding mapping rule of MAP-E mesh mode (RFC 7597 5.4): where IPv4 ``rule_ipv4`` lives in IPv6."""

    rule_ipv6: IPv6Network
    rule_ipv4: IPv4Network
    ea_len: int
    offset_len: int
    psid_len: int


@dataclass(frozen=True, slots=True)
class PortForward:
    """Inbound ``protocol`` (``"tcp"``, ``"udp"``) on ``port`` of the shared address goes to ``to`` on ``to_port``."""

    protocol: str
    port: int
    to: IPv4Address
    to_port: int


@dataclass(frozen=True, slots=True)
class SoftwireConfig:
    """The desired state of the data plane.

    ``wan`` is the interface that the softwire runs over; ``local`` and ``remote`` the outer IPv6 addresses (lwB4 and
    lwAFTR, CE and BR); ``own_local`` says that ``local`` is ours to add to the WAN and to remove again (an address
    built for the softwire, RFC 7597 6), False when it exists without us. ``ipv4`` is the public address;
    ``ports`` None when it is not shared. ``mtu`` is the softwire's IPv4 MTU in octets; None takes it from the path.
    """

    mode: Mode
    wan: str
    local: IPv6Address
    remote: IPv6Address
    ipv4: IPv4Address
    ports: PortSet | None
    own_local: bool = False
    mtu: int | None = None
    rules: tuple[ForwardingRule, ...] = ()
    forwards: tuple[PortForward, ...] = ()
