"""One process of its kind: since when it runs, and the lock that keeps a second one away."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from b4client.daemon import clock
from b4client.model.errors import DataplaneError


def process_started_at() -> float:
    """When this process was started, on the boot clock (10 ms grain: clock ticks)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return clock.boot_now()


@contextlib.contextmanager
def instance_lock(run_dir: Path, instance: str) -> Iterator[None]:
    """Hold the instance's lock: two daemons on one WAN would undo each other's work."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file: TextIO = (run_dir / f"{instance}.lock").open("a+", encoding="ascii")
    except OSError as error:
        raise DataplaneError(
            f"use {run_dir}", error.strerror or str(error), remedy="Choose a writable directory with --run-dir."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read(20).strip()
            raise DataplaneError(
                f"run on {instance}",
                f"b4client is running there already (pid {owner or 'unknown'})",
                remedy=f"Stop it with: b4client stop --instance {instance}",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
