"""From exec to the first DISCOVER, from ACK to the programmed softwire, and the memory of a bound daemon.

    python tests/bench/startup.py [--runs N] [--encapsulation auto|kernel|userspace] [--json]

Needs root, Kea and network namespaces (netns-scripts/setup). Times are the capture's and the kernel's, not the daemon's
own opinion: exec is the process's start time, messages are what tcpdump saw on the WAN, the softwire is programmed when
the daemon has verified it. Beside it stands what the exchange cannot do without: the round trips to the server.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from b4client.lab.client import WAN, Client
from b4client.lab.ladder import read_pcap
from b4client.lab.netns import wait_until
from b4client.lab.testbed import Testbed, TestbedSettings
from b4client.wire import dhcp4, dhcp4o6

BOUNDS = {"exec_to_discover_s": 0.5, "ack_to_softwire_s": 0.05, "rss_mb": 45.0}
"""What a run should stay below (start delays off)."""


@dataclass(frozen=True)
class Run:
    """One start. Seconds and megabytes (10^6 octets)."""

    exec_to_first_datagram_s: float
    exec_to_discover_s: float
    round_trips_s: float
    ack_to_softwire_s: float
    exec_to_softwire_s: float
    rss_mb: float


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"no VmRSS of {pid}")


def kinds(file: Path) -> dict[str, float]:
    """When each kind of message was first seen in a capture."""
    found: dict[str, float] = {}
    for datagram in read_pcap(file):
        kind = str(datagram.payload[0])
        if datagram.payload[0] in (20, 21):
            inner = dhcp4.decode(dhcp4o6.decode(datagram.payload).dhcp4)
            kind = dhcp4.MessageType(inner.message_type or 0).name
        found.setdefault(kind, datagram.at)
    return found


def measure(testbed: Testbed, directory: Path, encapsulation: str, *, fresh: bool) -> Run:
    """Start a daemon, wait until it is bound, look, and end it."""
    client = Client(testbed.cpe, directory, encapsulation=encapsulation)
    with testbed.capture("cpe", WAN, directory / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        status = client.wait_bound()
        wanted = "DISCOVER" if fresh else "REQUEST"
        wait_until(lambda: {wanted, "ACK"} <= kinds(capture.file).keys(), 5, "the capture to be complete")
        seen = kinds(capture.file)
    time.sleep(0.5)  # what is loaded lazily is loaded by now
    memory = rss_mb(client.pid)
    client.stop()
    # The boot clock's instants as the wall clock has them.
    wall_minus_boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    timings = {k: v + wall_minus_boot for k, v in status["timings"].items() if k.endswith("_at")}
    started, done = timings["started_at"], timings["first_installed_at"]
    first = min(seen.values())
    waits = seen["7"] - seen["11"] + seen["ACK"] - seen["REQUEST"]
    if fresh:
        waits += seen["OFFER"] - seen["DISCOVER"]
    return Run(
        first - started,
        seen[wanted] - started,
        waits,
        done - seen["ACK"],
        done - started,
        memory,
    )


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="start-up time and memory of the daemon")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--encapsulation", default="auto", choices=("auto", "kernel", "userspace"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    testbed = Testbed(TestbedSettings(prefix=f"bench{os.getpid()}"))
    results: dict[str, list[Run]] = {"cold": [], "INIT-REBOOT": []}
    testbed.up()
    try:
        for number in range(args.runs):
            print(f"\rrun {number + 1} of {args.runs}", end="", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="b4bench-") as name:
                results["cold"].append(measure(testbed, Path(name), args.encapsulation, fresh=True))
                results["INIT-REBOOT"].append(measure(testbed, Path(name), args.encapsulation, fresh=False))
        print("\r", end="", file=sys.stderr)
    finally:
        testbed.down()
    medians = {
        how: {k: statistics.median(asdict(run)[k] for run in runs) for k in asdict(runs[0])}
        for how, runs in results.items()
    }
    if args.json:
        print(json.dumps({"machine": platform.platform(), "runs": args.runs, "medians": medians}, indent=2))
        return 0
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; {args.runs} runs")
    print(f"{'':26}{'cold':>10}{'INIT-REBOOT':>13}{'bound':>9}   (medians; seconds, MB of 10^6 octets)")
    for key in medians["cold"]:
        bound = BOUNDS.get(key)
        values = [medians[how][key] for how in ("cold", "INIT-REBOOT")]
        verdict = "" if bound is None else "  ok" if max(values) <= bound else "  ABOVE"
        print(f"{key:26}{values[0]:>10.3f}{values[1]:>13.3f}{'' if bound is None else bound:>9}{verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
