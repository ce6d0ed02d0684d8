"""``b4client lab``: what is refused, with the cause and the remedy, before anything is touched."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from b4client import cli
from b4client.lab import site


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a check fail to stop it, it has no right to do anything."""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--customers 0", "--customers: must be 1 to 250"),
        ("--customers 251", "--customers: must be 1 to 250"),
        ("--sharing-ratio 3", "--sharing-ratio: must be a power of two"),
        ("--sharing-ratio 1", "power of two from 2 to 65536"),
        ("--sharing-ratio 2048 --mode map-e", "power of two from 2 to 1024"),
        ("--customers 16 --sharing-ratio 16", "room for 15 customers .*0-1023 are reserved.* at least 32"),
        ("--customers 4 --sharing-ratio 4 --mode map-e", "room for 3 customers .*router's own.* at least 8"),
        ("--prefix A/b", "--prefix: 'A/b' must be"),
        ("", "need root"),
        ("--server kea --sharing-ratio 2 --customers 9", "need root"),
    ],
)
@pytest.mark.usefixtures("nowhere")
def test_up_refuses(capsys: pytest.CaptureFixture[str], arguments: str, words: str) -> None:
    assert cli.main(["lab", "up", *arguments.split()]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"b4client lab: .*{words}.*\n", err), err


def test_missing_packages_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(site, "SEARCH_PATH", "")
    assert cli.main(["lab", "up", "--server", "kea"]) == 1
    err = capsys.readouterr().err
    assert "missing packages: iproute2 ethtool nftables iputils-ping tcpdump kea-dhcp4-server kea-dhcp6-server" in err
    assert "apt-get install --no-install-recommends iproute2" in err
    assert cli.main(["lab", "up"]) == 1
    assert "kea" not in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "status --json", "shell cpe1", "capture"])
def test_nothing_is_up(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr("b4client.lab.accessnet.BASE_DIR", Path("/nonexistent"))
    assert cli.main(["lab", *command.split()]) == 1
    assert capsys.readouterr().err == "b4client lab: no lab 'b4lab' is up: start it with b4client lab up\n"


def test_down_when_nothing_is_up(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("b4client.lab.accessnet.BASE_DIR", Path("/nonexistent"))
    assert cli.main(["lab", "--prefix", "other", "down"]) == 0
    assert capsys.readouterr().out == "no lab 'other' is up\n"


def test_help_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["lab", "--help"], ["lab", "up", "--help"], ["--help"]):
        with pytest.raises(SystemExit, match="0"):
            cli.main(arguments)
        assert "lab" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        cli.main(["lab"])
