"""A DHCP message as a tree of plain values (for JSON) and as text; errors in their place, and never an exception.

The tree: a **message** has ``protocol`` (``"dhcpv6"``, ``"dhcpv4"``), ``type`` (number or null), ``name``, ``length``,
the fields of its header by the RFC's names, ``options`` (a list) and ``errors`` (a list of ``{"reason", "offset"}``,
empty when a strict decoder takes the message). An **option** has ``code``, ``name``, ``offset`` (of its code),
``length``, ``hex``, ``value`` (null when it cannot be decoded, or is all in what follows), ``text`` (the value for
people), ``error`` (null or ``{"reason", "offset"}``), and where there is such a thing ``options`` (those inside) and
``message`` (the message inside). Offsets count octets from the beginning of the outermost message, and are null where
something as a whole is wrong. DHCPv4 options stand once, with the values of all instances joined (RFC 3396).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from b4client.decode.plain import Json, Value, octets
from b4client.decode.values import CONTAINERS, DHCP4, DHCP6, name_of
from b4client.model.errors import WireError
from b4client.wire import dhcp4, dhcp4o6, dhcp6
from b4client.wire.cursor import MAX_MESSAGE, Reader, printable

Tree = dict[str, Json]

MAX_DEPTH: Final = 16
"""Options in options and messages in messages; a relay message goes through 8 relays at most (RFC 8415 7.6)."""
_RELAY_TYPES: Final = (dhcp6.MessageType.RELAY_FORW, dhcp6.MessageType.RELAY_REPL)
_4O6_TYPES: Final = (dhcp6.MessageType.DHCPV4_QUERY, dhcp6.MessageType.DHCPV4_RESPONSE)


def looks_like_dhcp4(data: bytes) -> bool:
    """True when the octets are a DHCPv4 message rather than a DHCPv6 one: the magic cookie is where it belongs."""
    return data[dhcp4.FIXED_LENGTH : dhcp4.FIXED_LENGTH + 4] == dhcp4.MAGIC_COOKIE


def decode_message(data: bytes) -> Tree:
    """The tree of a DHCPv6 (4o6, relay) or DHCPv4 message, whichever it is. Never raises."""
    return decode_dhcp4(data) if looks_like_dhcp4(data) else decode_dhcp6(data)


def errors_in(message: Tree) -> Iterator[Tree]:
    """Every error in a message, in the order of the octets' structure."""
    yield from message["errors"]
    yield from _errors_in_options(message["options"])


def _errors_in_options(options: list[Tree]) -> Iterator[Tree]:
    for option in options:
        if option["error"] is not None:
            yield option["error"]
        yield from _errors_in_options(option.get("options", []))
        if "message" in option:
            yield from errors_in(option["message"])


def _error(error: WireError, base: int | None = 0) -> Tree:
    offset = None if error.offset is None or base is None else base + error.offset
    return {"reason": error.reason, "offset": offset}


# ------------------------------------------------------------------------------------------------------------- DHCPv6


def decode_dhcp6(data: bytes, base: int = 0, depth: int = 0) -> Tree:
    """A DHCPv6 message; ``base`` is its offset in the outermost one."""
    tree: Tree = {"protocol": "dhcpv6", "type": None, "name": "", "length": len(data), "options": [], "errors": []}
    try:
        kind = dhcp6.message_type(data)
        tree["type"] = kind
        tree["name"] = name_of(dhcp6.MessageType, kind, "type").replace("_", "-")
        # The strict decoders give the verdict; what they refuse is shown as far as it goes.
        if kind in _RELAY_TYPES:
            dhcp6.decode_relay(data).relayed()
        elif kind in _4O6_TYPES:
            dhcp4o6.decode(data)
        else:
            dhcp6.decode(data)
    except WireError as error:
        tree["errors"].append(_error(error, base))
    reader = Reader(data[:MAX_MESSAGE])
    try:
        reader.take(1)
        if tree["type"] in _RELAY_TYPES:
            tree["hop_count"] = reader.u8()
            tree["link_address"] = str(reader.ipv6())
            tree["peer_address"] = str(reader.ipv6())
        elif tree["type"] in _4O6_TYPES:
            flags = reader.u24()
            tree["flags"] = flags
            tree["unicast"] = bool(flags & dhcp4o6.UNICAST_FLAG)
        elif tree["type"] in dhcp6.CLIENT_SERVER_TYPES:
            tree["transaction_id"] = reader.u24()
        else:
            return tree
        tree["options"] = _options6(data[:MAX_MESSAGE], reader.offset, base, depth)
    except WireError:
        pass  # among the errors already
    return tree


def _options6(data: bytes, start: int, base: int, depth: int) -> list[Tree]:
    """The options in ``data`` from ``start`` on, as many as are whole."""
    options: list[Tree] = []
    reader = Reader(data, start)
    try:
        while reader.remaining:
            at = reader.offset
            code = reader.u16()
            value = reader.take(reader.u16())
            option = _option(code, name_of(dhcp6.Option, code, "option"), value, base + at)
            _interpret(option, value, base + at + 4, DHCP6.get(code, octets), depth)
            options.append(option)
    except WireError:
        pass  # the one around says what is wrong
    return options


def _option(code: int, name: str, value: bytes, offset: int) -> Tree:
    return {
        "code": code,
        "name": name,
        "offset": offset,
        "length": len(value),
        "hex": value.hex(),
        "value": None,
        "text": "",
        "error": None,
    }


def _interpret(option: Tree, value: bytes, base: int | None, decoder: Any, depth: int) -> None:
    """Fill in value, text, error and what is inside. ``base`` is the value's offset, None when it was joined."""
    try:
        meaning: Value = decoder(value)
        option["value"], option["text"] = meaning.data, meaning.text
        if meaning.options_at is None and meaning.message is None:
            return
        if depth >= MAX_DEPTH:
            raise WireError(f"nested more than {MAX_DEPTH} deep")
        inside = base or 0
        if meaning.message == "dhcpv4":
            option["message"] = decode_dhcp4(value, inside)
        elif meaning.message == "dhcpv6":
            option["message"] = decode_dhcp6(value, inside, depth + 1)
        elif meaning.options_at is not None:
            option["options"] = _options6(value, meaning.options_at, inside, depth + 1)
            dhcp6.decode_options(value, meaning.options_at)
            # A container that has an error inside is wrong for that reason; no need to say it twice.
            if option["code"] in CONTAINERS and not any(_errors_in_options(option["options"])):
                _judge(option, value)
    except WireError as error:
        option["error"] = _error(error, base)
        option["text"] = option["text"] or octets(value).text


def _judge(option: Tree, value: bytes) -> None:
    try:
        CONTAINERS[option["code"]](value)
    except WireError as error:
        option["error"] = {"reason": error.reason, "offset": None}


# ------------------------------------------------------------------------------------------------------------- DHCPv4


def decode_dhcp4(data: bytes, base: int = 0) -> Tree:
    """A DHCPv4 message, which begins at ``op``; ``base`` is its offset in the outermost one."""
    tree: Tree = {"protocol": "dhcpv4", "type": None, "name": "BOOTP", "length": len(data), "options": [], "errors": []}
    try:
        dhcp4.decode(data)
    except WireError as error:
        tree["errors"].append(_error(error, base))
    reader = Reader(data[:MAX_MESSAGE])
    try:
        op, htype, hlen, hops = reader.u8(), reader.u8(), reader.u8(), reader.u8()
        tree |= {"op": op, "htype": htype, "hlen": hlen, "hops": hops, "xid": reader.u32(), "secs": reader.u16()}
        tree["broadcast"] = bool(reader.u16() & dhcp4.BROADCAST_FLAG)
        for field in ("ciaddr", "yiaddr", "siaddr", "giaddr"):
            tree[field] = str(reader.ipv4())
        tree["chaddr"] = reader.take(dhcp4.CHADDR_LENGTH)[:hlen].hex(":")
        sname_at = reader.offset
        sname = reader.take(dhcp4.SNAME_LENGTH)
        file_at = reader.offset
        file = reader.take(dhcp4.FILE_LENGTH)
        reader.take(4)
    except WireError:
        return tree
    found: dict[int, list[tuple[int, bytes]]] = {}
    options_at = reader.offset
    _cut4(reader.rest(), options_at, found)
    overload = found.get(dhcp4.Option.OVERLOAD, [(0, b"\0")])[0][1][:1] or b"\0"
    in_file, in_sname = bool(overload[0] & dhcp4.Overload.FILE), bool(overload[0] & dhcp4.Overload.SNAME)
    if in_file:
        _cut4(file, file_at, found)
    if in_sname:
        _cut4(sname, sname_at, found)
    tree["sname"] = "" if in_sname else printable(sname)
    tree["file"] = "" if in_file else printable(file)
    for code, parts in found.items():
        value = b"".join(part for _, part in parts)
        option = _option(code, name_of(dhcp4.Option, code, "option"), value, base + parts[0][0])
        _interpret(option, value, base + parts[0][0] + 2 if len(parts) == 1 else None, DHCP4.get(code, octets), 0)
        tree["options"].append(option)
        if code == dhcp4.Option.MESSAGE_TYPE and option["value"] is not None:
            tree["type"] = option["value"]
            tree["name"] = name_of(dhcp4.MessageType, option["value"], "type")
    return tree


def _cut4(field: bytes, base: int, found: dict[int, list[tuple[int, bytes]]]) -> None:
    """Options up to END, or as far as they are whole: offset and value of each instance, by code."""
    reader = Reader(field)
    try:
        while (code := reader.u8()) != dhcp4.Option.END:
            if code != dhcp4.Option.PAD:
                at = base + reader.offset - 1
                value = reader.take(reader.u8())
                found.setdefault(code, []).append((at, value))
    except WireError:
        pass  # the strict decoder has said it


# --------------------------------------------------------------------------------------------------------------- text


def render_message(message: Tree) -> list[str]:
    """The tree as text, a line for each option, what is inside indented."""
    title = f"{'DHCPv4 ' if message['protocol'] == 'dhcpv4' else ''}{message['name'] or 'no message'}"
    if message["type"] is not None:
        title += f" ({message['type']})"
    lines = [f"{title}, {message['length']} octets"]
    fields = _fields(message)
    if fields:
        lines.append(f"  {', '.join(fields)}")
    lines += _render_options(message["options"])
    lines += [f"  ERROR {describe_error(error)}" for error in message["errors"]]
    return lines


_FIELDS6: Final[tuple[tuple[str, str, Callable[[Any], str]], ...]] = (
    ("transaction_id", "transaction-id", "{:#08x}".format),
    ("flags", "flags", "{:#08x}".format),
    ("unicast", "U", lambda unicast: str(int(unicast))),
    ("hop_count", "hop-count", str),
    ("link_address", "link-address", str),
    ("peer_address", "peer-address", str),
)


def _fields(message: Tree) -> list[str]:
    """Header fields worth a word: those that say something."""
    if message["protocol"] == "dhcpv6":
        return [f"{word} {show(message[key])}" for key, word, show in _FIELDS6 if key in message]
    fields = []
    if "xid" in message:
        fields = [f"op {message['op']}", f"xid {message['xid']:#010x}", f"secs {message['secs']}"]
        fields += ["broadcast"] * bool(message.get("broadcast"))
    for key in ("ciaddr", "yiaddr", "siaddr", "giaddr"):
        if message.get(key, "0.0.0.0") != "0.0.0.0":  # noqa: S104 (the unset field, not a socket)
            fields.append(f"{key} {message[key]}")
    return fields + [f"{key} {message[key]}" for key in ("chaddr", "sname", "file") if message.get(key)]


def _render_options(options: list[Tree], indent: str = "  ") -> Iterator[str]:
    for option in options:
        yield f"{indent}{option['code']:>3} {option['name']}  {option['text']}".rstrip()
        if option["error"] is not None:
            yield f"{indent}    ERROR {describe_error(option['error'])}"
        yield from _render_options(option.get("options", []), indent + "    ")
        if "message" in option:
            yield from (f"{indent}    {line}" for line in render_message(option["message"]))


def describe_error(error: Tree) -> str:
    """``{"reason", "offset"}`` in words."""
    return str(error["reason"]) + ("" if error["offset"] is None else f" (at octet {error['offset']})")
