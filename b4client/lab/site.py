"""What a laboratory occupies on this machine: a directory, and namespaces whose names begin with its prefix.

The directory is made first and removed last, so that whatever an ``up`` has left that was killed is found: it is the
mark that the namespaces are ours. It is also the lock: only one process at a time builds or removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from b4client.lab.netns import NETNS_DIR, LabError, Namespace, end_processes, ip_batch

BASE_DIR: Final = Path("/run/b4client-lab")
SEARCH_PATH: Final = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
PACKAGES: Final = {
    "ip": "iproute2",
    "ethtool": "ethtool",
    "nft": "nftables",
    "ping": "iputils-ping",
    "tcpdump": "tcpdump",
    "kea-dhcp4": "kea-dhcp4-server",
    "kea-dhcp6": "kea-dhcp6-server",
}
"""Debian's package of each command that a laboratory may need."""


def check_prefix(prefix: str, option: str) -> None:
    """Raises LabError when ``prefix`` cannot begin the names of namespaces; ``option`` is where it was chosen."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,19}", prefix):
        raise LabError(f"{option}: {prefix!r} must be 1 to 20 of a-z, 0-9 and -")


def check_machine(commands: Iterable[str]) -> None:
    """Raises LabError, with the remedy, when this machine lacks what a laboratory needs."""
    if os.geteuid():
        raise LabError("network namespaces need root: run this as root")
    missing = [PACKAGES[name] for name in commands if shutil.which(name, path=SEARCH_PATH) is None]
    if importlib.util.find_spec("nftables") is None:
        missing.append("python3-nftables")
    if missing:
        raise LabError(
            f"missing packages: {' '.join(missing)}; netns-scripts/setup of a checkout installs them, or: "
            f"apt-get install --no-install-recommends {' '.join(missing)}"
        )
    if not os.path.exists("/dev/net/tun"):
        raise LabError("/dev/net/tun is missing, which the lwAFTR needs: modprobe tun, or give the container it")


class Site:
    """``directory`` and the namespaces ``prefix-SUFFIX`` with a suffix that matches ``suffixes``."""

    def __init__(self, prefix: str, suffixes: str, directory: Path, *, option: str) -> None:
        """``option`` is where the operator chose the prefix."""
        self._prefix, self._option = prefix, option
        self._pattern = re.compile(f"{re.escape(prefix)}-(?:{suffixes})")
        self.directory = directory
        self._state_file = directory / "settings.json"

    def namespaces(self) -> list[Namespace]:
        """Those that are there."""
        try:
            names = sorted(path.name for path in NETNS_DIR.iterdir())
        except OSError:
            return []
        return [Namespace(name) for name in names if self._pattern.fullmatch(name)]

    def state(self) -> str | None:
        """What ``build`` has noted when it was done; None when nothing is completely built."""
        try:
            return self._state_file.read_text(encoding="utf-8")
        except OSError:
            return None

    def build(self, work: Callable[[], object], state: str, good: Callable[[], bool]) -> bool:
        """Let ``work`` build everything, or nothing when what ``state`` says is there already and ``good``.

        What is half built or has another state is removed first. Returns True when it was built. Raises what ``work``
        raises, with nothing left behind; LabError when the namespaces exist and are not ours, or another is at work.
        """
        ours = self.directory.exists()
        with self._locked(make=True):
            if ours and self.state() == state and good():
                return False
            if ours:
                self._clear()
            elif taken := self.namespaces():
                self.directory.rmdir()
                raise LabError(
                    f"the namespaces {', '.join(n.name for n in taken)} exist and are not this laboratory's: "
                    f"remove them, or choose another prefix ({self._option})"
                )
            try:
                work()
                self._state_file.write_text(state, encoding="utf-8")
            except BaseException:
                self._clear()
                self._remove_directory()
                raise
        return True

    def remove(self, *, grace_s: float = 3.0) -> bool:
        """Remove everything; processes get ``grace_s`` seconds to end. Returns False when there was nothing."""
        if not self.directory.exists():
            return False
        with self._locked():
            self._clear(grace_s)
            self._remove_directory()
        return True

    def _clear(self, grace_s: float = 3.0) -> None:
        there = self.namespaces()
        end_processes(there, grace_s=grace_s)
        if there:
            ip_batch(None, [f"netns delete {namespace.name}" for namespace in there])
        for path in self.directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _remove_directory(self) -> None:
        shutil.rmtree(self.directory)
        with contextlib.suppress(OSError):  # another laboratory is up
            self.directory.parent.rmdir()

    @contextlib.contextmanager
    def _locked(self, *, make: bool = False) -> Iterator[None]:
        """Hold the directory's lock, which the kernel lets go when the process ends, however it ends."""
        descriptor = self._lock(make)
        try:
            yield
        finally:
            os.close(descriptor)

    def _lock(self, make: bool) -> int:
        while True:
            try:
                if make:
                    self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                if make:
                    continue  # the parent, or it, was removed in this moment
                raise LabError(f"{self.directory} was removed by another process") from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise LabError(f"another process is building or removing {self._prefix!r}: wait for it") from None
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # it was removed between opening and locking
