"""Kernel settings below /proc/sys, and what they were before."""

from __future__ import annotations

from pathlib import Path

from b4client.model.errors import DataplaneError

ROOT = Path("/proc/sys")


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
