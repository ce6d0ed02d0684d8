"""From leases to an lwAFTR's bindings: (IPv4 address, port set) -> IPv6 source of the softwire (RFC 7596 6.1). Pure.

There are two ways. ``Feed`` says what changed, for an lwAFTR that is told by its control socket (``aftr`` in the
server's configuration). ``Publication`` is for lwAFTRs that come and ask (``feed`` in the configuration, ``feedhub``):
it begins with everything that is in force, so that it does not matter which of the two was started again.

A publication is a sequence of messages, each one line of JSON and each answered with one when it has been carried out::

    {"snapshot": [[BINDING, UNTIL], ...], "more": false}        all that is in force; "more" lines of it may follow
    {"bind": [[BINDING, UNTIL], ...], "unbind": [BINDING, ...]}  what changed; to bind what is bound sets a new end
    {"done": true}                                               the answer

``UNTIL`` is the end of the lease in seconds of the wall clock, null for never: the lifetime of a binding is that of the
lease even while the server is away (RFC 7596 6.1).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from b4client.lab.binding import Binding
from b4client.lab.leaserecord import Lease, State
from b4client.lab.pools import Slot

Change = tuple[str, Binding]
"""``("bind", ...)`` or ``("unbind", ...)``: the commands of the lwAFTR's control socket."""


CHUNK = 1000
"""Bindings in one message."""
SUBSCRIBE = "subscribe"
"""The command with which an lwAFTR asks for the publication."""


class Feed:
    """What the lwAFTR has been told, so that it is told only what changed."""

    def __init__(self) -> None:
        self._bound: dict[Slot, Binding] = {}

    def update(self, leases: Iterable[Lease]) -> list[Change]:
        """The changes that these records (in order) mean. A client that is known by a link-local address only has no
        place in an lwAFTR."""
        changes: list[Change] = []
        for lease in leases:
            wanted = binding_of(lease)
            present = self._bound.get(lease.slot)
            if wanted == present:
                continue
            if present is not None:
                changes.append(("unbind", present))
                del self._bound[lease.slot]
            if wanted is not None:
                changes.append(("bind", wanted))
                self._bound[lease.slot] = wanted
        return changes


class Publication:
    """What is in force, and the messages that tell it."""

    def __init__(self) -> None:
        self._bound: dict[Slot, tuple[Binding, float]] = {}

    def update(self, leases: Iterable[Lease]) -> list[dict[str, Any]]:
        """The messages that these records (in order) mean; none when they change nothing."""
        before: dict[Slot, tuple[Binding, float] | None] = {}
        for lease in leases:
            before.setdefault(lease.slot, self._bound.pop(lease.slot, None))
            binding = binding_of(lease)
            if binding is not None:
                self._bound[lease.slot] = (binding, lease.until)
            else:
                self._bound.pop(lease.slot, None)
        changed = [(old, self._bound.get(slot)) for slot, old in before.items()]
        unbind = [old[0] for old, new in changed if old is not None and (new is None or new[0] != old[0])]
        bind = [new for old, new in changed if new is not None and new != old]
        return [
            {"bind": _entries(bind[at : at + CHUNK]), "unbind": [str(binding) for binding in unbind[at : at + CHUNK]]}
            for at in range(0, max(len(bind), len(unbind)), CHUNK)
        ]

    def snapshot(self) -> list[dict[str, Any]]:
        """The messages that tell everything."""
        everything = list(self._bound.values())
        starts = range(0, max(len(everything), 1), CHUNK)
        return [
            {"snapshot": _entries(everything[at : at + CHUNK]), "more": at + CHUNK < len(everything)} for at in starts
        ]


def binding_of(lease: Lease) -> Binding | None:
    """What a lease means for an lwAFTR; None for one that is over, or whose holder has no address in an lwAFTR."""
    source = lease.softwire_source if lease.state is State.BOUND else None
    return None if source is None else Binding(lease.slot.address, lease.slot.ports, source)


def _entries(bound: Iterable[tuple[Binding, float]]) -> list[list[Any]]:
    return [[str(binding), None if until == math.inf else until] for binding, until in bound]
