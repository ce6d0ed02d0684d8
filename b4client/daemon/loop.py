"""The daemon: feeds events to the agent, carries its effects out in order, and keeps one timer.

Everything that decides is in ``protocol``; everything that touches the kernel's configuration runs in one worker
thread, in the order in which it was asked for.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import random
import signal
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, TypeVar

from b4client import api
from b4client.config import Config, MetricsSettings
from b4client.daemon import allocator, clock, logs, notify, privileges, resolver
from b4client.daemon.commands import commands, render_metrics
from b4client.daemon.control import ControlServer
from b4client.daemon.forwards import Forwards
from b4client.daemon.instance import device_lock, instance_lock, process_started_at, wait_for_interface
from b4client.daemon.mend import Mender
from b4client.daemon.neighbourhood import Neighbourhood
from b4client.daemon.portwatch import PortWatch
from b4client.daemon.reload import Changes, compare
from b4client.daemon.sockets import WanSocket
from b4client.daemon.store import Store
from b4client.daemon.wanside import WanSide
from b4client.daemon.watch import Doorbell
from b4client.dataplane import rtaddr, rtlink
from b4client.dataplane.apply import Dataplane
from b4client.model.errors import ConfigError, DataplaneError
from b4client.model.lease import Lease4
from b4client.model.softwire import SoftwireConfig
from b4client.protocol import effects, events
from b4client.protocol.agent import Agent

if TYPE_CHECKING:
    from b4client.daemon.exporter import Exporter
    from b4client.daemon.hooks import Hooks

log = logging.getLogger("b4client")

RECENT_REPORTS = 200
STOP_TIMEOUT_S = 10.0
ADDRESS_HOLD_S = 180.0
"""How long an address that was prepared for a softwire waits for it before mending goes on without it."""

T = TypeVar("T")


class Daemon:
    """One b4client instance: one WAN interface, one lease, one softwire."""

    def __init__(self, config: Config, load: Callable[[], Config] | None = None) -> None:
        """``load`` reads the configuration again, for a reload; raises ConfigError."""
        self.config = config
        self._load = load or (lambda: config)
        self.dataplane = Dataplane(config.softwire, state_dir=config.daemon.run_dir)
        # Not a daemon thread's pool of many: the order of kernel changes is the order of the effects.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._queue: collections.deque[events.Event] = collections.deque()
        self._stepping = False
        self.link: rtlink.LinkState | None = None
        self.recent: collections.deque[dict[str, Any]] = collections.deque(maxlen=RECENT_REPORTS)
        self.events: collections.Counter[str] = collections.Counter()
        self.timings: dict[str, float] = {"started_at": process_started_at()}
        self._jobs: set[asyncio.Task[None]] = set()
        self._kernel_jobs = self.installs = self._changes = 0
        self._failure: BaseException | None = None
        self._stop_policy = config.daemon.stop
        self.confined = False
        self.hooks: Hooks | None = None
        self._exporter: Exporter | None = None
        self._lease: Lease4 | None = None

    # ---- life

    async def run(self) -> None:
        """Run until told to stop. Raises DataplaneError when the machine cannot do the work at all."""
        self.loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        settings = self.config
        with contextlib.ExitStack() as undo:
            undo.callback(self._worker.shutdown, wait=True)
            undo.enter_context(instance_lock(settings.daemon.run_dir, settings.instance))
            undo.enter_context(device_lock(settings.daemon.run_dir, settings.softwire.device))
            self.dataplane.prepare()
            undo.callback(self.dataplane.close)
            store = Store(
                settings.daemon.state_dir,
                settings.instance,
                boot_now=clock.boot_now,
                wall_now=time.time,
                boot_id=clock.boot_id(),
            )
            self.store = store
            self.wan_side = WanSide(settings, self._report)
            kept = settings.daemon.state_dir / f"{settings.instance}.forwards.json"
            self.forwards = Forwards(settings.softwire.forwards, kept, self._report)
            self.port_watch = PortWatch(self)
            # Threads of their own: those that do the work are made with the privileges that are left by then.
            with ThreadPoolExecutor(2) as early:
                # What the machine can do is known before the ACK, which may be there a few milliseconds after this.
                wait_s = settings.daemon.interface_wait_s
                link, _ = await asyncio.gather(
                    self.loop.run_in_executor(early, wait_for_interface, settings.wan, wait_s, self._observe_link),
                    self.loop.run_in_executor(early, self.dataplane.probe),
                )
                self.link = link
                binding = await self.loop.run_in_executor(early, self.wan_side.binding)
            protocol = settings.protocol
            hardware = protocol.hardware_address or link.hardware_address or b""
            self.agent = Agent(
                protocol,
                wan=settings.wan,
                mtu=settings.softwire.mtu,
                forwards=self.forwards.wanted,
                duid=protocol.duid or store.duid(hardware or None),
                # The interface's name outlives its index (RFC 8415 12: the IAID must be the same after a restart).
                iaid=zlib.crc32(settings.wan.encode()) if protocol.iaid is None else protocol.iaid,
                hardware_address=hardware,
                stored=store.load_lease(),
                binding=binding,
                rng=random.Random(int.from_bytes(os.urandom(16), "big")),  # noqa: S311 - xids and jitter
            )
            self._control = ControlServer(settings.daemon.run_dir / f"{settings.instance}.sock", commands(self))
            self._socket: WanSocket | None = self.wan_side.open_socket(self.loop, self._received)
            undo.callback(self._close_socket)
            self._socket.guard(link.addresses)
            self.confined = privileges.settle(settings)
            self._timer = clock.BootTimer(self.loop, lambda: self.post(events.Woke()))
            undo.callback(self._timer.close)
            self.mender = Mender(
                self.dataplane,
                settings.softwire,
                run_dir=settings.daemon.run_dir,
                in_worker=self.in_worker,
                start=lambda work: self._start(work, name="mending"),
                say=lambda remark: self._report(effects.Report(remark.kind, remark.level, remark.text)),
            )
            undo.callback(self.mender.close)
            self.neighbourhood = Neighbourhood(self.dataplane, in_worker=self.in_worker, say=self._report)
            doorbell = Doorbell(self.loop, lambda: self._start(self._look_at_link()))
            undo.callback(doorbell.close)
            for number in (signal.SIGTERM, signal.SIGINT):
                self.loop.add_signal_handler(number, self.stop)
            self.loop.add_signal_handler(signal.SIGHUP, lambda: self._start(self._reload_by_signal()))
            await self._control.start()
            try:
                self.post(self._link_event(self.link, moved=False))
                if (handed_over := self.wan_side.handed_over()) is not None:
                    self.post(handed_over)
                self._start(self._feed_watchdog())
                notify.notify("READY=1")
                await self._export(settings.metrics)
                await self._finished.wait()
                if self._failure is None:
                    await self._wind_up()
            finally:
                notify.notify("STOPPING=1")
                for job in list(self._jobs):
                    job.cancel()
                for teller in (self.hooks, self._exporter):
                    if teller is not None:
                        await teller.close()
                await self._control.close()
        if self._failure is not None:
            raise self._failure

    def stop(self, policy: str | None = None) -> None:
        """End: keep the softwire, withdraw it, or release the lease. The second call does not wait."""
        if self._finished.is_set():
            raise SystemExit(130)
        self._stop_policy = policy or self._stop_policy
        self._finished.set()

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._finished.set()

    async def _wind_up(self) -> None:
        policy = self._stop_policy
        log.info("stopping (%s)", policy)
        self.post(events.StopRequested(withdraw=policy != "keep", release=policy == "release"))
        await self.kernel_settled()
        if self.hooks is not None:
            await self.hooks.settle()

    # ---- reload

    async def reload(self) -> Changes:
        """Read the configuration again and change what has changed. Raises ConfigError; then everything stays."""
        try:
            changes = compare(self.config, await asyncio.to_thread(self._load))
        except ConfigError as error:
            self._report(effects.Report("reload-refused", "error", f"the configuration cannot be used: {error}"))
            raise
        old, new = self.config, changes.config
        self.config = new
        self._stop_policy = new.daemon.stop
        if (old.daemon.log_level, old.daemon.log_format) != (new.daemon.log_level, new.daemon.log_format):
            logs.setup(new.daemon.log_level, new.daemon.log_format, journal="JOURNAL_STREAM" in os.environ)
        if (old.protocol, old.softwire) != (new.protocol, new.softwire):
            await self.in_worker(lambda: self.dataplane.configure(new.softwire))
            installs, kept = self.installs, self.mender.kept
            self.forwards.configured = new.softwire.forwards
            self.post(self.settings_event())
            self.forwards.follow(self.forwards.in_force)
            if self.installs == installs and kept is not None and self.mender.kept is kept:
                # The machine has no part in what has changed (timeouts, routes); the kernel has.
                self._start(self._kernel_job(lambda: self._install(kept)), name="kernel")
        if self.hooks is not None:
            self.hooks.settings = new.hooks
        await self._export(new.metrics)
        level = "warning" if changes.restart else "info"
        self._report(effects.Report("reloaded", level, f"configuration read again, {changes.text}"))
        return changes

    def settings_event(self) -> events.SettingsChanged:
        """The settings in force, for the machine."""
        return events.SettingsChanged(self.config.protocol, self.config.softwire.mtu, self.forwards.wanted)

    async def kernel_settled(self) -> None:
        """Return when the kernel has been given all that was wanted until now."""
        if pending := [job for job in self._jobs if job.get_name() == "kernel"]:
            await asyncio.wait(pending, timeout=STOP_TIMEOUT_S)

    async def _reload_by_signal(self) -> None:
        with contextlib.suppress(ConfigError):  # it has been reported
            await self.reload()

    # ---- the machine

    def post(self, event: events.Event) -> None:
        """Give one event to the machine and carry out what it wants, then arm the timer for its deadline."""
        self._queue.append(event)
        if self._stepping:
            return  # an effect of the present step; it is taken up when that step is done
        self._stepping = True
        try:
            while self._queue:
                now = clock.boot_now()
                for effect in self.agent.handle(self._queue.popleft(), now):
                    self._carry_out(effect)
            self._timer.set(self.agent.deadline())
        except BaseException as error:  # a bug ends the process; the softwire stays, the supervisor starts it again
            self._fail(error)
        finally:
            self._stepping = False

    def _carry_out(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Send(after_kernel=True):
                self._start(self._send_later(effect), name="kernel")
            case effects.Send():
                self._send(effect)
            case effects.SaveLease(lease, source):
                self._lease = lease
                self.store.save_lease(lease, source)
                if self.mender.kept is not None:
                    self._tell_hooks(self.mender.kept)
            case effects.ForgetLease():
                self.store.forget_lease()
            case effects.Install(config):
                self.installs += 1
                self._changes += 1
                self.timings["install_asked_at"] = clock.boot_now()
                self._start(self._kernel_job(lambda: self._install(config)), name="kernel")
            case effects.PrepareAddress(address):
                self._start(self._address_job(address), name="kernel")
            case effects.Resolve(name):
                resolver.resolve(name, lambda event: self.loop.call_soon_threadsafe(self.post, event))
            case effects.Withdraw():
                self._lease = None
                self._changes += 1
                self._start(self._withdraw_job(), name="kernel")
            case effects.ConfigureWan(lease):
                self._start(self._wan_job(lambda: self.wan_side.configure(lease)), name="kernel")
            case effects.SaveBinding(binding):
                self.wan_side.save(binding)
            case effects.Report():
                self._report(effect)

    def _send(self, effect: effects.Send) -> None:
        if (reason := self._try_to_send(effect)) is not None:
            self.post(events.SendFailed(reason))

    async def _send_later(self, effect: effects.Send) -> None:
        """In the worker thread: between the changes that were asked for before and after it."""
        reason = await self.in_worker(lambda: self._try_to_send(effect))
        if reason is not None:
            self.post(events.SendFailed(reason))

    def _try_to_send(self, effect: effects.Send) -> str | None:
        """Why it could not be sent; None when it was."""
        try:
            if self._socket is None:
                raise OSError(0, "the WAN interface is gone")
            self._socket.send(effect.data, effect.destination, effect.source)
        except OSError as error:
            return f"{effect.destination}: {error.strerror}"
        return None

    def _received(self, data: bytes, source: IPv6Address) -> None:
        self.post(events.DatagramReceived(data, source))

    def _report(self, report: effects.Report) -> None:
        facts = dict(report.fields)
        log.log(
            logs.LEVELS.get(report.level, logging.INFO),
            "%s",
            report.text,
            extra={"report": {"kind": report.kind, **facts}},
        )
        event = {
            "time": round(time.time(), 6),
            "kind": report.kind,
            "level": report.level,
            "text": report.text,
            "fields": api.jsonable(facts),
        }
        self.recent.append(event)
        self.events[report.kind] += 1
        self._control.publish(event)
        self.timings.setdefault(f"first_{report.kind}_at", clock.boot_now())
        if report.kind == "renewed":
            self.mender.ring()  # what changed unannounced is looked for while we are awake anyhow
        if report.level != "debug":
            notify.notify(f"STATUS={report.text}")

    # ---- the kernel, in the worker thread

    async def in_worker(self, work: Callable[[], T]) -> T:
        return await self.loop.run_in_executor(self._worker, work)

    async def _kernel_job(self, work: Callable[[], events.Event | None]) -> None:
        # From when it is asked for until it is done (and nothing else is asked for) nobody else mends.
        self._kernel_jobs += 1
        self.mender.keep(None)
        try:
            event = await self.in_worker(work)
        finally:
            self._kernel_jobs -= 1
        if isinstance(event, events.Installed) and not self._kernel_jobs:
            self.mender.keep(event.config)
            self._tell_hooks(event.config)
            self.forwards.follow(event.config)
        if event is not None:
            self.post(event)
        if isinstance(event, events.Installed):
            await self.in_worker(self.dataplane.note_listing)
            await self.in_worker(allocator.give_back)
            if not self._kernel_jobs:
                await self.neighbourhood.look(event.config)

    async def _address_job(self, address: IPv6Address) -> None:
        # A mend would take away the address that nothing uses yet. Where no softwire follows, the present one stays.
        kept, changes = self.mender.kept, self._changes
        await self._kernel_job(lambda: self._prepare_address(address))

        def keep_again() -> None:
            if self._changes == changes and self.mender.kept is None and not self._kernel_jobs:
                self.mender.keep(kept)

        self.loop.call_later(ADDRESS_HOLD_S, keep_again)

    async def _wan_job(self, work: Callable[[], events.Event | None]) -> None:
        event = await self.in_worker(work)
        if event is not None:
            self.post(event)

    def _install(self, config: Any) -> events.Event:
        started = clock.boot_now()
        try:
            self.dataplane.install(config, list_later=True)
        except DataplaneError as error:
            return events.InstallFailed(config, str(error))
        self.timings["install_s"] = clock.boot_now() - started
        self.timings.setdefault("first_installed_at", clock.boot_now())
        return events.Installed(config)

    def _tell_hooks(self, config: SoftwireConfig | None) -> None:
        if self.config.hooks.script is None and self.config.hooks.dns == "none":
            return  # as most are: what they need is not even loaded
        from b4client.daemon.hookenv import tell
        from b4client.daemon.hooks import Hooks

        if self.hooks is None:
            self.hooks = Hooks(self.config.hooks)
        device = self.config.softwire.device
        self.hooks.update(None if config is None else tell(config, self._lease, device=device))

    async def _withdraw_job(self) -> None:
        await self._kernel_job(self._withdraw)
        if not self._kernel_jobs:
            await self.neighbourhood.look(None)
            self._tell_hooks(None)
            self.forwards.follow(None)

    def _prepare_address(self, address: IPv6Address) -> events.Event:
        try:
            self.dataplane.prepare_address(self.config.wan, address)
        except DataplaneError as error:
            return events.AddressFailed(address, str(error))
        return events.AddressReady(address)

    def _withdraw(self) -> None:
        try:
            self.dataplane.withdraw()
        except DataplaneError as error:
            log.error("the softwire could not be taken away: %s", error)

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()

    async def _look_at_link(self) -> None:
        old, new = self.link, await self.in_worker(self._observe_link)
        if new == old:
            return
        self.link = new
        replaced = new is not None and (self._socket is None or self._socket.index != new.index)
        if new is None or replaced:
            self._close_socket()
            self._socket = self.wan_side.open_socket(self.loop, self._received) if new is not None else None
        if self._socket is not None and new is not None:
            self._socket.guard(new.addresses)
        moved = new is not None and new.up and (replaced or old is None or not old.up)
        self.post(self._link_event(new, moved=moved))
        self.mender.ring()  # the softwire's route comes and goes with the WAN's carrier

    def _observe_link(self) -> rtlink.LinkState | None:
        """The WAN without the addresses that are there because of us: they say nothing about the provider."""
        link, own = rtlink.observe_link(self.config.wan), self.dataplane.own_addresses()
        if link is None:
            return None
        addresses = tuple(a for a in link.addresses if a not in own)
        elsewhere = () if addresses else rtaddr.addresses6_elsewhere(link.index)
        return replace(link, addresses=addresses, elsewhere=elsewhere)

    @staticmethod
    def _link_event(link: rtlink.LinkState | None, *, moved: bool) -> events.LinkChanged:
        if link is None:
            return events.LinkChanged(False, None, ())
        return events.LinkChanged(link.up, link.link_local, link.addresses, moved, link.elsewhere)

    async def _export(self, settings: MetricsSettings) -> None:
        """Have metrics served as ``settings`` say."""
        if self._exporter is None and settings == MetricsSettings():
            return
        from b4client.daemon.exporter import Exporter

        async def render() -> str:
            return await render_metrics(self)

        if self._exporter is None:
            self._exporter = Exporter(render)
        await self._exporter.configure(settings)

    # ---- jobs

    def _start(self, work: Any, name: str | None = None) -> None:
        job: asyncio.Task[None] = self.loop.create_task(work, name=name)
        self._jobs.add(job)
        job.add_done_callback(self._job_done)

    def _job_done(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            self._fail(error)

    async def _feed_watchdog(self) -> None:
        interval = notify.watchdog_interval_s()
        while interval is not None:
            notify.notify("WATCHDOG=1")
            await asyncio.sleep(interval)
