"""The daemon: feeds events to the agent, carries its effects out in order, and keeps one timer.

Everything that decides is in ``protocol``; everything that touches the kernel's configuration runs in one worker
thread, in the order in which it was asked for.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
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
from pathlib import Path
from typing import Any, TextIO, TypeVar

import tenacity

import b4client
from b4client import api
from b4client.config import Config
from b4client.daemon import clock, logs, notify, resolver
from b4client.daemon.control import ControlServer
from b4client.daemon.sockets import WanSocket
from b4client.daemon.store import Store
from b4client.daemon.wanside import WanSide
from b4client.daemon.watch import Doorbell
from b4client.dataplane import rtnl
from b4client.dataplane.apply import Dataplane
from b4client.model.errors import ControlError, DataplaneError
from b4client.protocol import effects, events
from b4client.protocol.agent import Agent

log = logging.getLogger("b4client")

RECENT_REPORTS = 200
STOP_TIMEOUT_S = 10.0

T = TypeVar("T")


class Daemon:
    """One b4client instance: one WAN interface, one lease, one softwire."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._dataplane = Dataplane(config.softwire, state_dir=config.daemon.run_dir)
        # Not a daemon thread's pool of many: the order of kernel changes is the order of the effects.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._queue: collections.deque[events.Event] = collections.deque()
        self._stepping = False
        self._link: rtnl.LinkState | None = None
        self._recent: collections.deque[dict[str, Any]] = collections.deque(maxlen=RECENT_REPORTS)
        self._timings: dict[str, float] = {"started_at": _process_started_at()}
        self._jobs: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._stop_policy = config.daemon.stop

    # ---- life

    async def run(self) -> None:
        """Run until told to stop. Raises DataplaneError when the machine cannot do the work at all."""
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        settings = self._config
        with contextlib.ExitStack() as undo:
            undo.callback(self._worker.shutdown, wait=True)
            undo.enter_context(_instance_lock(settings.daemon.run_dir, settings.instance))
            self._dataplane.prepare()
            undo.callback(self._dataplane.close)
            self._link = await self._in_worker(self._wait_for_interface)
            store = Store(
                settings.daemon.state_dir,
                settings.instance,
                boot_now=clock.boot_now,
                wall_now=time.time,
                boot_id=clock.boot_id(),
            )
            self._store = store
            self._wan = WanSide(settings, self._report)
            binding = await self._in_worker(self._wan.binding)
            protocol = settings.protocol
            hardware = protocol.hardware_address or self._link.hardware_address or b""
            self._agent = Agent(
                protocol,
                wan=settings.wan,
                mtu=settings.softwire.mtu,
                forwards=settings.softwire.forwards,
                duid=protocol.duid or store.duid(hardware or None),
                # The interface's name outlives its index (RFC 8415 12: the IAID must be the same after a restart).
                iaid=zlib.crc32(settings.wan.encode()) if protocol.iaid is None else protocol.iaid,
                hardware_address=hardware,
                stored=store.load_lease(),
                binding=binding,
                rng=random.Random(int.from_bytes(os.urandom(16), "big")),  # noqa: S311 - xids and jitter
            )
            self._control = ControlServer(settings.daemon.run_dir / f"{settings.instance}.sock", self._commands())
            self._socket: WanSocket | None = self._wan.open_socket(self._loop, self._received)
            undo.callback(self._close_socket)
            self._socket.guard(self._link.addresses)
            self._timer = clock.BootTimer(self._loop, lambda: self.post(events.Woke()))
            undo.callback(self._timer.close)
            doorbell = Doorbell(self._loop, lambda: self._start(self._look_at_link()))
            undo.callback(doorbell.close)
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self.stop)
            await self._control.start()
            try:
                self.post(self._link_event(self._link, moved=False))
                if (handed_over := self._wan.handed_over()) is not None:
                    self.post(handed_over)
                self._start(self._check_machine())
                self._start(self._feed_watchdog())
                notify.notify("READY=1")
                await self._finished.wait()
                if self._failure is None:
                    await self._wind_up()
            finally:
                notify.notify("STOPPING=1")
                for job in list(self._jobs):
                    job.cancel()
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
        pending = [job for job in self._jobs if job.get_name() == "kernel"]
        if pending:
            await asyncio.wait(pending, timeout=STOP_TIMEOUT_S)

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
                for effect in self._agent.handle(self._queue.popleft(), now):
                    self._carry_out(effect)
            self._timer.set(self._agent.deadline())
        except BaseException as error:  # a bug ends the process; the softwire stays, the supervisor starts it again
            self._fail(error)
        finally:
            self._stepping = False

    def _carry_out(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Send():
                self._send(effect)
            case effects.SaveLease(lease, source):
                self._store.save_lease(lease, source)
            case effects.ForgetLease():
                self._store.forget_lease()
            case effects.Install(config):
                self._timings["install_asked_at"] = clock.boot_now()
                self._start(self._kernel_job(lambda: self._install(config)), name="kernel")
            case effects.PrepareAddress(address):
                self._start(self._kernel_job(lambda: self._prepare_address(address)), name="kernel")
            case effects.Resolve(name):
                resolver.resolve(name, lambda event: self._loop.call_soon_threadsafe(self.post, event))
            case effects.Withdraw():
                self._start(self._kernel_job(self._withdraw), name="kernel")
            case effects.ConfigureWan(lease):
                self._start(self._kernel_job(lambda: self._wan.configure(lease)), name="kernel")
            case effects.SaveBinding(binding):
                self._wan.save(binding)
            case effects.Report():
                self._report(effect)

    def _send(self, effect: effects.Send) -> None:
        try:
            if self._socket is None:
                raise OSError(0, "the WAN interface is gone")
            self._socket.send(effect.data, effect.destination, effect.source)
        except OSError as error:
            self.post(events.SendFailed(f"{effect.destination}: {error.strerror}"))

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
        self._recent.append(event)
        self._control.publish(event)
        self._timings.setdefault(f"first_{report.kind}_at", clock.boot_now())
        if report.level != "debug":
            notify.notify(f"STATUS={report.text}")

    # ---- the kernel, in the worker thread

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._worker, work)

    async def _kernel_job(self, work: Callable[[], events.Event | None]) -> None:
        event = await self._in_worker(work)
        if event is not None:
            self.post(event)

    def _install(self, config: Any) -> events.Event:
        started = clock.boot_now()
        try:
            self._dataplane.install(config)
        except DataplaneError as error:
            return events.InstallFailed(config, str(error))
        self._timings["install_s"] = clock.boot_now() - started
        self._timings.setdefault("first_installed_at", clock.boot_now())
        return events.Installed(config)

    def _prepare_address(self, address: IPv6Address) -> events.Event:
        try:
            self._dataplane.prepare_address(self._config.wan, address)
        except DataplaneError as error:
            return events.AddressFailed(address, str(error))
        return events.AddressReady(address)

    def _withdraw(self) -> None:
        try:
            self._dataplane.withdraw()
        except DataplaneError as error:
            log.error("the softwire could not be taken away: %s", error)

    def _wait_for_interface(self) -> rtnl.LinkState:
        """The WAN as it is, after waiting a while for it to appear. Raises DataplaneError naming what there is."""
        wan = self._config.wan
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda link: link is None),
            stop=tenacity.stop_after_delay(self._config.daemon.interface_wait_s),
            wait=tenacity.wait_fixed(0.2),
            retry_error_callback=lambda _: None,
        )
        link: rtnl.LinkState | None = retry(self._observe_link)
        if link is not None:
            return link
        present = ", ".join(sorted(p.name for p in Path("/sys/class/net").glob("*"))) or "none"
        raise DataplaneError(
            f"use {wan} as the WAN",
            "no such interface",
            remedy=f"Interfaces here: {present}. Name one with --wan or wan.interface.",
        )

    async def _check_machine(self) -> None:
        """The checks that need no answer before the first message: they run while it is on its way."""
        await self._in_worker(self._dataplane.probe)

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.close()

    async def _look_at_link(self) -> None:
        old, new = self._link, await self._in_worker(self._observe_link)
        if new == old:
            return
        self._link = new
        replaced = new is not None and (self._socket is None or self._socket.index != new.index)
        if new is None or replaced:
            self._close_socket()
            self._socket = self._wan.open_socket(self._loop, self._received) if new is not None else None
        if self._socket is not None and new is not None:
            self._socket.guard(new.addresses)
        moved = new is not None and new.up and (replaced or old is None or not old.up)
        self.post(self._link_event(new, moved=moved))

    def _observe_link(self) -> rtnl.LinkState | None:
        """The WAN without the addresses that are there because of us: they say nothing about the provider."""
        link, own = rtnl.observe_link(self._config.wan), self._dataplane.own_addresses()
        return link and replace(link, addresses=tuple(a for a in link.addresses if a not in own))

    @staticmethod
    def _link_event(link: rtnl.LinkState | None, *, moved: bool) -> events.LinkChanged:
        if link is None:
            return events.LinkChanged(False, None, ())
        return events.LinkChanged(link.up, link.link_local, link.addresses, moved)

    # ---- jobs

    def _start(self, work: Any, name: str | None = None) -> None:
        job: asyncio.Task[None] = self._loop.create_task(work, name=name)
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

    # ---- control

    def _commands(self) -> dict[str, Any]:
        async def status(_: dict[str, Any]) -> dict[str, Any]:
            return {"text": "status", "arguments": await self._status()}

        async def recent(_: dict[str, Any]) -> dict[str, Any]:
            return {"text": "recent events", "arguments": {"events": list(self._recent)}}

        def event(make: Callable[[], events.Event], text: str) -> Any:
            async def handler(_: dict[str, Any]) -> dict[str, Any]:
                self.post(make())
                return {"text": text, "arguments": {"state": self._agent.snapshot(clock.boot_now()).state}}

            return handler

        async def stop(arguments: dict[str, Any]) -> dict[str, Any]:
            policy = arguments.get("policy", "withdraw")
            if policy not in ("keep", "withdraw", "release"):
                raise ControlError("policy must be keep, withdraw or release")
            # After the answer has been written.
            self._loop.call_later(0.01, self.stop, policy)
            return {"text": f"stopping ({policy})", "arguments": {"pid": os.getpid()}}

        async def log_level(arguments: dict[str, Any]) -> dict[str, Any]:
            level = arguments.get("level")
            if level not in logs.LEVELS:
                raise ControlError(f"level must be one of {', '.join(logs.LEVELS)}")
            logging.getLogger("b4client").setLevel(logs.LEVELS[str(level)])
            return {"text": f"log level {level}", "arguments": {}}

        async def provision(arguments: dict[str, Any]) -> dict[str, Any]:
            self.post(self._wan.provision(arguments))
            state = self._agent.snapshot(clock.boot_now())
            return {"text": "taken over", "arguments": {"provisioning": api.jsonable(state.provisioning)}}

        return {
            "provision": provision,
            "status": status,
            "recent": recent,
            "renew": event(events.RenewRequested, "renewing"),
            "rebind": event(events.RebindRequested, "rebinding"),
            "release": event(events.ReleaseRequested, "released"),
            "restart": event(events.RestartRequested, "starting anew"),
            "stop": stop,
            "log-level": log_level,
        }

    async def _status(self) -> dict[str, Any]:
        def observe() -> Any:
            try:
                return api.jsonable(self._dataplane.observe())
            except DataplaneError as error:
                return {"error": str(error)}

        now = clock.boot_now()
        machine = api.jsonable(self._agent.snapshot(now))
        return {
            "version": b4client.__version__,
            "api_version": api.VERSION,
            "instance": self._config.instance,
            "pid": os.getpid(),
            "uptime_s": round(now - self._timings["started_at"], 3),
            "wan": {"interface": self._config.wan, **(api.jsonable(self._link) or {})},
            **machine,
            "dataplane": await self._in_worker(observe),
            "store_problem": self._store.problem,
            "timings": api.jsonable(self._timings),
        }


def _process_started_at() -> float:
    """When this process was started, on the boot clock (10 ms grain: clock ticks)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return clock.boot_now()


@contextlib.contextmanager
def _instance_lock(run_dir: Path, instance: str) -> Any:
    """Hold the instance's lock: two daemons on one WAN would undo each other's work."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file: TextIO = (run_dir / f"{instance}.lock").open("a+", encoding="ascii")
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
            raise DataplaneError(
                f"run on {instance}",
                f"b4client is running there already (pid {owner or 'unknown'})",
                remedy=f"Stop it with: b4client stop --instance {instance}",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
