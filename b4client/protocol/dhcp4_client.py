"""The DHCPv4 client inside 4o6: INIT, SELECTING, REQUESTING, BOUND, RENEWING, REBINDING, INIT-REBOOT.

RFC 2131 4.4 as RFC 7341 9 and RFC 7618 5 to 7 change it. Pure: methods take ``now`` (boot-clock seconds) and return
outputs in order; who may be asked, and from which address, is the agent's affair.

Decisions where the RFCs leave room:

- A lease counts from the *first* REQUEST sent with its xid (SELECTING and INIT-REBOOT keep the xid over
  retransmissions). RENEWING and REBINDING take a new xid for each REQUEST and believe only answers to the newest, so
  that a late answer never shortens the lease.
- After a refusal the next DISCOVER waits longer each time (0, 4, 8 ... 64 s), until a lease was held again.
- An ACK that misses option 159 for a shared offer or lease is refused (RFC 7618 6 step 4 makes it a MUST).
"""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv6Address

from b4client.model.errors import OfferError, WireError
from b4client.model.lease import Lease4
from b4client.model.settings import ProtocolSettings
from b4client.protocol import backoff
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp4_messages import (
    Composer,
    Identity,
    note_forbidden,
    read_lease,
    read_offer,
    read_server,
    read_softwire,
)
from b4client.protocol.dhcp4_outputs import Gained, Lost, Noted, Output, Prepare, Query
from b4client.protocol.dhcp4_states import (
    TRANSITIONS,
    Bound,
    Coasting,
    Confirming,
    Init,
    InitReboot,
    Offer,
    Preparing,
    Rebinding,
    Renewing,
    Requesting,
    Selecting,
    State,
    Stopped,
    due_at,
    usable_lease,
)
from b4client.wire import softwire46
from b4client.wire.dhcp4 import BOOTREPLY, Dhcp4Message, MessageType, Option
from b4client.wire.dhcp6 import Options

START_DELAY_S = (1.0, 10.0)
REQUEST_SENDS = 5
"""REQUESTs to one offer: 4 + 8 + 16 + 32 s of waiting are the 60 s of RFC 2131 3.1.5 [S-3]; a last wait ends it."""
REBOOT_SENDS = 3
MAX_OFFERS = 16
MAX_SECS = 0xFFFF
PREPARE_S = 30.0
"""The softwire's source must be ready that soon after the offer was chosen: servers do not keep offers for long."""
MAX_REFUSALS = 2
"""ACKs with another softwire source before the lease is given back and all begins anew (RFC 8539 7.5)."""


class Dhcp4Client:
    """One client identity's lease. ``several_servers`` tells whether more than one OFFER can be expected.

    ``settings`` may be replaced at any time.
    ``dynamic`` switches RFC 8539 on: the softwire comes with the lease. ``saddr`` is then the softwire's source that
    REQUESTs name.
    """

    def __init__(
        self, identity: Identity, settings: ProtocolSettings, *, rng: random.Random, counters: Counters
    ) -> None:
        self._compose = Composer(identity)
        self._client_id = identity.client_id
        self.settings = settings
        self._rng = rng
        self._counters = counters
        self._state: State = Stopped()
        self._failures = 0
        self._previous: Lease4 | None = None
        self.several_servers = True
        self.dynamic = False
        self.saddr: IPv6Address | None = None

    # ---- looking

    @property
    def state(self) -> State:
        """Where the exchange stands."""
        return self._state

    @property
    def lease(self) -> Lease4 | None:
        """The lease that may be used now; None when there is none (or only one that is still being asked for)."""
        return usable_lease(self._state)

    def deadline(self) -> float | None:
        """When ``wake`` has something to do."""
        return due_at(self._state)

    # ---- what the agent wants

    def hint(self, previous: Lease4) -> None:
        """The next DISCOVER asks for this address and port set first (RFC 7618 7 [S-18])."""
        self._previous = previous

    def start(self, now: float, *, previous: Lease4 | None = None) -> list[Output]:
        """Look for a lease from the beginning (DISCOVER), preferring ``previous`` if it can be had again."""
        self._previous = previous or self._previous
        lost = self._lost("looking for a lease from the beginning")
        delay = self._rng.uniform(*START_DELAY_S) if self.settings.start_delay else 0.0
        self._enter(Init(now + delay))
        return lost if delay else lost + self.wake(now)

    def reboot(self, now: float, lease: Lease4, *, in_use: bool, usable: bool) -> list[Output]:
        """Ask for a known lease again (RFC 2131 3.2). The caller has checked that the 4o6 source is unchanged [S-4]."""
        self._previous = lease
        delay = self._rng.uniform(*START_DELAY_S) if self.settings.start_delay and not in_use else 0.0
        self._enter(InitReboot(lease, in_use, usable, now + delay, None, 0.0, 0, now + delay))
        return [] if delay else self.wake(now)

    def verify(self, now: float) -> list[Output]:
        """The link may be another one: ask for the lease in hand again while its traffic goes on (RFC 2131 3.7)."""
        lease = self.lease
        if lease is None or isinstance(self._state, Coasting):
            return self.nudge(now)
        if isinstance(self._state, InitReboot):
            return self.nudge(now)
        return self.reboot(now, lease, in_use=True, usable=True)

    def nudge(self, now: float) -> list[Output]:
        """What was being tried could not be heard: try again at once instead of after a long wait."""
        match self._state:
            case Init() | Selecting() | Preparing() | Requesting():
                self._enter(Init(now))
            case Confirming() as state:
                self._enter(replace(state, xid=None, attempt=0, resend_at=now))
            case InitReboot(lease=lease, in_use=in_use, usable=usable):
                self._enter(InitReboot(lease, in_use, usable, now, None, 0.0, 0, now))
            case _:
                return []
        return self.wake(now)

    def restart(self, now: float, reason: str) -> list[Output]:
        """Give up what there is and DISCOVER (the 4o6 source address changed, RFC 7618 6 [F-10])."""
        lost = self._lost(reason)
        self._failures = 0
        self._enter(Init(now))
        return lost + self.wake(now)

    def stop(self, now: float, *, keep_lease: bool, reason: str) -> list[Output]:
        """4o6 may not be used any more [F-2]: keep a lease in hand until it expires, or lose it at once."""
        lease = self.lease
        if lease is not None and keep_lease:
            if not isinstance(self._state, Coasting):
                self._enter(Coasting(lease))
            return self.wake(now)
        lost = self._lost(reason)
        if not isinstance(self._state, Stopped):
            self._enter(Stopped())
        return lost

    def _lost(self, reason: str) -> list[Output]:
        """What is to be said when the state is left for good: a lease ends that was in use, or could have been."""
        known = self.lease is not None or isinstance(self._state, InitReboot)
        return [Lost(reason)] if known else []

    # ---- the softwire's source (RFC 8539)

    def prepared(self, now: float, saddr: IPv6Address) -> list[Output]:
        """The softwire's source for the chosen offer is ready: ask for the lease with it (RFC 8539 7.1)."""
        state = self._state
        if not isinstance(state, Preparing):
            return []
        self.saddr = saddr
        return self._request(Requesting(state.offer, state.xid, state.secs, now, 0, now), now)

    def unprepared(self, now: float, reason: str) -> list[Output]:
        """No softwire can be made for the chosen offer."""
        return self._fail(now, "unprepared", reason) if isinstance(self._state, Preparing) else []

    def readdress(self, now: float, saddr: IPv6Address) -> list[Output]:
        """The softwire has another source from now on: tell the server (RFC 8539 7.2.1 [E-11, X-1])."""
        self.saddr = saddr
        match self._state:
            case Bound(lease) | Renewing(lease=lease) | Rebinding(lease=lease):
                return self._confirm(now, lease, in_use=True, refusals=0, wait_s=0.0)
            case Confirming(lease=lease, in_use=in_use):
                return self._confirm(now, lease, in_use=in_use, refusals=0, wait_s=0.0)
            case InitReboot():
                return self.nudge(now)
        return []

    def _confirm(self, now: float, lease: Lease4, *, in_use: bool, refusals: int, wait_s: float) -> list[Output]:
        self._enter(Confirming(lease, in_use, refusals, now, None, 0.0, 0, now + wait_s))
        return self.wake(now)

    def _wake_confirming(self, state: Confirming, now: float) -> list[Output]:
        lease = state.lease
        if now >= lease.expires_at:
            return self._overdue(now, lease)
        if now < state.resend_at:
            return []
        if state.xid is not None and state.attempt + 1 >= REQUEST_SENDS:
            # Silence may be the server's way of refusing, for a time (RFC 8539 8.1): another round, later.
            self._enter(replace(state, xid=None, attempt=0, resend_at=now + self._saddr_wait_s()))
            return []
        again = state.xid is not None
        xid = state.xid if state.xid is not None else self._xid()
        attempt = state.attempt + 1 if again else 0
        resend_at = now + backoff.dhcp4_delay_s(attempt, self._rng)
        requested_at = state.requested_at if again else now
        self._enter(replace(state, xid=xid, requested_at=requested_at, attempt=attempt, resend_at=resend_at))
        message = self._compose.extend(xid, _secs(now - state.began_at), lease, self._saddr)
        return [Query(message, now < lease.t2_at, "DHCPREQUEST", self.dynamic)]

    def _saddr_wait_s(self) -> float:
        """A randomised interval, at least as configured (RFC 8539 7.5 [E-8])."""
        least = self.settings.saddr_retry_s
        return least + self._rng.uniform(0, least / 4)

    @property
    def _saddr(self) -> IPv6Address | None:
        return self.saddr if self.dynamic else None

    def _confirmed(self, lease: Lease4) -> bool:
        """True when the server has stored the softwire's source that we have, or need not know it."""
        told = None if lease.softwire is None else lease.softwire.saddr
        return not self.dynamic or (told is not None and told == self.saddr)

    def _mismatched(self, lease: Lease4, now: float) -> list[Output]:
        """The ACK's option 109 is another address than ours, or missing: no traffic until it is (RFC 8539 7.5)."""
        state, held = self._state, self.lease
        refusals = state.refusals + 1 if isinstance(state, Confirming) else 1
        told = None if lease.softwire is None else lease.softwire.saddr
        text = f"the server has stored {told or 'no address'} as the softwire's source, not {self.saddr}"
        self._counters.count("warned-saddr-mismatch")
        # What the server has stored may be what is there still: then only the change is refused, and traffic goes on.
        before = None if held is None or held.softwire is None else held.softwire.saddr
        in_use = told is not None and told == before
        if refusals >= MAX_REFUSALS:
            release = Query(self._compose.release(self._xid(), lease), True, "DHCPRELEASE")
            self._previous = lease
            return [release, Lost(text, forget=True), *self._fail(now, "saddr-mismatch", text)]
        wait_s = self._saddr_wait_s()
        note = Noted("saddr-mismatch", "warning", f"{text}; asking again in {wait_s:.0f} s")
        # In use it is the same softwire, for longer.
        change: list[Output] = [Gained(lease)] if in_use else self._lost(text)
        return [note, *change, *self._confirm(now, lease, in_use=in_use, refusals=refusals, wait_s=wait_s)]

    def resume(self, now: float) -> list[Output]:
        """4o6 may be used again: renew what is held, or look for a lease."""
        if isinstance(self._state, Coasting):
            self._enter(Bound(self._state.lease))
            return self.wake(now)
        return self.start(now) if isinstance(self._state, Stopped) else []

    def renew(self, now: float) -> list[Output]:
        """An operator asks for a renewal now."""
        match self._state:
            case Bound(lease) | Renewing(lease=lease):
                return self._renew(now, lease) if now < lease.t2_at else self._overdue(now, lease)
            case Confirming():
                return self.nudge(now)
        return []

    def rebind(self, now: float) -> list[Output]:
        """An operator asks for a rebinding now."""
        match self._state:
            case Bound(lease) | Renewing(lease=lease) | Rebinding(lease=lease):
                return self._rebind(now, lease) if now < lease.expires_at else self._overdue(now, lease)
            case Confirming():
                return self.nudge(now)
        return []

    def release(self, now: float) -> list[Output]:
        """Give the lease back: one RELEASE, which is never repeated (RFC 2131 4.4.6 [T-9])."""
        held = self.lease
        lease = self._state.lease if isinstance(self._state, Confirming) else held
        outputs: list[Output] = []
        if lease is not None and isinstance(self._state, Coasting):
            # Without option 88 nothing is sent by 4o6, not even this (RFC 7341 9 ).
            outputs = [Lost("released, without word to the server: option 88 is withdrawn", forget=True)]
        elif lease is not None:
            message = self._compose.release(self._xid(), lease)
            outputs = [Query(message, True, "DHCPRELEASE")]
            outputs += [Lost("released", forget=True)] if held is not None else []
        elif isinstance(self._state, InitReboot):
            outputs = [Lost("released before it was confirmed", forget=True)]
        if not isinstance(self._state, Stopped):
            self._enter(Stopped())
        self._previous = None
        return outputs

    # ---- time

    def wake(self, now: float) -> list[Output]:
        """Do what is due at ``now``."""
        match self._state:
            case Init(send_at) if now >= send_at:
                return self._discover(now, self._xid(), now, 0)
            case Selecting() as state:
                if state.select_at is not None and now >= state.select_at:
                    return self._select(state, now)
                if now >= state.resend_at:
                    outputs = self._discover(now, state.xid, state.began_at, state.attempt + 1)
                    if isinstance(self._state, Selecting):
                        self._enter(replace(self._state, offers=state.offers, select_at=state.select_at))
                    return outputs
            case Preparing(give_up_at=give_up_at) if now >= give_up_at:
                return self._fail(now, "unprepared", "the softwire's source was not ready in time")
            case Confirming() as state:
                return self._wake_confirming(state, now)
            case Requesting(resend_at=resend_at) as state if now >= resend_at:
                if state.attempt + 1 >= REQUEST_SENDS:
                    return self._fail(now, "request-timeout", f"no answer to the REQUEST for {state.offer.address}")
                return self._request(replace(state, attempt=state.attempt + 1), now)
            case InitReboot() as state:
                return self._wake_reboot(state, now)
            case Bound(lease) if now >= lease.t1_at:
                return self._overdue(now, lease)
            case Renewing(lease=lease, resend_at=resend_at) if now >= min(resend_at, lease.t2_at):
                return self._overdue(now, lease)
            case Rebinding(lease=lease, resend_at=resend_at) if now >= min(resend_at, lease.expires_at):
                return self._overdue(now, lease)
            case Coasting(lease) if now >= lease.expires_at:
                # 4o6 may not be used, so nothing new can be asked for.
                self._enter(Stopped())
                return [Lost("the lease expired and option 88 is withdrawn")]
        return []

    def _overdue(self, now: float, lease: Lease4) -> list[Output]:
        """T1, T2 or the end of the lease has come; after a suspension several at once, and the last one counts."""
        if now >= lease.expires_at:
            self._enter(Init(now))
            # RFC 2131 4.4.5 [S-9]: any use ends at once, before anything new is tried.
            return [Lost("the lease expired"), *self.wake(now)]
        # REBINDING that an operator asked for before T2 goes on as REBINDING.
        if now >= lease.t2_at or isinstance(self._state, Rebinding):
            return self._rebind(now, lease)
        return self._renew(now, lease)

    def _wake_reboot(self, state: InitReboot, now: float) -> list[Output]:
        if now >= state.lease.expires_at:
            self._enter(Init(now))
            return [Lost("the lease expired before it was confirmed"), *self.wake(now)]
        if now < state.resend_at:
            return []
        if state.xid is not None and state.attempt + 1 >= REBOOT_SENDS:
            if not state.usable or not self._confirmed(state.lease):
                return [Lost("no server confirmed the stored lease"), *self._fail(now, "reboot-timeout", "no answer")]
            # RFC 2131 3.2 step 3: without an answer the lease may be used for the rest of its time.
            self._enter(Bound(state.lease))
            note = Noted(
                "reboot-unconfirmed", "warning", "no server answered: the stored lease is used until it expires"
            )
            return [note, Gained(state.lease), *self.wake(now)]
        attempt = state.attempt + 1 if state.xid is not None else 0
        xid = self._xid() if state.xid is None else state.xid
        requested_at = now if state.xid is None else state.requested_at
        resend_at = now + backoff.dhcp4_delay_s(attempt, self._rng)
        began_at = now if state.xid is None else state.began_at
        self._enter(
            InitReboot(state.lease, state.in_use, state.usable, began_at, xid, requested_at, attempt, resend_at)
        )
        message = self._compose.reboot(xid, _secs(now - began_at), state.lease, self._saddr)
        return [Query(message, False, "DHCPREQUEST", self.dynamic)]

    # ---- sending

    def _discover(self, now: float, xid: int, began_at: float, attempt: int) -> list[Output]:
        secs = _secs(now - began_at)
        resend_at = now + backoff.dhcp4_delay_s(attempt, self._rng)
        self._enter(Selecting(xid, began_at, secs, attempt, resend_at))
        message = self._compose.discover(xid, secs, previous=self._previous, hint=self.settings.psid_len_hint)
        return [Query(message, False, "DHCPDISCOVER", self.dynamic)]

    def _select(self, state: Selecting, now: float) -> list[Output]:
        chosen = min(state.offers, key=self._rank)  # the first of equals
        if self.dynamic:
            self._enter(Preparing(chosen, state.xid, state.secs, now + PREPARE_S))
            return [Prepare(chosen)]
        return self._request(Requesting(chosen, state.xid, state.secs, now, 0, now), now)

    def _rank(self, offer: Offer) -> tuple[bool, int]:
        """Whole addresses before shared ones unless configured otherwise (RFC 7618 5 [S-12]), then the larger set."""
        shared = offer.ports is not None
        return shared != self.settings.prefer_shared, -(offer.ports.port_count if offer.ports is not None else 65536)

    def _request(self, state: Requesting, now: float) -> list[Output]:
        self._enter(replace(state, resend_at=now + backoff.dhcp4_delay_s(state.attempt, self._rng)))
        message = self._compose.select(state.xid, state.secs, state.offer, self._saddr)
        return [Query(message, False, "DHCPREQUEST", self.dynamic)]

    def _renew(self, now: float, lease: Lease4) -> list[Output]:
        began_at = self._state.began_at if isinstance(self._state, Renewing) else now
        xid = self._xid()
        self._enter(Renewing(lease, began_at, xid, now, now + backoff.renew_delay_s(now, lease.t2_at, began_at)))
        message = self._compose.extend(xid, _secs(now - began_at), lease, self._saddr)
        return [Query(message, True, "DHCPREQUEST", self.dynamic)]

    def _rebind(self, now: float, lease: Lease4) -> list[Output]:
        began_at = self._state.began_at if isinstance(self._state, Rebinding) else now
        xid = self._xid()
        self._enter(Rebinding(lease, began_at, xid, now, now + backoff.renew_delay_s(now, lease.expires_at, began_at)))
        message = self._compose.extend(xid, _secs(now - began_at), lease, self._saddr)
        return [Query(message, False, "DHCPREQUEST", self.dynamic)]

    # ---- receiving

    def received(self, message: Dhcp4Message, now: float, outer: Options = ()) -> list[Output]:
        """One inner message, and the DHCPv6 options beside it. What does not answer our pending one is counted and
        otherwise without effect [Q-8]."""
        state = self._state
        xid = getattr(state, "xid", None)
        if message.op != BOOTREPLY or message.message_type is None:
            return self._drop("drop-response-not-a-reply")
        if xid is None:
            return self._drop("drop-response-not-in-use")
        if message.xid != xid:
            return self._drop("drop-response-foreign-xid")
        client_id = message.get(Option.CLIENT_ID)
        if client_id is not None and client_id != self._client_id:
            return self._drop("drop-response-foreign-client-id")
        kind = message.message_type
        try:
            match state:
                case Selecting() if kind == MessageType.OFFER:
                    return self._offered(state, message, now, outer)
                case Requesting() if kind == MessageType.ACK:
                    return self._acknowledged_offer(state, message, now, outer)
                case Requesting(offer=offer) if kind == MessageType.NAK:
                    return self._refused(message, now, asked=offer)
                case (
                    InitReboot(lease=lease, requested_at=at)
                    | Renewing(lease=lease, requested_at=at)
                    | Rebinding(lease=lease, requested_at=at)
                    | Confirming(lease=lease, requested_at=at)
                ):
                    if kind == MessageType.ACK:
                        return self._extended(lease, at, message, now, outer)
                    if kind == MessageType.NAK:
                        asked = Offer(lease.address, lease.ports, lease.server_id)
                        return self._refused(
                            message, now, asked=asked if isinstance(state, Renewing | Confirming) else None
                        )
        except OfferError as error:
            self._counters.count(error.counter)
            return [Noted("refused", "warning", f"refused a server's message: {error}")]
        return self._drop("drop-response-wrong-state")

    def _drop(self, counter: str) -> list[Output]:
        self._counters.count(counter)
        return []

    def _offered(self, state: Selecting, message: Dhcp4Message, now: float, outer: Options) -> list[Output]:
        offer = read_offer(message, self._counters)
        if self.dynamic:
            offer = replace(offer, softwire=read_softwire(outer, self._counters))
            if offer.softwire is None:
                # RFC 8539 7.1 MUST [E-3]: without a BR there is nothing to lease an address for.
                return self._drop("drop-offer-without-br")
        if offer in state.offers:
            return []  # the same answer by another way
        if len(state.offers) >= MAX_OFFERS:
            return self._drop("drop-offer-surplus")
        note_forbidden(message, self._counters)
        self._counters.count("received-offer")
        best = (offer.ports is not None) == self.settings.prefer_shared
        at_once = best or not self.several_servers
        window = 0.0 if at_once else self.settings.offer_window_s
        select_at = now + window if state.select_at is None else min(state.select_at, now + window)
        state = replace(state, offers=(*state.offers, offer), select_at=select_at)
        self._enter(state)
        return self._select(state, now) if now >= select_at else []

    def _acknowledged_offer(self, state: Requesting, message: Dhcp4Message, now: float, outer: Options) -> list[Output]:
        if message.get(Option.SERVER_ID) not in (None, state.offer.server_id.packed):
            return self._drop("drop-response-other-server")
        try:
            lease = self._granted(message, state.requested_at, state.offer, now, outer)
        except OfferError as error:
            # The server believes that we have it: asking it again would bring the same. Begin anew, later [P-3].
            self._counters.count(error.counter)
            return self._fail(now, "refused", f"refused the server's ACK: {error}")
        return self._bind(lease, now)

    def _extended(
        self, lease: Lease4, requested_at: float, message: Dhcp4Message, now: float, outer: Options
    ) -> list[Output]:
        asked = Offer(lease.address, lease.ports, lease.server_id, lease.softwire)
        return self._bind(self._granted(message, requested_at, asked, now, outer), now)

    def _granted(self, message: Dhcp4Message, requested_at: float, asked: Offer, now: float, outer: Options) -> Lease4:
        """The lease of an ACK. Raises OfferError also when it has ended before the ACK came: never used, not even for
        the moment until the next timer [S-6, S-9]."""
        lease = read_lease(
            message, requested_at=requested_at, wanted=asked.ports, rng=self._rng, counters=self._counters
        )
        note_forbidden(message, self._counters)
        if lease.expires_at <= now:
            raise OfferError("the lease had ended when its ACK came", "drop-ack-lease-time")
        if not self.dynamic:
            return lease
        # The BR of the offer holds for the whole lease; an ACK may name another.
        found = read_softwire(outer, self._counters) or asked.softwire
        if found is None:
            raise OfferError("there is no BR address (option 90)", "drop-offer-without-br")
        return replace(lease, softwire=replace(found, saddr=read_saddr(message)))

    def _bind(self, lease: Lease4, now: float) -> list[Output]:
        self._counters.count("received-ack")
        if not self._confirmed(lease):
            return self._mismatched(lease, now)
        self._failures = 0
        self._previous = lease
        self._enter(Bound(lease))
        return [Gained(lease), *self.wake(now)]

    def _refused(self, message: Dhcp4Message, now: float, *, asked: Offer | None) -> list[Output]:
        """NAK: back to INIT [S-10]. Where one server was asked, no other may speak for it. Raises OfferError when it
        does not say whose it is (RFC 2131 table 3)."""
        server = read_server(message, "drop-nak-without-server-id")
        if asked is not None and server != asked.server_id:
            return self._drop("drop-response-other-server")
        note_forbidden(message, self._counters)
        self._counters.count("received-nak")
        held = not isinstance(self._state, Requesting)
        self._previous = None  # what was refused is not worth asking for again
        failed = self._fail(now, "nak", "the server refused (NAK)")
        return [Lost("the server refused the lease (NAK)", forget=True), *failed] if held else failed

    def _fail(self, now: float, kind: str, text: str) -> list[Output]:
        wait = 0.0 if self._failures == 0 else backoff.dhcp4_delay_s(self._failures - 1, self._rng)
        self._failures += 1
        self._enter(Init(now + wait))
        note = Noted(kind, "warning", f"{text}; starting anew" + (f" in {wait:.0f} s" if wait else ""))
        return [note, *(self.wake(now) if not wait else [])]

    # ---- the one place where the state changes

    def _enter(self, state: State) -> None:
        if state.name not in TRANSITIONS[self._state.name]:
            raise AssertionError(f"no way from {self._state.name} to {state.name}")
        self._state = state

    def _xid(self) -> int:
        return self._rng.getrandbits(32)


def read_saddr(message: Dhcp4Message) -> IPv6Address | None:
    """Option 109; malformed is as absent, which is no confirmation (RFC 8539 8 [E-9])."""
    value = message.get(Option.S46_SADDR)
    try:
        return None if value is None else softwire46.decode_saddr(value)
    except WireError:
        return None


def _secs(elapsed_s: float) -> int:
    return min(max(int(elapsed_s), 0), MAX_SECS)
