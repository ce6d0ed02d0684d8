"""The control socket's language: one JSON object a line, in the shape of Kea's control channel.

The schema of it all is ``control-api.schema.json`` beside this file.

Request ``{"command": NAME, "arguments": {...}}``; answer ``{"result": 0, "text": "...", "arguments": {...}}``.
``result`` is one of the ``RESULT_*`` numbers. ``monitor`` answers with many lines, one an event.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from b4client.model.errors import ControlError, NotRunningError

VERSION = 1
RESULT_OK = 0
RESULT_ERROR = 1
RESULT_UNKNOWN_COMMAND = 2
RESULT_NOT_NOW = 3
MAX_LINE = 1 << 20
"""Octets of the longest answer; a request may have MAX_REQUEST."""
MAX_REQUEST = 16384


def encode(value: Mapping[str, object]) -> bytes:
    """One line of the protocol."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode_request(line: bytes) -> tuple[str, dict[str, Any]]:
    """``(command, arguments)`` of a request line. Raises ControlError with the reason in words."""
    if len(line) > MAX_REQUEST:
        raise ControlError(f"the request is longer than {MAX_REQUEST} octets")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise ControlError("the request is no JSON object on one line") from None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise ControlError('the request needs a "command"')
    arguments = request.get("arguments", {})
    if not isinstance(arguments, dict):
        raise ControlError('"arguments" must be an object')
    return request["command"], arguments


def find_socket(run_dir: Path, instance: str | None) -> Path:
    """The control socket of ``instance``, or of the only one that runs. Raises ControlError with the remedy."""
    if instance is not None:
        return run_dir / f"{instance}.sock"
    try:
        sockets = sorted(run_dir.glob("*.sock"))
    except OSError:
        sockets = []
    if not sockets:
        raise NotRunningError(
            f"no b4client runs here (no socket in {run_dir}): start it with: b4client run --wan IFACE"
        )
    if len(sockets) > 1:
        live = [s for s in sockets if _answers(s)]
        if len(live) == 1:
            return live[0]
        names = ", ".join(s.stem for s in live or sockets)
        raise ControlError(f"several instances run ({names}): choose one with --instance NAME")
    return sockets[0]


def _answers(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def stream(
    path: Path, command: str, arguments: Mapping[str, object], timeout_s: float | None
) -> Iterator[dict[str, Any]]:
    """Send one request and yield every answer line. Raises ControlError when the daemon cannot be reached."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
            connection.sendall(encode({"command": command, "arguments": arguments}))
            with connection.makefile("rb") as lines:
                while line := lines.readline(MAX_LINE + 1):
                    if len(line) > MAX_LINE:
                        raise ControlError("the daemon's answer is too long")
                    yield json.loads(line)
        except FileNotFoundError:
            raise NotRunningError(f"no b4client runs here ({path} does not exist)") from None
        except ConnectionRefusedError:
            raise NotRunningError(f"b4client is not running ({path} is left from one that ended)") from None
        except PermissionError:
            raise ControlError(f"not allowed to talk to b4client at {path}: use root") from None
        except TimeoutError:
            raise ControlError(f"b4client did not answer within {timeout_s:g} s") from None
        except ValueError:
            raise ControlError("the daemon's answer is no JSON") from None
        except OSError as error:
            raise ControlError(f"cannot talk to b4client at {path}: {error.strerror}") from None


def call(
    path: Path, command: str, arguments: Mapping[str, object] | None = None, timeout_s: float = 10
) -> dict[str, Any]:
    """Send one request and return the one answer. Raises ControlError when the daemon is away or refuses."""
    for answer in stream(path, command, arguments or {}, timeout_s):
        if answer.get("result") != RESULT_OK:
            raise ControlError(str(answer.get("text", "refused")))
        return answer
    raise ControlError("the daemon closed the connection without an answer")


def jsonable(value: object) -> Any:
    """``value`` as JSON has it: frozen dataclasses become objects, addresses and enums text, infinity null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(v) for v in value]
    return str(value)
