"""An unnumbered WAN (RFC 7084 WAA-7): link-local only, and a delegated prefix whose address is on the LAN."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest
from exchange import read_4o6

from b4client.lab.client import Client
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import ip, ip_batch, wait_until
from b4client.lab.testbed import CPE_WAN, SERVER, Testbed
from b4client.lab.traffic import Server, ping, tcp_transfer, udp_exchange

pytestmark = pytest.mark.kea

POOL = IPv6Network("2001:db8:100::/56")
ON_LAN = IPv6Address("2001:db8:100:1::1")
CPE_LINK_LOCAL = "fe80::ff:fe46:200"


@pytest.mark.parametrize("bound", [False, True], ids=["softwire-at-the-lan-address", "softwire-in-a-binding-prefix"])
def test_unnumbered(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client], tmp_path: Path, bound: bool
) -> None:
    bind_prefix = IPv6Network((POOL.network_address, 64)) if bound else None
    kea = KeaSettings(pd_pool=POOL, bind_prefix=bind_prefix)
    testbed = testbed_with(kea=kea, b4=None if bound else ON_LAN)
    cpe = testbed.cpe
    route = ("2001:db8:100::/40", "via", CPE_LINK_LOCAL, "dev", "wan")
    ip("-n", testbed.isp.name, "route", "replace", *route)
    ip("-n", cpe.name, "addr", "del", str(CPE_WAN), "dev", "wan")
    cpe.sysctl({"ipv6/conf/lan/disable_ipv6": 0})
    try:
        # Somebody else's address is not taken: the provider knows nothing of it.
        ip_batch(cpe.name, ["addr add fd00::1/64 dev lan nodad"])
        client = client_in(testbed, "--dhcp6", "prefix")
        with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
            client.start()
            wait_until(lambda: "delegated prefix" in str(_waiting(client)), 20, "it to say what it waits for")
            ip_batch(cpe.name, [f"addr add {ON_LAN}/64 dev lan nodad"])  # as radvd's or networkd's work would
            status = client.wait_bound()
        if not bound:
            assert status["softwire"]["binding_ipv6_addr"] == str(ON_LAN)
        assert status["source"] == str(ON_LAN)
        assert {s.datagram.source for s in read_4o6(capture.file) if s.inner.op == 1} == {ON_LAN}
        with Server(testbed.srv):
            ping(testbed.lan, SERVER, 1)
            udp_exchange(testbed.lan, SERVER)
            tcp_transfer(testbed.lan, SERVER, 50_000)
        client.stop("release")
    finally:
        ip_batch(cpe.name, ["addr flush dev lan scope global"])
        cpe.sysctl({"ipv6/conf/lan/disable_ipv6": 1})
        testbed.down()


def _waiting(client: Client) -> object:
    try:
        return client.status()["waiting_for"]
    except Exception:
        return None
