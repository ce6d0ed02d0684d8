"""``forward-add``, ``forward-del`` and ``forward-list`` of the control socket.

What is asked for is checked, kept, put into the rules, and waited for. When the kernel refuses, everything is put back
before the answer, so that what is listed is what there is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from b4client import api
from b4client.daemon import clock
from b4client.daemon.control import Handler
from b4client.model.errors import ControlError
from b4client.model.forwards import describe_ports
from b4client.model.softwire import PortForward
from b4client.protocol.effects import Report
from b4client.protocol.status import PortsStatus

if TYPE_CHECKING:
    from b4client.daemon.loop import Daemon


def forward_commands(daemon: Daemon) -> dict[str, Handler]:
    """The commands by name."""
    one_at_a_time = asyncio.Lock()

    async def change(added: tuple[PortForward, ...]) -> None:
        """Raises ControlError when the kernel refuses; then all is as before."""
        forwards, before = daemon.forwards, daemon.forwards.added
        softwire = daemon.agent.snapshot(clock.boot_now()).softwire
        stood = softwire is not None and softwire.installed
        forwards.keep(added)
        daemon.post(daemon.settings_event())
        await daemon.kernel_settled()
        softwire = daemon.agent.snapshot(clock.boot_now()).softwire
        if stood and softwire is not None and softwire.problem is not None:
            forwards.keep(before)
            daemon.post(daemon.settings_event())
            await daemon.kernel_settled()
            raise ControlError(f"the kernel refused, everything is as before: {softwire.problem}")
        # What needed no change of the rules is looked at here.
        forwards.follow(forwards.in_force)

    def described(forward: PortForward) -> dict[str, Any]:
        entries = (e for e in daemon.forwards.entries() if e["origin"] == "command")
        return next(e for e in entries if (e["protocol"], e["port"]) == (forward.protocol, forward.port))

    def report(kind: str, forward: PortForward, text: str) -> None:
        facts = (("protocol", forward.protocol), ("port", forward.port), ("to", f"{forward.to}:{forward.to_port}"))
        daemon.forwards.report(Report(kind, "info", text, facts))

    async def add(arguments: dict[str, Any]) -> dict[str, Any]:
        async with one_at_a_time:
            forward = daemon.forwards.read_addition(arguments)
            await change((*daemon.forwards.added, forward))
            entry = described(forward)
            text = _said(entry, daemon)
            report("forward-added", forward, f"forward added: {text}")
            return {"text": text, "arguments": {"forward": entry, "problem": daemon.forwards.problem}}

    async def delete(arguments: dict[str, Any]) -> dict[str, Any]:
        async with one_at_a_time:
            forward = daemon.forwards.find(arguments)
            entry = described(forward)
            await change(tuple(f for f in daemon.forwards.added if f is not forward))
            text = f"{forward.protocol} {forward.port} is no longer forwarded to {forward.to}:{forward.to_port}"
            report("forward-deleted", forward, text)
            return {"text": text, "arguments": {"forward": entry, "problem": daemon.forwards.problem}}

    async def list_(_: dict[str, Any]) -> dict[str, Any]:
        config, entries = daemon.forwards.in_force, daemon.forwards.entries()
        return {
            "text": f"{len(entries)} forwards",
            "arguments": {
                "forwards": entries,
                "address": None if config is None else str(config.ipv4),
                "ports": None if config is None or config.ports is None else api.jsonable(PortsStatus.of(config.ports)),
                "possible": None if config is None else describe_ports(config.ports),
                "problem": daemon.forwards.problem,
            },
        }

    return {"forward-add": add, "forward-del": delete, "forward-list": list_}


def _said(entry: dict[str, Any], daemon: Daemon) -> str:
    config = daemon.forwards.in_force
    where = f"{entry['to']}:{entry['to_port']}"
    if config is None or not entry["active"]:
        return f"{entry['protocol']} {entry['port']} will lead to {where} when it can: {entry['reason']}"
    text = f"{entry['protocol']} {config.ipv4}:{entry['external_port']} leads to {where}"
    return f"{text}, since {entry['reason']}" if entry["reason"] else text
