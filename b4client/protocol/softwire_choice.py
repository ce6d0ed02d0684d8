"""Which softwire: from what is provisioned, the lease and the WAN's addresses to one SoftwireConfig.

Ways are tried in the order of option 111 (RFC 8026 1.4 [F-13]), else: an address by DHCP 4o6 before one that stands in
a container, lw4o6 before MAP-E before DS-Lite. The softwire's own address follows RFC 7596 5.1 and RFC 7597 5.2 and 6.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from b4client.model.forwards import in_force
from b4client.model.lease import Lease4
from b4client.model.maprule import MapCe, MappingRule, lw_address, map_ce, select_bmr
from b4client.model.portset import PortSet
from b4client.model.settings import ProtocolSettings
from b4client.model.softwire import DS_LITE_B4, Mode, PortForward, SoftwireConfig
from b4client.protocol.provisioning import Provisioning, mapping_rules
from b4client.wire.dhcp6 import Option

SUBNET_LEN = 64
_CONTAINER = {
    Mode.LW4O6: Option.S46_CONT_LW,
    Mode.MAP_E: Option.S46_CONT_MAPE,
    Mode.DS_LITE: Option.AFTR_NAME,
}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to IPv4. ``br`` is the far end.

    ``leased``: address and ports come by DHCP 4o6, not in a container. ``br`` None: the far end comes with the lease
    (RFC 8539), or is the AFTR, whose name may have to be resolved first.
    """

    mode: Mode
    leased: bool
    br: IPv6Address | None

    @property
    def dynamic(self) -> bool:
        """True when DHCP 4o6 provisions the whole softwire (RFC 8539)."""
        return self.leased and self.br is None

    @property
    def codes(self) -> frozenset[int]:
        """The codes of option 111 that mean this way (RFC 8026 4.1)."""
        if self.dynamic:
            return frozenset((Option.DHCP4_O_DHCP6_SERVER,))
        container = _CONTAINER[self.mode]
        return frozenset((container, Option.DHCP4_O_DHCP6_SERVER) if self.leased else (container,))


@dataclass(frozen=True, slots=True)
class Wan:
    """The WAN as the choice needs it: usable addresses (the preferred first), delegated prefixes, the 4o6 source, and
    the AFTR's address where its name is resolved."""

    interface: str
    addresses: tuple[IPv6Address, ...] = ()
    prefixes: tuple[IPv6Network, ...] = ()
    source: IPv6Address | None = None
    aftr: IPv6Address | None = None

    @property
    def active_prefixes(self) -> tuple[IPv6Network, ...]:
        """Delegated prefixes, then the subnets of the addresses."""
        return tuple(dict.fromkeys((*self.prefixes, *map(_subnet, self.addresses))))


def _subnet(address: IPv6Address) -> IPv6Network:
    return IPv6Network((int(address) >> SUBNET_LEN << SUBNET_LEN, SUBNET_LEN))


class Unfit(Exception):
    """The parts do not fit together; the text says why, for the operator."""


# ---- which way


def ways(provisioning: Provisioning, settings: ProtocolSettings) -> tuple[Way, ...]:
    """All ways that are provisioned and switched on, the best first when option 111 says nothing."""
    servers = provisioning.servers_4o6 if settings.servers_4o6 is None else settings.servers_4o6
    leased, bound = [], []
    lw, map_e = provisioning.lw4o6, provisioning.map_e
    lw_br = settings.br or (lw.brs[0] if lw is not None else None)
    if settings.rfc8539 == "on" or (settings.rfc8539 == "auto" and lw_br is None and map_e is None):
        leased.append(Way(Mode.LW4O6, True, None))
    elif lw_br is not None and (lw is not None or map_e is None):
        leased.append(Way(Mode.LW4O6, True, lw_br))
    if lw_br is not None and lw is not None and lw.binding is not None:
        bound.append(Way(Mode.LW4O6, False, lw_br))
    if map_e is not None:
        br = settings.br or map_e.brs[0]
        rules = mapping_rules(map_e.rules)
        # A rule for one whole address says nothing about ports: that is what RFC 7618 leases (RFC 7597 App. A ex. 5).
        if any(r.ea_len == 0 and r.ipv4_len == 32 and not r.psid_len for r in rules):
            leased.append(Way(Mode.MAP_E, True, br))
        if rules:
            bound.append(Way(Mode.MAP_E, False, br))
    if provisioning.aftr is not None or settings.aftr is not None:
        bound.append(Way(Mode.DS_LITE, False, None))
    on = settings.mechanisms
    found = (*(leased if servers is not None and "dhcp4o6" in on else ()), *bound)
    return tuple(way for way in found if way.mode.value in on)


def pick_way(provisioning: Provisioning, settings: ProtocolSettings) -> Way | None:
    """The way to take: the first of option 111 that is provisioned.

    None of them matching, or without option 111: any (RFC 8026 1.4), or none (RFC 8585 CONFIG-3) as the profile says
    [X-5]. What the operator's file describes needs nobody's permission.
    """
    available = ways(provisioning, settings)
    for code in provisioning.priority:
        for way in available:
            if code in way.codes:
                return way
    if settings.profile == "rfc8585" and settings.static is None:
        return None
    return available[0] if available else None


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


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a mechanism gives. ``local`` None: no address of its own follows from it."""

    ipv4: IPv4Address
    ports: PortSet | None = None
    local: IPv6Address | None = None
    prefix: IPv4Network | None = None
    rules: tuple[MappingRule, ...] = ()


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
    """The softwire of ``way``, with those of the ``forwards`` that its ports allow. Raises Unfit when something is
    missing or contradicts something else."""
    remote = _far_end(way, provisioning, settings, wan, lease)
    parts = _parts(way, provisioning, settings, wan, lease)
    local = parts.local if settings.local is None else settings.local
    own = local is not None and local not in wan.addresses
    if local is None:
        local = wan.source
    if local is None:
        raise Unfit(f"{wan.interface} has no IPv6 address to send from (global or unique-local, not tentative)")
    if local == remote:
        raise Unfit(f"the BR address {remote} is our own")
    return SoftwireConfig(
        way.mode,
        wan.interface,
        local,
        remote,
        parts.ipv4,
        parts.ports,
        own,
        mtu,
        rules=parts.rules,
        forwards=in_force(forwards, way.mode, parts.ports),
        ipv4_prefix=parts.prefix,
        interface_identifier=settings.interface_identifier if way.mode is Mode.MAP_E else "rfc7597",
    )


def _far_end(
    way: Way, provisioning: Provisioning, settings: ProtocolSettings, wan: Wan, lease: Lease4 | None
) -> IPv6Address:
    if way.br is not None:
        return way.br
    if way.mode is Mode.DS_LITE:
        if wan.aftr is None:
            raise Unfit(f"the address of the AFTR {settings.aftr or provisioning.aftr} is not known yet")
        return wan.aftr
    if lease is None or lease.softwire is None:
        raise Unfit("the lease came without a BR (option 90)")
    return settings.br or lease.softwire.brs[0]


def _parts(way: Way, provisioning: Provisioning, settings: ProtocolSettings, wan: Wan, lease: Lease4 | None) -> _Parts:
    if way.mode is Mode.DS_LITE:
        return _Parts(DS_LITE_B4)
    if way.leased and lease is None:
        raise Unfit("there is no lease")
    if way.dynamic and lease is not None:
        # What the server has stored, and nothing else: the BR's table says the same.
        saddr = None if lease.softwire is None else lease.softwire.saddr
        if saddr is None:
            raise Unfit("the server has not confirmed the softwire's source (option 109)")
        return _Parts(lease.address, lease.ports, saddr)
    leased = lease if way.leased else None
    if way.mode is Mode.LW4O6:
        return _lw4o6(provisioning, wan, leased)
    return _map_e(provisioning, settings, wan, leased)


def _lw4o6(provisioning: Provisioning, wan: Wan, lease: Lease4 | None) -> _Parts:
    binding = None if provisioning.lw4o6 is None else provisioning.lw4o6.binding
    if lease is not None:
        ipv4, ports = lease.address, lease.ports
    elif binding is not None:
        params = binding.port_params
        ipv4, ports = binding.ipv4, None if params is None else params.port_set()
    else:
        raise Unfit("the lw4o6 container has no binding (option 92)")
    if binding is None:
        return _Parts(ipv4, ports)
    subnet = match_prefix(binding.prefix, wan.active_prefixes)
    if subnet is None:
        raise Unfit(f"the binding prefix {binding.prefix} matches none of {wan.interface}'s prefixes")
    return _Parts(ipv4, ports, lw_address(subnet, ipv4, 0 if ports is None else ports.psid))


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


def dynamic_source(
    bind_prefix: IPv6Network | None,
    ipv4: IPv4Address,
    ports: PortSet | None,
    *,
    settings: ProtocolSettings,
    wan: Wan,
    present: IPv6Address | None = None,
) -> IPv6Address:
    """The softwire's source where the client chooses it and tells the server (RFC 8539 7.1 [E-5, E-6]).

    ``present`` is kept as long as its prefix is active. Else it is built (RFC 7597 6) in the longest match of
    ``bind_prefix``, or in any active prefix when there is no match or no ``bind_prefix``. Raises Unfit.
    """
    if settings.local is not None:
        return settings.local
    active = wan.active_prefixes
    if present is not None and (not active or any(present in prefix for prefix in active)):
        return present
    subnet = None if bind_prefix is None else match_prefix(bind_prefix, active)
    if subnet is None and wan.source is not None:
        subnet = _subnet(wan.source)
    if subnet is None:
        raise Unfit(f"{wan.interface} has no global or unique-local IPv6 prefix to build the softwire's source in")
    return lw_address(subnet, ipv4, 0 if ports is None else ports.psid)


def _map_e(provisioning: Provisioning, settings: ProtocolSettings, wan: Wan, lease: Lease4 | None) -> _Parts:
    every = mapping_rules(provisioning.map_e.rules) if provisioning.map_e is not None else ()
    rules = every
    if lease is not None:
        rules = tuple(rule for rule in rules if lease.address in rule.rule_ipv4)
        if not rules:
            raise Unfit(f"the leased address {lease.address} is in none of the mapping rules")
    ce = _customer_edge(rules, settings, wan, None if lease is None else lease.ports)
    if lease is not None and (ce.ipv4, ce.ports) != (lease.address, lease.ports):
        raise Unfit(f"the lease of {lease.address} contradicts the mapping rule, which gives {ce.ipv4} ({ce.ports})")
    forwarding = tuple(rule for rule in every if rule.fmr)
    if isinstance(ce.ipv4, IPv4Network):
        return _Parts(_host_of(ce.ipv4), None, ce.address, ce.ipv4, forwarding)
    return _Parts(ce.ipv4, ce.ports, ce.address, rules=forwarding)


def _host_of(prefix: IPv4Network) -> IPv4Address:
    """The host that the softwire has of a whole prefix: not the .0 that careless filters out there drop."""
    return prefix.network_address + (1 if prefix.prefixlen < 31 else 0)


def _customer_edge(
    rules: tuple[MappingRule, ...], settings: ProtocolSettings, wan: Wan, explicit: PortSet | None
) -> MapCe:
    """What the basic mapping rule gives: the rule with the longest match to one of our prefixes (RFC 7597 5 [M-1]).

    Delegated prefixes go before the subnets of the WAN: those may be one link's with many customers on it.
    """
    reasons: list[str] = []
    for prefixes in (wan.prefixes, wan.active_prefixes):
        best: MapCe | None = None
        for prefix in prefixes:
            try:
                rule = select_bmr(rules, prefix)
                if rule is None or (best is not None and best.rule.rule_ipv6.prefixlen >= rule.rule_ipv6.prefixlen):
                    continue
                best = map_ce(rule, prefix, explicit, settings.interface_identifier)
            except ValueError as error:
                reasons.append(str(error))
        if best is not None:
            return best
    raise Unfit("; ".join(dict.fromkeys(reasons)) or f"no mapping rule matches a prefix of {wan.interface}")
