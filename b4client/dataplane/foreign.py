"""Looks at what other people have on this machine: rules of iptables, interfaces with hosts behind them."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from b4client.dataplane import iptables, netlink, rtaddr, rtlink
from b4client.dataplane.neighbours import Lan
from b4client.dataplane.recirculation import loop_plan

LEGACY: Final = " (legacy)"
"""Behind the table's name where the rules are those of the older ip_tables."""
_SAVERS: Final = (("ip", "iptables", "/proc/net/ip_tables_names"), ("ip6", "ip6tables", "/proc/net/ip6_tables_names"))
_TIMEOUT_S: Final = 10
_SEARCH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"


def read_iptables() -> list[dict[str, Any]]:
    """The rules of iptables-nft and of the older ip_tables, as nft's JSON objects; what is not there is left out."""
    found: list[dict[str, Any]] = []
    for family, name, loaded in _SAVERS:
        found += iptables.objects(_output(f"{name}-nft-save", f"{name}-save"), family=family)
        # The program loads the old modules when it is started: only where they are in use.
        with suppress(OSError):
            if Path(loaded).read_text(encoding="ascii").strip():
                found += iptables.objects(_output(f"{name}-legacy-save"), family=family, suffix=LEGACY)
    return found


def _output(*programs: str) -> str:
    path = next((p for p in (shutil.which(name, path=_SEARCH) for name in programs) if p is not None), None)
    if path is None:
        return ""
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run([path], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout
    return ""


def lans(device: str, wan: str | None) -> tuple[Lan, ...]:
    """Interfaces that are up and have a private IPv4 network, but for the softwire, its loop and the WAN."""
    loop = loop_plan(device)
    ours = {"lo", device, wan, loop.sender, loop.receiver}
    found = []
    with netlink.session():
        for _, name in socket.if_nameindex():
            link = rtlink.observe_link(name) if name not in ours else None
            if link is None or not link.up:
                continue
            for address, length in rtaddr.addresses4(link.index):
                if address.is_private and length < 31:
                    # Some host of that network, not the router itself.
                    found.append(Lan(name, str(address + 1 if int(address) % 2 == 0 else address - 1)))
                    break
    return tuple(found)
