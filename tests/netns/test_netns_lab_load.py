"""Every port of every customer on one address in use at the same time, and never a packet from another's port."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from b4client.lab.accessnet import AccessNetwork
from b4client.lab.accessplan import SHARED_ADDRESS, AccessPlan
from b4client.lab.load import TCP, UDP, Load, LoadServer, fill_all, room_for_sockets
from b4client.lab.netns import wait_until
from b4client.lab.nodes import SERVER
from b4client.model.portset import PortSet

FILL_S = 50.0
MORE, MORE_S = 8, 1.5
UNASKED = 64
PROTOCOLS = {17: "UDP", 6: "TCP"}


@pytest.fixture
def crowd(prefix: str, encapsulation: str) -> Iterator[Callable[[int, int], AccessNetwork]]:
    """Call it with a number of customers and the sharing ratio for a network that is up."""
    made: list[AccessNetwork] = []

    def build(customers: int, ratio: int) -> AccessNetwork:
        made.append(AccessNetwork(AccessPlan(customers, ratio, encapsulation=encapsulation, prefix=f"{prefix}c")))
        made[-1].up()
        return made[-1]

    yield build
    for network in made:
        network.down()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("customers", "ratio"), [(2, 128), pytest.param(16, 512, marks=pytest.mark.slow)])
def test_full_load_on_one_address(crowd: Callable[[int, int], AccessNetwork], customers: int, ratio: int) -> None:
    network = crowd(customers, ratio)
    bindings = {c.number: c.binding for c in network.customers}
    ports: dict[int, PortSet] = {n: b.ports for n, b in bindings.items() if b is not None and b.ports is not None}
    assert len(ports) == customers
    assert {b.address for b in bindings.values() if b is not None} == {SHARED_ADDRESS}
    assert not any(ports[i].overlaps(ports[j]) for i in ports for j in ports if i < j)
    each = 65536 // ratio
    # In this one process are both ends of all connections.
    room_for_sockets(4 * customers * each)
    loads = {c.number: (Load(c.number), c.lan) for c in network.customers}
    with LoadServer(network.srv) as server:
        check_that_each_gets_its_own(network, server, dict(list(ports.items())[:2]))
        try:
            for kind in (UDP, TCP):
                assert fill_all(loads, SERVER, kind, each, FILL_S) == dict.fromkeys(ports, each)
                for number, (load, _) in loads.items():
                    assert load.outer == set(ports[number].ports()), f"customer {number}"
                    load.outer.clear()
                # All full: whoever wants one more gets none, and not another's.
                assert set(fill_all(loads, SERVER, kind, MORE, MORE_S).values()) == {0}
            assert [load.astray for load, _ in loads.values()] == [[]] * customers
            # The server, by what the requests said: each port had one customer, its owner.
            expected = {
                (protocol, str(SHARED_ADDRESS), port): {number}
                for protocol in PROTOCOLS.values()
                for number, portset in ports.items()
                for port in portset.ports()
            }
            assert dict(server.owners) == expected
            # The server's wire: no packet from any other address or port.
            assert server.watch.catch_up(60)
            assert server.watch.lost == 0
            seen = {(s.protocol, s.address, s.port) for s in server.watch.seen}
            everything = {(p, SHARED_ADDRESS, port) for p in PROTOCOLS for n in ports for port in ports[n].ports()}
            # ICMP: "port unreachable" from who was sent something unasked, about a port of its own.
            errors = {(1, SHARED_ADDRESS, port) for n in ports for port in ports[n].ports()}
            assert everything <= seen <= everything | errors
            check_at_the_lwaftr(network, ports)
        finally:
            for load, _ in loads.values():
                load.close()


def check_at_the_lwaftr(network: AccessNetwork, ports: dict[int, PortSet]) -> None:
    """For each customer exactly the ports of its set, in both maps; nothing refused, and nothing for nobody."""
    assert network.lwaftr.refused() == {}
    lines = {b.ports: line for b, line in network.lwaftr.customers().items()}
    for number, portset in ports.items():
        line = lines[portset]
        assert line["refused_up"] == 0, f"customer {number}"
        assert line["ports_seen"] == portset.port_count
        seen = network.lwaftr.call("ports", binding=line["binding"])["ranges"]
        assert seen == [str(r) for r in portset.ranges()]


def received(network: AccessNetwork) -> list[int]:
    """Packets that came out of each customer's softwire: the device's own count."""
    statuses = [customer.client.status() for customer in network.customers]
    return [status["dataplane"]["traffic"]["rx_packets"] for status in statuses]


def check_that_each_gets_its_own(network: AccessNetwork, server: LoadServer, ports: dict[int, PortSet]) -> None:
    """What the server sends, unasked, to ports all over the set of a customer comes to that customer and no other."""
    expected = received(network)
    for number, portset in ports.items():
        # No more at once than a queue holds.
        some = list(portset.ports())[:: portset.port_count // UNASKED]
        for port in some:
            server.send_to(SHARED_ADDRESS, port, b"unasked")
        expected[number - 1] += len(some)
        wait_until(lambda n=number: received(network)[n - 1] >= expected[n - 1], 20, "them to arrive")  # type: ignore[misc]
        assert received(network) == expected
