"""An IPv4 prefix by MAP-E (RFC 7597 5.2, o + r < 32): its hosts without NAT, all others with, on either softwire."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest
from meshbed import MeshBed
from scapy.layers.inet import IP
from scapy.packet import Raw

from b4client.lab.binding import parse_rule
from b4client.lab.netns import ip_batch, wait_until
from b4client.lab.nodes import LAN_HOST, SERVER
from b4client.lab.traffic import PORT, Server, ping, tcp_transfer

RULE = "192.0.2.0/24,v6=2001:db8::/40,ea=4,a=6"
TOML = "ipv6 = '2001:db8::/40'\nipv4 = '192.0.2.0/24'\nea_len = 4\n"
PREFIX = IPv4Network("192.0.2.16/28")
FIRST, HOST = PREFIX[1], PREFIX[2]
UNKNOWN_PROTOCOL = 99


@pytest.fixture(scope="module")
def bed(prefix: str, encapsulation: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshBed]:
    """One customer with 192.0.2.16/28; the LAN host has 192.0.2.18 beside its private address."""
    rules, edges = (parse_rule(RULE),), ("2001:db8:10::/44",)
    bed = MeshBed(prefix, tmp_path_factory.mktemp("prefix"), rules, edges, encapsulation=encapsulation)
    try:
        bed.build(RULE)
        bed.start(bed.edges[0], TOML, softwire="prefix_lan = 'lan'\n")
        bed.edges[0].status()
        ip_batch(bed.edges[0].lan.name, [f"addr add {HOST}/28 dev eth0"])
        yield bed
    finally:
        bed.remove()


@pytest.fixture
def server(bed: MeshBed) -> Iterator[Server]:
    with Server(bed.srv) as server:
        yield server


def connect(bed: MeshBed, source: IPv4Address, source_port: int = 0) -> str:
    """From the LAN host's ``source`` to the server, an octet each way; who we are there."""
    with bed.edges[0].lan.entered(), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
        s.settimeout(10)
        s.bind((str(source), source_port))
        s.connect((str(SERVER), PORT))
        s.sendall((1).to_bytes(8, "big") + b"x")
        assert s.recv(100)
        return f"{s.getsockname()[0]}:{s.getsockname()[1]}"


def inet_routes(bed: MeshBed) -> str:
    return bed.edges[0].cpe.run("ip", "-4", "addr", "show", "dev", "lan").stdout


def test_status(bed: MeshBed) -> None:
    status = bed.edges[0].status()
    assert (status["softwire"]["ipv4"], status["softwire"]["ipv4_prefix"]) == (str(FIRST), str(PREFIX))
    assert f"{FIRST}/28" in inet_routes(bed)
    assert f"{FIRST} of {PREFIX}" in bed.edges[0].client.command("status")


def test_a_host_of_the_prefix_goes_out_as_it_is(bed: MeshBed, server: Server) -> None:
    lan = bed.edges[0].lan
    # The host's way to the router is by the prefix's own LAN.
    ip_batch(lan.name, [f"route add default via {FIRST} table 100", f"rule add from {HOST} table 100"])
    assert connect(bed, HOST, 4711) == f"{HOST}:4711"
    wait_until(lambda: any(s.port == 4711 for s in server.seen), 5, "the watch at the server")
    assert {s.address for s in server.seen} == {HOST}
    lan.run("ping", "-n", "-c", "2", "-W", "5", "-I", str(HOST), str(SERVER))


def test_protocols_without_ports(bed: MeshBed, server: Server) -> None:
    """A whole address may use them (RFC 7618 7.1 binds shared ones); from the NAT's host they are refused."""
    with bed.edges[0].lan.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        for source in (LAN_HOST, HOST):
            packet = IP(src=str(source), dst=str(SERVER), proto=UNKNOWN_PROTOCOL) / Raw(b"hello")
            s.sendto(bytes(packet), (str(SERVER), 0))
    wait_until(lambda: any(s.protocol == UNKNOWN_PROTOCOL for s in server.seen), 5, "the packet to arrive")
    assert {(s.address, s.packets) for s in server.seen if s.protocol == UNKNOWN_PROTOCOL} == {(HOST, 1)}


def test_a_host_of_the_prefix_is_reached(bed: MeshBed) -> None:
    """From the Internet, at its own address and ports, without a port forward."""
    with Server(bed.edges[0].lan) as inside:
        assert tcp_transfer(bed.srv, HOST, 100_000).octets == 100_000
        assert {s.address for s in inside.seen} == {SERVER}
    assert ping(bed.srv, HOST)


def test_the_others_are_translated(bed: MeshBed, server: Server) -> None:
    """The first address is the NAT's; a host with an address of somebody else's is translated too."""
    edge, refused = bed.edges[0], bed.lwaftr.refused()
    connect(bed, LAN_HOST)
    foreign = PREFIX[-1] + 5
    ip_batch(edge.lan.name, [f"addr add {foreign}/32 dev eth0"])
    ip_batch(edge.cpe.name, [f"route add {foreign} dev lan"])
    try:
        connect(bed, foreign)
    finally:
        ip_batch(edge.lan.name, [f"addr del {foreign}/32 dev eth0"])
        ip_batch(edge.cpe.name, [f"route del {foreign} dev lan"])
    wait_until(lambda: len([s for s in server.seen if s.name == "TCP"]) >= 2, 5, "the watch at the server")
    assert {s.address for s in server.seen} == {FIRST}
    assert bed.lwaftr.refused() == refused


def test_the_guard_stops_foreign_sources(bed: MeshBed, server: Server) -> None:
    """Protocols that the NAT does not know, from outside the prefix: stopped, with a counter."""
    before = bed.edges[0].status()["dataplane"]["counters"]
    with bed.edges[0].lan.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        for source in (PREFIX[0] - 1, PREFIX[-1] + 1, FIRST):
            packet = IP(src=str(source), dst=str(SERVER), proto=UNKNOWN_PROTOCOL) / Raw(b"hello")
            s.sendto(bytes(packet), (str(SERVER), 0))
    connect(bed, LAN_HOST)
    wait_until(lambda: bool(server.seen), 5, "the watch at the server")
    assert [s for s in server.seen if s.protocol == UNKNOWN_PROTOCOL] == []
    after = bed.edges[0].status()["dataplane"]["counters"]
    assert after["out_drop"]["packets"] >= before["out_drop"]["packets"] + 2


def test_nothing_circles(bed: MeshBed) -> None:
    """What nobody in the LAN answers for does not go back to the border relay, with the LAN there or not."""
    edge = bed.edges[0]
    tx = edge.status()["dataplane"]["traffic"]["tx_packets"]
    with bed.srv.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (str(PREFIX[9]), PORT))
        edge.cpe.run("ip", "link", "set", "lan", "down")
        try:
            s.sendto(b"x", (str(HOST), PORT))
            wait_until(
                lambda: edge.status()["dataplane"]["counters"]["not_forwarded"]["packets"], 5, "the drop to be counted"
            )
        finally:
            edge.cpe.run("ip", "link", "set", "lan", "up")
    # At most an ICMP error for each.
    assert edge.status()["dataplane"]["traffic"]["tx_packets"] - tx <= 2


def test_the_lan_is_mended_and_taken_away(bed: MeshBed) -> None:
    edge = bed.edges[0]
    edge.cpe.run("ip", "addr", "del", f"{FIRST}/28", "dev", "lan")
    wait_until(lambda: f"{FIRST}/28" in inet_routes(bed), 5, "the LAN to be mended")
    config = bed.directory / "ce1.toml"
    text = config.read_text()
    config.write_text(text.replace("prefix_lan = 'lan'", ""))
    edge.client.command("reload")
    wait_until(lambda: f"{FIRST}/28" not in inet_routes(bed), 5, "the address to be taken away")
    assert ping(edge.lan, SERVER)
    config.write_text(text)
    edge.client.command("reload")
    wait_until(lambda: f"{FIRST}/28" in inet_routes(bed), 5, "the address to be back")
    # A LAN that comes later.
    config.write_text(text.replace("'lan'", "'lan9'"))
    edge.client.command("reload")
    wait_until(lambda: "lan9 does not exist" in edge.client.log_file.read_text(), 5, "the warning")
    ip_batch(edge.cpe.name, ["link add lan9 type bridge", "link set lan9 up"])
    wait_until(
        lambda: f"{FIRST}/28" in edge.cpe.run("ip", "-4", "addr", "show", "dev", "lan9").stdout, 5, "lan9 to be used"
    )
    assert edge.client.stop() == 0
    assert "192.0.2" not in edge.cpe.run("ip", "-4", "addr").stdout
