"""How the port set is used, looked at when somebody asks: ``b4client ports`` and whoever scrapes metrics.

Nothing is polled. A look is a dump of conntrack in a thread of its own, one at a time; whoever asks while it runs, or
sooner after it than GAP_S (or four times what it took), gets the same answer, so that many who ask cost no more than
one. The peaks are those that were seen by the looks since the daemon was started, no more.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from b4client import api
from b4client.daemon import clock
from b4client.model.errors import ControlError, DataplaneError
from b4client.model.portset import PORT_MAX
from b4client.model.softwire import Mode, SoftwireConfig
from b4client.protocol.status import PortsStatus

if TYPE_CHECKING:
    from b4client.daemon.loop import Daemon

GAP_S = 1.0
SHARE = 4.0
"""A look that takes long is rarer: at least this many times what it took, from one to the next."""


class PortWatch:
    """The looks of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._looking: asyncio.Task[dict[str, Any]] | None = None
        self._last: dict[str, Any] | None = None
        self._of: SoftwireConfig | None = None
        self._not_before = 0.0
        self._peaks: dict[str, dict[str, float]] = {}
        self._looks = 0

    async def look(self) -> dict[str, Any]:
        """The present use, for the control socket. Raises ControlError when there is nothing to look at."""
        config = self._daemon.forwards.in_force
        if config is None:
            raise ControlError("there is no softwire, and so no ports in use; b4client status says what is waited for")
        if config.mode is Mode.DS_LITE:
            raise ControlError("with DS-Lite the ports are the AFTR's: nothing is translated here")
        if self._last is not None and self._of == config and clock.boot_now() < self._not_before:
            return self._last
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(config))
        # Who asked may go away; the others wait for the same look.
        return await asyncio.shield(self._looking)

    async def summary(self, *, fresh: bool) -> dict[str, Any] | None:
        """What the latest look counted, for ``status``; ``fresh`` looks first. None: nobody has looked."""
        if fresh:
            try:
                await self.look()
            except ControlError:
                return None
        if self._last is None or self._of != self._daemon.forwards.in_force:
            return None
        counted = ("used", "time_wait", "forwarded", "free", "flows", "peak")
        protocols = {name: {k: use[k] for k in counted} for name, use in self._last["protocols"].items()}
        return {"time": self._last["time"], "looks": self._looks, "protocols": protocols}

    async def _look(self, config: SoftwireConfig) -> dict[str, Any]:
        from b4client.dataplane import ctdump, portuse  # many a daemon is never asked

        started, wall = clock.boot_now(), time.time()
        forwarded = [f.port for f in config.forwards]
        try:
            found = await asyncio.to_thread(
                lambda: portuse.tally(ctdump.flows(config.ipv4), config.ipv4, config.ports, forwarded)
            )
            counters = (await self._daemon.in_worker(self._daemon.dataplane.observe)).counters
        except DataplaneError as error:
            raise ControlError(f"cannot {error}") from None
        self._looks += 1
        took = clock.boot_now() - started
        plain: dict[str, Any] = api.jsonable(found)
        for name, use in plain["protocols"].items():
            busy = use["used"] + use["time_wait"]
            peak = self._peaks.setdefault(name, {"ports": 0, "time": wall})
            if busy > peak["ports"]:
                peak.update(ports=busy, time=round(wall, 3))
            use["peak"] = peak["ports"]
        ports = config.ports
        self._last = {
            "time": round(wall, 3),
            "took_s": round(took, 6),
            "looks": self._looks,
            "address": str(config.ipv4),
            "ports": None if ports is None else api.jsonable(PortsStatus.of(ports)),
            "port_count": PORT_MAX + 1 if ports is None else ports.port_count,
            **plain,
            "complete": found.flows < ctdump.MAX_FLOWS,
            "counters": {name: value["packets"] for name, value in counters.items()},
        }
        self._of = config
        self._not_before = clock.boot_now() + max(GAP_S, SHARE * took) - 0.05
        return self._last
