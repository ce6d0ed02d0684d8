"""Port 546 beside another DHCPv6 client that owns it: a filtered raw socket that gets copies, and takes nothing away.

Why raw (IPv6, UDP) and not AF_PACKET: the kernel hands over what is addressed to this host, whole (a server's answer
can be several fragments), after the firewall, with its checksum verified; a filter in the kernel lets only port 546
through, so that nothing else wakes us. The other client's socket receives its own copy as if we were not there, and
ours carry transaction ids that it does not know. We send from port 546, as RFC 9915 7.2 recommends: servers answer
there whatever the source port was.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv6Address

from b4client.model.errors import DataplaneError

CLIENT_PORT = 546
SERVER_PORT = 547
MAX_DATAGRAM = 65535
BURST = 64
UDP_HEADER = struct.Struct("!HHHH")
CHECKSUM_OFFSET = 6
SO_ATTACH_FILTER = 26
BPF_LDH_ABS, BPF_JEQ, BPF_RET = 0x28, 0x15, 0x06
ACCEPT, REFUSE = (BPF_RET, 0, 0, 0xFFFFFFFF), (BPF_RET, 0, 0, 0)
TO_CLIENT_PORT = ((BPF_LDH_ABS, 0, 0, 2), (BPF_JEQ, 0, 1, CLIENT_PORT), ACCEPT, REFUSE)
"""Classic BPF: the destination port of the UDP header, where a raw socket's packet begins, is 546."""


class PacketSocket:
    """Port 546 of one interface, shared. ``received(data, source)`` is called in the event loop for every datagram."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, interface: str, received: Callable[[bytes, IPv6Address], None]
    ) -> None:
        """Open. Raises DataplaneError with cause and remedy (no privilege, no interface)."""
        self._loop = loop
        self._received = received
        self._interface = interface
        self.index = socket.if_nametoindex(interface)
        self._guards: dict[IPv6Address, socket.socket] = {}
        self._socket = self._open(interface)
        loop.add_reader(self._socket, self._readable)

    @staticmethod
    def _open(interface: str) -> socket.socket:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with contextlib.ExitStack() as undo:
            try:
                sock = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_UDP)
                undo.callback(sock.close)
                _attach(sock, (REFUSE,))  # nothing may be queued before all of it is set up
                # The kernel computes the checksum of what is sent, and drops what arrives with a wrong one.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, CHECKSUM_OFFSET)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
                _drain(sock)
                _attach(sock, TO_CLIENT_PORT)
            except OSError as error:
                remedy = "Run as root, or with CAP_NET_ADMIN and CAP_NET_RAW." if error.errno == errno.EPERM else ""
                raise DataplaneError(
                    f"open a raw socket on {interface}",
                    error.strerror or str(error),
                    errno=error.errno or 0,
                    remedy=remedy,
                ) from None
            undo.pop_all()
            return sock

    def send(self, data: bytes, destination: IPv6Address, source: IPv6Address) -> None:
        """Send to port 547 from the given source address. Raises OSError as the kernel words it."""
        header = UDP_HEADER.pack(CLIENT_PORT, SERVER_PORT, UDP_HEADER.size + len(data), 0)
        pktinfo = struct.pack("=16sI", source.packed, self.index)
        scope = self.index if destination.is_link_local or destination.is_multicast else 0
        self._socket.sendmsg(
            [header, data], [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, pktinfo)], 0, (str(destination), 0, 0, scope)
        )

    def guard(self, addresses: tuple[IPv6Address, ...]) -> None:
        """Keep the kernel from answering "port unreachable" to what comes to port 546 of these global addresses where
        the other client listens at its link-local one only: a socket at each that drops everything.

        Where somebody listens already, nothing is done; whoever comes later and shares the port (SO_REUSEADDR) can.
        """
        for address in self._guards.keys() - set(addresses):
            self._guards.pop(address).close()
        for address in addresses:
            if address not in self._guards:
                guard = self._bind_guard(address)
                if guard is not None:
                    self._guards[address] = guard

    def _bind_guard(self, address: IPv6Address) -> socket.socket | None:
        guard = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            _attach(guard, (REFUSE,))
            guard.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            guard.bind((str(address), CLIENT_PORT))
            guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError:
            guard.close()  # somebody listens there, or the address is gone again
            return None
        return guard

    def _readable(self) -> None:
        for _ in range(BURST):
            try:
                packet, address = self._socket.recvfrom(MAX_DATAGRAM)
            except OSError:
                return  # empty, or a packet with a wrong checksum
            data = payload(packet)
            if data is not None:
                self._received(data, IPv6Address(address[0].partition("%")[0]))

    def close(self) -> None:
        """Free it; the other client does not notice."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for guard in self._guards.values():
            guard.close()
        self._guards.clear()


def payload(packet: bytes) -> bytes | None:
    """What a UDP datagram carries (header first); None when it is not for port 546 or shorter than it says."""
    if len(packet) < UDP_HEADER.size:
        return None
    _, port, length, _ = UDP_HEADER.unpack_from(packet)
    if port != CLIENT_PORT or not UDP_HEADER.size <= length <= len(packet):
        return None
    return packet[UDP_HEADER.size : length]


def _attach(sock: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    """Put a classic BPF program before a socket (SO_ATTACH_FILTER; struct sock_fprog)."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    memory = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(memory)))


def _drain(sock: socket.socket) -> None:
    while True:
        try:
            sock.recv(1)
        except OSError:
            return
