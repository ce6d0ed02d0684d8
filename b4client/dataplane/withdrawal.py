"""Takes everything of ours away, also what an earlier process left."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from b4client.dataplane import conntrack, loopdevice, prefixlan, rtaddr, sharing, sysctl
from b4client.dataplane.device import Device
from b4client.dataplane.memory import Memory
from b4client.dataplane.nft import Nft
from b4client.dataplane.recirculation import loop_plan
from b4client.dataplane.ruleset import own_tables
from b4client.model.errors import DataplaneError


def take_away(device: Device, rules: Nft, memory: Memory, run_dir: Path) -> list[str]:
    """Remove what ``memory`` and the device's name tell of. Goes on past what fails; returns that, in words."""
    problems: list[str] = []
    before = sharing.give_up(run_dir, device.name, memory.sysctls)

    def remove_addresses() -> None:
        for address in memory.wan_addresses:
            rtaddr.delete_address6(memory.wan, IPv6Address(address))

    def flush() -> None:
        if memory.address:
            conntrack.flush(IPv4Address(memory.address))

    steps: list[Callable[[], object]] = [
        # The route goes with the device: from here on nothing can leave, so the rules may go after it.
        partial(device.take_away, memory),
        partial(rules.delete_tables, own_tables(device.name)),
        partial(loopdevice.remove, loop_plan(device.name)),
        remove_addresses,
        partial(prefixlan.remove, memory),
        flush,
        *(partial(sysctl.write, path, value) for path, value in before.items()),
    ]
    for step in steps:
        try:
            step()
        except DataplaneError as error:
            problems.append(str(error))
    return problems
