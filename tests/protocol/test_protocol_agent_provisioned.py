"""The agent without a lease: lw4o6 and MAP-E from containers, DS-Lite, the operator's file (RFC 7598, 8026, 6333)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from agentscript import ADDRESS, BR, GLOBAL, OTHER_BR, OTHER_GLOBAL, PORTS, AgentScript, stored_lease

from b4client.model.maprule import MappingRule
from b4client.model.portset import PortSet
from b4client.model.settings import StaticSoftwire
from b4client.model.softwire import DS_LITE_B4, Mode, SoftwireConfig
from b4client.protocol import events
from b4client.wire import aftrname, softwire46
from b4client.wire.softwire46 import Lw4o6Container, MapEContainer, PortParams, Rule, V4V6Bind

END_USER = IPv6Network("2001:db8:12:3400::/56")
OTHER_END_USER = IPv6Network("2001:db8:12:3500::/56")
CE = IPv6Address("2001:db8:12:3400:0:c000:212:34")
BIND = V4V6Bind(ADDRESS, IPv6Network("2001:db8:46::/64"), PortParams.of(PORTS))
LW = Lw4o6Container((BR,), BIND)
RULE = Rule(False, 16, IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/40"))
MAP_E = MapEContainer((RULE,), (BR,))
LW_SOFTWIRE = SoftwireConfig(
    Mode.LW4O6, "wan", IPv6Address("2001:db8:46::c000:212:34"), BR, ADDRESS, PORTS, own_local=True
)
MAP_SOFTWIRE = SoftwireConfig(Mode.MAP_E, "wan", CE, BR, ADDRESS, PORTS, own_local=True)
FOUR: dict[str, object] = {"servers": None, "lw": LW}
MAP: dict[str, object] = {"servers": None, "lw": None, "map_e": MAP_E}


def informed(information: dict[str, object], **settings: object) -> AgentScript:
    script = AgentScript(**settings).to_asking()
    script.inform(**information)  # type: ignore[arg-type]
    return script


# ---- lw4o6


def test_lw4o6_without_any_dhcpv4() -> None:
    """RFC 7598 5.3, RFC 7596 5.1 [L-1, L-2]: options 92 and 93 and a BR are enough."""
    script = AgentScript().to_asking()
    assert script.inform(**FOUR) == ["install"]  # type: ignore[arg-type]
    assert (script.kernel, script.queries, script.state) == (LW_SOFTWIRE, [], "STOPPED")
    assert script.status.waiting_for is None
    assert script.status.provisioning.mechanism == "lw4o6"
    assert script.status.softwire is not None
    assert script.status.softwire.ports is not None
    assert script.status.softwire.ports.psid == 0x34


def test_a_binding_and_option_88() -> None:
    """7596 5.1: where DHCP 4o6 is there too, address and ports are leased; the binding gives the prefix."""
    script = AgentScript().to_selecting(lw=LW)
    script.offer()
    script.ack()
    assert script.kernel == LW_SOFTWIRE


def test_option_88_appears_and_goes() -> None:
    """From the container's address to a leased one and back, without a moment between them."""
    script = informed({**FOUR, "refresh": 600})
    assert script.refresh(lw=LW, refresh=600) == ["DISCOVER U=0"]
    assert script.kernel == LW_SOFTWIRE
    script.offer(ports=PortSet(6, 8, 0x35))
    assert script.ack(ports=PortSet(6, 8, 0x35)) == ["save", "install"]
    assert script.kernel is not None
    assert script.kernel.ports == PortSet(6, 8, 0x35)
    assert script.refresh(**FOUR) == ["install"]
    assert (script.kernel, script.state) == (LW_SOFTWIRE, "STOPPED")


def test_option_88_appears_and_the_binding_goes() -> None:
    """Then nothing provisions the old softwire any more."""
    script = informed({**FOUR, "refresh": 600})
    assert script.refresh(lw=Lw4o6Container((BR,))) == ["DISCOVER U=0", "withdraw"]


def test_the_binding_changes_while_a_lease_is_looked_for() -> None:
    script = informed({**FOUR, "refresh": 600})
    script.refresh(lw=LW, refresh=600)
    assert script.link(OTHER_GLOBAL)[-1] == "withdraw"
    assert script.link(GLOBAL)[-1] != "install"


# ---- the softwire lives as long as what provisions it (L-1, M-12)


def test_the_container_is_withdrawn() -> None:
    script = informed({**FOUR, "refresh": 600})
    assert script.refresh(servers=None, lw=None) == ["withdraw"]
    assert "no BR address" in script.waiting_for


def test_only_the_binding_is_withdrawn() -> None:
    script = informed({**FOUR, "refresh": 600})
    assert script.refresh(servers=None, lw=Lw4o6Container((BR,))) == ["withdraw"]
    assert script.kernel is None


def test_the_binding_changes() -> None:
    """One install; the data plane flushes the NAT state of the old port set [L-4]."""
    script = informed({**FOUR, "refresh": 600})
    other = replace(LW, binding=replace(BIND, port_params=PortParams(6, 8, 0x35)))
    assert script.refresh(servers=None, lw=other) == ["install"]
    assert script.kernel is not None
    assert script.kernel.ports is not None
    assert script.kernel.ports.psid == 0x35


def test_the_prefix_goes() -> None:
    script = informed(FOUR)
    assert script.link(OTHER_GLOBAL) == ["withdraw"]
    assert "matches none of wan's prefixes" in script.waiting_for
    assert script.link(GLOBAL) == ["install"]


def test_all_addresses_go_and_the_link_is_up() -> None:
    script = informed(FOUR)
    assert script.link() == ["withdraw"]


def test_a_flap_does_not_cut_the_nat_state() -> None:
    script = informed(FOUR)
    assert script.link(up=False) == []
    script.until(100)
    assert script.link(GLOBAL, moved=True) == ["INFORMATION-REQUEST"]
    assert script.kernel == LW_SOFTWIRE


def test_renumbering_in_a_wide_binding_prefix() -> None:
    wide = replace(LW, binding=replace(BIND, prefix=IPv6Network("2001:db8::/32")))
    script = informed({**FOUR, "lw": wide})
    assert script.link(OTHER_GLOBAL) == ["install"]
    assert script.kernel is not None
    assert script.kernel.local == IPv6Address("2001:db8:47::c000:212:34")


def test_a_lease_from_before_is_not_needed() -> None:
    script = AgentScript(stored=stored_lease())
    script.link(GLOBAL)
    assert script.inform(**FOUR) == ["install"]  # type: ignore[arg-type]


def test_release_and_restart_without_lease() -> None:
    script = informed(FOUR)
    assert script.post(events.ReleaseRequested()) == ["withdraw", "forget"]
    assert script.kernel is None
    assert script.link(GLOBAL, OTHER_GLOBAL) == []
    assert script.post(events.RestartRequested()) == ["INFORMATION-REQUEST"]
    assert script.inform(**FOUR) == ["install"]  # type: ignore[arg-type]


# ---- MAP-E (RFC 7597 Appendix A through the agent)


def test_example_1() -> None:
    script = AgentScript(prefixes=(END_USER,)).to_asking()
    assert script.inform(**MAP) == ["install"]  # type: ignore[arg-type]
    assert script.kernel == MAP_SOFTWIRE
    assert "192.0.2.18, PSID 0x34/8 offset 6" in script.report("softwire-up").text


def test_example_4() -> None:
    rule = Rule(False, 0, IPv4Network("192.0.2.18/32"), END_USER)
    script = informed({**MAP, "map_e": MapEContainer((rule,), (BR,))}, prefixes=(END_USER,))
    local = IPv6Address("2001:db8:12:3400:0:c000:212:0")
    assert script.kernel == replace(MAP_SOFTWIRE, ports=None, local=local)


def test_example_5() -> None:
    """The PSID by DHCP 4o6: RFC 7618's way into MAP-E."""
    rule = Rule(False, 0, IPv4Network("192.0.2.18/32"), END_USER)
    script = AgentScript(prefixes=(END_USER,)).to_asking()
    assert script.inform(lw=None, map_e=MapEContainer((rule,), (BR,))) == ["DISCOVER U=0"]
    script.offer()
    script.ack()
    assert script.kernel == MAP_SOFTWIRE


@pytest.mark.parametrize(
    ("params", "ranges", "count"),
    [
        (PortParams(6, 8, 0), ((1024, 1027), (64512, 64515)), 252),  # Appendix B.2 example 1
        (PortParams(0, 6, 0), ((0, 1023), (0, 1023)), 1024),  # example 2: all system ports, which is reported
    ],
)
def test_appendix_b(params: PortParams, ranges: tuple[tuple[int, int], ...], count: int) -> None:
    rule = Rule(False, 0, IPv4Network("192.0.2.18/32"), END_USER, params)
    script = informed({**MAP, "map_e": MapEContainer((rule,), (BR,))}, prefixes=(END_USER,))
    assert script.status.softwire is not None
    ports = script.status.softwire.ports
    assert ports is not None
    assert (ports.ranges[0], ports.ranges[-1], ports.port_count) == (*ranges, count)


def test_an_ipv4_prefix() -> None:
    rule = Rule(False, 16, IPv4Network("10.0.0.0/8"), IPv6Network("2001:db8::/40"))
    script = informed({**MAP, "map_e": MapEContainer((rule,), (BR,))}, prefixes=(END_USER,))
    assert script.kernel is not None
    assert script.kernel.ipv4_prefix == IPv4Network("10.18.52.0/24")
    assert "10.18.52.0/24 (as 10.18.52.1), all ports" in script.report("softwire-up").text
    assert script.status.softwire is not None
    assert script.status.softwire.ipv4_prefix == "10.18.52.0/24"


def test_rules_change() -> None:
    """A forwarding rule comes: one install with the same address."""
    script = AgentScript(prefixes=(END_USER,)).to_asking()
    script.inform(**{**MAP, "refresh": 600})  # type: ignore[arg-type]
    other = Rule(True, 16, IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8:ff00::/40"))
    assert script.refresh(**{**MAP, "map_e": MapEContainer((RULE, other), (BR,))}) == ["install"]
    assert script.kernel is not None
    assert len(script.kernel.rules) == 1
    assert replace(script.kernel, rules=()) == MAP_SOFTWIRE


def test_rules_that_do_not_fit_together() -> None:
    """RFC 7598 8 SHOULD [M-13]: the container is discarded and named."""
    bad = softwire46.encode_mape(MapEContainer((replace(RULE, ea_len=48),), (BR,)))
    script = informed({**MAP, "map_e": bad}, prefixes=(END_USER,))
    assert script.kernel is None
    assert script.counted == {"ignored-container-malformed": 1}
    assert "MAP-E container (94) ignored" in script.report("provisioning-problem").text


# ---- containers as seen in the field

FIELD = {
    "two zero octets behind 93": lambda b: _grown(b, b + b"\0\0"),
    "two zero octets before 93": lambda b: _grown(b, b.replace(b"\0\x5d\0\4", b"\0\0\0\x5d\0\4")),
    "two zero octets on both sides": lambda b: _grown(b, b.replace(b"\0\x5d\0\4", b"\0\0\0\x5d\0\4") + b"\0\0"),
    "93 longer by two": lambda b: _grown(b, b.replace(b"\0\x5d\0\4", b"\0\x5d\0\6") + b"\0\0"),
    "93 too short": lambda b: _grown(b, b.replace(b"\0\x5d\0\4", b"\0\x5d\0\2")[:-2]),
}


def _grown(before: bytes, after: bytes) -> bytes:
    """Option 92 with the length of what is in it."""
    assert before != after
    return after[:2] + (len(after) - 4).to_bytes(2, "big") + after[4:]


def binding_option() -> bytes:
    value = softwire46.encode_v4v6bind(BIND)
    return bytes.fromhex("005c") + len(value).to_bytes(2, "big") + value


@pytest.mark.parametrize("change", FIELD.values(), ids=FIELD)
def test_malformed_bindings_never_end_in_foreign_ports(change: object) -> None:
    """RFC 7598 8 [M-13]: judged by the standard. Not one port is used, least of all the whole address."""
    good = binding_option()
    br = bytes.fromhex("005a0010") + BR.packed
    assert informed({**FOUR, "lw": good + br}).kernel == LW_SOFTWIRE
    script = informed({**FOUR, "lw": change(good) + br})  # type: ignore[operator]
    assert script.kernel is None
    assert script.counted == {"ignored-container-malformed": 1}
    assert "lw4o6 container (96) ignored" in script.report("provisioning-problem").text


def test_four_zero_octets_are_an_option_that_nobody_knows() -> None:
    """Code 0, length 0: well-formed, so ignored (RFC 8415 16)."""
    good = binding_option()
    script = informed({**FOUR, "lw": _grown(good, good + bytes(4)) + bytes.fromhex("005a0010") + BR.packed})
    assert script.kernel == LW_SOFTWIRE


@pytest.mark.parametrize(
    ("psid_len", "field", "misaligned"),
    [
        (8, 0x3400, False),
        (8, 0x0034, True),
        (8, 0x00FF, True),
        (4, 0x0003, True),
        (12, 0x0345, True),
        (12, 0x3450, False),
        (8, 0x34FF, False),  # padding, but the left half says what is meant: masked off [P-4]
        (8, 0x0000, False),  # PSID 0, either way
        (16, 0x0034, False),  # no room for padding: it is what it says
    ],
)
def test_a_right_aligned_psid(psid_len: int, field: int, misaligned: bool) -> None:
    """RFC 7598 4.5 wants it left-aligned. Where that can be seen nothing is used: the padding masked off it would be
    PSID 0, the ports of somebody else."""
    octets = bytes((0, psid_len)) + field.to_bytes(2, "big")
    good = binding_option()
    lw = good.replace(bytes.fromhex("06083400"), octets) + bytes.fromhex("005a0010") + BR.packed
    script = informed({**FOUR, "lw": lw})
    assert (script.kernel is None) == misaligned
    assert script.counted.get("ignored-container-misaligned", 0) == misaligned
    if misaligned:
        assert "aligned to the right" in script.report("provisioning-problem").text
    leased = AgentScript().to_selecting()
    assert (leased.offer(ports=octets) == []) == misaligned
    assert leased.counted.get("drop-offer-portparams-misaligned", 0) == misaligned


def test_map_t_is_recognised_and_not_used() -> None:
    """Option 95."""
    script = informed({"servers": None, "lw": None, "options": ((95, b"\0"),)})
    assert "MAP-T container (95) ignored: not implemented" in script.report("provisioning-problem").text
    assert script.kernel is None


# ---- priority (RFC 8026, RFC 8585)


def test_the_priority_changes() -> None:
    script = informed({**FOUR, "map_e": MAP_E, "priority": (96, 94), "refresh": 600}, prefixes=(END_USER,))
    assert script.kernel == LW_SOFTWIRE
    assert script.refresh(**{**FOUR, "map_e": MAP_E, "priority": (94, 96)}) == ["install"]
    assert script.kernel == MAP_SOFTWIRE


def test_rfc_8585() -> None:
    """CONFIG-1..3 [F-14, X-5]: nothing until option 111 matches; nothing again when it does not any more."""
    script = informed({**FOUR, "refresh": 600}, profile="rfc8585")
    assert script.kernel is None
    assert script.waiting_for.endswith("its Reply has lw4o6, but no option 111 that permits it (profile rfc8585)")
    assert script.refresh(**{**FOUR, "priority": (96,), "refresh": 600}) == ["install"]
    assert script.refresh(**{**FOUR, "priority": (94,)}) == ["withdraw"]


def test_what_is_switched_off_is_said() -> None:
    script = informed(FOUR, mechanisms=("dhcp4o6", "map-e"))
    assert script.kernel is None
    assert script.waiting_for.endswith("; switched off here: lw4o6, ds-lite")


# ---- DS-Lite (RFC 6333, 6334)

NAME = "aftr.example."
AFTR_OPTION = (64, aftrname.encode_aftr_name(NAME))
AFTR: dict[str, object] = {"servers": None, "lw": None, "options": (AFTR_OPTION,)}
DS_LITE = SoftwireConfig(Mode.DS_LITE, "wan", GLOBAL, BR, DS_LITE_B4, None)


def test_ds_lite() -> None:
    script = AgentScript().to_asking()
    assert script.inform(**AFTR) == [f"resolve {NAME}"]  # type: ignore[arg-type]
    assert script.waiting_for == f"the address of the AFTR {NAME} is not known yet"
    assert script.post(events.Resolved(NAME, (BR,))) == ["install"]
    assert (script.kernel, script.status.waiting_for) == (DS_LITE, None)
    assert script.status.provisioning.aftr == NAME
    assert script.queries == []


def test_ds_lite_the_name_cannot_be_resolved() -> None:
    script = informed(AFTR)
    assert script.post(events.Resolved(NAME, (), "Name or service not known")) == []
    assert "(Name or service not known)" in script.waiting_for
    assert script.after(5) == [f"resolve {NAME}"]
    assert script.post(events.Resolved(NAME, (BR,))) == ["install"]


def test_ds_lite_the_aftr_moves() -> None:
    script = informed(AFTR)
    script.post(events.Resolved(NAME, (BR,)))
    assert script.after(3600) == [f"resolve {NAME}"]
    assert script.post(events.Resolved(NAME, (OTHER_BR,))) == ["install"]
    assert script.kernel == replace(DS_LITE, remote=OTHER_BR)


def test_ds_lite_is_the_last_resort() -> None:
    script = AgentScript().to_asking()
    assert script.inform(**{**FOUR, "options": (AFTR_OPTION,)}) == ["install"]  # type: ignore[arg-type]
    assert script.kernel == LW_SOFTWIRE
    first = informed({**FOUR, "options": (AFTR_OPTION,), "priority": (64, 96)})
    assert first.post(events.Resolved(NAME, (BR,))) == ["install"]
    assert first.kernel == DS_LITE


def test_a_malformed_aftr_name() -> None:
    script = informed({**AFTR, "options": ((64, b"\3ab"),)})
    assert script.counted == {"ignored-aftr-name-malformed": 1}
    assert script.kernel is None


# ---- the operator's file


def test_static_lw4o6() -> None:
    static = StaticSoftwire(Mode.LW4O6, ADDRESS, PORTS)
    script = AgentScript(br=BR, static=static)
    assert script.link(GLOBAL) == ["install"]
    assert (script.kernel, script.sent) == (LW_SOFTWIRE, [])
    assert script.status.provisioning.state == "static"
    assert "address from the operator's file" in script.report("way").text
    assert script.until(1e6) == []


def test_static_lw4o6_with_a_source() -> None:
    static = StaticSoftwire(Mode.LW4O6, ADDRESS, PORTS)
    script = AgentScript(br=BR, static=static, local=GLOBAL)
    script.link(GLOBAL)
    assert script.kernel == replace(LW_SOFTWIRE, local=GLOBAL, own_local=False)


def test_static_map_e() -> None:
    rules = (MappingRule(IPv6Network("2001:db8::/40"), IPv4Network("192.0.2.0/24"), 16),)
    script = AgentScript(br=BR, static=StaticSoftwire(Mode.MAP_E, rules=rules), prefixes=(END_USER,))
    script.link(GLOBAL)
    assert script.kernel == MAP_SOFTWIRE


def test_static_ds_lite() -> None:
    named = AgentScript(aftr=NAME, static=StaticSoftwire(Mode.DS_LITE))
    assert named.link(GLOBAL) == ["withdraw", f"resolve {NAME}"]
    assert named.post(events.Resolved(NAME, (BR,))) == ["install"]
    numbered = AgentScript(aftr=BR, static=StaticSoftwire(Mode.DS_LITE))
    assert numbered.link(GLOBAL) == ["install"]
    assert numbered.kernel == DS_LITE


def test_static_stop_and_restart() -> None:
    script = AgentScript(br=BR, static=StaticSoftwire(Mode.LW4O6, ADDRESS, PORTS))
    script.link(GLOBAL)
    assert script.post(events.RestartRequested()) == ["install"]
    assert script.post(events.StopRequested(withdraw=True)) == ["withdraw"]


def test_static_waits_for_an_address() -> None:
    script = AgentScript(br=BR, static=StaticSoftwire(Mode.LW4O6, IPv4Address("192.0.2.18"), PORTS))
    script.link()
    assert "matches none of wan's prefixes" in script.waiting_for
