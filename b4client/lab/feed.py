"""From leases to an lwAFTR's bindings: (IPv4 address, port set) -> IPv6 source of the softwire (RFC 7596 6). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from b4client.lab.binding import Binding
from b4client.lab.leaserecord import Lease, State
from b4client.lab.pools import Slot

Change = tuple[str, Binding]
"""``("bind", ...)`` or ``("unbind", ...)``: the commands of the lwAFTR's control socket."""


class Feed:
    """What the lwAFTR has been told, so that it is told only what changed."""

    def __init__(self) -> None:
        self._bound: dict[Slot, Binding] = {}

    def update(self, leases: Iterable[Lease]) -> list[Change]:
        """The changes that these records (in order) mean. A client that is known by a link-local address only has no
        place in an lwAFTR."""
        changes: list[Change] = []
        for lease in leases:
            source = lease.softwire_source if lease.state is State.BOUND else None
            wanted = None if source is None else Binding(lease.slot.address, lease.slot.ports, source)
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
