"""Checks of the machine itself: what it can do, and who else wants to do it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from b4client.config import DaemonSettings
from b4client.doctor import firewall
from b4client.doctor.finding import Finding, error, note, ok, warning
from b4client.doctor.system import Context, System
from b4client.model.errors import DataplaneError
from b4client.model.softwire import Encapsulation

MIN_FREE_OCTETS = 65536
CONNTRACK_FULL = 0.8
DHCP_CLIENTS = ("dhclient", "dhcpcd", "udhcpc", "udhcpc6", "odhcp6c", "dhcp6c", "wide-dhcpv6-cli")
MANAGERS = {
    "NetworkManager": "nmcli device set {device} managed no (or a keyfile: unmanaged-devices=interface-name:{device})",
    "systemd-networkd": "a .network file with [Match] Name={device} and [Link] Unmanaged=yes",
    "connmand": "NetworkInterfaceBlacklist={device} in /etc/connman/main.conf",
    "avahi-autoipd": "do not start avahi-autoipd for {device}",
}
NFT_PARTS: dict[str, tuple[str, bool, str]] = {
    "conntrack and NAT": (
        "chain c { type nat hook postrouting priority srcnat; "
        "meta l4proto { tcp, udp } snat ip to 192.0.2.1:1024-2047; }",
        True,
        "CONFIG_NF_CONNTRACK, CONFIG_NFT_CT, CONFIG_NFT_NAT",
    ),
    "several port ranges": (
        "map m { typeof numgen inc mod 2 : interval ip daddr . th dport; flags interval; "
        "elements = { 0 : 192.0.2.1 . 1024-1039, 1 : 192.0.2.1 . 5120-5135 } }\n"
        "chain c { type nat hook postrouting priority srcnat; meta l4proto udp "
        "snat ip to jhash ip saddr . th sport mod 2 seed 0x1 map @m; }",
        True,
        "CONFIG_NFT_NUMGEN, CONFIG_NFT_HASH",
    ),
    "ICMP errors for what is refused": (
        "chain c { type filter hook forward priority filter; reject with icmp admin-prohibited; }",
        True,
        "CONFIG_NFT_REJECT",
    ),
    "timeouts of our own flows": (
        "ct timeout t {\nprotocol udp\nl3proto ip\npolicy = { unreplied : 120 }\n}",
        False,
        "CONFIG_NF_CONNTRACK_TIMEOUT",
    ),
}


def check_privileges(system: System, context: Context) -> Iterator[Finding]:
    """Capabilities of this process: without them the other checks are half blind."""
    missing = system.missing_capabilities()
    if missing:
        yield warning("privileges", f"doctor runs without {', '.join(missing)}", "Run it as root to see everything.")
    else:
        yield ok("privileges", "capabilities are there")


def check_libraries(system: System, context: Context) -> Iterator[Finding]:
    """Python's libraries for netlink and nftables."""
    absent = {"pyroute2": "python3-pyroute2", "nftables": "python3-nftables", "tenacity": "python3-tenacity"}
    absent = {module: package for module, package in absent.items() if not system.has_module(module)}
    if absent:
        yield error(
            "libraries", f"Python has no {', '.join(absent)}", f"Debian: apt install {' '.join(absent.values())}."
        )
    else:
        yield ok("libraries", "pyroute2, nftables and tenacity are installed")


def check_nft(system: System, context: Context) -> Iterator[Finding]:
    """What the kernel's nf_tables can do."""
    try:
        system.rules()
    except DataplaneError as refused:
        yield error("nft", f"nf_tables cannot be used: {refused.reason}", refused.remedy or "modprobe nf_tables.")
        return
    lacking = False
    for name, (text, needed, options) in NFT_PARTS.items():
        reason = system.try_rules(text)
        if reason is None:
            continue
        lacking = True
        kind = error if needed else note
        yield kind("nft", f"nf_tables lacks {name}: {reason}", f"A kernel with {options}, or its modules, is needed.")
    if not lacking:
        yield ok("nft", "nf_tables has everything that the NAT needs")


def check_softwire_driver(system: System, context: Context) -> Iterator[Finding]:
    """Who can encapsulate."""
    wanted = context.config.softwire.encapsulation if context.config is not None else Encapsulation.AUTO
    kernel, userspace = system.kernel_softwire(), system.userspace_softwire()
    if wanted is not Encapsulation.USERSPACE and kernel:
        yield ok("softwire-driver", "the kernel has ip6_tunnel")
    elif wanted is Encapsulation.KERNEL:
        yield error(
            "softwire-driver",
            "the kernel has no ip6_tunnel, and the settings want it",
            'modprobe ip6_tunnel, or softwire.encapsulation = "auto".',
        )
    elif userspace is None:
        yield note(
            "softwire-driver",
            "the softwire runs in userspace (TUN), which is slower than the kernel's ip6_tunnel",
            "" if wanted is Encapsulation.USERSPACE else "modprobe ip6_tunnel, or install the kernel's module package.",
        )
    else:
        yield error(
            "softwire-driver",
            f"neither ip6_tunnel nor a userspace softwire: {userspace}",
            "modprobe ip6_tunnel, or modprobe tun.",
        )


def check_port(system: System, context: Context) -> Iterator[Finding]:
    """Port 546 belongs to one client an interface."""
    running = str((context.status or {}).get("pid", ""))
    others = [o for o in system.port_owners(546) if f"(pid {running})" not in o]
    if others:
        yield warning(
            "port-546",
            f"{', '.join(others)} has UDP port 546, too",
            f"Keep it off {context.wan or 'the WAN'}: two DHCPv6 clients on one interface take each other's answers.",
        )
    else:
        yield ok("port-546", "nobody else has the DHCPv6 client's port")


def check_dhcp_clients(system: System, context: Context) -> Iterator[Finding]:
    """Clients of native DHCPv4 on the WAN (RFC 7341 9 [F-7]) or of anything on the softwire."""
    found = []
    for pid, name, command in system.processes():
        if name not in DHCP_CLIENTS:
            continue
        words = re.split(r"[\s=,]+", command)
        if context.wan in words or context.device in words or len(words) == 1:
            found.append(f"{name} (pid {pid})")
    if found:
        yield warning(
            "dhcp-clients",
            f"{', '.join(found)} may configure {context.wan or 'the WAN'} or {context.device}, too",
            f"Stop native DHCPv4 on {context.wan or 'the WAN'} (RFC 7341 9), and keep it off {context.device}.",
        )
    else:
        yield ok("dhcp-clients", "no other DHCP client on these interfaces")


def check_managers(system: System, context: Context) -> Iterator[Finding]:
    """Network managers and makers of 169.254/16 addresses that could take the softwire for theirs."""
    running = {name for _, name, _ in system.processes()}
    # The kernel cuts names to 15 characters.
    found = [name for name in MANAGERS if name[:15] in running]
    for name in found:
        yield note(
            "managers",
            f"{name} runs: it must leave {context.device} alone",
            MANAGERS[name].format(device=context.device),
        )
    if not found:
        yield ok("managers", "no network manager that could touch the softwire")


def check_forwarding(system: System, context: Context) -> Iterator[Finding]:
    """Routers forward."""
    value = system.read("/proc/sys/net/ipv4/ip_forward")
    if value == "1":
        yield ok("forwarding", "IPv4 forwarding is on")
    elif context.softwire.get("installed"):
        yield error(
            "forwarding", "IPv4 forwarding is off although the softwire is up", "sysctl -w net.ipv4.ip_forward=1"
        )
    else:
        yield note("forwarding", "IPv4 forwarding is off; the daemon turns it on with the softwire")


def check_rp_filter(system: System, context: Context) -> Iterator[Finding]:
    """Strict reverse-path filtering drops replies when the way back is another (the larger of all and the device's)."""
    everywhere = system.read("/proc/sys/net/ipv4/conf/all/rp_filter")
    default_route = context.config is None or context.config.softwire.default_route
    if everywhere == "1" and not default_route:
        yield warning(
            "rp-filter",
            "net.ipv4.conf.all.rp_filter is strict, and the softwire has no default route: its packets are dropped",
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
        )
    else:
        yield ok("rp-filter", "reverse-path filtering does not stand in the way")


def check_conntrack(system: System, context: Context) -> Iterator[Finding]:
    """Room in the connection tracking table."""
    count, limit = (system.read(f"/proc/sys/net/netfilter/nf_conntrack_{n}") for n in ("count", "max"))
    if not (count and limit and count.isdigit() and limit.isdigit()) or limit == "0":
        yield note("conntrack", "connection tracking is not loaded yet")
    elif int(count) > CONNTRACK_FULL * int(limit):
        yield warning(
            "conntrack",
            f"the connection tracking table is nearly full ({count} of {limit})",
            "Raise net.netfilter.nf_conntrack_max.",
        )
    else:
        yield ok("conntrack", f"connection tracking has room ({count} of {limit})")


def check_clock(system: System, context: Context) -> Iterator[Finding]:
    """A clock that is years off makes a stored lease's age unknown."""
    built = Path(__file__).stat().st_mtime
    if system.now() < built - 86400:
        yield warning(
            "clock",
            "the clock is behind this program's own files: it is wrong",
            "Set it (NTP). Until then a stored lease is asked for again and not used before the answer.",
        )
    else:
        yield ok("clock", "the clock is plausible")


def check_storage(system: System, context: Context) -> Iterator[Finding]:
    """The lease must survive a restart."""
    settings = context.config.daemon if context.config is not None else DaemonSettings()
    problem = (context.status or {}).get("store_problem")
    if problem:
        yield warning("storage", str(problem), f"Make {settings.state_dir} writable.")
        return
    free = system.free_octets(settings.state_dir)
    if free is None:
        yield warning(
            "storage",
            f"{settings.state_dir} is read-only: after a restart the lease must be asked for anew",
            "Choose another place with daemon.state_dir or --state-dir.",
        )
    elif free < MIN_FREE_OCTETS:
        yield warning("storage", f"no room for the lease in {settings.state_dir}", "Free some space there.")
    else:
        yield ok("storage", f"the lease can be kept in {settings.state_dir}")


CHECKS = (
    check_privileges,
    check_libraries,
    check_nft,
    check_softwire_driver,
    check_port,
    check_dhcp_clients,
    check_managers,
    check_forwarding,
    check_rp_filter,
    check_conntrack,
    firewall.check_firewall,
    check_clock,
    check_storage,
)
