"""What other people's nft rules would do with a packet that does not exist yet. Pure.

The rules are those of ``nft -j list ruleset``, the packet is one that the softwire needs to pass. What cannot be known
(an expression that is not understood here, a set that is filled at run time) makes an outcome possible, not certain:
only what is certain is reported as a conflict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final

ACCEPT: Final = "accept"
DROP: Final = "drop"
TRANSLATE: Final = "translate"
MAX_DEPTH: Final = 16
"""Of jumps: the kernel's own limit (NFT_JUMP_STACK_SIZE)."""
_UNKNOWN: Final = object()
_NO_SUCH_FIELD: Final = object()
_NAT_TARGETS: Final = frozenset({"MASQUERADE", "SNAT", "NETMAP"})
_SILENT_MATCHES: Final = frozenset({"comment", "tcp", "udp", "icmp"})
_SILENT_TARGETS: Final = frozenset(
    {"LOG", "NFLOG", "TCPMSS", "MARK", "CONNMARK", "CT", "CHECKSUM", "SET", "TRACE", "CLASSIFY", "DSCP", "TOS"}
)
_LAYER4: Final = frozenset({"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6"})
_NUMBERS: Final = {"ipip": 4, "ipencap": 4, "tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "ipv6-icmp": 58}


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet at ``hook`` of ``family`` (``"ip"`` or ``"ip6"``). ``fields`` are its payload as nft names it
    (``"ip saddr"``, ``"tcp dport"``); ``reverse_path`` is whether its source is reached through the interface that it
    comes in by; ``local_source`` whether its source is this machine's."""

    hook: str
    family: str
    iif: str | None
    oif: str | None
    state: str
    protocol: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    reverse_path: bool = True
    local_source: bool = False


@dataclass(frozen=True, slots=True)
class Chain:
    """A base chain."""

    family: str
    table: str
    name: str
    kind: str
    hook: str
    priority: int
    policy: str

    def __str__(self) -> str:
        return f"the chain {self.name} of the nft table {self.family} {self.table}"


class Rules:
    """All chains, sets and maps of a listing but for tables that ``ours`` names."""

    def __init__(self, objects: Iterable[Mapping[str, Any]], ours: Iterable[str] = ()) -> None:
        own = frozenset(ours)
        self.chains: list[Chain] = []
        self._rules: dict[tuple[str, str, str], list[list[dict[str, Any]]]] = {}
        self._sets: dict[tuple[str, str, str], list[Any]] = {}
        for item in objects:
            for kind, body in item.items():
                if not isinstance(body, dict) or body.get("table") in own:
                    continue
                key = (str(body.get("family")), str(body.get("table")), str(body.get("name")))
                if kind == "chain":
                    self._rules.setdefault(key, [])
                    if "hook" in body:
                        self.chains.append(_base_chain(key, body))
                elif kind == "rule":
                    self._rules.setdefault((*key[:2], str(body.get("chain"))), []).append(body.get("expr") or [])
                elif kind in ("set", "map"):
                    self._sets[key] = body.get("elem") or []
        self.chains.sort(key=lambda chain: chain.priority)

    def has_chain(self, family: str, table: str, name: str) -> bool:
        """True when there is such a chain, base or not."""
        return (family, table, name) in self._rules

    def at(self, packet: Packet, kind: str | None = None) -> Iterator[Chain]:
        """The base chains that see ``packet``, first to last; only those of ``kind`` (``"nat"``) when it is given."""
        for chain in self.chains:
            if chain.hook == packet.hook and chain.family in (packet.family, "inet") and kind in (None, chain.kind):
                yield chain

    def dropping(self, packet: Packet) -> Chain | None:
        """The first base chain that drops ``packet`` for certain; None when it may pass all of them."""
        return next((c for c in self.at(packet) if c.kind != "nat" and self.outcomes(c, packet) == {DROP}), None)

    def outcomes(self, chain: Chain, packet: Packet) -> set[str]:
        """ACCEPT, DROP, TRANSLATE: what can become of ``packet`` in ``chain``; one of them when it is certain."""
        found, falls = self._walk((chain.family, chain.table, chain.name), packet, 0)
        return found | ({chain.policy} if falls else set())

    # ---- walking

    def _walk(self, key: tuple[str, str, str], packet: Packet, depth: int) -> tuple[set[str], bool]:
        """(what can be decided here, whether the packet may come to the end without a decision)."""
        found: set[str] = set()
        if depth > MAX_DEPTH:
            return {ACCEPT, DROP}, True
        for expressions in self._rules.get(key, ()):
            matched: bool | None = True
            for expression in expressions:
                verdict, target, sure = self._step(key, expression, packet)
                if sure is False:
                    matched = False
                    break
                if sure is None:
                    matched = None
                if verdict is None:
                    continue
                if verdict == "return":
                    if matched:
                        return found, True
                elif verdict in ("jump", "goto"):
                    sub, falls = self._walk((*key[:2], target), packet, depth + 1)
                    found |= sub
                    if matched and (verdict == "goto" or not falls):
                        return found, falls
                else:
                    found.add(verdict)
                    if matched:
                        return found, False
                break
        return found, True

    def _step(
        self, key: tuple[str, str, str], expression: Mapping[str, Any], packet: Packet
    ) -> tuple[str | None, str, bool | None]:
        """(verdict or None, target of a jump, whether it matches: None is unknown) of one statement."""
        for name, body in expression.items():
            if name == "match":
                return None, "", self._match(key, body, packet)
            if name == "vmap":
                return self._vmap(key, body, packet)
            if name in (ACCEPT, DROP, "return"):
                return name, "", True
            if name == "reject":
                return DROP, "", True
            if name in ("jump", "goto"):
                return name, str(body["target"]), True
            if name in ("masquerade", "snat"):
                return TRANSLATE, "", True
            if name in ("dnat", "redirect", "tproxy"):
                return ACCEPT, "", True
            if name == "queue":
                return ACCEPT, "", None
            if name == "limit":
                return None, "", not (isinstance(body, dict) and body.get("inv"))
            if name == "xt":
                return _compat(body)
            if name == "unknown":
                return None, "", None
        return None, "", True

    def _vmap(
        self, key: tuple[str, str, str], body: Mapping[str, Any], packet: Packet
    ) -> tuple[str | None, str, bool | None]:
        value = _value(body.get("key"), packet)
        if value is _UNKNOWN:
            return ACCEPT, "", None
        for element in self._elements(key, body.get("data")):
            if isinstance(element, list | tuple) and len(element) == 2 and self._equals(key, value, element[0]):
                verdict, target, _ = self._step(key, element[1], packet)
                return verdict, target, True
        return None, "", False

    def _elements(self, key: tuple[str, str, str], right: Any) -> list[Any]:
        if isinstance(right, str) and right.startswith("@"):
            return self._sets.get((*key[:2], right[1:]), [])
        found = right.get("set", ()) if isinstance(right, dict) else ()
        return list(found) if isinstance(found, list | tuple) else [found]

    # ---- matching

    def _match(self, key: tuple[str, str, str], body: Mapping[str, Any], packet: Packet) -> bool | None:
        value = _value(body.get("left"), packet)
        if value is _NO_SUCH_FIELD:
            return False  # nft asks for the protocol first
        if value is _UNKNOWN:
            return None
        operator, right = body.get("op"), body.get("right")
        if operator in ("<", ">", "<=", ">="):
            return _compare(value, str(operator), right)
        same = self._equals(key, value, right)
        return None if same is None else same == (operator != "!=")

    def _equals(self, key: tuple[str, str, str], value: Any, right: Any) -> bool | None:
        if isinstance(right, bool):
            return bool(value) is right
        if isinstance(right, dict):
            if "elem" in right:
                return self._equals(key, value, right["elem"].get("val"))
            if "prefix" in right:
                return _in_prefix(value, right["prefix"])
            if "range" in right:
                return _in_range(value, right["range"])
            if "concat" in right:
                parts = right["concat"]
                known = isinstance(value, tuple) and len(value) == len(parts)
                return known and all(self._equals(key, v, p) for v, p in zip(value, parts, strict=True))
            if "set" in right:
                return any(self._equals(key, value, e) for e in self._elements(key, right))
            return None
        if isinstance(right, list):
            if isinstance(value, frozenset):
                return bool(value & set(right))
            return any(self._equals(key, value, e) for e in right)
        if isinstance(right, str) and right.startswith("@"):
            return any(self._equals(key, value, e[0] if isinstance(e, list) else e) for e in self._elements(key, right))
        if isinstance(value, frozenset):
            return value == frozenset({right})
        if isinstance(right, str) and right.endswith("*") and isinstance(value, str):
            return value.startswith(right[:-1])
        return bool(value == right or (_number(value) is not None and _number(value) == _number(right)))


def _base_chain(key: tuple[str, str, str], body: Mapping[str, Any]) -> Chain:
    return Chain(*key, str(body.get("type")), str(body["hook"]), int(body.get("prio", 0)), body.get("policy", ACCEPT))


def _compat(body: Any) -> tuple[str | None, str, bool | None]:
    """An extension of iptables: nft names it and tells nothing else."""
    name = str((body or {}).get("name", ""))
    if (body or {}).get("type") == "target":
        if name in _NAT_TARGETS:
            return TRANSLATE, "", True
        if name == "REJECT":
            return DROP, "", True
        return (None, "", True) if name in _SILENT_TARGETS else (ACCEPT, "", None)
    return None, "", True if name in _SILENT_MATCHES else None


def _value(left: Any, packet: Packet) -> Any:
    if not isinstance(left, dict):
        return _UNKNOWN
    for kind, body in left.items():
        if kind == "meta":
            return _meta(str(body.get("key")), packet)
        if kind == "ct":
            known = {"state": packet.state, "mark": 0, "status": frozenset(), "zone": 0}
            known["direction"] = "reply" if packet.state == "established" else "original"
            return known.get(str(body.get("key")), _UNKNOWN)
        if kind == "payload":
            return _payload(body, packet)
        if kind == "fib":
            return _fib(body, packet)
        if kind == "concat":
            parts = tuple(_value(part, packet) for part in body)
            special = next((p for p in parts if p is _NO_SUCH_FIELD or p is _UNKNOWN), None)
            return parts if special is None else special
        if kind == "&":
            value, mask = _value(body[0], packet), body[1]
            if isinstance(value, frozenset):
                return value & frozenset([mask] if isinstance(mask, str) else mask)
            return value & mask if isinstance(value, int) and isinstance(mask, int) else _UNKNOWN
    return _UNKNOWN


def _meta(key: str, packet: Packet) -> Any:
    known = {
        "iifname": packet.iif,
        "iif": packet.iif,
        "oifname": packet.oif,
        "oif": packet.oif,
        "nfproto": "ipv4" if packet.family == "ip" else "ipv6",
        "protocol": packet.family,
        "l4proto": packet.protocol,
        "mark": 0,
        "pkttype": "host",
    }
    if key in ("iifname", "iif", "oifname", "oif") and known[key] is None:
        return ""
    return known.get(key, _UNKNOWN)


def _payload(body: Mapping[str, Any], packet: Packet) -> Any:
    protocol, name = str(body.get("protocol")), str(body.get("field"))
    if protocol == "th" and packet.protocol in ("tcp", "udp"):
        protocol = packet.protocol
    if protocol in ("ip", "ip6"):
        if protocol != packet.family:
            return _NO_SUCH_FIELD
        if name in ("protocol", "nexthdr"):
            return packet.protocol
    elif protocol in _LAYER4 and protocol != packet.protocol:
        return _NO_SUCH_FIELD
    return packet.fields.get(f"{protocol} {name}", _UNKNOWN)


def _fib(body: Mapping[str, Any], packet: Packet) -> Any:
    flags = body.get("flags", ())
    flags = {flags} if isinstance(flags, str) else set(flags)
    if body.get("result") == "type":
        if "saddr" in flags:
            return "local" if packet.local_source else "unicast"
        return "local" if packet.hook == "input" else "unicast"
    if "saddr" in flags and "iif" in flags:
        return (packet.iif or "") if packet.reverse_path else False
    return _UNKNOWN


def _in_prefix(value: Any, prefix: Mapping[str, Any]) -> bool | None:
    try:
        return ip_address(value) in ip_network(f"{prefix['addr']}/{prefix['len']}", strict=False)
    except (ValueError, KeyError):
        return None


def _in_range(value: Any, ends: Any) -> bool | None:
    try:
        low, high = ends
        if isinstance(value, int):
            return int(low) <= value <= int(high)
        return int(ip_address(low)) <= int(ip_address(value)) <= int(ip_address(high))
    except (ValueError, TypeError):
        return None


def _compare(value: Any, operator: str, right: Any) -> bool | None:
    if not isinstance(value, int) or not isinstance(right, int):
        return None
    return {"<": value < right, ">": value > right, "<=": value <= right, ">=": value >= right}[operator]


def _number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return int(value) if value.isdigit() else _NUMBERS.get(value)
    return None
