"""The lab's RFC 7618 server in a thread of the test, with hands on it: slow, mute, of another mind, or a rogue."""

from __future__ import annotations

import os
import select
import threading
import time
from typing import Any

from b4client.lab import serverconfig
from b4client.lab.netns import Namespace
from b4client.lab.serve import Port, Service


class Provider:
    """Serves ``document`` (``serverconfig``) on an interface of ``namespace``.

    ``delay_s`` is how long each answer takes, ``mute`` answers nothing. Time goes by ``now``.
    """

    def __init__(
        self,
        namespace: Namespace,
        document: dict[str, Any],
        *,
        now: Any = time.time,
    ) -> None:
        self.delay_s = 0.0
        self.mute = False
        self._now = now
        self._document = document
        self._service = self._open(document)
        with namespace.entered():
            self._port = Port(document["interface"])
        self._lock = threading.Lock()
        self._done, self._done_end = os.pipe()
        self._thread = threading.Thread(target=self._run, name="provider", daemon=True)
        self._thread.start()

    def _open(self, document: dict[str, Any]) -> Service:
        return Service.open(serverconfig.parse(document), self._now())

    def change(self, **tables: Any) -> None:
        """Go on with other settings and no memory of any lease: whoever renews is told NAK."""
        with self._lock:
            self._document = {**self._document, **tables}
            self._service = self._open(self._document)

    @property
    def counters(self) -> dict[str, int]:
        """The server's."""
        return dict(self._service.server.counters)

    def granted(self) -> list[str]:
        """Its active leases, as text."""
        with self._lock:
            return [str(lease.slot) for lease in self._service.server.leases.active(self._now())]

    def close(self) -> None:
        """Stop serving."""
        os.write(self._done_end, b"x")
        self._thread.join(10)
        self._port._socket.close()
        os.close(self._done)
        os.close(self._done_end)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._port.fileno(), self._done], [], [], 1.0)
            if self._done in ready:
                return
            with self._lock:
                for data, source, destination in self._port.receive() if ready else ():
                    if self.mute:
                        continue
                    time.sleep(self.delay_s)
                    for reply in self._service.handle(data, source, self._now(), destination):
                        try:
                            self._port.send(reply, destination)
                        except OSError:
                            pass  # the client's address has gone meanwhile
                self._service.tick(self._now())
