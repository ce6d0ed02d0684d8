"""Retransmission times (RFC 2131 4.1, 4.4.5; RFC 8415 15) and the rate limit (RFC 8415 14.1)."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timescript import Highest, Lowest, Middle

from b4client.protocol.backoff import (
    MAX_RT_VALID,
    Dhcp6Retransmission,
    TokenBucket,
    dhcp4_delay_s,
    renew_delay_s,
)

seeds = st.integers(0, 2**32).map(random.Random)

# ---- RFC 2131 4.1 [S-2]


def test_dhcp4_doubles_to_64_s() -> None:
    assert [dhcp4_delay_s(n, Middle()) for n in range(8)] == [4, 8, 16, 32, 64, 64, 64, 64]


def test_dhcp4_bounds_of_s2() -> None:
    bounds = [(dhcp4_delay_s(n, Lowest()), dhcp4_delay_s(n, Highest())) for n in range(7)]
    assert bounds == [(3, 5), (7, 9), (15, 17), (31, 33), (63, 65), (63, 65), (63, 65)]


@given(st.integers(0, 10**9), seeds)
def test_dhcp4_never_leaves_its_bounds(attempt: int, rng: random.Random) -> None:
    nominal = min(4 * 2 ** min(attempt, 4), 64)
    assert nominal - 1 <= dhcp4_delay_s(attempt, rng) <= nominal + 1


def test_dhcp4_jitter_is_random() -> None:
    """RFC 2131 4.1: the back-off MUST be randomized, on both sides of the nominal value."""
    delays = [dhcp4_delay_s(0, random.Random(seed)) for seed in range(50)]
    assert len(set(delays)) == 50
    assert min(delays) < 3.5
    assert max(delays) > 4.5


# ---- RFC 2131 4.4.5 [S-8]


@pytest.mark.parametrize(
    ("now", "until", "wait"),
    [
        (1800, 3150, 675),
        (2475, 3150, 337.5),
        (3065.625, 3150, 60),
        (3030, 3150, 60),
        (3029, 3150, 60.5),
        (3150, 3600, 225),
        (3600, 3600, 60),
        (4000, 3600, 60),
        (0, math.inf, 60),
    ],
)
def test_half_of_what_remains_but_60_s(now: float, until: float, wait: float) -> None:
    assert renew_delay_s(now, until, now) == wait


# ---- RFC 8415 15 [D-6]

INF = Dhcp6Retransmission(1.0, 3600.0)


def times(retransmission: Dhcp6Retransmission, rng: random.Random, count: int) -> list[float]:
    found = [retransmission.first_s(rng)]
    while len(found) < count:
        found.append(retransmission.next_s(found[-1], rng))
    return found


def test_dhcp6_doubles_to_the_maximum() -> None:
    assert times(INF, Middle(), 15) == [*(2.0**n for n in range(12)), 3600, 3600, 3600]


def test_dhcp6_bounds_of_d6() -> None:
    low, high = times(INF, Lowest(), 30), times(INF, Highest(), 30)
    assert (low[0], high[0]) == pytest.approx((0.9, 1.1))
    assert (low[1] / low[0], high[1] / high[0]) == pytest.approx((1.9, 2.1))
    assert (low[-1], high[-1]) == pytest.approx((3240, 3960))


@given(seeds)
def test_dhcp6_every_step_is_in_its_bounds(rng: random.Random) -> None:
    found = times(INF, rng, 40)
    assert 0.9 <= found[0] <= 1.1
    for before, after in itertools.pairwise(found):
        doubled = 1.9 * before <= after <= min(2.1 * before, 3600)
        plateau = 3240 <= after <= 3960 and 2.1 * before > 3600
        assert doubled or plateau
    assert all(3240 <= wait <= 3960 for wait in found[20:])


def test_dhcp6_without_maximum() -> None:
    """RFC 8415 15: MRT 0 is no upper limit."""
    assert times(Dhcp6Retransmission(1.0, 0), Middle(), 16)[-1] == 2**15


def test_which_maximum_may_be_believed() -> None:
    """RFC 8415 21.24, 21.25 [D-9]."""
    assert [value for value in (59, 60, 3600, 86400, 86401) if value in MAX_RT_VALID] == [60, 3600, 86400]


# ---- RFC 8415 14.1 [D-14]


def test_twenty_at_once_then_one_a_second() -> None:
    bucket = TokenBucket()
    assert [bucket.take(100.0) for _ in range(21)] == [True] * 20 + [False]
    assert not bucket.take(100.9)
    assert bucket.take(101.0)
    assert not bucket.take(101.5)
    assert [bucket.take(500.0) for _ in range(21)] == [True] * 20 + [False]


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(2, 2.0)
    assert [bucket.take(10.0), bucket.take(10.0), bucket.take(10.0), bucket.take(5.0)] == [True, True, False, False]
    assert not bucket.take(10.5)
    assert bucket.take(11.0)


@given(st.lists(st.floats(0, 10), max_size=200), st.integers(1, 20), st.floats(1, 60))
def test_never_more_than_burst_and_rate(gaps: list[float], burst: int, per_s: float) -> None:
    """In no stretch of time more than the burst and what the rate adds to it."""
    bucket, now, taken = TokenBucket(burst, per_s), 0.0, []
    for gap in gaps:
        now += gap
        if bucket.take(now):
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            allowed = burst + (taken[last] - taken[first]) * burst / per_s
            assert last - first + 1 <= allowed + 1e-6


def test_an_infinite_lease_is_asked_for_again_ever_more_rarely() -> None:
    asked = [renew_delay_s(1000 + since, math.inf, 1000) for since in (0, 60, 120, 240, 86400, 1e6)]
    assert asked == [60, 60, 120, 240, 86400, 86400]
