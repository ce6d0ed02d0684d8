"""All benches in one report: ``.venv/bin/python tests/bench/report.py DIRECTORY [--quick]``, as root.

Writes DIRECTORY/report.md and pictures beside it. Each comparison is between things measured in turn in this run, so
that a busy machine disturbs both; the ratio is what travels to other machines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent / "decode"), str(ROOT)]

RSS_BUDGET_MB, IMPORT_BUDGET_S = 45.0, 0.5
ELSEWHERE = (
    ("NAT into a port set", "nat_bench.py", ("--rounds", "1")),
    ("Softwires", "softwire_bench.py", ("--json",)),
)
"""Benches with a report of their own: (title, script, options); one that is not there is passed over."""


def svg_bars(title: str, bars: list[tuple[str, float]], unit: str) -> str:
    """Horizontal bars with their values, as an SVG document."""
    width, row, left = 420, 24, 220
    top = max((value for _, value in bars), default=1.0) or 1.0
    height = 40 + row * len(bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 110}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="white"/><text x="8" y="20" font-weight="bold">{title}</text>',
    ]
    for number, (name, value) in enumerate(bars):
        y = 34 + row * number
        length = max(1.0, value / top * width)
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{name}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{row - 7}" fill="#4878a8"/>')
        parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 14}">{value:.3g} {unit}</text>')
    return "\n".join([*parts, "</svg>", ""])


def per_call(work: Callable[[], object], seconds: float = 0.5) -> float:
    """Microseconds of one call: the best of several loops."""
    count = 1
    while True:
        begun = time.perf_counter()
        for _ in range(count):
            work()
        took = time.perf_counter() - begun
        if took > seconds / 5:
            break
        count *= 2
    best = took / count
    for _ in range(4):
        begun = time.perf_counter()
        for _ in range(count):
            work()
        best = min(best, (time.perf_counter() - begun) / count)
    return best * 1e6


def python(*arguments: str, timeout_s: float = 600) -> str:
    """The output of this interpreter in the project's directory. Raises CalledProcessError."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=True
    )
    return done.stdout


class Report:
    """Markdown and its pictures."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lines: list[str] = []

    def add(self, *lines: str) -> None:
        """Lines of text."""
        self._lines += lines

    def draw(self, name: str, title: str, bars: list[tuple[str, float]], unit: str) -> None:
        """A picture."""
        (self._directory / f"{name}.svg").write_text(svg_bars(title, bars, unit), encoding="utf-8")
        self.add("", f"![{title}]({name}.svg)", "")

    def write(self) -> Path:
        """The file."""
        path = self._directory / "report.md"
        path.write_text("\n".join(self._lines) + "\n", encoding="utf-8")
        return path


def start_up(report: Report, runs: int) -> None:
    """exec to the first packet's way, cold and INIT-REBOOT, against the network's round trips."""
    medians = json.loads(python(str(HERE / "startup.py"), "--runs", str(runs), "--json"))["medians"]
    report.add("## Start-up", "", f"Medians of {runs} runs, milliseconds (`startup.py`).", "")
    report.add("| phase | cold | INIT-REBOOT |", "|---|---|---|")
    bars = []
    for key in medians["cold"]:
        if key.endswith("_s"):
            cells = [f"{medians[how][key] * 1000:.1f}" for how in ("cold", "INIT-REBOOT")]
            report.add(f"| {key.removesuffix('_s').replace('_', ' ')} | {' | '.join(cells)} |")
            bars.append((f"{key.removesuffix('_s').replace('_', ' ')}", medians["cold"][key] * 1000))
    for how, values in medians.items():
        floor = values["exec_to_softwire_s"] / values["round_trips_s"]
        report.add("", f"{how}: {floor:.1f} times the network's round trips.")
    memory = medians["cold"]["rss_mb"]
    verdict = "within" if memory <= RSS_BUDGET_MB else "ABOVE"
    report.add("", f"Resident memory when bound: {memory:.1f} MB, {verdict} the budget of {RSS_BUDGET_MB:g} MB.")
    report.draw("startup", "Cold start by phase", bars, "ms")


def imports(report: Report) -> None:
    """What each module costs to load: time and memory, in a process of its own."""
    program = (
        "import time,sys,resource;b=time.perf_counter();"
        "[__import__(m) for m in sys.argv[1:]];"
        "print(time.perf_counter()-b, [l for l in open('/proc/self/status') if l.startswith('VmRSS')][0].split()[1])"
    )
    modules = {
        "interpreter": (),
        "asyncio": ("asyncio",),
        "b4client.wire.dhcp6": ("b4client.wire.dhcp6",),
        "b4client.cli": ("b4client.cli",),
        "pyroute2": ("pyroute2",),
        "nftables": ("nftables",),
        "b4client.daemon.loop": ("b4client.daemon.loop",),
        "the daemon and its libraries": ("b4client.daemon.loop", "pyroute2", "nftables"),
    }
    report.add("", "## Imports", "", "| loaded | ms | RSS MB |", "|---|---|---|")
    bars = []
    for name, names in modules.items():
        found = [python("-c", program, *names).split() for _ in range(3)]
        took, memory = min(float(f[0]) for f in found), min(int(f[1]) for f in found) * 1024 / 1e6
        report.add(f"| {name} | {took * 1000:.0f} | {memory:.1f} |")
        bars.append((name, memory))
    verdict = "within" if took <= IMPORT_BUDGET_S else "ABOVE"
    report.add("", f"Loading everything takes {took * 1000:.0f} ms, {verdict} the budget of {IMPORT_BUDGET_S:g} s.")
    report.draw("imports", "Resident memory after the import", bars, "MB")


def codecs(report: Report) -> None:
    """Our codecs and scapy's on the same octets."""
    from scapy.layers.dhcp import BOOTP
    from scapy.layers.dhcp6 import DHCP6_Reply

    from b4client.wire import dhcp4, dhcp6

    inner = dhcp4.encode(
        dhcp4.Dhcp4Message(
            op=2, xid=7, options=((53, b"\5"), (54, b"\xc0\0\0\1"), (51, bytes(4)), (61, bytes(19)), (159, bytes(4)))
        )
    )
    outer = dhcp6.encode(dhcp6.Dhcp6Message(7, 5, ((1, bytes(10)), (2, bytes(10)), (23, bytes(16)))))
    message4, message6 = dhcp4.decode(inner), dhcp6.decode(outer)
    rows: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("decode DHCPv4", lambda: dhcp4.decode(inner), lambda: BOOTP(inner)),
        ("encode DHCPv4", lambda: dhcp4.encode(message4), lambda: bytes(BOOTP(inner))),
        ("decode DHCPv6", lambda: dhcp6.decode(outer), lambda: DHCP6_Reply(outer)),
        ("encode DHCPv6", lambda: dhcp6.encode(message6), lambda: bytes(DHCP6_Reply(outer))),
    ]
    report.add("", "## Codecs", "", "Microseconds. scapy encodes what it has just decoded, since it keeps the octets.")
    report.add("", "| work | ours | scapy | ratio |", "|---|---|---|---|")
    bars = []
    for name, ours, theirs in rows:
        a, b = per_call(ours), per_call(theirs)
        report.add(f"| {name} | {a:.1f} | {b:.1f} | {b / a:.1f} |")
        bars += [(f"{name}, ours", a), (f"{name}, scapy", b)]
    report.draw("codecs", "Codecs", bars, "µs")


APPLY = r"""
import sys, time
sys.path[:0] = ["tests/faults"]
import os, subprocess, tempfile
from pathlib import Path
from softwirebed import FIRST, dataplane, softwire_bed
from b4client.dataplane.plan import plan
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation
target = plan(FIRST, SoftwireSettings(), encapsulation=Encapsulation.USERSPACE, path_mtu=1500)
steps = ["link add b4x type veth peer name b4y", "link add b4-n0 type veth peer name b4-n1", "link set b4x mtu 1460",
         "addr add 192.0.2.1/32 dev b4x", "link set b4x up", "route add default dev b4x metric 999"]
with tempfile.TemporaryDirectory() as name, softwire_bed(f"rp{os.getpid()}") as ns, ns.entered():
    plane = dataplane(Path(name), "userspace")
    plane.prepare(); plane.probe(); time.sleep(0.5)
    begun = time.perf_counter(); plane.install(FIRST, list_later=True); ours = time.perf_counter() - begun
    plane.withdraw(); plane.close()
    begun = time.perf_counter()
    for step in steps:
        subprocess.run(["ip", *step.split()], check=True)
    subprocess.run(["nft", "-f", "-"], input=target.ruleset, text=True, check=True)
    print(ours, time.perf_counter() - begun)
"""


def apply_time(report: Report, runs: int) -> None:
    """Dataplane.install beside ``ip`` and ``nft`` as processes."""
    found = [tuple(map(float, python("-c", APPLY).split())) for _ in range(runs)]
    ours, theirs = (statistics.median(values) for values in zip(*found, strict=True))
    report.add("", "## Applying a softwire", "")
    report.add(
        f"`Dataplane.install` (userspace softwire with its pump and the NAT's loop, verified): {ours * 1000:.1f} ms. "
        f"Six `ip` and one `nft` process (bare devices, without pump, look before and verification): "
        f"{theirs * 1000:.1f} ms. Ratio {ours / theirs:.2f}; medians of {runs}."
    )
    report.draw("apply", "Applying", [("install", ours * 1000), ("ip and nft", theirs * 1000)], "ms")


def simulation(report: Report, seconds: int) -> None:
    """The simulator's speed, in its own words."""
    soak = str(HERE.parent / "simulation" / "soak.py")
    text = python(soak, "--profile", "chaos", "--minutes", str(seconds / 60), "--jobs", "1")
    report.add("", "## Simulation", "", "```", text.strip(), "```")


def elsewhere(report: Report) -> None:
    """Benches with reports of their own."""
    for title, script, options in ELSEWHERE:
        if (HERE / script).exists():
            report.add("", f"## {title}", "", python(str(HERE / script), *options, timeout_s=1800).strip())


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="all benches, one report")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--quick", action="store_true", help="few runs, and without the benches that take minutes")
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    model = next(
        (x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), ""
    )
    report = Report(args.directory)
    report.add(
        "# Benches",
        "",
        f"Linux {platform.release()}, {model}, {os.cpu_count()} CPUs, Python {platform.python_version()}.",
    )
    runs = 2 if args.quick else 10
    start_up(report, runs)
    imports(report)
    apply_time(report, runs)
    codecs(report)
    simulation(report, 10 if args.quick else 60)
    if not args.quick:
        elsewhere(report)
    print(report.write())
    return 0


if __name__ == "__main__":
    sys.exit(main())
