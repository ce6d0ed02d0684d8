"""``b4client lab`` as it is typed: up, twice, killed half-way; status, shell, capture, down; and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from b4client.lab.netns import NETNS_DIR, wait_until
from b4client.lab.site import BASE_DIR

Lab = Callable[..., subprocess.CompletedProcess[str]]


def argv(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "b4client", "lab", *arguments]


def namespaces(prefix: str) -> list[str]:
    return sorted(path.name for path in NETNS_DIR.iterdir() if path.name.startswith(f"{prefix}-"))


def processes_of(prefix: str) -> list[str]:
    """Command lines that mention the lab's directory."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"/{prefix}.lab/" in line:
                found.append(line)
    return found


@pytest.fixture
def name(prefix: str) -> Iterator[str]:
    """A prefix for a lab; afterwards it is down, whatever happened, and nothing is left."""
    name = f"{prefix}z"
    yield name
    done = subprocess.run(argv("down", "--prefix", name), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert namespaces(name) == []
    assert not (BASE_DIR / f"{name}.lab").exists()
    wait_until(lambda: processes_of(name) == [], 5, "processes to be gone")


@pytest.fixture
def lab(name: str) -> Lab:
    """``b4client lab ARGUMENTS`` for that lab."""

    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv("--prefix", name, command, *arguments), capture_output=True, text=True, timeout=90, check=False
        )

    return run


def test_a_lab_from_up_to_down(lab: Lab, name: str, encapsulation: str, tmp_path: Path) -> None:
    up = lab("up", "--customers", "2", "--sharing-ratio", "16", "--encapsulation", encapsulation)
    assert (up.returncode, up.stderr) == (0, "")
    assert "2 customers on 192.0.2.1, shared 1:16, 4096 ports each" in up.stdout
    assert "2 customers up in" in up.stdout
    assert "\x1b" not in up.stdout
    # Twice: nothing changes.
    before = sorted(processes_of(name))
    again = lab("up", "--customers", "2", "--sharing-ratio", "16", "--encapsulation", encapsulation, "--json")
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert document["built"] is False
    assert sorted(processes_of(name)) == before
    rows = document["customers"]
    assert [row["state"] for row in rows] == ["BOUND", "BOUND"]
    assert {row["address"] for row in rows} == {"192.0.2.1"}
    assert {row["psid"] for row in rows} == {1, 2}
    assert all(0 < row["up_after_s"] < 60 for row in rows)
    # A command in a node: its output, its exit status, and the client found without further words.
    pinged = lab("shell", "lan2", "ping", "-c1", "-W5", "198.51.100.10")
    assert pinged.returncode == 0, pinged.stdout
    assert lab("shell", "srv", "false").returncode == 1
    assert "192.0.2.1, shared 1:16" in lab("shell", "cpe1", "b4client", "status").stdout
    status = json.loads(lab("status", "--json").stdout)
    assert [row["ports_seen"] for row in status["customers"]] == [0, 1]
    assert status["lwaftr"]["decapsulated"] == 1
    # A client that was stopped is shown, and started again by up.
    assert lab("shell", "cpe1", "b4client", "stop").returncode == 0
    assert "not running" in lab("status").stdout
    assert (
        "b4client lab --prefix"
        in lab("up", "--customers", "2", "--sharing-ratio", "16", "--encapsulation", encapsulation).stdout
    )
    assert "not running" not in lab("status").stdout
    # A recording of the access network: the softwire's packets of customer 2.
    file = tmp_path / "isp.pcap"
    capture = subprocess.Popen(
        argv("capture", "isp", "-w", str(file), "--filter", "ip6 proto 4", "--prefix", name), stderr=subprocess.PIPE
    )
    try:
        assert capture.stderr is not None
        assert b"listening on wan" in capture.stderr.readline()
        lab("shell", "lan2", "ping", "-c1", "-W5", "198.51.100.10")
        wait_until(lambda: file.exists() and file.stat().st_size > 200, 10, "packets")
    finally:
        capture.terminate()
        capture.wait(10)
        assert capture.stderr is not None
        capture.stderr.close()
    down = lab("down")
    assert (down.returncode, down.stdout) == (0, f"the lab {name!r} is gone\n")
    assert "no lab" in lab("down").stdout


@pytest.mark.parametrize("after", ["namespaces", "clients"])
def test_killed_half_way(lab: Lab, name: str, encapsulation: str, after: str) -> None:
    """SIGKILL in the middle of up: the next up builds, down clears (the fixture looks)."""
    directory = BASE_DIR / f"{name}.lab"
    up = subprocess.Popen(
        argv("up", "--customers", "3", "--prefix", name, "--encapsulation", encapsulation), stdout=subprocess.DEVNULL
    )
    if after == "namespaces":
        wait_until(lambda: bool(namespaces(name)), 20, "the first namespace")
    else:
        wait_until((directory / "cpe1" / "daemon.log").exists, 30, "the first client")
        busy = lab("up", "--customers", "3")
        assert (busy.returncode, "another process is building or removing" in busy.stderr) == (1, True)
    up.send_signal(signal.SIGKILL)
    up.wait()
    assert namespaces(name)
    assert "no lab" in lab("status").stderr
    if after == "clients":
        done = lab("up", "--customers", "1", "--encapsulation", encapsulation)
        assert done.returncode == 0, done.stderr
        assert "1 customer up in" in done.stdout
        assert len(namespaces(name)) == 5


def test_ended_by_a_signal(name: str, encapsulation: str) -> None:
    up = subprocess.Popen(
        argv("up", "--customers", "3", "--prefix", name, "--encapsulation", encapsulation), stdout=subprocess.DEVNULL
    )
    wait_until(lambda: bool(namespaces(name)), 20, "the first namespace")
    time.sleep(0.2)
    up.terminate()
    assert up.wait(30) == 143
    assert namespaces(name) == []
