"""What the DHCPv4 client wants done, and what it has to say. The agent turns it into effects."""

from __future__ import annotations

from dataclasses import dataclass

from b4client.model.lease import Lease4
from b4client.protocol.dhcp4_states import Offer
from b4client.wire.dhcp4 import Dhcp4Message


@dataclass(frozen=True, slots=True)
class Query:
    """Send this DHCPv4 message in a DHCPV4-QUERY; ``unicast`` is the U flag (RFC 7341 8 [Q-4]).

    ``ask_softwire`` puts an Option Request option for 90 and 137 beside it (RFC 8539 5).
    """

    message: Dhcp4Message
    unicast: bool
    name: str
    ask_softwire: bool = False


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make the softwire's source for this offer ready, then call ``prepared`` or ``unprepared`` (RFC 8539 7.1)."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Gained:
    """The lease is ours (again), with these times."""

    lease: Lease4


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no lease any more that may be used: nothing of it may be used from now on.

    ``forget`` says that it is worth nothing even as a hint: a server refused it, or it was given back.
    """

    reason: str
    forget: bool = False


@dataclass(frozen=True, slots=True)
class Noted:
    """Something an operator may want to know: a stable kind, a syslog level, a sentence."""

    kind: str
    level: str
    text: str


Output = Query | Prepare | Gained | Lost | Noted
