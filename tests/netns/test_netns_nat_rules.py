"""Port forwards and hairpinning, ICMP errors both ways, protocols, replacement under traffic."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from natbed import ADDRESS, FAR, LAN_HOSTS, PORT, FarServer, NatBed, hear, plan_of, serving

from b4client.dataplane.nft import Nft
from b4client.lab.netns import Namespace, wait_until
from b4client.model.portset import PortSet
from b4client.model.softwire import PortForward

PORTS = PortSet(4, 8, 0x34)
FORWARDED = 4930
FORWARDS = tuple(PortForward(p, FORWARDED, IPv4Address(LAN_HOSTS[0]), 80) for p in ("tcp", "udp"))
NO_OPERATION = b"\x01\x01\x01\x00"
OPTIONS = pytest.mark.parametrize("options", [b"", NO_OPERATION], ids=["plain header", "header with options"])


@pytest.fixture(scope="module")
def bed(prefix: str) -> Iterator[NatBed]:
    bed = NatBed(f"{prefix}r")
    bed.build()
    yield bed
    bed.close()


@pytest.fixture
def loaded(bed: NatBed) -> Iterator[NatBed]:
    bed.load(plan_of(PORTS, FORWARDS), PORTS)
    yield bed
    bed.drop_sockets()
    wrong, _ = bed.judged()
    assert wrong == 0


@pytest.fixture
def far(loaded: NatBed) -> Iterator[FarServer]:
    with serving(loaded) as server:
        yield server
    loaded.drop_sockets()


def udp(bed: NatBed, where: Namespace, bind: tuple[str, int] | None = None, options: bytes = b"") -> socket.socket:
    s = bed.socket(where, socket.SOCK_DGRAM)
    s.settimeout(2)
    if options:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, options)
    if bind:
        s.bind(bind)
    return s


def test_port_forward_is_symmetric(loaded: NatBed, far: FarServer) -> None:
    """What comes to the forwarded port reaches the host; what the host sends from there leaves by the same port."""
    host = udp(loaded, loaded.lan, (LAN_HOSTS[0], 80))
    peer = udp(loaded, loaded.far)
    peer.connect((str(ADDRESS), FORWARDED))
    peer.send(b"hello")
    data, source = host.recvfrom(100)
    assert data == b"hello"
    assert source[0] in FAR
    host.sendto(b"answer", source)
    assert peer.recv(100) == b"answer"
    host.sendto(b"who am I?", (FAR[3], PORT))
    assert host.recv(100) == f"{ADDRESS}:{FORWARDED}".encode()


def test_forwarded_port_is_taken_by_no_other_flow(loaded: NatBed, far: FarServer) -> None:
    outcomes = loaded.connect(PORTS.port_count)
    assert sum(o.immediate for o in outcomes) == PORTS.port_count - 1
    assert far.ports(PORTS.port_count - 1) == set(PORTS.ports()) - {FORWARDED}


@pytest.mark.parametrize("caller", LAN_HOSTS)
def test_hairpin(loaded: NatBed, caller: str) -> None:
    """A LAN host reaches another, or itself, by the public address, and is seen by its own public one (REQ-9)."""
    host = udp(loaded, loaded.lan, (LAN_HOSTS[0], 80))
    s = udp(loaded, loaded.lan, (caller, 5000))
    # Both hosts are one namespace here: the way through the router must be asked for.
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    s.sendto(b"over the router", (str(ADDRESS), FORWARDED))
    data, source = host.recvfrom(100)
    assert data == b"over the router"
    assert source[0] == str(ADDRESS)
    assert source[1] in PORTS
    host.sendto(b"answer", source)
    assert s.recvfrom(100) == (b"answer", (str(ADDRESS), FORWARDED))


def test_inbound_without_forward(loaded: NatBed) -> None:
    s = udp(loaded, loaded.far)
    for port in (22, FORWARDED + 256, 4944, 65535):
        assert port not in PORTS
        s.sendto(b"x", (str(ADDRESS), port))
    wait_until(lambda: loaded.counter("in_drop") == 4, 2, "four drops")
    echo = loaded.socket(loaded.far, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    echo.bind(("0.0.0.0", 7))
    echo.sendto(struct.pack("!BBHHH", 8, 0, 0, 7, 1), (str(ADDRESS), 0))
    wait_until(lambda: loaded.counter("in_drop") == 5, 2, "the fifth drop")
    inside = loaded.socket(loaded.far, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    inside.bind(("0.0.0.0", 9030))
    assert 9030 in PORTS
    inside.sendto(struct.pack("!BBHHH", 8, 0, 0, 9030, 1), (str(ADDRESS), 0))
    assert hear([inside], 2)


@OPTIONS
def test_icmp_error_from_outside_finds_its_socket(loaded: NatBed, options: bytes) -> None:
    """With the options of the quoted header skipped (RFC 5508 REQ-3)."""
    s = udp(loaded, loaded.lan, options=options)
    s.connect((FAR[0], PORT + 1))
    s.send(b"nobody listens")
    with pytest.raises(ConnectionRefusedError):
        s.recv(10)


@OPTIONS
def test_icmp_error_from_the_lan_finds_its_socket(loaded: NatBed, options: bytes) -> None:
    s = udp(loaded, loaded.far, options=options)
    s.connect((str(ADDRESS), FORWARDED))
    s.send(b"no server on the LAN host")
    with pytest.raises(ConnectionRefusedError):
        s.recv(10)


def test_too_big_with_df(loaded: NatBed, far: FarServer) -> None:
    """ICMP 3/4 with the softwire's MTU of 1460 (RFC 5508 7.1.1 [N-7])."""
    s = udp(loaded, loaded.lan)
    s.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, DO
    s.connect((FAR[0], PORT))
    s.send(bytes(1460 - 28))
    assert s.recv(100)
    s.send(bytes(1460 - 27))
    with pytest.raises(OSError, match="Message too long"):
        s.recv(100)
    assert s.getsockopt(socket.IPPROTO_IP, 14) == 1460  # IP_MTU


def test_mss_is_clamped_both_ways(loaded: NatBed, far: FarServer) -> None:
    outcome = loaded.connect(1)[0]
    assert outcome.immediate
    # 1460 less both headers and the 12 octets of time stamps.
    assert outcome.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 1460 - 40 - 12


@pytest.mark.parametrize("protocol", [4, 47, 50, 41], ids=["IPIP", "GRE", "ESP", "6in4"])
def test_protocols_without_ports_are_refused(loaded: NatBed, protocol: int) -> None:
    """Dropped with a counter, and the LAN host is told (RFC 7618 7.1 [N-1])."""
    s = loaded.socket(loaded.lan, socket.SOCK_RAW, protocol)
    s.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    s.connect((FAR[0], 0))
    s.send(bytes(40))
    assert hear([s], 2)[s.fileno()] == errno.ENOPROTOOPT
    assert loaded.counter("out_drop") == 1
    assert loaded.judged() == (0, 0)


PORT_PROTOCOLS = {
    # INIT: tag, flags; a packet without a valid CRC32c is invalid to conntrack, so that here it is right.
    "SCTP": (132, struct.pack("!HHII", 5000, 7000, 0, 0)),
    "UDP-Lite": (136, struct.pack("!HHHH", 5000, 7000, 8, 0)),
    "DCCP": (33, struct.pack("!HHBBHI", 5000, 7000, 4, 0, 0, 0) + bytes(8)),
}


@pytest.mark.parametrize("name", PORT_PROTOCOLS)
def test_other_port_protocols_leave_inside_the_set_or_not_at_all(loaded: NatBed, name: str) -> None:
    """Translated as far as the kernel does; the guard stops what it does not translate."""
    protocol, packet = PORT_PROTOCOLS[name]
    if name == "SCTP":
        packet += struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65535, 1, 1, 1)
        packet = packet[:8] + struct.pack("<I", crc32c(packet)) + packet[12:]
    s = loaded.socket(loaded.lan, socket.SOCK_RAW, protocol)
    s.connect((FAR[0], 0))
    s.send(packet)

    def fate() -> tuple[int, int]:
        return loaded.judged()[1], loaded.counter("guard_drop") + loaded.counter("out_drop")

    # A packet that conntrack calls invalid is dropped as such, one that it cannot translate by the guard.
    wait_until(lambda: sum(fate()) >= 1, 2, f"the fate of {name}")
    tracked = Path("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_closed")
    if name == "SCTP":
        with loaded.cpe.entered():
            translated = tracked.exists()
        assert fate() == ((1, 0) if translated else (0, 1))


def crc32c(data: bytes) -> int:
    """RFC 9260 Appendix A, bit by bit."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_replacing_the_rules_under_traffic_loses_nothing(loaded: NatBed, far: FarServer) -> None:
    """The whole table is replaced again and again: no datagram, no connection and no port is lost by it."""
    text = plan_of(PORTS, FORWARDS).ruleset
    stop = threading.Event()
    replaced = 0

    def replace() -> None:
        nonlocal replaced
        with loaded.cpe.entered():
            rules = Nft()
            while not stop.is_set():
                rules.run("replace", text)
                replaced += 1

    with loaded.cpe.entered():
        thread = threading.Thread(target=replace)
        thread.start()
    try:
        s = udp(loaded, loaded.lan)
        s.connect((FAR[0], PORT))
        answers = []
        up = []
        while replaced < 20:
            s.send(b"who am I?")
            answers.append(s.recv(100))
            if len(answers) % 8 == 0 and len(up) < 100:
                up += loaded.connect(1)
    finally:
        stop.set()
        thread.join()
    assert len(answers) > 20
    assert len(set(answers)) == 1
    assert all(o.immediate for o in up)
