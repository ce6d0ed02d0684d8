"""``b4client forward add|del|list``: ports of the set that lead to hosts of the LAN."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from b4client import api
from b4client.model.softwire import FORWARD_PROTOCOLS

EXIT_OK, EXIT_NOT_KEPT = 0, 4
ACTIONS = ("add", "del", "list")
NEEDED = {"add": ("protocol", "port", "to"), "del": ("protocol", "port"), "list": ()}
GOOD, BAD, DIM = "32", "1;31", "2"


def add_parser(subparsers: Any, target: Callable[..., None], find_socket: Callable[[argparse.Namespace], Path]) -> None:
    """Register ``forward`` with an argparse subparsers action; ``target`` adds the options that say which daemon."""
    parser = subparsers.add_parser(
        "forward",
        help="ports of the set that lead to hosts of the LAN",
        description="forward add PROTOCOL PORT HOST[:PORT] lets PORT of the public address lead to a host of the LAN, "
        "at once and over restarts; what the host sends from there leaves by the same port. forward del PROTOCOL PORT "
        "ends that, and the connections made by it. forward list shows all, those of the configuration too, and which "
        "ports are possible.",
        epilog="Exit status: 0 done; 1 refused, nothing has changed; 2 wrong usage; 3 not running; 4 done, but it "
        "cannot be kept over a restart.",
    )
    target(parser, as_json=True)
    parser.add_argument("action", choices=ACTIONS, metavar="add|del|list", help="what to do (add, del, list)")
    parser.add_argument(
        "protocol", nargs="?", choices=FORWARD_PROTOCOLS, metavar="PROTOCOL", help=", ".join(FORWARD_PROTOCOLS)
    )
    parser.add_argument("port", nargs="?", type=_port, metavar="PORT", help="port of the public address")
    parser.add_argument(
        "to", nargs="?", type=_host, metavar="HOST[:PORT]", help="IPv4 address in the LAN (the same port, unless given)"
    )
    parser.add_argument(
        "--any-port",
        action="store_true",
        help="with add: when PORT cannot be had, now or with a later port set, take another port of the set",
    )
    parser.set_defaults(func=lambda args: _forward(args, parser, find_socket))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port (1-65535)")
    return int(text)


def _host(text: str) -> tuple[str, int | None]:
    host, colon, port = text.partition(":")
    return host, _port(port) if colon else None


def _forward(
    args: argparse.Namespace, parser: argparse.ArgumentParser, find_socket: Callable[[argparse.Namespace], Path]
) -> int:
    given = [name for name in ("protocol", "port", "to") if getattr(args, name) is not None]
    needed = NEEDED[args.action]
    if given != list(needed):
        words = {"protocol": "PROTOCOL", "port": "PORT", "to": "HOST[:PORT]"}
        parser.error(f"usage: forward {' '.join((args.action, *(words[n] for n in needed)))}")
    if args.any_port and args.action != "add":
        parser.error("--any-port goes with add")
    arguments: dict[str, Any] = {name: getattr(args, name) for name in needed}
    if args.action == "add":
        host, port = args.to
        arguments["to"] = host
        if port is not None:
            arguments["to_port"] = port
        if args.any_port:
            arguments["on_change"] = "move"
    answer = api.call(find_socket(args), f"forward-{args.action}", arguments, timeout_s=30)
    told = answer["arguments"]
    if args.json:
        print(json.dumps(answer if args.action != "list" else told, indent=2))
    elif args.action == "list":
        print("\n".join(render_forwards(told, colour=sys.stdout.isatty())))
    else:
        print(answer["text"])
    if args.action != "list" and told["problem"]:
        print(f"b4client: done, but {told['problem']}", file=sys.stderr)
        return EXIT_NOT_KEPT
    return EXIT_OK


def render_forwards(told: Mapping[str, Any], *, colour: bool = False) -> list[str]:
    """Lines for the ``arguments`` of the answer to ``forward-list``."""
    address, forwards = told.get("address"), told["forwards"]
    heads = ("protocol", "external", "to", "from", "")
    rows = [_row(f, address) for f in forwards]
    lines = []
    if rows:
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines.append(_paint("  ".join(h.ljust(w) for h, w in zip(heads, widths, strict=True)).rstrip(), DIM, colour))
        for f, row in zip(forwards, rows, strict=True):
            *first, last = (cell.ljust(w) for cell, w in zip(row, widths, strict=True))
            said = _paint(last.rstrip(), GOOD if f["active"] else BAD, colour)
            lines.append(f"{'  '.join(first)}  {said}")
    else:
        lines.append("nothing is forwarded")
    if told.get("problem"):
        lines += ["", _paint(f"storage: {told['problem']}", BAD, colour)]
    if told.get("possible"):
        lines += ["", f"possible ports of {address}: {told['possible']}"]
    return lines


def _row(f: Mapping[str, Any], address: str | None) -> Sequence[str]:
    where = f"{address}:{f['external_port']}" if f["active"] else f"port {f['port']}"
    if not f["active"]:
        said = f"inactive: {f['reason']}"
    elif f["external_port"] != f["port"]:
        said = f"active, moved: {f['reason']}"
    else:
        said = "active"
    return f["protocol"], where, f"{f['to']}:{f['to_port']}", f["origin"], said


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text
