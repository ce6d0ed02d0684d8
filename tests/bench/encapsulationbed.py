"""Two ends and a customer edge between them, whose way to the far end is plain or a softwire of some kind.

    lan 192.0.2.1 ── 192.168.1.1 cpe 2001:db8::1 ══ 2001:db8::2 far 198.51.100.10

Nothing is translated: what is compared is the encapsulation alone. The far end decapsulates in its kernel, with the
driver ip6_tunnel where there is one, else with SRv6's End.DX4, which takes plain IPv4-in-IPv6 as well; so it is never
what limits.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from b4client.dataplane import userspace
from b4client.dataplane.plan import MeshPlan, mesh_rules
from b4client.lab.aftr import SILENCE
from b4client.lab.netns import LabError, Namespace, end_processes, ip_batch
from b4client.model.maprule import MappingRule, ce_address_for

HOST, FAR = "192.0.2.1", "198.51.100.10"
CE, BR = IPv6Address("2001:db8:c::1"), IPv6Address("2001:db8:b::1")
CE_SRV6 = IPv6Address("2001:db8:c::2")
RULE = MappingRule(IPv6Network("2001:db8:d::/48"), IPv4Network(f"{FAR}/32"), 0, fmr=True)
MTU = 1460
DEVICE = "b4"
SINK, ECHO, STREAM = 7000, 7001, 7002
COUNT = f"""
table ip bench {{
  counter sink {{ }}
  chain in {{
    type filter hook input priority -300
    udp dport {SINK} counter name sink drop
  }}
}}
"""
"""What arrives is counted and goes no further: there, the receiver costs next to nothing."""


@dataclass
class SoftwireBed:
    """The namespaces. ``use`` chooses a way; measurements follow."""

    prefix: str
    directory: Path
    sockets: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lan, self.cpe, self.far = (Namespace(f"{self.prefix}-s{end}") for end in ("lan", "cpe", "far"))
        peer = ce_address_for(RULE, RULE.rule_ipv4.network_address, None)
        assert peer is not None
        self.peer = peer
        self.driver = self.srv6 = False

    # ---- building

    def build(self) -> None:
        """Make it; what an earlier one left goes first."""
        self.close()
        ip_batch(None, [f"netns add {n.name}" for n in self._all])
        for namespace in self._all:
            namespace.sysctl(
                {
                    "ipv4/ip_forward": 1,
                    "ipv6/conf/all/forwarding": 1,
                    "ipv6/conf/default/accept_dad": 0,
                    "ipv4/conf/all/rp_filter": 0,
                    "ipv4/conf/default/rp_filter": 0,
                }
            )
        ip_batch(
            self.cpe.name,
            [
                "link set lo up",
                f"link add lan0 type veth peer name eth0 netns {self.lan.name}",
                f"link add wan type veth peer name wan netns {self.far.name}",
                "addr add 192.168.1.1/32 dev lan0",
                "addr add 2001:db8::1/64 dev wan nodad",
                "addr add 10.0.0.1/24 dev wan",
                f"addr add {CE}/128 dev wan nodad",
                "link set lan0 up",
                "link set wan up",
                f"route add {HOST} dev lan0",
            ],
        )
        ip_batch(
            self.lan.name,
            [
                "link set lo up",
                f"addr add {HOST}/32 dev eth0",
                "link set eth0 up",
                "route add 192.168.1.1 dev eth0",
                # Segments fit the softwire: what is compared is the way, not the size.
                f"route add default via 192.168.1.1 mtu {MTU}",
            ],
        )
        ip_batch(
            self.far.name,
            [
                "link set lo up",
                "addr add 2001:db8::2/64 dev wan nodad",
                "addr add 10.0.0.2/24 dev wan",
                f"addr add {FAR}/32 dev lo",
                "link set wan up",
            ],
        )
        for end in (BR, self.peer):
            ip_batch(self.cpe.name, [f"route add {end} via 2001:db8::2"])
        ip_batch(self.far.name, [f"route add {end} via 2001:db8::1" for end in (CE, CE_SRV6)])
        for namespace in (self.lan, self.far):
            namespace.run("nft", "-f", "-", text=COUNT)
        self.cpe.run("nft", "-f", "-", text=SILENCE)
        self._find_out()
        self._far_ends()
        self._listen()

    @property
    def _all(self) -> tuple[Namespace, ...]:
        return (self.lan, self.cpe, self.far)

    def _find_out(self) -> None:
        """What this kernel has."""
        try:
            ip_batch(
                self.far.name, [f"link add probe type ip6tnl mode ipip6 local {BR} remote {CE_SRV6}", "link del probe"]
            )
            self.driver = True
        except LabError:
            self.driver = False
        try:
            self._decapsulate(self.cpe, CE_SRV6)
            self.srv6 = True
        except LabError:
            self.srv6 = False

    @staticmethod
    def _decapsulate(namespace: Namespace, end: IPv6Address) -> None:
        ip_batch(namespace.name, [f"route replace {end}/128 encap seg6local action End.DX4 nh4 0.0.0.0 dev wan"])

    def _far_ends(self) -> None:
        for name, end in (("t0", BR), ("t1", self.peer)):
            if self.driver:
                self._tunnel(self.far, name, end, CE)
            else:
                self._decapsulate(self.far, end)

    @staticmethod
    def _tunnel(namespace: Namespace, name: str, local: IPv6Address, remote: IPv6Address) -> None:
        if namespace.run("ip", "link", "show", name, check=False).returncode:
            ip_batch(
                namespace.name,
                [
                    f"addr replace {local}/128 dev wan nodad",
                    f"link add {name} type ip6tnl mode ipip6 local {local} remote {remote} encaplimit none dev wan",
                    f"link set {name} mtu {MTU} up",
                ],
            )

    def _listen(self) -> None:
        for namespace, address in ((self.far, FAR), (self.lan, HOST)):
            echo = self.socket(namespace, socket.SOCK_DGRAM)
            echo.bind((address, ECHO))
            threading.Thread(target=_echo, args=(echo,), daemon=True).start()
            stream = self.socket(namespace, socket.SOCK_STREAM)
            stream.bind((address, STREAM))
            stream.listen()
            threading.Thread(target=_swallow, args=(stream,), daemon=True).start()

    def close(self) -> None:
        """Take everything away."""
        for s in self.sockets:
            s.close()
        self.sockets.clear()
        there = [n for n in self._all if n.exists]
        end_processes(there, grace_s=0)
        if there:
            ip_batch(None, [f"netns del {n.name}" for n in there])

    def socket(self, namespace: Namespace, kind: socket.SocketKind) -> socket.socket:
        """One that lives in ``namespace``."""
        with namespace.entered():
            s = socket.socket(socket.AF_INET, kind)
        self.sockets.append(s)
        return s

    # ---- ways

    def ways(self) -> dict[str, Callable[[], None]]:
        """What can be compared on this kernel."""
        found: dict[str, Callable[[], None]] = {"plain forwarding": self._plain}
        if self.driver:
            found["ip6_tunnel"] = self._ip6tnl
        if self.srv6:
            found["SRv6"] = self._srv6
        found["userspace"] = lambda: self._pump(None, BR)
        found["userspace, mesh"] = lambda: self._pump(MeshPlan(mesh_rules([RULE]), False), self.peer)
        return found

    def _routes(self, there: str, back: str) -> None:
        ip_batch(self.cpe.name, [f"route replace {FAR} {there}"])
        ip_batch(self.far.name, [f"route replace {HOST} {back}"])

    def _plain(self) -> None:
        self._end_pump()
        self._routes("via 10.0.0.2", "via 10.0.0.1")

    def _ip6tnl(self) -> None:
        self._end_pump()
        self._tunnel(self.cpe, "k0", CE, BR)
        self._routes("dev k0", "dev t0")

    def _srv6(self) -> None:
        self._end_pump()
        self.far.run("ip", "sr", "tunsrc", "set", str(BR))
        self.cpe.run("ip", "sr", "tunsrc", "set", str(CE))
        back = f"encap seg6 mode encap.red segs {CE_SRV6} dev wan"
        if self.driver:
            self._decapsulate(self.far, IPv6Address("2001:db8:b::2"))
            ip_batch(self.cpe.name, ["route replace 2001:db8:b::2 via 2001:db8::2"])
        end = "2001:db8:b::2" if self.driver else str(BR)
        self._routes(f"encap seg6 mode encap.red segs {end} dev wan", back)

    def _pump(self, mesh: MeshPlan | None, end: IPv6Address) -> None:
        self._end_pump()
        if not self.driver:
            self.far.run("ip", "sr", "tunsrc", "set", str(end))
        with self.cpe.entered():
            userspace.start(DEVICE, CE, BR, MTU, run_dir=self.directory, mesh=mesh)
        self._use_device(end)

    def _use_device(self, end: IPv6Address) -> None:
        ip_batch(self.cpe.name, [f"link set {DEVICE} mtu {MTU} up"])
        back = f"dev {'t0' if end == BR else 't1'}" if self.driver else f"encap seg6 mode encap.red segs {CE} dev wan"
        self._routes(f"dev {DEVICE}", back)

    def pump_of(self, tree: Path) -> None:
        """The pump of another checkout, which is asked for a softwire in its own words."""
        self._end_pump()
        if not self.driver:
            self.far.run("ip", "sr", "tunsrc", "set", str(BR))
        program = (
            f"import sys; sys.path.insert(0, {str(tree)!r})\n"
            "from ipaddress import IPv6Address\nfrom pathlib import Path\nfrom b4client.dataplane import userspace\n"
            f"userspace.start({DEVICE!r}, IPv6Address('{CE}'), IPv6Address('{BR}'), {MTU}, "
            f"run_dir=Path({str(self.directory)!r}))"
        )
        self.cpe.run(sys.executable, "-I", "-c", program)
        self._use_device(BR)

    def _end_pump(self) -> None:
        with self.cpe.entered():
            userspace.stop(DEVICE, run_dir=self.directory)
        # Beside a pump the driver would take the same packets once more.
        self.cpe.run("ip", "link", "del", "k0", check=False)

    def pump_cpu_s(self) -> float:
        """CPU time of the pump so far; 0 without one."""
        pump = userspace.running(DEVICE, run_dir=self.directory)
        if pump is None:
            return 0.0
        fields = Path(f"/proc/{pump.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def offloads(self, *, on: bool) -> None:
        """Segmentation, checksums and merging on every cable."""
        state = "on" if on else "off"
        for namespace, interface in ((self.lan, "eth0"), (self.cpe, "lan0"), (self.cpe, "wan"), (self.far, "wan")):
            namespace.run("ethtool", "-K", interface, "tso", state, "gso", state, "gro", state, "tx", state)

    def _ends(self, *, up: bool) -> tuple[Namespace, Namespace, str]:
        return (self.lan, self.far, FAR) if up else (self.far, self.lan, HOST)

    # ---- measuring

    def packets(self, size: int, seconds: float, *, up: bool) -> tuple[float, float]:
        """(IPv4 packets of ``size`` octets that arrive per second, ns of CPU for each: sender and pump)."""
        sender, receiver, target = self._ends(up=up)
        s = self.socket(sender, socket.SOCK_DGRAM)
        s.bind((HOST if up else FAR, 0))
        s.connect((target, SINK))
        payload = bytes(size - 28)
        self._blast(s, payload, 0.1)
        time.sleep(0.05)
        before, pump = self._counted(receiver), self.pump_cpu_s()
        took, cpu = self._blast(s, payload, seconds)
        time.sleep(0.2)  # what waits in queues arrives
        arrived = self._counted(receiver) - before
        s.close()
        return arrived / took, (cpu + self.pump_cpu_s() - pump) / max(arrived, 1) * 1e9

    @staticmethod
    def _blast(s: socket.socket, payload: bytes, seconds: float) -> tuple[float, float]:
        """Send as fast as can be: (seconds, CPU seconds of this thread)."""
        send = s.send
        begun, cpu = time.monotonic(), time.thread_time()
        while time.monotonic() - begun < seconds:
            for _ in range(64):
                try:
                    send(payload)
                except OSError:
                    pass  # ENOBUFS: a queue is full, which is what we want to see the other side of
        return time.monotonic() - begun, time.thread_time() - cpu

    @staticmethod
    def _counted(namespace: Namespace) -> int:
        listed = json.loads(namespace.run("nft", "-j", "list", "counter", "ip", "bench", "sink").stdout)
        return int(next(item["counter"]["packets"] for item in listed["nftables"] if "counter" in item))

    def round_trip_us(self, count: int = 1000) -> float:
        """Median of one datagram there and back, from the LAN."""
        s = self.socket(self.lan, socket.SOCK_DGRAM)
        s.settimeout(2)
        s.connect((FAR, ECHO))
        times = []
        for _ in range(count):
            begun = time.perf_counter_ns()
            s.send(b"there")
            s.recv(100)
            times.append(time.perf_counter_ns() - begun)
        s.close()
        return sorted(times)[count // 2] / 1000

    def stream(self, seconds: float, *, up: bool) -> float:
        """Bit/s of one TCP connection."""
        sender, _, target = self._ends(up=up)
        s = self.socket(sender, socket.SOCK_STREAM)
        s.settimeout(10)
        s.bind((HOST if up else FAR, 0))
        s.connect((target, STREAM))
        data = bytes(1 << 18)
        sent, begun = 0, time.monotonic()
        while time.monotonic() - begun < seconds:
            sent += s.send(data)
        s.shutdown(socket.SHUT_WR)
        while s.recv(100):
            pass  # the other end closes when it has everything
        rate = sent * 8 / (time.monotonic() - begun)
        s.close()
        return rate


def _echo(s: socket.socket) -> None:
    try:
        while True:
            data, peer = s.recvfrom(2048)
            s.sendto(data, peer)
    except OSError:
        return


def _swallow(listener: socket.socket) -> None:
    buffer = bytearray(1 << 18)
    try:
        while True:
            connection, _ = listener.accept()
            with connection:
                while connection.recv_into(buffer):
                    pass
    except OSError:
        return
