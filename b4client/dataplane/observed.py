"""What the kernel has of the softwire, for ``status`` and metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from b4client.dataplane import loopdevice, nft, rtaddr, rtlink, rtroute
from b4client.dataplane.device import Device
from b4client.dataplane.memory import Memory
from b4client.dataplane.meshview import view_mesh
from b4client.dataplane.plan import RECIRCULATION
from b4client.dataplane.recirculation import loop_plan
from b4client.dataplane.ruleset import table_name
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import SoftwireConfig


@dataclass(frozen=True, slots=True)
class Observed:
    """The kernel's state of the softwire. ``counters`` are the nft table's, by name; ``nat`` is the design in force
    and, where it is not the exact one, why; ``mesh`` is told by ``meshview``."""

    device: str
    kind: str | None
    up: bool
    mtu: int | None
    local: str | None
    remote: str | None
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    traffic: dict[str, int] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    pump: dict[str, Any] | None = None
    nat: dict[str, str | None] = field(default_factory=dict)
    mesh: dict[str, Any] | None = None


def observe(
    device: Device, rules: nft.Nft, memory: Memory, settings: SoftwireSettings, config: SoftwireConfig | None
) -> Observed:
    """Look now; ``config`` is what was installed last, by this process. Raises DataplaneError."""
    name = device.name
    tunnel = rtlink.observe_tunnel(name)
    listing = rules.list_table("ip", table_name(name))
    pump = device.pump
    if tunnel is None:
        return Observed(name, None, False, None, None, None, (), (), {}, nft.counters(listing))
    local, remote = (pump.local, pump.remote) if pump is not None else (tunnel.local, tunnel.remote)
    return Observed(
        device=name,
        kind=tunnel.kind,
        up=tunnel.up,
        mtu=tunnel.mtu if pump is None else min(pump.tunnel_mtu, tunnel.mtu),
        local=str(local) if local else None,
        remote=str(remote) if remote else None,
        addresses=tuple(f"{a}/{n}" for a, n in rtaddr.addresses4(tunnel.index)),
        routes=tuple(f"{d} metric {m}" for d, m in rtroute.routes4(tunnel.index)),
        traffic={k: getattr(tunnel, k) for k in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")},
        counters=nft.counters(listing),
        pump={"pid": pump.pid, **pump.counters} if pump is not None else None,
        nat=_nat(name, memory),
        mesh=view_mesh(
            config,
            settings,
            kind=tunnel.kind,
            active=pump is not None and pump.mesh is not None,
            by_rule=pump.by_rule if pump is not None else (),
        ),
    )


def _nat(device: str, memory: Memory) -> dict[str, str | None]:
    problem = memory.nat_problem or None
    if memory.nat == RECIRCULATION and not loopdevice.present(loop_plan(device)):
        problem = "the veth pair of its loop is gone or down: new flows have one try each"
    return {"design": memory.nat or None, "problem": problem}
