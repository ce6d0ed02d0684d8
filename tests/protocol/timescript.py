"""Time scripts for the DHCPv4 client: "at 2475 s expect a REQUEST with U = 1". Virtual time, nobody waits.

A ``Script`` owns one client, its clock and what it said. Every message that the client writes goes through
``wire`` in both directions, and so does every one that it is given.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from b4client.model.lease import Lease4
from b4client.model.portset import PortSet
from b4client.model.settings import ProtocolSettings
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp4_client import Dhcp4Client
from b4client.protocol.dhcp4_messages import Identity
from b4client.protocol.dhcp4_outputs import Gained, Lost, Noted, Output, Prepare, Query
from b4client.wire import dhcp4, dhcp4o6, softwire46
from b4client.wire.dhcp4 import BOOTREPLY, Dhcp4Message, MessageType, Option
from b4client.wire.softwire46 import PortParams

MAC = bytes.fromhex("020000000001")
CLIENT_ID = bytes.fromhex("ff0000000100030001") + MAC
"""RFC 4361: IAID 1, DUID-LL; the reference octets of W-7."""
SERVER, OTHER_SERVER = IPv4Address("192.0.0.1"), IPv4Address("192.0.0.2")
ADDRESS, OTHER_ADDRESS = IPv4Address("192.0.2.18"), IPv4Address("192.0.2.19")
PORTS, OTHER_PORTS = PortSet(6, 8, 0x34), PortSet(6, 8, 0x35)
PORTS_OCTETS, OTHER_PORTS_OCTETS = bytes.fromhex("06083400"), bytes.fromhex("06083500")
DNS = b"\x08\x08\x08\x08"
SADDR, OTHER_SADDR = IPv6Address("2001:db8:46:0:0:c000:212:34"), IPv6Address("2001:db8:47:0:0:c000:212:34")
BR_OPTION = (90, IPv6Address("2001:db8:ffff::1").packed)
"""DHCPv6 option 90 beside the message, as RFC 8539 wants it."""


class Middle(random.Random):
    """No jitter: every uniform choice is the middle of its range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class Lowest(random.Random):
    """Every uniform choice is the smallest possible."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Highest(random.Random):
    """Every uniform choice is the largest possible."""

    def uniform(self, a: float, b: float) -> float:
        return b


def lease_at(
    start: float = 0.0,
    *,
    address: IPv4Address = ADDRESS,
    ports: PortSet | None = PORTS,
    seconds: float = 3600.0,
    server: IPv4Address = SERVER,
) -> Lease4:
    """A lease whose REQUEST left at ``start``, with the default T1 and T2."""
    return Lease4(address, ports, server, start, start + 0.5 * seconds, start + 0.875 * seconds, start + seconds)


def reply(
    kind: MessageType,
    xid: int,
    *,
    address: IPv4Address = ADDRESS,
    ports: PortSet | bytes | None = PORTS,
    server: IPv4Address | bytes | None = SERVER,
    lease: int | bytes | None = 3600,
    t1: int | bytes | None = 1800,
    t2: int | bytes | None = 3150,
    client_id: bytes | None = CLIENT_ID,
    op: int = BOOTREPLY,
    options: Iterable[tuple[int, bytes]] = (),
) -> Dhcp4Message:
    """A server's message as RFC 2131 table 3 wants it. Octets stand for an option as they are, None leaves it out."""
    values: list[tuple[int, bytes | None]] = [
        (Option.SERVER_ID, server.packed if isinstance(server, IPv4Address) else server),
        (Option.CLIENT_ID, client_id),
    ]
    if kind == MessageType.NAK:
        address = dhcp4.ZERO
    else:
        values += [
            (Option.LEASE_TIME, _seconds(lease)),
            (Option.T1, _seconds(t1)),
            (Option.T2, _seconds(t2)),
            (
                Option.V4_PORTPARAMS,
                softwire46.encode_portparams(PortParams.of(ports)) if isinstance(ports, PortSet) else ports,
            ),
        ]
    present = [(code, value) for code, value in values if value is not None]
    return Dhcp4Message(
        op=op,
        xid=xid,
        yiaddr=address,
        chaddr=MAC,
        options=((Option.MESSAGE_TYPE, bytes((kind,))), *present, *options),
    )


def _seconds(value: int | bytes | None) -> bytes | None:
    return dhcp4.encode_seconds(value) if isinstance(value, int) else value


@dataclass(frozen=True, slots=True)
class Sent:
    """One message of the client, when, and its U flag."""

    at: float
    unicast: bool
    message: Dhcp4Message

    @property
    def kind(self) -> MessageType:
        assert self.message.message_type is not None
        return MessageType(self.message.message_type)

    @property
    def ports(self) -> PortSet | None:
        """The port set of option 159."""
        value = self.message.get(Option.V4_PORTPARAMS)
        return None if value is None else softwire46.decode_portparams(value).port_set()

    def options(self) -> dict[int, bytes]:
        """All options by code."""
        found = dict(self.message.options)
        assert len(found) == len(self.message.options)
        return found


def through_the_wire(query: Query) -> Query:
    """``query`` as a server reads it: DHCPv4 inside DHCPv6, encoded and decoded."""
    outer = dhcp4o6.decode(dhcp4o6.encode_query(dhcp4.encode(query.message), unicast=query.unicast))
    assert outer.msg_type == 20
    return Query(dhcp4.decode(outer.dhcp4), outer.unicast, query.name, query.ask_softwire)


def in_words(output: Output) -> str:
    """One output as a word or two, for the scripts."""
    match output:
        case Query(message, unicast):
            return f"{MessageType(message.message_type or 0).name} U={int(unicast)}"
        case Prepare():
            return "prepare"
        case Gained():
            return "gained"
        case Lost(forget=forget):
            return "lost for good" if forget else "lost"
        case Noted(kind):
            return kind


class Script:
    """One client and its time. Methods return in words what the client does about it."""

    def __init__(
        self, rng: random.Random | None = None, *, several: bool = True, dynamic: bool = False, **settings: object
    ) -> None:
        self.counters = Counters()
        known = ProtocolSettings(**{"start_delay": False, **settings})  # type: ignore[arg-type]
        self.client = Dhcp4Client(
            Identity(CLIENT_ID, MAC), known, rng=Middle(1) if rng is None else rng, counters=self.counters
        )
        self.client.several_servers = several
        self.client.dynamic = dynamic
        self.now = 0.0
        self.sent: list[Sent] = []
        self.said: list[tuple[float, str]] = []
        self.gained: list[Lease4] = []
        self.lost: list[Lost] = []
        self.noted: list[Noted] = []

    # ---- time

    def until(self, instant: float) -> list[tuple[float, str]]:
        """Let time pass; the timers fire when they are due. What was done, and when."""
        before = len(self.said)
        while (due := self.client.deadline()) is not None and due <= instant:
            self.now = max(self.now, due)
            self._note(self.client.wake(self.now))
            after = self.client.deadline()
            assert after is None or self.now < after < math.inf
        self.now = max(self.now, instant)
        return self.said[before:]

    def jump(self, instant: float) -> list[str]:
        """The machine was suspended: no timer fired, and then the only one does late."""
        assert instant >= self.now
        self.now = instant
        return self._note(self.client.wake(self.now))

    def tell(self, method: Callable[..., list[Output]], *args: object, **named: object) -> list[str]:
        """Call a method of the client that takes ``now``."""
        return self._note(method(self.now, *args, **named))

    # ---- messages

    @property
    def last(self) -> Sent:
        """What the client sent last."""
        return self.sent[-1]

    def hear(self, message: Dhcp4Message, outer: tuple[tuple[int, bytes], ...] = ()) -> list[str]:
        """The client gets this message, as the wire carries it."""
        return self._note(self.client.received(dhcp4.decode(dhcp4.encode(message)), self.now, outer))

    def answer(
        self,
        kind: MessageType,
        *,
        outer: tuple[tuple[int, bytes], ...] | None = None,
        saddr: IPv6Address | bytes | None = None,
        **changes: object,
    ) -> list[str]:
        """A server answers what was sent last; with RFC 8539 as it should, unless ``outer`` or ``saddr`` say how."""
        if self.client.dynamic:
            outer = (BR_OPTION,) if outer is None else outer
            saddr = self.client.saddr if saddr is None else saddr
            if kind == MessageType.ACK and saddr:
                value = saddr if isinstance(saddr, bytes) else saddr.packed
                changes["options"] = (*changes.get("options", ()), (Option.S46_SADDR, value))  # type: ignore[misc]
        return self.hear(reply(kind, self.last.message.xid, **changes), outer or ())  # type: ignore[arg-type]

    def prepared(self, saddr: IPv6Address = SADDR) -> list[str]:
        """The softwire's source is ready."""
        return self.tell(self.client.prepared, saddr)

    def offer(self, **changes: object) -> list[str]:
        return self.answer(MessageType.OFFER, **changes)

    def ack(self, **changes: object) -> list[str]:
        return self.answer(MessageType.ACK, **changes)

    def nak(self, **changes: object) -> list[str]:
        return self.answer(MessageType.NAK, **changes)

    def _note(self, outputs: list[Output]) -> list[str]:
        words = [in_words(output) for output in outputs]
        for output in outputs:
            match output:
                case Query() as query:
                    assert through_the_wire(query) == query
                    self.sent.append(Sent(self.now, query.unicast, query.message))
                case Gained(lease):
                    self.gained.append(lease)
                case Lost() as lost:
                    self.lost.append(lost)
                case Noted() as noted:
                    self.noted.append(noted)
        self.said += [(self.now, word) for word in words]
        return words

    # ---- short ways to a state

    @property
    def state(self) -> str:
        return self.client.state.name

    @property
    def lease(self) -> Lease4:
        """The lease in hand, which there must be."""
        assert self.client.lease is not None
        return self.client.lease

    def to_selecting(self) -> Script:
        assert self.tell(self.client.start) == ["DISCOVER U=0"]
        return self

    def to_requesting(self, **offer: object) -> Script:
        """The offer is taken at once, or when the offer window closes."""
        self.to_selecting()
        if not self.offer(**offer):
            self.until(self.client.deadline() or 0)
        assert self.state == "REQUESTING"
        return self

    def to_bound(self, *, offer: dict[str, object] | None = None, **ack: object) -> Script:
        """The REQUEST leaves at 0 s of the script when there is no offer window."""
        self.to_requesting(**(offer or {}))
        assert self.ack(**ack)[0] == "gained"
        return self


def bound(**settings: Any) -> Script:
    """A client that is BOUND at 0 s to a shared address for 3600 s, T1 1800 s, T2 3150 s."""
    return Script(several=False, **settings).to_bound()


def counted(script: Script) -> dict[str, int]:
    """Counters but for those of what went well."""
    return {name: n for name, n in script.counters.snapshot().items() if not name.startswith("received-")}


# ---- a way to each state

Way = Callable[[], Script]


def stopped() -> Script:
    return Script()


def waiting() -> Script:
    """INIT, after a second refusal in a row."""
    script = Script(several=False).to_requesting()
    script.nak()
    script.offer()
    script.nak()
    assert script.state == "INIT"
    return script


def selecting() -> Script:
    return Script().to_selecting()


def requesting() -> Script:
    return Script(several=False).to_requesting()


def rebooting() -> Script:
    """INIT-REBOOT of a stored lease, not confirmed yet."""
    script = Script()
    script.tell(script.client.reboot, lease_at(), in_use=False, usable=True)
    return script


def verifying() -> Script:
    """INIT-REBOOT of the lease in use."""
    script = bound()
    script.now = 100.0
    assert script.tell(script.client.verify) == ["REQUEST U=0"]
    return script


def renewing() -> Script:
    script = bound()
    script.until(1800)
    return script


def rebinding() -> Script:
    script = bound()
    script.until(3150)
    return script


def coasting() -> Script:
    """Option 88 was withdrawn at 100 s."""
    script = bound()
    script.now = 100.0
    assert script.tell(script.client.stop, keep_lease=True, reason="option 88 is withdrawn") == []
    return script


WITHOUT_LEASE: dict[str, Way] = {"STOPPED": stopped, "INIT": waiting, "SELECTING": selecting, "REQUESTING": requesting}
HOLDING: dict[str, Way] = {"BOUND": bound, "RENEWING": renewing, "REBINDING": rebinding, "INIT-REBOOT": verifying}


def ways(*named: dict[str, Way]) -> pytest.MarkDecorator:
    every = {name: way for group in named for name, way in group.items()}
    return pytest.mark.parametrize("way", every.values(), ids=every)
