"""Conntrack's entries of one address, read and deleted straight through netlink: 65 000 are read in 0.6 s.

pyroute2 decodes every attribute into objects, which takes seven times as long and keeps all of them. Blocking. The
kernel filters by address (5.8 and later); an older one sends everything, so all is looked at again here. Entries of
conntrack zones other than 0 are not ours.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from b4client.model.errors import DataplaneError

MAX_FLOWS: Final = 262144
"""More are not read: four times the ports that there can be."""
TIME_WAIT, CLOSE = 7, 8
"""States of TCP in conntrack."""
_BUFFER = 1 << 17
_HEADER, _GENERIC, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBH"), struct.Struct("=HH")
_NETFILTER = 12
_GET = 0x0101  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
_DELETE = 0x0102  # IPCTNL_MSG_CT_DELETE
_REQUEST_DUMP, _REQUEST_ACK = 0x301, 0x5
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_TUPLE_ORIG, _TUPLE_REPLY, _PROTOINFO, _ID, _ZONE, _FILTER = 1, 2, 4, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTO, _IP_V4_DST = 1, 2, 2
_FLAG_IP_DST = 1 << 1
_TUPLE: Final = struct.Struct("=HHHH4sHH4sHHHHBxxxHH2sxxHH2s")
"""CTA_TUPLE_IP with both addresses, CTA_TUPLE_PROTO with number and two 16-bit values, as the kernel lays them out."""
_PORTLESS: Final = struct.Struct("=HHHH4sHH4sHHHHB")
"""The same of a protocol that has no ports."""
_TYPE_MASK = 0x3FFF
Place = tuple[bytes, int, int]
"""Octets that netlink sent, and where in them the attributes of an entry begin and end."""


class Flow(NamedTuple):
    """An entry: addresses of four octets, ports (echo identifiers of ICMP as both ports) before and after NAT.

    ``reply_*`` are those of the packets that come back: ``reply_destination`` is what the source was translated to,
    ``reply_source`` what the destination was. ``tcp_state`` is 0 for other protocols.
    """

    protocol: int
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    reply_source: bytes
    reply_source_port: int
    reply_destination: bytes
    reply_destination_port: int
    tcp_state: int


def flows(address: IPv4Address) -> Iterator[Flow]:
    """The entries of ``address`` that have ports: outbound ones that were given it as their source, and inbound ones.

    At most MAX_FLOWS. Raises DataplaneError when the kernel refuses.
    """
    left = MAX_FLOWS
    try:
        with _netlink() as netlink:
            for flow, _ in _entries(netlink, address.packed, portless=False):
                if not left:
                    return
                left -= 1
                yield flow
    except OSError as error:
        raise DataplaneError("read the NAT table", error.strerror or str(error), errno=error.errno or 0) from None


def delete(address: IPv4Address, doomed: Callable[[Flow], bool]) -> Iterator[Flow]:
    """Delete the entries of ``address`` that are ``doomed``, and tell them. Those of protocols without ports are asked
    about with ports 0. Raises OSError when the kernel refuses.

    They go while the others are still being read, so that a full table needs no memory.
    """
    with _netlink() as netlink, _netlink() as changes:
        for flow, place in _entries(netlink, address.packed, portless=True):
            if doomed(flow) and _delete(changes, _name(*place)):
                yield flow


@contextmanager
def _netlink() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as netlink:
        netlink.settimeout(10)
        netlink.bind((0, 0))
        yield netlink


def _entries(netlink: socket.socket, address: bytes, *, portless: bool) -> Iterator[tuple[Flow, Place]]:
    for sequence, which in enumerate((_TUPLE_REPLY, _TUPLE_ORIG), 1):
        netlink.send(_request(which, address, sequence))
        for place in _answers(netlink, sequence):
            flow = parse_entry(*place, portless=portless)
            if flow is None:
                continue
            outbound = flow.reply_destination == address
            # A flow that was hairpinned is in both dumps.
            if outbound if which == _TUPLE_REPLY else not outbound and flow.destination == address:
                yield flow, place


def _delete(netlink: socket.socket, name: bytes) -> bool:
    """False when it has ended by itself meanwhile."""
    if not name:
        return False  # a request that names nothing would delete everything
    body = _GENERIC.pack(socket.AF_INET, 0, 0) + name
    netlink.send(_HEADER.pack(_HEADER.size + len(body), _DELETE, _REQUEST_ACK, 0, 0) + body)
    try:
        for _ in _answers(netlink, 0):
            pass
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def _name(data: bytes, offset: int, end: int) -> bytes:
    """What names the entry, and no other that has come since, in a request: its attributes CTA_TUPLE_ORIG and CTA_ID,
    as they are. Nothing when the first is not there."""
    original = identifier = b""
    for kind, start, stop in _attributes(data, offset, end):
        if kind == _TUPLE_ORIG:
            original = _nest(_TUPLE_ORIG, data[start:stop])
        elif kind == _ID:
            identifier = _attribute(_ID, data[start:stop])
    return original and original + identifier


def _attributes(data: bytes, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type, begin of the value, its end), as far as they can be understood."""
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            return
        yield kind & _TYPE_MASK, offset + 4, offset + length
        offset += length + 3 & ~3


def _request(which: int, address: bytes, sequence: int) -> bytes:
    tuple_ = _nest(which, _nest(_TUPLE_IP, _attribute(_IP_V4_DST, address)))
    flags = [(1, _FLAG_IP_DST if which == _TUPLE_ORIG else 0), (2, _FLAG_IP_DST if which == _TUPLE_REPLY else 0)]
    chosen = _nest(_FILTER, b"".join(_attribute(kind, struct.pack("=I", value)) for kind, value in flags))
    body = _GENERIC.pack(socket.AF_INET, 0, 0) + tuple_ + chosen
    return _HEADER.pack(_HEADER.size + len(body), _GET, _REQUEST_DUMP, sequence, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nest(kind: int, content: bytes) -> bytes:
    return _attribute(kind | _NESTED, content)


def _answers(netlink: socket.socket, sequence: int) -> Iterator[Place]:
    """The answers until the last, which a dump says with "done" and everything else with an error of number 0."""
    while True:
        data = netlink.recv(_BUFFER)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, number, _ = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size or offset + length > len(data):
                raise OSError(0, "the kernel's answer cannot be understood")
            if number == sequence:
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", data, offset + _HEADER.size)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield data, offset + _HEADER.size + _GENERIC.size, offset + length
            offset += length + 3 & ~3


def parse_entry(data: bytes, offset: int, end: int, *, portless: bool = False) -> Flow | None:
    """The flow whose attributes are ``data[offset:end]``; None for what is no IPv4 entry in zone 0, or has no ports
    (``portless``: then they are 0)."""
    original = reply = None
    state = 0
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            return None
        kind &= _TYPE_MASK
        if kind == _TUPLE_ORIG:
            original = _tuple(data, offset + 4, length - 4, portless)
        elif kind == _TUPLE_REPLY:
            reply = _tuple(data, offset + 4, length - 4, portless)
        elif kind == _PROTOINFO and length >= 13:
            state = _tcp_state(data, offset + 4, offset + length)
        elif kind == _ZONE:
            return None
        offset += length + 3 & ~3
    if original is None or reply is None:
        return None
    return Flow(original[0], *original[1:], *reply[1:], state)


def _tuple(data: bytes, offset: int, length: int, portless: bool) -> tuple[int, bytes, int, bytes, int] | None:
    """(protocol, source, source port, destination, destination port)."""
    if length < _TUPLE.size:
        return _portless(data, offset) if portless and length >= _PORTLESS.size else None
    (_, ip, _, first, source, _, second, destination, _, proto, _, number, protocol, _, one, a, _, two, b) = (
        _TUPLE.unpack_from(data, offset)
    )
    layout = (ip & _TYPE_MASK, first, second, proto & _TYPE_MASK, number)
    if layout != (_TUPLE_IP, 1, 2, _TUPLE_PROTO, 1):
        return None
    if (one, two) == (2, 3):
        return protocol, source, a[0] << 8 | a[1], destination, b[0] << 8 | b[1]
    if one == 4 and protocol == socket.IPPROTO_ICMP:
        identifier = a[0] << 8 | a[1]
        return protocol, source, identifier, destination, identifier
    return None


def _portless(data: bytes, offset: int) -> tuple[int, bytes, int, bytes, int] | None:
    _, ip, _, first, source, _, second, destination, _, proto, _, number, protocol = _PORTLESS.unpack_from(data, offset)
    if (ip & _TYPE_MASK, first, second, proto & _TYPE_MASK, number) != (_TUPLE_IP, 1, 2, _TUPLE_PROTO, 1):
        return None
    return protocol, source, 0, destination, 0


def _tcp_state(data: bytes, offset: int, end: int) -> int:
    """CTA_PROTOINFO_TCP_STATE, which comes first in CTA_PROTOINFO_TCP; 0 for other protocols."""
    _, kind = _ATTRIBUTE.unpack_from(data, offset)
    if kind & _TYPE_MASK != 1 or offset + 9 > end:
        return 0
    _, inner = _ATTRIBUTE.unpack_from(data, offset + 4)
    return data[offset + 8] if inner == 1 else 0
