"""What ``b4client status`` says about DHCPv6."""

from __future__ import annotations

from typing import Any

import pytest

from b4client.statusview import render_status

LEASES = (
    {"network": "2001:db8:46::5/128", "preferred_in_s": 100.0, "valid_in_s": 200.0},
    {"network": "2001:db8:100::/56", "preferred_in_s": 0, "valid_in_s": None},
)


def provisioning(**values: Any) -> dict[str, str]:
    """The lines by label, for a provisioning of these values."""
    answer = {"state": "STOPPED", "provisioning": {"servers_4o6": None, "containers": (), **values}}
    lines = render_status({**answer, "counters": {"sent-dhcp6": 3}})
    return {line[:14].strip(): line[14:] for line in lines}


def test_the_leases() -> None:
    lines = render_status({"state": "BOUND", "provisioning": {"mode": "address+prefix", "leases": LEASES}})
    at = next(i for i, line in enumerate(lines) if line.startswith("DHCPv6 lease"))
    assert lines[at : at + 2] == [
        "DHCPv6 lease  2001:db8:46::5 for 3 min 20 s",
        "              2001:db8:100::/56 for ever, deprecated",
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"mode": "external", "state": "waiting"}, "nothing handed over yet"),
        ({"mode": "prefix", "state": "soliciting"}, "no answer of a DHCPv6 server yet"),
        (
            {"mode": "external", "state": "handedover", "servers_4o6": ()},
            "DHCP 4o6 server by multicast; no container; handed over",
        ),
        (
            {"mode": "prefix", "state": "bound", "refresh_in_s": 60},
            "no option 88; no container; refreshed in 1 min",
        ),
    ],
)
def test_where_it_stands(values: dict[str, Any], text: str) -> None:
    assert provisioning(**values)["provisioning"] == text


def test_messages_sent_are_no_news() -> None:
    assert "messages" not in provisioning(state="bound")
