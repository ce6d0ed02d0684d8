"""Time scripts for the INFORMATION-REQUEST client, in virtual time."""

from __future__ import annotations

import random

from timescript import Middle

from b4client.protocol.counters import Counters
from b4client.protocol.dhcp6_client import Dhcp6Client
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option

DUID = bytes.fromhex("00030001020000000001")
SERVER_DUID = bytes.fromhex("000300010200000000fe")


class Script:
    """One client and its time; ``asked`` is what it sent, decoded, and when."""

    def __init__(self, rng: random.Random | None = None, *, start_delay: bool = False) -> None:
        self.counters = Counters()
        self.client = Dhcp6Client(
            DUID, start_delay=start_delay, rng=Middle(1) if rng is None else rng, counters=self.counters
        )
        self.now = 0.0
        self.asked: list[tuple[float, Dhcp6Message]] = []

    def start(self, now: float = 0.0, *, opportunistic: bool = False) -> Script:
        self.now = now
        self._note(self.client.start(now, opportunistic=opportunistic))
        return self

    def until(self, instant: float) -> list[float]:
        """Let time pass; when something was sent."""
        before = len(self.asked)
        while (due := self.client.deadline()) is not None and due <= instant:
            self.now = max(self.now, due)
            self._note(self.client.wake(self.now))
            after = self.client.deadline()
            assert after is None or after > self.now
        self.now = max(self.now, instant)
        return [at for at, _ in self.asked[before:]]

    def _note(self, messages: list[bytes]) -> None:
        self.asked += [(self.now, dhcp6.decode(data)) for data in messages]

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.asked]

    def hear(self, data: bytes) -> Dhcp6Message | None:
        return self.client.received(data, self.now)

    def reply(self, *options: tuple[int, bytes]) -> Dhcp6Message | None:
        """A server answers."""
        return self.hear(reply(self.asked[-1][1].transaction_id, *options))

    def refresh_in(self) -> float | None:
        due = self.client.deadline()
        return None if due is None else due - self.now


IDENTITIES = ((int(Option.CLIENTID), DUID), (int(Option.SERVERID), SERVER_DUID))


def reply(transaction_id: int, *options: tuple[int, bytes], msg_type: int = MessageType.REPLY) -> bytes:
    return dhcp6.encode(Dhcp6Message(msg_type, transaction_id, (*IDENTITIES, *options)))


def seconds(code: int, value: int) -> tuple[int, bytes]:
    return code, dhcp6.encode_seconds(value)


def options_of(message: Dhcp6Message) -> dict[int, bytes]:
    found = dict(message.options)
    assert len(found) == len(message.options)
    return found


def status(code: int) -> tuple[int, bytes]:
    return Option.STATUS_CODE, dhcp6.encode_status(code, "no")
