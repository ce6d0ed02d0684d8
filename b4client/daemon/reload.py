"""What a reload changes: the settings that can change while the daemon runs, and those that need a restart. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from b4client.config import SECTION_OF, Config, key_of

LIVE: dict[str, frozenset[str]] = {
    "protocol": frozenset(
        {
            "start_delay",
            "psid_len_hint",
            "prefer_shared",
            "offer_window_s",
            "keep_lease_without_option88",
            "br",
            "servers_4o6",
            "local",
        }
    ),
    "daemon": frozenset({"stop", "log_level", "log_format"}),
}
"""Attributes of each part of Config that may change at any time; a part that is not here is judged by FIXED."""
FIXED: dict[str, frozenset[str]] = {
    "softwire": frozenset({"device", "encapsulation"}),
    "metrics": frozenset({"textfile"}),
    "hooks": frozenset({"script", "dns"}),
}
"""Attributes that need a restart, of the parts where all others may change at any time.

What the daemon may write or run is settled when it drops its privileges.
"""


@dataclass(frozen=True, slots=True)
class Changes:
    """``config`` is what is in force after the reload; ``changed`` names what is new in it, ``restart`` the settings
    that were changed in the file and are taken up only by a restart. Names as in the file: ``softwire.mtu``."""

    config: Config
    changed: tuple[str, ...]
    restart: tuple[str, ...]

    @property
    def text(self) -> str:
        """In words."""
        said = f"changed: {', '.join(self.changed)}" if self.changed else "nothing has changed"
        return f"{said}; needs a restart: {', '.join(self.restart)}" if self.restart else said


def compare(old: Config, new: Config) -> Changes:
    """What to take from ``new``."""
    changed: list[str] = []
    restart: list[str] = []
    parts: dict[str, Any] = {}
    if new.wan != old.wan:
        restart.append("wan.interface")
    for part in SECTION_OF:
        before, after = getattr(old, part), getattr(new, part)
        taken: dict[str, Any] = {}
        for item in fields(before):
            name = item.name
            if getattr(before, name) == getattr(after, name):
                continue
            if _live(part, name):
                taken[name] = getattr(after, name)
                changed.append(key_of(part, name))
            else:
                restart.append(key_of(part, name))
        parts[part] = replace(before, **taken)
    return Changes(replace(old, **parts), tuple(changed), tuple(restart))


def _live(part: str, name: str) -> bool:
    live = LIVE.get(part)
    return name in live if live is not None else part in FIXED and name not in FIXED[part]
