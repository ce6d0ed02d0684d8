"""A process of a laboratory that outlives the command that started it: found again by its pid file."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from b4client.lab.netns import LabError, Namespace, wait_until

START_S = 30.0
KILL_S = 5.0


class NodeProcess:
    """``name`` (for messages) inside ``namespace``; pid file and log are ``FILE.pid`` and ``FILE.log``."""

    def __init__(self, namespace: Namespace, directory: Path, file: str, name: str) -> None:
        self._namespace, self._name = namespace, name
        self._pid_file = directory / f"{file}.pid"
        self.log_file = directory / f"{file}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], ready: Callable[[str], bool]) -> None:
        """Start it, and wait until ``ready``, which is given what it has said. Raises LabError with that."""
        said_before = len(self._log())
        self._child = child = self._namespace.start(*command, log=self.log_file)
        self._pid_file.write_text(f"{child.pid}\n", encoding="ascii")

        def done() -> bool:
            said = self._log()[said_before:]
            if child.poll() is not None:
                raise LabError(f"{self._name} ended at once:\n{said}")
            return ready(said)

        wait_until(done, START_S, f"{self._name} to start")

    @property
    def pid(self) -> int | None:
        """The process, None when it does not run."""
        if self._child is not None:
            self._child.poll()  # so that one that has ended is no zombie
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return pid if pid in self._namespace.pids() else None

    def kill(self) -> None:
        """SIGKILL; returns when it is gone. Nothing when it does not run."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: self.pid is None, KILL_S, f"{self._name} to go")

    def _log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
