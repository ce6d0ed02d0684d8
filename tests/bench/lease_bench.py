"""Leases a second: the lab's server beside ISC Kea, asked by the same load generator.

    .venv/bin/python tests/bench/lease_bench.py [--clients N] [--rounds N] [--json]      as root, with Kea

    PREFIX-ls4 (generator) ── wan ═══ wan ── PREFIX-ls6 (server)

A lease is DISCOVER, OFFER, REQUEST, ACK in DHCPV4-QUERY messages, each of another client identifier and from another
/56; ``--window`` are under way at one time. "lab" and Kea keep leases in memory only; "lab, lease file" is the lab's
server as it usually runs, every lease on disk before its ACK. Kea gives whole addresses out (it cannot lease one
twice), with the same port set for all; the lab's server divides addresses. Beside the rate stands the servers' CPU time
per lease (both of Kea's processes), which a busy machine disturbs less, and the generator's share of one CPU: near 1 it
is what limits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "netns")]

from serverlink import SERVER, SUBSCRIBER, server_link  # noqa: E402

from b4client.lab.kea import Kea, KeaPlace, KeaSettings  # noqa: E402
from b4client.lab.netns import LabError, Namespace, ip, ip_batch, wait_until  # noqa: E402
from b4client.wire import dhcp4, dhcp4o6  # noqa: E402
from b4client.wire.dhcp4 import MessageType, Option  # noqa: E402

PROVIDER = IPv6Network("2001:db8::/32")
CUSTOMERS = IPv6Network("2001:db8:1000::/36")
POOL = IPv4Network("198.18.0.0/16")
KEA_IPV4 = "198.18.255.254/16"
PSID_LEN = 4
SETS = 2**PSID_LEN - 1
SERVERS = ("lab", "lab, lease file", "Kea")
LISTED = bytes((1, 3, 6, 51, 54, 58, 59, 159))
IPV6_FREEBIND = 78
"""linux/in6.h: the sources are routed here, none of them is an address of an interface."""
RETRY_S, GIVE_UP_S = 1.0, 60.0


@dataclass(frozen=True)
class Round:
    """One server filled once. ``cpu_ms`` is the servers' per lease, ``generator`` the share of a CPU it took."""

    leases: int
    seconds: float
    cpu_ms: float
    generator: float
    resent: int

    @property
    def rate(self) -> float:
        return self.leases / self.seconds


def home(number: int) -> IPv6Address:
    """The address of client ``number``: each is a customer of its own, with a /56."""
    return CUSTOMERS[(number << 72) + 1]


def query(kind: MessageType, number: int, *options: tuple[int, bytes]) -> bytes:
    """A DHCPV4-QUERY of client ``number``, which is in its identifier, its hardware address and its xid."""
    who = number.to_bytes(4, "big")
    head = ((Option.MESSAGE_TYPE, bytes((kind,))), (Option.CLIENT_ID, b"\xff\0\0\0\1\0\3\0\1\2\1" + who))
    inner = dhcp4.Dhcp4Message(
        op=1, xid=number, chaddr=b"\2\1" + who, options=(*head, (Option.PARAMETER_LIST, LISTED), *options)
    )
    return dhcp4o6.encode_query(dhcp4.encode(inner), unicast=False)


@contextlib.contextmanager
def link(name: str) -> Iterator[tuple[Namespace, Namespace]]:
    """(generator's, server's) namespaces: every customer's prefix is behind the first, the second has Kea's IPv4."""
    with server_link(name) as (client, server):
        ip_batch(server.name, [f"addr add {KEA_IPV4} dev wan", f"route add {CUSTOMERS} via {SUBSCRIBER}"])
        ip("-n", client.name, "-6", "route", "add", "local", str(CUSTOMERS), "dev", "lo")
        yield client, server


@contextlib.contextmanager
def serving(kind: str, namespace: Namespace, directory: Path, clients: int) -> Iterator[None]:
    """A server with room for so many clients. Raises LabError when it does not start."""
    if kind == "Kea":
        place = KeaPlace("wan", SERVER, PROVIDER, POOL, IPv6Address("2001:db8:ffff::1"))
        kea = Kea(namespace, directory / "kea", place)
        kea.start(KeaSettings(first=POOL[1], last=POOL[clients + 64], valid_lifetime=3600))
        try:
            yield
        finally:
            kea.stop()
        return
    addresses = clients // SETS + 1
    shared = {"first": str(POOL[1]), "last": str(POOL[addresses]), "psid_len": PSID_LEN}
    document: dict[str, Any] = {
        "interface": "wan",
        "shared": [shared],
        "dhcp6": {"br": ["2001:db8:ffff::1"]},
    }
    if "file" in kind:
        document["lease_file"] = str(directory / "leases")
    config, log = directory / "server.json", directory / "server.log"
    config.write_text(json.dumps(document), encoding="utf-8")
    process = namespace.start(sys.executable, "-m", "b4client.lab.serve", "--config", str(config), log=log, cwd=ROOT)
    try:
        wait_until(lambda: "serving on" in log.read_text(errors="replace"), 10, "the lab server to serve")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Generator:
    """Clients that lease, ``window`` at one time. Use: ``run(first, count)``."""

    def __init__(self, namespace: Namespace, window: int) -> None:
        self._window = window
        with namespace.entered():
            self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        self._socket.bind(("::", 546))
        self._socket.setblocking(False)
        self._waiting: dict[int, tuple[bytes, float]] = {}
        self.granted: set[tuple[IPv4Address, bytes]] = set()
        self.resent = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def run(self, first: int, count: int) -> None:
        """Lease for clients ``first`` and the next ``count``. Raises LabError: a NAK, or not done in a minute."""
        discovers = {n: query(MessageType.DISCOVER, n) for n in range(first, first + count)}
        numbers, done, end = iter(discovers), 0, time.monotonic() + GIVE_UP_S
        while done < count:
            while len(self._waiting) < self._window and (number := next(numbers, None)) is not None:
                self._send(number, discovers[number])
            ready, _, _ = select.select([self._socket], [], [], RETRY_S / 4)
            now = time.monotonic()
            if ready:
                done += self._receive()
            elif now > end:
                raise LabError(f"{count - done} of {count} clients have no lease after {GIVE_UP_S:g} s")
            else:
                for number in [n for n, (_, at) in self._waiting.items() if at < now - RETRY_S]:
                    self.resent += 1
                    self._send(number, self._waiting[number][0])

    def _send(self, number: int, data: bytes) -> None:
        self._waiting[number] = (data, time.monotonic())
        with contextlib.suppress(BlockingIOError):
            source = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, home(number).packed + bytes(4))]
            self._socket.sendmsg([data], source, 0, (str(SERVER), 547))

    def _receive(self) -> int:
        done = 0
        for _ in range(self._window):
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                break
            message = dhcp4.decode(dhcp4o6.decode(data).dhcp4)
            if message.xid not in self._waiting:
                continue  # the second answer to what was sent twice
            if message.message_type == MessageType.OFFER:
                chosen = (
                    (Option.REQUESTED_ADDRESS, message.yiaddr.packed),
                    (Option.SERVER_ID, message.get(Option.SERVER_ID) or b""),
                    (Option.V4_PORTPARAMS, message.get(Option.V4_PORTPARAMS) or b""),
                )
                self._send(message.xid, query(MessageType.REQUEST, message.xid, *chosen))
            elif message.message_type == MessageType.ACK:
                del self._waiting[message.xid]
                self.granted.add((message.yiaddr, message.get(Option.V4_PORTPARAMS) or b""))
                done += 1
            else:
                raise LabError(f"the server said {message.message_type} to a client that it had made an offer")
        return done


def fill(kind: str, name: str, clients: int, window: int) -> Round:
    """Start a server, lease to so many clients, end it. Raises LabError."""
    with (
        tempfile.TemporaryDirectory(prefix="b4bench-") as directory,
        link(name) as (client, server),
        serving(kind, server, Path(directory), 2 * clients),
    ):
        generator = Generator(client, window)
        try:
            warm = max(window, clients // 10)
            generator.run(1, warm)
            generator.granted.clear()
            generator.resent = 0
            pids = server.pids()
            cpu, own, begun = cpu_seconds(pids), time.process_time(), time.perf_counter()
            generator.run(1 + warm, clients)
            took, own = time.perf_counter() - begun, time.process_time() - own
            cpu = cpu_seconds(pids) - cpu
        finally:
            generator.close()
    if len(generator.granted) != clients:
        raise LabError(f"{kind} gave {len(generator.granted)} different leases to {clients} clients")
    return Round(clients, took, cpu / clients * 1000, own / took, generator.resent)


def measure(rounds: int, clients: int, window: int) -> dict[str, list[Round]]:
    """Rounds by server; they take turns."""
    found: dict[str, list[Round]] = {kind: [] for kind in SERVERS}
    for number in range(rounds):
        for kind in SERVERS:
            found[kind].append(fill(kind, f"lb{os.getpid()}-{number}", clients, window))
    return found


def medians(found: dict[str, list[Round]]) -> dict[str, dict[str, float]]:
    """Of the rounds of each server."""
    return {
        kind: {
            "leases_per_s": statistics.median(r.rate for r in rounds),
            "cpu_ms_per_lease": statistics.median(r.cpu_ms for r in rounds),
            "generator": statistics.median(r.generator for r in rounds),
            "resent": sum(r.resent for r in rounds),
        }
        for kind, rounds in found.items()
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=32, help="leases under way at one time")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = medians(measure(options.rounds, options.clients, options.window))
    if options.json:
        print(json.dumps({"clients": options.clients, "rounds": options.rounds, "medians": result}))
        return
    for kind, values in result.items():
        print(
            f"{kind:16}{values['leases_per_s']:8.0f} leases/s   {values['cpu_ms_per_lease']:6.3f} ms CPU a lease"
            f"   generator {values['generator']:.2f} CPU   sent again {values['resent']:.0f}"
        )


if __name__ == "__main__":
    main()
