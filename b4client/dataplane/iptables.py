"""``iptables-save`` as nft's JSON objects, for ``fate``. Pure.

nft lists what iptables-nft has made, but of iptables' own extensions (``conntrack``, ``MASQUERADE``) it knows no more
than the names; and of the older ip_tables it knows nothing. What is not understood here becomes ``{"unknown": ...}``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, Final

_HOOKS: Final = {
    ("raw", "PREROUTING"): ("prerouting", -300),
    ("raw", "OUTPUT"): ("output", -300),
    ("mangle", "PREROUTING"): ("prerouting", -150),
    ("mangle", "INPUT"): ("input", -150),
    ("mangle", "FORWARD"): ("forward", -150),
    ("mangle", "OUTPUT"): ("output", -150),
    ("mangle", "POSTROUTING"): ("postrouting", -150),
    ("nat", "PREROUTING"): ("prerouting", -100),
    ("nat", "OUTPUT"): ("output", -100),
    ("filter", "INPUT"): ("input", 0),
    ("filter", "FORWARD"): ("forward", 0),
    ("filter", "OUTPUT"): ("output", 0),
    ("nat", "POSTROUTING"): ("postrouting", 100),
    ("nat", "INPUT"): ("input", 100),
}
_TARGETS: Final[dict[str, dict[str, Any]]] = {
    "ACCEPT": {"accept": None},
    "DROP": {"drop": None},
    "REJECT": {"reject": None},
    "RETURN": {"return": None},
    "MASQUERADE": {"masquerade": None},
    "SNAT": {"snat": None},
    "NETMAP": {"snat": None},
    "DNAT": {"dnat": None},
    "REDIRECT": {"redirect": None},
    "NFQUEUE": {"queue": None},
}
_PASSING: Final = frozenset(
    {"LOG", "NFLOG", "TCPMSS", "MARK", "CONNMARK", "CT", "NOTRACK", "CHECKSUM", "SET", "TRACE", "CLASSIFY", "DSCP"}
)
_PORTS: Final = {
    "--dport": "dport",
    "--destination-port": "dport",
    "--sport": "sport",
    "--source-port": "sport",
    "--dports": "dport",
    "--sports": "sport",
}


def objects(text: str, *, family: str = "ip", suffix: str = "") -> list[dict[str, Any]]:
    """Chains and rules of ``iptables-save``'s output, as libnftables' JSON has them. ``suffix`` is put behind the
    tables' names, for those of the older ip_tables."""
    found: list[dict[str, Any]] = []
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            chain: dict[str, Any] = {"family": family, "table": table + suffix, "name": name}
            if (table, name) in _HOOKS:
                hook, priority = _HOOKS[table, name]
                kind = "nat" if table == "nat" else "filter"
                chain |= {"type": kind, "hook": hook, "prio": priority, "policy": policy.lower()}
            found.append({"chain": chain})
        elif line.startswith("-A "):
            words = shlex.split(line)
            expressions = list(_expressions(words[2:], family))
            found.append({"rule": {"family": family, "table": table + suffix, "chain": words[1], "expr": expressions}})
    return found


def _match(left: dict[str, Any], right: Any, *, inverted: bool) -> dict[str, Any]:
    return {"match": {"op": "!=" if inverted else "==", "left": left, "right": right}}


def _expressions(words: list[str], family: str) -> Iterator[dict[str, Any]]:
    inverted = False
    module = ""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "!":
            inverted = True
            continue
        if word == "--invert" and module == "rpfilter":
            continue  # "-m rpfilter --invert -j DROP" is how it is used: below
        values = []
        while rest and not (rest[0] == "!" or rest[0].startswith("-")):
            values.append(rest.pop(0))
        value = values[0] if values else ""
        if word == "-m":
            module = value
            if module == "rpfilter":
                found = "--invert" not in words
                yield _match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, found, inverted=False)
        elif word in ("-i", "-o"):
            yield _match({"meta": {"key": f"{word[1]}ifname"}}, value.replace("+", "*"), inverted=inverted)
        elif word in ("-s", "-d"):
            name = "saddr" if word == "-s" else "daddr"
            yield _match({"payload": {"protocol": family, "field": name}}, _network(value), inverted=inverted)
        elif word == "-p":
            yield _match({"meta": {"key": "l4proto"}}, value, inverted=inverted)
        elif word in _PORTS:
            ports = [_port(p) for p in value.split(",")]
            yield _match({"payload": {"protocol": "th", "field": _PORTS[word]}}, {"set": ports}, inverted=inverted)
        elif word in ("--ctstate", "--state"):
            states = [s.lower() for s in value.split(",") if s not in ("DNAT", "SNAT")]
            yield _match({"ct": {"key": "state"}}, {"set": states}, inverted=inverted)
        elif word == "--mark":
            mark, _, mask = value.partition("/")
            left: dict[str, Any] = {"meta": {"key": "mark"}}
            left = {"&": [left, int(mask, 0)]} if mask else left
            known = _match(left, int(mark, 0), inverted=inverted)
            yield known if module == "mark" else {"unknown": f"connection mark {value}"}
        elif word in ("--dst-type", "--src-type"):
            flag = "daddr" if word == "--dst-type" else "saddr"
            yield _match({"fib": {"result": "type", "flags": [flag]}}, value.lower(), inverted=inverted)
        elif word == "-j":
            yield from _target(value)
            return
        elif word == "-g":
            yield {"goto": {"target": value}}
            return
        elif module in ("comment", "limit", "hashlimit"):
            pass
        else:
            yield {"unknown": f"{word} {value}"}
        inverted = False


def _target(name: str) -> Iterator[dict[str, Any]]:
    if name in _TARGETS:
        yield _TARGETS[name]
    elif name not in _PASSING:
        yield {"jump": {"target": name}}


def _network(text: str) -> Any:
    address, _, length = text.partition("/")
    full = "128" if ":" in address else "32"
    return {"prefix": {"addr": address, "len": int(length or full)}}


def _port(text: str) -> Any:
    first, _, last = text.partition(":")
    return {"range": [int(first), int(last)]} if last else int(first)
