"""The misbehaving server itself: it is wrong where, how and as often as it is told. What clients make of it is in
``tests/simulation/test_simulation_misbehave.py``."""

from __future__ import annotations

import pytest
from labquery import A1, ALICE, HOME, SERVER_ID, SETTINGS, SHARED_ONLY, message, params, query

from b4client.lab.leases import LeaseDatabase
from b4client.lab.misbehave import CASES, Case, MisbehavingServer, phase_of
from b4client.lab.server import Server
from b4client.wire import dhcp4, dhcp4o6, dhcp6
from b4client.wire.dhcp4 import MessageType
from b4client.wire.dhcp6 import Dhcp6Message, RelayMessage

QUESTIONS = {
    "information": dhcp6.encode(Dhcp6Message(11, 7, ((1, b"\0\3me"), (6, dhcp6.encode_oro((88, 96)))))),
    "discover": query(message(MessageType.DISCOVER)),
    "selecting": query(message(MessageType.REQUEST, requested=A1, ports=params(1), server_id=SERVER_ID)),
    "reboot": query(message(MessageType.REQUEST, requested=A1, ports=params(1))),
    "renewing": query(message(MessageType.REQUEST, ciaddr=A1, ports=params(1)), unicast=True),
    "rebinding": query(message(MessageType.REQUEST, ciaddr=A1, ports=params(1))),
}


def database() -> LeaseDatabase:
    leases = LeaseDatabase(SHARED_ONLY)
    slot = leases.choose(ALICE, 0.0, wants_shared=True)
    assert slot is not None
    leases.grant(slot, ALICE, 0.0, seconds=1000)
    return leases


@pytest.mark.parametrize("phase", QUESTIONS)
def test_phases(phase: str) -> None:
    assert phase_of(QUESTIONS[phase]) == phase


@pytest.mark.parametrize("data", [b"", b"\x14\0\0\0", b"\x01\0\0\0", query(message(MessageType.RELEASE, ciaddr=A1))])
def test_no_phase(data: bytes) -> None:
    assert phase_of(data) is None


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_wrong_as_often_as_told(case: Case) -> None:
    for phase, question in QUESTIONS.items():
        honest = Server(SETTINGS, database())
        wrong = MisbehavingServer(SETTINGS, database(), case, times=2)
        truth = [reply.data for reply in honest.handle(question, HOME, 1.0)]
        assert len(truth) == 1
        answers = [[reply.data for reply in wrong.handle(question, HOME, 1.0)] for _ in range(3)]
        assert answers[2] == truth
        assert wrong.done == (2 if phase in case.phases else 0)
        if phase not in case.phases:
            assert answers[0] == truth
        elif case.name != "ack-without-109":  # these questions carry none
            assert answers[0] != truth
            assert answers[0] == answers[1]


def test_for_ever() -> None:
    wrong = MisbehavingServer(SETTINGS, database(), CASES["wrong-xid"])
    for _ in range(5):
        (reply,) = wrong.handle(QUESTIONS["discover"], HOME, 1.0)
        assert dhcp4.decode(dhcp4o6.decode(reply.data).dhcp4).xid == 0x1235
    assert wrong.handle(query(message(MessageType.DISCOVER, listed=None)), HOME, 1.0) == []


def test_through_a_relay_it_is_honest() -> None:
    wrong = MisbehavingServer(SETTINGS, database(), CASES["response-without-87"])
    relayed = dhcp6.encode_relay(RelayMessage(12, 0, HOME, HOME, ((9, QUESTIONS["discover"]),)))
    (reply,) = wrong.handle(relayed, HOME, 1.0)
    assert dhcp4o6.decode(dhcp6.decode_relay(reply.data).relayed())
    assert wrong.done == 0
