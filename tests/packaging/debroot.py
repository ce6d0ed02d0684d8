"""A fresh Debian in a directory (debootstrap), and commands inside it, in a network namespace of the testbed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from b4client.lab.testbed import Testbed

# A mount namespace of its own for every command: nothing is left mounted, however it ends.
ENTER = """
root=$1; shift
mount --make-rprivate /
mount -t proc proc "$root/proc" && mount --rbind /sys "$root/sys" && mount --rbind /dev "$root/dev" || exit 125
exec chroot "$root" "$@"
"""

# What stands in for systemd inside the root: maintainer scripts ask it, and what it was asked is written down.
# try-restart does what systemd does with b4client@.service: SIGTERM to the daemon alone, then ExecStart again.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>/systemctl.log
case " $* " in
    *" try-restart "*)
        [ -f /daemon.pid ] || exit 0
        pid=$(cat /daemon.pid)
        kill -TERM "$pid"
        while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
        /daemon.start
        ;;
esac
exit 0
"""

DAEMON_START = """#!/bin/sh
export PYTHONDONTWRITEBYTECODE=1
setsid {command} --encapsulation userspace --no-start-delay \
    >>/daemon.log 2>&1 </dev/null &
echo $! >/daemon.pid
"""


def run(*command: str, timeout_s: float = 900, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command on this machine; AssertionError with what it said when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=env)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def bootstrap(suite: str, path: Path) -> None:
    """Make a minimal Debian of ``suite`` in ``path``, from debootstrap's own mirror. AssertionError with its words."""
    run("debootstrap", "--variant=minbase", suite, str(path))


class Root:
    """The Debian in ``path``; its commands run in the network namespace of ``testbed``'s CPE, but for apt's."""

    def __init__(self, path: Path, testbed: Testbed) -> None:
        self.path = path
        self.testbed = testbed

    def _argv(self, command: tuple[str, ...], *, offline: bool) -> list[str]:
        inside = ["unshare", "--mount", "sh", "-c", ENTER, "sh", str(self.path), *command]
        return self.testbed.cpe.argv(*inside) if offline else inside

    def call(self, *command: str, offline: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside; its result whatever it is."""
        return subprocess.run(
            self._argv(command, offline=offline),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                "DEBIAN_FRONTEND": "noninteractive",
            },
        )

    def run(self, *command: str, offline: bool = True) -> str:
        """Run a command inside; its output. AssertionError when it fails."""
        done = self.call(*command, offline=offline)
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def apt(self, *arguments: str) -> str:
        """``apt-get ARGUMENTS`` with this machine's network."""
        return self.run("apt-get", "-q", "-y", "-o", "APT::Install-Recommends=false", *arguments, offline=False)

    def install(self, package: Path, *, offline: bool = False) -> str:
        """Install a .deb, with what it depends on (``offline``: in the testbed's namespace, with dpkg alone)."""
        shutil.copy(package, self.path / package.name)
        if offline:
            return self.run("dpkg", "-i", f"/{package.name}")
        return self.apt("install", f"/{package.name}")

    def write(self, name: str, text: str, mode: int = 0o755) -> None:
        """A file inside."""
        file = self.path / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def read(self, name: str) -> str:
        """A file's text; empty when there is none."""
        file = self.path / name.lstrip("/")
        return file.read_text(errors="replace") if file.exists() else ""

    def files(self) -> set[str]:
        """Every path inside, but for what apt and Python keep by themselves."""
        return {
            str(file.relative_to(self.path))
            for top in ("etc", "usr", "var/lib/b4client", "run", "var/lib/systemd", "lib")
            for file in (self.path / top).rglob("*")
            if "__pycache__" not in file.parts
        }

    def stop_daemon(self) -> None:
        """End the daemon that /daemon.start started, if it still runs."""
        pid = self.read("/daemon.pid").strip()
        if pid:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
