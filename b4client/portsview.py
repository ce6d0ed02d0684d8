"""``b4client ports`` for people: how the port set is used, as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from b4client.model.portset import PORT_MAX, PortSet

MIN_WIDTH = 16
MAX_ROWS = 4
LABEL = 14
FREE, USED, WAITING, FORWARDED = "·", "●", "○", "F"
LEVELS = "░▒▓█"
"""A cell of several ports: up to a quarter, a half, three quarters of them in use, and more."""
_COLOUR = {FREE: "2", USED: "1;32", WAITING: "33", FORWARDED: "36", **dict.fromkeys(LEVELS, "1;32")}
_MEANING = {
    FREE: "free",
    USED: "in use",
    WAITING: "TIME_WAIT",
    FORWARDED: "forwarded",
    "░": "up to 1/4 in use",
    "▒": "1/2",
    "▓": "3/4",
    "█": "more",
}
BAD, DIM = "1;31", "2"
GOOD_COUNTERS = ("retries",)
"""Of the NAT's counters those that count no loss."""


def render_ports(told: Mapping[str, Any], *, colour: bool = False, width: int = 64) -> list[str]:
    """Lines for the ``arguments`` of the answer to ``ports``; ``width`` is that of the maps in cells."""
    ports = None
    if told["ports"] is not None:
        ports = PortSet(told["ports"]["offset"], told["ports"]["psid_len"], told["ports"]["psid"])
    shared = "not shared" if ports is None else f"{ports}"
    ranges = f" in {ports.range_count} range{'s' * (ports.range_count > 1)}" if ports is not None else ""
    lines = [f"{'ports':{LABEL}}{told['address']}, {shared}: {told['port_count']} ports{ranges}", ""]
    lines += _table(told, colour)
    shown = set()
    for name, use in told["protocols"].items():
        if not use["flows"]:
            continue
        picture = _map(ports, use, told["forwarded_ports"], max(width, MIN_WIDTH))
        lines += ["", *(f"{name if i == 0 else '':9}{first:>5} {_paint_row(row, colour)}"
                        for i, (first, row) in enumerate(picture))]  # fmt: skip
        shown |= {glyph for _, row in picture for glyph in row}
    if shown:
        legend = "  ".join(f"{_paint(g, _COLOUR[g], colour)} {m}" for g, m in _MEANING.items() if g in shown)
        lines += ["", f"{'':15}{legend}"]
    if told["forwarded_ports"]:
        lines += ["", "forwarded: a port that is forwarded for one protocol is kept from all"]
    hosts = [(h["host"], _counted(h["flows"], "flow"), _counted(h["ports"], "port")) for h in told["hosts"]]
    if told["address"] in {h["host"] for h in told["hosts"]}:
        hosts = [(f"{h} (this machine)" if h == told["address"] else h, *rest) for h, *rest in hosts]  # type: ignore[misc]
    lines += _columns("hosts", hosts)
    destinations = [
        (
            f"{d['address']}" + (f":{d['port']}" if d["port"] is not None else ""),
            d["protocol"],
            _counted(d["flows"], "flow"),
        )
        for d in told["destinations"]
    ]
    lines += _columns("destinations", destinations)
    counted = {k: v for k, v in told["counters"].items() if v}
    losses = ", ".join(f"{k} {v}" for k, v in counted.items() if k not in GOOD_COUNTERS)
    others = ", ".join(f"{k} {v}" for k, v in counted.items() if k in GOOD_COUNTERS)
    if counted:
        lines.append("")
    if losses:
        lines.append(f"{'NAT refused':{LABEL}}{_paint(losses, BAD, colour)}")
    if others:
        lines.append(f"{'NAT':{LABEL}}{_paint(others, DIM, colour)}")
    if told["outside"]:
        lines.append(_paint(f"{told['outside']} ports of flows from before the present set", BAD, colour))
    if not told["complete"]:
        lines.append(_paint("there are more flows than were counted", BAD, colour))
    looks = "this look" if told["looks"] == 1 else f"{told['looks']} looks"
    lines += [
        "",
        _paint(f"peak: the most that {looks} saw since the start; nothing is counted in between", DIM, colour),
    ]
    return lines


def _table(told: Mapping[str, Any], colour: bool) -> list[str]:
    heads = ("", "in use", "TIME_WAIT", "forwarded", "free", "flows", "peak")
    keys = ("used", "time_wait", "forwarded", "free", "flows", "peak")
    lines = [_paint(f"{heads[0]:9}" + "".join(f"{head:>11}" for head in heads[1:]), DIM, colour)]
    for name, use in told["protocols"].items():
        row = f"{name:9}" + "".join(f"{use[key] or (0 if key == 'free' else '-'):>11}" for key in keys)
        lines.append(_paint(row, BAD, colour) if use["free"] == 0 else row)
    return lines


def _columns(title: str, rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [""]
    for i, row in enumerate(rows):
        padded = [
            cell.ljust(w) if j < 2 else cell.rjust(w) for j, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"{title if i == 0 else '':{LABEL}}{'  '.join(padded)}".rstrip())
    return lines


def _map(
    ports: PortSet | None, use: Mapping[str, Any], forwarded: Iterable[Sequence[int]], width: int
) -> list[tuple[int, str]]:
    """Rows of cells for all ports of the set, ascending: (first port of the row, cells)."""
    count = PORT_MAX + 1 if ports is None else ports.port_count
    each = -(-count // (width * MAX_ROWS))
    each = 1 << (each - 1).bit_length()  # a power of 2, as the ranges are
    used, waiting, kept = (_expanded(r) for r in (use["used_ports"], use["time_wait_ports"], forwarded))
    every = range(PORT_MAX + 1) if ports is None else list(ports.ports())
    cells = [_cell(every[i : i + each], used, waiting, kept) for i in range(0, count, each)]
    rows = range(0, len(cells), width)
    return [(every[row * each], "".join(cells[row : row + width])) for row in rows]


def _cell(ports: Sequence[int], used: set[int], waiting: set[int], kept: set[int]) -> str:
    busy = [port for port in ports if port in used]
    idle = [port for port in ports if port in waiting]
    if len(ports) == 1 or not (busy or idle):
        if busy or idle:
            return USED if busy else WAITING
        return FORWARDED if any(port in kept for port in ports) else FREE
    if not busy:
        return WAITING
    return LEVELS[(4 * (len(busy) + len(idle)) - 1) // len(ports)]


def _expanded(ranges: Iterable[Sequence[int]]) -> set[int]:
    return {port for first, last in ranges for port in range(first, last + 1)}


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text


def _paint_row(row: str, colour: bool) -> str:
    if not colour:
        return row
    text, start = "", 0
    for i in range(1, len(row) + 1):
        if i == len(row) or row[i] != row[start]:
            text += _paint(row[start:i], _COLOUR[row[start]], True)
            start = i
    return text


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ' '}"
