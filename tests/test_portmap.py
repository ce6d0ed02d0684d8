"""The picture of a port set: every cell says the truth."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client.model.portset import PortSet
from b4client.portmap import render_port_map

LENGTHS = [(a, k) for a in range(16) for k in range(1, 17 - a)]
port_sets = st.none() | st.sampled_from(LENGTHS).flatmap(
    lambda ak: st.builds(PortSet, st.just(ak[0]), st.just(ak[1]), st.integers(0, 2 ** ak[1] - 1))
)


def cell_of(ports: PortSet | None, used: set[int], cell: range) -> str:
    """What a cell must show, by looking at every port of it."""
    inside = [p for p in cell if ports is None or p in ports]
    if used & (set(cell) - set(inside)):
        return "!"
    if used & set(inside):
        return "●"
    if len(inside) == len(cell):
        return "█"
    return "·" if not inside else "▓" if 2 * len(inside) >= len(cell) else "░"


@given(port_sets, st.sets(st.integers(0, 65535), max_size=5), st.integers(8, 200))
def test_every_cell(ports: PortSet | None, used: set[int], width: int) -> None:
    lines = render_port_map(ports, used, width)
    edges = [65536 * i // width for i in range(width + 1)]
    assert lines[1] == "".join(cell_of(ports, used, range(edges[i], edges[i + 1])) for i in range(width))
    assert max(len(line) for line in lines[:2]) <= width
    if ports is None or ports.range_count == 1:
        assert len(lines) == 3
    else:
        block = ports.floor
        assert lines[2] == f"the same in each {block} ports from {block} on:"
        cells = min(width, block)
        folded = {p % block + block for p in used if p >= block}
        edges = [block + block * i // cells for i in range(cells + 1)]
        assert lines[3] == "".join(cell_of(ports, folded, range(edges[i], edges[i + 1])) for i in range(cells))
        assert len(lines) == 5
    shown = set("".join(lines[1:-1:2]))
    assert {part[0] for part in lines[-1].split("  ")} == shown


def test_contiguous() -> None:
    assert render_port_map(PortSet(0, 8, 0x34), width=32) == [
        "0       16384   32768   49152",
        "······░·························",
        "· not ours  ░ less than half of the cell ours",
    ]


def test_scattered_with_used_ports() -> None:
    assert render_port_map(PortSet(4, 4, 5), {5376, 5377, 80}) == [
        "0       8192    16384   24576   32768   40960   49152   57344",
        "!····●" + "···░" * 14 + "··",
        "the same in each 4096 ports from 4096 on:",
        "····················●███········································",
        "· not ours  ░ less than half of the cell ours  █ ours  ● ours, used  ! NOT OURS, USED",
    ]


def test_colour_changes_nothing_but_colour() -> None:
    plain = render_port_map(PortSet(6, 8, 0x34), {1232, 7})
    coloured = render_port_map(PortSet(6, 8, 0x34), {1232, 7}, colour=True)
    assert not any("\x1b" in line for line in plain)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain
    assert "\x1b[1;31m!\x1b[0m" in coloured[1]
    assert coloured[1].count("\x1b") < 2 * 10  # runs, not cells
    assert coloured[0] == plain[0]


@pytest.mark.parametrize(("width", "labels"), [(8, "0"), (14, "0      32768"), (28, "0      16384  32768  49152")])
def test_scale_of_narrow_maps(width: int, labels: str) -> None:
    assert render_port_map(None, width=width)[0] == labels


def test_refusals() -> None:
    with pytest.raises(ValueError, match="needs 8 columns, not 7"):
        render_port_map(None, width=7)
    for port in (-1, 65536):
        with pytest.raises(ValueError, match=f"not a port: {port}"):
            render_port_map(None, [80, port])
