"""The plan of an access network: sizes, addresses, and what servers and lwAFTR are told."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest

from b4client.lab import serverconfig
from b4client.lab.accessplan import SHARED_ADDRESS, AccessPlan, binding_of
from b4client.lab.binding import Binding, parse_rule
from b4client.lab.kea import KeaPlace, dhcp6_config
from b4client.lab.netns import LabError
from b4client.lab.nodes import BR, POOL
from b4client.model.maprule import map_ce
from b4client.model.portset import PortSet


@pytest.mark.parametrize(
    ("customers", "mode", "psid_len"),
    [
        # lw4o6: the sets that hold a port of 0-1023 are not given out.
        (1, "lw4o6", 1),
        (2, "lw4o6", 2),
        (3, "lw4o6", 2),
        (4, "lw4o6", 3),
        (16, "lw4o6", 5),
        (63, "lw4o6", 6),
        (64, "lw4o6", 7),
        (126, "lw4o6", 7),
        (127, "lw4o6", 8),
        (250, "lw4o6", 8),
        # MAP-E: the offset keeps them out; PSID 0 is the router's subnet.
        (1, "map-e", 1),
        (2, "map-e", 2),
        (63, "map-e", 6),
        (64, "map-e", 7),
    ],
)
def test_the_smallest_ratio_that_fits(customers: int, mode: str, psid_len: int) -> None:
    assert AccessPlan(customers, mode=mode).psid_len == psid_len
    assert AccessPlan(customers, 1 << psid_len, mode).psid_len == psid_len
    if psid_len > 1:
        with pytest.raises(LabError, match=f"at least {1 << psid_len}"):
            AccessPlan(customers, 1 << psid_len - 1, mode)


def test_with_kea_the_ratio_is_of_no_address_in_common() -> None:
    plan = AccessPlan(9, 2, server="kea")
    assert plan.own_addresses
    assert (plan.kea.first, plan.kea.last) == (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.9"))
    assert plan.kea.ports == PortSet(0, 1, 1)


def test_the_lab_server_takes_its_configuration() -> None:
    config = serverconfig.parse(AccessPlan(64).lab_server)
    (pool,) = config.pools.shared
    assert (pool.first, pool.last, pool.psid_len) == (SHARED_ADDRESS, SHARED_ADDRESS, 7)
    assert len(config.pools.usable(pool, 7)) == 126
    assert config.server.servers_4o6 == (IPv6Address("2001:db8:46::1"),)


@pytest.mark.parametrize("customers", [1, 2, 20, 250])
def test_map_e_of_every_customer_is_what_the_rule_says(customers: int) -> None:
    plan = AccessPlan(customers, mode="map-e")
    rule = parse_rule(plan.mapping_rule)
    for number in range(1, customers + 1):
        ce = map_ce(rule, plan.wan(number).network)
        assert (ce.ipv4, ce.ports) == (SHARED_ADDRESS, PortSet(6, plan.psid_len, number))
    # Both servers say the same rule, and no option 88.
    config = serverconfig.parse(plan.lab_server)
    assert config.server.servers_4o6 is None
    assert config.server.map_e is not None
    (told,) = config.server.map_e.rules
    assert (told.rule_ipv4, told.rule_ipv6, told.ea_len) == (rule.rule_ipv4, rule.rule_ipv6, rule.ea_len)
    place = KeaPlace("wan", IPv6Address("2001:db8:46::1"), IPv6Network("2001:db8:46::/48"), POOL, BR)
    options = {option["name"]: option.get("data") for option in dhcp6_config(plan.kea, place)["Dhcp6"]["option-data"]}
    assert "dhcp4o6-server-addr" not in options
    assert options["s46-rule"] == f"0, {plan.psid_len}, 32, 192.0.2.1, {rule.rule_ipv6}"


def test_customers_have_a_prefix_each() -> None:
    plan = AccessPlan(250)
    assert str(plan.wan(1)) == "2001:db8:46:1::100/64"
    assert str(plan.wan(250)) == "2001:db8:46:fa::100/64"
    assert len({plan.wan(n).network for n in range(251)}) == 251


def test_binding_of_a_status() -> None:
    ports = {"offset": 0, "psid_len": 2, "psid": 3}
    softwire = {"installed": True, "ipv4": "192.0.2.1", "binding_ipv6_addr": "2001:db8::1", "ports": ports}
    status = {"softwire": softwire, "dataplane": {"up": True}}
    expected = Binding(SHARED_ADDRESS, PortSet(0, 2, 3), IPv6Address("2001:db8::1"))
    assert binding_of(status) == expected
    assert binding_of({**status, "softwire": {**softwire, "ports": None}}) == Binding(SHARED_ADDRESS, None, expected.b4)
    for lacking in (
        {"softwire": None, "dataplane": None},
        {**status, "dataplane": {"up": False}},
        {**status, "softwire": {**softwire, "installed": False}},
    ):
        assert binding_of(lacking) is None
