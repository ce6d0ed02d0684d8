"""The NAT's entries in conntrack, found and deleted. Blocking."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from b4client.dataplane import ctdump, netlink
from b4client.dataplane.ctdump import Flow
from b4client.model.portset import PortSet


def flush(address: IPv4Address, *, keep: PortSet | None = None) -> int:
    """Delete the entries that use the public ``address``, ours and nobody else's; returns how many.

    Those on ports of ``keep`` stay. RFC 7596 5.1 [L-4]: entries must go when the address or the PSID changes. Raises
    DataplaneError.
    """
    public = address.packed

    def doomed(flow: Flow) -> bool:
        # Outbound flows have the address where replies go, inbound ones where they came to.
        port = flow.reply_destination_port if flow.reply_destination == public else flow.destination_port
        return keep is None or port not in keep

    return delete(address, doomed)


def delete(address: IPv4Address, doomed: Callable[[Flow], bool]) -> int:
    """Delete the entries of ``address`` that are ``doomed``; returns how many. Raises DataplaneError."""
    count = 0

    def attempt() -> None:
        nonlocal count
        for _ in ctdump.delete(address, doomed):
            count += 1

    try:
        netlink.patiently(attempt)
    except OSError as error:
        raise netlink.dataplane_error("flush the NAT table", error) from None
    return count
