"""Kernel settings below /proc/sys, and what they were before."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from b4client.dataplane.memory import Memory
from b4client.dataplane.undo import Undo
from b4client.model.errors import DataplaneError

ROOT = Path("/proc/sys")
STRICTER_IS_FINE = ("arp_ignore", "arp_announce")
"""Settings of which a larger value of the operator's is as good."""


def read(path: str) -> str | None:
    """The value of ``net/ipv4/ip_forward`` and the like; None when the kernel has no such setting."""
    try:
        return (ROOT / path).read_text(encoding="ascii").strip()
    except OSError:
        return None


def write(path: str, value: str) -> None:
    """Set a value. Raises DataplaneError when the kernel or a read-only /proc/sys refuses."""
    try:
        (ROOT / path).write_text(value + "\n", encoding="ascii")
    except OSError as error:
        raise DataplaneError(
            f"set {path} to {value}",
            error.strerror or str(error),
            errno=error.errno or 0,
            remedy=f"Set it from outside (sysctl -w {path.replace('/', '.')}={value}) "
            "where /proc/sys is read-only here.",
        ) from None


def ensure(
    wanted: list[tuple[str, str]],
    undo: Undo,
    memory: Memory | None = None,
    save: Callable[[Memory], None] = lambda memory: None,
) -> bool:
    """Set what is not set so already; True when something was. ``memory`` keeps the values of before, from before the
    first is changed. Raises DataplaneError."""
    changed = False
    for path, value in wanted:
        present = read(path)
        if present == value or (present is not None and path.endswith(STRICTER_IS_FINE) and present > value):
            continue
        if memory is not None and present is not None:
            memory.sysctls.setdefault(path, present)
            save(memory)
        try:
            write(path, value)
        except DataplaneError:
            # What was not changed need not be put back, which would fail for the same reason.
            if memory is not None and memory.sysctls.get(path) == present:
                del memory.sysctls[path]
                save(memory)
            raise
        if present is not None:
            undo.add(path, partial(write, path, present))
        changed = True
    return changed
