"""When INFORMATION-REQUESTs are sent, and what they ask (RFC 8415 15, 18.2.6, 18.2.12), as time scripts."""

from __future__ import annotations

import itertools
import random

import pytest
from infoscript import DUID, Script, options_of, seconds
from timescript import Highest, Lowest

from b4client.protocol.dhcp6_client import Asking, Delaying, Idle
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import MessageType, Option

# ---- what is asked


def test_the_information_request() -> None:
    """RFC 8415 18.2.6 [D-3]: Client Identifier, Elapsed Time and ORO, nothing else: no IA, no Server Identifier."""
    ((_, message),) = Script().start().asked
    assert message.msg_type == MessageType.INFORMATION_REQUEST
    options = options_of(message)
    assert options.keys() == {Option.CLIENTID, Option.ELAPSED_TIME, Option.ORO}
    assert options[Option.CLIENTID] == DUID
    assert options[Option.ELAPSED_TIME] == b"\0\0"


def test_the_option_request() -> None:
    """83 and 32 are a MUST (D-3), 88 (RFC 7341 9 [D-1]), the containers that we implement (RFC 7598 8 [D-2]), 64, 111;
    never 89, 91, 92, 93, which live inside the containers (RFC 8415 21.7), nor SOL_MAX_RT 82 (D-4)."""
    ((_, message),) = Script().start().asked
    listed = dhcp6.decode_oro(options_of(message)[Option.ORO])
    assert sorted(listed) == [32, 64, 83, 88, 94, 96, 111]


def test_every_message_asks_the_same() -> None:
    """D-1, D-3: retransmissions and refreshes too."""
    script = Script().start()
    script.until(20)
    script.reply()
    script.until(script.now + 86400)
    assert len({options_of(message)[Option.ORO] for _, message in script.asked}) == 1
    assert {message.msg_type for _, message in script.asked} == {MessageType.INFORMATION_REQUEST}


def test_elapsed_time_is_updated() -> None:
    """RFC 8415 21.9, 15 MUST: 0, then hundredths since the first message, at most 0xffff."""
    script = Script().start(1000.0)
    script.until(2100)
    found = [(at - 1000, dhcp6.decode_elapsed(options_of(m)[Option.ELAPSED_TIME])) for at, m in script.asked]
    assert found == [
        (0, 0),
        (1, 100),
        (3, 300),
        (7, 700),
        (15, 1500),
        (31, 3100),
        (63, 6300),
        (127, 12700),
        (255, 25500),
        (511, 51100),
        (1023, 65535),
    ]


def test_one_exchange_has_one_transaction_id() -> None:
    """RFC 8415 16.1 MUST; the next exchange has another."""
    script = Script().start()
    script.until(100)
    first = {m.transaction_id for _, m in script.asked}
    script.reply()
    script.until(script.now + 86400)
    assert len(first) == 1
    assert script.asked[-1][1].transaction_id not in first


def test_transaction_ids_are_random() -> None:
    found = {Script(random.Random(seed)).start().asked[0][1].transaction_id for seed in range(100)}
    assert len(found) == 100
    assert max(found) >= 1 << 23


# ---- when


@pytest.mark.parametrize(("rng", "at"), [(Lowest(), 0.0), (None, 0.5), (Highest(), 1.0)])
def test_the_first_message_waits(rng: random.Random | None, at: float) -> None:
    """RFC 8415 18.2.6 [D-5] MUST: uniform in 0 to INF_MAX_DELAY (1 s)."""
    script = Script(rng, start_delay=True).start()
    script.until(10)
    assert script.times[0] == at


def test_the_wait_can_be_left_out() -> None:
    assert Script(start_delay=False).start().times == [0.0]


def test_it_never_gives_up() -> None:
    """D-6: 1, 2, 4 ... up to INF_MAX_RT 3600 s, then every 3600 s; MRC and MRD are 0."""
    script = Script().start()
    script.until(86400)
    gaps = [after - before for before, after in itertools.pairwise(script.times)]
    assert gaps[:13] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600]
    assert set(gaps[13:]) == {3600}


@pytest.mark.parametrize("seed", range(10))
def test_the_backoff_is_within_the_bounds_of_d6(seed: int) -> None:
    script = Script(random.Random(seed)).start()
    script.until(86400)
    gaps = [after - before for before, after in itertools.pairwise(script.times)]
    assert 0.9 <= gaps[0] <= 1.1
    assert all(1.9 <= after / before <= 2.1 for before, after in itertools.pairwise(gaps[:11]))
    assert all(3240 <= gap <= 3960 for gap in gaps[14:])


def test_nothing_before_start_and_after_stop() -> None:
    script = Script()
    assert script.until(1e6) == []
    script.start(1e6)
    script.client.stop()
    assert isinstance(script.client.state, Idle)
    assert script.client.deadline() is None
    assert script.until(2e6) == []


def test_a_suspended_machine_asks_once() -> None:
    script = Script().start()
    assert len(script.client.wake(5000.0)) == 1
    assert script.client.wake(5000.0) == []


@pytest.mark.parametrize("refresh", [3600, 0xFFFFFFFF])
def test_woken_early_is_harmless(refresh: int) -> None:
    delaying = Script(start_delay=True).start()
    asking = Script().start()
    informed = Script().start()
    informed.reply(seconds(Option.INFORMATION_REFRESH_TIME, refresh))
    for script in (Script(), delaying, asking, informed):
        before = script.client.state
        assert script.client.wake(0.25) == []
        assert script.client.state is before


def test_an_operators_start_need_not_keep_a_distance() -> None:
    """D-13 is about what nobody asked for."""
    script = Script().start()
    assert len(script.client.start(1.0)) == 1


# ---- the link may be another one [D-13]


@pytest.mark.parametrize(
    ("at", "asked_at"),
    [(1.0, 30.0), (29.0, 30.0), (30.0, 30.0), (31.0, 31.0), (1000.0, 1000.0)],
)
def test_opportunistic_exchanges_keep_their_distance(at: float, asked_at: float) -> None:
    """RFC 8415 18.2.12 MUST: for example 30 s from the last."""
    script = Script().start()
    script.reply()
    script.start(at, opportunistic=True)
    script.until(1100)
    assert script.times[1] == asked_at


def test_a_flapping_link_asks_every_thirty_seconds() -> None:
    script = Script().start()
    for tick in range(1, 601):
        script.until(tick * 0.5)
        if isinstance(script.client.state, Asking):
            script.reply()
        script.start(tick * 0.5, opportunistic=True)
    script.until(300)
    assert script.times == [n * 30.0 for n in range(11)]


def test_the_first_opportunistic_exchange_need_not_wait() -> None:
    assert Script().start(7.0, opportunistic=True).times == [7.0]


def test_an_opportunistic_exchange_has_its_random_delay_too() -> None:
    script = Script(Highest(), start_delay=True).start(100.0, opportunistic=True)
    assert script.client.state == Delaying(101.0)
