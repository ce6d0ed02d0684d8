"""All benches in one report: ``.venv/bin/python tests/bench/report.py DIRECTORY [--quick] [--note TEXT]``, as root.

Writes DIRECTORY/README.md and its pictures. Each comparison is between things measured in turn in one run, so that a
busy machine disturbs both; the ratio is what travels to other machines. ``--quick`` takes under two minutes, few runs
of each, and of the NAT one set; else about ten. ``--note`` says what else the machine was doing; its load is measured.
``--only NAME`` (again and again) makes some sections. Exit status 1: a section failed, and says why in the report.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT)]

from picture import bars, stacks, table  # noqa: E402

RSS_BUDGET_MB, IMPORT_BUDGET_S = 45.0, 0.5
IMPORTS: dict[str, tuple[str, ...]] = {
    "the interpreter alone": (),
    "asyncio": ("asyncio",),
    "codecs (b4client.wire.dhcp6)": ("b4client.wire.dhcp6",),
    "command line (b4client.cli)": ("b4client.cli",),
    "pyroute2": ("pyroute2",),
    "nftables": ("nftables",),
    "daemon (b4client.daemon.loop)": ("b4client.daemon.loop",),
    "daemon, pyroute2, nftables": ("b4client.daemon.loop", "pyroute2", "nftables"),
}
LOAD = (
    "import time, sys; begun = time.perf_counter(); [__import__(name) for name in sys.argv[1:]];"
    "took = time.perf_counter() - begun;"
    "print(took, [x for x in open('/proc/self/status') if x.startswith('VmRSS')][0].split()[1])"
)


def python(*arguments: str, timeout_s: float = 1200) -> str:
    """The output of this interpreter in the project's directory. Raises CalledProcessError, TimeoutExpired."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=True
    )
    return done.stdout


def bench(script: str, *options: str) -> Any:
    """What a bench of this directory says with ``--json``."""
    return json.loads(python(str(HERE / script), *options, "--json"))


@dataclass
class Report:
    """Markdown and its pictures. ``quick`` asks for few runs; ``summary`` has a row for each comparison."""

    directory: Path
    quick: bool
    lines: list[str] = field(default_factory=list)
    summary: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, *lines: str) -> None:
        """Lines of text."""
        self.lines += lines

    def draw(self, name: str, title: str, picture: str) -> None:
        """A picture, as SVG."""
        (self.directory / f"{name}.svg").write_text(picture, encoding="utf-8")
        self.show(name, title)

    def show(self, name: str, title: str) -> None:
        """A picture that is in the directory."""
        self.add("", f"![{title}]({name}.svg)", "")

    def compare(self, what: str, ours: str, other: str, ratio: str) -> None:
        """A row of the summary."""
        self.summary.append((what, ours, other, ratio))


def against(value: float, budget: float, unit: str) -> str:
    """In words: within the budget, or above it."""
    return f"{'within' if value <= budget else '**above**'} the budget of {budget:g} {unit}"


def write_start_up(report: Report, found: Any) -> None:
    """The section of ``startup.py``'s figures."""
    medians, runs = found["medians"], found["runs"]
    report.add(f"`startup.py --runs {runs}`: medians of {runs} starts of each kind, milliseconds. Start delays off.")
    hows = list(medians)
    phases = list(medians[hows[0]]["phases"])
    rows = [[phase, *(f"{medians[how]['phases'][phase] * 1000:.1f}" for how in hows)] for phase in phases]
    for key, name in (("exec_to_first_packet_s", "**exec to first packet**"), ("round_trips_s", "**the network's**")):
        rows.append([name, *(f"**{medians[how][key] * 1000:.1f}**" for how in hows)])
    report.add(*table(("phase", *hows), rows))
    drawn = [(how, [medians[how]["phases"][phase] * 1000 for phase in phases]) for how in hows]
    title = "From exec to the first packet through the softwire"
    report.draw("startup", title, stacks(title, phases, drawn, "ms"))
    for how in hows:
        whole, floor = medians[how]["exec_to_first_packet_s"], medians[how]["round_trips_s"]
        report.add(f"{how}: {whole - floor:.3f} s above the network's round trips ({floor * 1000:.1f} ms).", "")
        report.compare(f"exec to first packet, {how}", f"{whole * 1000:.0f} ms", f"network {floor * 1000:.1f} ms", "")
    memory = medians[hows[0]]["rss_mb"]
    report.add(f"Resident memory when bound: {memory:.1f} MB, {against(memory, RSS_BUDGET_MB, 'MB')}.")
    report.compare(
        "memory when bound", f"{memory:.1f} MB", f"budget {RSS_BUDGET_MB:g} MB", f"{memory / RSS_BUDGET_MB:.2f}"
    )


def start_up(report: Report) -> None:
    """exec to the first packet, cold and INIT-REBOOT, against the network's round trips."""
    write_start_up(report, bench("startup.py", "--runs", "2" if report.quick else "10"))


def imports(report: Report) -> None:
    """What each module costs to load: time and memory, in a process of its own."""
    rows, drawn = [], []
    took = memory = 0.0
    for name, names in IMPORTS.items():
        found = [python("-c", LOAD, *names).split() for _ in range(2 if report.quick else 7)]
        took, memory = min(float(f[0]) for f in found), min(int(f[1]) for f in found) * 1024 / 1e6
        rows.append((name, f"{took * 1000:.0f}", f"{memory:.1f}"))
        drawn.append((name, [(memory, f"{memory:.1f} MB")]))
    report.add("Each in a process of its own, the fastest and the smallest of several.", "")
    report.add(*table(("loaded", "ms", "RSS, MB"), rows))
    report.draw("imports", "Resident memory", bars("Resident memory after loading", drawn))
    report.add(f"Loading all of it takes {took * 1000:.0f} ms, {against(took, IMPORT_BUDGET_S, 's')}.")
    report.compare("import of everything", f"{took * 1000:.0f} ms", f"budget {IMPORT_BUDGET_S * 1000:g} ms",
                   f"{took / IMPORT_BUDGET_S:.2f}")  # fmt: skip


def write_apply(report: Report, found: Any) -> None:
    """The section of ``apply_bench.py``'s figures."""
    medians, started = found["medians_ms"], found["processes"]
    ours = next(iter(medians.values()))
    report.add(
        f"`apply_bench.py --runs {found['runs']}`: a userspace softwire with the NAT's loop, from nothing. The same "
        "devices, addresses, routes, settings and rules by each way, which is checked; `install` verifies them besides."
    )
    rows = [(way, str(started[way]), f"{value:.1f}", f"{value / ours:.2f}") for way, value in medians.items()]
    report.add(*table(("way", "processes", "ms", "ratio"), rows))
    drawn = [(way, [(value, f"{value:.1f} ms")]) for way, value in medians.items()]
    report.draw("apply", "Applying a softwire", bars("Applying a softwire", drawn))
    for way, value in list(medians.items())[1:]:
        report.compare(f"apply, beside {way}", f"{ours:.1f} ms", f"{value:.1f} ms", f"{value / ours:.2f}")


def apply_time(report: Report) -> None:
    """Dataplane.install beside ``ip`` and ``nft`` as processes."""
    write_apply(report, bench("apply_bench.py", "--runs", "3" if report.quick else "15"))


def write_codecs(report: Report, rows: Any) -> None:
    """The section of ``codec_bench.py``'s figures."""
    report.add("`codec_bench.py`: octets to the fields of a message, and fields to octets; both say the same.", "")
    cells, drawn = [], []
    for row in rows:
        ours, scapy = row["ours_us"], row["scapy_us"]
        cells.append((row["work"], str(row["octets"]), f"{ours:.1f} µs", f"{scapy:.1f} µs", f"{scapy / ours:.1f}"))
        drawn.append((row["work"], [(ours, f"{ours:.1f} µs"), (scapy, f"{scapy:.1f} µs")]))
        report.compare(row["work"], f"{ours:.1f} µs", f"scapy {scapy:.1f} µs", f"{scapy / ours:.1f}")
    report.add(*table(("work", "octets", "b4client", "scapy", "ratio"), cells))
    report.draw("codecs", "Codecs", bars("Codecs: time of one message", drawn, series=("b4client", "scapy")))


def codecs(report: Report) -> None:
    """The codecs beside scapy's."""
    write_codecs(report, bench("codec_bench.py", "--seconds", "0.05" if report.quick else "0.3"))


def write_leases(report: Report, found: Any) -> None:
    """The section of ``lease_bench.py``'s figures."""
    medians = found["medians"]
    report.add(
        f"`lease_bench.py --clients {found['clients']} --rounds {found['rounds']}`: DISCOVER, OFFER, REQUEST, ACK over "
        "DHCPv6 for so many clients, 32 at one time; the same generator for all."
    )
    rows = [
        (
            kind,
            f"{v['leases_per_s']:.0f}",
            f"{v['cpu_ms_per_lease']:.2f}",
            f"{v['generator']:.2f}",
            f"{v['resent']:.0f}",
        )
        for kind, v in medians.items()
    ]
    report.add(*table(("server", "leases/s", "ms of CPU a lease", "generator's CPU", "sent again"), rows))
    drawn = [(kind, [(v["leases_per_s"], f"{v['leases_per_s']:.0f}/s")]) for kind, v in medians.items()]
    report.draw("leases", "Leases a second", bars("Leases a second", drawn))
    lab, kea = (medians[kind]["leases_per_s"] for kind in ("lab", "Kea"))
    report.compare("lab server's leases", f"{lab:.0f}/s", f"Kea {kea:.0f}/s", f"{lab / kea:.2f}")


def leases(report: Report) -> None:
    """The lab's server beside Kea."""
    options = ("300", "--rounds", "1") if report.quick else ("1000", "--rounds", "3")
    write_leases(report, bench("lease_bench.py", "--clients", *options))


def client_years(text: str) -> float:
    """Client-years a minute, out of what ``soak.py`` says. Raises ValueError."""
    match = re.search(r"\(([\d,.]+) client-years a minute\)", text)
    if match is None:
        raise ValueError(f"the simulation tells no speed: {text!r}")
    return float(match[1].replace(",", ""))


def simulation(report: Report) -> None:
    """The simulation's speed, with long leases."""
    options = ("--profile", "years", *(("--count", "1", "--jobs", "1") if report.quick else ("--minutes", "1")))
    text = python(str(ROOT / "tests" / "simulation" / "soak.py"), *options, "--minutes", "1")
    report.add(f"`tests/simulation/soak.py {' '.join(options)}`, in its own words:", "", "```", text.strip(), "```")
    report.compare("simulation", f"{client_years(text):,.0f} client-years/min", "", "")


def elsewhere(script: str, quick: tuple[str, ...], whole: tuple[str, ...]) -> Callable[[Report], None]:
    """A section that is another bench's own: its Markdown and its picture."""

    def section(report: Report) -> None:
        chosen = quick if report.quick else whole
        name = script.removesuffix("_bench.py")
        text = python(str(HERE / script), "--svg", str(report.directory / f"{name}.svg"), *chosen)
        report.add(f"`{' '.join((script, *chosen))}`; how to read it: tests/bench/README.md.")
        report.show(name, name)
        report.add(text.strip())

    return section


SECTIONS: dict[str, tuple[str, Callable[[Report], None]]] = {
    "startup": ("Start-up", start_up),
    "imports": ("Imports and memory", imports),
    "apply": ("Applying a softwire", apply_time),
    "codecs": ("Codecs", codecs),
    "leases": ("Leases", leases),
    "simulation": ("Simulation", simulation),
    "nat": ("NAT into a port set", elsewhere("nat_bench.py", ("--rounds", "1", "--main"), ("--rounds", "2"))),
    "softwires": (
        "Softwires",
        elsewhere("softwire_bench.py", ("--rounds", "1", "--seconds", "0.1"), ("--rounds", "3", "--seconds", "0.5")),
    ),
}


def fill(report: Report, names: list[str]) -> list[str]:
    """Make the sections, each whether or not another fails; the names of those that did."""
    failed = []
    for name in names:
        title, section = SECTIONS[name]
        report.add("", f"## {title}", "")
        print(f"{title} ...", file=sys.stderr, end=" ", flush=True)
        begun = time.monotonic()
        try:
            section(report)
        except (subprocess.SubprocessError, ValueError, KeyError, OSError) as error:
            failed.append(name)
            said = str(getattr(error, "stderr", "") or "").strip().splitlines()[-5:]
            report.add("This one **failed**:", "", "```", str(error), *said, "```")
        print(f"{time.monotonic() - begun:.0f} s{', FAILED' if name in failed else ''}", file=sys.stderr)
    return failed


def markdown(lines: list[str]) -> str:
    """The document, with never more than one empty line."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def machine() -> str:
    """Kernel, processor, interpreter."""
    information = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in information if line.startswith("model name")), "?")
    return f"Linux {platform.release()}, {model}, {os.cpu_count()} CPUs, Python {platform.python_version()}."


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--quick", action="store_true", help="few runs, under two minutes")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="only this section (may be repeated)")
    parser.add_argument("--note", default="", help="what else the machine does meanwhile")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("network namespaces need root")
    directory = args.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    report = Report(directory, args.quick)
    before, begun = os.getloadavg()[0], time.monotonic()
    failed = fill(report, args.only or list(SECTIONS))
    took = time.monotonic() - begun
    head = [
        "# Benches",
        "",
        f"`tests/bench/report.py {'--quick ' if args.quick else ''}...`, {took / 60:.1f} minutes. {machine()}",
        f"Load before it began: {before:.1f}. {args.note}".strip(),
        "",
        "Ratios of times: the other's for one of ours, so that above 1 is in our favour; of rates: ours for one of the "
        "other's; of budgets: the share that is used. They are of this run, and of this machine as busy as it was.",
        *table(("what", "b4client", "beside it", "ratio"), report.summary),
    ]
    file = directory / "README.md"
    file.write_text(markdown([*head, *report.lines]), encoding="utf-8")
    print(file)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
