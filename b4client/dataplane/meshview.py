"""What ``status`` tells of the mesh: the forwarding rules, whether they are followed, and packets by rule. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from b4client.dataplane.plan import mesh_plan
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import SoftwireConfig

MAX_SHOWN = 64
"""Rules that are told one by one."""


def view_mesh(
    config: SoftwireConfig | None,
    settings: SoftwireSettings,
    *,
    kind: str | None,
    active: bool,
    by_rule: Sequence[tuple[int, int]],
) -> dict[str, Any] | None:
    """The view of ``config``; None where there are no forwarding rules. ``kind`` is that of the device; ``active`` says
    that the pump follows rules, ``by_rule`` are packets sent and received by each."""
    if config is None or not config.rules:
        return None
    rules = []
    for i, rule in enumerate(config.rules[:MAX_SHOWN]):
        sent, received = by_rule[i] if active and i < len(by_rule) else (0, 0)
        rules.append(
            {
                "ipv4": str(rule.rule_ipv4),
                "ipv6": str(rule.rule_ipv6),
                "ea_len": rule.ea_len,
                "offset": rule.offset_len,
                "sent": sent,
                "received": received,
            }
        )
    return {
        "active": active,
        "reason": None if active else _reason(config, settings, kind),
        "count": len(config.rules),
        "rules": rules,
    }


def _reason(config: SoftwireConfig, settings: SoftwireSettings, kind: str | None) -> str:
    """Why everything goes by the border relay."""
    if mesh_plan(config, settings) is None:
        return "softwire.mesh is off"
    if kind == "ip6tnl":
        return "the kernel's ip6_tunnel has one far end; with softwire.encapsulation = userspace there is a mesh"
    return "the pump does not follow them (yet)"
