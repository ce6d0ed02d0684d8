"""The lwAFTR's binding table: lookup against a brute-force oracle, text, mapping rules (RFC 7596 6.1, RFC 7597 5)."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client.lab import binding as binding_module
from b4client.lab.aftrcustomer import Customer
from b4client.lab.binding import Binding, BindingTable, parse_rule
from b4client.model.maprule import MappingRule
from b4client.model.portset import PortSet

A = IPv4Address("192.0.2.18")
PORTS = PortSet(6, 8, 0x34)
B4, NEIGHBOUR = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")


def b4(number: int) -> IPv6Address:
    return IPv6Address(0x20010DB8 << 96 | number)


def only(customer: Customer | None) -> list[Binding]:
    return [] if customer is None else [customer.binding]


# ---- text


@pytest.mark.parametrize(
    "text",
    ["192.0.2.1,b4=2001:db8::1", "192.0.2.18,a=6,k=8,psid=0x34,b4=2001:db8::1", "192.0.2.1,a=0,k=4,psid=0x0,b4=::2"],
)
def test_binding_as_text_round_trip(text: str) -> None:
    assert str(Binding.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not of the form ADDRESS"),
        ("192.0.2.1", "not of the form ADDRESS"),
        ("192.0.2.1,b4", "not of the form ADDRESS"),
        ("192.0.2.1,x=1,b4=::1", "not of the form ADDRESS"),
        ("192.0.2.1,b4=::1,b4=::2", "not of the form ADDRESS"),
        ("192.0.2.1,psid=1,b4=::1", "psid without k"),
        ("192.0.2.1,k=8,b4=::1", "without psid"),
        ("192.0.2.1,k=8,psid=256,b4=::1", "does not fit"),
        ("192.0.2.300,b4=::1", "192.0.2.300"),
        ("192.0.2.1,b4=192.0.2.1", "192.0.2.1"),
    ],
)
def test_binding_as_text_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Binding.parse(text)


def test_rule_as_text() -> None:
    rule = MappingRule(IPv6Network("2001:db8::/40"), IPv4Network("192.0.2.0/24"), 16, 6)
    assert parse_rule("192.0.2.0/24,v6=2001:db8::/40,ea=16") == rule
    assert parse_rule("192.0.2.0/24,v6=2001:db8::/40,ea=16,a=4").offset_len == 4
    for text in ("192.0.2.0/24", "192.0.2.0/24,v6=2001:db8::/40,ea=16,k=8", "192.0.2.1/24,v6=2001:db8::/40,ea=16"):
        with pytest.raises(ValueError, match=r"not of the form|host bits"):
            parse_rule(text)


# ---- lookup


@pytest.mark.parametrize(("offset_len", "psid_len"), [(0, 6), (0, 8), (6, 6), (4, 12), (0, 10), (1, 1)])
def test_every_port_leads_to_its_owner(offset_len: int, psid_len: int) -> None:
    sets = [PortSet(offset_len, psid_len, psid) for psid in range(1 << psid_len)]
    random.Random(7).shuffle(sets)
    table = BindingTable(Binding(A, ports, b4(ports.psid)) for ports in sets)
    assert len(table) == 1 << psid_len
    owners = {port: ports.psid for ports in sets for port in ports.ports()}
    for port in range(65536):
        found = table.find(A.packed, port)
        assert (found and found.b4) == (b4(owners[port]).packed if port in owners else None)
    assert table.find(IPv4Address("192.0.2.19").packed, 5000) is None


def test_the_cost_does_not_grow_with_the_customers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lookup asks a port set: with a scan, 4096 customers on one address would."""
    table = BindingTable(Binding(A, PortSet(0, 12, psid), b4(psid)) for psid in range(4096))

    def scanned(*_: object) -> bool:
        raise AssertionError("a port set was asked")

    monkeypatch.setattr(PortSet, "__contains__", scanned)
    monkeypatch.setattr(PortSet, "overlaps", scanned)
    assert all((found := table.find(A.packed, port)) and found.b4 == b4(port >> 4).packed for port in range(65536))
    table.remove(Binding(A, PortSet(0, 12, 5), b4(5)))
    table.add(Binding(A, PortSet(0, 12, 5), b4(6)))
    assert table.find(A.packed, 5 << 4).b4 == b4(6).packed  # type: ignore[union-attr]


@st.composite
def bindings(draw: st.DrawFn) -> Binding:
    address = IPv4Address(0xC0000200 + draw(st.integers(0, 1)))
    where = b4(draw(st.integers(0, 3)))
    if draw(st.integers(0, 9)) == 0:
        return Binding(address, None, where)
    psid_len = draw(st.integers(1, 5))
    return Binding(
        address, PortSet(draw(st.integers(0, 4)), psid_len, draw(st.integers(0, (1 << psid_len) - 1))), where
    )


@given(st.lists(st.tuples(st.booleans(), bindings()), max_size=40), st.lists(st.integers(0, 65535), max_size=20))
def test_whatever_is_bound_and_unbound(steps: list[tuple[bool, Binding]], ports: list[int]) -> None:
    """Sets of any shapes on one address, against a list that is searched from end to end."""
    table, oracle = BindingTable(), []
    for add, binding in steps:
        if add:
            overlap = any(binding.overlaps(other) for other in oracle)
            try:
                table.add(binding)
            except ValueError:
                assert overlap
            else:
                assert not overlap
                oracle.append(binding)
        elif binding in oracle:
            table.remove(binding)
            oracle.remove(binding)
        else:
            with pytest.raises(KeyError):
                table.remove(binding)
    assert sorted(map(str, table)) == sorted(map(str, oracle))
    assert len(table) == len(oracle)
    for address in (IPv4Address("192.0.2.0"), IPv4Address("192.0.2.1")):
        here = [b for b in oracle if b.address == address]
        assert table.has(address.packed) == table.taken(address.packed) == bool(here)
        assert only(table.whole(address.packed)) == [b for b in here if b.ports is None]
        for port in ports:
            assert only(table.find(address.packed, port)) == [b for b in here if b.owns(port)]
        for number in range(4):
            assert table.bound_to(b4(number).packed, address.packed) == any(b.b4 == b4(number) for b in here)
    for number in range(4):
        assert table.knows(b4(number).packed) == any(b.b4 == b4(number) for b in oracle)


def test_no_port_is_bound_twice() -> None:
    table = BindingTable([Binding(A, PORTS, B4)])
    for ports in (PORTS, None, PortSet(0, 6, 1), PortSet(6, 4, 3)):
        with pytest.raises(ValueError, match="overlaps"):
            table.add(Binding(A, ports, NEIGHBOUR))
    table.add(Binding(A, PortSet(6, 8, 0x33), NEIGHBOUR))
    assert len(list(table)) == len(table) == 2


def test_removed_binding_is_gone() -> None:
    binding = Binding(A, PORTS, B4)
    table = BindingTable([binding])
    customer = table.customer(binding)
    assert customer is not None
    assert customer.bound
    with pytest.raises(KeyError):
        table.remove(Binding(A, PORTS, NEIGHBOUR))
    table.remove(binding)
    assert not list(table)
    assert not table.knows(B4.packed)
    assert not table.has(A.packed)
    assert not customer.bound
    with pytest.raises(KeyError):
        table.remove(binding)


# ---- mapping rules

RULE = parse_rule("192.0.2.0/24,v6=2001:db8::/40,ea=16")
CE = IPv6Address("2001:db8:12:3400:0:c000:212:34")
"""RFC 7597 Appendix A examples 1 to 3."""


def test_a_rule_is_a_table() -> None:
    table = BindingTable(rules=[RULE])
    for mine in (table.has, table.taken):
        assert mine(A.packed)
        assert not mine(IPv4Address("192.0.3.18").packed)
    assert table.knows(CE.packed)
    assert table.bound_to(CE.packed, A.packed)
    assert not table.bound_to(CE.packed, IPv4Address("192.0.2.19").packed)
    assert not table.knows(IPv6Address("2001:db8:12:3400::1").packed)
    assert not table.knows(IPv6Address("2001:db9::1").packed)
    found = table.find(A.packed, 1232)
    assert found is not None
    assert (found.b4, found.derived) == (CE.packed, True)
    assert str(found.binding) == f"192.0.2.18,a=6,k=8,psid=0x34,b4={CE}"
    assert table.find(A.packed, 1235) is found
    assert table.find(A.packed, 1236).b4 != CE.packed  # type: ignore[union-attr]
    assert table.find(A.packed, 1023) is None  # a = 6 keeps it from everybody
    assert table.find(IPv4Address("192.0.3.18").packed, 1232) is None
    assert table.whole(A.packed) is None


def test_the_longest_rule_decides_and_a_binding_goes_before() -> None:
    unshared = parse_rule("192.0.2.18/32,v6=2001:db8:12:3400::/56,ea=0")
    table = BindingTable(rules=[RULE, unshared])
    whole = table.whole(A.packed)
    assert whole is not None
    assert whole.b4 == IPv6Address("2001:db8:12:3400:0:c000:212:0").packed  # Appendix A example 4
    assert table.find(A.packed, 7) is whole
    bound = table.add(Binding(A, PORTS, B4))
    assert not whole.bound
    assert table.find(A.packed, 1232) is bound
    # What the rule says of the rest would overlap the binding.
    assert table.find(A.packed, 1236) is None


def test_a_prefix_of_addresses_has_one_softwire() -> None:
    table = BindingTable(rules=[parse_rule("192.0.2.0/24,v6=2001:db8::/40,ea=4")])
    ends = {table.find(IPv4Address(0xC0000210 + host).packed, 80).b4 for host in range(16)}  # type: ignore[union-attr]
    assert len(ends) == 1
    assert table.bound_to(ends.pop(), IPv4Address("192.0.2.31").packed)


def test_derived_bindings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding_module, "MAX_DERIVED", 10)
    table = BindingTable([Binding(A, PORTS, B4)], [RULE])
    first = table.find(A.packed, 1236)
    for port in range(1240, 1240 + 4 * 20):
        assert table.find(A.packed, port) is not None
    assert len(table) == 11
    assert first is not None
    assert not first.bound
    assert table.find(A.packed, 1232).b4 == B4.packed  # type: ignore[union-attr]
