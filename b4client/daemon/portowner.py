"""Who holds a UDP port: for the error message that names the other DHCPv6 client."""

from __future__ import annotations

import os
from pathlib import Path


def udp6_port_owners(port: int) -> list[str]:
    """``["odhcp6c (pid 812)", ...]``: processes of this network namespace with a UDP socket on ``port``.

    Best effort: processes of other users cannot be looked into without privileges; then the list is empty.
    """
    inodes = set()
    for table in ("/proc/net/udp6", "/proc/net/udp"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if len(columns) > 9 and int(columns[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    owners = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir())
            if held and int(process.name) != os.getpid():
                owners.append(f"{(process / 'comm').read_text(encoding='utf-8').strip()} (pid {process.name})")
        except OSError:
            continue
    return owners
