"""A hand-made client for tests of the lab server: it writes what it is told to, right or wrong."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from b4client.lab.dhcp4_server import Dhcp4Settings
from b4client.lab.leases import LeaseDatabase
from b4client.lab.pools import FullPool, Pools, SharedPool
from b4client.lab.server import Server, ServerSettings
from b4client.model.portset import PortSet
from b4client.wire import dhcp4, dhcp4o6, softwire46
from b4client.wire.dhcp4 import Dhcp4Message, MessageType, Option
from b4client.wire.dhcp4o6 import Dhcp4o6Message
from b4client.wire.softwire46 import Lw4o6Container, MapEContainer, PortParams, Rule, V4V6Bind

SERVER_ID = IPv4Address("192.0.0.1")
A1, A2, F1 = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv4Address("198.51.100.1")
BR, BR2 = IPv6Address("2001:db8:ffff::1"), IPv6Address("2001:db8:ffff::2")
HOME = IPv6Address("2001:db8:1:2::b4")
LINK_LOCAL = IPv6Address("fe80::b4")
ALICE, BOB, CAROL = (b"\xff\0\0\0\1\0\3\0\1\2\0\0\0\0" + bytes((n,)) for n in (1, 2, 3))
DUID = b"\0\3\0\1\2\0\0\0\0\xfe"
LISTED = bytes((1, 3, 6, 51, 54, 58, 59, 159))
NOT_LISTED = LISTED[:-1]
PREFIX = IPv6Network("2001:db8:1::/48")
RULE = Rule(True, 16, IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/40"))

DHCP4 = Dhcp4Settings(
    SERVER_ID, options=((Option.DNS, b"\x08\x08\x08\x08"), (Option.MTU, b"\x05\xb4")), t1_s=1800, t2_s=3150
)
SETTINGS = ServerSettings(
    DUID,
    DHCP4,
    servers_4o6=(HOME,),
    lw4o6=Lw4o6Container((BR,), V4V6Bind(IPv4Address(0), PREFIX)),
    map_e=MapEContainer((RULE,), (BR,)),
    priority=(96, 94),
    refresh_s=7200,
    brs=(BR,),
    bind_prefix=PREFIX,
)
SHARED_ONLY = Pools((SharedPool(A1, A2, psid_len=2),))
BOTH = Pools((SharedPool(A1, A2, psid_len=2),), (FullPool(F1, F1),))


def server(pools: Pools = SHARED_ONLY, limit: int | None = None, **dhcp4_changes: object) -> Server:
    settings = replace(SETTINGS, dhcp4=replace(DHCP4, **dhcp4_changes))  # type: ignore[arg-type]
    return Server(settings, LeaseDatabase(pools, max_per_customer=limit))


def params(psid: int, length: int = 2, offset: int = 0) -> bytes:
    return softwire46.encode_portparams(PortParams.of(PortSet(offset, length, psid)))


def message(
    kind: int,
    client: bytes | None = ALICE,
    *,
    xid: int = 0x1234,
    listed: bytes | None = LISTED,
    requested: IPv4Address | None = None,
    server_id: IPv4Address | None = None,
    ports: bytes | None = None,
    saddr: IPv6Address | None = None,
    ciaddr: IPv4Address = dhcp4.ZERO,
    **fields: object,
) -> Dhcp4Message:
    options: list[tuple[int, bytes]] = [(Option.MESSAGE_TYPE, bytes((kind,)))]
    pairs = (
        (Option.CLIENT_ID, client),
        (Option.PARAMETER_LIST, listed),
        (Option.REQUESTED_ADDRESS, requested and requested.packed),
        (Option.SERVER_ID, server_id and server_id.packed),
        (Option.V4_PORTPARAMS, ports),
        (Option.S46_SADDR, saddr and saddr.packed),
    )
    options += [(code, value) for code, value in pairs if value is not None]
    return Dhcp4Message(
        op=dhcp4.BOOTREQUEST,
        xid=xid,
        ciaddr=ciaddr,
        chaddr=b"\x02\0\0\0\0\1",
        options=tuple(options),
        **fields,  # type: ignore[arg-type]
    )


def query(inner: Dhcp4Message, *, unicast: bool = False, oro: bytes | None = None) -> bytes:
    options = () if oro is None else ((6, oro),)
    return dhcp4o6.encode_query(dhcp4.encode(inner), unicast=unicast, options=options)


class Client:
    """Asks ``server`` as one client; ``outer`` and the returned message are the last answer's two halves."""

    def __init__(self, server: Server, client_id: bytes | None = ALICE, source: IPv6Address = HOME) -> None:
        self.server, self.client_id, self.source = server, client_id, source
        self.outer: Dhcp4o6Message | None = None

    def ask(
        self, kind: int, now: float = 0.0, *, unicast: bool = False, oro: bytes | None = None, **what: object
    ) -> Dhcp4Message | None:
        data = query(message(kind, self.client_id, **what), unicast=unicast, oro=oro)  # type: ignore[arg-type]
        replies = self.server.handle(data, self.source, now)
        if not replies:
            return None
        (reply,) = replies
        assert (reply.destination, reply.port) == (self.source, 546)
        self.outer = dhcp4o6.decode(reply.data)
        assert (self.outer.msg_type, self.outer.flags) == (21, 0)  # [SV-9]
        return dhcp4.decode(self.outer.dhcp4)

    def bind(self, now: float = 0.0, **what: object) -> Dhcp4Message:
        """DISCOVER, REQUEST; the ACK."""
        offer = self.ask(MessageType.DISCOVER, now, **{k: v for k, v in what.items() if k == "listed"})
        assert offer is not None
        ack = self.ask(
            MessageType.REQUEST,
            now,
            requested=offer.yiaddr,
            server_id=SERVER_ID,
            ports=offer.get(Option.V4_PORTPARAMS),
            **what,
        )
        assert ack is not None
        assert ack.message_type == MessageType.ACK
        return ack
