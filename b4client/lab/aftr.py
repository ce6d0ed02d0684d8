"""A small lwAFTR (RFC 7596 6) for testbeds: a TUN towards the IPv4 side, a raw socket towards the softwires.

``python -m b4client.lab.aftr --address 2001:db8:ffff::1 --binding 192.0.2.1,a=0,k=8,psid=0x34,b4=2001:db8:46::100``
runs in the current network namespace and needs CAP_NET_ADMIN and CAP_NET_RAW. Routing is the kernel's: whatever is
routed into the TUN is looked up and encapsulated, whatever leaves a softwire rightfully comes out of the TUN.

The decisions are in ``aftrcore``; here is only the moving of octets. Offloads must be off on the way in (the raw socket
sees super-packets and unfinished checksums otherwise); the testbed does that. The kernel reassembles the IPv6 packets
before we see them, fragments them behind us, and lowers the time to live of what it forwards.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Address
from pathlib import Path

from b4client.dataplane import tunio
from b4client.lab import aftrfate
from b4client.lab.aftrcontrol import Control
from b4client.lab.aftrcore import TO_B4, TO_INTERNET, TO_SENDER, TO_SOFTWIRE, Aftr, Outcomes
from b4client.lab.aftrcustomer import Customer
from b4client.lab.aftrfeed import FeedReader, Follower
from b4client.lab.aftrpolicy import IcmpPolicy, Policy
from b4client.lab.binding import Binding, BindingTable, parse_rule
from b4client.lab.netns import LabError, ip_batch

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
PROTO_IPIP = 4
MAX_PACKET = 65535
CONTROL_SPACE = socket.CMSG_SPACE(4)
SOCKET_BUFFER = 4 << 20
IPV6_MTU_DISCOVER = 23
IPV6_PMTUDISC_DONT = 0
SO_MEMINFO, MEMINFO_DROPS = 55, 8
ICMP6_FILTER = 1
TUNNEL_ERRORS = (1, 2, 3, 4)
HOP_LIMIT = 64
"""Of the tunnel, whatever the packet inside has (RFC 2473 6.3)."""
MAX_SOURCES = 65536
TICK_S = 1
TAKE_NOTHING = [(0x06, 0, 0, 0)]
"""The program "return 0" for sockets that only send."""
SILENCE = """
table ip6 b4client-lab-aftr
delete table ip6 b4client-lab-aftr
table ip6 b4client-lab-aftr {
    chain output {
        type filter hook output priority 0; policy accept;
        icmpv6 type destination-unreachable icmpv6 code port-unreachable drop
    }
}
"""
"""Where the kernel has ip6_tunnel it answers every packet that belongs to none of *its* tunnels with "port
unreachable", although the raw socket has taken it."""


def open_tun(name: str) -> int:
    """Make the TUN device ``name`` and return its descriptor. Raises OSError."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def link_mtu(address: IPv6Address) -> int:
    """MTU of the interface that has ``address``; 1500 where none has it (a route of the kernel leads here)."""
    wanted = address.packed.hex()
    for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
        fields = line.split()
        if fields[0] == wanted and fields[5] != "lo":
            return tunio.device_mtu(fields[5])
    return 1500


class SoftwireSocket:
    """A way into the softwires. Each belongs to one thread: the traffic class is set on the socket when it changes."""

    def __init__(self, address: IPv6Address, *, receives: bool) -> None:
        self.socket = s = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, PROTO_IPIP)
        self._traffic_class = 0
        if not receives:
            tunio.attach_filter(s, TAKE_NOTHING)
        s.bind((str(address), 0))
        # What is too big has been refused by the core; everything else is fragmented here, by the path's MTU.
        s.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, HOP_LIMIT)
        if receives:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            s.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)

    def send(self, packet: bytes, customer: Customer) -> None:
        """Send ``packet`` into a softwire. Raises OSError."""
        if packet[1] != self._traffic_class:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, packet[1])
            self._traffic_class = packet[1]
        self.socket.sendto(packet, customer.destination)


class Machine:
    """The moving parts: a thread for each direction, and one that listens for ICMPv6 errors from inside softwires."""

    def __init__(self, address: IPv6Address, device: str, aftr: Aftr) -> None:
        self.aftr = aftr
        # One lock for table and counters: the threads meet only there.
        self.lock = threading.Lock()
        self._device = device
        self._chores: list[Callable[[], None]] = []
        self._tun = open_tun(device)
        self._softwires = SoftwireSocket(address, receives=True)
        self._hairpin = SoftwireSocket(address, receives=False)
        self._icmp6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6)
        self._icmp6.bind((str(address), 0))
        passed = sum(1 << kind for kind in TUNNEL_ERRORS)
        block = struct.pack("=I", 0xFFFFFFFF & ~passed) + b"\xff" * 28
        self._icmp6.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, block)
        self._icmp4 = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP)
        tunio.attach_filter(self._icmp4, TAKE_NOTHING)

    def start(self) -> None:
        """Start moving packets, in threads that end with the process."""
        # A thread that ends with a traceback must not leave a process that looks alive.
        threading.excepthook = lambda failure: (sys.__excepthook__(*failure[:3]), os._exit(70))  # type: ignore
        for work in (self._upward, self._downward, self._errors, self._housekeeping):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def also(self, work: Callable[[], None]) -> None:
        """Do ``work`` every second, too."""
        self._chores.append(work)

    def _housekeeping(self) -> None:
        while True:
            time.sleep(TICK_S)
            with self.lock:
                self.aftr.tick(time.monotonic())
            for work in self._chores:
                work()

    def _upward(self) -> None:
        receive, upward, monotonic = self._softwires.socket.recvmsg, self.aftr.upward, time.monotonic
        packed: dict[str, bytes] = {}
        while True:
            packet, control, _, source = receive(MAX_PACKET, CONTROL_SPACE)
            b4 = packed.get(source[0])
            if b4 is None:
                if len(packed) > MAX_SOURCES:
                    packed.clear()
                b4 = packed[source[0]] = socket.inet_pton(socket.AF_INET6, source[0].partition("%")[0])
            traffic_class = int.from_bytes(control[0][2], sys.byteorder) if control else 0
            with self.lock:
                outcomes = upward(packet, b4, traffic_class, monotonic())
            if outcomes:
                self._carry_out(outcomes, self._hairpin)

    def _downward(self) -> None:
        read, downward, tun, monotonic = os.read, self.aftr.downward, self._tun, time.monotonic
        while True:
            packet = read(tun, MAX_PACKET)
            with self.lock:
                outcomes = downward(packet, monotonic())
            if outcomes:
                self._carry_out(outcomes, self._softwires)

    def _errors(self) -> None:
        while True:
            message = self._icmp6.recv(MAX_PACKET)
            with self.lock:
                outcomes = self.aftr.tunnel_error(message, time.monotonic())
            self._carry_out(outcomes, self._hairpin)

    def _carry_out(self, outcomes: Outcomes, softwires: SoftwireSocket) -> None:
        for where, octets, customer, address in outcomes:
            try:
                if where is TO_INTERNET:
                    os.write(self._tun, octets)
                elif where is TO_SOFTWIRE and customer is not None:
                    softwires.send(octets, customer)
                elif where is TO_SENDER:
                    self._icmp4.sendto(octets, (socket.inet_ntop(socket.AF_INET, address), 0))
                elif where is TO_B4:
                    self._icmp6.sendto(octets, (socket.inet_ntop(socket.AF_INET6, address), 0))
            except OSError:
                with self.lock:
                    self.aftr.counters[aftrfate.SEND_FAILED] += 1

    def count_lost(self) -> None:
        """Bring the counter of what the kernel's queues have lost up to date."""
        told = self._softwires.socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 4 * (MEMINFO_DROPS + 1))
        lost = struct.unpack_from("=I", told, 4 * MEMINFO_DROPS)[0]
        with contextlib.suppress(OSError, ValueError):
            statistics = Path("/proc/net/dev").read_text(encoding="ascii")
            for line in statistics.splitlines():
                name, _, fields = line.partition(":")
                if name.strip() == self._device:
                    lost += int(fields.split()[11])
        with self.lock:
            self.aftr.counters[aftrfate.QUEUE_FULL] = lost


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    switch, defaults = argparse.BooleanOptionalAction, Policy()
    parser = argparse.ArgumentParser(prog="python -m b4client.lab.aftr", description="a small lwAFTR for testbeds")
    parser.add_argument("--address", type=IPv6Address, required=True, help="the softwires' end here (BR address)")
    parser.add_argument("--binding", type=Binding.parse, action="append", default=[], help="A[,a=,k=,psid=],b4=V6")
    parser.add_argument(
        "--rule", type=parse_rule, action="append", default=[], help="MAP-E: V4/LEN,v6=V6/LEN,ea=N[,a=]"
    )
    parser.add_argument(
        "--feed", type=Path, help="Unix socket of the lab server, which tells the bindings of its leases"
    )
    parser.add_argument("--device", default="softwire", help="name of the TUN device (default softwire)")
    parser.add_argument("--mtu", type=int, default=1500, help="MTU of the TUN device (default 1500)")
    parser.add_argument("--route", type=IPv4Network, action="append", default=[], help="IPv4 prefix of the customers")
    parser.add_argument("--control", type=Path, help="Unix socket for commands, see b4client.lab.aftrcontrol")
    policy = parser.add_argument_group("policy (also changed while it runs, by the command policy)")
    policy.add_argument("--reject", action=switch, default=False, help="ICMPv6 type 1 code 5 to unbound softwires")
    policy.add_argument("--unreachable", action=switch, default=False, help="ICMPv4 type 3 code 1 for unbound ports")
    policy.add_argument("--hairpin", action=switch, default=True, help="customers may talk to each other")
    policy.add_argument("--honour-df", action=switch, default=True, help="ICMPv4 type 3 code 4 instead of fragments")
    policy.add_argument("--icmp", choices=[m.lower() for m in IcmpPolicy.__members__], default="echo")
    policy.add_argument("--link-mtu", type=int, help="IPv6 MTU towards the softwires (default: the interface's)")
    policy.add_argument("--reject-rate", type=float, default=defaults.reject_rate, help="ICMPv6 errors a second")
    policy.add_argument("--icmpv4-rate", type=float, default=defaults.icmpv4_rate, help="ICMPv4 errors a second")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: runs until SIGTERM or SIGINT. SIGUSR1 prints the counters as JSON."""
    args = parse_arguments(argv)
    try:
        policy = Policy(
            reject=args.reject,
            unreachable=args.unreachable,
            hairpin=args.hairpin,
            honour_df=args.honour_df,
            icmp=IcmpPolicy[args.icmp.upper()],
            link_mtu=link_mtu(args.address) if args.link_mtu is None else args.link_mtu,
            reject_rate=args.reject_rate,
            icmpv4_rate=args.icmpv4_rate,
        )
        aftr = Aftr(BindingTable(args.binding, args.rule, args.route), args.address, policy)
        machine = Machine(args.address, args.device, aftr)
    except (OSError, ValueError) as error:
        print(f"aftr: cannot start: {error}", file=sys.stderr)
        return 1
    set_up(args.device, args.mtu, args.route)
    reader = None if args.feed is None else FeedReader(args.feed, Follower(aftr.table), machine.lock, time.time)
    control = Control(
        aftr,
        machine.lock,
        time.monotonic,
        device=args.device,
        feed=reader.to_json if reader else lambda: None,
        refresh=machine.count_lost,
    )
    ours = {signal.SIGUSR1, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ours)
    machine.start()
    if reader is not None:
        machine.also(reader.expire)
        threading.Thread(target=reader.run, args=(threading.Event(),), name="feed", daemon=True).start()
    if args.control is not None:
        threading.Thread(target=control.serve, args=(args.control,), name="control", daemon=True).start()
    # Not sigtimedwait: CPython makes up a signal when the process was stopped while its time ran out.
    while signal.sigwait(ours) == signal.SIGUSR1:
        print(json.dumps(control.answer("counters", {})), flush=True)
    return 0


def set_up(device: str, mtu: int, routes: Sequence[IPv4Network]) -> None:
    """Bring the TUN up, lead ``routes`` into it, and keep the kernel from answering in our place. Raises LabError."""
    done = subprocess.run(["nft", "-f", "-"], input=SILENCE, text=True, capture_output=True, check=False)
    if done.returncode:
        raise LabError(f"nft: {done.stderr.strip()}")
    ip_batch(None, [f"link set {device} mtu {mtu} up", *(f"route add {prefix} dev {device}" for prefix in routes)])


if __name__ == "__main__":
    sys.exit(main())
