"""States of the stateful DHCPv6 client (RFC 8415 18.2); each holds exactly what it knows.

The leases are held beside the state: they are used while they are valid, whatever is being asked meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from b4client.model.lease6 import Lease6
from b4client.protocol.dhcp6_exchange import Exchange
from b4client.wire.dhcp6 import MessageType


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to send: not started, released, or no link."""


@dataclass(frozen=True, slots=True)
class Delaying:
    """Waiting a random moment before the first message of an exchange (RFC 8415 18.2.1, 18.2.3), or after a setback."""

    send_at: float
    kind: MessageType


@dataclass(frozen=True, slots=True)
class Advertised:
    """An Advertise that may be taken: the server's DUID, what it offers, and how good it is (greater is better)."""

    server: bytes
    lease: Lease6
    rank: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Soliciting:
    """A SOLICIT is out; ``best`` is the best Advertise of the first wait (RFC 8415 18.2.1)."""

    exchange: Exchange
    best: Advertised | None = None


@dataclass(frozen=True, slots=True)
class Requesting:
    """A REQUEST to one server is out (RFC 8415 18.2.2). ``offered`` is what is named in it."""

    exchange: Exchange
    server: bytes
    offered: Lease6


@dataclass(frozen=True, slots=True)
class Bound:
    """Nothing is being asked until T1."""


@dataclass(frozen=True, slots=True)
class Renewing:
    """A RENEW to the server of the lease is out (RFC 8415 18.2.4)."""

    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Rebinding:
    """A REBIND to any server is out (RFC 8415 18.2.5). ``verifying``: the link may be another one (18.2.12)."""

    exchange: Exchange
    verifying: bool = False


@dataclass(frozen=True, slots=True)
class Confirming:
    """A CONFIRM is out: the link may be another one, and only addresses are held (RFC 8415 18.2.3)."""

    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Declining:
    """A DECLINE is out for addresses that another host has (RFC 8415 18.2.8)."""

    exchange: Exchange
    server: bytes
    declined: Lease6


@dataclass(frozen=True, slots=True)
class Releasing:
    """A RELEASE is out; the leases are not used any more (RFC 8415 18.2.7)."""

    exchange: Exchange
    server: bytes
    released: Lease6


State = Idle | Delaying | Soliciting | Requesting | Bound | Renewing | Rebinding | Confirming | Declining | Releasing
