"""The agent and its link: addresses that come and go, flaps, renumbering, stored leases (RFC 7618 6; RFC 8415 18.2)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from agentscript import (
    ADDRESS,
    BR,
    DHCP_SERVER,
    GLOBAL,
    LINK_LOCAL,
    LOCAL_ULA,
    OTHER_GLOBAL,
    PORTS,
    AgentScript,
    stored_lease,
)

from b4client.model.maprule import lw_address
from b4client.model.softwire import Mode, SoftwireConfig
from b4client.protocol import events
from b4client.wire import dhcp4
from b4client.wire.softwire46 import Lw4o6Container, PortParams, V4V6Bind

MULTICAST: dict[str, object] = {"servers": ()}
BOUND_PREFIX = Lw4o6Container((BR,), V4V6Bind(ADDRESS, IPv6Network("2001:db8::/32"), PortParams.of(PORTS)))

# ---- what is missing


def test_waiting_for_the_link() -> None:
    script = AgentScript()
    script.link(up=False)
    assert script.waiting_for == "wan to come up"
    script.link(link_local=None)
    assert script.waiting_for == "a link-local address on wan"
    assert script.link() == ["INFORMATION-REQUEST"]
    assert script.waiting_for == "an answer to the DHCPv6 INFORMATION-REQUEST"
    script.inform()
    assert "IPv6 address on wan" in script.waiting_for
    assert script.waiting_for.endswith("to speak to the DHCP 4o6 server from")
    assert script.link(GLOBAL) == ["DISCOVER U=0"]
    assert script.waiting_for == "an answer of the DHCP 4o6 server (SELECTING)"


def test_multicast_needs_no_global_address_until_there_is_a_softwire() -> None:
    """F-5: the lease comes over the link-local address; the softwire needs a wider one."""
    script = AgentScript()
    script.link()
    script.inform(servers=())
    script.offer()
    assert script.ack() == ["save"]
    assert "no IPv6 address to send from" in script.waiting_for
    assert script.link(GLOBAL) == ["install"]
    assert script.status.waiting_for is None


def test_the_address_of_the_same_kind_as_the_br() -> None:
    """A unique-local source for a BR out there would come back to nobody."""
    script = AgentScript()
    script.link(LOCAL_ULA, GLOBAL)
    script.inform()
    script.offer()
    script.ack()
    assert script.kernel is not None
    assert script.kernel.local == GLOBAL


# ---- flaps


def test_a_flap_asks_for_the_lease_again_while_its_traffic_goes_on() -> None:
    """RFC 2131 3.7; RFC 8415 18.2.12 [D-13]."""
    script = AgentScript().to_bound()
    script.until(100)
    assert script.link(up=False) == []
    assert script.kernel is not None
    assert script.waiting_for == "wan to come up"
    assert script.link(GLOBAL, moved=True) == ["INFORMATION-REQUEST", "REQUEST U=0"]
    assert script.state == "INIT-REBOOT"
    assert dhcp4.address_option(script.query.inner, 50) == ADDRESS
    assert script.ack() == ["save"]
    assert (script.state, script.status.waiting_for) == ("BOUND", None)


def test_a_flap_onto_another_network() -> None:
    """The server there knows nothing of the lease: NAK, and everything anew."""
    script = AgentScript().to_bound()
    script.link(up=False)
    script.link(GLOBAL, moved=True)
    assert script.nak() == ["withdraw", "forget", "DISCOVER U=0"]


def test_flaps_do_not_ask_dhcp6_too_often() -> None:
    """D-13: at most one opportunistic exchange in 30 s."""
    script = AgentScript().to_bound()
    for _ in range(5):
        script.link(up=False)
        script.link(GLOBAL, moved=True)
    script.until(29.9)
    assert sum(not s.is_query for s in script.sent) == 1
    script.until(30)
    assert sum(not s.is_query for s in script.sent) == 2


def test_an_expired_lease_while_the_link_is_down() -> None:
    script = AgentScript().to_bound()
    script.link(up=False)
    assert (3600, "withdraw") in script.until(3600)
    assert script.kernel is None


def test_nothing_is_sent_into_a_link_that_is_down() -> None:
    script = AgentScript().to_bound()
    script.link(up=False)
    count = len(script.sent)
    script.until(3500)
    assert len(script.sent) == count
    assert script.counted["sent-no-source"] > 0


# ---- another address


def test_another_4o6_source_means_discover() -> None:
    """RFC 7618 6 MUST [F-10], X-1: the unicast transport's source is gone."""
    script = AgentScript().to_bound()
    assert script.link(OTHER_GLOBAL) == ["withdraw", "DISCOVER U=0"]
    assert script.query.source == OTHER_GLOBAL
    script.offer()
    assert script.ack() == ["save", "install"]
    assert script.kernel == SoftwireConfig(Mode.LW4O6, "wan", OTHER_GLOBAL, BR, ADDRESS, PORTS)


def test_another_softwire_source_means_discover() -> None:
    """RFC 7596 5.1 MUST [L-4], X-1: with multicast the transport's source stays, the softwire's does not."""
    script = AgentScript().to_bound(information=MULTICAST)
    assert script.link(OTHER_GLOBAL) == ["withdraw", "DISCOVER U=0"]
    assert script.query.source == LINK_LOCAL


def test_a_second_address_changes_nothing() -> None:
    script = AgentScript().to_bound()
    assert script.link(OTHER_GLOBAL, GLOBAL) == []
    assert script.kernel is not None
    assert script.kernel.local == GLOBAL


def test_a_moment_without_address_does_not_cut_the_traffic() -> None:
    """A router advertisement late by a second must not cost the lease: it is asked for again, and meanwhile used."""
    script = AgentScript().to_bound()
    assert script.link() == []
    assert script.kernel is not None
    assert script.link(GLOBAL) == ["REQUEST U=0"]
    assert script.state == "INIT-REBOOT"
    assert script.ack() == ["save"]


def test_another_link_local_address_with_multicast() -> None:
    """F-10: the 4o6 source changed."""
    script = AgentScript().to_bound(information=MULTICAST)
    assert script.link(GLOBAL, link_local=IPv6Address("fe80::2"))[:2] == ["withdraw", "DISCOVER U=0"]


def test_renumbering_of_a_softwire_address_of_our_own() -> None:
    """Our own address on the WAN is no prefix of the provider's: it must not keep the old one alive."""
    script = AgentScript().to_bound(information={**MULTICAST, "lw": BOUND_PREFIX})
    own = lw_address(IPv6Network("2001:db8:46::/64"), ADDRESS, PORTS.psid)
    assert script.kernel is not None
    assert (script.kernel.local, script.kernel.own_local) == (own, True)
    assert script.link(own, GLOBAL) == []
    assert script.link(own, OTHER_GLOBAL) == ["withdraw", "DISCOVER U=0"]
    script.offer()
    script.ack()
    assert script.kernel.local == lw_address(IPv6Network("2001:db8:47::/64"), ADDRESS, PORTS.psid)


def test_a_static_softwire_address() -> None:
    static = IPv6Address("2001:db8:46::b4")
    script = AgentScript(local=static).to_bound()
    assert script.kernel is not None
    assert (script.kernel.local, script.kernel.own_local) == (static, True)
    assert script.link(static, GLOBAL) == []
    assert script.kernel.own_local is True
    there = AgentScript(local=GLOBAL).to_bound()
    assert there.kernel is not None
    assert (there.kernel.local, there.kernel.own_local) == (GLOBAL, False)


# ---- stored leases


def test_a_stored_lease_is_asked_for_again() -> None:
    """RFC 7618 6 [S-4]: the same source; nothing is withdrawn, the softwire of the earlier process carries on."""
    script = AgentScript(stored=stored_lease())
    assert script.link(GLOBAL) == ["INFORMATION-REQUEST"]
    assert script.inform() == ["REQUEST U=0"]
    assert script.state == "INIT-REBOOT"
    assert script.ack() == ["save", "install"]


def test_a_stored_lease_without_any_answer() -> None:
    """RFC 2131 3.2.3 [S-4, S-5]: silence allows the rest of the lease."""
    script = AgentScript(stored=stored_lease())
    script.link(GLOBAL)
    script.inform()
    done = script.until(60)
    assert [word for _, word in done] == ["REQUEST U=0", "REQUEST U=0", "save", "install"]
    assert "reboot-unconfirmed" in script.kinds()


def test_a_stored_lease_of_unknown_age_needs_an_answer() -> None:
    script = AgentScript(stored=stored_lease(trusted=False))
    script.link(GLOBAL)
    script.inform()
    script.until(60)
    assert script.kernel is None
    assert script.state == "SELECTING"
    assert dhcp4.address_option(script.query.inner, 50) == ADDRESS


def test_a_stored_lease_of_another_source() -> None:
    """RFC 7618 6 MUST [F-10]: DISCOVER, with the old address as a wish; the old softwire goes."""
    script = AgentScript(stored=stored_lease(source=OTHER_GLOBAL))
    script.link(GLOBAL)
    assert script.inform() == ["withdraw", "DISCOVER U=0"]
    assert dhcp4.address_option(script.query.inner, 50) == ADDRESS


def test_a_stored_lease_prefers_its_own_source() -> None:
    """Of several addresses the one that the lease was given to."""
    script = AgentScript(stored=stored_lease(source=OTHER_GLOBAL))
    script.link(GLOBAL, OTHER_GLOBAL)
    assert script.inform() == ["REQUEST U=0"]
    assert script.query.source == OTHER_GLOBAL


def test_a_stored_lease_that_expires_before_dhcp6_answers() -> None:
    script = AgentScript(stored=stored_lease(seconds=105))
    script.link(GLOBAL)
    assert (5, "withdraw") in script.until(5)
    script.until(6)
    assert script.inform()[0] == "DISCOVER U=0"
    assert dhcp4.address_option(script.query.inner, 50) == ADDRESS


def test_a_stored_lease_and_nothing_provisioned() -> None:
    script = AgentScript(stored=stored_lease())
    script.link(GLOBAL)
    assert script.inform(servers=None, lw=None) == ["withdraw"]


def test_a_stored_lease_of_an_ip_that_was_shared_otherwise() -> None:
    """The ACK of the INIT-REBOOT decides [S-14]."""
    script = AgentScript(stored=stored_lease(address=IPv4Address("192.0.2.77")))
    script.link(GLOBAL)
    script.inform()
    script.ack(address=IPv4Address("192.0.2.77"))
    assert script.kernel is not None
    assert script.kernel.ipv4 == IPv4Address("192.0.2.77")


# ---- sending


def test_the_rate_limit() -> None:
    """RFC 8415 14.1 [D-14]: 20 at once, then one a second."""
    script = AgentScript().to_bound()
    for _ in range(50):
        script.post(events.RenewRequested())
    assert len(script.sent) == 20
    assert script.counted["sent-rate-limited"] == 50 + 3 - 20
    script.now += 1
    script.post(events.RenewRequested())
    assert len(script.sent) == 21


def test_a_failure_to_send_is_told_once() -> None:
    script = AgentScript().to_bound()
    for _ in range(3):
        script.post(events.SendFailed("network is unreachable"))
    assert script.kinds().count("send-failed") == 1
    assert script.counted == {"sent-failed": 3}


@pytest.mark.parametrize("servers", [(DHCP_SERVER,), ()])
def test_start_delays(servers: tuple[IPv6Address, ...]) -> None:
    """RFC 8415 18.2.6 [D-5] and RFC 2131 4.4.1 [S-1]: here the middle of 0..1 s and of 1..10 s."""
    script = AgentScript(start_delay=True)
    assert script.link(GLOBAL) == ["withdraw"]
    assert script.until(1) == [(0.5, "INFORMATION-REQUEST")]
    assert script.inform(servers=servers) == []
    assert script.until(6.5) == [(6.5, "DISCOVER U=0")]


def test_an_unnumbered_wan() -> None:
    """RFC 7084 WAA-7: an address of another interface serves, but only one of this provider's prefix."""
    delegated = IPv6Network("2001:db8:100::/56")
    on_lan, foreign = IPv6Address("2001:db8:100:1::1"), IPv6Address("2001:db8:200::1")
    script = AgentScript(prefixes=(delegated,))
    script.addresses = ()
    script.post(events.LinkChanged(True, LINK_LOCAL, (), elsewhere=(foreign,)))
    assert script.inform() == []
    assert script.post(events.LinkChanged(True, LINK_LOCAL, (), elsewhere=(on_lan, foreign))) == ["DISCOVER U=0"]
    assert script.sent[-1].source == on_lan
    # The WAN's own goes before it.
    script.post(events.LinkChanged(True, LINK_LOCAL, (GLOBAL,), elsewhere=()))
    script.until(60)
    assert script.sent[-1].source == GLOBAL
