"""The one UDP socket of DHCPv6 and DHCP 4o6: port 546 on the WAN (RFC 8415 7.2 [F-6]), and what to do without it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv6Address

import tenacity

from b4client.daemon.packetsocket import PacketSocket
from b4client.daemon.portowner import udp6_port_owners
from b4client.model.errors import DataplaneError

CLIENT_PORT = 546
SERVER_PORT = 547
MAX_DATAGRAM = 65535
"""Kea's answers can reach 5 kB; the buffer takes whatever UDP can carry."""
BURST = 64
"""Datagrams taken in one turn of the loop, so that a flood cannot starve timers and control."""


def _is_taken(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE


class DhcpSocket:
    """Port 546 of one interface. ``received(data, source)`` is called in the event loop for every datagram."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interface: str,
        received: Callable[[bytes, IPv6Address], None],
        *,
        attempts: int = 4,
    ) -> None:
        """Open and bind. Raises DataplaneError with cause and remedy (port taken, no privilege, no interface)."""
        self._loop = loop
        self._received = received
        self.index = socket.if_nametoindex(interface)
        self._socket = self._open(interface, attempts)
        loop.add_reader(self._socket, self._readable)

    @staticmethod
    def _open(interface: str, attempts: int) -> socket.socket:
        with contextlib.ExitStack() as undo:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            undo.callback(sock.close)
            what = f"open UDP port {CLIENT_PORT} on {interface}"
            try:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
                # A client that is just ending may hold the port for a moment.
                for attempt in tenacity.Retrying(
                    retry=tenacity.retry_if_exception(_is_taken),
                    stop=tenacity.stop_after_attempt(attempts),
                    wait=tenacity.wait_exponential(0.1),
                    reraise=True,
                ):
                    with attempt:
                        sock.bind(("::", CLIENT_PORT))
            except PermissionError as error:
                raise DataplaneError(
                    what,
                    "not permitted",
                    errno=error.errno or 0,
                    remedy="Run as root, or with CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE.",
                ) from None
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    owners = ", ".join(udp6_port_owners(CLIENT_PORT)) or "another process"
                    raise DataplaneError(
                        what,
                        f"{owners} has it already",
                        errno=error.errno,
                        remedy=f'Stop that DHCPv6 client on {interface}, or live beside it: dhcp6.socket = "packet".',
                    ) from None
                raise DataplaneError(what, error.strerror or str(error), errno=error.errno or 0) from None
            undo.pop_all()
            return sock

    def send(self, data: bytes, destination: IPv6Address, source: IPv6Address) -> None:
        """Send to port 547 from the given source address. Raises OSError as the kernel words it."""
        pktinfo = struct.pack("=16sI", source.packed, self.index)
        scope = self.index if destination.is_link_local or destination.is_multicast else 0
        self._socket.sendmsg(
            [data], [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, pktinfo)], 0, (str(destination), SERVER_PORT, 0, scope)
        )

    def guard(self, addresses: tuple[IPv6Address, ...]) -> None:
        """Nothing to do: the port is ours at every address."""

    def _readable(self) -> None:
        for _ in range(BURST):
            try:
                data, address = self._socket.recvfrom(MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                return  # an ICMPv6 error about an earlier datagram: retransmission is the answer
            self._received(data, IPv6Address(address[0].partition("%")[0]))

    def close(self) -> None:
        """Free the port."""
        self._loop.remove_reader(self._socket)
        self._socket.close()


WanSocket = DhcpSocket | PacketSocket


def open_wan_socket(
    loop: asyncio.AbstractEventLoop,
    interface: str,
    received: Callable[[bytes, IPv6Address], None],
    *,
    kind: str = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> WanSocket:
    """The socket that ``dhcp6.socket`` asks for; ``auto`` goes beside whoever has the port, and ``say``s so.

    Raises DataplaneError with cause and remedy.
    """
    if kind == "packet":
        return PacketSocket(loop, interface, received)
    try:
        # Whoever has the port in auto mode need not be waited for: beside it is as good.
        return DhcpSocket(loop, interface, received, **({"attempts": 1} if kind == "auto" else {}))
    except DataplaneError as error:
        if kind != "auto" or error.errno != errno.EADDRINUSE:
            raise
    beside = PacketSocket(loop, interface, received)
    owners = ", ".join(udp6_port_owners(CLIENT_PORT)) or "another process"
    say(f"UDP port {CLIENT_PORT} belongs to {owners}: listening beside it")
    return beside
