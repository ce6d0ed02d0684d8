"""What must hold, always: the invariants of the simulation.

1. *No port has two owners.* Two clients never believe in overlapping (address, port) at one time, unless the server
   lost its lease file between the two grants: whoever was granted something by a server that remembers it is safe from
   everybody else that this server knew or came to know. (A server that forgets gives twice by construction; the RFCs
   know no cure. What is guaranteed then: the older of the two leases ends by its time, or at its next renewal.)
   The server's memory between two losses is called an *epoch* here.
2. *What is believed was granted*: to this client, this address and port set, by an ACK sent after the REQUEST that the
   client counts from, and for at least as long as the client believes.
3. *Nothing is used after its time*: no step ends with a belief that has expired, and a client's deadline never lies
   behind the end of what it believes in.
4. *Nobody talks more than the rules allow*: retransmissions of one transaction keep the distances of RFC 2131 4.1 and
   RFC 8415 15, renewals and rebindings 60 s (RFC 2131 4.4.5), everything together the limit of RFC 8415 14.1, and an
   hour has a ceiling.
5. *Everybody is bound again* within a bounded time once the network is well, and then stays bound.

1 to 4 are checked after every step, 5 at the end of a run (``simworld``).
"""

from __future__ import annotations

import collections
import math
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from b4client.lab.leaserecord import Lease, State
from b4client.lab.pools import Slot
from b4client.model.errors import WireError
from b4client.model.lease import Lease4
from b4client.wire import dhcp4, dhcp4o6, dhcp6
from b4client.wire.dhcp4 import MessageType, Option

EPSILON_S = 1e-6
DHCP6_GAP = 0.9
"""A DHCPv6 wait is at least this part of the nominal one (RFC 8415 15: RAND is not below -0.1)."""


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A server said ACK: in which epoch, when, until when."""

    epoch: int
    at: float
    until: float


class Ledger:
    """All grants of all servers, by client and slot; what has ended is forgotten."""

    def __init__(self) -> None:
        self._grants: dict[tuple[bytes, Slot], list[Grant]] = {}
        self.count = 0

    def write(self, leases: list[Lease], epoch: int, now: float) -> None:
        """What a server's database has changed."""
        for lease in leases:
            if lease.state is State.BOUND:
                self.count += 1
                grants = self._grants.setdefault((lease.client_id, lease.slot), [])
                grants[:] = [grant for grant in grants if grant.until > now]
                grants.append(Grant(epoch, now, lease.until))

    def covering(self, client_id: bytes, slot: Slot, lease: Lease4) -> list[Grant]:
        """The grants that ``lease`` can rest on."""
        return [
            grant
            for grant in self._grants.get((client_id, slot), ())
            if grant.at >= lease.requested_at - EPSILON_S and grant.until >= lease.expires_at - EPSILON_S
        ]


@dataclass(frozen=True, slots=True)
class Belief:
    """What a client's data plane uses: the slot, and the lease behind it."""

    slot: Slot
    lease: Lease4

    def held(self, now: float) -> bool:
        """True while the client may think that it is right."""
        return now < self.lease.expires_at


class Owners:
    """Who believes in what (invariants 1 and 2)."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._beliefs: dict[bytes, tuple[Belief, frozenset[int]]] = {}
        self._by_address: dict[IPv4Address, set[bytes]] = {}
        self.overlaps_by_amnesia = 0

    def believe(self, client_id: bytes, belief: Belief | None, now: float) -> None:
        """A client believes in something else, or for longer, than before. Raises Violation."""
        before = self._beliefs.get(client_id)
        if before is not None and (belief is None or before[0].slot.address != belief.slot.address):
            self._by_address[before[0].slot.address].discard(client_id)
        if belief is None:
            self._beliefs.pop(client_id, None)
            return
        grants = self._ledger.covering(client_id, belief.slot, belief.lease)
        if not grants:
            raise Violation(f"{client_id.hex()} believes in {belief.lease}, which nobody granted")
        epochs = frozenset(grant.epoch for grant in grants)
        self._beliefs[client_id] = (belief, epochs)
        there = self._by_address.setdefault(belief.slot.address, set())
        for other in sorted(there - {client_id}):
            theirs, their_epochs = self._beliefs[other]
            if theirs.held(now) and theirs.slot.overlaps(belief.slot):
                if epochs & their_epochs:
                    raise Violation(
                        f"{client_id.hex()} and {other.hex()} both believe in ports of {belief.slot.address}: "
                        f"{belief.lease} and {theirs.lease}, granted in epochs {set(epochs)} and {set(their_epochs)}"
                    )
                self.overlaps_by_amnesia += 1
        there.add(client_id)

    def of(self, client_id: bytes) -> Belief | None:
        """What the client believes in."""
        found = self._beliefs.get(client_id)
        return None if found is None else found[0]


EXTENDING = 100
"""Stands for REQUESTs with ciaddr among the message types."""


class Manners:
    """How much one client sends (invariant 4). ``destinations`` is to how many servers each query goes."""

    MEMORY_S = 4000.0
    """No wait is longer (INF_MAX_RT and a tenth): the same number behind it is another transaction's, by chance."""
    WINDOW_S, WINDOW_MAX = 20.0, 40
    """The bucket of RFC 8415 14.1 holds 20 and gains 20 in 20 s: no window of 20 s sees more than 40."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._recent: collections.deque[float] = collections.deque()
        self._tries: dict[tuple[IPv6Address, int, int], tuple[float, int]] = {}
        self._extended: dict[tuple[IPv6Address, bool], float] = {}
        self._hour = -1
        self._in_hour = self._ceiling = 0
        self.sent = 0

    def disturbed(self, queries: int = 30) -> None:
        """Something happened after which a client may begin anew: that much more may be said in this hour."""
        self._ceiling += queries
        self._extended.clear()

    def sends(self, data: bytes, destination: IPv6Address, destinations: int, now: float) -> None:
        """One datagram leaves. Raises Violation."""
        self.sent += 1
        recent = self._recent
        recent.append(now)
        while recent[0] <= now - self.WINDOW_S:
            recent.popleft()
        if len(recent) > self.WINDOW_MAX:
            raise Violation(f"{len(recent)} datagrams in {self.WINDOW_S} s")
        hour = int(now // 3600)
        if hour != self._hour:
            # Of what was granted for a disturbance a part may be used in the next hour.
            self._hour, self._in_hour, self._ceiling = hour, 0, min(self._ceiling, 60)
        self._in_hour += 1
        # The fastest that goes on for ever: DISCOVER, OFFER, REQUEST, NAK every 63 s, beside one INFORMATION-REQUEST
        # exchange; and a renewal at every T1 (half of the lease, or what is left, at least 60 s).
        allowed = (2 * 3600 / 63 + 20 + 3 * 3600 / max(self._lease_s / 4, 60)) * max(destinations, 1)
        if self._in_hour > allowed + self._ceiling * max(destinations, 1):
            raise Violation(f"{self._in_hour} datagrams in an hour ({allowed:.0f} + {self._ceiling} allowed)")
        self._transaction(data, destination, now)

    def _transaction(self, data: bytes, destination: IPv6Address, now: float) -> None:
        try:
            if dhcp6.message_type(data) == dhcp6.MessageType.INFORMATION_REQUEST:
                message6 = dhcp6.decode(data)
                self._again((destination, 0, message6.transaction_id), now, dhcp6_wait_s)
                return
            query = dhcp4o6.decode(data)
            message = dhcp4.decode(query.dhcp4)
        except WireError as error:
            raise Violation(f"a client sent what cannot be read: {error}") from None
        kind = message.message_type or 0
        if kind == MessageType.REQUEST and message.ciaddr != dhcp4.ZERO and message.get(Option.S46_SADDR):
            # RFC 8539: the server may be told of another softwire source at any time, with the back-off of RFC 2131.
            self._again((destination, EXTENDING, message.xid), now, dhcp4_wait_s)
            return
        if kind == MessageType.REQUEST and message.ciaddr != dhcp4.ZERO:
            key = (destination, query.unicast)
            last = self._extended.get(key)
            if last is not None and now - last < 60 - EPSILON_S:
                raise Violation(f"two requests to extend the lease within {now - last:.3f} s")
            self._extended[key] = now
            return
        if kind == MessageType.REQUEST and message.get(Option.SERVER_ID) is None:
            kind = -kind  # INIT-REBOOT is a transaction of its own
        self._extended.clear()  # something else than RENEWING or REBINDING: they begin anew behind it
        self._again((destination, kind, message.xid), now, dhcp4_wait_s)

    def _again(
        self, key: tuple[IPv6Address, int, int], now: float, wait_s: collections.abc.Callable[[int], float]
    ) -> None:
        last = self._tries.get(key)
        if last is None or now - last[0] > self.MEMORY_S:
            if len(self._tries) > 64:
                self._tries.clear()
            self._tries[key] = (now, 0)
            return
        at, count = last
        if now - at < wait_s(count) - EPSILON_S:
            raise Violation(f"transmission {count + 2} of one transaction after {now - at:.3f} s")
        self._tries[key] = (now, count + 1)


def dhcp4_wait_s(count: int) -> float:
    """The least wait after the transmission of this number (RFC 2131 4.1)."""
    return float(min(4 * 2 ** min(count, 8), 64) - 1)


def dhcp6_wait_s(count: int) -> float:
    """The least wait after the transmission of this number: every doubling may fall short by a tenth (RFC 8415 15)."""
    wait = DHCP6_GAP
    for _ in range(min(count, 40)):
        wait = wait * (1 + DHCP6_GAP)
    return min(wait, 60 * DHCP6_GAP)


def check_deadline(belief: Belief | None, deadline: float | None, now: float) -> None:
    """Invariant 3, after a step at ``now``. Raises Violation."""
    if belief is None:
        return
    expires_at = belief.lease.expires_at
    if expires_at <= now:
        raise Violation(f"a lease is used {now - expires_at:.3f} s after its end: {belief.lease}")
    if expires_at != math.inf and (deadline is None or deadline > expires_at + EPSILON_S):
        raise Violation(f"nothing will end the lease at {expires_at}: the deadline is {deadline}")
