"""The agent on top of a delegated prefix or a hand-over: what goes to the WAN, and what becomes of the softwire."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import TypeVar

import pytest
from dhcp6script import ADDRESS, DUID, IAID, NEW_PREFIX, PREFIX, SERVER, na, pd
from hypothesis import given, settings
from hypothesis import strategies as st
from timescript import Middle

from b4client.model.lease6 import Binding6, Lease6, Leased6
from b4client.model.settings import ProtocolSettings
from b4client.protocol import effects, events
from b4client.protocol.agent import Agent
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option
from b4client.wire.softwire46 import Lw4o6Container, PortParams, V4V6Bind, encode_lw4o6

LINK_LOCAL, GLOBAL, BR = IPv6Address("fe80::46"), IPv6Address("2001:db8:8046::100"), IPv6Address("2001:db8:ffff::1")
INF = float("inf")
E = TypeVar("E", bound=effects.Effect)


def lw4o6(prefix: IPv6Network) -> tuple[int, bytes]:
    """Container 96 with all that a softwire in ``prefix`` needs: no DHCPv4 at all."""
    inside = IPv6Network((prefix.network_address, 64))
    binding = V4V6Bind(IPv4Address("192.0.2.18"), inside, PortParams(0, 8, 0x34))
    return int(Option.S46_CONT_LW), encode_lw4o6(Lw4o6Container((BR,), binding))


def source_in(prefix: IPv6Network) -> IPv6Address:
    return IPv6Address(int(prefix.network_address) | 0xC00002120034)


class Story:
    """An agent, its clock, and the effects of its last step."""

    def __init__(self, mode: str = "prefix", *, binding: Binding6 | None = None, now: float = 0.0) -> None:
        self.agent = Agent(
            ProtocolSettings(start_delay=False, dhcp6_mode=mode),
            wan="wan",
            mtu=None,
            forwards=(),
            duid=DUID,
            iaid=IAID,
            hardware_address=bytes(6),
            stored=None,
            rng=Middle(1),
            binding=binding,
        )
        self.now = now
        self.effects: list[effects.Effect] = []
        self.step(events.LinkChanged(True, LINK_LOCAL, (GLOBAL,)))

    def step(self, event: events.Event) -> list[effects.Effect]:
        self.effects = self.agent.handle(event, self.now)
        for install in self.of(effects.Install):
            self.effects += self.agent.handle(events.Installed(install.config), self.now)
        return self.effects

    def until(self, instant: float) -> list[effects.Effect]:
        """Let time pass; all effects of it."""
        found = []
        while (due := self.agent.deadline()) is not None and due <= instant:
            self.now = max(self.now, due)
            found += self.step(events.Woke())
        self.now = instant
        self.effects = found
        return found

    def of(self, kind: type[E]) -> list[E]:
        return [e for e in self.effects if isinstance(e, kind)]

    @property
    def asked(self) -> Dhcp6Message:
        """The DHCPv6 message that was sent last."""
        return [m for m in map(dhcp6.decode, (s.data for s in self.of(effects.Send)))][-1]

    def answer(self, kind: MessageType, *options: tuple[int, bytes]) -> list[effects.Effect]:
        identity = ((int(Option.CLIENTID), DUID), (int(Option.SERVERID), SERVER))
        data = dhcp6.encode(Dhcp6Message(kind, self.asked.transaction_id, (*identity, *options)))
        return self.step(events.DatagramReceived(data, IPv6Address("fe80::1")))

    def bind(self, *options: tuple[int, bytes]) -> Story:
        self.answer(MessageType.ADVERTISE, (int(Option.PREFERENCE), b"\xff"), *options)
        self.answer(MessageType.REPLY, *options)
        return self

    @property
    def softwire(self) -> str | None:
        status = self.agent.snapshot(self.now).softwire
        return None if status is None else status.binding_ipv6_addr

    @property
    def wan(self) -> list[str]:
        """What the last ConfigureWan named."""
        return [str(item.network) for item in self.of(effects.ConfigureWan)[-1].lease.every]


def test_a_prefix_and_the_softwire_in_it() -> None:
    story = Story()
    assert story.asked.msg_type == MessageType.SOLICIT
    assert story.agent.snapshot(0.0).waiting_for == "an answer to the DHCPv6 SOLICIT"
    story.bind(pd(PREFIX), lw4o6(PREFIX))
    assert story.wan == [str(PREFIX)]
    assert [i.config.local for i in story.of(effects.Install)] == [source_in(PREFIX)]
    (saved,) = story.of(effects.SaveBinding)
    assert saved.binding is not None
    assert (saved.binding.server, saved.binding.t1_at) == (SERVER, 500)
    kinds = [type(e) for e in story.effects]
    assert kinds.index(effects.ConfigureWan) < kinds.index(effects.Install)


def test_an_advertise_provisions_nothing() -> None:
    """D-17: only the Reply does."""
    story = Story()
    story.answer(MessageType.ADVERTISE, (int(Option.PREFERENCE), b"\xff"), pd(PREFIX), lw4o6(PREFIX))
    assert story.of(effects.Install) == []
    assert story.of(effects.ConfigureWan) == []


def test_a_renewal_only_moves_the_ends() -> None:
    story = Story().bind(pd(PREFIX), lw4o6(PREFIX))
    story.until(500)
    story.answer(MessageType.REPLY, pd(PREFIX), lw4o6(PREFIX))
    assert story.of(effects.ConfigureWan)[0].lease.prefixes[0].valid_until == 2500
    assert story.of(effects.Install) == []
    assert story.of(effects.Withdraw) == []
    assert story.of(effects.Report) == []


def test_another_prefix_moves_the_softwire_in_one_step() -> None:
    """Prefix and container change in one Reply: the softwire is changed once, and never taken down."""
    story = Story().bind(pd(PREFIX), lw4o6(PREFIX))
    story.until(500)
    story.answer(MessageType.REPLY, pd(PREFIX, preferred=0, valid=0), pd(NEW_PREFIX), lw4o6(NEW_PREFIX))
    assert story.wan == [str(NEW_PREFIX)]
    assert [i.config.local for i in story.of(effects.Install)] == [source_in(NEW_PREFIX)]
    assert story.of(effects.Withdraw) == []


def test_the_prefix_ends_and_with_it_the_softwire() -> None:
    """F-2, RFC 7597 7.1 [M-12]: the configuration that carried the options has expired."""
    story = Story().bind(pd(PREFIX), lw4o6(PREFIX))
    story.until(1999)
    assert story.softwire == str(source_in(PREFIX))
    story.until(2000)
    assert story.softwire is None
    assert story.wan == []
    assert story.of(effects.Withdraw)
    assert story.of(effects.SaveBinding)[-1].binding is None
    assert story.asked.msg_type == MessageType.SOLICIT


def test_options_that_a_renewal_does_not_bring_are_gone() -> None:
    """RFC 8415 18.2.10 [D-12]; the prefix stays."""
    story = Story().bind(pd(PREFIX), lw4o6(PREFIX))
    story.until(500)
    story.answer(MessageType.REPLY, pd(PREFIX))
    assert story.softwire is None
    assert story.of(effects.ConfigureWan)[-1].lease.prefixes


def test_a_deprecated_prefix_is_not_the_first_choice() -> None:
    """Both match the binding prefix: the preferred one is taken."""
    binding = V4V6Bind(IPv4Address("192.0.2.18"), IPv6Network("2001:db8::/38"), PortParams(0, 8, 0x34))
    any_of_them = int(Option.S46_CONT_LW), encode_lw4o6(Lw4o6Container((BR,), binding))
    old = dhcp6.decode_ia(pd(PREFIX, preferred=0, valid=2000)[1]).options
    new = dhcp6.decode_ia(pd(NEW_PREFIX)[1]).options
    both = int(Option.IA_PD), dhcp6.encode_ia(dhcp6.IdentityAssociation(IAID, 500, 800, (*old, *new)))
    story = Story().bind(both, any_of_them)
    assert IPv6Address(story.softwire or "::") in NEW_PREFIX


def test_a_leased_address_that_another_host_has() -> None:
    story = Story("address+prefix").bind(na(ADDRESS), pd(PREFIX), lw4o6(PREFIX))
    assert story.wan == [f"{ADDRESS}/128", str(PREFIX)]
    story.step(events.AddressDuplicated(ADDRESS))
    assert story.asked.msg_type == MessageType.DECLINE
    assert story.wan == [str(PREFIX)]
    assert story.softwire == str(source_in(PREFIX))


def test_an_earlier_life() -> None:
    """The stored prefix is put back at once, and verified (RFC 8415 18.2.12)."""
    binding = Binding6(SERVER, Lease6((), (Leased6(PREFIX, 1000, 2000),)), 500, 800)
    story = Story(binding=binding, now=100.0)
    assert story.wan == [str(PREFIX)]
    assert story.asked.msg_type == MessageType.REBIND
    story.answer(MessageType.REPLY, pd(PREFIX), lw4o6(PREFIX))
    assert story.softwire == str(source_in(PREFIX))


@pytest.mark.parametrize(("withdraw", "emptied"), [(True, True), (False, False)])
def test_stopping_keeps_the_lease_at_the_server(withdraw: bool, emptied: bool) -> None:
    story = Story().bind(pd(PREFIX), lw4o6(PREFIX))
    story.step(events.StopRequested(withdraw=withdraw))
    assert bool(story.of(effects.ConfigureWan)) == emptied
    assert story.of(effects.SaveBinding) == []
    assert story.of(effects.Send) == []


def test_releasing_gives_all_back_and_stays_idle() -> None:
    story = Story().bind(pd(PREFIX), lw4o6(PREFIX))
    story.step(events.ReleaseRequested())
    assert story.asked.msg_type == MessageType.RELEASE
    assert story.wan == []
    assert story.of(effects.SaveBinding)[-1].binding is None
    story.until(100)
    story.step(events.LinkChanged(True, LINK_LOCAL, (GLOBAL,), moved=True))
    assert story.of(effects.Send) == []
    story.step(events.RestartRequested())
    assert story.asked.msg_type == MessageType.SOLICIT


def test_an_operator_renews_both() -> None:
    story = Story().bind(pd(PREFIX), lw4o6(PREFIX))
    story.step(events.RenewRequested())
    assert story.asked.msg_type == MessageType.RENEW


def test_counted_by_kind() -> None:
    assert Story().agent.snapshot(0.0).counters == {"sent-dhcp6": 1}
    assert Story("stateless").agent.snapshot(0.0).counters == {"sent-information-request": 1}


# ---- handed over


def handed(prefix: IPv6Network, *, until: float = INF) -> events.InformationHandedOver:
    return events.InformationHandedOver((lw4o6(prefix),), Lease6((), (Leased6(prefix, until, until),)))


def test_external_asks_nobody_and_leaves_the_wan_alone() -> None:
    story = Story("external")
    assert story.effects == [effects.Withdraw("there is no lease from before")]
    assert "b4client provision" in (story.agent.snapshot(0.0).waiting_for or "")
    story.step(handed(PREFIX))
    assert story.softwire == str(source_in(PREFIX))
    for kind in (effects.ConfigureWan, effects.SaveBinding, effects.Send):
        assert story.of(kind) == []  # type: ignore[type-abstract]
    assert story.agent.snapshot(0.0).provisioning.state == "handedover"


def test_handed_over_anew() -> None:
    story = Story("external")
    story.step(handed(PREFIX))
    story.step(handed(NEW_PREFIX))
    assert [i.config.local for i in story.of(effects.Install)] == [source_in(NEW_PREFIX)]
    assert story.of(effects.Withdraw) == []
    story.step(events.InformationHandedOver((), Lease6()))
    assert story.softwire is None
    assert story.of(effects.Withdraw)


def test_what_was_handed_over_ends() -> None:
    story = Story("external")
    story.step(handed(PREFIX, until=50.0))
    story.until(49)
    assert story.softwire is not None
    story.until(50)
    assert story.softwire is None


def test_a_restart_uses_what_was_handed_over() -> None:
    story = Story("external")
    story.step(handed(PREFIX, until=50.0))
    story.step(events.RestartRequested())
    assert story.softwire == str(source_in(PREFIX))
    story.until(50)
    story.step(events.RestartRequested())
    assert story.softwire is None


def test_datagrams_are_the_other_clients() -> None:
    story = Story("external")
    data = dhcp6.encode(Dhcp6Message(MessageType.REPLY, 0, (lw4o6(PREFIX),)))
    assert story.step(events.DatagramReceived(data, LINK_LOCAL)) == []
    assert story.agent.snapshot(0.0).counters == {"drop-datagram-unexpected-type": 1}


@pytest.mark.parametrize("mode", ["stateless", "prefix"])
def test_a_hand_over_in_another_mode_is_ignored(mode: str) -> None:
    story = Story(mode)
    assert story.step(handed(PREFIX)) == []


# ---- any story


SAID = st.lists(
    st.sampled_from(
        [
            pd(PREFIX),
            pd(NEW_PREFIX),
            pd(PREFIX, preferred=0, valid=0),
            pd(PREFIX, preferred=3, valid=5, t1=0, t2=0),
            pd(status=3),
            na(ADDRESS),
            na(ADDRESS, preferred=4, valid=4),
            lw4o6(PREFIX),
            lw4o6(NEW_PREFIX),
            (int(Option.DHCP4_O_DHCP6_SERVER), b""),
            (int(Option.S46_CONT_LW), b"junk"),
            (int(Option.PREFERENCE), b"\xff"),
            (int(Option.STATUS_CODE), b"\0\1"),
        ]
    ),
    max_size=5,
)
LINKS = st.builds(
    events.LinkChanged,
    st.booleans(),
    st.sampled_from([LINK_LOCAL, LINK_LOCAL, None]),
    st.sampled_from([(), (GLOBAL,), (ADDRESS, GLOBAL)]),
    st.booleans(),
)
HAPPENINGS = st.one_of(
    st.tuples(st.sampled_from([MessageType.ADVERTISE, MessageType.REPLY]), SAID),
    st.sampled_from([0.0, 1.1, 4.0, 90.0, 700.0, 1e5]),
    LINKS,
    st.sampled_from(
        [
            events.ReleaseRequested(),
            events.RestartRequested(),
            events.RenewRequested(),
            events.AddressDuplicated(ADDRESS),
            handed(PREFIX, until=100.0),
            events.InformationHandedOver((), Lease6()),
        ]
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["prefix", "address+prefix", "external"]), st.lists(HAPPENINGS, max_size=20))
def test_whatever_happens(mode: str, happenings: list[object]) -> None:
    """Nothing is due twice at one instant, what is wanted of the WAN is valid, and the softwire stands on something: a
    prefix that is gone takes it along."""
    story = Story(mode)
    asked = 0
    for happening in happenings:
        match happening:
            case (MessageType() as kind, list() as options):
                sent = story.of(effects.Send)
                asked = int.from_bytes(sent[-1].data[1:4], "big") if sent else asked
                identity = ((int(Option.CLIENTID), DUID), (int(Option.SERVERID), SERVER))
                data = dhcp6.encode(Dhcp6Message(kind, asked, (*identity, *options)))
                story.step(events.DatagramReceived(data, LINK_LOCAL))
            case float() as seconds:
                story.until(story.now + seconds)
            case _:
                story.step(happening)  # type: ignore[arg-type]
        assert len(story.effects) < 1000
        due = story.agent.deadline()
        assert due is None or due > story.now
        for wanted in story.of(effects.ConfigureWan)[-1:]:
            assert all(item.valid_until > story.now for item in wanted.lease.every)
        leases = story.agent.snapshot(story.now).provisioning.leases
        if story.softwire is not None and mode != "external":
            assert leases


def test_a_release_is_said_when_nothing_is_used_any_more() -> None:
    """RFC 8415 18.2.7: the leases are off the interface before the Release, which is sent once."""
    story = Story().bind(pd(PREFIX), lw4o6(PREFIX))
    story.step(events.ReleaseRequested())
    names = [type(e).__name__ for e in story.effects]
    assert names.count("Send") == 1
    assert names.index("Withdraw") < names.index("ConfigureWan") < names.index("Send")
    (sent,) = story.of(effects.Send)
    assert sent.after_kernel
    assert dhcp6.decode(sent.data).msg_type == MessageType.RELEASE
    assert story.wan == []
