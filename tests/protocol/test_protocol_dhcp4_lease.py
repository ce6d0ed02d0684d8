"""Keeping a lease: BOUND, RENEWING, REBINDING, its end, and sleep (RFC 2131 4.4.5; RFC 7618 7), as time scripts."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from timescript import (
    ADDRESS,
    OTHER_ADDRESS,
    OTHER_PORTS,
    OTHER_SERVER,
    PORTS,
    PORTS_OCTETS,
    SERVER,
    Script,
    bound,
    counted,
    lease_at,
    reply,
)

from b4client.wire import dhcp4
from b4client.wire.dhcp4 import MessageType, Option

# ---- the times of [S-8]

RENEW_S = (1800, 2475, 2812.5, 2981.25, 3065.625, 3125.625)
REBIND_S = (3150, 3375, 3487.5, 3547.5)


def test_the_vector_of_s8() -> None:
    """Lease 3600, no fuzz, no answers (RFC 2131 4.4.5): each wait half of what remains, at least 60 s; the end at 3600,
    and nothing of the lease is used from then on [S-9]."""
    script = bound()
    assert script.until(3600) == [
        *((at, "REQUEST U=1") for at in RENEW_S),
        *((at, "REQUEST U=0") for at in REBIND_S),
        (3600, "lost"),
        (3600, "DISCOVER U=0"),
    ]
    assert script.client.lease is None


def test_the_vector_of_s8_in_states() -> None:
    script = bound()
    states = []
    for at in (1799.9, 1800, 3149.9, 3150, 3599.9, 3600):
        script.until(at)
        states.append(script.state)
    assert states == ["BOUND", "RENEWING", "RENEWING", "REBINDING", "REBINDING", "SELECTING"]


def test_every_message_of_the_vector() -> None:
    """Table T: RENEW with U = 1, REBIND with U = 0, both with ciaddr and 159, without 50 and 54."""
    script = bound()
    script.until(3599)
    extending = script.sent[2:]
    assert len(extending) == len(RENEW_S) + len(REBIND_S)
    for sent in extending:
        options = sent.options()
        assert sent.unicast == (sent.at < 3150)
        assert sent.message.ciaddr == ADDRESS
        assert options[Option.V4_PORTPARAMS] == PORTS_OCTETS
        assert 159 in options[Option.PARAMETER_LIST]
        assert not {Option.REQUESTED_ADDRESS, Option.SERVER_ID} & options.keys()


def test_every_renewal_has_its_own_xid() -> None:
    """Each REQUEST has its own time to count the lease from, so an answer must tell which one it answers."""
    script = bound()
    script.until(3599)
    assert len({s.message.xid for s in script.sent[2:]}) == len(script.sent[2:])


def test_default_times_without_58_and_59() -> None:
    """RFC 2131 4.4.5: 0.5 and 0.875 of the lease; here without fuzz."""
    script = Script(several=False).to_bound(lease=1000, t1=None, t2=None)
    assert script.until(999) == [
        *((at, "REQUEST U=1") for at in (500, 687.5, 781.25, 841.25)),
        *((at, "REQUEST U=0") for at in (875, 937.5, 997.5)),
    ]


@pytest.mark.parametrize("seed", range(10))
def test_default_times_are_fuzzed(seed: int) -> None:
    """RFC 2131 4.4.5 SHOULD [S-7]."""
    script = Script(random.Random(seed), several=False).to_bound(lease=1000, t1=None, t2=None)
    assert abs(script.lease.t1_at - 500) <= 20
    assert abs(script.lease.t2_at - 875) <= 20
    assert script.lease.t1_at != 500


def test_an_infinite_lease_is_never_renewed() -> None:
    """RFC 2131 3.3 [S-6]."""
    script = Script(several=False).to_bound(lease=0xFFFFFFFF, t1=None, t2=None)
    assert script.client.deadline() is None
    assert script.until(1e10) == []


def test_a_lease_too_short_to_be_renewed() -> None:
    """60 s between two REQUESTs (RFC 2131 4.4.5) is the floor: one RENEW, one REBIND, the end."""
    script = Script(several=False).to_bound(lease=40, t1=None, t2=None)
    assert script.until(40) == [
        (20, "REQUEST U=1"),
        (35, "REQUEST U=0"),
        (40, "lost"),
        (40, "DISCOVER U=0"),
    ]


# ---- renewed


def test_renewed() -> None:
    """S-6: counted from the RENEW at 1800 s, although the ACK came a second later."""
    script = bound()
    script.until(1801)
    assert script.ack() == ["gained"]
    assert (script.lease.requested_at, script.lease.t1_at, script.lease.expires_at) == (1800, 3600, 5400)
    assert script.until(3600) == [(3600, "REQUEST U=1")]


def test_renewed_for_years() -> None:
    script = bound()
    for n in range(1, 1001):
        assert script.until(1800.0 * n) == [(1800 * n, "REQUEST U=1")]
        assert script.ack() == ["gained"]
    assert script.lease.expires_at == 1800 * 1000 + 3600


def test_only_the_newest_renewal_is_believed() -> None:
    """The answer to the RENEW of 1800 s comes when that of 2475 s is out: it would be counted from the wrong one."""
    script = bound()
    script.until(2476)
    first, second = script.sent[-2:]
    assert script.hear(reply(MessageType.ACK, first.message.xid)) == []
    assert counted(script) == {"drop-response-foreign-xid": 1}
    assert script.hear(reply(MessageType.ACK, second.message.xid)) == ["gained"]
    assert script.lease.requested_at == 2475


def test_rebound_by_another_server() -> None:
    """RFC 2131 4.4.5: any server may answer, and is asked from then on."""
    script = bound()
    script.until(3200)
    assert script.ack(server=OTHER_SERVER) == ["gained"]
    assert (script.lease.requested_at, script.lease.server_id) == (3150, OTHER_SERVER)
    script.until(script.lease.t1_at)
    assert script.nak(server=SERVER) == []
    assert script.nak(server=OTHER_SERVER)[0] == "lost for good"


@pytest.mark.parametrize("at", [1800, 3150])
def test_another_psid_in_a_renewal(at: float) -> None:
    """S-14: taken; the agent sees that the binding is another one [S-16] and flushes the NAPT."""
    script = bound()
    script.until(at)
    assert script.ack(ports=OTHER_PORTS) == ["gained"]
    assert script.lease.ports == OTHER_PORTS
    assert not script.gained[0].same_binding(script.gained[1])


def test_another_address_in_a_renewal() -> None:
    script = bound()
    script.until(1800)
    assert script.ack(address=OTHER_ADDRESS) == ["gained"]
    script.until(3600)
    assert script.last.message.ciaddr == OTHER_ADDRESS


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "159 missing": ({"ports": None}, "drop-ack-without-portparams"),
    "159 doubled": ({"ports": PORTS_OCTETS * 2}, "drop-offer-portparams"),
    "51 missing": ({"lease": None}, "drop-ack-lease-time"),
    "no address": ({"address": dhcp4.ZERO}, "drop-offer-address"),
    "54 missing": ({"server": None}, "drop-offer-without-server-id"),
}


@pytest.mark.parametrize("at", [1800, 3150])
@pytest.mark.parametrize(("changes", "counter"), REFUSED.values(), ids=REFUSED)
def test_a_refused_ack_leaves_the_lease_and_the_timers(at: float, changes: dict[str, Any], counter: str) -> None:
    """RFC 7618 6 step 4, S-6: the lease in hand is still ours, and is asked for again in its time."""
    script = bound()
    script.until(at)
    before = script.client.state
    assert script.ack(**changes) == ["refused"]
    assert script.client.state is before
    assert counted(script) == {counter: 1}
    assert script.until(3400)[-1] == (3375, "REQUEST U=0")


def test_an_offer_in_renewing_is_dropped() -> None:
    script = bound()
    script.until(1800)
    assert script.offer() == []
    assert counted(script) == {"drop-response-wrong-state": 1}


def test_a_renewed_lease_that_has_already_ended() -> None:
    """The lease is longer than what the server now grants, and the answer was long on its way: nothing to be had."""
    script = bound()
    script.until(1900)
    assert script.ack(lease=50, t1=None, t2=None) == ["refused"]
    assert counted(script) == {"drop-ack-lease-time": 1}
    assert script.lease.expires_at == 3600


def test_a_renewed_lease_that_is_overdue() -> None:
    """T1 of the new lease (60 s from 1800 s) has passed when the ACK comes: renewed at once."""
    script = bound()
    script.until(1870)
    assert script.ack(lease=120, t1=None, t2=None) == ["gained", "REQUEST U=1"]


# ---- refused [S-10]


@pytest.mark.parametrize("at", [1800, 3150])
def test_a_nak_ends_the_lease(at: float) -> None:
    """RFC 2131 figure 5: halt network, INIT. "Lost" comes before anything new; what was refused is no hint."""
    script = bound()
    script.until(at)
    assert script.nak() == ["lost for good", "nak", "DISCOVER U=0"]
    assert script.client.lease is None
    assert not {Option.REQUESTED_ADDRESS, Option.V4_PORTPARAMS} & script.last.options().keys()


def test_a_nak_of_another_server_in_renewing() -> None:
    """Only the server that granted the lease was asked."""
    script = bound()
    script.until(1800)
    assert script.nak(server=OTHER_SERVER) == []
    assert counted(script) == {"drop-response-other-server": 1}
    assert script.state == "RENEWING"


def test_a_nak_of_another_server_in_rebinding() -> None:
    """RFC 2131 figure 5: every server was asked, every server may refuse."""
    script = bound()
    script.until(3150)
    assert script.nak(server=OTHER_SERVER)[0] == "lost for good"


# ---- the end [S-9]


def test_the_end_of_a_lease() -> None:
    """RFC 2131 4.4.5: stop at once, then INIT; the same pair is asked for (RFC 7618 7)."""
    script = bound()
    script.until(3600)
    assert [word for at, word in script.said if at == 3600] == ["lost", "DISCOVER U=0"]
    assert not script.lost[0].forget
    options = script.last.options()
    assert (options[Option.REQUESTED_ADDRESS], options[Option.V4_PORTPARAMS]) == (ADDRESS.packed, PORTS_OCTETS)


def test_an_ack_after_the_end_is_too_late() -> None:
    script = bound()
    script.until(3590)
    rebind = script.last
    script.until(3600)
    assert script.hear(reply(MessageType.ACK, rebind.message.xid)) == []
    assert counted(script) == {"drop-response-foreign-xid": 1}
    assert script.client.lease is None


# ---- sleep: the boot clock goes on, timers do not


@pytest.mark.parametrize(
    ("woken_at", "words", "state"),
    [
        (1799, [], "BOUND"),
        (2000, ["REQUEST U=1"], "RENEWING"),
        (3149, ["REQUEST U=1"], "RENEWING"),
        (3150, ["REQUEST U=0"], "REBINDING"),
        (3590, ["REQUEST U=0"], "REBINDING"),
        (3600, ["lost", "DISCOVER U=0"], "SELECTING"),
        (1e7, ["lost", "DISCOVER U=0"], "SELECTING"),
    ],
)
def test_woken_late_from_bound_the_last_thing_counts(woken_at: float, words: list[str], state: str) -> None:
    """T1, T2 and the end may all have passed: nothing is caught up with, and an ended lease is not renewed."""
    script = bound()
    assert script.jump(woken_at) == words
    assert script.state == state
    due = script.client.deadline()
    assert due is not None
    assert due > woken_at


@pytest.mark.parametrize(
    ("woken_at", "words"),
    [
        (2474, []),
        (2500, ["REQUEST U=1"]),
        (3149, ["REQUEST U=1"]),
        (3150, ["REQUEST U=0"]),
        (3600, ["lost", "DISCOVER U=0"]),
    ],
)
def test_woken_late_from_renewing_the_last_thing_counts(woken_at: float, words: list[str]) -> None:
    script = bound()
    script.until(1800)
    assert script.jump(woken_at) == words


def test_woken_late_in_rebinding() -> None:
    script = bound()
    script.until(3150)
    assert script.jump(5000) == ["lost", "DISCOVER U=0"]


def test_woken_late_in_reboot() -> None:
    script = Script()
    script.tell(script.client.reboot, lease_at(), in_use=True, usable=True)
    assert script.jump(3600) == ["lost", "DISCOVER U=0"]


def test_woken_late_in_selecting() -> None:
    """One DISCOVER, not one for every wait that has passed."""
    script = Script().to_selecting()
    assert script.jump(1e6) == ["DISCOVER U=0"]
    assert script.client.deadline() == 1e6 + 8


def test_woken_early_is_harmless() -> None:
    script = bound()
    for at in (0.0, 1.0, 1799.999):
        assert script.jump(at) == []
    assert script.state == "BOUND"


def test_an_answer_that_waited_while_the_machine_slept() -> None:
    """The socket may be read before the timer fires: an ACK of 1800 s is read at 3700 s. The lease it grants still runs
    (to 5400 s), so there is nothing to stop for."""
    script = bound()
    script.until(1800)
    script.now = 3700.0
    assert script.ack() == ["gained", "REQUEST U=1"]
    assert script.lease.expires_at == 5400


def test_an_answer_that_waited_too_long() -> None:
    script = bound()
    script.until(1800)
    script.now = 6000.0
    assert script.ack() == ["refused"]
    assert script.jump(6000.0) == ["lost", "DISCOVER U=0"]


def test_the_whole_address_is_renewed_without_159() -> None:
    script = Script(several=False).to_bound(offer={"ports": None}, ports=None)
    script.until(1800)
    assert Option.V4_PORTPARAMS not in script.last.options()
    assert script.ack(ports=PORTS) == ["gained"]  # RFC 7618 7: what the ACK says counts
    assert script.lease.ports == PORTS


def test_a_lease_that_becomes_infinite() -> None:
    script = bound()
    script.until(1800)
    script.ack(lease=0xFFFFFFFF, t1=None, t2=None)
    assert script.lease.expires_at == math.inf
    assert script.client.deadline() is None
