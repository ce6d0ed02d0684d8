"""One namespace with a WAN, for a data plane alone; what the kernel has of a softwire, as a value to compare."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from b4client.dataplane import userspace
from b4client.dataplane.apply import Dataplane
from b4client.lab.netns import Namespace, end_processes, ip, ip_batch
from b4client.model.portset import PortSet
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation, Mode, SoftwireConfig

DEVICE = "b4"
VARIABLE = re.compile(
    r"^\d+: |@\S+|link/\S+ [^\\]*|state \w+|valid_lft.*|,?(NO-CARRIER|LOWER_UP)|qlen \d+|group default|qdisc \w+",
    re.MULTILINE,
)
"""Interface indices and random MACs of what is made anew; states that settle by themselves."""
TABLE = "b4client_b4"
FIRST = SoftwireConfig(
    Mode.LW4O6,
    "wan",
    IPv6Address("2001:db8::1"),
    IPv6Address("2001:db8::2"),
    IPv4Address("192.0.2.1"),
    PortSet(0, 8, 3),
)
OTHER_LEASE = replace(FIRST, ipv4=IPv4Address("192.0.2.9"), ports=PortSet(0, 6, 5))
OTHER_END = replace(FIRST, local=IPv6Address("2001:db8::11"))
OWN_ADDRESS = replace(FIRST, local=IPv6Address("2001:db8::c000:201:3"), own_local=True)
"""Its softwire address is not the provider's: the data plane adds it to the WAN."""


@contextmanager
def softwire_bed(name: str) -> Iterator[Namespace]:
    """A namespace with a WAN of two addresses, gone afterwards with all that runs in it."""
    namespace = Namespace(name)
    ip("netns", "add", name)
    try:
        namespace.sysctl({"ipv6/conf/all/disable_ipv6": 0, "ipv6/conf/default/accept_dad": 0})
        ip_batch(
            name,
            (
                "link set lo up",
                "link add wan type veth peer name isp",
                "link set isp up",
                "link set wan up",
                "addr add 2001:db8::1/64 dev wan nodad",
                "addr add 2001:db8::11/64 dev wan nodad",
            ),
        )
        yield namespace
    finally:
        end_processes([namespace])
        ip("netns", "del", name)


def dataplane(directory: Path, encapsulation: str) -> Dataplane:
    """A fresh one, as a process that has just been started has it."""
    return Dataplane(SoftwireSettings(encapsulation=Encapsulation(encapsulation)), state_dir=directory)


def kernel_state(namespace: Namespace, directory: Path) -> dict[str, object]:
    """Links, addresses, routes, rules, settings and pump; what counts or counts down is left out."""

    def ask(*command: str) -> list[str]:
        text = namespace.run(*command, check=False).stdout
        text = VARIABLE.sub("", text)
        return sorted(line.strip() for line in text.splitlines() if "fe80:" not in line)

    pump = userspace.running(DEVICE, run_dir=directory)
    found: dict[str, object] = {
        "links": ask("ip", "-o", "link"),
        "addresses": ask("ip", "-o", "addr"),
        "routes": ask("ip", "-4", "route", "show", "table", "main"),
        "tables": ask("nft", "list", "tables"),
        "rules": re.sub(r"elements = \{[^}]*\}", "", namespace.run("nft", "-s", "list", "ruleset").stdout),
        "pump": None if pump is None else (str(pump.local), str(pump.remote)),
        "tunnels": ask("ip", "-6", "tunnel", "show", DEVICE),
    }
    for path in ("ip_forward", "conf/all/arp_ignore", "conf/all/arp_announce"):
        found[path] = namespace.run("cat", f"/proc/sys/net/ipv4/{path}").stdout
    return found


def carries(namespace: Namespace) -> bool:
    """True when packets of the LAN could leave by the softwire: it is up, has an address, and a route leads there."""
    link = namespace.run("ip", "-o", "link", "show", "dev", DEVICE, check=False).stdout
    route = namespace.run("ip", "-4", "route", "show", "dev", DEVICE, check=False).stdout
    address = namespace.run("ip", "-4", "-o", "addr", "show", "dev", DEVICE, check=False).stdout
    return ",UP" in link and bool(route.strip()) and "inet " in address
