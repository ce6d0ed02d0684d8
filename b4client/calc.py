"""``b4client calc``: port sets, MAP-E and lw4o6 addresses worked out by hand, without network, root or daemon.

With ``--json`` each command prints one object:

- ``portset``: ``offset``, ``psid_len``, ``psid``, ``port_count``, ``ranges`` (a list of [first, last])
- ``map`` and ``lw``: the same five, ``ipv4`` (an address, or a prefix with its length) and ``ce_address``
- ``port``: ``offset``, ``psid_len``, ``port``, ``psid``

``psid`` is null where no port set is: for an address that is not shared, and for a port that no port set holds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar, get_args

from b4client.model.maprule import DEFAULT_OFFSET_LEN, InterfaceIdentifier, MapCe, MappingRule, lw_address, map_ce
from b4client.model.portset import PORT_BITS, PORT_MAX, PortRange, PortSet, psid_of_port
from b4client.portmap import render_port_map

EXIT_OK = 0
EXIT_USAGE = 2
SHOWN_RANGES = 4
"""Ranges at each end that the text shows of many."""

_Network = TypeVar("_Network", IPv4Network, IPv6Network)
_Address = TypeVar("_Address", IPv4Address, IPv6Address)
_Fact = tuple[str, str]


def add_parser(subparsers: Any) -> None:
    """Register ``calc`` with an argparse subparsers action; each command sets ``func(args) -> exit status``."""
    calc = subparsers.add_parser(
        "calc",
        help="work out port sets and softwire addresses",
        description="Port sets (RFC 7597 5.1), MAP-E (RFC 7597) and lw4o6 (RFC 7596) addresses, without any network.",
    )
    commands = calc.add_subparsers(dest="calculation", metavar="WHAT", required=True)

    portset = commands.add_parser("portset", help="the ports of a PSID")
    _port_set_arguments(portset, "offset bits: 6 is MAP-E's default, 0 is usual with lw4o6", required=True)
    _finish(portset, _portset)

    mapping = commands.add_parser("map", help="IPv4 address, ports and IPv6 address of a MAP-E customer edge")
    mapping.add_argument("--end-user-prefix", metavar="PREFIX", required=True, help="the IPv6 prefix delegated to it")
    mapping.add_argument("--rule", metavar="RULE6,RULE4,EALEN", required=True, help="the Basic Mapping Rule")
    _port_set_arguments(mapping, f"offset bits (default {DEFAULT_OFFSET_LEN})", required=False)
    mapping.add_argument(
        "--interface-identifier",
        choices=get_args(InterfaceIdentifier),
        default="rfc7597",
        help="layout of the lower 64 bits (default rfc7597)",
    )
    _finish(mapping, _map)

    lw = commands.add_parser("lw", help="IPv6 address and ports of a lightweight 4over6 customer edge (lwB4)")
    lw.add_argument("--prefix", metavar="PREFIX", required=True, help="the IPv6 prefix that the tunnel comes from")
    lw.add_argument("--ipv4", metavar="ADDRESS", required=True, help="the IPv4 address")
    _port_set_arguments(lw, "offset bits (default 0)", required=False)
    _finish(lw, _lw)

    port = commands.add_parser("port", help="the PSID that a port belongs to")
    port.add_argument("--offset", metavar="A", required=True, help="offset bits")
    port.add_argument("--psid-len", metavar="K", required=True, help="length of the PSID in bits")
    port.add_argument("--port", metavar="PORT", required=True)
    _finish(port, _port)


def _port_set_arguments(parser: argparse.ArgumentParser, offset_help: str, *, required: bool) -> None:
    parser.add_argument("--offset", metavar="A", required=required, help=offset_help)
    parser.add_argument("--psid-len", metavar="K", required=required, help="length of the PSID; 0: not shared")
    parser.add_argument("--psid", metavar="PSID", help="decimal or 0x hexadecimal")


def _finish(parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], None]) -> None:
    def run(args: argparse.Namespace) -> int:
        try:
            work(args)
        except ValueError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return EXIT_USAGE
        return EXIT_OK

    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(func=run)


# ---- the calculations; each raises ValueError with cause and remedy


def _portset(args: argparse.Namespace) -> None:
    offset = _number("--offset", args.offset, 15)
    ports = _given_ports(args, offset)
    if args.json:
        _print_json(_port_fields(ports, offset))
        return
    facts = [("ports", _count(ports)), *_port_facts(ports)]
    _print_text(_title(ports), facts, ports)


def _map(args: argparse.Namespace) -> None:
    parts = args.rule.split(",")
    if len(parts) != 3:
        raise ValueError(
            f"--rule {args.rule!r} has {len(parts)} parts instead of 3; "
            "write RULE6,RULE4,EALEN, like 2001:db8::/40,192.0.2.0/24,16"
        )
    offset = DEFAULT_OFFSET_LEN if args.offset is None else _number("--offset", args.offset, 15)
    explicit = _given_ports(args, offset)
    prefix = _network("--end-user-prefix", args.end_user_prefix, IPv6Network)
    rule6, rule4 = _network("--rule", parts[0], IPv6Network), _network("--rule", parts[1], IPv4Network)
    ea_len = _number("EALEN of --rule", parts[2], 48)
    try:
        rule = MappingRule(rule6, rule4, ea_len, offset)
        ce = map_ce(rule, prefix, explicit, args.interface_identifier)
    except ValueError as error:
        raise ValueError(f"{error}; compare --rule, --end-user-prefix and --offset with the provider's data") from None
    if explicit is not None and ce.ports is None:
        raise ValueError(f"the rule assigns the IPv4 prefix {ce.ipv4}, which is never shared; leave out --psid")
    if args.json:
        _print_json({"ipv4": str(ce.ipv4), "ce_address": str(ce.address)} | _port_fields(ce.ports, offset))
        return
    facts = [
        ("IPv4", str(ce.ipv4)),
        ("CE address", str(ce.address)),
        ("EA bits", _ea_bits(ce)),
        ("ports", _count(ce.ports)),
        *_port_facts(ce.ports),
    ]
    _print_text(_title(ce.ports), facts, ce.ports)


def _lw(args: argparse.Namespace) -> None:
    offset = 0 if args.offset is None else _number("--offset", args.offset, 15)
    ports = _given_ports(args, offset)
    prefix, ipv4 = _network("--prefix", args.prefix, IPv6Network), _address("--ipv4", args.ipv4, IPv4Address)
    address = lw_address(prefix, ipv4, 0 if ports is None else ports.psid)
    if args.json:
        _print_json({"ipv4": str(ipv4), "ce_address": str(address)} | _port_fields(ports, offset))
        return
    facts = [("IPv4", str(ipv4)), ("CE address", str(address)), ("ports", _count(ports)), *_port_facts(ports)]
    _print_text(_title(ports), facts, ports)


def _port(args: argparse.Namespace) -> None:
    offset = _number("--offset", args.offset, 15)
    psid_len = _psid_len(args.psid_len, offset, 1)
    port = _number("--port", args.port, PORT_MAX)
    psid = psid_of_port(port, offset, psid_len)
    if args.json:
        _print_json({"offset": offset, "psid_len": psid_len, "port": port, "psid": psid})
    elif psid is None:
        floor = PortSet(offset, psid_len, 0).floor
        print(f"port {port} belongs to nobody: an offset of {offset} leaves out the ports below {floor}")
    else:
        print(f"port {port} belongs to {PortSet(offset, psid_len, psid)} (PSID {psid})")


# ---- reading the arguments


def _given_ports(args: argparse.Namespace, offset: int) -> PortSet | None:
    """The port set of ``--psid-len`` and ``--psid``; None when they describe none."""
    if args.psid_len is None:
        if args.psid is not None:
            raise ValueError("--psid means nothing without its length; add --psid-len")
        return None
    length = _psid_len(args.psid_len, offset, 0)
    if args.psid is None:
        if length:
            raise ValueError(f"--psid is missing; give one from 0 to {(1 << length) - 1}")
        return None
    psid = _number("--psid", args.psid, PORT_MAX)
    if not length:
        return None  # a PSID of no length is ignored (RFC 7618 9 [P-2])
    if psid >= 1 << length:
        raise ValueError(f"PSID {psid} does not fit in {length} bits; give one from 0 to {(1 << length) - 1}")
    return PortSet(offset, length, psid)


def _psid_len(text: str, offset: int, least: int) -> int:
    length = _number("--psid-len", text, PORT_BITS)
    if length < least:
        raise ValueError("a --psid-len of 0 means that all ports belong to one; give 1 to 16")
    if offset + length > PORT_BITS:
        raise ValueError(
            f"an offset of {offset} and a PSID of {length} bits exceed the {PORT_BITS} bits of a port; "
            f"with this offset --psid-len can be {PORT_BITS - offset} at most"
        )
    return length


def _number(name: str, text: str, most: int) -> int:
    digits, base = (text[2:], 16) if text[:2] in ("0x", "0X") else (text, 10)
    # int() alone would take signs, blanks, underscores and other scripts' digits
    plain = digits.isascii() and digits.isalnum() and len(digits) <= 8
    try:
        value = int(digits, base) if plain else -1
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise ValueError(f"{name} {text!r} is no number from 0 to {most}; write it decimal or as 0x hexadecimal")
    return value


def _address(name: str, text: str, kind: type[_Address]) -> _Address:
    try:
        return kind(text)
    except ValueError:
        example = "192.0.2.18" if kind is IPv4Address else "2001:db8::1"
        raise ValueError(f"{name} {text!r} is no {_family(kind)} address; write one like {example}") from None


def _network(name: str, text: str, kind: type[_Network]) -> _Network:
    try:
        if "/" not in text:
            raise ValueError(text)
        network = kind(text, strict=False)
    except ValueError:
        example = "192.0.2.0/24" if kind is IPv4Network else "2001:db8::/56"
        raise ValueError(
            f"{name} {text!r} is no {_family(kind)} prefix; write one with its length, like {example}"
        ) from None
    if str(network.network_address) != str(kind(text.partition("/")[0]).network_address):
        raise ValueError(f"{name} {text!r} has bits set behind its length; write {network}")
    return network


def _family(kind: type[object]) -> str:
    return "IPv4" if kind.__name__.startswith("IPv4") else "IPv6"


# ---- printing


def _port_fields(ports: PortSet | None, offset: int) -> dict[str, object]:
    if ports is None:
        return {"offset": offset, "psid_len": 0, "psid": None, "port_count": PORT_MAX + 1, "ranges": [[0, PORT_MAX]]}
    return {
        "offset": ports.offset_len,
        "psid_len": ports.psid_len,
        "psid": ports.psid,
        "port_count": ports.port_count,
        "ranges": [[r.first, r.last] for r in ports.ranges()],
    }


def _print_json(value: dict[str, object]) -> None:
    print(json.dumps(value))


def _print_text(title: str, facts: Iterable[_Fact], ports: PortSet | None) -> None:
    print(title)
    print()
    for line in render_port_map(ports, colour=sys.stdout.isatty()):
        print(f"  {line}")
    print()
    for name, value in facts:
        print(f"  {name:12}{value}")


def _title(ports: PortSet | None) -> str:
    return "not shared: every port" if ports is None else str(ports)


def _count(ports: PortSet | None) -> str:
    if ports is None:
        return f"{PORT_MAX + 1}"
    if ports.range_count == 1:
        return f"{ports.port_count} in one range"
    return f"{ports.port_count} in {ports.range_count} ranges of {ports.range_size}"


def _port_facts(ports: PortSet | None) -> list[_Fact]:
    if ports is None:
        return []
    ranges = [ports.range_at(i) for i in range(min(ports.range_count, SHOWN_RANGES))]
    rest = range(max(ports.range_count - SHOWN_RANGES, SHOWN_RANGES), ports.range_count)
    shown = _listed(ranges)
    if rest:
        gap = ", ..., " if rest.start > SHOWN_RANGES else ", "
        shown += gap + _listed(ports.range_at(i) for i in rest)
    member = f"port & {ports.mask:#06x} == {ports.value:#06x}"
    if ports.floor:
        member += f" and port >= {ports.floor}"
    wire = f"{ports.offset_len:02x} {ports.psid_len:02x} {ports.psid << PORT_BITS - ports.psid_len:04x}"
    return [
        ("ranges", shown),
        ("membership", member),
        ("shared by", f"{ports.sharing_ratio} subscribers"),
        ("on the wire", f"{wire} (DHCPv4 option 159, DHCPv6 option 93)"),
    ]


def _listed(ranges: Iterable[PortRange]) -> str:
    return ", ".join(map(str, ranges))


def _ea_bits(ce: MapCe) -> str:
    rule = ce.rule
    if not rule.ea_len:
        return "none"
    parts = [
        f"{length} of the {what}"
        for length, what in ((rule.suffix_len, "IPv4 address"), (rule.embedded_psid_len, "PSID"))
        if length
    ]
    return f"{rule.ea_len} from bit {rule.rule_ipv6.prefixlen}: {', '.join(parts)}"
