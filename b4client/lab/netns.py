"""Network namespaces for the testbed, through iproute2: made, entered, emptied and removed.

Everything is created *inside* the namespaces (a veth pair is born with both ends there), so that the machine's own
network never sees a link, an address or a sysctl of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NETNS_DIR = Path("/run/netns")
CLONE_NEWNET = 0x40000000
POLL_S = 0.02
KILL_S = 20.0

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The testbed could not do what was asked; the text tells the operator why and what to do."""


def wait_until(ready: Callable[[], object], timeout_s: float, what: str, *, poll_s: float = POLL_S) -> None:
    """Poll ``ready`` until it is true. Raises LabError after ``timeout_s`` seconds."""
    end = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > end:
            raise LabError(f"waited {timeout_s:g} s in vain: {what}")
        time.sleep(poll_s)


def ip(*arguments: str) -> str:
    """Run ``ip`` and return its output. Raises LabError with the command and the kernel's words."""
    return _ip(arguments, None)


def ip_batch(namespace: str | None, lines: Iterable[str]) -> None:
    """Run many ``ip`` commands in one process, in ``namespace`` or outside. Raises LabError at the first that fails."""
    arguments = (*(("-n", namespace) if namespace else ()), "-batch", "-")
    _ip(arguments, "".join(line + "\n" for line in lines))


def _ip(arguments: Sequence[str], text: str | None) -> str:
    try:
        done = subprocess.run(["ip", *arguments], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise LabError("the command ip is missing: install iproute2") from None
    if done.returncode:
        raise LabError(f"ip {' '.join(arguments)}: {done.stderr.strip()}" + (f"\n{text}" if text else ""))
    return done.stdout


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network namespace, by its name under /run/netns."""

    name: str

    @property
    def path(self) -> Path:
        """Where its handle is mounted."""
        return NETNS_DIR / self.name

    @property
    def exists(self) -> bool:
        """True when the namespace is there."""
        return self.path.exists()

    def argv(self, *command: str) -> list[str]:
        """``command`` as it must be started to run inside, with its own /sys."""
        return ["ip", "netns", "exec", self.name, *command]

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout_s: float = 60,
        text: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` inside and wait. Raises LabError (with its stderr) when ``check`` and it failed."""
        done = subprocess.run(
            self.argv(*command), input=text, capture_output=True, text=True, timeout=timeout_s, check=False, env=env
        )
        if check and done.returncode:
            raise LabError(f"{self.name}: {' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done

    def start(
        self, *command: str, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start ``command`` inside, in a session of its own, with its output appended to ``log``."""
        with log.open("ab") as output:
            return subprocess.Popen(
                self.argv(*command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=env,
                cwd=cwd,
            )

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This *thread* is inside for the duration: sockets made here stay inside afterwards."""
        with contextlib.ExitStack() as stack:
            home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, home)
            inside = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, inside)
            _setns(inside)
            stack.callback(_setns, home)
            yield

    def sysctl(self, values: Mapping[str, str | int]) -> None:
        """Write sysctls below ``net.`` inside, e.g. ``{"ipv6/conf/all/forwarding": 1}``."""
        with self.entered():
            for key, value in values.items():
                # /proc/sys/net shows the namespace of the thread that opens the file.
                try:
                    Path("/proc/sys/net", key).write_text(f"{value}\n", encoding="ascii")
                except OSError as error:
                    raise LabError(f"{self.name}: sysctl net/{key}={value}: {error.strerror}") from None

    def pids(self) -> list[int]:
        """Processes that run inside."""
        return processes_in([self])


def processes_in(namespaces: Iterable[Namespace]) -> list[int]:
    """Processes that run inside any of these. One look at /proc for all of them, since there may be hundreds."""
    wanted = set()
    for namespace in namespaces:
        with contextlib.suppress(FileNotFoundError):
            found = namespace.path.stat()
            wanted.add((found.st_dev, found.st_ino))
    pids = []
    for name in os.listdir("/proc") if wanted else ():
        if name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended
                theirs = os.stat(f"/proc/{name}/ns/net")
                if (theirs.st_dev, theirs.st_ino) in wanted:
                    pids.append(int(name))
    return sorted(pids)


def end_processes(namespaces: Sequence[Namespace], *, grace_s: float = 3.0) -> None:
    """End every process inside the namespaces: SIGTERM, and SIGKILL for those that stay longer than ``grace_s``.

    With ``grace_s`` 0 it is SIGKILL at once.
    """

    def everyone() -> list[int]:
        return [pid for pid in processes_in(namespaces) if pid != os.getpid()]

    def tell(number: signal.Signals) -> None:
        for pid in everyone():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    if grace_s:
        tell(signal.SIGTERM)
        with contextlib.suppress(LabError):
            wait_until(lambda: not everyone(), grace_s, "processes to end")
            return
    tell(signal.SIGKILL)
    wait_until(lambda: not everyone(), KILL_S, f"killed processes to go: {everyone()}")


def reap(process: subprocess.Popen[bytes], *, grace_s: float = 3.0) -> int:
    """End a process that we started: SIGTERM, later SIGKILL. Returns its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
