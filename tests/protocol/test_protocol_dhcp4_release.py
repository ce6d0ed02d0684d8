"""Giving up and going on: release, stop and resume (RFC 2131 4.4.6; RFC 7341 9; RFC 7618 6), as time scripts."""

from __future__ import annotations

import pytest
from timescript import (
    ADDRESS,
    HOLDING,
    OTHER_SERVER,
    PORTS,
    SERVER,
    WITHOUT_LEASE,
    Script,
    Way,
    bound,
    coasting,
    counted,
    rebinding,
    rebooting,
    renewing,
    reply,
    ways,
)

from b4client.wire.dhcp4 import MessageType, Option

# ---- release (RFC 2131 4.4.6, RFC 7618 6 step 6)


@ways(HOLDING)
def test_release(way: Way) -> None:
    """T-9: one RELEASE, never repeated; nothing of the lease is used any more, and it is no hint for later."""
    script = way()
    assert script.tell(script.client.release) == ["RELEASE U=1", "lost for good"]
    sent = script.last
    assert (sent.message.ciaddr, sent.ports, sent.message.secs) == (ADDRESS, PORTS, 0)
    assert sent.options()[Option.SERVER_ID] == SERVER.packed
    assert script.until(1e6) == []
    assert (script.state, script.client.lease) == ("STOPPED", None)
    script.tell(script.client.start)
    assert not {Option.REQUESTED_ADDRESS, Option.V4_PORTPARAMS} & script.last.options().keys()


def test_the_release_goes_to_the_server_that_extended_last() -> None:
    script = rebinding()
    script.ack(server=OTHER_SERVER)
    script.tell(script.client.release)
    assert script.last.options()[Option.SERVER_ID] == OTHER_SERVER.packed


def test_release_while_coasting_says_nothing() -> None:
    """X-2, RFC 7341 9: with option 88 withdrawn nothing is sent by DHCP 4o6; the lease is given up all the same."""
    script = coasting()
    assert script.tell(script.client.release) == ["lost for good"]
    assert (script.state, script.client.lease) == ("STOPPED", None)


def test_release_of_a_lease_that_was_not_confirmed() -> None:
    """It may be another's by now: nothing is sent."""
    script = rebooting()
    assert script.tell(script.client.release) == ["lost for good"]
    assert script.state == "STOPPED"


@ways(WITHOUT_LEASE)
def test_release_without_lease(way: Way) -> None:
    script = way()
    assert script.tell(script.client.release) == []
    assert script.state == "STOPPED"
    assert script.until(1e6) == []


# ---- stop and resume: option 88 is withdrawn and comes back [F-2, X-2]


@ways(HOLDING)
def test_stopped_with_the_lease_kept(way: Way) -> None:
    """X-2: used until it ends, never renewed meanwhile; at its end it is gone, and nothing is asked for."""
    script = way()
    ends_at = script.lease.expires_at
    assert script.tell(script.client.stop, keep_lease=True, reason="option 88 is withdrawn") == []
    assert script.state == "COASTING"
    assert script.client.deadline() == ends_at
    assert script.until(ends_at) == [(ends_at, "lost")]
    assert (script.state, script.client.lease) == ("STOPPED", None)
    assert script.until(1e6) == []


@ways(HOLDING, {"COASTING": coasting})
def test_stopped_with_the_lease_given_up(way: Way) -> None:
    script = way()
    assert script.tell(script.client.stop, keep_lease=False, reason="configured so") == ["lost"]
    assert script.lost[-1].reason == "configured so"
    assert (script.state, script.client.lease, script.client.deadline()) == ("STOPPED", None, None)


@pytest.mark.parametrize("keep", [True, False])
@ways(WITHOUT_LEASE)
def test_stopped_without_a_lease(way: Way, keep: bool) -> None:
    script = way()
    assert script.tell(script.client.stop, keep_lease=keep, reason="option 88 is withdrawn") == []
    assert script.state == "STOPPED"
    assert script.until(1e6) == []


@pytest.mark.parametrize("keep", [True, False])
def test_stopped_before_the_stored_lease_was_confirmed(keep: bool) -> None:
    """There is nothing to coast on; what an earlier process left in the kernel must go, so it is said."""
    script = rebooting()
    assert script.tell(script.client.stop, keep_lease=keep, reason="option 88 is withdrawn") == ["lost"]
    assert script.state == "STOPPED"


def test_stopped_twice() -> None:
    script = coasting()
    assert script.tell(script.client.stop, keep_lease=True, reason="still withdrawn") == []
    assert script.state == "COASTING"


def test_stopped_when_the_lease_had_just_ended() -> None:
    script = bound()
    script.now = 3600.0
    assert script.tell(script.client.stop, keep_lease=True, reason="option 88 is withdrawn") == ["lost"]
    assert script.state == "STOPPED"


def test_an_infinite_lease_coasts_for_ever() -> None:
    script = Script(several=False).to_bound(lease=0xFFFFFFFF, t1=None, t2=None)
    script.tell(script.client.stop, keep_lease=True, reason="option 88 is withdrawn")
    assert script.client.deadline() is None
    assert script.client.lease is not None


def test_answers_while_coasting_are_dropped() -> None:
    """F-2: MUST stop using 4o6; the ACK to the last RENEW is not in use any more."""
    script = renewing()
    xid = script.last.message.xid
    script.tell(script.client.stop, keep_lease=True, reason="option 88 is withdrawn")
    assert script.hear(reply(MessageType.ACK, xid)) == []
    assert counted(script) == {"drop-response-not-in-use": 1}
    assert script.lease.expires_at == 3600


@pytest.mark.parametrize(
    ("at", "words", "state"),
    [
        (200, [], "BOUND"),
        (2000, ["REQUEST U=1"], "RENEWING"),
        (3200, ["REQUEST U=0"], "REBINDING"),
    ],
)
def test_resumed_while_coasting(at: float, words: list[str], state: str) -> None:
    """F-2: restart when 88 reappears; what is overdue is done at once."""
    script = coasting()
    script.now = at
    assert script.tell(script.client.resume) == words
    assert script.state == state


def test_resumed_when_the_lease_has_just_ended() -> None:
    script = coasting()
    script.now = 3600.0
    assert script.tell(script.client.resume) == ["lost", "DISCOVER U=0"]


def test_resumed_after_the_lease_has_ended() -> None:
    """The pair that was had before is asked for."""
    script = coasting()
    script.until(5000)
    assert script.tell(script.client.resume) == ["DISCOVER U=0"]
    assert script.last.ports == PORTS


@ways({k: w for k, w in WITHOUT_LEASE.items() if k != "STOPPED"}, HOLDING)
def test_resume_disturbs_nothing(way: Way) -> None:
    script = way()
    before = script.client.state
    assert script.tell(script.client.resume) == []
    assert script.client.state is before
