"""The metrics endpoint and the textfile: off unless wanted, hard to hurt."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from b4client.config import MetricsSettings
from b4client.daemon import exporter
from b4client.daemon.exporter import Exporter

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def serve(work: Callable[[Exporter], Awaitable[None]]) -> None:
    async def render() -> str:
        return "b4client_x 1\n"

    async def main() -> None:
        served = Exporter(render)
        try:
            await asyncio.wait_for(work(served), 20)
        finally:
            await served.close()

    asyncio.run(main())


async def ask(port: int, request: bytes, *, host: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""  # closed with our request unread
    finally:
        writer.close()


def test_http() -> None:
    async def work(served: Exporter) -> None:
        port = free_port()
        await served.configure(MetricsSettings(port=port))
        answer = await ask(port, GET)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Type: text/plain; version=0.0.4" in head
        assert b"Content-Length: 13" in head
        assert body == b"b4client_x 1\n"
        assert (await ask(port, GET.replace(b"GET", b"HEAD"))).endswith(b"\r\n\r\n")
        assert b"404" in await ask(port, b"GET /etc/passwd HTTP/1.1\r\n\r\n")
        assert b"405" in await ask(port, b"POST /metrics HTTP/1.1\r\n\r\n")
        assert b"404" in await ask(port, b"GET\r\n\r\n")
        assert b"405" in await ask(port, b"\xff\r\n\r\n")
        assert await ask(port, b"x" * 20000) == b""
        # Off again.
        await served.configure(MetricsSettings())
        try:
            await ask(port, GET)
        except ConnectionRefusedError:
            return
        raise AssertionError("it still listens")

    serve(work)


def test_it_listens_on_loopback_alone_and_on_ipv6_when_told() -> None:
    async def work(served: Exporter) -> None:
        port = free_port()
        await served.configure(MetricsSettings(port=port))
        assert served._server is not None
        assert [s.getsockname()[0] for s in served._server.sockets] == ["127.0.0.1"]
        await served.configure(MetricsSettings(address="::1", port=port))
        assert b"200 OK" in await ask(port, GET, host="::1")

    serve(work)


def test_silent_and_many_clients_do_no_harm() -> None:
    async def work(served: Exporter) -> None:
        port = free_port()
        await served.configure(MetricsSettings(port=port))
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(exporter.MAX_CLIENTS)]
        await asyncio.sleep(0.05)
        assert await ask(port, GET) == b""  # too many
        for _, writer in silent:
            writer.close()
        await asyncio.sleep(0.05)
        assert b"200 OK" in await ask(port, GET)

    serve(work)


def test_a_silent_client_is_cut_off() -> None:
    async def work(served: Exporter) -> None:
        port = free_port()
        await served.configure(MetricsSettings(port=port))
        exporter.REQUEST_TIMEOUT_S, before = 0.2, exporter.REQUEST_TIMEOUT_S
        try:
            assert await ask(port, b"GET /metrics HTTP/1.1\r\n") == b""
        finally:
            exporter.REQUEST_TIMEOUT_S = before

    serve(work)


def test_a_port_that_is_taken_is_told_and_borne() -> None:
    async def work(served: Exporter) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            await served.configure(MetricsSettings(port=taken.getsockname()[1]))
        assert served.problem is not None
        assert "no metrics on 127.0.0.1" in served.problem

    serve(work)


def test_textfile(tmp_path: Path) -> None:
    async def work(served: Exporter) -> None:
        file = tmp_path / "b4client.prom"
        await served.configure(MetricsSettings(textfile=file, textfile_interval_s=0.05))
        for _ in range(100):
            if file.exists():
                break
            await asyncio.sleep(0.02)
        assert file.read_text() == "b4client_x 1\n"
        assert file.stat().st_mode & 0o777 == 0o644
        file.unlink()
        for _ in range(100):
            if file.exists():
                break
            await asyncio.sleep(0.02)
        assert file.exists()
        assert [p.name for p in tmp_path.iterdir()] == ["b4client.prom"]
        await served.configure(MetricsSettings(textfile=tmp_path / "nowhere" / "x.prom", textfile_interval_s=0.05))
        await asyncio.sleep(0.2)
        assert served.problem is not None
        assert "No such file" in served.problem

    serve(work)
