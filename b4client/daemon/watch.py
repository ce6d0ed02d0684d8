"""Doorbells: tell the loop that the kernel's links, addresses, routes or rules changed.

The messages only say "look again", and looking is the data plane's work. So a lost message (ENOBUFS) is no loss, and
nothing polls.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

from b4client.daemon.bell import NETLINK_ROUTE, WAN_GROUPS

SETTLE_S = 0.02
"""Changes come in bursts (address added, then no longer tentative): one look after the burst."""
BURST = 256
"""Messages taken in one turn of the loop."""
MAX_MESSAGE = 65536


class Doorbell:
    """Calls ``ring`` in the loop once after each burst of netlink messages of the given multicast groups.

    ``concerns`` decides which messages count; without it all do.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ring: Callable[[], None],
        *,
        protocol: int = NETLINK_ROUTE,
        groups: int = WAN_GROUPS,
        concerns: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._ring = ring
        self._concerns = concerns
        self._pending: asyncio.TimerHandle | None = None
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol
        )
        self._socket.bind((0, groups))
        loop.add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        rings = False
        try:
            for _ in range(BURST):
                # Without a question about it the rest of the message is dropped by the kernel.
                data = self._socket.recv(MAX_MESSAGE if self._concerns else 1)
                rings = rings or self._concerns is None or self._concerns(data)
        except BlockingIOError:
            pass
        except OSError as error:
            rings = rings or error.errno == errno.ENOBUFS  # messages were lost, which rings all the same
        if rings and self._pending is None:
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


class DeathWatch:
    """Calls ``ring`` in the loop once when the watched process ends. One process at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._pid: int | None = None
        self._descriptor = -1

    def watch(self, pid: int | None) -> None:
        """Watch ``pid`` from now on (None: nothing). Rings at once when it is gone already."""
        if pid == self._pid:
            return
        self.close()
        if pid is None:
            return
        try:
            self._descriptor = os.pidfd_open(pid)
        except OSError:
            self._loop.call_soon(self._ring)
            return
        self._pid = pid
        self._loop.add_reader(self._descriptor, self._ended)

    def _ended(self) -> None:
        self.close()
        self._ring()

    def close(self) -> None:
        """Watch nothing."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
        self._pid, self._descriptor = None, -1
