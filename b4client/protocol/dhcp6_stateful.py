"""The stateful DHCPv6 client (RFC 8415 18.2): one delegated prefix (IA_PD), optionally an address (IA_NA).

Pure: every method takes ``now`` (boot-clock seconds) and returns what is to be sent; the caller multicasts it. Always
multicast: Server Unicast is obsolete (RFC 9915). Reconfigure is not accepted, so servers do not send it to us
(RFC 8415 18.2.11, 20.4): one that comes is an unexpected message.
"""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv6Address

from b4client.model.lease6 import Binding6, Lease6
from b4client.protocol.backoff import DHCP6_RAND, Dhcp6Retransmission
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp6_exchange import (
    FOREVER,
    NOT_PROCESSED,
    PROVISIONING_OPTIONS,
    Exchange,
    read_answer,
    read_max_rt,
    read_preference,
    read_status,
    server_of,
    status_in_words,
)
from b4client.protocol.dhcp6_leases import Granted, Wanted, read_leases
from b4client.protocol.dhcp6_messages import MessageWriter
from b4client.protocol.dhcp6_states import (
    Advertised,
    Bound,
    Confirming,
    Declining,
    Delaying,
    Idle,
    Rebinding,
    Releasing,
    Renewing,
    Requesting,
    Soliciting,
    State,
)
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option, StatusCode

SOL_MAX_DELAY_S = CNF_MAX_DELAY_S = 1.0
SOL_MAX_RT_S = 3600.0
SOL_TIMEOUT_S = 1.0
REQUEST_TIMES, REQ_MAX_RC = Dhcp6Retransmission(1.0, 30.0), 10
RENEW_TIMES = REBIND_TIMES = Dhcp6Retransmission(10.0, 600.0)
CONFIRM_TIMES, CNF_MAX_RD_S = Dhcp6Retransmission(1.0, 4.0), 10.0
RELEASE_TIMES, REL_MAX_RC = Dhcp6Retransmission(1.0, 0.0), 4
"""Also those of Decline (RFC 8415 7.6)."""
MIN_REASK_S = 30.0
"""Exchanges started by link changes are at least this far apart [D-13]."""
SETBACK_S = (1.0, 120.0)
"""Wait before the discovery begins again after a server took back what it had offered: doubled each time, up to the
second value, so that two machines do not keep each other busy (RFC 8415 14.1)."""
BEST_PREFERENCE = 255


class StatefulDhcp6Client:
    """One interface's leases. It never gives up: without an answer it solicits at SOL_MAX_RT.

    ``stored`` is the binding of an earlier life on the present boot clock; it is verified before anything else is
    asked, and may be used meanwhile.
    """

    configures_wan = True

    def __init__(
        self,
        duid: bytes,
        wanted: Wanted,
        *,
        start_delay: bool,
        rng: random.Random,
        counters: Counters,
        rapid_commit: bool = False,
        stored: Binding6 | None = None,
    ) -> None:
        self._duid = duid
        self._wanted = wanted
        self._writer = MessageWriter(duid, wanted, rapid_commit=rapid_commit)
        self._start_delay = start_delay
        self._rapid_commit = rapid_commit
        self._rng = rng
        self._counters = counters
        self._state: State = Idle()
        self._binding = stored
        self._informed = False
        self._sol_max_rt_s = SOL_MAX_RT_S
        self._last_start = -FOREVER
        self._setbacks = 0
        self._problem: str | None = None

    # ---- what it has

    @property
    def state(self) -> State:
        """Where the exchange stands."""
        return self._state

    @property
    def idle(self) -> bool:
        """True when it must be started."""
        return isinstance(self._state, Idle)

    @property
    def binding(self) -> Binding6 | None:
        """The leases with their server and times, to be kept over restarts."""
        return self._binding

    @property
    def lease(self) -> Lease6:
        """The addresses and prefixes that may be used."""
        return Lease6() if self._binding is None else self._binding.lease

    @property
    def waiting_for(self) -> str:
        """What it waits for, in words."""
        asked = {Soliciting: "SOLICIT", Requesting: "REQUEST", Confirming: "CONFIRM", Rebinding: "REBIND"}
        question = asked.get(type(self._state), "RENEW" if isinstance(self._state, Bound | Renewing) else "SOLICIT")
        return f"an answer to the DHCPv6 {question}" + (f"; {self._problem}" if self._problem else "")

    @property
    def problem(self) -> str | None:
        """Why a server does not grant what is asked for, in its words; None when none refused."""
        return self._problem

    # ---- time

    def deadline(self) -> float | None:
        """When ``wake`` has something to do."""
        instants = [item.valid_until for item in self.lease.every]
        match self._state:
            case Delaying(send_at):
                instants.append(send_at)
            case Bound():
                instants.append(self._t1_at)
            case Renewing(exchange):
                instants.append(min(exchange.due_at, self._t2_at))
            case Soliciting(exchange) | Requesting(exchange) | Rebinding(exchange) | Confirming(exchange):
                instants.append(exchange.due_at)
            case Declining(exchange) | Releasing(exchange):
                instants.append(exchange.due_at)
        due = min(instants, default=FOREVER)
        return None if due == FOREVER else due

    @property
    def _t1_at(self) -> float:
        return FOREVER if self._binding is None else self._binding.t1_at

    @property
    def _t2_at(self) -> float:
        return FOREVER if self._binding is None else self._binding.t2_at

    def start(self, now: float, *, opportunistic: bool = False) -> list[bytes]:
        """Begin: what is held is verified (RFC 8415 18.2.12), else servers are looked for. An ``opportunistic`` start
        (the link may have changed) keeps its distance to the last."""
        self._expire(now)
        lease = self.lease
        if lease.prefixes:
            kind, longest = MessageType.REBIND, CNF_MAX_DELAY_S
        elif lease.addresses:
            kind, longest = MessageType.CONFIRM, CNF_MAX_DELAY_S
        else:
            kind, longest = MessageType.SOLICIT, SOL_MAX_DELAY_S
        delay = self._rng.uniform(0, longest) if self._start_delay else 0.0
        if opportunistic:
            delay = max(delay, self._last_start + MIN_REASK_S - now)
        return self._begin_after(delay, kind, now)

    def stop(self) -> None:
        """The link is gone. The leases stay until they end."""
        self._state = Idle()

    def wake(self, now: float) -> list[bytes]:
        """Do what is due at ``now``; the messages to multicast."""
        if self._expire(now):
            return self._discover(now)
        match self._state:
            case Delaying(send_at, kind) if now >= send_at:
                return self._begin(kind, now)
            case Soliciting(exchange, best) if now >= exchange.due_at:
                return self._again(exchange, now) if best is None else self._request(best.server, best.lease, now)
            case Requesting(exchange, server, offered) if now >= exchange.due_at:
                if exchange.sends == 0:
                    return self._request(server, offered, now)
                if not exchange.is_over(now):
                    return self._again(exchange, now)
                if self.lease:
                    # It was about an IA beside those that are held: they go on, and Rebind asks any server for all.
                    return self._begin(MessageType.REBIND, now)
                return self._set_back(now)
            case Bound() | Renewing() if now >= self._t2_at:
                return self._begin(MessageType.REBIND, now)
            case Bound() if now >= self._t1_at:
                return self._begin(MessageType.RENEW, now)
            case Renewing(exchange) if now >= exchange.due_at:
                return self._again(exchange, now)
            case Rebinding(exchange, verifying) if now >= exchange.due_at:
                if not exchange.is_over(now):
                    return self._again(exchange, now)
                if verifying:
                    return self._not_answered(now)
                return self._discover(now)
            case Confirming(exchange) if now >= exchange.due_at:
                return self._not_answered(now) if exchange.is_over(now) else self._again(exchange, now)
            case Declining(exchange) | Releasing(exchange) if now >= exchange.due_at:
                return self._farewell_done(now) if exchange.is_over(now) else self._again(exchange, now)
        return []

    def _expire(self, now: float) -> bool:
        """Drop leases that have ended; True when none is left and servers must be looked for."""
        binding = self._binding
        if binding is None:
            return False
        lease = binding.lease.at(now)
        if lease:
            self._binding = replace(binding, lease=lease)
            return False
        self._binding = None
        return not isinstance(self._state, Idle | Soliciting | Releasing)

    def _not_answered(self, now: float) -> list[bytes]:
        """Nobody verified the leases: they SHOULD be used on (RFC 8415 18.2.3), and renewed at T1. What was received
        beside them is not known in this life: that is asked for at once."""
        self._state = Bound()
        # T1 or T2 may have come while nobody answered.
        return self.wake(now) if self._informed else self._begin(MessageType.REBIND, now, verifying=False)

    # ---- beginnings

    def _begin_after(self, delay_s: float, kind: MessageType, now: float) -> list[bytes]:
        if delay_s > 0:
            self._state = Delaying(now + delay_s, kind)
            return []
        return self._begin(kind, now, verifying=True)

    def _discover(self, now: float) -> list[bytes]:
        """Look for servers anew; what was held is not used any more (RFC 8415 18.2.10.1)."""
        self._binding = None
        delay_s = self._rng.uniform(0, SOL_MAX_DELAY_S) if self._start_delay else 0.0
        return self._begin_after(delay_s, MessageType.SOLICIT, now)

    def _set_back(self, now: float) -> list[bytes]:
        self._start_over(now)
        return []

    def _start_over(self, now: float) -> None:
        """What was offered or held is not ours: look for servers again, after a pause that grows."""
        self._binding = None
        first, longest = SETBACK_S
        # The exponent is capped before the power is taken: the counter may grow for months.
        self._state = Delaying(now + min(first * 2.0 ** min(self._setbacks, 8), longest), MessageType.SOLICIT)
        self._setbacks += 1

    def _begin(self, kind: MessageType, now: float, *, verifying: bool | None = None) -> list[bytes]:
        rng = self._rng
        verify = isinstance(self._state, Delaying) if verifying is None else verifying
        valid_until = max((item.valid_until for item in self.lease.every), default=now)
        confirm_ends = now + CNF_MAX_RD_S
        match kind:
            case MessageType.REBIND if verify:
                exchange = Exchange.begin(now, rng, CONFIRM_TIMES, ends_at=confirm_ends)
                self._state = Rebinding(exchange, verifying=True)
            case MessageType.REBIND:
                self._state = Rebinding(Exchange.begin(now, rng, REBIND_TIMES, ends_at=valid_until))
            case MessageType.RENEW:
                self._state = Renewing(Exchange.begin(now, rng, RENEW_TIMES, ends_at=self._t2_at))
            case MessageType.CONFIRM:
                self._state = Confirming(Exchange.begin(now, rng, CONFIRM_TIMES, ends_at=confirm_ends))
            case _:
                times = Dhcp6Retransmission(SOL_TIMEOUT_S, self._sol_max_rt_s)
                # The first wait is strictly greater than IRT (RFC 8415 18.2.1 [D-15]).
                first_s = SOL_TIMEOUT_S * (1 + rng.uniform(DHCP6_RAND / 100, DHCP6_RAND))
                self._state = Soliciting(Exchange.begin(now, rng, times, wait_s=first_s))
        if kind is not MessageType.RENEW:
            self._last_start = now
        return [self._message(now)]

    def _request(self, server: bytes, offered: Lease6, now: float) -> list[bytes]:
        exchange = Exchange.begin(now, self._rng, REQUEST_TIMES, limit=REQ_MAX_RC)
        self._state = Requesting(exchange, server, offered)
        return [self._message(now)]

    def _again(self, exchange: Exchange, now: float) -> list[bytes]:
        state = self._state
        if not isinstance(state, Idle | Delaying | Bound):
            self._state = replace(state, exchange=exchange.again(now, self._rng))
        return [self._message(now)]

    # ---- operator and shell

    def renew(self, now: float) -> list[bytes]:
        """Renew now, before T1; nothing when nothing is held or something is being asked."""
        return self._begin(MessageType.RENEW, now) if isinstance(self._state, Bound) and self._binding else []

    def release(self, now: float) -> list[bytes]:
        """Give everything back (RFC 8415 18.2.7) and stay idle until ``start``. The leases are not used from now on."""
        binding, self._binding = self._binding, None
        self._informed = False
        if binding is None:
            self._state = Idle()
            return []
        exchange = Exchange.begin(now, self._rng, RELEASE_TIMES, limit=REL_MAX_RC)
        self._state = Releasing(exchange, binding.server, binding.lease)
        return [self._message(now)]

    def decline(self, address: IPv6Address, now: float) -> list[bytes]:
        """Another host has this address: say so (RFC 8415 18.2.8) and use it no more."""
        binding = self._binding
        declined = Lease6(tuple(item for item in self.lease.addresses if item.address == address))
        if binding is None or not declined:
            return []
        rest = binding.lease.without(frozenset((address,)))
        self._binding = replace(binding, lease=rest) if rest else None
        exchange = Exchange.begin(now, self._rng, RELEASE_TIMES, limit=REL_MAX_RC)
        self._state = Declining(exchange, binding.server, declined)
        return [self._message(now)]

    def _farewell_done(self, now: float) -> list[bytes]:
        """A Release or Decline is answered, or was sent often enough."""
        if isinstance(self._state, Releasing):
            self._state = Idle()
            return []
        if self._binding is None:
            return self._set_back(now)
        # The address that was declined is asked for anew with the rest.
        self._state = Bound()
        return self._begin(MessageType.RENEW, now)

    def _message(self, now: float) -> bytes:
        """The message of the present state."""
        server = None if self._binding is None else self._binding.server
        return self._writer.write(self._state, self.lease, server, now)

    # ---- receiving

    def received(self, data: bytes, now: float) -> Dhcp6Message | None:
        """The Reply in ``data`` if it answers us and what it says beside the leases may be used; None if not.

        What is to be sent because of it is due at once: ``wake`` gives it.
        """
        state = self._state
        if isinstance(state, Idle | Delaying | Bound):
            read_answer(data, self._duid, None, (MessageType.REPLY,), self._counters)
            return None
        types = [MessageType.REPLY]
        if isinstance(state, Soliciting):
            types = [MessageType.ADVERTISE] + ([MessageType.REPLY] if self._rapid_commit else [])
        message = read_answer(data, self._duid, state.exchange.transaction_id, types, self._counters)
        if message is None:
            return None
        self._sol_max_rt_s = read_max_rt(message, Option.SOL_MAX_RT) or self._sol_max_rt_s
        if message.msg_type == MessageType.ADVERTISE:
            if isinstance(state, Soliciting):
                self._advertised(state, message, now)
            return None
        return self._replied(state, message, now)

    def _advertised(self, state: Soliciting, message: Dhcp6Message, now: float) -> None:
        """Remember the best Advertise of the first wait; take one of preference 255, or the first later one, at once
        (RFC 8415 18.2.1, 18.2.9)."""
        offer = read_leases(message, self._wanted, Lease6(), now, self._counters)
        if not offer.lease or read_status(message)[0] != StatusCode.SUCCESS:
            self._counters.count("drop-advertise-without-lease")
            self._problem = offer.problem or status_in_words(message) or self._problem
            return
        self._counters.count("received-advertise")
        preference = read_preference(message)
        provisions = sum(message.get(code) is not None for code in PROVISIONING_OPTIONS)
        rank = (offer.updated, preference, provisions)
        best = state.best
        if best is None or rank > best.rank:
            best = Advertised(server_of(message) or b"", offer.lease, rank)
        exchange = state.exchange
        if preference == BEST_PREFERENCE or exchange.sends > 1:
            exchange = replace(exchange, resend_at=now)
        self._state = Soliciting(exchange, best)

    def _replied(self, state: State, message: Dhcp6Message, now: float) -> Dhcp6Message | None:
        status, _ = read_status(message)
        if isinstance(state, Declining | Releasing):
            # Completed, whatever the status says (RFC 8415 18.2.10.2).
            self._state = replace(state, exchange=replace(state.exchange, ends_at=now))
            return None
        if status in NOT_PROCESSED:
            self._counters.count("drop-reply-failed")
            self._problem = status_in_words(message)
            return None
        if isinstance(state, Confirming):
            if status == StatusCode.NOT_ON_LINK:
                self._start_over(now)
            else:
                self._state = Bound()
                if not self._informed and self._binding is not None:
                    # A Confirm's Reply says nothing but that: what DHCPv6 provisions is asked for now.
                    self._binding = replace(self._binding, t1_at=now)
            return None
        if status == StatusCode.NOT_ON_LINK:
            self._problem = status_in_words(message)
            self._start_over(now)
            return None
        if isinstance(state, Soliciting) and message.get(Option.RAPID_COMMIT) is None:
            self._counters.count("drop-reply-foreign-transaction")  # RFC 8415 18.2.1: MUST be there
            return None
        return self._granted(state, message, now)

    def _granted(self, state: State, message: Dhcp6Message, now: float) -> Dhcp6Message | None:
        # A Request names everything that is wanted: what its Reply does not grant is not held any more.
        held = self.lease if isinstance(state, Renewing | Rebinding) else Lease6()
        granted = read_leases(message, self._wanted, held, now, self._counters)
        server = server_of(message) or b""
        self._problem = granted.problem or status_in_words(message)
        if granted.no_binding and isinstance(state, Renewing | Rebinding):
            # RFC 8415 18.2.10.1: a Request for all IAs to the server that answered; other bindings go on.
            self._keep(granted, server)
            self._state = Requesting(self._due_now(now), server, granted.lease or self.lease)
            return self._taken(message) if granted.updated else None
        if not granted.lease:
            self._counters.count("drop-reply-without-lease")
            self._start_over(now)
            return None
        if not granted.updated and granted.lease.networks == self.lease.networks:
            # It extends nothing: as if it had not come, at the pace of retransmission (RFC 8415 18.2.10.1).
            self._counters.count("drop-reply-without-lease")
            return None
        self._keep(granted, server)
        self._setbacks = 0
        self._state = Bound()
        return self._taken(message)

    def _keep(self, granted: Granted, server: bytes) -> None:
        if granted.lease:
            self._binding = Binding6(server, granted.lease, granted.t1_at, granted.t2_at)

    def _taken(self, message: Dhcp6Message) -> Dhcp6Message:
        self._counters.count("received-reply")
        self._informed = True
        return message

    def _due_now(self, now: float) -> Exchange:
        """An exchange of a REQUEST whose first transmission is still to come, at once."""
        exchange = Exchange.begin(now, self._rng, REQUEST_TIMES, limit=REQ_MAX_RC, wait_s=0.0)
        return replace(exchange, sends=0)
