"""DS-Lite: a plan that translates nothing (RFC 6333)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address

import pytest

from b4client.dataplane.plan import plan
from b4client.dataplane.ruleset import COUNTERS
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import DS_LITE_B4, Encapsulation, Mode, SoftwireConfig

CONFIG = SoftwireConfig(
    Mode.DS_LITE, "wan", IPv6Address("2001:db8::1"), IPv6Address("2001:db8:ffff::1"), DS_LITE_B4, None
)
SETTINGS = SoftwireSettings()


def ruleset(**settings: object) -> str:
    found = replace(SETTINGS, **settings)  # type: ignore[arg-type]
    return plan(CONFIG, found, encapsulation=Encapsulation.USERSPACE, path_mtu=1500).ruleset


def test_nothing_is_translated() -> None:
    """RFC 6333 5.2, 8.1: the B4 does no NAT. The other mechanisms' last line is not there either."""
    text = ruleset()
    assert not {"nat", "snat", "dnat", "guard", "source_nat"} & set(text.split())
    shared = plan(replace(CONFIG, mode=Mode.LW4O6), SETTINGS, encapsulation=Encapsulation.USERSPACE, path_mtu=1500)
    assert "snat" in shared.ruleset.split()


def test_the_tables_are_the_same_so_that_a_change_of_mechanism_replaces_them() -> None:
    other = plan(replace(CONFIG, mode=Mode.LW4O6), SETTINGS, encapsulation=Encapsulation.USERSPACE, path_mtu=1500)
    mine = plan(CONFIG, SETTINGS, encapsulation=Encapsulation.USERSPACE, path_mtu=1500)
    assert mine.tables == other.tables
    for family, name in mine.tables:
        assert mine.ruleset.count(f"delete table {family} {name}\n") == 1
    assert (str(mine.address), mine.routes) == ("192.0.0.2", other.routes)
    for counter in COUNTERS:
        assert f"counter {counter} {{ }}" in mine.ruleset


@pytest.mark.parametrize(
    ("settings", "line", "there"),
    [
        ({}, "maxseg size set 1420", True),
        ({"clamp_mss": False}, "maxseg", False),
        ({}, "not_lan_drop reject", False),
        ({"lan": (IPv4Network("192.168.1.0/24"),)}, "ip saddr != { 192.168.1.0/24 } counter name not_lan_drop", True),
        ({}, "chain input", False),
        ({"accept_local": False}, 'iifname "b4" ct state new counter name not_forwarded drop', True),
        ({}, "udp dport { 67, 68 }", True),
        ({}, "ip saddr 169.254.0.0/16 counter name link_local_drop drop", True),
    ],
)
def test_what_is_left_to_do(settings: dict[str, object], line: str, there: bool) -> None:
    assert (line in ruleset(**settings)) is there
