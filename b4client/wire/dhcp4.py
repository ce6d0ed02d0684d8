"""DHCPv4 messages (RFC 2131 2, RFC 2132) with long and overloaded options (RFC 3396).

``decode`` cuts the message into options and joins what was split; the values stay octets until a typed accessor
(``address_option`` and the like) is asked for one, so that one bad value never loses the message.

What is refused, and why: a message without an END option (RFC 2131 4.1 "the last option must always be the 'end'
option"; a message cut between two options would otherwise pass, and without option 159 a shared address looks like a
whole one), and anything but PAD behind END (RFC 2132 3.2). BOOTP's zero padding behind END is harmless and accepted.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from b4client.wire.cursor import Reader, WireError, Writer, check_length, printable

BOOTREQUEST: Final = 1
BOOTREPLY: Final = 2
MAGIC_COOKIE: Final = bytes((99, 130, 83, 99))
FIXED_LENGTH: Final = 236
"""Octets before the magic cookie (RFC 2131 2)."""
BROADCAST_FLAG: Final = 0x8000
CHADDR_LENGTH: Final = 16
SNAME_LENGTH: Final = 64
FILE_LENGTH: Final = 128
MINIMUM_MAX_SIZE: Final = 576
"""The smallest value that option 57 may have (RFC 2132 9.10)."""
INFINITY: Final = 0xFFFFFFFF
"""The lease time that never ends (RFC 2131 3.3)."""
ZERO: Final = IPv4Address(0)


class MessageType(enum.IntEnum):
    """Values of option 53 (RFC 2132 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(enum.IntEnum):
    """DHCPv4 option codes that this program names (RFC 2132, RFC 8539 6.2, RFC 7618 9 and others)."""

    PAD = 0
    SUBNET_MASK = 1
    TIME_OFFSET = 2
    ROUTER = 3
    TIME_SERVER = 4
    DNS = 6
    LOG_SERVER = 7
    HOSTNAME = 12
    DOMAIN = 15
    MTU = 26
    BROADCAST_ADDRESS = 28
    STATIC_ROUTES = 33
    NTP = 42
    VENDOR_SPECIFIC = 43
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_ID = 54
    PARAMETER_LIST = 55
    MESSAGE = 56
    MAX_SIZE = 57
    T1 = 58
    T2 = 59
    VENDOR_CLASS = 60
    CLIENT_ID = 61
    TFTP_SERVER = 66
    BOOTFILE = 67
    USER_CLASS = 77
    RAPID_COMMIT = 80
    CLIENT_FQDN = 81
    RELAY_AGENT_INFORMATION = 82
    AUTHENTICATION = 90
    V6ONLY_PREFERRED = 108
    S46_SADDR = 109
    CAPTIVE_PORTAL = 114
    DOMAIN_SEARCH = 119
    CLASSLESS_ROUTES = 121
    V4_PORTPARAMS = 159
    END = 255


class Overload(enum.IntFlag):
    """Bits of option 52: which fixed fields hold options (RFC 2132 9.3)."""

    FILE = 1
    SNAME = 2


@dataclass(frozen=True, slots=True)
class Dhcp4Message:
    """A DHCPv4 message (RFC 2131 2, figure 1).

    ``chaddr`` has ``hlen`` octets, 0..16. ``sname`` and ``file`` are without their trailing zeros, and empty when they
    held options. ``options`` has each code once, in the order of first appearance, values joined (RFC 3396 7), without
    PAD, END and 52. The reserved flag bits and what lies behind ``hlen`` in ``chaddr`` are not kept.
    """

    op: int
    xid: int
    secs: int = 0
    broadcast: bool = False
    ciaddr: IPv4Address = ZERO
    yiaddr: IPv4Address = ZERO
    siaddr: IPv4Address = ZERO
    giaddr: IPv4Address = ZERO
    htype: int = 1
    hops: int = 0
    chaddr: bytes = b""
    sname: bytes = b""
    file: bytes = b""
    options: tuple[tuple[int, bytes], ...] = ()

    def get(self, code: int) -> bytes | None:
        """The value of an option, or None when it is absent."""
        return next((value for c, value in self.options if c == code), None)

    @property
    def message_type(self) -> int | None:
        """Option 53, not necessarily one of MessageType; None when it is absent. Raises WireError for a bad length,
        which ``decode`` lets through to nobody."""
        value = self.get(Option.MESSAGE_TYPE)
        return None if value is None else _sized(value, 1, Option.MESSAGE_TYPE)[0]


def decode(data: bytes) -> Dhcp4Message:
    """The message in ``data``, which begins at ``op`` (no IP or UDP header; RFC 7341 7.1).

    Raises WireError: shorter than fixed part and cookie, op neither 1 nor 2, hlen above 16, cookie wrong, an option cut
    off, END missing in a field that holds options, other than PAD behind END, option 52 or 53 malformed.
    """
    check_length(data, "DHCPv4 message")
    fixed = Reader(data)
    op, htype, hlen, hops = (fixed.u8("DHCPv4 header") for _ in range(4))
    if op not in (BOOTREQUEST, BOOTREPLY):
        raise WireError(f"op {op} is neither request nor reply", 0)
    if hlen > CHADDR_LENGTH:
        raise WireError(f"hardware address of {hlen} octets", 2)
    xid = fixed.u32("xid")
    secs = fixed.u16("secs")
    flags = fixed.u16("flags")
    ciaddr, yiaddr, siaddr, giaddr = (fixed.ipv4("DHCPv4 address field") for _ in range(4))
    chaddr = fixed.take(CHADDR_LENGTH, "chaddr")[:hlen]
    sname_at = fixed.offset
    sname = fixed.take(SNAME_LENGTH, "sname")
    file_at = fixed.offset
    file = fixed.take(FILE_LENGTH, "file")
    if fixed.take(4, "magic cookie") != MAGIC_COOKIE:
        raise WireError("no DHCP magic cookie", FIXED_LENGTH)

    joined: dict[int, bytearray] = {}
    options_at = fixed.offset
    _cut_options(fixed.rest(), options_at, joined)
    overload = _overload(joined)
    # RFC 2131 4.1: options, then file, then sname, whatever their order in the packet.
    if Overload.FILE in overload:
        _cut_options(file, file_at, joined)
        file = b""
    if Overload.SNAME in overload:
        _cut_options(sname, sname_at, joined)
        sname = b""
    if Option.OVERLOAD in joined:
        raise WireError("option 52 outside the options field")
    if Option.MESSAGE_TYPE in joined:
        _sized(bytes(joined[Option.MESSAGE_TYPE]), 1, Option.MESSAGE_TYPE)
    return Dhcp4Message(
        op=op,
        xid=xid,
        secs=secs,
        broadcast=bool(flags & BROADCAST_FLAG),
        ciaddr=ciaddr,
        yiaddr=yiaddr,
        siaddr=siaddr,
        giaddr=giaddr,
        htype=htype,
        hops=hops,
        chaddr=chaddr,
        sname=sname.rstrip(b"\0"),
        file=file.rstrip(b"\0"),
        options=tuple((code, bytes(value)) for code, value in joined.items()),
    )


def _cut_options(field: bytes, base: int, joined: dict[int, bytearray]) -> None:
    """Cut one field that holds options, appending each value to what ``joined`` has of its code (RFC 3396 7)."""
    reader = Reader(field, base=base)
    while True:
        code = reader.u8("options: END is missing")
        if code == Option.PAD:
            continue
        if code == Option.END:
            break
        value = reader.take(reader.u8(f"option {code}"), f"option {code}")
        joined.setdefault(code, bytearray()).extend(value)
    behind = reader.offset
    if any(reader.rest()):
        raise WireError("octets other than padding behind the END option", behind)


def _overload(joined: dict[int, bytearray]) -> Overload:
    """Take option 52 out of ``joined``. An unknown value leaves open where options are: refused."""
    value = joined.pop(Option.OVERLOAD, None)
    if value is None:
        return Overload(0)
    if len(value) != 1 or value[0] not in (1, 2, 3):
        raise WireError(f"option 52 of {len(value)} octets is not 01, 02 or 03")
    return Overload(value[0])


def encode(message: Dhcp4Message) -> bytes:
    """The octets of ``message``, ended by END and not padded; values above 255 octets are split (RFC 3396 6).

    Raises ValueError when op is neither 1 nor 2, a field, ``chaddr``, ``sname`` or ``file`` does not fit, an
    option code is not 1..254, is 52 (nothing is ever overloaded here) or stands twice, or option 53 is not one octet.
    """
    if message.op not in (BOOTREQUEST, BOOTREPLY):
        raise ValueError(f"op {message.op} is neither request nor reply")
    out = Writer()
    out.u8(message.op, "op").u8(message.htype, "htype").u8(len(message.chaddr), "hlen").u8(message.hops, "hops")
    out.u32(message.xid, "xid").u16(message.secs, "secs").u16(BROADCAST_FLAG if message.broadcast else 0)
    for address in (message.ciaddr, message.yiaddr, message.siaddr, message.giaddr):
        out.raw(address.packed)
    out.padded(message.chaddr, CHADDR_LENGTH, "chaddr")
    out.padded(message.sname, SNAME_LENGTH, "sname").padded(message.file, FILE_LENGTH, "file")
    out.raw(MAGIC_COOKIE)
    seen: set[int] = set()
    for code, value in message.options:
        if not Option.PAD < code < Option.END or code == Option.OVERLOAD:
            raise ValueError(f"option code {code} cannot be given as an option")
        if code in seen:
            raise ValueError(f"option {code} stands twice")
        if code == Option.MESSAGE_TYPE and len(value) != 1:
            raise ValueError(f"option 53 of {len(value)} octets")
        seen.add(code)
        for start in range(0, max(len(value), 1), 255):
            part = value[start : start + 255]
            out.u8(code).u8(len(part)).raw(part)
    return out.u8(Option.END).finish("DHCPv4 message")


def address_option(message: Dhcp4Message, code: int) -> IPv4Address | None:
    """An option that is one IPv4 address (50, 54); None when absent. Raises WireError when it is not four octets."""
    value = message.get(code)
    return None if value is None else IPv4Address(_sized(value, 4, code))


def addresses_option(message: Dhcp4Message, code: int) -> tuple[IPv4Address, ...] | None:
    """An option that is a list of addresses (3, 6, 42); None when absent.

    Raises WireError unless it is four octets or a multiple (RFC 2132 3.5).
    """
    value = message.get(code)
    if value is None:
        return None
    if not value or len(value) % 4:
        raise WireError(f"option {int(code)} of {len(value)} octets is no list of IPv4 addresses")
    return tuple(IPv4Address(value[i : i + 4]) for i in range(0, len(value), 4))


def seconds_option(message: Dhcp4Message, code: int) -> int | None:
    """An option that is a time in seconds, 32 bits (51, 58, 59); None when absent. Raises WireError unless 4 octets."""
    value = message.get(code)
    return None if value is None else int.from_bytes(_sized(value, 4, code), "big")


def u16_option(message: Dhcp4Message, code: int) -> int | None:
    """An option that is a 16-bit number (26, 57); None when absent. Raises WireError for other lengths."""
    value = message.get(code)
    return None if value is None else int.from_bytes(_sized(value, 2, code), "big")


def text_option(message: Dhcp4Message, code: int) -> str | None:
    """An option that is text (12, 15, 56), escaped for one log line; None when absent. Never raises."""
    value = message.get(code)
    return None if value is None else printable(value)


def encode_seconds(seconds: int) -> bytes:
    """Value of options 51, 58, 59. Raises ValueError outside 0..0xffffffff."""
    return Writer().u32(seconds, "seconds").finish()


def encode_max_size(octets: int) -> bytes:
    """Value of option 57. Raises ValueError below 576 (RFC 2132 9.10) and above 65535."""
    if octets < MINIMUM_MAX_SIZE:
        raise ValueError(f"a maximum message size of {octets} is below {MINIMUM_MAX_SIZE}")
    return Writer().u16(octets, "maximum message size").finish()


def encode_parameter_list(codes: Iterable[int]) -> bytes:
    """Value of option 55, order kept (RFC 2132 9.8). Raises ValueError when empty, or for a code outside 1..254."""
    out = Writer()
    for code in codes:
        if not Option.PAD < code < Option.END:
            raise ValueError(f"option code {code} cannot be requested")
        out.u8(code)
    if not len(out):
        raise ValueError("an empty parameter request list")
    return out.finish()


def _sized(value: bytes, length: int, code: int) -> bytes:
    if len(value) != length:
        raise WireError(f"option {int(code)} of {len(value)} octets instead of {length}")
    return value
