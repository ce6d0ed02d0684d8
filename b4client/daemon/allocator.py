"""The C library's memory: a daemon that mostly sleeps gives back what it does not need.

Measured with tests/bench/startup.py, in the same turn: 47.6 MB resident once bound as glibc comes, 44.3 MB like this
(with OpenSSL, see ``lean``). Nothing here is so busy with memory that one arena for its two threads would slow it down.
"""

from __future__ import annotations

import ctypes
import gc

_M_ARENA_MAX, _M_TRIM_THRESHOLD = -8, -1
TRIM_THRESHOLD = 65536


def spare() -> None:
    """Call before there are threads. Does nothing where the C library has no such knobs (musl)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)


def give_back() -> None:
    """Give what is free back to the machine: after a start, which needs more than the life that follows."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
