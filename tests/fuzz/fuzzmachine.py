"""The machine under any sequence of events and times: octets are read as a script and played to the agent."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address

from b4client.model.settings import ProtocolSettings
from b4client.model.softwire import SoftwireConfig
from b4client.protocol import effects, events
from b4client.protocol.agent import Agent
from b4client.protocol.dhcp4_states import TRANSITIONS
from b4client.wire import dhcp4, dhcp4o6, dhcp6

SERVER, BR = IPv6Address("2001:db8:46::1"), IPv6Address("2001:db8:ffff::1")
LINK_LOCAL = IPv6Address("fe80::c")
ADDRESSES = (IPv6Address("2001:db8:46::100"), IPv6Address("2001:db8:47::100"))
DUID = bytes.fromhex("00030001020000000001")
MAP_E = bytes.fromhex("0059000d011018c00002002820010db800005a0010") + BR.packed
BIND = bytes.fromhex("005c0014c00002123820010db8004600005d000400083400")
LW = bytes.fromhex("005a0010") + BR.packed
WAITS = (0.0, 0.001, 1.0, 4.0, 60.0, 299.9, 600.0, 86400.0)
MAX_EFFECTS = 40
"""More effects of one event than this would be a loop."""


def _agent() -> Agent:
    settings = ProtocolSettings(start_delay=False, offer_window_s=0.5)
    return Agent(
        settings,
        wan="wan",
        mtu=None,
        forwards=(),
        duid=DUID,
        iaid=1,
        hardware_address=b"\2\0\0\0\0\1",
        stored=None,
        rng=random.Random(1),
    )


class Player:
    """One agent, the clock, and the last things that it sent and wanted: an answer can refer to them."""

    def __init__(self) -> None:
        self.agent = _agent()
        self.now = 1000.0
        self.sent: bytes = b""
        self.wanted: SoftwireConfig | None = None
        self.preparing: IPv6Address | None = None
        self.resolving = "aftr.example."

    def step(self, event: events.Event) -> None:
        """Give the event and look at what comes out."""
        done = self.agent.handle(event, self.now)
        assert len(done) <= MAX_EFFECTS
        for effect in done:
            if isinstance(effect, effects.Send):
                self.sent = effect.data
            elif isinstance(effect, effects.Install):
                self.wanted = effect.config
            elif isinstance(effect, effects.PrepareAddress):
                self.preparing = effect.address
            elif isinstance(effect, effects.Resolve):
                self.resolving = effect.name
        deadline = self.agent.deadline()
        assert deadline is None or deadline > self.now, (event, deadline, self.now)
        status = self.agent.snapshot(self.now)
        assert status.state in TRANSITIONS
        if status.lease is not None:
            left = status.lease.expires_in_s
            assert left is None or left > 0

    def answer(self, kind: int, variation: bytes) -> bytes:
        """A server's answer to the last message, more or less right."""
        if self.sent[:1] == b"\x0b":
            options: tuple[tuple[int, bytes], ...] = ((1, DUID), (2, b"\0\3\0\1srv"))
            if variation[0] & 1:
                options += ((88, SERVER.packed if variation[0] & 2 else b""),)
            if variation[0] & 4:
                options += ((96, LW),)
            if variation[0] & 8:
                options += ((32, (600 + variation[1]).to_bytes(4, "big")),)
            if variation[0] & 16:
                options += ((94, MAP_E),)
            if variation[0] & 32:
                options += ((64, b"\4aftr\7example\0"),)
            if variation[0] & 64:
                options += ((111, bytes((0, (64, 88, 94, 96)[variation[1] & 3]))),)
            if variation[0] & 128:
                options += ((96, BIND + LW),)
            return dhcp6.encode(dhcp6.Dhcp6Message(7, int.from_bytes(self.sent[1:4], "big"), options))
        if self.sent[:1] != b"\x14":
            return variation
        asked = dhcp4.decode(dhcp4o6.decode(self.sent).dhcp4)
        inner: list[tuple[int, bytes]] = [
            (53, bytes([kind])),
            (54, IPv4Address("203.0.113.1").packed),
            (51, (variation[0] * 16 + 1).to_bytes(4, "big")),
            (61, asked.get(61) or b""),
        ]
        if variation[1] & 1:
            inner.append((159, bytes((0, 8, variation[1], variation[1] & 2))))
        if variation[1] & 4:
            inner.append((58, bytes(3) + variation[1:2]))
        saddr = asked.get(109)
        if saddr and not variation[1] & 8:
            inner.append((109, saddr if not variation[1] & 16 else BR.packed))
        message = dhcp4.Dhcp4Message(
            op=2, xid=asked.xid, yiaddr=IPv4Address("192.0.2.18"), options=tuple((c, v) for c, v in inner if v)
        )
        outer: tuple[tuple[int, bytes], ...] = ()
        if dhcp4o6.decode(self.sent).get(6) and variation[0] & 1:
            outer = (
                (90, BR.packed),
                (137, bytes((variation[0] & 0x40, *ADDRESSES[1].packed[:8]))[: 1 + (variation[0] >> 3 & 8)]),
            )
        return dhcp4o6.encode_response(dhcp4.encode(message), options=outer)


def fuzz_machine(data: bytes) -> bool:
    """A legal state, a deadline in the future, no expired lease, few effects: after every step of any script."""
    player = Player()
    for at in range(0, min(len(data), 1200) - 3, 4):
        code, wait, *rest = data[at : at + 4]
        variation = bytes(rest)
        player.now += WAITS[wait % len(WAITS)]
        deadline = player.agent.deadline()
        if wait & 0x40 and deadline is not None:
            player.now = max(player.now, deadline)
        player.step(_event(player, code, variation))
    return player.wanted is not None


def _event(player: Player, code: int, variation: bytes) -> events.Event:
    a, b = variation[0], variation[1]
    match code % 16:
        case 0:
            return events.Woke()
        case 2 | 3:
            addresses = tuple(x for i, x in enumerate(ADDRESSES) if not b >> i & 1)
            return events.LinkChanged(a & 7 != 7, None if a & 0x38 == 0x38 else LINK_LOCAL, addresses, bool(b & 4))
        case 4 | 5 | 6 | 7 | 8:
            kind = (2, 5, 5, 2, 6, 5, 2, 1)[b >> 5]
            return events.DatagramReceived(player.answer(kind, variation), SERVER)
        case 9:
            return events.DatagramReceived(bytes((20 + (a & 1),)) + variation, SERVER)
        case 10 if a & 1:
            return events.SendFailed("no route")
        case 10 | 1 if player.preparing is not None:
            if a & 2:
                return events.AddressFailed(player.preparing, "another host has it already")
            return events.AddressReady(player.preparing)
        case 11 if player.wanted is not None:
            return events.Installed(player.wanted)
        case 12 if player.wanted is not None:
            return events.InstallFailed(player.wanted, "no memory")
        case 13:
            return events.RenewRequested() if a & 1 else events.RebindRequested()
        case 14:
            return events.RestartRequested()
        case 15 if a < 32:
            return events.ReleaseRequested()
        case 15:
            return events.Resolved(player.resolving, (BR,) if a & 1 else (), "not found")
    return events.Woke()
