"""A shared address takes no part in ARP (RFC 7618 7.1 [S-15, X-8])."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from b4client.dataplane.plan import plan
from b4client.model.portset import PortSet
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation, Mode, SoftwireConfig

ADDRESS = IPv4Address("192.0.2.18")


@pytest.mark.parametrize("ports", [PortSet(6, 8, 0x34), None])
def test_the_address_is_kept_out_of_arp(ports: PortSet | None) -> None:
    """Not answered for, not named, and dropped where it is named all the same, in both directions."""
    config = SoftwireConfig(
        Mode.LW4O6, "wan", IPv6Address("2001:db8::1"), IPv6Address("2001:db8:ffff::1"), ADDRESS, ports
    )
    found = plan(config, SoftwireSettings(), encapsulation=Encapsulation.USERSPACE, path_mtu=1500)
    assert dict(found.sysctls)["net/ipv4/conf/all/arp_ignore"] == "1"
    assert dict(found.sysctls)["net/ipv4/conf/all/arp_announce"] == "2"
    arp = found.ruleset[found.ruleset.index("table arp") : found.ruleset.index("table ip6")]
    for hook in ("input", "output"):
        (chain,) = (line for line in arp.splitlines() if f"hook {hook} " in line)
        assert f"arp saddr ip {ADDRESS} drop" in chain
        assert f"arp daddr ip {ADDRESS} drop" in chain
