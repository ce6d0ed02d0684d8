"""A customer edge behind a bad network: the roles of the testbed, with the weather on the access link.

::

    lan ─── cpe ═══ weather ═══ isp ─── aftr ─── srv
                       ║
                     rogue          a second server on the same link
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Interface
from pathlib import Path
from typing import Any

from provider import Provider
from weather import Weather

from b4client.lab.binding import Binding
from b4client.lab.cable import Veth
from b4client.lab.client import Client
from b4client.lab.lwaftr import Lwaftr, LwaftrPlace
from b4client.lab.netns import Namespace, end_processes, ip, ip_batch, wait_until
from b4client.lab.nodes import BR, POOL, SERVER, set_up_line
from b4client.lab.traffic import TransferError, udp_exchange
from b4client.model.portset import PortSet

NODES = ("lan", "cpe", "sky", "isp", "rogue", "aftr", "srv")
CPE_WAN, ISP_WAN = IPv6Interface("2001:db8:46::100/64"), IPv6Interface("2001:db8:46::1/64")
ROGUE_WAN = "2001:db8:46::bad/64"
CABLES = (
    Veth(("lan", "eth0"), ("cpe", "lan"), 1),
    Veth(("cpe", "wan"), ("sky", "cpe"), 2),
    Veth(("isp", "wan"), ("sky", "isp"), 3),
    Veth(("rogue", "wan"), ("sky", "rogue"), 4),
    Veth(("isp", "core"), ("aftr", "core"), 5),
    Veth(("aftr", "inet"), ("srv", "eth0"), 6),
)
LEASE_S = 3600
FIRST_PORTS = PortSet(0, 8, 4)
"""What the server leases first of an address: the lowest set without system ports."""
BINDINGS = tuple(Binding(IPv4Address(f"192.0.2.{n}"), FIRST_PORTS, CPE_WAN.ip) for n in (1, 2, 99))


def document(**tables: Any) -> dict[str, Any]:
    """A server that leases 192.0.2.1 with port sets of 256, and tells of itself and of the BR."""
    return {
        "interface": "wan",
        "shared": [{"first": "192.0.2.1", "psid_len": 8}],
        "policy": {"authoritative": True},
        "lease": {"time": LEASE_S},
        "dhcp6": {"br": [str(BR)], "container": "lw4o6"},
        **tables,
    }


class FastClient(Client):
    """A daemon whose boot clock runs ``factor`` times as fast (``fastdaemon``)."""

    factor = 1

    def _argv(self, *arguments: str) -> list[str]:  # type: ignore[override]
        if arguments[0] != "run" or self.factor == 1:
            return super()._argv(*arguments)
        return [sys.executable, str(Path(__file__).with_name("fastdaemon.py")), str(self.factor), *arguments]


class FaultBed:
    """The namespaces. Use ``fault_bed``."""

    def __init__(self, prefix: str, directory: Path, encapsulation: str) -> None:
        self.directory = directory
        self.nodes = {name: Namespace(f"{prefix}-{name}") for name in NODES}
        self.lan, self.cpe, self.sky, self.isp, self.rogue, self.aftr, self.srv = self.nodes.values()
        self.encapsulation = encapsulation
        self.clients: list[Client] = []
        self.providers: list[Provider] = []

    def build(self) -> None:
        set_up_line(self.nodes, CABLES, CPE_WAN, ISP_WAN)
        ip_batch(self.sky.name, [f"link set {end} up" for end in ("cpe", "isp", "rogue")])
        ip_batch(self.rogue.name, ["link set lo up", "link set wan up", f"addr add {ROGUE_WAN} dev wan nodad"])
        # What the relay passes is not for this node itself.
        self.sky.sysctl({f"ipv6/conf/{end}/disable_ipv6": 1 for end in ("cpe", "isp", "rogue")})
        self.weather = Weather(self.sky, ("cpe", "isp", "rogue"))
        self.provider = self.serve(document())
        self.lwaftr = Lwaftr(self.aftr, self.directory)
        self.lwaftr.start(LwaftrPlace(BR, POOL, BINDINGS))

    def serve(self, settings: dict[str, Any], *, node: str = "isp", now: Any = time.time) -> Provider:
        """One more server, ended with the bed."""
        self.providers.append(Provider(self.nodes[node], settings, now=now))
        return self.providers[-1]

    def client(self, *options: str, name: str = "client", factor: int = 1) -> Client:
        """A daemon's handle."""
        made = FastClient(self.cpe, self.directory / name, encapsulation=self.encapsulation, options=options)
        made.factor = factor
        self.clients.append(made)
        return made

    def flows(self, timeout_s: float = 0.5) -> bool:
        """True when a datagram from the LAN is answered."""
        try:
            udp_exchange(self.lan, SERVER, requests=1, timeout_s=timeout_s)
        except TransferError:
            return False
        return True

    def comes_back(self, timeout_s: float = 30) -> None:
        """Wait for traffic."""
        wait_until(self.flows, timeout_s, "traffic to come back")

    def close(self) -> None:
        """Everything goes."""
        for client in self.clients:
            client.kill()
        for provider in self.providers:
            provider.close()
        if hasattr(self, "weather"):
            self.weather.close()
        present = [n for n in self.nodes.values() if n.exists]
        end_processes(present, grace_s=0)
        for namespace in present:
            ip("netns", "del", namespace.name)


@contextmanager
def fault_bed(prefix: str, directory: Path, encapsulation: str) -> Iterator[FaultBed]:
    """A bed that is up, and gone afterwards."""
    bed = FaultBed(prefix, directory, encapsulation)
    try:
        bed.build()
        yield bed
    finally:
        bed.close()


@contextmanager
def small_disk(path: Path, kilobytes: int = 64) -> Iterator[Path]:
    """A file system of that size at ``path``."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
        shutil.rmtree(path, ignore_errors=True)


def fill_up(path: Path) -> Path:
    """Use up what is left of a file system; returns the file that does."""
    filler = path / "filler"
    with filler.open("wb") as file:
        while True:
            try:
                os.write(file.fileno(), bytes(4096))
            except OSError:
                return filler
