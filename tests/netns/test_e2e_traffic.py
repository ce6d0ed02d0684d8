"""Traffic through softwire and NAT: it arrives, unchanged, from ports of the set only, and the far end agrees."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.utils import PcapReader

from b4client.lab.client import Client
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import wait_until
from b4client.lab.testbed import SERVER, Testbed, softwire_address
from b4client.lab.traffic import PORT, Server, TcpClient, ping, tcp_transfer, udp_exchange
from b4client.model.portset import PortSet

pytestmark = [pytest.mark.kea, pytest.mark.softwire]
ADDRESS = IPv4Address("192.0.2.18")

VARIANTS = {
    "lw4o6, one range": KeaSettings(),
    "lw4o6, offset 4": KeaSettings(ports=PortSet(4, 8, 0x14)),
    "lw4o6, offset 6": KeaSettings(ports=PortSet(6, 8, 0x34)),
    "lw4o6, unshared": KeaSettings(ports=None),
    "lw4o6, binding prefix": KeaSettings(bind_prefix=IPv6Network("2001:db8:46::/64")),
    "MAP-E, offset 6": KeaSettings(ports=PortSet(6, 8, 0x34), container="map-e"),
    "MAP-E, offset 4, multicast": KeaSettings(ports=PortSet(4, 6, 20), container="map-e", option88="multicast"),
}


@dataclass
class Line:
    """A testbed with a bound client, and a server at the other end of the line."""

    testbed: Testbed
    client: Client
    server: Server
    ports: PortSet | None
    counters: dict[str, int]

    def grown(self, counter: str) -> int:
        """By how much a counter of the lwAFTR has grown since the line was up."""
        return self.testbed.aftr_counters()[counter] - self.counters[counter]

    def assert_clean(self) -> None:
        """Every packet at the server came from our address and a port of the set; the lwAFTR refused none."""
        wait_until(lambda: bool(self.server.seen), 5, "the watch at the server to have read what came")
        seen = self.server.seen
        assert {s.address for s in seen} == {ADDRESS}
        if self.ports is not None:
            # Fragments behind the first have no port.
            assert [s for s in seen if s.port is not None and s.port not in self.ports] == []
        grown = {k: v - self.counters.get(k, 0) for k, v in self.testbed.aftr_counters().items()}
        grown.pop("drop-queue-full", None)  # an lwAFTR in Python on a slow machine; nothing was wrong with the packets
        assert {k: v for k, v in grown.items() if v and k.startswith("drop-")} == {}


@pytest.fixture
def connect(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client]
) -> Iterator[Callable[[KeaSettings], Line]]:
    """Call it with what Kea shall serve; the client is bound when it returns."""
    servers: list[Server] = []

    def build(kea: KeaSettings) -> Line:
        testbed = testbed_with(kea=kea)
        client = client_in(testbed)
        client.start()
        client.wait_bound()
        servers.append(Server(testbed.srv))
        return Line(testbed, client, servers[-1], kea.ports, testbed.aftr_counters())

    yield build
    for server in servers:
        server.close()


@pytest.mark.parametrize("kea", VARIANTS.values(), ids=VARIANTS.keys())
def test_ping_tcp_udp(connect: Callable[[KeaSettings], Line], kea: KeaSettings) -> None:
    line = connect(kea)
    lan = line.testbed.lan
    ping(lan, SERVER, 3)
    assert tcp_transfer(lan, SERVER, 200_000).octets == 200_000
    assert udp_exchange(lan, SERVER, requests=5, size=1200).octets == 6000
    line.assert_clean()
    status = line.client.status()
    assert status["lease"]["address"] == str(ADDRESS)
    assert status["dataplane"]["local"] == str(softwire_address(kea))


@pytest.mark.parametrize("ports", [PortSet(0, 8, 0x34), PortSet(6, 8, 0x34)], ids=str)
def test_many_connections_at_once(connect: Callable[[KeaSettings], Line], ports: PortSet) -> None:
    """Every port of the set at once, all of them to one destination; the ranges of the second set have four ports."""
    line = connect(KeaSettings(ports=ports))
    connections = []
    try:
        for _ in range(ports.port_count):
            connections.append(TcpClient(line.testbed.lan, SERVER))
        for connection in connections:
            connection.transfer(100)
        assert len({port for _, _, port in line.server.connections}) == ports.port_count
    finally:
        for connection in connections:
            connection.close()
    line.assert_clean()


def test_userspace_softwire_beside_the_driver(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    """Where the kernel has ip6_tunnel it would tell the BR with every packet that nobody here wants it."""
    client = client_in(testbed, "--encapsulation", "userspace")
    client.start()
    assert client.wait_bound()["dataplane"]["kind"] == "tun"
    before = testbed.aftr_counters()["icmpv6-unreachable"]
    with Server(testbed.srv):
        tcp_transfer(testbed.lan, SERVER, 10_000)
    assert testbed.aftr_counters()["icmpv6-unreachable"] == before


def test_this_machine_itself_stays_inside_the_set(connect: Callable[[KeaSettings], Line]) -> None:
    """What the CPE sends on its own account is translated like what it forwards (RFC 7618 7.1 [N-1])."""
    line = connect(KeaSettings(ports=PortSet(6, 8, 0x34)))
    tcp_transfer(line.testbed.cpe, SERVER, 10_000)
    udp_exchange(line.testbed.cpe, SERVER, requests=2)
    ping(line.testbed.cpe, SERVER, 2)
    line.assert_clean()


def test_big_packets(connect: Callable[[KeaSettings], Line]) -> None:
    """Fragments there and back; with DF the LAN host is told the softwire's MTU of 1460 [L-10, N-7]."""
    line = connect(KeaSettings())
    lan = line.testbed.lan
    ping(lan, SERVER, 2, size=3000)
    udp_exchange(lan, SERVER, requests=3, size=4000)
    fits = lan.run("ping", "-n", "-c1", "-W5", "-M", "do", "-s", str(1460 - 28), str(SERVER), check=False)
    assert fits.returncode == 0, fits.stdout
    too_big = lan.run("ping", "-n", "-c1", "-W5", "-M", "do", "-s", str(1460 - 27), str(SERVER), check=False)
    assert too_big.returncode != 0
    assert "mtu=1460" in (too_big.stdout + too_big.stderr).replace("mtu = ", "mtu=")
    line.assert_clean()


def test_nothing_is_fragmented_inside(
    connect: Callable[[KeaSettings], Line], encapsulation: str, tmp_path: Path
) -> None:
    """RFC 6333 5.3 [L-10]: what may be fragmented and is too large leaves as fragments of IPv6. ip6_tunnel cannot."""
    if encapsulation == "kernel":
        pytest.skip("the kernel's ip6_tunnel cannot fragment outside; the userspace softwire is tested on this machine")
    line = connect(KeaSettings())
    size = 1500 - 28
    with line.testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and src host 2001:db8:46::100") as capture:
        # A socket that lets it be fragmented, in the LAN and on the customer edge itself.
        for node in (line.testbed.lan, line.testbed.cpe):
            node.run("ip", "route", "flush", "cache")  # the path MTU that an earlier test has learnt
            node.run("ping", "-n", "-c2", "-i", "0.2", "-W5", "-M", "dont", "-s", str(size), str(SERVER))
    outer, inner = [], []
    for packet in PcapReader(str(capture.file)):
        if IPv6ExtHdrFragment in packet:
            outer.append(packet[IPv6ExtHdrFragment])
        elif IP in packet:
            inner.append(packet[IP])
    assert len(outer) == 2 * 4
    firsts = [IP(bytes(f.payload)) for f in outer if f.offset == 0]
    assert [p.len for p in firsts] == [1500] * 4
    assert not any(p.flags.MF or p.frag for p in (*firsts, *inner))
    line.assert_clean()


def test_icmp_error_finds_its_way_back(connect: Callable[[KeaSettings], Line]) -> None:
    """Port unreachable from the server reaches the LAN host's socket: the quoted packet is translated too [N-6]."""
    line = connect(KeaSettings())
    with line.testbed.lan.entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with s:
        s.settimeout(5)
        s.connect((str(SERVER), PORT + 1))
        s.send(b"nobody listens there")
        with pytest.raises(ConnectionRefusedError):
            s.recv(100)
    line.assert_clean()


def test_what_comes_for_nobody_gets_nowhere(connect: Callable[[KeaSettings], Line]) -> None:
    """Inbound: another subscriber's port stops at the lwAFTR, a port of ours without forward does not reach the LAN."""
    line = connect(KeaSettings())
    with line.testbed.srv.entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with s:
        s.sendto(b"x", (str(ADDRESS), 13568))
        wait_until(
            lambda: line.testbed.aftr_counters()["drop-no-binding"] > line.counters["drop-no-binding"], 5, "the drop"
        )
        s.sendto(b"x", (str(ADDRESS), 13312))
        wait_until(
            lambda: line.testbed.aftr_counters()["encapsulated"] > line.counters["encapsulated"], 5, "it to pass"
        )
        s.settimeout(0.5)
        with pytest.raises(OSError, match=r"timed out"):
            s.recv(100)
    assert line.client.running
