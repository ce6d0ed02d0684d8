"""Which way, and which softwire: RFC 8026 1.4, RFC 8585 CONFIG-1..3, RFC 7596 5.1, RFC 7597 5.2, 6 and Appendix A."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from timescript import ADDRESS, OTHER_PORTS, PORTS, lease_at

from b4client.model.lease import Lease4
from b4client.model.maprule import MappingRule
from b4client.model.settings import MECHANISMS, ProtocolSettings, StaticSoftwire
from b4client.model.softwire import DS_LITE_B4, Mode, SoftwireConfig
from b4client.protocol.provisioning import Provisioning, mapping_rules, static_provisioning
from b4client.protocol.softwire_choice import (
    Unfit,
    Wan,
    Way,
    choose_softwire,
    choose_source,
    dynamic_source,
    match_prefix,
    pick_way,
    ways,
)
from b4client.wire.softwire46 import Lw4o6Container, MapEContainer, PortParams, Rule, V4V6Bind

BR, OTHER_BR, THIRD_BR = (IPv6Address(f"2001:db8:ffff::{n}") for n in (1, 2, 3))
BIND = V4V6Bind(ADDRESS, IPv6Network("2001:db8:12:3400::/56"), PortParams.of(PORTS))
LW_BR, LW = Lw4o6Container((BR,)), Lw4o6Container((BR,), BIND)
RULE = Rule(False, 16, IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/40"))
"""RFC 7597 Appendix A example 1."""
ONE_RULE = Rule(False, 0, IPv4Network("192.0.2.18/32"), IPv6Network("2001:db8:12:3400::/56"))
"""Examples 4 and 5."""
MAP_E, MAP_E_ONE = MapEContainer((RULE,), (OTHER_BR,)), MapEContainer((ONE_RULE,), (OTHER_BR,))
MAP_E_PSID = MapEContainer((replace(ONE_RULE, port_params=PortParams(6, 8, 0x35)),), (OTHER_BR,))
LW_LEASED, LW_BOUND = Way(Mode.LW4O6, True, BR), Way(Mode.LW4O6, False, BR)
MAP_LEASED, MAP_BOUND = Way(Mode.MAP_E, True, OTHER_BR), Way(Mode.MAP_E, False, OTHER_BR)
DYNAMIC, DS_LITE = Way(Mode.LW4O6, True, None), Way(Mode.DS_LITE, False, None)
SETTINGS = ProtocolSettings()
END_USER = IPv6Network("2001:db8:12:3400::/56")
SOURCE = IPv6Address("2001:db8:46::100")
WAN = Wan("wan", (SOURCE,), (END_USER,), SOURCE)
CE = IPv6Address("2001:db8:12:3400:0:c000:212:34")


def provisioning(**content: object) -> Provisioning:
    return Provisioning(**content)  # type: ignore[arg-type]


ALL = provisioning(servers_4o6=(), lw4o6=LW, map_e=MAP_E_ONE, aftr="aftr.example.")

# ---- which ways there are


@pytest.mark.parametrize(
    ("content", "settings", "found"),
    [
        ({}, {}, ()),
        ({"servers_4o6": ()}, {}, (DYNAMIC,)),
        ({"servers_4o6": ()}, {"rfc8539": "off"}, ()),
        ({"servers_4o6": (), "lw4o6": LW_BR}, {}, (LW_LEASED,)),
        ({"servers_4o6": (), "lw4o6": LW_BR}, {"rfc8539": "on"}, (DYNAMIC,)),
        ({"lw4o6": LW_BR}, {}, ()),
        ({"lw4o6": LW}, {}, (LW_BOUND,)),
        ({"lw4o6": LW}, {"servers_4o6": ()}, (LW_LEASED, LW_BOUND)),
        ({"servers_4o6": (), "lw4o6": LW}, {}, (LW_LEASED, LW_BOUND)),
        ({"map_e": MAP_E}, {}, (MAP_BOUND,)),
        ({"servers_4o6": (), "map_e": MAP_E}, {}, (MAP_BOUND,)),
        ({"servers_4o6": (), "map_e": MAP_E_ONE}, {}, (MAP_LEASED, MAP_BOUND)),
        ({"aftr": "aftr.example."}, {}, (DS_LITE,)),
        ({}, {"aftr": "aftr.example."}, (DS_LITE,)),
        ({"servers_4o6": ()}, {"br": THIRD_BR}, (Way(Mode.LW4O6, True, THIRD_BR),)),
        ({"map_e": MAP_E}, {"br": THIRD_BR}, (Way(Mode.MAP_E, False, THIRD_BR),)),
        ({"lw4o6": LW}, {"br": THIRD_BR}, (Way(Mode.LW4O6, False, THIRD_BR),)),
    ],
)
def test_ways(content: dict[str, object], settings: dict[str, object], found: tuple[Way, ...]) -> None:
    assert ways(provisioning(**content), replace(SETTINGS, **settings)) == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("off", "found"),
    [
        ("dhcp4o6", (LW_BOUND, MAP_BOUND, DS_LITE)),
        ("lw4o6", (MAP_LEASED, MAP_BOUND, DS_LITE)),
        ("map-e", (LW_LEASED, LW_BOUND, DS_LITE)),
        ("ds-lite", (LW_LEASED, MAP_LEASED, LW_BOUND, MAP_BOUND)),
    ],
)
def test_each_mechanism_can_be_switched_off(off: str, found: tuple[Way, ...]) -> None:
    """RFC 8585 TRANS-2."""
    settings = replace(SETTINGS, mechanisms=tuple(m for m in MECHANISMS if m != off))
    assert ways(ALL, settings) == found


# ---- which one is taken


@pytest.mark.parametrize(
    ("priority", "way"),
    [
        ((), LW_LEASED),
        ((96,), LW_LEASED),
        ((94,), MAP_LEASED),
        ((88,), LW_LEASED),
        ((64, 96), DS_LITE),
        ((95, 1000, 94, 96), MAP_LEASED),  # not ours and unknown ones are skipped
        ((95,), LW_LEASED),  # no match: MAY configure any
    ],
)
def test_the_priority_decides(priority: tuple[int, ...], way: Way) -> None:
    """RFC 8026 1.4 MUST [F-13]."""
    assert pick_way(replace(ALL, priority=priority), SETTINGS) == way


@pytest.mark.parametrize(("priority", "way"), [((), None), ((95,), None), ((95, 94), MAP_LEASED), ((64,), DS_LITE)])
def test_rfc_8585_waits_for_a_match(priority: tuple[int, ...], way: Way | None) -> None:
    """CONFIG-1..3 [F-14, X-5]."""
    assert pick_way(replace(ALL, priority=priority), replace(SETTINGS, profile="rfc8585")) == way


def test_the_operators_file_needs_no_priority() -> None:
    static = StaticSoftwire(Mode.LW4O6, ADDRESS, PORTS)
    settings = replace(SETTINGS, profile="rfc8585", br=BR, static=static)
    assert pick_way(static_provisioning(settings), settings) == LW_BOUND


@pytest.mark.parametrize(
    ("way", "codes"),
    [
        (LW_LEASED, {88, 96}),
        (LW_BOUND, {96}),
        (MAP_LEASED, {88, 94}),
        (MAP_BOUND, {94}),
        (DYNAMIC, {88}),
        (DS_LITE, {64}),
    ],
)
def test_codes(way: Way, codes: set[int]) -> None:
    """RFC 8026 4.1."""
    assert way.codes == codes


# ---- addresses


@pytest.mark.parametrize(
    ("target", "chosen"),
    [(None, "fd00::1"), ("2001:db8::9", "2001:db8::1"), ("fd00::9", "fd00::1"), ("fc00::9", "fd00::1")],
)
def test_choose_source(target: str | None, chosen: str) -> None:
    mine = (IPv6Address("fd00::1"), IPv6Address("2001:db8::1"))
    assert choose_source(mine, None if target is None else IPv6Address(target)) == IPv6Address(chosen)
    assert choose_source((), BR) is None


@pytest.mark.parametrize(
    ("binding", "active", "found"),
    [
        ("2001:db8::/32", ("2001:db8:1::/64", "2001:db8:2::/56"), "2001:db8:1::/64"),
        ("2001:db8:2::/48", ("2001:db8:1::/64", "2001:db8:2::/56"), "2001:db8:2::/56"),
        ("2001:db8:1:0:8000::/66", ("2001:db8:1::/64",), "2001:db8:1:0:8000::/66"),
        ("2001:db8:3::/48", ("2001:db8:1::/64",), None),
        ("::/0", (), None),
    ],
)
def test_match_prefix(binding: str, active: tuple[str, ...], found: str | None) -> None:
    """RFC 7596 5.1 [L-2]: longest match."""
    expected = None if found is None else IPv6Network(found)
    assert match_prefix(IPv6Network(binding), tuple(map(IPv6Network, active))) == expected


def test_a_dynamic_source_is_kept_while_its_prefix_is_active() -> None:
    present = IPv6Address("2001:db8:12:34ff::1")

    def source(wan: Wan) -> IPv6Address:
        return dynamic_source(None, ADDRESS, PORTS, settings=SETTINGS, wan=wan, present=present)

    assert source(WAN) == present
    assert source(replace(WAN, prefixes=(), addresses=())) == present
    assert source(replace(WAN, prefixes=())) == IPv6Address("2001:db8:46:0:0:c000:212:34")


# ---- softwires


def choose(
    way: Way,
    found: Provisioning,
    *,
    lease: Lease4 | None = None,
    wan: Wan = WAN,
    **settings: object,
) -> SoftwireConfig:
    known = replace(SETTINGS, **settings)  # type: ignore[arg-type]
    return choose_softwire(way, found, known, wan, lease, mtu=None, forwards=())


def test_lw4o6_from_the_container_alone() -> None:
    """RFC 7598 5.3 with options 92 and 93; RFC 7596 5.1 figure 3."""
    config = choose(LW_BOUND, provisioning(lw4o6=LW))
    assert config == SoftwireConfig(Mode.LW4O6, "wan", CE, BR, ADDRESS, PORTS, own_local=True)


def test_lw4o6_with_a_whole_address() -> None:
    """No option 93, or a PSID length of 0 [P-2]: not shared, and the PSID field is zero [X-9]."""
    for params in (None, PortParams(0, 0, 0)):
        found = provisioning(lw4o6=Lw4o6Container((BR,), replace(BIND, port_params=params)))
        config = choose(LW_BOUND, found)
        assert (config.ipv4, config.ports) == (ADDRESS, None)
        assert config.local == IPv6Address("2001:db8:12:3400:0:c000:212:0")


def test_lw4o6_leased_into_a_binding_prefix() -> None:
    """The address is the lease's, the prefix the container's."""
    config = choose(LW_LEASED, provisioning(lw4o6=LW), lease=lease_at(ports=OTHER_PORTS))
    assert (config.ports, config.local) == (OTHER_PORTS, IPv6Address(int(CE) + 1))


def test_lw4o6_leased_without_binding() -> None:
    config = choose(LW_LEASED, provisioning(lw4o6=LW_BR), lease=lease_at())
    assert (config.local, config.own_local) == (SOURCE, False)


def test_a_static_source() -> None:
    local = IPv6Address("2001:db8:12:3400::b4")
    config = choose(LW_BOUND, provisioning(lw4o6=LW), local=local)
    assert (config.local, config.own_local) == (local, True)
    config = choose(LW_BOUND, provisioning(lw4o6=LW), local=SOURCE)
    assert (config.local, config.own_local) == (SOURCE, False)


def test_ds_lite() -> None:
    """RFC 6333 5.7: 192.0.0.2, no port set; the AFTR's address is resolved."""
    config = choose(DS_LITE, provisioning(aftr="aftr.example."), wan=replace(WAN, aftr=THIRD_BR))
    assert config == SoftwireConfig(Mode.DS_LITE, "wan", SOURCE, THIRD_BR, DS_LITE_B4, None)


# ---- MAP-E: RFC 7597 Appendix A, and what it does not have


def map_e(*rules: Rule, lease: Lease4 | None = None, wan: Wan = WAN, **settings: object) -> SoftwireConfig:
    found = provisioning(map_e=MapEContainer(rules, (OTHER_BR,)))
    return choose(MAP_LEASED if lease is not None else MAP_BOUND, found, lease=lease, wan=wan, **settings)


def test_example_1() -> None:
    assert map_e(RULE) == SoftwireConfig(Mode.MAP_E, "wan", CE, OTHER_BR, ADDRESS, PORTS, own_local=True)


def test_example_4() -> None:
    """No sharing: the PSID field is zero."""
    config = map_e(ONE_RULE)
    assert (config.ipv4, config.ports) == (ADDRESS, None)
    assert config.local == IPv6Address("2001:db8:12:3400:0:c000:212:0")


def test_example_5() -> None:
    """The PSID comes by DHCP: shared although o + r = 32 [M-5, X-9]."""
    config = map_e(ONE_RULE, lease=lease_at())
    assert (config.ports, config.local) == (PORTS, CE)


def test_an_explicit_psid_in_the_rule() -> None:
    """RFC 7598 4.5 MUST [P-10]."""
    config = map_e(replace(ONE_RULE, port_params=PortParams.of(PORTS)))
    assert (config.ports, config.local) == (PORTS, CE)


def test_port_parameters_without_psid_give_the_offset() -> None:
    """RFC 7598 4.5: a PSID length of 0 leaves the PSID to the EA bits; a = 4 instead of 6."""
    config = map_e(replace(RULE, port_params=PortParams(4, 0, 0)))
    assert config.ports is not None
    assert (config.ports.offset_len, config.ports.psid) == (4, 0x34)


def test_an_ipv4_prefix() -> None:
    """o + r < 32 [M-3]: the whole prefix is ours; explicit PSIDs MUST be discarded (RFC 7598 4.5)."""
    rule = Rule(False, 16, IPv4Network("10.0.0.0/8"), IPv6Network("2001:db8::/40"), PortParams.of(PORTS))
    config = map_e(rule)
    assert config.ipv4_prefix == IPv4Network("10.18.52.0/24")
    assert (config.ipv4, config.ports) == (IPv4Address("10.18.52.1"), None)
    # RFC 7597 6: the prefix right-padded with zeros, PSID zero.
    assert config.local == IPv6Address("2001:db8:12:3400:0:a12:3400:0")


def test_draft_03_identifiers() -> None:
    config = map_e(RULE, interface_identifier="draft03")
    assert config.local == IPv6Address("2001:db8:12:3400:c0:2:1200:3400")
    assert config.interface_identifier == "draft03"


def test_forwarding_rules_are_passed_on() -> None:
    """RFC 7597 5, 5.4 [M-1]: only those with the F flag, the basic one too when it has it."""
    other = Rule(True, 16, IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8:ff00::/40"))
    assert map_e(RULE, other).rules == mapping_rules((other,))
    assert map_e(replace(RULE, fmr=True), other).rules == mapping_rules((replace(RULE, fmr=True), other))
    assert map_e(RULE).rules == ()


def test_the_basic_rule_is_the_longest_match() -> None:
    """RFC 7597 5 [M-1], among the rules and among our prefixes."""
    longer = Rule(False, 8, IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8:12::/48"))
    assert map_e(RULE, longer).ipv4 == IPv4Address("198.51.100.52")
    assert map_e(longer, RULE).ipv4 == IPv4Address("198.51.100.52")
    two = replace(WAN, prefixes=(IPv6Network("2001:db8:34:5600::/56"), END_USER))
    assert map_e(RULE, longer, wan=two).ipv4 == IPv4Address("198.51.100.52")


def test_a_delegated_prefix_goes_before_the_wans_subnet() -> None:
    """Also where the subnet, which many customers may be on, matches the longer rule."""
    longer = replace(
        RULE, rule_ipv6=IPv6Network("2001:db8:46::/48"), ea_len=16, rule_ipv4=IPv4Network("198.51.100.0/24")
    )
    wan = replace(WAN, addresses=(IPv6Address("2001:db8:46::100"),))
    assert map_e(RULE, longer, wan=wan).ipv4 == ADDRESS
    assert map_e(RULE, longer, wan=replace(wan, prefixes=())).ipv4 == IPv4Address("198.51.100.0")


def test_an_end_user_prefix_of_the_wan_itself() -> None:
    """A /64 without delegation."""
    rule = Rule(False, 16, IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8:46::/48"))
    wan = Wan("wan", (IPv6Address("2001:db8:46:1234::9"),), (), IPv6Address("2001:db8:46:1234::9"))
    config = map_e(rule, wan=wan)
    assert config.ipv4 == IPv4Address("192.0.2.18")


# ---- what does not fit


@pytest.mark.parametrize(
    ("way", "content", "given", "reason"),
    [
        (LW_LEASED, {"lw4o6": LW}, {}, "there is no lease"),
        (LW_BOUND, {"lw4o6": LW_BR}, {}, "no binding"),
        (LW_BOUND, {"lw4o6": LW}, {"wan": replace(WAN, prefixes=())}, "matches none of wan's prefixes"),
        (LW_LEASED, {"lw4o6": LW_BR}, {"lease": lease_at(), "wan": Wan("wan")}, "no IPv6 address to send from"),
        (LW_LEASED, {"lw4o6": LW_BR}, {"lease": lease_at(), "local": BR}, "is our own"),
        (DYNAMIC, {}, {"lease": lease_at()}, "without a BR"),
        (DS_LITE, {"aftr": "aftr.example."}, {}, "aftr.example. is not known yet"),
        (MAP_BOUND, {"map_e": MAP_E}, {"wan": Wan("wan")}, "no mapping rule matches"),
        (MAP_LEASED, {"map_e": MAP_E_ONE}, {"lease": lease_at(address=IPv4Address("192.0.2.19"))}, "in none of"),
        (MAP_LEASED, {"map_e": MAP_E_PSID}, {"lease": lease_at(ports=None)}, "contradicts"),
        (MAP_LEASED, {"map_e": MAP_E}, {"lease": lease_at(ports=OTHER_PORTS)}, "contradicts"),
        (MAP_BOUND, {"map_e": MapEContainer((RULE, replace(RULE, ea_len=8)), (BR,))}, {}, "several rules"),
        (MAP_BOUND, {"map_e": MAP_E}, {"wan": Wan("wan", (), (IPv6Network("2001:db8:12::/48"),))}, "too short"),
    ],
)
def test_unfit(way: Way, content: dict[str, object], given: dict[str, object], reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        choose(way, provisioning(**content), **given)  # type: ignore[arg-type]


# ---- the operator's file


def test_static_provisioning() -> None:
    lw = StaticSoftwire(Mode.LW4O6, ADDRESS, PORTS, END_USER)
    assert static_provisioning(ProtocolSettings(br=BR, static=lw)) == Provisioning(lw4o6=LW)
    rules = (MappingRule(IPv6Network("2001:db8::/40"), IPv4Network("192.0.2.0/24"), 16, 4, fmr=True),)
    mapped = static_provisioning(ProtocolSettings(br=BR, static=StaticSoftwire(Mode.MAP_E, rules=rules)))
    assert mapped.map_e is not None
    assert (mapping_rules(mapped.map_e.rules), mapped.brs) == (rules, (BR,))
    ds_lite = StaticSoftwire(Mode.DS_LITE)
    assert static_provisioning(ProtocolSettings(aftr="aftr.example.", static=ds_lite)).aftr == "aftr.example."
    assert static_provisioning(ProtocolSettings(br=BR, static=ds_lite)).aftr == BR
    assert static_provisioning(ProtocolSettings(static=lw)) == Provisioning()
    assert static_provisioning(ProtocolSettings()) == Provisioning()
