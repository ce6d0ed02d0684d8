"""What a Reply provisions: option 88, the S46 containers, option 111 (RFC 7341 7.2, 9; RFC 7598 3 to 8; RFC 8026)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client.protocol.counters import Counters
from b4client.protocol.provisioning import Provisioning, read_reply
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option
from b4client.wire.softwire46 import Lw4o6Container, MapEContainer, PortParams, Rule, V4V6Bind

ONE, TWO = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
BR, OTHER_BR = IPv6Address("2001:db8:ffff::1"), IPv6Address("2001:db8:ffff::2")
BR_OPTION = bytes.fromhex("005a0010") + BR.packed
OTHER_BR_OPTION = bytes.fromhex("005a0010") + OTHER_BR.packed
BIND = bytes.fromhex("005c0014c00002123820010db8001234005d000400083400")
RULE = bytes.fromhex("0059000d011018c00002002820010db800")
LW = BIND + BR_OPTION
"""Option 96 of the requirements' reference octets."""
MAP_E = RULE + BR_OPTION
"""Option 94 of the same."""
LW_CONTAINER = Lw4o6Container(
    (BR,), V4V6Bind(IPv4Address("192.0.2.18"), IPv6Network("2001:db8:12:3400::/56"), PortParams(0, 8, 0x34))
)
MAP_E_CONTAINER = MapEContainer((Rule(True, 16, IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/40")),), (BR,))


def read(*options: tuple[int, bytes]) -> tuple[Provisioning, dict[str, int]]:
    counters = Counters()
    found = read_reply(Dhcp6Message(MessageType.REPLY, 1, options), counters)
    return found, counters.snapshot()


def test_nothing() -> None:
    """RFC 7341 9 [F-1]: without option 88 no 4o6."""
    assert read() == (Provisioning(None, None, None, (), ()), {})


def test_everything() -> None:
    found, counted = read(
        (Option.DHCP4_O_DHCP6_SERVER, ONE.packed + TWO.packed),
        (Option.S46_CONT_LW, LW),
        (Option.S46_CONT_MAPE, MAP_E),
        (Option.S46_PRIORITY, bytes.fromhex("00600058005e")),
    )
    assert found == Provisioning((ONE, TWO), LW_CONTAINER, MAP_E_CONTAINER, (96, 88, 94), ())
    assert counted == {}


# ---- option 88


def test_option_88_without_addresses() -> None:
    """RFC 7341 9 [F-3]: present and empty is multicast, which is another thing than absent."""
    assert read((Option.DHCP4_O_DHCP6_SERVER, b""))[0].servers_4o6 == ()


def test_duplicates_in_option_88() -> None:
    """RFC 7341 12 MUST [F-4]: the first instance of each address."""
    found, _ = read((Option.DHCP4_O_DHCP6_SERVER, ONE.packed + TWO.packed + ONE.packed))
    assert found.servers_4o6 == (ONE, TWO)


@pytest.mark.parametrize("octets", [b"\0", ONE.packed[:15], ONE.packed + b"\0"])
def test_a_malformed_option_88_is_as_if_absent(octets: bytes) -> None:
    """X-3."""
    found, counted = read((Option.DHCP4_O_DHCP6_SERVER, octets))
    assert found.servers_4o6 is None
    assert counted == {"ignored-option88-malformed": 1}
    assert len(found.problems) == 1
    assert found.problems[0].startswith("option 88 ignored: ")


# ---- containers

BAD_LW = {
    "empty": b"",
    "no lwAFTR": BIND,
    "two bindings": BIND + BIND + BR_OPTION,
    "a rule inside": LW + RULE,
    "93 beside the binding": LW + bytes.fromhex("005d000400083400"),
    "cut off": LW[:-1],
    "unusable lwAFTR": bytes.fromhex("005a0010") + bytes(16),
    "bad 93": LW.replace(bytes.fromhex("005d000400083400"), bytes.fromhex("005d000410083400")),
}
BAD_MAP_E = {
    "empty": b"",
    "no rule": BR_OPTION,
    "no BR": RULE,
    "a binding inside": MAP_E + BIND,
    "a DMR inside": MAP_E + bytes.fromhex("005b000100"),
    "cut off": MAP_E[:-1],
    "EA length 49": MAP_E.replace(bytes.fromhex("011018"), bytes.fromhex("013118")),
}


@pytest.mark.parametrize("octets", BAD_LW.values(), ids=BAD_LW)
def test_a_bad_lw4o6_container_is_as_if_absent(octets: bytes) -> None:
    """RFC 7598 6 MUST, 8 SHOULD [M-13]: ignored, counted, named."""
    found, counted = read((Option.S46_CONT_LW, octets), (Option.S46_CONT_MAPE, MAP_E))
    assert (found.lw4o6, found.map_e) == (None, MAP_E_CONTAINER)
    assert counted == {"ignored-container-malformed": 1}
    assert len(found.problems) == 1
    assert "lw4o6 container (96) ignored" in found.problems[0]


@pytest.mark.parametrize("octets", BAD_MAP_E.values(), ids=BAD_MAP_E)
def test_a_bad_mape_container_is_as_if_absent(octets: bytes) -> None:
    found, counted = read((Option.S46_CONT_MAPE, octets), (Option.S46_CONT_LW, LW))
    assert (found.lw4o6, found.map_e) == (LW_CONTAINER, None)
    assert counted == {"ignored-container-malformed": 1}
    assert len(found.problems) == 1
    assert "MAP-E container (94) ignored" in found.problems[0]


def test_a_mapt_container_is_not_for_us() -> None:
    found, counted = read((Option.S46_CONT_MAPT, RULE + bytes.fromhex("005b000100")))
    assert found == Provisioning(problems=("MAP-T container (95) ignored: not implemented",))
    assert counted == {"ignored-container-unsupported": 1}


@pytest.mark.parametrize("code", [89, 90, 91, 92, 93])
def test_bare_options_outside_a_container(code: int) -> None:
    """RFC 7598 3 MUST [M-14]: silently ignored."""
    inside = {89: RULE[4:], 90: BR.packed, 91: b"\0", 92: BIND[4:], 93: bytes.fromhex("00083400")}
    assert read((code, inside[code])) == (Provisioning(), {})


def test_several_rules_in_a_container() -> None:
    """RFC 7598 8 MUST [M-15]."""
    found, _ = read((Option.S46_CONT_MAPE, RULE + RULE + BR_OPTION))
    assert found.map_e is not None
    assert len(found.map_e.rules) == 2


@pytest.mark.parametrize("more", [1, 2])
@pytest.mark.parametrize("code", [Option.S46_CONT_LW, Option.S46_CONT_MAPE])
def test_several_domains(code: Option, more: int) -> None:
    """RFC 7598 5.1: a container for each domain MAY come. One is used, the first; the others are named."""
    first, other = (LW, BIND + OTHER_BR_OPTION) if code == Option.S46_CONT_LW else (MAP_E, RULE + OTHER_BR_OPTION)
    found, counted = read((code, first), *[(code, other)] * more)
    assert found.brs == (BR,)
    assert counted == {"ignored-container-unsupported": more}
    assert len(found.problems) == 1
    assert f"the first of {1 + more} domains is used" in found.problems[0]


def test_a_bad_container_before_a_good_one() -> None:
    """RFC 7598 6 [M-13]: the bad one is ignored, as if only the good one were there."""
    found, counted = read((Option.S46_CONT_MAPE, RULE), (Option.S46_CONT_MAPE, MAP_E))
    assert found.map_e == MAP_E_CONTAINER
    assert counted == {"ignored-container-malformed": 1}


# ---- border relays


def test_brs_of_lw4o6_first_and_each_once() -> None:
    found, _ = read((Option.S46_CONT_MAPE, RULE + BR_OPTION + OTHER_BR_OPTION), (Option.S46_CONT_LW, OTHER_BR_OPTION))
    assert found.brs == (OTHER_BR, BR)


def test_no_brs() -> None:
    assert read((Option.DHCP4_O_DHCP6_SERVER, b""))[0].brs == ()


# ---- option 111


@pytest.mark.parametrize("octets", [b"", b"\0", bytes.fromhex("006000"), bytes.fromhex("006000580060")])
def test_an_invalid_priority_is_as_if_absent(octets: bytes) -> None:
    """RFC 8026 1.4 MAY [F-13]: odd or zero length, or a code twice."""
    found, counted = read((Option.S46_PRIORITY, octets), (Option.S46_CONT_LW, LW))
    assert (found.priority, found.lw4o6) == ((), LW_CONTAINER)
    assert counted == {"ignored-priority-malformed": 1}
    assert "option 111 ignored" in found.problems[0]


def test_unknown_codes_in_the_priority_are_kept() -> None:
    """RFC 8026 1.4 [F-13]: whoever walks the list skips them."""
    assert read((Option.S46_PRIORITY, bytes.fromhex("03e80060")))[0].priority == (1000, 96)


def test_several_problems_at_once() -> None:
    """Each bad part loses itself only."""
    found, counted = read(
        (Option.DHCP4_O_DHCP6_SERVER, b"\0"),
        (Option.S46_CONT_LW, b""),
        (Option.S46_PRIORITY, b"\0"),
        (Option.S46_CONT_MAPE, MAP_E),
    )
    assert found.map_e == MAP_E_CONTAINER
    assert len(found.problems) == 3
    assert sum(counted.values()) == 3


@given(
    st.lists(
        st.tuples(st.sampled_from([88, 94, 95, 96, 111]), st.binary(max_size=80) | st.sampled_from([LW, MAP_E])),
        max_size=8,
    )
)
def test_whatever_a_server_says(options: list[tuple[int, bytes]]) -> None:
    """Nothing raises; what is not taken is named."""
    found, counted = read(*options)
    assert bool(found.problems) == bool(counted)
    for code, taken in ((88, found.servers_4o6), (94, found.map_e), (96, found.lw4o6), (111, found.priority or None)):
        there = any(c == code for c, _ in options)
        assert taken is None or there
        assert taken is not None or not there or found.problems
