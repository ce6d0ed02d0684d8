"""Self-healing: what others undo of the softwire is noticed by notification and put right by the same install.

What rings: netlink for links, addresses, routes and the settings that the kernel announces (forwarding, rp_filter),
nfnetlink for nft tables, the end of the pump's process. Other sysctls (arp_ignore, arp_announce) ring for nobody, and
inotify does not see /proc/sys: they are looked at whenever something else rings, at each renewal, and every ten
minutes.

Our own changes ring too. They are not told apart by sender, since a foreign change in between would be missed: one look
follows them, finds nothing, changes nothing, and so nothing rings any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from b4client.daemon import bell, clock
from b4client.daemon.mendpolicy import Look, MendPolicy, Remark
from b4client.daemon.watch import DeathWatch, Doorbell
from b4client.dataplane import userspace
from b4client.dataplane.apply import Dataplane, DidNotStay
from b4client.dataplane.recirculation import loop_plan
from b4client.dataplane.ruleset import table_name
from b4client.model.errors import DataplaneError
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import SoftwireConfig

RARE_LOOK_S = 600.0
SHUT_SPACING_S = 0.3


class Mender:
    """Keeps the softwire that ``keep`` names. ``in_worker`` runs blocking work in the thread of kernel changes, in
    order with them; ``say`` takes remarks for the operator."""

    def __init__(
        self,
        dataplane: Dataplane,
        settings: SoftwireSettings,
        *,
        run_dir: Any,
        in_worker: Callable[[Callable[[], Any]], Awaitable[Any]],
        start: Callable[[Any], None],
        say: Callable[[Remark], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._dataplane = dataplane
        self._device = settings.device
        self._run_dir = run_dir
        self._in_worker = in_worker
        self._start = start
        self._say = say
        self._policy = MendPolicy()
        self.kept: SoftwireConfig | None = None
        loop = loop_plan(settings.device)
        self._devices = frozenset((settings.device, loop.sender, loop.receiver))
        self._ours = bell.Ours(self._devices, -1, -1, table_name(settings.device))
        self._looking = self._again = self._shut = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._shutter: asyncio.TimerHandle | None = None
        self._undo = contextlib.ExitStack()
        self._pump = DeathWatch(self._loop, self.ring)
        self._undo.callback(self._pump.close)
        for protocol, groups in (
            (bell.NETLINK_ROUTE, bell.SOFTWIRE_GROUPS),
            (bell.NETLINK_NETFILTER, bell.NFTABLES_GROUPS),
        ):
            doorbell = Doorbell(self._loop, self.ring, protocol=protocol, groups=groups, concerns=self._concerns)
            self._undo.callback(doorbell.close)
        self._rare = self._loop.call_later(RARE_LOOK_S, self._ring_rarely)

    # ---- what is to be kept

    def keep(self, config: SoftwireConfig | None) -> None:
        """From now on the kernel is to be as ``config`` wants; None while it is being changed or taken away."""
        self.kept = config
        if config is None:
            self._pump.watch(None)
            return
        self._learn_indices(config)
        self._start(self._watch_pump())
        if self._dataplane.lan_missing:
            self.ring()  # it may have come while nobody listened

    def _learn_indices(self, config: SoftwireConfig) -> None:
        def index(name: str) -> int:
            try:
                return socket.if_nametoindex(name)
            except OSError:
                return -1

        lan = self._dataplane.lan
        self._ours = replace(
            self._ours,
            devices=self._devices | ({lan} if lan else frozenset()),
            index=index(self._device),
            wan_index=index(config.wan),
            lan_index=index(lan) if lan else -1,
        )

    async def _watch_pump(self) -> None:
        pid = await self._in_worker(self._pump_pid)
        if self.kept is not None:
            self._pump.watch(pid)

    def _pump_pid(self) -> int | None:
        pump = userspace.running(self._device, run_dir=self._run_dir)
        return None if pump is None else pump.pid

    # ---- bells

    def _concerns(self, data: bytes) -> bool:
        return self.kept is not None and bell.concerns(data, self._ours)

    def _ring_rarely(self) -> None:
        self._rare = self._loop.call_later(RARE_LOOK_S, self._ring_rarely)
        self.ring()

    def ring(self) -> None:
        """Something may have changed: look, as soon as it may be done."""
        if self.kept is None:
            return
        if self._looking:
            self._again = True
            return
        if self._policy.waiting and not self._shut and self._shutter is None:
            self._shutter = self._loop.call_later(SHUT_SPACING_S, lambda: self._start(self._shut_unguarded()))
        self._look_at(self._policy.earliest())

    def _look_at(self, instant: float) -> None:
        if self._timer is not None:
            if self._timer_at <= instant:
                return
            self._timer.cancel()
        self._timer_at = instant
        self._timer = self._loop.call_later(max(0.0, instant - clock.boot_now()), self._due)

    def _due(self) -> None:
        self._timer = None
        if self.kept is not None and not self._looking:
            self._looking = True
            self._start(self._look())

    # ---- looking and mending

    async def _look(self) -> None:
        config = self.kept
        try:
            look = await self._in_worker(lambda: self._install(config))
        finally:
            self._looking = False
        if look is None:
            return
        self._shut = False
        for remark in self._policy.looked(look, clock.boot_now()):
            self._say(remark)
        if config is not None and self.kept is config:
            if look.repaired:
                self._learn_indices(config)
            self._pump.watch(look.pump_pid)
        retry_at = self._policy.retry_at()
        if retry_at is not None:
            self._look_at(retry_at)
        if self._again:
            self._again = False
            self.ring()

    def _install(self, config: SoftwireConfig | None) -> Look | None:
        """In the worker thread. None when something else was wanted meanwhile."""
        if config is None or self.kept is not config:
            return None
        try:
            applied = self._dataplane.install(config)
        except DidNotStay as error:
            return Look(repaired=error.missing, undone=True, pump_pid=self._pump_pid())
        except DataplaneError as error:
            return Look(problem=str(error), pump_pid=self._pump_pid())
        return Look(repaired=applied.repaired, pump_pid=self._pump_pid())

    async def _shut_unguarded(self) -> None:
        """While repairs are held back: a softwire without its NAT rules must not carry what belongs to others."""
        self._shutter = None
        if self.kept is None or not self._policy.waiting:
            return
        self._shut = bool(await self._in_worker(self._dataplane.shut_unguarded)) or self._shut

    def snapshot(self) -> dict[str, object]:
        """For ``status``."""
        return self._policy.snapshot(clock.boot_now())

    def close(self) -> None:
        """Free sockets and timers."""
        self.kept = None
        self._rare.cancel()
        for timer in (self._timer, self._shutter):
            if timer is not None:
                timer.cancel()
        self._undo.close()
