"""What a softwire costs: plain forwarding, the kernel's ip6_tunnel where there is one, SRv6, the userspace softwire.

    .venv/bin/python tests/bench/softwire_bench.py [--rounds N] [--svg FILE] [--markdown FILE] [--tree CHECKOUT]

As root. Namespaces as in encapsulationbed.py; all ways take turns in every round, medians over the rounds. Ratios are
to plain forwarding of the same run. With --tree the pump of another checkout takes part, as "userspace, before".
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "bench")]

from encapsulationbed import SoftwireBed  # noqa: E402
from picture import bars  # noqa: E402

SMALL, LARGE = 64, 1400
MEASURES = {
    "64 octets up": "packets/s",
    "64 octets down": "packets/s",
    "1400 octets up": "packets/s",
    "1400 octets down": "packets/s",
    "TCP up": "Gbit/s",
    "TCP down": "Gbit/s",
    "TCP up, offloads": "Gbit/s",
    "TCP down, offloads": "Gbit/s",
    "round trip": "us",
    "CPU up": "ns/packet",
    "CPU down": "ns/packet",
}
DRAWN = ("64 octets up", "64 octets down", "TCP up", "TCP down", "TCP up, offloads", "TCP down, offloads")


@dataclass
class Result:
    """Of one way: values by measure, one a round."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def note(self, measure: str, value: float) -> None:
        self.values.setdefault(measure, []).append(value)

    def median(self, measure: str) -> float:
        return statistics.median(self.values[measure])


def measure(bed: SoftwireBed, result: Result, seconds: float) -> None:
    """Everything once, on the way that is in use."""
    bed.offloads(on=False)
    for up, direction in ((True, "up"), (False, "down")):
        for size in (SMALL, LARGE):
            rate, cpu = bed.packets(size, seconds, up=up)
            result.note(f"{size} octets {direction}", rate)
            if size == SMALL:
                result.note(f"CPU {direction}", cpu)
        result.note(f"TCP {direction}", bed.stream(seconds, up=up) / 1e9)
    result.note("round trip", bed.round_trip_us())
    bed.offloads(on=True)
    for up, direction in ((True, "up"), (False, "down")):
        result.note(f"TCP {direction}, offloads", bed.stream(seconds, up=up) / 1e9)


def run(rounds: int, seconds: float, tree: Path | None) -> dict[str, Result]:
    """All measurements."""
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as directory:
        bed = SoftwireBed(f"bench{os.getpid()}", Path(directory))
        try:
            bed.build()
            ways = bed.ways()
            if tree is not None:
                ways["userspace, before"] = lambda: bed.pump_of(tree)
            for number in range(rounds):
                for name, use in ways.items():
                    print(f"round {number + 1}: {name}", file=sys.stderr)
                    use()
                    measure(bed, results.setdefault(name, Result()), seconds)
        finally:
            bed.close()
    return results


def table(results: dict[str, Result]) -> list[str]:
    """Markdown: a row for each measure, a column for each way, with the ratio to plain forwarding."""
    names = list(results)
    lines = [f"| | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    plain = results[names[0]]
    for title, unit in MEASURES.items():
        cells = []
        for name in names:
            value, base = results[name].median(title), plain.median(title)
            if unit == "packets/s":
                shown = f"{value / 1000:.0f} k/s"
            elif unit == "Gbit/s":
                shown = f"{value:.2f} Gbit/s"
            else:
                shown = f"{value:.0f} {'µs' if unit == 'us' else 'ns'}"
            cells.append(shown if name == names[0] else f"{value / base:.2f} ({shown})")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def svg(results: dict[str, Result]) -> str:
    """Bars: rates as shares of plain forwarding."""
    names = [name for name in results if name != "plain forwarding"]
    rows = []
    for title in DRAWN:
        plain = results["plain forwarding"].median(title)
        shares = [results[name].median(title) / plain for name in names]
        rows.append((title, [(share, f"{share:.2f}") for share in shares]))
    return bars("Softwires: rate as a share of plain forwarding", rows, series=names, top=1.15, mark=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--tree", type=Path, metavar="CHECKOUT", help="compare its pump, too")
    parser.add_argument("--svg", type=Path, help="draw the rates here")
    parser.add_argument("--markdown", type=Path, help="write the table here as well")
    options = parser.parse_args()
    results = run(options.rounds, options.seconds, options.tree)
    information = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":", 1)[1].strip() for line in information if line.startswith("model name")), "?")
    lines = [
        f"Linux {platform.release()}, {processor}, Python {platform.python_version()}, {options.rounds} rounds of "
        f"{options.seconds:g} s.",
        "",
        *table(results),
    ]
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")
    if options.svg:
        options.svg.write_text(svg(results))


if __name__ == "__main__":
    main()
