"""A DHCP exchange as a ladder: when, who to whom, which message, and what is worth reading in it.

                client                                 server
       0.0000 s ├─ DHCPV4-QUERY: DISCOVER ──────────────────▶  fe80::c → ff02::1:2
                │    U=0 · asks for 90 137 · xid 0xdeadbeef · asks for 1 3 159

DHCPv4 is unwrapped from option 87, messages from their relays. ``render_ladder`` is for everything that shows an
exchange: ``b4client decode``, the demonstration, a failed test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from b4client.decode.message import Tree, decode_dhcp4, decode_dhcp6, describe_error, errors_in
from b4client.decode.pcap import Datagram
from b4client.wire import dhcp4, dhcp6

ARROW_WIDTH: Final = 46
"""Columns between client and server."""
_INDENT: Final = " " * 12
_NEEDED: Final = 60
"""Columns that a ladder needs at least: a narrower one would be drawn wider than it was asked for."""

_FROM_SERVER6: Final = frozenset(
    (
        dhcp6.MessageType.ADVERTISE,
        dhcp6.MessageType.REPLY,
        dhcp6.MessageType.RECONFIGURE,
        dhcp6.MessageType.RELAY_REPL,
        dhcp6.MessageType.DHCPV4_RESPONSE,
    )
)
_KEY6: Final = {
    3: "IA_NA",
    13: "status",
    25: "IA_PD",
    32: "refresh",
    64: "AFTR",
    82: "SOL_MAX_RT",
    83: "INF_MAX_RT",
    88: "4o6 server",
    90: "BR",
    94: "MAP-E",
    95: "MAP-T",
    96: "lw4o6",
    111: "priority",
    137: "bind prefix",
}
_KEY4: Final = {
    50: "requested",
    51: "lease",
    54: "server",
    56: "message",
    58: "T1",
    59: "T2",
    109: "softwire source",
    159: "ports",
}
_ASKS: Final = {"dhcpv6": dhcp6.Option.ORO, "dhcpv4": dhcp4.Option.PARAMETER_LIST}


def decode_datagram(datagram: Datagram) -> Tree:
    """The message in a datagram, as ``message.decode_message`` has it; the IP version says which protocol."""
    decode = decode_dhcp4 if datagram.source.version == 4 else decode_dhcp6
    return decode(datagram.payload)


def render_ladder(datagrams: Iterable[Datagram], *, colour: bool = False, width: int = 110) -> list[str]:
    """Two lines or more for each datagram; times are seconds from the first one. Never raises for what is inside.

    Details are broken to ``width`` columns (at least 60); ``colour`` adds ANSI attributes. No datagram: one line.
    """
    start: float | None = None
    bold, dim, red, end = ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m") if colour else ("", "", "", "")
    lines = [f"{_INDENT}client{'server':>{ARROW_WIDTH - 7}}"]
    for datagram in datagrams:
        start = datagram.at if start is None else start
        tree = decode_datagram(datagram)
        name = message_name(tree)
        bar = "─" * max(2, ARROW_WIDTH - len(name) - 6)
        left, right = (
            (f"├─ {bold}", f"{end} {bar}▶") if _from_client(tree, datagram) else (f"◀{bar} {bold}", f"{end} ─┤")
        )
        arrow = f"{left}{name}{right}"
        who = f"{dim}{datagram.source} → {datagram.destination}{end}"
        lines.append(f"{datagram.at - start:9.4f} s {arrow}  {who}")
        errors = [f"ERROR {describe_error(error)}" for error in errors_in(tree)]
        if datagram.cut:
            errors.insert(0, "ERROR the capture holds only a part of this datagram")
        room = max(width, _NEEDED) - len(_INDENT) - 5
        lines += [f"{_INDENT}│    {dim}{line}{end}" for line in _wrap(_details(tree), room)]
        lines += [f"{_INDENT}│    {red}{line}{end}" for error in errors for line in _wrap([error], room)]
    return lines if start is not None else ["(no DHCP message)"]


def message_name(tree: Tree) -> str:
    """``"REPLY"``, ``"DHCPV4-QUERY: DISCOVER"``, ``"RELAY-FORW: SOLICIT"``: the name, and those inside."""
    name = str(tree["name"]) or "no message"
    inner = _inside(tree)
    return name if inner is None else f"{name}: {message_name(inner)}"


def _inside(tree: Tree) -> Tree | None:
    return next((option["message"] for option in tree["options"] if "message" in option), None)


def _from_client(tree: Tree, datagram: Datagram) -> bool:
    if tree["protocol"] == "dhcpv4" and "op" in tree:
        return bool(tree["op"] != dhcp4.BOOTREPLY)
    if tree["type"] is not None:
        return tree["type"] not in _FROM_SERVER6
    return datagram.destination_port in (dhcp6.SERVER_PORT, 67)


def _details(tree: Tree) -> Iterator[str]:
    """What is worth reading, outermost message first."""
    if "transaction_id" in tree:
        yield f"xid {tree['transaction_id']:#08x}"
    if "xid" in tree:
        yield f"xid {tree['xid']:#010x}"
    if tree["type"] == dhcp6.MessageType.DHCPV4_QUERY and "unicast" in tree:
        yield f"U={int(tree['unicast'])}"
    if "peer_address" in tree:
        yield f"peer {tree['peer_address']}"
    for field in ("ciaddr", "yiaddr"):
        if tree.get(field, str(dhcp4.ZERO)) != str(dhcp4.ZERO):
            yield f"{field} {tree[field]}"
    for option in tree["options"]:
        code = option["code"]
        label = (_KEY6 if tree["protocol"] == "dhcpv6" else _KEY4).get(code)
        if code == _ASKS[tree["protocol"]] and option["value"]:
            yield "asks for " + " ".join(map(str, option["value"]))
        elif label is not None:
            yield f"{code} {label} {', '.join(filter(None, _texts(option)))}".rstrip()
    inner = _inside(tree)
    if inner is not None:
        yield from _details(inner)


def _texts(option: Tree) -> Iterator[str]:
    yield option["text"]
    for inner in option.get("options", []):
        label = _KEY6.get(inner["code"])
        texts = ", ".join(filter(None, _texts(inner)))
        yield f"{label} {texts}" if label else texts


def _wrap(details: Iterable[str], width: int) -> Iterator[str]:
    """Details joined by dots, broken between them and, where one alone is too long, inside it."""
    line = ""
    for detail in details:
        text = detail
        if line and len(line) + 3 + len(text) > width:
            yield line
            line = ""
        text = f"{line} · {text}" if line else text
        while len(text) > width:
            cut = text.rfind(" ", width // 2, width) + 1 or width
            yield text[:cut].rstrip()
            text = text[cut:]
        line = text
    if line:
        yield line
