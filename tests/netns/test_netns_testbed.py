"""The testbed itself: up, down, twice, side by side; the machine's own network untouched; Kea and lwAFTR at work."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP, fragment

from b4client.lab.kea import KeaSettings
from b4client.lab.netns import NETNS_DIR, LabError, Namespace, ip, wait_until
from b4client.lab.testbed import (
    BASE_DIR,
    BR,
    CPE_WAN,
    ISP_WAN,
    KEA_IPV4,
    NODES,
    SERVER,
    Testbed,
    TestbedSettings,
    parse_portparams,
    softwire_address,
)
from b4client.lab.traffic import PORT, Server
from b4client.model.errors import ControlError
from b4client.model.portset import PortSet
from b4client.wire import dhcp4, dhcp4o6, dhcp6, softwire46
from b4client.wire.identity import client_identifier, duid_ll

MULTICAST = "ff02::1:2"
CLIENT_ID = client_identifier(1, duid_ll(1, bytes.fromhex("020000000001")))


# ---- a hand-made client


class HandMade:
    """A DHCP client without a mind: sends what it is told, returns the next answer."""

    def __init__(self, namespace: Namespace) -> None:
        with namespace.entered():
            self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self._socket.bind(("::", 546))
            self._index = socket.if_nametoindex("wan")
        self._socket.settimeout(5)

    def ask(self, message: bytes, to: str) -> bytes:
        self._socket.sendto(message, (to, 547, 0, self._index if to == MULTICAST else 0))
        return self._socket.recv(65535)

    def information(self) -> dhcp6.Dhcp6Message:
        request = dhcp6.Dhcp6Message(
            dhcp6.MessageType.INFORMATION_REQUEST, 0x123456, ((8, b"\0\0"), (6, dhcp6.encode_oro([88, 94, 96, 32, 83])))
        )
        return dhcp6.decode(self.ask(dhcp6.encode(request), MULTICAST))

    def dhcp(self, kind: int, to: str, *options: tuple[int, bytes]) -> dhcp4.Dhcp4Message:
        message = dhcp4.Dhcp4Message(
            op=1,
            xid=0x46464646,
            chaddr=bytes.fromhex("020000000001"),
            options=((53, bytes([kind])), (61, CLIENT_ID), (55, b"\x9f\x33\x36"), *options),
        )
        answer = self.ask(dhcp4o6.encode_query(dhcp4.encode(message), unicast=False), to)
        return dhcp4.decode(dhcp4o6.decode(answer).dhcp4)

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def hand_made(testbed: Testbed) -> Iterator[HandMade]:
    client = HandMade(testbed.cpe)
    try:
        yield client
    finally:
        client.close()


def lease(client: HandMade, to: str) -> dhcp4.Dhcp4Message:
    offer = client.dhcp(1, to)
    assert offer.message_type == 2
    chosen = [(50, offer.yiaddr.packed), (54, offer.get(54) or b"")]
    ports = offer.get(159)
    return client.dhcp(3, to, *chosen, *([(159, ports)] if ports else []))


@pytest.mark.kea
def test_kea_leases_a_shared_address(testbed: Testbed) -> None:
    testbed.kea.restart(testbed.settings.kea)  # another test's client may have its one address
    with hand_made(testbed) as client:
        reply = client.information()
        assert dhcp4o6.decode_servers(reply.get(88) or b"") == (ISP_WAN.ip,)
        assert softwire46.decode_lw4o6(reply.get(96) or b"").brs == (BR,)
        assert reply.get(94) is None
        ack = lease(client, str(ISP_WAN.ip))
        assert ack.message_type == 5
        assert ack.yiaddr == IPv4Address("192.0.2.18")
        assert softwire46.decode_portparams(ack.get(159) or b"").port_set() == PortSet(0, 8, 0x34)
        assert dhcp4.address_option(ack, 54) == KEA_IPV4
        assert [dhcp4.seconds_option(ack, code) for code in (51, 58, 59)] == [600, 300, 525]


@pytest.mark.kea
def test_kea_as_otherwise_set(testbed_with: Callable[..., Testbed]) -> None:
    ports = PortSet(4, 8, 0x14)
    kea = KeaSettings(
        first=IPv4Address("192.0.2.44"),
        last=IPv4Address("192.0.2.44"),
        ports=ports,
        option88="multicast",
        container="map-e",
        refresh_time=700,
        valid_lifetime=60,
        renew_timer=None,
        rebind_timer=None,
        authoritative=True,
    )
    testbed = testbed_with(kea=kea)
    with hand_made(testbed) as client:
        reply = client.information()
        assert reply.get(88) == b""
        container = softwire46.decode_mape(reply.get(94) or b"")
        assert container.brs == (BR,)
        assert [str(rule.rule_ipv4) for rule in container.rules] == ["192.0.2.44/32"]
        assert container.rules[0].rule_ipv6 == IPv6Network("2001:db8:46::/64")
        assert container.rules[0].ea_len == 0
        assert dhcp6.decode_seconds(reply.get(32) or b"") == 700
        # INIT-REBOOT for somebody else's address: NAK because Kea is authoritative.
        assert client.dhcp(3, MULTICAST, (50, bytes([192, 0, 2, 45]))).message_type == 6
        ack = lease(client, MULTICAST)
        assert softwire46.decode_portparams(ack.get(159) or b"").port_set() == ports
        assert [dhcp4.seconds_option(ack, code) for code in (51, 58, 59)] == [60, None, None]


@pytest.mark.kea
def test_kea_without_option_88_and_sharing_and_with_binding_prefix(testbed_with: Callable[..., Testbed]) -> None:
    kea = KeaSettings(ports=None, option88="none", bind_prefix=IPv6Network("2001:db8:46::/64"))
    testbed = testbed_with(kea=kea)
    with hand_made(testbed) as client:
        reply = client.information()
        assert reply.get(88) is None
        container = softwire46.decode_lw4o6(reply.get(96) or b"")
        assert container.binding is not None
        assert container.binding.prefix == IPv6Network("2001:db8:46::/64")
        ack = lease(client, str(ISP_WAN.ip))
        assert ack.get(159) is None


@pytest.mark.kea
def test_kea_restarted_answers_again_and_broken_settings_are_told(testbed: Testbed) -> None:
    testbed.kea.restart(testbed.settings.kea)
    with hand_made(testbed) as client:
        assert lease(client, str(ISP_WAN.ip)).message_type == 5
    testbed.kea.stop()
    assert not testbed.kea.running
    with pytest.raises(LabError, match=r"(?s)kea-dhcp4 ended at once; what it said:\n.*pool"):
        testbed.kea.start(replace(testbed.settings.kea, first=IPv4Address("198.51.100.1")))
    testbed.kea.start(testbed.settings.kea)
    assert testbed.is_up


# ---- the lwAFTR, with a hand-made softwire


SILENCE = """table ip6 silence { chain output { type filter hook output priority filter;
icmpv6 type destination-unreachable icmpv6 code port-unreachable drop; }; }"""
"""A kernel with ip6_tunnel answers what belongs to none of its tunnels, although a raw socket took it."""


@pytest.fixture
def softwire(testbed: Testbed) -> Iterator[socket.socket]:
    testbed.cpe.run("nft", "-f", "-", text=SILENCE)
    with testbed.cpe.entered():
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 4)
    with raw:
        raw.bind((str(CPE_WAN.ip), 0))
        raw.connect((str(BR), 0))
        raw.settimeout(5)
        yield raw
    testbed.cpe.run("nft", "delete", "table", "ip6", "silence")


def counted(testbed: Testbed, before: dict[str, int], **expected: int) -> Callable[[], bool]:
    """True once the lwAFTR's counters have grown by exactly ``expected`` since ``before``."""

    def look() -> bool:
        now = testbed.aftr_counters()
        grown = {name.replace("-", "_"): value - before.get(name, 0) for name, value in now.items()}
        return {name: value for name, value in grown.items() if value} == expected

    return look


IN_SET, OUTSIDE = 13312, 13568


def test_lwaftr_carries_what_is_bound(testbed: Testbed, softwire: socket.socket) -> None:
    before = testbed.aftr_counters()
    with Server(testbed.srv) as server:
        softwire.send(bytes(IP(src="192.0.2.18", dst=str(SERVER)) / UDP(sport=IN_SET, dport=PORT) / b"hello"))
        back = IP(softwire.recv(65535))
        assert (back.src, back.dst, back[UDP].dport) == (str(SERVER), "192.0.2.18", IN_SET)
        assert bytes(back[UDP].payload) == b"hello"
        assert server.connections == [("UDP", "192.0.2.18", IN_SET)]
    wait_until(counted(testbed, before, decapsulated=1, encapsulated=1), 5, "the counters")


def test_lwaftr_stops_what_is_not(testbed: Testbed, softwire: socket.socket) -> None:
    before = testbed.aftr_counters()
    with Server(testbed.srv) as server:
        for packet in (
            IP(src="192.0.2.18", dst=str(SERVER)) / UDP(sport=OUTSIDE, dport=PORT) / b"x",
            IP(src="192.0.2.18", dst=str(SERVER)) / ICMP(id=7) / b"x",
            IP(src="192.0.2.19", dst=str(SERVER)) / UDP(sport=IN_SET, dport=PORT) / b"x",
        ):
            softwire.send(bytes(packet))
        wait_until(
            counted(testbed, before, drop_outside_port_set=2, drop_foreign_ipv4_address=1), 5, "three drops, by name"
        )
        assert server.seen == []


def test_lwaftr_fragments(testbed: Testbed, softwire: socket.socket) -> None:
    whole = IP(src="192.0.2.18", dst=str(SERVER), id=99) / UDP(sport=IN_SET + 1, dport=PORT) / (b"long" * 700)
    with Server(testbed.srv):
        for part in fragment(whole, fragsize=1400):
            softwire.send(bytes(part))
        # The answer's inner packets may be fragments as well, and the outer ones too: the kernel joins the outer.
        parts = [IP(softwire.recv(65535))]
        while parts[-1].flags & 1:
            parts.append(IP(softwire.recv(65535)))
    assert sum(part.len - part.ihl * 4 for part in parts) == 8 + 2800


def test_lwaftr_bindings_change_while_it_runs(testbed: Testbed, softwire: socket.socket) -> None:
    binding = f"192.0.2.77,a=0,k=8,psid=0x1,b4={CPE_WAN.ip}"
    testbed.aftr_call("bind", binding=binding)
    assert binding in testbed.aftr_call("bindings")["bindings"]
    with pytest.raises(ControlError, match="overlaps"):
        testbed.aftr_call("bind", binding="192.0.2.77,b4=2001:db8::5")
    with Server(testbed.srv):
        softwire.send(bytes(IP(src="192.0.2.77", dst=str(SERVER)) / UDP(sport=256, dport=PORT) / b"x"))
        assert IP(softwire.recv(65535)).dst == "192.0.2.77"
    testbed.aftr_call("unbind", binding=binding)
    assert binding not in testbed.aftr_call("bindings")["bindings"]
    with pytest.raises(ControlError, match="unknown command"):
        testbed.aftr_call("dance")


def test_lwaftr_rejects_with_icmpv6_when_told(testbed_with: Callable[..., Testbed]) -> None:
    testbed = testbed_with(reject=True)
    with testbed.cpe.entered():
        icmp = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 4)
    inner = bytes(IP(src="192.0.2.18", dst=str(SERVER)) / UDP(sport=OUTSIDE, dport=PORT) / b"x")
    with icmp, raw:
        icmp.settimeout(5)
        raw.bind((str(CPE_WAN.ip), 0))
        raw.sendto(inner, (str(BR), 0))
        while True:
            message, source = icmp.recvfrom(2000)
            if message[0] == 1:
                break
        assert source[0] == str(BR)
        assert message[:2] == b"\x01\x05"
        quoted = message[8:]
        assert (quoted[6], quoted[8:24], quoted[24:40]) == (4, CPE_WAN.ip.packed, BR.packed)
        assert quoted[40:] == inner


# ---- up and down


def test_up_twice_changes_nothing(testbed: Testbed) -> None:
    assert testbed.is_up
    before = {node: namespace.pids() for node, namespace in testbed.nodes.items()}
    assert testbed.up() is False
    assert {node: namespace.pids() for node, namespace in testbed.nodes.items()} == before


def everything_of(namespace: Namespace) -> dict[str, str]:
    """Links, addresses, routes, rules, neighbours' settings, packet filter and sysctls of a namespace."""
    commands = ("ip -d link", "ip addr", "ip route show table all", "ip rule", "ip -6 rule", "nft list ruleset")
    found = {command: namespace.run(*command.split()).stdout for command in commands}
    # Lifetimes count down and indexes of peers are no setting.
    found = {k: re.sub(r"(valid_lft|preferred_lft) \w+", "", v) for k, v in found.items()}
    with namespace.entered():
        for path in Path("/proc/sys/net").rglob("*"):
            if path.is_file() and not re.search(r"_count$|/unix/|/core/", str(path)):
                with contextlib.suppress(OSError):
                    found[str(path)] = path.read_text(errors="replace")
    return found


@pytest.fixture
def machine(prefix: str) -> Iterator[Namespace]:
    """A namespace that plays the machine whose network must not be touched: the scripts are started in it."""
    namespace = Namespace(f"{prefix}-machine")
    ip("netns", "add", namespace.name)
    for command in ("link set lo up", "link add e type veth peer name f", "addr add 192.0.2.200/24 dev e"):
        ip("-n", namespace.name, *command.split())
    yield namespace
    ip("netns", "delete", namespace.name)


def lab(machine: Namespace, prefix: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # nsenter and not "ip netns exec": what the scripts mount under /run/netns must be seen from here.
    return subprocess.run(
        ["nsenter", f"--net={machine.path}", sys.executable, "-m", "b4client.lab", *arguments],
        env={**os.environ, "B4_PREFIX": prefix},
        capture_output=True,
        text=True,
        timeout=100,
    )


def runs(pid: int) -> bool:
    try:
        # A zombie that its parent has yet to collect has no command line.
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def test_scripts_leave_nothing_and_touch_nothing(machine: Namespace, prefix: str) -> None:
    other = f"{prefix}x"
    before = everything_of(machine)
    done = lab(machine, other, "up", "--portparams", "6, 0x34/8")
    assert done.returncode == 0, done.stderr
    assert "192.0.2.18,a=6,k=8,psid=0x34,b4=2001:db8:46::100" in done.stdout
    assert everything_of(machine) == before
    again = lab(machine, other, "up", "--portparams", "6, 0x34/8")
    assert "up already" in again.stdout
    status = json.loads(lab(machine, other, "status").stdout)
    assert status["kea-running"] is True
    processes = [pid for pids in status["processes"].values() for pid in pids]
    assert len(processes) == 3
    assert "192.168.1.10" in lab(machine, other, "exec", "lan", "ip", "addr").stdout
    # Other settings: built anew.
    rebuilt = lab(machine, other, "up", "--portparams", "none")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "192.0.2.18,b4=" in rebuilt.stdout
    status = json.loads(lab(machine, other, "status").stdout)
    processes += [pid for pids in status["processes"].values() for pid in pids]
    for _ in range(2):
        done = lab(machine, other, "down")
        assert (done.returncode, done.stderr) == (0, "")
    assert not [p for p in NETNS_DIR.iterdir() if p.name.startswith(f"{other}-")]
    assert not (BASE_DIR / other).exists()
    assert not [pid for pid in processes if runs(pid)]
    assert everything_of(machine) == before
    assert "no testbed" in lab(machine, other, "status").stderr


def test_half_built_is_taken_away(prefix: str) -> None:
    """Whatever was there when an ``up`` was killed in the middle, the next one builds, and ``down`` clears."""
    testbed = Testbed(TestbedSettings(prefix=f"{prefix}h"))
    testbed.directory.mkdir(parents=True)
    for node in NODES[:3]:
        ip("netns", "add", testbed.nodes[node].name)
    assert not testbed.is_up
    assert testbed.up() is True
    assert testbed.is_up
    testbed.down()
    assert not any(namespace.exists for namespace in testbed.nodes.values())


def test_foreign_namespaces_are_left_alone(prefix: str) -> None:
    testbed = Testbed(TestbedSettings(prefix=f"{prefix}f"))
    ip("netns", "add", testbed.lan.name)
    try:
        with pytest.raises(LabError, match=r"not this laboratory's.*B4_PREFIX"):
            testbed.up()
        testbed.down()
        assert testbed.lan.exists
    finally:
        ip("netns", "delete", testbed.lan.name)
    assert not testbed.directory.exists()


def test_a_failed_up_leaves_nothing(prefix: str) -> None:
    kea = KeaSettings(first=IPv4Address("203.0.113.1"), last=IPv4Address("203.0.113.1"))
    testbed = Testbed(TestbedSettings(prefix=f"{prefix}k", kea=kea))
    with pytest.raises(LabError, match="kea-dhcp4 ended at once"):
        testbed.up()
    assert not any(namespace.exists for namespace in testbed.nodes.values())
    assert not testbed.directory.exists()


def test_capture_of_an_interface_that_is_not_there(testbed: Testbed, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="tcpdump ended at once"):
        testbed.capture("cpe", "nosuch", tmp_path / "x.pcap")


@pytest.mark.parametrize("prefix_", ["", "B4", "a/b", "x" * 21, "-a"])
def test_prefix_that_is_no_name(prefix_: str) -> None:
    with pytest.raises(LabError, match="B4_PREFIX"):
        TestbedSettings(prefix=prefix_)


def test_portparams_as_text() -> None:
    assert parse_portparams("4, 0x14/8") == PortSet(4, 8, 0x14)
    assert parse_portparams("0,52/8") == PortSet(0, 8, 0x34)
    assert parse_portparams("none") is None
    for text in ("", "4", "0, 256/8", "16, 1/4", "0x4, 1/8", "0, 1/8 "[:-2]):
        with pytest.raises(LabError, match="port parameters"):
            parse_portparams(text)


def test_where_the_softwire_ends() -> None:
    assert softwire_address(KeaSettings()) == CPE_WAN.ip
    # RFC 7597 Appendix A example 5.
    rule = KeaSettings(ports=PortSet(6, 8, 0x34), container="map-e", map_rule_ipv6=IPv6Network("2001:db8:12:3400::/56"))
    assert softwire_address(rule) == IPv6Address("2001:db8:12:3400:0:c000:212:34")
    unshared = replace(rule, ports=None, container="lw4o6", bind_prefix=IPv6Network("2001:db8:12:3400::/64"))
    assert softwire_address(unshared) == IPv6Address("2001:db8:12:3400:0:c000:212:0")
