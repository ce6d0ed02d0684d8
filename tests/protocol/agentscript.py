"""Time scripts for the agent: one WAN, a DHCPv6 server and a DHCP 4o6 server that answer when the script says so.

Virtual time, nobody waits. Every datagram goes through ``wire`` in both directions. What the agent does is told in
words: ``"DISCOVER U=0"``, ``"save"``, ``"install"``, ``"withdraw"``; its reports are kept apart, by kind.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from timescript import ADDRESS, CLIENT_ID, MAC, PORTS, Middle, reply

from b4client.model.lease import Lease4, StoredLease
from b4client.model.portset import PortSet
from b4client.model.settings import ProtocolSettings
from b4client.model.softwire import PortForward, SoftwireConfig
from b4client.protocol import effects, events
from b4client.protocol.agent import Agent
from b4client.protocol.status import Status
from b4client.wire import dhcp4, dhcp4o6, dhcp6, softwire46
from b4client.wire.dhcp4 import Dhcp4Message, MessageType
from b4client.wire.dhcp6 import Dhcp6Message, Option
from b4client.wire.softwire46 import Lw4o6Container, MapEContainer

DUID = b"\0\3\0\1" + MAC
SERVER_DUID = b"\0\3\0\1\2\0\0\0\0\xfe"
LINK_LOCAL = IPv6Address("fe80::1")
GLOBAL, OTHER_GLOBAL = IPv6Address("2001:db8:46::100"), IPv6Address("2001:db8:47::100")
LOCAL_ULA = IPv6Address("fd00:46::100")
DHCP_SERVER, OTHER_DHCP_SERVER = IPv6Address("2001:db8:46::1"), IPv6Address("2001:db8:46::2")
SERVER_LINK_LOCAL = IPv6Address("fe80::fe")
BR, OTHER_BR = IPv6Address("2001:db8:ffff::1"), IPv6Address("2001:db8:ffff::2")
LW = Lw4o6Container((BR,))
"""A container that has only the BR: the address comes by DHCP 4o6."""
UNSET = object()


@dataclass(frozen=True, slots=True)
class Sent:
    """One datagram of the agent."""

    at: float
    destination: IPv6Address
    source: IPv6Address
    data: bytes

    @property
    def is_query(self) -> bool:
        return self.data[0] == 20

    @property
    def dhcp6(self) -> Dhcp6Message:
        return dhcp6.decode(self.data)

    @property
    def outer(self) -> dhcp4o6.Dhcp4o6Message:
        return dhcp4o6.decode(self.data)

    @property
    def inner(self) -> Dhcp4Message:
        return dhcp4.decode(self.outer.dhcp4)

    @property
    def words(self) -> str:
        if not self.is_query:
            return dhcp6.MessageType(self.data[0]).name.replace("_", "-")
        return f"{MessageType(self.inner.message_type or 0).name} U={int(self.outer.unicast)}"


class AgentScript:
    """One agent and its time. ``installs`` and ``prepares`` say how the data plane answers: at once, not at all (None),
    or with a failure of this reason."""

    def __init__(
        self,
        *,
        stored: StoredLease | None = None,
        rng: random.Random | None = None,
        forwards: tuple[PortForward, ...] = (),
        mtu: int | None = None,
        start: float = 0.0,
        **settings: object,
    ) -> None:
        self.settings = ProtocolSettings(**{"start_delay": False, "offer_window_s": 0.0, **settings})  # type: ignore[arg-type]
        self.agent = Agent(
            self.settings,
            wan="wan",
            mtu=mtu,
            forwards=forwards,
            duid=DUID,
            iaid=1,
            hardware_address=MAC,
            stored=stored,
            rng=Middle(1) if rng is None else rng,
        )
        self.now = start
        self.installs: str | None = "at once"
        self.prepares: str | None = "at once"
        self.said: list[tuple[float, str]] = []
        self.sent: list[Sent] = []
        self.reports: list[effects.Report] = []
        self.saved: list[tuple[Lease4, IPv6Address]] = []
        self.kernel: SoftwireConfig | None = None
        self.installed: list[SoftwireConfig] = []
        self.addresses: tuple[IPv6Address, ...] = (GLOBAL,)
        self.prepared: list[IPv6Address] = []

    # ---- events

    def post(self, *happened: events.Event) -> list[str]:
        """Give the agent events, and those that its own effects cause; what it does, in words."""
        before = len(self.said)
        queue = list(happened)
        while queue:
            event = queue.pop(0)
            for effect in self.agent.handle(event, self.now):
                self._carry_out(effect, queue)
            deadline = self.agent.deadline()
            assert not isinstance(event, events.Woke) or deadline is None or deadline > self.now
        return [word for _, word in self.said[before:]]

    def _carry_out(self, effect: effects.Effect, queue: list[events.Event]) -> None:
        word: str | None = None
        match effect:
            case effects.Send(data, destination, source):
                sent = Sent(self.now, destination, source, data)
                self.sent.append(sent)
                word = sent.words
            case effects.SaveLease(lease, source):
                self.saved.append((lease, source))
                word = "save"
            case effects.ForgetLease():
                word = "forget"
            case effects.Install(config):
                word = "install"
                self.installed.append(config)
                if self.installs == "at once":
                    self.kernel = config
                    queue.append(events.Installed(config))
                elif self.installs is not None:
                    queue.append(events.InstallFailed(config, self.installs))
            case effects.Withdraw():
                self.kernel = None
                word = "withdraw"
            case effects.Report():
                self.reports.append(effect)
            case effects.PrepareAddress(address):
                word = f"prepare {address}"
                self.prepared.append(address)
                if self.prepares == "at once":
                    queue.append(events.AddressReady(address))
                elif self.prepares is not None:
                    queue.append(events.AddressFailed(address, self.prepares))
            case effects.Resolve(name):
                word = f"resolve {name}"
        if word is not None:
            self.said.append((self.now, word))

    def until(self, instant: float) -> list[tuple[float, str]]:
        """Let time pass; the timer fires when it is due. What was done, and when."""
        before = len(self.said)
        while (due := self.agent.deadline()) is not None and due <= instant:
            self.now = max(self.now, due)
            self.post(events.Woke())
        self.now = max(self.now, instant)
        return self.said[before:]

    def after(self, seconds: float) -> list[str]:
        """``until``, counted from now; in words only."""
        return [word for _, word in self.until(self.now + seconds)]

    def jump(self, instant: float) -> list[str]:
        """The machine was suspended: no timer fired."""
        self.now = instant
        return self.post(events.Woke())

    def link(
        self,
        *addresses: IPv6Address,
        up: bool = True,
        link_local: IPv6Address | None = LINK_LOCAL,
        moved: bool = False,
    ) -> list[str]:
        """The WAN as it is from now on."""
        self.addresses = addresses if up else ()
        return self.post(events.LinkChanged(up, link_local if up else None, self.addresses, moved))

    # ---- servers

    def inform(
        self,
        *,
        servers: Iterable[IPv6Address] | None = (DHCP_SERVER,),
        lw: Lw4o6Container | bytes | None = LW,
        map_e: MapEContainer | bytes | None = None,
        priority: tuple[int, ...] = (),
        refresh: int | None = None,
        options: Iterable[tuple[int, bytes]] = (),
    ) -> list[str]:
        """A DHCPv6 server answers the pending INFORMATION-REQUEST."""
        asked = next(s for s in reversed(self.sent) if not s.is_query).dhcp6
        values: list[tuple[int, bytes]] = [(Option.CLIENTID, DUID), (Option.SERVERID, SERVER_DUID)]
        if refresh is not None:
            values.append((Option.INFORMATION_REFRESH_TIME, dhcp6.encode_seconds(refresh)))
        if servers is not None:
            values.append((Option.DHCP4_O_DHCP6_SERVER, dhcp4o6.encode_servers(servers)))
        if lw is not None:
            values.append((Option.S46_CONT_LW, lw if isinstance(lw, bytes) else softwire46.encode_lw4o6(lw)))
        if map_e is not None:
            values.append((Option.S46_CONT_MAPE, map_e if isinstance(map_e, bytes) else softwire46.encode_mape(map_e)))
        if priority:
            values.append((Option.S46_PRIORITY, softwire46.encode_priority(priority)))
        message = Dhcp6Message(dhcp6.MessageType.REPLY, asked.transaction_id, (*values, *options))
        return self.post(events.DatagramReceived(dhcp6.encode(message), SERVER_LINK_LOCAL))

    def refresh(self, **reply_: object) -> list[str]:
        """Time passes until the next INFORMATION-REQUEST, which is answered like this."""
        count = sum(not s.is_query for s in self.sent)
        while sum(not s.is_query for s in self.sent) == count:
            due = self.agent.deadline()
            assert due is not None
            self.until(due)
        return self.inform(**reply_)  # type: ignore[arg-type]

    @property
    def query(self) -> Sent:
        """The last DHCPV4-QUERY."""
        return next(s for s in reversed(self.sent) if s.is_query)

    @property
    def queries(self) -> list[Sent]:
        return [s for s in self.sent if s.is_query]

    def answer(
        self,
        kind: MessageType,
        *,
        outer: tuple[tuple[int, bytes], ...] = (),
        saddr: IPv6Address | None = None,
        source: IPv6Address = DHCP_SERVER,
        **changes: object,
    ) -> list[str]:
        """A DHCP 4o6 server answers the last query; ``outer`` are DHCPv6 options beside the message, ``saddr`` is
        option 109."""
        if saddr is not None:
            changes["options"] = ((dhcp4.Option.S46_SADDR, saddr.packed),)
        message = reply(kind, self.query.inner.xid, **changes)  # type: ignore[arg-type]
        data = dhcp4o6.encode_response(dhcp4.encode(message), options=outer)
        return self.post(events.DatagramReceived(data, source))

    def offer(self, **changes: object) -> list[str]:
        return self.answer(MessageType.OFFER, **changes)

    def ack(self, **changes: object) -> list[str]:
        return self.answer(MessageType.ACK, **changes)

    def nak(self, **changes: object) -> list[str]:
        return self.answer(MessageType.NAK, **changes)

    # ---- looking

    @property
    def status(self) -> Status:
        return self.agent.snapshot(self.now)

    @property
    def state(self) -> str:
        return self.status.state

    @property
    def waiting_for(self) -> str:
        """What stands between here and IPv4, which must be something."""
        found = self.status.waiting_for
        assert found is not None
        return found

    @property
    def counted(self) -> dict[str, int]:
        """Counters but for those of what went well."""
        usual = ("received-", "sent-query", "sent-information-request")
        return {k: v for k, v in self.status.counters.items() if not k.startswith(usual)}

    def kinds(self) -> list[str]:
        """The kinds of the reports so far, but for state changes."""
        return [r.kind for r in self.reports if r.kind != "state"]

    def report(self, kind: str) -> effects.Report:
        """The last report of a kind."""
        return next(r for r in reversed(self.reports) if r.kind == kind)

    # ---- short ways

    def to_asking(self) -> AgentScript:
        assert self.link(GLOBAL)[-1] == "INFORMATION-REQUEST"
        return self

    def to_selecting(self, **reply_: object) -> AgentScript:
        self.to_asking()
        assert self.inform(**reply_)[0] == "DISCOVER U=0"  # type: ignore[arg-type]
        return self

    def to_bound(self, *, information: dict[str, object] | None = None, **ack: object) -> AgentScript:
        """Bound at once, to 3600 s, T1 1800 s, T2 3150 s, softwire from GLOBAL to BR."""
        self.to_selecting(**(information or {}))
        assert self.offer(**ack)[0] == "REQUEST U=0"
        assert "install" in self.ack(**ack)
        assert self.state == "BOUND"
        return self


def stored_lease(
    *,
    requested_at: float = -100.0,
    seconds: float = 3600.0,
    source: IPv6Address = GLOBAL,
    trusted: bool = True,
    ports: PortSet | None = PORTS,
    address: IPv4Address = ADDRESS,
) -> StoredLease:
    """A lease of an earlier life."""
    at = requested_at
    lease = Lease4(address, ports, IPv4Address("192.0.0.1"), at, at + 0.5 * seconds, at + 0.875 * seconds, at + seconds)
    return StoredLease(lease, source, trusted)


__all__ = [
    "ADDRESS",
    "BR",
    "CLIENT_ID",
    "DHCP_SERVER",
    "GLOBAL",
    "LINK_LOCAL",
    "LOCAL_ULA",
    "LW",
    "OTHER_BR",
    "OTHER_DHCP_SERVER",
    "OTHER_GLOBAL",
    "PORTS",
    "AgentScript",
    "Sent",
    "stored_lease",
]
