"""What every DHCPv6 exchange has: whose answer it is (RFC 8415 16) and when the question is repeated (RFC 8415 15)."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, replace

from b4client.model.errors import WireError
from b4client.protocol.backoff import MAX_RT_VALID, Dhcp6Retransmission
from b4client.protocol.counters import Counters
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option, StatusCode

INFINITY = 0xFFFFFFFF
NOT_PROCESSED = frozenset({StatusCode.UNSPEC_FAIL, StatusCode.USE_MULTICAST})
"""Statuses of a Reply that leave the question open; one with any other is processed (RFC 8415 18.2.10)."""
FOREVER = float("inf")

PROVISIONING_OPTIONS = (
    Option.DHCP4_O_DHCP6_SERVER,
    Option.S46_CONT_MAPE,
    Option.S46_CONT_LW,
    Option.S46_PRIORITY,
    Option.AFTR_NAME,
)
"""Asked for in every Solicit, Request, Renew, Rebind and Information-request, also while 4o6 is stopped [D-1]: option
88, the containers that we implement [D-2], their order of preference, and the AFTR's name (RFC 6334 5)."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message that waits for its answer. ``ends_at`` is MRD, ``limit`` MRC (0: none) of RFC 8415 15; ``sends`` counts
    transmissions. Instants on the boot clock."""

    transaction_id: int
    times: Dhcp6Retransmission
    began_at: float
    wait_s: float
    resend_at: float
    ends_at: float = FOREVER
    limit: int = 0
    sends: int = 1

    @classmethod
    def begin(
        cls,
        now: float,
        rng: random.Random,
        times: Dhcp6Retransmission,
        *,
        ends_at: float = FOREVER,
        limit: int = 0,
        wait_s: float | None = None,
    ) -> Exchange:
        """The first transmission, at ``now``; ``wait_s`` where the first wait is not the usual one."""
        transaction_id = rng.getrandbits(24)
        wait = times.first_s(rng) if wait_s is None else wait_s
        return cls(transaction_id, times, now, wait, now + wait, ends_at, limit)

    @property
    def due_at(self) -> float:
        """When something is to be done about it: send again, or give up."""
        return min(self.resend_at, self.ends_at)

    def is_over(self, now: float) -> bool:
        """True when it has failed: its time is over, or it was sent often enough and the last wait is over."""
        return now >= self.ends_at or (0 < self.limit <= self.sends and now >= self.resend_at)

    def again(self, now: float, rng: random.Random) -> Exchange:
        """The next transmission."""
        wait = self.times.next_s(self.wait_s, rng)
        return replace(self, wait_s=wait, resend_at=now + wait, sends=self.sends + 1)


def read_answer(
    data: bytes, duid: bytes, transaction_id: int | None, types: Collection[MessageType], counters: Counters
) -> Dhcp6Message | None:
    """The message in ``data`` if it answers our question (RFC 8415 16.3, 16.10 [D-8]); None (and a count) if not.

    ``types`` are those that the question may be answered with; ``transaction_id`` is None when nothing was asked.
    """
    try:
        message = dhcp6.decode(data)
    except WireError:
        counters.count("drop-datagram-malformed")
        return None
    if message.msg_type not in types:
        counters.count("drop-datagram-unexpected-type")
    elif message.transaction_id != transaction_id:
        counters.count("drop-reply-foreign-transaction")
    elif not server_of(message):
        counters.count("drop-reply-without-server-id")
    elif message.get(Option.CLIENTID) != duid:
        counters.count("drop-reply-foreign-client-id")
    else:
        return message
    return None


def server_of(message: Dhcp6Message) -> bytes | None:
    """The Server Identifier's DUID; None when there is none."""
    return message.get(Option.SERVERID)


def read_status(message: Dhcp6Message) -> tuple[int, str]:
    """The Status Code and its text; Success when it is absent (RFC 8415 21.13) or malformed."""
    try:
        return dhcp6.decode_status(message.get(Option.STATUS_CODE) or b"\0\0")
    except WireError:
        return StatusCode.SUCCESS, ""


def read_seconds(value: bytes | None) -> int | None:
    """A time in seconds; None when it is absent or malformed."""
    try:
        return None if value is None else dhcp6.decode_seconds(value)
    except WireError:
        return None


def read_max_rt(message: Dhcp6Message, code: Option) -> float | None:
    """SOL_MAX_RT or INF_MAX_RT, when it may be believed; also from a message that carries a failure status [D-9]."""
    value = read_seconds(message.get(code))
    return float(value) if value is not None and value in MAX_RT_VALID else None


def read_preference(message: Dhcp6Message) -> int:
    """The server's preference; 0 when it is absent (RFC 8415 18.2.1) or malformed."""
    try:
        return dhcp6.decode_preference(message.get(Option.PREFERENCE) or b"\0")
    except WireError:
        return 0


def status_in_words(message: Dhcp6Message) -> str | None:
    """What a message's own Status Code says to the operator; None when it is Success."""
    status, text = read_status(message)
    if status == StatusCode.SUCCESS:
        return None
    said = f': "{text}"' if text else ""
    return f"the DHCPv6 server answered with status {status}{said}"
