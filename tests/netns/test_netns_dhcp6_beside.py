"""Port 546 beside another DHCPv6 client: both work, neither takes the other's packets, nobody is told "unreachable"."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest
from exchange import read_4o6
from otherclients import OtherClient, dhcpcd, networkd

from b4client.daemon.packetsocket import PacketSocket
from b4client.lab.client import Client
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import wait_until
from b4client.lab.testbed import CPE_WAN, ISP_WAN, SERVER, Testbed
from b4client.lab.traffic import Server, ping, udp_exchange

pytestmark = [pytest.mark.kea, pytest.mark.slow]

KEA = KeaSettings(
    pd_pool=IPv6Network("2001:db8:100::/52"),
    lifetimes6=(6, 20, 300, 600),
    valid_lifetime=240,
    renew_timer=120,
    rebind_timer=200,
)
OTHERS = {"systemd-networkd": networkd, "dhcpcd": dhcpcd}
Start = Callable[[Testbed, Path], AbstractContextManager[OtherClient]]
PCAP_HEADER_LEN = 24
UNREACHABLE = "icmp6 and ip6[40] == 1"


@pytest.fixture(params=OTHERS.values(), ids=OTHERS.keys())
def other(request: pytest.FixtureRequest) -> Start:
    found: Start = request.param
    return found


@pytest.fixture
def packet(tmp_path: Path) -> tuple[str, str]:
    """Options of ``b4client run`` for ``socket = "packet"``."""
    path = tmp_path / "packet.toml"
    path.write_text('[dhcp6]\nsocket = "packet"\n')
    return "--config", str(path)


def works(testbed: Testbed) -> None:
    with Server(testbed.srv):
        ping(testbed.lan, SERVER, 1)
        udp_exchange(testbed.lan, SERVER)


def test_beside_a_client_that_was_there_first(
    other: Start,
    testbed_with: Callable[..., Testbed],
    client_in: Callable[..., Client],
    tmp_path: Path,
) -> None:
    """``auto``: the port is taken, so we listen beside it and say so. Both renew."""
    testbed = testbed_with(kea=KEA)
    with (
        testbed.capture("cpe", "wan", tmp_path / "unreachable.pcap", UNREACHABLE) as complaints,
        testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture,
        other(testbed, tmp_path / "other") as neighbour,
    ):
        neighbour.wait_bound()
        client = client_in(testbed)
        client.start()
        client.wait_bound()
        works(testbed)
        (said,) = [e["text"] for e in client.events() if e["kind"] == "port-shared"]
        assert "UDP port 546 belongs to" in said
        client.command("renew")
        wait_until(lambda: client.status()["counters"]["received-ack"] == 2, 10, "our renewal")
        neighbour.wait_replies(3)
        counters = client.status()["counters"]
        client.stop("release")
    # Our answers went to the global address (option 88 is unicast) and to the link-local one; all were heard.
    assert {str(s.datagram.destination) for s in read_4o6(capture.file) if s.outer.msg_type == 21} == {str(CPE_WAN.ip)}
    # The other client's answers reach us as copies, and are known to be foreign.
    assert counters.get("drop-datagram-unexpected-type", 0) + counters.get("drop-reply-foreign-transaction", 0) > 0
    assert complaints.file.stat().st_size <= PCAP_HEADER_LEN, "somebody was told that the port is unreachable"


def test_a_client_that_comes_later(
    other: Start,
    testbed_with: Callable[..., Testbed],
    client_in: Callable[..., Client],
    packet: tuple[str, str],
    tmp_path: Path,
) -> None:
    """``packet``: the port stays free for the other one, whenever it starts, stops and starts again."""
    testbed = testbed_with(kea=KEA)
    client = client_in(testbed, *packet)
    client.start()
    client.wait_bound()
    for life in ("first", "second"):
        with other(testbed, tmp_path / life) as neighbour:
            neighbour.wait_bound()
            client.command("renew")
            number = 2 if life == "first" else 3
            wait_until(lambda n=number: client.status()["counters"]["received-ack"] >= n, 10, "our renewal")  # type: ignore[misc]
            neighbour.wait_replies(2)
    works(testbed)


def test_a_prefix_for_each(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client], tmp_path: Path
) -> None:
    """Both ask for a prefix: two identities, two prefixes."""
    testbed = testbed_with(kea=KEA)
    config = tmp_path / "prefix.toml"
    config.write_text('[dhcp6]\nmode = "prefix"\n')
    with networkd(testbed, tmp_path / "other") as neighbour:
        neighbour.wait_bound()
        client = client_in(testbed, "--config", str(config))
        client.start()
        (lease,) = client.wait_bound()["provisioning"]["leases"]
        assert f"delegated prefix {lease['network']}" not in neighbour.text
        assert "received delegated prefix 2001:db8:100:" in neighbour.text
        neighbour.wait_replies(2)


# ---- the socket itself


@contextlib.contextmanager
def listening(testbed: Testbed) -> Iterator[tuple[PacketSocket, list[tuple[bytes, IPv6Address]], Callable[[], None]]]:
    """A PacketSocket on the CPE's WAN, what it heard, and a turn of its loop."""
    loop = asyncio.new_event_loop()
    heard: list[tuple[bytes, IPv6Address]] = []
    with testbed.cpe.entered():
        sock = PacketSocket(loop, "wan", lambda data, source: heard.append((data, source)))
    try:
        yield sock, heard, lambda: loop.run_until_complete(asyncio.sleep(0.2))
    finally:
        sock.close()
        loop.close()


@contextlib.contextmanager
def isp_socket(testbed: Testbed, port: int = 0) -> Iterator[socket.socket]:
    with testbed.isp.entered():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(2)
        sock.bind((str(ISP_WAN.ip), port))
        yield sock


def test_only_what_is_for_port_546_and_whole(testbed: Testbed) -> None:
    """An answer of several fragments comes whole; other ports do not even wake us."""
    with listening(testbed) as (_, heard, turn), isp_socket(testbed) as server:
        for port, data in ((547, b"no"), (546, b"x" * 5000), (5460, b"no"), (546, b"y")):
            server.sendto(data, (str(CPE_WAN.ip), port))
        turn()
        assert heard == [(b"x" * 5000, ISP_WAN.ip), (b"y", ISP_WAN.ip)]


def test_what_we_send_is_a_datagram_like_any_other(testbed: Testbed) -> None:
    """From port 546 to 547, with a checksum that the receiver accepts, fragmented where it must be."""
    testbed.kea.stop()
    try:
        with listening(testbed) as (ours, _, _), isp_socket(testbed, 547) as server:
            for data in (b"hello", b"z" * 4000):
                ours.send(data, ISP_WAN.ip, CPE_WAN.ip)
                assert server.recvfrom(9000)[:2][0] == data
            ours.send(b"port", ISP_WAN.ip, CPE_WAN.ip)
            assert server.recvfrom(9000)[1][:2] == (str(CPE_WAN.ip), 546)
    finally:
        testbed.kea.start(testbed.settings.kea)


def test_nobody_is_told_that_the_port_is_unreachable(testbed: Testbed) -> None:
    with listening(testbed) as (ours, heard, turn), isp_socket(testbed) as server:
        server.connect((str(CPE_WAN.ip), 546))
        server.send(b"1")
        with pytest.raises(ConnectionRefusedError):
            server.recv(1)
        with testbed.cpe.entered():
            ours.guard((CPE_WAN.ip,))
        server.send(b"2")
        server.settimeout(0.5)
        with pytest.raises(TimeoutError):
            server.recv(1)
        turn()
        assert [data for data, _ in heard] == [b"1", b"2"]


def test_the_guard_gives_way(testbed: Testbed) -> None:
    """Where somebody listens it does nothing; who comes later and shares the port can; without the address it goes."""
    with listening(testbed) as (ours, _, _), testbed.cpe.entered():
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as first:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            first.bind(("::", 546))
            ours.guard((CPE_WAN.ip,))
            assert not ours._guards
        ours.guard((CPE_WAN.ip,))
        assert list(ours._guards) == [CPE_WAN.ip]
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as later:
            later.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            later.bind((str(CPE_WAN.ip), 546))
        ours.guard(())
        assert not ours._guards


def test_a_wrong_checksum_is_dropped(testbed: Testbed) -> None:
    from scapy.layers.inet import UDP
    from scapy.layers.inet6 import IPv6

    with listening(testbed) as (_, heard, turn):
        with testbed.isp.entered():
            raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with raw:
            for checksum, data in ((None, b"right"), (0x1234, b"wrong")):
                packet = IPv6(src=str(ISP_WAN.ip), dst=str(CPE_WAN.ip)) / UDP(sport=547, dport=546) / data
                if checksum is not None:
                    packet[UDP].chksum = checksum
                raw.sendto(bytes(packet), (str(CPE_WAN.ip), 0))
        turn()
        assert [data for data, _ in heard] == [b"right"]
