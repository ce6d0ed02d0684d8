"""The pictures of ``b4client lab``."""

from __future__ import annotations

import re

import pytest

from b4client.lab.accessplan import AccessPlan
from b4client.lab.labview import draw_network, draw_port_owners, draw_table
from b4client.model.portset import PortSet

ROW = {
    "customer": 1,
    "wan": "2001:db8:46:1::100",
    "state": "BOUND",
    "waiting_for": None,
    "softwire": "2001:db8:46:1::100",
    "address": "192.0.2.1",
    "psid": 5,
    "psid_len": 8,
    "offset": 0,
    "port_count": 256,
    "range_count": 1,
    "first_range": "1280-1535",
    "ports_seen": 3,
    "packets_up": 10,
    "packets_down": 9,
    "refused_up": 0,
    "up_after_s": 1.234,
}


@pytest.mark.parametrize("customers", [1, 2, 3, 4, 5, 64])
@pytest.mark.parametrize("mode", ["lw4o6", "map-e"])
def test_network_is_drawn(customers: int, mode: str) -> None:
    lines = draw_network(AccessPlan(customers, mode=mode))
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 120
    assert f"cpe{customers} " in text
    assert ("..." in text) == (customers > 4)
    assert text.count("═══ aftr") == 1
    # The line to the router begins where the customers' lines meet.
    joints = {re.search("[─┬┴┼┐┘┤│](?=$|─── isp)", line).start() for line in lines[1 : 1 + min(customers, 4)]}  # type: ignore[union-attr]
    assert len(joints) == 1
    assert "\x1b" not in text


def test_kea_says_why() -> None:
    assert "Kea cannot lease one address twice" in "\n".join(draw_network(AccessPlan(3, server="kea")))


def test_table() -> None:
    waiting = {**dict.fromkeys(ROW), "customer": 2, "wan": "2001:db8:46:2::100", "state": "INIT", "waiting_for": "rain"}
    many = {**ROW, "customer": 27, "range_count": 63, "offset": 6}
    whole = {**ROW, "customer": 4, "psid": None, "range_count": None, "first_range": None}
    header, *lines = draw_table([ROW, waiting, many, whole])
    assert re.split("  +", lines[0].strip()) == [
        *("A 1", "2001:db8:46:1::100", "192.0.2.1", "0x5/8", "1280-1535", "3", "10", "9", "BOUND", "1.23 s")
    ]
    assert "INIT: waits for rain" in lines[1]
    assert lines[1].count(" -") >= 6
    assert lines[2].startswith("  27 ")
    assert "1280-1535 and 62 more" in lines[2]
    assert " all " in lines[3]
    assert header.index("state") == lines[0].index("BOUND") == lines[1].index("INIT")
    coloured = draw_table([ROW, waiting], coloured=True)
    assert coloured[1].startswith("\x1b[32m")
    assert coloured[2].startswith("\x1b[1;31m")


def test_port_owners() -> None:
    owners = {1: PortSet(0, 2, 1), 2: PortSet(0, 2, 2)}
    lines = draw_port_owners(owners, {1: [16384, 32767], 2: [40000]})
    assert len(lines) == 17
    cells = "".join(line[6:] for line in lines[:16])
    assert len(cells) == 1024
    assert cells.count("·") == 512
    assert (cells[256], cells[511], cells[40000 // 64]) == ("A", "A", "B")
    assert (cells.count("A"), cells.count("B")) == (2, 1)
    assert (cells.count("a"), cells.count("b")) == (254, 255)
    assert "A customer 1, B customer 2" in lines[16]
    # A port that its user does not own is shown whatever else is in the cell.
    foreign = draw_port_owners(owners, {1: [40000], 2: [40001], 3: [5]})
    cells = "".join(line[6:] for line in foreign[:16])
    assert (cells.count("!"), cells[0], cells[40000 // 64]) == (2, "!", "!")
    assert "USED BY WHO DOES NOT OWN" in foreign[16]
    coloured = draw_port_owners(owners, {1: [16384]}, coloured=True)
    assert "\x1b[1;7;32mA\x1b[0m" in coloured[4]
