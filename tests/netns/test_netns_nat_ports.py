"""Every port of the set is usable at once, and under churn; what has no port is refused at once; nothing else leaves.

The sets with ``full`` in their name are slow: ``tests/run --all`` runs them.
"""

from __future__ import annotations

import errno
import random
import resource
import socket
from collections.abc import Iterator

import pytest
from natbed import FAR, PORT, FarServer, NatBed, hear, plan_of, serving

from b4client.model.portset import PortSet

SURPLUS = 24
HEARD = {errno.EHOSTUNREACH, errno.ECONNREFUSED}
FULL = pytest.mark.slow
SETS = [
    pytest.param(PortSet(0, 8, 0x34), id="one range of 256"),
    pytest.param(PortSet(4, 8, 0x34), id="15 ranges of 16"),
    pytest.param(PortSet(6, 10, 0x155), id="63 ranges of one port"),
    pytest.param(PortSet(0, 6, 13), id="one range of 1024"),
    pytest.param(PortSet(6, 8, 0x34), id="full: 63 ranges of 4", marks=FULL),
    pytest.param(PortSet(4, 6, 20), id="full: 15 ranges of 64", marks=FULL),
    pytest.param(PortSet(6, 6, 20), id="full: 63 ranges of 16", marks=FULL),
    pytest.param(PortSet(4, 4, 9), id="full: 15 ranges of 256", marks=FULL),
]


@pytest.fixture(scope="module")
def bed(prefix: str) -> Iterator[NatBed]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, max(20_000, before[1])))
    bed = NatBed(prefix)
    bed.build()
    yield bed
    bed.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def far(bed: NatBed) -> Iterator[FarServer]:
    with serving(bed) as server:
        yield server
    bed.drop_sockets()


def load(bed: NatBed, ports: PortSet, *, recirculation: bool = True) -> None:
    bed.load(plan_of(ports, recirculation=recirculation), ports)


def assert_inside(bed: NatBed) -> None:
    """Not one packet with a foreign source came to the far side, and the guard had nothing to do."""
    wrong, seen = bed.judged()
    assert seen
    assert wrong == 0
    assert bed.counter("guard_drop") == 0


@pytest.mark.parametrize("ports", SETS)
def test_tcp_takes_the_whole_set_at_once(bed: NatBed, far: FarServer, ports: PortSet) -> None:
    load(bed, ports)
    outcomes = bed.connect(ports.port_count + SURPLUS)
    assert sum(o.immediate for o in outcomes) == ports.port_count
    assert far.ports(ports.port_count) == set(ports.ports())
    surplus = [o for o in outcomes if o.error]
    assert len(surplus) == SURPLUS
    assert {o.error for o in surplus} == HEARD  # ICMP errors, and resets above their rate
    assert bed.counter("exhausted") >= 1
    assert bed.counter("exhausted") + bed.counter("refused") >= SURPLUS
    assert_inside(bed)


@pytest.mark.parametrize("ports", SETS)
def test_udp_takes_the_whole_set_at_once(bed: NatBed, far: FarServer, ports: PortSet) -> None:
    load(bed, ports)
    heard = hear(bed.send(ports.port_count + SURPLUS), 1.0)
    answers = [text for text in heard.values() if isinstance(text, bytes)]
    assert len(set(answers)) == len(answers) == ports.port_count
    assert [e for e in heard.values() if isinstance(e, int)] == [errno.EHOSTUNREACH] * SURPLUS
    assert_inside(bed)


@pytest.mark.parametrize("ports", SETS)
def test_echo_identifiers_take_the_whole_set_at_once(bed: NatBed, ports: PortSet) -> None:
    load(bed, ports)
    heard = hear(bed.ping(ports.port_count + SURPLUS), 1.0)
    assert sum(isinstance(v, bytes) for v in heard.values()) == ports.port_count
    assert_inside(bed)


@pytest.mark.parametrize("percent", [70, 90, 98])
@pytest.mark.parametrize("ports", [PortSet(0, 8, 0x34), PortSet(4, 8, 0x34)], ids=str)
def test_churn(bed: NatBed, far: FarServer, ports: PortSet, percent: int) -> None:
    """Towards one destination, with most of the set in use: one connection goes, another comes, and is up at once."""
    load(bed, ports)
    chance = random.Random(percent)
    up = bed.connect(ports.port_count * percent // 100)
    assert all(o.immediate for o in up)
    for _ in range(100):
        gone = up.pop(chance.randrange(len(up)))
        bed.end(gone.socket)
        up += bed.connect(1)
    assert [o for o in up if not o.immediate] == []
    assert bed.counter("exhausted") == 0
    assert_inside(bed)


@pytest.mark.parametrize("ports", [PortSet(0, 8, 0x34), PortSet(4, 8, 0x34)], ids=str)
def test_short_connections_do_not_wait_for_old_ones(bed: NatBed, far: FarServer, ports: PortSet) -> None:
    """More connections than ports one after the other: the ports of closed ones are taken over, no timeout is awaited.

    By the kernel's rule only a connection with an earlier sequence number gives its port up, one of two on average.
    """
    load(bed, ports)
    outcomes = []
    for _ in range(2 * ports.port_count):
        outcomes += bed.connect(1)
        outcomes[-1].socket.close()
    assert [o for o in outcomes if not o.immediate] == []
    assert_inside(bed)


def test_whole_set_towards_each_of_ten_destinations(bed: NatBed, far: FarServer) -> None:
    ports = PortSet(4, 8, 0x34)
    load(bed, ports)
    for to in FAR:
        assert all(o.immediate for o in bed.connect(ports.port_count, to))
    assert far.ports(ports.port_count * len(FAR)) == set(ports.ports())
    assert_inside(bed)


@pytest.mark.parametrize("ports", [PortSet(0, 8, 0x34), PortSet(4, 8, 0x34)], ids=str)
def test_this_machine_takes_the_whole_set_too(bed: NatBed, far: FarServer, ports: PortSet) -> None:
    load(bed, ports)
    outcomes = bed.connect(ports.port_count + SURPLUS, where=bed.cpe)
    assert sum(o.immediate for o in outcomes) == ports.port_count
    assert {o.error for o in outcomes if o.error} <= HEARD
    assert far.ports(ports.port_count) == set(ports.ports())
    assert_inside(bed)


def test_udp_of_this_machine_stays_inside(bed: NatBed, far: FarServer) -> None:
    """One try each, of a hashed range: most get a port; none is duplicated or outside."""
    ports = PortSet(4, 8, 0x34)
    load(bed, ports)
    heard = hear(bed.send(100, where=bed.cpe), 0.5)
    answers = [text for text in heard.values() if isinstance(text, bytes)]
    assert len(answers) == len(set(answers)) >= 90
    assert_inside(bed)


def test_one_socket_keeps_one_port_towards_all_peers(bed: NatBed, far: FarServer) -> None:
    """Endpoint-independent mapping (RFC 4787 REQ-1)."""
    load(bed, PortSet(4, 8, 0x34))
    s = bed.socket(bed.lan, socket.SOCK_DGRAM)
    s.bind(("192.168.1.10", 45_678))
    for to in FAR:
        s.sendto(b"who am I?", (to, PORT))
    heard = set()
    s.settimeout(1)
    for _ in FAR:
        heard.add(s.recv(100))
    assert len(heard) == 1
    assert_inside(bed)


def test_fallback_without_the_loop(bed: NatBed, far: FarServer) -> None:
    """One try per packet: every connection comes up in the end, a good part only after a retransmission."""
    ports = PortSet(4, 8, 0x34)
    load(bed, ports, recirculation=False)
    outcomes = bed.connect(200)
    assert sum(o.immediate for o in outcomes) > 120
    assert_inside(bed)


def test_the_loop_down_is_the_fallback(bed: NatBed, far: FarServer) -> None:
    """Someone takes the loop's interface down: new flows have one try each; nothing leaves that should not."""
    ports = PortSet(4, 8, 0x34)
    load(bed, ports)
    bed.cpe.run("ip", "link", "set", "b4-n0", "down")
    try:
        outcomes = bed.connect(150)
        assert sum(o.immediate for o in outcomes) > 75
        assert_inside(bed)
    finally:
        bed.cpe.run("ip", "link", "set", "b4-n0", "up")


def test_users_marks_and_the_packet_itself_come_through_retries(bed: NatBed, far: FarServer) -> None:
    """fwmark, DSCP, TTL and DF of a first packet are the same after any number of tries."""
    ports = PortSet(6, 10, 0x155)  # one port per range: most flows need many tries
    load(bed, ports)
    bed.cpe.run(
        "nft",
        "-f",
        "-",
        text="""
        table ip user
        delete table ip user
        table ip user {
          counter other { }
          chain before { type filter hook prerouting priority mangle - 10; iifname lan0 meta mark set 0xffffffff; }
          chain after {
            type filter hook postrouting priority 200;
            oifname b4 meta mark != 0xffffffff counter name other
            oifname b4 ip ttl != 63 counter name other
            oifname b4 ip dscp != ef counter name other
            oifname b4 ip frag-off & 0x4000 == 0 udp length 18 counter name other
            oifname b4 ip frag-off & 0x4000 != 0 udp length 28 counter name other
          }
        }
        """,
    )
    try:
        sockets = []
        for i in range(ports.port_count):
            s = bed.socket(bed.lan, socket.SOCK_DGRAM)
            s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 46 << 2)
            s.setsockopt(socket.IPPROTO_IP, 10, 2 if i % 2 else 0)  # IP_MTU_DISCOVER: DO or DONT
            s.connect((FAR[0], PORT))
            s.send(bytes(10 if i % 2 else 20))
            sockets.append(s)
        assert len(hear(sockets, 1)) == ports.port_count
        assert bed.counter("retries") > ports.port_count
        assert '"packets": 0' in bed.cpe.run("nft", "-j", "list", "counter", "ip", "user", "other").stdout
    finally:
        bed.cpe.run("nft", "delete", "table", "ip", "user")
    assert_inside(bed)


def test_fragments_of_a_first_datagram_survive_retries(bed: NatBed, far: FarServer) -> None:
    """A datagram that the LAN sent in fragments is reassembled for NAT, copied whole, and fragmented again."""
    ports = PortSet(6, 10, 0x155)
    load(bed, ports)
    sockets = []
    for _ in range(ports.port_count):
        s = bed.socket(bed.lan, socket.SOCK_DGRAM)
        s.setsockopt(socket.IPPROTO_IP, 10, 0)
        s.connect((FAR[0], PORT))
        s.send(bytes(4000))
        sockets.append(s)
    assert sum(isinstance(v, bytes) for v in hear(sockets, 1).values()) == ports.port_count


def test_exhaustion_is_logged_at_a_bounded_rate(bed: NatBed, far: FarServer) -> None:
    ports = PortSet(6, 10, 0x155)
    load(bed, ports)
    bed.connect(ports.port_count)
    sockets = bed.send(ports.port_count + 1, FAR[1])
    for to in FAR[2:]:
        sockets += bed.send(ports.port_count + 1, to)
    assert bed.counter("exhausted") == len(FAR) - 1
    rules = bed.cpe.run("nft", "list", "chain", "ip", "b4client_b4", "exhausted").stdout
    assert 'limit rate 1/minute burst 3 packets log prefix "b4client b4: port set exhausted: "' in rules


def test_a_translation_of_the_users_is_not_copied(bed: NatBed, far: FarServer) -> None:
    """A flow whose destination another NAT rule rewrote would not be known again by its copy: it has one try."""
    ports = PortSet(4, 8, 0x34)
    load(bed, ports)
    bed.cpe.run(
        "nft",
        "-f",
        "-",
        text=f"""
        table ip user {{
          chain to {{ type nat hook prerouting priority dstnat - 5; ip daddr {FAR[9]} dnat to {FAR[0]}; }}
        }}
        """,
    )
    try:
        outcomes = bed.connect(60, FAR[9])
        assert sum(o.immediate for o in outcomes) > 40
        up = sum(not o.error for o in outcomes)
        assert len(far.ports(up)) == len(far.peers) == up
        assert bed.counter("retries") == 0
    finally:
        bed.cpe.run("nft", "delete", "table", "ip", "user")
    assert_inside(bed)
