"""Privileges in a process of its own, and the systemd unit's score."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from b4client.daemon import privileges

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="dropping capabilities needs some; tests/run runs as root")


def in_child(program: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_root
def test_three_capabilities_are_left_in_every_set_and_in_what_is_started() -> None:
    program = """
import subprocess, threading
from b4client.daemon import privileges
privileges.drop()
privileges.drop()  # once more does no harm
def show(): print(*(l for l in open("/proc/thread-self/status") if l.startswith(("Cap", "NoNew"))), sep="")
show()
thread = threading.Thread(target=show); thread.start(); thread.join()
print(subprocess.run(["grep", "-E", "^Cap|NoNew", "/proc/self/status"], capture_output=True, text=True).stdout)
"""
    found = re.findall(r"(\w+):\s*(\w+)", in_child(program))
    kept = f"{privileges.KEPT:016x}"
    assert len(found) == 18
    for name, value in found:
        expected = {"CapAmb": "0" * 16, "NoNewPrivs": "1"}.get(name, kept)
        assert value == expected, name


@needs_root
def test_only_its_own_places_can_be_written(tmp_path: Path) -> None:
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    own.mkdir()
    foreign.mkdir()
    (foreign / "file").write_text("x")
    program = """
import sys
from pathlib import Path
from b4client.daemon import privileges
own, foreign = map(Path, sys.argv[1:])
if not privileges.confine([own, Path("/proc/sys/net"), Path("/nowhere")], [Path("/dev/null")]):
    print("no landlock"); sys.exit()
(own / "a").write_text("1"); (own / "a").replace(own / "b"); (own / "b").unlink()
Path("/dev/null").write_text("x")
knob = Path("/proc/sys/net/ipv4/ip_default_ttl"); knob.write_text(knob.read_text())
(foreign / "file").read_text()
for attempt in (lambda: (foreign / "file").write_text("y"), lambda: (foreign / "new").mkdir(),
                lambda: (foreign / "file").unlink(), lambda: Path("/proc/sys/kernel/hostname").write_text("x"),
                lambda: (own / "c").symlink_to("x") or (own / "c").rename(foreign / "c")):
    try:
        attempt()
    except OSError as error:
        print(type(error).__name__, error.errno)
    else:
        print("done")
"""
    said = in_child(program, str(own), str(foreign)).splitlines()
    if said == ["no landlock"]:
        pytest.skip("this kernel has no Landlock; the other one of tests/run, or Debian's, has")
    assert said[:4] == ["PermissionError 13"] * 4
    assert said[4] in ("PermissionError 13", "OSError 18")
    assert (foreign / "file").read_text() == "x"


def exposure(unit: Path) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True
    )
    match = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert match, done.stdout + done.stderr
    return float(match[1])


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here; Debian with systemd has it"
)
def test_the_unit_leaves_little_to_be_abused(tmp_path: Path) -> None:
    unit = tmp_path / "b4client@.service"
    shutil.copy(UNITS / unit.name, unit)
    assert exposure(unit) <= 1.5
    # With what the userspace softwire needs: a device, a kind of socket.
    drop_in = tmp_path / "with.service"
    drop_in.write_text(unit.read_text().replace("[Install]", (UNITS / "userspace.conf").read_text() + "[Install]"))
    assert exposure(drop_in) <= 2.0


def test_the_unit_grants_what_the_daemon_keeps() -> None:
    text = (UNITS / "b4client@.service").read_text()
    for line in ("CapabilityBoundingSet=", "AmbientCapabilities="):
        granted = re.search(rf"^{line}(.*)$", text, re.M)
        assert granted is not None
        assert set(granted[1].split()) == set(privileges.NEEDED)
