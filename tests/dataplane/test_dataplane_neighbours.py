"""Walking packets through rules that are data: what is certain, what is only possible, what nft and iptables mean."""

from __future__ import annotations

from typing import Any

import pytest

from b4client.dataplane import iptables
from b4client.dataplane.fate import ACCEPT, DROP, TRANSLATE, Packet, Rules
from b4client.dataplane.neighbours import Lan, Scene, find
from b4client.dataplane.recirculation import loop_plan

SCENE = Scene("b4", "wan", "192.0.2.1", (Lan("lan0", "192.168.1.10"),), loop_plan("b4"), "2001:db8::2", "2001:db8::1")
SYN = Packet(
    "forward",
    "ip",
    "lan0",
    "b4",
    "new",
    "tcp",
    {"ip saddr": "192.168.1.10", "ip daddr": "9.9.9.9", "tcp dport": 443, "tcp flags": frozenset({"syn"})},
)


def base(hook: str = "forward", policy: str = "accept", *, family: str = "inet", **more: Any) -> dict[str, Any]:
    body = {"family": family, "table": "t", "name": "c", "type": "filter", "hook": hook, "prio": 0, "policy": policy}
    return {"chain": body | more}


def rule(*expressions: dict[str, Any], chain: str = "c", family: str = "inet") -> dict[str, Any]:
    return {"rule": {"family": family, "table": "t", "chain": chain, "expr": list(expressions)}}


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def fate(packet: Packet, *objects: dict[str, Any]) -> set[str]:
    rules = Rules(objects)
    return rules.outcomes(rules.chains[0], packet)


CT = {"ct": {"key": "state"}}


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        (match(meta("iifname"), "lan0"), True),
        (match(meta("iifname"), "lan*"), True),
        (match(meta("iifname"), "lan0", "!="), False),
        (match(meta("oifname"), {"set": ["wan", "b4"]}), True),
        (match(meta("l4proto"), {"set": ["udp", "tcp"]}), True),
        (match(meta("nfproto"), "ipv6"), False),
        (match(meta("mark"), 0), True),
        (match(CT, ["established", "related"], "in"), False),
        (match(CT, "new", "in"), True),
        (match(payload("ip", "saddr"), {"prefix": {"addr": "192.168.0.0", "len": 16}}), True),
        (match(payload("ip", "daddr"), {"range": ["9.0.0.0", "9.255.255.255"]}), True),
        (match(payload("ip", "daddr"), "@bogons"), True),
        (match(payload("tcp", "dport"), 443), True),
        (match(payload("tcp", "dport"), {"range": [1, 100]}), False),
        (match(payload("th", "dport"), 400, ">"), True),
        (match(payload("udp", "dport"), 443, "!="), False),
        (match(payload("ip6", "saddr"), "::1"), False),
        (match({"&": [payload("tcp", "flags"), ["fin", "syn", "rst"]]}, "syn"), True),
        (
            match(
                {"concat": [meta("iifname"), payload("tcp", "dport")]},
                {"set": [{"concat": ["lan0", 443]}, {"concat": ["lan0", 80]}]},
            ),
            True,
        ),
        (match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False), False),
        (match({"fib": {"result": "type", "flags": "daddr"}}, "local"), False),
        (match(meta("skuid"), 0), None),
        ({"xt": {"type": "match", "name": "comment"}}, True),
        ({"xt": {"type": "match", "name": "set"}}, None),
        ({"limit": {"rate": 5, "per": "second"}}, True),
        ({"counter": {"packets": 0, "bytes": 0}}, True),
    ],
)
def test_what_matches(expression: dict[str, Any], matches: bool | None) -> None:
    nine = {"prefix": {"addr": "9.0.0.0", "len": 8}}
    bogons = {"set": {"family": "inet", "table": "t", "name": "bogons", "elem": [nine]}}
    expected = {True: {DROP}, False: {ACCEPT}, None: {ACCEPT, DROP}}[matches]
    assert fate(SYN, base(), bogons, rule(expression, {"drop": None})) == expected


def test_jumps_and_returns() -> None:
    sub: dict[str, Any] = {"chain": {"family": "inet", "table": "t", "name": "sub"}}
    to_sub, go_sub = ({verb: {"target": "sub"}} for verb in ("jump", "goto"))
    back = rule({"return": None}, chain="sub")
    drop = rule({"drop": None}, chain="sub")
    assert fate(SYN, base(), sub, rule(to_sub), drop) == {DROP}
    assert fate(SYN, base(), sub, rule(to_sub), rule({"drop": None}), back, drop) == {DROP}
    assert fate(SYN, base(), sub, rule(go_sub), rule({"drop": None}), back) == {ACCEPT}
    assert fate(SYN, base(), rule({"return": None}), rule({"drop": None})) == {ACCEPT}
    loop = rule({"jump": {"target": "sub"}}, chain="sub")
    assert fate(SYN, base(), sub, rule(to_sub), loop) == {ACCEPT, DROP}  # the kernel refuses it; we do not hang


def test_verdict_maps() -> None:
    verdicts = {"set": [["established", {"accept": None}], ["new", {"jump": {"target": "sub"}}]]}
    sub: dict[str, Any] = {"chain": {"family": "inet", "table": "t", "name": "sub"}}
    state = rule({"vmap": {"key": CT, "data": verdicts}})
    assert fate(SYN, base(policy="drop"), sub, state) == {DROP}
    assert fate(SYN, base(policy="drop"), sub, state, rule({"accept": None}, chain="sub")) == {ACCEPT}
    named = {"map": {"family": "inet", "table": "t", "name": "m", "elem": [["lan0", {"drop": None}]]}}
    assert fate(SYN, base(), named, rule({"vmap": {"key": meta("iifname"), "data": "@m"}})) == {DROP}


def test_what_is_only_possible_is_no_conflict() -> None:
    unknown = rule({"xt": {"type": "match", "name": "set"}}, {"accept": None})
    assert find([base(policy="drop"), unknown], SCENE) == []
    assert find([base(policy="drop")], SCENE) != []


def test_a_closed_wan() -> None:
    """Answers of the BR and of the DHCPv6 server must come in, whatever the rest of the firewall thinks of IPv6."""
    closed = base("input", "drop", family="ip6")
    [conflict] = find([closed], SCENE)
    assert "protocol 4" in conflict.text
    assert "DHCPv6" in conflict.text
    assert conflict.remedy.split("; ") == [
        "nft 'insert rule ip6 t c iifname \"wan\" ip6 saddr 2001:db8::2 meta l4proto 4 accept'",
        "nft 'insert rule ip6 t c iifname \"wan\" udp dport 546 accept'",
    ]
    stateful = rule(match(CT, ["established", "related"], "in"), {"accept": None}, family="ip6")
    dhcp = rule(match(payload("udp", "dport"), 546), {"accept": None}, family="ip6")
    assert find([closed, stateful, dhcp], SCENE) == []


def test_our_own_table_is_no_foreign_one() -> None:
    assert find([base(policy="drop", table="b4client_b4")], SCENE) == []


def test_every_packet_that_the_loop_needs() -> None:
    drop = rule(match(meta("iifname"), "b4-n1"), {"drop": None})
    for hook in ("prerouting", "forward"):
        [conflict] = find([base(hook), drop], SCENE)
        assert "b4-n1" in conflict.text
        assert conflict.fatal  # this machine's own connections come that way
    [conflict] = find([base("output"), rule(match(meta("oifname"), "b4-n0"), {"drop": None})], SCENE)
    assert not conflict.fatal


SAVED = """
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 192.168.0.0/16 ! -o wan -m comment --comment "home; all" -j MASQUERADE
COMMIT
*filter
:FORWARD DROP [1:2]
:mine - [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i lan+ -o b4 -p tcp -m multiport --dports 80,443,8000:9000 -j mine
-A FORWARD -m set --match-set friends src -j ACCEPT
-A mine -m mark --mark 0x0/0xff -m limit --limit 5/sec -j ACCEPT
COMMIT
"""


def test_iptables() -> None:
    rules = Rules(iptables.objects(SAVED, suffix=" (legacy)"))
    forward, post = (next(c for c in rules.chains if c.name == n) for n in ("FORWARD", "POSTROUTING"))
    assert forward.table == "filter (legacy)"
    assert (post.kind, post.priority) == ("nat", 100)
    assert rules.outcomes(forward, SYN) == {ACCEPT}
    smtp = Packet("forward", "ip", "lan0", "b4", "new", "tcp", {**SYN.fields, "tcp dport": 25})
    assert rules.outcomes(forward, smtp) == {ACCEPT, DROP}  # who is a friend is not known
    assert rules.outcomes(post, SYN) == {TRANSLATE}
    to_wan = Packet("postrouting", "ip", "lan0", "wan", "new", "tcp", SYN.fields)
    assert rules.outcomes(post, to_wan) == {ACCEPT}


def test_iptables_reverse_path() -> None:
    text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m rpfilter --loose --invert -j DROP\nCOMMIT\n"
    strict = text.replace("--loose ", "")
    assert any("b4-n1" in c.text for c in find(iptables.objects(strict), SCENE))
