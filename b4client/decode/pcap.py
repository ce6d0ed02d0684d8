"""Captures: classic pcap and pcapng files, and the DHCP datagrams in their packets. Pure: octets in, values out.

Strict and bounded: what is cut off or contradicts itself ends the reading there, with what was whole before it and the
octet where it went wrong. Fragments are not put together: a DHCP message that needs them is counted, not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from b4client.model.errors import WireError
from b4client.wire.cursor import Reader

MAX_PACKET: Final = 262144
"""Octets of the longest packet in a capture: what libpcap takes as the largest snapshot length."""
MAX_INTERFACES: Final = 4096
MAX_VLAN_TAGS: Final = 4
MAX_EXTENSION_HEADERS: Final = 8

ETHERNET, RAW_OLD, RAW_OPENBSD, RAW, SLL, IPV4, IPV6, SLL2 = 1, 12, 14, 101, 113, 228, 229, 276
"""Link types that are understood (those of tcpdump.org's registry)."""
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
VLAN_ETHERTYPES: Final = frozenset((0x8100, 0x88A8, 0x9100))
PROTOCOL_UDP: Final = 17
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60
DHCP6_PORTS: Final = frozenset((546, 547))
DHCP4_PORTS: Final = frozenset((67, 68))

_Order = Literal["big", "little"]
_PCAP_MAGIC: Final[dict[bytes, tuple[_Order, int]]] = {
    b"\xa1\xb2\xc3\xd4": ("big", 10**6),
    b"\xd4\xc3\xb2\xa1": ("little", 10**6),
    b"\xa1\xb2\x3c\x4d": ("big", 10**9),
    b"\x4d\x3c\xb2\xa1": ("little", 10**9),
}
_SECTION_HEADER: Final = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_INTERFACE, _SIMPLE_PACKET, _ENHANCED_PACKET = 1, 3, 6
_OPTION_TSRESOL: Final = 9
_OPTION_TSOFFSET: Final = 14


@dataclass(frozen=True, slots=True)
class Datagram:
    """A DHCP datagram. ``at`` is seconds since the epoch (0.0 where a capture has no times); ``number`` counts the
    packets of the capture from 1; ``cut`` says that the capture holds less of it than was sent."""

    at: float
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    source_port: int
    destination_port: int
    payload: bytes
    number: int = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Capture:
    """What a capture holds: its DHCP datagrams, how many packets and how many fragments of UDP it had, and the fault
    at which the reading ended (None: at its end)."""

    datagrams: tuple[Datagram, ...]
    packets: int
    fragments: int
    fault: WireError | None = None


@dataclass(frozen=True, slots=True)
class _Packet:
    at: float
    link_type: int
    data: bytes
    cut: bool


def is_capture(data: bytes) -> bool:
    """True when the first octets are those of a pcap or pcapng file."""
    return data[:4] in _PCAP_MAGIC or data[:4] == _SECTION_HEADER


def read_capture(data: bytes) -> Capture:
    """The DHCP datagrams of a capture file: UDP ports 546 and 547 over IPv6, 67 and 68 over IPv4. Never raises."""
    datagrams: list[Datagram] = []
    packets = fragments = 0
    fault = None
    try:
        for packet in _pcapng(data) if data[:4] == _SECTION_HEADER else _pcap(data):
            packets += 1
            try:
                found = _datagram(packet, packets)
            except WireError:
                continue  # a packet of another protocol, or one that nobody would have accepted
            if found is None:
                fragments += 1
            elif {found.source_port, found.destination_port} & (
                DHCP4_PORTS if found.source.version == 4 else DHCP6_PORTS
            ):
                datagrams.append(found)
    except WireError as error:
        fault = error
    return Capture(tuple(datagrams), packets, fragments, fault)


# ---------------------------------------------------------------------------------------------------------- containers


class _Cursor:
    """A Reader of integers in either byte order."""

    def __init__(self, reader: Reader, order: _Order) -> None:
        self.reader = reader
        self.order: _Order = order

    def uint(self, octets: int, what: str) -> int:
        return int.from_bytes(self.reader.take(octets, what), self.order)


def _pcap(data: bytes) -> Iterator[_Packet]:
    """Packets of a classic pcap file."""
    reader = Reader(data)
    magic = reader.take(4, "pcap header")
    if magic not in _PCAP_MAGIC:
        raise WireError("neither a pcap nor a pcapng file", 0)
    order, resolution = _PCAP_MAGIC[magic]
    fields = _Cursor(reader, order)
    version = fields.uint(2, "pcap header"), fields.uint(2, "pcap header")
    if version != (2, 4):
        raise WireError(f"pcap version {version[0]}.{version[1]} is not 2.4", 4)
    reader.take(12, "pcap header")  # time zone, accuracy, snapshot length: writers leave anything there
    link_type = fields.uint(4, "pcap header") & 0xFFFF  # above it: whether frames have a check sequence
    while reader.remaining:
        seconds, part = fields.uint(4, "packet header"), fields.uint(4, "packet header")
        at = reader.offset
        captured, sent = fields.uint(4, "packet header"), fields.uint(4, "packet header")
        if captured > MAX_PACKET:
            raise WireError(f"packet of {captured} octets", at)
        yield _Packet(seconds + part / resolution, link_type, reader.take(captured, "packet"), captured < sent)


@dataclass(slots=True)
class _Interface:
    link_type: int
    snapshot_len: int
    ticks_per_second: int = 10**6
    offset_s: int = 0


def _pcapng(data: bytes) -> Iterator[_Packet]:
    """Packets of a pcapng file (draft-ietf-opsawg-pcapng): enhanced and simple packet blocks; other blocks skipped."""
    reader = Reader(data)
    order: _Order = "little"
    interfaces: list[_Interface] = []
    while reader.remaining:
        start = reader.offset
        kind = reader.take(4, "block type")
        if kind == _SECTION_HEADER:
            order = _section_order(data, start)
            interfaces = []
        fields = _Cursor(reader, order)
        length = fields.uint(4, "block length")
        if length < 12 or length % 4:
            raise WireError(f"block of {length} octets", start + 4)
        body = Reader(reader.take(length - 12, "block"), base=start + 8)
        if fields.uint(4, "block length") != length:
            raise WireError("the two lengths of a block differ", reader.offset - 4)
        number = int.from_bytes(kind, order)
        if number == _INTERFACE:
            if len(interfaces) == MAX_INTERFACES:
                raise WireError(f"more than {MAX_INTERFACES} interfaces", start)
            interfaces.append(_interface(_Cursor(body, order)))
        elif number in (_ENHANCED_PACKET, _SIMPLE_PACKET):
            yield _block_packet(_Cursor(body, order), interfaces, enhanced=number == _ENHANCED_PACKET)


def _section_order(data: bytes, start: int) -> _Order:
    magic = Reader(data, start + 8).take(4, "byte-order magic")
    orders: tuple[_Order, _Order] = ("little", "big")
    for order in orders:
        if int.from_bytes(magic, order) == _BYTE_ORDER_MAGIC:
            return order
    raise WireError("unknown byte order", start + 8)


def _interface(fields: _Cursor) -> _Interface:
    reader = fields.reader
    link_type = fields.uint(2, "interface")
    reader.take(2, "interface")
    found = _Interface(link_type, fields.uint(4, "interface"))
    while reader.remaining:
        code, length = fields.uint(2, "option of an interface"), fields.uint(2, "option of an interface")
        if not code:
            break
        at = reader.offset
        value = reader.take(length, "option of an interface")
        reader.take(-length % 4, "padding of an option")
        if code == _OPTION_TSRESOL and length == 1:
            exponent = value[0] & 0x7F
            if exponent > 63:
                raise WireError(f"time resolution {value[0]:#x}", at)
            found.ticks_per_second = 2**exponent if value[0] & 0x80 else 10**exponent
        elif code == _OPTION_TSOFFSET and length == 8:
            found.offset_s = int.from_bytes(value, fields.order, signed=True)
    return found


def _block_packet(fields: _Cursor, interfaces: list[_Interface], *, enhanced: bool) -> _Packet:
    reader = fields.reader
    start = reader.offset
    index = fields.uint(4, "packet block") if enhanced else 0
    if index >= len(interfaces):
        raise WireError(f"packet of interface {index}, which is not described", start)
    interface = interfaces[index]
    at = 0.0
    if enhanced:
        ticks = fields.uint(4, "packet block") << 32 | fields.uint(4, "packet block")
        at = interface.offset_s + ticks / interface.ticks_per_second
        captured, sent = fields.uint(4, "packet block"), fields.uint(4, "packet block")
    else:
        sent = fields.uint(4, "packet block")
        captured = min(sent, interface.snapshot_len or sent)
    if captured > MAX_PACKET:
        raise WireError(f"packet of {captured} octets", start)
    return _Packet(at, interface.link_type, reader.take(captured, "packet"), captured < sent)


# ------------------------------------------------------------------------------------------------------------- layers


def _datagram(packet: _Packet, number: int) -> Datagram | None:
    """The UDP datagram in a packet, None for a fragment of one. Raises WireError for everything else."""
    reader = Reader(packet.data)
    version = _link_layer(reader, packet)
    if _version(packet, reader.offset) != version:
        raise WireError("not the IP version that the link layer says")
    addresses = _ipv4(reader) if version == 4 else _ipv6(reader)
    if addresses is None:
        return None
    source, destination, octets = addresses
    source_port, destination_port = reader.u16("UDP header"), reader.u16("UDP header")
    length = reader.u16("UDP header")
    reader.take(2, "UDP header")
    if not 8 <= length <= octets:
        raise WireError(f"UDP length {length} in {octets} octets")
    present = min(length - 8, reader.remaining)
    if present < length - 8 and not packet.cut:
        raise WireError("packet shorter than its headers say")
    payload = reader.take(present)
    return Datagram(
        packet.at, source, destination, source_port, destination_port, payload, number, present < length - 8
    )


def _version(packet: _Packet, offset: int) -> int:
    return Reader(packet.data, offset).u8("IP header") >> 4


def _link_layer(reader: Reader, packet: _Packet) -> int:
    """Read what stands before the IP header. The IP version."""
    link_type = packet.link_type
    if link_type in (RAW, RAW_OLD, RAW_OPENBSD):
        version = _version(packet, 0)
        if version not in (4, 6):
            raise WireError(f"IP version {version}")
        return version
    if link_type in (IPV4, IPV6):
        return 4 if link_type == IPV4 else 6
    if link_type == ETHERNET:
        reader.take(12, "Ethernet header")
        protocol = reader.u16("Ethernet header")
    elif link_type == SLL:
        reader.take(14, "cooked header")
        protocol = reader.u16("cooked header")
    elif link_type == SLL2:
        protocol = reader.u16("cooked header")
        reader.take(18, "cooked header")
    else:
        raise WireError(f"link type {link_type}")
    for _ in range(MAX_VLAN_TAGS):
        if protocol not in VLAN_ETHERTYPES:
            break
        reader.take(2, "VLAN tag")
        protocol = reader.u16("VLAN tag")
    if protocol not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
        raise WireError(f"protocol {protocol:#06x}")
    return 4 if protocol == ETHERTYPE_IPV4 else 6


_Addresses = tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address, int]
"""Source, destination, and the octets that IP says are behind its headers."""


def _ipv4(reader: Reader) -> _Addresses | None:
    header = (reader.u8("IPv4 header") & 0x0F) * 4
    reader.take(1, "IPv4 header")
    total = reader.u16("IPv4 header")
    reader.take(2, "IPv4 header")
    fragment = reader.u16("IPv4 header") & 0x3FFF  # more fragments, and the offset
    reader.take(1, "IPv4 header")
    protocol = reader.u8("IPv4 header")
    reader.take(2, "IPv4 header")
    source, destination = reader.ipv4(), reader.ipv4()
    if protocol != PROTOCOL_UDP or not 20 <= header <= total:
        raise WireError("no UDP over IPv4")
    if fragment:
        return None
    reader.take(header - 20, "IPv4 options")
    return source, destination, total - header


def _ipv6(reader: Reader) -> _Addresses | None:
    reader.take(4, "IPv6 header")
    octets = reader.u16("IPv6 header")
    protocol = reader.u8("IPv6 header")
    reader.take(1, "IPv6 header")
    source, destination = reader.ipv6(), reader.ipv6()
    fragmented = False
    for _ in range(MAX_EXTENSION_HEADERS):
        if protocol not in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS):
            break
        is_fragment = protocol == FRAGMENT
        protocol, length = reader.u8("extension header"), reader.u8("extension header")
        if is_fragment:
            # Offset or more fragments; what is whole in spite of the header (RFC 6946) is none.
            fragmented = bool(reader.u16("fragment header") & 0xFFF9)
            reader.take(4, "fragment header")
            octets -= 8
            if fragmented:
                break
        else:
            reader.take(6 + 8 * length, "extension header")
            octets -= 8 + 8 * length
    if protocol != PROTOCOL_UDP:
        raise WireError("no UDP over IPv6")
    return None if fragmented else (source, destination, octets)
