"""MAP-E as an operator provisions it: several rules in one container, the End-user prefix delegated by Kea."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from exchange import read_4o6, read_dhcp6

from b4client.lab.client import Client
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import ip, wait_until
from b4client.lab.testbed import BR, SERVER, Testbed
from b4client.lab.traffic import Server, ping, tcp_transfer, udp_exchange
from b4client.model.errors import ControlError
from b4client.model.portset import PortSet
from b4client.wire.dhcp6 import MessageType, Option, decode_oro
from b4client.wire.softwire46 import MapEContainer, PortParams, Rule, encode_mape

pytestmark = pytest.mark.kea
CPE_LINK_LOCAL = "fe80::ff:fe46:200"


@dataclass(frozen=True)
class Domain:
    """A rule, a prefix that Kea delegates in it, and what a customer has by both."""

    rule: Rule
    prefix: IPv6Network
    ipv4: IPv4Address
    ports: PortSet
    address: IPv6Address

    def kea(self, **settings: Any) -> KeaSettings:
        rules = tuple(domain.rule for domain in DOMAINS)
        return KeaSettings(
            first=self.ipv4,
            last=self.ipv4,
            ports=self.ports,
            option88="none",
            container="map-e",
            map_octets=encode_mape(MapEContainer(rules, (BR,))).hex(),
            pd_pool=self.prefix,
            **settings,
        )


FIRST = Domain(  # RFC 7597 Appendix A example 1
    Rule(True, 16, IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/40")),
    IPv6Network("2001:db8:12:3400::/56"),
    IPv4Address("192.0.2.18"),
    PortSet(6, 8, 0x34),
    IPv6Address("2001:db8:12:3400:0:c000:212:34"),
)
SECOND = Domain(  # inside the first one's IPv6 prefix and IPv4 prefix: the longer match counts, in each direction
    Rule(True, 8, IPv4Network("192.0.2.200/32"), IPv6Network("2001:db8:80::/48"), PortParams(4, 0, 0)),
    IPv6Network("2001:db8:80:5600::/56"),
    IPv4Address("192.0.2.200"),
    PortSet(4, 8, 0x56),
    IPv6Address("2001:db8:80:5600:0:c000:2c8:56"),
)
THIRD = Domain(  # another one altogether; without the F flag it is for its own customers' prefixes alone
    Rule(False, 10, IPv4Network("192.0.2.252/30"), IPv6Network("2001:db8:4000::/38")),
    IPv6Network("2001:db8:4240::/48"),
    IPv4Address("192.0.2.254"),
    PortSet(6, 8, 0x40),
    IPv6Address("2001:db8:4240:0:0:c000:2fe:40"),
)
DOMAINS = (FIRST, SECOND, THIRD)


@pytest.fixture
def connect(testbed_with: Callable[..., Testbed], client_in: Callable[..., Client]) -> Callable[..., Any]:
    """Call it with a domain for a testbed in which Kea delegates its prefix, and a client that asks for one."""

    def build(domain: Domain, **settings: Any) -> tuple[Testbed, Client]:
        kea = domain.kea(pd_len=domain.prefix.prefixlen, **settings)
        testbed = testbed_with(kea=kea, b4=domain.address)
        for other in DOMAINS:
            route = ("route", "replace", str(other.prefix), "via", CPE_LINK_LOCAL, "dev", "wan")
            ip("-n", testbed.isp.name, *route)
        return testbed, client_in(testbed, "--dhcp6", "prefix")

    return build


def softwire_of(client: Client, domain: Domain) -> dict[str, Any]:
    """The status, once the softwire is that of ``domain``."""
    found: dict[str, Any] = {}

    def there() -> bool:
        found.clear()
        try:
            found.update(client.status())
        except ControlError:
            return False
        softwire = found["softwire"] or {}
        return softwire.get("binding_ipv6_addr") == str(domain.address) and softwire["installed"]

    wait_until(there, 30, f"the softwire from {domain.address}")
    return found


def carry(testbed: Testbed, domain: Domain) -> None:
    before = testbed.lwaftr.refused()
    with Server(testbed.srv) as server:
        assert ping(testbed.lan, SERVER)
        assert udp_exchange(testbed.lan, SERVER, size=3000)
        assert tcp_transfer(testbed.lan, SERVER, 100_000)
        wait_until(lambda: bool(server.seen), 5, "the watch at the server")
        assert {s.address for s in server.seen} == {domain.ipv4}
        assert [s for s in server.seen if s.port is not None and s.port not in domain.ports] == []
    assert testbed.lwaftr.refused() == before


@pytest.mark.parametrize("domain", DOMAINS, ids=["example 1", "the longer match", "no forwarding rule"])
def test_a_delegated_prefix_and_several_rules(domain: Domain, connect: Callable[..., Any], tmp_path: Path) -> None:
    """The basic rule is the longest match of the delegated prefix; offset, address and ports follow (RFC 7597 5, 6)."""
    testbed, client = connect(domain)
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        status = softwire_of(client, domain)
    assert read_4o6(capture.file) == []
    sent = [message for _, message in read_dhcp6(capture.file)]
    assert [MessageType(m.msg_type) for m in sent[:4]] == [
        *(MessageType.SOLICIT, MessageType.ADVERTISE, MessageType.REQUEST, MessageType.REPLY)
    ]
    assert Option.S46_CONT_MAPE in decode_oro(dict(sent[0].options)[Option.ORO])
    softwire = status["softwire"]
    assert softwire["ipv4"] == str(domain.ipv4)
    ports = softwire["ports"]
    assert PortSet(ports["offset"], ports["psid_len"], ports["psid"]) == domain.ports
    assert softwire["forwarding_rules"] == 2  # those with the F flag (RFC 7598 4.1)
    addresses = testbed.cpe.run("ip", "-6", "addr", "show", "dev", "wan").stdout
    assert f"{domain.address}/128" in addresses  # [M-8]
    carry(testbed, domain)
    mesh = status["dataplane"]["mesh"]
    assert [rule["ipv4"] for rule in mesh["rules"]] == ["192.0.2.0/24", "192.0.2.200/32"]
    assert mesh["active"] == (status["dataplane"]["kind"] == "tun")
    assert client.stop("release") == 0
    assert str(domain.address) not in testbed.cpe.run("ip", "-6", "addr", "show", "dev", "wan").stdout


def test_from_one_domain_to_another(connect: Callable[..., Any]) -> None:
    """Renumbering into another rule's prefix: address, ports and forwarding rules change in one step [M-12]."""
    lifetimes = (3, 6, 20, 40)
    testbed, client = connect(FIRST, lifetimes6=lifetimes)
    client.start()
    softwire_of(client, FIRST)
    carry(testbed, FIRST)
    testbed.kea.restart(SECOND.kea(pd_len=56, lifetimes6=lifetimes))
    try:
        testbed.aftr_call("unbind", binding=str(testbed.settings.binding))
        moved = replace(testbed.settings, kea=SECOND.kea(), b4=SECOND.address)
        testbed.aftr_call("bind", binding=str(moved.binding))
        status = softwire_of(client, SECOND)
        assert (status["softwire"]["ipv4"], status["softwire"]["forwarding_rules"]) == (str(SECOND.ipv4), 2)
        carry(testbed, SECOND)
        addresses = testbed.cpe.run("ip", "addr").stdout
        assert str(FIRST.address) not in addresses
        assert str(FIRST.ipv4) not in addresses
    finally:
        client.stop()
        testbed.down()  # its Kea and its lwAFTR are others than its settings say
