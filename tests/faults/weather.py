"""A bad network between two or three nodes: frames are lost, doubled, overtaken, delayed and damaged.

``Weather`` is a namespace with one end of a cable to each node, and a relay of ours instead of a bridge, because not
every kernel has netem. What a node sends goes to all others.
"""

from __future__ import annotations

import collections
import heapq
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from b4client.lab.netns import Namespace

ETH_P_ALL = 3
PACKET_OUTGOING = 4
ETHERNET, IPV6 = 14, 40
UDP = 17
DHCP6_PORTS = (546, 547)
MAX_FRAME = 65600


@dataclass(frozen=True, slots=True)
class Storm:
    """What happens to a frame: shares from 0 to 1, seconds. ``corrupt`` damages DHCPv6 messages and makes their
    checksum right again, so that the damage arrives; ``break_checksums`` leaves it wrong."""

    lose: float = 0.0
    double: float = 0.0
    overtake: float = 0.0
    corrupt: float = 0.0
    break_checksums: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0


CALM = Storm()


class Weather:
    """The relay of ``namespace``, whose interfaces are ``ends``. ``seen`` is called with each frame and the end where
    it came in, before anything happens to it. ``counts``: what happened."""

    def __init__(self, namespace: Namespace, ends: tuple[str, ...], *, seed: int = 1) -> None:
        self.storm = CALM
        self.seen: Callable[[bytes, str], None] = lambda frame, end: None
        self.counts: collections.Counter[str] = collections.Counter()
        self.cut: set[str] = set()
        """Ends whose cable is cut for DHCPv6, while the rest goes on."""
        self._rng = random.Random(seed)
        self._late: list[tuple[float, int, bytes, socket.socket]] = []
        self._number = 0
        self._sockets: dict[socket.socket, str] = {}
        with namespace.entered():
            for end in ends:
                s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
                s.bind((end, ETH_P_ALL))
                s.setblocking(False)
                self._sockets[s] = end
        self._done, self._done_end = os.pipe()
        self._thread = threading.Thread(target=self._run, name="weather", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the relay."""
        os.write(self._done_end, b"x")
        self._thread.join(5)
        for s in self._sockets:
            s.close()
        os.close(self._done)
        os.close(self._done_end)

    def _run(self) -> None:
        poll = select.poll()
        by_fd = {s.fileno(): s for s in self._sockets}
        for fd in (*by_fd, self._done):
            poll.register(fd, select.POLLIN)
        while True:
            wait = max(0.0, self._late[0][0] - time.monotonic()) * 1000 if self._late else None
            ready = poll.poll(wait)
            if any(fd == self._done for fd, _ in ready):
                return
            for fd, _ in ready:
                self._take(by_fd[fd])
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, frame, out = heapq.heappop(self._late)
                self._send(frame, out)

    def _take(self, s: socket.socket) -> None:
        while True:
            try:
                frame, address = s.recvfrom(MAX_FRAME)
            except OSError:
                return
            if address[2] != PACKET_OUTGOING:
                end = self._sockets[s]
                self.seen(frame, end)
                for out, name in self._sockets.items():
                    if out is not s and not (is_dhcp6(frame) and {name, end} & self.cut):
                        self._pass(frame, out)

    def _pass(self, frame: bytes, out: socket.socket) -> None:
        storm, rng = self.storm, self._rng
        if rng.random() < storm.lose:
            self.counts["lost"] += 1
            return
        if is_dhcp6(frame) and rng.random() < storm.corrupt:
            frame = self._damage(frame, storm.break_checksums)
            self.counts["corrupted"] += 1
        copies = 1
        if rng.random() < storm.double:
            copies = 2
            self.counts["doubled"] += 1
        for _ in range(copies):
            delay = storm.delay_s + rng.random() * storm.jitter_s
            if rng.random() < storm.overtake:
                delay += 0.05 + rng.random() * 0.1
                self.counts["overtaken"] += 1
            if delay:
                self._number += 1
                heapq.heappush(self._late, (time.monotonic() + delay, self._number, frame, out))
            else:
                self._send(frame, out)

    def _damage(self, frame: bytes, break_checksum: bool) -> bytes:
        octets = bytearray(frame)
        for _ in range(self._rng.randint(1, 4)):
            octets[self._rng.randrange(ETHERNET + IPV6 + 8, len(octets))] = self._rng.randrange(256)
        return bytes(octets) if break_checksum else with_checksum(bytes(octets))

    def _send(self, frame: bytes, out: socket.socket) -> None:
        try:
            out.send(frame)
            self.counts["passed"] += 1
        except OSError:
            self.counts["refused"] += 1


def is_dhcp6(frame: bytes) -> bool:
    """True for an unfragmented UDP datagram over IPv6 to one of DHCPv6's ports."""
    if len(frame) < ETHERNET + IPV6 + 8 + 4 or frame[12:14] != b"\x86\xdd" or frame[ETHERNET + 6] != UDP:
        return False
    return int.from_bytes(frame[ETHERNET + IPV6 + 2 : ETHERNET + IPV6 + 4], "big") in DHCP6_PORTS


def dhcp6_payload(frame: bytes) -> bytes:
    """The message of a frame of which ``is_dhcp6`` is true."""
    length = int.from_bytes(frame[ETHERNET + IPV6 + 4 : ETHERNET + IPV6 + 6], "big")
    return frame[ETHERNET + IPV6 + 8 : ETHERNET + IPV6 + length]


def with_checksum(frame: bytes) -> bytes:
    """The frame with the right UDP checksum (RFC 768, RFC 8200 8.1)."""
    udp = bytearray(frame[ETHERNET + IPV6 :])
    udp[6:8] = b"\0\0"
    pseudo = frame[ETHERNET + 8 : ETHERNET + IPV6] + len(udp).to_bytes(4, "big") + b"\0\0\0\x11"
    data = pseudo + bytes(udp) + b"\0" * (len(udp) % 2)
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    udp[6:8] = ((~total & 0xFFFF) or 0xFFFF).to_bytes(2, "big")
    return frame[: ETHERNET + IPV6] + bytes(udp)
