"""The agent: from a link that comes up to a softwire, and what DHCPv6 says later (RFC 7341 9), as time scripts."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from agentscript import (
    ADDRESS,
    BR,
    DHCP_SERVER,
    GLOBAL,
    LINK_LOCAL,
    OTHER_BR,
    OTHER_DHCP_SERVER,
    PORTS,
    AgentScript,
    stored_lease,
)
from timescript import OTHER_ADDRESS, OTHER_PORTS

from b4client.model.portset import PortSet
from b4client.model.softwire import Mode, PortForward, SoftwireConfig
from b4client.protocol import events
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import ALL_SERVERS, Option
from b4client.wire.softwire46 import Lw4o6Container

SOFTWIRE = SoftwireConfig(Mode.LW4O6, "wan", GLOBAL, BR, ADDRESS, PORTS)
NO_LW: dict[str, object] = {"lw": None}

# ---- the first way


def test_from_nothing_to_a_softwire() -> None:
    """RFC 7341 5, RFC 7618 6, RFC 7596 5.1: information, lease, softwire, in this order."""
    script = AgentScript()
    assert script.link(GLOBAL) == ["withdraw", "INFORMATION-REQUEST"]
    assert script.inform() == ["DISCOVER U=0"]
    assert script.offer() == ["REQUEST U=0"]
    assert script.ack() == ["save", "install"]
    assert script.kernel == SOFTWIRE
    assert script.status.waiting_for is None
    assert script.kinds() == ["informed", "way", "psid-offset", "bound", "softwire-up"]
    lease, source = script.saved[-1]
    assert (lease.address, lease.ports, source) == (ADDRESS, PORTS, GLOBAL)


@pytest.mark.parametrize("source", ["fe80::99", "2001:db8:99::1"])
def test_an_answer_from_an_address_that_was_not_asked(source: str) -> None:
    """RFC 7341 says nothing of the source of a DHCPV4-RESPONSE: a relay or another address of the server may send it;
    xid and client identifier tell whose it is [Q-11]."""
    script = AgentScript().to_selecting()
    assert script.offer(source=IPv6Address(source)) == ["REQUEST U=0"]
    assert script.ack(source=IPv6Address(source)) == ["save", "install"]


def test_where_from_and_where_to() -> None:
    """RFC 7341 9 [F-5, D-7]: multicast from the link-local address, unicast from one of wider scope."""
    script = AgentScript().to_selecting()
    asked, discover = script.sent
    assert (asked.source, asked.destination) == (LINK_LOCAL, ALL_SERVERS)
    assert (discover.source, discover.destination) == (GLOBAL, DHCP_SERVER)


def test_what_a_start_without_lease_finds_in_the_kernel_goes() -> None:
    """An earlier process left a softwire, and there is no lease behind it."""
    assert AgentScript().link(GLOBAL, up=False) == ["withdraw"]
    assert AgentScript(stored=stored_lease(seconds=99)).link(GLOBAL, up=False) == ["withdraw"]


def test_port_forwards_and_mtu_are_passed_on() -> None:
    forward = PortForward("tcp", 1232, ADDRESS, 80)
    script = AgentScript(forwards=(forward,), mtu=1400).to_bound()
    assert script.kernel is not None
    assert (script.kernel.forwards, script.kernel.mtu) == ((forward,), 1400)


def test_a_whole_address() -> None:
    """RFC 7618 7 [S-13]."""
    script = AgentScript().to_bound(ports=None)
    assert script.kernel == SoftwireConfig(Mode.LW4O6, "wan", GLOBAL, BR, ADDRESS, None)


def test_the_whole_address_after_a_shared_offer() -> None:
    """X-11: a PSID length of 0 in the ACK says so in so many words [P-2]; a missing option 159 would not."""
    script = AgentScript().to_selecting()
    script.offer()
    assert script.ack(ports=bytes(4)) == ["save", "install"]
    assert script.kernel == SoftwireConfig(Mode.LW4O6, "wan", GLOBAL, BR, ADDRESS, None)
    assert script.counted == {"warned-portparams-whole": 1}


def test_an_offset_in_lw4o6_is_used_and_reported() -> None:
    """X-13: RFC 7618 9 has no use for it there; server and lwAFTR compute with the same one."""
    script = AgentScript().to_bound(ports=PortSet(4, 8, 0x14))
    assert script.kernel is not None
    assert script.kernel.ports == PortSet(4, 8, 0x14)
    assert script.report("psid-offset").level == "warning"
    assert "psid-offset" not in AgentScript().to_bound(ports=PortSet(0, 8, 0x14)).kinds()


def test_a_port_set_with_system_ports_is_reported() -> None:
    """P-8: the server decided; whoever runs it should know."""
    script = AgentScript().to_bound(ports=PortSet(0, 6, 0))
    assert script.report("system-ports").level == "warning"
    assert script.kernel is not None
    assert "system-ports" not in AgentScript().to_bound(ports=PortSet(0, 6, 1)).kinds()


# ---- option 88


def test_without_option_88_nothing_is_asked_by_4o6() -> None:
    """RFC 7341 9 [F-1]; and it keeps asking for it (D-1)."""
    script = AgentScript().to_asking()
    assert script.inform(servers=None) == []
    assert script.until(86399) == []
    assert script.waiting_for == "the DHCPv6 server to provision IPv4: its Reply has no option 88 (DHCP 4o6 server)"
    assert script.until(86401) == [(86400, "INFORMATION-REQUEST"), (86401, "INFORMATION-REQUEST")]
    oro = dhcp6.decode_oro(script.sent[-1].dhcp6.get(Option.ORO) or b"")
    assert {88, 94, 96} <= set(oro)
    assert script.inform() == ["DISCOVER U=0"]


def test_an_empty_option_88_is_multicast_from_the_link_local_address() -> None:
    """RFC 7341 9 [F-3, F-5]."""
    script = AgentScript().to_bound(information={"servers": ()})
    assert {(s.source, s.destination) for s in script.sent} == {(LINK_LOCAL, ALL_SERVERS)}
    assert script.saved[-1][1] == LINK_LOCAL
    assert script.kernel == SOFTWIRE


def test_several_servers_are_all_asked() -> None:
    """RFC 7341 9 SHOULD [F-4]: each request to each address."""
    script = AgentScript().to_asking()
    assert script.inform(servers=(DHCP_SERVER, OTHER_DHCP_SERVER)) == ["DISCOVER U=0"] * 2
    assert [s.destination for s in script.queries] == [DHCP_SERVER, OTHER_DHCP_SERVER]
    assert script.queries[0].data == script.queries[1].data


def test_an_offer_window_where_several_may_answer() -> None:
    """RFC 2131 4.4.1: with one unicast server there is nothing to wait for."""
    one = AgentScript(offer_window_s=2.0).to_selecting()
    assert one.offer() == ["REQUEST U=0"]
    two = AgentScript(offer_window_s=2.0).to_asking()
    two.inform(servers=(DHCP_SERVER, OTHER_DHCP_SERVER))
    assert two.offer() == []
    assert two.until(2) == [(2, "REQUEST U=0"), (2, "REQUEST U=0")]


def test_static_servers_need_no_option_88() -> None:
    """``dhcp.servers``: for links whose operator documents 4o6 out of band."""
    script = AgentScript(servers_4o6=(OTHER_DHCP_SERVER,)).to_asking()
    assert script.inform(servers=None) == ["DISCOVER U=0"]
    assert script.query.destination == OTHER_DHCP_SERVER
    script.inform(servers=(DHCP_SERVER,))
    assert {s.destination for s in script.queries} == {OTHER_DHCP_SERVER}


def test_option_88_withdrawn_the_lease_is_used_to_its_end() -> None:
    """RFC 7341 9 [F-2], X-2: no more requests, not even a RELEASE; IPv4 goes on until the lease ends."""
    script = AgentScript().to_bound(information={"refresh": 600})
    assert script.refresh(servers=None, refresh=0xFFFFFFFF) == []
    assert (script.state, script.kernel) == ("COASTING", SOFTWIRE)
    assert script.status.waiting_for is None
    assert script.until(3599) == []
    assert script.until(3600) == [(3600, "withdraw")]
    assert script.state == "STOPPED"


def test_option_88_comes_back() -> None:
    """F-2: 4o6 begins again; the lease in hand is renewed in its time."""
    script = AgentScript().to_bound(information={"refresh": 600})
    script.refresh(servers=None, refresh=600)
    assert script.refresh() == []
    assert (script.state, script.kernel) == ("BOUND", SOFTWIRE)
    assert script.until(1800)[-1] == (1800, "REQUEST U=1")


def test_option_88_withdrawn_with_the_br() -> None:
    """X-2: without S46 parameters the lease leads nowhere."""
    script = AgentScript().to_bound(information={"refresh": 600})
    assert script.refresh(servers=None, lw=None) == ["withdraw"]
    assert (script.state, script.kernel) == ("STOPPED", None)
    assert "no option 88" in script.waiting_for
    assert "no BR address" in script.waiting_for


def test_option_88_withdrawn_and_the_operator_wants_an_end() -> None:
    """X-2, ``keep_lease_without_option88 = false``."""
    script = AgentScript(keep_lease_without_option88=False).to_bound(information={"refresh": 600})
    assert script.refresh(servers=None) == ["withdraw"]
    assert script.state == "STOPPED"


def test_option_88_withdrawn_before_there_was_a_lease() -> None:
    script = AgentScript().to_selecting(refresh=600)
    script.until(599)
    count = len(script.queries)
    assert script.refresh(servers=None) == []
    assert script.state == "STOPPED"
    script.until(2000)
    assert len(script.queries) == count


def test_without_a_br_there_is_no_softwire() -> None:
    """Option 88 alone, RFC 8539 switched off: a lease would only take an address from others."""
    script = AgentScript(rfc8539="off").to_asking()
    assert script.inform(lw=None) == []
    assert script.waiting_for.endswith("its Reply has no BR address (container 94 or 96)")


def test_a_static_br_needs_no_container() -> None:
    script = AgentScript(br=OTHER_BR).to_bound(information=NO_LW)
    assert script.kernel is not None
    assert script.kernel.remote == OTHER_BR


# ---- changes of what is provisioned


def test_the_br_changes() -> None:
    """One install, no withdrawal between; the lease stays."""
    script = AgentScript().to_bound(information={"refresh": 600})
    assert script.refresh(lw=Lw4o6Container((OTHER_BR,))) == ["install"]
    assert script.kernel is not None
    assert script.kernel.remote == OTHER_BR
    assert script.state == "BOUND"


def test_a_refresh_that_changes_nothing_does_nothing() -> None:
    script = AgentScript().to_bound(information={"refresh": 600})
    assert script.refresh(refresh=600) == []
    assert script.kinds().count("informed") == 1


def test_another_server_address_is_used_from_then_on() -> None:
    script = AgentScript().to_bound(information={"refresh": 600})
    assert script.refresh(servers=(OTHER_DHCP_SERVER,)) == []
    script.until(1800)
    assert script.query.destination == OTHER_DHCP_SERVER


def test_problems_of_a_reply_are_reported_once() -> None:
    script = AgentScript().to_asking()
    script.inform(map_e=b"", refresh=600)
    script.refresh(map_e=b"")
    assert script.kinds().count("provisioning-problem") == 1
    assert "MAP-E container (94) ignored" in script.report("provisioning-problem").text
    assert script.status.provisioning.problems == (script.report("provisioning-problem").text.split(" (from")[0],)


# ---- renewals and the end of the lease


def test_a_renewal_writes_nothing_but_the_lease() -> None:
    script = AgentScript().to_bound()
    script.until(1800)
    assert script.ack() == ["save"]
    assert script.kinds()[-1] == "renewed"


def test_a_renewal_with_another_port_set() -> None:
    """S-14: the ACK's port set is used, after one change of the data plane."""
    script = AgentScript().to_bound()
    script.until(1800)
    assert script.ack(ports=OTHER_PORTS) == ["save", "install"]
    assert script.kernel is not None
    assert script.kernel.ports == OTHER_PORTS
    assert script.kinds()[-2:] == ["bound", "softwire-up"]


def test_a_nak_ends_everything_at_once() -> None:
    script = AgentScript().to_bound()
    script.until(1800)
    assert script.nak() == ["withdraw", "forget", "DISCOVER U=0"]
    assert script.kernel is None
    assert script.status.softwire is None


def test_the_end_of_the_lease() -> None:
    """RFC 2131 4.4.5 [S-9]: the softwire goes before anything new is tried."""
    script = AgentScript().to_bound()
    assert script.until(3600)[-2:] == [(3600, "withdraw"), (3600, "DISCOVER U=0")]
    assert script.kernel is None


def test_a_machine_that_slept_over_the_end() -> None:
    """Whatever the event is, what is due comes first."""
    script = AgentScript().to_bound()
    script.now = 5000
    assert script.post(events.SendFailed("x"))[:2] == ["withdraw", "INFORMATION-REQUEST"] or script.kernel is None
    assert script.kernel is None


def test_another_address_after_the_first() -> None:
    script = AgentScript().to_bound()
    script.until(3600)
    script.offer(address=OTHER_ADDRESS)
    assert script.ack(address=OTHER_ADDRESS) == ["save", "install"]
    assert script.kernel is not None
    assert script.kernel.ipv4 == OTHER_ADDRESS


# ---- what comes from the network and is nothing


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        (b"", "drop-datagram-malformed"),
        (b"\x15", "drop-response-malformed"),
        (b"\x15\0\0\0", "drop-response-malformed"),
        (b"\x15\0\0\0\0\x57\0\1\0", "drop-response-malformed"),
        (b"\x14\0\0\0", "drop-datagram-malformed"),
        (b"\x02\0\0\0", "drop-datagram-unexpected-type"),
        (b"\x07\0\0\0", "drop-reply-foreign-transaction"),
    ],
)
def test_nonsense_is_counted_and_changes_nothing(data: bytes, counter: str) -> None:
    script = AgentScript().to_bound()
    before = script.agent.deadline(), script.status.state
    assert script.post(events.DatagramReceived(data, DHCP_SERVER)) == []
    assert (script.agent.deadline(), script.status.state) == before
    assert script.counted == {counter: 1}
