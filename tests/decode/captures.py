"""Captures made by hand, so that every field of the file formats is where a test wants it; and a DHCP exchange."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from b4client.wire import dhcp4, dhcp4o6, dhcp6

CLIENT, SERVER = IPv6Address("fe80::c"), IPv6Address("2001:db8:46::1")
ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # or scapy asks the network for the address
LW_CONTAINER = "005c0014c00002123820010db8001234005d000400083400005a001020010db8ffff00000000000000000001"


def inner(kind: int, op: int = 1, *options: tuple[int, bytes], **fields: object) -> bytes:
    """A DHCPv4 message of this type."""
    message = dhcp4.Dhcp4Message(
        op=op,
        xid=0xDEADBEEF,
        chaddr=bytes.fromhex("020000000001"),
        options=((53, bytes([kind])), *options),
        **fields,  # type: ignore[arg-type]
    )
    return dhcp4.encode(message)


def reply() -> bytes:
    """A REPLY with option 88 and a lightweight 4over6 container."""
    options = ((1, bytes.fromhex("00030001020000000001")), (88, SERVER.packed), (96, bytes.fromhex(LW_CONTAINER)))
    return dhcp6.encode(dhcp6.Dhcp6Message(7, 0xABCDEF, options))


def discover() -> bytes:
    """A DHCPV4-QUERY with a DISCOVER."""
    return dhcp4o6.encode_query(inner(1, 1, (55, bytes([1, 3, 159]))), unicast=False, options=((6, b"\0\x5a\0\x89"),))


def ack() -> bytes:
    """A DHCPV4-RESPONSE with an ACK of a shared address."""
    options = (
        (51, b"\0\0\x0e\x10"),
        (54, bytes([192, 0, 2, 1])),
        (159, bytes.fromhex("06083400")),
        (61, bytes.fromhex("ff0000000100030001020000000001")),
    )
    return dhcp4o6.encode_response(
        inner(5, 2, *options, yiaddr=IPv4Address("192.0.2.18")), options=((90, SERVER.packed),)
    )


def packet6(payload: bytes, sport: int = 546, dport: int = 547) -> Packet:
    """IPv6 and UDP around a message."""
    return IPv6(src=str(CLIENT), dst=str(SERVER)) / UDP(sport=sport, dport=dport) / Raw(payload)


def packet4(payload: bytes, sport: int = 68, dport: int = 67) -> Packet:
    """IPv4 and UDP around a message."""
    return IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=sport, dport=dport) / Raw(payload)


def pcap(
    frames: list[bytes], link_type: int = 1, *, order: str = "<", nanoseconds: bool = False, lost: int = 0
) -> bytes:
    """A classic pcap file: a frame each half second from 1000 s on, each said to have been ``lost`` octets longer."""
    magic, resolution = (0xA1B23C4D, 10**9) if nanoseconds else (0xA1B2C3D4, 10**6)
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)
    for number, frame in enumerate(frames):
        data += struct.pack(
            order + "IIII", 1000 + number // 2, number % 2 * resolution // 2, len(frame), len(frame) + lost
        )
        data += frame
    return data


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block."""
    body += b"\0" * (-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    """A pcapng section header."""
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link_type: int = 1, options: bytes = b"", order: str = "<", snapshot: int = 65535) -> bytes:
    """A pcapng interface description."""
    return block(1, struct.pack(order + "HHI", link_type, 0, snapshot) + options, order)


def enhanced(frame: bytes, ticks: int, *, index: int = 0, order: str = "<", lost: int = 0) -> bytes:
    """A pcapng enhanced packet block."""
    head = struct.pack(order + "IIIII", index, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame) + lost)
    return block(6, head + frame, order)
