"""The lab's RFC 7618 server as a process: started, killed, and started again on its lease file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from b4client.lab.netns import LabError, Namespace, wait_until

START_S = 30.0


class LabServer:
    """``b4client.lab.serve`` inside ``namespace``; configuration, leases, feed and log are in ``directory``."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self._namespace = namespace
        self._config_file = directory / "server.json"
        self.lease_file = directory / "server.leases"
        self.feed = directory / "feed.sock"
        self.log_file = directory / "server.log"
        self._pid_file = directory / "server.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, config: dict[str, Any] | None = None) -> None:
        """Start it and wait until it serves; without ``config`` as it was configured before. Raises LabError."""
        if config is not None:
            files = {"lease_file": str(self.lease_file), "feed": str(self.feed)}
            self._config_file.write_text(json.dumps({**config, **files}, indent=1) + "\n", encoding="utf-8")
        said = self._said()
        command = (sys.executable, "-m", "b4client.lab.serve", "--config", str(self._config_file))
        self._process = process = self._namespace.start(*command, log=self.log_file)
        self._pid_file.write_text(f"{process.pid}\n", encoding="ascii")

        def serves() -> bool:
            new = self._said()[len(said) :]
            if process.poll() is not None:
                raise LabError(f"the lab server ended at once:\n{new}")
            return "serving on" in new

        wait_until(serves, START_S, "the lab server to serve")

    def kill(self) -> None:
        """SIGKILL, for one that this process has started."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def running(self) -> bool:
        """True while it runs, also when another process has started it."""
        if self._process is not None and self._process.poll() is not None:
            return False
        try:
            return int(self._pid_file.read_text(encoding="ascii")) in self._namespace.pids()
        except (OSError, ValueError):
            return False

    def _said(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
