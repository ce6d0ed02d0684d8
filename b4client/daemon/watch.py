"""Doorbells: tell the loop that the kernel's links, addresses or rules changed, without reading what changed.

The messages are not parsed: they only say "look again", and looking is the data plane's work. So a lost message
(ENOBUFS) is no loss, and nothing polls.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

NETLINK_ROUTE = 0
RTMGRP_LINK = 0x1
RTMGRP_IPV6_IFADDR = 0x100
WAN_GROUPS = RTMGRP_LINK | RTMGRP_IPV6_IFADDR
SETTLE_S = 0.02
"""Changes come in bursts (address added, then no longer tentative): one look after the burst."""


class Doorbell:
    """Calls ``ring`` in the loop once after each burst of netlink messages of the given multicast groups."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ring: Callable[[], None],
        *,
        protocol: int = NETLINK_ROUTE,
        groups: int = WAN_GROUPS,
    ) -> None:
        self._loop = loop
        self._ring = ring
        self._pending: asyncio.TimerHandle | None = None
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol
        )
        self._socket.bind((0, groups))
        loop.add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        try:
            for _ in range(256):
                self._socket.recv(1)  # the rest of the message is dropped by the kernel
        except OSError:
            pass  # empty, or ENOBUFS: messages were lost, which rings all the same
        if self._pending is None:
            self._pending = self._loop.call_later(SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._pending = None
        self._ring()

    def close(self) -> None:
        """Free the socket."""
        if self._pending is not None:
            self._pending.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
