"""What ``b4client lab`` shows of an access network: its picture, the customers, whose ports were used. Pure."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from b4client.lab.accessplan import ISP_WAN, SHARED_ADDRESS, AccessPlan
from b4client.lab.nodes import BR, LAN_HOST, SERVER
from b4client.lab.portgrid import CELL, ROW
from b4client.model.portset import PortSet

SHOWN_LINES: Final = 3
COLOURS: Final = ("32", "33", "35", "34", "36", "91", "92", "93", "95", "94", "96", "31")
LETTERS: Final = string.ascii_uppercase
BAD: Final = "1;31"
DASH: Final = "-"
COLUMNS: Final = ("customer", "WAN address", "IPv4 address", "PSID", "ports", "in use", "up", "down", "state", "after")
RIGHT: Final = frozenset(("in use", "up", "down", "after"))


def letter(number: int) -> str:
    """The customer's letter in pictures: A for 1; customers after Z have none (``?``)."""
    return LETTERS[number - 1] if number <= len(LETTERS) else "?"


def colour(number: int) -> str:
    """The customer's colour (an ANSI code)."""
    return COLOURS[(number - 1) % len(COLOURS)]


def _paint(text: str, code: str, coloured: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if coloured and code else text


def draw_network(plan: AccessPlan, *, coloured: bool = False) -> list[str]:
    """The topology, and who gives out the addresses."""
    n = plan.customers
    shown = [*range(1, n + 1)] if n <= SHOWN_LINES + 1 else [*range(1, SHOWN_LINES), 0, n]
    middle = (len(shown) - 1) // 2
    server = {"lab": "lab server", "kea": "Kea"}[plan.server]
    parts = ((f"isp {ISP_WAN.ip}", f"ISP ({server})"), (f"aftr {BR}", "lwAFTR"), (f"srv {SERVER}", "IPv4 server"))
    joins = ("─── ", " ═══ ", " ─── ")
    rest = "".join(join + here for join, (here, _) in zip(joins, parts, strict=True))
    heads = "".join(
        " " * len(join) + head.ljust(len(here)) for join, (here, head) in zip(joins, parts, strict=True)
    ).rstrip()
    lines = [f"{'LAN host':11}{'customer: b4client run':37}{heads}"]
    for i, number in enumerate(shown):
        corner = "─" if len(shown) == 1 else "┐" if i == 0 else "┘" if i == len(shown) - 1 else "┤"
        corner = {"┐": "┬", "┘": "┴", "┤": "┼"}.get(corner, corner) if i == middle else corner
        node = f"lan{number} ───── cpe{number}"
        wan = str(plan.wan(number).ip) if number else ""
        text = (
            f"{node:23}{wan:20} ═══{corner}" if number else f"{'  ...':23}{'':20}    {corner if i == middle else '│'}"
        )
        code = colour(number) if number else ""
        lines.append(_paint(text, code, coloured) + (rest if i == middle else ""))
    return [*lines, *_explain(plan)]


def _explain(plan: AccessPlan) -> list[str]:
    n, ratio = plan.customers, 1 << plan.psid_len
    example = PortSet(plan.offset_len, plan.psid_len, 1)
    each = f"{example.port_count} ports each" + (f" in {example.range_count} ranges" if plan.offset_len else "")
    who = f"{n} customers" if n > 1 else "1 customer"
    if plan.mode == "map-e":
        return [
            f"Every LAN host is {LAN_HOST}. MAP-E: {who} on {SHARED_ADDRESS}, shared 1:{ratio}, {each}.",
            f"No DHCPv4: the /64 of a customer says which ports, by the rule {plan.mapping_rule}.",
        ]
    if plan.own_addresses:
        return [
            f"Every LAN host is {LAN_HOST}. lw4o6: {who}, from {SHARED_ADDRESS} on each an address of its own, {each},",
            "since Kea cannot lease one address twice (--server lab can). The lab tells the lwAFTR the bindings.",
        ]
    return [
        f"Every LAN host is {LAN_HOST}. lw4o6: {who} on {SHARED_ADDRESS}, shared 1:{ratio}, {each}; 0-1023 reserved."
    ]


def draw_table(rows: Sequence[Mapping[str, Any]], *, coloured: bool = False) -> list[str]:
    """The customers, a line each (``AccessNetwork.table``)."""
    cells = [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in (COLUMNS, *cells)) for i in range(len(COLUMNS))]
    lines = [_line(COLUMNS, widths)]
    for row, line in zip(rows, cells, strict=True):
        good = row["address"] is not None
        lines.append(_paint(_line(line, widths), colour(row["customer"]) if good else BAD, coloured))
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    pairs = zip(COLUMNS, cells, widths, strict=True)
    return "  ".join(cell.rjust(w) if name in RIGHT else cell.ljust(w) for name, cell, w in pairs).rstrip()


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    def number(name: str) -> str:
        return DASH if row[name] is None else str(row[name])

    shared = row["psid"] is not None
    ports = DASH
    if row["address"] is not None:
        ports = row["first_range"] if shared else "all"
        if (row["range_count"] or 1) > 1:
            ports += f" and {row['range_count'] - 1} more"
    state = row["state"] if not row["waiting_for"] else f"{row['state']}: waits for {row['waiting_for']}"
    return (
        f"{letter(row['customer'])} {row['customer']}".replace("?", " "),
        row["wan"],
        row["address"] or DASH,
        f"{row['psid']:#x}/{row['psid_len']}" if shared else DASH,
        ports,
        number("ports_seen"),
        number("packets_up"),
        number("packets_down"),
        state,
        DASH if row["up_after_s"] is None else f"{row['up_after_s']:.2f} s",
    )


def explain_table() -> list[str]:
    """What the columns mean that do not say it themselves."""
    return [
        "in use: ports seen in the last minute; up, down: packets; all as counted by the lwAFTR.",
        "after: from the start of the client to IPv4.",
    ]


def draw_port_owners(
    owners: Mapping[int, PortSet], used: Mapping[int, Iterable[int]], *, coloured: bool = False
) -> list[str]:
    """All ports of one address, 64 a cell: whose they are, and who has used them.

    ``owners`` and ``used`` are by customer. A capital letter is a cell with ports that the customer used, a small one a
    cell of its own that it did not use, ``·`` nobody's, ``!`` a cell with ports used by who does not own them.
    """
    cells: dict[int, tuple[str, str]] = {}
    for number, ports in owners.items():
        for r in ports.ranges():
            for cell in range(r.first // CELL, r.last // CELL + 1):
                cells[cell] = (letter(number).lower(), colour(number))
    foreign = []
    for number, several in used.items():
        for port in several:
            mine = number in owners and port in owners[number]
            if not mine:
                foreign.append(port)
            elif cells.get(port // CELL, ("", ""))[0] != "!":
                cells[port // CELL] = (letter(number), "1;7;" + colour(number))
    for port in foreign:
        cells[port // CELL] = ("!", BAD)
    nobody = ("·", "2")
    lines = []
    for row in range(0, 65536, ROW):
        glyphs = (cells.get(cell, nobody) for cell in range(row // CELL, (row + ROW) // CELL))
        lines.append(f"{row:5} " + "".join(_paint(glyph, code, coloured) for glyph, code in glyphs))
    names = ", ".join(f"{letter(n)} customer {n}" for n in owners)
    legend = f"{names}; capital: ports were used; · nobody's; a cell is {CELL} ports"
    return [*lines, f"      {legend}" + ("; ! USED BY WHO DOES NOT OWN THEM" if foreign else "")]
