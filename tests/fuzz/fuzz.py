"""Fuzz one parser, or all of them, guided by coverage (atheris) or by plain mutation where atheris is not installed.

    python tests/fuzz/fuzz.py [TARGET ...] [--runs N] [--seconds S] [--plain] [--jobs N]

    pip install atheris        # once; CPython 3.11 to 3.13 on x86-64 and arm64

Exits with 1 and the input in hexadecimal at the first finding. Prints what was executed and how fast.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "decode"), str(HERE.parent.parent)]


def plain(target: Callable[[bytes], bool], name: str, runs: int, seconds: float) -> tuple[int, int]:
    """Mutations without guidance. Returns (executions, understood)."""
    from fuzzseeds import mutations

    rng = random.Random(os.urandom(16))
    executed = understood = 0
    end = time.monotonic() + seconds
    while executed < runs and time.monotonic() < end:
        for data in mutations(name, 2000, rng):
            try:
                understood += target(data)
            except Exception:
                print(f"{name}: finding: {data.hex()}", file=sys.stderr)
                raise
            executed += 1
    return executed, understood


def guided(name: str, runs: int, seconds: float) -> int:
    """One target under atheris, in this process, which it ends. Coverage is taken of the package's own modules."""
    import atheris

    with atheris.instrument_imports(include=["b4client", "fuzzmachine"]):
        import fuzztargets
    from fuzzseeds import seeds

    with tempfile.TemporaryDirectory() as corpus, tempfile.TemporaryDirectory() as state:
        for number, data in enumerate(seeds(name)):
            Path(corpus, str(number)).write_bytes(data)
        target = fuzztargets.targets(Path(state))[name]
        options = [
            f"-runs={runs}",
            f"-max_total_time={int(seconds)}",
            "-max_len=4096",
            "-timeout=10",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, corpus], lambda data: int(target(data)) * 0)
        atheris.Fuzz()
    return 0


def main() -> int:
    """Entry point."""
    import fuzztargets

    logging.disable(logging.CRITICAL)  # what is said of a damaged lease file, ten million times
    names = list(fuzztargets.targets(Path()))
    parser = argparse.ArgumentParser(description="fuzz the parsers")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--runs", type=int, default=10_000_000, help="executions of each (default 10 million)")
    parser.add_argument("--seconds", type=float, default=600.0, help="at most, for each (default 600)")
    parser.add_argument("--plain", action="store_true", help="mutate without coverage")
    parser.add_argument("--guided", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.guided:
        return guided(args.guided, args.runs, args.seconds)
    if unknown := set(args.targets) - set(names):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    with_coverage = not args.plain and importlib.util.find_spec("atheris") is not None
    for name in args.targets or names:
        began = time.monotonic()
        if with_coverage:
            command = [
                sys.executable,
                __file__,
                "--guided",
                name,
                "--runs",
                str(args.runs),
                "--seconds",
                str(args.seconds),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stdout[-2000:], done.stderr[-6000:], sep="\n", file=sys.stderr)
                print(f"{name}: finding (exit {done.returncode})")
                return 1
            stats = dict(
                line.removeprefix("stat::").split(":", 1)
                for line in done.stderr.splitlines()
                if line.startswith("stat::")
            )
            executed, note = int(stats.get("number_of_executed_units", 0)), "guided by coverage"
        else:
            with tempfile.TemporaryDirectory() as state:
                target = fuzztargets.targets(Path(state))[name]
                executed, understood = plain(target, name, args.runs, args.seconds)
            note = f"plain mutation, {understood / max(executed, 1):.0%} understood"
        took = time.monotonic() - began
        print(
            f"{name:12}{executed:>12} executions in {took:7.1f} s, {executed / took:>9.0f}/s, no finding ({note})",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
