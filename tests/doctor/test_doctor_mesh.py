"""What ``b4client doctor`` says of the mesh."""

from __future__ import annotations

from typing import Any

import pytest

from b4client.config import parse
from b4client.doctor.finding import Level
from b4client.doctor.mesh import check_mesh
from b4client.doctor.system import Context, System

RULES: dict[str, Any] = {"count": 2, "rules": [], "reason": None}


def findings(mesh: Any, pump: Any = None, setting: str = "auto") -> list[tuple[str, Level]]:
    config = parse({"wan": {"interface": "wan"}, "softwire": {"mesh": setting}})
    status = {"dataplane": {"device": "b4", "mesh": mesh, "pump": pump}}
    context = Context(config, "wan", status, None, None, "b4")
    return [(f.check, f.level) for f in check_mesh(System(), context)]


@pytest.mark.parametrize("mesh", [None, {}])
def test_no_rules(mesh: Any) -> None:
    assert findings(mesh) == []


def test_followed() -> None:
    assert findings({**RULES, "active": True}, {"drop-in-spoofed": 0}) == [("mesh", Level.OK)]


def test_not_followed() -> None:
    passive = {**RULES, "active": False, "reason": "the kernel's ip6_tunnel has one far end"}
    assert findings(passive) == [("mesh", Level.WARNING)]
    assert findings(passive, setting="off") == [("mesh", Level.NOTE)]


def test_spoofed() -> None:
    found = findings({**RULES, "active": True}, {"drop-in-spoofed": 3})
    assert found == [("mesh", Level.OK), ("mesh-spoofed", Level.WARNING)]
