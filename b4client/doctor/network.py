"""Checks of the access network and of the softwire through it."""

from __future__ import annotations

from collections.abc import Iterator

from b4client.dataplane.rtlink import Tunnel
from b4client.doctor.finding import Finding, error, note, ok, warning
from b4client.doctor.probe import Echo
from b4client.doctor.system import Context, System
from b4client.model.portset import PortSet
from b4client.model.softwire import IPV6_HEADER_LEN, MIN_IPV6_MTU

ETHERNET_MTU = 1500
SMALL = 100


def check_wan(system: System, context: Context) -> Iterator[Finding]:
    """The interface, its carrier, its addresses."""
    if context.wan is None:
        yield error(
            "wan", "no WAN interface is named", "b4client doctor --wan IFACE, or wan.interface in the settings."
        )
        return
    link = system.link(context.wan)
    if link is None:
        there = ", ".join(system.link_names())
        yield error("wan", f"there is no interface {context.wan}", f"Interfaces here: {there}.")
    elif not link.up:
        yield error(
            "wan", f"{context.wan} is down or has no carrier", f"ip link set {context.wan} up; check the cable."
        )
    elif link.link_local is None:
        yield error(
            "wan",
            f"{context.wan} has no link-local IPv6 address",
            f"sysctl -w net.ipv6.conf.{context.wan}.disable_ipv6=0 (and addr_gen_mode=0).",
        )
    elif not link.addresses:
        yield error(
            "wan",
            f"{context.wan} has no global IPv6 address",
            "Let SLAAC or DHCPv6 give it one: on a router accept_ra must be 2, or odhcp6c or the like must run.",
        )
    else:
        yield ok("wan", f"{context.wan} is up with {', '.join(map(str, link.addresses))}")


def check_provisioning(system: System, context: Context) -> Iterator[Finding]:
    """Option 88 and the S46 containers: what the daemon was told, or what a server says now."""
    if context.wan is None:
        return
    configured = context.config.protocol if context.config is not None else None
    if context.status is not None:
        said = context.status.get("provisioning") or {}
        if said.get("state") != "informed":
            yield _no_answer(context.wan)
            return
        servers, brs, problems = said.get("servers_4o6"), said.get("brs") or (), said.get("problems") or ()
        rules = bool(said.get("containers"))
    else:
        if context.not_asked is not None:
            yield note("provisioning", f"the DHCPv6 server was not asked: {context.not_asked}", "Run it as root.")
            return
        answer = context.answer
        if answer is None:
            yield _no_answer(context.wan)
            return
        servers, brs, problems = answer.servers_4o6, answer.brs, answer.problems
        rules = answer.map_e is not None or answer.lw4o6 is not None
    if servers is None and not (configured is not None and configured.servers_4o6 is not None):
        kind = warning if rules else error
        yield kind(
            "option-88",
            "the DHCPv6 server sends no option 88: there is no DHCPv4 over DHCPv6 here (RFC 7341 5)",
            "Ask the provider; or name the server with dhcp.servers if it is known.",
        )
    else:
        yield ok(
            "option-88", f"DHCP 4o6 server: {', '.join(map(str, servers or ())) or 'as configured, or by multicast'}"
        )
    if not brs and context.br is None:
        yield error(
            "br",
            "the DHCPv6 server names no BR (option 90 in container 94 or 96)",
            "Ask the provider; or name it with softwire.br or --br.",
        )
    else:
        yield ok("br", f"BR: {', '.join(map(str, brs)) or context.br}")
    for problem in problems:
        yield warning("provisioning", f"the DHCPv6 server's answer has an error: {problem}", "Tell the provider.")


def _no_answer(wan: str) -> Finding:
    return error(
        "provisioning",
        f"no DHCPv6 server answers on {wan}",
        "Check that the line is up and that a firewall lets UDP 547 to 546 in (ip6 saddr fe80::/10 udp dport 546).",
    )


def check_br_route(system: System, context: Context) -> Iterator[Finding]:
    """A way to the BR, wide enough."""
    br = context.br
    if br is None:
        return
    mtu = system.path_mtu(br)
    if mtu is None:
        yield error(
            "br-route",
            f"there is no IPv6 route to the BR {br}",
            "The default route comes with router advertisements: on a router accept_ra must be 2.",
        )
    elif mtu < MIN_IPV6_MTU:
        yield error(
            "br-route", f"the MTU towards the BR is {mtu}, below IPv6's least", f"ip link set {context.wan} mtu 1500"
        )
    else:
        yield ok("br-route", f"the BR {br} is routed, MTU {mtu}")


def check_path_mtu(system: System, context: Context) -> Iterator[Finding]:
    """Whether full-sized packets reach the BR, and what that means for IPv4."""
    br = context.br
    mtu = system.path_mtu(br) if br is not None else None
    if br is None or mtu is None or mtu < MIN_IPV6_MTU:
        return
    try:
        small, large = system.ping6(br, SMALL), system.ping6(br, mtu)
    except OSError as refused:
        yield note("path-mtu", f"the path to the BR was not tried: {refused.strerror}", "Run it as root.")
        return
    if small is not Echo.ANSWERED:
        yield note("path-mtu", f"the BR {br} does not answer pings (many do not): the path's MTU cannot be told")
    elif large is Echo.ANSWERED:
        yield ok("path-mtu", f"packets of {mtu} octets reach the BR: IPv4 gets {mtu - IPV6_HEADER_LEN}")
    elif large is Echo.TOO_BIG:
        yield warning(
            "path-mtu",
            f"the path to the BR is narrower than its first link ({mtu} octets): a router says so",
            "Nothing, if it is learnt (see ip -6 route get); else set softwire.mtu.",
        )
    else:
        yield warning(
            "path-mtu",
            f"packets of {mtu} octets vanish on the way to the BR, and nobody says why (a black hole)",
            "Set softwire.mtu to what passes minus 40, for example 1240; and keep softwire.clamp_mss.",
        )


def check_daemon(system: System, context: Context) -> Iterator[Finding]:
    """The client itself."""
    status = context.status
    if status is None:
        yield note("daemon", "b4client is not running", f"b4client run --wan {context.wan or 'IFACE'}")
        return
    waiting = status.get("waiting_for")
    if waiting is None:
        yield ok("daemon", f"b4client is {status['state']}, and IPv4 is there")
    else:
        yield error("daemon", f"b4client is {status['state']} and waits for {waiting}", "See the other findings.")
    mending = status.get("mending") or {}
    if mending.get("problem"):
        yield error("mending", f"the softwire is damaged: {mending['problem']}", "Undo what was changed by hand.")
    elif mending.get("contested"):
        yield error(
            "mending",
            f"something keeps undoing the softwire: {(mending.get('last') or {}).get('what')}",
            "Look for a network manager or firewall script that owns all interfaces or rules.",
        )
    elif mending.get("mends"):
        last = mending["last"]
        yield note("mending", f"mended {mending['mends']} times, last {last['ago_s']:.0f} s ago: {last['what']}")


def check_softwire(system: System, context: Context) -> Iterator[Finding]:
    """The device: parameters, MTU, addresses that do not belong there."""
    if not context.softwire:
        return
    tunnel = system.tunnel(context.device)
    if tunnel is None or not tunnel.up:
        yield error(
            "softwire",
            f"the softwire {context.device} is {'down' if tunnel else 'not there'}",
            "The daemon mends it unless something keeps undoing it: b4client status, b4client monitor --recent.",
        )
        return
    if not tunnel.ours:
        yield warning(
            "softwire",
            f"{context.device} has other parameters than ours: an encapsulation limit costs 8 octets (RFC 2473 5.1)",
            "b4client restart",
        )
    strange = [a for a in system.addresses4(tunnel.index) if str(a.ip) != context.softwire.get("ipv4")]
    if any(a.ip.is_link_local for a in strange):
        yield error(
            "softwire",
            f"{context.device} has a link-local address ({', '.join(map(str, strange))}): RFC 7618 7.1 forbids it",
            "Stop link-local fall-back there: NetworkManager ipv4.link-local, networkd LinkLocalAddressing=no, "
            "avahi-autoipd.",
        )
    elif strange:
        yield warning(
            "softwire", f"{context.device} has further addresses: {', '.join(map(str, strange))}", "Remove them."
        )
    br = context.br
    path = system.path_mtu(br) if br is not None else None
    mtu = _softwire_mtu(context, tunnel)
    if path is not None and mtu > path - IPV6_HEADER_LEN:
        yield warning(
            "softwire-mtu",
            f"the MTU of {context.device} is {mtu}, the path allows {path - IPV6_HEADER_LEN}: the rest is fragmented",
            "Leave softwire.mtu out of the settings.",
        )
    elif tunnel.ours and not strange:
        yield ok("softwire", f"{context.device} is up, MTU {mtu}")
    if context.config is not None and not context.config.softwire.clamp_mss and mtu < ETHERNET_MTU:
        yield warning(
            "mss",
            "TCP's segment size is not fitted to the softwire: connections hang where path MTU discovery is filtered",
            "softwire.clamp_mss = true",
        )


def _softwire_mtu(context: Context, tunnel: Tunnel) -> int:
    """What the softwire takes without fragments, as the daemon says; a TUN takes more."""
    said = ((context.status or {}).get("dataplane") or {}).get("mtu")
    if isinstance(said, int):
        return said
    return tunnel.mtu if tunnel.kind == "ip6tnl" else min(tunnel.mtu, ETHERNET_MTU - IPV6_HEADER_LEN)


def check_reach(system: System, context: Context) -> Iterator[Finding]:
    """Through the softwire to the other end: echo, large packets."""
    target = context.ping_target
    if target is None or not context.softwire:
        return
    tunnel = system.tunnel(context.device)
    if tunnel is None:
        return
    mtu = _softwire_mtu(context, tunnel)
    try:
        small, large = (system.ping4(context.device, target, size) for size in (SMALL, mtu))
    except OSError as refused:
        yield error("reach", f"{target} cannot be tried through {context.device}: {refused.strerror}", "See above.")
        return
    if small is not Echo.ANSWERED:
        yield error(
            "reach",
            f"{target} does not answer through the softwire",
            "If it answers others: has the lwAFTR this binding (address, port set, IPv6 address)? See b4client status.",
        )
    elif large is not Echo.ANSWERED:
        yield warning(
            "reach",
            f"{target} answers, but not packets of {mtu} octets: {large.value}",
            "Set softwire.mtu lower, or ask the provider about fragments at the lwAFTR.",
        )
    else:
        yield ok("reach", f"{target} answers through the softwire, also packets of {mtu} octets")


def check_source_port(system: System, context: Context) -> Iterator[Finding]:
    """Our address and port as a STUN server sees them."""
    server = context.stun
    if server is None or not context.softwire:
        return
    try:
        seen = system.ask_stun(context.device, server)
    except OSError as refused:
        yield error("source-port", f"the STUN server cannot be asked: {refused.strerror}", "See above.")
        return
    ports = ((context.status or {}).get("lease") or {}).get("ports")
    if seen is None:
        yield error(
            "source-port", f"the STUN server {server[0]} does not answer through the softwire", "Try another one."
        )
    elif str(seen[0]) != context.softwire.get("ipv4"):
        yield error(
            "source-port",
            f"seen from outside we are {seen[0]}, not {context.softwire.get('ipv4')}",
            "Somebody translates once more, here or at the provider: see the findings about the firewall.",
        )
    elif ports is not None and seen[1] not in PortSet(ports["offset"], ports["psid_len"], ports["psid"]):
        yield error(
            "source-port",
            f"seen from outside our port is {seen[1]}, which belongs to another subscriber",
            "Another source NAT is at work: see the findings about the firewall.",
        )
    else:
        yield ok("source-port", f"seen from outside we are {seen[0]} port {seen[1]}, as leased")


CHECKS = (
    check_wan,
    check_provisioning,
    check_br_route,
    check_path_mtu,
    check_daemon,
    check_softwire,
    check_reach,
    check_source_port,
)
