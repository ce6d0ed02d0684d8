"""The control socket: its language, and clients that mean no good."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from b4client import api
from b4client.daemon import control
from b4client.daemon.control import ControlServer
from b4client.model.errors import ControlError


async def _echo(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"text": "echo", "arguments": arguments}


async def _refuse(_: dict[str, Any]) -> dict[str, Any]:
    raise ControlError("not like this")


def serve(path: Path, work: Callable[[ControlServer], Awaitable[None]]) -> None:
    """Run ``work`` in a loop beside a server at ``path``."""

    async def main() -> None:
        server = ControlServer(path, {"echo": _echo, "refuse": _refuse})
        await server.start()
        try:
            await asyncio.wait_for(work(server), 20)
        finally:
            await server.close()

    asyncio.run(main())


async def exchange(path: Path, request: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=api.MAX_LINE)
    writer.write(request)
    answer = json.loads(await reader.readline())
    writer.close()
    assert isinstance(answer, dict)
    return answer


def test_a_command_and_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def work(_: ControlServer) -> None:
        answer = await asyncio.to_thread(api.call, path, "echo", {"a": [1]})
        assert answer == {"result": 0, "text": "echo", "arguments": {"a": [1]}}
        with pytest.raises(ControlError, match="not like this"):
            await asyncio.to_thread(api.call, path, "refuse")
        with pytest.raises(ControlError, match="unknown command; known: echo, monitor, refuse"):
            await asyncio.to_thread(api.call, path, "nonsense")

    serve(path, work)
    assert not path.exists()


@pytest.mark.parametrize(
    ("request_line", "words"),
    [
        (b"x\n", "no JSON"),
        (b"[1]\n", "needs a"),
        (b"{}\n", "needs a"),
        (b'{"command":3}\n', "needs a"),
        (b'{"command":"echo","arguments":3}\n', "must be an object"),
        (b"[" * 9000 + b"\n", "no JSON"),
        (b"\xff\xfe\n", "no JSON"),
        (b"x" * 40000 + b"\n", "too long"),
    ],
)
def test_bad_requests_are_answered_in_words(tmp_path: Path, request_line: bytes, words: str) -> None:
    async def work(_: ControlServer) -> None:
        answer = await exchange(tmp_path / "s", request_line)
        assert answer["result"] == api.RESULT_ERROR
        assert words in answer["text"]

    serve(tmp_path / "s", work)


def test_a_client_that_only_connects_does_not_keep_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "REQUEST_TIMEOUT_S", 0.2)
    path = tmp_path / "s"

    async def work(_: ControlServer) -> None:
        silent = [await asyncio.open_unix_connection(str(path)) for _ in range(control.MAX_CLIENTS)]
        refused = await exchange(path, b'{"command":"echo"}\n')
        assert refused["result"] == api.RESULT_NOT_NOW
        await asyncio.sleep(0.4)  # their time is up
        assert (await exchange(path, b'{"command":"echo"}\n'))["result"] == 0
        for _, writer in silent:
            writer.close()

    serve(path, work)


def test_monitors_get_events_and_one_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def work(server: ControlServer) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"command":"monitor"}\n')
        assert json.loads(await reader.readline())["text"] == "monitoring"
        deaf = socket.socket(socket.AF_UNIX)
        deaf.connect(str(path))
        deaf.sendall(b'{"command":"monitor"}\n')
        await asyncio.sleep(0.1)
        server.publish({"kind": "bound"})
        assert json.loads(await reader.readline()) == {"kind": "bound"}
        assert len(server._monitors) == 2
        for _ in range(40):
            server.publish({"kind": "x" * 60000})
            await asyncio.wait_for(reader.read(70000), 5)
        await asyncio.sleep(0.1)
        assert len(server._monitors) == 1
        deaf.close()
        writer.close()

    serve(path, work)


def test_only_we_and_root_may_open_it(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def work(_: ControlServer) -> None:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_uid == os.geteuid()

    serve(path, work)


def test_a_foreign_user_is_refused_even_if_it_gets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_may_command", lambda writer: False)

    async def work(_: ControlServer) -> None:
        assert "only root" in (await exchange(tmp_path / "s", b'{"command":"echo"}\n'))["text"]

    serve(tmp_path / "s", work)


def test_the_client_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"no b4client runs here .*b4client run --wan"):
        api.find_socket(tmp_path, None)
    assert api.find_socket(tmp_path, "wan") == tmp_path / "wan.sock"
    with pytest.raises(ControlError, match="does not exist"):
        api.call(tmp_path / "wan.sock", "status")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "wan.sock"))
    with pytest.raises(ControlError, match="not running"):
        api.call(tmp_path / "wan.sock", "status")
    (tmp_path / "wan2.sock").touch()
    with pytest.raises(ControlError, match="several instances run"):
        api.find_socket(tmp_path, None)
