"""Handing the provider's DNS servers over: the commands of systemd-resolved and resolvconf, as argument lists. Pure,
apart from ``find``.

Off by default: a softwire's hosts resolve over IPv6 (RFC 6333 5.5 [L-14]), and each IPv4 query would cost a port.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from b4client.daemon.hookenv import PATH, Told

RESOLVED_RUNS = Path("/run/systemd/resolve")


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, and what it reads."""

    argv: tuple[str, ...]
    text: str = ""


def find(way: str, *, path: str = PATH, resolved_runs: Path = RESOLVED_RUNS) -> str | None:
    """``resolved`` or ``resolvconf`` for the setting ``hooks.dns``; None when nobody is to be told or is there."""
    if way == "auto":
        if resolved_runs.exists() and shutil.which("resolvectl", path=path):
            return "resolved"
        return "resolvconf" if shutil.which("resolvconf", path=path) else None
    return None if way == "none" else way


def set_servers(way: str, told: Told) -> list[Command]:
    """Make ``told``'s servers known. Without servers: take back what was made known."""
    if not told.servers:
        return revert(way, told.device)
    servers = tuple(map(str, told.servers))
    if way == "resolved":
        return [
            Command(("resolvectl", "dns", told.device, *servers)),
            Command(("resolvectl", "domain", told.device, *(told.domains or ("",)))),
        ]
    lines = [*(f"nameserver {s}" for s in servers), *([f"search {' '.join(told.domains)}"] if told.domains else [])]
    return [Command(("resolvconf", "-a", _record(told.device)), "\n".join(lines) + "\n")]


def revert(way: str, device: str) -> list[Command]:
    """Take back what was made known for ``device``."""
    if way == "resolved":
        return [Command(("resolvectl", "revert", device))]
    return [Command(("resolvconf", "-d", _record(device)))]


def _record(device: str) -> str:
    return f"{device}.b4client"
