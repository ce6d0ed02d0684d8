"""How the ports of a set are used: flows counted into ports, hosts and destinations. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, TypeVar

from b4client.dataplane.ctdump import CLOSE, TIME_WAIT, Flow
from b4client.model.portset import PORT_MAX, PortSet

PROTOCOLS: Final = {6: "tcp", 17: "udp", 1: "icmp", 136: "udplite", 33: "dccp", 132: "sctp"}
ALWAYS: Final = ("tcp", "udp", "icmp")
TOP: Final = 10
MAX_RANGES: Final = 2048
_WAITING, _USED = 1, 2
K = TypeVar("K", bytes, tuple[int, bytes, int])
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ProtocolUse:
    """Ports of the set by what they are for one protocol; the four add up to the set. ``used``: some flow holds it;
    ``time_wait``: none but TCP connections that have ended; ``forwarded``: kept for a port forward, whether it is in
    use or not (a port that is forwarded for one protocol is kept from all); ``free`` the rest. The ranges are the
    first MAX_RANGES."""

    used: int
    time_wait: int
    forwarded: int
    free: int
    flows: int
    used_ports: Ranges = ()
    time_wait_ports: Ranges = ()


@dataclass(frozen=True, slots=True)
class HostUse:
    """A host of the LAN (or this machine, by the public address): its flows, and how many ports they hold."""

    host: str
    flows: int
    ports: int


@dataclass(frozen=True, slots=True)
class DestinationUse:
    """Where flows go; ``port`` None for echo requests."""

    protocol: str
    address: str
    port: int | None
    flows: int


@dataclass(frozen=True, slots=True)
class PortUse:
    """The whole picture. ``outside`` counts ports of flows that are not of the set: connections of this machine's own
    that stayed from before the set, as a rule none."""

    flows: int
    protocols: dict[str, ProtocolUse] = field(default_factory=dict)
    forwarded_ports: Ranges = ()
    hosts: tuple[HostUse, ...] = ()
    destinations: tuple[DestinationUse, ...] = ()
    outside: int = 0


def tally(flows: Iterable[Flow], address: IPv4Address, ports: PortSet | None, forwarded: Iterable[int]) -> PortUse:
    """Count ``flows`` of ``address``. ``ports`` None: the address is not shared. ``forwarded``: the ports of forwards.

    Keeps 64 KiB a protocol, and what is counted by host and destination, while it runs.
    """
    own = address.packed
    states: dict[int, bytearray] = {}
    count: Counter[int] = Counter()
    hosts: dict[bytes, set[int]] = {}
    by_host: Counter[bytes] = Counter()
    destinations: Counter[tuple[int, bytes, int]] = Counter()
    for flow in flows:
        protocol = flow.protocol
        state = states.get(protocol)
        if state is None:
            if protocol not in PROTOCOLS:
                continue
            state = states[protocol] = bytearray(PORT_MAX + 1)
        count[protocol] += 1
        value = _WAITING if flow.tcp_state in (TIME_WAIT, CLOSE) else _USED
        if flow.reply_destination == own:
            host, port = flow.source, flow.reply_destination_port
            destinations[protocol, flow.destination, 0 if protocol == 1 else flow.destination_port] += 1
            if flow.destination == own and state[flow.destination_port] < value:  # hairpinned: it holds the other, too
                state[flow.destination_port] = value
        else:
            host, port = flow.reply_source, flow.destination_port
        state[port] = max(state[port], value)
        by_host[host] += 1
        hosts.setdefault(host, set()).add(protocol << 16 | port)
    kept = {port for port in forwarded if ports is None or port in ports}
    outside = 0
    protocols: dict[str, ProtocolUse] = {}
    for number, name in PROTOCOLS.items():
        state = states.get(number)
        if state is None and name not in ALWAYS:
            continue
        use, strangers = _of(state or bytearray(PORT_MAX + 1), count[number], ports, kept)
        protocols[name] = use
        outside += strangers
    return PortUse(
        sum(count.values()),
        protocols,
        ranges_of(sorted(kept)),
        tuple(HostUse(str(IPv4Address(h)), n, len(hosts[h])) for h, n in _most(by_host)),
        tuple(
            DestinationUse(PROTOCOLS[p], str(IPv4Address(d)), None if p == 1 else port, n)
            for (p, d, port), n in _most(destinations)
        ),
        outside,
    )


def ranges_of(ports: Iterable[int]) -> Ranges:
    """Ascending ports as (first, last), the first MAX_RANGES of them."""
    found: list[tuple[int, int]] = []
    for port in ports:
        if found and found[-1][1] == port - 1:
            found[-1] = (found[-1][0], port)
        elif len(found) == MAX_RANGES:
            break
        else:
            found.append((port, port))
    return tuple(found)


def _of(state: bytearray, flows: int, ports: PortSet | None, kept: set[int]) -> tuple[ProtocolUse, int]:
    held: dict[int, list[int]] = {_WAITING: [], _USED: []}
    outside = 0
    for port, value in enumerate(state):
        if not value or port in kept:
            continue
        if ports is None or port in ports:
            held[value].append(port)
        else:
            outside += 1
    used, waiting = held[_USED], held[_WAITING]
    total = PORT_MAX + 1 if ports is None else ports.port_count
    free = total - len(used) - len(waiting) - len(kept)
    return (
        ProtocolUse(len(used), len(waiting), len(kept), free, flows, ranges_of(used), ranges_of(waiting)),
        outside,
    )


def _most(counted: Counter[K]) -> list[tuple[K, int]]:
    # Not sorted whole: C would compare 65 000 tuples without letting another thread in between.
    return heapq.nsmallest(TOP, counted.items(), key=lambda item: (-item[1], item[0]))
