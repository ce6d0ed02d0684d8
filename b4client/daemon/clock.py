"""The boot clock, and a timer on it.

Leases run on CLOCK_BOOTTIME, which goes on while the machine sleeps; asyncio's own timers do not. A timerfd on that
clock fires as soon as a machine wakes up with an overdue lease.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

_CLOCK_BOOTTIME = 7
_TFD_TIMER_ABSTIME = 1


def boot_now() -> float:
    """Seconds since boot, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """The kernel's name for this boot; empty when it cannot be read (then stored instants are never comparable)."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class BootTimer:
    """One alarm on the boot clock: ``set(at)`` replaces it, ``set(None)`` clears it; ``callback`` runs in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        # Python has os.timerfd_create only from 3.13 on.
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_BOOTTIME, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._fd, self._fired)

    def set(self, at: float | None) -> None:
        """Arm for ``at`` (boot-clock seconds; a past instant fires at once), or disarm with None."""
        spec = _Itimerspec()
        if at is not None:
            nanoseconds = max(1, int(at * 1e9))
            spec.it_value.tv_sec, spec.it_value.tv_nsec = divmod(nanoseconds, 1_000_000_000)
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _fired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # re-armed between readiness and this call
        self._callback()

    def close(self) -> None:
        """Free the descriptor."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
