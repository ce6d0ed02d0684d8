"""The daemon in its box: what it keeps of root's powers, and a life without root at all."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from b4client.daemon import privileges
from b4client.lab.client import Client
from b4client.lab.netns import reap, wait_until
from b4client.lab.testbed import SERVER, Testbed
from b4client.lab.traffic import Server, TransferError, udp_exchange

pytestmark = pytest.mark.kea


def capability_sets(pid: int) -> dict[str, set[str]]:
    """The values of all threads by name."""
    found: dict[str, set[str]] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith(("Cap", "NoNewPrivs")):
                name, value = line.split(":")
                found.setdefault(name, set()).add(value.strip())
    return found


def test_every_thread_has_dropped_what_is_not_needed(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    client = client_in(testbed)
    client.start()
    status = client.wait_bound()
    kept = f"{privileges.KEPT:016x}"
    pid = status["pid"]
    sets = capability_sets(pid)
    assert {name: sets[name] for name in ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs")} == {
        "CapPrm": {kept},
        "CapEff": {kept},
        "CapBnd": {kept},
        "NoNewPrivs": {"1"},
    }
    assert status["privileges"]["capabilities"] == list(privileges.NEEDED)
    assert status["privileges"]["others"] is False
    pump = status["dataplane"]["pump"]
    if pump is not None:
        assert capability_sets(pump["pid"])["CapEff"] == {f"{1 << 12:016x}"}
    with Server(testbed.srv):
        udp_exchange(testbed.lan, SERVER, requests=1)


def answered(testbed: Testbed) -> bool:
    """True when a datagram from the LAN comes back."""
    try:
        udp_exchange(testbed.lan, SERVER, requests=1, timeout_s=0.5)
    except TransferError:
        return False
    return True


@pytest.fixture
def nobodys_directory() -> Iterator[Path]:
    """A directory that the user nobody owns and can reach."""
    user = pwd.getpwnam("nobody")
    place = Path(tempfile.mkdtemp(prefix="b4client-test-", dir="/run"))
    os.chown(place, user.pw_uid, user.pw_gid)
    yield place
    shutil.rmtree(place)


def test_a_life_without_root(
    testbed: Testbed, client_in: Callable[..., Client], nobodys_directory: Path, encapsulation: str, tmp_path: Path
) -> None:
    """As under systemd: a user of its own with three ambient capabilities."""
    caps = ",".join("+" + name.removeprefix("CAP_").lower() for name in privileges.NEEDED)
    client = client_in(testbed)
    client.run_dir, client.log_file = nobodys_directory / "run", nobodys_directory / "log"  # for questions
    # udev gives /dev/net/tun to everybody; a machine without udev may not.
    node = tmp_path / "tun"
    os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
    node.chmod(0o666)
    # Nor can everybody look into a checkout in root's home.
    project, seen = Path(__file__).resolve().parents[2], nobodys_directory / "project"
    seen.mkdir()
    python, *arguments = Client._argv("run", "--wan", "wan", "--encapsulation", encapsulation, "--no-start-delay")
    places = f"mount --bind {node} /dev/net/tun && mount --bind {project} {seen} && cd {seen}"
    process = testbed.cpe.start(
        *("sh", "-c", f'{places} && exec "$@"', "sh"),
        *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"),
        *("--bounding-set", f"-all,{caps}", "--inh-caps", f"-all,{caps}", "--ambient-caps", f"-all,{caps}"),
        *(python.replace(str(project), str(seen), 1), *arguments),
        *("--state-dir", str(nobodys_directory / "state"), "--run-dir", str(client.run_dir)),
        log=nobodys_directory / "log",
    )
    client._process = process
    try:
        status = client.wait_bound()
        assert Path(f"/proc/{status['pid']}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        with Server(testbed.srv):
            udp_exchange(testbed.lan, SERVER, requests=1)
            # Healing, too: a pump, a table, a sysctl, all without root.
            testbed.cpe.run("nft", "flush", "ruleset")
            testbed.cpe.run("ip", "link", "del", "dev", "b4")
            testbed.cpe.sysctl({"ipv4/ip_forward": 0})
            wait_until(lambda: answered(testbed), 20, "traffic to come back")
        assert client.status()["mending"]["mends"] > 0
        assert client.command("stop").startswith("stopping")
        assert process.wait(10) == 0
    finally:
        reap(process)
    assert testbed.cpe.pids() == []
