"""How long `Dataplane.install` takes for a fresh userspace softwire, with a pump on standby as the daemon has one.

    .venv/bin/python tests/bench/install_time.py [--runs N] [--tree DIR]      as root

In a network namespace of its own, as the daemon does it: how the kernel lists the rules is noted afterwards.
``--tree`` measures another checkout, in turn with this one, so that the two can be compared on a busy machine;
milliseconds, fastest and median.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = r"""
import ctypes, pathlib, subprocess, sys, tempfile, time
from ipaddress import IPv4Address, IPv6Address
if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
    sys.exit("no network namespace: run as root")
for command in ("link set lo up", "link add wan type veth peer name isp", "link set isp up",
                "link set wan up", "addr add 2001:db8::1/64 dev wan nodad"):
    subprocess.run(["ip", *command.split()], check=True)
from b4client.dataplane import rtlink
from b4client.dataplane.apply import Dataplane
from b4client.model.portset import PortSet
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation, Mode, SoftwireConfig
ports = PortSet(*map(int, sys.argv[1].split("/")), 3)
config = SoftwireConfig(Mode.LW4O6, "wan", IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2"),
                        IPv4Address("192.0.2.1"), ports)
dataplane = Dataplane(SoftwireSettings(encapsulation=Encapsulation.USERSPACE),
                      state_dir=pathlib.Path(tempfile.mkdtemp(prefix="install-time")))
dataplane.prepare()
rtlink.observe_link("wan")  # as the daemon has, long before: the first question loads pyroute2
dataplane.probe()
time.sleep(0.4)
later = {"list_later": True} if hasattr(dataplane, "note_listing") else {}  # an older tree lists at once
times = []
for _ in range(2):
    begun = time.perf_counter()
    dataplane.install(config, **later)
    times.append((time.perf_counter() - begun) * 1000)
    if later:
        dataplane.note_listing()
dataplane.withdraw()
dataplane.close()
print(*times)
"""


def once(tree: Path, ports: str) -> tuple[float, float]:
    """(ms of the first installation, ms of the same again)."""
    command = [sys.executable, "-P", "-c", PROGRAM, ports]
    done = subprocess.run(command, env={"PYTHONPATH": str(tree), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                          cwd="/", capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    first, again = map(float, done.stdout.split())
    return first, again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--tree", type=Path, help="another checkout to measure in turn")
    options = parser.parse_args()
    trees = [ROOT, *([options.tree.resolve()] if options.tree else [])]
    print("| set (a/k) | tree | install: fastest, median | the same again |\n|---|---|---|---|")
    for ports in ("0/8", "4/8", "6/8"):
        found: dict[Path, list[tuple[float, float]]] = {tree: [] for tree in trees}
        for _ in range(options.runs):
            for tree in trees:
                found[tree].append(once(tree, ports))
        for tree in trees:
            cells = []
            for values in zip(*found[tree], strict=True):
                cells.append(f"{min(values):.1f}, {statistics.median(values):.1f} ms")
            print(f"| {ports} | {'this' if tree == ROOT else 'other'} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
