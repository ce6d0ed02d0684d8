"""From exec to the first packet through the softwire, by phase, and the memory of a bound daemon.

    python tests/bench/startup.py [--runs N] [--encapsulation auto|kernel|userspace] [--json]

Needs root, Kea and network namespaces (netns-scripts/setup). Times are the capture's and the kernel's, not the daemon's
own opinion: exec is the process's start time, messages are what tcpdump saw on the WAN, the softwire is programmed when
the daemon has verified it, and the first packet through it is one of a host of the LAN that pings all the time, every
PING_S. Phases in which the network is waited for are the floor: no client can do without them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from b4client.lab.client import WAN, Client
from b4client.lab.ladder import read_pcap
from b4client.lab.netns import wait_until
from b4client.lab.testbed import BR, SERVER, Testbed, TestbedSettings
from b4client.wire import dhcp4, dhcp4o6

BOUNDS = {"exec_to_discover_s": 0.5, "ack_to_softwire_s": 0.05, "rss_mb": 45.0}
"""What a run should stay below (start delays off)."""
PING_S = 0.01
PHASES = {
    "exec to INFORMATION-REQUEST": False,
    "Reply": True,
    "Reply to first DHCPv4 message": False,
    "OFFER": True,
    "OFFER to REQUEST": False,
    "ACK": True,
    "ACK to programmed softwire": False,
    "to the next packet of the LAN": False,
}
"""What follows one another, and whether it is the network that is waited for. INIT-REBOOT has no OFFER."""


@dataclass(frozen=True)
class Run:
    """One start. Seconds and megabytes (10^6 octets). ``phases``: as PHASES, 0 for what there was not."""

    exec_to_first_datagram_s: float
    exec_to_discover_s: float
    round_trips_s: float
    ack_to_softwire_s: float
    exec_to_softwire_s: float
    exec_to_first_packet_s: float
    rss_mb: float
    phases: dict[str, float] = field(default_factory=dict)


def phases_of(seen: dict[str, float], started: float, programmed: float, through: float) -> dict[str, float]:
    """How long each phase took, of when each kind of message was first seen. Their sum is ``through - started``.

    Without a DISCOVER the first DHCPv4 message is the REQUEST. Raises KeyError when a message is missing.
    """
    fresh = "DISCOVER" in seen
    first = "DISCOVER" if fresh else "REQUEST"
    instants = [started, seen["11"], seen["7"], seen[first]]
    instants += [seen["OFFER"], seen["REQUEST"]] if fresh else [seen["REQUEST"], seen["REQUEST"]]
    # A packet that waits in the softwire's queue is through before the daemon has verified what it made.
    instants += [seen["ACK"], min(programmed, through), through]
    return {name: after - before for name, before, after in zip(PHASES, instants, instants[1:], strict=False)}


def first_encapsulated(file: Path) -> float | None:
    """When the first IPv4-in-IPv6 packet was captured, in seconds since the epoch; None when there is none."""
    # The reader of captures wants DHCP alone: only the first packet's time is wanted here, and tcpdump's byte order is
    # the machine's.
    data = file.read_bytes()
    if len(data) < 40:
        return None
    seconds, micros = struct.unpack_from("=II", data, 24)
    return float(seconds + micros / 1e6)


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
    ping = testbed.lan.start("ping", "-n", "-q", "-i", str(PING_S), str(SERVER), log=directory / "ping.log")
    try:
        with (
            testbed.capture("cpe", WAN, directory / "wan.pcap", "ip6 and udp") as capture,
            testbed.capture("cpe", WAN, directory / "softwire.pcap", f"ip6 proto 4 and dst host {BR}") as softwire,
        ):
            client.start()
            status = client.wait_bound()
            wanted = "DISCOVER" if fresh else "REQUEST"
            wait_until(lambda: {wanted, "ACK"} <= kinds(capture.file).keys(), 5, "the capture to be complete")
            wait_until(lambda: first_encapsulated(softwire.file) is not None, 5, "a packet through the softwire")
            seen, through = kinds(capture.file), first_encapsulated(softwire.file)
    finally:
        ping.terminate()
        ping.wait(10)
    assert through is not None
    time.sleep(0.5)  # what is loaded lazily is loaded by now
    memory = rss_mb(client.pid)
    client.stop()
    # The boot clock's instants as the wall clock has them.
    wall_minus_boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    timings = {k: v + wall_minus_boot for k, v in status["timings"].items() if k.endswith("_at")}
    started, done = timings["started_at"], timings["first_installed_at"]
    phases = phases_of(seen, started, done, through)
    return Run(
        min(seen.values()) - started,
        seen[wanted] - started,
        sum(took for name, took in phases.items() if PHASES[name]),
        done - seen["ACK"],
        done - started,
        through - started,
        memory,
        phases,
    )


def medians_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Of each figure, and of each phase below ``phases``."""
    figures = [asdict(run) for run in runs]
    phases = [figure.pop("phases") for figure in figures]
    result: dict[str, Any] = {k: statistics.median(figure[k] for figure in figures) for k in figures[0]}
    result["phases"] = {k: statistics.median(phase[k] for phase in phases) for k in phases[0]}
    return result


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
    medians = {how: medians_of(runs) for how, runs in results.items()}
    if args.json:
        print(json.dumps({"machine": platform.platform(), "runs": args.runs, "medians": medians}, indent=2))
        return 0
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; {args.runs} runs")
    print(f"{'':32}{'cold':>10}{'INIT-REBOOT':>13}{'bound':>9}   (medians; seconds, MB of 10^6 octets)")
    phases = {how: values.pop("phases") for how, values in medians.items()}
    for key in medians["cold"]:
        bound = BOUNDS.get(key)
        values = [medians[how][key] for how in medians]
        verdict = "" if bound is None else "  ok" if max(values) <= bound else "  ABOVE"
        print(f"{key:32}{values[0]:>10.3f}{values[1]:>13.3f}{'' if bound is None else bound:>9}{verdict}")
    for name, network in PHASES.items():
        values = [phases[how][name] for how in phases]
        print(f"{name:32}{values[0]:>10.3f}{values[1]:>13.3f}{'   the network' if network else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
