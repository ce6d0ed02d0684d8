"""A DHCP exchange as a ladder: who said what to whom, DHCPv4 unwrapped from option 87 (RFC 7341).

tshark and tcpdump do not know message types 20 and 21; this reads a pcap file and
draws with the project's own decoders.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

from b4client.model.errors import WireError
from b4client.wire import dhcp4, dhcp4o6, dhcp6, softwire46

PCAP_MAGIC = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"}
LINKTYPE_ETHERNET = 1
ETHERTYPE_IPV6 = b"\x86\xdd"
UDP = 17
ARROW_WIDTH = 44
_TIMES = ((dhcp4.Option.LEASE_TIME, "51 lease"), (dhcp4.Option.T1, "58 T1"), (dhcp4.Option.T2, "59 T2"))


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram over IPv6. ``at`` is seconds since the epoch, as captured."""

    at: float
    source: IPv6Address
    destination: IPv6Address
    source_port: int
    destination_port: int
    payload: bytes


def read_pcap(path: Path) -> list[Datagram]:
    """The UDP over IPv6 datagrams to or from port 546/547 in a pcap file of Ethernet frames. Raises ValueError."""
    data = path.read_bytes()
    order = PCAP_MAGIC.get(data[:4])
    if order is None or len(data) < 24:
        raise ValueError(f"{path} is no pcap file")
    (linktype,) = struct.unpack_from(order + "I", data, 20)
    if linktype != LINKTYPE_ETHERNET:
        raise ValueError(f"{path}: link type {linktype} is not Ethernet")
    datagrams, offset = [], 24
    while offset + 16 <= len(data):
        seconds, micros, length, _ = struct.unpack_from(order + "IIII", data, offset)
        frame = data[offset + 16 : offset + 16 + length]
        offset += 16 + length
        if offset > len(data):
            break  # the capture was stopped in the middle of a packet
        datagram = _datagram(seconds + micros / 1e6, frame)
        if datagram and {datagram.source_port, datagram.destination_port} & {dhcp6.CLIENT_PORT, dhcp6.SERVER_PORT}:
            datagrams.append(datagram)
    return datagrams


def _datagram(at: float, frame: bytes) -> Datagram | None:
    if len(frame) < 14 + 40 + 8 or frame[12:14] != ETHERTYPE_IPV6 or frame[20] != UDP:
        return None
    source_port, destination_port, length = struct.unpack_from("!HHH", frame, 54)
    return Datagram(
        at,
        IPv6Address(frame[22:38]),
        IPv6Address(frame[38:54]),
        source_port,
        destination_port,
        frame[62 : 54 + length],
    )


@dataclass(frozen=True, slots=True)
class Rung:
    """One message: its name, whether the client said it, and what is worth reading in it."""

    name: str
    from_client: bool
    details: tuple[str, ...]


def describe(datagram: Datagram) -> Rung:
    """What a datagram says. Never raises: what cannot be decoded is called so."""
    from_client = datagram.destination_port == dhcp6.SERVER_PORT
    try:
        kind = dhcp6.message_type(datagram.payload)
        if kind in (dhcp6.MessageType.DHCPV4_QUERY, dhcp6.MessageType.DHCPV4_RESPONSE):
            return _describe_4o6(datagram.payload, from_client)
        message = dhcp6.decode(datagram.payload)
    except WireError as error:
        return Rung(f"undecodable ({len(datagram.payload)} octets)", from_client, (str(error),))
    details = [f"xid {message.transaction_id:06x}", *_dhcp6_options(message.options)]
    return Rung(_name(dhcp6.MessageType, message.msg_type), from_client, tuple(details))


def _name(kind: type[dhcp4.MessageType] | type[dhcp6.MessageType], number: int | None) -> str:
    try:
        return kind(number).name.replace("_", "-")  # type: ignore[arg-type]
    except ValueError:
        return f"type {number}"


def _describe_4o6(payload: bytes, from_client: bool) -> Rung:
    outer = dhcp4o6.decode(payload)
    inner = dhcp4.decode(outer.dhcp4)
    wrapper = _name(dhcp6.MessageType, outer.msg_type)
    details = [f"xid {inner.xid:08x}"]
    if from_client:
        details.insert(0, f"U={int(outer.unicast)}")
    if inner.ciaddr != dhcp4.ZERO:
        details.append(f"ciaddr {inner.ciaddr}")
    if inner.yiaddr != dhcp4.ZERO:
        details.append(f"yiaddr {inner.yiaddr}")
    details += _dhcp4_options(inner)
    details += _dhcp6_options(outer.options)
    return Rung(f"{wrapper}: {_name(dhcp4.MessageType, inner.message_type)}", from_client, tuple(details))


def _dhcp4_options(message: dhcp4.Dhcp4Message) -> Iterable[str]:
    option = dhcp4.Option
    for code, label in ((option.REQUESTED_ADDRESS, "50 requested"), (option.SERVER_ID, "54 server")):
        value = message.get(code)
        if value is not None:
            yield f"{label} {dhcp4.address_option(message, code)}"
    times = ((label, dhcp4.seconds_option(message, code)) for code, label in _TIMES)
    seconds = [f"{label} {value} s" for label, value in times if value is not None]
    if seconds:
        yield ", ".join(seconds)
    raw = message.get(option.V4_PORTPARAMS)
    if raw is not None:
        params = softwire46.decode_portparams(raw)
        ports = params.port_set()
        meaning = f"{ports}: {ports.port_count} ports" if ports else "not shared"
        yield f"159 {raw.hex()} = {meaning}"
    saddr = message.get(option.S46_SADDR)
    if saddr is not None:
        yield f"109 {softwire46.decode_saddr(saddr)}"
    text = dhcp4.text_option(message, option.MESSAGE)
    if text:
        yield f"56 {text!r}"


def _dhcp6_options(options: dhcp6.Options) -> Iterable[str]:
    option = dhcp6.Option
    for code, value in options:
        if code == option.ORO:
            yield "asks for " + " ".join(str(c) for c in dhcp6.decode_oro(value))
        elif code == option.DHCP4_O_DHCP6_SERVER:
            servers = dhcp4o6.decode_servers(value)
            yield "88 " + (" ".join(map(str, servers)) if servers else "empty: use multicast")
        elif code == option.S46_CONT_LW:
            lw = softwire46.decode_lw4o6(value)
            yield f"96 lw4o6, BR {' '.join(map(str, lw.brs))}" + (f", {lw.binding.prefix}" if lw.binding else "")
        elif code == option.S46_CONT_MAPE:
            mape = softwire46.decode_mape(value)
            rules = ", ".join(f"{r.rule_ipv4} in {r.rule_ipv6}" for r in mape.rules)
            yield f"94 MAP-E, BR {' '.join(map(str, mape.brs))}, rule {rules}"
        elif code == option.S46_BR:
            yield f"90 BR {softwire46.decode_br(value)}"
        elif code == option.INFORMATION_REFRESH_TIME:
            yield f"32 refresh in {dhcp6.decode_seconds(value)} s"


def render(datagrams: Sequence[Datagram], *, colour: bool = False) -> list[str]:
    """The ladder, a line a message and one for its details; times count from the first message."""
    if not datagrams:
        return ["(no DHCPv6 message)"]
    start = datagrams[0].at
    bold, dim, end = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    lines = [f"{'':12}{'client':{ARROW_WIDTH}}  server"]
    for datagram in datagrams:
        rung = describe(datagram)
        bar = "─" * max(2, ARROW_WIDTH - len(rung.name) - 6)
        if rung.from_client:
            arrow, peer = f"├─ {bold}{rung.name}{end} {bar}─▶", datagram.destination
        else:
            arrow, peer = f"◀─{bar} {bold}{rung.name}{end} ─┤", datagram.source
        lines.append(f"{datagram.at - start:9.4f} s {arrow}  {dim}{peer}{end}")
        lines += [f"{'':12}│    {dim}{text}{end}" for text in _wrap(rung.details)]
    return lines


def _wrap(details: Sequence[str], width: int = 96) -> Iterable[str]:
    line = ""
    for detail in details:
        if line and len(line) + 3 + len(detail) > width:
            yield line
            line = ""
        line = f"{line} · {detail}" if line else detail
    if line:
        yield line
