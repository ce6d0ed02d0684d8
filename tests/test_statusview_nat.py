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
