"""The plan: a SoftwireConfig as the exact kernel state that makes it true. Pure; two equal plans mean the same kernel.

Where the address lives. The public IPv4 address is a /32 of the softwire device: locally generated traffic then takes
it as its source like any other address, and is translated into the port set like forwarded traffic. Nothing answers for
it on a link with ARP: the softwire has none, ``arp_ignore``/``arp_announce`` keep it out of ARP on other interfaces,
and an nft table of family ``arp`` drops what would name it all the same (RFC 7618 7.1 [S-15]).

Which ports. A new flow gets its port from conntrack, from one range of the set: the one range of an lw4o6 set, else for
UDP the range that the inner endpoint hashes to (so that one socket keeps one outer port towards all peers, RFC 4787
REQ-1, as far as that range has room) and else a random one. Behind it the guard lets nothing out whose source is not
the address with a port of the set: ``port & mask == value and port >= floor`` is exactly membership, at constant cost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from b4client.model.portset import PortSet
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import IPV6_HEADER_LEN, Encapsulation, PortForward, SoftwireConfig

COUNTERS = ("in_drop", "out_drop", "guard_drop", "link_local_drop", "not_lan_drop", "not_forwarded")
"""Named counters of the table: packets and octets by fate.

``in_drop`` came for another subscriber or matched no flow, ``out_drop`` could not be translated (protocol without
ports), ``guard_drop`` would have left with a source outside the port set, ``link_local_drop`` had a 169.254/16 address,
``not_lan_drop`` came from a network that may not use the softwire, ``not_forwarded`` was inbound on a port of the set
that no port forward leads anywhere.
"""
PORT_PROTOCOLS = "{ tcp, udp, udplite, dccp, sctp }"
LINK_LOCAL_V4 = IPv4Network("169.254.0.0/16")
MIN_IPV4_MTU = 576
HASH_SEED = 0x5EED
UDP_RETRY_S = 5
UDP_RETRY_SIZE = 4096


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """The softwire device: ``kind`` is ``"ip6tnl"`` or ``"tun"``; ``mtu`` its IPv4 MTU in octets."""

    name: str
    kind: str
    local: IPv6Address
    remote: IPv6Address
    mtu: int


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """An IPv4 route through the softwire."""

    destination: IPv4Network
    metric: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything in the kernel that is ours.

    ``wan_address`` is an IPv6 /128 to add to the WAN (None when ``local`` exists without us). ``sysctls`` are
    (path below /proc/sys, value); ``ruleset`` is nft text that replaces ``tables`` whole, in one transaction.
    """

    wan: str
    wan_address: IPv6Address | None
    link: LinkPlan
    address: IPv4Address
    routes: tuple[RoutePlan, ...]
    sysctls: tuple[tuple[str, str], ...]
    tables: tuple[tuple[str, str], ...]
    ruleset: str


def table_name(device: str) -> str:
    """The nft table of a softwire device: nft identifiers take letters, digits and underscores."""
    return "b4client_" + re.sub(r"[^A-Za-z0-9_]", "_", device)


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
) -> Plan:
    """The plan for ``config``. ``encapsulation`` is decided already (not AUTO); ``path_mtu`` is the IPv6 MTU towards
    ``config.remote`` in octets; ``ct_timeouts`` False leaves out what a kernel without NFT_CT timeouts cannot load."""
    if encapsulation is Encapsulation.AUTO:
        raise ValueError("the encapsulation must be decided before planning")
    device = settings.device
    link = LinkPlan(
        device,
        "ip6tnl" if encapsulation is Encapsulation.KERNEL else "tun",
        config.local,
        config.remote,
        softwire_mtu(path_mtu, config.mtu or settings.mtu),
    )
    routes = (RoutePlan(IPv4Network("0.0.0.0/0"), settings.route_metric),) if settings.default_route else ()
    name = table_name(device)
    return Plan(
        wan=config.wan,
        wan_address=config.local if config.own_local else None,
        link=link,
        address=config.ipv4,
        routes=routes,
        sysctls=_sysctls(config.wan, device),
        tables=(("ip", name), ("arp", name), ("ip6", name)),
        ruleset=_ruleset(config, settings, name, link.mtu, ct_timeouts),
    )


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


# ---- the ruleset: text, made of validated values only (addresses, integers, an interface name)
#
# Text and not JSON: libnftables 1.0.6 crashes on a JSON named map of address and port ranges, and the daemon with it.


def _quoted(interface: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}", interface):
        raise ValueError(f"not an interface name: {interface!r}")
    return f'"{interface}"'


def _in_set(field: str, ports: PortSet | None) -> str:
    """An nft expression for membership of ``field`` in the set; empty for an address that is not shared."""
    if ports is None:
        return ""
    tests = []
    if ports.mask:
        tests.append(f"{field} & {ports.mask:#06x} == {ports.value:#06x}")
    if ports.floor:
        tests.append(f"{field} >= {ports.floor}")
    return " ".join(tests)


def _ruleset(config: SoftwireConfig, settings: SoftwireSettings, name: str, mtu: int, ct_timeouts: bool) -> str:
    device = _quoted(settings.device)
    address, ports = config.ipv4, config.ports
    forwards = tuple(f for f in config.forwards if ports is None or f.port in ports)
    parts = [
        f"table ip {name}",
        f"delete table ip {name}",
        f"table ip {name} {{",
        *(f"  counter {c} {{ }}" for c in COUNTERS),
        *_maps(address, ports),
        *_forward_maps(address, forwards),
        *(_timeouts(settings) if ct_timeouts else ()),
        *_inbound(device, address, ports, settings, bool(forwards)),
        *_forwarding(device, settings, mtu, ct_timeouts),
        *_source_nat(device, address, ports, bool(forwards)),
        *_guard(device, address, ports),
        "}",
        *_arp_guard(name, address),
        *_icmp6_guard(name, config),
    ]
    return "\n".join(parts) + "\n"


def _maps(address: IPv4Address, ports: PortSet | None) -> list[str]:
    if ports is None or ports.range_count == 1:
        return []
    elements = ", ".join(f"{i} : {address} . {r.first}-{r.last}" for i, r in enumerate(ports.ranges()))
    return [
        "  map ranges {",
        "    typeof numgen inc mod 2 : interval ip daddr . th dport",
        "    flags interval",
        f"    elements = {{ {elements} }}",
        "  }",
        "  set udp_tried {",
        "    type ipv4_addr . inet_service . ipv4_addr . inet_service",
        f"    size {UDP_RETRY_SIZE}; flags dynamic, timeout; timeout {UDP_RETRY_S}s",
        "  }",
    ]


def _forward_maps(address: IPv4Address, forwards: tuple[PortForward, ...]) -> list[str]:
    if not forwards:
        return []
    to_host = ", ".join(f"{f.protocol} . {f.port} : {f.to} . {f.to_port}" for f in forwards)
    # One inner endpoint may be reached on several outer ports; what it sends itself leaves from the first.
    first: dict[tuple[str, str, int], int] = {}
    for f in forwards:
        first.setdefault((str(f.to), f.protocol, f.to_port), f.port)
    from_host = ", ".join(
        f"{to} . {protocol} . {to_port} : {address} . {port}" for (to, protocol, to_port), port in first.items()
    )
    return [
        "  map fwd_in {",
        "    type inet_proto . inet_service : ipv4_addr . inet_service",
        f"    elements = {{ {to_host} }}",
        "  }",
        "  map fwd_out {",
        "    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
        f"    elements = {{ {from_host} }}",
        "  }",
    ]


def _timeouts(settings: SoftwireSettings) -> list[str]:
    """Timeouts of our flows only (RFC 4787 REQ-5, RFC 5382 REQ-5). ICMP queries live 60 s or less in nft's vocabulary
    of timeouts only through the kernel's own setting, so ``icmp`` is not here but a sysctl of the network namespace."""
    t = settings.timeouts
    # An embryonic or half-closed connection is transitory; TIME_WAIT stays as the kernel has it, since it reuses the
    # port.
    states = ", ".join(f"{state} : {t.tcp_transitory}" for state in ("syn_recv", "fin_wait", "close_wait", "last_ack"))
    return [
        "  ct timeout tcp_flows {",
        f"    protocol tcp; l3proto ip; policy = {{ established : {t.tcp_established}, {states} }}",
        "  }",
        "  ct timeout udp_flows {",
        f"    protocol udp; l3proto ip; policy = {{ unreplied : {t.udp}, replied : {t.udp_stream} }}",
        "  }",
        "  chain flow_timeouts {",
        '    meta l4proto tcp ct timeout set "tcp_flows"',
        '    meta l4proto udp ct timeout set "udp_flows"',
        "  }",
    ]


def _inbound(
    device: str, address: IPv4Address, ports: PortSet | None, settings: SoftwireSettings, forwards: bool
) -> list[str]:
    return [
        "  # inbound: replies, ICMP errors about our flows, and the ports of the set; all else is another subscriber's",
        "  chain inbound {",
        "    type filter hook prerouting priority mangle; policy accept;",
        f"    iifname {device} goto inbound_softwire",
        "  }",
        "  chain inbound_softwire {",
        f"    ip saddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        f"    ip daddr != {address} counter name in_drop drop",
        "    ct state established,related accept",
        "    ct state != new counter name in_drop drop",
        f"    meta l4proto {PORT_PROTOCOLS} {_in_set('th dport', ports)} accept",
        f"    icmp type echo-request {_in_set('icmp id', ports)} accept",
        "    counter name in_drop drop",
        "  }",
        *(
            [
                "  chain port_forwards {",
                "    type nat hook prerouting priority dstnat; policy accept;",
                f"    iifname {device} ip daddr {address} dnat ip to meta l4proto . th dport map @fwd_in",
                "  }",
            ]
            if forwards
            else []
        ),
        *(
            []
            if settings.accept_local
            else [
                "  chain input {",
                "    type filter hook input priority filter; policy accept;",
                f"    iifname {device} ct state new counter name not_forwarded drop",
                "  }",
            ]
        ),
    ]


def _forwarding(device: str, settings: SoftwireSettings, mtu: int, ct_timeouts: bool) -> list[str]:
    mss = mtu - 40
    clamp = (
        [
            "  chain clamp {",
            "    type filter hook forward priority mangle; policy accept;",
            f"    oifname {device} tcp flags & (syn | rst) == syn tcp option maxseg size > {mss} "
            f"tcp option maxseg size set {mss}",
            f"    iifname {device} tcp flags & (syn | rst) == syn tcp option maxseg size > {mss} "
            f"tcp option maxseg size set {mss}",
            "  }",
        ]
        if settings.clamp_mss
        else []
    )
    timeouts = ["    ct state new jump flow_timeouts"] if ct_timeouts else []
    lan = ", ".join(str(n) for n in settings.lan)
    only_lan = (
        [f"    ip saddr != {{ {lan} }} counter name not_lan_drop reject with icmp admin-prohibited"] if lan else []
    )
    return [
        *clamp,
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        f"    iifname {device} goto forward_in",
        f"    oifname {device} goto forward_out",
        "  }",
        "  # from the softwire to the LAN: what the LAN asked for, and port forwards",
        "  chain forward_in {",
        "    ct state established,related accept",
        *timeouts,
        "    ct status dnat accept",
        "    counter name not_forwarded drop",
        "  }",
        "  chain forward_out {",
        f"    ip saddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        f"    ip daddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        "    ct state established,related accept",
        "    ct state invalid counter name out_drop drop",
        *only_lan,
        "    # DHCP belongs to the LAN (RFC 8585 8)",
        "    udp dport { 67, 68 } counter name out_drop reject with icmp admin-prohibited",
        f"    meta l4proto {PORT_PROTOCOLS[:-2]}, icmp }} goto forward_new",
        "    counter name out_drop reject with icmp prot-unreachable",
        "  }",
        "  chain forward_new {",
        *timeouts,
        "    accept",
        "  }",
        "  chain output {",
        "    type filter hook output priority filter; policy accept;",
        f"    oifname {device} goto output_softwire",
        "  }",
        "  chain output_softwire {",
        f"    ip saddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        f"    ip daddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        *timeouts,
        "    accept",
        "  }",
    ]


def _source_nat(device: str, address: IPv4Address, ports: PortSet | None, forwards: bool) -> list[str]:
    everything = f"meta l4proto {PORT_PROTOCOLS[:-2]}, icmp }}"
    if ports is None:
        choose = [f"    {everything} snat ip to {address}"]
    elif ports.range_count == 1:
        only = ports.range_at(0)
        choose = [f"    {everything} snat ip to {address}:{only.first}-{only.last}"]
    else:
        n = ports.range_count
        tried = "ip saddr . th sport . ip daddr . th dport"
        choose = [
            "    # UDP: the same inner endpoint keeps its outer port; "
            "when that range is full a second try goes elsewhere",
            f"    meta l4proto {{ udp, udplite }} {tried} != @udp_tried add @udp_tried {{ {tried} }} "
            f"snat ip to jhash ip saddr . th sport mod {n} seed {HASH_SEED:#x} map @ranges",
            f"    {everything} snat ip to numgen random mod {n} map @ranges",
        ]
    return [
        "  # source NAT of new flows; only the first packet of a flow comes here",
        "  chain source_nat {",
        "    type nat hook postrouting priority srcnat; policy accept;",
        f"    oifname {device} goto choose_port",
        "  }",
        "  chain choose_port {",
        *(["    snat ip to ip saddr . meta l4proto . th sport map @fwd_out"] if forwards else []),
        "    meta l4proto icmp icmp type != echo-request counter name out_drop drop",
        *choose,
        "    counter name out_drop drop",
        "  }",
    ]


def _guard(device: str, address: IPv4Address, ports: PortSet | None) -> list[str]:
    return [
        "  # the last line: nothing leaves that is not ours, whatever happened before",
        "  chain guard {",
        "    type filter hook postrouting priority srcnat + 50; policy accept;",
        f"    oifname {device} goto guard_softwire",
        "  }",
        "  chain guard_softwire {",
        f"    ip saddr != {address} counter name guard_drop drop",
        f"    meta l4proto {PORT_PROTOCOLS} {_in_set('th sport', ports)} accept",
        f"    icmp type {{ echo-request, echo-reply }} {_in_set('icmp id', ports)} accept",
        "    icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
        "    counter name guard_drop drop",
        "  }",
    ]


def _arp_guard(name: str, address: IPv4Address) -> list[str]:
    chains = [
        f"  chain {hook} {{ type filter hook {hook} priority filter; policy accept;"
        f" arp saddr ip {address} drop; arp daddr ip {address} drop; }}"
        for hook in ("input", "output")
    ]
    return [f"table arp {name}", f"delete table arp {name}", f"table arp {name} {{", *chains, "}"]


def _icmp6_guard(name: str, config: SoftwireConfig) -> list[str]:
    """Where ip6_tunnel is loaded and the softwire is ours all the same, the kernel answers every packet of the BR with
    "port unreachable", since it belongs to none of *its* tunnels; the BR would take our customer for gone (RFC 2473 8).
    """
    return [
        f"table ip6 {name}",
        f"delete table ip6 {name}",
        f"table ip6 {name} {{",
        "  chain output {",
        "    type filter hook output priority filter; policy accept;",
        f"    ip6 saddr {config.local} ip6 daddr {config.remote} icmpv6 type destination-unreachable "
        "icmpv6 code port-unreachable drop",
        "  }",
        "}",
    ]
