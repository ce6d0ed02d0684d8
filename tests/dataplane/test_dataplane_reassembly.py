"""Reassembly of IPv6 fragments: any order, duplicates, overlaps, bounds (RFC 8200 4.5, RFC 5722, RFC 6946)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client.dataplane.reassembly import LIFETIME_S, MAX_PACKETS, Fragment, Reassembler, Whole

DATA = bytes(range(256)) * 6
IPIP = 4


def cut(data: bytes, size: int) -> list[tuple[int, bool, bytes]]:
    """(offset, more, octets) of fragments of ``size`` octets."""
    return [(at, at + size < len(data), data[at : at + size]) for at in range(0, len(data), size)]


def feed(r: Reassembler, parts: list[tuple[int, bool, bytes]], ident: int = 7, now: float = 0.0) -> list[Whole]:
    answers = [r.add(Fragment(ident, IPIP, offset, more, octets, 0), now) for offset, more, octets in parts]
    return [a for a in answers if a is not None]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order(order: tuple[int, ...]) -> None:
    parts = cut(DATA[:1500], 400)
    r = Reassembler()
    answers = [feed(r, [parts[i]]) for i in order]
    assert answers[:3] == [[], [], []]
    assert answers[3] == [Whole(DATA[:1500], IPIP, 0)]
    assert r.take_dropped() == 0


def test_duplicates_are_harmless() -> None:
    parts = cut(DATA[:1000], 400)
    r = Reassembler()
    assert feed(r, [parts[0], parts[0], parts[1], parts[1], parts[2]]) == [Whole(DATA[:1000], IPIP, 0)]


def test_atomic_fragment_stands_for_itself() -> None:
    r = Reassembler()
    feed(r, [(0, True, DATA[:8])])
    assert feed(r, [(0, False, b"alone")]) == [Whole(b"alone", IPIP, 0)]  # RFC 6946: the other is untouched
    assert feed(r, [(8, False, b"end")]) == [Whole(DATA[:8] + b"end", IPIP, 0)]


@pytest.mark.parametrize(
    "bad",
    [
        (8, True, DATA[:16]),  # overlaps the second
        (0, True, DATA[8:16]),  # other octets in the same place
        (24, True, b"seven77"),  # not a multiple of eight, and not the last
        (65528, False, DATA[:16]),  # longer than a packet can be
        (24, True, b""),
        (8, False, b"an end before what came"),
    ],
)
def test_what_does_not_fit_spoils_the_packet(bad: tuple[int, bool, bytes]) -> None:
    r = Reassembler()
    assert feed(r, [(0, True, DATA[:8]), (16, True, DATA[16:24]), bad]) == []
    assert r.take_dropped() == 3
    # RFC 5722 4: also what comes later of it.
    assert feed(r, [(8, True, DATA[8:16]), (24, False, b"end")]) == []
    assert r.take_dropped() == 2
    assert feed(r, cut(DATA[:100], 40), ident=8) == [Whole(DATA[:100], IPIP, 0)]


def test_two_ends_contradict() -> None:
    r = Reassembler()
    assert feed(r, [(16, False, b"end"), (24, False, b"end"), (0, True, DATA[:16])]) == []


def test_time_runs_out() -> None:
    r = Reassembler()
    parts = cut(DATA[:100], 40)
    assert feed(r, parts[:2], now=0.0) == []
    assert feed(r, parts[2:], now=LIFETIME_S) == []
    assert r.take_dropped() == 2


def test_memory_is_bounded() -> None:
    r = Reassembler()
    for ident in range(10 * MAX_PACKETS):
        feed(r, [(0, True, DATA[:8])], ident=ident)
    assert len(r._packets) == MAX_PACKETS
    assert r.take_dropped() == 9 * MAX_PACKETS
    for number in range(1, 1000):
        feed(r, [(number * 8, True, DATA[:8])], ident=10 * MAX_PACKETS - 1)
    assert sum(len(p.parts) for p in r._packets.values()) <= 2 * MAX_PACKETS


def test_congestion_of_one_fragment_is_congestion_of_the_packet() -> None:
    r = Reassembler()
    assert r.add(Fragment(1, IPIP, 0, True, DATA[:8], 0x02), 0) is None
    assert r.add(Fragment(1, IPIP, 8, False, b"x", 0x03), 0) == Whole(DATA[:8] + b"x", IPIP, 0x03)  # RFC 3168 5.3


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 40).map(lambda n: n * 8),
            st.booleans(),
            st.binary(max_size=64),
            st.integers(0, 255),
        ),
        max_size=40,
    )
)
def test_whatever_comes(parts: list[tuple[int, int, bool, bytes, int]]) -> None:
    """Never an exception; what is said to be whole has no gap: every octet of it was in some fragment there."""
    r = Reassembler()
    for now, (ident, offset, more, octets, tos) in enumerate(parts):
        whole = r.add(Fragment(ident, IPIP, offset, more, octets, tos), float(now))
        if whole is not None and offset:
            sent = {o: p for i, o, _, p, _ in parts[: now + 1] if i == ident}
            assert len(whole.payload) == offset + len(octets) or not more or any(o > offset for o in sent)
            assert whole.payload[offset : offset + len(octets)] == octets
