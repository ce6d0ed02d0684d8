"""INIT-REBOOT: a stored lease is asked for again (RFC 2131 3.2, 4.4.2; RFC 7618 6 [S-4]), as time scripts."""

from __future__ import annotations

import math
from dataclasses import replace

from timescript import ADDRESS, OTHER_PORTS, OTHER_SERVER, PORTS, Highest, Script, counted, lease_at, reply

from b4client.wire.dhcp4 import MessageType, Option


def rebooting(*, usable: bool = True, lease_s: float = 3600.0, now: float = 0.0, several: bool = True) -> Script:
    script = Script(several=several)
    script.now = now
    assert script.tell(script.client.reboot, lease_at(seconds=lease_s), in_use=False, usable=usable) == ["REQUEST U=0"]
    return script


def test_reboot_asks_for_the_stored_pair() -> None:
    """RFC 7618 6: 50 and 159 as stored; nothing may be used before the answer."""
    script = rebooting()
    assert (script.last.options()[Option.REQUESTED_ADDRESS], script.last.ports) == (ADDRESS.packed, PORTS)
    assert script.state == "INIT-REBOOT"
    assert script.client.lease is None


def test_reboot_waits_at_first() -> None:
    """S-1: a power cut brings all customers back at one moment."""
    script = Script(Highest(), start_delay=True)
    assert script.tell(script.client.reboot, lease_at(), in_use=False, usable=True) == []
    assert script.hear(reply(MessageType.ACK, 0)) == []
    assert counted(script) == {"drop-response-not-in-use": 1}
    assert script.until(10) == [(10, "REQUEST U=0")]


def test_reboot_confirmed() -> None:
    """RFC 2131 4.4.2: any server may confirm; the lease counts from this REQUEST."""
    script = rebooting(now=1000.0)
    script.until(1001.0)
    assert script.ack(server=OTHER_SERVER, lease=7200, t1=None, t2=None) == ["gained"]
    lease = script.lease
    assert (lease.requested_at, lease.t1_at, lease.expires_at) == (1000, 4600, 8200)
    assert lease.server_id == OTHER_SERVER


def test_reboot_counts_from_its_first_request() -> None:
    """S-6, as in REQUESTING: one xid."""
    script = rebooting()
    script.until(20)
    assert [s.at for s in script.sent] == [0, 4, 12]
    assert len({s.message.xid for s in script.sent}) == 1
    script.ack()
    assert script.lease.requested_at == 0


def test_reboot_unanswered_with_a_usable_lease() -> None:
    """RFC 2131 3.2 step 4: MAY use the lease for the rest of its time: BOUND, then T1 as always."""
    script = rebooting()
    assert script.until(1800) == [
        (4, "REQUEST U=0"),
        (12, "REQUEST U=0"),
        (28, "reboot-unconfirmed"),
        (28, "gained"),
        (1800, "REQUEST U=1"),
    ]
    assert script.gained == [lease_at()]


def test_reboot_unanswered_after_t1() -> None:
    """What is overdue is done at once."""
    script = rebooting(now=2000.0)
    assert script.until(2028)[-3:] == [(2028, "reboot-unconfirmed"), (2028, "gained"), (2028, "REQUEST U=1")]
    assert script.state == "RENEWING"


def test_reboot_unanswered_with_a_lease_of_unknown_age() -> None:
    """The clock cannot say whether the lease still runs: not used; DISCOVER, which asks for the same pair."""
    script = rebooting(usable=False)
    assert script.until(28)[-3:] == [(28, "lost"), (28, "reboot-timeout"), (28, "DISCOVER U=0")]
    assert script.last.ports == PORTS
    assert script.gained == []
    assert script.client.lease is None


def test_reboot_of_an_unshared_lease_of_unknown_age_that_is_confirmed() -> None:
    script = Script()
    lease = lease_at(ports=None)
    script.tell(script.client.reboot, lease, in_use=False, usable=False)
    assert script.ack(ports=None) == ["gained"]
    assert script.lease.ports is None


def test_the_lease_ends_while_it_is_asked_for() -> None:
    """S-9, RFC 2131 4.4.5: at 10 s."""
    script = rebooting(lease_s=10.0)
    assert script.until(10) == [(4, "REQUEST U=0"), (10, "lost"), (10, "DISCOVER U=0")]
    assert script.last.ports == PORTS
    assert not script.lost[0].forget


def test_a_lease_that_has_ended_is_not_asked_for() -> None:
    script = Script()
    script.now = 4000.0
    assert script.tell(script.client.reboot, lease_at(), in_use=False, usable=True) == ["lost", "DISCOVER U=0"]


def test_reboot_refused() -> None:
    """RFC 2131 3.2 step 5, figure 5 [S-4, S-10]: INIT; the pair is not asked for again."""
    script = rebooting()
    assert script.nak(server=OTHER_SERVER) == ["lost for good", "nak", "DISCOVER U=0"]
    assert Option.REQUESTED_ADDRESS not in script.last.options()
    assert Option.V4_PORTPARAMS not in script.last.options()


def test_reboot_with_another_psid_in_the_ack() -> None:
    """S-14."""
    script = rebooting()
    assert script.ack(ports=OTHER_PORTS) == ["gained"]
    assert script.lease.ports == OTHER_PORTS


def test_reboot_with_an_ack_that_misses_159() -> None:
    """RFC 7618 6 step 4: refused, and asked again; the stored lease is still good when nothing better comes."""
    script = rebooting()
    assert script.ack(ports=None) == ["refused"]
    assert counted(script) == {"drop-ack-without-portparams": 1}
    assert [word for _, word in script.until(28)] == ["REQUEST U=0", "REQUEST U=0", "reboot-unconfirmed", "gained"]


def test_an_offer_in_reboot_is_dropped() -> None:
    """RFC 2131 figure 5 [Q-8]."""
    script = rebooting()
    assert script.offer() == []
    assert counted(script) == {"drop-response-wrong-state": 1}


def test_an_infinite_lease_can_be_rebooted() -> None:
    script = Script()
    infinite = replace(lease_at(), t1_at=math.inf, t2_at=math.inf, expires_at=math.inf)
    script.tell(script.client.reboot, infinite, in_use=False, usable=True)
    script.until(1e9)
    assert script.gained == [infinite]
    assert script.client.deadline() is None
    assert len(script.sent) == 3
