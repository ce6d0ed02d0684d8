"""The grid of ports."""

from __future__ import annotations

import pytest

from b4client.lab.portgrid import CELL, port_grid
from b4client.model.portset import PortSet


@pytest.mark.parametrize(
    "ports", [PortSet(0, 8, 0x34), PortSet(4, 8, 0x14), PortSet(6, 8, 0x34), PortSet(6, 10, 5), None]
)
def test_cells_are_the_set(ports: PortSet | None) -> None:
    cells = "".join(line[6:] for line in port_grid(ports)[:16])
    assert len(cells) == 1024
    for number, cell in enumerate(cells):
        ours = ports is None or any(port in ports for port in range(number * CELL, (number + 1) * CELL))
        assert cell == ("▒" if ours else "·")


def test_used_and_foreign() -> None:
    lines = port_grid(PortSet(4, 8, 0x14), {4416, 4431, 80})
    assert "".join(line[6:] for line in lines[:16]).count("█") == 1
    assert lines[0] == "    0 ·!" + "·" * 62
    assert "NOT OURS" in lines[16]
    assert "240 ports in 15 ranges: 4416-4431, 8512-8527," in lines[17]
    assert lines[17].endswith("... 61760-61775")
    assert "256 ports in 1 range: 13312-13567" in port_grid(PortSet(0, 8, 0x34))[17]
    assert "65536 ports" in port_grid(None)[17]
    assert "\x1b[32m█" in "".join(port_grid(PortSet(4, 8, 0x14), {4416}, colour=True))
