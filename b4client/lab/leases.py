"""The lease database of the laboratory's DHCP 4o6 server (RFC 7618 8, RFC 8539 8).

A laboratory, not a production server. Pure: ``now`` is an argument, in seconds of any one clock (the server takes Unix
time, which survives a restart).

What is guaranteed, and what the simulation checks: at no instant do two active leases overlap in (address, port). So a
lease ends only by its time, or by its client's word (RELEASE, DECLINE); never because the same client was given
another one, since the request for that may be an old one that the network kept back.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeVar

from b4client.lab.leaserecord import Lease, Offer, State
from b4client.lab.pools import Pools, SharedPool, Slot
from b4client.model.portset import PortSet

K = TypeVar("K")


class Taken(Exception):
    """The slot, or part of it, is somebody else's."""


class LeaseDatabase:
    """Leases by (address, port set). Every method first lets end what has ended at ``now``."""

    def __init__(self, pools: Pools, leases: Iterable[Lease] = (), *, max_per_customer: int | None = None) -> None:
        self.pools = pools
        self._max_per_customer = max_per_customer
        self._leases: dict[Slot, Lease] = {}
        self._offers: dict[Slot, Offer] = {}
        self._by_client: dict[bytes, set[Slot]] = {}
        self._by_address: dict[IPv4Address, set[Slot]] = {}
        self._by_saddr: dict[IPv6Address, set[Slot]] = {}
        self._by_customer: dict[str, set[Slot]] = {}
        # Addresses without a free set, by PSID length, so that not every new client looks through all of them. What
        # ends is let end (expire) before anybody looks, and every end passes _put or _drop_offer.
        self._full: dict[IPv4Address, set[int]] = {}
        self._ends: list[tuple[float, int, Slot]] = []
        self._serial = 0
        self._changes: list[Lease] = []
        for lease in leases:
            self._put(lease)
        self._changes.clear()

    # ---- looking

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def get(self, slot: Slot) -> Lease | None:
        """The record of exactly this slot."""
        return self._leases.get(slot)

    def active(self, now: float) -> list[Lease]:
        """The leases that clients may use now."""
        return [lease for lease in self._leases.values() if lease.bound(now)]

    def of_client(self, client_id: bytes, now: float) -> list[Lease]:
        """The client's active leases, the one that ends last first."""
        found = (self._leases.get(slot) for slot in self._by_client.get(client_id, ()))
        mine = [lease for lease in found if lease is not None and lease.client_id == client_id and lease.bound(now)]
        return sorted(mine, key=lambda lease: (-lease.until, str(lease.slot)))

    def knows(self, client_id: bytes) -> bool:
        """True when there is any record of the client, active or former (RFC 2131 4.3.2 [SV-12])."""
        return any(
            slot in self._leases and self._leases[slot].client_id == client_id
            for slot in self._by_client.get(client_id, ())
        )

    def free(self, slot: Slot, client_id: bytes, now: float) -> bool:
        """True when the client may have ``slot``: nobody holds a port of it, or the client itself exactly it."""
        self.expire(now)
        return all(
            holder == client_id and busy == slot
            for busy, holder in self._busy(slot.address, now)
            if busy.overlaps(slot)
        )

    def saddr_taken(self, saddr: IPv6Address, client_id: bytes, now: float) -> bool:
        """True when another client's active lease has this softwire source (RFC 8539 8.2 [SV-13])."""
        found = (self._leases.get(slot) for slot in self._by_saddr.get(saddr, ()))
        return any(
            lease is not None and lease.saddr == saddr and lease.client_id != client_id and lease.bound(now)
            for lease in found
        )

    def within_limit(self, customer: str, slot: Slot | None, now: float) -> bool:
        """True when the site may have ``slot`` (None: one more) beside what it has (RFC 7618 10)."""
        if self._max_per_customer is None:
            return True
        held = set()
        for other in self._by_customer.get(customer, ()):
            lease, offer = self._leases.get(other), self._offers.get(other)
            if (lease is not None and lease.customer == customer and lease.bound(now)) or (
                offer is not None and offer.customer == customer and offer.until > now
            ):
                held.add(other)
        return slot in held or len(held) < self._max_per_customer

    def _busy(self, address: IPv4Address, now: float) -> Iterator[tuple[Slot, bytes]]:
        """What is held on an address, and by whom."""
        for slot in self._by_address.get(address, ()):
            lease, offer = self._leases.get(slot), self._offers.get(slot)
            if lease is not None and lease.active(now):
                yield slot, b"" if lease.state is State.DECLINED else lease.client_id
            elif offer is not None and offer.until > now:
                yield slot, offer.client_id

    # ---- choosing

    def choose(
        self,
        client_id: bytes,
        now: float,
        *,
        wants_shared: bool,
        requested: Slot | None = None,
        hint: int | None = None,
        customer: str = "",
    ) -> Slot | None:
        """What to offer, in the order of RFC 7618 8 [SV-3]: the current binding, the previous one, the pair that was
        asked for, a new one; None when nothing may be had. ``hint`` is a wished-for PSID length [SV-4]."""
        self.expire(now)
        for lease in self.of_client(client_id, now):
            if self.pools.valid(lease.slot, wants_shared=wants_shared):
                return lease.slot
        if not self.within_limit(customer, self._offered(client_id, now), now):
            return None
        shared = self.pools.gives_shared(wants_shared)

        def available(slot: Slot) -> bool:
            return (
                (slot.ports is not None) == shared
                and self.pools.valid(slot, wants_shared=wants_shared)
                and self.free(slot, client_id, now)
            )

        for slot in self._previous(client_id):
            if available(slot):
                return slot
        if requested is not None and available(requested):
            return requested
        offered = self._offered(client_id, now)
        if offered is not None and available(offered):
            return offered
        return self._new_shared(hint, now) if shared else self._new_full(now)

    def _offered(self, client_id: bytes, now: float) -> Slot | None:
        return next(
            (
                slot
                for slot in sorted(self._by_client.get(client_id, ()), key=str)
                if (offer := self._offers.get(slot)) is not None and offer.client_id == client_id and offer.until > now
            ),
            None,
        )

    def _previous(self, client_id: bytes) -> list[Slot]:
        """The client's former slots, the last one first."""
        found = (self._leases.get(slot) for slot in self._by_client.get(client_id, ()))
        former = [
            lease
            for lease in found
            if lease is not None and lease.client_id == client_id and lease.state is State.FORMER
        ]
        return [lease.slot for lease in sorted(former, key=lambda lease: (-lease.until, str(lease.slot)))]

    def _new_shared(self, hint: int | None, now: float) -> Slot | None:
        oldest: tuple[float, Slot] | None = None
        for pool, address in self.pools.shared_addresses(hint):
            length = self.pools.length_for(pool, hint)
            if length in self._full.get(address, ()):
                continue
            full = True
            for slot in self._untaken(pool, address, length, now):
                full = False
                former = self._leases.get(slot)
                if former is None:
                    return slot
                if oldest is None or former.until < oldest[0]:
                    oldest = (former.until, slot)
            if full:
                self._full.setdefault(address, set()).add(length)
        # Never used before, else unused for longest: former holders can have theirs back as long as possible.
        return None if oldest is None else oldest[1]

    def _untaken(self, pool: SharedPool, address: IPv4Address, length: int, now: float) -> Iterator[Slot]:
        taken: set[int] = set()
        for busy, _ in self._busy(address, now):
            ports = busy.ports
            if ports is None or ports.offset_len != pool.offset_len:
                # Left over from another configuration: the address is used again when that lease has ended.
                return
            if ports.psid_len >= length:
                taken.add(ports.psid >> (ports.psid_len - length))
            else:
                first = ports.psid << (length - ports.psid_len)
                taken.update(range(first, first + (1 << (length - ports.psid_len))))
        for psid in self.pools.usable(pool, length):
            if psid not in taken:
                yield Slot(address, PortSet(pool.offset_len, length, psid))

    def _new_full(self, now: float) -> Slot | None:
        oldest: tuple[float, Slot] | None = None
        for address in self.pools.full_addresses():
            if any(True for _ in self._busy(address, now)):
                continue
            slot = Slot(address, None)
            former = self._leases.get(slot)
            if former is None:
                return slot
            if oldest is None or former.until < oldest[0]:
                oldest = (former.until, slot)
        return None if oldest is None else oldest[1]

    # ---- changing

    def offer(self, slot: Slot, client_id: bytes, now: float, *, hold_s: float, customer: str = "") -> None:
        """Hold ``slot`` for the client. Raises Taken."""
        if not self.free(slot, client_id, now):
            raise Taken(str(slot))
        self.withdraw_offers(client_id)
        if slot in self._offers:
            self._drop_offer(slot)  # one that has lapsed
        self._offers[slot] = Offer(slot, client_id, now + hold_s, customer)
        self._index(slot, client_id, customer)
        self._ends_at(now + hold_s, slot)

    def withdraw_offers(self, client_id: bytes) -> None:
        """The client took another server's offer, or gets another one of ours."""
        for slot in tuple(self._by_client.get(client_id, ())):
            if slot in self._offers and self._offers[slot].client_id == client_id:
                self._drop_offer(slot)

    def _drop_offer(self, slot: Slot) -> None:
        offer = self._offers.pop(slot)
        self._full.pop(slot.address, None)
        self._forget(slot, offer.client_id, offer.customer, None)

    def grant(
        self,
        slot: Slot,
        client_id: bytes,
        now: float,
        *,
        seconds: float,
        customer: str = "",
        source: IPv6Address | None = None,
        saddr: IPv6Address | None = None,
    ) -> Lease:
        """Lease ``slot`` for ``seconds``, or extend it. ``saddr`` None keeps what is stored with it. Raises Taken."""
        if not self.free(slot, client_id, now):
            raise Taken(str(slot))
        before = self._leases.get(slot)
        held = before if before is not None and before.client_id == client_id and before.bound(now) else None
        if saddr is None and held is not None:
            saddr, saddr_at = held.saddr, held.saddr_at
        else:
            saddr_at = held.saddr_at if held is not None and held.saddr == saddr else now
        released_xid = before.released_xid if before is not None and before.client_id == client_id else None
        lease = Lease(slot, client_id, State.BOUND, now + seconds, customer, source, saddr, saddr_at, released_xid)
        self._put(lease)
        self.withdraw_offers(client_id)
        return lease

    def release(self, slot: Slot, client_id: bytes, xid: int, now: float) -> bool:
        """End the client's lease of exactly this slot (RFC 7618 8 [SV-5]); False when there is none."""
        self.expire(now)
        lease = self._leases.get(slot)
        if lease is None or lease.client_id != client_id or not lease.bound(now) or lease.released_xid == xid:
            return False
        self._put(replace(lease, state=State.FORMER, until=now, released_xid=xid))
        return True

    def decline(self, slot: Slot, client_id: bytes, now: float, *, hold_s: float) -> bool:
        """Nobody gets the client's slot for ``hold_s`` (RFC 2131 4.3.3); False when the client does not hold it."""
        self.expire(now)
        lease = self._leases.get(slot)
        if lease is None or lease.client_id != client_id or not lease.bound(now):
            return False
        self._put(replace(lease, state=State.DECLINED, until=now + hold_s))
        return True

    def expire(self, now: float) -> None:
        """Let end what has ended."""
        while self._ends and self._ends[0][0] <= now:
            _, _, slot = heapq.heappop(self._ends)
            offer = self._offers.get(slot)
            if offer is not None and offer.until <= now:
                self._drop_offer(slot)
            lease = self._leases.get(slot)
            if lease is not None and lease.state is not State.FORMER and lease.until <= now:
                self._put(replace(lease, state=State.FORMER))

    def drain(self) -> list[Lease]:
        """The records that changed since the last call, in order: for the lease file and the lwAFTR."""
        changes, self._changes = self._changes, []
        return changes

    def _put(self, lease: Lease) -> None:
        before = self._leases.get(lease.slot)
        self._leases[lease.slot] = lease
        self._full.pop(lease.slot.address, None)
        self._index(lease.slot, lease.client_id, lease.customer)
        if lease.saddr is not None:
            self._by_saddr.setdefault(lease.saddr, set()).add(lease.slot)
        if before is not None:
            self._forget(lease.slot, before.client_id, before.customer, before.saddr)
        if lease.state is not State.FORMER and lease.until != math.inf:
            self._ends_at(lease.until, lease.slot)
        self._changes.append(lease)

    def _index(self, slot: Slot, client_id: bytes, customer: str) -> None:
        self._by_client.setdefault(client_id, set()).add(slot)
        self._by_address.setdefault(slot.address, set()).add(slot)
        self._by_customer.setdefault(customer, set()).add(slot)

    def _forget(self, slot: Slot, client_id: bytes, customer: str, saddr: IPv6Address | None) -> None:
        """Take a slot out of the indices where neither its lease nor its offer leads any more."""
        lease, offer = self._leases.get(slot), self._offers.get(slot)
        there = [record for record in (lease, offer) if record is not None]
        if all(record.client_id != client_id for record in there):
            _discard(self._by_client, client_id, slot)
        if all(record.customer != customer for record in there):
            _discard(self._by_customer, customer, slot)
        if saddr is not None and (lease is None or lease.saddr != saddr):
            _discard(self._by_saddr, saddr, slot)
        if not there:
            _discard(self._by_address, slot.address, slot)

    def _ends_at(self, instant: float, slot: Slot) -> None:
        self._serial += 1
        heapq.heappush(self._ends, (instant, self._serial, slot))

    # ---- keeping

    def to_json(self) -> list[dict[str, Any]]:
        """All records, for a snapshot of the lease file."""
        return [lease.to_json() for lease in self._leases.values()]

    @staticmethod
    def leases_from_json(records: Iterable[dict[str, Any]]) -> list[Lease]:
        """The last record of each slot. Raises ValueError, KeyError or TypeError for what ``to_json`` never wrote."""
        latest: dict[Slot, Lease] = {}
        for record in records:
            lease = Lease.from_json(record)
            latest.pop(lease.slot, None)  # the order is that of the last change
            latest[lease.slot] = lease
        return list(latest.values())


def _discard(index: dict[K, set[Slot]], key: K, slot: Slot) -> None:
    index[key].discard(slot)
    if not index[key]:
        del index[key]
