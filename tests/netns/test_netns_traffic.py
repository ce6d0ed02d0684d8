"""The traffic tools, over a plain cable (lwAFTR's IPv4 side to the server): what they say must be so."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

import pytest

from b4client.lab.netns import wait_until
from b4client.lab.testbed import AFTR_INET, SERVER, Testbed
from b4client.lab.traffic import PORT, Seen, Server, TcpClient, TransferError, ping, tcp_transfer, udp_exchange

pytestmark = pytest.mark.softwire


def test_transfers_and_what_the_server_saw(testbed: Testbed) -> None:
    with Server(testbed.srv) as server:
        tcp = tcp_transfer(testbed.aftr, SERVER, 300_000)
        udp = udp_exchange(testbed.aftr, SERVER, requests=3)
        assert tcp.octets == 300_000
        assert set(server.connections) == {("TCP", str(AFTR_INET), tcp.port), ("UDP", str(AFTR_INET), udp.port)}
        assert "3 received" in ping(testbed.aftr, SERVER, 3)
        sources = {(s.name, s.address, s.port) for s in server.seen}
        assert {("TCP", AFTR_INET, tcp.port), ("UDP", AFTR_INET, udp.port)} < sources
        assert [s.packets for s in server.seen if s.name == "UDP"] == [3]
        assert [s.packets for s in server.seen if s.name == "ICMP"] == [3]


def test_one_connection_carries_many_transfers(testbed: Testbed) -> None:
    with Server(testbed.srv) as server, TcpClient(testbed.aftr, SERVER) as client:
        assert client.transfer(1000).port == client.transfer(0).port == client.transfer(70_000).port
        assert len(server.connections) == 1


def test_the_wire_sees_what_the_stack_refuses(testbed: Testbed) -> None:
    with Server(testbed.srv) as server:
        with testbed.aftr.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"x", (str(SERVER), PORT + 1))
            port = s.getsockname()[1]
        wait_until(lambda: Seen(17, AFTR_INET, port, 1) in server.seen, 5, "the packet on the wire")
        assert server.connections == []


def test_failures_are_told(testbed: Testbed) -> None:
    nobody = IPv4Address("198.51.100.77")
    with pytest.raises(TransferError, match=r"ping 198\.51\.100\.77"):
        ping(testbed.aftr, nobody, 1, timeout_s=1)
    with pytest.raises(TransferError, match="UDP: request 1 of 1"):
        udp_exchange(testbed.aftr, SERVER, requests=1, timeout_s=0.3)
    with pytest.raises(ConnectionRefusedError):
        tcp_transfer(testbed.aftr, SERVER, 1)
    testbed.srv.run("ip", "link", "set", "eth0", "down")
    try:
        with pytest.raises(OSError, match=r"timed out|unreachable"):
            tcp_transfer(testbed.aftr, SERVER, 1, timeout_s=0.5)
    finally:
        testbed.srv.run("ip", "link", "set", "eth0", "up")
        testbed.srv.run("ip", "route", "replace", "192.0.2.0/24", "via", str(AFTR_INET))
