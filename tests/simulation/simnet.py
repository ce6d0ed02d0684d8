"""The simulated network and its clock: seeded, in virtual time.

A datagram may be lost, doubled, delayed (and so reordered), or corrupted on its way. Corruption that UDP's checksum
finds is loss; ``corrupt`` is the rest, damage that reaches the receiver. Of that, everything is delivered that the
receiver has the means to refuse. What no receiver can tell from the truth (a well-formed answer to the pending xid, a
well-formed question) is what the checksum is for, and is lost.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address

from b4client.model.errors import WireError
from b4client.wire import dhcp4, dhcp4o6, dhcp6
from b4client.wire.dhcp4 import Dhcp4Message, Option


class Clock:
    """Virtual time and what is to happen in it; events of one instant happen in the order they were asked for."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Let ``what`` happen at ``when`` (now, when that has passed)."""
        self._serial += 1
        heapq.heappush(self._events, (max(when, self.now), self._serial, what))

    def after(self, delay_s: float, what: Callable[[], None]) -> None:
        """Let ``what`` happen in ``delay_s`` seconds."""
        self.at(self.now + delay_s, what)

    def run(self, until: float) -> int:
        """Let everything happen that is due by ``until``; how many events that were."""
        events, count = self._events, 0
        while events and events[0][0] <= until:
            self.now, _, what = heapq.heappop(events)
            what()
            count += 1
        self.now = max(self.now, until)
        return count


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to datagrams: probabilities, and delays in seconds."""

    loss: float = 0.0
    double: float = 0.0
    corrupt: float = 0.0
    delay: tuple[float, float] = (0.001, 0.02)
    straggle: float = 0.0
    """Probability of a delay of up to ``straggle_s`` instead."""
    straggle_s: float = 0.0

    @property
    def longest_s(self) -> float:
        """No datagram is older when it arrives."""
        return max(self.delay[1], self.straggle_s)


FAIR = Weather()


class Network:
    """Carries datagrams between addresses. ``deliver(data, source, destination)`` is called when one arrives."""

    def __init__(
        self, clock: Clock, rng: random.Random, deliver: Callable[[bytes, IPv6Address, IPv6Address], None]
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._deliver = deliver
        self.weather = FAIR
        self.counts = {"sent": 0, "lost": 0, "doubled": 0, "straggled": 0, "damaged": 0, "delivered": 0}

    def send(self, data: bytes, source: IPv6Address, destination: IPv6Address) -> None:
        """Put a datagram on its way."""
        rng, weather, counts = self._rng, self.weather, self.counts
        counts["sent"] += 1
        copies = 1
        if weather.loss and rng.random() < weather.loss:
            counts["lost"] += 1
            copies -= 1
        if weather.double and rng.random() < weather.double:
            counts["doubled"] += 1
            copies += 1
        for _ in range(copies):
            delay_s = rng.uniform(*weather.delay)
            if weather.straggle and rng.random() < weather.straggle:
                counts["straggled"] += 1
                delay_s = rng.uniform(0, weather.straggle_s)
            octets = data
            if weather.corrupt and rng.random() < weather.corrupt:
                damaged = damage(data, rng)
                if not tellable(data, damaged):
                    counts["lost"] += 1
                    continue
                counts["damaged"] += 1
                octets = damaged
            self._arrive_after(delay_s, octets, source, destination)

    def _arrive_after(self, delay_s: float, data: bytes, source: IPv6Address, destination: IPv6Address) -> None:
        def arrive() -> None:
            self.counts["delivered"] += 1
            self._deliver(data, source, destination)

        self._clock.after(delay_s, arrive)


def damage(data: bytes, rng: random.Random) -> bytes:
    """``data`` with some of it changed, cut off, repeated or inserted."""
    octets = bytearray(data)
    match rng.randrange(5):
        case 0:
            for _ in range(rng.randint(1, 8)):
                octets[rng.randrange(len(octets))] ^= 1 << rng.randrange(8)
        case 1:
            del octets[rng.randrange(len(octets)) :]
        case 2:
            at = rng.randrange(len(octets))
            octets[at:at] = rng.randbytes(rng.randint(1, 40))
        case 3:
            at = rng.randrange(len(octets))
            octets[at : at + rng.randint(1, 8)] = b""
        case 4:
            at = rng.randrange(len(octets))
            size = rng.randint(1, 8)
            octets[at : at + size] = rng.randbytes(size)
    return bytes(octets)


def tellable(honest: bytes, damaged: bytes) -> bool:
    """True when a receiver can refuse ``damaged``: it is malformed, or an answer to nobody's question."""
    if damaged == honest:
        return True
    try:
        if dhcp6.message_type(damaged) == dhcp6.MessageType.DHCPV4_RESPONSE:
            there = dhcp4.decode(dhcp4o6.decode(damaged).dhcp4)
            asked = _inner(honest)
            return asked is None or there.xid != asked.xid or _foreign(there, asked)
        if dhcp6.message_type(damaged) == dhcp6.MessageType.REPLY:
            reply = dhcp6.decode(damaged)
            asked6 = dhcp6.decode(honest)
            same = reply.transaction_id == asked6.transaction_id
            return not same or reply.get(2) is None or reply.get(1) != asked6.get(1)
        if dhcp6.message_type(damaged) == dhcp6.MessageType.DHCPV4_QUERY:
            dhcp4.decode(dhcp4o6.decode(damaged).dhcp4)
            return False
        if dhcp6.message_type(damaged) == dhcp6.MessageType.INFORMATION_REQUEST:
            dhcp6.decode(damaged)
            return False
        return True
    except WireError:
        return True


def _inner(data: bytes) -> Dhcp4Message | None:
    try:
        return dhcp4.decode(dhcp4o6.decode(data).dhcp4)
    except WireError:
        return None


def _foreign(there: Dhcp4Message, asked: Dhcp4Message) -> bool:
    client_id = there.get(Option.CLIENT_ID)
    return client_id is not None and client_id != asked.get(Option.CLIENT_ID)
