"""SOLICIT to REBIND (RFC 8415 15, 16, 18.2): what is asked, when, and whom to believe; as time scripts."""

from __future__ import annotations

import itertools
import random

import pytest
from dhcp6script import ADDRESS, DUID, IAID, NEW_PREFIX, O88, OTHER, PREFIX, SERVER, Script6, na, pd, status
from hypothesis import given, settings
from hypothesis import strategies as st
from timescript import Highest, Lowest

from b4client.protocol.dhcp6_states import Bound, Soliciting
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import IdentityAssociation, MessageType, Option, StatusCode

PREFERENCE = int(Option.PREFERENCE)


def ia_of(script: Script6, code: Option = Option.IA_PD) -> IdentityAssociation:
    value = script.last.get(code)
    assert value is not None
    return dhcp6.decode_ia(value)


# ---- what is asked


def test_the_solicit() -> None:
    """RFC 8415 18.2.1: Client Identifier, Elapsed Time, ORO with 82, an IA with times 0; no Server Identifier."""
    script = Script6().start()
    codes = [code for code, _ in script.last.options]
    assert script.last.msg_type == MessageType.SOLICIT
    assert codes == [Option.CLIENTID, Option.ELAPSED_TIME, Option.ORO, Option.IA_PD]
    assert script.last.get(Option.CLIENTID) == DUID
    assert ia_of(script) == IdentityAssociation(IAID, 0, 0, ())


def test_an_address_too_and_rapid_commit() -> None:
    script = Script6(address=True, rapid_commit=True).start()
    assert [code for code, _ in script.last.options][3:] == [Option.IA_NA, Option.IA_PD, Option.RAPID_COMMIT]


def test_a_length_hint() -> None:
    """RFC 8415 18.2.1: IA Prefix with the prefix 0 and the length that is wished for."""
    (prefix,) = ia_of(Script6(prefix_len=60).start()).prefixes()
    assert (prefix.prefix.network_address._ip, prefix.prefix.prefixlen) == (0, 60)


def test_the_option_request_of_every_message() -> None:
    """82 (18.2.1, 18.2.4), 88 [D-1] and the containers [D-2] in Solicit, Request, Renew and Rebind; never 32 [D-4], 83
    or what lives inside a container."""
    script = Script6().bind()
    script.until(1999)
    asked = {MessageType(m.msg_type).name: sorted(dhcp6.decode_oro(m.get(Option.ORO) or b"")) for _, m in script.sent}
    assert asked == {name: [64, 82, 88, 94, 96, 111] for name in ("SOLICIT", "REQUEST", "RENEW", "REBIND")}


def test_the_request() -> None:
    """RFC 8415 18.2.2: Server Identifier, and the prefix that was offered with lifetimes 0."""
    script = Script6().start()
    script.advertise(pd(PREFIX))
    assert script.until(2)[0][1] == "REQUEST"
    assert script.last.get(Option.SERVERID) == SERVER
    (prefix,) = ia_of(script).prefixes()
    assert (prefix.prefix, prefix.preferred, prefix.valid) == (PREFIX, 0, 0)
    assert (ia_of(script).t1, ia_of(script).t2) == (0, 0)


def test_renew_and_rebind_name_what_is_held() -> None:
    """RFC 8415 18.2.4, 18.2.5: a Renew is for its server, a Rebind for any."""
    script = Script6().bind()
    script.until(500)
    assert script.last.msg_type == MessageType.RENEW
    assert script.last.get(Option.SERVERID) == SERVER
    assert [p.prefix for p in ia_of(script).prefixes()] == [PREFIX]
    script.until(800)
    assert script.last.msg_type == MessageType.REBIND
    assert script.last.get(Option.SERVERID) is None
    assert [p.prefix for p in ia_of(script).prefixes()] == [PREFIX]


def test_the_hint_goes_when_a_prefix_is_held() -> None:
    script = Script6(prefix_len=60).bind()
    script.until(500)
    assert [p.prefix for p in ia_of(script).prefixes()] == [PREFIX]


# ---- when


@pytest.mark.parametrize(("rng", "at"), [(Lowest(), 0.0), (None, 0.5), (Highest(), 1.0)])
def test_the_first_solicit_waits(rng: random.Random | None, at: float) -> None:
    """RFC 8415 18.2.1: 0 to SOL_MAX_DELAY (1 s)."""
    script = Script6(rng=rng, start_delay=True).start()
    script.until(1.0)
    assert script.sent[0][0] == at


@pytest.mark.parametrize("rng", [Lowest(), Highest(), random.Random(3)])
def test_the_first_wait_is_longer_than_irt(rng: random.Random) -> None:
    """RFC 8415 18.2.1 [D-15] MUST: RAND is strictly greater than 0."""
    script = Script6(rng=rng).start()
    script.until(1.0)
    assert len(script.sent) == 1
    script.until(1.1001)
    assert len(script.sent) == 2


def gaps(script: Script6, kind: str) -> list[float]:
    times = [at for at, m in script.sent if MessageType(m.msg_type).name == kind]
    return [round(after - before, 6) for before, after in itertools.pairwise(times)]


def test_it_solicits_for_ever() -> None:
    """RFC 8415 18.2.1: IRT 1 s, MRT SOL_MAX_RT 3600 s, no limit. One transaction id [16.1], Elapsed Time counted."""
    script = Script6().start()
    script.until(86400)
    found = gaps(script, "SOLICIT")
    assert all(1.99 < after / before < 2.01 for before, after in itertools.pairwise(found[:11]))
    assert set(found[13:]) == {3600}
    assert len({m.transaction_id for _, m in script.sent}) == 1
    elapsed = [dhcp6.decode_elapsed(m.get(Option.ELAPSED_TIME) or b"") for _, m in script.sent]
    assert elapsed[:2] == [0, 105]
    assert elapsed[-1] == 0xFFFF


@pytest.mark.parametrize(("value", "plateau"), [(59, 3600), (60, 60), (120, 120), (86401, 3600)])
def test_sol_max_rt(value: int, plateau: float) -> None:
    """RFC 8415 21.24 [D-9]: believed from 60 to 86400, also in an Advertise that offers nothing."""
    script = Script6().start()
    script.advertise((int(Option.SOL_MAX_RT), dhcp6.encode_seconds(value)), status(StatusCode.NO_PREFIX_AVAIL))
    script.note(script.client.start(script.now))
    script.until(1e5)
    assert gaps(script, "SOLICIT")[-1] == plateau


def test_a_request_is_sent_ten_times() -> None:
    """RFC 8415 18.2.2: REQ_TIMEOUT 1 s, REQ_MAX_RT 30 s, REQ_MAX_RC 10; then servers are looked for again."""
    script = Script6().start()
    script.advertise((PREFERENCE, b"\xff"), pd(PREFIX))
    script.until(300)
    assert script.kinds[:12] == ["SOLICIT", *["REQUEST"] * 10, "SOLICIT"]
    assert gaps(script, "REQUEST") == [1, 2, 4, 8, 16, 30, 30, 30, 30]


def test_renewals_to_the_end() -> None:
    """RFC 8415 18.2.4, 18.2.5: T1 500, T2 800, valid 2000; 10 s doubling, at most 600 s; then anew."""
    script = Script6().bind()
    assert script.until(799) == [(t, "RENEW") for t in (500, 510, 530, 570, 650)]
    assert script.until(1999) == [(t, "REBIND") for t in (800, 810, 830, 870, 950, 1110, 1430)]
    assert script.prefixes == [PREFIX]
    assert script.until(2000) == [(2000, "SOLICIT")]
    assert script.prefixes == []


@pytest.mark.parametrize(("from_s", "question"), [(100_000, "RENEW"), (600_000, "REBIND")])
def test_the_longest_wait_between_renewals(from_s: int, question: str) -> None:
    """RFC 8415 7.6: REN_MAX_RT and REB_MAX_RT are 600 s [D-6]."""
    script = Script6().bind(pd(PREFIX, preferred=900_000, valid=1_000_000, t1=100_000, t2=600_000))
    sent = [instant for instant, what in script.until(from_s + 20_000) if what == question and instant >= from_s]
    waits = [later - earlier for earlier, later in itertools.pairwise(sent)]
    assert waits[:6] == [10, 20, 40, 80, 160, 320]
    assert set(waits[6:]) == {600}


def test_a_renewal() -> None:
    script = Script6().bind()
    script.until(500)
    assert script.reply(pd(PREFIX), O88) is not None
    assert script.until(1300)[0] == (1000, "RENEW")
    (item,) = script.client.lease.prefixes
    assert (item.preferred_until, item.valid_until) == (1500, 2500)


def test_the_same_server_after_a_rebind() -> None:
    """The server that answered is the one that the next Renew is for (RFC 8415 18.2.4)."""
    script = Script6().bind()
    script.until(800)
    script.reply(pd(PREFIX), server=OTHER)
    script.until(1300)
    assert script.last.msg_type == MessageType.RENEW
    assert script.last.get(Option.SERVERID) == OTHER


@pytest.mark.parametrize(
    ("times", "t1", "t2"),
    [
        ({"t1": 500, "t2": 800}, 500, 800),
        ({"t1": 0, "t2": 0}, 500, 800),
        ({"t1": 0, "t2": 300}, 300, 300),
        ({"t1": 700, "t2": 0}, 700, 800),
        ({"t1": 1, "t2": 2}, 5, 5),
        ({"t1": 5000, "t2": 8000}, 2000, 2000),
        ({"t1": 0xFFFFFFFF, "t2": 0xFFFFFFFF}, 2000, 2000),
        ({"t1": 0, "t2": 0, "preferred": 0}, 1000, 1600),
        ({"t1": 0, "t2": 0, "preferred": 0xFFFFFFFF, "valid": 0xFFFFFFFF}, None, None),
        ({"t1": 0, "t2": 0, "preferred": 4, "valid": 4}, 2.0, 3.2),
    ],
)
def test_t1_and_t2(times: dict[str, int], t1: float | None, t2: float | None) -> None:
    """RFC 8415 14.2, 21.4, 21.21: 0 leaves them to us: 0.5 and 0.8 of the shortest preferred lifetime."""
    binding = Script6().bind(pd(PREFIX, **times)).client.binding
    assert binding is not None
    found = [None if t == float("inf") else round(t, 6) for t in (binding.t1_at, binding.t2_at)]
    assert found == [t1, t2]


def test_t1_beyond_t2_discards_the_association() -> None:
    """RFC 8415 21.21."""
    script = Script6().start()
    script.advertise(pd(PREFIX, t1=900, t2=800))
    assert script.counters.snapshot() == {"ignored-ia-malformed": 1, "drop-advertise-without-lease": 1}


def test_an_address_and_a_prefix_are_renewed_at_the_earliest_t1() -> None:
    """RFC 8415 18.2.4 MUST."""
    script = Script6(address=True).bind(na(ADDRESS, t1=200, t2=300), pd(PREFIX))
    assert script.until(400)[0] == (200, "RENEW")
    assert (script.addresses, script.prefixes) == ([ADDRESS], [PREFIX])


# ---- Advertises


def test_the_first_wait_collects() -> None:
    """RFC 8415 18.2.1, 18.2.9: the highest preference of the first wait."""
    script = Script6().start()
    script.advertise(pd(PREFIX), server=OTHER)
    script.advertise((PREFERENCE, b"\5"), pd(NEW_PREFIX))
    script.advertise((PREFERENCE, b"\4"), pd(PREFIX), server=OTHER)
    assert script.due_now() == []
    script.until(1.1)
    assert script.last.get(Option.SERVERID) == SERVER


def test_preference_255_ends_the_wait() -> None:
    script = Script6().start()
    script.advertise((PREFERENCE, b"\xff"), pd(PREFIX))
    assert script.due_now() == [(0, "REQUEST")]


def test_a_late_advertise_is_taken_at_once() -> None:
    """RFC 8415 18.2.1: after the first wait the first valid one."""
    script = Script6().start()
    script.until(2.0)
    script.advertise(pd(PREFIX))
    assert script.due_now() == [(2.0, "REQUEST")]


def test_among_equals_the_one_that_offers_all_and_provisions_ipv4() -> None:
    script = Script6(address=True).start()
    script.advertise((PREFERENCE, b"\x09"), pd(PREFIX), server=OTHER)
    script.advertise(pd(PREFIX), na(ADDRESS))
    script.until(1.1)
    assert script.last.get(Option.SERVERID) == SERVER
    script = Script6().start()
    script.advertise(pd(PREFIX), server=OTHER)
    script.advertise(pd(PREFIX), O88)
    script.until(1.1)
    assert script.last.get(Option.SERVERID) == SERVER


@pytest.mark.parametrize(
    "options",
    [
        (),
        (pd(),),
        (pd(status=StatusCode.NO_PREFIX_AVAIL),),
        (pd(PREFIX, iaid=IAID + 1),),
        (pd(PREFIX, valid=0, preferred=0),),
        (pd(PREFIX, preferred=3000),),
        (pd(PREFIX), status(StatusCode.UNSPEC_FAIL)),
        ((int(Option.IA_PD), b"\0\0\0"),),
    ],
    ids=["nothing", "empty", "refused", "other-iaid", "ended", "contradiction", "failed", "malformed"],
)
def test_an_advertise_without_lease_is_ignored(options: tuple[tuple[int, bytes], ...]) -> None:
    """RFC 8415 18.2.9 MUST; the next one is still welcome."""
    script = Script6().start()
    script.advertise(*options)
    assert script.counters["drop-advertise-without-lease"] == 1
    assert script.until(1.5)[0][1] == "SOLICIT"
    script.advertise(pd(PREFIX))
    assert script.due_now()[0][1] == "REQUEST"


@pytest.mark.parametrize("prefix", ["::/0", "2000::/3", "ff00::/56", "fe80::/56", "2001::/16"])
def test_what_nobody_delegates(prefix: str) -> None:
    """A prefix that would swallow the Internet with its unreachable route, or that cannot be used."""
    from ipaddress import IPv6Network

    script = Script6().start()
    script.advertise(pd(IPv6Network(prefix)))
    assert script.counters["ignored-lease6-unusable"] == 1
    assert script.counters["drop-advertise-without-lease"] == 1


def test_a_server_with_too_many_prefixes() -> None:
    script = Script6().bind(pd(*PREFIX.supernet(4).subnets(new_prefix=60)))
    assert len(script.prefixes) == 16


def test_why_nothing_is_delegated() -> None:
    script = Script6().start()
    script.advertise(pd(status=StatusCode.NO_PREFIX_AVAIL))
    assert script.client.problem == (
        'the DHCPv6 server, asked for a prefix, has none to delegate (NoPrefixAvail): "no"'
    )
    assert "NoPrefixAvail" in script.client.waiting_for


# ---- Rapid Commit


def test_rapid_commit() -> None:
    """RFC 8415 18.2.1: a Reply with the option binds at once; one without it is discarded."""
    script = Script6(rapid_commit=True).start()
    assert script.reply(pd(PREFIX)) is None
    assert isinstance(script.client.state, Soliciting)
    assert script.reply(pd(PREFIX), O88, (int(Option.RAPID_COMMIT), b"")) is not None
    assert isinstance(script.client.state, Bound)


def test_an_advertise_despite_rapid_commit() -> None:
    script = Script6(rapid_commit=True).start()
    script.advertise((PREFERENCE, b"\xff"), pd(PREFIX))
    assert script.due_now() == [(0, "REQUEST")]


def test_no_reply_to_a_solicit_without_rapid_commit() -> None:
    script = Script6().start()
    assert script.reply(pd(PREFIX), (int(Option.RAPID_COMMIT), b"")) is None
    assert script.counters.snapshot() == {"drop-datagram-unexpected-type": 1}


# ---- any story


OPTIONS = st.sampled_from(
    [
        pd(PREFIX),
        pd(NEW_PREFIX),
        pd(PREFIX, preferred=0, valid=0),
        pd(PREFIX, t1=0, t2=0, preferred=2, valid=3),
        pd(PREFIX, t1=1, t2=0xFFFFFFFF, preferred=0xFFFFFFFF, valid=0xFFFFFFFF),
        pd(status=StatusCode.NO_BINDING),
        pd(status=StatusCode.NO_PREFIX_AVAIL),
        na(ADDRESS),
        na(ADDRESS, valid=7, preferred=7),
        na(status=StatusCode.NO_BINDING),
        (PREFERENCE, b"\xff"),
        (int(Option.RAPID_COMMIT), b""),
        (int(Option.IA_PD), b"junk"),
        (int(Option.SOL_MAX_RT), dhcp6.encode_seconds(60)),
        *(status(code) for code in StatusCode),
    ]
)
JUNK = st.tuples(st.sampled_from([3, 7, 13, 14, 25, 82]), st.binary(max_size=60))
STEPS = st.one_of(
    st.tuples(st.just("hear"), st.sampled_from([MessageType.ADVERTISE, MessageType.REPLY]), st.lists(OPTIONS | JUNK)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 3.0, 40.0, 900.0, 1e5])),
    st.tuples(st.sampled_from(["start", "moved", "stop", "release", "renew", "decline"])),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=25), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_whatever_happens(steps: list[tuple[object, ...]], address: bool, rapid: bool, seed: int) -> None:
    """It never fails; after what is due nothing is due (asserted in ``until``); no ended lease is held; it never sends
    more than one message for one event or instant; it is never stuck: running, it has a deadline."""
    script = Script6(address=address, rapid_commit=rapid, rng=random.Random(seed), start_delay=seed % 2 == 0)
    script.start()
    running = True
    for step in steps:
        match step:
            case ("hear", MessageType() as kind, list() as options):
                if script.sent:
                    script.hear(kind, *options)
            case ("wait", float() as seconds):
                script.until(script.now + seconds)
            case ("start",):
                script.start()
                running = True
            case ("moved",):
                script.start(opportunistic=True)
                running = True
            case ("stop",):
                script.client.stop()
                running = False
            case ("release",):
                script.note(script.client.release(script.now))
                running = False
            case ("renew",):
                script.note(script.client.renew(script.now))
            case ("decline",):
                script.note(script.client.decline(ADDRESS, script.now))
                running = running or bool(script.client.lease)
        script.due_now()
        lease = script.client.lease
        assert all(item.valid_until > script.now for item in lease.every)
        assert len(set(lease.networks[1])) == len(lease.prefixes)
        forever = all(item.valid_until == float("inf") for item in lease.every) and bool(lease)
        assert not running or script.client.deadline() is not None or forever
