"""Traffic that never stops: one TCP connection and one UDP socket, round after round, in a thread."""

from __future__ import annotations

import os
import socket
import threading
import time
from ipaddress import IPv4Address

from b4client.lab.netns import Namespace, wait_until
from b4client.lab.traffic import PORT, TcpClient

OCTETS = 2000
PAUSE_S = 0.01
UDP_S = 5.0


class Steady:
    """Rounds from ``namespace`` to the server until the ``with`` statement ends; a lost datagram ends them too."""

    def __init__(self, namespace: Namespace, server: IPv4Address) -> None:
        self._tcp = TcpClient(namespace, server)
        with namespace.entered():
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.connect((str(server), PORT))
        self._udp.settimeout(UDP_S)
        self._stop = threading.Event()
        self.rounds = 0
        self.longest_s = 0.0
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Steady:
        self._thread.start()
        self.go_on(2)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._tcp.close()
        self._udp.close()

    def go_on(self, rounds: int, within_s: float = 10.0) -> None:
        """Wait for so many more rounds; raises what went wrong."""
        wanted = self.rounds + rounds
        wait_until(lambda: self.failure or self.rounds >= wanted, within_s, f"{rounds} rounds more")
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        while not self._stop.is_set():
            begin = time.monotonic()
            try:
                self._tcp.transfer(OCTETS)
                data = os.urandom(100)
                self._udp.send(data)
                assert self._udp.recv(200) == data
            except Exception as failure:
                self.failure = failure
                return
            self.longest_s = max(self.longest_s, time.monotonic() - begin)
            self.rounds += 1
            time.sleep(PAUSE_S)
