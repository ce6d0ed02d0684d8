"""Time scripts for the stateful DHCPv6 client, and a server's answers. Virtual time, nobody waits."""

from __future__ import annotations

import random
from ipaddress import IPv6Address, IPv6Network

from timescript import Middle

from b4client.model.lease6 import Binding6
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp6_leases import Wanted
from b4client.protocol.dhcp6_stateful import StatefulDhcp6Client
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import Dhcp6Message, IaAddress, IaPrefix, IdentityAssociation, MessageType, Option

DUID = bytes.fromhex("00030001020000000001")
SERVER = bytes.fromhex("000300010200000000fe")
OTHER = bytes.fromhex("000300010200000000ff")
IAID = 7
PREFIX, NEW_PREFIX = IPv6Network("2001:db8:100::/56"), IPv6Network("2001:db8:200::/56")
ADDRESS = IPv6Address("2001:db8:46::5")
O88 = (int(Option.DHCP4_O_DHCP6_SERVER), IPv6Address("2001:db8::88").packed)


def pd(
    *prefixes: IPv6Network,
    preferred: int = 1000,
    valid: int = 2000,
    t1: int = 500,
    t2: int = 800,
    iaid: int = IAID,
    status: int | None = None,
) -> tuple[int, bytes]:
    """An IA_PD option."""
    inside = [(int(Option.IAPREFIX), dhcp6.encode_iaprefix(IaPrefix(p, preferred, valid))) for p in prefixes]
    if status is not None:
        inside.append((int(Option.STATUS_CODE), dhcp6.encode_status(status, "no")))
    return int(Option.IA_PD), dhcp6.encode_ia(IdentityAssociation(iaid, t1, t2, tuple(inside)))


def na(
    *addresses: IPv6Address,
    preferred: int = 1000,
    valid: int = 2000,
    t1: int = 500,
    t2: int = 800,
    status: int | None = None,
) -> tuple[int, bytes]:
    """An IA_NA option."""
    inside = [(int(Option.IAADDR), dhcp6.encode_iaaddr(IaAddress(a, preferred, valid))) for a in addresses]
    if status is not None:
        inside.append((int(Option.STATUS_CODE), dhcp6.encode_status(status, "no")))
    return int(Option.IA_NA), dhcp6.encode_ia(IdentityAssociation(IAID, t1, t2, tuple(inside)))


def status(code: int, text: str = "no") -> tuple[int, bytes]:
    """A Status Code option of the message itself."""
    return int(Option.STATUS_CODE), dhcp6.encode_status(code, text)


class Script6:
    """One client, its time, and what it sent with the instants."""

    def __init__(
        self,
        *,
        address: bool = False,
        prefix: bool = True,
        prefix_len: int | None = None,
        start_delay: bool = False,
        rapid_commit: bool = False,
        rng: random.Random | None = None,
        stored: Binding6 | None = None,
        now: float = 0.0,
    ) -> None:
        self.counters = Counters()
        self.client = StatefulDhcp6Client(
            DUID,
            Wanted(IAID, address, prefix, prefix_len),
            start_delay=start_delay,
            rng=Middle(1) if rng is None else rng,
            counters=self.counters,
            rapid_commit=rapid_commit,
            stored=stored,
        )
        self.now = now
        self.sent: list[tuple[float, Dhcp6Message]] = []

    def start(self, *, opportunistic: bool = False) -> Script6:
        return self.note(self.client.start(self.now, opportunistic=opportunistic))

    def note(self, messages: list[bytes]) -> Script6:
        self.sent += [(self.now, dhcp6.decode(data)) for data in messages]
        return self

    def until(self, instant: float) -> list[tuple[float, str]]:
        """Let time pass; what was sent meanwhile, and when."""
        before = len(self.sent)
        while (due := self.client.deadline()) is not None and due <= instant:
            self.now = max(self.now, due)
            self.note(self.client.wake(self.now))
            after = self.client.deadline()
            assert after is None or after > self.now, self.client.state
        self.now = max(self.now, instant)
        return [(at, MessageType(m.msg_type).name) for at, m in self.sent[before:]]

    def due_now(self) -> list[tuple[float, str]]:
        """What is sent without waiting."""
        return self.until(self.now)

    @property
    def last(self) -> Dhcp6Message:
        return self.sent[-1][1]

    @property
    def kinds(self) -> list[str]:
        return [MessageType(m.msg_type).name for _, m in self.sent]

    def hear(
        self, kind: MessageType, *options: tuple[int, bytes], server: bytes = SERVER, xid: int | None = None
    ) -> Dhcp6Message | None:
        identity = ((int(Option.CLIENTID), DUID), (int(Option.SERVERID), server))
        number = self.last.transaction_id if xid is None else xid
        return self.client.received(dhcp6.encode(Dhcp6Message(kind, number, (*identity, *options))), self.now)

    def advertise(self, *options: tuple[int, bytes], server: bytes = SERVER) -> None:
        assert self.hear(MessageType.ADVERTISE, *options, server=server) is None

    def reply(self, *options: tuple[int, bytes], server: bytes = SERVER) -> Dhcp6Message | None:
        return self.hear(MessageType.REPLY, *options, server=server)

    def bind(self, *options: tuple[int, bytes]) -> Script6:
        """Through the four messages to Bound with these IAs, at the present instant."""
        options = options or (pd(PREFIX),)
        self.start()
        self.advertise((int(Option.PREFERENCE), b"\xff"), *options)
        self.due_now()
        assert self.reply(*options, O88) is not None
        assert self.due_now() == []
        return self

    @property
    def prefixes(self) -> list[IPv6Network]:
        return [item.network for item in self.client.lease.prefixes]

    @property
    def addresses(self) -> list[IPv6Address]:
        return [item.address for item in self.client.lease.addresses]
