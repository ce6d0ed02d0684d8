"""Where log lines go and what they look like: syslog."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from b4client.daemon import logs


@pytest.fixture(autouse=True)
def _the_roots_handlers() -> object:
    root = logging.getLogger()
    before, level, own = root.handlers[:], root.level, logging.getLogger("b4client").level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("b4client").setLevel(own)


def test_syslog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    monkeypatch.setattr(logs, "SYSLOG", str(path))
    logs.setup("info", "syslog")
    log = logging.getLogger("b4client")
    log.warning("before anybody listens")
    assert "before anybody listens" in capsys.readouterr().err
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(5)
        log.warning("two\nlines")
        assert server.recv(1000).startswith(b"<28>b4client[")  # daemon.warning (RFC 3164 4.1.1)
        log.debug("not this")
        try:
            raise ValueError("a bug")
        except ValueError:
            log.exception("ended")
        text = server.recv(4000).decode()
    assert text.startswith("<27>b4client[")
    assert "ended | Traceback" in text
    assert "\n" not in text
    assert capsys.readouterr().err == ""
