"""The lwAFTR between real kernels: fragments of both protocols, MTUs, errors inside a softwire, traffic class.

One lwAFTR for all tests of this file; what a test changes it changes back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from aftrnet import (
    ALICE,
    ALICE_PORT,
    BOB,
    BR,
    CAROL,
    CAROL_PORT,
    OTHER,
    SERVER,
    SHARED,
    Network,
    Three,
    homes,
    out,
    serving,
    udp_at_server,
    until,
)
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Raw

from b4client.lab.netns import ip
from b4client.lab.testbed import Capture

IP_MTU, IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_PMTUDISC_DONT, IP_RECVERR = 14, 10, 2, 0, 11
IP_RECVTOS = 13


@pytest.fixture(scope="module")
def network(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with serving(prefix, tmp_path_factory.mktemp("aftr")) as network:
        yield network


@pytest.fixture
def three(network: Network) -> Iterator[Three]:
    with homes(network, ALICE, BOB, CAROL) as (alice, bob, carol):
        yield alice, bob, carol


# ---- fragments


def test_fragments_of_ipv6_are_the_kernels(network: Network, three: Three) -> None:
    """1500 octets inside, 1540 outside: cut and joined on the way, both ways (RFC 6333 6.3)."""
    alice, _, _ = three
    whole = os.urandom(1472)
    with Capture(network.home, "wan", network.directory / "wan.pcap", "ip6[6] == 44") as capture:
        with udp_at_server(network) as server, network.counted(decapsulated=1, encapsulated=1):
            server.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            alice.send(out(ALICE_PORT, server.getsockname()[1]) / whole)
            data, source = server.recvfrom(2000)
            assert (data, source) == (whole, (str(SHARED), ALICE_PORT))
            server.sendto(data, source)
            assert bytes(alice.receive()[UDP].payload) == whole

        def seen() -> list[int]:
            octets = capture.file.read_bytes()
            return [octets.count(ends) for ends in (ALICE.packed + BR.packed, BR.packed + ALICE.packed)]

        until(lambda: seen() == [2, 2], "two fragments each way")


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "the last first"])
def test_fragments_of_ipv4(network: Network, three: Three, turned: bool) -> None:
    alice, _, _ = three
    whole = os.urandom(4000)
    held = {"fragments_held": 3} if turned else {}
    with udp_at_server(network) as server:
        packet = IP(bytes(out(ALICE_PORT, server.getsockname()[1], id=4242) / whole))
        parts = [bytes(part) for part in fragment(packet, fragsize=1200)]
        assert len(parts) == 4
        with network.counted(decapsulated=4, **held):
            for part in reversed(parts) if turned else parts:
                alice.send(part)
            assert server.recvfrom(5000) == (whole, (str(SHARED), ALICE_PORT))
        # Down: as the server's kernel cuts them, or by hand in another order.
        with network.srv.entered(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            back = IP(src=str(SERVER), dst=str(SHARED), id=4243) / UDP(sport=80, dport=ALICE_PORT) / whole
            parts = [bytes(part) for part in fragment(IP(bytes(back)), fragsize=1200)]
            with network.counted(encapsulated=4, **held):
                for part in reversed(parts) if turned else parts:
                    raw.sendto(part, (str(SHARED), 0))
                came = [bytes(alice.receive()) for _ in parts]

        def without_ttl(octets: bytes) -> bytes:
            return octets[:8] + octets[12:]

        assert sorted(map(without_ttl, came)) == sorted(map(without_ttl, parts))


def test_fragments_between_customers(network: Network, three: Three) -> None:
    alice, _, carol = three
    packet = IP(bytes(out(ALICE_PORT, CAROL_PORT, destination=OTHER, id=77) / bytes(3000)))
    parts = [bytes(part) for part in fragment(packet, fragsize=1400)]
    with network.counted(hairpinned=3):
        for part in parts:
            alice.send(part)
        assert [carol.receive().frag for _ in parts] == [0, 175, 350]


# ---- too big (RFC 2473 7.2, 8)


@pytest.fixture
def df(network: Network) -> Iterator[socket.socket]:
    """The server sends with DF to Alice; what it has learnt of the path is forgotten afterwards."""
    with udp_at_server(network) as server:
        server.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        server.connect((str(SHARED), ALICE_PORT))
        yield server
    ip("-n", network.srv.name, "route", "flush", "cache")


def mtu_learnt(server: socket.socket, mtu: int) -> None:
    """The kernel of the sender has understood our ICMPv4 message."""
    until(lambda: server.getsockopt(socket.IPPROTO_IP, IP_MTU) == mtu, f"the server to learn {mtu}")
    # The message is an error of the socket as well, told once.
    server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def test_too_big_is_told(network: Network, three: Three, df: socket.socket) -> None:
    alice, _, _ = three
    with network.counted(drop_too_big=1, icmpv4_too_big=1):
        df.send(bytes(1472))
        mtu_learnt(df, 1460)
    with network.counted(encapsulated=1):
        with pytest.raises(OSError, match="too long"):
            df.send(bytes(1433))
        df.send(bytes(1432))
        assert alice.receive().len == 1460


def test_too_big_is_fragmented_when_wished(network: Network, three: Three, df: socket.socket) -> None:
    alice, _, _ = three
    network.call("policy", honour_df=False)
    try:
        with network.counted(encapsulated=1):
            df.send(bytes(1472))
            assert alice.receive().len == 1500
    finally:
        network.call("policy", honour_df=True)


def test_a_narrow_path_is_learnt(network: Network, three: Three, df: socket.socket) -> None:
    """A router in the access network says "packet too big": told on with 40 octets less, and remembered."""
    alice, _, _ = three
    with network.counted(encapsulated=1, icmpv6_too_big=1, icmpv4_too_big=1):
        df.send(bytes(1432))
        came = alice.receive()
        quoted = bytes(IPv6(src=str(BR), dst=str(ALICE), nh=4, plen=len(came)) / came)[:1232]
        # The kernel writes the checksum.
        alice.icmp6.sendto(bytes(ICMPv6PacketTooBig(mtu=1400)) + quoted, (str(BR), 0))
        mtu_learnt(df, 1360)
    ip("-n", network.srv.name, "route", "flush", "cache")
    with udp_at_server(network) as again, network.counted(drop_too_big=1, icmpv4_too_big=1):
        again.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        again.connect((str(SHARED), ALICE_PORT))
        again.send(bytes(1400))
        mtu_learnt(again, 1360)


def test_a_customer_that_is_away(network: Network) -> None:
    """Our own kernel finds nobody there, and says so by ICMPv6: told on as "host unreachable"."""
    away = f"{OTHER},a=0,k=4,psid=0x7,b4=2001:db8:5::dead"
    network.call("bind", binding=away)
    try:
        with udp_at_server(network) as server:
            server.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            server.connect((str(OTHER), 0x7000))
            with network.counted(encapsulated=1, icmpv6_unreachable=1, icmpv4_unreachable=1):
                server.send(b"hello?")
                with pytest.raises(OSError, match="No route to host"):
                    server.recv(100)
    finally:
        network.call("unbind", binding=away)


def test_icmpv6_about_nothing_of_ours(network: Network, three: Three) -> None:
    alice, _, _ = three
    with network.counted(icmpv6_foreign=1):
        quoted = IPv6(src=str(BR), dst=str(ALICE)) / UDP(sport=1, dport=2) / Raw(bytes(20))
        alice.icmp6.sendto(bytes(ICMPv6PacketTooBig(mtu=1280)) + bytes(quoted), (str(BR), 0))


# ---- traffic class


@pytest.mark.parametrize(("outer", "inner", "onward"), [(0xB8, 0xB8, 0xB8), (0x28, 0xB8, 0x28), (0x2B, 0x0A, 0x2B)])
def test_traffic_class(network: Network, three: Three, outer: int, inner: int, onward: int) -> None:
    alice, _, _ = three
    with udp_at_server(network) as server:
        server.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
        alice.send(out(ALICE_PORT, server.getsockname()[1], tos=inner) / b"x", outer)
        _, control, _, source = server.recvmsg(100, 64)
        assert control[0][2] == bytes((onward,))
        for tos in (inner, 0, onward):
            server.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
            server.sendto(b"y", source)
            came, traffic_class = alice.receive_with_class()
            assert came.tos == traffic_class == tos


def test_congestion_that_cannot_be_told(network: Network, three: Three) -> None:
    with network.counted(drop_congestion=1):
        three[0].send(out(ALICE_PORT, 80), 3)
