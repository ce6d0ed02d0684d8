"""RFC 8539: DHCP 4o6 provisions the softwire, too. The agent and the client together, as time scripts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest
from agentscript import (
    ADDRESS,
    BR,
    GLOBAL,
    LINK_LOCAL,
    OTHER_BR,
    OTHER_GLOBAL,
    PORTS,
    AgentScript,
    Sent,
    stored_lease,
)
from timescript import OTHER_PORTS

from b4client.model.lease import LeasedSoftwire
from b4client.model.softwire import Mode, SoftwireConfig
from b4client.protocol import events
from b4client.wire import dhcp6, softwire46
from b4client.wire.dhcp4 import Option as Option4
from b4client.wire.dhcp6 import Option

SADDR = IPv6Address("2001:db8:46::c000:212:34")
"""RFC 7596 5.1 figure 3: the WAN's prefix, 0x0000, 192.0.2.18, PSID 0x34."""
OTHER_SADDR = IPv6Address("2001:db8:47::c000:212:34")
BR_90 = (int(Option.S46_BR), BR.packed)
SOFTWIRE = SoftwireConfig(Mode.LW4O6, "wan", SADDR, BR, ADDRESS, PORTS, own_local=True)
ALONE: dict[str, object] = {"lw": None}
"""Option 88 and no container: nothing else has a BR."""
MULTICAST: dict[str, object] = {"lw": None, "servers": ()}


def bind_137(prefix: str) -> tuple[int, bytes]:
    return int(Option.S46_BIND_IPV6_PREFIX), softwire46.encode_bind_prefix(IPv6Network(prefix))


def listed(sent: Sent) -> tuple[int, ...]:
    return dhcp6.decode_oro(sent.outer.get(Option.ORO) or b"")


def told(sent: Sent) -> IPv6Address | None:
    """Option 109 of a message."""
    value = sent.inner.get(Option4.S46_SADDR)
    return None if value is None else IPv6Address(value)


def bound(information: dict[str, object] = ALONE, **settings: object) -> AgentScript:
    """BOUND at 0 s with the softwire SOFTWIRE, 3600 s, T1 1800 s."""
    script = AgentScript(**settings).to_selecting(**information)
    script.offer(outer=(BR_90,))
    assert script.ack(saddr=SADDR, outer=(BR_90,)) == ["save", "install"]
    assert (script.state, script.kernel) == ("BOUND", SOFTWIRE)
    return script


# ---- the whole exchange


def test_offer_address_request_ack() -> None:
    """7.1 [E-2, E-6, E-7]: OFFER, the address with DAD, REQUEST with 109, ACK, softwire."""
    script = AgentScript()
    script.prepares = None
    script.to_selecting(lw=None)
    assert script.offer(outer=(BR_90,)) == [f"prepare {SADDR}"]
    assert script.state == "PREPARING"
    assert script.waiting_for == "the softwire's address on wan to pass duplicate address detection"
    assert script.until(1.5) == []
    assert script.post(events.AddressReady(SADDR)) == ["REQUEST U=0"]
    assert script.ack(saddr=SADDR) == ["save", "install"]
    assert script.kernel == SOFTWIRE
    assert script.status.waiting_for is None
    discover, request = script.queries
    assert (listed(discover), told(discover)) == ((90, 137), None)
    assert told(request) == SADDR
    # The lease counts from the REQUEST, and its secs are the DISCOVER's [S-6, X-12].
    assert script.saved[-1][0].requested_at == 1.5
    assert request.inner.secs == discover.inner.secs
    assert request.inner.xid == discover.inner.xid


def test_what_a_query_may_hold() -> None:
    """7341 6.2, 9 [Q-1..Q-3]: option 87, and the ORO for 90 and 137 that RFC 8539 5 sanctions; never 88."""
    script = bound()
    for sent in script.queries:
        assert {code for code, _ in sent.outer.options} <= {Option.ORO}
        assert 88 not in listed(sent)


def test_why_is_told() -> None:
    script = bound()
    assert script.report("way").text == (
        "IPv4 and softwire by DHCP 4o6 (RFC 8539): option 88 came without a BR address in a container"
    )
    assert script.status.provisioning.mechanism == "rfc8539"


def test_renewals_name_the_source() -> None:
    """7.2 MUST [E-7]."""
    script = bound()
    script.until(1800)
    assert (script.query.words, told(script.query)) == ("REQUEST U=1", SADDR)
    assert script.ack(saddr=SADDR) == ["save"]
    script.post(events.RebindRequested())
    assert (script.query.words, told(script.query)) == ("REQUEST U=0", SADDR)
    assert script.ack(saddr=SADDR) == ["save"]
    assert script.kernel == SOFTWIRE


def test_the_release_does_not_name_it() -> None:
    """7.3 [E-7]."""
    script = bound()
    script.post(events.ReleaseRequested())
    assert (script.query.words, told(script.query), listed(script.query)) == ("RELEASE U=1", None, ())


def test_an_ack_may_name_another_br() -> None:
    script = bound()
    script.until(1800)
    assert script.ack(saddr=SADDR, outer=((int(Option.S46_BR), OTHER_BR.packed),)) == ["save", "install"]
    assert script.kernel == replace(SOFTWIRE, remote=OTHER_BR)


def test_a_static_br_goes_before_the_leased_one() -> None:
    script = AgentScript(rfc8539="on", br=OTHER_BR).to_selecting(lw=None)
    script.offer(outer=(BR_90,))
    script.ack(saddr=SADDR)
    assert script.kernel == replace(SOFTWIRE, remote=OTHER_BR)


# ---- offers


@pytest.mark.parametrize("outer", [(), ((90, bytes(16)),), ((90, BR.packed[:15]),), ((90, b"\xff" + bytes(15)),)])
def test_an_offer_without_a_valid_br_is_discarded(outer: tuple[tuple[int, bytes], ...]) -> None:
    """7.1 MUST [E-3]."""
    script = AgentScript().to_selecting(lw=None)
    assert script.offer(outer=outer) == []
    assert script.counted["drop-offer-without-br"] == 1
    assert "OFFER with a BR address (option 90, RFC 8539): 1 had none" in script.waiting_for
    assert script.offer(outer=(BR_90,))[0] == f"prepare {SADDR}"


def test_one_valid_br_of_two_is_enough() -> None:
    """7.1 [E-3]: at least one."""
    script = AgentScript().to_selecting(lw=None)
    script.offer(outer=((90, bytes(16)), BR_90))
    script.ack(saddr=SADDR)
    assert script.kernel == SOFTWIRE
    assert script.counted["ignored-br-unusable"] == 1


@pytest.mark.parametrize(
    ("prefix", "source"),
    [
        ("2001:db8:47::/64", "2001:db8:47::c000:212:34"),
        ("2001:db8:46::/64", "2001:db8:46::c000:212:34"),
        ("2001:db8::/32", "2001:db8:46::c000:212:34"),
        ("2001:db8:47:0:ff00::/72", "2001:db8:47:0:ff00:c000:212:34"),  # its own bits inside the active prefix
        ("2001:db8:99::/64", "2001:db8:46::c000:212:34"),  # E-5: no match, any prefix
        ("::/0", "2001:db8:46::c000:212:34"),
    ],
)
def test_the_binding_prefix(prefix: str, source: str) -> None:
    """7.1, 7596 5.1 [E-5]: longest match among the active prefixes."""
    script = AgentScript()
    script.link(GLOBAL, OTHER_GLOBAL)
    script.inform(lw=None)
    assert script.offer(outer=(BR_90, bind_137(prefix)))[0] == f"prepare {IPv6Address(source)}"


@pytest.mark.parametrize(
    "options",
    [
        ((137, b""),),
        ((137, b"\x81" + bytes(17)),),
        ((137, b"\x40" + bytes(7)),),
        ((137, b"\x40" + bytes(9)),),
        (bind_137("2001:db8:47::/64"), bind_137("2001:db8:47::/64")),
    ],
)
def test_an_invalid_binding_prefix_is_as_if_absent(options: tuple[tuple[int, bytes], ...]) -> None:
    """7.4 [E-4]; several: 6.1, servers MUST NOT."""
    script = AgentScript()
    script.link(GLOBAL, OTHER_GLOBAL)
    script.inform(lw=None)
    assert script.offer(outer=(BR_90, *options))[0] == f"prepare {SADDR}"
    assert script.counted["ignored-bind-prefix-malformed"] == 1


def test_a_delegated_prefix_is_active() -> None:
    script = AgentScript(prefixes=(IPv6Network("2001:db8:1234::/56"),)).to_selecting(lw=None)
    words = script.offer(outer=(BR_90, bind_137("2001:db8:1234::/48")))
    assert words[0] == "prepare 2001:db8:1234::c000:212:34"


def test_the_operators_source_address() -> None:
    script = AgentScript(local=GLOBAL).to_selecting(lw=None)
    assert script.offer(outer=(BR_90,)) == ["REQUEST U=0"]  # it is there already
    assert told(script.query) == GLOBAL
    script.ack(saddr=GLOBAL)
    assert script.kernel == replace(SOFTWIRE, local=GLOBAL, own_local=False)


# ---- the address cannot be had


def test_duplicate_address() -> None:
    """7.1, RFC 4862 5.4.5: the next try comes later and later."""
    script = AgentScript()
    script.prepares = "another host has it already"
    script.to_selecting(lw=None)
    assert script.offer(outer=(BR_90,)) == [f"prepare {SADDR}", "DISCOVER U=0"]
    assert "another host has it already" in script.report("unprepared").text
    assert script.offer(outer=(BR_90,)) == [f"prepare {SADDR}"]
    assert script.state == "INIT"
    assert script.until(4) == [(4, "DISCOVER U=0")]


def test_an_address_that_never_gets_ready() -> None:
    script = AgentScript()
    script.prepares = None
    script.to_selecting(lw=None)
    script.offer(outer=(BR_90,))
    assert script.until(30) == [(30, "DISCOVER U=0")]
    assert script.post(events.AddressReady(SADDR)) == []  # too late, and harmless


def test_no_prefix_at_all() -> None:
    """7 [E-1]: a usable prefix comes first."""
    script = AgentScript()
    script.link()
    assert script.inform(lw=None, servers=()) == []
    assert script.waiting_for == "a global or unique-local IPv6 prefix on wan, for the softwire (RFC 8539 7)"
    assert script.link(GLOBAL) == ["DISCOVER U=0"]


def test_the_prefix_goes_while_selecting() -> None:
    script = AgentScript().to_selecting(**MULTICAST)
    script.link()
    assert script.offer(outer=(BR_90,)) == ["DISCOVER U=0"]
    assert "no global or unique-local IPv6 prefix" in script.report("unprepared").text


def test_addresses_of_earlier_attempts_do_not_pile_up() -> None:
    script = AgentScript().to_selecting(lw=None)
    script.offer(outer=(BR_90,))
    script.nak()
    words = script.offer(outer=(BR_90,), ports=OTHER_PORTS)
    assert words[:2] == ["withdraw", "prepare 2001:db8:46::c000:212:35"]


# ---- mismatch (7.5)


def test_a_mismatch_in_the_first_ack() -> None:
    """7.5 [E-8]: no traffic; a randomised interval of at least 60 s, then a REQUEST with the right source."""
    script = AgentScript().to_selecting(lw=None)
    script.offer(outer=(BR_90,))
    assert script.ack(saddr=OTHER_SADDR) == []
    assert (script.state, script.kernel, script.status.lease) == ("CONFIRMING", None, None)
    assert script.waiting_for == "the DHCP 4o6 server to take the softwire's source (option 109)"
    assert script.counted["warned-saddr-mismatch"] == 1
    assert script.until(67) == []
    assert script.until(68) == [(67.5, "REQUEST U=1")]  # the middle of 60 to 75 s
    assert told(script.query) == SADDR
    assert script.ack(saddr=SADDR) == ["save", "install"]
    assert script.state == "BOUND"


def test_the_interval_is_configurable() -> None:
    script = AgentScript(saddr_retry_s=8.0).to_selecting(lw=None)
    script.offer(outer=(BR_90,))
    script.ack(saddr=OTHER_SADDR)
    assert script.until(20)[0] == (9, "REQUEST U=1")


def test_an_ack_without_option_109() -> None:
    """8 MUST [E-9]: no confirmation, so as a mismatch."""
    script = AgentScript().to_selecting(lw=None)
    script.offer(outer=(BR_90,))
    assert script.ack() == []
    assert script.state == "CONFIRMING"
    assert "stored no address" in script.report("saddr-mismatch").text


def test_a_second_mismatch_gives_the_lease_back() -> None:
    """7.5 MAY: RELEASE and begin anew."""
    script = AgentScript().to_selecting(lw=None)
    script.offer(outer=(BR_90,))
    script.ack(saddr=OTHER_SADDR)
    script.until(68)
    assert script.ack(saddr=OTHER_SADDR) == ["RELEASE U=1", "withdraw", "forget", "DISCOVER U=0"]


def test_a_mismatch_at_a_renewal_stops_the_traffic() -> None:
    script = bound()
    script.until(1800)
    assert script.ack(saddr=OTHER_SADDR) == ["withdraw"]
    assert (script.state, script.kernel) == ("CONFIRMING", None)
    assert script.after(70) == ["REQUEST U=1"]
    assert script.ack(saddr=SADDR) == ["save", "install"]
    assert script.kernel == SOFTWIRE


def test_silence_is_asked_again_until_the_lease_ends() -> None:
    """8.1: a server may drop a change that comes too soon."""
    script = AgentScript().to_selecting(lw=None)
    script.offer(outer=(BR_90,))
    script.ack(saddr=OTHER_SADDR)
    done = [at for at, word in script.until(400) if word == "REQUEST U=1"]
    assert done[:6] == [67.5, 71.5, 79.5, 95.5, 127.5, 259.0]
    script.until(3150)
    assert script.until(3500)[0][1] == "REQUEST U=0"  # after T2 to any server
    assert (3600, "DISCOVER U=0") in script.until(3600)


def test_commands_while_confirming() -> None:
    script = AgentScript().to_selecting(lw=None)
    script.offer(outer=(BR_90,))
    script.ack(saddr=OTHER_SADDR)
    assert script.post(events.RenewRequested()) == ["REQUEST U=1"]
    assert script.post(events.ReleaseRequested()) == ["withdraw", "forget", "RELEASE U=1"]


# ---- the softwire's source changes while bound (7.2.1, X-1)


def test_renumbering_keeps_the_lease() -> None:
    """7.2.1 MUST [E-11], X-1: the multicast transport stays; the server is told the new source in a REQUEST. The old
    softwire stays until it has agreed."""
    script = bound(MULTICAST)
    assert script.link(SADDR, OTHER_GLOBAL) == [f"prepare {OTHER_SADDR}", "REQUEST U=1"]
    assert (told(script.query), script.query.inner.ciaddr) == (OTHER_SADDR, ADDRESS)
    assert (script.state, script.kernel) == ("CONFIRMING", SOFTWIRE)
    assert script.ack(saddr=OTHER_SADDR) == ["save", "install"]
    assert (script.state, script.kernel) == ("BOUND", replace(SOFTWIRE, local=OTHER_SADDR))


def test_renumbering_of_the_transport_is_a_discover() -> None:
    """RFC 7618 6 MUST [F-10], X-1: unicast from an address that is gone."""
    script = bound()
    assert script.link(OTHER_GLOBAL) == ["withdraw", "DISCOVER U=0"]
    assert script.offer(outer=(BR_90,))[-2:] == [f"prepare {OTHER_SADDR}", "REQUEST U=0"]


def test_a_second_prefix_changes_nothing() -> None:
    script = bound(MULTICAST)
    assert script.link(OTHER_GLOBAL, GLOBAL) == []
    assert script.link(GLOBAL, OTHER_GLOBAL) == []


def test_a_moment_without_prefix_changes_nothing() -> None:
    script = bound(MULTICAST)
    assert script.link() == []
    assert script.link(GLOBAL) == []
    assert script.kernel == SOFTWIRE


def test_a_refused_change_keeps_the_old_softwire() -> None:
    """8.1, 8.2: an ACK with the old source. What the server has stored is what is there: traffic goes on; asked again
    later, then given up."""
    script = bound(MULTICAST)
    script.link(OTHER_GLOBAL)
    assert script.ack(saddr=SADDR) == ["save"]
    assert (script.state, script.kernel) == ("CONFIRMING", SOFTWIRE)
    assert script.after(70) == ["REQUEST U=1"]
    assert script.ack(saddr=SADDR) == ["RELEASE U=1", "withdraw", "forget", "DISCOVER U=0"]


def test_a_nak_to_the_change() -> None:
    """7.2.1 MUST [E-10]: the new address is not used any more; DISCOVER."""
    script = bound(MULTICAST)
    script.link(OTHER_GLOBAL)
    assert script.nak() == ["withdraw", "forget", "DISCOVER U=0"]
    assert script.kernel is None


def test_the_new_address_is_a_duplicate() -> None:
    script = bound(MULTICAST)
    script.prepares = "another host has it already"
    assert script.link(OTHER_GLOBAL) == [f"prepare {OTHER_SADDR}", "withdraw", "DISCOVER U=0"]


def test_renumbering_twice_before_the_first_is_done() -> None:
    script = bound(MULTICAST)
    script.prepares = None
    third = IPv6Address("2001:db8:48::c000:212:34")
    assert script.link(OTHER_GLOBAL) == [f"prepare {OTHER_SADDR}"]
    assert script.link(IPv6Address("2001:db8:48::1")) == [f"prepare {third}"]
    assert script.post(events.AddressReady(OTHER_SADDR)) == []
    assert script.post(events.AddressReady(third)) == ["REQUEST U=1"]
    assert script.ack(saddr=third) == ["save", "install"]


# ---- restart


def dynamic_stored(**changes: object) -> object:
    stored = stored_lease(**changes)  # type: ignore[arg-type]
    return replace(stored, lease=replace(stored.lease, softwire=LeasedSoftwire((BR,), None, SADDR)))


def test_init_reboot() -> None:
    """The source is made ready (or is still there), then the REQUEST names it."""
    script = AgentScript(stored=dynamic_stored())  # type: ignore[arg-type]
    script.link(GLOBAL)
    assert script.inform(lw=None) == [f"prepare {SADDR}", "REQUEST U=0"]
    assert (script.state, told(script.query), listed(script.query)) == ("INIT-REBOOT", SADDR, (90, 137))
    assert script.ack(saddr=SADDR) == ["save", "install"]
    assert script.kernel == SOFTWIRE


def test_init_reboot_without_answer() -> None:
    """2131 3.2.3: the stored lease knows BR and source."""
    script = AgentScript(stored=dynamic_stored())  # type: ignore[arg-type]
    script.link(GLOBAL)
    script.inform(lw=None)
    script.until(60)
    assert script.kernel == SOFTWIRE


def test_init_reboot_in_another_prefix_needs_an_answer() -> None:
    """The server does not know the new source yet: silence allows nothing."""
    script = AgentScript(stored=dynamic_stored(source=LINK_LOCAL))  # type: ignore[arg-type]
    script.link(OTHER_GLOBAL)
    assert script.inform(**MULTICAST) == [f"prepare {OTHER_SADDR}", "REQUEST U=0"]  # type: ignore[arg-type]
    script.until(60)
    assert (script.kernel, script.state) == (None, "SELECTING")


def test_init_reboot_with_a_duplicate_address() -> None:
    script = AgentScript(stored=dynamic_stored())  # type: ignore[arg-type]
    script.prepares = "another host has it already"
    script.link(GLOBAL)
    assert script.inform(lw=None) == [f"prepare {SADDR}", "withdraw", "DISCOVER U=0"]


def test_a_stored_lease_that_knows_no_softwire() -> None:
    script = AgentScript(stored=stored_lease())
    script.link(GLOBAL)
    assert script.inform(lw=None) == ["withdraw", "DISCOVER U=0"]


# ---- the mode


def test_off() -> None:
    script = AgentScript(rfc8539="off").to_asking()
    assert script.inform(lw=None) == []


def test_on_asks_the_dhcp4o6_server_although_a_container_has_a_br() -> None:
    script = AgentScript(rfc8539="on").to_selecting()
    assert listed(script.query) == (90, 137)
    assert script.offer() == []
    script.offer(outer=((90, OTHER_BR.packed),))
    script.ack(saddr=SADDR)
    assert script.kernel == replace(SOFTWIRE, remote=OTHER_BR)


def test_auto_with_a_container() -> None:
    """E-14: then E-3 does not apply, and nothing of RFC 8539 is sent."""
    script = AgentScript().to_bound()
    assert all(listed(sent) == () and told(sent) is None for sent in script.queries)


def test_a_container_appears() -> None:
    """The softwire is provisioned in another way: everything anew."""
    script = bound({**ALONE, "refresh": 600})
    assert script.refresh() == ["withdraw", "DISCOVER U=0"]
    assert listed(script.query) == ()


def test_option_88_is_withdrawn() -> None:
    """X-2: BR and source came with the lease: they hold as long as it does."""
    script = bound({**ALONE, "refresh": 600})
    assert script.refresh(servers=None, lw=None, refresh=0xFFFFFFFF) == []
    assert (script.state, script.kernel) == ("COASTING", SOFTWIRE)
    assert script.until(3600) == [(3600, "withdraw")]
