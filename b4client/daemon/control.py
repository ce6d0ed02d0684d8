"""The control socket: one JSON line in, one (or, for ``monitor``, many) out. See ``api`` for the language.

Read verbs never enter the state machine; the others become events. Hostile clients are bounded: their number, the
length of what they say, the time they take to say it, and what may be queued for one that does not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from b4client import api
from b4client.model.errors import ControlError

log = logging.getLogger("b4client.control")

MAX_CLIENTS = 16
REQUEST_TIMEOUT_S = 10.0
MAX_BACKLOG = 262144
"""Octets queued for a monitor that does not read before it is cut off."""

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class ControlServer:
    """Serves ``handlers`` (command name -> coroutine) at ``path``; ``publish`` feeds the monitors."""

    def __init__(self, path: Path, handlers: dict[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._clients = 0
        self._monitors: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind the socket, for root and our own user alone. A socket left by a dead daemon is replaced."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        mask = os.umask(0o177)
        try:
            listener.bind(str(self._path))
        finally:
            os.umask(mask)
        self._server = await asyncio.start_unix_server(self._accepted, sock=listener, limit=api.MAX_REQUEST)

    def publish(self, event: dict[str, Any]) -> None:
        """Send one event to every monitor; one that does not read is cut off rather than remembered for ever."""
        line = api.encode(event)
        for writer in list(self._monitors):
            if writer.transport.get_write_buffer_size() > MAX_BACKLOG:
                self._monitors.discard(writer)
                writer.transport.abort()
            else:
                writer.write(line)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._clients += 1
        try:
            if self._clients > MAX_CLIENTS:
                writer.write(api.encode({"result": api.RESULT_NOT_NOW, "text": "too many clients"}))
            elif not _may_command(writer):
                writer.write(api.encode({"result": api.RESULT_ERROR, "text": "only root may talk to b4client"}))
            else:
                await self._serve(reader, writer)
            await asyncio.wait_for(writer.drain(), REQUEST_TIMEOUT_S)
        except (ConnectionError, TimeoutError):
            pass  # the client went away or does not read
        finally:
            self._clients -= 1
            self._monitors.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            writer.write(api.encode({"result": api.RESULT_ERROR, "text": "the request is too long"}))
            return
        try:
            command, arguments = api.decode_request(line)
            if command == "monitor":
                await self._monitor(reader, writer)
                return
            handler = self._handlers.get(command)
            if handler is None:
                known = ", ".join(sorted((*self._handlers, "monitor")))
                answer = {"result": api.RESULT_UNKNOWN_COMMAND, "text": f"unknown command; known: {known}"}
            else:
                answer = {"result": api.RESULT_OK, **await handler(arguments)}
        except ControlError as error:
            answer = {"result": api.RESULT_ERROR, "text": str(error)}
        writer.write(api.encode(answer))

    async def _monitor(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(api.encode({"result": api.RESULT_OK, "text": "monitoring"}))
        self._monitors.add(writer)
        # Ends when the client closes its side; what it says meanwhile is not kept.
        while await reader.read(4096):
            pass

    async def close(self) -> None:
        """Stop listening, cut the clients off, remove the socket."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _may_command(writer: asyncio.StreamWriter) -> bool:
    """True for root and for the user that the daemon runs as."""
    sock = writer.get_extra_info("socket")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (0, os.geteuid())
