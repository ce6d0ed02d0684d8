"""One record of the laboratory's lease database, and its form in the lease file (RFC 7618 8, RFC 8539 8). Pure."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from b4client.lab.pools import Slot


class State(enum.Enum):
    """What a record of the database says."""

    BOUND = "bound"
    FORMER = "former"
    """Expired or released: the client's previous binding, kept until the slot has another holder (RFC 7618 8)."""
    DECLINED = "declined"
    """A client found the address in use (RFC 2131 4.3.3): nobody gets it before ``until``."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One record. ``until``: end of the lease (math.inf: never), of the past one, or of the refusal.

    ``customer`` is the site that it counts for; ``source`` the IPv6 address that asked; ``saddr`` the softwire's
    address that the client gave in option 109, ``saddr_at`` when (RFC 8539 8 [SV-13]); ``released_xid`` the xid of the
    RELEASE that ended it, so that a copy of that message cannot end the next lease.
    """

    slot: Slot
    client_id: bytes
    state: State
    until: float
    customer: str = ""
    source: IPv6Address | None = None
    saddr: IPv6Address | None = None
    saddr_at: float = 0.0
    released_xid: int | None = None

    def active(self, now: float) -> bool:
        """True while nobody else may have the slot."""
        return self.state is not State.FORMER and self.until > now

    def bound(self, now: float) -> bool:
        """True while the client may use the slot."""
        return self.state is State.BOUND and self.until > now

    @property
    def softwire_source(self) -> IPv6Address | None:
        """Where an lwAFTR finds the client: option 109, else the address that asked unless it is a link-local one."""
        if self.saddr is not None:
            return self.saddr
        return self.source if self.source is not None and not self.source.is_link_local else None

    def to_json(self) -> dict[str, Any]:
        """For the lease file; the inverse is ``from_json``. Times that never come are null."""
        return {
            **self.slot.to_json(),
            "client_id": self.client_id.hex(),
            "state": self.state.value,
            "until": None if self.until == math.inf else self.until,
            "customer": self.customer,
            "source": None if self.source is None else str(self.source),
            "saddr": None if self.saddr is None else str(self.saddr),
            "saddr_at": self.saddr_at,
            "released_xid": self.released_xid,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Lease:
        """Raises ValueError, KeyError or TypeError for what ``to_json`` never wrote."""
        return cls(
            slot=Slot.from_json(value),
            client_id=bytes.fromhex(value["client_id"]),
            state=State(value["state"]),
            until=math.inf if value["until"] is None else float(value["until"]),
            customer=str(value["customer"]),
            source=None if value["source"] is None else IPv6Address(value["source"]),
            saddr=None if value["saddr"] is None else IPv6Address(value["saddr"]),
            saddr_at=float(value["saddr_at"]),
            released_xid=value["released_xid"],
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """A slot held for a client that was offered it (RFC 2131 4.3.1); not kept over restarts."""

    slot: Slot
    client_id: bytes
    until: float
    customer: str
