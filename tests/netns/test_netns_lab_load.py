"""Every port of every customer on one address in use at the same time, and never a packet from another's port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

from b4client.lab.accessnet import AccessNetwork
from b4client.lab.accessplan import SHARED_ADDRESS, AccessPlan
from b4client.lab.load import TCP, UDP, Load, LoadServer, fill_all, room_for_sockets
from b4client.lab.netns import wait_until
from b4client.lab.nodes import SERVER
from b4client.model.portset import PortSet

FILL_S = 50.0
MORE, MORE_S = 8, 1.5
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
@pytest.mark.parametrize(("customers", "ratio"), [(2, 64), (16, 256)])
def test_full_load_on_one_address(
    crowd: Callable[[int, int], AccessNetwork], customers: int, ratio: int, record_property: Callable[..., None]
) -> None:
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
            assert server.watch.lost == 0
            seen = {(s.protocol, s.address, s.port) for s in server.watch.seen}
            assert seen == {(p, SHARED_ADDRESS, port) for p in PROTOCOLS for n in ports for port in ports[n].ports()}
            check_at_the_lwaftr(network, ports)
        finally:
            for load, _ in loads.values():
                load.close()


def check_at_the_lwaftr(network: AccessNetwork, ports: dict[int, PortSet]) -> None:
    """For each customer exactly the ports of its set, in both maps; nothing refused, and nothing for nobody."""
    # What a full queue of the kernel lost was sent again.
    assert network.lwaftr.refused().keys() <= {"drop-queue-full"}
    lines = {b.ports: line for b, line in network.lwaftr.customers().items()}
    for number, portset in ports.items():
        line = lines[portset]
        assert line["refused_up"] == 0, f"customer {number}"
        assert line["ports_seen"] == portset.port_count
        seen = network.lwaftr.call("ports", binding=line["binding"])["ranges"]
        assert seen == [str(r) for r in portset.ranges()]


def test_a_port_of_the_other_is_nobodys_business(crowd: Callable[[int, int], AccessNetwork]) -> None:
    """What the server sends, unasked, to each of a customer's ports goes to that customer and no other."""
    network = crowd(3, 256)
    portsets = {c.number: c.binding for c in network.customers}

    def received() -> dict[int, int]:
        """Packets that came out of the softwire at each customer, and not as the lwAFTR has it."""
        statuses = {c.number: c.client.status() for c in network.customers}
        return {n: s["dataplane"]["traffic"]["rx_packets"] for n, s in statuses.items()}

    before = received()
    assert before == dict.fromkeys(portsets, 0)
    with LoadServer(network.srv) as server:
        for number, binding in portsets.items():
            assert binding is not None
            assert binding.ports is not None
            for port in binding.ports.ports():
                server.send_to(IPv4Address(SHARED_ADDRESS), port, b"\0" * 6)
            count = binding.ports.port_count
            wait_until(lambda n=number, c=count: received()[n] >= c, 10, "them to arrive")  # type: ignore[misc]
            expected = {n: count if n <= number else 0 for n in portsets}
            assert received() == expected
