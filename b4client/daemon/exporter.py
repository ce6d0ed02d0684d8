"""Metrics for who asks by HTTP, and for node_exporter's textfile collector. Both are off unless they are configured."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from b4client import metrics
from b4client.config import MetricsSettings

log = logging.getLogger("b4client.metrics")

MAX_CLIENTS = 8
MAX_REQUEST = 8192
REQUEST_TIMEOUT_S = 5.0


class Exporter:
    """Serves what ``render`` gives. ``configure`` may be called again with other settings."""

    def __init__(self, render: Callable[[], Awaitable[str]]) -> None:
        self._render = render
        self._settings = MetricsSettings()
        self._server: asyncio.Server | None = None
        self._writer: asyncio.Task[None] | None = None
        self._clients = 0
        self.problem: str | None = None

    async def configure(self, settings: MetricsSettings) -> None:
        """Do as ``settings`` say from now on. What cannot be done is logged; the client itself goes on."""
        if settings == self._settings:
            return
        await self.close()
        self._settings = settings
        if settings.port:
            try:
                self._server = await asyncio.start_server(
                    self._accepted, settings.address, settings.port, limit=MAX_REQUEST
                )
            except OSError as error:
                reason = error.strerror or str(error)
                self._complain(f"no metrics on {settings.address} port {settings.port}: {reason}")
        if settings.textfile is not None:
            self._writer = asyncio.create_task(self._write_regularly(settings.textfile, settings.textfile_interval_s))

    async def close(self) -> None:
        """Stop serving and writing."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
            self._writer = None

    def _complain(self, text: str) -> None:
        if text != self.problem:
            log.warning("%s", text)
        self.problem = text

    # ---- HTTP: one request a connection, nothing but GET /metrics

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= MAX_CLIENTS:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    writer.write(await self._answer(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it went away, said too much or nothing
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.split(b"\r\n", 1)[0].partition(b" ")
        path = rest.split(b" ")[0].split(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"only GET\n", extra="Allow: GET, HEAD\r\n")
        if path != b"/metrics":
            return _response("404 Not Found", b"metrics are at /metrics\n")
        body = (await self._render()).encode()
        return _response("200 OK", body, kind=metrics.CONTENT_TYPE, head=method == b"HEAD")

    # ---- textfile

    async def _write_regularly(self, path: Path, interval_s: float) -> None:
        while True:
            text = await self._render()
            await asyncio.to_thread(self._write, path, text)
            await asyncio.sleep(interval_s)

    def _write(self, path: Path, text: str) -> None:
        """Replace the file whole: node_exporter must not read half of it."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.chmod(0o644)
            temporary.replace(path)
            self.problem = None
        except OSError as error:
            self._complain(f"cannot write metrics to {path}: {error.strerror}")


def _response(
    status: str, body: bytes, *, kind: str = "text/plain; charset=utf-8", extra: str = "", head: bool = False
) -> bytes:
    lines = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}Connection: close\r\n\r\n"
    )
    return lines.encode() + (b"" if head else body)
