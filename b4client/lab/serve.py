"""``python -m b4client.lab.serve --config FILE``: the lab server on UDP port 547 of one interface.

A laboratory, not a production server. Here is only the moving of datagrams, the lease file, and the lwAFTR that is told
the bindings; the behaviour is in ``server``. SIGUSR1 prints counters and leases as one line of JSON; SIGTERM and SIGINT
end it. Needs CAP_NET_BIND_SERVICE and CAP_NET_RAW.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv6Address
from pathlib import Path

from b4client import api
from b4client.lab import serverconfig
from b4client.lab.feed import Change, Feed
from b4client.lab.feedhub import FeedHub
from b4client.lab.leasefile import LeaseFile
from b4client.lab.leaserecord import Lease
from b4client.lab.leases import LeaseDatabase
from b4client.lab.misbehave import CASES, MisbehavingServer
from b4client.lab.server import Reply, Server, ServerSettings
from b4client.lab.serverconfig import LabConfig
from b4client.model.errors import B4Error, ConfigError, ControlError
from b4client.wire.dhcp6 import ALL_SERVERS, SERVER_PORT

MAX_DATAGRAM = 65535
ANCILLARY = 64
TICK_S = 1.0
"""How often leases are looked through for their end, and an lwAFTR that was away is tried again."""
MAX_PENDING = 65536
EX_CONFIG = 78

log = logging.getLogger("b4client.lab.serve")


class Service:
    """Server, lease file and feed as one: whatever ``handle`` returns may be sent, its leases are on the disk.

    ``tell`` is called with every binding that comes or goes, in order; ControlError and OSError from it mean "not now",
    ValueError "never". ``publish`` is called with all records that change, and first with those in force.
    """

    def __init__(
        self,
        server: Server,
        file: LeaseFile | None,
        tell: Callable[[Change], None] | None,
        publish: Callable[[Iterable[Lease]], None] | None = None,
    ) -> None:
        self.server = server
        self._file = file
        self._feed = Feed()
        self._tell = tell
        self._publish = publish
        self._pending: deque[Change] = deque()

    @classmethod
    def open(
        cls,
        config: LabConfig,
        now: float,
        tell: Callable[[Change], None] | None = None,
        build: Callable[[ServerSettings, LeaseDatabase], Server] = Server,
        publish: Callable[[Iterable[Lease]], None] | None = None,
    ) -> Service:
        """Read the lease file if there is one, ``build`` the server on it, tell what was bound before.

        Raises B4Error, OSError.
        """
        file = LeaseFile(config.lease_file) if config.lease_file is not None else None
        try:
            leases = LeaseDatabase(config.pools, file.load() if file else (), max_per_customer=config.max_per_customer)
            leases.expire(now)
            if file is not None:
                file.rewrite(leases)
        except BaseException:
            if file is not None:
                file.close()
            raise
        service = cls(build(config.server, leases), file, tell, publish)
        leases.drain()
        if publish is not None:
            publish(leases.active(now))
        service._queue(service._feed.update(leases.active(now)))
        return service

    def handle(self, data: bytes, source: IPv6Address, now: float, destination: IPv6Address | None) -> list[Reply]:
        """The answers to a datagram, after what they promise has been kept."""
        replies = self.server.handle(data, source, now, destination=destination)
        self._keep()
        return replies

    def tick(self, now: float) -> None:
        """Let leases end, and tell the lwAFTR what it has missed."""
        self.server.leases.expire(now)
        self._keep()
        self._flush()

    def close(self) -> None:
        """Let go of the lease file."""
        if self._file is not None:
            self._file.close()

    def describe(self, now: float) -> dict[str, object]:
        """Counters and active leases, for people and tests."""
        leases = [lease.to_json() for lease in self.server.leases.active(now)]
        return {"counters": dict(sorted(self.server.counters.items())), "leases": leases}

    def _keep(self) -> None:
        changes = self.server.leases.drain()
        if not changes:
            return
        if self._file is not None and self._file.append(changes):
            self._file.rewrite(self.server.leases)
        if self._publish is not None:
            self._publish(changes)
        self._queue(self._feed.update(changes))

    def _queue(self, changes: list[Change]) -> None:
        if self._tell is not None:
            self._pending.extend(changes)
            if len(self._pending) > MAX_PENDING:
                raise ConfigError("aftr", f"has not answered for {MAX_PENDING} changes")
            self._flush()

    def _flush(self) -> None:
        while self._pending and self._tell is not None:
            try:
                self._tell(self._pending[0])
            except (ControlError, OSError) as error:
                log.debug("the lwAFTR is not told yet: %s", error)
                return
            except ValueError as error:
                log.warning("the lwAFTR refuses %s %s: %s", *self._pending[0], error)
            self._pending.popleft()


def aftr_teller(path: Path) -> Callable[[Change], None]:
    """Tells the lwAFTR behind the control socket ``path`` (``b4client.lab.aftr --control``)."""

    def tell(change: Change) -> None:
        command, binding = change
        for answer in api.stream(path, command, {"binding": str(binding)}, 2.0):
            if answer.get("result") != api.RESULT_OK:
                raise ValueError(answer.get("text", "refused"))
            return
        raise ControlError("the lwAFTR closed the connection without an answer")

    return tell


class Port:
    """UDP port 547 of one interface, member of ff02::1:2 there. Raises OSError."""

    def __init__(self, interface: str) -> None:
        self._index = socket.if_nametoindex(interface)
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        with contextlib.ExitStack() as undo:
            undo.callback(self._socket.close)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            membership = ALL_SERVERS.packed + struct.pack("@I", self._index)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
            self._socket.bind(("::", SERVER_PORT))
            undo.pop_all()

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def receive(self) -> Iterator[tuple[bytes, IPv6Address, IPv6Address | None]]:
        """(data, source, destination) of what is there."""
        while True:
            try:
                data, ancillary, _, sender = self._socket.recvmsg(MAX_DATAGRAM, ANCILLARY)
            except BlockingIOError:
                return
            destination = None
            for level, kind, value in ancillary:
                if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                    destination = IPv6Address(value[:16])
            yield data, IPv6Address(str(sender[0]).partition("%")[0]), destination

    def send(self, reply: Reply, asked_at: IPv6Address | None) -> None:
        """Unicast an answer by the question's interface (RFC 7341 11), from the address that was asked."""
        source = asked_at if asked_at is not None and not asked_at.is_multicast else IPv6Address(0)
        ancillary = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, source.packed + struct.pack("@I", self._index))]
        self._socket.sendmsg([reply.data], ancillary, 0, (str(reply.destination), reply.port, 0, self._index))


def run(service: Service, port: Port, signals: int, now: Callable[[], float] = time.time) -> None:
    """Serve until SIGTERM or SIGINT, whose numbers arrive as octets on the descriptor ``signals``."""
    while True:
        ready, _, _ = select.select([port.fileno(), signals], [], [], TICK_S)
        if signals in ready:
            for number in os.read(signals, 64):
                if number != signal.SIGUSR1:
                    return
                print(json.dumps(service.describe(now())), flush=True)
        if port.fileno() in ready:
            for data, source, destination in port.receive():
                for reply in service.handle(data, source, now(), destination):
                    try:
                        port.send(reply, destination)
                    except OSError as error:
                        log.warning("cannot answer %s: %s", reply.destination, error.strerror)
        service.tick(now())


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status; 78 for a configuration that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m b4client.lab.serve", description="DHCP 4o6 server that leases shared addresses, for testbeds"
    )
    parser.add_argument("--config", type=Path, required=True, help="TOML, or JSON in a .json file")
    parser.add_argument("--misbehave", choices=sorted(CASES), help="answer wrongly, by this case of lab.misbehave")
    parser.add_argument("--times", type=int, metavar="N", help="misbehave N times, then be honest (default: always)")
    args = parser.parse_args(argv)

    def build(settings: ServerSettings, leases: LeaseDatabase) -> Server:
        if args.misbehave is None:
            return Server(settings, leases)
        return MisbehavingServer(settings, leases, CASES[args.misbehave], args.times)

    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)
    try:
        config = serverconfig.load(args.config)
        port = Port(config.interface)
        hub = FeedHub(config.feed) if config.feed else None
        tell = aftr_teller(config.aftr) if config.aftr else None
        service = Service.open(config, time.time(), tell, build, hub.publish if hub else None)
        if hub is not None:
            hub.start()
    except ConfigError as error:
        print(f"serve: {error}", file=sys.stderr)
        return EX_CONFIG
    except (B4Error, OSError) as error:
        print(f"serve: cannot start: {error}", file=sys.stderr)
        return 1
    log.info("serving on %s, port %d", config.interface, SERVER_PORT)
    try:
        run(service, port, reading)
    finally:
        service.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
