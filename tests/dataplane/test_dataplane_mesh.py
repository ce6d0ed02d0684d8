"""Mesh mode on numbers: the examples of RFC 7597, and that it says what the model says."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client.dataplane.mesh import MeshTable, Rule
from b4client.dataplane.plan import mesh_rules
from b4client.model.maprule import MappingRule, fmr_destination, map_ce

V4 = int(IPv4Address("192.0.2.18"))
CE = int(IPv6Address("2001:db8:12:3400:0:c000:212:34"))
EXAMPLE = Rule(int(IPv4Address("192.0.2.0")), 24, int(IPv6Address("2001:db8::")), 40, 16, 6)


def model_rule(ipv6: str, ipv4: str, ea_len: int, **more: int) -> MappingRule:
    return MappingRule(IPv6Network(ipv6), IPv4Network(ipv4), ea_len, fmr=True, **more)  # type: ignore[arg-type]


def test_appendix_a_example_2() -> None:
    """192.0.2.18, port 1232: PSID 0x34."""
    table = MeshTable([EXAMPLE])
    assert table.owner(V4, 1232) == (CE, 0)
    assert table.owner(V4, 1231) is not None
    assert table.owner(V4, 1231) != (CE, 0)


def test_appendix_a_example_3() -> None:
    """1.2.3.4 is the border relay's; so are ports that no customer edge has, and packets without."""
    table = MeshTable([EXAMPLE])
    assert table.owner(int(IPv4Address("1.2.3.4")), 80) is None
    assert table.owner(V4, 1023) is None
    assert table.owner(V4, None) is None


def test_appendix_a_example_4_a_whole_address() -> None:
    table = MeshTable([Rule(V4, 32, int(IPv6Address("2001:db8:12:3400::")), 56, 0, 6)])
    whole = int(IPv6Address("2001:db8:12:3400:0:c000:212:0"))
    assert {table.owner(V4, port) for port in (None, 0, 80, 65535)} == {(whole, 0)}
    assert table.plausible(whole, V4)
    assert not table.plausible(CE, V4)


def test_appendix_a_example_5_an_explicit_psid() -> None:
    """One address, a rule for each PSID: the port finds it without trying them all."""
    rules = [Rule(V4, 32, (0x20010DB8 << 96) + (psid << 72), 56, 0, 6, 8, psid) for psid in range(256)]
    table = MeshTable(rules)
    found = table.owner(V4, 1232)
    assert found is not None
    assert IPv6Address(found.address) == IPv6Address("2001:db8:0:3400:0:c000:212:34")
    assert found.rule == 0x34
    assert table.owner(V4, None) is None
    assert table.plausible(found.address, V4)
    assert not table.plausible(found.address + 1, V4)
    assert not table.plausible(found.address, V4 + 1)


def test_a_prefix_has_one_customer_edge() -> None:
    table = MeshTable([Rule(int(IPv4Address("192.0.0.0")), 16, int(IPv6Address("2001:db8::")), 40, 12, 6)])
    first, last = (table.owner(int(IPv4Address(a)), None) for a in ("192.0.2.16", "192.0.2.31"))
    assert first == last
    assert first is not None
    assert table.plausible(first.address, V4)
    assert not table.plausible(first.address, V4 + 16)


def test_the_longest_match_decides_alone() -> None:
    """A port that the longer match gives nobody is not given to somebody by the shorter one."""
    wide = Rule(int(IPv4Address("192.0.0.0")), 16, int(IPv6Address("2001:db8:2000::")), 40, 24, 6)
    table = MeshTable([wide, EXAMPLE])
    assert table.owner(V4, 1232) == (CE, 1)
    assert table.owner(V4, 80) is None
    assert table.owner(V4 + 256, 1232) is not None


def test_who_may_be_a_sender() -> None:
    table = MeshTable([EXAMPLE])
    assert table.covers(CE)
    assert table.covers(CE + 1)
    assert table.plausible(CE, V4)
    assert not table.plausible(CE + 1, V4)  # another PSID than in the EA bits
    assert not table.plausible(CE, V4 + 1)
    assert not table.covers(int(IPv6Address("2001:db9::1")))
    assert table.prefixes == ((EXAMPLE.ipv6, 40),)


@st.composite
def rules(draw: st.DrawFn) -> tuple[MappingRule, ...]:
    """Rules for neighbouring and nested IPv4 prefixes, a few for one and the same."""
    found = []
    for _ in range(draw(st.integers(1, 6))):
        ipv4_len = draw(st.sampled_from((0, 16, 24, 30, 31, 32)))
        offset_len = draw(st.sampled_from((0, 4, 6, 15)))
        ea_len = draw(st.integers(0, min(48, 32 - ipv4_len + 16 - offset_len)))
        ipv6_len = draw(st.integers(0, 128 - ea_len))
        shared = ipv4_len + ea_len - 32
        more: dict[str, int] = {}
        if shared >= 0 and draw(st.booleans()):
            length = shared or draw(st.integers(1, 16 - offset_len))
            if length:
                more = {"psid_len": length, "psid": draw(st.integers(0, 2**length - 1))}
        ipv4 = V4 ^ draw(st.integers(0, 3))
        found.append(
            MappingRule(
                IPv6Network((draw(st.integers(0, 2**128 - 1)), ipv6_len), strict=False),
                IPv4Network((ipv4, ipv4_len), strict=False),
                ea_len,
                offset_len,
                fmr=True,
                **more,  # type: ignore[arg-type]
            )
        )
    return tuple(found)


@given(rules(), st.sampled_from(["rfc7597", "draft03"]), st.integers(0, 3), st.one_of(st.none(), st.integers(0, 65535)))
def test_as_the_model_has_it(known: tuple[MappingRule, ...], layout: Any, host: int, port: int | None) -> None:
    table = MeshTable(mesh_rules(known), draft03=layout == "draft03")
    ipv4 = IPv4Address(V4 ^ host)
    expected = fmr_destination(known, ipv4, port, layout)
    found = table.owner(int(ipv4), port)
    assert (None if found is None else IPv6Address(found.address)) == expected
    if found is not None:
        # What is sent there may come from there.
        assert table.covers(found.address)
        assert table.plausible(found.address, int(ipv4))
        assert IPv6Address(found.address) in known[found.rule].rule_ipv6


@given(st.integers(0, 0xFFFF), st.sampled_from([0, 1, 6, 15]))
def test_there_and_back(ea_bits: int, offset_len: int) -> None:
    """From an End-user prefix to its address and ports, and from every one of them to the same customer edge."""
    mapping = model_rule("2001:db8::/40", "192.0.2.0/24", min(16, 24 - offset_len), offset_len=offset_len)
    bits = ea_bits & (1 << mapping.ea_len) - 1
    prefix = IPv6Network((int(mapping.rule_ipv6.network_address) | bits << 128 - mapping.end_user_len, 64))
    ce = map_ce(mapping, prefix)
    assert isinstance(ce.ipv4, IPv4Address)
    table = MeshTable(mesh_rules([mapping]))
    if ce.ports is None:
        pytest.fail("the example shares its address")
    for port in (ce.ports.range_at(0).first, ce.ports.range_at(ce.ports.range_count - 1).last):
        assert table.owner(int(ce.ipv4), port) == (int(ce.address), 0)
