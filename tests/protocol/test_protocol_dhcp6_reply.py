"""Which Replies are believed, and for how long (RFC 8415 16.10, 18.2.10, 21.23, 21.25)."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from infoscript import DUID, IDENTITIES, Script, reply, seconds, status
from timescript import Highest, Lowest

from b4client.protocol.dhcp6_client import OTHERS_WITHIN_S, Asking, Informed
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option, StatusCode

# ---- INF_MAX_RT [D-9]


@pytest.mark.parametrize(
    ("value", "plateau"),
    [(0, 3600), (59, 3600), (60, 60), (120, 120), (86400, 86400), (86401, 3600), (0xFFFFFFFF, 3600)],
)
def test_inf_max_rt(value: int, plateau: float) -> None:
    """RFC 8415 21.25: 60 to 86400 is believed, anything else MUST be ignored."""
    script = Script().start()
    script.reply(seconds(Option.INF_MAX_RT, value))
    script.start(100.0)
    script.until(1e6)
    gaps = [after - before for before, after in itertools.pairwise(script.times[1:])]
    assert gaps[-1] == plateau


@pytest.mark.parametrize("value", [b"", b"\0\0\x78", b"\0\0\0\x78\0"])
def test_a_malformed_inf_max_rt_is_as_if_absent(value: bytes) -> None:
    script = Script().start()
    assert script.reply((Option.INF_MAX_RT, value)) is not None
    script.start(100.0)
    script.until(1e5)
    assert script.times[-1] - script.times[-2] == 3600


def test_inf_max_rt_of_a_reply_that_failed() -> None:
    """RFC 8415 18.2.10 MUST, also when the status says failure."""
    script = Script().start()
    script.reply(seconds(Option.INF_MAX_RT, 60), status(StatusCode.UNSPEC_FAIL))
    script.until(1e4)
    assert script.times[-1] - script.times[-2] == 60


# ---- whose Reply [D-8]


def without(code: int) -> tuple[tuple[int, bytes], ...]:
    return tuple(option for option in IDENTITIES if option[0] != code)


FOREIGN: dict[str, tuple[tuple[tuple[int, bytes], ...], int, str]] = {
    "transaction": (IDENTITIES, 1, "drop-reply-foreign-transaction"),
    "no server": (without(Option.SERVERID), 0, "drop-reply-without-server-id"),
    "no client": (without(Option.CLIENTID), 0, "drop-reply-foreign-client-id"),
    "other client": (
        (*without(Option.CLIENTID), (int(Option.CLIENTID), DUID + b"\0")),
        0,
        "drop-reply-foreign-client-id",
    ),
}


@pytest.mark.parametrize(("options", "distance", "counter"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_for_us_is_dropped(options: Any, distance: int, counter: str) -> None:
    """RFC 8415 16.10; nothing changes but the counter, and the true Reply is still welcome."""
    script = Script().start()
    before, number = script.client.state, script.asked[-1][1].transaction_id
    message = Dhcp6Message(MessageType.REPLY, number ^ distance, options)
    assert script.hear(dhcp6.encode(message)) is None
    assert script.client.state is before
    assert script.counters.snapshot() == {counter: 1}
    assert script.reply() is not None
    assert isinstance(script.client.state, Informed)


@pytest.mark.parametrize("msg_type", [t for t in range(1, 12) if t != MessageType.REPLY])
def test_only_replies_are_wanted(msg_type: int) -> None:
    """D-17: an Advertise does not enable 4o6; what servers and relays are sent is not for a client."""
    script = Script().start()
    assert script.hear(reply(script.asked[-1][1].transaction_id, msg_type=msg_type)) is None
    assert script.counters.snapshot() == {"drop-datagram-unexpected-type": 1}


@pytest.mark.parametrize(
    "data", [b"", b"\7", b"\7\0\0", b"\7\0\0\0\0\1", b"\7\0\0\0\0\1\0\5abc", b"\0\0\0\0", b"\x0c\0"]
)
def test_what_is_no_dhcpv6_message(data: bytes) -> None:
    script = Script().start()
    assert script.hear(data) is None
    assert script.counters.snapshot() == {"drop-datagram-malformed": 1}


@pytest.mark.parametrize("prepare", [Script, lambda: Script(start_delay=True).start(0.0)], ids=["idle", "delaying"])
def test_replies_that_nobody_asked_for(prepare: Any) -> None:
    script = prepare()
    assert script.hear(reply(0)) is None
    assert script.counters.snapshot() == {"drop-reply-foreign-transaction": 1}


def test_a_second_reply_changes_nothing() -> None:
    script = Script().start()
    script.reply(seconds(Option.INFORMATION_REFRESH_TIME, 3600))
    before = script.client.state
    assert script.reply(seconds(Option.INFORMATION_REFRESH_TIME, 600)) is None
    assert script.client.state is before
    assert script.counters.snapshot() == {"received-reply": 1, "drop-reply-late": 1}


def test_unknown_options_are_no_reason_to_drop() -> None:
    """RFC 8415 16 MUST NOT."""
    script = Script().start()
    message = script.reply((65000, b"what"), (Option.DNS_SERVERS, b"odd"))
    assert message is not None
    assert message.get(65000) == b"what"


def test_the_answer_to_an_abandoned_exchange_is_foreign() -> None:
    script = Script().start()
    old = script.asked[-1][1].transaction_id
    script.start(5.0)
    assert script.hear(reply(old)) is None
    assert script.reply() is not None


# ---- a Reply that says that it failed


@pytest.mark.parametrize("code", [StatusCode.UNSPEC_FAIL, StatusCode.USE_MULTICAST])
def test_a_failed_reply_answers_nothing(code: int) -> None:
    """RFC 8415 18.2.10: UnspecFail and UseMulticast mean "not processed". It says nothing about option 88, so it must
    not end 4o6 [F-2]; the question is repeated at the pace of RFC 8415 15."""
    script = Script().start()
    assert script.reply(status(code)) is None
    assert isinstance(script.client.state, Asking)
    assert script.counters.snapshot() == {"drop-reply-failed": 1}
    assert script.until(7) == [1, 3, 7]
    assert script.reply() is not None


@pytest.mark.parametrize(
    "option", [status(StatusCode.SUCCESS), status(StatusCode.NO_BINDING), (Option.STATUS_CODE, b"\0")]
)
def test_another_status_is_no_failure(option: tuple[int, bytes]) -> None:
    """RFC 8415 18.2.10: "no status code or another status code": processed; a malformed one is as if absent."""
    assert Script().start().reply(option) is not None


# ---- how long a Reply holds [D-10]


@pytest.mark.parametrize(
    ("value", "refresh_in"),
    [
        (0, 600),
        (599, 600),
        (600, 600),
        (601, 601),
        (86400, 86400),
        (0xFFFFFFFE, 0xFFFFFFFE),
        (0xFFFFFFFF, None),
    ],
)
def test_refresh_time(value: int, refresh_in: float | None) -> None:
    """RFC 8415 21.23: at least IRT_MINIMUM (600 s); 0xffffffff is never."""
    script = Script().start(50.0)
    script.reply(seconds(Option.INFORMATION_REFRESH_TIME, value))
    assert script.refresh_in() == refresh_in


@pytest.mark.parametrize(
    "options", [(), ((Option.INFORMATION_REFRESH_TIME, b"\0\0\x10"),)], ids=["absent", "malformed"]
)
def test_refresh_time_by_default(options: Any) -> None:
    """RFC 8415 21.23: IRT_DEFAULT, one day."""
    script = Script().start()
    script.reply(*options)
    assert script.refresh_in() == 86400


@pytest.mark.parametrize(("rng", "late"), [(Lowest(), 0.0), (Highest(), 1.0)])
def test_refreshed_in_time(rng: random.Random, late: float) -> None:
    """RFC 8415 18.2.6, 21.23 [D-5]: a new exchange, each with its own delay of 0 to 1 s."""
    script = Script(rng, start_delay=True).start()
    script.until(1.0)
    at = script.now
    script.reply(seconds(Option.INFORMATION_REFRESH_TIME, 3600))
    assert script.until(at + 3602)[0] == at + 3600 + late


def test_a_reply_for_ever_is_not_refreshed() -> None:
    script = Script().start()
    script.reply(seconds(Option.INFORMATION_REFRESH_TIME, 0xFFFFFFFF))
    assert script.until(1e9) == []


# ---- whatever arrives


@given(st.lists(st.binary(max_size=64) | st.builds(lambda tail: b"\7" + tail, st.binary(max_size=64)), max_size=20))
def test_no_octets_raise(datagrams: list[bytes]) -> None:
    script = Script().start()
    for data in datagrams:
        script.hear(data)
    assert isinstance(script.client.state, Asking)


option_values = st.lists(st.tuples(st.sampled_from([*map(int, Option), 65000]), st.binary(max_size=40)), max_size=8)


@given(st.lists(st.tuples(st.floats(0, 1e5), option_values), max_size=10), st.integers(0, 2**32))
def test_whatever_a_reply_holds_the_client_goes_on(replies: list[Any], seed: int) -> None:
    """After every Reply there is a next time to ask, not before 600 s, unless it said "never"."""
    script = Script(random.Random(seed), start_delay=True).start()
    for gap, options in replies:
        script.until(script.now + gap)
        if not isinstance(script.client.state, Asking):
            continue
        script.reply(*options)
        if isinstance(script.client.state, Informed):
            refresh = script.refresh_in()
            assert refresh is None or refresh >= 600
        else:
            assert script.refresh_in() is not None


def test_a_reply_without_provisioning_leaves_the_question_open_for_another_server() -> None:
    """A server that knows nothing of softwires and is quicker must not keep IPv4 away until the next refresh."""
    script = Script().start()
    assert script.reply(seconds(Option.INFORMATION_REFRESH_TIME, 0xFFFFFFFF)) is not None
    script.until(OTHERS_WITHIN_S - 0.1)
    useful = script.reply((88, b""))
    assert useful is not None
    assert useful.get(88) == b""
    assert script.refresh_in() == 86400
    counted = script.counters.snapshot()
    assert (counted["received-reply"], counted["received-reply-late"]) == (2, 1)


def test_it_is_open_for_one_and_for_seconds() -> None:
    """Who answers second replaces no answer that was worth having, and nobody answers a day later."""
    script = Script().start()
    assert script.reply((88, b"")) is not None
    assert script.reply((88, bytes(16))) is None  # the first was worth having
    script = Script().start()
    script.reply()
    assert script.reply((88, b"")) is not None
    assert script.reply((88, bytes(16))) is None  # so was the second
    script = Script().start()
    script.reply()
    script.until(OTHERS_WITHIN_S)
    assert script.reply((88, b"")) is None
    assert script.counters.snapshot()["drop-reply-foreign-transaction"] == 1


def test_a_late_reply_that_is_not_taken_changes_nothing() -> None:
    """Neither the refresh, nor INF_MAX_RT, nor how long others are listened to."""
    script = Script().start()
    script.reply()
    before = script.client.state
    script.until(5)
    assert script.reply(seconds(Option.INF_MAX_RT, 60), seconds(Option.INFORMATION_REFRESH_TIME, 600)) is None
    assert script.reply(seconds(Option.INF_MAX_RT, 60), status(StatusCode.UNSPEC_FAIL), (88, b"")) is None
    assert script.client.state == before
    assert script.counters.snapshot()["drop-reply-late"] == 2
    # Its waits still double up to an hour.
    script.until(86400 + 4000)
    assert max(b - a for a, b in itertools.pairwise(script.times[1:])) > 60 * 1.2
