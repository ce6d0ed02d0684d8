"""The data plane's NAT in the kernel's life: made once, adopted, mended, taken away; fallen back; flushed exactly."""

from __future__ import annotations

import errno
import logging
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from b4client.dataplane import conntrack
from b4client.dataplane.apply import Dataplane
from b4client.dataplane.plan import NOT_SHARED, ONE_TRY, RECIRCULATION
from b4client.lab.netns import Namespace, ip, ip_batch, wait_until
from b4client.model.errors import DataplaneError
from b4client.model.portset import PortSet
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation, Mode, SoftwireConfig

pytestmark = pytest.mark.softwire
ETH_P_ALL = 3
CONFIG = SoftwireConfig(
    Mode.LW4O6,
    "wan",
    IPv6Address("2001:db8::1"),
    IPv6Address("2001:db8::2"),
    IPv4Address("192.0.2.1"),
    PortSet(4, 8, 0x34),
)


@pytest.fixture
def cpe(prefix: str) -> Iterator[Namespace]:
    """A machine with a WAN, as it is before us."""
    namespace = Namespace(f"{prefix}-apply")
    ip("netns", "add", namespace.name)
    ip_batch(
        namespace.name,
        (
            "link set lo up",
            "link add wan type veth peer name isp",
            # No addresses that come by themselves while a test looks.
            "link set isp addrgenmode none up",
            "link set wan addrgenmode none up",
            "addr add 2001:db8::1/64 dev wan nodad",
        ),
    )
    with namespace.entered():
        yield namespace
    ip("netns", "del", namespace.name)


@pytest.fixture
def plane(cpe: Namespace, tmp_path: Path) -> Iterator[Callable[..., Dataplane]]:
    """Call it (with settings) for the data plane of a daemon; withdrawn at the end."""
    made: list[Dataplane] = []

    def make(device: str = "b4", **settings: object) -> Dataplane:
        wanted = SoftwireSettings(device=device, encapsulation=Encapsulation.USERSPACE, **settings)  # type: ignore[arg-type]
        made.append(Dataplane(wanted, state_dir=tmp_path))
        return made[-1]

    yield make
    for dataplane in made:
        dataplane.withdraw()
        dataplane.close()


def picture(cpe: Namespace) -> str:
    """All that we could have left: interfaces, addresses, routes, rules."""
    commands = ("ip -br link", "ip -br addr", "ip route show table all", "nft list ruleset")
    return "\n".join(cpe.run(*command.split()).stdout for command in commands)


def test_made_once_adopted_and_taken_away(cpe: Namespace, plane: Callable[..., Dataplane]) -> None:
    wait_until(lambda: "tentative" not in cpe.run("ip", "-6", "addr").stdout, 5, "addresses to settle")
    before = picture(cpe)
    dataplane = plane()
    assert dataplane.install(CONFIG).changed
    assert dataplane.install(CONFIG).nat == RECIRCULATION
    assert not dataplane.install(CONFIG).changed
    indices = cpe.run("ip", "-br", "link").stdout
    assert "b4-n0@b4-n1" in indices
    assert not plane().install(CONFIG).changed  # the next daemon
    assert cpe.run("ip", "-br", "link").stdout == indices
    assert plane().observe().nat == {"design": RECIRCULATION, "problem": None}
    dataplane.withdraw()
    assert picture(cpe) == before


@pytest.mark.parametrize(
    "harm",
    [
        "ip link del b4-n0",
        "ip link set b4-n1 down",
        "ip addr del 192.0.0.8/32 dev b4-n1",
        "ip route del 239.72.0.0/15",
        "sysctl -w net.ipv4.conf.b4-n1.rp_filter=1",
        "nft flush ruleset",
        "nft delete map ip b4client_b4 ranges",
        "nft flush chain ip b4client_b4 guard_softwire",
    ],
)
def test_mended(cpe: Namespace, plane: Callable[..., Dataplane], harm: str) -> None:
    dataplane = plane()
    dataplane.install(CONFIG)
    whole = picture(cpe)
    failed = cpe.run(*harm.split(), check=False).returncode
    if failed:
        assert "map" in harm  # the kernel protects what is in use
        return
    assert dataplane.install(CONFIG).changed
    assert not dataplane.install(CONFIG).changed
    if "link del" not in harm:  # indices are new then
        assert sorted(picture(cpe).split()) == sorted(whole.split())


@pytest.mark.parametrize("ports", [PortSet(4, 8, 0x34), PortSet(6, 8, 0x34)], ids=str)
def test_the_whole_set_leaves_by_a_softwire_that_is_no_ethernet(
    plane: Callable[..., Dataplane], ports: PortSet
) -> None:
    """Every try of every flow finds its way on the real device: nobody answers, but every port of the set is seen."""
    plane().install(replace(CONFIG, ports=ports))
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as wire:
        wire.bind(("b4", ETH_P_ALL))
        wire.settimeout(4)  # a slow machine drops one, and TCP waits a second before it tries again
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(ports.port_count)]
        try:
            for s in sockets:
                s.setblocking(False)
                s.connect_ex(("198.51.100.10", 80))
            seen: set[int] = set()
            while len(seen) < ports.port_count:
                packet = wire.recv(2000)
                assert packet[12:16] == CONFIG.ipv4.packed
                seen.add(int.from_bytes(packet[20:22], "big"))
        finally:
            for s in sockets:
                s.close()
    assert seen == set(ports.ports())


def test_two_softwires_on_one_machine(cpe: Namespace, plane: Callable[..., Dataplane]) -> None:
    """Names that share their first twelve characters, too."""
    first, second = plane("softwire-one-1"), plane("softwire-one-2", route_metric=5)
    first.install(CONFIG)
    second.install(replace(CONFIG, ipv4=IPv4Address("192.0.2.9")))
    assert not first.install(CONFIG).changed
    loops = [line for line in cpe.run("ip", "-br", "link").stdout.splitlines() if "-n0@" in line]
    assert len(loops) == 2
    second.withdraw()
    assert not first.install(CONFIG).changed
    assert first.observe().nat["problem"] is None


def icmp_timeout(cpe: Namespace) -> int:
    return int(cpe.run("sysctl", "-n", "net.netfilter.nf_conntrack_icmp_timeout").stdout)


def test_icmp_queries_are_kept_for_a_minute(cpe: Namespace, plane: Callable[..., Dataplane]) -> None:
    """RFC 5508 REQ-2 [N-6]: what the kernel keeps for less is raised, and put back at the end."""
    before = icmp_timeout(cpe)
    assert before < 60
    dataplane = plane()
    dataplane.install(CONFIG)
    assert icmp_timeout(cpe) == 60
    assert not dataplane.install(CONFIG).changed
    cpe.run("sysctl", "-w", f"net.netfilter.nf_conntrack_icmp_timeout={before}")
    assert dataplane.install(CONFIG).changed
    assert icmp_timeout(cpe) == 60
    dataplane.withdraw()
    assert icmp_timeout(cpe) == before


def test_a_longer_time_for_icmp_queries_is_left_alone(cpe: Namespace, plane: Callable[..., Dataplane]) -> None:
    plane().install(CONFIG)
    cpe.run("sysctl", "-w", "net.netfilter.nf_conntrack_icmp_timeout=90")
    other = plane("b4-2", route_metric=5)
    other.install(replace(CONFIG, ipv4=IPv4Address("192.0.2.9")))
    assert icmp_timeout(cpe) == 90
    other.withdraw()
    assert icmp_timeout(cpe) == 90


def test_a_time_for_icmp_queries_that_cannot_be_set_costs_no_softwire(
    plane: Callable[..., Dataplane], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from b4client.dataplane import sysctl

    write = sysctl.write

    def refuse(path: str, value: str) -> None:
        if "icmp" in path:
            raise DataplaneError(f"set {path} to {value}", "Read-only file system", errno=errno.EROFS)
        write(path, value)

    monkeypatch.setattr(sysctl, "write", refuse)
    dataplane = plane()
    with caplog.at_level(logging.WARNING):
        assert dataplane.install(CONFIG).changed
        assert not dataplane.install(CONFIG).changed
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["ICMP queries are translated for 30 s only"]


def test_falls_back_when_the_loop_cannot_be(
    cpe: Namespace, plane: Callable[..., Dataplane], caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody's interface bears the name: it is left alone, NAT works with one try per packet, and says so once."""
    ip_batch(cpe.name, ("tuntap add dev b4-n0 mode tun",))
    dataplane = plane()
    with caplog.at_level(logging.WARNING):
        assert dataplane.install(CONFIG).nat == ONE_TRY
        assert not dataplane.install(CONFIG).changed
    assert len([r for r in caplog.records if "without recirculation" in r.message]) == 1
    nat = dataplane.observe().nat
    assert nat["design"] == ONE_TRY
    assert "an interface of that name exists (tun)" in str(nat["problem"])
    ip_batch(cpe.name, ("tuntap del dev b4-n0 mode tun",))
    assert dataplane.install(CONFIG).nat == RECIRCULATION
    assert dataplane.observe().nat["problem"] is None


def test_falls_back_when_the_kernel_lacks_a_part(
    cpe: Namespace, plane: Callable[..., Dataplane], monkeypatch: pytest.MonkeyPatch
) -> None:
    from b4client.dataplane import capabilities

    monkeypatch.setattr(capabilities, "_recirculation", lambda: ["chain c { no such statement }"])
    dataplane = plane()
    assert dataplane.probe().recirculation is not None
    assert dataplane.install(CONFIG).nat == ONE_TRY
    assert dataplane.observe().nat["problem"]
    assert "b4-n0" not in cpe.run("ip", "-br", "link").stdout


def test_unshared_address_needs_no_loop(cpe: Namespace, plane: Callable[..., Dataplane]) -> None:
    dataplane = plane()
    dataplane.install(CONFIG)
    assert dataplane.install(replace(CONFIG, ports=None)).nat == NOT_SHARED
    assert "b4-n0" not in cpe.run("ip", "-br", "link").stdout
    assert dataplane.observe().nat == {"design": NOT_SHARED, "problem": None}


def test_failure_leaves_nothing(cpe: Namespace, plane: Callable[..., Dataplane]) -> None:
    """The last step fails, on a default route of the operator's: everything before it is undone."""
    ip_batch(cpe.name, ("addr add 203.0.113.1/24 dev wan", "route add default via 203.0.113.9"))
    before = picture(cpe)
    with pytest.raises(DataplaneError, match="another route like it exists"):
        plane().install(CONFIG)
    assert picture(cpe) == before


def test_failed_change_leaves_the_old_state(
    cpe: Namespace, plane: Callable[..., Dataplane], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataplane = plane()
    dataplane.install(CONFIG)
    before = picture(cpe)

    def fail(*_: object) -> bool:
        raise DataplaneError("route", "no", errno=errno.EPERM)

    with monkeypatch.context() as patched:
        patched.setattr(dataplane, "_route", fail)
        with pytest.raises(DataplaneError):
            dataplane.install(replace(CONFIG, ports=PortSet(4, 8, 0x35), ipv4=IPv4Address("192.0.2.2")))
    assert picture(cpe) == before
    assert not dataplane.install(CONFIG).changed


def entries(*, add: list[tuple[str, str, int, int]] | None = None) -> set[tuple[str, int | None]]:
    """Add conntrack entries (inner address, public address, inner port, public port) and list (public, port)."""
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

    ct = NFCTSocket()
    try:
        for inner, public, sport, port in add or ():
            there = NFCTAttrTuple(saddr=inner, daddr="198.51.100.10", proto=17, sport=sport, dport=53)
            back = NFCTAttrTuple(saddr="198.51.100.10", daddr=public, proto=17, sport=53, dport=port)
            ct.entry("add", timeout=100, tuple_orig=there, tuple_reply=back)
        found = set()
        for entry in ct.dump():
            reply = entry.get_attr("CTA_TUPLE_REPLY")
            address = reply.get_attr("CTA_TUPLE_IP").get_attr("CTA_IP_V4_DST")
            found.add((address, reply.get_attr("CTA_TUPLE_PROTO").get_attr("CTA_PROTO_DST_PORT")))
        return found
    finally:
        ct.close()


def numbered(protocol: int, count: int) -> None:
    """Add so many entries of a protocol without ports, or with (UDP), to 192.0.2.1."""
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

    ct = NFCTSocket()
    try:
        for number in range(count):
            ports = [{"sport": 2000 + number, "dport": 53}, {"sport": 53, "dport": 2000 + number}]
            if protocol != socket.IPPROTO_UDP:
                ports = [{}, {}]
            there = NFCTAttrTuple(saddr="192.168.1.10", daddr="198.51.100.10", proto=protocol, **ports[0])
            back = NFCTAttrTuple(saddr="198.51.100.10", daddr="192.0.2.1", proto=protocol, **ports[1])
            ct.entry("add", timeout=100, tuple_orig=there, tuple_reply=back)
    finally:
        ct.close()


def test_flushes_protocols_without_ports(plane: Callable[..., Dataplane]) -> None:
    dataplane = plane()
    whole = replace(CONFIG, ports=None)
    dataplane.install(whole)
    numbered(41, 1)
    assert entries() == {("192.0.2.1", None)}
    dataplane.install(replace(whole, ipv4=IPv4Address("192.0.2.2")))
    assert entries() == set()


def test_flush_of_a_full_table_needs_no_memory(cpe: Namespace) -> None:
    count = 3000
    with cpe.entered():
        numbered(socket.IPPROTO_UDP, count)
        tracemalloc.start()
        try:
            assert conntrack.flush(IPv4Address("192.0.2.1")) == count
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert entries() == set()
    # A list of them would be ten times as much.
    assert peak < count * 100, peak


def test_flushes_what_is_not_ours_any_more_and_nothing_else(plane: Callable[..., Dataplane]) -> None:
    old, new = 0x1340, 0x1350
    dataplane = plane()
    dataplane.install(CONFIG)
    entries(
        add=[
            ("192.168.1.10", "192.0.2.1", 1000, old),
            ("192.168.1.10", "192.0.2.1", 1001, new),
            ("192.168.1.10", "203.0.113.1", 1002, old),
        ]
    )
    everything = {("192.0.2.1", old), ("192.0.2.1", new), ("203.0.113.1", old)}
    dataplane.install(CONFIG)
    assert entries() == everything
    dataplane.install(replace(CONFIG, ports=PortSet(4, 8, 0x35)))
    assert entries() == everything - {("192.0.2.1", old)}
    dataplane.install(replace(CONFIG, ipv4=IPv4Address("192.0.2.2")))
    assert entries() == {("203.0.113.1", old)}
