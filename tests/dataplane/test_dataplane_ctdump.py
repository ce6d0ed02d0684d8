"""Conntrack entries as netlink has them, read without a kernel; and which of them belong to a forward."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client.dataplane.ctdump import Flow, _name, parse_entry
from b4client.dataplane.forwardflush import belongs

LAN, PEER, PUBLIC = (IPv4Address(a).packed for a in ("192.168.1.10", "198.51.100.10", "192.0.2.1"))


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def tuple_of(kind: int, protocol: int, sender: tuple[bytes, int], receiver: tuple[bytes, int]) -> bytes:
    (source, port), (destination, other) = sender, receiver
    ip = attribute(1, source) + attribute(2, destination)
    if protocol == 1:
        ports = attribute(4, struct.pack("!H", port)) + attribute(5, b"\x08") + attribute(6, b"\x00")
    else:
        ports = attribute(2, struct.pack("!H", port)) + attribute(3, struct.pack("!H", other))
    proto = attribute(1, bytes([protocol])) + ports
    return attribute(0x8000 | kind, attribute(0x8001, ip) + attribute(0x8002, proto))


def outbound(protocol: int) -> bytes:
    return tuple_of(1, protocol, (LAN, 5000), (PEER, 80)) + tuple_of(2, protocol, (PEER, 80), (PUBLIC, 13312))


def parse(octets: bytes) -> Flow | None:
    return parse_entry(octets, 0, len(octets))


def test_tcp_with_its_state() -> None:
    info = attribute(0x8004, attribute(0x8001, attribute(1, b"\x07") + attribute(2, b"\x07")))
    flow = parse(outbound(6) + attribute(3, bytes(4)) + info)
    assert flow == Flow(6, LAN, 5000, PEER, 80, PEER, 80, PUBLIC, 13312, 7)


def test_others() -> None:
    udp, echo = parse(outbound(17)), parse(outbound(1))
    assert udp == Flow(17, LAN, 5000, PEER, 80, PEER, 80, PUBLIC, 13312, 0)
    assert echo is not None
    assert (echo.source_port, echo.reply_destination_port) == (5000, 80)  # its identifiers
    assert parse(outbound(6) + attribute(18, b"\x00\x05")) is None  # another conntrack zone
    assert parse(tuple_of(1, 6, (LAN, 1), (PEER, 2))) is None


def test_without_ports() -> None:
    def plain(kind: int, source: bytes, destination: bytes) -> bytes:
        ip = attribute(1, source) + attribute(2, destination)
        return attribute(0x8000 | kind, attribute(0x8001, ip) + attribute(0x8002, attribute(1, b"\x29")))

    octets = plain(1, LAN, PEER) + plain(2, PEER, PUBLIC)
    assert parse(octets) is None
    assert parse_entry(octets, 0, len(octets), portless=True) == Flow(41, LAN, 0, PEER, 0, PEER, 0, PUBLIC, 0, 0)
    assert parse_entry(octets + attribute(18, b"\x00\x05"), 0, len(octets) + 8, portless=True) is None


def test_an_entry_is_named_by_its_tuple_and_number() -> None:
    entry, number = outbound(6), attribute(12, b"\x01\x02\x03\x04")
    original = tuple_of(1, 6, (LAN, 5000), (PEER, 80))
    octets = b"?" * 20 + entry + number
    assert _name(octets, 20, len(octets)) == original + number
    assert _name(number, 0, len(number)) == b""  # would name every entry


@given(st.binary(max_size=200))
def test_any_octets(octets: bytes) -> None:
    parse(octets)
    _name(octets, 0, len(octets))
    parse_entry(octets, 0, len(octets), portless=True)
    parse(outbound(6)[:100] + octets)


def test_any_cut() -> None:
    whole = outbound(6)
    for length in range(len(whole)):
        assert parse(whole[:length]) is None


FORWARD = (17, 13312, LAN, 80)


@pytest.mark.parametrize(
    ("flow", "gone", "new"),
    [
        (Flow(17, PEER, 9, PUBLIC, 13312, LAN, 80, PEER, 9, 0), True, False),  # came in by it
        (Flow(17, LAN, 80, PEER, 9, PEER, 9, PUBLIC, 13312, 0), True, False),  # went out by it
        (Flow(17, LAN, 9, PUBLIC, 13312, LAN, 80, PUBLIC, 13313, 0), True, False),  # hairpinned
        (Flow(6, PEER, 9, PUBLIC, 13312, LAN, 80, PEER, 9, 0), False, False),  # another protocol
        (Flow(17, PEER, 9, PUBLIC, 13313, LAN, 80, PEER, 9, 0), False, False),  # another forward to the same host
        (Flow(17, LAN, 80, PEER, 9, PEER, 9, PUBLIC, 13313, 0), False, False),  # the host's, by another port
        (Flow(17, LAN, 81, PEER, 9, PEER, 9, PUBLIC, 13312, 0), False, False),  # had the port before the forward
        (Flow(17, PEER, 9, PUBLIC, 13312, PUBLIC, 13312, PEER, 9, 0), False, True),  # ended at this machine
    ],
)
def test_flows_of_a_forward(flow: Flow, gone: bool, new: bool) -> None:
    assert belongs(flow, PUBLIC, {FORWARD}, set()) == gone
    assert belongs(flow, PUBLIC, set(), {FORWARD}) == new
