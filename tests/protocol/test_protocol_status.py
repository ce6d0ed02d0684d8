"""What the machine shows: remaining seconds, port sets that are cut, names instead of codes."""

from __future__ import annotations

import math
from dataclasses import replace

from timescript import ADDRESS, PORTS, lease_at

from b4client.model.portset import PortSet
from b4client.protocol.status import LeaseStatus, PortsStatus
from b4client.wire.dhcp4 import Option


def test_lease() -> None:
    lease = replace(lease_at(100.0), options=((Option.DNS, b"\x08\x08\x08\x08"), (200, b"\x01")))
    shown = LeaseStatus.of(lease, 400.1234567)
    assert (shown.address, shown.server_id) == (str(ADDRESS), "192.0.0.1")
    assert (shown.age_s, shown.t1_in_s, shown.t2_in_s, shown.expires_in_s) == (300.123, 1499.877, 2849.877, 3299.877)
    assert shown.options == {"dns": "08080808", "200": "01"}
    assert shown.ports == PortsStatus.of(PORTS)


def test_an_infinite_lease() -> None:
    """``inf`` is no JSON."""
    lease = replace(lease_at(0.0, ports=None), t1_at=math.inf, t2_at=math.inf, expires_at=math.inf)
    shown = LeaseStatus.of(lease, 5.0)
    assert (shown.t1_in_s, shown.t2_in_s, shown.expires_in_s, shown.ports) == (None, None, None, None)


def test_ports() -> None:
    """RFC 7597 App. A example 1."""
    shown = PortsStatus.of(PORTS)
    assert (shown.offset, shown.psid_len, shown.psid, shown.port_count, shown.range_count) == (6, 8, 0x34, 252, 63)
    assert (shown.ranges[0], shown.ranges[-1]) == ((1232, 1235), (64720, 64723))


def test_many_ranges_are_cut() -> None:
    shown = PortsStatus.of(PortSet(15, 1, 1))
    assert (shown.range_count, len(shown.ranges)) == (32767, 64)
