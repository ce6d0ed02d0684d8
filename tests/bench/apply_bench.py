"""The time of an installation beside the same done with ``ip``, ``sysctl`` and ``nft`` as processes.

    .venv/bin/python tests/bench/apply_bench.py [--runs N] [--json]      as root

A userspace softwire with a shared address: device, loop of the NAT, addresses, routes, settings, rules. That it is the
same is checked: what ``ip`` and ``nft`` list afterwards must be equal. ``Dataplane.install`` does more than that (it
looks first, verifies at the end, and tells the pump that stands by); the processes do no more. ``ip and nft`` is a
process for each step, as a script has them, ``ip -batch`` one for all steps of a kind. Milliseconds; they take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "faults")]

from softwirebed import FIRST, TABLE, dataplane, kernel_state, softwire_bed  # noqa: E402

from b4client.dataplane import rtlink  # noqa: E402
from b4client.dataplane.plan import Plan, plan  # noqa: E402
from b4client.lab.netns import Namespace  # noqa: E402
from b4client.model.settings import SoftwireSettings  # noqa: E402
from b4client.model.softwire import Encapsulation  # noqa: E402

WAYS = ("install", "ip and nft", "ip -batch")
PATH_MTU = 1500


def link_steps(target: Plan) -> list[str]:
    """Arguments of ``ip`` that make the devices. Raises ValueError for a plan without a loop."""
    if target.loop is None:
        raise ValueError("the bench wants a shared address")
    device, loop = target.link.name, target.loop
    mac = f"address {loop.hardware_address}"
    return [
        f"tuntap add dev {device} mode tun vnet_hdr",
        f"link add {loop.sender} {mac} mtu {loop.mtu} type veth peer name {loop.receiver} {mac} mtu {loop.mtu}",
        f"link set {device} mtu {target.link.mtu}",
        f"link set {loop.sender} arp off multicast off",
        f"link set {loop.receiver} arp off multicast off",
    ]


def address_steps(target: Plan) -> list[str]:
    """Arguments of ``ip`` that raise the devices and lead there."""
    if target.loop is None:
        raise ValueError("the bench wants a shared address")
    device, loop = target.link.name, target.loop
    return [
        *(f"link set {name} up" for name in (loop.sender, loop.receiver, device)),
        f"addr add {loop.address}/32 dev {loop.receiver} scope host",
        f"addr add {target.address}/32 dev {device}",
        f"route add {loop.route} dev {loop.sender} proto static metric {loop.metric}",
        *(f"route add {r.destination} dev {device} proto static metric {r.metric}" for r in target.routes),
    ]


def settings_of(target: Plan) -> list[str]:
    """Arguments of ``sysctl -w``; names of interfaces may have dots, so that they are paths."""
    loop = () if target.loop is None else target.loop.sysctls
    return [f"{path}={value}" for path, value in (*loop, *target.sysctls)]


def make_by_processes(target: Plan, *, batch: bool) -> None:
    """The plan, by the programs of the distribution. Raises CalledProcessError."""
    settings = settings_of(target)
    for steps in (link_steps(target), None, address_steps(target)):
        if steps is None:
            for some in [settings] if batch else [[one] for one in settings]:
                subprocess.run(["sysctl", "-q", "-w", *some], check=True)
        elif batch:
            subprocess.run(["ip", "-batch", "-"], input="\n".join(steps), text=True, check=True)
        else:
            for step in steps:
                subprocess.run(["ip", *step.split()], check=True)
    subprocess.run(["nft", "-f", "-"], input=target.ruleset, text=True, check=True)


def comparable(namespace: Namespace, directory: Path) -> dict[str, Any]:
    """What the kernel has, without the process of the pump."""
    state = kernel_state(namespace, directory)
    state.pop("pump")
    links = state["links"]
    assert isinstance(links, list)
    # The pump keeps its device running; one that nobody has open has no carrier, and no queue yet.
    state["links"] = [line.replace("UP,LOWER_UP", "UP") for line in links]
    routes = state["routes"]
    assert isinstance(routes, list)
    state["routes"] = [line.removesuffix(" linkdown") for line in routes]
    state["rules"] = sorted(str(state["rules"]).splitlines())
    state["settings"] = namespace.run(
        "sh", "-c", "cd /proc/sys/net && grep -H . ipv4/conf/*/rp_filter ipv4/conf/*/accept_local "
        "ipv4/conf/*/forwarding ipv6/conf/*/disable_ipv6 | sort"
    ).stdout  # fmt: skip
    return state


def once(way: str, number: int) -> tuple[float, dict[str, Any]]:
    """(seconds of one installation in a fresh namespace, what the kernel has then)."""
    with tempfile.TemporaryDirectory() as name, softwire_bed(f"ab{os.getpid()}-{number}") as bed, bed.entered():
        directory = Path(name)
        if way == WAYS[0]:
            plane = dataplane(directory, "userspace")
            plane.prepare()
            # As the daemon has, long before: the first question loads pyroute2.
            rtlink.observe_link("wan")
            plane.probe()
            time.sleep(0.4)
            begun = time.perf_counter()
            plane.install(FIRST, list_later=True)
            took = time.perf_counter() - begun
            state = comparable(bed, directory)
            plane.withdraw()
            plane.close()
            return took, state
        target = plan(FIRST, SoftwireSettings(), encapsulation=Encapsulation.USERSPACE, path_mtu=PATH_MTU)
        begun = time.perf_counter()
        make_by_processes(target, batch=way == WAYS[2])
        took = time.perf_counter() - begun
        return took, comparable(bed, directory)


def measure(runs: int) -> dict[str, list[float]]:
    """Milliseconds by way. Raises RuntimeError when what was made is not the same."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(runs):
        reference: dict[str, Any] = {}
        for way in WAYS:
            took, state = once(way, number)
            assert any(TABLE in table for table in state["tables"])
            reference = reference or state
            for key, value in state.items():
                if value != reference[key]:
                    raise RuntimeError(f"{way} is not the same work: {key}\n{value}\nbeside\n{reference[key]}")
            found[way].append(took * 1000)
    return found


def processes() -> dict[str, int]:
    """How many each way starts."""
    target = plan(FIRST, SoftwireSettings(), encapsulation=Encapsulation.USERSPACE, path_mtu=PATH_MTU)
    steps = len(link_steps(target)) + len(address_steps(target)) + len(settings_of(target)) + 1
    return dict(zip(WAYS, (0, steps, 4), strict=True))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found, started = measure(options.runs), processes()
    medians = {way: statistics.median(values) for way, values in found.items()}
    if options.json:
        print(json.dumps({"runs": options.runs, "medians_ms": medians, "processes": started}))
        return
    for way, value in medians.items():
        ratio = value / medians[WAYS[0]]
        print(f"{way:12}{value:8.1f} ms   {ratio:5.2f}   {started[way]} processes   fastest {min(found[way]):.1f} ms")


if __name__ == "__main__":
    main()
