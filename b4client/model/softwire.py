"""The softwire: what the kernel should look like, as one value."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from b4client.model.maprule import InterfaceIdentifier, MappingRule
from b4client.model.portset import PortSet

IPV6_HEADER_LEN = 40
"""Octets that IPv4-in-IPv6 costs (RFC 2473, RFC 6333 5.3)."""
MIN_IPV6_MTU = 1280
DS_LITE_B4 = IPv4Address("192.0.0.2")
"""The B4's own address in 192.0.0.0/29, the same for every DS-Lite subscriber (RFC 6333 5.7)."""


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


FORWARD_PROTOCOLS = ("tcp", "udp", "udplite", "dccp", "sctp")
"""What has ports and can be forwarded, in nft's words."""


@dataclass(frozen=True, slots=True)
class PortForward:
    """Inbound ``protocol`` (one of FORWARD_PROTOCOLS) on ``port`` of the shared address goes to ``to`` on ``to_port``.

    ``move`` is a wish: when ``port`` cannot be had, another port of the set will do (see ``forwards.place``).
    """

    protocol: str
    port: int
    to: IPv4Address
    to_port: int
    move: bool = False


@dataclass(frozen=True, slots=True)
class SoftwireConfig:
    """The desired state of the data plane.

    ``wan`` is the interface that the softwire runs over; ``local`` and ``remote`` the outer IPv6 addresses (lwB4 and
    lwAFTR, CE and BR); ``own_local`` says that ``local`` is ours to add to the WAN and to remove again (an address
    built for the softwire, RFC 7597 6), False when it exists without us. ``ipv4`` is the public address;
    ``ports`` None when it is not shared. ``mtu`` is the softwire's IPv4 MTU in octets; None takes it from the path.

    ``ipv4_prefix`` is set when MAP-E assigns a whole IPv4 prefix (RFC 7597 5.2, o + r < 32); ``ipv4`` is then one host
    of it, and all of its ports are ours. ``rules`` are the forwarding mapping rules of mesh mode (RFC 7597 5.4), whose
    customer edges have interface identifiers of the layout ``interface_identifier``. With DS-Lite ``ipv4`` is
    ``DS_LITE_B4`` and nothing is translated here: the AFTR does that (RFC 6333 8).
    """

    mode: Mode
    wan: str
    local: IPv6Address
    remote: IPv6Address
    ipv4: IPv4Address
    ports: PortSet | None
    own_local: bool = False
    mtu: int | None = None
    rules: tuple[MappingRule, ...] = ()
    forwards: tuple[PortForward, ...] = ()
    ipv4_prefix: IPv4Network | None = None
    interface_identifier: InterfaceIdentifier = "rfc7597"
