"""The softwire packet by packet: traffic class both ways, ICMPv6 errors about it, whose packets it takes.

    lan 192.168.1.10 ──── cpe: a data plane, 2001:db8::1 ════ br: raw sockets at 2001:db8::2, and ::3 for anybody else

Nothing in ``br`` is ours: what comes is read, and what is to come is written, octet by octet.
"""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from b4client.dataplane import tunio
from b4client.dataplane.apply import Dataplane
from b4client.dataplane.ipip import checksum
from b4client.lab.netns import Namespace, ip, ip_batch
from b4client.model.portset import PortSet
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation, Mode, SoftwireConfig

pytestmark = pytest.mark.softwire
LOCAL, BR, OTHER = (IPv6Address(f"2001:db8::{n}") for n in (1, 2, 3))
ADDRESS, LAN, FAR = IPv4Address("192.0.2.1"), IPv4Address("192.168.1.10"), IPv4Address("198.51.100.10")
PORTS = PortSet(4, 8, 0x34)
PORT = 7000
UNREACHABLE, TOO_BIG, TIME_EXCEEDED, PARAMETER_PROBLEM = 1, 2, 3, 4
SOURCE_POLICY = 5
IP_RECVERR, IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_PMTUDISC_DONT, IP_MTU = 11, 10, 2, 0, 14


@dataclass
class Inner:
    """An IPv4 packet that came out of the softwire at the BR, and the traffic class of the IPv6 packet around it."""

    octets: bytes
    traffic_class: int

    @property
    def tos(self) -> int:
        return self.octets[1]

    @property
    def source_port(self) -> int:
        return int.from_bytes(self.octets[20:22], "big")


@dataclass
class Bed:
    """The three namespaces and the BR's sockets."""

    prefix: str
    sockets: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lan, self.cpe, self.br = (Namespace(f"{self.prefix}-{end}") for end in ("slan", "scpe", "sbr"))

    def build(self) -> None:
        for namespace in (self.lan, self.cpe, self.br):
            ip("netns", "add", namespace.name)
        ip_batch(
            self.cpe.name,
            (
                "link set lo up",
                f"link add lan0 type veth peer name eth0 netns {self.lan.name}",
                f"link add wan type veth peer name eth0 netns {self.br.name}",
                "addr add 192.168.1.1/24 dev lan0",
                f"addr add {LOCAL}/64 dev wan nodad",
                "link set lan0 up",
                "link set wan up",
            ),
        )
        ip_batch(
            self.lan.name,
            (
                "link set lo up",
                "link set eth0 up",
                f"addr add {LAN}/24 dev eth0",
                f"addr add {LAN + 1}/24 dev eth0",
                "route add default via 192.168.1.1",
            ),
        )
        ip_batch(
            self.br.name,
            ("link set lo up", "link set eth0 up", *(f"addr add {a}/64 dev eth0 nodad" for a in (BR, OTHER))),
        )
        # A kernel that has ip6_tunnel would answer each packet: no tunnel of its own is there.
        self.br.run(
            "nft",
            "add table ip6 quiet; add chain ip6 quiet out { type filter hook output priority 0; }; "
            "add rule ip6 quiet out icmpv6 type destination-unreachable icmpv6 code port-unreachable drop",
        )
        self.cpe.sysctl({"ipv4/icmp_ratelimit": 0})
        self.way = self.open(self.br, socket.AF_INET6, socket.SOCK_RAW, 4)
        self.way.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        self.way.bind((str(BR), 0))
        self.way.settimeout(5)

    def close(self) -> None:
        for s in self.sockets:
            s.close()
        for namespace in (self.lan, self.cpe, self.br):
            if namespace.exists:
                ip("netns", "del", namespace.name)

    def open(self, where: Namespace, *kind: int) -> socket.socket:
        with where.entered():
            s = socket.socket(*kind)
        self.sockets.append(s)
        return s

    # ---- the LAN host

    def udp(self, *, df: bool = False) -> socket.socket:
        """A socket of the LAN host, connected to the far server."""
        s = self.open(self.lan, socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO if df else IP_PMTUDISC_DONT)
        s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        s.connect((str(FAR), PORT))
        s.settimeout(3)
        return s

    # ---- the BR

    def read(self) -> Inner:
        """The next packet out of the softwire."""
        octets, control, _, _ = self.way.recvmsg(65536, 256)
        (traffic_class,) = [int.from_bytes(data[:1], "big") for _, kind, data in control if kind == socket.IPV6_TCLASS]
        return Inner(octets, traffic_class)

    def answer(self, inner: Inner, text: bytes, *, tos: int, traffic_class: int, source: IPv6Address = BR) -> None:
        """A UDP answer to ``inner`` into the softwire."""
        self.send(udp4(inner.source_port, text, tos), traffic_class, source)

    def send(self, packet: bytes, traffic_class: int = 0, source: IPv6Address = BR) -> None:
        """An IPv4 packet to the softwire, from ``source``."""
        s = self.open(self.br, socket.AF_INET6, socket.SOCK_RAW, 4)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
        s.bind((str(source), 0))
        s.sendto(packet, (str(LOCAL), 0))

    def complain(
        self,
        kind: int,
        code: int,
        inner: Inner,
        *,
        parameter: int = 0,
        source: IPv6Address = BR,
        local: IPv6Address = LOCAL,
    ) -> None:
        """An ICMPv6 error from ``source`` that quotes the packet that ``inner`` came in."""
        outer = struct.pack("!IHBB", 6 << 28, len(inner.octets), 4, 64) + local.packed + BR.packed
        s = self.open(self.br, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        s.bind((str(source), 0))
        s.sendto(struct.pack("!BBHI", kind, code, 0, parameter) + (outer + inner.octets)[:1200], (str(LOCAL), 0))


def udp4(target: int, text: bytes, tos: int, *, source: IPv4Address = FAR, port: int = PORT) -> bytes:
    """An IPv4 packet with a UDP datagram (without checksum) to our port ``target``."""
    length = 28 + len(text)
    head = struct.pack("!BBHHHBBH", 0x45, tos, length, 0, 0, 64, socket.IPPROTO_UDP, 0)
    head += source.packed + ADDRESS.packed
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return head + struct.pack("!HHHH", port, target, 8 + len(text), 0) + text


def hears_nothing(s: socket.socket) -> bool:
    """True when neither a datagram nor an error comes soon."""
    s.settimeout(0.5)
    try:
        return not s.recv(100)
    except TimeoutError:
        return True


@pytest.fixture
def bed(prefix: str, tmp_path: Path, encapsulation: str) -> Iterator[Bed]:
    bed = Bed(prefix)
    bed.close()
    bed.build()
    try:
        with bed.cpe.entered():
            settings = SoftwireSettings(device="b4", encapsulation=Encapsulation(encapsulation))
            plane = Dataplane(settings, state_dir=tmp_path)
            plane.install(SoftwireConfig(Mode.LW4O6, "wan", LOCAL, BR, ADDRESS, PORTS))
            try:
                yield bed
            finally:
                plane.withdraw()
                plane.close()
    finally:
        bed.close()


# ---- traffic class


@pytest.mark.parametrize("tos", [0x00, 0x28, 0xB8, 0xE0, 0x02])
def test_the_traffic_class_goes_out(bed: Bed, tos: int) -> None:
    """RFC 6333 7.1, RFC 7596 5.2 [L-9]: DSCP and ECN of the IPv4 packet are those of the IPv6 packet around it."""
    s = bed.udp()
    for value in (tos, 0x40, tos):
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, value)
        s.send(b"out")
        inner = bed.read()
        assert (inner.tos, inner.traffic_class) == (value, value)


@pytest.mark.parametrize(
    ("outer", "inner", "arrives"),
    [
        pytest.param(0x28, 0x28, 0x28, id="alike"),
        pytest.param(0x28, 0x00, 0x28, id="marked on the way"),
        pytest.param(0x00, 0xB8, 0x00, id="bleached on the way"),
        pytest.param(0xB8, 0x02, 0xBA, id="ECN stays"),
        pytest.param(0xBB, 0x02, 0xBB, id="congestion on the way"),
    ],
)
def test_the_traffic_class_comes_in(bed: Bed, outer: int, inner: int, arrives: int) -> None:
    """RFC 6333 7.1 "and vice versa" [L-9]: the class of the IPv6 packet is that of the IPv4 packet that comes out;
    ECN as RFC 6040 4.2 joins both."""
    s = bed.udp()
    s.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    s.send(b"question")
    bed.answer(bed.read(), b"answer", tos=inner, traffic_class=outer)
    text, control, _, _ = s.recvmsg(100, 100)
    assert text == b"answer"
    assert [data[0] for _, kind, data in control if kind == socket.IP_TOS] == [arrives]


# ---- whose packets


def test_only_the_brs_packets_come_out(bed: Bed) -> None:
    """RFC 7596 5.2 [L-7]: what another host than the lwAFTR tunnels to us is dropped, though it answers a flow."""
    s = bed.udp()
    s.send(b"question")
    inner = bed.read()
    bed.answer(inner, b"forged", tos=0, traffic_class=0, source=OTHER)
    bed.answer(inner, b"true", tos=0, traffic_class=0)
    assert s.recv(100) == b"true"
    assert hears_nothing(s)


@pytest.mark.parametrize(
    ("source", "port"),
    [pytest.param(FAR + 1, PORT, id="another host"), pytest.param(FAR, PORT + 1, id="another port of the host")],
)
def test_only_the_peer_answers(bed: Bed, source: IPv4Address, port: int) -> None:
    """RFC 7597 10 [N-3]: through a mapping comes only what its peer sends, and none of it extends to strangers."""
    s = bed.open(bed.lan, socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(3)
    s.sendto(b"question", (str(FAR), PORT))
    inner = bed.read()
    bed.send(udp4(inner.source_port, b"forged", 0, source=source, port=port))
    bed.answer(inner, b"true", tos=0, traffic_class=0)
    assert s.recvfrom(100) == (b"true", (str(FAR), PORT))
    assert hears_nothing(s)


def test_ports_are_chosen_at_random(bed: Bed) -> None:
    """RFC 6056 4, RFC 7618 10.1 [N-8]: neither in order nor in steps, whatever the order of the ports inside."""
    outside = []
    for local in range(2000, 2012):
        s = bed.open(bed.lan, socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((str(LAN), local))
        s.sendto(b"x", (str(FAR), PORT))
        outside.append(bed.read().source_port)
    assert set(outside) <= set(PORTS.ports())
    steps = {later - earlier for earlier, later in itertools.pairwise(outside)}
    assert len(steps) > 4
    assert min(steps) < 0 < max(steps)


# ---- ICMPv6 errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        pytest.param(UNREACHABLE, 0, id="no route"),
        pytest.param(UNREACHABLE, SOURCE_POLICY, id="no binding"),
        pytest.param(TIME_EXCEEDED, 0, id="hop limit"),
    ],
)
def test_an_error_about_the_tunnel_reaches_the_sender(bed: Bed, kind: int, code: int) -> None:
    """RFC 2473 8.3, RFC 7596 8 [L-11]: it becomes "host unreachable" for who sent the packet inside."""
    s = bed.udp()
    s.send(b"lost")
    bed.complain(kind, code, bed.read())
    with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
        s.recv(100)


def test_a_packet_too_big_reaches_the_sender(bed: Bed) -> None:
    """RFC 2473 8.3 d [L-11]: the MTU that is told is the tunnel's, 40 octets less than the path's."""
    s = bed.udp(df=True)
    s.send(bytes(1400))
    bed.complain(TOO_BIG, 0, bed.read(), parameter=1400)
    with pytest.raises(OSError, match="Message too long"):
        s.recv(100)
    assert s.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1360


def test_no_binding_counts_only_from_the_lwaftr(bed: Bed) -> None:
    """RFC 7596 5.1 [L-6]: ICMPv6 type 1 code 5 of another source than the lwAFTR MUST be discarded."""
    s = bed.udp()
    s.send(b"lost")
    bed.complain(UNREACHABLE, SOURCE_POLICY, bed.read(), source=OTHER)
    assert hears_nothing(s)


def test_an_error_about_somebody_elses_packet_changes_nothing(bed: Bed) -> None:
    """L-6, L-11: what is quoted must be a packet of this softwire."""
    s = bed.udp()
    s.send(b"on its way")
    bed.complain(UNREACHABLE, SOURCE_POLICY, bed.read(), local=OTHER)
    assert hears_nothing(s)
    s.send(b"still")
    assert bed.read().octets.endswith(b"still")


def test_a_packet_in_between_does_not_keep_the_softwire_from_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    """What any interface hears between the making of the packet socket and its filter is thrown away."""
    attach = tunio.attach_filter

    def late(packet: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as somebody:
            for _ in range(3):
                somebody.sendto(b"x", ("::1", 9))
        assert select.select([packet], [], [], 1)[0]
        attach(packet, program)

    monkeypatch.setattr(tunio, "attach_filter", late)
    namespace = Namespace(f"pk{os.getpid()}")
    ip("netns", "add", namespace.name)
    try:
        ip("-n", namespace.name, "link", "set", "lo", "up")
        with namespace.entered(), tunio.open_packet(LOCAL.packed, [(int(BR), 128)]) as packet:
            assert select.select([packet], [], [], 0.2)[0] == []
            assert packet.getsockopt(tunio.SOL_PACKET, tunio.PACKET_VNET_HDR) == 1
    finally:
        ip("netns", "del", namespace.name)
