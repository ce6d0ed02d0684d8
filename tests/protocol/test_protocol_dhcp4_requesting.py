"""REQUESTING: an offer is asked for, and becomes a lease or not (RFC 2131 3.1, 4.4.1; RFC 7618 6), as time scripts."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from timescript import (
    ADDRESS,
    OTHER_ADDRESS,
    OTHER_PORTS,
    OTHER_SERVER,
    PORTS,
    SERVER,
    Script,
    Way,
    counted,
    rebinding,
    renewing,
    requesting,
    verifying,
)

from b4client.wire.dhcp4 import MessageType, Option


def test_requests_back_off_and_end_in_a_new_beginning() -> None:
    """RFC 2131 3.1 step 5 [S-3]: four retransmissions over 60 s; when the last is not answered either, INIT, and
    somebody is told."""
    script = Script(several=False).to_requesting()
    assert script.until(125) == [
        (4, "REQUEST U=0"),
        (12, "REQUEST U=0"),
        (28, "REQUEST U=0"),
        (60, "REQUEST U=0"),
        (124, "request-timeout"),
        (124, "DISCOVER U=0"),
    ]
    first, *others = (s for s in script.sent if s.kind == MessageType.REQUEST)
    assert {s.message for s in others} == {first.message}
    assert script.last.message.xid != first.message.xid


@pytest.mark.parametrize("seed", range(10))
def test_requests_are_within_the_bounds_of_s2(seed: int) -> None:
    script = Script(random.Random(seed), several=False).to_requesting()
    script.until(200)
    sent = [s.at for s in script.sent[1:7]]
    gaps = [after - before for before, after in itertools.pairwise(sent)]
    assert [s.kind.name for s in script.sent[1:7]] == ["REQUEST"] * 5 + ["DISCOVER"]
    for gap, nominal in zip(gaps, (4, 8, 16, 32, 64), strict=True):
        assert nominal - 1 <= gap <= nominal + 1


def test_failures_in_a_row_wait_longer_each_time() -> None:
    """A server that refuses everything is not asked in a tight loop; the first new beginning is at once."""
    script = Script(several=False).to_requesting()
    waits = []
    for _ in range(8):
        at = script.now
        script.nak()
        if script.state == "INIT":
            due = script.client.deadline()
            assert due is not None
            script.until(due)
        waits.append(script.now - at)
        assert script.offer() == ["REQUEST U=0"]
    assert waits == [0, 4, 8, 16, 32, 64, 64, 64]


def test_a_failure_says_why_and_when_it_is_tried_again() -> None:
    """RFC 2131 3.1 step 5: SHOULD notify the user."""
    script = Script(several=False).to_requesting()
    script.nak()
    script.offer()
    script.until(200)
    assert [(note.kind, note.level, note.text) for note in script.noted] == [
        ("nak", "warning", "the server refused (NAK); starting anew"),
        ("request-timeout", "warning", f"no answer to the REQUEST for {ADDRESS}; starting anew in 4 s"),
    ]


def test_a_lease_ends_the_row_of_failures() -> None:
    script = Script(several=False).to_requesting()
    for _ in range(3):
        script.nak()
        script.until(script.client.deadline() or 0.0 if script.state == "INIT" else script.now)
        script.offer()
    assert script.ack() == ["gained"]
    script.until(script.lease.t1_at)
    assert script.nak() == ["lost for good", "nak", "DISCOVER U=0"]


def test_an_ack_is_a_lease() -> None:
    """RFC 2131 4.4.1: BOUND, with the ACK's parameters."""
    script = Script(several=False).to_requesting()
    script.until(1.5)
    assert script.ack() == ["gained"]
    assert script.state == "BOUND"
    assert (script.lease.address, script.lease.ports, script.lease.server_id) == (ADDRESS, PORTS, SERVER)
    assert counted(script) == {}
    assert script.counters["received-ack"] == 1


def test_nothing_is_probed() -> None:
    """RFC 7618 6 step 5 [S-15]: after the ACK no DECLINE and no further message before T1."""
    script = Script(several=False).to_bound()
    assert script.until(1799) == []


def test_a_lease_counts_from_the_first_request() -> None:
    """RFC 2131 4.4.1 [S-6]: three REQUESTs with one xid left (0, 4, 12 s); which one the server answered nobody knows,
    so the lease is not believed to be longer than from the first."""
    script = Script(several=False).to_requesting()
    script.until(13.0)
    assert script.ack() == ["gained"]
    assert (script.lease.requested_at, script.lease.t1_at, script.lease.t2_at) == (0, 1800, 3150)
    assert script.lease.expires_at == 3600


def test_an_ack_with_another_psid() -> None:
    """RFC 7618 7 [S-14]: the ACK's explicit PSID MUST be used, whatever the OFFER said."""
    script = Script(several=False).to_requesting()
    assert script.ack(ports=OTHER_PORTS) == ["gained"]
    assert script.lease.ports == OTHER_PORTS
    script.until(1800)
    assert script.last.ports == OTHER_PORTS


def test_a_whole_address_although_a_shared_one_was_possible() -> None:
    """RFC 7618 7 [S-13]: neither OFFER nor ACK has 159."""
    script = Script(several=False).to_requesting(ports=None)
    assert script.ack(ports=None) == ["gained"]
    assert script.lease.ports is None


REFUSED_ACKS: dict[str, tuple[dict[str, Any], str]] = {
    "159 missing": ({"ports": None}, "drop-ack-without-portparams"),
    "159 malformed": ({"ports": bytes(3)}, "drop-offer-portparams"),
    "51 missing": ({"lease": None}, "drop-ack-lease-time"),
    "no lease at all": ({"lease": 0}, "drop-ack-lease-time"),
    "no host's address": ({"address": SERVER.__class__("224.0.0.1")}, "drop-offer-address"),
    "54 missing": ({"server": None}, "drop-offer-without-server-id"),
}


@pytest.mark.parametrize(("changes", "counter"), REFUSED_ACKS.values(), ids=REFUSED_ACKS)
def test_a_refused_ack_is_a_new_beginning(changes: dict[str, Any], counter: str) -> None:
    """P-3, S-6, RFC 7618 6 step 4: nothing is gained; INIT, the second time with back-off."""
    script = Script(several=False).to_requesting()
    assert script.ack(**changes) == ["refused", "DISCOVER U=0"]
    script.offer()
    at = script.now
    assert script.ack(**changes) == ["refused"]
    assert script.until(at + 10)[0] == (at + 4, "DISCOVER U=0")
    assert counted(script) == {counter: 2}
    assert script.gained == []


@pytest.mark.parametrize("at", [3600.0, 4000.0])
def test_an_ack_that_came_too_late_to_be_one(at: float) -> None:
    """S-6: counted from the REQUEST the lease has ended before its ACK came (a machine that was suspended)."""
    script = Script(several=False).to_requesting()
    script.jump(at)
    assert script.ack() == ["refused", "DISCOVER U=0"]
    assert script.gained == []
    assert script.client.lease is None


def test_an_ack_of_another_server_is_dropped() -> None:
    """The REQUEST named one server (RFC 2131 4.3.2): no other can grant it."""
    script = Script(several=False).to_requesting()
    assert script.ack(server=OTHER_SERVER) == []
    assert counted(script) == {"drop-response-other-server": 1}
    assert script.ack() == ["gained"]


def test_an_offer_in_requesting_is_dropped() -> None:
    """RFC 2131 figure 5 [Q-8]."""
    script = Script(several=False).to_requesting()
    assert script.offer(server=OTHER_SERVER) == []
    assert counted(script) == {"drop-response-wrong-state": 1}


def test_a_nak_of_the_asked_server() -> None:
    """RFC 2131 figure 5 [S-10]: INIT, and DISCOVER at once; nothing was held, so nothing is lost."""
    script = Script(several=False).to_requesting()
    assert script.nak() == ["nak", "DISCOVER U=0"]
    assert Option.REQUESTED_ADDRESS not in script.last.options()
    assert script.counters["received-nak"] == 1


def test_a_nak_of_another_server_is_dropped() -> None:
    script = Script(several=False).to_requesting()
    assert script.nak(server=OTHER_SERVER) == []
    assert counted(script) == {"drop-response-other-server": 1}
    assert script.state == "REQUESTING"


@pytest.mark.parametrize("server", [None, b"", b"\xc0\0\0", b"\xc0\0\0\1\1"], ids=["absent", "empty", "short", "long"])
@pytest.mark.parametrize("way", [requesting, verifying, renewing, rebinding])
def test_a_nak_that_does_not_say_whose_it_is(way: Way, server: bytes | None) -> None:
    """RFC 2131 table 3: the server identifier is a MUST in a NAK [S-10]. Anybody's would end a lease otherwise; also
    while rebinding, when any server may answer."""
    script = way()
    before = script.client.state
    assert script.nak(server=server) == ["refused"]
    assert counted(script) == {"drop-nak-without-server-id": 1}
    assert script.client.state == before
    assert script.nak()[-1] == "DISCOVER U=0"


FORBIDDEN = (
    *((kind, code) for kind in (MessageType.OFFER, MessageType.ACK, MessageType.NAK) for code in (50, 55, 57)),
    *((MessageType.NAK, code) for code in (51, 58, 59, 159)),
)


@pytest.mark.parametrize(("kind", "code"), FORBIDDEN)
def test_options_that_a_server_must_not_send_change_nothing(kind: MessageType, code: int) -> None:
    """RFC 2131 table 3 forbids servers to send them; no rule makes a client discard the message."""
    results = []
    for options in ((), ((code, OTHER_ADDRESS.packed),)):
        script = Script(several=False)
        script = script.to_selecting() if kind == MessageType.OFFER else script.to_requesting()
        said = script.answer(kind, options=options)
        results.append((said, script.client.state.name, script.client.lease, script.last.options()))
        assert counted(script) == ({"warned-options-forbidden": 1} if options else {})
    assert results[0] == results[1]


@pytest.mark.parametrize("code", [Option.MESSAGE, Option.VENDOR_CLASS])
def test_options_that_a_nak_may_hold(code: int) -> None:
    """RFC 2131 table 3; 53, 54 and 61 are in every one of these tests."""
    script = requesting()
    assert script.nak(options=((code, b"no"),)) == ["nak", "DISCOVER U=0"]
    assert counted(script) == {}


def test_a_request_overtaken_by_time_is_repeated_once() -> None:
    """A suspended machine does not catch up on retransmissions."""
    script = Script(several=False).to_requesting()
    assert script.jump(1000.0) == ["REQUEST U=0"]
    assert script.client.deadline() == 1008.0
