"""The lab server's end of the feed: a Unix socket at which lwAFTRs learn the bindings (``feed``, ``aftrfeed``).

``publish`` returns when every lwAFTR that listens has carried out what changed: a client that gets its ACK finds its
softwire open. One that does not answer in time is let go, and gets everything again when it comes back.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from b4client import api
from b4client.lab.feed import SUBSCRIBE, Publication
from b4client.lab.leaserecord import Lease
from b4client.model.errors import ControlError

ANSWER_S = 1.0
MAX_SUBSCRIBERS = 16

log = logging.getLogger("b4client.lab.serve")


class FeedHub:
    """Listens on the Unix socket ``path`` in a thread of its own. Raises OSError when it cannot."""

    def __init__(self, path: Path) -> None:
        self._publication = Publication()
        self._subscribers: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink(missing_ok=True)
        self._listener.bind(str(path))
        path.chmod(0o600)

    def start(self) -> None:
        """Let lwAFTRs come. Before, what is published is all that they will find in force."""
        self._listener.listen()
        threading.Thread(target=self._accept, name="feed", daemon=True).start()

    def publish(self, leases: Iterable[Lease]) -> None:
        """Tell what these records mean to all who listen."""
        with self._lock:
            for message in self._publication.update(leases):
                for subscriber in tuple(self._subscribers):
                    if not _tell(subscriber, message):
                        log.warning("an lwAFTR does not answer: it gets the bindings again when it comes back")
                        self._subscribers.remove(subscriber)
                        subscriber.close()

    def close(self) -> None:
        """Stop listening; the lwAFTRs notice."""
        with self._lock, contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for subscriber in self._subscribers:
            subscriber.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            connection.settimeout(ANSWER_S)
            if not self._welcome(connection):
                connection.close()

    def _welcome(self, connection: socket.socket) -> bool:
        try:
            command, _ = api.decode_request(_line(connection))
        except (ControlError, OSError):
            return False
        if command != SUBSCRIBE:
            return False
        # Nothing may change between the snapshot and the first change that is told.
        with self._lock:
            for gone in [s for s in self._subscribers if _gone(s)]:
                self._subscribers.remove(gone)
                gone.close()
            if len(self._subscribers) >= MAX_SUBSCRIBERS:
                return False
            if not all(_tell(connection, message) for message in self._publication.snapshot()):
                return False
            self._subscribers.append(connection)
        return True


def _tell(connection: socket.socket, message: dict[str, Any]) -> bool:
    """Send one message and wait for the answer; False when there is none in time."""
    try:
        connection.sendall(api.encode(message))
        return bool(_line(connection))
    except OSError:
        return False


def _gone(connection: socket.socket) -> bool:
    """True when the peer has ended the connection. Between messages it says nothing."""
    try:
        ready, _, _ = select.select([connection], [], [], 0)
        return bool(ready) and connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True


def _line(connection: socket.socket) -> bytes:
    """One line: after it the peer waits, so that nothing is read beyond. Raises OSError."""
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(api.MAX_REQUEST)
        line += part
        if not part or len(line) > api.MAX_REQUEST:
            return b""
    return line
