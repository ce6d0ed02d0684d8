"""What ``b4client status`` tells people of the NAT."""

from __future__ import annotations

import pytest

from b4client.statusview import render_status

DEVICE = {"device": "b4", "kind": "tun", "up": True, "mtu": 1460}


@pytest.mark.parametrize(
    ("nat", "line"),
    [
        ({"design": "recirculation", "problem": None}, "NAT: every port of the set (recirculation)"),
        ({"design": "not shared", "problem": None}, "NAT: address not shared"),
        (
            {"design": "one try per packet", "problem": "make the NAT loop b4-n0: an interface of that name exists"},
            "NAT: one try per packet, since make the NAT loop b4-n0: an interface of that name exists",
        ),
    ],
)
def test_design_and_reason(nat: dict[str, str | None], line: str) -> None:
    lines = render_status({"state": "BOUND", "dataplane": {**DEVICE, "nat": nat}})
    assert [text.strip() for text in lines if "NAT" in text] == [line]


def test_nothing_said_of_an_unknown_design() -> None:
    assert not [text for text in render_status({"state": "BOUND", "dataplane": DEVICE}) if "NAT" in text]


def test_forwards() -> None:
    """In short, and the inactive ones with their reason; nothing where nothing is forwarded."""
    answer = {"state": "BOUND", "waiting_for": None}
    inactive = {"protocol": "tcp", "port": 80, "to": "192.168.1.10", "to_port": 8080, "reason": "there is no softwire"}
    told = {"active": 2, "inactive": 1, "moved": 1, "inactive_ones": [inactive], "problem": "cannot write"}
    lines = render_status({**answer, "forwards": told})
    assert "forwards      2 active, 1 of them moved, 1 inactive" in lines
    assert "              tcp 80 to 192.168.1.10:8080 is inactive: there is no softwire" in lines
    assert "              cannot write" in lines
    none = {"active": 0, "inactive": 0, "moved": 0, "inactive_ones": [], "problem": None}
    assert not any("forwards" in line for line in render_status({**answer, "forwards": none}))
