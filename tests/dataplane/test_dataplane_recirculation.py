"""Names, addresses and ranges of the NAT loop: plain arithmetic."""

from __future__ import annotations

import re
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client.dataplane.recirculation import (
    EXHAUSTIVE_PORTS,
    FEW_TRIES,
    MAX_TRIES,
    RECLAIMED_PORTS,
    chunks,
    copy_address,
    copy_mac,
    loop_plan,
    multicast_mac,
    pieces,
)
from b4client.model.portset import PortSet

SETS = st.tuples(st.integers(0, 9), st.integers(1, 15)).filter(lambda ak: sum(ak) <= 16).map(lambda ak: PortSet(*ak, 1))
NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,14}", fullmatch=True)


def ports_of(ranges: object) -> list[int]:
    return [port for r in ranges for port in range(r.first, r.last + 1)]  # type: ignore[attr-defined]


@given(SETS, st.sets(st.integers(0, 65535), max_size=20))
def test_pieces_are_the_set_without_the_reserved_ports(ports: PortSet, reserved: set[int]) -> None:
    assert ports_of(pieces(ports, reserved)) == [p for p in ports.ports() if p not in reserved]


@given(SETS)
def test_chunks_are_the_set_in_parts_that_are_searched_exhaustively(ports: PortSet) -> None:
    cut = chunks(pieces(ports, ()))
    assert ports_of(cut) == list(ports.ports())
    assert len(cut) <= max(MAX_TRIES, ports.range_count)
    assert max(len(r) for r in cut) <= EXHAUSTIVE_PORTS
    if len(cut) > max(FEW_TRIES, ports.range_count):
        assert max(len(r) for r in cut) == EXHAUSTIVE_PORTS


@pytest.mark.parametrize(
    ("ports", "count", "size"),
    [
        (PortSet(0, 8, 0x34), 8, 32),
        (PortSet(0, 6, 13), 32, 32),
        (PortSet(4, 8, 0x34), 15, 16),
        (PortSet(4, 4, 9), 60, 64),
        (PortSet(6, 10, 5), 63, 1),
        (PortSet(0, 1, 1), 256, 128),
        (PortSet(0, 16, 99), 1, 1),
    ],
    ids=str,
)
def test_chunks_of_some_sets(ports: PortSet, count: int, size: int) -> None:
    cut = chunks(pieces(ports, ()))
    assert (len(cut), len(cut[0])) == (count, size)
    assert RECLAIMED_PORTS <= EXHAUSTIVE_PORTS


def test_a_set_that_is_forwarded_whole_has_no_pieces() -> None:
    ports = PortSet(0, 14, 5)
    assert pieces(ports, ports.ports()) == ()
    assert chunks(()) == ()


@given(NAMES)
def test_names_fit_and_follow_from_the_device(device: str) -> None:
    loop = loop_plan(device)
    assert max(len(loop.sender), len(loop.receiver)) <= 15
    assert loop.sender != loop.receiver
    assert loop == loop_plan(device)
    assert int(loop.hardware_address[:2], 16) & 3 == 2  # locally administered, unicast


@given(NAMES, NAMES)
def test_other_devices_have_other_loops(one: str, other: str) -> None:
    if one != other:
        assert {loop_plan(one).sender, loop_plan(one).receiver}.isdisjoint(
            {loop_plan(other).sender, loop_plan(other).receiver}
        )


def test_every_copy_has_its_own_address() -> None:
    macs = {copy_mac(i, df=df) for i in range(MAX_TRIES + 1) for df in (True, False)}
    assert len(macs) == 2 * (MAX_TRIES + 1)
    assert copy_address(256, df=True) == IPv4Address("239.72.1.0")
    assert copy_mac(3, df=False) == "01:00:5e:49:00:03"
    assert multicast_mac(IPv4Address("224.128.0.251")) == "01:00:5e:00:00:fb"
    assert all(re.fullmatch("01:00:5e:4[89](:[0-9a-f]{2}){2}", mac) for mac in macs)
    with pytest.raises(ValueError, match="no try"):
        copy_address(MAX_TRIES + 1, df=True)
