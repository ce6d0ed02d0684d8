"""The demonstration: the whole of it once, with a real DHCP server and real traffic, and everything shown.

    LAN host ── CPE with b4client ══ ISP with Kea ══ lwAFTR ── IPv4 server

Then two customers on one address (``demopair``). Ends with status 0 only when every step was as it must be: the lease,
the softwire, ping, TCP and UDP with contents checked, every source port that the server's wire saw inside the port set,
and no packet outside it at the lwAFTR.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from b4client.lab import ladder, traffic
from b4client.lab.client import WAN, Client
from b4client.lab.demopair import show_pair
from b4client.lab.netns import LabError, wait_until
from b4client.lab.portgrid import port_grid
from b4client.lab.screen import Screen
from b4client.lab.testbed import BR, CPE_LAN, CPE_WAN, ISP_WAN, LAN_HOST, SERVER, Testbed, TestbedSettings
from b4client.model.portset import PortSet

PREFIX = "b4demo"
TCP_OCTETS = 2_000_000
TCP_CONNECTIONS = 4
UDP_SOCKETS = 4
UDP_REQUESTS = 8
PINGS = 3


def demo(settings: TestbedSettings, *, encapsulation: str = "auto") -> int:
    """Run it. Returns the exit status."""
    if "B4_PREFIX" not in os.environ:
        # Not the prefix of netns-scripts/up: a testbed that somebody works with stays as it is.
        settings = replace(settings, prefix=PREFIX)
    screen = Screen()
    # A signal must find its way through the clean-up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    begun = time.monotonic()
    _show_one(screen, settings, encapsulation)
    show_pair(screen, settings.prefix, encapsulation)
    screen.print(f"\n{time.monotonic() - begun:.0f} s.")
    return screen.verdict()


def _show_one(screen: Screen, settings: TestbedSettings, encapsulation: str) -> None:
    testbed = Testbed(settings)
    testbed.down()  # what an earlier demonstration left that was killed
    with tempfile.TemporaryDirectory(prefix="b4demo-") as name, contextlib.ExitStack() as stack:
        stack.callback(testbed.down)
        client = Client(testbed.cpe, Path(name), encapsulation=encapsulation)
        _show_topology(screen, settings)
        with _told(screen, "building network namespaces, starting Kea and lwAFTR"):
            testbed.up()
        with testbed.capture("cpe", WAN, Path(name) / "wan.pcap", "ip6 and udp") as capture:
            with _told(screen, f"starting b4client run --wan {WAN}"):
                client.start()
                status = client.wait_bound()
            with traffic.Server(testbed.srv) as server:
                _show_traffic(screen, testbed, server)
                capture.stop()
                screen.title("The exchange, as captured on the CPE's WAN (DHCPv4 unwrapped from option 87)")
                screen.lines(ladder.render(ladder.read_pcap(capture.file), colour=screen.colour))
                status = client.status()
                _show_softwire(screen, client, status, settings)
                _show_ports(screen, settings, server.seen)
                _show_far_end(screen, testbed, server)
        screen.step("b4client stop", lambda: f"exit status {client.stop()}")
        screen.step("nothing left behind", lambda: _nothing_left(testbed))


@contextlib.contextmanager
def _told(screen: Screen, what: str) -> Iterator[None]:
    print(f"  {what} ...", flush=True)
    yield


def _show_topology(screen: Screen, settings: TestbedSettings) -> None:
    kea = settings.kea
    shared = f"{kea.ports}: {kea.ports.port_count} ports" if kea.ports else "not shared"
    screen.title("One customer, with ISC Kea as the DHCP 4o6 server")
    screen.lines(
        [
            "   LAN host             CPE                   ISP router            lwAFTR             IPv4 server",
            f"  {LAN_HOST} ──── {CPE_LAN}",
            f"                     {CPE_WAN.ip} ═════ {ISP_WAN.ip} ════ {BR}",
            f"                     (b4client)            (Kea)                 198.51.100.1 ───── {SERVER}",
            f"Kea leases {kea.first}, {shared}. Kernel {platform.release()}.",
        ]
    )


def _show_traffic(screen: Screen, testbed: Testbed, server: traffic.Server) -> None:
    screen.title(f"Traffic from the LAN host {LAN_HOST} to the server {SERVER}")

    def tcp() -> str:
        done = [traffic.tcp_transfer(testbed.lan, SERVER, TCP_OCTETS) for _ in range(TCP_CONNECTIONS)]
        octets, seconds = 2 * sum(t.octets for t in done), sum(t.seconds for t in done)
        rate = 8 * octets / seconds / 1e6
        return f"{len(done)} connections, {octets / 1e6:g} MB there and back, checksums right, {rate:.0f} Mbit/s"

    def udp() -> str:
        done = [traffic.udp_exchange(testbed.lan, SERVER, UDP_REQUESTS) for _ in range(UDP_SOCKETS)]
        return f"{len(done)} sockets, {UDP_REQUESTS * len(done)} requests, every one answered with its own octets"

    screen.step("ping", lambda: traffic.ping(testbed.lan, SERVER, PINGS))
    screen.step("TCP", tcp)
    screen.step("UDP", udp)


def _show_softwire(screen: Screen, client: Client, status: dict[str, Any], settings: TestbedSettings) -> None:
    screen.title("The softwire (b4client status)")
    screen.lines(client.command("status").splitlines())

    def leased() -> str:
        lease = status.get("lease") or {}
        if lease.get("address") != str(settings.kea.first):
            raise LabError(f"the lease is {lease.get('address')}, not {settings.kea.first}")
        return f"{lease['address']}, {settings.kea.ports or 'not shared'}"

    screen.step("the lease is the one that Kea has for us", leased)


def _show_ports(screen: Screen, settings: TestbedSettings, seen: Sequence[traffic.Seen]) -> None:
    ports = settings.kea.ports
    used = {s.port for s in seen if s.port is not None}
    screen.title("The map of ports")
    screen.lines(port_grid(ports, used, colour=screen.colour))
    screen.title("Source ports that the server's wire saw")
    screen.lines([f"{'protocol':10}{'source':24}{'packets':>8}   in the port set"])
    outside = 0
    for source in seen:
        mine = source.address == settings.kea.first and _owns(ports, source.port)
        outside += not mine
        verdict = screen.paint("yes", "32") if mine else screen.paint("NO", "1;31")
        screen.lines([f"{source.name:10}{f'{source.address}:{source.port}':24}{source.packets:>8}   {verdict}"])

    def all_inside() -> str:
        if outside or not seen:
            raise LabError(f"{outside} of {len(seen)} sources are outside")
        return f"{len(seen)} sources (for ICMP: identifiers)"

    screen.step("every source inside the set", all_inside)


def _owns(ports: PortSet | None, port: int | None) -> bool:
    return ports is None or (port is not None and port in ports)


def _show_far_end(screen: Screen, testbed: Testbed, server: traffic.Server) -> None:
    screen.title("The lwAFTR's counters")
    counters = testbed.aftr_counters()
    screen.lines([f"{value:>10}  {name}" for name, value in counters.items() if value or name.startswith("drop-out")])

    def none_outside() -> str:
        refused = testbed.lwaftr.refused()
        if refused:
            raise LabError(", ".join(f"{name} {n}" for name, n in refused.items()))
        return "0 packets outside the port set, 0 refused for another reason"

    def addresses() -> str:
        peers = {IPv4Address(address) for _, address, _ in server.connections}
        if len(peers) != 1:
            raise LabError(f"the server was visited from {sorted(map(str, peers))}")
        return f"every connection came from {peers.pop()}"

    screen.step("packets outside the port set at the far end", none_outside)
    screen.step("the server", addresses)


def _nothing_left(testbed: Testbed) -> str:
    links = testbed.cpe.run("ip", "-o", "link").stdout
    if WAN not in links or "b4" in [line.split()[1].split("@")[0].rstrip(":") for line in links.splitlines()]:
        raise LabError(f"links in the CPE:\n{links}")
    tables = testbed.cpe.run("nft", "list", "tables").stdout
    if "b4client" in tables:
        raise LabError(f"packet filter tables in the CPE: {tables}")
    wait_until(lambda: not testbed.cpe.pids(), 5, "the CPE's processes to end")
    return "no softwire device, no packet filter table, no process of b4client in the CPE"
