"""The stateless DHCPv6 client (RFC 8415 18.2.6): asks for option 88 and the S46 containers, and asks again in time.

Pure: every method takes ``now`` (boot-clock seconds) and returns what is to be sent; the caller multicasts it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from b4client.protocol.backoff import Dhcp6Retransmission
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp6_exchange import (
    INFINITY,
    NOT_PROCESSED,
    PROVISIONING_OPTIONS,
    read_answer,
    read_max_rt,
    read_seconds,
    read_status,
)
from b4client.protocol.dhcp6_source import NoLeases
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option

INF_MAX_DELAY_S = 1.0
INF_TIMEOUT_S = 1.0
INF_MAX_RT_S = 3600.0
IRT_DEFAULT_S = 86400
IRT_MINIMUM_S = 600
MIN_REASK_S = 30.0
"""Exchanges started by link changes are at least this far apart [D-13]."""

REQUESTED_OPTIONS = (Option.INFORMATION_REFRESH_TIME, Option.INF_MAX_RT, *PROVISIONING_OPTIONS)
"""The Option Request Option of every INFORMATION-REQUEST: 32 and 83 are a MUST [D-3]."""

OTHERS_WITHIN_S = 10.0
"""How long after a Reply that provisions nothing another server is still listened to: relays and slow servers."""

PROVISIONING = (Option.DHCP4_O_DHCP6_SERVER, Option.S46_CONT_MAPE, Option.S46_CONT_LW, Option.AFTR_NAME)
"""Options of which one at least makes a Reply worth having."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to send: not started, or no link."""


@dataclass(frozen=True, slots=True)
class Delaying:
    """Waiting a random moment before the first message of an exchange (RFC 8415 18.2.6 [D-5])."""

    send_at: float


@dataclass(frozen=True, slots=True)
class Asking:
    """An INFORMATION-REQUEST is out. ``wait_s`` is the present retransmission time."""

    transaction_id: int
    began_at: float
    wait_s: float
    resend_at: float


@dataclass(frozen=True, slots=True)
class Informed:
    """The last Reply holds until ``refresh_at`` (None: for ever).

    ``unserved`` is the transaction of a Reply that provisioned nothing: until ``others_until`` the first Reply to the
    same question that does is taken as well, and no other after it.
    """

    refresh_at: float | None
    unserved: int | None = None
    others_until: float = 0.0


State = Idle | Delaying | Asking | Informed


class Dhcp6Client(NoLeases):
    """One interface's INFORMATION-REQUEST exchanges. It never gives up (MRC and MRD are 0)."""

    waiting_for = "an answer to the DHCPv6 INFORMATION-REQUEST"

    def __init__(self, duid: bytes, *, start_delay: bool, rng: random.Random, counters: Counters) -> None:
        self._duid = duid
        self._start_delay = start_delay
        self._rng = rng
        self._counters = counters
        self._state: State = Idle()
        self._inf_max_rt_s = INF_MAX_RT_S
        self._last_start = float("-inf")

    @property
    def state(self) -> State:
        """Where the exchange stands."""
        return self._state

    @property
    def idle(self) -> bool:
        """True when it must be started."""
        return isinstance(self._state, Idle)

    def deadline(self) -> float | None:
        """When ``wake`` has something to do."""
        match self._state:
            case Delaying(send_at):
                return send_at
            case Asking(resend_at=at):
                return at
            case Informed(refresh_at):
                return refresh_at
        return None

    def start(self, now: float, *, opportunistic: bool = False) -> list[bytes]:
        """Begin an exchange. An ``opportunistic`` one (the link may have changed) keeps its distance to the last."""
        delay = self._rng.uniform(0, INF_MAX_DELAY_S) if self._start_delay else 0.0
        if opportunistic:
            delay = max(delay, self._last_start + MIN_REASK_S - now)
        if delay > 0:
            self._state = Delaying(now + delay)
            return []
        return self._ask(now)

    def stop(self) -> None:
        """The link is gone."""
        self._state = Idle()

    def wake(self, now: float) -> list[bytes]:
        """Do what is due at ``now``; the messages to multicast."""
        match self._state:
            case Delaying(send_at) if now >= send_at:
                return self._ask(now)
            case Asking(transaction_id, began_at, wait_s, resend_at) if now >= resend_at:
                wait_s = self._times().next_s(wait_s, self._rng)
                self._state = Asking(transaction_id, began_at, wait_s, now + wait_s)
                return [self._message(transaction_id, now - began_at)]
            case Informed(refresh_at) if refresh_at is not None and now >= refresh_at:
                return self.start(now)
        return []

    def received(self, data: bytes, now: float) -> Dhcp6Message | None:
        """The Reply in ``data`` if it answers us (RFC 8415 16.10 [D-8]); None (and a count) if not."""
        state, late = self._state, False
        match state:
            case Asking(transaction_id=asked):
                pass
            case Informed(unserved=asked, others_until=until) if now < until:
                late = asked is not None
            case _:
                asked = None
        message = read_answer(data, self._duid, asked, (MessageType.REPLY,), self._counters)
        if message is None:
            return None
        provisions = any(message.get(option) is not None for option in PROVISIONING)
        failed = read_status(message)[0] in NOT_PROCESSED
        if late and (failed or not provisions):
            # The question is answered: nothing else in it counts either.
            self._counters.count("drop-reply-late")
            return None
        self._inf_max_rt_s = read_max_rt(message, Option.INF_MAX_RT) or self._inf_max_rt_s
        if failed:
            # It says nothing about option 88, so it must not end 4o6 [F-2]: the exchange goes on, at its own pace.
            self._counters.count("drop-reply-failed")
            return None
        self._counters.count("received-reply")
        if late:
            self._counters.count("received-reply-late")
        # RFC 8415 18.2.10.4 takes the first Reply. A quicker server beside the provider's that knows nothing of
        # softwires would keep IPv4 away for a day (IRT_DEFAULT).
        unserved = None if provisions else asked
        self._state = Informed(self._refresh_at(message, now), unserved, now + OTHERS_WITHIN_S)
        return message

    def _times(self) -> Dhcp6Retransmission:
        return Dhcp6Retransmission(INF_TIMEOUT_S, self._inf_max_rt_s)

    def _ask(self, now: float) -> list[bytes]:
        transaction_id = self._rng.getrandbits(24)
        wait_s = self._times().first_s(self._rng)
        self._state = Asking(transaction_id, now, wait_s, now + wait_s)
        self._last_start = now
        return [self._message(transaction_id, 0.0)]

    def _message(self, transaction_id: int, elapsed_s: float) -> bytes:
        options = (
            (int(Option.CLIENTID), self._duid),
            (int(Option.ELAPSED_TIME), dhcp6.encode_elapsed(elapsed_s)),
            (int(Option.ORO), dhcp6.encode_oro(REQUESTED_OPTIONS)),
        )
        return dhcp6.encode(Dhcp6Message(MessageType.INFORMATION_REQUEST, transaction_id, options))

    def _refresh_at(self, message: Dhcp6Message, now: float) -> float | None:
        """RFC 8415 21.23 [D-10]. A malformed option is as if absent."""
        value = read_seconds(message.get(Option.INFORMATION_REFRESH_TIME))
        if value == INFINITY:
            return None
        return now + max(IRT_DEFAULT_S if value is None else value, IRT_MINIMUM_S)
