"""MAP-E mesh: customers of one domain reach each other without the border relay, and nobody in another's name."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import jsonschema
import pytest
from meshbed import RULE, Edge, MeshBed
from scapy.layers.inet import ICMP, IP, UDP, IPerror, UDPerror, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.packet import Packet, Raw

import b4client
from b4client.lab.binding import parse_rule
from b4client.lab.client import Client
from b4client.lab.netns import wait_until
from b4client.lab.nodes import LAN_HOST, SERVER
from b4client.lab.traffic import PORT, Server, TransferError, ping, tcp_transfer, udp_exchange

# 192.0.2.18 PSID 0x34; 192.0.2.19 PSID 0xe4, which has port 8080; 192.0.2.20 PSID 0x56, where the stranger sits.
EDGES = ("2001:db8:12:3400::/56", "2001:db8:13:e400::/56", "2001:db8:14:5600::/56")
FORWARDS = "".join(f"[[forward]]\nprotocol = '{p}'\nport = {PORT}\nto = '{LAN_HOST}'\n" for p in ("tcp", "udp"))
CLOSED = 9104
"""A port of 0xe4, forwarded to a port where nobody listens."""


@pytest.fixture(scope="module")
def bed(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshBed]:
    bed = MeshBed(prefix, tmp_path_factory.mktemp("mesh"), (parse_rule(RULE),), EDGES)
    try:
        bed.build(RULE)
        closed = f"[[forward]]\nprotocol = 'udp'\nport = {CLOSED}\nto = '{LAN_HOST}'\n"
        bed.start(bed.edges[0])
        bed.start(bed.edges[1], softwire=f"mesh = 'on'\n{FORWARDS}{closed}")
        bed.edges[0].status()
        bed.edges[1].status()
        yield bed
    finally:
        bed.remove()


@pytest.fixture
def server(bed: MeshBed) -> Iterator[Server]:
    with Server(bed.edges[1].lan) as server:
        yield server


@pytest.fixture
def ear(bed: MeshBed) -> Iterator[socket.socket]:
    """Where the datagrams to customer two's forwarded port arrive."""
    with bed.edges[1].lan.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind((str(LAN_HOST), PORT))
        ear.settimeout(5)
        yield ear


@contextlib.contextmanager
def past_the_relay(bed: MeshBed) -> Iterator[None]:
    """Nothing of what happens inside comes by the border relay."""
    before = bed.lwaftr.counters()
    yield
    assert {k: v - before[k] for k, v in bed.lwaftr.counters().items() if v != before[k]} == {}


def grown(edge: Edge, before: dict[str, int]) -> dict[str, int]:
    return {k: v - before[k] for k, v in edge.pump().items() if v != before[k]}


def test_customer_to_customer(bed: MeshBed, server: Server) -> None:
    """TCP, UDP whole and in fragments, both ways between two customers' LANs; both ends count it by the rule."""
    one, two = bed.edges[:2]
    before = [edge.pump() for edge in (one, two)]
    with past_the_relay(bed):
        assert tcp_transfer(one.lan, two.ipv4, 300_000).octets == 300_000
        assert udp_exchange(one.lan, two.ipv4, requests=5, size=1000).octets == 5000
        # The LAN host's own fragments, behind the first of which none shows a port, and cut outside once more.
        assert udp_exchange(one.lan, two.ipv4, requests=5, size=8000).octets == 40000
    wait_until(lambda: bool(server.seen), 5, "the watch at the server")
    seen = [s for s in server.seen if s.port is not None]
    assert {s.address for s in server.seen} == {one.ipv4}
    assert seen
    ports = {s.port for s in seen}
    assert all(port is not None and port >> 2 & 0xFF == 0x34 and port >= 1024 for port in ports)
    for edge, old in zip((one, two), before, strict=True):
        new = grown(edge, old)
        cut = {"out-fragmented", "in-reassembled"}
        assert new.keys() == {"out-packets", "out-mesh-packets", "in-packets", "in-mesh-packets"} | cut
        assert new["out-packets"] == new["out-mesh-packets"]
        assert new["in-packets"] == new["in-mesh-packets"]
    status = one.status()
    schema = json.loads((Path(b4client.__file__).parent / "control-api.schema.json").read_text())["$defs"]
    jsonschema.Draft202012Validator({**schema["status"], "$defs": schema}).validate(status)
    mesh = status["dataplane"]["mesh"]
    assert mesh["active"]
    assert [(r["ipv4"], r["ipv6"]) for r in mesh["rules"]] == [("192.0.2.0/24", "2001:db8::/40")]
    assert mesh["rules"][0]["sent"] >= grown(one, before[0])["out-mesh-packets"]
    assert "192.0.2.0/24" in one.client.command("status")


def test_an_error_comes_back_directly(bed: MeshBed) -> None:
    """An ICMP error has the ports of the packet that it quotes (RFC 7597 8.2): it finds back, and is believed."""
    one, two = bed.edges[:2]
    with past_the_relay(bed), one.lan.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect((str(two.ipv4), CLOSED))
        s.send(b"is anybody there?")
        with pytest.raises(ConnectionRefusedError):
            s.recv(100)


def test_the_internet_and_unknown_customers_by_the_relay(bed: MeshBed) -> None:
    """What no rule covers goes to the border relay (RFC 7597 5.4)."""
    one = bed.edges[0]
    before = one.pump()
    with Server(bed.srv) as server:
        assert tcp_transfer(one.lan, SERVER, 100_000)
        assert ping(one.lan, SERVER)
        wait_until(lambda: bool(server.seen), 5, "the watch at the server")
        assert {s.address for s in server.seen} == {one.ipv4}
    new = grown(one, before)
    assert new.keys() == {"out-packets", "in-packets"}
    # Ports below 1024 are nobody's: also the relay's affair.
    with one.lan.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (str(bed.edges[1].ipv4), 80))
    relay = bed.lwaftr.counters
    wait_until(lambda: relay().get("drop-hairpin-no-binding"), 5, "the relay to have it")


def send(bed: MeshBed, packet: Packet, edge: int = 2) -> None:
    """From customer ``edge``'s line, as it is."""
    with bed.edges[edge].cpe.entered(), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        s.sendto(bytes(packet), (packet.dst, 0))


def inside(bed: MeshBed, source: IPv4Address, port: int, data: bytes = b"boo") -> Packet:
    return IP(src=str(source), dst=str(bed.edges[1].ipv4)) / UDP(sport=port, dport=PORT) / Raw(data)


def outer(bed: MeshBed, source: IPv6Address) -> Packet:
    return IPv6(src=str(source), dst=str(bed.edges[1].address), nh=4)


STRANGER = IPv4Address("192.0.2.20")
STRANGERS_PORT = (1 << 10) + (0x56 << 2)


def test_spoofed_packets_are_dropped_and_counted(bed: MeshBed, ear: socket.socket) -> None:
    """RFC 7597 8.1: a sender that has another address, another port, or is no customer's edge at all."""
    one, two, stranger = bed.edges
    before = two.pump()
    send(bed, outer(bed, stranger.address) / inside(bed, one.ipv4, 1232))
    send(bed, outer(bed, stranger.address) / inside(bed, STRANGER, STRANGERS_PORT + 4))
    send(bed, outer(bed, stranger.address) / inside(bed, STRANGER, 80))
    send(bed, outer(bed, stranger.address + 1) / inside(bed, STRANGER, STRANGERS_PORT))
    quoted = IPerror(src=str(two.ipv4), dst=str(one.ipv4)) / UDPerror(sport=PORT, dport=1232)
    send(bed, outer(bed, stranger.address) / IP(src=str(STRANGER), dst=str(two.ipv4)) / ICMP(type=3, code=3) / quoted)
    wait_until(lambda: grown(two, before).get("drop-in-spoofed") == 5, 5, "five spoofed packets to be counted")
    assert grown(two, before) == {"drop-in-spoofed": 5}
    # Its own it may send, and that is the first that arrives.
    send(bed, outer(bed, stranger.address) / inside(bed, STRANGER, STRANGERS_PORT, b"mine"))
    assert ear.recvfrom(100) == (b"mine", (str(STRANGER), STRANGERS_PORT))


def test_nobody_is_told_why(bed: MeshBed) -> None:
    """Discarded silently: no ICMPv6 goes back to whoever spoofed, nor to whom it says it is."""
    stranger = bed.edges[2]
    with stranger.cpe.entered(), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as s:
        s.settimeout(1)
        send(bed, outer(bed, stranger.address) / inside(bed, bed.edges[0].ipv4, 1232))
        with contextlib.suppress(TimeoutError):
            while True:
                assert s.recv(2000)[0] >= 133  # neighbour discovery


def test_fragments_share_the_fate_of_the_first(bed: MeshBed, ear: socket.socket) -> None:
    """RFC 7597 8.3.2, out of order too; another sender's fragment never gets into the datagram."""
    one, two, stranger = bed.edges
    before = two.pump()
    data = os.urandom(3000)
    pieces = fragment(inside(bed, STRANGER, STRANGERS_PORT, data), fragsize=1000)
    assert len(pieces) == 4
    for piece in (pieces[1], pieces[0], pieces[3], pieces[2]):
        send(bed, outer(bed, stranger.address) / piece)
    assert ear.recv(4000) == data
    assert grown(two, before)["in-mesh-packets"] == 4
    # The first one of somebody else's address: all are dropped, also those that show no port.
    before = two.pump()
    for piece in fragment(inside(bed, one.ipv4, 1232, data), fragsize=1000):
        send(bed, outer(bed, stranger.address) / piece)
    wait_until(lambda: grown(two, before).get("drop-in-spoofed") == 4, 5, "the fragments to be dropped")


def test_fragments_that_wait_in_vain(bed: MeshBed) -> None:
    """They are few, and given up when something comes later."""
    two, stranger = bed.edges[1:]
    before = two.pump()
    pieces = fragment(inside(bed, STRANGER, STRANGERS_PORT, bytes(1500)), fragsize=1000)
    for identification in range(1000, 1080):
        piece = pieces[1].copy()
        piece.id = identification
        send(bed, outer(bed, stranger.address) / piece)
    wait_until(lambda: grown(two, before).get("drop-in-fragment-first") == 16, 5, "no more than 64 to wait")

    def later() -> bool:
        send(bed, outer(bed, stranger.address) / inside(bed, STRANGER, STRANGERS_PORT))
        return grown(two, before)["drop-in-fragment-first"] == 80

    wait_until(later, 10, "the others to be given up", poll_s=0.3)


def test_outer_fragments(bed: MeshBed, ear: socket.socket) -> None:
    """IPv6 fragments of a customer are reassembled before anything is judged."""
    stranger, data = bed.edges[2], os.urandom(1400)
    whole = outer(bed, stranger.address) / IPv6ExtHdrFragment(id=7) / inside(bed, STRANGER, STRANGERS_PORT, data)
    whole.nh = 44
    for piece in fragment6(whole, 1000):
        send(bed, piece)
    assert ear.recv(4000) == data


def test_off_goes_by_the_relay(bed: MeshBed, ear: socket.socket) -> None:
    """``mesh = off``: everything by the border relay, nobody else is heard; the other end answers directly all the
    same, so that both must agree. And back again, by a reload."""
    one, two, stranger = bed.edges
    config = bed.directory / "ce2.toml"
    text = config.read_text()
    config.write_text(text.replace("mesh = 'on'", "mesh = 'off'"))
    two.client.command("reload")
    wait_until(lambda: not two.status()["dataplane"]["mesh"]["active"], 10, "the pump to speak with the relay alone")
    assert "by the BR" in two.client.command("status")
    send(bed, outer(bed, stranger.address) / inside(bed, STRANGER, STRANGERS_PORT))
    ear.settimeout(1)
    with pytest.raises(TransferError):
        udp_exchange(one.lan, two.ipv4, requests=1, timeout_s=1)
    with pytest.raises(TimeoutError):
        ear.recv(100)
    config.write_text(text)
    two.client.command("reload")
    wait_until(lambda: two.status()["dataplane"]["mesh"]["active"], 10, "the mesh to be back")
    send(bed, outer(bed, stranger.address) / inside(bed, STRANGER, STRANGERS_PORT, b"heard again"))
    assert ear.recv(100) == b"heard again"


@pytest.mark.driver
def test_beside_the_kernels_softwire(bed: MeshBed, ear: socket.socket) -> None:
    """``auto`` takes the userspace softwire where there are forwarding rules; the kernel's one is taken when asked for,
    and says what is amiss; both together are refused."""
    two, stranger = bed.edges[1:]
    config, client = bed.directory / "ce2.toml", two.client
    text = config.read_text()
    assert client.stop() == 0
    for encapsulation, mesh, kind in (("auto", "auto", "tun"), ("auto", "off", "ip6tnl"), ("kernel", "auto", "ip6tnl")):
        config.write_text(text.replace("mesh = 'on'", f"mesh = '{mesh}'"))
        other = Client(two.cpe, client.run_dir.parent, encapsulation=encapsulation, options=("--config", str(config)))
        other.start()
        two.client = other
        try:
            dataplane = two.status()["dataplane"]
            assert (dataplane["kind"], dataplane["mesh"]["active"]) == (kind, kind == "tun")
            if kind == "tun":
                send(bed, outer(bed, stranger.address) / inside(bed, STRANGER, STRANGERS_PORT, b"mine"))
                assert ear.recv(100) == b"mine"
            else:
                reason = dataplane["mesh"]["reason"]
                assert "softwire.mesh is off" in reason if mesh == "off" else "encapsulation = userspace" in reason
        finally:
            assert other.stop() == 0
    config.write_text(text)
    refused = Client(two.cpe, client.run_dir.parent, encapsulation="kernel", options=("--config", str(config)))
    refused.start()
    try:
        wait_until(lambda: "softwire.mesh = off" in refused.log_file.read_text(), 10, "the refusal, with its remedy")
    finally:
        refused.stop()
        two.client = client
        client.start()
        two.status()
