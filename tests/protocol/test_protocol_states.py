"""The table of legal moves (RFC 2131 figure 5): each one is made, and no sequence of events makes another."""

from __future__ import annotations

import dataclasses
import math
import random
import typing
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from timescript import (
    ADDRESS,
    BR_OPTION,
    CLIENT_ID,
    OTHER_ADDRESS,
    OTHER_PORTS,
    OTHER_SADDR,
    OTHER_SERVER,
    PORTS,
    PORTS_OCTETS,
    SADDR,
    SERVER,
    Script,
    Sent,
    bound,
    lease_at,
    reply,
)

from b4client.model.errors import WireError
from b4client.model.portset import PortSet
from b4client.protocol.counters import COUNTERS
from b4client.protocol.dhcp4_client import MAX_OFFERS, Dhcp4Client
from b4client.protocol.dhcp4_states import TRANSITIONS, Bound, Selecting, State, mermaid
from b4client.wire import dhcp4
from b4client.wire.dhcp4 import MessageType, Option

NAMES = {state.name for state in typing.get_args(State)}
Moves = list[tuple[str, str]]


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> Moves:
    """Every move that a client makes, also those within one call."""
    made: Moves = []
    enter = Dhcp4Client._enter

    def recorded(client: Dhcp4Client, state: State) -> None:
        made.append((client.state.name, state.name))
        enter(client, state)

    monkeypatch.setattr(Dhcp4Client, "_enter", recorded)
    return made


# ---- the table


def test_every_state_is_in_the_table() -> None:
    assert TRANSITIONS.keys() == NAMES
    assert set().union(*TRANSITIONS.values()) == NAMES


def test_every_state_can_be_reached_from_the_first() -> None:
    reached, new = set(), {"STOPPED"}
    while new:
        reached |= new
        new = set().union(*(TRANSITIONS[name] for name in new)) - reached
    assert reached == NAMES


def test_every_state_can_be_left_for_stopped() -> None:
    """The operator always has the last word."""
    assert {name for name, targets in TRANSITIONS.items() if "STOPPED" not in targets} == {"STOPPED"}


def test_nothing_is_held_without_an_answer() -> None:
    """BOUND comes from an ACK, from silence about a lease that still runs, or from the same lease before."""
    assert {old for old, targets in TRANSITIONS.items() if "BOUND" in targets} == {
        "REQUESTING",
        "INIT-REBOOT",
        "RENEWING",
        "REBINDING",
        "CONFIRMING",
        "COASTING",
    }


def test_an_illegal_move_is_a_bug() -> None:
    client = Script().client
    with pytest.raises(AssertionError, match="no way from STOPPED to BOUND"):
        client._enter(Bound(lease_at()))
    assert client.state.name == "STOPPED"


def test_states_are_values() -> None:
    state = bound().client.state
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.lease = lease_at(1.0)  # type: ignore[misc, union-attr]


def test_the_diagram_has_every_move_once() -> None:
    lines = mermaid().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> STOPPED"]
    drawn = [tuple(line.strip().replace("_", "-").split(" --> ")) for line in lines[2:]]
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) == {(old, new) for old, targets in TRANSITIONS.items() for new in targets if new != old}


# ---- each move, made

Play = Callable[[Script], object]


def until(at: float) -> Play:
    return lambda s: s.until(at)


def tell(name: str, **named: object) -> Play:
    return lambda s: s.tell(getattr(s.client, name), **named)


def stop(*, keep: bool) -> Play:
    return tell("stop", keep_lease=keep, reason="option 88 is withdrawn")


def restart(script: Script) -> None:
    script.tell(script.client.restart, "the source address changed")


def reboot(script: Script) -> None:
    script.tell(script.client.reboot, lease_at(), in_use=False, usable=True)


def mismatch(script: Script) -> None:
    script.ack(saddr=OTHER_SADDR)


def readdress(script: Script) -> None:
    script.tell(script.client.readdress, OTHER_SADDR)


def dynamic(*scenes: Play) -> Callable[[], object]:
    """``play`` with RFC 8539."""
    return play(*scenes, dynamic=True)


def play(*scenes: Play, dynamic: bool = False) -> Callable[[], object]:
    def run() -> None:
        script = Script(several=False, dynamic=dynamic)
        for scene in scenes:
            scene(script)

    return run


START, BIND = tell("start"), (tell("start"), Script.offer, Script.ack)
RENEWING, REBINDING, COASTING = (*BIND, until(1800)), (*BIND, until(3150)), (*BIND, stop(keep=True))
FAILED_TWICE = (START, Script.offer, Script.nak, Script.offer, Script.nak)
PREPARING = (START, Script.offer)
ASKING = (*PREPARING, Script.prepared)
BIND_8539 = (*ASKING, Script.ack)
CONFIRMING = (*BIND_8539, readdress)
MOVES: dict[tuple[str, str], Callable[[], object]] = {
    ("STOPPED", "INIT"): play(START),
    ("STOPPED", "INIT-REBOOT"): play(reboot),
    ("INIT", "INIT"): play(*FAILED_TWICE, tell("nudge")),
    ("INIT", "SELECTING"): play(START),
    ("INIT", "STOPPED"): play(*FAILED_TWICE, stop(keep=True)),
    ("SELECTING", "INIT"): play(START, restart),
    ("SELECTING", "REQUESTING"): play(START, Script.offer),
    ("SELECTING", "SELECTING"): play(START, until(4)),
    ("SELECTING", "STOPPED"): play(START, stop(keep=True)),
    ("REQUESTING", "BOUND"): play(*BIND),
    ("REQUESTING", "INIT"): play(START, Script.offer, Script.nak),
    ("REQUESTING", "REQUESTING"): play(START, Script.offer, until(4)),
    ("REQUESTING", "STOPPED"): play(START, Script.offer, tell("release")),
    ("INIT-REBOOT", "BOUND"): play(reboot, Script.ack),
    ("INIT-REBOOT", "COASTING"): play(*BIND, tell("verify"), stop(keep=True)),
    ("INIT-REBOOT", "INIT"): play(reboot, Script.nak),
    ("INIT-REBOOT", "INIT-REBOOT"): play(reboot, until(4)),
    ("INIT-REBOOT", "STOPPED"): play(reboot, tell("release")),
    ("BOUND", "COASTING"): play(*COASTING),
    ("BOUND", "INIT"): play(*BIND, lambda s: s.jump(3600)),
    ("BOUND", "INIT-REBOOT"): play(*BIND, tell("verify")),
    ("BOUND", "REBINDING"): play(*BIND, lambda s: s.jump(3150)),
    ("BOUND", "RENEWING"): play(*RENEWING),
    ("BOUND", "STOPPED"): play(*BIND, stop(keep=False)),
    ("RENEWING", "BOUND"): play(*RENEWING, Script.ack),
    ("RENEWING", "COASTING"): play(*RENEWING, stop(keep=True)),
    ("RENEWING", "INIT"): play(*RENEWING, Script.nak),
    ("RENEWING", "INIT-REBOOT"): play(*RENEWING, tell("verify")),
    ("RENEWING", "REBINDING"): play(*REBINDING),
    ("RENEWING", "RENEWING"): play(*RENEWING, until(2475)),
    ("RENEWING", "STOPPED"): play(*RENEWING, tell("release")),
    ("REBINDING", "BOUND"): play(*REBINDING, Script.ack),
    ("REBINDING", "COASTING"): play(*REBINDING, stop(keep=True)),
    ("REBINDING", "INIT"): play(*REBINDING, until(3600)),
    ("REBINDING", "INIT-REBOOT"): play(*REBINDING, tell("verify")),
    ("REBINDING", "REBINDING"): play(*REBINDING, until(3375)),
    ("REBINDING", "STOPPED"): play(*REBINDING, tell("release")),
    ("SELECTING", "PREPARING"): dynamic(*PREPARING),
    ("PREPARING", "REQUESTING"): dynamic(*ASKING),
    ("PREPARING", "INIT"): dynamic(*PREPARING, until(30)),
    ("PREPARING", "STOPPED"): dynamic(*PREPARING, stop(keep=True)),
    ("REQUESTING", "CONFIRMING"): dynamic(*ASKING, mismatch),
    ("INIT-REBOOT", "CONFIRMING"): dynamic(*BIND_8539, tell("verify"), mismatch),
    ("BOUND", "CONFIRMING"): dynamic(*CONFIRMING),
    ("RENEWING", "CONFIRMING"): dynamic(*BIND_8539, until(1800), mismatch),
    ("REBINDING", "CONFIRMING"): dynamic(*BIND_8539, until(3150), mismatch),
    ("CONFIRMING", "CONFIRMING"): dynamic(*CONFIRMING, until(4)),
    ("CONFIRMING", "BOUND"): dynamic(*CONFIRMING, Script.ack),
    ("CONFIRMING", "INIT"): dynamic(*CONFIRMING, Script.nak),
    ("CONFIRMING", "INIT-REBOOT"): dynamic(*CONFIRMING, tell("verify")),
    ("CONFIRMING", "COASTING"): dynamic(*CONFIRMING, stop(keep=True)),
    ("CONFIRMING", "STOPPED"): dynamic(*CONFIRMING, tell("release")),
    ("COASTING", "BOUND"): play(*COASTING, tell("resume")),
    ("COASTING", "INIT"): play(*COASTING, restart),
    ("COASTING", "STOPPED"): play(*COASTING, until(3600)),
}


@pytest.mark.parametrize("move", MOVES, ids=" to ".join)
def test_the_move_is_made(move: tuple[str, str], moves: Moves) -> None:
    MOVES[move]()
    assert move in moves


def test_the_table_has_these_moves_and_no_other() -> None:
    assert MOVES.keys() == {(old, new) for old, targets in TRANSITIONS.items() for new in targets}


# ---- whatever happens, in whatever order

addresses = st.sampled_from([ADDRESS, OTHER_ADDRESS, dhcp4.ZERO, IPv4Address("169.254.1.1")])
port_sets = st.sampled_from([PORTS, OTHER_PORTS, PortSet(0, 2, 1), None])
port_values = port_sets | st.binary(max_size=5) | st.just(PORTS_OCTETS * 2)
times = st.sampled_from([None, 0, 1, 30, 61, 600, 3600, 10**6, 0xFFFFFFFF]) | st.binary(max_size=5)
changes = st.fixed_dictionaries(
    {},
    optional={
        "address": addresses,
        "ports": port_values,
        "server": st.sampled_from([SERVER, OTHER_SERVER, None, b"\1"]),
        "lease": times,
        "t1": times,
        "t2": times,
        "client_id": st.sampled_from([CLIENT_ID, None, b"", b"somebody else"]),
    },
)
outers = st.sampled_from([(BR_OPTION,), (), ((90, b"\0"),), (BR_OPTION, (137, b"\x81"))])
saddrs = st.sampled_from([None, SADDR, OTHER_SADDR])
kinds = st.sampled_from([MessageType.OFFER, MessageType.ACK, MessageType.NAK])
spans = st.sampled_from([0.0, 0.5, 1.0, 4.0, 30.0, 60.0, 130.0]) | st.floats(0, 2000)
long_spans = st.sampled_from([900.0, 1800.0, 3150.0, 3600.0, 1e5, 1e9])


class Anything(RuleBasedStateMachine):
    """One client; time, messages and commands as they come."""

    @initialize(
        seed=st.integers(0, 2**32),
        several=st.booleans(),
        start_delay=st.booleans(),
        prefer_shared=st.booleans(),
        psid_len_hint=st.none() | st.integers(1, 16),
        offer_window_s=st.sampled_from([0.0, 1.0, 30.0]),
        dynamic=st.booleans(),
    )
    def begin(self, seed: int, **configured: Any) -> None:
        self.script = Script(random.Random(seed), **configured)
        self.script.tell(self.script.client.start)

    def settle(self) -> None:
        """What the daemon does after each step: the timer is set, and fires when it is due already."""
        script = self.script
        script.jump(script.now)
        due, lease = script.client.deadline(), script.client.lease
        assert due is None or script.now < due < math.inf
        assert lease is None or script.now < lease.expires_at

    # ---- time

    @rule(span=spans)
    def time_passes(self, span: float) -> None:
        quiet, before = self.script.state in ("STOPPED", "COASTING"), len(self.script.sent)
        self.script.until(self.script.now + span)
        assert not quiet or len(self.script.sent) == before

    @rule(span=long_spans)
    def the_machine_sleeps(self, span: float) -> None:
        self.script.jump(self.script.now + span)
        self.settle()

    @rule(span=spans)
    def the_timer_is_late(self, span: float) -> None:
        """Something else is done first at an instant that is past the deadline."""
        self.script.now += span

    # ---- messages

    def hear(self, data: bytes, outer: tuple[tuple[int, bytes], ...] = ()) -> None:
        try:
            message = dhcp4.decode(data)
        except WireError:
            return
        before, leases = self.script.client.state, len(self.script.gained)
        self.script.hear(message, outer)
        if message.xid != getattr(before, "xid", None):
            assert self.script.client.state is before
            assert len(self.script.gained) == leases
        self.settle()

    def answer(self, kind: int, what: dict[str, Any]) -> bytes:
        xid = getattr(self.script.client.state, "xid", None) or 0
        return dhcp4.encode(reply(kind, xid, **what))  # type: ignore[arg-type]

    @rule(kind=kinds, outer=outers, saddr=saddrs)
    def a_server_answers(
        self, kind: MessageType, outer: tuple[tuple[int, bytes], ...], saddr: IPv6Address | None
    ) -> None:
        options = () if saddr is None else ((Option.S46_SADDR, saddr.packed),)
        self.hear(self.answer(kind, {"options": options}), outer)

    @rule(saddr=st.sampled_from([SADDR, OTHER_SADDR]))
    def the_source_is_ready(self, saddr: IPv6Address) -> None:
        self.script.tell(self.script.client.prepared, saddr)
        self.settle()

    @rule()
    def the_source_cannot_be_had(self) -> None:
        self.script.tell(self.script.client.unprepared, "somebody has it")
        self.settle()

    @rule(saddr=st.sampled_from([SADDR, OTHER_SADDR]))
    def the_softwire_moves(self, saddr: IPv6Address) -> None:
        self.script.tell(self.script.client.readdress, saddr)
        self.settle()

    @rule(kind=kinds | st.integers(0, 255), what=changes)
    def a_server_answers_oddly(self, kind: int, what: dict[str, Any]) -> None:
        self.hear(self.answer(kind, what))

    @rule(kind=kinds, number=st.integers(0, 65535))
    def many_offers(self, kind: MessageType, number: int) -> None:
        for n in range(MAX_OFFERS + 2):
            self.hear(self.answer(kind, {"ports": PortSet(0, 16, (number + n) % 65536)}))

    @rule(kind=kinds, what=changes, damage=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4))
    def a_message_is_damaged(self, kind: MessageType, what: dict[str, Any], damage: list[tuple[int, int]]) -> None:
        data = bytearray(self.answer(kind, what))
        for at, octet in damage:
            data[at % len(data)] = octet
        self.hear(bytes(data))

    @rule(xid=st.integers(0, 2**32 - 1), kind=kinds)
    def somebody_elses_message(self, xid: int, kind: MessageType) -> None:
        self.hear(dhcp4.encode(reply(kind, xid)))

    # ---- commands

    @rule(name=st.sampled_from(["renew", "rebind", "verify", "nudge", "resume", "start"]))
    def command(self, name: str) -> None:
        self.script.tell(getattr(self.script.client, name))
        self.settle()

    @rule()
    def source_changes(self) -> None:
        restart(self.script)
        self.settle()

    @rule()
    def given_back(self) -> None:
        self.script.tell(self.script.client.release)
        assert self.script.state == "STOPPED"

    @rule(keep=st.booleans())
    def option_88_is_withdrawn(self, keep: bool) -> None:
        before = len(self.script.sent)
        self.script.tell(self.script.client.stop, keep_lease=keep, reason="option 88 is withdrawn")
        assert self.script.state in ("STOPPED", "COASTING")
        assert len(self.script.sent) == before

    @precondition(lambda self: self.script.state == "STOPPED")
    @rule(age=st.sampled_from([0.0, 100.0, 1800.0, 3590.0, 3600.0]), usable=st.booleans(), ports=port_sets)
    def started_with_a_stored_lease(self, age: float, usable: bool, ports: PortSet | None) -> None:
        script = self.script
        script.tell(script.client.reboot, lease_at(script.now - age, ports=ports), in_use=False, usable=usable)
        self.settle()

    # ---- what holds

    @invariant()
    def the_state_is_legal(self) -> None:
        assert self.script.state in NAMES
        state = self.script.client.state
        if isinstance(state, Selecting):
            assert len(state.offers) <= MAX_OFFERS
            assert (state.select_at is None) == (not state.offers)

    @invariant()
    def what_was_said_is_what_holds(self) -> None:
        """ "Gained" and "lost" are all that the agent has: they must agree with what the client holds."""
        held = False
        for _, word in self.script.said:
            held = word == "gained" or (held and not word.startswith("lost"))
        assert held == (self.script.client.lease is not None)
        if held:
            assert self.script.lease == self.script.gained[-1]
            softwire = self.script.lease.softwire
            # RFC 8539 7.5: what is used is what the server has stored.
            assert softwire is None or softwire.saddr is not None

    @invariant()
    def a_lease_counts_from_the_past(self) -> None:
        lease = self.script.client.lease
        if lease is not None:
            assert lease.requested_at <= self.script.now
            assert lease.requested_at < lease.t1_at <= lease.t2_at <= lease.expires_at

    @invariant()
    def what_was_sent_fits_table_t(self) -> None:
        for sent in self.script.sent[-4:]:
            assert fits_table_t(sent)

    @invariant()
    def every_drop_has_a_name(self) -> None:
        assert self.script.counters.snapshot().keys() <= COUNTERS.keys()


def fits_table_t(sent: Sent) -> bool:
    """Whether a message is one of the six of table T."""
    options = sent.options()
    has = {code: code in options for code in (Option.REQUESTED_ADDRESS, Option.SERVER_ID, Option.PARAMETER_LIST)}
    requested, server, listed = has.values()
    if options[Option.CLIENT_ID] != CLIENT_ID or listed == (sent.kind == MessageType.RELEASE):
        return False
    zero = sent.message.ciaddr == dhcp4.ZERO
    match sent.kind:
        case MessageType.DISCOVER:
            return zero and not sent.unicast and not server
        case MessageType.REQUEST if zero:
            return requested and not sent.unicast
        case MessageType.REQUEST:
            return not requested and not server
        case MessageType.RELEASE:
            return not zero and sent.unicast and server and not requested
    return False


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
