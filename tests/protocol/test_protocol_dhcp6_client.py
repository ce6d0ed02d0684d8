"""DHCPv6 INFORMATION-REQUEST exchanges (RFC 8415 15, 16.10, 18.2.6, 18.2.10, 21.23), as time scripts."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timescript import Highest, Lowest, Middle

from b4client.protocol.counters import Counters
from b4client.protocol.dhcp6_client import Asking, Delaying, Dhcp6Client, Idle, Informed
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option, StatusCode

DUID = bytes.fromhex("00030001020000000001")
SERVER_DUID = bytes.fromhex("000300010200000000fe")


class Script:
    """One client and its time; ``asked`` is what it sent, decoded, and when."""

    def __init__(self, rng: random.Random | None = None, *, start_delay: bool = False) -> None:
        self.counters = Counters()
        self.client = Dhcp6Client(
            DUID, start_delay=start_delay, rng=Middle(1) if rng is None else rng, counters=self.counters
        )
        self.now = 0.0
        self.asked: list[tuple[float, Dhcp6Message]] = []

    def start(self, now: float = 0.0, *, opportunistic: bool = False) -> Script:
        self.now = now
        self._note(self.client.start(now, opportunistic=opportunistic))
        return self

    def until(self, instant: float) -> list[float]:
        """Let time pass; when something was sent."""
        before = len(self.asked)
        while (due := self.client.deadline()) is not None and due <= instant:
            self.now = max(self.now, due)
            self._note(self.client.wake(self.now))
            after = self.client.deadline()
            assert after is None or after > self.now
        self.now = max(self.now, instant)
        return [at for at, _ in self.asked[before:]]

    def _note(self, messages: list[bytes]) -> None:
        self.asked += [(self.now, dhcp6.decode(data)) for data in messages]

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.asked]

    def hear(self, data: bytes) -> Dhcp6Message | None:
        return self.client.received(data, self.now)

    def reply(self, *options: tuple[int, bytes]) -> Dhcp6Message | None:
        """A server answers."""
        return self.hear(reply(self.asked[-1][1].transaction_id, *options))

    def refresh_in(self) -> float | None:
        due = self.client.deadline()
        return None if due is None else due - self.now


IDENTITIES = ((int(Option.CLIENTID), DUID), (int(Option.SERVERID), SERVER_DUID))


def reply(transaction_id: int, *options: tuple[int, bytes], msg_type: int = MessageType.REPLY) -> bytes:
    return dhcp6.encode(Dhcp6Message(msg_type, transaction_id, (*IDENTITIES, *options)))


def seconds(code: int, value: int) -> tuple[int, bytes]:
    return code, dhcp6.encode_seconds(value)


def options_of(message: Dhcp6Message) -> dict[int, bytes]:
    found = dict(message.options)
    assert len(found) == len(message.options)
    return found


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
    """83 and 32 are a MUST (D-3), 88 (RFC 7341 9 [D-1]), the containers that we implement (RFC 7598 8 [D-2]), 111;
    never 89, 91, 92, 93, which live inside the containers (RFC 8415 21.7), nor SOL_MAX_RT 82 (D-4)."""
    ((_, message),) = Script().start().asked
    listed = dhcp6.decode_oro(options_of(message)[Option.ORO])
    assert sorted(listed) == [32, 83, 88, 94, 96, 111]


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
    assert script.counters.snapshot() == {"received-reply": 1, "drop-reply-foreign-transaction": 1}


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


def status(code: int) -> tuple[int, bytes]:
    return Option.STATUS_CODE, dhcp6.encode_status(code, "no")


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
