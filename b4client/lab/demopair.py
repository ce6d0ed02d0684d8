"""The second half of the demonstration: two customers on one address, fetching from one server at the same time."""

from __future__ import annotations

import concurrent.futures
import itertools
from ipaddress import IPv4Address

from b4client.lab import traffic
from b4client.lab.accessnet import AccessNetwork, Customer
from b4client.lab.accessplan import SHARED_ADDRESS, AccessPlan
from b4client.lab.labview import colour, draw_network, draw_port_owners, draw_table, explain_table, letter
from b4client.lab.netns import LabError, Namespace
from b4client.lab.nodes import SERVER
from b4client.lab.screen import Screen
from b4client.model.portset import PortSet

CUSTOMERS = 2
CONNECTIONS = 16
"""TCP connections of each customer at the same time."""
OCTETS = 100_000
UDP_SOCKETS = 24
UDP_REQUESTS = 4
SHOWN_PORTS = 8


def show_pair(screen: Screen, prefix: str, encapsulation: str) -> None:
    """Build it, let both fetch, show whose ports the server saw, take it down. Failed steps are told to ``screen``."""
    plan = AccessPlan(CUSTOMERS, encapsulation=encapsulation, prefix=prefix)
    network = AccessNetwork(plan)
    network.down()  # what an earlier demonstration left that was killed
    screen.title("Two customers on one IPv4 address: RFC 7618, which Kea cannot do, with the server of the lab")
    screen.lines(draw_network(plan, coloured=screen.colour))
    try:
        network.up(screen.progress)
        screen.end_progress()
        with traffic.Server(network.srv) as server:
            _show_fetching(screen, network)
            ports = {customer.number: _ports(customer) for customer in network.customers}
            _show_sources(screen, ports, server.seen)
            _show_customers(screen, network)
    finally:
        screen.end_progress()
        network.down()


def _ports(customer: Customer) -> PortSet:
    binding = customer.binding
    if binding is None or binding.ports is None or binding.address != SHARED_ADDRESS:
        raise LabError(f"customer {customer.number} has {binding}, and no share of {SHARED_ADDRESS}")
    return binding.ports


def _show_fetching(screen: Screen, network: AccessNetwork) -> None:
    screen.title(
        f"Both fetch from {SERVER} at the same time: each {CONNECTIONS} TCP connections, {UDP_SOCKETS} UDP sockets"
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        # UDP first: nobody repeats a datagram that a full queue loses, and TCP fills queues.
        for protocol, work in (("UDP", _udp), ("TCP", _tcp)):
            works = {c.number: pool.submit(work, c.lan) for c in network.customers}
            for number, future in works.items():
                screen.step(f"customer {letter(number)}, {protocol}", future.result)


def _tcp(namespace: Namespace) -> str:
    """All connections are open before the first transfer and until the last is done."""
    clients = [traffic.TcpClient(namespace, SERVER) for _ in range(CONNECTIONS)]
    try:
        with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
            done = list(pool.map(lambda client: client.transfer(OCTETS), clients))
    finally:
        for client in clients:
            client.close()
    octets, seconds = sum(t.octets for t in done), max(t.seconds for t in done)
    rate = 16 * octets / seconds / 1e6
    return f"{octets / 1e6:g} MB there and back in {seconds:.1f} s, {rate:.0f} Mbit/s, checksums right"


def _udp(namespace: Namespace) -> str:
    for _ in range(UDP_SOCKETS):
        traffic.udp_exchange(namespace, SERVER, UDP_REQUESTS)
    return f"{UDP_SOCKETS * UDP_REQUESTS} requests, each answered with its own octets"


def _owner(ports: dict[int, PortSet], source: traffic.Seen) -> int | None:
    """The customer whom the source belongs to."""
    if source.address != SHARED_ADDRESS or source.port is None:
        return None
    return next((number for number, portset in ports.items() if source.port in portset), None)


def _show_sources(screen: Screen, ports: dict[int, PortSet], seen: list[traffic.Seen]) -> None:
    screen.title(f"What the server saw: everything comes from {SHARED_ADDRESS}, and the port says who it is")
    owned = [(_owner(ports, source), source) for source in seen]
    for number, portset in ports.items():
        ranges = ", ".join(map(str, portset.ranges()))
        for name in ("TCP", "UDP"):
            used = [s for owner, s in owned if owner == number and s.name == name and s.port is not None]
            shown = " ".join(str(s.port) for s in used[:SHOWN_PORTS]) + (" ..." if len(used) > SHOWN_PORTS else "")
            packets = sum(s.packets for s in used)
            text = f"{letter(number)} {SHARED_ADDRESS} {name}: {packets:5} packets from {len(used):2} ports: {shown}"
            screen.lines([screen.paint(text, colour(number))])
        screen.lines([screen.paint(f"  all of them in {ranges}, the ports of customer {letter(number)}", "2")])
    used_ports = {n: {s.port for owner, s in owned if owner == n and s.port is not None} for n in ports}
    screen.lines(draw_port_owners(ports, used_ports, coloured=screen.colour))

    def all_owned() -> str:
        foreign = [f"{s.name} {s.address}:{s.port}" for owner, s in owned if owner is None]
        counts = {n: sum(owner == n for owner, _ in owned) for n in ports}
        if foreign or any(n < CONNECTIONS + UDP_SOCKETS for n in counts.values()):
            raise LabError(f"sources by customer {counts}, of nobody: {', '.join(foreign[:SHOWN_PORTS]) or 'none'}")
        return f"{len(owned)} sources, each in one customer's ports, none in both, none in nobody's"

    screen.step("the server saw no port of nobody", all_owned)


def _show_customers(screen: Screen, network: AccessNetwork) -> None:
    screen.title("The customers")
    rows = network.table()
    screen.lines(draw_table(rows, coloured=screen.colour))
    screen.lines(explain_table())

    def one_address() -> str:
        addresses = {row["address"] for row in rows}
        sets = [_ports(customer) for customer in network.customers]
        if addresses != {str(SHARED_ADDRESS)} or any(a.overlaps(b) for a, b in itertools.pairwise(sets)):
            raise LabError(f"addresses {addresses}, port sets {', '.join(map(str, sets))}")
        return f"{IPv4Address(SHARED_ADDRESS)} for all, no port in two sets"

    def nothing_refused() -> str:
        refused = network.lwaftr.refused()
        if refused:
            raise LabError(", ".join(f"{name} {n}" for name, n in refused.items()))
        return "0 packets from a port that is not the sender's, 0 refused for another reason"

    screen.step("one address", one_address)
    screen.step("the lwAFTR", nothing_refused)
