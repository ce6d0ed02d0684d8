"""What the control socket's commands do. Read verbs never enter the state machine; the others become events."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import b4client
from b4client import api
from b4client.config import STOP_POLICIES
from b4client.daemon import clock, logs, privileges
from b4client.daemon.control import Handler
from b4client.daemon.forwardcommands import forward_commands
from b4client.model.errors import ConfigError, ControlError, DataplaneError
from b4client.protocol import events

if TYPE_CHECKING:
    from b4client.daemon.loop import Daemon


def commands(daemon: Daemon) -> dict[str, Handler]:
    """The commands by name; ``monitor`` is the control server's own."""

    async def answer_status(_: dict[str, Any]) -> dict[str, Any]:
        return {"text": "status", "arguments": await status(daemon)}

    async def answer_metrics(_: dict[str, Any]) -> dict[str, Any]:
        return {"text": "metrics", "arguments": {"metrics": await render_metrics(daemon)}}

    async def recent(_: dict[str, Any]) -> dict[str, Any]:
        return {"text": "recent events", "arguments": {"events": list(daemon.recent)}}

    def event(make: Callable[[], events.Event], text: str) -> Handler:
        async def handler(_: dict[str, Any]) -> dict[str, Any]:
            daemon.post(make())
            return {"text": text, "arguments": {"state": daemon.agent.snapshot(clock.boot_now()).state}}

        return handler

    async def stop(arguments: dict[str, Any]) -> dict[str, Any]:
        policy = arguments.get("policy", "withdraw")
        if policy not in STOP_POLICIES:
            raise ControlError("policy must be keep, withdraw or release")
        # After the answer has been written.
        daemon.loop.call_later(0.01, daemon.stop, policy)
        return {"text": f"stopping ({policy})", "arguments": {"pid": os.getpid()}}

    async def log_level(arguments: dict[str, Any]) -> dict[str, Any]:
        level = arguments.get("level")
        if level not in logs.LEVELS:
            raise ControlError(f"level must be one of {', '.join(logs.LEVELS)}")
        logging.getLogger("b4client").setLevel(logs.LEVELS[str(level)])
        return {"text": f"log level {level}", "arguments": {"level": level}}

    async def provision(arguments: dict[str, Any]) -> dict[str, Any]:
        daemon.post(daemon.wan_side.provision(arguments))
        state = daemon.agent.snapshot(clock.boot_now())
        return {"text": "taken over", "arguments": {"provisioning": api.jsonable(state.provisioning)}}

    async def reload(_: dict[str, Any]) -> dict[str, Any]:
        try:
            changes = await daemon.reload()
        except ConfigError as error:
            raise ControlError(f"the configuration cannot be used, the old one stays in force: {error}") from None
        return {"text": changes.text, "arguments": {"changed": changes.changed, "needs_restart": changes.restart}}

    async def ports(_: dict[str, Any]) -> dict[str, Any]:
        return {"text": "ports", "arguments": await daemon.port_watch.look()}

    return {
        **forward_commands(daemon),
        "ports": ports,
        "provision": provision,
        "status": answer_status,
        "metrics": answer_metrics,
        "recent": recent,
        "renew": event(events.RenewRequested, "renewing"),
        "rebind": event(events.RebindRequested, "rebinding"),
        "release": event(events.ReleaseRequested, "released"),
        "restart": event(events.RestartRequested, "starting anew"),
        "reload": reload,
        "stop": stop,
        "log-level": log_level,
    }


async def status(daemon: Daemon, *, fresh: bool = False) -> dict[str, Any]:
    """The ``arguments`` of the answer to ``status``; ``fresh`` looks at the use of the ports for it."""

    def observe() -> Any:
        try:
            return api.jsonable(daemon.dataplane.observe())
        except DataplaneError as error:
            return {"error": str(error)}

    now = clock.boot_now()
    machine = api.jsonable(daemon.agent.snapshot(now))
    return {
        "version": b4client.__version__,
        "api_version": api.VERSION,
        "instance": daemon.config.instance,
        "pid": os.getpid(),
        "uptime_s": round(now - daemon.timings["started_at"], 3),
        "wan": {"interface": daemon.config.wan, **(api.jsonable(daemon.link) or {})},
        **machine,
        "dataplane": await daemon.in_worker(observe),
        "mending": daemon.mender.snapshot(),
        "forwards": daemon.forwards.summary(),
        "port_use": await daemon.port_watch.summary(fresh=fresh),
        "conflicts": api.jsonable(await daemon.neighbourhood.current()),
        "process": {
            "started": round(time.time() - (now - daemon.timings["started_at"]), 3),
            "rss_bytes": _resident_octets(),
            "installs": daemon.installs,
            "events": dict(daemon.events),
        },
        "privileges": {
            "capabilities": [name for name, bit in privileges.NEEDED.items() if privileges.capabilities() >> bit & 1],
            "others": privileges.capabilities() & ~privileges.KEPT != 0,
            "landlock": daemon.confined,
        },
        "hook_problem": None if daemon.hooks is None else daemon.hooks.problem,
        "store_problem": daemon.store.problem,
        "timings": api.jsonable(daemon.timings),
    }


async def render_metrics(daemon: Daemon) -> str:
    """The status as Prometheus metrics."""
    from b4client import metrics

    return metrics.render(await status(daemon, fresh=True))


def _resident_octets() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
