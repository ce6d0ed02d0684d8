"""What the data plane must remember across daemons: what it made, and what was there before.

Kept in the run directory, so that it lasts exactly as long as the kernel state it speaks of. Losing it is borne: the
kernel itself is looked at before anything is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

MEMORY_SUFFIX = ".dataplane.json"


@dataclass(slots=True)
class Memory:
    """``ruleset`` is the nft text last applied and ``listing`` the digest of what the kernel then listed; ``sysctls``
    are values from before we changed them; ``wan_addresses`` are ours on ``wan``; ``address`` is the public one whose
    conntrack entries are ours; ``lan_addresses`` are ours on interfaces of the LAN, ``lan_missing`` one that is not
    there; ``forwards`` are those in the rules, as [protocol, port, to, to_port]; ``nat`` is the design in force and
    ``nat_problem`` why it is not the exact one."""

    device: str = ""
    kind: str = ""
    wan: str = ""
    wan_addresses: list[str] = field(default_factory=list)
    address: str = ""
    binding: str = ""
    routes: list[tuple[str, int]] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    ruleset: str = ""
    listing: str = ""
    lan_addresses: list[tuple[str, str]] = field(default_factory=list)
    lan_missing: str = ""
    forwards: list[list[Any]] = field(default_factory=list)
    nat: str = ""
    nat_problem: str = ""


def digest(value: Any) -> str:
    """A short name for a JSON value: equal values, equal names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class MemoryFile:
    """The file of one softwire device; without a directory it remembers only within this process."""

    def __init__(self, directory: Path | None, device: str) -> None:
        self._path = directory / f"{device}{MEMORY_SUFFIX}" if directory else None

    def load(self) -> Memory:
        """What was remembered; an empty Memory when there is nothing or it cannot be read."""
        if self._path is None:
            return Memory()
        try:
            found = json.loads(self._path.read_text(encoding="ascii"))
            known = {k: v for k, v in found.items() if k in Memory.__dataclass_fields__}
            memory = Memory(**known)
            memory.routes = [(str(d), int(m)) for d, m in memory.routes]
            memory.lan_addresses = [(str(i), str(a)) for i, a in memory.lan_addresses]
            memory.forwards = [[str(p), int(a), str(IPv4Address(to)), int(b)] for p, a, to, b in memory.forwards]
            memory.sysctls = {str(k): str(v) for k, v in memory.sysctls.items()}
            return memory
        except (OSError, ValueError, TypeError, AttributeError):
            return Memory()

    def save(self, memory: Memory) -> None:
        """Replace the file whole. A directory that cannot be written costs only the memory."""
        if self._path is None:
            return
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(memory)), encoding="ascii")
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the file."""
        if self._path is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError:
                pass
