"""The long simulation: ``python tests/simulation/soak.py --profile chaos --minutes 10``.

Runs seed after seed on all processors (``--jobs``) until the time is over, and says how many client-years that were and
what happened in them. The first failure ends it with the story and the command that repeats it; exit status 1.
``--seed N`` runs one seed.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from simscenario import PROFILES, Failure, Result, scenario_of, simulate  # noqa: E402


def seeds_until(first: int, count: int | None, end: float) -> Iterator[int]:
    """Seeds from ``first`` on, until so many were run or the time is over."""
    seed = first
    while (count is None or seed < first + count) and time.monotonic() < end:
        yield seed
        seed += 1


def attempt(seed: int, profile: str) -> Result | str:
    """The result of a seed, or the story of its failure (exceptions with causes do not travel between processes)."""
    try:
        return simulate(seed, profile)
    except Failure as failure:
        return str(failure)


def soak(profile: str, seeds: Iterator[int], jobs: int) -> Iterator[Result | str]:
    """Results as they come; never more in work than there are processes."""
    if jobs == 1:
        yield from (attempt(seed, profile) for seed in seeds)
        return
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        working: set[concurrent.futures.Future[Result | str]] = set()
        for seed in seeds:
            working.add(pool.submit(attempt, seed, profile))
            if len(working) >= 2 * jobs:
                done, working = concurrent.futures.wait(working, return_when=concurrent.futures.FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in concurrent.futures.as_completed(working))


def report(results: list[Result], elapsed_s: float, profile: str) -> str:
    """What was simulated, and how fast."""
    happened: collections.Counter[str] = collections.Counter()
    network: collections.Counter[str] = collections.Counter()
    for result in results:
        happened += result.happened
        network += result.client
    years = sum(result.client_years for result in results)
    minutes = elapsed_s / 60
    slowest = max((result.slowest_recovery_s for result in results), default=0.0)
    return "\n".join(
        [
            f"{profile}: {len(results)} seeds, {years:,.1f} client-years in {elapsed_s:.1f} s"
            f" ({years / minutes:,.0f} client-years a minute)",
            f"  steps {sum(r.steps for r in results):,}, messages {network.pop('sent', 0):,},"
            f" leases granted or extended {sum(r.grants for r in results):,}",
            "  network: " + ", ".join(f"{name} {count:,}" for name, count in sorted(network.items())),
            "  happened: " + ", ".join(f"{name} {count:,}" for name, count in sorted(happened.items())),
            f"  two owners after a server forgot (permitted): {sum(r.overlaps_by_amnesia for r in results):,};"
            f" slowest recovery: {slowest:.0f} s",
        ]
    )


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=PROFILES, default="chaos")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--count", type=int, help="so many seeds")
    parser.add_argument("--minutes", type=float, default=1.0, help="at most so long (default 1)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    began = time.monotonic()
    if args.seed is not None:
        print(scenario_of(args.seed, args.profile))
        seeds, jobs = iter((args.seed,)), 1
    else:
        seeds, jobs = seeds_until(args.first, args.count, began + 60 * args.minutes), args.jobs
    results: list[Result] = []
    for result in soak(args.profile, seeds, jobs):
        if isinstance(result, str):
            print(result)
            return 1
        results.append(result)
    print(report(results, time.monotonic() - began, args.profile))
    return 0


if __name__ == "__main__":
    sys.exit(main())
