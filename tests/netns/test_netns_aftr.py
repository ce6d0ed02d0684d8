"""The lwAFTR between real kernels: up, down, hairpin, ICMP of both kinds, its queues, its process.

One lwAFTR for all tests of this file; what a test changes it changes back.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator

import pytest
from aftrnet import (
    AFTR_INET,
    ALICE,
    ALICE_PORT,
    BOB,
    BOB_PORT,
    BR,
    CAROL,
    CAROL_PORT,
    OTHER,
    SERVER,
    SHARED,
    STRANGER,
    Network,
    Three,
    homes,
    out,
    serving,
    udp_at_server,
    until,
)
from scapy.layers.inet import ICMP, IP, UDP

from b4client.lab.testbed import Capture

IP_RECVERR = 11


@pytest.fixture(scope="module")
def network(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with serving(prefix, tmp_path_factory.mktemp("aftr")) as network:
        yield network


@pytest.fixture
def three(network: Network) -> Iterator[Three]:
    with homes(network, ALICE, BOB, CAROL) as (alice, bob, carol):
        yield alice, bob, carol


# ---- up and down


def test_each_customer_gets_its_own(network: Network, three: Three) -> None:
    alice, bob, _ = three
    with udp_at_server(network) as server, network.counted(decapsulated=2, encapsulated=2):
        to = server.getsockname()[1]
        for home, port in ((alice, ALICE_PORT), (bob, BOB_PORT)):
            home.send(out(port, to) / b"hello")
            data, source = server.recvfrom(100)
            assert (data, source) == (b"hello", (str(SHARED), port))
        for home, port in ((alice, ALICE_PORT), (bob, BOB_PORT)):
            server.sendto(f"to {port}".encode(), (str(SHARED), port))
            assert bytes(home.receive()[UDP].payload) == f"to {port}".encode()
        assert alice.receives_nothing()
        assert bob.receives_nothing()


def test_echo_by_identifier(network: Network, three: Three) -> None:
    alice, bob, _ = three
    with network.counted(decapsulated=1, encapsulated=1, drop_outside_port_set=1, icmpv6_rejects=1):
        bob.send(IP(src=str(SHARED), dst=str(SERVER)) / ICMP(id=ALICE_PORT))
        alice.send(IP(src=str(SHARED), dst=str(SERVER)) / ICMP(id=ALICE_PORT) / b"ping")
        answer = alice.receive()
        assert (answer[ICMP].type, answer[ICMP].id) == (0, ALICE_PORT)
    assert bob.receives_nothing()


# ---- hairpin


@pytest.mark.parametrize(
    ("address", "port", "who"), [(SHARED, BOB_PORT, 1), (OTHER, CAROL_PORT, 2)], ids=["same address", "another"]
)
def test_two_customers_talk(network: Network, three: Three, address: object, port: int, who: int) -> None:
    alice, peer = three[0], three[who]
    with Capture(network.aftr, "softwire", network.directory / "tun.pcap") as capture:
        with network.counted(hairpinned=3):
            alice.send(out(ALICE_PORT, port, destination=address) / b"to the neighbour", 0xB8)
            came, traffic_class = peer.receive_with_class()
            assert (came.ttl, came.tos, traffic_class) == (63, 0xB8, 0xB8)
            assert not int.from_bytes(bytes(came)[:20], "big") % 0xFFFF
            assert bytes(came[UDP].payload) == b"to the neighbour"
            peer.send(out(port, ALICE_PORT, address, SHARED) / b"and back")
            back = alice.receive()
            assert (back.src, bytes(back[UDP].payload)) == (str(address), b"and back")
            # An ICMP error about the second packet.
            error = IP(src=str(SHARED), dst=str(address)) / ICMP(type=3, code=3) / bytes(back)[:28]
            alice.send(error)
            assert peer.receive()[ICMP].type == 3
        # Nothing of it was on the IPv4 side before the first that must be.
        alice.send(out(ALICE_PORT, 9) / b"to the Internet")
        until(lambda: b"to the Internet" in capture.file.read_bytes(), "the capture")
        assert b"neighbour" not in capture.file.read_bytes()
        assert alice.receive()[ICMP].type == 3


def test_the_port_counts_on_both_sides(network: Network, three: Three) -> None:
    alice, bob, _ = three
    with network.counted(drop_outside_port_set=1, icmpv6_rejects=1, drop_hairpin_no_binding=2, hairpinned=1):
        alice.send(out(BOB_PORT, BOB_PORT, destination=SHARED))
        alice.send(out(ALICE_PORT, 65535, destination=SHARED))
        alice.send(out(ALICE_PORT, 80, destination="192.0.2.200"))
        alice.send(out(ALICE_PORT, BOB_PORT, destination=SHARED))
        bob.receive()
    assert bob.receives_nothing()


def test_hairpin_switched_off(network: Network, three: Three) -> None:
    alice, bob, _ = three
    network.call("policy", hairpin=False)
    try:
        with network.counted(drop_hairpin_policy=1, decapsulated=1, encapsulated=1):
            alice.send(out(ALICE_PORT, BOB_PORT, destination=SHARED))
            bob.send(IP(src=str(SHARED), dst=str(SERVER)) / ICMP(id=BOB_PORT))
            assert bob.receive()[ICMP].type == 0
    finally:
        network.call("policy", hairpin=True)


def test_time_to_live(network: Network, three: Three) -> None:
    """The kernel lowers it towards the Internet, we between customers; who sent it learns of its end from both."""
    alice, _, _ = three
    for destination, mine in ((SERVER, {"decapsulated": 1}), (OTHER, {"drop_hairpin_ttl": 1})):
        said = {"icmpv4_time_exceeded": 1} if destination is OTHER else {}
        with network.counted(encapsulated=1, **mine, **said):
            alice.send(out(ALICE_PORT, CAROL_PORT, destination=destination, ttl=1) / b"x")
            error = alice.receive()
            assert (error.src, error[ICMP].type, error[ICMP].code) == (str(AFTR_INET), 11, 0)
            assert IP(bytes(error[ICMP].payload)).dst == str(destination)


# ---- ICMPv6 type 1 code 5


def test_reject_reaches_the_customer(network: Network) -> None:
    packet = bytes(out(ALICE_PORT, 80) / bytes(1300))
    with homes(network, STRANGER) as (stranger,), network.counted(drop_unknown_softwire=1, icmpv6_rejects=1):
        stranger.send(packet, 0x28)
        # The kernel has verified the checksum, which covers the source.
        message, source = stranger.icmp6.recvfrom(2000)
        assert (source[0], message[:2]) == (str(BR), b"\x01\x05")
        assert len(message) == 1280 - 40
        quoted = message[8:]
        assert (quoted[8:24], quoted[24:40]) == (STRANGER.packed, BR.packed)
        assert int.from_bytes(quoted[:4], "big") == 6 << 28 | 0x28 << 20
        assert quoted[40:] == packet[: len(quoted) - 40]


def test_reject_switched_off_and_limited(network: Network) -> None:
    with homes(network, STRANGER) as (stranger,):
        try:
            network.call("policy", reject=False)
            with network.counted(drop_unknown_softwire=1):
                stranger.send(out(ALICE_PORT, 80))
            network.call("policy", reject=True, reject_rate=0.001)
            with network.counted(drop_unknown_softwire=4, icmpv6_rejects=1, icmpv6_rejects_suppressed=3):
                for _ in range(4):
                    stranger.send(out(ALICE_PORT, 80))
        finally:
            network.call("policy", reject=True, reject_rate=10)


# ---- ICMPv4


def test_errors_of_the_server_reach_the_customer(network: Network, three: Three) -> None:
    alice, bob, _ = three
    with network.counted(decapsulated=1, encapsulated=1):
        alice.send(out(ALICE_PORT, 9) / b"nobody listens")
        error = alice.receive()
        assert (error.src, error[ICMP].type, error[ICMP].code) == (str(SERVER), 3, 3)
    assert bob.receives_nothing()


@pytest.mark.parametrize("options", [0, 40])
def test_errors_of_the_customer_reach_the_server(network: Network, three: Three, options: int) -> None:
    """The server's kernel hands it to the socket that sent the packet: so it is right in every octet."""
    alice, bob, _ = three
    with udp_at_server(network) as server:
        if options:
            server.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * options)
        server.connect((str(SHARED), ALICE_PORT))
        with network.counted(encapsulated=1, decapsulated=1, drop_outside_port_set=1, icmpv6_rejects=1):
            server.send(b"hello")
            came = alice.receive()
            assert came.ihl == 5 + options // 4
            refusal = IP(src=str(SHARED), dst=str(SERVER)) / ICMP(type=3, code=3) / bytes(came)
            bob.send(refusal)
            alice.send(refusal)
            with pytest.raises(ConnectionRefusedError):
                server.recv(100)


def test_unreachable_is_told_when_wished(network: Network) -> None:
    with udp_at_server(network) as server:
        server.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        server.connect((str(SHARED), 65535))
        with network.counted(drop_no_binding=1):
            server.send(b"x")
        network.call("policy", unreachable=True)
        try:
            with network.counted(drop_no_binding=1, icmpv4_unreachable=1):
                server.send(b"x")
                with pytest.raises(OSError, match="No route to host"):
                    server.recv(100)
        finally:
            network.call("policy", unreachable=False)


# ---- what the kernel does not take or keep


def test_send_failed(network: Network, three: Three) -> None:
    nowhere = f"{OTHER},a=0,k=4,psid=0x8,b4=2001:db8:dead::1"  # no route leads there
    network.call("bind", binding=nowhere)
    try:
        with network.counted(hairpinned=1, drop_send_failed=1):
            three[0].send(out(ALICE_PORT, 0x8000, destination=OTHER))
    finally:
        network.call("unbind", binding=nowhere)


def test_queue_full(network: Network, three: Three) -> None:
    alice, _, _ = three
    before = network.counters()
    packet = bytes(out(ALICE_PORT, 9) / bytes(1400))
    sent = 0
    os.kill(network.pid, signal.SIGSTOP)
    try:
        for _ in range(6000):
            alice.send(packet)
            sent += 1
    finally:
        os.kill(network.pid, signal.SIGCONT)

    def all_accounted_for() -> bool:
        now = network.counters()
        grown = {name: now[name] - before[name] for name in ("decapsulated", "drop-queue-full")}
        return sum(grown.values()) >= sent and min(grown.values()) > 0

    until(all_accounted_for, "every packet to be counted as carried or lost")


# ---- the process


def test_signals(network: Network) -> None:
    log = network.directory / "aftr.log"
    before = log.read_text()
    os.kill(network.pid, signal.SIGUSR1)
    until(lambda: '"decapsulated"' in log.read_text()[len(before) :], "the counters")


def test_bindings_with_traffic(network: Network, three: Three) -> None:
    alice, _, _ = three
    alice.send(IP(src=str(SHARED), dst=str(SERVER)) / ICMP(id=ALICE_PORT + 5))
    alice.receive()
    answer = network.call("bindings", address=str(SHARED))
    line = answer["customers"][0]
    assert (answer["total"], line["binding"], line["b4"]) == (2, answer["bindings"][0], str(ALICE))
    assert line["packets_up"] > 0
    assert line["octets_down"] > 0
    assert line["last_seen_s"] < 5
    ranges = network.call("ports", binding=line["binding"])["ranges"]
    assert ranges == line["ports_seen_ranges"]
    assert str(ALICE_PORT + 5) in ranges


def test_cannot_start(network: Network) -> None:
    command = (sys.executable, "-m", "b4client.lab.aftr", "--address")
    taken = network.aftr.run(*command, str(BR), check=False)
    assert (taken.returncode, "cannot start" in taken.stderr) == (1, True)
    foreign = network.aftr.run(*command, "2001:db8::77", "--device", "other", check=False)
    assert (foreign.returncode, "cannot start" in foreign.stderr) == (1, True)
    wrong = network.aftr.run(*command, str(BR), "--binding", "x", check=False)
    assert wrong.returncode == 2
