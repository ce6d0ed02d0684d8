"""All 65536 ports of an address as a grid: which are ours, which of them were used."""

from __future__ import annotations

from collections.abc import Collection

from b4client.model.portset import PortRange, PortSet

ROW = 4096
CELL = 64
SHOWN_RANGES = 6


def port_grid(ports: PortSet | None, used: Collection[int] = (), *, colour: bool = False) -> list[str]:
    """Sixteen rows of 4096 ports, 64 ports a cell, and the ranges in words. ``ports`` None: every port is ours."""
    ranges = [PortRange(0, 65535)] if ports is None else list(ports.ranges())
    ours = {cell for r in ranges for cell in range(r.first // CELL, r.last // CELL + 1)}
    inside = {port // CELL for port in used if ports is None or port in ports}
    outside = {port // CELL for port in used if not (ports is None or port in ports)}

    def cell(number: int) -> str:
        if number in outside:
            return _paint("!", "1;31", colour)
        if number in inside:
            return _paint("█", "32", colour)
        return _paint("▒", "36", colour) if number in ours else "·"

    lines = [
        f"{row * ROW:5} " + "".join(cell(number) for number in range(row * ROW // CELL, (row + 1) * ROW // CELL))
        for row in range(65536 // ROW)
    ]
    legend = "· not ours   ▒ ours   █ ours, used" + ("   ! NOT OURS, USED" if outside else "")
    count = sum(len(r) for r in ranges)
    shown = ", ".join(map(str, ranges[:SHOWN_RANGES]))
    if len(ranges) > SHOWN_RANGES:
        shown += f", ... {ranges[-1]}"
    some = f"{len(ranges)} ranges" if len(ranges) > 1 else "1 range"
    return [*lines, f"      {legend}; a cell is {CELL} ports", f"      {count} ports in {some}: {shown}"]


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text
