"""Counters: every one that the protocol machines can raise is raised here, and nothing else can be counted."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from types import ModuleType

import pytest
from dhcp6script import PREFIX, Script6, pd
from timescript import BR_OPTION, CLIENT_ID, OTHER_SADDR, OTHER_SERVER, PORTS_OCTETS, Middle, Script, reply

from b4client.model.portset import PortSet
from b4client.protocol import (
    dhcp4_client,
    dhcp4_messages,
    dhcp6_client,
    dhcp6_exchange,
    dhcp6_leases,
    dhcp6_source,
    dhcp6_stateful,
    provisioning,
)
from b4client.protocol.counters import COUNTERS, Counters
from b4client.protocol.dhcp4_client import MAX_OFFERS
from b4client.protocol.dhcp6_client import Dhcp6Client
from b4client.wire import dhcp4, dhcp6
from b4client.wire.dhcp4 import BOOTREQUEST, MessageType
from b4client.wire.dhcp6 import Dhcp6Message

MODULES = (
    *(dhcp4_client, dhcp4_messages),
    *(dhcp6_client, dhcp6_exchange, dhcp6_leases, dhcp6_source, dhcp6_stateful),
    provisioning,
)


def in_source(module: ModuleType) -> set[str]:
    """The names of counters that stand in a module's code."""
    tree = ast.parse(inspect.getsource(module))
    strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return strings & COUNTERS.keys()


# ---- one way to each


def selecting() -> Script:
    return Script().to_selecting()


def requesting() -> Script:
    return Script(several=False).to_requesting()


def dynamic() -> Script:
    """RFC 8539."""
    return Script(several=False, dynamic=True).to_selecting()


def dynamically_requesting() -> Script:
    script = dynamic()
    script.offer()
    script.prepared()
    return script


def four(do: Callable[[Script], object], begin: Callable[[], Script] = selecting) -> Callable[[], Counters]:
    def run() -> Counters:
        script = begin()
        do(script)
        return script.counters

    return run


def flood(script: Script) -> None:
    for n in range(MAX_OFFERS + 1):
        script.offer(ports=PortSet(0, 8, n))


MISALIGNED = bytes.fromhex("005c0014c00002123820010db8001234005d000400080034005a0010") + b"\x20\x01" * 8
OURS, SERVER = (1, b"\0\3\0\1\2\0\0\0\0\1"), (2, b"\0\3\0\1\2\0\0\0\0\2")


def six(*options: tuple[int, bytes], distance: int = 0, msg_type: int = 7, data: bytes | None = None) -> Counters:
    """A Reply to the first INFORMATION-REQUEST; what it provisions is read when it is accepted."""
    counters = Counters()
    client = Dhcp6Client(OURS[1], start_delay=False, rng=Middle(1), counters=counters)
    number = dhcp6.decode(client.start(0.0)[0]).transaction_id
    octets = dhcp6.encode(Dhcp6Message(msg_type, number ^ distance, options)) if data is None else data
    message = client.received(octets, 0.0)
    if message is not None:
        provisioning.read_reply(message, counters)
    return counters


def six_twice(*second: tuple[int, bytes]) -> Counters:
    """A Reply that provisions nothing, and another after it."""
    counters = Counters()
    client = Dhcp6Client(OURS[1], start_delay=False, rng=Middle(1), counters=counters)
    number = dhcp6.decode(client.start(0.0)[0]).transaction_id
    for options in ((), second):
        client.received(dhcp6.encode(Dhcp6Message(7, number, (OURS, SERVER, *options))), 0.0)
    return counters


def soliciting(*options: tuple[int, bytes]) -> Counters:
    """An Advertise to the first SOLICIT."""
    script = Script6().start()
    script.advertise(*options)
    return script.counters


def empty_renewal() -> Counters:
    script = Script6().bind()
    script.until(500)
    script.reply()
    return script.counters


WAYS: dict[str, Callable[[], Counters]] = {
    "received-reply": lambda: six(OURS, SERVER),
    "received-reply-late": lambda: six_twice((88, b"")),
    "drop-reply-late": six_twice,
    "received-advertise": lambda: soliciting(pd(PREFIX)),
    "drop-advertise-without-lease": soliciting,
    "drop-reply-without-lease": empty_renewal,
    "ignored-ia-malformed": lambda: soliciting(pd(PREFIX, t1=2, t2=1)),
    "ignored-lease6-unusable": lambda: soliciting(pd(PREFIX, preferred=2, valid=1)),
    "received-offer": four(Script.offer),
    "received-ack": four(Script.ack, requesting),
    "received-nak": four(Script.nak, requesting),
    "drop-datagram-malformed": lambda: six(data=b"\7"),
    "drop-datagram-unexpected-type": lambda: six(OURS, SERVER, msg_type=2),
    "drop-reply-foreign-transaction": lambda: six(OURS, SERVER, distance=1),
    "drop-reply-without-server-id": lambda: six(OURS),
    "drop-reply-foreign-client-id": lambda: six(SERVER),
    "drop-reply-failed": lambda: six(OURS, SERVER, (13, b"\0\1")),
    "ignored-option88-malformed": lambda: six(OURS, SERVER, (88, b"\0")),
    "ignored-container-malformed": lambda: six(OURS, SERVER, (96, b"")),
    "ignored-container-unsupported": lambda: six(OURS, SERVER, (95, b"")),
    "ignored-container-misaligned": lambda: six(OURS, SERVER, (96, MISALIGNED)),
    "ignored-aftr-name-malformed": lambda: six(OURS, SERVER, (64, b"\1")),
    "ignored-priority-malformed": lambda: six(OURS, SERVER, (111, b"\0")),
    "drop-response-not-in-use": four(lambda s: s.hear(reply(MessageType.OFFER, 0)), Script),
    "drop-response-not-a-reply": four(lambda s: s.offer(op=BOOTREQUEST)),
    "drop-response-foreign-xid": four(lambda s: s.hear(reply(MessageType.OFFER, s.last.message.xid ^ 1))),
    "drop-response-foreign-client-id": four(lambda s: s.offer(client_id=CLIENT_ID[:-1])),
    "drop-response-wrong-state": four(Script.ack),
    "drop-nak-without-server-id": four(lambda s: s.nak(server=None), requesting),
    "warned-options-forbidden": four(lambda s: s.offer(options=((50, bytes(4)),))),
    "drop-response-other-server": four(lambda s: s.nak(server=OTHER_SERVER), requesting),
    "drop-offer-address": four(lambda s: s.offer(address=dhcp4.ZERO)),
    "drop-offer-without-server-id": four(lambda s: s.offer(server=None)),
    "drop-offer-portparams": four(lambda s: s.offer(ports=PORTS_OCTETS * 2)),
    "drop-offer-portparams-misaligned": four(lambda s: s.offer(ports=b"\0\x08\0\x34")),
    "drop-offer-surplus": four(flood),
    "drop-offer-without-br": four(lambda s: s.offer(outer=()), dynamic),
    "ignored-br-unusable": four(lambda s: s.offer(outer=((90, bytes(16)),)), dynamic),
    "ignored-bind-prefix-malformed": four(lambda s: s.offer(outer=(BR_OPTION, (137, b"\x81"))), dynamic),
    "warned-saddr-mismatch": four(lambda s: s.ack(saddr=OTHER_SADDR), dynamically_requesting),
    "warned-portparams-whole": four(lambda s: s.ack(ports=bytes(4)), requesting),
    "drop-ack-lease-time": four(lambda s: s.ack(lease=None), requesting),
    "drop-ack-without-portparams": four(lambda s: s.ack(ports=None), requesting),
    "warned-portparams-padding": four(lambda s: s.offer(ports=b"\6\x08\x34\1")),
    "warned-lease-times": four(lambda s: s.ack(t1=2, t2=1), requesting),
}


@pytest.mark.parametrize("name", WAYS)
def test_every_counter_is_reached(name: str) -> None:
    assert WAYS[name]()[name] == 1


def test_no_counter_is_forgotten() -> None:
    """The names in the modules' source are exactly those that are reached above."""
    assert set().union(*map(in_source, MODULES)) == WAYS.keys()


# ---- the table and the class


def test_a_name_that_is_not_in_the_table_is_a_bug() -> None:
    with pytest.raises(KeyError, match="drop-everything"):
        Counters().count("drop-everything")


def test_counting() -> None:
    counters = Counters()
    counters.count("sent-query")
    counters.count("sent-query", 4)
    counters.count("received-ack")
    assert counters["sent-query"] == 5
    assert counters["received-nak"] == 0
    assert list(counters.snapshot().items()) == [("received-ack", 1), ("sent-query", 5)]


def test_the_table_explains_each_name() -> None:
    kinds = {"sent", "received", "drop", "ignored", "warned"}
    for name, meaning in COUNTERS.items():
        assert name.split("-")[0] in kinds
        assert len(meaning) > 10
        assert not meaning.endswith(".")
