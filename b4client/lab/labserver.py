"""The lab's RFC 7618 server as a process: started, killed, and started again on its lease file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from b4client.lab.netns import Namespace
from b4client.lab.process import NodeProcess


class LabServer:
    """``b4client.lab.serve`` inside ``namespace``; configuration, leases, feed and log are in ``directory``."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self._process = NodeProcess(namespace, directory, "server", "the lab server")
        self._config_file = directory / "server.json"
        self.lease_file = directory / "server.leases"
        self.feed = directory / "feed.sock"

    def start(self, config: dict[str, Any] | None = None) -> None:
        """Start it and wait until it serves; without ``config`` as it was configured before. Raises LabError."""
        if config is not None:
            files = {"lease_file": str(self.lease_file), "feed": str(self.feed)}
            self._config_file.write_text(json.dumps({**config, **files}, indent=1) + "\n", encoding="utf-8")
        command = (sys.executable, "-m", "b4client.lab.serve", "--config", str(self._config_file))
        self._process.start(command, lambda said: "serving on" in said)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    @property
    def running(self) -> bool:
        """True while it runs."""
        return self._process.pid is not None
