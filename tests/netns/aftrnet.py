"""A network around one lwAFTR, with hand-made customers, for its end-to-end tests.

::

    PREFIX-ahome                     PREFIX-aaftr                       PREFIX-asrv
    wan ─────────────────────── wan        inet ─────────────────── eth0
    2001:db8:5::a (Alice), ...  2001:db8:5::1      198.51.100.1     198.51.100.10
                                2001:db8:ffff::1 (lwAFTR)
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.packet import Packet

from b4client import api
from b4client.lab.aftr import SILENCE
from b4client.lab.netns import Namespace, end_processes, ip, ip_batch, reap, wait_until
from b4client.model.errors import ControlError

ALICE, BOB, CAROL, STRANGER = (IPv6Address(f"2001:db8:5::{name}") for name in ("a", "b", "c", "bad"))
ISP = IPv6Address("2001:db8:5::1")
BR = IPv6Address("2001:db8:ffff::1")
SHARED, OTHER = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
AFTR_INET, SERVER = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.10")
ALICE_PORT, BOB_PORT, CAROL_PORT = 4096, 8192, 4096
"""PSIDs 1 and 2 of four bits."""
BINDINGS = (
    f"{SHARED},a=0,k=4,psid=0x1,b4={ALICE}",
    f"{SHARED},a=0,k=4,psid=0x2,b4={BOB}",
    f"{OTHER},a=0,k=4,psid=0x1,b4={CAROL}",
)
ECHO_PORT, CLOSED_PORT = 7, 9
TIMEOUT_S = 5.0
OFFLOADS_OFF = ("tso", "off", "gso", "off", "gro", "off", "tx", "off")


@contextlib.contextmanager
def serving(prefix: str, directory: Path) -> Iterator[Network]:
    """A network whose lwAFTR serves, and ends as it should."""
    network = Network(prefix, directory)
    try:
        network.build()
        network.start("--reject")
        yield network
        assert network.stop() == 0
    finally:
        network.remove()


class Network:
    """The namespaces, and the lwAFTR while it runs."""

    def __init__(self, prefix: str, directory: Path) -> None:
        self.home, self.aftr, self.srv = (Namespace(f"{prefix}-a{name}") for name in ("home", "aftr", "srv"))
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def build(self) -> None:
        """Links, addresses, routes; offloads off as between real machines."""
        for namespace in (self.home, self.aftr, self.srv):
            ip("netns", "add", namespace.name)
            namespace.sysctl(
                {
                    "ipv4/conf/all/rp_filter": 0,
                    "ipv4/conf/default/rp_filter": 0,
                    "ipv6/conf/default/accept_dad": 0,
                    "ipv6/conf/default/accept_ra": 0,
                }
            )
        veth = "type veth peer name {} netns {}"
        ip("-n", self.home.name, *f"link add wan {veth.format('wan', self.aftr.name)}".split())
        ip("-n", self.aftr.name, *f"link add inet {veth.format('eth0', self.srv.name)}".split())
        # A kernel with ip6_tunnel would answer what our raw sockets have taken.
        self.home.run("nft", "-f", "-", text=SILENCE)
        # Whoever is not there is found missing soon.
        self.aftr.sysctl({"ipv4/ip_forward": 1, "ipv6/neigh/wan/retrans_time_ms": 30})
        for namespace, interface in (
            (self.home, "wan"), (self.aftr, "wan"), (self.aftr, "inet"), (self.srv, "eth0"),
        ):  # fmt: skip
            namespace.run("ethtool", "-K", interface, *OFFLOADS_OFF)
        homes = (ALICE, BOB, CAROL, STRANGER)
        ip_batch(
            self.home.name,
            [
                "link set lo up",
                "link set wan up",
                *(f"addr add {home}/64 dev wan nodad" for home in homes),
                f"route add default via {ISP}",
            ],
        )
        ip_batch(
            self.aftr.name,
            [
                "link set lo up",
                "link set wan up",
                "link set inet up",
                f"addr add {ISP}/64 dev wan nodad",
                f"addr add {BR}/128 dev wan nodad",
                f"addr add {AFTR_INET}/24 dev inet",
            ],
        )
        ip_batch(
            self.srv.name,
            [
                "link set lo up",
                "link set eth0 up",
                f"addr add {SERVER}/24 dev eth0",
                f"route add 192.0.2.0/24 via {AFTR_INET}",
            ],
        )

    def remove(self) -> None:
        """Take it all away."""
        there = [n for n in (self.home, self.aftr, self.srv) if n.exists]
        end_processes(there)
        for namespace in there:
            ip("netns", "delete", namespace.name)

    # ---- the lwAFTR

    @property
    def control(self) -> Path:
        """Its control socket."""
        return self.directory / "aftr.sock"

    def start(self, *options: str, bindings: tuple[str, ...] = BINDINGS) -> None:
        """Start the lwAFTR; returns when it answers."""
        log = self.directory / "aftr.log"
        self._process = self.aftr.start(
            *(sys.executable, "-m", "b4client.lab.aftr", "--address", str(BR), "--route", "192.0.2.0/24"),
            *("--control", str(self.control)),
            *(f"--binding={binding}" for binding in bindings),
            *options,
            log=log,
        )

        def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, log.read_text()
            with contextlib.suppress(ControlError):
                return bool(api.call(self.control, "status"))
            return False

        wait_until(answers, 20, "the lwAFTR")

    @property
    def pid(self) -> int:
        """Of the lwAFTR ("ip netns exec" becomes it)."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """As a crash does it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """As an operator does it; the exit status."""
        assert self._process is not None
        return reap(self._process)

    def call(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Ask it by its control socket."""
        answer: dict[str, Any] = api.call(self.control, command, arguments)["arguments"]
        return answer

    def counters(self) -> dict[str, int]:
        return self.call("counters")

    @contextlib.contextmanager
    def counted(self, **expected: int) -> Iterator[None]:
        """The block makes exactly these counters grow (``_`` for ``-``); the rest must not."""
        before = self.counters()
        yield
        grown: dict[str, int] = {}

        def done() -> bool:
            now = self.counters()
            grown.clear()
            grown.update({n.replace("-", "_"): v - before[n] for n, v in now.items() if v != before[n]})
            return grown == expected

        try:
            wait_until(done, 3, "the counters")
        except Exception:
            raise AssertionError(f"grown: {grown}, expected: {expected}") from None


class Home:
    """A customer's end of a softwire: a raw socket, and nothing that thinks."""

    def __init__(self, network: Network, address: IPv6Address) -> None:
        with network.home.entered():
            self.socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_IPIP)
            self.icmp6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        for s in (self.socket, self.icmp6):
            s.bind((str(address), 0))
            s.settimeout(TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        # ICMP6_FILTER: let nothing in but destination unreachable.
        self.icmp6.setsockopt(socket.IPPROTO_ICMPV6, 1, struct.pack("=I", 0xFFFFFFFF & ~(1 << 1)) + b"\xff" * 28)
        self.address = address

    def send(self, packet: Packet | bytes, traffic_class: int = 0) -> None:
        """Into the softwire, whatever it is."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
        self.socket.sendto(bytes(packet), (str(BR), 0))

    def receive(self) -> Packet:
        """The next packet out of the softwire."""
        return self.receive_with_class()[0]

    def receive_with_class(self) -> tuple[Packet, int]:
        """And the traffic class outside."""
        octets, control, _, source = self.socket.recvmsg(65535, 64)
        assert source[0] == str(BR)
        return IP(octets), int.from_bytes(control[0][2], sys.byteorder)

    def receives_nothing(self) -> bool:
        """True when nothing has come. Ask for something else that came later first."""
        return not select.select([self.socket], [], [], 0)[0]

    def close(self) -> None:
        self.socket.close()
        self.icmp6.close()


Three = tuple[Home, Home, Home]


def out(port: int, to: int, source: object = SHARED, destination: object = SERVER, **fields: object) -> Packet:
    """A UDP packet of a customer."""
    return IP(src=str(source), dst=str(destination), **fields) / UDP(sport=port, dport=to)


def udp_at_server(network: Network, port: int = 0) -> socket.socket:
    """A UDP socket of the server in the Internet."""
    with network.srv.entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((str(SERVER), port))
    s.settimeout(TIMEOUT_S)
    return s


@contextlib.contextmanager
def homes(network: Network, *addresses: IPv6Address) -> Iterator[tuple[Home, ...]]:
    """Customers for the duration."""
    made = tuple(Home(network, address) for address in addresses)
    try:
        yield made
    finally:
        for home in made:
            home.close()


def until(ready: Callable[[], object], what: str) -> None:
    """Wait for something that takes no time."""
    wait_until(ready, TIMEOUT_S, what)
