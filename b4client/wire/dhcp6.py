"""DHCPv6 messages and options (RFC 8415 8, 9, 21): what a stateless or stateful client, and the lab's server, need.

Options stay (code, octets) pairs; each value has its own decoder here, in ``identity`` or in ``softwire46``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from b4client.wire.cursor import Reader, WireError, Writer, check_length, printable

CLIENT_PORT: Final = 546
SERVER_PORT: Final = 547
ALL_SERVERS: Final = IPv6Address("ff02::1:2")
"""All_DHCP_Relay_Agents_and_Servers (RFC 8415 7.1)."""
INFINITY: Final = 0xFFFFFFFF
"""The time that never ends (RFC 8415 7.7)."""
HOP_COUNT_LIMIT: Final = 8
"""A relay message that has gone through this many relays goes no further (RFC 8415 7.6)."""


class MessageType(enum.IntEnum):
    """DHCPv6 message types (RFC 8415 7.3, RFC 7341 6.1)."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    RECONFIGURE = 10
    INFORMATION_REQUEST = 11
    RELAY_FORW = 12
    RELAY_REPL = 13
    DHCPV4_QUERY = 20
    DHCPV4_RESPONSE = 21


class Option(enum.IntEnum):
    """DHCPv6 option codes that this program names (RFC 8415 21, 3646, 6334, 7341, 7598, 8026, 8539)."""

    CLIENTID = 1
    SERVERID = 2
    IA_NA = 3
    IA_TA = 4
    IAADDR = 5
    ORO = 6
    PREFERENCE = 7
    ELAPSED_TIME = 8
    RELAY_MSG = 9
    AUTH = 11
    UNICAST = 12
    STATUS_CODE = 13
    RAPID_COMMIT = 14
    USER_CLASS = 15
    VENDOR_CLASS = 16
    VENDOR_OPTS = 17
    INTERFACE_ID = 18
    RECONF_MSG = 19
    RECONF_ACCEPT = 20
    DNS_SERVERS = 23
    DOMAIN_LIST = 24
    IA_PD = 25
    IAPREFIX = 26
    SNTP_SERVERS = 31
    INFORMATION_REFRESH_TIME = 32
    NTP_SERVER = 56
    AFTR_NAME = 64
    SOL_MAX_RT = 82
    INF_MAX_RT = 83
    DHCPV4_MSG = 87
    DHCP4_O_DHCP6_SERVER = 88
    S46_RULE = 89
    S46_BR = 90
    S46_DMR = 91
    S46_V4V6BIND = 92
    S46_PORTPARAMS = 93
    S46_CONT_MAPE = 94
    S46_CONT_MAPT = 95
    S46_CONT_LW = 96
    S46_PRIORITY = 111
    S46_BIND_IPV6_PREFIX = 137


class StatusCode(enum.IntEnum):
    """Status codes (RFC 8415 21.13)."""

    SUCCESS = 0
    UNSPEC_FAIL = 1
    NO_ADDRS_AVAIL = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    USE_MULTICAST = 5
    NO_PREFIX_AVAIL = 6


Options = tuple[tuple[int, bytes], ...]
"""(code, value) pairs as they stood; repeated options stay repeated."""

CLIENT_SERVER_TYPES: Final = range(MessageType.SOLICIT, MessageType.INFORMATION_REQUEST + 1)
"""Message types that have the client/server format of RFC 8415 8."""


# ---------------------------------------------------------------------------------------------------------- messages


def decode_options(data: bytes, offset: int = 0) -> Options:
    """Cut ``data`` from ``offset`` to its end into options (RFC 8415 21.1). Values are not looked at.

    Raises WireError when the last option is cut off, or ``data`` is longer than any datagram.
    """
    check_length(data, "DHCPv6 message")
    reader = Reader(data, offset)
    options: list[tuple[int, bytes]] = []
    while reader.remaining:
        code = reader.u16("option code")
        options.append((code, reader.take(reader.u16(f"length of option {code}"), f"option {code}")))
    return tuple(options)


def encode_options(options: Options) -> bytes:
    """The inverse of ``decode_options``. Raises ValueError when a code or a length exceeds 16 bits."""
    out = Writer()
    for code, value in options:
        out.u16(code, "option code").u16(len(value), f"length of option {code}").raw(value)
    return out.finish("DHCPv6 options")


def first(options: Options, code: int) -> bytes | None:
    """The value of the first option of this code, or None."""
    return next((value for c, value in options if c == code), None)


def every(options: Options, code: int) -> tuple[bytes, ...]:
    """The values of all options of this code, in order."""
    return tuple(value for c, value in options if c == code)


@dataclass(frozen=True, slots=True)
class Dhcp6Message:
    """A client/server message (RFC 8415 8); ``transaction_id`` has 24 bits."""

    msg_type: int
    transaction_id: int
    options: Options = ()

    def get(self, code: int) -> bytes | None:
        """The value of the first instance of an option, or None when it is absent."""
        return first(self.options, code)

    def get_all(self, code: int) -> tuple[bytes, ...]:
        """The values of all instances of an option, in order."""
        return every(self.options, code)


def message_type(data: bytes) -> int:
    """The first octet of any DHCPv6 message. Raises WireError when there is none."""
    return Reader(data).u8("message type")


def decode(data: bytes) -> Dhcp6Message:
    """A client/server message. Raises WireError: another type than 1..11 (relay and 4o6 messages have their own
    decoders), header or option cut off."""
    reader = Reader(data)
    msg_type = reader.u8("message type")
    if msg_type not in CLIENT_SERVER_TYPES:
        raise WireError(f"message type {msg_type} is none of 1 to 11", 0)
    transaction_id = reader.u24("transaction-id")
    return Dhcp6Message(msg_type, transaction_id, decode_options(data, reader.offset))


def encode(message: Dhcp6Message) -> bytes:
    """The inverse of ``decode``. Raises ValueError for another type than 1..11 and for what does not fit."""
    if message.msg_type not in CLIENT_SERVER_TYPES:
        raise ValueError(f"message type {message.msg_type} is none of 1 to 11")
    out = Writer().u8(message.msg_type).u24(message.transaction_id, "transaction-id")
    return out.raw(encode_options(message.options)).finish("DHCPv6 message")


@dataclass(frozen=True, slots=True)
class RelayMessage:
    """A RELAY-FORW or RELAY-REPL (RFC 8415 9): ``link`` and ``peer`` are link-address and peer-address."""

    msg_type: int
    hop_count: int
    link: IPv6Address
    peer: IPv6Address
    options: Options = ()

    def relayed(self) -> bytes:
        """The message inside (option 9). Raises WireError unless there is exactly one."""
        inner = every(self.options, Option.RELAY_MSG)
        if len(inner) != 1:
            raise WireError(f"{len(inner)} Relay Message options instead of one")
        return inner[0]


def decode_relay(data: bytes) -> RelayMessage:
    """A relay message; one layer, what it carries is ``relayed()``. Raises WireError: another type than 12 and 13,
    header or option cut off. The hop count is the caller's to judge."""
    reader = Reader(data)
    msg_type = reader.u8("message type")
    if msg_type not in (MessageType.RELAY_FORW, MessageType.RELAY_REPL):
        raise WireError(f"message type {msg_type} is neither 12 nor 13", 0)
    hop_count = reader.u8("hop-count")
    link = reader.ipv6("link-address")
    peer = reader.ipv6("peer-address")
    return RelayMessage(msg_type, hop_count, link, peer, decode_options(data, reader.offset))


def encode_relay(message: RelayMessage) -> bytes:
    """The inverse of ``decode_relay``. Raises ValueError for another type than 12 and 13 and for what does not fit."""
    if message.msg_type not in (MessageType.RELAY_FORW, MessageType.RELAY_REPL):
        raise ValueError(f"message type {message.msg_type} is neither 12 nor 13")
    out = Writer().u8(message.msg_type).u8(message.hop_count, "hop-count")
    out.raw(message.link.packed).raw(message.peer.packed)
    return out.raw(encode_options(message.options)).finish("DHCPv6 relay message")


# ------------------------------------------------------------------------------------------------------ plain values


def encode_oro(codes: Iterable[int]) -> bytes:
    """Value of an Option Request option, order kept (RFC 8415 21.7). Raises ValueError for a code above 65535."""
    out = Writer()
    for code in codes:
        out.u16(code, "option code")
    return out.finish("Option Request option")


def decode_oro(value: bytes) -> tuple[int, ...]:
    """The option codes asked for, as they stand. Raises WireError for an odd length."""
    if len(value) % 2:
        raise WireError(f"Option Request option of {len(value)} octets")
    return tuple(int.from_bytes(value[i : i + 2], "big") for i in range(0, len(value), 2))


def encode_elapsed(seconds: float) -> bytes:
    """Value of an Elapsed Time option: hundredths of a second, 0xffff for everything longer (RFC 8415 21.9).

    Raises ValueError for a negative time and for NaN.
    """
    if not seconds >= 0:
        raise ValueError(f"elapsed time of {seconds} s")
    return Writer().u16(round(min(seconds * 100, 0xFFFF)), "elapsed time").finish()


def decode_elapsed(value: bytes) -> int:
    """Elapsed time in hundredths of a second; 0xffff means that or more. Raises WireError unless it is two octets."""
    return int.from_bytes(_sized(value, 2, "Elapsed Time option"), "big")


def encode_seconds(seconds: int) -> bytes:
    """Value of options 32, 82, 83. Raises ValueError outside 0..0xffffffff."""
    return Writer().u32(seconds, "seconds").finish()


def decode_seconds(value: bytes) -> int:
    """Seconds, 32 bits (options 32, 82, 83; RFC 8415 21.23-21.25). Raises WireError unless it is four octets."""
    return int.from_bytes(_sized(value, 4, "time"), "big")


def decode_preference(value: bytes) -> int:
    """Server preference 0..255 (RFC 8415 21.8). Raises WireError unless it is one octet."""
    return _sized(value, 1, "Preference option")[0]


def encode_status(code: int, text: str = "") -> bytes:
    """Value of a Status Code option (RFC 8415 21.13). Raises ValueError for a code above 65535."""
    return Writer().u16(code, "status code").raw(text.encode()).finish("Status Code option")


def decode_status(value: bytes) -> tuple[int, str]:
    """Status code and its text, escaped for one log line. Raises WireError when it is shorter than two octets."""
    reader = Reader(value)
    return reader.u16("status code"), printable(reader.rest())


# --------------------------------------------------------------------------------------------- identity associations


@dataclass(frozen=True, slots=True)
class IaAddress:
    """IAADDR (RFC 8415 21.6): lifetimes in seconds, INFINITY for ever."""

    address: IPv6Address
    preferred: int
    valid: int
    options: Options = ()

    @property
    def consistent(self) -> bool:
        """False when preferred exceeds valid: a client MUST discard such an address (RFC 8415 21.6)."""
        return self.preferred <= self.valid


@dataclass(frozen=True, slots=True)
class IaPrefix:
    """IAPREFIX (RFC 8415 21.22): lifetimes in seconds, INFINITY for ever. Bits beyond the length are not kept."""

    prefix: IPv6Network
    preferred: int
    valid: int
    options: Options = ()

    @property
    def consistent(self) -> bool:
        """False when preferred exceeds valid: a client MUST discard such a prefix (RFC 8415 21.22)."""
        return self.preferred <= self.valid


@dataclass(frozen=True, slots=True)
class IdentityAssociation:
    """IA_NA or IA_PD (RFC 8415 21.4, 21.21), which have one shape: T1 and T2 in seconds, 0 leaves them to us."""

    iaid: int
    t1: int = 0
    t2: int = 0
    options: Options = ()

    @property
    def consistent(self) -> bool:
        """False when T1 exceeds T2 and both are set: a client discards such an association (RFC 8415 21.4, 21.21)."""
        return not (self.t1 > self.t2 > 0)

    def addresses(self) -> tuple[IaAddress, ...]:
        """The IAADDR options inside. Raises WireError when one is malformed."""
        return tuple(decode_iaaddr(value) for value in every(self.options, Option.IAADDR))

    def prefixes(self) -> tuple[IaPrefix, ...]:
        """The IAPREFIX options inside. Raises WireError when one is malformed."""
        return tuple(decode_iaprefix(value) for value in every(self.options, Option.IAPREFIX))

    def status(self) -> tuple[int, str]:
        """The Status Code inside; Success when there is none (RFC 8415 21.13). Raises WireError when malformed."""
        value = first(self.options, Option.STATUS_CODE)
        return (int(StatusCode.SUCCESS), "") if value is None else decode_status(value)


def decode_ia(value: bytes) -> IdentityAssociation:
    """Value of an IA_NA (3) or IA_PD (25) option. Raises WireError when it, or an option inside, is cut off."""
    reader = Reader(value)
    iaid, t1, t2 = (reader.u32("identity association") for _ in range(3))
    return IdentityAssociation(iaid, t1, t2, decode_options(value, reader.offset))


def encode_ia(ia: IdentityAssociation) -> bytes:
    """The inverse of ``decode_ia``. Raises ValueError for what does not fit."""
    out = Writer().u32(ia.iaid, "IAID").u32(ia.t1, "T1").u32(ia.t2, "T2")
    return out.raw(encode_options(ia.options)).finish("identity association")


def decode_iaaddr(value: bytes) -> IaAddress:
    """Value of an IAADDR option. Raises WireError when it, or an option inside, is cut off."""
    reader = Reader(value)
    address = reader.ipv6("IA Address")
    preferred, valid = (reader.u32("lifetime") for _ in range(2))
    return IaAddress(address, preferred, valid, decode_options(value, reader.offset))


def encode_iaaddr(address: IaAddress) -> bytes:
    """The inverse of ``decode_iaaddr``. Raises ValueError for what does not fit."""
    out = Writer().raw(address.address.packed).u32(address.preferred, "lifetime").u32(address.valid, "lifetime")
    return out.raw(encode_options(address.options)).finish("IA Address option")


def decode_iaprefix(value: bytes) -> IaPrefix:
    """Value of an IAPREFIX option. Raises WireError: cut off, or a length above 128."""
    reader = Reader(value)
    preferred, valid = (reader.u32("lifetime") for _ in range(2))
    length = reader.u8("prefix-length")
    if length > 128:
        raise WireError(f"IPv6 prefix of {length} bits", reader.offset - 1)
    prefix = IPv6Network((reader.take(16, "IPv6 prefix"), length), strict=False)
    return IaPrefix(prefix, preferred, valid, decode_options(value, reader.offset))


def encode_iaprefix(prefix: IaPrefix) -> bytes:
    """The inverse of ``decode_iaprefix``. Raises ValueError for what does not fit."""
    out = Writer().u32(prefix.preferred, "lifetime").u32(prefix.valid, "lifetime").u8(prefix.prefix.prefixlen)
    out.raw(prefix.prefix.network_address.packed)
    return out.raw(encode_options(prefix.options)).finish("IA Prefix option")


def _sized(value: bytes, length: int, what: str) -> bytes:
    if len(value) != length:
        raise WireError(f"{what} of {len(value)} octets instead of {length}")
    return value
