"""SIGKILL at a random moment of an installation, and what is there afterwards: ``spread_kills`` does it many times."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from softwirebed import DEVICE, TABLE, carries, dataplane, kernel_state

from b4client.lab.netns import Namespace
from b4client.model.softwire import SoftwireConfig


def in_a_process(work: Callable[[], object]) -> int:
    """Start ``work`` in a process of its own; its pid. It is a fork: what this process has loaded need not be again."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def kill_after(pid: int, delay_s: float) -> bool:
    """SIGKILL after so many seconds; True when it had not ended by itself."""
    time.sleep(delay_s)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def check_guarded(namespace: Namespace, wanted: list[object], where: str) -> None:
    """What can carry packets has the rules of one of the states ``wanted``, whole."""
    if carries(namespace):
        rules = namespace.run("nft", "-s", "list", "table", "ip", TABLE, check=False).stdout
        assert rules in wanted, f"{where}: {DEVICE} is open without its rules"


class Killing:
    """Installations of ``after`` over ``before`` that are killed. ``outcomes`` counts what was found."""

    def __init__(
        self, namespace: Namespace, directory: Path, encapsulation: str, before: SoftwireConfig | None,
        after: SoftwireConfig,
    ) -> None:  # fmt: skip
        self._namespace, self._directory, self._encapsulation = namespace, directory, encapsulation
        self._before, self._after = before, after
        self.outcomes: dict[str, int] = {"old": 0, "new": 0, "between, closed or guarded": 0}
        self._old, old_rules = self._reach(before)
        self._new, new_rules = self._reach(after)
        self._rules: list[object] = [old_rules, new_rules]

    def _run(self, config: SoftwireConfig | None) -> None:
        plane = dataplane(self._directory, self._encapsulation)
        try:
            if config is None:
                plane.withdraw()
            else:
                plane.install(config)
        finally:
            plane.close()

    def _reach(self, config: SoftwireConfig | None) -> tuple[dict[str, object], str]:
        pid = in_a_process(lambda: self._run(config))
        _, status = os.waitpid(pid, 0)
        assert status == 0, config
        rules = self._namespace.run("nft", "-s", "list", "table", "ip", TABLE, check=False).stdout
        return kernel_state(self._namespace, self._directory), rules

    def measure(self) -> float:
        """Seconds that the installation takes when nobody kills it."""
        self._reach(self._before)
        begun = time.monotonic()
        os.waitpid(in_a_process(lambda: self._run(self._after)), 0)
        return time.monotonic() - begun

    def kill(self, rng: random.Random, longest_s: float) -> None:
        """Once: kill, look, let a fresh process install, and compare."""
        state, _ = self._reach(self._before)
        assert state == self._old
        delay = rng.uniform(0, longest_s)
        pid = in_a_process(lambda: self._run(self._after))
        killed = kill_after(pid, delay)
        where = f"killed after {delay * 1000:.1f} ms" if killed else "not killed in time"
        check_guarded(self._namespace, self._rules, where)
        state = kernel_state(self._namespace, self._directory)
        self.outcomes[
            "old" if state == self._old else "new" if state == self._new else "between, closed or guarded"
        ] += 1
        state, _ = self._reach(self._after)
        assert state == self._new, f"a restart does not mend it: {where}"
