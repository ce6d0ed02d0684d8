"""Metrics: the text format, every value's place, and that dashboards and alerts name only what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from b4client import metrics
from b4client.protocol.counters import COUNTERS

GRAFANA = Path(__file__).parent.parent / "packaging" / "grafana"
STATUS: dict[str, Any] = {
    "version": "1",
    "instance": 'w"\\\n0',
    "state": "BOUND",
    "state_for_s": 12.5,
    "waiting_for": None,
    "wan": {"up": True},
    "provisioning": {"brs": ["2001:db8::1"]},
    "lease": {"age_s": 1.5, "t1_in_s": 10.0, "t2_in_s": None, "expires_in_s": None, "ports": {"port_count": 256}},
    "softwire": {"mode": "lw4o6", "installed": True},
    "dataplane": {
        "device": "b4",
        "kind": "tun",
        "up": True,
        "mtu": 1460,
        "traffic": {"rx_packets": 1, "tx_packets": 2, "rx_bytes": 3, "tx_bytes": 4},
        "counters": {"guard_drop": {"packets": 5, "bytes": 6}},
        "pump": {"pid": 9, "out": 7},
        "mesh": {
            "active": True,
            "rules": [{"ipv4": "192.0.2.0/24", "ipv6": "2001:db8::/40", "sent": 15, "received": 16}],
        },
    },
    "forwards": {"active": 15, "inactive": 16},
    "port_use": {"protocols": {"udp": {"used": 17, "time_wait": 0, "forwarded": 18, "free": 19, "peak": 20}}},
    "counters": {"drop-response-malformed": 8, "received-ack": 9, "warned-lease-times": 10},
    "mending": {"mends": 11, "contested": False, "problem": "x"},
    "process": {"started": 1e9, "rss_bytes": 12, "installs": 13, "events": {"bound": 14}},
    "timings": {"install_s": 0.25},
    "store_problem": None,
}
LINE = re.compile(r'([a-z0-9_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+)\} (\S+)')


def parse(text: str) -> dict[tuple[str, str], float]:
    """(metric, labels without wan) -> value; every line must be of the format."""
    assert text.endswith("\n")
    found, kinds, seen = {}, {}, []
    for line in text.splitlines():
        if line.startswith("# "):
            word, name, rest = line[2:].split(" ", 2)
            assert word in ("HELP", "TYPE")
            if word == "TYPE":
                kinds[name] = rest
                assert name not in seen
                seen.append(name)
            continue
        match = LINE.fullmatch(line)
        assert match, line
        name, labels, value = match.groups()
        assert name == seen[-1]  # the samples of a metric stand together, behind their TYPE
        assert (kinds[name] == "counter") == name.endswith("_total")
        key = (name, re.sub(r'^wan="[^,]*",?', "", labels))
        assert key not in found
        found[key] = float(value)
    return found


def test_every_value_is_where_it_belongs() -> None:
    found = parse(metrics.render(STATUS))
    expected = {
        ("b4client_ready", ""): 1,
        ("b4client_state", 'state="BOUND"'): 1,
        ("b4client_state", 'state="INIT"'): 0,
        ("b4client_state_seconds", ""): 12.5,
        ("b4client_lease_renew_in_seconds", ""): 10,
        ("b4client_lease_expires_in_seconds", ""): float("inf"),
        ("b4client_ports", ""): 256,
        ("b4client_forwards", 'state="active"'): 15,
        ("b4client_forwards", 'state="inactive"'): 16,
        ("b4client_port_use", 'protocol="udp",state="used"'): 17,
        ("b4client_port_use", 'protocol="udp",state="forwarded"'): 18,
        ("b4client_port_use", 'protocol="udp",state="free"'): 19,
        ("b4client_port_use_peak", 'protocol="udp"'): 20,
        ("b4client_softwire_bytes_total", 'direction="received"'): 3,
        ("b4client_softwire_packets_total", 'direction="sent"'): 2,
        ("b4client_nat_packets_total", 'fate="guard_drop"'): 5,
        ("b4client_nat_bytes_total", 'fate="guard_drop"'): 6,
        ("b4client_pump_packets_total", 'fate="out"'): 7,
        ("b4client_mesh_active", ""): 1,
        ("b4client_mesh_packets_total", 'rule="192.0.2.0/24 2001:db8::/40",direction="sent"'): 15,
        ("b4client_mesh_packets_total", 'rule="192.0.2.0/24 2001:db8::/40",direction="received"'): 16,
        ("b4client_drops_total", 'reason="response-malformed"'): 8,
        ("b4client_drops_total", 'reason="ack-lease-time"'): 0,
        ("b4client_messages_total", 'kind="received-ack"'): 9,
        ("b4client_oddities_total", 'kind="warned-lease-times"'): 10,
        ("b4client_mends_total", ""): 11,
        ("b4client_damaged", ""): 1,
        ("b4client_resident_memory_bytes", ""): 12,
        ("b4client_installs_total", ""): 13,
        ("b4client_events_total", 'kind="bound"'): 14,
        ("b4client_install_seconds", ""): 0.25,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert {name for name, _ in found} == set(metrics.METRICS)
    assert 'wan="w\\"\\\\\\n0"' in metrics.render(STATUS)
    counted = [
        k for k in found if k[0] in ("b4client_drops_total", "b4client_messages_total", "b4client_oddities_total")
    ]
    assert len(counted) == len(COUNTERS)


def test_a_client_without_anything_has_metrics_too() -> None:
    found = parse(
        metrics.render({"instance": "wan", "state": "INIT", "waiting_for": "x", "dataplane": {"error": "no"}})
    )
    assert found["b4client_ready", ""] == 0
    assert ("b4client_ports", "") not in found
    assert found["b4client_softwire_up", ""] == 0


def named(text: str) -> set[str]:
    return set(re.findall(r"\bb4client_[a-z0-9_]+", text))


def test_the_dashboard_names_only_what_exists() -> None:
    dashboard = json.loads((GRAFANA / "b4client.json").read_text())
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    assert len(expressions) > 15
    for expression in expressions:
        assert named(expression), expression
        assert named(expression) <= set(metrics.METRICS), expression
        assert ("rate(" in expression or "increase(" in expression) == ("_total" in expression), expression
        assert 'wan=~"$wan"' in expression
    # Nothing covers anything else.
    cells = [
        (x, y)
        for p in dashboard["panels"]
        for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
        for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_alerts_name_only_what_exists() -> None:
    text = (GRAFANA / "alerts.yml").read_text()
    expressions = re.findall(r"^\s+expr: (.*)$", text, re.M)
    assert len(expressions) == text.count("- alert:") == text.count("summary:") == text.count("severity:") >= 8
    for expression in expressions:
        assert named(expression)
        assert named(expression) <= set(metrics.METRICS), expression
        for label, value in re.findall(r'(\w+)="([^"]*)"', expression):
            samples = {labels.get(label) for _, labels, _ in metrics.samples(STATUS)}
            fates = {"exhausted", "guard_drop"}
            assert value in samples | fates, f"{label}={value}"


def test_fates_in_alerts_are_the_nats_own() -> None:
    from b4client.dataplane import ruleset

    text = (GRAFANA / "alerts.yml").read_text()
    assert set(re.findall(r'fate="([^"]*)"', text)) <= set(ruleset.COUNTERS)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_metrics_follow_prometheus_naming(name: str) -> None:
    kind, explanation = metrics.METRICS[name]
    assert re.fullmatch(r"b4client_[a-z0-9_]+", name)
    assert (kind == "counter") == name.endswith("_total")
    assert explanation.endswith(".")
