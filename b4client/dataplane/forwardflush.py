"""NAT entries of port forwards that are gone or new: found, and deleted. Blocking.

What a forward has made ends with it; a flow that came to the port before there was a forward, and ended at this
machine, must not keep the peer from reaching the host now.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from typing import Any

from b4client.dataplane import conntrack
from b4client.dataplane.ctdump import Flow
from b4client.model.errors import DataplaneError

log = logging.getLogger("b4client.dataplane")

NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "udplite": 136, "dccp": 33, "sctp": 132}
Key = tuple[int, int, bytes, int]
"""Protocol number, external port, host, port of the host."""


def flush_forwards(address: str, before: Sequence[Sequence[Any]], now: Sequence[Sequence[Any]]) -> int:
    """Delete the entries of forwards that were in the rules ``before`` and are not ``now``, and the entries that stand
    in the way of new ones; all else stays. Forwards are [protocol, port, to, to_port]. Returns how many.

    Raises DataplaneError when those of a forward that went cannot be deleted; what stands in the way of a new one ends
    by itself, some time.
    """
    old, new = _keys(before), _keys(now)
    public = IPv4Address(address)
    gone, come = old - new, new - old
    try:
        count = conntrack.delete(public, lambda flow: belongs(flow, public.packed, gone, come))
    except DataplaneError as error:
        if gone:
            raise
        log.warning("flows from before new port forwards stay as they are: cannot %s", error)
        return 0
    if count:
        log.info("flushed %d NAT entries of changed port forwards", count)
    return count


def belongs(flow: Flow, address: bytes, gone: set[Key], come: set[Key]) -> bool:
    """Whether the flow is one of a forward in ``gone``, or came to this machine on a port of one in ``come``."""
    inbound = flow.destination == address and (
        (flow.protocol, flow.destination_port, flow.reply_source, flow.reply_source_port) in gone
        or (
            flow.reply_source == address
            and any((flow.protocol, flow.destination_port) == (key[0], key[1]) for key in come)
        )
    )
    outbound = flow.reply_destination == address and (
        (flow.protocol, flow.reply_destination_port, flow.source, flow.source_port) in gone
    )
    return inbound or outbound


def _keys(forwards: Iterable[Sequence[Any]]) -> set[Key]:
    return {(NUMBERS[str(f[0])], int(f[1]), IPv4Address(f[2]).packed, int(f[3])) for f in forwards if f[0] in NUMBERS}
