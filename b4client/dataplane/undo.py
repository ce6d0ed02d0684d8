"""Steps back, for a change of several steps that must be all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from b4client.model.errors import DataplaneError


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
        if problems and isinstance(error, DataplaneError):
            raise DataplaneError(
                error.operation, f"{error.reason}; going back failed too: {'; '.join(problems)}", errno=error.errno
            ) from error
        raise
