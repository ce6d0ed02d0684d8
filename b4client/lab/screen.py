"""What the laboratory prints: headings, steps that may fail, progress. Colour and overwriting only on a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from b4client.lab.netns import LabError
from b4client.lab.traffic import TransferError
from b4client.model.errors import B4Error

WIDTH = 100
BAR = 30
TELL_S = 5.0
"""Without a terminal a long work says every so many seconds how far it is."""


class Screen:
    """``stream`` (stdout), with colour when it is a terminal and NO_COLOR is not set."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self.terminal = self._stream.isatty()
        self.colour = self.terminal and "NO_COLOR" not in os.environ
        self.failures: list[str] = []
        self._progress = ""
        self._told_at = self._begun_at = 0.0

    def paint(self, text: str, code: str) -> str:
        """``text`` in an ANSI colour, or as it is."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code else text

    def print(self, text: str = "") -> None:
        """A line."""
        print(text, file=self._stream, flush=True)

    def title(self, text: str) -> None:
        """A heading."""
        self.print(f"\n{self.paint('── ' + text + ' ' + '─' * max(0, WIDTH - 4 - len(text)), '1;36')}")

    def lines(self, lines: Sequence[str]) -> None:
        """Text, indented."""
        for line in lines:
            self.print(f"  {line}".rstrip())

    def step(self, what: str, work: Callable[[], str]) -> None:
        """Do one step and say how it went; a failed one is remembered and told."""
        try:
            result = work()
        except (LabError, B4Error, TransferError, OSError) as error:
            self.failures.append(what)
            self.print(f"  {self.paint('FAILED', '1;31')}  {what}: {error}")
        else:
            self.print(f"  {self.paint('ok', '32')}      {what}: {result}")

    def verdict(self) -> int:
        """Say whether all steps went well. Returns the exit status."""
        if self.failures:
            self.print(f"\n{self.paint('FAILED', '1;31')}: {', '.join(self.failures)}")
            return 1
        self.print(f"\n{self.paint('Everything as it must be.', '1;32')}")
        return 0

    # ---- progress

    def progress(self, what: str, done: int, total: int) -> None:
        """How far a work is; each ``what`` has a line of its own, with the seconds that it took."""
        now = time.monotonic()
        if what != self._progress:
            self.end_progress()
            self._progress, self._begun_at, self._told_at = what, now, now
        seconds = f"{now - self._begun_at:.1f} s"
        counted = f"{done} of {total}" if total > 1 else ""
        if self.terminal:
            full = done * BAR // total
            bar = self.paint("█" * full, "32") + "░" * (BAR - full) if total > 1 else ""
            self._stream.write(f"\r\x1b[K  {what:22}{bar} {counted} {seconds}")
            self._stream.flush()
        elif done == total or now >= self._told_at + TELL_S:
            self._told_at = now
            self.print(f"  {what:22}{counted} after {seconds}")

    def end_progress(self) -> None:
        """The work is done, or has failed."""
        if self._progress and self.terminal:
            self.print()
        self._progress = ""
