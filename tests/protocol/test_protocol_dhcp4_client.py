"""Looking for a lease: INIT, SELECTING, and whose message it is (RFC 2131 4.4.1; RFC 7618 5, 7), as time scripts."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
from timescript import (
    ADDRESS,
    CLIENT_ID,
    OTHER_ADDRESS,
    OTHER_PORTS,
    OTHER_SERVER,
    PORTS,
    SERVER,
    Highest,
    Lowest,
    Script,
    counted,
    lease_at,
    reply,
)

from b4client.model.portset import PortSet
from b4client.model.settings import ProtocolSettings
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp4_client import MAX_OFFERS, Dhcp4Client
from b4client.protocol.dhcp4_messages import Identity
from b4client.wire.dhcp4 import BOOTREQUEST, MessageType, Option

# ---- INIT


@pytest.mark.parametrize(("rng", "at"), [(Lowest(), 1.0), (Highest(), 10.0), (None, 5.5)])
def test_the_first_discover_waits(rng: random.Random | None, at: float) -> None:
    """RFC 2131 4.4.1 [S-1]: a random 1 to 10 s."""
    script = Script(rng, start_delay=True)
    assert script.tell(script.client.start) == []
    assert script.state == "INIT"
    assert script.until(at) == [(at, "DISCOVER U=0")]


def test_the_wait_can_be_left_out() -> None:
    assert Script(start_delay=False).to_selecting().now == 0.0


def test_nothing_happens_before_start() -> None:
    """RFC 7341 9 [F-1]: no DHCP 4o6 before the agent says so."""
    script = Script()
    assert script.until(1e6) == []
    assert script.client.deadline() is None
    assert script.client.lease is None


# ---- SELECTING


def test_discovers_back_off_and_never_end() -> None:
    """RFC 2131 4.1 [S-2]: after 4, 8, 16, 32, 64, 64 ... s; without jitter here."""
    script = Script().to_selecting()
    script.until(400)
    assert [s.at for s in script.sent] == [0, 4, 12, 28, 60, 124, 188, 252, 316, 380]
    assert {s.kind for s in script.sent} == {MessageType.DISCOVER}
    script.until(86400 * 30)
    assert script.sent[-1].at - script.sent[-2].at == 64


@pytest.mark.parametrize("seed", range(20))
def test_the_backoff_is_within_the_bounds_of_s2(seed: int) -> None:
    script = Script(random.Random(seed)).to_selecting()
    script.until(600)
    gaps = [after.at - before.at for before, after in itertools.pairwise(script.sent)]
    bounds = [(3, 5), (7, 9), (15, 17), (31, 33)] + [(63, 65)] * 20
    assert len(gaps) >= 8
    assert all(low <= gap <= high for gap, (low, high) in zip(gaps, bounds, strict=False))


def test_one_exchange_keeps_its_xid() -> None:
    """RFC 2131 4.1 leaves it free; kept, so that the answer to any of the DISCOVERs is welcome."""
    script = Script().to_selecting()
    script.until(100)
    assert len({s.message.xid for s in script.sent}) == 1


def test_a_shared_offer_waits_for_a_better_one() -> None:
    """RFC 7618 5 [S-12], RFC 2131 4.4.1: offers are collected for the window (1 s), then one is requested."""
    script = Script().to_selecting()
    script.until(2.0)
    assert script.offer() == []
    assert script.until(2.99) == []
    assert script.until(3.0) == [(3.0, "REQUEST U=0")]
    assert (script.last.options()[Option.REQUESTED_ADDRESS], script.last.ports) == (ADDRESS.packed, PORTS)
    assert script.last.options()[Option.SERVER_ID] == SERVER.packed


def test_the_window_opens_with_the_first_offer() -> None:
    script = Script(offer_window_s=3.0).to_selecting()
    script.until(1.0)
    script.offer()
    script.until(3.5)
    script.offer(server=OTHER_SERVER, ports=OTHER_PORTS)
    assert script.until(10)[0] == (4.0, "REQUEST U=0")


def test_a_retransmission_within_the_window_forgets_no_offer() -> None:
    script = Script(offer_window_s=3.0).to_selecting()
    script.until(3.0)
    script.offer()
    assert script.until(7) == [(4.0, "DISCOVER U=0"), (6.0, "REQUEST U=0")]
    assert script.last.ports == PORTS


def test_as_long_as_nobody_knows_how_many_servers_there_are_offers_are_collected() -> None:
    client = Dhcp4Client(Identity(CLIENT_ID, b""), ProtocolSettings(), rng=random.Random(1), counters=Counters())
    assert client.several_servers


def test_with_one_server_the_first_offer_is_taken_at_once() -> None:
    """Nobody else can answer: waiting would only cost time."""
    script = Script(several=False).to_selecting()
    assert script.offer() == ["REQUEST U=0"]


def test_an_unshared_offer_is_taken_at_once() -> None:
    """S-12: nothing better can come."""
    script = Script().to_selecting()
    assert script.offer(ports=None) == ["REQUEST U=0"]
    assert script.last.ports is None


def test_unshared_goes_before_shared() -> None:
    """RFC 7618 5 [S-12] SHOULD, also when the shared offer came first."""
    script = Script().to_selecting()
    script.offer()
    script.until(0.5)
    assert script.offer(ports=None, server=OTHER_SERVER, address=OTHER_ADDRESS) == ["REQUEST U=0"]
    assert script.last.options()[Option.REQUESTED_ADDRESS] == OTHER_ADDRESS.packed
    assert script.last.options()[Option.SERVER_ID] == OTHER_SERVER.packed
    assert script.last.ports is None


def test_shared_goes_before_unshared_when_it_is_preferred() -> None:
    """S-12: "unless configured otherwise"."""
    script = Script(prefer_shared=True).to_selecting()
    assert script.offer(ports=None, server=OTHER_SERVER) == []
    script.until(0.5)
    assert script.offer() == ["REQUEST U=0"]
    assert script.last.ports == PORTS


def test_an_unshared_offer_is_better_than_none_when_shared_is_preferred() -> None:
    script = Script(prefer_shared=True).to_selecting()
    script.offer(ports=None)
    assert script.until(2) == [(1.0, "REQUEST U=0")]
    assert script.last.ports is None


def test_among_shared_offers_the_larger_set_is_taken() -> None:
    """RFC 7618 6 step 3: "such as the size of the offered port set"."""
    script = Script().to_selecting()
    large = PortSet(0, 4, 3)
    script.offer(ports=PortSet(6, 8, 1))
    script.offer(ports=large, server=OTHER_SERVER)
    script.offer(ports=PortSet(0, 10, 1))
    script.until(1)
    assert script.last.ports == large


def test_the_first_of_equal_offers_is_taken() -> None:
    script = Script().to_selecting()
    script.offer(ports=PORTS)
    script.offer(ports=OTHER_PORTS, server=OTHER_SERVER)
    script.until(1)
    assert script.last.ports == PORTS


def test_the_same_offer_twice_is_one() -> None:
    """RFC 7341 9 [F-4]: a request goes to every server address, so one server may answer more than once."""
    script = Script().to_selecting()
    script.offer()
    script.offer()
    assert script.counters["received-offer"] == 1


def test_offers_are_bounded() -> None:
    """A flood of offers cannot fill the memory; what came first is kept."""
    script = Script().to_selecting()
    for n in range(MAX_OFFERS + 5):
        script.offer(ports=PortSet(0, 8, n))
    assert counted(script) == {"drop-offer-surplus": 5}
    assert script.until(1) == [(1.0, "REQUEST U=0")]
    assert script.last.ports == PortSet(0, 8, 0)


def test_a_refused_offer_leaves_the_exchange_as_it_is() -> None:
    """P-3: an OFFER with a bad 159 is discarded; a good one is still taken."""
    script = Script(several=False).to_selecting()
    before = script.client.state
    assert script.offer(ports=b"\x06\x08") == ["refused"]
    assert script.client.state is before
    assert script.offer() == ["REQUEST U=0"]


# ---- whose message it is

FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "op": ({"op": BOOTREQUEST}, "drop-response-not-a-reply"),
    "client-id": ({"client_id": CLIENT_ID + b"\0"}, "drop-response-foreign-client-id"),
    "empty client-id": ({"client_id": b""}, "drop-response-foreign-client-id"),
}


@pytest.mark.parametrize(("changes", "counter"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_for_us_is_dropped(changes: dict[str, Any], counter: str) -> None:
    """Op 2 (RFC 2131 2), client identifier equal to ours if there is one (RFC 6842 3)."""
    script = Script(several=False).to_selecting()
    assert script.offer(**changes) == []
    assert counted(script) == {counter: 1}
    assert script.state == "SELECTING"


def test_another_xid_is_dropped() -> None:
    """RFC 2131 4.4.1."""
    script = Script(several=False).to_selecting()
    assert script.hear(reply(MessageType.OFFER, script.last.message.xid ^ 1)) == []
    assert counted(script) == {"drop-response-foreign-xid": 1}


def test_without_a_type_it_is_no_dhcp_message() -> None:
    script = Script(several=False).to_selecting()
    message = reply(MessageType.OFFER, script.last.message.xid)
    assert script.hear(replace(message, options=message.options[1:])) == []
    assert counted(script) == {"drop-response-not-a-reply": 1}


def test_a_server_that_does_not_echo_the_client_id_is_understood() -> None:
    """RFC 6842 3: "if present"; servers before 2013 leave it out."""
    assert Script(several=False).to_selecting().offer(client_id=None) == ["REQUEST U=0"]


@pytest.mark.parametrize("kind", [MessageType.ACK, MessageType.NAK, MessageType.DISCOVER, 13])
def test_selecting_waits_for_offers_only(kind: int) -> None:
    """RFC 2131 4.4.1: any arriving DHCPACK is silently discarded."""
    script = Script(several=False).to_selecting()
    assert script.answer(kind) == []  # type: ignore[arg-type]
    assert counted(script) == {"drop-response-wrong-state": 1}
    assert script.state == "SELECTING"


@pytest.mark.parametrize("kind", [MessageType.OFFER, MessageType.ACK, MessageType.NAK])
def test_nothing_is_waited_for_in_bound(kind: MessageType) -> None:
    """RFC 2131 figure 5: OFFER, ACK, NAK in BOUND are discarded."""
    script = Script(several=False).to_bound()
    assert script.answer(kind, lease=1) == []
    assert counted(script) == {"drop-response-not-in-use": 1}
    assert script.lease.expires_at == 3600


# ---- hints [S-18]


def test_a_size_hint_goes_with_every_discover_until_there_is_a_pair() -> None:
    script = Script(several=False, psid_len_hint=4).to_selecting()
    script.until(4)
    assert {s.options()[Option.V4_PORTPARAMS].hex() for s in script.sent} == {"00040000"}
    script.offer()
    script.ack(lease=60, t1=None, t2=None)
    script.until(120)
    assert script.last.kind == MessageType.DISCOVER
    assert (script.last.options()[Option.REQUESTED_ADDRESS], script.last.ports) == (ADDRESS.packed, PORTS)


def test_the_previous_pair_given_at_the_start() -> None:
    """RFC 7618 7: from another 4o6 source INIT-REBOOT is not allowed, a hint is."""
    script = Script()
    script.tell(script.client.start, previous=lease_at(ports=OTHER_PORTS))
    assert script.last.ports == OTHER_PORTS


def test_the_previous_pair_given_by_hint() -> None:
    script = Script()
    script.client.hint(lease_at(ports=OTHER_PORTS))
    assert script.to_selecting().last.ports == OTHER_PORTS
