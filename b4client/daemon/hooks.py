"""Tells others about IPv4: a script of the operator's, and whoever keeps the DNS servers.

Nothing goes through a shell; the environment is made anew; what is told is validated (``hookenv``); who takes too long
is killed with all that it started; what it prints is logged, a little of it. One thing is told at a time and the latest
state last: what has been overtaken while something else was being told is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

from b4client.config import HookSettings
from b4client.daemon import dnsrecord
from b4client.daemon.hookenv import PATH, Told, environment

log = logging.getLogger("b4client.hooks")

MAX_OUTPUT = 4096
"""Octets of a script's output that are logged."""
LAST_READS = 64
"""After the end: a child that was left behind may write for ever."""


class Hooks:
    """Keeps others told. ``update`` may be called as often as one likes: only differences are told."""

    def __init__(self, settings: HookSettings, *, path: str = PATH) -> None:
        self.settings = settings
        self._path = path
        self._wanted: Told | None = None
        self._told: Told | None = None
        self._teller: asyncio.Task[None] | None = None
        self._program = Program()
        self.problem: str | None = None

    def update(self, told: Told | None) -> None:
        """This is in force from now on; None: no IPv4."""
        self._wanted = told
        if self._teller is None or self._teller.done():
            self._teller = asyncio.get_running_loop().create_task(self._tell())

    async def settle(self) -> None:
        """Wait until everybody knows. Each one's time is limited, so this is too."""
        if self._teller is not None:
            await self._teller

    async def close(self) -> None:
        """Stop telling; what is being told is cut off."""
        if self._teller is not None:
            self._teller.cancel()
            self._program.kill()
            with contextlib.suppress(asyncio.CancelledError):
                await self._teller

    async def _tell(self) -> None:
        while self._told != self._wanted:
            before, now = self._told, self._wanted
            self._told = now
            reason = "down" if now is None else "up" if before is None else "change"
            subject = now or before
            if subject is None:
                return
            self.problem = None
            await self._tell_resolver(reason, subject)
            if self.settings.script is not None:
                await self._run_script(self.settings.script, reason, subject)

    async def _tell_resolver(self, reason: str, told: Told) -> None:
        way = dnsrecord.find(self.settings.dns, path=self._path)
        if way is None:
            return
        down = reason == "down"
        for command in dnsrecord.revert(way, told.device) if down else dnsrecord.set_servers(way, told):
            program = shutil.which(command.argv[0], path=self._path)
            if program is None:
                self._complain(f"{command.argv[0]} is not installed: the DNS servers are told to nobody")
                return
            await self._run([program, *command.argv[1:]], {"PATH": self._path, "LANG": "C"}, command.text)

    async def _run_script(self, script: Path, reason: str, told: Told) -> None:
        if (why := refusal(script)) is not None:
            self._complain(f"the hook {script} is not run: {why}")
            return
        await self._run([str(script), reason], environment(reason, told))

    async def _run(self, argv: list[str], env: dict[str, str], text: str = "") -> None:
        name = " ".join(argv[:2])
        limit = self.settings.timeout_s
        try:
            # In a thread: asyncio's own subprocesses are not done before the last holder of their pipes is.
            status, output = await asyncio.to_thread(self._program.run, argv, env, text.encode(), limit)
        except OSError as error:
            self._complain(f"{name} cannot be run: {error.strerror}")
            return
        for line in output.decode("utf-8", "replace").splitlines():
            log.info("%s: %s", name, line)
        if status is None:
            self._complain(f"{name} took longer than {limit:g} s and was killed")
        elif status:
            self._complain(f"{name} ended with status {status}")

    def _complain(self, text: str) -> None:
        log.warning("%s", text)
        self.problem = text


class Program:
    """One program at a time, in a session of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, argv: list[str], env: dict[str, str], text: bytes, limit_s: float) -> tuple[int | None, bytes]:
        """Run ``argv`` with ``text`` to read; its exit status (None: it took too long) and the first MAX_OUTPUT octets
        of its output. Blocking. Whatever it has started and left in its session is killed. Raises OSError."""
        with subprocess.Popen(
            argv,
            env=env,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            self._process = process
            try:
                output = _converse(process, text, limit_s)
                return process.poll(), output
            finally:
                self._process = None
                _kill(process)

    def kill(self) -> None:
        """End what runs, from another thread."""
        if self._process is not None:
            _kill(self._process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _converse(process: subprocess.Popen[bytes], text: bytes, limit_s: float) -> bytes:
    """Give ``text`` and take what comes until it ends (not until its output does: a child that it left behind may hold
    that open) or its time is up."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError("started with pipes")
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(text)  # less than a pipe holds
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    kept = bytearray()
    out = process.stdout.fileno()
    os.set_blocking(out, False)
    ended = os.pidfd_open(process.pid)
    poller = select.poll()
    for descriptor in (out, ended):
        poller.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + limit_s
    try:
        while (left := deadline - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poller.poll(left * 1000)}
            if out in ready and not _take(out, kept):
                poller.unregister(out)
            if ended in ready:
                for _ in range(LAST_READS):
                    if not _take(out, kept):
                        break
                return bytes(kept)
        return bytes(kept)
    finally:
        os.close(ended)


def _take(descriptor: int, kept: bytearray) -> bool:
    """Read once; what is beyond MAX_OUTPUT is forgotten. False when there is nothing (more)."""
    try:
        part = os.read(descriptor, 65536)
    except BlockingIOError:
        return False
    kept += part[: MAX_OUTPUT - len(kept)]
    return bool(part)


def refusal(script: Path) -> str | None:
    """Why a script is not to be run with our privileges; None when it may be."""
    try:
        found = script.stat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISREG(found.st_mode):
        return "it is no file"
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH:
        return "others than root can change it"
    return None if os.access(script, os.X_OK) else "it is not executable"
