"""From where and to whom DHCP 4o6 is spoken (RFC 7341 9), and how fast (RFC 8415 14.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

from b4client.protocol.backoff import TokenBucket
from b4client.protocol.counters import Counters
from b4client.protocol.effects import Send
from b4client.wire.dhcp6 import ALL_SERVERS, MessageType

LINK_SCOPE = 2
"""Multicast scope of ff02:: (RFC 4291 2.7)."""


@dataclass(frozen=True, slots=True)
class Path:
    """``targets`` are (server, source address for it). ``source`` stands for all of them: the *4o6 source address*,
    whose change means DISCOVER (RFC 7618 6 [F-10])."""

    source: IPv6Address
    targets: tuple[tuple[IPv6Address, IPv6Address], ...]

    @property
    def several(self) -> bool:
        """True when more than one server may answer."""
        return len(self.targets) > 1 or self.targets[0][0].is_multicast


def needs_link_local(server: IPv6Address) -> bool:
    """True for servers that are spoken to from the link-local address: ff02::1:2 (RFC 7341 9 [F-5]), fe80::/10."""
    if server.is_multicast:
        return int(server) >> 112 & 0xF <= LINK_SCOPE
    return server.is_link_local


def choose_path(
    servers: tuple[IPv6Address, ...], link_local: IPv6Address | None, wide: IPv6Address | None
) -> Path | None:
    """The path to the servers of option 88; none of them named means ff02::1:2 [F-3].

    None while a source address that is needed is missing: nothing is sent from one of the wrong scope [F-5].
    """
    targets = []
    for server in servers or (ALL_SERVERS,):
        source = link_local if needs_link_local(server) else wide
        if source is None:
            return None
        targets.append((server, source))
    # With servers of both kinds the wide one stands for the path: it is the one that renumbering changes.
    return Path(next((s for _, s in targets if s == wide), targets[0][1]), tuple(targets))


class Outbox:
    """Writes Send effects within the rate limit. What does not fit is dropped: the next retransmission replaces it."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._bucket = TokenBucket()
        self._first = 0

    def multicast(self, data: bytes, link_local: IPv6Address, now: float) -> Iterator[Send]:
        """One DHCPv6 message to All_DHCP_Relay_Agents_and_Servers [D-7]."""
        if self._bucket.take(now):
            asks = data[0] == MessageType.INFORMATION_REQUEST
            self._counters.count("sent-information-request" if asks else "sent-dhcp6")
            yield Send(data, ALL_SERVERS, link_local)
        else:
            self._counters.count("sent-rate-limited")

    def query(self, data: bytes, path: Path, now: float) -> Iterator[Send]:
        """One DHCPV4-QUERY to each server [F-4]; the one that the limit kept out is the first of the next query."""
        targets = path.targets
        start = self._first % len(targets)
        for turn in range(len(targets)):
            index = (start + turn) % len(targets)
            if not self._bucket.take(now):
                self._counters.count("sent-rate-limited", len(targets) - turn)
                self._first = index
                return
            self._counters.count("sent-query")
            server, source = targets[index]
            yield Send(data, server, source)
        self._first = 0
