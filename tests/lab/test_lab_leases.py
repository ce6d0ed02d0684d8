"""The lab server's lease database and pools (RFC 7618 8; requirements SV-2 to SV-8, SV-13)."""

from __future__ import annotations

import json
import math
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b4client.lab.leaserecord import Lease, State
from b4client.lab.leases import LeaseDatabase, Taken
from b4client.lab.pools import FullPool, Pools, SharedPool, Slot, usable_psids
from b4client.model.portset import PortRange, PortSet

A1, A2, F1 = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv4Address("198.51.100.1")
SADDR = IPv6Address("2001:db8::109")
SHARED = SharedPool(A1, A2, psid_len=2)
"""Two addresses with sets of 16384 ports; PSID 0 holds the system ports, so six sets may be leased."""
FULL = FullPool(F1, F1)
ALICE, BOB, CAROL = b"\xff-alice", b"\xff-bob", b"\xff-carol"


def slot(address: IPv4Address, psid: int, length: int = 2, offset: int = 0) -> Slot:
    return Slot(address, PortSet(offset, length, psid))


def database(*shared: SharedPool, full: tuple[FullPool, ...] = (), limit: int | None = None) -> LeaseDatabase:
    return LeaseDatabase(Pools(shared or (SHARED,), full), max_per_customer=limit)


def take(db: LeaseDatabase, client: bytes, now: float = 0.0, seconds: float = 100.0, **wish: object) -> Slot:
    chosen = db.choose(client, now, wants_shared=True, **wish)  # type: ignore[arg-type]
    assert chosen is not None
    db.grant(chosen, client, now, seconds=seconds, customer=str(wish.get("customer", "")))
    return chosen


# ---- pools


@pytest.mark.parametrize(
    ("offset", "length", "reserved", "lost"),
    [
        pytest.param(0, 6, (PortRange(0, 1023),), {0}, id="a=0: one range in the system ports"),
        pytest.param(0, 8, (PortRange(0, 1023),), {0, 1, 2, 3}, id="a=0: four ranges"),
        pytest.param(6, 8, (PortRange(0, 1023),), set(), id="a=6 excludes 0-1023 by itself"),
        pytest.param(4, 4, (PortRange(4096, 4100),), {0}, id="a=4: a reserved range higher up"),
        pytest.param(6, 2, (PortRange(1024, 2047),), {0, 1, 2, 3}, id="all of them"),
        pytest.param(0, 2, (PortRange(40000, 40000),), {2}, id="one port"),
        pytest.param(0, 2, (), set(), id="nothing reserved"),
    ],
)
def test_reserved_ports_sv7(offset: int, length: int, reserved: tuple[PortRange, ...], lost: set[int]) -> None:
    assert set(range(1 << length)) - set(usable_psids(offset, length, reserved)) == lost


@given(st.integers(0, 15), st.integers(1, 6), st.integers(0, 65535), st.integers(0, 3000))
@settings(max_examples=80, deadline=None)
def test_reserved_ports_against_the_port_lists(offset: int, length: int, first: int, size: int) -> None:
    length = min(length, 16 - offset)
    reserved = PortRange(first, min(first + size, 65535))
    clean = [p for p in range(1 << length) if not any(port in reserved for port in PortSet(offset, length, p).ports())]
    assert list(usable_psids(offset, length, (reserved,))) == clean


def test_no_address_in_two_pools() -> None:
    with pytest.raises(ValueError, match=r"192\.0\.2\.2 is in two pools"):
        Pools((SHARED,), (FullPool(A2, A2),))
    with pytest.raises(ValueError, match="ends before"):
        FullPool(A2, A1)
    with pytest.raises(ValueError, match="exceed"):
        SharedPool(A1, A2, offset_len=8, psid_len=9)


PAIRS = st.tuples(st.integers(0, 15), st.integers(1, 6), st.integers(0, 63))


@given(PAIRS, PAIRS)
@settings(max_examples=100, deadline=None)
def test_slots_overlap_exactly_when_they_share_a_port(one: tuple[int, int, int], two: tuple[int, int, int]) -> None:
    sets = []
    for offset, length, psid in (one, two):
        length = min(length, 16 - offset)  # noqa: PLW2901
        sets.append(PortSet(offset, length, psid & ((1 << length) - 1)))
    shares = bool(set(sets[0].ports()) & set(sets[1].ports()))
    assert Slot(A1, sets[0]).overlaps(Slot(A1, sets[1])) == shares
    assert not Slot(A1, sets[0]).overlaps(Slot(A2, sets[1]))
    assert Slot(A1, sets[0]).overlaps(Slot(A1, None))


# ---- the key and the order of choice


def test_one_address_to_several_clients_sv2() -> None:
    db = database()
    given_out = [take(db, bytes([n])) for n in range(6)]
    assert len(set(given_out)) == 6
    assert {s.address for s in given_out} == {A1, A2}
    assert not any(s.ports is None or s.ports.psid == 0 for s in given_out)  # reserved [SV-7]
    assert db.choose(b"seventh", 0.0, wants_shared=True) is None
    with pytest.raises(Taken):
        db.grant(given_out[0], b"seventh", 0.0, seconds=100)


def test_choice_sv3() -> None:
    db = database()
    mine = take(db, ALICE, requested=slot(A2, 3))
    assert mine == slot(A2, 3)  # 3: the pair asked for
    assert take(db, ALICE, requested=slot(A1, 1)) == mine  # 1: the current binding goes before a wish
    assert db.release(mine, ALICE, 7, 50.0)
    assert take(db, ALICE, 60.0, requested=slot(A1, 1)) == mine  # 2: so does the previous one
    assert take(db, BOB, 60.0, requested=mine) == slot(A1, 1)  # 4: a new one, since the wish is taken
    db.expire(200.0)
    take(db, CAROL, 200.0, requested=mine)
    assert take(db, ALICE, 200.0, requested=slot(A2, 1)) == slot(A2, 1)  # 2 is somebody else's: 3


@pytest.mark.parametrize(
    "wish",
    [
        pytest.param(slot(A1, 0), id="reserved"),
        pytest.param(slot(A1, 1, 3), id="a length that the policy does not permit"),
        pytest.param(slot(A1, 1, offset=1), id="another offset"),
        pytest.param(slot(IPv4Address("203.0.113.1"), 1), id="another address"),
        pytest.param(Slot(A1, None), id="the whole of a shared address"),
    ],
)
def test_a_wish_that_is_not_valid_sv3(wish: Slot) -> None:
    db = database()
    assert db.choose(ALICE, 0.0, wants_shared=True, requested=wish) == slot(A1, 1)
    assert not db.pools.valid(wish, wants_shared=True)


def test_the_longest_unused_goes_first() -> None:
    db = database()
    for n in range(6):
        take(db, bytes([n]), float(n), 10.0)  # they end at 10, 11 ...
    assert take(db, b"new", 100.0) == slot(A1, 1)
    assert take(db, b"newer", 100.0) == slot(A1, 2)
    assert take(db, bytes([2]), 100.0) == slot(A1, 3)  # and whoever comes back has its own
    assert take(db, bytes([0]), 100.0) == slot(A2, 1)


# ---- sizes


SIZES = SharedPool(A1, A1, psid_len=4, hints=(2, 6))


@pytest.mark.parametrize(("hint", "length"), [(None, 4), (4, 4), (2, 2), (6, 6), (3, 4), (16, 4)])
def test_size_hints_sv4(hint: int | None, length: int) -> None:
    chosen = take(database(SIZES), ALICE, hint=hint)
    assert chosen.ports is not None
    assert chosen.ports.psid_len == length


@given(st.lists(st.sampled_from([None, 2, 6]), max_size=40))
@settings(max_examples=60, deadline=None)
def test_sets_of_different_size_never_overlap(hints: list[int | None]) -> None:
    db = database(SIZES)
    held: list[Slot] = []
    for n, hint in enumerate(hints):
        chosen = db.choose(bytes([n]), 0.0, wants_shared=True, hint=hint)
        if chosen is None:
            continue
        assert not any(chosen.overlaps(other) for other in held)
        db.grant(chosen, bytes([n]), 0.0, seconds=100)
        held.append(chosen)
    ports = [set(s.ports.ports()) for s in held if s.ports]
    assert sum(map(len, ports)) == len(set().union(*ports))


# ---- whole addresses


def test_whole_addresses_sv8() -> None:
    db = database(full=(FULL,))
    assert db.choose(ALICE, 0.0, wants_shared=False) == Slot(F1, None)
    assert db.choose(ALICE, 0.0, wants_shared=True) == slot(A1, 1)
    assert not db.pools.valid(slot(A1, 1), wants_shared=False)
    db.grant(slot(A1, 1), ALICE, 0.0, seconds=100)
    # The current binding is a shared one: not for a client that no longer lists 159.
    assert db.choose(ALICE, 0.0, wants_shared=False) == Slot(F1, None)
    db.grant(Slot(F1, None), BOB, 0.0, seconds=100)
    assert db.choose(CAROL, 0.0, wants_shared=False) is None
    assert db.choose(CAROL, 200.0, wants_shared=False) == Slot(F1, None)


def test_option_159_may_be_ignored_sv8() -> None:
    db = LeaseDatabase(Pools((SHARED,), (FULL,), ignore_portparams=True))
    assert db.choose(ALICE, 0.0, wants_shared=True) == Slot(F1, None)
    only_shared = LeaseDatabase(Pools((SHARED,), ignore_portparams=True))
    assert only_shared.choose(ALICE, 0.0, wants_shared=True) == slot(A1, 1)
    assert only_shared.choose(ALICE, 0.0, wants_shared=False) is None


# ---- the end of a lease


@pytest.mark.parametrize(
    ("what", "client", "xid", "now", "freed"),
    [
        (slot(A1, 1), ALICE, 1, 50.0, True),
        (slot(A1, 2), ALICE, 1, 50.0, False),
        (slot(A2, 1), ALICE, 1, 50.0, False),
        (slot(A1, 1, 3), ALICE, 1, 50.0, False),
        (Slot(A1, None), ALICE, 1, 50.0, False),
        (slot(A1, 1), BOB, 1, 50.0, False),
        (slot(A1, 1), ALICE, 1, 100.0, False),
    ],
)
def test_release_sv5(what: Slot, client: bytes, xid: int, now: float, freed: bool) -> None:
    db = database()
    take(db, ALICE)
    assert db.release(what, client, xid, now) is freed
    assert db.free(slot(A1, 1), CAROL, now) is (freed or now >= 100)


def test_a_copy_of_a_release_ends_nothing() -> None:
    db = database()
    mine = take(db, ALICE)
    assert db.release(mine, ALICE, 7, 10.0)
    assert take(db, ALICE, 20.0) == mine
    assert not db.release(mine, ALICE, 7, 30.0)
    assert db.release(mine, ALICE, 8, 40.0)


def test_expiry() -> None:
    db = database()
    mine = take(db, ALICE)
    assert not db.free(mine, BOB, 99.9)
    assert db.free(mine, BOB, 100.0)
    assert [lease.state for lease in db.drain()] == [State.BOUND, State.FORMER]
    assert db.knows(ALICE)
    forever = take(db, BOB, 200.0, math.inf, requested=mine)
    assert forever == mine
    assert not db.free(mine, ALICE, 1e15)


def test_another_lease_of_the_same_client_ends_nothing() -> None:
    # An old REQUEST may arrive late: what the client holds must not become free by it.
    db = database()
    first = take(db, ALICE)
    db.grant(slot(A2, 2), ALICE, 1.0, seconds=100)
    assert not db.free(first, BOB, 2.0)


def test_decline() -> None:
    db = database()
    mine = take(db, ALICE)
    assert not db.decline(mine, BOB, 1.0, hold_s=1000)
    assert db.decline(mine, ALICE, 1.0, hold_s=1000)
    assert take(db, ALICE, 2.0) != mine
    assert not db.free(mine, ALICE, 1000.0)
    assert db.free(mine, ALICE, 1001.0)


def test_an_offer_is_held_and_lapses() -> None:
    db = database(SharedPool(A1, A1, psid_len=1))  # one set without system ports
    only = slot(A1, 1, 1)
    db.offer(only, ALICE, 0.0, hold_s=60)
    assert db.choose(BOB, 59.0, wants_shared=True) is None
    assert db.choose(ALICE, 59.0, wants_shared=True) == only
    with pytest.raises(Taken):
        db.offer(only, BOB, 59.0, hold_s=60)
    assert db.choose(BOB, 60.0, wants_shared=True) == only
    db.offer(only, BOB, 60.0, hold_s=60)
    db.withdraw_offers(BOB)
    assert db.choose(ALICE, 61.0, wants_shared=True) == only
    assert db.drain() == []  # offers are nothing to keep


def test_limit_for_a_customer() -> None:
    db = database(limit=2)
    for client in (ALICE, BOB):
        take(db, client, customer="site")
    assert db.choose(CAROL, 0.0, wants_shared=True, customer="site") is None
    assert db.choose(CAROL, 0.0, wants_shared=True, customer="other") is not None
    assert take(db, ALICE, 50.0, customer="site") == slot(A1, 1)  # what it has it keeps
    assert db.choose(CAROL, 100.0, wants_shared=True, customer="site") is not None  # BOB's has ended


def test_saddr_sv13() -> None:
    db = database()
    mine = db.grant(slot(A1, 1), ALICE, 0.0, seconds=100, saddr=SADDR)
    assert (mine.saddr, mine.saddr_at, mine.softwire_source) == (SADDR, 0.0, SADDR)
    assert not db.saddr_taken(SADDR, ALICE, 10.0)
    assert db.saddr_taken(SADDR, BOB, 10.0)
    kept = db.grant(slot(A1, 1), ALICE, 50.0, seconds=100)
    assert (kept.saddr, kept.saddr_at) == (SADDR, 0.0)
    other = IPv6Address("2001:db8::110")
    changed = db.grant(slot(A1, 1), ALICE, 60.0, seconds=100, saddr=other)
    assert (changed.saddr, changed.saddr_at) == (other, 60.0)
    assert not db.saddr_taken(SADDR, BOB, 61.0)
    assert db.saddr_taken(other, BOB, 159.0)
    assert not db.saddr_taken(other, BOB, 160.0)


def test_where_an_aftr_finds_a_client() -> None:
    lease = Lease(slot(A1, 1), ALICE, State.BOUND, 100.0)
    assert lease.softwire_source is None
    assert Lease(slot(A1, 1), ALICE, State.BOUND, 1.0, source=IPv6Address("fe80::1")).softwire_source is None
    assert Lease(slot(A1, 1), ALICE, State.BOUND, 1.0, source=SADDR).softwire_source == SADDR


# ---- keeping


def test_json_and_back() -> None:
    db = database(full=(FULL,))
    take(db, ALICE, customer="site")
    db.grant(Slot(F1, None), BOB, 0.0, seconds=math.inf, saddr=SADDR, source=IPv6Address("2001:db8::1"))
    take(db, CAROL)
    db.release(slot(A1, 2), CAROL, 9, 3.0)
    text = json.dumps(db.to_json(), allow_nan=False)
    again = LeaseDatabase(db.pools, LeaseDatabase.leases_from_json(json.loads(text)))
    assert list(again) == list(db)
    assert again.drain() == []
    assert not again.free(slot(A1, 1), BOB, 99.0)
    assert again.free(slot(A1, 1), BOB, 100.0)


def test_of_several_records_the_last_counts() -> None:
    db = database()
    take(db, ALICE)
    take(db, ALICE, 10.0)
    records = [lease.to_json() for lease in db.drain()]
    assert [lease.until for lease in LeaseDatabase.leases_from_json(records)] == [110.0]


# ---- whatever is done, in whatever order


CLIENTS = st.integers(0, 5).map(lambda n: bytes((255, n)))
DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["choose", "offer", "grant", "release", "decline", "reload"]),
        CLIENTS,
        st.integers(0, 60),
        st.sampled_from([None, 1, 2, 4]),
        st.booleans(),
    ),
    max_size=60,
)


@given(DEEDS)
@settings(max_examples=150, deadline=None)
def test_no_two_active_leases_overlap(deeds: list[tuple[str, bytes, int, int | None, bool]]) -> None:
    pools = Pools((SharedPool(A1, A1, psid_len=2, hints=(1, 4)),), (FULL,))
    db, now = LeaseDatabase(pools), 0.0
    asked: list[Slot] = [Slot(F1, None)]
    for deed, client, pause, hint, shared in deeds:
        now += pause
        slot = db.choose(client, now, wants_shared=shared, hint=hint, requested=asked[-1])
        if slot is not None:
            asked.append(slot)
            assert db.pools.valid(slot, wants_shared=shared)
            assert db.free(slot, client, now)
        wanted = asked[len(asked) // 2]
        try:
            if deed == "offer":
                db.offer(wanted, client, now, hold_s=30)
            elif deed == "grant":
                db.grant(wanted, client, now, seconds=50)
        except Taken:
            assert not db.free(wanted, client, now)
        if deed == "release":
            db.release(wanted, client, pause, now)
        elif deed == "decline":
            db.decline(wanted, client, now, hold_s=40)
        elif deed == "reload":
            db = LeaseDatabase(pools, LeaseDatabase.leases_from_json(json.loads(json.dumps(db.to_json()))))
        held = [lease.slot for lease in db if lease.active(now)]
        assert not any(a.overlaps(b) for i, a in enumerate(held) for b in held[:i])


@given(DEEDS)
@settings(max_examples=150, deadline=None)
def test_full_addresses_are_passed_over_only_while_they_are_full(
    deeds: list[tuple[str, bytes, int, int | None, bool]],
) -> None:
    """What is remembered of addresses changes no choice: it is the one of who looks at all of them."""
    db, now = database(SharedPool(A1, A2, psid_len=1, hints=(2,))), 0.0
    taken: list[tuple[Slot, bytes]] = []
    for deed, client, pause, hint, _ in deeds:
        now += pause / 4
        chosen = db.choose(client, now, wants_shared=True, hint=hint)
        remembered, db._full = db._full, {}
        assert db.choose(client, now, wants_shared=True, hint=hint) == chosen
        db._full = remembered
        if deed in ("release", "decline") and taken:
            slot, owner = taken[pause % len(taken)]
            if deed == "release":
                db.release(slot, owner, pause, now)
            else:
                db.decline(slot, owner, now, hold_s=20)
        elif chosen is not None and deed == "offer":
            db.offer(chosen, client, now, hold_s=10)
        elif chosen is not None:
            db.grant(chosen, client, now, seconds=50)
            taken.append((chosen, client))
