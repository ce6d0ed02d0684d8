"""Port sets: the vectors of RFC 7597 and RFC 7618, and a brute-force oracle for every offset and PSID length."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from b4client.model.portset import PORT_MAX, PortRange, PortSet, psid_of_port

LENGTHS = [(a, k) for a in range(16) for k in range(1, 17 - a)]
PORTS = range(65536)


def gma_ranges(a: int, k: int, psid: int) -> list[tuple[int, int]]:
    """The oracle: formula (1) of RFC 7597 Appendix B, with division and multiplication instead of bits."""
    ratio, contiguous = 2**k, 2 ** (16 - a - k)
    excluded = 2 ** (16 - a) if a > 0 else 0  # N: what "A > 0" leaves out (RFC 7597 5.1)
    lowest, behind = math.ceil(excluded / (ratio * contiguous)), 65536 // (ratio * contiguous)
    starts = (ratio * contiguous * i + contiguous * psid for i in range(lowest, behind))
    return [(start, start + contiguous - 1) for start in starts]


def gma_psid(a: int, k: int, port: int) -> int:
    """Formula (2) of RFC 7597 Appendix B."""
    ratio, contiguous = 2**k, 2 ** (16 - a - k)
    return int((port % (ratio * contiguous)) / contiguous)


def some_psids(k: int, wanted: int = 3) -> list[int]:
    """Both ends and some between; every one when there are few."""
    if 2**k <= wanted:
        return list(range(2**k))
    return [0, 2**k - 1, *random.Random(k).sample(range(1, 2**k - 1), wanted - 2)]


# ------------------------------------------------------------------------------------------------------------ vectors


@pytest.mark.parametrize(
    ("mine", "ranges", "ports", "ends"),
    [
        (PortSet(6, 8, 0x34), 63, 252, "1232-1235 2256-2259 63696-63699 64720-64723"),  # RFC 7597 App. A ex. 1, 5
        (PortSet(6, 8, 0), 63, 252, "1024-1027 2048-2051 63488-63491 64512-64515"),  # RFC 7597 B.2 ex. 1
        (PortSet(0, 6, 0), 1, 1024, "0-1023 0-1023"),  # RFC 7597 B.2 ex. 2
        (PortSet(0, 8, 0x34), 1, 256, "13312-13567 13312-13567"),
        (PortSet(0, 6, 1), 1, 1024, "1024-2047 1024-2047"),
        (PortSet(0, 10, 63), 1, 64, "4032-4095 4032-4095"),
        (PortSet(0, 10, 64), 1, 64, "4096-4159 4096-4159"),
        (PortSet(4, 8, 0x14), 15, 240, "4416-4431 8512-8527 57664-57679 61760-61775"),
        (PortSet(4, 6, 20), 15, 960, "5376-5439 9472-9535 58624-58687 62720-62783"),
        (PortSet(6, 6, 0x3F), 63, 1008, "2032-2047 3056-3071 64496-64511 65520-65535"),
        (PortSet(6, 10, 5), 63, 63, "1029 2053 63493 64517"),
    ],
)
def test_vectors(mine: PortSet, ranges: int, ports: int, ends: str) -> None:
    cut = [str(r) for r in mine.ranges()]
    assert (mine.range_count, mine.port_count, len(mine)) == (ranges, ports, ports)
    assert len(cut) == ranges
    shown = ends.split()
    assert cut[: len(shown) // 2] + cut[-(len(shown) // 2) :] == shown


@pytest.mark.parametrize(("port", "psid"), [(1232, 0x34), (64723, 0x34), (1236, 0x35), (1023, None), (0, None)])
def test_reverse_vectors(port: int, psid: int | None) -> None:
    assert psid_of_port(port, 6, 8) == psid


def test_system_ports_of_rfc7597_5_1() -> None:
    # The default offset leaves out 0-1023, "a = 4 will exclude ports 0-4095".
    assert PortSet(6, 8, 0).floor == 1024
    assert PortSet(4, 8, 0).floor == 4096
    assert PortSet(0, 8, 0).floor == 0


# ------------------------------------------------------------------------------------------------- brute-force oracle


@pytest.mark.parametrize(("a", "k"), LENGTHS)
def test_partition(a: int, k: int) -> None:
    """Every port from the floor up belongs to exactly one PSID, none below to any."""
    floor = PortSet(a, k, 0).floor
    every = range(2**k) if 2**k * max(2**a - 1, 1) <= 4096 else None
    if every is not None:
        tiles = sorted((r.first, r.last) for psid in every for r in PortSet(a, k, psid).ranges())
        assert [first for first, _ in tiles] == [floor] + [last + 1 for _, last in tiles[:-1]]
        assert tiles[-1][1] == PORT_MAX
    sample = {0, floor - 1, floor, floor + 1, PORT_MAX, *random.Random(a * 16 + k).sample(PORTS, 60)} & set(PORTS)
    for port in sample:
        owner = psid_of_port(port, a, k)
        assert owner == (None if port < floor else gma_psid(a, k, port))
        if owner is not None:
            assert port in PortSet(a, k, owner)
            assert port not in PortSet(a, k, owner ^ 1)
            assert port not in PortSet(a, k, owner ^ (2 ** (k - 1)))


@pytest.mark.parametrize(("a", "k"), LENGTHS)
def test_every_view_of_a_set_agrees_with_the_formula(a: int, k: int) -> None:
    for psid in some_psids(k):
        mine = PortSet(a, k, psid)
        expected = gma_ranges(a, k, psid)
        assert [(r.first, r.last) for r in mine.ranges()] == expected
        members = [p for first, last in expected for p in range(first, last + 1)]
        assert list(mine.ports()) == members
        assert [p for p in PORTS if p & mine.mask == mine.value and p >= mine.floor] == members
        assert (mine.range_count, mine.port_count) == (len(expected), len(members))
        assert mine.range_size * mine.range_count == mine.port_count
        assert mine.sharing_ratio == 2**k
        assert (str(mine.range_at(0)), mine.range_at(len(expected) - 1).last) == (
            str(PortRange(*expected[0])),
            members[-1],
        )
        for index in (-1, len(expected)):
            with pytest.raises(IndexError):
                mine.range_at(index)


@pytest.mark.parametrize(("a", "k"), [(0, 1), (0, 16), (1, 3), (4, 8), (6, 8), (6, 10), (15, 1)])
def test_every_port_both_ways(a: int, k: int) -> None:
    owners = [psid_of_port(port, a, k) for port in PORTS]
    ratio, contiguous = 2**k, 2 ** (16 - a - k)
    assert owners == [p % (ratio * contiguous) // contiguous if not a or p >= 2 ** (16 - a) else None for p in PORTS]
    for psid in some_psids(k):
        assert [p for p in PORTS if owners[p] == psid] == list(PortSet(a, k, psid).ports())


def test_counts_of_rfc7597_5_1() -> None:
    for a, k in LENGTHS:
        m = 16 - a - k
        assert PortSet(a, k, 0).port_count == (2 ** (16 - k) - 2**m if a else 2 ** (16 - k))  # [P-6]
        assert PortSet(a, k, 0).contiguous_bits == m


# ------------------------------------------------------------------------------------------------------- one and two

port_sets = st.sampled_from(LENGTHS).flatmap(
    lambda ak: st.builds(PortSet, st.just(ak[0]), st.just(ak[1]), st.integers(0, 2 ** ak[1] - 1))
)


@given(port_sets, st.integers(-5, 70000))
def test_membership(mine: PortSet, port: int) -> None:
    expected = any(first <= port <= last for first, last in gma_ranges(mine.offset_len, mine.psid_len, mine.psid))
    assert (port in mine) == expected
    if port in PORTS:
        assert (psid_of_port(port, mine.offset_len, mine.psid_len) == mine.psid) == expected


@given(port_sets, port_sets)
@example(PortSet(6, 8, 0x34), PortSet(0, 6, 0))  # the floor of one is above all of the other
@example(PortSet(6, 8, 0x34), PortSet(0, 6, 1))
@example(PortSet(1, 15, 7), PortSet(15, 1, 1))
@example(PortSet(15, 1, 0), PortSet(0, 16, 0))
@example(PortSet(15, 1, 0), PortSet(0, 16, 2))
@example(PortSet(4, 8, 1), PortSet(4, 8, 2))
def test_overlap(mine: PortSet, other: PortSet) -> None:
    expected = not set(mine.ports()).isdisjoint(other.ports())
    assert mine.overlaps(other) == expected
    assert other.overlaps(mine) == expected
    assert mine.overlaps(mine)


def test_overlap_of_all_small_sets_on_one_offset() -> None:
    sets = [PortSet(a, k, psid) for a in (0, 2, 6) for k in (1, 2, 3) for psid in range(2**k)]
    members = [set(s.ports()) for s in sets]
    for i, mine in enumerate(sets):
        for j, other in enumerate(sets):
            assert mine.overlaps(other) == bool(members[i] & members[j]), (mine, other)


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("a", "k", "psid", "reason"),
    [
        (-1, 8, 0, "offset must be 0 to 15 bits, not -1"),
        (16, 1, 0, "offset must be 0 to 15 bits, not 16"),
        (0, 0, 0, "PSID length must be 1 to 16 bits, not 0"),
        (0, 17, 0, "PSID length must be 1 to 16 bits, not 17"),
        (6, 11, 0, r"offset \(6\) and PSID length \(11\) together exceed the 16 bits"),
        (15, 2, 0, "exceed"),
        (6, 8, 256, "PSID 256 does not fit in 8 bits"),
        (6, 8, -1, "PSID -1 does not fit"),
    ],
)
def test_no_port_set(a: int, k: int, psid: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PortSet(a, k, psid)


@pytest.mark.parametrize(("port", "a", "k"), [(-1, 6, 8), (65536, 6, 8), (80, 6, 0), (80, 16, 1), (80, 9, 8)])
def test_no_owner_of_what_is_no_port_or_length(port: int, a: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"port|must be|exceed"):
        psid_of_port(port, a, k)


@pytest.mark.parametrize(("first", "last"), [(-1, 5), (6, 5), (0, 65536)])
def test_no_port_range(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="not a port range"):
        PortRange(first, last)


def test_port_range() -> None:
    ports = PortRange(1232, 1235)
    assert len(ports) == 4
    assert [p for p in range(1230, 1240) if p in ports] == [1232, 1233, 1234, 1235]
    assert str(ports) == "1232-1235"
    assert str(PortRange(7, 7)) == "7"
    assert sorted([PortRange(9, 9), PortRange(1, 4), PortRange(1, 2)])[0] == PortRange(1, 2)


def test_names() -> None:
    assert str(PortSet(6, 8, 0x34)) == "PSID 0x34/8 offset 6"
    assert len({PortSet(6, 8, 0x34), PortSet(6, 8, 0x34), PortSet(6, 8, 0x35)}) == 2
