"""Tables and pictures of the benches: Markdown and SVG as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

COLOURS = ("#1b6ca8", "#d98b2b", "#5a9e4b", "#8a5fa8", "#b04a4a", "#6b7f8a", "#c2a33b", "#3b8f8a")
CHARACTER, BAR, GAP = 7.2, 14, 3
"""The width of a character of the type that is used; height of a bar, and what is between bars of one row. Pixels."""
WIDTH, MARGIN, TAIL = 420, 10, 96


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, with an empty line before and after. Raises ValueError for a row of another length."""
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"{len(row)} cells below {len(head)} heads: {row}")
    lines = [list(head), ["---"] * len(head), *rows]
    return ["", *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines), ""]


def bars(
    title: str,
    rows: Sequence[tuple[str, Sequence[tuple[float, str]]]],
    *,
    series: Sequence[str] = (),
    top: float | None = None,
    mark: float | None = None,
) -> str:
    """Horizontal bars as an SVG document.

    A row is its name and, for each of the ``series``, a value and what is written behind its bar. ``top`` is the value
    that fills the width (the greatest, unless given; what is greater is drawn as wide); ``mark`` gets a dashed line.
    """
    greatest = max((value for _, cells in rows for value, _ in cells), default=0.0)
    full = top or greatest or 1.0
    left = _left(name for name, _ in rows)
    depth = max((len(cells) for _, cells in rows), default=1)
    row_height = depth * (BAR + GAP) + 10
    begin = 60 if series else 40
    drawing = _open(title, left + WIDTH + TAIL, begin + row_height * len(rows))
    drawing += _legend(series, left)
    if mark is not None:
        x = left + WIDTH * min(mark / full, 1.0)
        drawing.append(
            f'<path d="M{x:.1f},{begin - 4} v{row_height * len(rows)}" stroke="#999" stroke-dasharray="3 3"/>'
        )
    for number, (name, cells) in enumerate(rows):
        y = begin + row_height * number
        drawing.append(_text(MARGIN, y + len(cells) * (BAR + GAP) / 2 + 4, name))
        for place, (value, label) in enumerate(cells):
            length = WIDTH * min(max(value, 0.0) / full, 1.0)
            at = y + place * (BAR + GAP)
            drawing.append(_box(left, at, length, COLOURS[place % len(COLOURS)]))
            drawing.append(_text(left + length + 6, at + 12, label))
    return _close(drawing)


def stacks(title: str, parts: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]], unit: str) -> str:
    """A bar for each row, made of ``parts`` one behind the other, with the sum behind it, as an SVG document.

    Raises ValueError for a row that has not a value for each part.
    """
    for name, values in rows:
        if len(values) != len(parts):
            raise ValueError(f"{name}: {len(values)} values of {len(parts)} parts")
    full = max((sum(values) for _, values in rows), default=0.0) or 1.0
    left = _left(name for name, _ in rows)
    begin, row_height = 40, 38
    foot = begin + row_height * len(rows) + 6
    drawing = _open(title, left + WIDTH + TAIL, foot + 20 * len(parts))
    for number, (name, values) in enumerate(rows):
        x, y = float(left), begin + row_height * number
        drawing.append(_text(MARGIN, y + 18, name))
        for place, value in enumerate(values):
            length = WIDTH * max(value, 0.0) / full
            drawing.append(_box(x, y, length, COLOURS[place % len(COLOURS)], height=26))
            x += length
        drawing.append(_text(x + 6, y + 18, f"{sum(values):.3g} {unit}"))
    for place, part in enumerate(parts):
        y = foot + 20 * place
        drawing.append(_box(left, y, 12, COLOURS[place % len(COLOURS)], height=12))
        drawing.append(_text(left + 18, y + 11, part))
    return _close(drawing)


def _left(names: Iterable[str]) -> int:
    longest = max((len(name) for name in names), default=0)
    return int(2 * MARGIN + CHARACTER * longest)


def _open(title: str, width: float, height: float) -> list[str]:
    width = max(width, 2 * MARGIN + 8.4 * len(title))
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height + MARGIN:.0f}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{MARGIN}" y="24" font-size="15">{escape(title)}</text>',
    ]


def _legend(series: Sequence[str], left: int) -> list[str]:
    drawing, x = [], float(left)
    for place, name in enumerate(series):
        drawing.append(f'<text x="{x:.0f}" y="46" fill="{COLOURS[place % len(COLOURS)]}">{escape(name)}</text>')
        x += 24 + CHARACTER * len(name)
    return drawing


def _box(x: float, y: float, length: float, colour: str, height: int = BAR) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{length:.1f}" height="{height}" fill="{colour}"/>'


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _close(drawing: list[str]) -> str:
    return "\n".join([*drawing, "</svg>", ""])
