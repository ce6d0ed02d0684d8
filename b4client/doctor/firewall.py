"""Checks of other people's packet filters: do they let the softwire work, and what to allow where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from b4client.dataplane.neighbours import Scene, find
from b4client.dataplane.recirculation import loop_plan
from b4client.doctor.finding import Finding, error, note, ok, warning
from b4client.doctor.system import Context, System
from b4client.model.errors import DataplaneError


def check_firewall(system: System, context: Context) -> Iterator[Finding]:
    """Rules of others that translate or drop what goes through the softwire."""
    try:
        objects = complete(system.ruleset(), system)
        scene = _scene(system, context)
    except DataplaneError as refused:
        yield note("firewall", f"the rules of others cannot be seen: {refused.reason}", "Run it as root.")
        return
    conflicts = find(objects, scene)
    for conflict in conflicts:
        yield (error if conflict.fatal else warning)("firewall", conflict.text, conflict.remedy)
    if not conflicts:
        yield ok("firewall", "no rules of others that stand in the way")


def complete(listed: list[dict[str, Any]], system: System) -> list[dict[str, Any]]:
    """nft's listing, with what iptables says of its own tables in the place of what nft makes of them."""
    iptables = system.iptables()
    theirs = {
        (body["family"], body["table"])
        for item in iptables
        for body in item.values()
        if any(key in item for key in ("chain", "rule"))
    }
    kept = [item for item in listed if not any(_table(body) in theirs for body in item.values())]
    return [*kept, *iptables]


def _table(body: Any) -> tuple[Any, Any] | None:
    return (body.get("family"), body.get("table")) if isinstance(body, dict) else None


def _scene(system: System, context: Context) -> Scene:
    softwire, config = context.softwire, context.config
    nat = (context.observed.get("nat") or {}).get("design")
    settings = None if config is None else config.softwire
    return Scene(
        device=context.device,
        wan=context.wan,
        address=str(softwire.get("ipv4") or "192.0.2.1"),
        lans=system.lans(context.device, context.wan),
        # Before there is a softwire: as it will most likely be.
        loop=loop_plan(context.device) if nat in (None, "recirculation") else None,
        br=None if context.br is None else str(context.br),
        local=softwire.get("binding_ipv6_addr"),
        default_route=settings is None or settings.default_route,
        inbound=settings is not None and bool(settings.forwards or settings.accept_local),
        dhcp=config is None or config.protocol.dhcp6_mode != "external",
    )
