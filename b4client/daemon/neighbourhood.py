"""What other people's packet filters do to the softwire, for ``status``: seen when it was installed, and again while
something is wrong. Who wants to know more runs ``b4client doctor``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from b4client.dataplane.apply import Dataplane
from b4client.model.errors import DataplaneError
from b4client.model.softwire import SoftwireConfig
from b4client.protocol import effects

if TYPE_CHECKING:
    from b4client.dataplane.neighbours import Conflict


class Neighbourhood:
    """``in_worker`` runs blocking work in the thread of kernel changes; ``say`` takes reports for the operator."""

    def __init__(
        self,
        dataplane: Dataplane,
        *,
        in_worker: Callable[[Callable[[], Any]], Awaitable[Any]],
        say: Callable[[effects.Report], None],
    ) -> None:
        self._dataplane = dataplane
        self._in_worker = in_worker
        self._say = say
        self._config: SoftwireConfig | None = None
        self.conflicts: tuple[Conflict, ...] = ()

    async def look(self, config: SoftwireConfig | None) -> None:
        """Look with ``config`` installed (None: nothing is); tell what was not known before."""
        self._config = config
        known, self.conflicts = self.conflicts, await self._in_worker(lambda: self._find(config))
        for conflict in self.conflicts:
            if conflict not in known:
                self._say(effects.Report("conflict", "warning", f"{conflict.text}; remedy: {conflict.remedy}"))

    async def current(self) -> tuple[Conflict, ...]:
        """As of now where there were conflicts, else as of the installation: a look lists everybody's rules."""
        if self.conflicts:
            await self.look(self._config)
        return self.conflicts

    def _find(self, config: SoftwireConfig | None) -> tuple[Conflict, ...]:
        if config is None:
            return ()
        try:
            return tuple(self._dataplane.conflicts(config))
        except DataplaneError:
            return self.conflicts
