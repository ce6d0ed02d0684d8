"""The lwAFTR's control socket: what it answers to ``b4client lab`` and to the tests, in the language of ``api``.

======== ================================== ============================================================================
command  arguments                          answer
======== ================================== ============================================================================
counters                                    {NAME: number}; ``aftrfate.COUNTERS`` says what each means
meanings                                    {NAME: sentence}
bindings address, offset, limit             {"total", "bindings": [text], "customers": [line of the table]}
ports    binding                            {"ranges": ["1024-1030", ...]} seen lately
bind     binding                            {}; binding what is bound already changes nothing
unbind   binding                            {}
policy   any of Policy's names              {NAME: value}, after the change
status                                      {"address", "device", "customers", "waiting_fragments", "policy", "feed"}
======== ================================== ============================================================================
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from b4client import api
from b4client.lab.aftrcore import Aftr
from b4client.lab.aftrfate import COUNTERS
from b4client.lab.binding import Binding
from b4client.model.errors import ControlError

MAX_LINES = 1000
"""Customers in one answer, so that it is never longer than ``api.MAX_LINE``."""
TIMEOUT_S = 2.0


class Control:
    """Commands on ``aftr``, whose data plane runs in other threads and holds ``lock`` while it decides.

    ``feed`` tells how the feed is doing; ``refresh`` brings the counters up to date that only the kernel knows.
    """

    def __init__(
        self,
        aftr: Aftr,
        lock: threading.Lock,
        now: Callable[[], float],
        *,
        device: str,
        feed: Callable[[], dict[str, Any] | None] = lambda: None,
        refresh: Callable[[], None] = lambda: None,
    ) -> None:
        self._aftr, self._lock, self._now, self._device, self._feed = aftr, lock, now, device, feed
        self._refresh = refresh

    def answer(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command. Raises ControlError."""
        work = {
            "counters": self._counters,
            "meanings": lambda _: dict(COUNTERS),
            "bindings": self._bindings,
            "ports": self._ports,
            "bind": self._bind,
            "unbind": self._unbind,
            "policy": self._policy,
            "status": self._status,
        }.get(command)
        if work is None:
            raise ControlError(f"unknown command {command!r}")
        try:
            return work(arguments)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ControlError(str(error.args[0] if error.args else error)) from None

    def _counters(self, _: dict[str, Any]) -> dict[str, Any]:
        self._refresh()
        with self._lock:
            self._aftr.tick(self._now())
            return dict(self._aftr.counters)

    def _bindings(self, arguments: dict[str, Any]) -> dict[str, Any]:
        address = arguments.get("address")
        wanted = None if address is None else IPv4Address(str(address))
        first, limit = int(arguments.get("offset", 0)), min(int(arguments.get("limit", MAX_LINES)), MAX_LINES)
        if first < 0 or limit < 0:
            raise ValueError("offset, limit: must not be negative")
        with self._lock:
            found = [c for c in self._aftr.table.customers() if wanted is None or c.binding.address == wanted]
        now = self._now()
        # Outside the lock: a long table must not keep packets waiting.
        lines = [customer.to_json(now) for customer in found[first : first + limit]]
        return {"total": len(found), "bindings": [line["binding"] for line in lines], "customers": lines}

    def _ports(self, arguments: dict[str, Any]) -> dict[str, Any]:
        binding = Binding.parse(str(arguments.get("binding", "")))
        with self._lock:
            customer = self._aftr.table.customer(binding)
        if customer is None:
            raise KeyError(f"not bound: {binding}")
        return {"ranges": [str(r) for r in itertools.islice(customer.ports_seen.ranges(self._now()), 65536)]}

    def _bind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        binding = Binding.parse(str(arguments.get("binding", "")))
        with self._lock:
            if binding not in self._aftr.table:
                self._aftr.table.add(binding)
        return {}

    def _unbind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._aftr.table.remove(Binding.parse(str(arguments.get("binding", ""))))
        return {}

    def _policy(self, arguments: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            if arguments:
                self._aftr.set_policy(self._aftr.policy.changed(arguments))
            return self._aftr.policy.to_json()

    def _status(self, _: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            return {
                "address": str(IPv6Address(self._aftr.address)),
                "device": self._device,
                "customers": len(self._aftr.table),
                "waiting_fragments": self._aftr.fragments.waiting,
                "policy": self._aftr.policy.to_json(),
                "feed": self._feed(),
            }

    # ---- the socket

    def serve(self, path: Path) -> None:
        """Answer on the Unix socket ``path``, one request a connection, until the process ends."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen()
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(TIMEOUT_S)
                    self._serve_one(connection)

    def _serve_one(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            line = lines.readline(api.MAX_REQUEST + 1)
        answer: dict[str, Any]
        try:
            command, arguments = api.decode_request(line)
            answer = {"result": api.RESULT_OK, "text": command, "arguments": self.answer(command, arguments)}
        except ControlError as error:
            answer = {"result": api.RESULT_ERROR, "text": str(error)}
        connection.sendall(api.encode(answer))
