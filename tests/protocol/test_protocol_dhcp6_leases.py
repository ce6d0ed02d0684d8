"""What becomes of leases (RFC 8415 18.2.10, 18.2.12): refused, changed, verified on another link, given back."""

from __future__ import annotations

import itertools

import pytest
from dhcp6script import ADDRESS, IAID, NEW_PREFIX, O88, OTHER, PREFIX, SERVER, Script6, na, pd, status

from b4client.model.lease6 import Binding6, Lease6, Leased6
from b4client.protocol.dhcp6_states import Delaying, Idle, Requesting
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import IdentityAssociation, MessageType, Option, StatusCode

PREFERENCE = int(Option.PREFERENCE)


def ia_of(script: Script6, code: Option = Option.IA_PD) -> IdentityAssociation:
    value = script.last.get(code)
    assert value is not None
    return dhcp6.decode_ia(value)


# ---- Replies that refuse


def requesting() -> Script6:
    script = Script6().start()
    script.advertise((PREFERENCE, b"\xff"), pd(PREFIX))
    script.due_now()
    return script


@pytest.mark.parametrize(
    "options",
    [(pd(status=StatusCode.NO_PREFIX_AVAIL),), (status(StatusCode.NOT_ON_LINK),), ()],
    ids=["no-prefix", "not-on-link", "nothing"],
)
def test_a_request_that_is_refused(options: tuple[tuple[int, bytes], ...]) -> None:
    """RFC 8415 18.2.10.1: servers are looked for again, after a pause."""
    script = requesting()
    assert script.reply(*options) is None
    assert script.due_now() == []
    assert script.until(1.0) == [(1.0, "SOLICIT")]


def test_a_server_that_always_takes_back_cannot_keep_us_busy() -> None:
    """RFC 8415 14.1: the pauses grow to two minutes."""
    script = requesting()
    for _ in range(12):
        script.reply(pd(status=StatusCode.NO_PREFIX_AVAIL))
        due = script.client.deadline()
        assert due is not None
        pause = due - script.now
        script.until(due)
        script.advertise((PREFERENCE, b"\xff"), pd(PREFIX))
        script.due_now()
    assert pause == 120


@pytest.mark.parametrize("code", [StatusCode.UNSPEC_FAIL, StatusCode.USE_MULTICAST])
def test_a_failed_reply_answers_nothing(code: int) -> None:
    """RFC 8415 18.2.10: not processed; the question is repeated at its pace."""
    script = requesting()
    assert script.reply(status(code), pd(PREFIX)) is None
    assert isinstance(script.client.state, Requesting)
    assert script.until(1.0) == [(1.0, "REQUEST")]


def test_no_address_but_a_prefix() -> None:
    """RFC 8415 18.2.10.1: what was granted is used; the rest is asked for again with each Renew."""
    script = Script6(address=True).bind(pd(PREFIX), na(status=StatusCode.NO_ADDRS_AVAIL))
    assert script.prefixes == [PREFIX]
    script.until(500)
    assert ia_of(script, Option.IA_NA).addresses() == ()
    script.reply(pd(PREFIX), na(ADDRESS))
    assert (script.addresses, script.prefixes) == ([ADDRESS], [PREFIX])


@pytest.mark.parametrize("at", [500, 800], ids=["renew", "rebind"])
def test_no_binding(at: float) -> None:
    """RFC 8415 18.2.10.1: a Request for all IAs to the server that answered; the prefix stays in use until it does."""
    script = Script6().bind()
    script.until(at)
    assert script.reply(pd(status=StatusCode.NO_BINDING), server=OTHER) is None
    assert script.prefixes == [PREFIX]
    assert script.due_now() == [(at, "REQUEST")]
    assert script.last.get(Option.SERVERID) == OTHER
    assert [p.prefix for p in ia_of(script).prefixes()] == [PREFIX]
    assert script.reply(pd(NEW_PREFIX), O88, server=OTHER) is not None
    assert script.prefixes == [NEW_PREFIX]


def test_the_request_after_no_binding_goes_on_in_time() -> None:
    script = Script6().bind()
    script.until(500)
    script.reply(pd(status=StatusCode.NO_BINDING))
    assert [at for at, _ in script.until(515)] == [500, 501, 503, 507, 515]


def test_a_prefix_changes_at_renewal() -> None:
    """RFC 8415 18.2.10.1: lifetime 0 takes the old one, the new one is added."""
    script = Script6().bind()
    script.until(500)
    old = dhcp6.decode_ia(pd(PREFIX, preferred=0, valid=0)[1]).options
    new = dhcp6.decode_ia(pd(NEW_PREFIX)[1])
    both = dhcp6.encode_ia(IdentityAssociation(IAID, 500, 800, (*new.options, *old)))
    assert script.reply((int(Option.IA_PD), both)) is not None
    assert script.prefixes == [NEW_PREFIX]


def test_a_prefix_that_is_not_named_stays() -> None:
    script = Script6().bind(pd(PREFIX, NEW_PREFIX))
    script.until(500)
    script.reply(pd(NEW_PREFIX, valid=5000, preferred=5000))
    assert script.prefixes == [PREFIX, NEW_PREFIX]


def test_a_renewal_that_takes_everything_back() -> None:
    script = Script6().bind()
    script.until(500)
    assert script.reply(pd(PREFIX, preferred=0, valid=0)) is None
    assert script.prefixes == []
    assert script.until(502)[0] == (501, "SOLICIT")


@pytest.mark.parametrize("options", [(), (pd(PREFIX, iaid=9),), (pd(status=StatusCode.NO_PREFIX_AVAIL),)])
def test_a_reply_that_extends_nothing(options: tuple[tuple[int, bytes], ...]) -> None:
    """RFC 8415 18.2.10.1: as if it had not come."""
    script = Script6().bind()
    script.until(500)
    assert script.reply(*options) is None
    assert script.until(510) == [(510, "RENEW")]
    assert script.counters["drop-reply-without-lease"] == 1


# ---- the link


def test_a_link_that_may_be_another_one() -> None:
    """RFC 8415 18.2.12 [D-13] MUST: Rebind with the times of Confirm (1, 2, 4, 4 s; CNF_MAX_RD 10 s); unanswered, the
    leases are used on."""
    script = Script6().bind()
    script.now = 100.0
    script.start(opportunistic=True)
    script.until(499)
    assert [(at, m.msg_type) for at, m in script.sent[2:]] == [(at, MessageType.REBIND) for at in (100, 101, 103, 107)]
    assert script.prefixes == [PREFIX]
    assert script.until(500) == [(500, "RENEW")]


def binding(lease: Lease6 | None = None) -> Binding6:
    return Binding6(SERVER, lease or Lease6((), (Leased6(PREFIX, 1000, 2000),)), 500, 800)


def test_a_new_prefix_on_another_link() -> None:
    script = Script6(stored=binding(), now=100.0).start()
    assert script.reply(pd(NEW_PREFIX), pd(PREFIX, preferred=0, valid=0), O88) is not None
    assert script.prefixes == [NEW_PREFIX]


def test_a_flapping_link_asks_every_thirty_seconds() -> None:
    script = Script6().bind()
    for at in range(60, 200):
        script.until(float(at))
        script.start(opportunistic=True)
    exchanges = {m.transaction_id: at for at, m in reversed(script.sent) if m.msg_type == MessageType.REBIND}
    times = sorted(exchanges.values())
    assert times[0] == 60
    assert len(times) == 5
    assert all(after - before >= 30 for before, after in itertools.pairwise(times))


def test_an_address_alone_is_confirmed() -> None:
    """RFC 8415 18.2.3, 18.2.12: the addresses, no Server Identifier, no ORO; success: used on."""
    script = Script6(address=True).bind(na(ADDRESS), pd(status=StatusCode.NO_PREFIX_AVAIL))
    script.now = 100.0
    script.start(opportunistic=True)
    assert script.last.msg_type == MessageType.CONFIRM
    assert [code for code, _ in script.last.options] == [Option.CLIENTID, Option.ELAPSED_TIME, Option.IA_NA]
    assert script.reply(status(StatusCode.SUCCESS)) is None
    assert script.addresses == [ADDRESS]
    assert script.until(500) == [(500, "RENEW")]


def test_an_address_of_another_link() -> None:
    script = Script6(address=True).bind(na(ADDRESS))
    script.now = 100.0
    script.start(opportunistic=True)
    script.reply(status(StatusCode.NOT_ON_LINK))
    assert script.addresses == []
    assert script.until(101) == [(101, "SOLICIT")]


def test_after_a_restart_a_confirmed_address_is_renewed_at_once() -> None:
    """A Confirm's Reply has no options: option 88 is not known in this life."""
    from ipaddress import IPv6Network

    stored = binding(Lease6((Leased6(IPv6Network(ADDRESS), 1000, 2000),)))
    script = Script6(address=True, stored=stored, now=100.0).start()
    script.reply(status(StatusCode.SUCCESS))
    assert script.due_now() == [(100, "RENEW")]


def test_stored_leases_that_nobody_verifies_are_rebound() -> None:
    script = Script6(stored=binding(), now=100.0).start()
    assert script.until(110)[-1] == (110, "REBIND")
    assert script.prefixes == [PREFIX]


def test_stored_leases_that_have_ended() -> None:
    script = Script6(stored=binding(), now=2000.0).start()
    assert script.kinds == ["SOLICIT"]
    assert script.prefixes == []


def test_leases_end_also_without_link() -> None:
    script = Script6().bind()
    script.client.stop()
    assert script.until(1999) == []
    assert script.prefixes == [PREFIX]
    assert script.until(2100) == []
    assert script.prefixes == []
    assert script.client.deadline() is None


# ---- giving back


def test_release() -> None:
    """RFC 8415 18.2.7: the server and what is held; four times at most; any Reply ends it."""
    script = Script6(address=True).bind(na(ADDRESS), pd(PREFIX))
    script.note(script.client.release(script.now))
    assert script.last.msg_type == MessageType.RELEASE
    assert script.last.get(Option.SERVERID) == SERVER
    assert script.last.get(Option.ORO) is None
    assert ia_of(script, Option.IA_NA).addresses()[0].address == ADDRESS
    assert ia_of(script).prefixes()[0].prefix == PREFIX
    assert not script.client.lease
    assert [at for at, _ in script.until(100)] == [1, 3, 7]
    assert isinstance(script.client.state, Idle)


def test_an_answered_release() -> None:
    script = Script6().bind()
    script.note(script.client.release(script.now))
    assert script.reply(status(StatusCode.NO_BINDING)) is None
    assert script.until(100) == []
    assert isinstance(script.client.state, Idle)


def test_nothing_to_release() -> None:
    script = Script6().start()
    assert script.client.release(0.0) == []
    assert script.until(1e5) == []


def test_a_duplicate_address_is_declined() -> None:
    """RFC 8415 18.2.8, 18.2.10.1 MUST; then the rest is renewed, with the wish for another address."""
    script = Script6(address=True).bind(na(ADDRESS), pd(PREFIX))
    script.note(script.client.decline(ADDRESS, script.now))
    assert script.last.msg_type == MessageType.DECLINE
    assert ia_of(script, Option.IA_NA).addresses()[0].address == ADDRESS
    assert script.last.get(Option.IA_PD) is None
    assert script.addresses == []
    assert script.prefixes == [PREFIX]
    script.reply(status(StatusCode.SUCCESS))
    assert script.due_now() == [(0, "RENEW")]
    assert ia_of(script, Option.IA_NA).addresses() == ()


def test_only_a_duplicate_address() -> None:
    script = Script6(address=True).bind(na(ADDRESS))
    script.note(script.client.decline(ADDRESS, script.now))
    script.reply(status(StatusCode.SUCCESS))
    assert script.until(1.0) == [(1.0, "SOLICIT")]


def test_declining_what_is_not_ours() -> None:
    script = Script6().bind()
    assert script.client.decline(ADDRESS, 0.0) == []


# ---- whose answer


@pytest.mark.parametrize("kind", [t for t in MessageType if t < 12 and t != MessageType.REPLY])
def test_reconfigure_and_others_are_ignored(kind: MessageType) -> None:
    """RFC 8415 16.11: an unauthenticated Reconfigure MUST be discarded; we accept none at all."""
    script = Script6().bind()
    assert script.hear(kind, pd(NEW_PREFIX)) is None
    assert script.prefixes == [PREFIX]
    assert script.counters["drop-datagram-unexpected-type"] == 1
    assert script.until(499) == []


def test_foreign_replies() -> None:
    script = requesting()
    assert script.hear(MessageType.REPLY, pd(PREFIX), xid=script.last.transaction_id ^ 1) is None
    assert script.counters["drop-reply-foreign-transaction"] == 1
    assert isinstance(script.client.state, Requesting)
    assert script.reply(pd(PREFIX)) is not None
    assert script.reply(pd(NEW_PREFIX)) is None
    assert script.prefixes == [PREFIX]


def test_while_a_delay_runs_nothing_is_believed() -> None:
    script = Script6(start_delay=True).start()
    assert isinstance(script.client.state, Delaying)
    assert script.hear(MessageType.REPLY, pd(PREFIX), xid=0) is None
    assert not script.client.lease
