"""Two uplinks, an instance of b4client each: who has the lower metric carries the traffic, and neither disturbs the
other.

::

    LAN host ── cpe ══ b4  over wan  ══ ISP and lwAFTR of the first testbed  ── server 198.51.100.10
                    ══ b4b over wan2 ══ ISP and lwAFTR of the second testbed ── another server of that address

Both lwAFTRs have one address, as two lines of one provider do.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from b4client.lab.client import Client
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import Namespace, ip, ip_batch, wait_until
from b4client.lab.testbed import SERVER, Testbed, TestbedSettings
from b4client.lab.traffic import Server, TcpClient
from b4client.model.portset import PortSet

pytestmark = pytest.mark.kea

FIRST, SECOND = "192.0.2.18", "192.0.2.77"
WAN2 = "2001:db8:46::200"


EXAMPLE = Path(__file__).parents[2] / "packaging" / "examples" / "uplinks"
ASK_PORT = 9999


@contextlib.contextmanager
def telling(namespace: Namespace) -> Iterator[None]:
    """A server that answers each datagram with the address it came from."""
    with namespace.entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", ASK_PORT))

    def serve() -> None:
        while True:
            data, peer = s.recvfrom(100)
            if not data:
                return
            s.sendto(peer[0].encode(), peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", ASK_PORT))
        thread.join(5)
        s.close()


@dataclass
class Uplinks:
    """Two testbeds of which the second has lent its access line to the first's CPE, and the two daemons."""

    one: Testbed
    two: Testbed
    first: Client
    second: Client

    def through(self) -> str | None:
        """The public address by which the LAN reaches the Internet; None when it does not."""
        with self.one.lan.entered():
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with s:
            s.settimeout(0.4)
            try:
                s.sendto(b"who am I?", (str(SERVER), ASK_PORT))
                return s.recv(100).decode()
            except OSError:
                return None

    def moves_to(self, address: str, timeout_s: float = 20) -> None:
        wait_until(lambda: self.through() == address, timeout_s, f"traffic by {address}")

    def sysctl(self, name: str) -> str:
        return self.one.cpe.run("sysctl", "-n", name).stdout.strip()


@pytest.fixture
def uplinks(prefix: str, encapsulation: str, tmp_path: Path) -> Iterator[Uplinks]:
    one = Testbed(TestbedSettings(prefix=prefix))
    kea = KeaSettings(
        first=IPv4Address(SECOND), last=IPv4Address(SECOND), ports=PortSet(0, 8, 0x77), valid_lifetime=600
    )
    two = Testbed(TestbedSettings(prefix=f"{prefix}u", kea=kea, b4=IPv6Address(WAN2)))
    with contextlib.ExitStack() as undo:
        undo.callback(two.down)
        one.up()
        two.up()
        undo.callback(one.down)  # its CPE is changed: nobody else's
        ip("-n", two.cpe.name, "link", "set", "wan", "netns", one.cpe.name, "name", "wan2")
        ip_batch(
            one.cpe.name,
            (
                "link set wan2 up",
                f"addr add {WAN2}/64 dev wan2 nodad",
                "route add default via fe80::1 dev wan2 metric 2048",
                # What has the address of one line must leave by it: providers drop the others' addresses.
                "route add default via fe80::1 dev wan2 table 202",
            ),
        )
        ip("-6", "-n", one.cpe.name, "rule", "add", "from", WAN2, "lookup", "202")
        one.cpe.sysctl({"ipv4/ip_forward": 0})
        second = ("--config", str(EXAMPLE / "wan2.toml"))
        clients = [
            # One place for all instances, as the packages have it.
            Client(one.cpe, tmp_path / "daemon", encapsulation=encapsulation, options=options, wan=wan)
            for wan, options in (("wan", ()), ("wan2", second))
        ]
        for client in clients:
            undo.callback(client.stop)
            client.start()
        for client in clients:
            client.wait_bound()
        for testbed in (one, two):
            undo.enter_context(telling(testbed.srv))
        yield Uplinks(one, two, *clients)


def test_two_uplinks(uplinks: Uplinks) -> None:
    one, two, first, second = uplinks.one, uplinks.two, uplinks.first, uplinks.second
    cpe = one.cpe
    with Server(one.srv) as near, Server(two.srv) as far:
        uplinks.moves_to(FIRST)
        assert first.status()["conflicts"] == second.status()["conflicts"] == []

        # The cable of the first.
        one.pull_cable()
        uplinks.moves_to(SECOND)
        cpe.run("nft", "-f", str(EXAMPLE / "keep-flows.nft"))
        cpe.run("ip", "rule", "add", "fwmark", "2", "lookup", "102")
        cpe.run("ip", "route", "add", "default", "dev", "b4b", "table", "102")
        with TcpClient(one.lan, SERVER, timeout_s=10) as connection:
            port = connection.transfer(5000).port
            one.plug_cable()
            uplinks.moves_to(FIRST)
            # What began on the second stays there, whatever happens to the first.
            assert connection.transfer(5000).port == port

            # The lease of the first is given back: what both need of the machine stays.
            first.command("release")
            uplinks.moves_to(SECOND)
            assert uplinks.sysctl("net.ipv4.ip_forward") == "1"
            assert connection.transfer(5000).port == port
            first.command("restart")
            uplinks.moves_to(FIRST, 30)

            # Its daemon ends, and takes the softwire with it.
            assert first.stop() == 0
            uplinks.moves_to(SECOND)
            assert connection.transfer(5000).port == port
            first.start()
            first.wait_bound()
            uplinks.moves_to(FIRST)
            assert connection.transfer(5000).port == port
        assert {address for _, address, _ in far.connections} == {SECOND}
        assert not near.connections
    # Nobody had to repair what the other did.
    assert second.status()["mending"]["mends"] == 0
    assert second.status()["process"]["installs"] == 1
    # The last one leaves the machine as the first found it.
    second.stop()
    assert uplinks.sysctl("net.ipv4.ip_forward") == "1"
    first.stop()
    assert uplinks.sysctl("net.ipv4.ip_forward") == "0"
    assert "b4client" not in cpe.run("nft", "list", "tables").stdout
