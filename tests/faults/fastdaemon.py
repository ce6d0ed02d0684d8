"""``b4client`` with a boot clock that runs faster: ``fastdaemon.py FACTOR run ...``. Hours pass in seconds.

The driver is the real one; its clock and its timer are put in another gear where it asks for them.
"""

from __future__ import annotations

import sys

from b4client.daemon import lean

lean.leave_out_openssl()  # as ``b4client run`` does, before what would load it

import asyncio  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

from b4client.daemon import clock  # noqa: E402


def speed_up(factor: float) -> None:
    """From now on the boot clock runs ``factor`` times as fast as it does."""
    origin = time.clock_gettime(time.CLOCK_BOOTTIME)
    timer = clock.BootTimer

    def boot_now() -> float:
        return origin + (time.clock_gettime(time.CLOCK_BOOTTIME) - origin) * factor

    class FastTimer(timer):  # type: ignore[misc, valid-type]
        def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
            super().__init__(loop, callback)

        def set(self, at: float | None) -> None:
            super().set(None if at is None else origin + max(0.0, at - origin) / factor)

    clock.boot_now, clock.BootTimer = boot_now, FastTimer  # type: ignore[assignment, misc]


if __name__ == "__main__":
    speed_up(float(sys.argv.pop(1)))
    from b4client.cli import main

    sys.exit(main())
