"""The stateful DHCPv6 client against Kea: delegated prefixes and addresses, and the softwire that stands on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from exchange import read_dhcp6

from b4client.lab.client import Client
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import ip, wait_until
from b4client.lab.testbed import CPE_WAN, SERVER, Testbed, softwire_address
from b4client.lab.traffic import Server, ping, tcp_transfer, udp_exchange
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import MessageType, Option

pytestmark = pytest.mark.kea

ADDRESS = IPv4Address("192.0.2.18")
POOL, OTHER_POOL = IPv6Network("2001:db8:100::/56"), IPv6Network("2001:db8:180::/56")
"""Each holds one prefix, so that which one is delegated is known."""
NA = IPv6Address("2001:db8:46::200")
CPE_LINK_LOCAL = "fe80::ff:fe46:200"


def first64(pool: IPv6Network) -> IPv6Network:
    return IPv6Network((pool.network_address, 64))


def serving(pool: IPv6Network | None = POOL, **settings: Any) -> KeaSettings:
    """Kea that delegates ``pool`` and ties the softwire to it: the binding prefix is its first /64 (RFC 7596 5.1)."""
    if pool is not None:
        settings.setdefault("bind_prefix", first64(pool))
    return KeaSettings(pd_pool=pool, **settings)


Connect = Callable[..., tuple[Testbed, Client]]


@pytest.fixture
def connect(testbed_with: Callable[..., Testbed], client_in: Callable[..., Client]) -> Connect:
    """Call it with what Kea shall serve and ``dhcp6.mode``, for a testbed and a client that is still to be started."""

    def build(kea: KeaSettings, mode: str = "prefix", b4: IPv6Address | None = None) -> tuple[Testbed, Client]:
        testbed = testbed_with(kea=kea, b4=b4)
        route_back(testbed)
        return testbed, client_in(testbed, "--dhcp6", mode)

    return build


def route_back(testbed: Testbed) -> None:
    """The provider routes what it delegates to the customer."""
    ip("-n", testbed.isp.name, "route", "replace", "2001:db8:100::/40", "via", CPE_LINK_LOCAL, "dev", "wan")


def carry(testbed: Testbed) -> None:
    """Traffic of each kind between the LAN and the server."""
    with Server(testbed.srv):
        ping(testbed.lan, SERVER, 1)
        udp_exchange(testbed.lan, SERVER)
        tcp_transfer(testbed.lan, SERVER, 50_000)


def unreachable(testbed: Testbed) -> list[str]:
    found = json.loads(testbed.cpe.run("ip", "-6", "-j", "route", "show", "type", "unreachable").stdout or "[]")
    return [r["dst"] for r in found if IPv6Network("2001:db8::/32").supernet_of(IPv6Network(r["dst"]))]


def wan_addresses(testbed: Testbed) -> dict[str, int]:
    """Leased addresses on the WAN with the valid lifetime that is left."""
    (link,) = json.loads(testbed.cpe.run("ip", "-6", "-j", "addr", "show", "dev", "wan").stdout)
    return {a["local"]: a["valid_life_time"] for a in link["addr_info"] if a["local"].startswith("2001:db8:46::2")}


def leases(client: Client) -> list[str]:
    return [item["network"] for item in client.status()["provisioning"]["leases"]]


def kinds(file: Path) -> list[MessageType]:
    return [MessageType(m.msg_type) for _, m in read_dhcp6(file)]


def test_a_delegated_prefix_and_the_softwire_in_it(connect: Connect, tmp_path: Path) -> None:
    """SOLICIT to REPLY, the softwire's source in the prefix, traffic, no loop, a release."""
    kea = serving()
    testbed, client = connect(kea)
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        status = client.wait_bound()
        assert leases(client) == [str(POOL)]
        assert status["softwire"]["binding_ipv6_addr"] == str(softwire_address(kea))
        assert unreachable(testbed) == [str(POOL)]
        carry(testbed)
        # RFC 7084 WPD-5: what nobody has inside the prefix ends here instead of going back and forth.
        probe = testbed.isp.run("ping", "-6", "-n", "-c1", "-W2", "2001:db8:100:55::1", check=False).stdout
        assert "Unreachable" in probe or "No route" in probe, probe
        client.stop("release")
    assert kinds(capture.file) == [
        *(MessageType.SOLICIT, MessageType.ADVERTISE, MessageType.REQUEST, MessageType.REPLY),
        *(MessageType.RELEASE, MessageType.REPLY),
    ]
    assert unreachable(testbed) == []


def test_an_address_too(connect: Connect) -> None:
    """IA_NA and IA_PD: the address goes to the WAN with its lifetimes; withdrawn with the daemon, verified by the next
    (a Rebind), and the same again."""
    testbed, client = connect(serving(na_first=NA), "address+prefix")
    client.start()
    client.wait_bound()
    assert leases(client) == [f"{NA}/128", str(POOL)]
    wait_until(lambda: str(NA) in wan_addresses(testbed), 5, "the address")
    assert 800 < wan_addresses(testbed)[str(NA)] <= 900
    carry(testbed)
    client.stop("withdraw")
    assert wan_addresses(testbed) == {}
    assert unreachable(testbed) == []
    client.start()
    status = client.wait_bound()
    assert leases(client) == [f"{NA}/128", str(POOL)]
    assert status["counters"]["sent-dhcp6"] == 1
    client.stop("release")
    assert wan_addresses(testbed) == {}


def test_the_only_address_is_the_leased_one(connect: Connect) -> None:
    """No router advertisement: DHCP 4o6 and the softwire start from the IA_NA address."""
    kea = KeaSettings(na_first=NA)
    testbed, client = connect(kea, "address+prefix", b4=NA)
    ip("-n", testbed.cpe.name, "addr", "del", str(CPE_WAN), "dev", "wan")
    # An IA_NA makes no on-link prefix (RFC 8415 18.2.10.1): everything goes by the router.
    try:
        client.start()
        status = client.wait_bound()
        assert status["source"] == str(NA)
        assert status["softwire"]["binding_ipv6_addr"] == str(NA)
        assert leases(client) == [f"{NA}/128"]
        assert any("NoPrefixAvail" in p for p in status["provisioning"]["problems"])
        carry(testbed)
        client.stop()
    finally:
        testbed.give_wan_address()


def test_killed_and_started_again(connect: Connect, tmp_path: Path) -> None:
    """SIGKILL: traffic goes on; the next life rebinds what it finds (RFC 8415 18.2.12) and changes nothing."""
    testbed, client = connect(serving())
    client.start()
    client.wait_bound()
    client.kill()
    carry(testbed)
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        client.wait_bound()
        carry(testbed)
    assert kinds(capture.file) == [MessageType.REBIND, MessageType.REPLY]
    assert unreachable(testbed) == [str(POOL)]


def test_the_server_restarts_with_another_prefix(connect: Connect, tmp_path: Path) -> None:
    """A server that forgot us and delegates from another pool: at T1 the prefix and the softwire move, the old prefix
    is gone, traffic comes back."""
    lifetimes = (5, 8, 30, 60)
    testbed, client = connect(serving(lifetimes6=lifetimes))
    client.start()
    client.wait_bound()
    other = serving(OTHER_POOL, lifetimes6=lifetimes)
    testbed.kea.restart(other)
    try:
        testbed.aftr_call("unbind", binding=str(testbed.settings.binding))
        testbed.aftr_call("bind", binding=str(replace(testbed.settings, kea=other).binding))
        wait_until(lambda: leases(client) == [str(OTHER_POOL)], 20, "the new prefix")
        wait_until(
            lambda: (client.status()["softwire"] or {}).get("binding_ipv6_addr") == str(softwire_address(other)),
            20,
            "the softwire to move",
        )
        client.wait_bound()
        assert unreachable(testbed) == [str(OTHER_POOL)]
        carry(testbed)
    finally:
        client.stop()
        testbed.down()  # its Kea and its lwAFTR are others than its settings say


def test_the_server_restarts_and_delegates_the_same(connect: Connect) -> None:
    """Kea that lost its leases gives the prefix again at the Renew; the softwire is not touched."""
    kea = serving(lifetimes6=(5, 8, 30, 60))
    testbed, client = connect(kea)
    client.start()
    client.wait_bound()
    before = len([e for e in client.events() if e["kind"].startswith("softwire")])
    testbed.kea.restart(kea)
    replies = client.status()["counters"]["received-reply"]
    wait_until(lambda: client.status()["counters"]["received-reply"] > replies, 20, "a renewal")
    assert leases(client) == [str(POOL)]
    assert len([e for e in client.events() if e["kind"].startswith("softwire")]) == before
    carry(testbed)


@pytest.mark.slow
def test_the_link_may_be_another_one(connect: Connect, tmp_path: Path) -> None:
    """RFC 8415 18.2.12: the cable was out: Rebind (not sooner than 30 s after the last exchange began [D-13])."""
    testbed, client = connect(serving())
    client.start()
    client.wait_bound()
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        testbed.pull_cable()
        wait_until(lambda: not client.status()["wan"]["up"], 5, "the link to be down")
        testbed.plug_cable()
        route_back(testbed)
        wait_until(lambda: client.status()["wan"]["up"], 5, "the link to be up")
        sent = client.status()["counters"]["sent-dhcp6"]
        wait_until(lambda: client.status()["counters"]["sent-dhcp6"] > sent, 40, "the Rebind")
        carry(testbed)
    assert kinds(capture.file) == [MessageType.REBIND, MessageType.REPLY]
    assert leases(client) == [str(POOL)]


def test_what_kea_refuses_is_told(connect: Connect) -> None:
    """No pool: the operator reads why there is no IPv4, and the SOLICITs go on."""
    _, client = connect(KeaSettings())
    client.start()

    client.wait_for_state("STOPPED")

    def told() -> bool:
        return "NoPrefixAvail" in (client.status()["waiting_for"] or "")

    wait_until(told, 10, "the reason")
    assert "NoPrefixAvail" in client.command("status")


def test_the_messages_on_the_wire(connect: Connect, tmp_path: Path) -> None:
    """Multicast from the link-local address, ports 546 and 547 [D-7]; ORO with 82 and without 32 [D-4]."""
    testbed, client = connect(serving())
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        client.wait_bound()
    ours = [(d, m) for d, m in read_dhcp6(capture.file) if d.source_port == 546]
    assert [m.msg_type for _, m in ours] == [MessageType.SOLICIT, MessageType.REQUEST]
    for datagram, message in ours:
        assert (str(datagram.source), str(datagram.destination)) == (CPE_LINK_LOCAL, "ff02::1:2")
        assert datagram.destination_port == 547
        asked = dhcp6.decode_oro(message.get(Option.ORO) or b"")
        assert {82, 88, 96} <= set(asked)
        assert 32 not in asked


def test_an_address_that_another_host_has(connect: Connect, tmp_path: Path) -> None:
    """RFC 8415 18.2.10.1, 18.2.8: duplicate address detection fails, Decline, and the next address is taken."""
    testbed, client = connect(serving(na_first=NA, na_last=NA + 1), "address+prefix")
    ip("-n", testbed.isp.name, "addr", "add", f"{NA}/128", "dev", "wan", "nodad")
    testbed.cpe.sysctl({"ipv6/conf/wan/accept_dad": 1, "ipv6/conf/wan/dad_transmits": 1})
    try:
        with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
            client.start()
            client.wait_bound()
            wait_until(lambda: list(wan_addresses(testbed)) == [str(NA + 1)], 20, "the other address")
            assert leases(client) == [str(POOL), f"{NA + 1}/128"] or leases(client) == [f"{NA + 1}/128", str(POOL)]
            assert [e["kind"] for e in client.events()].count("address-duplicated") == 1
            client.stop("release")
        sent = [m for _, m in read_dhcp6(capture.file) if m.msg_type == MessageType.DECLINE]
        assert [dhcp6.decode_ia(m.get(Option.IA_NA) or b"").addresses()[0].address for m in sent] == [NA]
    finally:
        testbed.down()
