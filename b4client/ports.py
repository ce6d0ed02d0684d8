"""``b4client ports``: the map of the port set, once or again and again."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from b4client import api

MIN_INTERVAL_S = 1.0
HIDE, SHOW, HOME, CLEAR_LINE, CLEAR_REST = "\x1b[?25l", "\x1b[?25h", "\x1b[H", "\x1b[K", "\x1b[J"
CLEAR_ALL = "\x1b[2J"
NARROW, WIDE = 32, 64
MARGIN = 16
"""Columns beside a map."""


def add_parser(subparsers: Any, target: Callable[..., None], find_socket: Callable[[argparse.Namespace], Path]) -> None:
    """Register ``ports`` with an argparse subparsers action; ``target`` adds the options that say which daemon."""
    parser = subparsers.add_parser(
        "ports",
        help="how the port set is used",
        description="How the port set is used: which ports are in use, in TIME_WAIT, forwarded, free, for each "
        "protocol; the busiest hosts and destinations; what was refused. Counted when it is asked for, at most once "
        "a second whoever asks; nothing is counted while nobody does.",
    )
    target(parser, as_json=True)
    parser.add_argument("--watch", action="store_true", help="again and again until Ctrl-C; with --json a line each")
    parser.add_argument(
        "--interval", type=_seconds, default=2.0, metavar="SECONDS", help="how often to look (default 2, at least 1)"
    )
    parser.set_defaults(func=lambda args: _ports(args, find_socket))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not MIN_INTERVAL_S <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 1 to 86400")
    return value


def _ports(args: argparse.Namespace, find_socket: Callable[[argparse.Namespace], Path]) -> int:
    def ask() -> dict[str, Any]:
        answer: dict[str, Any] = api.call(find_socket(args), "ports", timeout_s=30)["arguments"]
        return answer

    if not args.watch:
        told = ask()
        print(json.dumps(told, indent=2) if args.json else "\n".join(_lines(told)))
        return 0
    in_place = sys.stdout.isatty() and not args.json
    try:
        if in_place:
            print(HIDE + CLEAR_ALL, end="")
        while True:
            told = ask()
            if args.json:
                print(json.dumps(told), flush=True)
            elif in_place:
                print(redrawn(_lines(told), shutil.get_terminal_size().lines), end="", flush=True)
            else:
                print("\n".join(["", *_lines(told)]), flush=True)
            time.sleep(args.interval)
    finally:
        if in_place:
            print(SHOW, flush=True)


def _lines(told: dict[str, Any]) -> list[str]:
    from b4client.portsview import render_ports

    columns = shutil.get_terminal_size().columns
    width = WIDE if columns >= WIDE + MARGIN else NARROW
    return render_ports(told, colour=sys.stdout.isatty(), width=width)


def redrawn(lines: list[str], height: int) -> str:
    """What draws ``lines`` over what is on a terminal of ``height`` rows, without flicker and without scrolling."""
    room = max(height - 1, 1)
    if len(lines) > room:
        lines = [*lines[: room - 1], "..."]
    return HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in lines) + CLEAR_REST
