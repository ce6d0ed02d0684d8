"""The lwAFTR's end of the feed: bindings that follow the leases of the lab server (RFC 7596 6.1, ``feed``).

Whichever of the two is started again, the bindings are right as soon as they have met: a meeting begins with all that
is in force. While the server is away its bindings stay, each as long as its lease lasts.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from b4client import api
from b4client.lab.binding import Binding, BindingTable
from b4client.lab.feed import SUBSCRIBE

RETRY_S = 0.1
CONNECT_S = 2.0


class Follower:
    """Keeps ``table`` as the messages of a publication say. Pure. What others have bound there it leaves alone.

    ``refused`` counts bindings that could not be made because a port was bound already by somebody else.
    """

    def __init__(self, table: BindingTable) -> None:
        self._table = table
        self._bound: dict[Binding, float | None] = {}
        self._coming: dict[Binding, float | None] | None = None
        self.refused = self.snapshots = self.expired = 0

    def __len__(self) -> int:
        return len(self._bound)

    def take(self, message: object) -> None:
        """Carry out one message. Raises ValueError for what is none, with nothing changed."""
        if not isinstance(message, dict):
            raise ValueError("a message of the feed must be an object")
        if "snapshot" in message:
            coming = self._coming or {}
            coming.update(_entries(message["snapshot"]))
            self._coming = coming
            if not message.get("more"):
                self._coming = None
                self._replace(coming)
        else:
            bind = _entries(message.get("bind", []))
            unbind = [Binding.parse(str(text)) for text in _list(message.get("unbind", []))]
            # Unbind first: a port may have gone from one softwire to another.
            for binding in unbind:
                self._unbind(binding)
            for binding, until in bind.items():
                self._bind(binding, until)

    def begin(self) -> None:
        """A new meeting: half a snapshot of the last one is worth nothing."""
        self._coming = None

    def expire(self, now: float) -> None:
        """Let bindings end whose lease is over at ``now`` on the wall clock."""
        for binding in [b for b, until in self._bound.items() if until is not None and until <= now]:
            self._unbind(binding)
            self.expired += 1

    def _replace(self, coming: dict[Binding, float | None]) -> None:
        for binding in [b for b in self._bound if b not in coming]:
            self._unbind(binding)
        for binding, until in coming.items():
            self._bind(binding, until)
        self.snapshots += 1

    def _bind(self, binding: Binding, until: float | None) -> None:
        if binding in self._bound:
            customer = self._table.customer(binding)
        else:
            try:
                customer = self._table.add(binding)
            except ValueError:
                self.refused += 1
                return
        self._bound[binding] = until
        if customer is not None:
            customer.until = until

    def _unbind(self, binding: Binding) -> None:
        if binding in self._bound:
            del self._bound[binding]
            with contextlib.suppress(KeyError):  # somebody took it away by the control socket
                self._table.remove(binding)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a message of the feed must hold lists")
    return value


def _entries(value: object) -> dict[Binding, float | None]:
    found: dict[Binding, float | None] = {}
    for entry in _list(value):
        text, until = _list(entry)
        if not isinstance(text, str) or not (until is None or isinstance(until, int | float)):
            raise ValueError(f"not a binding with its end: {entry!r}")
        found[Binding.parse(text)] = until
    return found


class FeedReader:
    """Asks the server behind the Unix socket ``path`` for its publication, again and again, in a thread of its own."""

    def __init__(self, path: Path, follower: Follower, lock: threading.Lock, now: Callable[[], float]) -> None:
        self._path, self._follower, self._lock, self._now = path, follower, lock, now
        self._connected = False

    def to_json(self) -> dict[str, Any]:
        """How it goes, for the control socket."""
        follower = self._follower
        return {
            "path": str(self._path),
            "connected": self._connected,
            "bindings": len(follower),
            "refused": follower.refused,
            "expired": follower.expired,
            "snapshots": follower.snapshots,
        }

    def expire(self) -> None:
        """Let bindings end whose lease is over."""
        with self._lock:
            self._follower.expire(self._now())

    def run(self, ended: threading.Event) -> None:
        """Follow the server until ``ended``; at the latest when a meeting is over."""
        while not ended.is_set():
            try:
                self._meet()
            except OSError:
                pass  # away: it will be back
            except (ValueError, RecursionError) as error:
                print(f"aftr: the feed {self._path} speaks nonsense: {error}", file=sys.stderr, flush=True)
            self._connected = False
            ended.wait(RETRY_S)

    def _meet(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(CONNECT_S)
            connection.connect(str(self._path))
            connection.sendall(api.encode({"command": SUBSCRIBE}))
            connection.settimeout(None)
            self._follower.begin()
            with connection.makefile("rb") as lines:
                while line := lines.readline(api.MAX_LINE + 1):
                    message = json.loads(line)
                    with self._lock:
                        self._follower.take(message)
                        self._follower.expire(self._now())
                    connection.sendall(api.encode({"done": True}))
                    self._connected = True
