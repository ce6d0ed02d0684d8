"""What operator and agent ask for: renew, rebind, restart, verify, nudge; as time scripts."""

from __future__ import annotations

import math

import pytest
from timescript import (
    ADDRESS,
    HOLDING,
    OTHER_PORTS,
    OTHER_SERVER,
    PORTS,
    WITHOUT_LEASE,
    Highest,
    Script,
    Way,
    bound,
    coasting,
    counted,
    lease_at,
    rebinding,
    rebooting,
    renewing,
    reply,
    requesting,
    stopped,
    verifying,
    waiting,
    ways,
)

from b4client.wire.dhcp4 import MessageType, Option


def test_the_ways_lead_where_they_say() -> None:
    for name, way in {**WITHOUT_LEASE, **HOLDING, "INIT-REBOOT": rebooting, "COASTING": coasting}.items():
        assert way().state == name
        assert (way().client.lease is not None) == (way not in (*WITHOUT_LEASE.values(), rebooting))


# ---- renew and rebind by an operator (RFC 2131 4.4.5: "MAY choose to renew prior to T1")


def test_renew_before_t1() -> None:
    """U = 1, and the times of RENEWING from here: half of what remains to T2 (100 s, 1625 s, 2387.5 s ...)."""
    script = bound()
    script.now = 100.0
    assert script.tell(script.client.renew) == ["REQUEST U=1"]
    assert [at for at, _ in script.until(3149)] == [1625, 2387.5, 2768.75, 2959.375, 3054.6875, 3114.6875]
    assert script.until(3150) == [(3150, "REQUEST U=0")]


def test_renewed_before_t1() -> None:
    script = bound()
    script.now = 100.0
    script.tell(script.client.renew)
    assert script.ack() == ["gained"]
    assert (script.lease.requested_at, script.lease.t1_at) == (100, 1900)


def test_renew_again_in_renewing() -> None:
    """At once, with a new xid; the older REQUEST's answer does not count any more."""
    script = renewing()
    old = script.last.message.xid
    script.now = 1900.0
    assert script.tell(script.client.renew) == ["REQUEST U=1"]
    assert script.last.message.xid != old
    assert script.client.deadline() == 2525


def test_rebind_before_t2() -> None:
    """U = 0; it stays REBINDING until it is answered: half of what remains to the end, then the end."""
    script = bound()
    script.now = 100.0
    assert script.tell(script.client.rebind) == ["REQUEST U=0"]
    said = script.until(3600)
    assert [at for at, _ in said[:4]] == [1850, 2725, 3162.5, 3381.25]
    assert {word for _, word in said[:-2]} == {"REQUEST U=0"}
    assert said[-2:] == [(3600, "lost"), (3600, "DISCOVER U=0")]


@pytest.mark.parametrize("way", [renewing, rebinding], ids=["RENEWING", "REBINDING"])
def test_rebind_at_once(way: Way) -> None:
    script = way()
    old = script.last.message.xid
    script.now += 10
    assert script.tell(script.client.rebind) == ["REQUEST U=0"]
    assert script.last.message.xid != old
    assert script.ack(server=OTHER_SERVER) == ["gained"]


@ways(WITHOUT_LEASE, {"INIT-REBOOT": rebooting, "verifying": verifying, "COASTING": coasting})
@pytest.mark.parametrize("command", ["renew", "rebind"])
def test_nothing_to_renew(way: Way, command: str) -> None:
    """Without a lease there is nothing to extend; while coasting it MUST NOT be (RFC 7341 9 [F-2])."""
    script = way()
    before = script.client.state
    assert script.tell(getattr(script.client, command)) == []
    assert script.client.state is before


def test_renew_in_rebinding_does_not_go_back() -> None:
    script = rebinding()
    assert script.tell(script.client.renew) == []
    assert script.state == "REBINDING"


@pytest.mark.parametrize("command", ["renew", "rebind"])
@pytest.mark.parametrize("way", [bound, renewing])
def test_a_command_after_the_end_of_the_lease(way: Way, command: str) -> None:
    """S-9: the timer is late (the machine slept); an ended lease is not extended."""
    script = way()
    script.now = 3600.0
    assert script.tell(getattr(script.client, command)) == ["lost", "DISCOVER U=0"]


@pytest.mark.parametrize("at", [3150.0, 3200.0])
def test_renew_after_t2(at: float) -> None:
    script = bound()
    script.now = at
    assert script.tell(script.client.renew) == ["REQUEST U=0"]
    assert script.state == "REBINDING"


@pytest.mark.parametrize(("command", "unicast"), [("renew", True), ("rebind", False)])
def test_an_infinite_lease_is_renewed_on_demand(command: str, unicast: bool) -> None:
    """Half of an infinite time is infinite: what is lost is asked again after as long as it has been tried already."""
    script = Script(several=False).to_bound(lease=0xFFFFFFFF, t1=None, t2=None)
    script.now = 100.0
    request = f"REQUEST U={int(unicast)}"
    assert script.tell(getattr(script.client, command)) == [request]
    assert script.until(1000.0) == [(at, request) for at in (160.0, 220.0, 340.0, 580.0)]
    assert script.lease.expires_at == math.inf
    assert script.ack(lease=0xFFFFFFFF) == ["gained"]
    assert script.state == "BOUND"


# ---- restart: the 4o6 source address has changed (RFC 7618 6, 7 [F-10])


@ways(HOLDING, {"COASTING": coasting})
def test_restart_with_a_lease(way: Way) -> None:
    """MUST re-initiate with DISCOVER: the lease is lost first, then its pair is asked for as a hint."""
    script = way()
    assert script.tell(script.client.restart, "the 4o6 source address changed") == ["lost", "DISCOVER U=0"]
    assert not script.lost[-1].forget
    assert (script.client.lease, script.last.ports) == (None, PORTS)


def test_restart_of_a_reboot() -> None:
    script = rebooting()
    assert script.tell(script.client.restart, "the 4o6 source address changed") == ["lost", "DISCOVER U=0"]
    assert script.last.ports == PORTS


@ways(WITHOUT_LEASE)
def test_restart_without_a_lease(way: Way) -> None:
    script = way()
    assert script.tell(script.client.restart, "the 4o6 source address changed") == ["DISCOVER U=0"]


def test_restart_ends_the_row_of_failures() -> None:
    script = waiting()
    script.tell(script.client.restart, "operator")
    script.offer()
    assert script.nak() == ["nak", "DISCOVER U=0"]


def test_the_answers_of_before_the_restart_are_foreign() -> None:
    script = requesting()
    old = script.last.message.xid
    script.tell(script.client.restart, "the 4o6 source address changed")
    assert script.hear(reply(MessageType.ACK, old)) == []
    assert counted(script) == {"drop-response-foreign-xid": 1}


# ---- start while something is held


@ways(HOLDING, {"COASTING": coasting})
def test_start_gives_up_what_is_held(way: Way) -> None:
    """Whoever starts anew is told what ends with it."""
    script = way()
    assert script.tell(script.client.start) == ["lost", "DISCOVER U=0"]


# ---- verify: the link may be another one (RFC 2131 3.7)


@ways({k: w for k, w in HOLDING.items() if k != "INIT-REBOOT"})
def test_verify_asks_again_while_the_traffic_goes_on(way: Way) -> None:
    script = way()
    held = script.lease
    assert script.tell(script.client.verify) == ["REQUEST U=0"]
    assert script.state == "INIT-REBOOT"
    assert script.lease == held
    assert script.last.options()[Option.REQUESTED_ADDRESS] == ADDRESS.packed
    assert Option.SERVER_ID not in script.last.options()
    assert script.last.message.ciaddr.packed == bytes(4)


def test_verify_does_not_wait() -> None:
    """The random wait of 1 to 10 s is for a power cut (S-1); a link that came back has traffic waiting."""
    script = Script(Highest(), several=False, start_delay=True)
    script.tell(script.client.start)
    script.until(10)
    script.offer()
    script.ack()
    assert script.tell(script.client.verify) == ["REQUEST U=0"]


def test_verified() -> None:
    script = verifying()
    assert script.ack() == ["gained"]
    assert script.lease.requested_at == 100


def test_verified_with_another_psid() -> None:
    script = verifying()
    assert script.ack(ports=OTHER_PORTS) == ["gained"]
    assert script.lease.ports == OTHER_PORTS


def test_verify_refused() -> None:
    """The link is another one: what was in use ends at once."""
    script = verifying()
    assert script.nak(server=OTHER_SERVER)[0] == "lost for good"
    assert script.client.lease is None


def test_verify_unanswered() -> None:
    """A server without a record of us MUST be silent (RFC 2131 4.3.2 [S-5]); the lease goes on as it was."""
    script = verifying()
    held = script.lease
    assert [word for _, word in script.until(130)] == ["REQUEST U=0", "REQUEST U=0", "reboot-unconfirmed", "gained"]
    assert (script.state, script.lease) == ("BOUND", held)


def test_verify_unanswered_after_t2() -> None:
    script = rebinding()
    script.tell(script.client.verify)
    assert script.until(3178)[-1] == (3178, "REQUEST U=0")
    assert script.state == "REBINDING"


def test_the_lease_ends_while_it_is_verified() -> None:
    script = bound()
    script.until(3595)
    script.tell(script.client.verify)
    assert script.until(3600)[-2:] == [(3600, "lost"), (3600, "DISCOVER U=0")]


def test_verify_again_begins_again() -> None:
    script = verifying()
    script.until(115)
    old = script.last.message.xid
    assert script.tell(script.client.verify) == ["REQUEST U=0"]
    assert script.last.message.xid != old
    assert [at for at, _ in script.until(143)] == [119, 127, 143, 143]


def test_verify_while_coasting_is_nothing() -> None:
    """F-2."""
    script = coasting()
    assert script.tell(script.client.verify) == []
    assert script.state == "COASTING"


# ---- nudge: what was tried could not be heard


@pytest.mark.parametrize("command", ["nudge", "verify"])
@ways({k: w for k, w in WITHOUT_LEASE.items() if k != "STOPPED"})
def test_nudge_tries_again_at_once(way: Way, command: str) -> None:
    script = way()
    before = len(script.sent)
    script.until(1.0)
    assert script.tell(getattr(script.client, command)) == ["DISCOVER U=0"]
    assert script.client.deadline() == 5.0
    assert script.last.message.xid not in {s.message.xid for s in script.sent[:before]}


@pytest.mark.parametrize("command", ["nudge", "verify"])
def test_nudge_in_reboot(command: str) -> None:
    """Tries that nobody could hear do not count: three more before the stored lease is used unconfirmed."""
    script = rebooting()
    script.until(20)
    assert script.tell(getattr(script.client, command)) == ["REQUEST U=0"]
    assert [word for _, word in script.until(48)] == ["REQUEST U=0", "REQUEST U=0", "reboot-unconfirmed", "gained"]


def test_nudge_keeps_what_is_known_of_the_stored_lease() -> None:
    script = Script()
    script.tell(script.client.reboot, lease_at(), in_use=False, usable=False)
    script.tell(script.client.nudge)
    assert "reboot-timeout" in [word for _, word in script.until(28)]
    assert script.gained == []


@pytest.mark.parametrize("way", [stopped, bound, renewing, rebinding, coasting])
def test_nudge_leaves_a_lease_in_peace(way: Way) -> None:
    script = way()
    before = script.client.state
    assert script.tell(script.client.nudge) == []
    assert script.client.state is before
