"""A LAN host, a customer edge with our NAT rules, and the Internet: three namespaces and two veth pairs.

    lan 192.168.1.10 ──── cpe: the ruleset of a plan ════ b4: a veth in the softwire's place ════ far 198.51.100.10-19
        192.168.1.11

What comes out is judged in ``far`` before its stack, by a list of the set's ports that owes nothing to the guard's
arithmetic. Sockets are opened here and stay in their namespaces.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from b4client.dataplane import loopdevice, sysctl
from b4client.dataplane.nft import Nft, counters
from b4client.dataplane.plan import Plan, plan
from b4client.dataplane.undo import Undo
from b4client.lab.netns import Namespace, ip, ip_batch, wait_until
from b4client.model.portset import PortSet
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation, Mode, PortForward, SoftwireConfig

ADDRESS = IPv4Address("192.0.2.1")
LAN_HOSTS = ("192.168.1.10", "192.168.1.11")
FAR = tuple(f"198.51.100.{10 + i}" for i in range(10))
PORT = 7000
PATIENCE_S = 0.9
"""Less than a SYN's first retransmission."""
RESET = struct.pack("=ii", 1, 0)
"""SO_LINGER: close with RST, so that no connection of one test is left at either end for the next one's ports."""
DEVICE = "b4"
SETTINGS = SoftwireSettings(device=DEVICE)


def config(ports: PortSet | None, forwards: tuple[PortForward, ...] = ()) -> SoftwireConfig:
    """A softwire of the public address 192.0.2.1 with these ports."""
    br = IPv6Address("2001:db8::2")
    return SoftwireConfig(Mode.LW4O6, "wan", IPv6Address("2001:db8::1"), br, ADDRESS, ports, forwards=forwards)


def plan_of(
    ports: PortSet | None,
    forwards: tuple[PortForward, ...] = (),
    *,
    recirculation: bool = True,
    settings: SoftwireSettings = SETTINGS,
) -> Plan:
    """The plan whose ruleset the bed loads."""
    return plan(
        config(ports, forwards),
        settings,
        encapsulation=Encapsulation.USERSPACE,
        path_mtu=1500,
        recirculation=recirculation,
    )


@dataclass
class NatBed:
    """The three namespaces. Use ``build`` and ``close``."""

    prefix: str
    ports: PortSet | None = None
    sockets: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lan, self.cpe, self.far = (Namespace(f"{self.prefix}-n{end}") for end in ("lan", "cpe", "far"))

    # ---- building

    def build(self) -> None:
        """Make it; what an earlier one left goes first."""
        self.close()
        for namespace in (self.lan, self.cpe, self.far):
            ip("netns", "add", namespace.name)
        mac = "02:00:00:00:00:46"
        ip_batch(
            self.cpe.name,
            (
                "link set lo up",
                f"link add lan0 type veth peer name eth0 netns {self.lan.name}",
                f"link add {DEVICE} address {mac} mtu 1460 type veth "
                f"peer name eth0 address {mac} netns {self.far.name}",
                "addr add 192.168.1.1/24 dev lan0",
                "link set lan0 up",
                f"link set {DEVICE} arp off up",
                f"addr add {ADDRESS}/32 dev {DEVICE}",
                f"route add default dev {DEVICE}",
            ),
        )
        ip_batch(
            self.lan.name,
            (
                "link set lo up",
                "link set eth0 up",
                *(f"addr add {host}/24 dev eth0" for host in LAN_HOSTS),
                "route add default via 192.168.1.1",
            ),
        )
        ip_batch(
            self.far.name,
            (
                "link set lo up",
                "link set eth0 arp off up",
                *(f"addr add {host}/24 dev eth0" for host in FAR),
                f"route add {ADDRESS}/32 dev eth0",
            ),
        )
        self.cpe.sysctl(
            {
                "ipv4/ip_forward": 1,
                # The strict filter of many distributions: the loop must live with it.
                "ipv4/conf/all/rp_filter": 1,
                f"ipv4/conf/{DEVICE}/rp_filter": 0,
                # One error per host and second is the kernel's default; a test wants to hear all of them.
                "ipv4/icmp_ratelimit": 0,
            }
        )
        for namespace in (self.lan, self.far):
            namespace.sysctl({"ipv4/ip_local_port_range": "1024 65535", "ipv4/ping_group_range": "0 2147483647"})
        self.far.sysctl({"core/somaxconn": 65535, "ipv4/tcp_max_syn_backlog": 65535, "ipv4/icmp_ratelimit": 0})

    def load(self, target: Plan, ports: PortSet | None) -> None:
        """Load the plan's rules (and make its loop) with fresh conntrack tables and counters."""
        with self.cpe.entered():
            if target.loop is not None:
                loopdevice.ensure(target.loop, Undo())
            for path, value in target.sysctls:
                sysctl.write(path, value)
        self.load_text(target.ruleset, ports)

    def load_text(self, text: str, ports: PortSet | None) -> None:
        """Load any rules; ``ports`` says what ``far`` shall call right."""
        self.drop_sockets()
        self.ports = ports
        with self.cpe.entered():
            Nft().run("load", text)
        self.flush()
        judged = "" if ports is None else ", ".join(str(r) for r in ports.ranges())
        port, identifier = (f"{name} != {{ {judged} }} counter name wrong" for name in ("th sport", "icmp id"))
        self.far.run(
            "nft",
            "-f",
            "-",
            text=f"""
            table ip judge
            delete table ip judge
            table ip judge {{
              counter wrong {{ }}
              counter seen {{ }}
              chain before {{
                type filter hook prerouting priority -300;
                iifname eth0 counter name seen
                iifname eth0 ip saddr != {ADDRESS} counter name wrong
                {f"iifname eth0 meta l4proto {{ tcp, udp, sctp, dccp, udplite }} {port}" if ports else ""}
                {f"iifname eth0 icmp type {{ echo-request, echo-reply }} {identifier}" if ports else ""}
                iifname eth0 meta l4proto != {{ tcp, udp, sctp, dccp, udplite, icmp }} counter name wrong
              }}
            }}
            """,
        )

    def flush(self) -> None:
        """Forget all flows of the customer edge."""
        from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

        with self.cpe.entered():
            ct = NFCTSocket()
            try:
                ct.flush()
            finally:
                ct.close()

    def end(self, s: socket.socket, to: str = FAR[0]) -> None:
        """Close a TCP connection from the LAN and delete its conntrack entry: its port is free at once."""
        from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

        source, sport = s.getsockname()
        s.close()
        with self.cpe.entered():
            ct = NFCTSocket()
            try:
                ct.entry("del", tuple_orig=NFCTAttrTuple(saddr=source, daddr=to, proto=6, sport=sport, dport=PORT))
            finally:
                ct.close()

    def drop_sockets(self) -> None:
        """Close what tests opened."""
        while self.sockets:
            self.sockets.pop().close()

    def close(self) -> None:
        """Take everything away."""
        self.drop_sockets()
        for namespace in (self.lan, self.cpe, self.far):
            if namespace.exists:
                ip("netns", "del", namespace.name)

    # ---- looking

    def counter(self, name: str) -> int:
        """Packets of a named counter of our table."""
        with self.cpe.entered():
            return counters(Nft().list_table("ip", f"b4client_{DEVICE}"))[name]["packets"]

    def judged(self) -> tuple[int, int]:
        """(packets with a wrong source, all packets) as ``far`` saw them before its stack."""
        with self.far.entered():
            found = counters(Nft().list_table("ip", "judge"))
        return found["wrong"]["packets"], found["seen"]["packets"]

    # ---- sockets

    def socket(self, where: Namespace, kind: int, protocol: int = 0) -> socket.socket:
        """A non-blocking IPv4 socket inside, closed by the next ``load``."""
        with where.entered():
            s = socket.socket(socket.AF_INET, kind, protocol)
        s.setblocking(False)
        if kind == socket.SOCK_STREAM:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sockets.append(s)
        return s

    def send(self, count: int, to: str = FAR[0], *, where: Namespace | None = None) -> list[socket.socket]:
        """Send one datagram each from ``count`` connected UDP sockets."""
        opened = []
        for _ in range(count):
            s = self.socket(where or self.lan, socket.SOCK_DGRAM)
            s.connect((to, PORT))
            s.send(b"who am I?")
            opened.append(s)
        return opened

    def ping(self, count: int, to: str = FAR[0], *, where: Namespace | None = None) -> list[socket.socket]:
        """Send one echo request each from ``count`` ping sockets: the kernel gives each its identifier."""
        opened = []
        for _ in range(count):
            s = self.socket(where or self.lan, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
            s.connect((to, 0))
            s.send(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + b"echo")
            opened.append(s)
        return opened

    def connect(
        self, count: int, to: str = FAR[0], *, where: Namespace | None = None, patience_s: float = PATIENCE_S
    ) -> list[Outcome]:
        """Open ``count`` TCP connections to ``to`` as fast as we can, then wait for all."""
        attempts = []
        for _ in range(count):
            s = self.socket(where or self.lan, socket.SOCK_STREAM)
            begun = time.monotonic()
            s.connect_ex((to, PORT))
            attempts.append((s, begun))
        return _outcomes(attempts, patience_s)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt: ``error`` 0 when it is up, ETIMEDOUT when nothing was heard; ``seconds`` it took."""

    socket: socket.socket
    error: int
    seconds: float
    retransmissions: int = 0

    @property
    def immediate(self) -> bool:
        """True when it was up without a retransmission."""
        return self.error == 0 and self.retransmissions == 0


def _outcome(s: socket.socket, seconds: float) -> Outcome:
    error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    # struct tcp_info: tcpi_total_retrans at octet 100.
    info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return Outcome(s, error, seconds, struct.unpack_from("=I", info, 100)[0])


def _outcomes(attempts: list[tuple[socket.socket, float]], patience_s: float) -> list[Outcome]:
    """Wait for every connection, this long."""
    waiting = {s.fileno(): (s, begun) for s, begun in attempts}
    poll = select.poll()
    for number in waiting:
        poll.register(number, select.POLLOUT)
    done = []
    end = time.monotonic() + patience_s
    while waiting and (left := end - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000):
            s, begun = waiting.pop(number)
            poll.unregister(number)
            done.append(_outcome(s, time.monotonic() - begun))
    return done + [Outcome(s, errno.ETIMEDOUT, patience_s) for s, _ in waiting.values()]


class FarServer:
    """TCP and UDP on PORT of all far addresses: TCP connections are taken and kept until the peer closes; every
    datagram is answered with the address and port that it came from."""

    def __init__(self, bed: NatBed) -> None:
        with bed.far.entered():
            self._tcp = socket.create_server(("0.0.0.0", PORT), backlog=65535)
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            # IP_PKTINFO: answer from the address that was asked.
            self._udp.setsockopt(socket.IPPROTO_IP, 8, 1)
            self._udp.bind(("0.0.0.0", PORT))
        self.peers: list[tuple[str, int]] = []
        self._taken: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self._tcp.setblocking(False)
        self._udp.setblocking(False)
        self._stop_end, stop = socket.socketpair()
        self._stop = stop
        for s in (self._tcp, self._udp, stop):
            self._poll.register(s.fileno(), select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for number, _ in self._poll.poll():
                if number == self._stop.fileno():
                    return
                if number == self._tcp.fileno():
                    self._accept()
                elif number == self._udp.fileno():
                    self._answer()
                elif number in self._taken:
                    with contextlib.suppress(OSError):
                        if self._taken[number].recv(4096):
                            continue
                    self._poll.unregister(number)
                    self._taken.pop(number).close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                s, peer = self._tcp.accept()
                s.setblocking(False)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self.peers.append(peer)
                self._taken[s.fileno()] = s
                self._poll.register(s.fileno(), select.EPOLLIN)

    def _answer(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                _, ancillary, _, peer = self._udp.recvmsg(65535, 64)
                self.peers.append(peer)
                text = f"{peer[0]}:{peer[1]}".encode()
                # in_pktinfo: no interface, send from ipi_spec_dst.
                info = [(level, kind, struct.pack("=I", 0) + data[4:]) for level, kind, data in ancillary]
                with contextlib.suppress(OSError):
                    self._udp.sendmsg([text], info, 0, peer)

    def ports(self, count: int) -> set[int]:
        """The public ports of the first ``count`` peers; waits for them."""
        wait_until(lambda: len(self.peers) >= count, 5, f"{count} peers")
        assert {address for address, _ in self.peers} == {str(ADDRESS)}
        return {port for _, port in self.peers[:count]}

    def close(self) -> None:
        """End it."""
        self._stop_end.close()
        self._thread.join()
        for s in (self._tcp, self._udp, self._stop, *self._taken.values()):
            s.close()
        self._poll.close()


@contextlib.contextmanager
def serving(bed: NatBed) -> Iterator[FarServer]:
    """A FarServer for a block."""
    server = FarServer(bed)
    try:
        yield server
    finally:
        server.close()


def hear(sockets: Iterable[socket.socket], seconds: float) -> dict[int, bytes | int]:
    """What each UDP or ICMP socket (by descriptor) hears first within ``seconds``: octets, or the errno of an error."""
    heard: dict[int, bytes | int] = {}
    waiting = {s.fileno(): s for s in sockets}
    poll = select.poll()
    for number in waiting:
        poll.register(number, select.POLLIN)
    end = time.monotonic() + seconds
    while waiting and (left := end - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000):
            try:
                heard[number] = waiting[number].recv(65535)
            except OSError as error:
                heard[number] = error.errno or 0
            poll.unregister(number)
            del waiting[number]
    return heard
