"""A port set as a picture: one bar for all 65536 ports, and one for the pattern that repeats in it.

    0       8192    16384   24576   32768   40960   49152   57344
    ·░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░
    the same in each 1024 ports from 1024 on:
    ·············░··················································
    · not ours  ░ less than half of the cell ours

For every command that shows ports; the caller indents, and decides about colour.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from b4client.model.portset import PORT_MAX, PortSet

MIN_WIDTH: Final = 8
LABEL_WIDTH: Final = 7
"""Columns that a number on the scale needs: five digits and room."""

NONE, SOME, MOST, ALL, USED, FOREIGN = "·░▓█●!"
_MEANING: Final = {
    NONE: "not ours",
    SOME: "less than half of the cell ours",
    MOST: "half of the cell ours or more",
    ALL: "ours",
    USED: "ours, used",
    FOREIGN: "NOT OURS, USED",
}
_COLOUR: Final = {NONE: "2", SOME: "36", MOST: "36", ALL: "36", USED: "1;32", FOREIGN: "1;31"}


def render_port_map(
    ports: PortSet | None, used: Iterable[int] = (), width: int = 64, colour: bool = False
) -> list[str]:
    """Lines that show which ports are ours, and which of the ``used`` ones are inside or outside the set.

    ``ports`` None: all are ours. A bar has ``width`` cells (at least 8; fewer when there are fewer ports to show);
    ``colour`` adds ANSI colours. Raises ValueError for a narrower bar and for what is no port.
    """
    if width < MIN_WIDTH:
        raise ValueError(f"a map of ports needs {MIN_WIDTH} columns, not {width}")
    marked = sorted(set(used))
    if marked and not 0 <= marked[0] <= marked[-1] <= PORT_MAX:
        raise ValueError(f"not a port: {marked[0] if marked[0] < 0 else marked[-1]}")
    bars = [_bar(ports, marked, 0, PORT_MAX + 1, width)]
    lines = [_scale(width), bars[0]]
    if ports is not None and ports.range_count > 1:
        block = ports.floor  # with an offset, blocks are as long as what is left out
        folded = {port % block + block for port in marked if port >= block}
        bars.append(_bar(ports, folded, block, block, min(width, block)))
        lines += [f"the same in each {block} ports from {block} on:", bars[1]]
    present = [glyph for glyph in _MEANING if any(glyph in bar for bar in bars)]
    legend = "  ".join(f"{_paint(glyph, colour)} {_MEANING[glyph]}" for glyph in present)
    return [*(_paint_bar(line, colour) if line in bars else line for line in lines), legend]


def _bar(ports: PortSet | None, used: Iterable[int], first: int, count: int, width: int) -> str:
    """Cells for the ``count`` ports from ``first`` on."""
    edges = [first + count * i // width for i in range(width + 1)]
    below = [_members_below(ports, edge) for edge in edges]
    cells = [_shade(below[i + 1] - below[i], edges[i + 1] - edges[i]) for i in range(width)]
    for port in used:
        # The cell whose edges are around the port; integer division of the edges rounds down.
        cell = ((port - first + 1) * width - 1) // count
        if ports is not None and port not in ports:
            cells[cell] = FOREIGN
        elif cells[cell] != FOREIGN:
            cells[cell] = USED
    return "".join(cells)


def _members_below(ports: PortSet | None, limit: int) -> int:
    """How many ports of the set are below ``limit`` (0..65536)."""
    if ports is None:
        return limit
    block = ports.floor or PORT_MAX + 1
    whole, rest = divmod(limit, block)
    if ports.floor:
        if not whole:
            return 0
        whole -= 1
    return whole * ports.range_size + min(max(rest - ports.value, 0), ports.range_size)


def _shade(ours: int, size: int) -> str:
    if ours == size:
        return ALL
    if not ours:
        return NONE
    return MOST if 2 * ours >= size else SOME


def _scale(width: int) -> str:
    """Numbers above the bar: as many as fit without touching each other."""
    numbers = next((n for n in (8, 4, 2) if width // n >= LABEL_WIDTH), 1)
    line = ""
    for i in range(numbers):
        line = line.ljust(width * i // numbers) + str((PORT_MAX + 1) * i // numbers)
    return line


def _paint(glyph: str, colour: bool) -> str:
    return f"\x1b[{_COLOUR[glyph]}m{glyph}\x1b[0m" if colour else glyph


def _paint_bar(bar: str, colour: bool) -> str:
    """Each run of one glyph in its colour."""
    if not colour:
        return bar
    runs: list[str] = []
    for glyph in bar:
        if runs and runs[-1][0] == glyph:
            runs[-1] += glyph
        else:
            runs.append(glyph)
    return "".join(f"\x1b[{_COLOUR[run[0]]}m{run}\x1b[0m" for run in runs)
