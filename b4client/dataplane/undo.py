"""Steps back, for a change of several steps that must be all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from b4client.model.errors import DataplaneError

MEMORY = "memory"
"""The step that takes back what was noted, which is no change of the kernel's."""


class DidNotStay(DataplaneError):
    """What was set up was gone when it was looked at again: ``missing``."""

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__(
            "set up the softwire",
            f"{', '.join(missing)} did not stay",
            transient=True,
            remedy="Another program removes it: look for network managers and firewalls that own all interfaces.",
        )
        self.missing = missing


class Undo:
    """What to do, in reverse order, when a later step fails."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def add(self, what: str, step: Callable[[], object]) -> None:
        """After a step was taken: how to take it back. ``what`` names it where that fails."""
        self._steps.append((what, step))

    def take(self, other: Undo) -> None:
        """Make the steps of ``other``, whose change has succeeded, part of this one."""
        self._steps += other._steps

    @property
    def names(self) -> tuple[str, ...]:
        """What was changed, in the order of the changes."""
        return tuple(dict.fromkeys(what for what, _ in self._steps if what != MEMORY))

    def run(self) -> list[str]:
        """Go back all the way; returns what could not be undone."""
        problems = []
        while self._steps:
            what, step = self._steps.pop()
            try:
                step()
            except DataplaneError as error:
                problems.append(f"{what}: {error}")
        return problems


@contextmanager
def undoing() -> Iterator[Undo]:
    """Run the block; when it raises, undo and raise again. A DataplaneError then also says what could not be undone."""
    undo = Undo()
    try:
        yield undo
    except BaseException as error:
        problems = undo.run()
        if problems and isinstance(error, DataplaneError) and not isinstance(error, DidNotStay):
            raise DataplaneError(
                error.operation, f"{error.reason}; going back failed too: {'; '.join(problems)}", errno=error.errno
            ) from error
        raise
