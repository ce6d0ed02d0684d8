"""From a lease of the lab server to a packet through the lwAFTR, and back: bound, moved, released, killed, restarted.

Server and lwAFTR run in one namespace, as an operator's edge does; customers are made by hand (``aftrnet``).
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from aftrnet import ALICE, BOB, ISP, SERVER, SHARED, Home, Network, udp_at_server, until
from scapy.layers.inet import IP, UDP

from b4client.lab.netns import ip_batch, reap
from b4client.model.portset import PortSet
from b4client.wire import dhcp4, dhcp4o6, softwire46
from b4client.wire.dhcp4 import Dhcp4Message, MessageType, Option
from b4client.wire.softwire46 import PortParams

SERVER_ID = IPv4Address("192.0.0.1")
LEASE_S = 3600


class Subscriber(Home):
    """A customer that gets its lease from ``address`` and ends its softwire there."""

    def __init__(self, network: Network, address: IPv6Address, name: bytes) -> None:
        super().__init__(network, address)
        with network.home.entered():
            self._dhcp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._dhcp.bind((str(address), 546))
        self._dhcp.settimeout(5)
        self._client_id = b"\xff\0\0\0\1\0\3\0\1" + name
        self.lease = IPv4Address(0)
        self.ports = PortSet(0, 1, 0)

    def _send(self, kind: MessageType, *options: tuple[int, bytes], **fields: IPv4Address) -> None:
        all_options = ((53, bytes((kind,))), (61, self._client_id), (55, bytes((51, 159))), *options)
        inner = Dhcp4Message(op=1, xid=int(time.monotonic_ns()) & 0xFFFFFFFF, options=all_options, **fields)  # type: ignore[arg-type]
        self._dhcp.sendto(dhcp4o6.encode_query(dhcp4.encode(inner), unicast="ciaddr" in fields), (str(ISP), 547))

    def _ask(self, kind: MessageType, *options: tuple[int, bytes], **fields: IPv4Address) -> Dhcp4Message:
        self._send(kind, *options, **fields)
        return dhcp4.decode(dhcp4o6.decode(self._dhcp.recv(65535)).dhcp4)

    def bind(self) -> None:
        """DISCOVER and REQUEST."""
        offer = self._ask(MessageType.DISCOVER)
        params = offer.get(Option.V4_PORTPARAMS) or b""
        ack = self._ask(MessageType.REQUEST, (50, offer.yiaddr.packed), (54, SERVER_ID.packed), (159, params))
        assert ack.message_type == MessageType.ACK
        self.lease = ack.yiaddr
        ports = softwire46.decode_portparams(ack.get(Option.V4_PORTPARAMS) or b"").port_set()
        assert ports is not None
        self.ports = ports

    def release(self) -> None:
        """Nobody answers to it."""
        params = softwire46.encode_portparams(PortParams.of(self.ports))
        self._send(MessageType.RELEASE, (54, SERVER_ID.packed), (159, params), ciaddr=self.lease)

    @property
    def port(self) -> int:
        """One of its own."""
        return self.ports.range_at(0).last

    @property
    def binding(self) -> str:
        """As the lwAFTR names it."""
        ports = self.ports
        return f"{self.lease},a={ports.offset_len},k={ports.psid_len},psid={ports.psid:#x},b4={self.address}"

    def packet(self, to: int, content: bytes = b"x") -> bytes:
        """From its port to the server."""
        return bytes(IP(src=str(self.lease), dst=str(SERVER)) / UDP(sport=self.port, dport=to) / content)

    def close(self) -> None:
        super().close()
        self._dhcp.close()


class LabServer:
    """``b4client.lab.serve`` with a feed."""

    def __init__(self, network: Network, directory: Path, *, psid_len: int = 4) -> None:
        self._network, self._log = network, directory / "server.log"
        self.feed = directory / "feed.sock"
        self._config = directory / "server.json"
        document = {
            "interface": "wan",
            "lease_file": str(directory / "leases"),
            "feed": str(self.feed),
            "shared": [{"first": str(SHARED), "psid_len": psid_len}],
            "lease": {"time": LEASE_S},
            "policy": {"reserved": []},
            "dhcp6": {"br": ["2001:db8:ffff::1"]},
        }
        self._config.write_text(json.dumps(document))
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def start(self) -> None:
        """Returns when it serves."""
        command = (sys.executable, "-m", "b4client.lab.serve", "--config", str(self._config))
        self._process = self._network.aftr.start(*command, log=self._log)
        self._starts += 1
        until(lambda: self._log.read_text().count("serving on wan") == self._starts, "the server to serve")

    def kill(self) -> None:
        """As a crash does it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        return reap(self._process)


@pytest.fixture
def network(prefix: str, tmp_path: Path) -> Iterator[Network]:
    network = Network(prefix, tmp_path)
    try:
        network.build()
        yield network
    finally:
        network.remove()


@pytest.fixture
def server(network: Network, tmp_path: Path) -> LabServer:
    return LabServer(network, tmp_path)


@pytest.fixture
def subscribe(network: Network) -> Iterator[Callable[[IPv6Address, bytes], Subscriber]]:
    with ExitStack() as stack:

        def make(address: IPv6Address, name: bytes) -> Subscriber:
            made = Subscriber(network, address, name)
            stack.callback(made.close)
            return made

        yield make


Subscribe = Callable[[IPv6Address, bytes], Subscriber]


def passes(network: Network, *subscribers: Subscriber) -> None:
    """Every one of them reaches the server and is reached."""
    with udp_at_server(network) as remote:
        for subscriber in subscribers:
            subscriber.send(subscriber.packet(remote.getsockname()[1], b"hello"))
            data, source = remote.recvfrom(100)
            assert (data, source) == (b"hello", (str(subscriber.lease), subscriber.port))
            remote.sendto(b"back", source)
            assert bytes(subscriber.receive()[UDP].payload) == b"back"


def drops(network: Network, subscriber: Subscriber, fate: str) -> None:
    """Neither does a packet of it get out nor one to it in."""
    with udp_at_server(network) as remote, network.counted(**{fate: 1, "drop_no_binding": 1}):
        subscriber.send(subscriber.packet(remote.getsockname()[1]))
        remote.sendto(b"x", (str(subscriber.lease), subscriber.port))


def bound(network: Network) -> list[str]:
    return sorted(network.call("bindings")["bindings"])


def connected(network: Network) -> bool:
    return bool(network.call("status")["feed"]["connected"])


def test_lease_packet_release(network: Network, server: LabServer, subscribe: Subscribe) -> None:
    server.start()
    network.start("--feed", str(server.feed), bindings=())
    until(lambda: connected(network), "the feed")
    alice, bob = subscribe(ALICE, b"alice"), subscribe(BOB, b"bob")
    alice.bind()
    bob.bind()
    assert (alice.lease, alice.ports) == (bob.lease, PortSet(0, 4, 0))
    # No waiting: the ACK came after the binding.
    passes(network, alice, bob)
    line = next(c for c in network.call("bindings")["customers"] if c["binding"] == alice.binding)
    assert abs(line["until"] - time.time() - LEASE_S) < 60
    alice.release()
    until(lambda: bound(network) == [bob.binding], "the release")
    drops(network, alice, "drop_unknown_softwire")
    passes(network, bob)
    alice.bind()
    passes(network, alice, bob)


def test_whoever_is_killed_comes_back_to_the_same(network: Network, server: LabServer, subscribe: Subscribe) -> None:
    server.start()
    network.start("--feed", str(server.feed), bindings=())
    alice, bob = subscribe(ALICE, b"alice"), subscribe(BOB, b"bob")
    alice.bind()
    bob.bind()
    until(lambda: bound(network) == sorted((alice.binding, bob.binding)), "both")
    # The lwAFTR dies, and asks again.
    network.kill()
    network.start("--feed", str(server.feed), bindings=())
    until(lambda: bound(network) == sorted((alice.binding, bob.binding)), "both, again")
    passes(network, alice, bob)
    # It dies, a lease ends meanwhile, it comes back.
    network.kill()
    alice.release()
    network.start("--feed", str(server.feed), bindings=())
    until(lambda: bound(network) == [bob.binding], "the one that is left")
    passes(network, bob)
    # The server dies: what it said goes on.
    server.kill()
    until(lambda: not connected(network), "the loss of the server")
    passes(network, bob)
    # It comes back with its lease file; nothing changes, and what comes then is told.
    server.start()
    until(lambda: connected(network), "the server")
    assert bound(network) == [bob.binding]
    passes(network, bob)
    alice.bind()
    passes(network, alice, bob)
    assert network.stop() == server.stop() == 0


def test_64_customers_on_one_address(network: Network, tmp_path: Path, subscribe: Subscribe) -> None:
    server = LabServer(network, tmp_path, psid_len=6)
    server.start()
    network.start("--feed", str(server.feed), bindings=())
    until(lambda: connected(network), "the feed")
    ends = [IPv6Address(int(ISP) + 0x100 + number) for number in range(64)]
    ip_batch(network.home.name, [f"addr add {end}/64 dev wan nodad" for end in ends])
    customers = [subscribe(end, bytes((number,))) for number, end in enumerate(ends)]
    for customer in customers:
        customer.bind()
    assert {customer.lease for customer in customers} == {SHARED}
    assert sorted(customer.ports.psid for customer in customers) == list(range(64))
    assert bound(network) == sorted(customer.binding for customer in customers)
    with network.counted(decapsulated=64, encapsulated=64):
        passes(network, *customers)
    lines = network.call("bindings")["customers"]
    assert {(line["packets_up"], line["packets_down"], line["ports_seen"]) for line in lines} == {(1, 1, 1)}
    # Each with the ports of his neighbour: never a packet.
    with udp_at_server(network) as remote, network.counted(drop_outside_port_set=64):
        for one, other in zip(customers, customers[1:] + customers[:1], strict=True):
            one.send(other.packet(remote.getsockname()[1]))
