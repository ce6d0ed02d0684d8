"""Mapping rules: the examples of RFC 7597 Appendix A, every shape of rule, and the way there and back."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client.model.maprule import (
    MapCe,
    MappingRule,
    ce_address_for,
    fmr_destination,
    lw_address,
    map_ce,
    select_bmr,
)
from b4client.model.portset import PortSet

V4, V6 = IPv4Address("192.0.2.18"), IPv6Address("2001:db8:12:3400:0:c000:212:34")
END_USER = IPv6Network("2001:db8:12:3400::/56")
PORTS = PortSet(6, 8, 0x34)


def rule(ipv6: str, ipv4: str, ea_len: int, offset_len: int = 6, **more: Any) -> MappingRule:
    return MappingRule(IPv6Network(ipv6), IPv4Network(ipv4), ea_len, offset_len, **more)


EXAMPLE_1 = rule("2001:db8::/40", "192.0.2.0/24", 16)
EXAMPLE_4 = rule("2001:db8:12:3400::/56", "192.0.2.18/32", 0)


# ------------------------------------------------------------------------------------------- RFC 7597 Appendix A


def test_example_1_basic_mapping_rule() -> None:
    ce = map_ce(EXAMPLE_1, END_USER)
    assert ce == MapCe(EXAMPLE_1, END_USER, V4, PORTS, V6)
    assert (EXAMPLE_1.suffix_len, EXAMPLE_1.embedded_psid_len, EXAMPLE_1.end_user_len) == (8, 8, 56)


def test_example_2_forwarding_from_outside() -> None:
    assert ce_address_for(EXAMPLE_1, V4, 1232) == V6


def test_example_3_destination_outside_the_domain_goes_to_the_border_relay() -> None:
    mesh = rule("2001:db8::/40", "192.0.2.0/24", 16, fmr=True)
    assert fmr_destination([mesh], IPv4Address("1.2.3.4"), 80) is None
    assert fmr_destination([mesh], V4, 1232) == V6


def test_example_4_whole_address() -> None:
    ce = map_ce(EXAMPLE_4, END_USER)
    assert (ce.ipv4, ce.ports, ce.address) == (V4, None, IPv6Address("2001:db8:12:3400:0:c000:212:0"))
    assert ce_address_for(EXAMPLE_4, V4, 80) == ce.address
    assert ce_address_for(EXAMPLE_4, V4, None) == ce.address


def test_example_5_psid_from_dhcp_makes_the_address_shared() -> None:
    assert map_ce(EXAMPLE_4, END_USER, PORTS) == MapCe(EXAMPLE_4, END_USER, V4, PORTS, V6)
    inside = rule("2001:db8:12:3400::/56", "192.0.2.18/32", 0, psid_len=8, psid=0x34)
    assert map_ce(inside, END_USER) == MapCe(inside, END_USER, V4, PORTS, V6)
    assert [ce_address_for(inside, V4, p) for p in (1232, 1235, 1236, 208, None)] == [V6, V6, None, None, None]


# ----------------------------------------------------------------------------------------------------- other shapes


@pytest.mark.parametrize(
    ("mapping", "end_user", "ipv4", "ports", "address"),
    [
        # r + o < 32: an IPv4 prefix, in the identifier padded with zeros, PSID 0
        (rule("2001:db8::/40", "192.0.0.0/16", 12), "2001:db8:2:1000::/52", "192.0.2.16/28", None, "0:c000:210:0"),
        # r = 0: all of the address comes from the EA bits
        (rule("2001:d00::/24", "0.0.0.0/0", 32), "2001:dc0:2:1200::/56", "192.0.2.18", None, "0:c000:212:0"),
        # o = 48: address and one port
        (
            rule("2001::/16", "0.0.0.0/0", 48, 0),
            "2001:c000:212:4d2::/64",
            "192.0.2.18",
            PortSet(0, 16, 1234),
            "0:c000:212:4d2",
        ),
        # r = 32: the PSID alone is in the EA bits
        (rule("2001:db8:12::/48", "192.0.2.18/32", 8), "2001:db8:12:3400::/56", "192.0.2.18", PORTS, "0:c000:212:34"),
        # End-user bits behind the EA bits belong to the subscriber
        (rule("2001:db8::/40", "192.0.2.0/24", 16), "2001:db8:12:34f0::/60", "192.0.2.18", PORTS, "0:c000:212:34"),
        # another offset than the default
        (
            rule("2001:db8::/40", "192.0.2.0/24", 16, 4),
            "2001:db8:12:3400::/56",
            "192.0.2.18",
            PortSet(4, 8, 0x34),
            "0:c000:212:34",
        ),
    ],
)
def test_shapes(mapping: MappingRule, end_user: str, ipv4: str, ports: PortSet | None, address: str) -> None:
    prefix = IPv6Network(end_user)
    ce = map_ce(mapping, prefix)
    assert (str(ce.ipv4), ce.ports) == (ipv4, ports)
    upper = int(prefix.network_address) >> 64
    assert int(ce.address) >> 64 == upper
    assert f"{ce.address.exploded[20:]}" == IPv6Address(f"::{address}").exploded[20:]


def test_all_hosts_of_an_ipv4_prefix_have_one_address() -> None:
    mapping = rule("2001:db8::/40", "192.0.0.0/16", 12, fmr=True)
    ce = map_ce(mapping, IPv6Network("2001:db8:2:1000::/52"))
    assert isinstance(ce.ipv4, IPv4Network)
    assert {ce_address_for(mapping, host, None) for host in ce.ipv4} == {ce.address}
    assert ce_address_for(mapping, ce.ipv4.broadcast_address + 1, None) != ce.address


def test_psid_is_ignored_for_an_ipv4_prefix() -> None:
    # RFC 7598 4.5 [P-10]: "MUST be discarded if the S46 CE isn't configured with a full IPv4 address".
    mapping = rule("2001:db8::/40", "192.0.0.0/16", 12, psid_len=8, psid=0x34)
    ce = map_ce(mapping, IPv6Network("2001:db8:2:1000::/52"), PortSet(6, 8, 1))
    assert (str(ce.ipv4), ce.ports) == ("192.0.2.16/28", None)
    assert str(ce.address) == "2001:db8:2:1000:0:c000:210:0"
    assert ce_address_for(mapping, IPv4Address("192.0.2.17"), 1) == ce.address


def test_explicit_psid_from_dhcp_goes_before_the_rule() -> None:
    mapping = rule("2001:db8:12:3400::/56", "192.0.2.18/32", 0, psid_len=8, psid=0x34)
    assert map_ce(mapping, END_USER, PortSet(0, 4, 9)).ports == PortSet(0, 4, 9)
    assert str(map_ce(mapping, END_USER, PortSet(0, 4, 9)).address) == "2001:db8:12:3400:0:c000:212:9"


def test_explicit_psid_that_repeats_the_embedded_one() -> None:
    mapping = rule("2001:db8::/40", "192.0.2.0/24", 16, psid_len=8, psid=0x34)
    assert map_ce(mapping, END_USER).ports == PORTS
    assert map_ce(EXAMPLE_1, END_USER, PortSet(4, 8, 0x34)).ports == PortSet(4, 8, 0x34)
    # As a forwarding rule it is good for this one port set.
    assert [ce_address_for(mapping, V4, p) for p in (1232, 1236)] == [V6, None]


# --------------------------------------------------------------------------------------- the lower half of the address


def test_lw_address() -> None:
    # RFC 7596 5.1 Fig. 3 [L-3]
    assert lw_address(IPv6Network("2001:db8:0:1::/64"), IPv4Address("198.51.100.1"), 0x34) == IPv6Address(
        "2001:db8:0:1:0:c633:6401:34"
    )
    assert str(lw_address(IPv6Network("2001:db8::/56"), V4, 0)) == "2001:db8::c000:212:0"
    assert str(lw_address(IPv6Network("2001:db8::/56"), V4, 0xFFFF)) == "2001:db8::c000:212:ffff"


@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        ("2001:db8:0:1:ff00::/72", "2001:db8:0:1:ff00:c000:212:34"),
        ("2001:db8:0:1:ffff:8000::/81", "2001:db8:0:1:ffff:c000:212:34"),
        ("2001:db8:0:1:0:1111::/96", "2001:db8:0:1:0:1111:212:34"),
        ("2001:db8::1/128", "2001:db8::1"),
    ],
)
def test_a_prefix_beyond_64_bits_overwrites_the_identifier(prefix: str, address: str) -> None:
    # RFC 7597 6 [M-7, X-10]
    network = IPv6Network(prefix)
    assert str(lw_address(network, V4, 0x34)) == address
    mapping = MappingRule(network, IPv4Network("192.0.2.18/32"), 0, psid_len=8, psid=0x34)
    assert str(map_ce(mapping, network).address) == address
    assert str(ce_address_for(mapping, V4, 1232)) == address


def test_draft_03_identifier() -> None:
    # As OpenWrt's mapcalc does with LEGACY=1: the address at octet 9, the PSID at octets 13 and 14.
    address = IPv6Address("2001:db8:12:3400:c0:2:1200:3400")
    assert map_ce(EXAMPLE_1, END_USER, interface_identifier="draft03").address == address
    assert ce_address_for(EXAMPLE_1, V4, 1232, "draft03") == address
    packed = address.packed
    assert (packed[8], packed[9:13], packed[13:15], packed[15]) == (0, V4.packed, b"\0\x34", 0)
    long = rule("2001:db8:12:3400::/56", "192.0.2.18/32", 0, psid_len=16, psid=0xABCD, offset_len=0)
    assert str(map_ce(long, END_USER, interface_identifier="draft03").address) == "2001:db8:12:3400:c0:2:12ab:cd00"
    beyond = IPv6Network("2001:db8:12:3400:ff00::/72")
    assert str(map_ce(EXAMPLE_4, beyond, interface_identifier="draft03").address).startswith("2001:db8:12:3400:ffc0:")


@pytest.mark.parametrize("psid", [-1, 0x10000])
def test_psid_beyond_its_field(psid: int) -> None:
    with pytest.raises(ValueError, match="16 bits of an interface identifier"):
        lw_address(IPv6Network("2001:db8::/64"), V4, psid)


# ---------------------------------------------------------------------------------------------------- choice of rule


def test_basic_mapping_rule_is_the_longest_match() -> None:
    wide = rule("2001:db8::/32", "198.51.100.0/24", 16)
    other = rule("2001:db8:8000::/34", "203.0.113.0/24", 16)
    for rules in ([wide, EXAMPLE_1, other], [other, EXAMPLE_1, wide]):
        assert select_bmr(rules, END_USER) == EXAMPLE_1
        assert select_bmr(rules, IPv6Network("2001:db8:4000::/56")) == wide
        assert select_bmr(rules, IPv6Network("2001:db9::/56")) is None
        # Shorter than the rule's own prefix is no match.
        assert select_bmr(rules, IPv6Network("2001:db8::/31")) is None
    assert select_bmr([], END_USER) is None


def test_two_basic_mapping_rules_for_one_prefix() -> None:
    again = rule("2001:db8::/40", "198.51.100.0/24", 16)
    with pytest.raises(ValueError, match="several rules for 2001:db8::/40"):
        select_bmr([EXAMPLE_1, again], END_USER)
    # The same rule as basic and as forwarding rule is no contradiction.
    assert select_bmr([EXAMPLE_1, rule("2001:db8::/40", "192.0.2.0/24", 16, fmr=True)], END_USER) == EXAMPLE_1


def test_forwarding_takes_the_longest_ipv4_match_among_the_fmrs() -> None:
    basic_only = rule("2001:db8:1000::/40", "192.0.2.0/28", 12)
    wide = rule("2001:db8:2000::/40", "192.0.0.0/16", 24, fmr=True)
    narrow = rule("2001:db8::/40", "192.0.2.0/24", 16, fmr=True)
    rules = [basic_only, wide, narrow]
    assert fmr_destination(rules, V4, 1232) == V6
    assert fmr_destination([basic_only], IPv4Address("192.0.2.1"), 1232) is None  # F flag clear [M-1]
    elsewhere = fmr_destination(rules, IPv4Address("192.0.3.18"), 1232)
    assert elsewhere is not None
    assert elsewhere in wide.rule_ipv6
    # A port below the offset is nobody's: to the border relay, not to a shorter match.
    assert fmr_destination(rules, V4, 1023) is None
    assert fmr_destination(rules, V4, None) is None
    assert fmr_destination(rules, IPv4Address("198.51.100.1"), 1232) is None
    assert fmr_destination(rules, V4, 1232, "draft03") == ce_address_for(narrow, V4, 1232, "draft03")


def test_forwarding_between_ces_that_share_an_address_by_explicit_psids() -> None:
    rules = [
        rule(f"2001:db8:{psid:x}00::/56", "192.0.2.18/32", 0, 0, psid_len=2, psid=psid, fmr=True) for psid in range(3)
    ]
    for psid in range(3):
        address = fmr_destination(rules, V4, psid * 16384 + 5)
        assert address == map_ce(rules[psid], rules[psid].rule_ipv6).address
    assert fmr_destination(rules, V4, 3 * 16384) is None


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("ea_len", "more", "reason"),
    [
        (-1, {}, "EA bits must be 0 to 48, not -1"),
        (49, {}, "EA bits must be 0 to 48, not 49"),
        (16, {"offset_len": 16}, "offset must be 0 to 15 bits, not 16"),
        (16, {"offset_len": -1}, "offset must be 0 to 15 bits, not -1"),
        (19, {}, "19 EA bits for 192.0.2.0/24 leave a PSID of 11 bits, which with an offset of 6 exceeds"),
        (25, {"offset_len": 0}, "PSID of 17 bits"),
        (16, {"psid_len": 7}, "a PSID of 7 bits is given, but the EA bits hold one of 8"),
        (8, {"psid_len": 8, "psid": 256}, "PSID 256 does not fit in 8 bits"),
        (8, {"psid_len": 11}, "exceed the 16 bits of a port"),
        (8, {"psid_len": 17}, "PSID length must be 1 to 16"),
        (8, {"psid": 1}, "PSID 1 does not fit in 0 bits"),
    ],
)
def test_no_rule(ea_len: int, more: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rule("2001:db8::/40", "192.0.2.0/24", ea_len, **more)


def test_no_rule_beyond_128_bits() -> None:
    with pytest.raises(ValueError, match=r"16 EA bits behind 2001:db8::/120 exceed the 128 bits"):
        rule("2001:db8::/120", "192.0.2.0/24", 16)


@pytest.mark.parametrize(
    ("mapping", "end_user", "explicit", "reason"),
    [
        (EXAMPLE_1, "2001:db9:12:3400::/56", None, "2001:db9:12:3400::/56 is not inside the rule's 2001:db8::/40"),
        (EXAMPLE_1, "2001:db8::/32", None, "not inside"),
        (EXAMPLE_1, "2001:db8:12::/48", None, r"too short: 2001:db8::/40 and 16 EA bits need 56 bits"),
        (EXAMPLE_1, "2001:db8:12:3400::/56", PortSet(6, 8, 0x35), r"PSID 0x35/8 contradicts 0x34/8"),
        (EXAMPLE_1, "2001:db8:12:3400::/56", PortSet(6, 7, 0x34), r"PSID 0x34/7 contradicts 0x34/8"),
    ],
)
def test_no_ce(mapping: MappingRule, end_user: str, explicit: PortSet | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        map_ce(mapping, IPv6Network(end_user), explicit)


def test_no_ce_when_the_rule_contradicts_its_own_bits() -> None:
    mapping = rule("2001:db8::/40", "192.0.2.0/24", 16, psid_len=8, psid=0)
    with pytest.raises(ValueError, match="PSID 0x0/8 contradicts 0x34/8"):
        map_ce(mapping, END_USER)


# ------------------------------------------------------------------------------------------------------- round trips


@st.composite
def rules_and_prefixes(draw: st.DrawFn) -> tuple[MappingRule, IPv6Network]:
    """Any rule that can be, and an End-user prefix of exactly the bits that it knows."""
    ipv4_len = draw(st.integers(0, 32))
    offset_len = draw(st.integers(0, 15))
    ea_len = draw(st.integers(0, min(48, 32 - ipv4_len + 16 - offset_len)))
    ipv6_len = draw(st.integers(0, 128 - ea_len))
    bits = draw(st.integers(0, 2**128 - 1))
    explicit: dict[str, int] = {}
    if ipv4_len + ea_len == 32 and offset_len < 16 and draw(st.booleans()):
        psid_len = draw(st.integers(1, 16 - offset_len))
        explicit = {"psid_len": psid_len, "psid": draw(st.integers(0, 2**psid_len - 1))}
    mapping = MappingRule(
        IPv6Network((bits, ipv6_len), strict=False),
        IPv4Network((draw(st.integers(0, 2**32 - 1)), ipv4_len), strict=False),
        ea_len,
        offset_len,
        fmr=True,
        **explicit,
    )
    return mapping, IPv6Network((bits, ipv6_len + ea_len), strict=False)


@given(rules_and_prefixes(), st.sampled_from(["rfc7597", "draft03"]), st.randoms(use_true_random=False))
def test_there_and_back(pair: tuple[MappingRule, IPv6Network], layout: Any, rng: random.Random) -> None:
    mapping, prefix = pair
    ce = map_ce(mapping, prefix, interface_identifier=layout)
    assert ce.address in prefix
    if isinstance(ce.ipv4, IPv4Network):
        assert ce.ports is None
        assert ce.ipv4.subnet_of(mapping.rule_ipv4)
        hosts = [ce.ipv4[0], ce.ipv4[-1], ce.ipv4[rng.randrange(ce.ipv4.num_addresses)]]
    else:
        assert ce.ipv4 in mapping.rule_ipv4
        hosts = [ce.ipv4]
    if ce.ports is None:
        sample = [0, 1, 65535, rng.randrange(65536)]
    else:
        some = (ce.ports.range_at(i) for i in {0, ce.ports.range_count - 1, rng.randrange(ce.ports.range_count)})
        sample = [p for r in some for p in (r.first, r.last)]
    for host in hosts:
        for port in sample:
            assert ce_address_for(mapping, host, port, layout) == ce.address
            assert fmr_destination([mapping], host, port, layout) == ce.address


@given(rules_and_prefixes(), st.integers(0, 65535))
def test_a_port_of_another_subscriber_never_leads_here(pair: tuple[MappingRule, IPv6Network], port: int) -> None:
    mapping, prefix = pair
    ce = map_ce(mapping, prefix)
    if isinstance(ce.ipv4, IPv4Network) or ce.ports is None or port in ce.ports:
        return
    found = ce_address_for(mapping, ce.ipv4, port)
    assert found is None or found not in prefix


@given(st.integers(0, 2**128 - 1), st.integers(0, 64), st.integers(0, 2**32 - 1), st.integers(0, 0xFFFF))
def test_lw_address_is_read_back(bits: int, length: int, ipv4: int, psid: int) -> None:
    prefix = IPv6Network((bits, length), strict=False)
    packed = lw_address(prefix, IPv4Address(ipv4), psid).packed
    assert packed[:8] == prefix.network_address.packed[:8]
    assert packed[8:] == b"\0\0" + ipv4.to_bytes(4, "big") + psid.to_bytes(2, "big")
