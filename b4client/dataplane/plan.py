"""The plan: a SoftwireConfig as the exact kernel state that makes it true. Pure; two equal plans mean the same kernel.

Where the address lives. The public IPv4 address is a /32 of the softwire device: locally generated traffic then takes
it as its source like any other address, and is translated into the port set like forwarded traffic. Nothing answers for
it on a link with ARP: the softwire has none, ``arp_ignore``/``arp_announce`` keep it out of ARP on other interfaces,
and an nft table of family ``arp`` drops what would name it all the same (RFC 7618 7.1 [S-15]).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address

from b4client.dataplane.mesh import Rule
from b4client.dataplane.recirculation import LoopPlan, loop_plan
from b4client.dataplane.ruleset import own_tables, ruleset
from b4client.model.maprule import MappingRule
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import IPV6_HEADER_LEN, Encapsulation, Mode, SoftwireConfig

MIN_IPV4_MTU = 576

RECIRCULATION = "recirculation"
"""Every free port of the set is found at once."""
ONE_TRY = "one try per packet"
"""A flow whose range of the set is full waits for its sender's next packet."""
NOT_SHARED = "not shared"
"""All ports of the address are ours."""


@dataclass(frozen=True, slots=True)
class MeshPlan:
    """The forwarding rules that the pump goes by; ``draft03`` is the layout of the interface identifiers."""

    rules: tuple[Rule, ...]
    draft03: bool


LAN_MTU = 1500
"""Larger than this nothing comes from most LANs, and nothing of this machine's own should be."""


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """The softwire device: ``kind`` is ``"ip6tnl"`` or ``"tun"``; ``mtu`` the softwire's IPv4 MTU in octets. ``mesh``
    None sends everything to ``remote`` and takes from nobody else."""

    name: str
    kind: str
    local: IPv6Address
    remote: IPv6Address
    mtu: int
    mesh: MeshPlan | None = None

    @property
    def device_mtu(self) -> int:
        """The device's MTU in octets. A TUN takes what a LAN sends: our pump fragments outside what is larger than the
        softwire's MTU and may be, so that nothing is fragmented inside (RFC 6333 5.3 [L-10]). The kernel's tunnel
        cannot."""
        return self.mtu if self.kind == "ip6tnl" else max(self.mtu, LAN_MTU)


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """An IPv4 route through the softwire."""

    destination: IPv4Network
    metric: int


@dataclass(frozen=True, slots=True)
class LanPlan:
    """The LAN that an IPv4 prefix is given to: ``address`` with its prefix's length is the router's there."""

    interface: str
    address: IPv4Interface


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything in the kernel that is ours.

    ``wan_address`` is an IPv6 /128 to add to the WAN (None when ``local`` exists without us). ``sysctls`` are
    (path below /proc/sys, value); ``ruleset`` is nft text that replaces ``tables`` whole, in one transaction. ``loop``
    is the veth pair that the ruleset names, None where the address is not shared or recirculation cannot be. ``lan`` is
    None where no IPv4 prefix is routed without NAT. ``icmp_timeout``: the seconds that the NAT is to keep an ICMP query
    at least (RFC 5508 REQ-2); None where it does not translate.
    """

    wan: str
    wan_address: IPv6Address | None
    link: LinkPlan
    address: IPv4Address
    shared: bool
    routes: tuple[RoutePlan, ...]
    sysctls: tuple[tuple[str, str], ...]
    tables: tuple[tuple[str, str], ...]
    ruleset: str
    loop: LoopPlan | None = None
    lan: LanPlan | None = None
    icmp_timeout: int | None = None

    @property
    def nat(self) -> str:
        """The design of the source NAT: RECIRCULATION, ONE_TRY or NOT_SHARED."""
        if self.loop is not None:
            return RECIRCULATION
        return NOT_SHARED if not self.shared else ONE_TRY


def softwire_mtu(path_mtu: int, wanted: int | None) -> int:
    """IPv4 MTU of the softwire: the path's less the IPv6 header (RFC 6333 5.3), or what the operator wants."""
    return max(MIN_IPV4_MTU, path_mtu - IPV6_HEADER_LEN) if wanted is None else wanted


def plan(
    config: SoftwireConfig,
    settings: SoftwireSettings,
    *,
    encapsulation: Encapsulation,
    path_mtu: int,
    ct_timeouts: bool = True,
    recirculation: bool = True,
) -> Plan:
    """The plan for ``config``. ``encapsulation`` is decided already (not AUTO); ``path_mtu`` is the IPv6 MTU towards
    ``config.remote`` in octets; ``ct_timeouts`` False leaves out what a kernel without NFT_CT timeouts cannot load;
    ``recirculation`` False what one without veth, NFT_DUP_IPV4 or NFT_FIB_IPV4 cannot do."""
    if encapsulation is Encapsulation.AUTO:
        raise ValueError("the encapsulation must be decided before planning")
    device = settings.device
    link = LinkPlan(
        device,
        "ip6tnl" if encapsulation is Encapsulation.KERNEL else "tun",
        config.local,
        config.remote,
        softwire_mtu(path_mtu, config.mtu or settings.mtu),
        mesh_plan(config, settings) if encapsulation is Encapsulation.USERSPACE else None,
    )
    routes = (RoutePlan(IPv4Network("0.0.0.0/0"), settings.route_metric),) if settings.default_route else ()
    loop = loop_plan(device) if recirculation and config.ports is not None else None
    return Plan(
        wan=config.wan,
        wan_address=config.local if config.own_local else None,
        link=link,
        address=config.ipv4,
        shared=config.ports is not None,
        routes=routes,
        sysctls=_sysctls(config.wan, device),
        tables=own_tables(device),
        ruleset=ruleset(
            config,
            settings,
            mtu=link.mtu,
            ct_timeouts=ct_timeouts,
            loop=loop,
            kernel_tunnel=encapsulation is Encapsulation.KERNEL,
            mesh=link.mesh is not None,
        ),
        loop=loop,
        lan=lan_plan(config, settings),
        icmp_timeout=None if config.mode is Mode.DS_LITE else settings.timeouts.icmp,
    )


def lan_plan(config: SoftwireConfig, settings: SoftwireSettings) -> LanPlan | None:
    """The LAN of a prefix that MAP-E assigns (RFC 7597 5.2, o + r < 32), where the operator names one."""
    if config.ipv4_prefix is None or settings.prefix_lan is None:
        return None
    return LanPlan(settings.prefix_lan, IPv4Interface((config.ipv4, config.ipv4_prefix.prefixlen)))


def mesh_plan(config: SoftwireConfig, settings: SoftwireSettings) -> MeshPlan | None:
    """Mesh mode as provisioning and operator want it, whoever encapsulates; None goes by the BR (RFC 7597 5 [M-9])."""
    if not config.rules or settings.mesh == "off":
        return None
    return MeshPlan(mesh_rules(config.rules), config.interface_identifier == "draft03")


def mesh_rules(rules: Iterable[MappingRule]) -> tuple[Rule, ...]:
    """Forwarding rules as numbers."""
    return tuple(
        Rule(
            int(rule.rule_ipv4.network_address),
            rule.rule_ipv4.prefixlen,
            int(rule.rule_ipv6.network_address),
            rule.rule_ipv6.prefixlen,
            rule.ea_len,
            rule.offset_len,
            rule.psid_len,
            rule.psid,
        )
        for rule in rules
    )


ICMP_TIMEOUT = "net/netfilter/nf_conntrack_icmp_timeout"
"""nf_tables has no timeouts for ICMP, so it is the whole namespace's."""


def _sysctls(wan: str, device: str) -> tuple[tuple[str, str], ...]:
    """Forwarding on; no ARP for the address; no addresses of the kernel's own making on the softwire.

    ``arp_ignore`` 1 answers only for addresses of the interface asked on, ``arp_announce`` 2 never names another
    interface's address. The kernel takes the larger of ``all`` and the interface's own value. ``rp_filter`` 0 on the
    softwire because replies from anywhere are what it is for (``all`` is the operator's).
    """
    per_interface = [
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv4/conf/all/arp_announce", "2"),
        (f"net/ipv4/conf/{device}/forwarding", "1"),
        (f"net/ipv4/conf/{device}/rp_filter", "0"),
        (f"net/ipv6/conf/{device}/disable_ipv6", "1"),
    ]
    return (("net/ipv4/ip_forward", "1"), *per_interface)
