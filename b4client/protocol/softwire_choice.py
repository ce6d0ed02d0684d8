"""Which softwire: from what DHCPv6 provisions, the lease and the WAN's addresses to one SoftwireConfig.

Ways are tried in the order of option 111 (RFC 8026 1.4 [F-13]), else: an address by DHCP 4o6 before one that stands in
a container, lw4o6 before MAP-E. The softwire's own address follows RFC 7596 5.1 and RFC 7597 5.2 and 6.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from b4client.model.lease import Lease4
from b4client.model.maprule import DEFAULT_OFFSET_LEN, MapCe, MappingRule, lw_address, map_ce, select_bmr
from b4client.model.portset import PortSet
from b4client.model.settings import ProtocolSettings
from b4client.model.softwire import Mode, PortForward, SoftwireConfig
from b4client.protocol.provisioning import Provisioning
from b4client.wire.dhcp6 import Option
from b4client.wire.softwire46 import Rule

SUBNET_LEN = 64


@dataclass(frozen=True, slots=True)
class Way:
    """One way to IPv4. ``leased``: address and ports come by DHCP 4o6, not in a container. ``br``: far end."""

    mode: Mode
    leased: bool
    br: IPv6Address

    @property
    def codes(self) -> frozenset[int]:
        """The codes of option 111 that mean this way (RFC 8026 4.1)."""
        container = Option.S46_CONT_LW if self.mode is Mode.LW4O6 else Option.S46_CONT_MAPE
        return frozenset((container, Option.DHCP4_O_DHCP6_SERVER) if self.leased else (container,))


@dataclass(frozen=True, slots=True)
class Wan:
    """The WAN as the choice needs it: usable addresses (the preferred first), delegated prefixes, the 4o6 source."""

    interface: str
    addresses: tuple[IPv6Address, ...] = ()
    prefixes: tuple[IPv6Network, ...] = ()
    source: IPv6Address | None = None

    @property
    def active_prefixes(self) -> tuple[IPv6Network, ...]:
        """Delegated prefixes, then the subnets of the addresses."""
        subnets = (IPv6Network((int(a) >> SUBNET_LEN << SUBNET_LEN, SUBNET_LEN)) for a in self.addresses)
        return tuple(dict.fromkeys((*self.prefixes, *subnets)))


class Unfit(Exception):
    """The parts do not fit together; the text says why, for the operator."""


# ---- which way


def ways(provisioning: Provisioning, settings: ProtocolSettings) -> tuple[Way, ...]:
    """All ways that are provisioned, the best first when option 111 says nothing."""
    servers = provisioning.servers_4o6 if settings.servers_4o6 is None else settings.servers_4o6
    leased, bound = [], []
    lw, map_e = provisioning.lw4o6, provisioning.map_e
    lw_br = settings.br or (lw.brs[0] if lw is not None else None)
    if lw_br is not None and (lw is not None or map_e is None):
        leased.append(Way(Mode.LW4O6, True, lw_br))
        if lw is not None and lw.binding is not None:
            bound.append(Way(Mode.LW4O6, False, lw_br))
    if map_e is not None:
        br = settings.br or map_e.brs[0]
        rules = mapping_rules(map_e.rules)
        # A rule for one whole address says nothing about ports: that is what RFC 7618 leases (RFC 7597 App. A ex. 5).
        if any(r.ea_len == 0 and r.ipv4_len == 32 and not r.psid_len for r in rules):
            leased.append(Way(Mode.MAP_E, True, br))
        if rules:
            bound.append(Way(Mode.MAP_E, False, br))
    return (*(leased if servers is not None else ()), *bound)


def pick_way(provisioning: Provisioning, settings: ProtocolSettings) -> Way | None:
    """The way to take: the first of option 111 that is provisioned; none of them matching, any (RFC 8026 1.4, X-5)."""
    available = ways(provisioning, settings)
    for code in provisioning.priority:
        for way in available:
            if code in way.codes:
                return way
    return available[0] if available else None


def mapping_rules(rules: Iterable[Rule]) -> tuple[MappingRule, ...]:
    """The rules of a container whose parts fit together (RFC 7597 5.2); the others are left out."""
    found = []
    for rule in rules:
        params = rule.port_params
        try:
            found.append(
                MappingRule(
                    rule.rule_ipv6,
                    rule.rule_ipv4,
                    rule.ea_len,
                    DEFAULT_OFFSET_LEN if params is None else params.offset_len,
                    0 if params is None else params.psid_len,
                    0 if params is None else params.psid,
                    rule.fmr,
                )
            )
        except ValueError:
            continue
    return tuple(found)


def choose_source(addresses: Iterable[IPv6Address], target: IPv6Address | None) -> IPv6Address | None:
    """The address to speak to ``target`` from: of the same kind (unique-local or global) first, then the first."""
    candidates = tuple(addresses)
    if target is not None:
        for address in candidates:
            if _unique_local(address) == _unique_local(target):
                return address
    return candidates[0] if candidates else None


def _unique_local(address: IPv6Address) -> bool:
    return int(address) >> 121 == 0xFC >> 1


# ---- the softwire


def choose_softwire(
    way: Way,
    provisioning: Provisioning,
    settings: ProtocolSettings,
    wan: Wan,
    lease: Lease4 | None,
    *,
    mtu: int | None,
    forwards: tuple[PortForward, ...],
) -> SoftwireConfig:
    """The softwire of ``way``. Raises Unfit when something is missing or contradicts something else."""
    ipv4, ports, local = (
        _lw4o6(way, provisioning, wan, lease) if way.mode is Mode.LW4O6 else _map_e(way, provisioning, wan, lease)
    )
    own = local is not None
    if settings.local is not None:
        local, own = settings.local, settings.local not in wan.addresses
    if local is None:
        local = wan.source
    if local is None:
        raise Unfit(f"{wan.interface} has no IPv6 address to send from (global or unique-local, not tentative)")
    if local == way.br:
        raise Unfit(f"the BR address {way.br} is our own")
    return SoftwireConfig(way.mode, wan.interface, local, way.br, ipv4, ports, own, mtu, forwards=forwards)


_Parts = tuple[IPv4Address, PortSet | None, IPv6Address | None]


def _lw4o6(way: Way, provisioning: Provisioning, wan: Wan, lease: Lease4 | None) -> _Parts:
    binding = None if provisioning.lw4o6 is None else provisioning.lw4o6.binding
    if way.leased:
        if lease is None:
            raise Unfit("there is no lease")
        ipv4, ports = lease.address, lease.ports
    elif binding is not None:
        params = binding.port_params
        ipv4, ports = binding.ipv4, None if params is None else params.port_set()
    else:
        raise Unfit("the lw4o6 container has no binding (option 92)")
    if binding is None:
        return ipv4, ports, None
    subnet = match_prefix(binding.prefix, wan.active_prefixes)
    if subnet is None:
        raise Unfit(f"the binding prefix {binding.prefix} matches none of {wan.interface}'s prefixes")
    return ipv4, ports, lw_address(subnet, ipv4, 0 if ports is None else ports.psid)


def match_prefix(binding: IPv6Network, active: Iterable[IPv6Network]) -> IPv6Network | None:
    """The subnet for the tunnel's source: the longest match of the binding prefix among the active ones (RFC 7596 5.1).

    Where the binding prefix is the longer one its own bits are used: it names a part of the active prefix [X-10].
    """
    best: IPv6Network | None = None
    for prefix in active:
        found = prefix if prefix.subnet_of(binding) else binding if binding.subnet_of(prefix) else None
        if found is not None and (best is None or found.prefixlen > best.prefixlen):
            best = found
    return best


def _map_e(way: Way, provisioning: Provisioning, wan: Wan, lease: Lease4 | None) -> _Parts:
    rules = mapping_rules(provisioning.map_e.rules) if provisioning.map_e is not None else ()
    if way.leased:
        if lease is None:
            raise Unfit("there is no lease")
        rules = tuple(rule for rule in rules if lease.address in rule.rule_ipv4)
        if not rules:
            raise Unfit(f"the leased address {lease.address} is in none of the mapping rules")
    ce = _customer_edge(rules, wan, lease.ports if way.leased and lease is not None else None)
    if isinstance(ce.ipv4, IPv4Network):
        raise Unfit(f"the mapping rule gives the IPv4 prefix {ce.ipv4}, which is not supported yet")
    if way.leased and lease is not None and (ce.ipv4, ce.ports) != (lease.address, lease.ports):
        raise Unfit(f"the lease of {lease.address} contradicts the mapping rule, which gives {ce.ipv4} ({ce.ports})")
    return ce.ipv4, ce.ports, ce.address


def _customer_edge(rules: tuple[MappingRule, ...], wan: Wan, explicit: PortSet | None) -> MapCe:
    """What the basic mapping rule gives: the rule with the longest match to one of our prefixes (RFC 7597 5 [M-1])."""
    reasons = []
    best: MapCe | None = None
    for prefix in wan.active_prefixes:
        try:
            rule = select_bmr(rules, prefix)
            if rule is None or (best is not None and best.rule.rule_ipv6.prefixlen >= rule.rule_ipv6.prefixlen):
                continue
            best = map_ce(rule, prefix, explicit)
        except ValueError as error:
            reasons.append(str(error))
    if best is None:
        raise Unfit("; ".join(reasons) or f"no mapping rule matches a prefix of {wan.interface}")
    return best
