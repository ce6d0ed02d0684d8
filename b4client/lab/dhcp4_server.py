"""The DHCPv4 half of the laboratory's server: RFC 2131 4.3 as RFC 7341 11, RFC 7618 8 and RFC 8539 8 change it.

A laboratory, not a production server. Pure: one message and ``now`` in, one message or None out; what has to be kept is
in the lease database. Written from the server's side of the RFCs; nothing of the client's machine is used.
"""

from __future__ import annotations

import collections
import math
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from b4client.lab.leases import LeaseDatabase, Taken
from b4client.lab.pools import Slot
from b4client.model.errors import WireError
from b4client.wire import dhcp4, softwire46
from b4client.wire.dhcp4 import BOOTREPLY, BOOTREQUEST, INFINITY, ZERO, Dhcp4Message, MessageType, Option
from b4client.wire.softwire46 import PortParams


@dataclass(frozen=True, slots=True)
class Dhcp4Settings:
    """What DHCPv4 clients are told. Times in seconds.

    ``lease_s`` 0xffffffff never ends; ``t1_s`` and ``t2_s`` None are left to the client. ``offer_hold_s`` is how long
    an offer reserves. ``options`` (code, value) are sent to who lists them. ``authoritative``: there is no other
    server here, so requests for addresses outside the pools are refused instead of ignored (RFC 2131 4.3.2).
    ``saddr_interval_s`` is the least time between two changes of a softwire source, and ``drop_saddr_changes`` what
    becomes of one that may not be: silence, or an ACK with the old one (RFC 8539 8.1, 8.2 [SV-13]).
    """

    server_id: IPv4Address
    lease_s: int = 3600
    t1_s: int | None = None
    t2_s: int | None = None
    offer_hold_s: float = 120.0
    decline_hold_s: float = 86400.0
    options: tuple[tuple[int, bytes], ...] = ()
    authoritative: bool = False
    saddr_interval_s: float = 0.0
    drop_saddr_changes: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A client's message with what the transport knows: the U flag, the client's IPv6 address, the customer's site."""

    message: Dhcp4Message
    unicast: bool
    source: IPv6Address
    customer: str


class _Refused(Exception):
    """NAK, with this text."""


class _Silent(Exception):
    """No answer, and this counter."""


class Dhcp4Server:
    """Answers clients out of ``leases``; counts in ``counters`` by the names of ``servercounters``."""

    def __init__(self, settings: Dhcp4Settings, leases: LeaseDatabase, counters: collections.Counter[str]) -> None:
        self._settings = settings
        self._leases = leases
        self._counters = counters

    def handle(self, asked: Asked, now: float) -> Dhcp4Message | None:
        """The answer to one message, or None."""
        try:
            return self._answer(asked, now)
        except _Silent as silence:
            self._counters[str(silence)] += 1
        except WireError:
            self._counters["drop-query-malformed"] += 1
        except _Refused as refusal:
            return self._nak(asked.message, str(refusal))
        return None

    def _answer(self, asked: Asked, now: float) -> Dhcp4Message | None:
        message = asked.message
        kind = message.message_type
        if message.op != BOOTREQUEST or kind is None:
            raise _Silent("drop-query-not-a-request")
        client_id = message.get(Option.CLIENT_ID)
        if not client_id:
            # RFC 7341 9: a client MUST send it; RFC 4361 6.3: it alone identifies the client [SV-10].
            raise _Silent("drop-query-without-client-id")
        params = _portparams(message)
        if kind in (MessageType.DISCOVER, MessageType.REQUEST) and not self._serves(message):
            raise _Silent("drop-not-listed-159")
        match kind:
            case MessageType.DISCOVER:
                return self._discover(asked, client_id, params, now)
            case MessageType.REQUEST:
                return self._request(asked, client_id, params, now)
            case MessageType.RELEASE:
                self._release(asked, client_id, params, now)
                return None
            case MessageType.DECLINE:
                self._decline(message, client_id, params, now)
                return None
            case MessageType.INFORM:
                self._counters["received-inform"] += 1
                return self._reply(message, MessageType.ACK, ciaddr=message.ciaddr, options=self._asked_for(message))
        raise _Silent("drop-query-not-a-request")

    def _serves(self, message: Dhcp4Message) -> bool:
        """False for clients that cannot use what there is: only shared addresses, and 159 not listed (8.1 [SV-8])."""
        return _wants_shared(message) or bool(self._leases.pools.full)

    # ---- DISCOVER

    def _discover(self, asked: Asked, client_id: bytes, params: PortParams | None, now: float) -> Dhcp4Message:
        message = asked.message
        self._counters["received-discover"] += 1
        self._check_unicast(asked, expected=False)
        requested = dhcp4.address_option(message, Option.REQUESTED_ADDRESS)
        slot = self._leases.choose(
            client_id,
            now,
            wants_shared=_wants_shared(message),
            requested=None if requested is None else _slot(requested, params),
            hint=params.psid_len if params is not None and params.psid_len else None,
            customer=asked.customer,
        )
        if slot is None:
            limited = not self._leases.within_limit(asked.customer, None, now)
            raise _Silent("silent-limit" if limited else "silent-nothing-free")
        self._leases.offer(slot, client_id, now, hold_s=self._settings.offer_hold_s, customer=asked.customer)
        self._counters["sent-offer"] += 1
        return self._grant_message(message, MessageType.OFFER, slot, None)

    # ---- REQUEST

    def _request(self, asked: Asked, client_id: bytes, params: PortParams | None, now: float) -> Dhcp4Message:
        message = asked.message
        server = dhcp4.address_option(message, Option.SERVER_ID)
        requested = dhcp4.address_option(message, Option.REQUESTED_ADDRESS)
        # RFC 2131 4.3.6 table 4.
        if server is not None:
            if requested is None or message.ciaddr != ZERO:
                raise _Silent("drop-query-inconsistent")
            self._check_unicast(asked, expected=False)
            if server != self._settings.server_id:
                # Only the offer is taken back: what is leased stays leased until its time, or its client, ends it.
                self._leases.withdraw_offers(client_id)
                raise _Silent("silent-other-server")
            self._counters["received-request-selecting"] += 1
            return self._grant(asked, client_id, _slot(requested, params), now)
        if message.ciaddr == ZERO:
            if requested is None:
                raise _Silent("drop-query-inconsistent")
            self._check_unicast(asked, expected=False)
            self._counters["received-request-reboot"] += 1
            return self._reboot(asked, client_id, _slot(requested, params), now)
        if requested is not None:
            raise _Silent("drop-query-inconsistent")
        # The one thing that tells RENEWING from REBINDING inside DHCPv6 is the U flag (RFC 7341 8).
        self._counters["received-request-renewing" if asked.unicast else "received-request-rebinding"] += 1
        return self._extend(asked, client_id, _slot(message.ciaddr, params), now)

    def _reboot(self, asked: Asked, client_id: bytes, slot: Slot, now: float) -> Dhcp4Message:
        """INIT-REBOOT (RFC 2131 4.3.2 [SV-12]). Whether an address outside the pools is wrong only a server knows that
        is the only one; among several, a NAK would take away what another one has leased."""
        if not self._leases.pools.holds(slot.address):
            if self._settings.authoritative:
                raise _Refused("this address belongs to another network")
            raise _Silent("silent-not-ours")
        if not self._leases.knows(client_id):
            raise _Silent("silent-unknown-client")
        record = self._leases.get(slot)
        if record is None or record.client_id != client_id:
            raise _Refused("that is not what you had")
        return self._grant(asked, client_id, slot, now)

    def _extend(self, asked: Asked, client_id: bytes, slot: Slot, now: float) -> Dhcp4Message:
        """RENEWING and REBINDING. A lease that is unknown but could be is taken over as it is: that is how clients and
        a server that lost its lease file find together again."""
        record = self._leases.get(slot)
        if record is not None and record.client_id == client_id and record.bound(now):
            return self._grant(asked, client_id, slot, now)
        if not self._leases.pools.holds(slot.address) and not self._settings.authoritative:
            raise _Silent("silent-not-ours")
        answer = self._grant(asked, client_id, slot, now)
        self._counters["adopted-lease"] += 1
        return answer

    def _grant(self, asked: Asked, client_id: bytes, slot: Slot, now: float) -> Dhcp4Message:
        """Lease ``slot`` if the client may have it, else NAK."""
        message, leases = asked.message, self._leases
        if not leases.pools.valid(slot, wants_shared=_wants_shared(message)):
            raise _Refused("that is not to be had here")
        if not leases.free(slot, client_id, now):
            raise _Refused("that is somebody else's")
        if not leases.within_limit(asked.customer, slot, now):
            raise _Refused("too many leases for one site")
        saddr = self._new_saddr(message, client_id, slot, now)
        seconds = math.inf if self._settings.lease_s == INFINITY else float(self._settings.lease_s)
        try:
            lease = leases.grant(
                slot, client_id, now, seconds=seconds, customer=asked.customer, source=asked.source, saddr=saddr
            )
        except Taken:
            raise _Refused("that is somebody else's") from None
        self._counters["sent-ack"] += 1
        return self._grant_message(message, MessageType.ACK, slot, lease.saddr)

    def _new_saddr(self, message: Dhcp4Message, client_id: bytes, slot: Slot, now: float) -> IPv6Address | None:
        """The softwire source to store; None keeps what is stored (RFC 8539 8 [SV-13])."""
        value = message.get(Option.S46_SADDR)
        if value is None:
            return None
        saddr = softwire46.decode_saddr(value)
        leased = self._leases.of_client(client_id, now)
        if self._leases.saddr_taken(saddr, client_id, now):
            if not leased:
                self._counters["saddr-refused-conflict"] += 1
                raise _Refused("that softwire source is somebody else's")
            self._keep_saddr("saddr-refused-conflict")
            return None
        stored = next((lease for lease in leased if lease.slot == slot), None)
        if stored is not None and stored.saddr is not None and stored.saddr != saddr:
            if now - stored.saddr_at < self._settings.saddr_interval_s:
                self._keep_saddr("saddr-refused-too-soon")
                return None
            self._counters["saddr-updated"] += 1
        return saddr

    def _keep_saddr(self, counter: str) -> None:
        if self._settings.drop_saddr_changes:
            raise _Silent(counter)
        self._counters[counter] += 1

    # ---- RELEASE and DECLINE

    def _release(self, asked: Asked, client_id: bytes, params: PortParams | None, now: float) -> None:
        message = asked.message
        self._check_unicast(asked, expected=True)
        server = dhcp4.address_option(message, Option.SERVER_ID)
        ours = server in (None, self._settings.server_id)
        slot = _slot(message.ciaddr, params)
        if not ours or not self._leases.release(slot, client_id, message.xid, now):
            raise _Silent("drop-release-unmatched")
        self._counters["received-release"] += 1

    def _decline(self, message: Dhcp4Message, client_id: bytes, params: PortParams | None, now: float) -> None:
        requested = dhcp4.address_option(message, Option.REQUESTED_ADDRESS)
        hold_s = self._settings.decline_hold_s
        if requested is None or not self._leases.decline(_slot(requested, params), client_id, now, hold_s=hold_s):
            raise _Silent("drop-release-unmatched")
        self._counters["received-decline"] += 1

    def _check_unicast(self, asked: Asked, *, expected: bool) -> None:
        if asked.unicast != expected:
            self._counters["warned-unicast-flag"] += 1

    # ---- writing (RFC 2131 table 3 [SV-11])

    def _grant_message(
        self, message: Dhcp4Message, kind: MessageType, slot: Slot, saddr: IPv6Address | None
    ) -> Dhcp4Message:
        listed = _listed(message)
        options: list[tuple[int, bytes]] = [(Option.LEASE_TIME, dhcp4.encode_seconds(self._settings.lease_s))]
        for code, seconds in ((Option.T1, self._settings.t1_s), (Option.T2, self._settings.t2_s)):
            if seconds is not None and code in listed:
                options.append((code, dhcp4.encode_seconds(seconds)))
        if saddr is not None and kind is MessageType.ACK:
            options.append((Option.S46_SADDR, softwire46.encode_saddr(saddr)))
        if slot.ports is not None:
            # Never unasked [SV-1]: who does not list 159 gets no slot with ports.
            options.append((Option.V4_PORTPARAMS, softwire46.encode_portparams(PortParams.of(slot.ports))))
        options += self._asked_for(message)
        ciaddr = message.ciaddr if kind is MessageType.ACK else ZERO
        return self._reply(message, kind, yiaddr=slot.address, ciaddr=ciaddr, options=options)

    def _asked_for(self, message: Dhcp4Message) -> list[tuple[int, bytes]]:
        """The configured parameters that the client lists."""
        listed = _listed(message)
        return [(code, value) for code, value in self._settings.options if code in listed]

    def _nak(self, message: Dhcp4Message, text: str) -> Dhcp4Message:
        self._counters["sent-nak"] += 1
        return self._reply(message, MessageType.NAK, options=[(Option.MESSAGE, text.encode("ascii"))])

    def _reply(
        self,
        message: Dhcp4Message,
        kind: MessageType,
        *,
        yiaddr: IPv4Address = ZERO,
        ciaddr: IPv4Address = ZERO,
        options: list[tuple[int, bytes]],
    ) -> Dhcp4Message:
        client_id = message.get(Option.CLIENT_ID) or b""
        head: list[tuple[int, bytes]] = [
            (Option.MESSAGE_TYPE, bytes((kind,))),
            (Option.SERVER_ID, self._settings.server_id.packed),
            (Option.CLIENT_ID, client_id),  # unaltered, also in a NAK (RFC 6842 3 [SV-10])
        ]
        return Dhcp4Message(
            op=BOOTREPLY,
            xid=message.xid,
            broadcast=message.broadcast,
            ciaddr=ciaddr,
            yiaddr=yiaddr,
            giaddr=message.giaddr,
            htype=message.htype,
            chaddr=message.chaddr,
            options=(*head, *options),
        )


def _listed(message: Dhcp4Message) -> bytes:
    """The codes of the parameter request list."""
    return message.get(Option.PARAMETER_LIST) or b""


def _wants_shared(message: Dhcp4Message) -> bool:
    """True when the client lists option 159 and so can live with a shared address (RFC 7618 8)."""
    return Option.V4_PORTPARAMS in _listed(message)


def _portparams(message: Dhcp4Message) -> PortParams | None:
    value = message.get(Option.V4_PORTPARAMS)
    if value is None:
        return None
    try:
        return softwire46.decode_portparams(value)
    except WireError:
        raise _Silent("drop-query-portparams") from None


def _slot(address: IPv4Address, params: PortParams | None) -> Slot:
    return Slot(address, None if params is None else params.port_set())
