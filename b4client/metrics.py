"""The daemon's status as Prometheus metrics (text format 0.0.4). Pure: the answer to ``status`` in, text out.

Every metric has the label ``wan``, which tells several instances apart. Counters begin at zero with the daemon; what
the kernel counts begins with the softwire.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from b4client.protocol.counters import COUNTERS
from b4client.protocol.dhcp4_states import TRANSITIONS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
METRICS: Final[dict[str, tuple[str, str]]] = {
    "b4client_info": ("gauge", "Always 1; the labels say which program this is and how IPv4 is realised."),
    "b4client_start_time_seconds": ("gauge", "When the daemon was started, as seconds since the epoch."),
    "b4client_resident_memory_bytes": ("gauge", "Resident memory of the daemon."),
    "b4client_ready": ("gauge", "1 when IPv4 is there, 0 while something is waited for."),
    "b4client_state": ("gauge", "1 for the state of the DHCPv4 client (RFC 2131 figure 5), 0 for the others."),
    "b4client_state_seconds": ("gauge", "Time in the present state."),
    "b4client_wan_up": ("gauge", "1 when the WAN interface is up and has carrier."),
    "b4client_provisioned": ("gauge", "1 when DHCPv6 has provisioned a BR."),
    "b4client_lease_age_seconds": ("gauge", "Time since the lease was asked for."),
    "b4client_lease_renew_in_seconds": ("gauge", "Time to T1; +Inf for an infinite lease."),
    "b4client_lease_rebind_in_seconds": ("gauge", "Time to T2; +Inf for an infinite lease."),
    "b4client_lease_expires_in_seconds": ("gauge", "Time to the end of the lease; +Inf for an infinite one."),
    "b4client_ports": ("gauge", "Ports of the leased set; 65536 for an address that is not shared."),
    "b4client_port_use": ("gauge", "Ports of the set by protocol and state: used, time_wait, forwarded, free."),
    "b4client_port_use_peak": ("gauge", "The most ports in use or in TIME_WAIT that any look saw, by protocol."),
    "b4client_forwards": ("gauge", "Port forwards, by whether something can come in by them: active, inactive."),
    "b4client_softwire_up": ("gauge", "1 when the softwire's device is up."),
    "b4client_softwire_installed": ("gauge", "1 when the kernel is as the lease wants it."),
    "b4client_softwire_mtu_bytes": ("gauge", "IPv4 MTU of the softwire."),
    "b4client_softwire_bytes_total": ("counter", "Octets through the softwire."),
    "b4client_softwire_packets_total": ("counter", "Packets through the softwire."),
    "b4client_pump_packets_total": ("counter", "Packets of the userspace softwire by fate."),
    "b4client_mesh_active": (
        "gauge",
        "1 while forwarding rules are followed, 0 while all goes by the BR all the same.",
    ),
    "b4client_mesh_packets_total": ("counter", "Packets to and from other customers' edges by forwarding rule."),
    "b4client_nat_packets_total": ("counter", "Packets that the NAT's rules counted, by fate."),
    "b4client_nat_bytes_total": ("counter", "Octets that the NAT's rules counted, by fate."),
    "b4client_messages_total": ("counter", "DHCP messages sent, received and held back, by kind."),
    "b4client_drops_total": ("counter", "DHCP messages dropped, by reason."),
    "b4client_oddities_total": ("counter", "What was ignored or repaired in messages that were taken, by kind."),
    "b4client_events_total": ("counter", "What was reported, by kind (as in b4client monitor)."),
    "b4client_installs_total": ("counter", "Times that the softwire was made or changed."),
    "b4client_install_seconds": ("gauge", "How long the latest change of the softwire took."),
    "b4client_mends_total": ("counter", "Times that others had changed the softwire and it was put right."),
    "b4client_contested": ("gauge", "1 while something keeps undoing the softwire."),
    "b4client_damaged": ("gauge", "1 while the softwire cannot be put right."),
    "b4client_store_problem": ("gauge", "1 while the lease cannot be stored."),
}
_DROPS, _ODDITIES = "drop-", ("ignored-", "warned-")
Sample = tuple[str, dict[str, str], float]


def render(status: Mapping[str, Any]) -> str:
    """The text for the ``arguments`` of an answer to ``status``."""
    by_name: dict[str, list[str]] = {}
    wan = str(status.get("instance", ""))
    for name, labels, value in samples(status):
        text = ",".join(f'{k}="{_escape(v)}"' for k, v in {"wan": wan, **labels}.items())
        by_name.setdefault(name, []).append(f"{name}{{{text}}} {_number(value)}")
    lines = []
    for name, (kind, explanation) in METRICS.items():
        if name in by_name:
            lines += [f"# HELP {name} {explanation}", f"# TYPE {name} {kind}", *by_name[name]]
    return "\n".join(lines) + "\n"


def samples(status: Mapping[str, Any]) -> Iterator[Sample]:
    """(name, labels, value) of everything that the status holds."""
    yield from _client(status)
    yield from _lease(status.get("lease") or {})
    yield from _softwire(status)
    yield from _counts(status)


def _client(status: Mapping[str, Any]) -> Iterator[Sample]:
    softwire = status.get("softwire") or {}
    observed = status.get("dataplane") or {}
    yield (
        "b4client_info",
        {
            "version": str(status.get("version")),
            "mode": str(softwire.get("mode", "")),
            "device": str(observed.get("device", "")),
            "encapsulation": str(observed.get("kind") or ""),
        },
        1,
    )
    process = status.get("process") or {}
    if "started" in process:
        yield "b4client_start_time_seconds", {}, process["started"]
    if "rss_bytes" in process:
        yield "b4client_resident_memory_bytes", {}, process["rss_bytes"]
    yield "b4client_ready", {}, status.get("waiting_for") is None
    for state in TRANSITIONS:
        yield "b4client_state", {"state": state}, state == status.get("state")
    yield "b4client_state_seconds", {}, status.get("state_for_s") or 0
    yield "b4client_wan_up", {}, bool((status.get("wan") or {}).get("up"))
    yield "b4client_provisioned", {}, bool((status.get("provisioning") or {}).get("brs"))
    yield "b4client_store_problem", {}, bool(status.get("store_problem"))


def _lease(lease: Mapping[str, Any]) -> Iterator[Sample]:
    if not lease:
        return
    yield "b4client_lease_age_seconds", {}, lease["age_s"]
    for name, key in (("renew", "t1_in_s"), ("rebind", "t2_in_s"), ("expires", "expires_in_s")):
        value = lease.get(key)
        yield f"b4client_lease_{name}_in_seconds", {}, math.inf if value is None else value
    ports = lease.get("ports")
    yield "b4client_ports", {}, 65536 if ports is None else ports["port_count"]


def _softwire(status: Mapping[str, Any]) -> Iterator[Sample]:
    observed = status.get("dataplane") or {}
    for state in ("active", "inactive"):
        yield "b4client_forwards", {"state": state}, (status.get("forwards") or {}).get(state, 0)
    for protocol, use in ((status.get("port_use") or {}).get("protocols") or {}).items():
        for state in ("used", "time_wait", "forwarded", "free"):
            yield "b4client_port_use", {"protocol": protocol, "state": state}, use[state]
        yield "b4client_port_use_peak", {"protocol": protocol}, use["peak"]
    yield "b4client_softwire_up", {}, bool(observed.get("up"))
    yield "b4client_softwire_installed", {}, bool((status.get("softwire") or {}).get("installed"))
    if observed.get("mtu"):
        yield "b4client_softwire_mtu_bytes", {}, observed["mtu"]
    traffic = observed.get("traffic") or {}
    for unit in ("bytes", "packets"):
        for key, direction in (("tx", "sent"), ("rx", "received")):
            if f"{key}_{unit}" in traffic:
                yield f"b4client_softwire_{unit}_total", {"direction": direction}, traffic[f"{key}_{unit}"]
    for fate, value in (observed.get("pump") or {}).items():
        if fate != "pid":
            yield "b4client_pump_packets_total", {"fate": fate}, value
    mesh = observed.get("mesh")
    if mesh is not None:
        yield "b4client_mesh_active", {}, mesh["active"]
        for rule in mesh["rules"]:
            for direction in ("sent", "received"):
                labels = {"rule": f"{rule['ipv4']} {rule['ipv6']}", "direction": direction}
                yield "b4client_mesh_packets_total", labels, rule[direction]
    for fate, counted in (observed.get("counters") or {}).items():
        yield "b4client_nat_packets_total", {"fate": fate}, counted["packets"]
        yield "b4client_nat_bytes_total", {"fate": fate}, counted["bytes"]


def _counts(status: Mapping[str, Any]) -> Iterator[Sample]:
    counted = status.get("counters") or {}
    for name in COUNTERS:
        value = counted.get(name, 0)
        if name.startswith(_DROPS):
            yield "b4client_drops_total", {"reason": name.removeprefix(_DROPS)}, value
        elif name.startswith(_ODDITIES):
            yield "b4client_oddities_total", {"kind": name}, value
        else:
            yield "b4client_messages_total", {"kind": name}, value
    process = status.get("process") or {}
    for kind, value in (process.get("events") or {}).items():
        yield "b4client_events_total", {"kind": kind}, value
    yield "b4client_installs_total", {}, process.get("installs", 0)
    took = (status.get("timings") or {}).get("install_s")
    if took is not None:
        yield "b4client_install_seconds", {}, took
    mending = status.get("mending") or {}
    yield "b4client_mends_total", {}, mending.get("mends", 0)
    yield "b4client_contested", {}, bool(mending.get("contested"))
    yield "b4client_damaged", {}, bool(mending.get("problem"))


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
