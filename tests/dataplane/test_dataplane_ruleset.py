"""The ruleset as text: what it must say for which set; and that libnftables takes it for any set (in ``netns``)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client.dataplane.nft import essence
from b4client.dataplane.plan import NOT_SHARED, ONE_TRY, RECIRCULATION, Plan, plan
from b4client.dataplane.ruleset import COUNTERS, going_on
from b4client.model.portset import PortSet
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation, Mode, PortForward, SoftwireConfig


def plan_of(
    ports: PortSet | None,
    forwards: tuple[PortForward, ...] = (),
    *,
    recirculation: bool = True,
    settings: SoftwireSettings | None = None,
    mode: Mode = Mode.LW4O6,
    encapsulation: Encapsulation = Encapsulation.USERSPACE,
) -> Plan:
    local, remote = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
    return plan(
        SoftwireConfig(mode, "wan", local, remote, IPv4Address("192.0.2.1"), ports, forwards=forwards),
        settings or SoftwireSettings(),
        encapsulation=encapsulation,
        path_mtu=1500,
        recirculation=recirculation,
    )


def chain(text: str, name: str) -> str:
    found = re.search(rf"^  chain {name} {{\n(.*?)^  }}$", text, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


@pytest.mark.parametrize(
    "ports", [PortSet(0, 8, 0x34), PortSet(4, 8, 0x34), PortSet(6, 10, 1), PortSet(4, 4, 3)], ids=str
)
def test_one_chain_per_try_and_all_of_them_reachable(ports: PortSet) -> None:
    target = plan_of(ports)
    assert target.nat == RECIRCULATION
    made = set(re.findall(r"chain (try_\d+) ", target.ruleset))
    assert set(re.findall(r"goto (try_\d+)", target.ruleset)) == made
    # Each try but the last one's copy leads to the next; after the last there is the refusal.
    assert f"0x5e4800{len(made):02x}" in chain(target.ruleset, "forward_new")


def test_without_the_loop() -> None:
    target = plan_of(PortSet(4, 8, 0x34), recirculation=False)
    assert (target.nat, target.loop) == (ONE_TRY, None)
    assert not re.search(r"\bdup\b|try_|@ll|ether|fib", target.ruleset)


def test_unshared() -> None:
    target = plan_of(None)
    assert (target.nat, target.loop) == (NOT_SHARED, None)
    assert "snat ip to 192.0.2.1\n" in chain(target.ruleset, "choose_once")


@pytest.mark.parametrize("recirculation", [True, False])
@given(a=st.integers(0, 6), k=st.integers(1, 16), psid=st.integers(0, 65535))
def test_the_guard_costs_the_same_for_any_set(recirculation: bool, a: int, k: int, psid: int) -> None:
    if a + k > 16:
        return
    ports = PortSet(a, k, psid % (1 << k))
    guard = chain(plan_of(ports, recirculation=recirculation).ruleset, "guard_softwire")
    assert len(guard.splitlines()) == 5
    assert guard.rstrip().endswith("counter name guard_drop drop")


SHIFTED = re.compile(r"th sport (?:& (0x\w+) == (0x\w+))? ?(?:th sport >= (\d+))? ?accept")


@pytest.mark.parametrize(
    "ports", [PortSet(0, 8, 0x34), PortSet(4, 8, 0x34), PortSet(6, 10, 1), PortSet(6, 8, 0)], ids=str
)
def test_the_guard_passes_the_set_and_nothing_else(ports: PortSet) -> None:
    """RFC 7618 7.1 [N-1]: all 65536 ports are judged as the rule does and as the set says."""
    found = SHIFTED.search(chain(plan_of(ports).ruleset, "guard_softwire"))
    assert found
    mask, value, floor = (int(text or "0", 0) for text in found.groups())
    assert [p for p in range(65536) if p & mask == value and p >= floor] == sorted(ports.ports())


def test_how_long_mappings_live() -> None:
    """UDP two minutes at least and five by default (RFC 4787 REQ-5 [N-2]); TCP two hours and four minutes, four minutes
    on its way up and down (RFC 5382 REQ-5 [N-4]). Both policies are set on every new flow, out and in."""
    text = plan_of(PortSet(4, 8, 0x34)).ruleset

    def policy(name: str) -> dict[str, int]:
        found = re.search(rf"ct timeout {name} {{\n.*policy = {{ (.*) }}", text)
        assert found
        return {state: int(seconds) for state, seconds in re.findall(r"(\w+) : (\d+)", found[1])}

    udp, tcp = policy("udp_flows"), policy("tcp_flows")
    assert set(udp) == {"unreplied", "replied"}
    assert udp["unreplied"] >= 120
    assert udp["replied"] >= 300
    assert tcp.pop("established") >= 7440
    assert set(tcp) == {"syn_recv", "fin_wait", "close_wait", "last_ack"}
    assert min(tcp.values()) >= 240
    for name in ("forward_new", "forward_in", "output_softwire"):
        assert "jump flow_timeouts" in chain(text, name)
    for protocol in ("tcp", "udp"):
        assert f'meta l4proto {protocol} ct timeout set "{protocol}_flows"' in chain(text, "flow_timeouts")


@pytest.mark.parametrize("mode", [Mode.LW4O6, Mode.MAP_E, Mode.DS_LITE])
def test_dhcp_stays_in_the_lan(mode: Mode) -> None:
    """RFC 8585 8 [L-18]: neither clients' nor servers' messages are forwarded to the WAN."""
    text = plan_of(None if mode is Mode.DS_LITE else PortSet(4, 8, 0x34), mode=mode).ruleset
    rules = chain(text, "outbound" if mode is Mode.DS_LITE else "forward_out").splitlines()
    (dhcp,) = (n for n, rule in enumerate(rules) if "udp dport { 67, 68 }" in rule and " reject " in rule)
    assert not [rule for rule in rules[:dhcp] if re.search(r"(?<!established,related )accept|goto", rule)]


@pytest.mark.parametrize("name", ["inbound_softwire", "forward_out", "output_softwire"])
def test_link_local_addresses_do_not_pass(name: str) -> None:
    """RFC 7618 7.1, RFC 3927 7 [F-11]: before anything else is asked."""
    rules = chain(plan_of(PortSet(4, 8, 0x34)).ruleset, name).split("\n")
    assert rules[0].endswith("ip saddr 169.254.0.0/16 counter name link_local_drop drop")
    assert name == "inbound_softwire" or rules[1].endswith("ip daddr 169.254.0.0/16 counter name link_local_drop drop")


def test_an_icmp6_error_of_somebody_else_is_not_the_kernels_to_believe() -> None:
    """RFC 7596 5.1 [L-6]: where ip6_tunnel is the softwire; the userspace softwire looks at the sender itself."""
    rule = "icmpv6 code policy-fail"
    assert rule not in plan_of(PortSet(4, 8, 0x34)).ruleset
    text = plan_of(PortSet(4, 8, 0x34), encapsulation=Encapsulation.KERNEL).ruleset
    (line,) = (line for line in text.splitlines() if rule in line)
    assert "ip6 saddr != 2001:db8::2 " in line
    assert line.endswith(
        "@th,128,128 0x20010db8000000000000000000000001 @th,256,128 0x20010db8000000000000000000000002 drop"
    )


def test_no_mark_of_the_users_is_touched() -> None:
    assert not re.search(r"\bmark\b", plan_of(PortSet(4, 8, 0x34)).ruleset)


def test_every_counter_is_declared_and_used() -> None:
    settings = SoftwireSettings(lan=(IPv4Network("192.168.1.0/24"),), accept_local=False)
    text = plan_of(PortSet(4, 8, 0x34), settings=settings).ruleset
    assert set(re.findall(r"counter name (\w+)", text)) == set(re.findall(r"counter (\w+) { }", text)) == set(COUNTERS)


def test_counters_go_on() -> None:
    text = plan_of(PortSet(4, 8, 0x34)).ruleset
    assert going_on(text, {}) == text
    known = {"in_drop": {"packets": 7, "bytes": 420}, "somebody_elses": {"packets": 1, "bytes": 1}}
    assert going_on(text, known) == text.replace("counter in_drop { }", "counter in_drop { packets 7 bytes 420 }")
    assert "counter out_drop { }" in going_on(text, known)


def test_forwarded_port_is_nobody_elses() -> None:
    forward = PortForward("tcp", 4930, IPv4Address("192.168.1.10"), 80)
    text = plan_of(PortSet(4, 8, 0x34), (forward,)).ruleset
    ranges = re.findall(r"snat ip to 192\.0\.2\.1:(\d+)-(\d+)$", text, re.MULTILINE)
    assert ranges[:3] == [("4928", "4929"), ("4931", "4943"), ("9024", "9039")]
    assert "tcp . 4930 : 192.168.1.10 . 80" in text
    outside = PortForward("tcp", 80, IPv4Address("192.168.1.10"), 80)
    assert plan_of(PortSet(4, 8, 0x34), (outside,)).ruleset == plan_of(PortSet(4, 8, 0x34)).ruleset


def test_device_names_cannot_inject() -> None:
    with pytest.raises(ValueError, match="not an interface name"):
        plan_of(PortSet(4, 8, 0x34), settings=SoftwireSettings(device='b4" drop #'))


def test_essence_leaves_out_what_comes_and_goes() -> None:
    listing = """table ip t {
\tset full {
\t\ttype inet_proto . ipv4_addr
\t\tsize 4096
\t\tflags dynamic,timeout
\t\ttimeout 1s
%s\t}

\tmap ranges {
\t\ttypeof numgen inc mod 2 : ip daddr
\t\telements = { 0 : 192.0.2.1,
\t\t\t     1 : 192.0.2.1 }
\t}
}
"""
    full = listing % "\t\telements = { tcp . 1.2.3.4 timeout 1s expires 10ms,\n\t\t\t     udp . 1.2.3.4 timeout 1s }\n"
    assert essence(full) == essence(listing % "") == listing % ""
    assert essence(full) != essence(full.replace("0 : 192.0.2.1", "0 : 192.0.2.2"))
