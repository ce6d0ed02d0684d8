"""Settings that several softwires of one machine need (forwarding, ARP): who leaves first must not take them away.

The first instance finds a setting as the operator had it and remembers that; the others find it as they need it. Who is
withdrawn while others are there leaves what it remembers to them, in the run directory; the last one puts it back.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from b4client.dataplane.memory import MEMORY_SUFFIX

LEFT = "sysctls.left.json"


def give_up(run_dir: Path | None, device: str, remembered: dict[str, str]) -> dict[str, str]:
    """The settings (path below /proc/sys: value) that ``device`` must put back, now that it goes; none while another
    softwire of this run directory is there."""
    if run_dir is None:
        return remembered
    file = run_dir / LEFT
    # What was left is older than what we found, and so it is what the operator had.
    settings = {**remembered, **_read(file)}
    others = [p for p in run_dir.glob(f"*{MEMORY_SUFFIX}") if p.name != f"{device}{MEMORY_SUFFIX}" and p.name[0] != "."]
    if not others:
        file.unlink(missing_ok=True)
        return settings
    if settings:
        with suppress(OSError):
            temporary = file.with_name(f".{file.name}.new")
            temporary.write_text(json.dumps(settings), encoding="ascii")
            temporary.replace(file)
    return {}


def _read(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text(encoding="ascii"))
        return {str(k): str(v) for k, v in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}
