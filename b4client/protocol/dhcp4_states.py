"""The states of the DHCPv4 client, each with exactly what it knows, and the table of legal moves (RFC 2131 figure 5).

All instants are boot-clock seconds. ``xid`` is what a reply must carry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from ipaddress import IPv4Address

from b4client.model.lease import Lease4, LeasedSoftwire
from b4client.model.portset import PortSet


@dataclass(frozen=True, slots=True)
class Offer:
    """A DHCPOFFER that may be taken: address, port set (None: the whole address), server; ``softwire`` in RFC 8539."""

    address: IPv4Address
    ports: PortSet | None
    server_id: IPv4Address
    softwire: LeasedSoftwire | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """4o6 is not in use: no option 88 yet, or the lease was given back."""

    name = "STOPPED"


@dataclass(frozen=True, slots=True)
class Init:
    """No lease; the DISCOVER leaves at ``send_at``."""

    send_at: float
    name = "INIT"


@dataclass(frozen=True, slots=True)
class Selecting:
    """DISCOVERs are out. ``secs`` is what the last one carried; ``select_at`` is set once there is an offer."""

    xid: int
    began_at: float
    secs: int
    attempt: int
    resend_at: float
    offers: tuple[Offer, ...] = ()
    select_at: float | None = None
    name = "SELECTING"


@dataclass(frozen=True, slots=True)
class Preparing:
    """An offer was chosen, and the softwire's source is being made ready before the REQUEST names it (RFC 8539 7.1).
    It must be ready at ``give_up_at``."""

    offer: Offer
    xid: int
    secs: int
    give_up_at: float
    name = "PREPARING"


@dataclass(frozen=True, slots=True)
class Requesting:
    """An offer was chosen. The lease will count from ``requested_at``, when the first REQUEST with this xid was sent: a
    server may have answered that one [S-6]."""

    offer: Offer
    xid: int
    secs: int
    requested_at: float
    attempt: int
    resend_at: float
    name = "REQUESTING"


@dataclass(frozen=True, slots=True)
class InitReboot:
    """A known lease is asked for again (RFC 2131 3.2, RFC 7618 6 [S-4]).

    ``in_use`` says that it was never given up (the link moved under a bound client): its traffic goes on meanwhile.
    ``usable`` False means that its age is unknown, so that silence does not allow its use. ``xid`` is None until the
    first REQUEST leaves at ``resend_at``.
    """

    lease: Lease4
    in_use: bool
    usable: bool
    began_at: float
    xid: int | None
    requested_at: float
    attempt: int
    resend_at: float
    name = "INIT-REBOOT"


@dataclass(frozen=True, slots=True)
class Bound:
    """The lease is ours; nothing to do before T1."""

    lease: Lease4
    name = "BOUND"


@dataclass(frozen=True, slots=True)
class Renewing:
    """From T1 on: REQUESTs to the server that granted the lease, U = 1. ``requested_at`` is when ``xid`` was sent."""

    lease: Lease4
    began_at: float
    xid: int
    requested_at: float
    resend_at: float
    name = "RENEWING"


@dataclass(frozen=True, slots=True)
class Rebinding:
    """From T2 on: REQUESTs to any server, U = 0."""

    lease: Lease4
    began_at: float
    xid: int
    requested_at: float
    resend_at: float
    name = "REBINDING"


@dataclass(frozen=True, slots=True)
class Confirming:
    """The lease is ours, but the softwire's source that the server has stored is not the one that we want: REQUESTs
    with the right one until an ACK names it (RFC 8539 7.2.1, 7.5).

    ``in_use`` says that what the server has stored is the softwire that is there, so that its traffic goes on.
    ``refusals`` counts ACKs with another source. ``xid`` is None until the first REQUEST of a round leaves at
    ``resend_at``.
    """

    lease: Lease4
    in_use: bool
    refusals: int
    began_at: float
    xid: int | None
    requested_at: float
    attempt: int
    resend_at: float
    name = "CONFIRMING"


@dataclass(frozen=True, slots=True)
class Coasting:
    """The lease is ours until it expires, but 4o6 may not be used to renew it: option 88 was withdrawn [F-2, X-2]."""

    lease: Lease4
    name = "COASTING"


State = (
    Stopped
    | Init
    | Selecting
    | Preparing
    | Requesting
    | InitReboot
    | Bound
    | Confirming
    | Renewing
    | Rebinding
    | Coasting
)


def usable_lease(state: State) -> Lease4 | None:
    """The lease that may be used in ``state``; None when there is none, or only one that is still being asked for."""
    match state:
        case Bound(lease) | Coasting(lease):
            return lease
        case Renewing(lease=lease) | Rebinding(lease=lease):
            return lease
        case InitReboot(lease=lease, in_use=True) | Confirming(lease=lease, in_use=True):
            return lease
    return None


def due_at(state: State) -> float | None:
    """When there is something to do in ``state``; None when nothing but a message or a command can change it."""
    match state:
        case Init(send_at):
            return send_at
        case Selecting(resend_at=resend_at, select_at=select_at):
            return resend_at if select_at is None else min(resend_at, select_at)
        case Preparing(give_up_at=give_up_at):
            return give_up_at
        case Requesting(resend_at=resend_at):
            return resend_at
        case InitReboot(lease=lease, resend_at=resend_at) | Confirming(lease=lease, resend_at=resend_at):
            return min(resend_at, lease.expires_at)
        case Bound(lease):
            return _finite(lease.t1_at)
        case Renewing(lease=lease, resend_at=resend_at):
            return _finite(min(resend_at, lease.t2_at))
        case Rebinding(lease=lease, resend_at=resend_at):
            return _finite(min(resend_at, lease.expires_at))
        case Coasting(lease):
            return _finite(lease.expires_at)
    return None


def _finite(instant: float) -> float | None:
    return None if math.isinf(instant) else instant


TRANSITIONS: dict[str, frozenset[str]] = {
    "STOPPED": frozenset({"INIT", "INIT-REBOOT"}),
    "INIT": frozenset({"SELECTING", "INIT", "STOPPED"}),
    "SELECTING": frozenset({"SELECTING", "PREPARING", "REQUESTING", "INIT", "STOPPED"}),
    "PREPARING": frozenset({"REQUESTING", "INIT", "STOPPED"}),
    "REQUESTING": frozenset({"REQUESTING", "BOUND", "CONFIRMING", "INIT", "STOPPED"}),
    "INIT-REBOOT": frozenset({"INIT-REBOOT", "BOUND", "CONFIRMING", "INIT", "COASTING", "STOPPED"}),
    "BOUND": frozenset({"RENEWING", "REBINDING", "CONFIRMING", "INIT-REBOOT", "INIT", "COASTING", "STOPPED"}),
    "RENEWING": frozenset(
        {"RENEWING", "BOUND", "REBINDING", "CONFIRMING", "INIT-REBOOT", "INIT", "COASTING", "STOPPED"}
    ),
    "REBINDING": frozenset({"REBINDING", "BOUND", "CONFIRMING", "INIT-REBOOT", "INIT", "COASTING", "STOPPED"}),
    "CONFIRMING": frozenset({"CONFIRMING", "BOUND", "INIT-REBOOT", "INIT", "COASTING", "STOPPED"}),
    "COASTING": frozenset({"BOUND", "INIT", "STOPPED"}),
}
"""From each state, where a step may lead. A state that leads to itself is a retransmission or a new attempt."""


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> STOPPED"]
    lines += [
        f"    {old.replace('-', '_')} --> {new.replace('-', '_')}"
        for old, targets in TRANSITIONS.items()
        for new in sorted(targets)
        if new != old
    ]
    return "\n".join(lines)
