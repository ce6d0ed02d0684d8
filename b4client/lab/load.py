"""Load that fills a port set: as many flows as there are ports, all open at once, each with its outer port known.

Every request says which customer it is of and which flow; the answer says that again, and the source port that the
server saw. So both ends know whose flow came from which port, and an answer that goes astray is recognised.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import resource
import selectors
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from b4client.lab.netns import LabError, Namespace
from b4client.lab.traffic import SO_RCVBUFFORCE, Watch

PORT = 7777
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
BACKLOG = 4096
IN_FLIGHT = 256
"""Flows that wait for their first answer at one time, of all customers: queues hold a few hundred packets."""
FIRST_RETRY_S, RETRY_S, RETRY_MAX_S = 2.0, 0.25, {TCP: 4.0, UDP: 0.5}
"""When the NAT finds no free port in its few tries the packet is lost: the application tries again, the first time
before it knows how slow the way is, then after some times what an answer takes, between these limits."""
PATIENCE = 4
REQUEST, ANSWER = struct.Struct("!HI"), struct.Struct("!HIH")


def room_for_sockets(count: int) -> None:
    """Let this process have ``count`` files open, and some more. Raises LabError when it may not."""
    wanted = count + 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (OSError, ValueError) as error:
        raise LabError(f"{wanted} open files are more than this process may have ({hard}): {error}") from None


class LoadServer:
    """Answers requests on port 7777, TCP and UDP. Use in a ``with`` statement.

    ``owners``: (protocol, address, port) -> the customers whose requests came from there. ``watch``: all packets.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.owners: dict[tuple[str, str, int], set[int]] = collections.defaultdict(set)
        with namespace.entered():
            self._udp = socket.socket(socket.AF_INET, UDP)
            self._udp.bind(("0.0.0.0", PORT))  # noqa: S104 - inside a namespace of our own
            self._tcp = socket.create_server(("0.0.0.0", PORT), backlog=BACKLOG)  # noqa: S104
            self._unasked = socket.socket(socket.AF_INET, UDP)
        self._udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self._selector = selectors.DefaultSelector()
        self._wake, self._stop = socket.socketpair()
        for s, work in ((self._udp, self._datagram), (self._tcp, self._accept), (self._wake, None)):
            s.setblocking(False)
            self._selector.register(s, selectors.EVENT_READ, work)
        self.watch = Watch(namespace)
        self._thread = threading.Thread(target=self._run, name="load server", daemon=True)
        self._thread.start()

    def send_to(self, address: IPv4Address, port: int, data: bytes) -> None:
        """Send a datagram, unasked. Not from port 7777: at the CPE it would stand in the way of a flow to there."""
        self._unasked.sendto(data, (str(address), port))

    def close(self) -> None:
        """Stop serving, and end the connections."""
        self._stop.send(b"x")
        self._thread.join(10)
        for key in tuple(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        self._stop.close()
        self._unasked.close()
        self.watch.close()

    def __enter__(self) -> LoadServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                with contextlib.suppress(OSError, struct.error):
                    key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, self._stream)

    def _stream(self, connection: socket.socket) -> None:
        try:
            request = connection.recv(REQUEST.size)
            if request:
                connection.send(self._answer("TCP", request, connection.getpeername()))
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._selector.unregister(connection)
        connection.close()

    def _datagram(self, s: socket.socket) -> None:
        request, peer = s.recvfrom(100)
        s.sendto(self._answer("UDP", request, peer), peer)

    def _answer(self, protocol: str, request: bytes, peer: tuple[str, int]) -> bytes:
        customer, flow = REQUEST.unpack(request)
        self.owners[protocol, peer[0], peer[1]].add(customer)
        return ANSWER.pack(customer, flow, peer[1])


@dataclass(slots=True)
class _Flow:
    """A flow that has no answer yet; ``sent_at`` is when it was last tried."""

    number: int
    socket: socket.socket
    sent_at: float
    asked: bool = False


@dataclass
class Load:
    """Flows of one customer. ``outer`` are the ports from which the server saw them; ``astray`` are answers of others.

    ``tries`` counts the packets that opened a flow, or should have.
    """

    customer: int
    outer: set[int] = field(default_factory=set)
    astray: list[bytes] = field(default_factory=list)
    tries: int = 0
    _held: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        """Let all flows go."""
        for s in self._held:
            s.close()
        self._held.clear()

    def fill(
        self,
        namespace: Namespace,
        server: IPv4Address,
        kind: socket.SocketKind,
        flows: int,
        *,
        timeout_s: float,
        in_flight: int,
    ) -> int:
        """Open ``flows`` more flows, and hold them. Returns how many got an answer within ``timeout_s`` seconds.

        ``in_flight`` is how many may wait for theirs at one time.
        """
        filler = _Filler(self, namespace, (str(server), PORT), kind, in_flight)
        try:
            return filler.run(flows, time.monotonic() + timeout_s)
        finally:
            filler.close()

    def hold(self, s: socket.socket) -> None:
        """Keep a flow open."""
        self._held.append(s)


class _Filler:
    """The work of one ``Load.fill``."""

    def __init__(
        self, load: Load, namespace: Namespace, server: tuple[str, int], kind: socket.SocketKind, in_flight: int
    ) -> None:
        self._in_flight = in_flight
        self._wait_s, self._slowest_s = min(FIRST_RETRY_S, RETRY_MAX_S[kind]), 0.0
        self._load, self._namespace, self._server, self._kind = load, namespace, server, kind
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[int, _Flow] = {}

    def run(self, flows: int, end: float) -> int:
        """See ``Load.fill``."""
        begun = answered = 0
        with self._namespace.entered():
            while answered < flows and time.monotonic() < end:
                while begun < flows and len(self._waiting) < self._in_flight:
                    begun += 1
                    self._open(begun)
                for key, mask in self._selector.select(RETRY_S / 2):
                    answered += self._handle(key.data, mask)
                before = time.monotonic() - self._wait_s
                for flow in [f for f in self._waiting.values() if f.sent_at < before]:
                    self._again(flow)
        return answered

    def close(self) -> None:
        """Give up the flows without answer."""
        for flow in self._waiting.values():
            flow.socket.close()
        self._selector.close()

    def _open(self, number: int) -> None:
        flow = self._waiting[number] = _Flow(number, socket.socket(socket.AF_INET, self._kind), 0.0)
        self._connect(flow)

    def _connect(self, flow: _Flow) -> None:
        flow.sent_at = time.monotonic()
        flow.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            flow.socket.connect(self._server)
        wanted = selectors.EVENT_READ
        if self._kind == TCP:
            self._load.tries += 1
            wanted |= selectors.EVENT_WRITE  # connected
        else:
            self._ask(flow)
        self._selector.register(flow.socket, wanted, flow)

    def _ask(self, flow: _Flow) -> None:
        if self._kind == UDP:
            self._load.tries += 1
            flow.sent_at = time.monotonic()
        flow.asked = True
        with contextlib.suppress(OSError):
            flow.socket.send(REQUEST.pack(self._load.customer, flow.number))

    def _again(self, flow: _Flow) -> None:
        if self._kind == UDP:
            self._ask(flow)
        elif not flow.asked and not _connected(flow.socket):
            # The kernel would wait a second and more before its next SYN. From the same port: should the first have
            # come through after all, the NAT knows the flow, and does not spend a second outer port on it.
            port = flow.socket.getsockname()[1]
            self._selector.unregister(flow.socket)
            flow.socket.close()
            flow.socket = socket.socket(socket.AF_INET, TCP)
            flow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # what came in this moment made the old one end slowly: another port
                flow.socket.bind(("0.0.0.0", port))  # noqa: S104 - inside a namespace of our own
            self._connect(flow)

    def _handle(self, flow: _Flow, mask: int) -> bool:
        """True when ``flow`` got its answer."""
        if mask & selectors.EVENT_WRITE and not flow.asked:
            if flow.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._again(flow)
                return False
            self._selector.modify(flow.socket, selectors.EVENT_READ, flow)
            self._ask(flow)
        if not mask & selectors.EVENT_READ:
            return False
        try:
            answer = flow.socket.recv(100)
            customer, number, port = ANSWER.unpack(answer)
        except OSError:
            return False
        except struct.error:
            customer = number = port = -1
        if (customer, number) != (self._load.customer, flow.number):
            self._load.astray.append(answer)
            return False
        self._slowest_s = max(self._slowest_s, time.monotonic() - flow.sent_at)
        self._wait_s = min(max(RETRY_S, PATIENCE * self._slowest_s), RETRY_MAX_S[self._kind])
        self._selector.unregister(flow.socket)
        del self._waiting[flow.number]
        self._load.outer.add(port)
        self._load.hold(flow.socket)
        return True


def _connected(s: socket.socket) -> bool:
    try:
        s.getpeername()
    except OSError:
        return False
    return True


def fill_all(
    loads: Mapping[int, tuple[Load, Namespace]],
    server: IPv4Address,
    kind: socket.SocketKind,
    flows: int,
    timeout_s: float,
) -> dict[int, int]:
    """``Load.fill`` for all customers at the same time: customer -> flows that got an answer."""
    in_flight = max(IN_FLIGHT // len(loads), 8)
    with concurrent.futures.ThreadPoolExecutor(len(loads)) as pool:
        futures = {
            number: pool.submit(load.fill, namespace, server, kind, flows, timeout_s=timeout_s, in_flight=in_flight)
            for number, (load, namespace) in loads.items()
        }
    return {number: future.result() for number, future in futures.items()}
