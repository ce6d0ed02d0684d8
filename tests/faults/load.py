"""Renewals and lease changes under load: ``python tests/faults/load.py [--renewals N] [--changes N] [--seconds S]``.

As root. The whole port set is in use and churns, one connection ends and another begins, and a TCP connection and a UDP
socket are never quiet, while the daemon renews its lease as fast as the server answers, for at least so many seconds
and renewals. Then leases change (the server says NAK and has another address). At last the daemon is left alone for
``--idle`` seconds. What must hold is checked; the first violation ends it with exit status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "netns"), str(HERE.parent.parent)]

from faultbed import FIRST_PORTS, FaultBed, document, fault_bed  # noqa: E402
from leaks import Holding, holding, tracked  # noqa: E402
from steady import Steady  # noqa: E402
from weather import dhcp6_payload, is_dhcp6  # noqa: E402

from b4client.lab.client import Client  # noqa: E402
from b4client.lab.load import TCP, Load, LoadServer, room_for_sockets  # noqa: E402
from b4client.lab.netns import LabError, wait_until  # noqa: E402
from b4client.lab.nodes import BR, SERVER  # noqa: E402
from b4client.lab.traffic import Server  # noqa: E402

STEADY_PORTS = 2
LEASE_S = 400_000_000
"""No renewal of its own accord while the load runs: a fast clock makes 55 hours of it."""
NEVER = 0xFFFFFFFF
"""No refresh of the DHCPv6 information either (RFC 8415 21.23): what is left idle has nothing to do."""
SPARE = 4
RESET = struct.pack("=ii", 1, 0)
OPEN_WITHIN_S = 25.0
"""Longer than conntrack keeps a connection that was reset (10 s): with SPARE ports free, those that are being closed
are needed, and the kernel gives such a port to a new connection only when its sequence number is ahead of the old."""
WARM_UP_CHANGES = 60
"""Until then the list of recent reports (200, ``daemon/loop``) grows: 600 KB."""
ARENA_KB = 1024
"""Python's allocator takes so much at a time, and keeps it as long as one object lives in it."""
RSS_GROWTH_KB, LATE_GROWTH_KB = 2 * ARENA_KB + 300, ARENA_KB + 100
"""What allocators may keep from start to end, and of it in the second half of a work, when all has been done before. A
leak of 250 octets per renewal shows after 10 000, one of 2.5 KB per change of a lease after 1000."""


@dataclass
class Outcome:
    """What was done and found. Times in seconds, memory in KB."""

    renewals: int = 0
    renewal_ms: float = 0.0
    connections_churned: int = 0
    connections_refused: int = 0
    longest_opening_ms: float = 0.0
    steady_rounds: int = 0
    longest_round_ms: float = 0.0
    packets_outside_the_set: int = 0
    packets_seen: int = 0
    lease_changes: int = 0
    change_ms: float = 0.0
    idle_s: float = 0.0
    idle_switches: int = 0
    idle_cpu_s: float = 0.0
    conntrack_left: int = 0
    samples: dict[str, Holding] = field(default_factory=dict)


class AckBell:
    """Rings for each message of the server that is an answer to a query."""

    def __init__(self, bed: FaultBed) -> None:
        self._heard = threading.Semaphore(0)
        bed.weather.seen = self._look

    def _look(self, frame: bytes, end: str) -> None:
        if end == "isp" and is_dhcp6(frame) and dhcp6_payload(frame)[:1] == b"\x15":
            self._heard.release()

    def rings(self, within_s: float) -> bool:
        """Wait for one, that long."""
        return self._heard.acquire(timeout=within_s)


def renew(client: Client, bell: AckBell, count: int, until: float, say: Callable[[str], None]) -> int:
    """At least so many renewals, and as many as there is time for."""
    done = 0
    while done < count or time.monotonic() < until:
        asked_at = time.monotonic()
        client.call("renew")
        # The answer is heard on the wire before the client has it: what is asked for too early is no second renewal.
        while not bell.rings(0.05):
            if time.monotonic() > asked_at + 20:
                raise LabError("no answer of the server within 20 s")
            client.call("renew")
        time.sleep(0.004)
        done += 1
        if done % 500 == 0:
            say(f"{done} renewals, RSS {holding(client.pid).rss_kb} KB")
    return done


class Churn(threading.Thread):
    """Fills the set with TCP connections and then, until it is ended, replaces one by another."""

    def __init__(self, bed: FaultBed, flows: int) -> None:
        super().__init__(name="churn", daemon=True)
        self.load = Load(1)
        self.replaced = self.refused = 0
        self.longest_s = 0.0
        self._bed = bed
        self._rng = random.Random(1)
        self._ended = threading.Event()
        got = self.load.fill(bed.lan, SERVER, TCP, flows, timeout_s=60, in_flight=32)
        if got != flows:
            raise LabError(f"only {got} of {flows} connections could be opened")

    def run(self) -> None:
        held = self.load._held
        while not self._ended.is_set():
            victim = held.pop(self._rng.randrange(len(held)))
            victim.setsockopt(1, 13, RESET)  # SOL_SOCKET, SO_LINGER: a reset frees the port at once
            victim.close()
            begun = time.monotonic()
            if self.load.fill(self._bed.lan, SERVER, TCP, 1, timeout_s=OPEN_WITHIN_S, in_flight=1):
                self.replaced += 1
            else:
                self.refused += 1
            self.longest_s = max(self.longest_s, time.monotonic() - begun)
            self._ended.wait(0.005)

    def end(self) -> None:
        self._ended.set()
        self.join(OPEN_WITHIN_S + 10)
        self.load.close()


def change(bed: FaultBed, client: Client, count: int, say: Callable[[str], None]) -> None:
    """The server forgets everything and leases the other of two addresses; the next renewal finds that out."""
    for number in range(count):
        address = f"192.0.2.{1 + (number + 1) % 2}"
        bed.provider.change(shared=[{"first": address, "psid_len": 8}])
        client.call("renew")

        def there(wanted: str = address) -> bool:
            status = client.status()
            dataplane: dict[str, Any] = status["dataplane"] or {}
            return (status["lease"] or {}).get("address") == wanted and f"{wanted}/32" in dataplane.get("addresses", ())

        wait_until(there, 30, f"lease change {number + 1} to {address}", poll_s=0.02)
        if (number + 1) % 100 == 0:
            say(f"{number + 1} lease changes, RSS {holding(client.pid).rss_kb} KB")


def run(
    bed: FaultBed,
    *,
    renewals: int,
    changes: int,
    seconds: float,
    idle_s: float,
    say: Callable[[str], None],
    warm_up: int = WARM_UP_CHANGES,
) -> Outcome:
    """All of it, on a bed that is up. Raises AssertionError or LabError for what must not be."""
    found = Outcome()
    # Its clock runs faster: the client sends no more than so many messages in a time (RFC 8415 14.1).
    dhcp6 = {"br": [str(BR)], "container": "lw4o6", "refresh": NEVER}
    bed.provider.change(**document(lease={"time": LEASE_S}, dhcp6=dhcp6))
    client = bed.client(name="load", factor=1000)
    client.start()
    client.wait_bound()
    bell = AckBell(bed)
    room_for_sockets(4 * len(FIRST_PORTS))
    # What is loaded lazily is loaded then.
    renew(client, bell, 50, 0.0, say)
    with Server(bed.srv):
        assert bed.flows(), "no traffic"
    change(bed, client, warm_up, say)
    time.sleep(0.5)
    found.samples["start"] = holding(client.pid)
    with contextlib.ExitStack() as stack:
        stack.enter_context(Server(bed.srv))
        server = stack.enter_context(LoadServer(bed.srv))
        steady = stack.enter_context(Steady(bed.lan, SERVER))
        churn = Churn(bed, len(FIRST_PORTS) - STEADY_PORTS - SPARE)
        stack.callback(churn.end)
        churn.start()
        begun = time.monotonic()
        found.renewals = renew(client, bell, renewals // 2, begun + seconds / 2, say)
        found.samples["half the renewals"] = holding(client.pid)
        found.renewals += renew(client, bell, renewals - renewals // 2, begun + seconds, say)
        found.renewal_ms = (time.monotonic() - begun) / found.renewals * 1000
        steady.go_on(5)
        churn.end()
        found.steady_rounds, found.longest_round_ms = steady.rounds, steady.longest_s * 1000
        found.connections_churned, found.connections_refused = churn.replaced, churn.refused
        found.longest_opening_ms = churn.longest_s * 1000
        assert server.watch.catch_up(10)
        ours = set(FIRST_PORTS.ports())
        for seen in server.watch.seen:
            found.packets_seen += seen.packets
            if str(seen.address) != "192.0.2.1" or (seen.port is not None and seen.port not in ours):
                found.packets_outside_the_set += seen.packets
    found.samples["after renewals"] = holding(client.pid)
    begun = time.monotonic()
    half = changes // 4 * 2  # even: each begins with the address that the other has not ended with
    change(bed, client, half, say)
    found.samples["half the changes"] = holding(client.pid)
    change(bed, client, changes - half, say)
    found.lease_changes = changes
    found.change_ms = (time.monotonic() - begun) / max(changes, 1) * 1000
    found.conntrack_left = tracked(bed.cpe, "192.0.2.2" if changes % 2 == 0 else "192.0.2.1")
    time.sleep(2)
    found.samples["after changes"] = quiet = holding(client.pid)
    say(f"idle for {idle_s:g} s")
    time.sleep(idle_s)
    found.samples["end"] = end = holding(client.pid)
    found.idle_s = idle_s
    found.idle_switches = end.switches - quiet.switches
    found.idle_cpu_s = end.cpu_s - quiet.cpu_s
    check(found)
    assert client.stop() == 0
    return found


def check(found: Outcome) -> None:
    """What must hold."""
    start, end = found.samples["start"], found.samples["end"]
    assert found.packets_seen > 0
    assert found.packets_outside_the_set == 0, found
    assert found.connections_churned > 0
    assert found.connections_refused == 0, found
    assert end.descriptors <= start.descriptors + 1, found
    assert end.threads <= start.threads + 1, found
    for work in ("renewals", "changes"):
        half_way = found.samples[f"half the {work}"]
        assert found.samples[f"after {work}"].rss_kb <= half_way.rss_kb + LATE_GROWTH_KB, found
    assert end.rss_kb <= start.rss_kb + RSS_GROWTH_KB, found
    assert found.conntrack_left == 0, found
    assert found.idle_switches <= 2, found


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="renewals and lease changes under load")
    parser.add_argument("--renewals", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0, help="of churn at the least (default 600)")
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--encapsulation", default="userspace", choices=("kernel", "userspace"))
    args = parser.parse_args()
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {text}", file=sys.stderr, flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="b4load-") as name,
        fault_bed(f"ld{os.getpid()}", Path(name), args.encapsulation) as bed,
    ):
        found = run(bed, renewals=args.renewals, changes=args.changes, seconds=args.seconds, idle_s=args.idle, say=say)
    print(json.dumps(asdict(found), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
