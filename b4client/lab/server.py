"""A DHCP 4o6 server that leases shared addresses: RFC 7341 11 around RFC 7618 8, with RFC 8539's options.

A laboratory, not a production server: it is here because no free server can lease one IPv4 address twice, and so that
the client can be proved against the other half of the standard. One server, no failover, pools searched in order.
It shares ``wire`` and ``model`` with the client; its behaviour is its own, written from the RFCs' server sections.

Pure: ``handle(datagram, source, now) -> replies``. What has to survive is what ``leases.drain()`` gives.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from b4client.lab.dhcp4_server import Asked, Dhcp4Server, Dhcp4Settings
from b4client.lab.leases import LeaseDatabase
from b4client.model.errors import WireError
from b4client.wire import dhcp4, dhcp4o6, dhcp6, softwire46
from b4client.wire.dhcp4o6 import Dhcp4o6Message
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option, Options, RelayMessage
from b4client.wire.softwire46 import Lw4o6Container, MapEContainer

IA_OPTIONS = (Option.IA_NA, Option.IA_TA, Option.IA_PD)
WITH_SOFTWIRE = (dhcp4.MessageType.OFFER, dhcp4.MessageType.ACK)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the server is and says.

    ``servers_4o6`` is option 88: None leaves it out (4o6 is off), an empty tuple is the empty option. ``lw4o6``,
    ``map_e``, ``priority`` are options 96, 94, 111, and ``refresh_s``, ``inf_max_rt_s`` 32 and 83, of a Reply to an
    INFORMATION-REQUEST that lists them. ``brs`` and ``bind_prefix`` are options 90 and 137 of a DHCPV4-RESPONSE to a
    query that lists them (RFC 8539 4). A customer's site, for the limit on leases, is the interface that a relay names,
    else the client's IPv6 prefix of ``customer_prefix_len`` bits (a link-local address is its own site).
    """

    duid: bytes
    dhcp4: Dhcp4Settings
    servers_4o6: tuple[IPv6Address, ...] | None = ()
    lw4o6: Lw4o6Container | None = None
    map_e: MapEContainer | None = None
    priority: tuple[int, ...] = ()
    refresh_s: int | None = None
    inf_max_rt_s: int | None = None
    brs: tuple[IPv6Address, ...] = ()
    bind_prefix: IPv6Network | None = None
    customer_prefix_len: int = 56


@dataclass(frozen=True, slots=True)
class Reply:
    """A UDP payload and where it goes; from port 547, by the interface on which the question came [SV-9]."""

    data: bytes
    destination: IPv6Address
    port: int


class Server:
    """The server's behaviour. ``counters`` has the names of ``servercounters.COUNTERS``."""

    def __init__(self, settings: ServerSettings, leases: LeaseDatabase) -> None:
        self.settings = settings
        self.leases = leases
        self.counters: collections.Counter[str] = collections.Counter()
        self._dhcp4 = Dhcp4Server(settings.dhcp4, leases, self.counters)

    def handle(
        self, data: bytes, source: IPv6Address, now: float, *, destination: IPv6Address | None = None
    ) -> list[Reply]:
        """The answers to one datagram: at most one. ``destination`` None means that it is not known. Never raises on
        what comes from the network."""
        self.leases.expire(now)
        relays: list[RelayMessage] = []
        message, client = data, source
        try:
            while dhcp6.message_type(message) == MessageType.RELAY_FORW:
                relay = dhcp6.decode_relay(message)
                # Each relay on the way counts one: more nesting than that is no network's (RFC 8415 9, 19.1.2).
                if len(relays) > dhcp6.HOP_COUNT_LIMIT or relay.hop_count > dhcp6.HOP_COUNT_LIMIT:
                    raise WireError("too many relays")
                relays.append(relay)
                message, client = relay.relayed(), relay.peer
        except WireError:
            self.counters["drop-relay-malformed" if relays or data[:1] == b"\x0c" else "drop-malformed"] += 1
            return []
        if relays:
            self.counters["received-relayed"] += 1
            destination = None
        answer = self._answer(message, client, self._customer(client, relays), now, destination)
        if answer is None:
            return []
        for relay in reversed(relays):
            answer = _relay_reply(relay, answer)
        return [Reply(answer, source, dhcp6.SERVER_PORT if relays else dhcp6.CLIENT_PORT)]

    def _answer(
        self, message: bytes, client: IPv6Address, customer: str, now: float, destination: IPv6Address | None
    ) -> bytes | None:
        match dhcp6.message_type(message):
            case MessageType.INFORMATION_REQUEST:
                return self._inform(message, destination)
            case MessageType.DHCPV4_QUERY:
                return self._query(message, client, customer, now)
        self.counters["drop-unexpected-type"] += 1
        return None

    def _customer(self, client: IPv6Address, relays: list[RelayMessage]) -> str:
        if relays:
            interface = dhcp6.first(relays[-1].options, Option.INTERFACE_ID)
            if interface is not None:
                return f"{relays[-1].link}%{interface.hex()}"
        if client.is_link_local:
            return str(client)
        return str(IPv6Network((client, self.settings.customer_prefix_len), strict=False))

    # ---- INFORMATION-REQUEST (RFC 8415 18.3.6)

    def _inform(self, data: bytes, destination: IPv6Address | None) -> bytes | None:
        try:
            request = dhcp6.decode(data)
            listed = dhcp6.decode_oro(request.get(Option.ORO) or b"")
        except WireError:
            self.counters["drop-malformed"] += 1
            return None
        server_id = request.get(Option.SERVERID)
        unicast = destination is not None and not destination.is_multicast
        # RFC 8415 16 and 16.12: unicast, another server's, or with an IA option.
        if (
            unicast
            or server_id not in (None, self.settings.duid)
            or any(request.get(ia) is not None for ia in IA_OPTIONS)
        ):
            self.counters["drop-information-request"] += 1
            return None
        self.counters["received-information-request"] += 1
        client_id = request.get(Option.CLIENTID)
        options = [] if client_id is None else [(int(Option.CLIENTID), client_id)]
        options.append((int(Option.SERVERID), self.settings.duid))
        options += [(code, value) for code, value in self.information() if code in listed]
        return dhcp6.encode(Dhcp6Message(MessageType.REPLY, request.transaction_id, tuple(options)))

    def information(self) -> Options:
        """All options that a Reply to an INFORMATION-REQUEST can have."""
        settings = self.settings
        options: list[tuple[int, bytes]] = []
        if settings.refresh_s is not None:
            options.append((Option.INFORMATION_REFRESH_TIME, dhcp6.encode_seconds(settings.refresh_s)))
        if settings.inf_max_rt_s is not None:
            options.append((Option.INF_MAX_RT, dhcp6.encode_seconds(settings.inf_max_rt_s)))
        if settings.servers_4o6 is not None:
            options.append((Option.DHCP4_O_DHCP6_SERVER, dhcp4o6.encode_servers(settings.servers_4o6)))
        if settings.map_e is not None:
            options.append((Option.S46_CONT_MAPE, softwire46.encode_mape(settings.map_e)))
        if settings.lw4o6 is not None:
            options.append((Option.S46_CONT_LW, softwire46.encode_lw4o6(settings.lw4o6)))
        if settings.priority:
            options.append((Option.S46_PRIORITY, softwire46.encode_priority(settings.priority)))
        return tuple(options)

    # ---- DHCPV4-QUERY (RFC 7341 11)

    def _query(self, data: bytes, client: IPv6Address, customer: str, now: float) -> bytes | None:
        try:
            query = dhcp4o6.decode(data)
        except WireError:
            self.counters["drop-query-without-message"] += 1
            return None
        if query.flags & ~dhcp4o6.UNICAST_FLAG:
            self.counters["warned-flags"] += 1
        try:
            message = dhcp4.decode(query.dhcp4)
        except WireError:
            self.counters["drop-query-malformed"] += 1
            return None
        answer = self._dhcp4.handle(Asked(message, query.unicast, client, customer), now)
        if answer is None:
            return None
        options = self._softwire(query) if answer.message_type in WITH_SOFTWIRE else ()
        return dhcp4o6.encode_response(dhcp4.encode(answer), options=options)

    def _softwire(self, query: Dhcp4o6Message) -> Options:
        """Options 90 and 137 where the query lists them, 137 once (RFC 8539 4 to 6 [SV-14])."""
        try:
            listed = dhcp6.decode_oro(query.get(Option.ORO) or b"")
        except WireError:
            return ()
        options: list[tuple[int, bytes]] = []
        if Option.S46_BR in listed:
            options += [(Option.S46_BR, softwire46.encode_br(br)) for br in self.settings.brs]
        prefix = self.settings.bind_prefix
        if Option.S46_BIND_IPV6_PREFIX in listed and prefix is not None:
            options.append((Option.S46_BIND_IPV6_PREFIX, softwire46.encode_bind_prefix(prefix)))
        return tuple(options)


def _relay_reply(relay: RelayMessage, answer: bytes) -> bytes:
    """The RELAY-REPL that takes ``answer`` back by the way it came (RFC 8415 19.3)."""
    interface = dhcp6.first(relay.options, Option.INTERFACE_ID)
    echoed: Options = () if interface is None else ((int(Option.INTERFACE_ID), interface),)
    options = (*echoed, (int(Option.RELAY_MSG), answer))
    return dhcp6.encode_relay(RelayMessage(MessageType.RELAY_REPL, relay.hop_count, relay.link, relay.peer, options))
