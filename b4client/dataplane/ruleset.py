"""The nft ruleset of a softwire, as text: filter, port forwards, source NAT into the port set, guard. Pure.

Text and not JSON: libnftables 1.0.6 refuses in JSON a map that is indexed by an expression. The text is made of
validated values only: addresses, integers, interface names.

Which ports. A new flow gets its port from conntrack, from one range of the set: the range that its inner endpoint
hashes to, so that one socket keeps one outer port towards all peers as far as that range has room (RFC 4787 REQ-1).
With a loop (``recirculation``) it then tries the other ranges until it has a port or all are full, and is refused with
an ICMP error; without one the sender's next packet tries a random range. Behind it the guard lets nothing out whose
source is not the address with a port of the set: ``port & mask == value and port >= floor`` is exactly membership, at
constant cost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network

from b4client.dataplane.dslite import dslite_ruleset
from b4client.dataplane.portchoice import PORT_PROTOCOLS, TRANSLATED, PortChoice, quoted
from b4client.dataplane.recirculation import LoopPlan, pieces
from b4client.model.portset import PortSet
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Mode, PortForward, SoftwireConfig

COUNTERS = (
    "in_drop",
    "out_drop",
    "guard_drop",
    "link_local_drop",
    "not_lan_drop",
    "not_forwarded",
    "exhausted",
    "refused",
    "retries",
)
"""Named counters of the table: packets and octets by fate.

``in_drop`` came for another subscriber or matched no flow, ``out_drop`` could not be translated (protocol without
ports), ``guard_drop`` would have left with a source outside the port set, ``link_local_drop`` had a 169.254/16 address,
``not_lan_drop`` came from a network that may not use the softwire, ``not_forwarded`` was inbound on a port of the set
that no port forward leads anywhere; ``exhausted`` is a new flow that found no free port in the whole set, ``refused``
one towards a destination for which that was known already. ``retries`` are no drops: tries after a flow's first one.
"""
NAT_PRIORITY = 99
"""One before ``srcnat`` (100): of two NAT chains of one priority the one that was loaded last is asked first, so that a
firewall that is reloaded would get hold of new flows before us (its masquerade, of any port)."""
LINK_LOCAL_V4 = IPv4Network("169.254.0.0/16")


def table_name(device: str) -> str:
    """The nft table of a softwire device: nft identifiers take letters, digits and underscores."""
    return "b4client_" + re.sub(r"[^A-Za-z0-9_]", "_", device)


def own_tables(device: str) -> tuple[tuple[str, str], ...]:
    """(family, name) of the nft tables of a softwire device."""
    return tuple((family, table_name(device)) for family in ("ip", "arp", "ip6"))


def going_on(text: str, counts: Mapping[str, Mapping[str, int]]) -> str:
    """The ruleset ``text`` with counters that go on from ``counts`` ({name: {"packets": n, "bytes": n}}) where they are
    known."""

    def declared(match: re.Match[str]) -> str:
        known = counts.get(match[1])
        return f"  counter {match[1]} {{ packets {known['packets']} bytes {known['bytes']} }}" if known else match[0]

    return re.sub(r"^  counter (\w+) \{ \}$", declared, text, flags=re.MULTILINE)


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


def ruleset(
    config: SoftwireConfig,
    settings: SoftwireSettings,
    *,
    mtu: int,
    ct_timeouts: bool,
    loop: LoopPlan | None,
    kernel_tunnel: bool,
    mesh: bool = False,
) -> str:
    """The text that replaces our tables. ``mtu`` is the softwire's in octets; ``loop`` None does without recirculation;
    ``kernel_tunnel`` says that ip6_tunnel is the softwire; with ``mesh`` packets come from other customers' edges, too.

    Raises ValueError for what is no interface name.
    """
    name = table_name(settings.device)
    device = quoted(settings.device)
    if config.mode is Mode.DS_LITE:
        return "\n".join(
            (
                *dslite_ruleset(name, device, settings, mtu, COUNTERS),
                *_icmp6_guard(name, config, kernel_tunnel=kernel_tunnel, mesh=mesh),
                "",
            )
        )
    address, ports = config.ipv4, config.ports
    routed = config.ipv4_prefix if settings.prefix_lan is not None else None
    forwards = tuple(f for f in config.forwards if ports is None or f.port in ports)
    choice = PortChoice(
        device=device,
        address=address,
        ranges=None if ports is None else pieces(ports, (f.port for f in forwards)),
        forwards=bool(forwards),
        loop=loop,
    )
    parts = [
        f"table ip {name}",
        f"delete table ip {name}",
        f"table ip {name} {{",
        *(f"  counter {c} {{ }}" for c in COUNTERS),
        *choice.maps(),
        *_forward_maps(address, forwards),
        *(_timeouts(settings) if ct_timeouts else ()),
        *_inbound(choice, ports, settings, routed),
        *_forwarding(choice, settings, mtu, ct_timeouts, routed=routed),
        *choice.copies(),
        *choice.source_nat(routed),
        *_guard(device, address, ports, routed),
        "}",
        *_arp_guard(name, None if routed is not None else address),
        *_icmp6_guard(name, config, kernel_tunnel=kernel_tunnel, mesh=mesh),
    ]
    return "\n".join(parts) + "\n"


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
    choice: PortChoice, ports: PortSet | None, settings: SoftwireSettings, routed: IPv4Network | None
) -> list[str]:
    device, address, forwards = choice.device, choice.address, choice.forwards
    return [
        "  # inbound: replies, ICMP errors about our flows, and the ports of the set; all else is another subscriber's",
        "  chain inbound {",
        "    type filter hook prerouting priority mangle; policy accept;",
        f"    iifname {device} goto inbound_softwire",
        *choice.prerouting(),
        "  }",
        "  chain inbound_softwire {",
        f"    ip saddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        # Hosts with addresses of the prefix have all ports and protocols; the first address is the NAT's.
        *(
            []
            if routed is None
            else [
                f"    ip saddr {routed} counter name in_drop drop",
                f"    ip daddr {routed} ip daddr != {address} accept",
            ]
        ),
        f"    ip daddr != {address} counter name in_drop drop",
        "    ct state established,related accept",
        "    ct state != new counter name in_drop drop",
        f"    meta l4proto {PORT_PROTOCOLS} {_in_set('th dport', ports)} accept",
        f"    icmp type echo-request {_in_set('icmp id', ports)} accept",
        "    counter name in_drop drop",
        "  }",
        *(
            [
                "  # from the softwire, and from the LAN too (hairpinning, RFC 4787 REQ-9)",
                "  chain port_forwards {",
                "    type nat hook prerouting priority dstnat; policy accept;",
                f"    ip daddr {address} dnat ip to meta l4proto . th dport map @fwd_in",
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


def _forwarding(
    choice: PortChoice, settings: SoftwireSettings, mtu: int, ct_timeouts: bool, *, routed: IPv4Network | None
) -> list[str]:
    device = choice.device
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
        [f"    {choice.not_a_copy}ip saddr != {{ {lan} }} counter name not_lan_drop reject with icmp admin-prohibited"]
        if lan
        else []
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
        *(
            []
            if routed is None
            else [
                f"    oifname {device} counter name not_forwarded drop",
                f"    ip daddr {routed} ip daddr != {choice.address} accept",
            ]
        ),
        "    ct state established,related accept",
        *timeouts,
        "    ct status dnat accept",
        "    counter name not_forwarded drop",
        "  }",
        "  chain forward_out {",
        f"    ip saddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        f"    ip daddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        *([] if routed is None else [f"    ip saddr {routed} ip saddr != {choice.address} goto forward_routed"]),
        "    ct state established,related accept",
        "    ct state invalid counter name out_drop drop",
        *only_lan,
        "    # DHCP belongs to the LAN (RFC 8585 8)",
        "    udp dport { 67, 68 } counter name out_drop reject with icmp admin-prohibited",
        f"    meta l4proto {TRANSLATED} goto forward_new",
        "    counter name out_drop reject with icmp prot-unreachable",
        "  }",
        *(
            []
            if routed is None
            else [
                "  # hosts with addresses of the prefix: everything but DHCP, untranslated",
                "  chain forward_routed {",
                "    udp dport { 67, 68 } counter name out_drop reject with icmp admin-prohibited",
                f"    ip daddr {routed} counter name out_drop reject with icmp host-unreachable",
                *timeouts,
                "    accept",
                "  }",
            ]
        ),
        "  chain forward_new {",
        *timeouts,
        *choice.forward_new(),
        "    accept",
        "  }",
        *choice.refusals(f"b4client {settings.device}"),
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


def _guard(device: str, address: IPv4Address, ports: PortSet | None, routed: IPv4Network | None) -> list[str]:
    return [
        "  # the last line: nothing leaves that is not ours, whatever happened before",
        "  chain guard {",
        "    type filter hook postrouting priority srcnat + 50; policy accept;",
        f"    oifname {device} goto guard_softwire",
        "  }",
        "  chain guard_softwire {",
        *([] if routed is None else [f"    ip saddr {routed} ip saddr != {address} accept"]),
        f"    ip saddr != {address} counter name guard_drop drop",
        f"    meta l4proto {PORT_PROTOCOLS} {_in_set('th sport', ports)} accept",
        f"    icmp type {{ echo-request, echo-reply }} {_in_set('icmp id', ports)} accept",
        "    icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
        "    counter name guard_drop drop",
        "  }",
    ]


def _arp_guard(name: str, address: IPv4Address | None) -> list[str]:
    """``address`` None: it is the router's in a LAN of its prefix, and nobody else's."""
    chains = [
        f"  chain {hook} {{ type filter hook {hook} priority filter; policy accept;"
        f" arp saddr ip {address} drop; arp daddr ip {address} drop; }}"
        for hook in ("input", "output")
        if address is not None
    ]
    return [f"table arp {name}", f"delete table arp {name}", f"table arp {name} {{", *chains, "}"]


def _icmp6_guard(name: str, config: SoftwireConfig, *, kernel_tunnel: bool, mesh: bool) -> list[str]:
    """ICMPv6 about the softwire that must not leave, or must not be believed.

    Where ip6_tunnel is loaded and the softwire is ours all the same, the kernel answers every packet of the BR with
    "port unreachable", since it belongs to none of *its* tunnels; the BR would take our customer for gone (RFC 2473 8).
    In mesh mode whoever sends a packet that is refused is told nothing (RFC 7597 8.1).

    "Source address failed policy" about our packets counts only from the BR (RFC 7596 5.1 [L-6]): ip6_tunnel believes
    everybody, while the userspace softwire looks itself.
    """
    quoted_ends = (f"@th,{at},128 {int(end):#034x}" for at, end in ((128, config.local), (256, config.remote)))
    believed = [
        "  chain input {",
        "    type filter hook input priority filter; policy accept;",
        f"    ip6 saddr != {config.remote} icmpv6 type destination-unreachable icmpv6 code policy-fail "
        f"{' '.join(quoted_ends)} drop",
        "  }",
    ]
    to_remote = "" if mesh else f"ip6 daddr {config.remote} "
    return [
        f"table ip6 {name}",
        f"delete table ip6 {name}",
        f"table ip6 {name} {{",
        "  chain output {",
        "    type filter hook output priority filter; policy accept;",
        f"    ip6 saddr {config.local} {to_remote}icmpv6 type destination-unreachable "
        "icmpv6 code port-unreachable drop",
        "  }",
        *(believed if kernel_tunnel else []),
        "}",
    ]
