"""``b4client status`` for people."""

from __future__ import annotations

from typing import Any

import pytest

from b4client.statusview import duration, render_status

LEASE: dict[str, Any] = {
    "address": "192.0.2.18",
    "ports": {"offset": 6, "psid_len": 8, "psid": 0x34, "port_count": 252, "range_count": 63, "ranges": []},
    "server_id": "192.0.0.1",
    "age_s": 600,
    "t1_in_s": 1200.0,
    "t2_in_s": 2550.0,
    "expires_in_s": 3000.0,
    "options": {"dns": "0808080808080404", "mtu": "05b4", "domain": "6578616d706c65", "200": "01"},
}
BOUND: dict[str, Any] = {
    "state": "BOUND",
    "state_for_s": 600.0,
    "waiting_for": None,
    "wan": {"interface": "eth0", "up": True, "mtu": 1500, "addresses": ["2001:db8::1"], "link_local": "fe80::1"},
    "provisioning": {
        "state": "informed",
        "servers_4o6": ["2001:db8::53"],
        "containers": ["lw4o6"],
        "refresh_in_s": 86400.0,
    },
    "lease": LEASE,
    "softwire": {"binding_ipv6_addr": "2001:db8::1", "br_ipv6_addr": "2001:db8:ffff::1", "problem": None},
    "dataplane": {
        "kind": "tun",
        "device": "b4",
        "up": True,
        "mtu": 1460,
        "routes": ["0.0.0.0/0"],
        "traffic": {"tx_packets": 1, "tx_bytes": 84, "rx_packets": 2, "rx_bytes": 168},
        "counters": {"in_drop": {"packets": 3, "bytes": 120}, "out_drop": {"packets": 0, "bytes": 0}},
    },
    "counters": {"received-ack": 1, "sent-query": 2, "drop-response-foreign-xid": 4},
}


def test_a_bound_client() -> None:
    lines = render_status(BOUND)
    assert lines[:14] == [
        "state         BOUND for 10 min",
        "WAN           eth0 up, MTU 1500, 2001:db8::1, fe80::1",
        "provisioning  DHCP 4o6 server 2001:db8::53; lw4o6; refreshed in 1 d",
        "address       192.0.2.18, shared 1:256, 252 ports",
        "lease         from 192.0.0.1, expires in 50 min, renewal in 20 min",
        "DNS           8.8.8.8, 8.8.4.4",
        "MTU           1460",
        "domain        example",
        "200           01",
        "softwire      2001:db8::1 to 2001:db8:ffff::1 (BR)",
        "device        b4 up, userspace (TUN), MTU 1460",
        "              sent 1 packets (84 octets), received 2 (168)",
        "              routes 0.0.0.0/0",
        "",
    ]
    assert "ports         PSID 0x34/8 offset 6: 252 in 63 range(s), 1232-1235, 2256-2259, ..., 64720-64723" in lines
    assert lines[-2:] == ["messages      drop-response-foreign-xid 4", "NAT           in_drop 3"]


def test_no_colour_and_no_control_characters_without_a_terminal() -> None:
    answer = {**BOUND, "lease": {**LEASE, "options": {"domain": "1b5b33316d78"}}}
    text = "\n".join(render_status(answer))
    assert "\x1b" not in text
    assert "?[31mx" in text
    assert "\x1b[32mBOUND\x1b[0m" in render_status(BOUND, colour=True)[0]


def test_what_is_waited_for() -> None:
    lines = render_status({"state": "STOPPED", "state_for_s": 3, "waiting_for": "wan to come up", "wan": {}})
    assert lines == [
        "state         STOPPED for 3 s",
        "waiting for   wan to come up",
        "WAN           ? down, MTU ?, no IPv6 address",
        "provisioning  no answer of a DHCPv6 server yet",
        "device        no softwire device",
    ]


def test_an_unshared_infinite_lease() -> None:
    lease = {**LEASE, "ports": None, "expires_in_s": None, "t1_in_s": None}
    lines = render_status({**BOUND, "lease": lease})
    assert "address       192.0.2.18, not shared" in lines
    assert "lease         from 192.0.0.1, for ever" in lines


def test_problems() -> None:
    softwire = {**BOUND["softwire"], "problem": "no room"}
    lines = render_status({**BOUND, "softwire": softwire, "dataplane": {"error": "x"}, "store_problem": "disk full"})
    assert "              problem: no room" in lines
    assert "device        unknown: x" in lines
    assert "storage       disk full" in lines


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "ever"),
        (-1, "0 s"),
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7205, "2 h 5 s"),
        (93784, "1 d 2 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


# ---- without a lease

PORTS: dict[str, Any] = LEASE["ports"]


def without_lease(**softwire: Any) -> list[str]:
    base = {"mode": "lw4o6", "ipv4": "192.0.2.18", "ports": PORTS, **BOUND["softwire"], **softwire}
    return render_status({**BOUND, "state": "STOPPED", "lease": None, "softwire": base})


def test_a_softwire_without_lease() -> None:
    """``STOPPED`` would be the DHCPv4 client, which has nothing to do: IPv4 is there."""
    lines = without_lease()
    assert lines[0] == "state         IPv4 without a lease for 10 min"
    assert "address       192.0.2.18, shared 1:256, 252 ports" in lines
    assert "softwire      2001:db8::1 to 2001:db8:ffff::1 (BR)" in lines
    assert any(text.startswith("ports         PSID 0x34/8 offset 6") for text in lines)


def test_ds_lite() -> None:
    lines = without_lease(mode="ds-lite", ipv4="192.0.0.2", ports=None)
    assert "address       192.0.0.2, translated by the AFTR" in lines
    assert "softwire      2001:db8::1 to 2001:db8:ffff::1 (AFTR)" in lines
    nat = {**BOUND["dataplane"], "nat": {"design": "not shared"}}
    softwire = {**BOUND["softwire"], "mode": "ds-lite", "ipv4": "192.0.0.2"}
    assert not any("NAT:" in text for text in render_status({**BOUND, "softwire": softwire, "dataplane": nat}))


def test_an_ipv4_prefix() -> None:
    lines = without_lease(mode="map-e", ipv4="10.18.52.1", ipv4_prefix="10.18.52.0/24", ports=None)
    assert "address       10.18.52.1 of 10.18.52.0/24, not shared" in lines


def with_mesh(count: int, **mesh: Any) -> list[str]:
    rule = {"ipv4": "192.0.2.0/24", "ipv6": "2001:db8::/40", "ea_len": 16, "offset": 6, "sent": 3, "received": 4}
    told = {"active": True, "reason": None, "count": count, "rules": [rule] * count, **mesh}
    return render_status({**BOUND, "dataplane": {**BOUND["dataplane"], "mesh": told}})


def test_the_mesh() -> None:
    lines = with_mesh(1)
    at = lines.index("mesh          to other customers directly, by 1 forwarding rule")
    assert lines[at + 1] == "              192.0.2.0/24 to 2001:db8::/40, 16 EA bits: sent 3, received 4 packets"
    assert "              and 12 more (--json)" in with_mesh(20)
    passive = with_mesh(2, active=False, reason="softwire.mesh is off")
    assert "mesh          no: 2 forwarding rules, all goes by the BR; softwire.mesh is off" in passive


@pytest.mark.parametrize(
    ("provisioning", "text"),
    [
        ({"mechanism": "rfc8539", "containers": []}, "no container; in use: softwire by DHCP 4o6 (RFC 8539); "),
        ({"mechanism": "ds-lite", "aftr": "aftr.example."}, "; AFTR aftr.example.; in use: DS-Lite; "),
        ({"state": "static", "mechanism": "map-e"}, "from the configuration: map-e"),
        ({"state": "static"}, "from the configuration: nothing that fits together"),
    ],
)
def test_the_mechanism_in_use(provisioning: dict[str, Any], text: str) -> None:
    lines = render_status({**BOUND, "provisioning": {**BOUND["provisioning"], **provisioning}})
    assert text in lines[2]
