"""The daemon under test in the testbed's CPE: started, asked, killed and ended as an operator would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from b4client import api
from b4client.lab.netns import LabError, Namespace, reap, wait_until
from b4client.model.errors import ControlError

WAN = "wan"
LOG_TAIL = 25


class Client:
    """``b4client run`` inside ``namespace``, with its state, sockets and log below ``directory``.

    ``encapsulation`` is auto, kernel or userspace; ``options`` are further arguments of ``b4client run``. ``wan``
    is another interface than "wan", or that one beside others: then commands name the instance.
    """

    def __init__(
        self,
        namespace: Namespace,
        directory: Path,
        *,
        encapsulation: str = "auto",
        options: tuple[str, ...] = (),
        wan: str | None = None,
    ) -> None:
        self._namespace = namespace
        self._wan = wan or WAN
        self._named = [] if wan is None else ["--instance", wan]
        self.state_dir = directory / "state"
        self.run_dir = directory / "run"
        self.log_file = directory / "daemon.log"
        self._arguments = [
            *("--wan", self._wan, "--state-dir", str(self.state_dir), "--run-dir", str(self.run_dir)),
            *("--encapsulation", encapsulation, "--no-start-delay", "--log-format", "json"),
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None

    # ---- life

    def start(self) -> None:
        """Start the daemon; it goes on by itself. A second daemon is never started."""
        if self.running:
            raise LabError("the daemon runs already")
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        self._process = self._namespace.start(*self._argv("run", *self._arguments), log=self.log_file)

    @property
    def running(self) -> bool:
        """True while the process that was started lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The daemon's process. Raises LabError when none was started."""
        if self._process is None:
            raise LabError("the daemon was not started")
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: the daemon gets no chance to do anything more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> int:
        """SIGTERM, as a supervisor does. Returns the exit status."""
        return reap(self._process, grace_s=20) if self._process is not None else 0

    def stop(self, policy: str = "withdraw") -> int:
        """``b4client stop``; SIGKILL should it fail. Returns the exit status, 0 when none was started."""
        if self._process is None:
            return 0
        if self.running:
            try:
                self.command("stop", "--policy", policy)
            except LabError:
                self.kill()
                raise
        return self._process.wait(20)

    # ---- questions

    def call(self, command: str, **arguments: Any) -> dict[str, Any]:
        """One request on the control socket; its arguments. Raises ControlError."""
        result: dict[str, Any] = api.call(self.run_dir / f"{self._wan}.sock", command, arguments)["arguments"]
        return result

    def status(self) -> dict[str, Any]:
        """``b4client status --json``."""
        return self.call("status")

    def command(self, *arguments: str) -> str:
        """``b4client ARGUMENTS --run-dir ...`` as a user types it; its output. Raises LabError when it fails."""
        verb, *rest = arguments
        where = ["--run-dir", str(self.run_dir), *self._named]
        return self._namespace.run(*self._argv(verb, *where, *rest)).stdout

    def events(self) -> list[dict[str, Any]]:
        """The events that it has reported since it was started, the oldest first (at most 200)."""
        events: list[dict[str, Any]] = self.call("recent")["events"]
        return events

    @property
    def log(self) -> list[dict[str, Any]]:
        """Its log as records; a line that is no JSON (a traceback) becomes ``{"text": LINE}``."""
        records = []
        for line in self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                records.append({"text": line})
        return records

    def explain(self) -> str:
        """The end of the log, for a failure's message."""
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        return "\n".join(["the daemon's log ends with:", *(f"  {line}" for line in lines[-LOG_TAIL:])])

    # ---- waiting

    def wait_for_state(self, state: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Poll until the DHCPv4 machine is in ``state``; the status then. Raises LabError with the log's end."""
        found: dict[str, Any] = {}

        def reached() -> bool:
            if not self.running:
                raise LabError(f"the daemon has ended\n{self.explain()}")
            try:
                found.update(self.status())
            except ControlError:
                return False  # it is still starting
            return str(found.get("state", "")).upper() == state.upper()

        try:
            wait_until(reached, timeout_s, f"the client to be {state}", poll_s=0.05)
        except LabError as error:
            raise LabError(f"{error}; it is {found.get('state', 'silent')}\n{self.explain()}") from None
        return found

    def wait_bound(self, timeout_s: float = 30.0) -> dict[str, Any]:
        """Poll until a lease is held and the softwire is up; the status then. Raises LabError with the log's end."""
        status: dict[str, Any] = {}

        def ready() -> bool:
            status.clear()
            status.update(self.wait_for_state("BOUND", timeout_s))
            return bool((status.get("dataplane") or {}).get("up"))

        try:
            wait_until(ready, timeout_s, "the softwire to be up", poll_s=0.05)
        except LabError as error:
            raise LabError(f"{error}\n{self.explain()}") from None
        return status

    @staticmethod
    def _argv(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "b4client", *arguments]
