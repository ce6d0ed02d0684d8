"""Files that survive a restart: replaced whole, read within bounds, instants on the boot clock. Used by the stores."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path


def replace_file(path: Path, text: str, *, durable: bool) -> None:
    """Replace ``path`` whole: readers and a crash see the old text or the new, never a part.

    ``durable`` waits for the disk, so that it holds over a loss of power too. The directory must be there. OSError.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("w", encoding="ascii") as file:
            os.chmod(file.fileno(), 0o600)
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # half of it, on a full disk
        raise
    if durable:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def read_bounded(path: Path, limit: int) -> bytes:
    """The octets of ``path``. OSError; ValueError when they are more than ``limit``."""
    with path.open("rb") as file:
        found = file.read(limit + 1)
    if len(found) > limit:
        raise ValueError("it is too long")
    return found


def plain_instant(instant: float) -> float | None:
    """An instant for JSON, which has no infinity: that is None."""
    return None if math.isinf(instant) else instant


def read_instant(value: object) -> float:
    """The inverse of ``plain_instant``. Raises ValueError for what is no instant."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no instant")
    return float(value)
