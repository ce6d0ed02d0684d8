"""Real traffic for the demonstration and the tests: a server that notes who came, and clients that check what they got.

Everything runs in threads of the calling process; the sockets are born inside the namespaces. What the server's *wire*
saw is recorded below its stack, with a packet socket, so that a packet that the stack would refuse is seen as well.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from b4client.lab.aftrpacket import Ends, ends_of
from b4client.lab.netns import Namespace

PORT = 8080
CHUNK = 65536
ETH_P_IP = 0x0800
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33  # not limited by net.core.rmem_max; Python does not name it
PROTOCOL_NAMES = {1: "ICMP", 6: "TCP", 17: "UDP", 132: "SCTP"}
TIMEOUT_S = 30.0
LOOK_S, QUIET_LOOKS = 0.02, 3
"""How often a watch's queue is looked at, and how often it must be found empty: its reader may hold the last packet."""


class TransferError(Exception):
    """A transfer did not end well; the text says how far it came."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A finished transfer: octets each way, seconds, and the local port it was made from."""

    octets: int
    seconds: float
    port: int


@dataclass(frozen=True, slots=True)
class Seen:
    """Packets of one source as the wire before the server had them."""

    protocol: int
    address: IPv4Address
    port: int | None
    packets: int

    @property
    def name(self) -> str:
        """The protocol's name."""
        return PROTOCOL_NAMES.get(self.protocol, str(self.protocol))


class Watch:
    """Counts the packets that the wire brings to an interface, by source. Use in a ``with`` statement."""

    def __init__(self, namespace: Namespace, interface: str = "eth0") -> None:
        self._seen: collections.Counter[tuple[int, bytes, int | None]] = collections.Counter()
        with namespace.entered():
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self._wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._wire.bind((interface, ETH_P_IP))
        self._loop = Loop({self._wire: self._note})

    @property
    def seen(self) -> list[Seen]:
        """What came by, by source."""
        return [
            Seen(protocol, IPv4Address(address), port, n)
            for (protocol, address, port), n in sorted(self._seen.copy().items(), key=str)
        ]

    @property
    def lost(self) -> int:
        """Packets that came too fast to be counted, since the last time it was asked."""
        _, drops = struct.unpack("=II", self._wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        return int(drops)

    def catch_up(self, timeout_s: float) -> bool:
        """Wait until what the wire has brought so far is counted: on a busy machine it waits in the queue. False when
        that took too long."""
        end = time.monotonic() + timeout_s
        poll = select.poll()  # select() knows no descriptor above 1023
        poll.register(self._wire, select.POLLIN)
        quiet = 0
        while quiet < QUIET_LOOKS and time.monotonic() < end:
            time.sleep(LOOK_S)
            quiet = 0 if poll.poll(0) else quiet + 1
        return quiet == QUIET_LOOKS

    def close(self) -> None:
        """Stop counting."""
        self._loop.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note(self) -> None:
        try:
            packet, address = self._wire.recvfrom(CHUNK)
        except OSError as error:
            if error.errno == errno.ENETDOWN:  # said once when the interface goes; it may come back
                return
            raise
        if address[2] == PACKET_OUTGOING:
            return
        ends = ends_of(packet)
        if isinstance(ends, Ends):
            self._seen[ends.protocol, ends.source, ends.source_port] += 1


class Loop:
    """Threads that call ``work`` whenever its socket has something to read; the sockets are closed with it."""

    def __init__(self, work: Mapping[socket.socket, Callable[[], None]]) -> None:
        self._done, self._done_end = os.pipe()
        self._sockets = tuple(work)
        self._threads = [
            threading.Thread(target=self._run, args=(s, function), daemon=True) for s, function in work.items()
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads."""
        os.write(self._done_end, b"x")
        for thread in self._threads:
            thread.join(5)
        for s in self._sockets:
            s.close()
        os.close(self._done)
        os.close(self._done_end)

    def _run(self, s: socket.socket, work: Callable[[], None]) -> None:
        poll = select.poll()  # select() knows no descriptor above 1023
        for descriptor in (s.fileno(), self._done):
            poll.register(descriptor, select.POLLIN)
        while True:
            if any(descriptor == self._done for descriptor, _ in poll.poll()):
                return
            work()


class Server:
    """TCP and UDP on port 8080 in a namespace, and a watch on its interface. Use in a ``with`` statement.

    TCP: the client sends 8 octets of length and that much data; the server answers with the SHA-256 of it and sends
    the data back. UDP: every datagram comes back. ``connections`` lists (protocol, peer address, peer port).
    """

    def __init__(self, namespace: Namespace, interface: str = "eth0", port: int = PORT) -> None:
        self.connections: list[tuple[str, str, int]] = []
        with namespace.entered():
            self._tcp = socket.create_server(("0.0.0.0", port))  # noqa: S104 - inside a namespace of our own
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.bind(("0.0.0.0", port))  # noqa: S104
        self._watch = Watch(namespace, interface)
        self._loop = Loop({self._tcp: self._accept, self._udp: self._echo})

    @property
    def seen(self) -> list[Seen]:
        """What came by on the wire towards the server, by source."""
        return self._watch.seen

    def close(self) -> None:
        """Stop serving."""
        self._loop.close()
        self._watch.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        connection, peer = self._tcp.accept()
        self.connections.append(("TCP", peer[0], peer[1]))
        threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, TransferError):
            connection.settimeout(TIMEOUT_S)
            while True:
                (length,) = struct.unpack("!Q", _receive(connection, 8))
                data = _receive(connection, length)
                connection.sendall(hashlib.sha256(data).digest() + data)

    def _echo(self) -> None:
        data, peer = self._udp.recvfrom(CHUNK)
        self.connections.append(("UDP", peer[0], peer[1]))
        with contextlib.suppress(OSError):
            self._udp.sendto(data, peer)


def _receive(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        chunk = connection.recv(min(CHUNK, length - len(data)))
        if not chunk:
            raise TransferError(f"the peer closed after {len(data)} of {length} octets")
        data += chunk
    return bytes(data)


class TcpClient:
    """One TCP connection from ``namespace`` to the server, for as many transfers as wished."""

    def __init__(self, namespace: Namespace, server: IPv4Address, port: int = PORT, timeout_s: float = TIMEOUT_S):
        with namespace.entered():
            self._socket = socket.create_connection((str(server), port), timeout=timeout_s)

    def transfer(self, octets: int) -> Transfer:
        """Send ``octets`` random octets, and get their checksum and the octets back. Raises TransferError."""
        data = os.urandom(octets)
        begin = time.monotonic()
        sender = threading.Thread(target=self._send, args=(struct.pack("!Q", octets) + data,), daemon=True)
        try:
            sender.start()
            digest = _receive(self._socket, 32)
            back = _receive(self._socket, octets)
        except OSError as error:
            raise TransferError(f"TCP: {error}") from None
        sender.join()
        if digest != hashlib.sha256(data).digest() or back != data:
            raise TransferError("TCP: the octets were changed on the way")
        return Transfer(octets, time.monotonic() - begin, self._socket.getsockname()[1])

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the receiving side tells
            self._socket.sendall(data)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def __enter__(self) -> TcpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tcp_transfer(namespace: Namespace, server: IPv4Address, octets: int, timeout_s: float = TIMEOUT_S) -> Transfer:
    """One connection, one transfer each way, checked. Raises TransferError or OSError."""
    with TcpClient(namespace, server, timeout_s=timeout_s) as client:
        return client.transfer(octets)


def udp_exchange(
    namespace: Namespace, server: IPv4Address, requests: int = 8, size: int = 512, timeout_s: float = 5.0
) -> Transfer:
    """``requests`` datagrams, each answered before the next. Raises TransferError when one gets no answer."""
    begin = time.monotonic()
    with namespace.entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with s:
        s.settimeout(timeout_s)
        s.connect((str(server), PORT))
        for number in range(requests):
            data = os.urandom(size)
            try:
                s.send(data)
                while s.recv(CHUNK) != data:
                    pass
            except OSError as error:
                raise TransferError(f"UDP: request {number + 1} of {requests}: {error}") from None
        return Transfer(requests * size, time.monotonic() - begin, s.getsockname()[1])


def ping(namespace: Namespace, target: IPv4Address, count: int = 3, size: int = 56, timeout_s: int = 5) -> str:
    """``ping``'s summary line. Raises TransferError unless every request was answered."""
    done = namespace.run(
        *("ping", "-n", "-q", "-c", str(count), "-i", "0.2", "-W", str(timeout_s), "-s", str(size), str(target)),
        check=False,
    )
    summary = [line for line in done.stdout.splitlines() if "packets transmitted" in line]
    if done.returncode or not summary or " 0% packet loss" not in summary[0]:
        raise TransferError(f"ping {target}: {(summary or [done.stderr.strip() or 'no answer'])[0]}")
    return summary[0]
