"""The unit as it is packaged, under a real systemd that is process 1 of a PID namespace in the testbed's CPE.

All that is changed of the machine is changed in a mount namespace. cgroups cannot be: so it runs where nobody uses
them, which is in User Mode Linux.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from b4client.lab.netns import LabError, wait_until
from b4client.lab.testbed import SERVER, Testbed
from b4client.lab.traffic import Server, tcp_transfer

pytestmark = [pytest.mark.kea, pytest.mark.driver, pytest.mark.timeout(300)]

PROJECT = Path(__file__).parents[2]
BOOT = """
mount --make-rprivate /
mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /run && mount -t tmpfs none /var/lib && mount -t tmpfs none /etc/systemd/system
mkdir /run/code && cp -a "$1/." /run/code/
mount -t tmpfs none /tmp && mount -t tmpfs none /var/tmp && mount -t tmpfs none /var/log
# It empties /tmp, and would make and remove files of other packages.
for unit in systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-tmpfiles-clean; do
    ln -s /dev/null "/etc/systemd/system/$unit.service"
done
cp /etc/passwd /etc/group /run/code/
echo 'b4client:x:990:990::/:/usr/sbin/nologin' >>/run/code/passwd
echo 'b4client:x:990:' >>/run/code/group
mount --bind /run/code/passwd /etc/passwd && mount --bind /run/code/group /etc/group
cp /run/code/unit "/etc/systemd/system/b4client@.service"
printf '[Unit]\\nWants=b4client@wan.service\\n' >/etc/systemd/system/b4test.target
container=lxc exec /lib/systemd/systemd --system --unit=b4test.target --log-target=console --show-status=no
"""
COMMAND = """#!/bin/sh
PYTHONPATH=/run/code PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -m b4client "$@"
"""


class Booted:
    """A systemd in the testbed's CPE."""

    def __init__(self, testbed: Testbed, scratch: Path) -> None:
        import pyroute2
        import tenacity

        code = scratch / "code"
        code.mkdir()
        for package in (PROJECT / "b4client", *(Path(m.__file__ or "").parent for m in (pyroute2, tenacity))):
            shutil.copytree(package, code / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        (code / "run").write_text(COMMAND)
        (code / "run").chmod(0o755)
        unit = (PROJECT / "packaging" / "systemd" / "b4client@.service").read_text()
        # Without udev there are no units of devices to be bound to.
        lines = [line for line in unit.splitlines() if "sys-subsystem-net-devices" not in line]
        (code / "unit").write_text("\n".join(lines).replace("/usr/bin/b4client", "/run/code/run") + "\n")
        self.log = scratch / "systemd.log"
        words = ("unshare", "--pid", "--fork", "--ipc", "--mount-proc", "sh", "-ec", BOOT, "sh", str(code))
        self._cpe = testbed.cpe
        self._starter = testbed.cpe.start(*words, log=self.log)
        wait_until(self._found, 10, "process 1 of the namespace")
        self._inside = ["nsenter", "-t", str(self._found()), "-m", "-p", "-n", "-i"]
        wait_until(lambda: self.run("systemctl", "show", "-p", "Version", check=False), 30, "systemd to answer")

    def _found(self) -> int | None:
        """systemd's process: number 1 of its namespace, once it is systemd."""
        for pid in self._cpe.pids():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if "Name:\tsystemd\n" in status and status.partition("NSpid:")[2].splitlines()[0].split()[-1] == "1":
                    return pid
        return None

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run([*self._inside, *command], capture_output=True, text=True, timeout=60, check=False)
        if check and done.returncode:
            raise LabError(f"{command}: {done.stdout} {done.stderr}\n{self.log.read_text(errors='replace')[-3000:]}")
        return done.stdout

    def show(self, name: str) -> str:
        return self.run("systemctl", "show", "--value", "-p", name, "b4client@wan").strip()

    def is_bound(self) -> bool:
        return "BOUND" in self.run("/run/code/run", "status", check=False)

    def close(self) -> None:
        self._starter.kill()  # its child is process 1 of the namespace: all that is in it ends with it
        found = self._found()
        if found is not None:
            subprocess.run(["kill", "-KILL", str(found)], check=False)
        self._starter.wait(20)


@pytest.fixture
def booted(testbed: Testbed, tmp_path: Path) -> Iterator[Booted]:
    if Path("/sys/fs/cgroup/cgroup.procs").exists() or Path("/sys/fs/cgroup/systemd").exists():
        pytest.skip("somebody uses this machine's cgroups: tests/run runs it in User Mode Linux")
    systemd = Booted(testbed, tmp_path)
    yield systemd
    systemd.close()
    testbed.down()


def test_the_unit(booted: Booted, testbed: Testbed) -> None:
    wait_until(lambda: booted.show("ActiveState") == "active", 90, "systemd to have started it", poll_s=0.5)
    wait_until(booted.is_bound, 30, "a lease", poll_s=0.5)
    pid = booted.show("MainPID")
    status = dict(
        line.split(":\t", 1) for line in booted.run("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == ["990"] * 4
    # CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0000000000003400"}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")

    # ProtectKernelTunables with ReadWritePaths: settings of the network can be written, no others.
    mounts = booted.run("cat", f"/proc/{pid}/mountinfo")
    options = {words[4]: words[5].split(",")[0] for words in map(str.split, mounts.splitlines()) if len(words) > 5}
    assert (options["/proc/sys"], options["/proc/sys/net"]) == ("ro", "rw")
    assert booted.run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv4.conf.all.arp_ignore").split() == ["1", "1"]
    with Server(testbed.srv):
        tcp_transfer(testbed.lan, SERVER, 20_000)

        # Reload, a crash, a restart: by the same softwire.
        booted.run("systemctl", "reload", "b4client@wan")
        booted.run("systemctl", "kill", "-s", "KILL", "b4client@wan")
        tcp_transfer(testbed.lan, SERVER, 20_000)
        wait_until(lambda: booted.show("NRestarts") == "1" and booted.is_bound(), 30, "it to be back", poll_s=0.5)
        booted.run("systemctl", "restart", "b4client@wan")
        tcp_transfer(testbed.lan, SERVER, 20_000)
    booted.run("systemctl", "stop", "b4client@wan")
    assert booted.show("Result") == "success"
    assert "removed: the interface b4" in booted.run("/run/code/run", "teardown")
    assert booted.run("/run/code/run", "teardown") == "nothing was left\n"
