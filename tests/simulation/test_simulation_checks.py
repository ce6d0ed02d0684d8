"""The simulation's own instruments: each invariant can fail, and the network does what it says."""

from __future__ import annotations

import math
import random
from ipaddress import IPv4Address, IPv6Address

import pytest
from simcheck import Belief, Ledger, Manners, Owners, Violation, check_deadline, dhcp4_wait_s, dhcp6_wait_s
from simnet import Clock, Network, Weather, damage, tellable

from b4client.lab.leaserecord import Lease, State
from b4client.lab.pools import Slot
from b4client.model.lease import Lease4
from b4client.model.portset import PortSet
from b4client.wire import dhcp4, dhcp4o6, dhcp6
from b4client.wire.dhcp4 import Dhcp4Message

A = IPv4Address("192.0.2.1")
SERVER_ID = IPv4Address("192.0.0.1")
HERE, THERE = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
ALICE, BOB = b"alice", b"bob"


def slot(psid: int, length: int = 2) -> Slot:
    return Slot(A, PortSet(0, length, psid))


def belief(psid: int, requested_at: float = 0.0, expires_at: float = 100.0, length: int = 2) -> Belief:
    where = slot(psid, length)
    lease = Lease4(A, where.ports, SERVER_ID, requested_at, requested_at + 1, requested_at + 2, expires_at)
    return Belief(where, lease)


def ledger(*grants: tuple[bytes, Slot, float, float, int]) -> Ledger:
    made = Ledger()
    for client, where, at, until, epoch in grants:
        made.write([Lease(where, client, State.BOUND, until)], epoch, at)
    return made


# ---- invariants 1 and 2


def test_two_owners_of_one_epoch() -> None:
    owners = Owners(ledger((ALICE, slot(1), 1.0, 101.0, 1), (BOB, slot(2, 3), 2.0, 102.0, 1)))
    owners.believe(ALICE, belief(1), 5.0)
    with pytest.raises(Violation, match="both believe"):
        owners.believe(BOB, belief(2, length=3), 6.0)


@pytest.mark.parametrize(
    ("psid", "epoch", "now", "allowed_overlaps"),
    [
        pytest.param(1, 2, 5.0, 1, id="granted twice by a server that forgot"),
        pytest.param(2, 1, 5.0, 0, id="other ports"),
        pytest.param(1, 1, 100.0, 0, id="the first one's lease has ended"),
    ],
)
def test_two_owners_that_are_none(psid: int, epoch: int, now: float, allowed_overlaps: int) -> None:
    owners = Owners(ledger((ALICE, slot(1), 1.0, 101.0, 1), (BOB, slot(psid), 2.0, 300.0, epoch)))
    owners.believe(ALICE, belief(1), 5.0)
    owners.believe(BOB, belief(psid, expires_at=200.0), now)
    assert owners.overlaps_by_amnesia == allowed_overlaps


def test_who_gave_up_owns_nothing() -> None:
    owners = Owners(ledger((ALICE, slot(1), 1.0, 101.0, 1), (BOB, slot(1), 2.0, 102.0, 1)))
    owners.believe(ALICE, belief(1), 5.0)
    owners.believe(ALICE, None, 6.0)
    assert owners.of(ALICE) is None
    owners.believe(BOB, belief(1), 7.0)
    assert owners.of(BOB) is not None


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(belief(2), id="another port set"),
        pytest.param(belief(1, requested_at=1.5), id="granted before it was asked for"),
        pytest.param(belief(1, expires_at=101.5), id="longer than granted"),
        pytest.param(belief(1, expires_at=math.inf), id="for ever"),
    ],
)
def test_belief_without_grant(held: Belief) -> None:
    owners = Owners(ledger((ALICE, slot(1), 1.0, 101.0, 1), (BOB, slot(2), 1.0, 101.0, 1)))
    owners.believe(ALICE, belief(1), 5.0)
    with pytest.raises(Violation, match="nobody granted"):
        owners.believe(ALICE, held, 5.0)


# ---- invariant 3


@pytest.mark.parametrize(
    ("expires_at", "deadline", "broken"),
    [
        (100.0, 60.0, False),
        (100.0, 100.0, False),
        (100.0, 101.0, True),
        (100.0, None, True),
        (50.0, 60.0, True),
        (math.inf, None, False),
    ],
)
def test_deadlines(expires_at: float, deadline: float | None, broken: bool) -> None:
    held = belief(1, expires_at=expires_at)
    if broken:
        with pytest.raises(Violation):
            check_deadline(held, deadline, 50.0)
    else:
        check_deadline(held, deadline, 50.0)
    check_deadline(None, None, 50.0)


# ---- invariant 4


def discover(xid: int = 1) -> bytes:
    return query(Dhcp4Message(op=1, xid=xid, options=((53, b"\1"),)))


def extend(xid: int, *, unicast: bool = True) -> bytes:
    return query(Dhcp4Message(op=1, xid=xid, ciaddr=A, options=((53, b"\3"),)), unicast=unicast)


def query(message: Dhcp4Message, *, unicast: bool = False) -> bytes:
    return dhcp4o6.encode_query(dhcp4.encode(message), unicast=unicast)


def inform(transaction_id: int) -> bytes:
    return dhcp6.encode(dhcp6.Dhcp6Message(11, transaction_id))


def say(*things: tuple[float, bytes], lease_s: float = 3600) -> None:
    manners = Manners(lease_s)
    for now, data in things:
        manners.sends(data, HERE, 1, now)


def test_permitted_talk() -> None:
    say((0, discover()), (3.1, discover()), (10.2, discover()), (25.3, discover()), (56.4, discover()))
    say((0, discover(1)), (0.1, discover(2)))
    say((0, extend(1)), (60, extend(2)), (61, extend(3, unicast=False)), (121, extend(4, unicast=False)))
    say((0, inform(1)), (0.9, inform(1)), (2.65, inform(1)), (3, inform(2)))


@pytest.mark.parametrize(
    "things",
    [
        pytest.param([(0, discover()), (2.9, discover())], id="the first wait"),
        pytest.param([(0, discover()), (4, discover()), (10, discover())], id="the second wait"),
        pytest.param([(0, extend(1)), (59, extend(2))], id="renewals"),
        pytest.param([(0, extend(1, unicast=False)), (59, extend(2, unicast=False))], id="rebindings"),
        pytest.param([(0, inform(1)), (0.8, inform(1))], id="INFORMATION-REQUEST"),
        pytest.param([(0, inform(1)), (1, inform(1)), (2.5, inform(1))], id="INFORMATION-REQUEST, second wait"),
        pytest.param([(n / 3, discover(n)) for n in range(41)], id="the bucket"),
        pytest.param([(n * 9, discover(n)) for n in range(400)], id="the hour"),
        pytest.param([(0, b"\x14\0\0\0")], id="nonsense"),
    ],
)
def test_forbidden_talk(things: list[tuple[float, bytes]]) -> None:
    with pytest.raises(Violation):
        say(*things)


def test_waits() -> None:
    assert [dhcp4_wait_s(n) for n in (0, 1, 2, 3, 4, 5, 500)] == [3, 7, 15, 31, 63, 63, 63]
    assert [round(dhcp6_wait_s(n), 3) for n in (0, 1, 2)] == [0.9, 1.71, 3.249]
    assert dhcp6_wait_s(1000) == 54


# ---- the network


def arrivals(weather: Weather, count: int = 400) -> list[tuple[float, bytes]]:
    clock = Clock(0.0)
    arrived: list[tuple[float, bytes]] = []
    network = Network(clock, random.Random(1), lambda data, source, destination: arrived.append((clock.now, data)))
    network.weather = weather
    for number in range(count):
        network.send(discover(number), HERE, THERE)
    clock.run(1e9)
    return arrived


def test_fair_weather() -> None:
    arrived = arrivals(Weather())
    assert sorted(data for _, data in arrived) == sorted(discover(n) for n in range(400))
    assert 0.001 <= min(at for at, _ in arrived) <= max(at for at, _ in arrived) <= 0.02


def test_foul_weather() -> None:
    assert 150 < len(arrivals(Weather(loss=0.5))) < 250
    assert len(arrivals(Weather(loss=1.0))) == 0
    assert 550 < len(arrivals(Weather(double=0.5))) < 650
    late = arrivals(Weather(straggle=0.1, straggle_s=30))
    assert 20 < sum(at > 0.02 for at, _ in late) < 60
    order = [data for _, data in arrivals(Weather(delay=(0, 10)))]
    assert order != sorted(order)
    honest = {discover(n) for n in range(400)}
    damaged = [data for _, data in arrivals(Weather(corrupt=1.0)) if data not in honest]
    assert len(damaged) > 100


def test_only_damage_that_can_be_told_is_delivered() -> None:
    rng = random.Random(1)
    answer = Dhcp4Message(
        op=2, xid=0x12345678, yiaddr=A, options=((53, b"\5"), (61, b"\xff" * 20), (159, b"\0\4\x30\0"))
    )
    honest = dhcp4o6.encode_response(dhcp4.encode(answer))
    told = [data for data in (damage(honest, rng) for _ in range(2000)) if tellable(honest, data)]
    assert 500 < len(told) < 2000
    for data in told:
        try:
            there = dhcp4.decode(dhcp4o6.decode(data).dhcp4)
        except dhcp4.WireError:
            continue
        if dhcp6.message_type(data) == 21 and data != honest:
            assert there.xid != answer.xid or there.get(61) not in (None, answer.get(61))
    lie = dhcp4o6.encode_response(
        dhcp4.encode(Dhcp4Message(op=2, xid=0x12345678, yiaddr=A + 1, options=answer.options))
    )
    assert not tellable(honest, lie)


def test_clock() -> None:
    clock = Clock(10.0)
    seen: list[str] = []
    clock.at(20, lambda: seen.append("b"))
    clock.at(5, lambda: seen.append("a"))
    clock.at(20, lambda: clock.after(1, lambda: seen.append("c")))
    clock.at(30, lambda: seen.append("d"))
    assert clock.run(25) == 4
    assert (seen, clock.now) == (["a", "b", "c"], 25)
