"""A small lwAFTR (RFC 7596 6) for the testbed: a TUN towards the IPv4 side, a raw socket towards the softwires.

``python -m b4client.lab.aftr --address 2001:db8:ffff::1 --binding 192.0.2.1,a=0,k=8,psid=0x34,b4=2001:db8:46::100``
runs in the current network namespace and needs CAP_NET_ADMIN and CAP_NET_RAW. Routing is the kernel's: whatever is
routed into the TUN is looked up and encapsulated, whatever leaves a softwire rightfully comes out of the TUN.

The decisions are in ``binding``; here is only the moving of octets. Offloads must be off on the way in (the raw socket
sees super-packets and unfinished checksums otherwise); the testbed does that.
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
from collections.abc import Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from b4client import api
from b4client.lab.binding import Aftr, Binding, BindingTable, Fate
from b4client.model.errors import ControlError

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
PROTO_IPIP = 4
MAX_PACKET = 65535
SOCKET_BUFFER = 4 << 20
IPV6_MTU_DISCOVER = 23
IPV6_PMTUDISC_DONT = 0
REJECTED = frozenset((Fate.DROP_UNKNOWN_SOFTWIRE, Fate.DROP_FOREIGN_ADDRESS, Fate.DROP_OUTSIDE_PORT_SET))
REJECTS_PER_S = 10
SILENCE = """
table ip6 b4client-lab-aftr {
    chain output {
        type filter hook output priority 0; policy accept;
        icmpv6 type destination-unreachable icmpv6 code port-unreachable drop
    }
}
"""
"""Where the kernel has ip6_tunnel it answers every packet that belongs to none of *its* tunnels with "port
unreachable", although the raw socket has taken it."""
QUOTED = 1232
"""Octets of the invoking packet in an ICMPv6 error: 1280 in all (RFC 4443 3.1)."""


def open_tun(name: str) -> int:
    """Make the TUN device ``name`` and return its descriptor. Raises OSError."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Machine:
    """The moving parts: one thread per direction, and one that answers on the control socket."""

    def __init__(self, address: IPv6Address, device: str, table: BindingTable, *, reject: bool) -> None:
        self.aftr = Aftr(table)
        self.address = address
        self._reject = reject
        self._rejected: list[float] = []
        # One lock for table and counters: the threads meet only there.
        self._lock = threading.Lock()
        self._tun = open_tun(device)
        self._softwires = socket.socket(socket.AF_INET6, socket.SOCK_RAW, PROTO_IPIP)
        self._softwires.bind((str(address), 0))
        # An lwAFTR fragments the outer packet whatever the inner DF says (RFC 6333 5.3), so no PMTU errors here.
        self._softwires.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._softwires.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        self._icmp = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        self._icmp.bind((str(address), 0))
        self._icmp.setsockopt(socket.IPPROTO_ICMPV6, 1, b"\xff" * 32)  # ICMP6_FILTER: nothing to receive, only to send

    def start(self) -> None:
        """Start moving packets, in threads that end with the process."""
        # A thread that ends with a traceback must not leave a process that looks alive.
        threading.excepthook = lambda failure: (sys.__excepthook__(*failure[:3]), os._exit(70))  # type: ignore
        for work in (self._upward, self._downward):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def _upward(self) -> None:
        receive, write, tun = self._softwires.recvfrom, os.write, self._tun
        packed: dict[str, bytes] = {}
        while True:
            packet, source = receive(MAX_PACKET)
            b4 = packed.get(source[0])
            if b4 is None:
                if len(packed) > 65536:
                    packed.clear()
                b4 = packed[source[0]] = socket.inet_pton(socket.AF_INET6, source[0].partition("%")[0])
            with self._lock:
                fate = self.aftr.upward(packet, b4, time.monotonic())
            if fate is Fate.DECAPSULATED:
                try:
                    write(tun, packet)
                except OSError:
                    self._failed()
            elif self._reject and fate in REJECTED:
                self._send_reject(packet, b4)

    def _downward(self) -> None:
        read, send, tun = os.read, self._softwires.sendto, self._tun
        names: dict[bytes, str] = {}
        while True:
            packet = read(tun, MAX_PACKET)
            with self._lock:
                fate, b4 = self.aftr.downward(packet, time.monotonic())
            if fate is not Fate.ENCAPSULATED:
                continue
            name = names.get(b4)
            if name is None:
                name = names[b4] = socket.inet_ntop(socket.AF_INET6, b4)
            try:
                send(packet, (name, 0))
            except OSError:
                self._failed()

    def _failed(self) -> None:
        with self._lock:
            self.aftr.counters[Fate.DROP_SEND.value] += 1

    def _send_reject(self, packet: bytes, b4: bytes) -> None:
        """ICMPv6 "source address failed ingress/egress policy" to a softwire without binding (RFC 7596 6.2)."""
        now = time.monotonic()
        self._rejected = [at for at in self._rejected if at > now - 1]
        if len(self._rejected) >= REJECTS_PER_S:
            return
        self._rejected.append(now)
        # The raw socket hides the outer header; it is made again for the quotation.
        outer = struct.pack("!IHBB16s16s", 6 << 28, len(packet), PROTO_IPIP, 64, b4, self.address.packed)
        with contextlib.suppress(OSError):
            # The kernel fills in the checksum of a raw ICMPv6 socket.
            message = struct.pack("!BBHI", 1, 5, 0, 0) + (outer + packet)[:QUOTED]
            self._icmp.sendto(message, (socket.inet_ntop(socket.AF_INET6, b4), 0))
        with self._lock:
            self.aftr.counters["icmpv6-rejects"] += 1

    # ---- control

    def answer(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command: counters, bindings, bind, unbind. Raises ControlError."""
        table = self.aftr.table
        with self._lock:
            if command == "counters":
                return dict(self.aftr.counters)
            if command == "bindings":
                return {"bindings": [str(binding) for binding in table]}
            if command in ("bind", "unbind"):
                try:
                    change = table.add if command == "bind" else table.remove
                    change(Binding.parse(str(arguments.get("binding", ""))))
                except (ValueError, KeyError) as error:
                    raise ControlError(str(error)) from None
                return {}
        raise ControlError(f"unknown command {command!r}")

    def serve(self, path: Path) -> None:
        """Answer on the Unix socket ``path``, one request a connection, until the process ends."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen()
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(2)
                    self._serve_one(connection)

    def _serve_one(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            line = lines.readline(api.MAX_REQUEST + 1)
        try:
            command, arguments = api.decode_request(line)
            answer = {"result": api.RESULT_OK, "text": command, "arguments": self.answer(command, arguments)}
        except ControlError as error:
            answer = {"result": api.RESULT_ERROR, "text": str(error)}
        connection.sendall(api.encode(answer))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: runs until SIGTERM or SIGINT. SIGUSR1 prints the counters as JSON."""
    parser = argparse.ArgumentParser(prog="python -m b4client.lab.aftr", description="a small lwAFTR for testbeds")
    parser.add_argument("--address", type=IPv6Address, required=True, help="the softwires' end here (BR address)")
    parser.add_argument("--binding", type=Binding.parse, action="append", default=[], help="A[,a=,k=,psid=],b4=V6")
    parser.add_argument("--device", default="softwire", help="name of the TUN device (default softwire)")
    parser.add_argument("--mtu", type=int, default=1500, help="IPv4 MTU; longer outer packets are fragmented")
    parser.add_argument("--route", action="append", default=[], help="IPv4 prefix to route into the softwires")
    parser.add_argument("--control", type=Path, help="Unix socket for counters, bindings, bind, unbind")
    parser.add_argument("--reject", action="store_true", help="answer unbound packets with ICMPv6 type 1 code 5")
    args = parser.parse_args(argv)
    try:
        machine = Machine(args.address, args.device, BindingTable(args.binding), reject=args.reject)
    except (OSError, ValueError) as error:
        print(f"aftr: cannot start: {error}", file=sys.stderr)
        return 1
    from b4client.lab.netns import LabError, ip_batch

    done = subprocess.run(["nft", "-f", "-"], input=SILENCE, text=True, capture_output=True, check=False)
    if done.returncode:
        raise LabError(f"nft: {done.stderr.strip()}")
    ip_batch(
        None,
        [
            f"link set {args.device} mtu {args.mtu} up",
            *(f"route add {prefix} dev {args.device}" for prefix in args.route),
        ],
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGINT})
    machine.start()
    if args.control is not None:
        threading.Thread(target=machine.serve, args=(args.control,), name="control", daemon=True).start()
    while signal.sigwait({signal.SIGUSR1, signal.SIGTERM, signal.SIGINT}) == signal.SIGUSR1:
        print(json.dumps(machine.answer("counters", {})), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
