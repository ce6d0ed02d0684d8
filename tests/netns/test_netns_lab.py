"""Two customers on one address, and what must not disturb them: each other, and servers that come and go."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from steady import Steady

from b4client.lab.accessnet import AccessNetwork, Customer
from b4client.lab.accessplan import SHARED_ADDRESS, AccessPlan
from b4client.lab.binding import Binding
from b4client.lab.netns import wait_until
from b4client.lab.nodes import BR, SERVER
from b4client.lab.traffic import PORT, Server, TransferError, Watch, tcp_transfer, udp_exchange
from b4client.model.portset import PortSet

UNNOTICED_S = 4.0
"""A round takes milliseconds; this much only when the machine itself is busy. A lost datagram costs more."""


@pytest.fixture(scope="module")
def network_with(prefix: str, encapsulation: str) -> Iterator[Callable[..., AccessNetwork]]:
    """Call it with AccessPlan's fields for a network that is up; the one that is there is used again if it is such."""

    there: list[AccessNetwork] = []

    def build(**fields: Any) -> AccessNetwork:
        plan = AccessPlan(**{"encapsulation": encapsulation, "prefix": f"{prefix}n", **fields})
        if not there or there[-1].plan != plan:
            there.append(AccessNetwork(plan))
        there[-1].up()
        return there[-1]

    yield build
    there[-1].down()


@pytest.fixture
def pair(network_with: Callable[..., AccessNetwork]) -> AccessNetwork:
    """Two customers on 192.0.2.1, with the lab server."""
    return network_with()


def bound(customer: Customer) -> tuple[Binding, PortSet]:
    """What the customer has; it must have something, and share it."""
    binding = customer.binding
    assert binding is not None
    assert binding.ports is not None
    return binding, binding.ports


def held(customer: Customer) -> tuple[object, ...]:
    """What a customer that is left alone keeps: lease, device, and the events that it has reported."""
    status = customer.client.status()
    lease, dataplane = status["lease"], status["dataplane"]
    return lease["address"], lease["ports"], dataplane["device"], dataplane["local"], customer.client.events()


def at_lwaftr(network: AccessNetwork) -> set[Binding]:
    return set(network.lwaftr.customers())


def lease_age(customer: Customer) -> float:
    return float(customer.client.status()["lease"]["age_s"])


def renew(customer: Customer) -> None:
    """Renew now, and wait for the ACK: the lease is counted anew from the REQUEST."""
    asked_at = time.monotonic()
    customer.client.command("renew")
    wait_until(lambda: lease_age(customer) < time.monotonic() - asked_at, 15, "the renewal")


def test_release_of_one_leaves_the_other_untouched(pair: AccessNetwork) -> None:
    a, b = pair.customers
    of_a, of_b = bound(a)[0], bound(b)[0]
    before, refused = held(b), pair.lwaftr.refused()
    with Server(pair.srv), Steady(b.lan, SERVER) as steady:
        udp_exchange(a.lan, SERVER, requests=1)
        a.client.command("release")
        wait_until(lambda: at_lwaftr(pair) == {of_b}, 10, "the lwAFTR to let go of A")
        wait_until(lambda: not a.client.status()["dataplane"].get("up"), 10, "A's softwire to go")
        with pytest.raises((TransferError, OSError)):
            udp_exchange(a.lan, SERVER, requests=1, timeout_s=0.5)
        steady.go_on(20)
        a.client.command("restart")
        wait_until(lambda: a.binding is not None, 20, "A to be back")
        udp_exchange(a.lan, SERVER, requests=1)
        steady.go_on(20)
    assert at_lwaftr(pair) == {bound(a)[0], of_b}
    # RFC 7618 8: who comes back gets what it had.
    assert bound(a)[0] == of_a
    assert held(b) == before
    assert steady.longest_s < UNNOTICED_S
    assert pair.lwaftr.refused() == refused


def test_lab_server_killed_and_started_again_while_traffic_flows(pair: AccessNetwork) -> None:
    a, b = pair.customers
    before, refused = {bound(a)[0], bound(b)[0]}, pair.lwaftr.refused()
    with Server(pair.srv), Steady(a.lan, SERVER) as one, Steady(b.lan, SERVER) as two:
        pair.lab_server.kill()
        assert not pair.lab_server.running
        a.client.command("renew")
        a.client.wait_for_state("RENEWING")
        wait_until(lambda: not pair.lwaftr.call("status")["feed"]["connected"], 10, "the lwAFTR to miss the server")
        for steady in (one, two):
            steady.go_on(20)
        pair.start_server()
        wait_until(lambda: pair.lwaftr.call("status")["feed"]["connected"], 20, "the lwAFTR to find the server")
        # From its lease file the server knows whose is what.
        for customer in (a, b):
            renew(customer)
        for steady in (one, two):
            steady.go_on(20)
        assert {bound(a)[0], bound(b)[0]} == before == at_lwaftr(pair)
    assert max(one.longest_s, two.longest_s) < UNNOTICED_S
    assert pair.lwaftr.refused() == refused


def test_lwaftr_started_again_has_its_bindings_from_the_feed(pair: AccessNetwork) -> None:
    a, b = pair.customers
    before = {bound(a)[0], bound(b)[0]}
    pair.lwaftr.kill()
    assert not pair.lwaftr.answers
    pair.start_lwaftr()
    wait_until(lambda: at_lwaftr(pair) == before, 20, "the bindings")
    ends = {bound(c)[0]: c.client.status()["lease"]["expires_in_s"] + time.time() for c in (a, b)}
    # With the end of the lease, not for ever.
    for binding, line in pair.lwaftr.customers().items():
        assert line["until"] == pytest.approx(ends[binding], abs=5)
    with Server(pair.srv) as server:
        for customer in (a, b):
            assert tcp_transfer(customer.lan, SERVER, 20_000).octets == 20_000
        visitors = {(address, port) for _, address, port in server.connections}
    assert {address for address, _ in visitors} == {str(SHARED_ADDRESS)}
    assert sorted(port in bound(a)[1] for _, port in visitors) == [False, True]
    assert pair.lwaftr.refused() == {}


def test_nobody_sends_from_what_is_anothers(pair: AccessNetwork) -> None:
    """A's softwire with B's port, with another address, and a stranger's softwire: none comes out of the lwAFTR."""
    a, b = pair.customers
    ports_a, ports_b = bound(a)[1], bound(b)[1]
    before = pair.lwaftr.counters()
    refused = pair.lwaftr.customers()[bound(a)[0]]["refused_up"]

    def grown() -> dict[str, int]:
        return {k: v - before[k] for k, v in pair.lwaftr.counters().items() if v != before[k]}

    with a.cpe.entered():
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 4)
    with raw, Watch(pair.srv) as watch:
        raw.bind((str(pair.plan.wan(1).ip), 0))
        for source, port in (
            (SHARED_ADDRESS, ports_b.range_at(0).first),
            (SHARED_ADDRESS, ports_b.range_at(0).last),
            (SHARED_ADDRESS, 80),
            (IPv4Address("192.0.2.77"), ports_a.range_at(0).first),
        ):
            packet = IP(src=str(source), dst=str(SERVER)) / UDP(sport=port, dport=PORT) / b"x"
            raw.sendto(bytes(packet), (str(BR), 0))
        expected = {"drop-outside-port-set": 3, "drop-foreign-ipv4-address": 1}
        wait_until(lambda: grown() == expected, 5, "the lwAFTR to count them")
        assert watch.seen == []
    assert pair.lwaftr.customers()[bound(a)[0]]["refused_up"] == refused + 4
    assert pair.lwaftr.customers()[bound(b)[0]]["refused_up"] == 0


@pytest.mark.parametrize("server", ["lab", pytest.param("kea", marks=pytest.mark.kea)])
def test_map_e(network_with: Callable[..., AccessNetwork], server: str) -> None:
    """No DHCPv4: address and ports follow from the /64, in 63 ranges; the lwAFTR derives the bindings from the rule."""
    network = network_with(mode="map-e", server=server)
    a, b = network.customers
    for number, customer in enumerate((a, b), 1):
        binding, ports = bound(customer)
        assert (binding.address, ports) == (SHARED_ADDRESS, PortSet(6, 2, number))
        assert customer.client.status()["lease"] is None
        assert str(binding.b4) == f"2001:db8:46:{number}:0:c000:201:{number}"
    with Server(network.srv) as visited, Steady(a.lan, SERVER) as one, Steady(b.lan, SERVER) as two:
        for steady in (one, two):
            steady.go_on(10)
        sources = {(s.address, s.port in bound(a)[1], s.port in bound(b)[1]) for s in visited.seen if s.port}
    assert sources == {(SHARED_ADDRESS, True, False), (SHARED_ADDRESS, False, True)}
    assert network.lwaftr.refused() == {}
    assert [row["state"] for row in network.table()] == ["UP", "UP"]
    assert all(row["packets_up"] for row in network.table())


@pytest.mark.kea
def test_kea_gives_each_its_own_address(network_with: Callable[..., AccessNetwork]) -> None:
    network = network_with(server="kea", customers=3)
    bindings = [bound(customer)[0] for customer in network.customers]
    assert {str(b.address) for b in bindings} == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}
    assert {b.ports for b in bindings} == {PortSet(0, 2, 1)}
    assert at_lwaftr(network) == set(bindings)
    with Server(network.srv) as visited:
        for customer in network.customers:
            udp_exchange(customer.lan, SERVER, requests=2)
        wait_until(lambda: len(visited.seen) == 3, 5, "the watch at the server")
        assert {s.address for s in visited.seen} == {b.address for b in bindings}
    assert network.lwaftr.refused() == {}
