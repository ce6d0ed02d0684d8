"""``b4client teardown``: takes down what a daemon left that has ended (``stop = "keep"``, killed, uninstalled).

By what it noted in the run directory; a daemon that runs is left alone. Whoever lost that directory names the device.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from b4client.daemon import clock
from b4client.daemon.instance import device_lock, instance_lock
from b4client.dataplane import loopdevice, netlink, rtlink
from b4client.dataplane.apply import Dataplane
from b4client.dataplane.memory import MEMORY_SUFFIX, Memory, MemoryFile
from b4client.dataplane.nft import Nft
from b4client.dataplane.recirculation import loop_plan
from b4client.dataplane.ruleset import table_name
from b4client.dataplane.wan6 import LeasedWan
from b4client.model.errors import DataplaneError
from b4client.model.lease6 import Lease6
from b4client.model.settings import SoftwireSettings


@dataclass(frozen=True, slots=True)
class Left:
    """What a daemon left: a softwire device, the WAN that it was over ("" when that is not known)."""

    device: str
    wan: str


def find(run_dir: Path, instance: str | None, device: str | None) -> list[Left]:
    """What the run directory says was left by ``instance`` (None: by anybody); ``device`` needs no such word."""
    found = []
    for file in sorted(run_dir.glob(f"*{MEMORY_SUFFIX}")):
        name = file.name.removesuffix(MEMORY_SUFFIX)
        wan = MemoryFile(run_dir, name).load().wan
        if not name.startswith(".") and instance in (None, wan) and device in (None, name):
            found.append(Left(name, wan))
    known = {left.wan for left in found}
    for file in sorted(run_dir.glob("*.wan6.json")):
        wan = file.name.removesuffix(".wan6.json")
        if not wan.startswith(".") and wan not in known and instance in (None, wan) and device is None:
            found.append(Left("", wan))
    if device is not None and not found:
        found.append(Left(device, instance or ""))
    return found


def take_down(run_dir: Path, left: Left) -> list[str]:
    """Take it away; what was there, in words. Idempotent. Raises DataplaneError while a daemon has it, or when the
    kernel refuses."""
    removed: list[str] = []
    with ExitStack() as locks:
        if left.wan:
            locks.enter_context(instance_lock(run_dir, left.wan))
        if left.device:
            locks.enter_context(device_lock(run_dir, left.device))
            memory = MemoryFile(run_dir, left.device).load()
            removed += _present(left.device, memory)
            plane = Dataplane(SoftwireSettings(device=left.device), state_dir=run_dir)
            try:
                plane.withdraw()
            finally:
                plane.close()
        if left.wan:
            leased = LeasedWan(left.wan, run_dir)
            removed += leased.describe()
            leased.apply(Lease6(), clock.boot_now())
    return removed


def _present(device: str, memory: Memory) -> list[str]:
    found = []
    with netlink.session():
        tunnel = rtlink.observe_tunnel(device)
        if tunnel is not None:
            if not memory.device and not tunnel.ours:
                raise DataplaneError(
                    f"take down {device}",
                    f"the run directory knows nothing of it, and it is no softwire of ours ({tunnel.kind})",
                )
            found.append(f"the interface {device} with its addresses and routes")
        if loopdevice.present(loop_plan(device)):
            found.append(f"the NAT's loop {loop_plan(device).sender}, {loop_plan(device).receiver}")
        wan = rtlink.observe_link(memory.wan) if memory.wan else None
        found += [f"the address {a} of {memory.wan}" for a in memory.wan_addresses if wan is not None]
    tables = sorted(f for f, name in Nft().tables() if name == table_name(device))
    if tables:
        found.append(f"the nft tables {table_name(device)} ({', '.join(tables)})")
    found += [f"{path} put back to {value}" for path, value in memory.sysctls.items()]
    return found
