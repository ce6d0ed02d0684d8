"""``b4client status`` for people: the daemon's answer as lines of text. What the answer lacks is left out."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

from b4client.model.portset import PortSet
from b4client.portmap import render_port_map

LABEL = 14
MESH_LINES = 8
"""Forwarding rules that are shown one by one."""
GOOD, BAD, DIM = "32", "1;31", "2"
_DESIGNS = {
    "recirculation": "every port of the set (recirculation)",
    "one try per packet": "one try per packet",
    "not shared": "address not shared",
}
_MECHANISMS = {"rfc8539": "softwire by DHCP 4o6 (RFC 8539)", "map-e": "MAP-E", "ds-lite": "DS-Lite"}
_NAMES = {"dns": "DNS", "ntp": "NTP", "domain": "domain", "mtu": "MTU", "domain_search": "search"}
UNREMARKABLE = ("received-", "sent-query", "sent-information", "sent-dhcp6")
ASKING = ("idle", "delaying", "asking", "soliciting", "requesting", "waiting")
"""States of DHCPv6 in which a Reply may never have come."""


def render_status(answer: Mapping[str, Any], *, colour: bool = False, width: int = 64) -> list[str]:
    """Lines for the ``arguments`` of the ``status`` command; ``width`` is that of the port map."""

    def paint(text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if colour else text

    def line(label: str, text: str) -> str:
        return f"{label:{LABEL}}{text}"

    state, lease = str(answer.get("state", "?")), answer.get("lease")
    softwire, dataplane = answer.get("softwire"), answer.get("dataplane") or {}
    if softwire is not None and softwire.get("mode") == "ds-lite":
        dataplane = {**dataplane, "nat": None}  # the AFTR's affair
    waiting = answer.get("waiting_for")
    without_lease = waiting is None and lease is None and softwire is not None
    if without_lease:
        state = "IPv4 without a lease"
    shown = paint(state, GOOD if waiting is None else BAD)
    lines = [line("state", f"{shown} for {duration(answer.get('state_for_s'))}")]
    if waiting is not None:
        lines.append(line("waiting for", str(waiting)))
    lines.append(line("WAN", _wan(answer.get("wan") or {})))
    provisioning = answer.get("provisioning") or {}
    lines.append(line("provisioning", _provisioning(provisioning)))
    leases6 = provisioning.get("leases") or ()
    lines += [line("DHCPv6 lease" if i == 0 else "", _leased6(item)) for i, item in enumerate(leases6)]
    if lease is not None:
        lines += [line("address", _address(lease)), line("lease", _lease(lease))]
        lines += [line(_NAMES.get(k, k), _option(k, v)) for k, v in (lease.get("options") or {}).items()]
    if softwire is not None:
        if lease is None:
            lines.append(line("address", _softwire_address(softwire)))
        far = "AFTR" if softwire.get("mode") == "ds-lite" else "BR"
        lines.append(line("softwire", f"{softwire['binding_ipv6_addr']} to {softwire['br_ipv6_addr']} ({far})"))
        lines += [line("mesh" if i == 0 else "", text) for i, text in enumerate(_mesh(dataplane.get("mesh") or {}))]
        if softwire.get("problem"):
            lines.append(line("", paint(f"problem: {softwire['problem']}", BAD)))
    lines += [line("device" if i == 0 else "", text) for i, text in enumerate(_device(dataplane))]
    forwards = _forwards(answer.get("forwards") or {})
    lines += [line("forwards" if i == 0 else "", paint(t, BAD) if bad else t) for i, (t, bad) in enumerate(forwards)]
    mending = _mending(answer.get("mending") or {})
    if mending is not None:
        text, trouble = mending
        lines.append(line("mended", paint(text, BAD) if trouble else text))
    for i, conflict in enumerate(answer.get("conflicts") or ()):
        lines.append(line("conflict" if i == 0 else "", paint(str(conflict["text"]), BAD)))
        lines.append(line("", f"-> {conflict['remedy']}"))
    if answer.get("hook_problem"):
        lines.append(line("hook", paint(str(answer["hook_problem"]), BAD)))
    if answer.get("store_problem"):
        lines.append(line("storage", paint(str(answer["store_problem"]), BAD)))
    ports = (lease if lease is not None else softwire or {}).get("ports")
    if ports is not None:
        portset = PortSet(ports["offset"], ports["psid_len"], ports["psid"])
        picture = render_port_map(portset, width=width, colour=colour)
        lines += [
            "",
            line("ports", f"{portset}: {portset.port_count} in {portset.range_count} range(s), {_few(portset)}"),
        ]
        lines += [f"  {text}" for text in picture]
    counted = {**(answer.get("counters") or {})}
    noteworthy = {k: v for k, v in counted.items() if not k.startswith(UNREMARKABLE)}
    dropped = {k: v["packets"] for k, v in (dataplane.get("counters") or {}).items() if v.get("packets")}
    for title, values in (("messages", noteworthy), ("NAT", dropped)):
        if values:
            lines.append(line(title, paint(", ".join(f"{k} {v}" for k, v in values.items()), DIM)))
    return lines


def duration(seconds: float | None) -> str:
    """``seconds`` in the two largest units that matter: ``4 d 2 h``, ``3 min 20 s``, ``12 s``; None is for ever."""
    if seconds is None:
        return "ever"
    whole = max(int(seconds), 0)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if whole >= size or (unit == "s" and not parts):
            parts.append(f"{whole // size} {unit}")
        whole %= size
    return " ".join(parts[:2])


def _wan(wan: Mapping[str, Any]) -> str:
    addresses = [*wan.get("addresses", ()), *([wan["link_local"]] if wan.get("link_local") else [])]
    up = "up" if wan.get("up") else "down"
    return f"{wan.get('interface', '?')} {up}, MTU {wan.get('mtu', '?')}, {', '.join(addresses) or 'no IPv6 address'}"


def _provisioning(p: Mapping[str, Any]) -> str:
    if p.get("state") == "static":
        return f"from the configuration: {p.get('mechanism') or 'nothing that fits together'}"
    if p.get("state", "idle") in ASKING and not p.get("containers") and p.get("servers_4o6") is None:
        return "nothing handed over yet" if p.get("mode") == "external" else "no answer of a DHCPv6 server yet"
    servers = p.get("servers_4o6")
    text = "no option 88" if servers is None else f"DHCP 4o6 server {', '.join(servers) or 'by multicast'}"
    parts = [text, ", ".join(p.get("containers", ())) or "no container"]
    if p.get("aftr"):
        parts.append(f"AFTR {p['aftr']}")
    if p.get("mechanism"):
        parts.append(f"in use: {_MECHANISMS.get(p['mechanism'], p['mechanism'])}")
    if p.get("mode") == "external":
        parts.append("handed over")
    else:
        parts.append(f"refreshed in {duration(p.get('refresh_in_s'))}")
    return "; ".join(parts)


def _softwire_address(softwire: Mapping[str, Any]) -> str:
    if softwire.get("mode") == "ds-lite":
        return f"{softwire['ipv4']}, translated by the AFTR"
    if softwire.get("ipv4_prefix"):
        return f"{softwire['ipv4']} of {softwire['ipv4_prefix']}, not shared"
    return _address({**softwire, "address": softwire["ipv4"]})


def _leased6(item: Mapping[str, Any]) -> str:
    network = str(item["network"]).removesuffix("/128")
    deprecated = ", deprecated" if item.get("preferred_in_s") == 0 else ""
    return f"{network} for {duration(item.get('valid_in_s'))}{deprecated}"


def _address(lease: Mapping[str, Any]) -> str:
    ports = lease.get("ports")
    if ports is None:
        return f"{lease['address']}, not shared"
    return f"{lease['address']}, shared 1:{1 << ports['psid_len']}, {ports['port_count']} ports"


def _lease(lease: Mapping[str, Any]) -> str:
    text = f"from {lease['server_id']}, "
    if lease.get("expires_in_s") is None:
        return text + "for ever"
    return f"{text}expires in {duration(lease['expires_in_s'])}, renewal in {duration(lease['t1_in_s'])}"


def _option(name: str, value: str) -> str:
    octets = bytes.fromhex(value)
    if name in ("dns", "ntp") and octets and len(octets) % 4 == 0:
        return ", ".join(str(IPv4Address(octets[i : i + 4])) for i in range(0, len(octets), 4))
    if name == "mtu" and len(octets) == 2:
        return str(int.from_bytes(octets, "big"))
    if name == "domain":
        # From the network, and on its way to a terminal: printable ASCII only.
        return "".join(chr(o) if 0x20 < o < 0x7F else "?" for o in octets)
    return value


def _device(d: Mapping[str, Any]) -> list[str]:
    if d.get("error"):
        return [f"unknown: {d['error']}"]
    if not d.get("kind"):
        return ["no softwire device"]
    kind = {"ip6tnl": "kernel (ip6tnl)", "tun": "userspace (TUN)"}.get(str(d["kind"]), str(d["kind"]))
    lines = [f"{d['device']} {'up' if d.get('up') else 'down'}, {kind}, MTU {d.get('mtu')}"]
    traffic = d.get("traffic") or {}
    if traffic:
        lines.append(
            f"sent {traffic['tx_packets']} packets ({traffic['tx_bytes']} octets), "
            f"received {traffic['rx_packets']} ({traffic['rx_bytes']})"
        )
    nat = d.get("nat") or {}
    if nat.get("problem"):
        lines.append(f"NAT: {nat['design']}, since {nat['problem']}")
    elif nat.get("design"):
        lines.append(f"NAT: {_DESIGNS.get(str(nat['design']), str(nat['design']))}")
    if d.get("routes"):
        lines.append(f"routes {', '.join(d['routes'])}")
    return lines


def _mesh(m: Mapping[str, Any]) -> list[str]:
    """Forwarding rules in words; nothing where there are none."""
    if not m:
        return []
    count = f"{m['count']} forwarding rule{'s' if m['count'] != 1 else ''}"
    if not m["active"]:
        return [f"no: {count}, all goes by the BR; {m['reason']}"]
    lines = [f"to other customers directly, by {count}"]
    for rule in m["rules"][:MESH_LINES]:
        traffic = f"sent {rule['sent']}, received {rule['received']} packets"
        lines.append(f"{rule['ipv4']} to {rule['ipv6']}, {rule['ea_len']} EA bits: {traffic}")
    if m["count"] > MESH_LINES:
        lines.append(f"and {m['count'] - MESH_LINES} more (--json)")
    return lines


def _forwards(f: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Lines about port forwards, and whether each is about something wrong; none when there are no forwards."""
    lines: list[tuple[str, bool]] = []
    if f.get("active") or f.get("inactive"):
        moved = f", {f['moved']} of them moved" if f.get("moved") else ""
        lines.append((f"{f['active']} active{moved}, {f['inactive']} inactive", False))
    for one in f.get("inactive_ones") or ():
        where = f"{one['protocol']} {one['port']} to {one['to']}:{one['to_port']}"
        lines.append((f"{where} is inactive: {one['reason']}", True))
    if f.get("problem"):
        lines.append((str(f["problem"]), True))
    return lines


def _mending(m: Mapping[str, Any]) -> tuple[str, bool] | None:
    """What others did to the softwire in words, and whether it is still wrong; None when nothing was ever mended."""
    last, count = m.get("last"), m.get("mends", 0)
    again = f"next attempt in {duration(m.get('next_attempt_in_s'))}"
    if m.get("problem"):
        return f"no: {m['problem']}; {again}", True
    if m.get("contested") and last:
        return f"{count} times; something keeps undoing it ({last['what']}), {again}", True
    if last:
        return f"{count} time{'s' if count != 1 else ''}, last {duration(last['ago_s'])} ago: {last['what']}", False
    return None


def _few(ports: PortSet) -> str:
    count = ports.range_count
    if count <= 3:
        return ", ".join(map(str, ports.ranges()))
    return f"{ports.range_at(0)}, {ports.range_at(1)}, ..., {ports.range_at(count - 1)}"
