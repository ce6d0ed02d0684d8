"""One process of its kind: since when it runs, the locks that keep a second one away, the interface it waits for."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import tenacity

from b4client.daemon import clock
from b4client.dataplane import rtlink
from b4client.model.errors import DataplaneError


def process_started_at() -> float:
    """When this process was started, on the boot clock (10 ms grain: clock ticks)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return clock.boot_now()


def instance_lock(run_dir: Path, instance: str) -> contextlib.AbstractContextManager[None]:
    """Hold the instance's lock: two daemons on one WAN would undo each other's work. Raises DataplaneError."""
    return _lock(
        run_dir,
        f"{instance}.lock",
        f"run on {instance}",
        "b4client is running there already",
        f"Stop it with: b4client stop --instance {instance}",
    )


def device_lock(run_dir: Path, device: str) -> contextlib.AbstractContextManager[None]:
    """Hold the softwire device's lock: instances on several WANs need a device each. Raises DataplaneError."""
    return _lock(
        run_dir,
        f"{device}.device.lock",
        f"use the softwire device {device}",
        "another instance of b4client has it",
        "Give this one another name with softwire.device or --device (and another softwire.route_metric).",
    )


@contextlib.contextmanager
def _lock(run_dir: Path, name: str, what: str, reason: str, remedy: str) -> Iterator[None]:
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file: TextIO = (run_dir / name).open("a+", encoding="ascii")
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
            raise DataplaneError(what, f"{reason} (pid {owner or 'unknown'})", remedy=remedy) from None
        # The process's number is for the message above only: a full disk must not keep us from running.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
        yield


def wait_for_interface(wan: str, wait_s: float, observe: Callable[[], rtlink.LinkState | None]) -> rtlink.LinkState:
    """The WAN as ``observe`` sees it, after waiting a while for it to appear. Raises DataplaneError naming what there
    is."""
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda link: link is None),
        stop=tenacity.stop_after_delay(wait_s),
        wait=tenacity.wait_fixed(0.2),
        retry_error_callback=lambda _: None,
    )
    link: rtlink.LinkState | None = retry(observe)
    if link is not None:
        return link
    present = ", ".join(sorted(p.name for p in Path("/sys/class/net").glob("*"))) or "none"
    raise DataplaneError(
        f"use {wan} as the WAN",
        "no such interface",
        remedy=f"Interfaces here: {present}. Name one with --wan or wan.interface.",
    )
