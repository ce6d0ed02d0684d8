"""``b4client decode``: DHCPv6, DHCP 4o6 and DHCPv4 messages explained, from hexadecimal octets or a capture.

tcpdump and tshark do not know message types 20 and 21; this unwraps them. With ``--json`` one object is printed:

- for one message: ``message``
- for a capture: ``datagrams`` (a list of ``number``, ``time``, ``source``, ``source_port``, ``destination``,
  ``destination_port``, ``cut`` and ``message``), ``packets``, ``fragments``, and ``error`` (null, or the ``reason``
  and ``offset`` at which the reading of the file ended)

What a ``message`` looks like says ``b4client.decode.message``. The exit status is 0 when everything could be decoded, 1
when something is wrong inside (it is shown in its place), 2 when there is nothing to decode.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from b4client.decode.pcap import Capture, Datagram

EXIT_OK = 0
EXIT_WRONG_INSIDE = 1
EXIT_USAGE = 2
MAX_INPUT: Final = 64 * 1024 * 1024
"""Octets of the largest file that is read."""
MAX_HEX: Final = 4 * 65536
"""Characters of the longest hexadecimal text: two for each octet of the longest message, and room between them."""
_SEPARATORS: Final = str.maketrans("", "", " \t\r\n:-.,")


def add_parser(subparsers: Any) -> None:
    """Register ``decode`` with an argparse subparsers action; it sets ``func(args) -> exit status``."""
    decode = subparsers.add_parser(
        "decode",
        help="explain DHCP messages from hexadecimal octets or a capture",
        description="Explains DHCPv6, DHCPv4-over-DHCPv6 (RFC 7341) and DHCPv4 messages.",
        epilog="Exit status: 0 all well, 1 something is wrong inside, 2 nothing to decode.",
    )
    decode.add_argument(
        "input",
        nargs="+",
        metavar="HEX|FILE|-",
        help="octets of one message; or a file (- is standard input) with them, or a pcap or pcapng capture",
    )
    decode.add_argument("-v", "--verbose", action="store_true", help="every option of every message in a capture")
    decode.add_argument("--json", action="store_true", help="as JSON")
    decode.set_defaults(func=_decode)


def _decode(args: argparse.Namespace) -> int:
    try:
        data = _read(args.input)
    except (ValueError, OSError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        print(f"b4client decode: {reason}", file=sys.stderr)
        return EXIT_USAGE
    # The decoders are loaded by whom they are needed, not by every command of the command line.
    from b4client.decode.pcap import is_capture, read_capture

    if is_capture(data):
        return _show_capture(read_capture(data), verbose=args.verbose, as_json=args.json)
    return _show_message(data, as_json=args.json)


def _read(words: list[str]) -> bytes:
    """The octets meant. Raises ValueError with cause and remedy, or OSError."""
    if words == ["-"]:
        return _content(sys.stdin.buffer.read(MAX_INPUT + 1), "standard input")
    path = Path(words[0])
    if len(words) == 1 and ("/" in words[0] or _is_file(path)):
        with path.open("rb") as file:
            return _content(file.read(MAX_INPUT + 1), words[0])
    octets = _from_hex("".join(words))
    if octets is None:
        what = words[0] if len(words) == 1 else " ".join(words)
        shown = what if len(what) <= 40 else what[:40] + "..."
        raise ValueError(f"{shown!r} is neither hexadecimal octets nor a file; give one of them, or - to read it")
    return octets


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False  # a name that no file can have: too long, or with a NUL


def _content(data: bytes, name: str) -> bytes:
    """The octets in a file: written in hexadecimal, or themselves."""
    from b4client.decode.pcap import is_capture

    if not data:
        raise ValueError(f"{name} is empty; give octets of a message or a capture")
    if len(data) > MAX_INPUT:
        raise ValueError(f"{name} has more than {MAX_INPUT} octets; cut it with tcpdump -r or editcap")
    if is_capture(data):
        return data
    octets = _from_hex(data.decode("ascii", "replace")) if len(data) <= MAX_HEX else None
    return data if octets is None else octets


def _from_hex(text: str) -> bytes | None:
    if len(text) > MAX_HEX:
        return None
    digits = text.translate(_SEPARATORS).removeprefix("0x")
    try:
        return bytes.fromhex(digits) or None
    except ValueError:
        return None


def _show_message(data: bytes, *, as_json: bool) -> int:
    from b4client.decode.message import decode_message, errors_in, render_message

    tree = decode_message(data)
    if as_json:
        print(json.dumps({"message": tree}))
    else:
        print("\n".join(render_message(tree)))
    return EXIT_WRONG_INSIDE if any(errors_in(tree)) else EXIT_OK


def _show_capture(capture: Capture, *, verbose: bool, as_json: bool) -> int:
    from b4client.decode.ladder import decode_datagram, render_ladder
    from b4client.decode.message import errors_in, render_message

    trees = [decode_datagram(datagram) for datagram in capture.datagrams]
    if as_json:
        fault = capture.fault
        shown = {
            "datagrams": [
                _datagram_fields(d) | {"message": tree} for d, tree in zip(capture.datagrams, trees, strict=True)
            ],
            "packets": capture.packets,
            "fragments": capture.fragments,
            "error": None if fault is None else {"reason": fault.reason, "offset": fault.offset},
        }
        print(json.dumps(shown))
    else:
        print("\n".join(render_ladder(capture.datagrams, colour=sys.stdout.isatty())))
        if verbose:
            for datagram, tree in zip(capture.datagrams, trees, strict=True):
                print(f"\npacket {datagram.number}, {datagram.source} → {datagram.destination}")
                print("\n".join(f"  {line}" for line in render_message(tree)))
        _tell_the_rest(capture)
    wrong = capture.fault is not None or any(d.cut for d in capture.datagrams) or any(any(errors_in(t)) for t in trees)
    return EXIT_WRONG_INSIDE if wrong else EXIT_OK


def _datagram_fields(datagram: Datagram) -> dict[str, object]:
    return {
        "number": datagram.number,
        "time": datagram.at,
        "source": str(datagram.source),
        "source_port": datagram.source_port,
        "destination": str(datagram.destination),
        "destination_port": datagram.destination_port,
        "cut": datagram.cut,
    }


def _tell_the_rest(capture: Capture) -> None:
    if capture.fragments:
        print(f"b4client decode: {capture.fragments} fragments were not put together", file=sys.stderr)
    if capture.fault is not None:
        print(f"b4client decode: the capture ends early: {capture.fault}", file=sys.stderr)
