"""DHCPV4-QUERY and DHCPV4-RESPONSE (RFC 7341 6, 7): DHCPv4 messages inside DHCPv6, and the list of 4o6 servers.

Where every other DHCPv6 message has its transaction-id these have flags; answers are matched by the DHCPv4 xid.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from b4client.wire.cursor import Reader, WireError, Writer
from b4client.wire.dhcp6 import MessageType, Option, Options, decode_options, encode_options, every

UNICAST_FLAG: Final = 0x800000
"""U, the most significant of the 24 flag bits (RFC 7341 6.3)."""
MAX_SERVERS: Final = 32
"""Addresses of option 88 that are used. RFC 7341 9 sends every request to every one of them: an unbounded list (it can
hold 4095) would make the client an amplifier (RFC 7341 12)."""


@dataclass(frozen=True, slots=True)
class Dhcp4o6Message:
    """A DHCPV4-QUERY (20) or DHCPV4-RESPONSE (21).

    ``flags`` are the 24 bits as received (a client ignores those of a RESPONSE, RFC 7341 6.4); ``dhcp4`` is the
    DHCPv4 message, not yet decoded; ``options`` are the DHCPv6 options beside option 87.
    """

    msg_type: int
    flags: int
    dhcp4: bytes
    options: Options = ()

    @property
    def unicast(self) -> bool:
        """The U flag: over IPv4 this message would have been sent to a unicast address."""
        return bool(self.flags & UNICAST_FLAG)

    def get(self, code: int) -> bytes | None:
        """The value of the first instance of a DHCPv6 option other than 87, or None."""
        return next((value for c, value in self.options if c == code), None)

    def get_all(self, code: int) -> tuple[bytes, ...]:
        """The values of all instances of a DHCPv6 option other than 87, in order."""
        return every(self.options, code)


def encode_query(dhcp4: bytes, *, unicast: bool, options: Options = ()) -> bytes:
    """A DHCPV4-QUERY; ``options`` stand behind option 87. Raises ValueError: option 87 among them, or too long."""
    return _encode(MessageType.DHCPV4_QUERY, UNICAST_FLAG if unicast else 0, dhcp4, options)


def encode_response(dhcp4: bytes, *, options: Options = (), flags: int = 0) -> bytes:
    """A DHCPV4-RESPONSE; a server MUST leave ``flags`` 0 (RFC 7341 6.4), not every server does.

    Raises ValueError: option 87 among ``options``, flags beyond 24 bits, or too long.
    """
    return _encode(MessageType.DHCPV4_RESPONSE, flags, dhcp4, options)


def _encode(msg_type: int, flags: int, dhcp4: bytes, options: Options) -> bytes:
    if any(code == Option.DHCPV4_MSG for code, _ in options):
        raise ValueError("option 87 is given as the DHCPv4 message, not among the options")
    body = encode_options(((Option.DHCPV4_MSG, dhcp4), *options))
    return Writer().u8(msg_type).u24(flags, "flags").raw(body).finish("DHCP 4o6 message")


def decode(data: bytes) -> Dhcp4o6Message:
    """A DHCPV4-QUERY or DHCPV4-RESPONSE.

    Raises WireError: another type than 20 and 21, header or option cut off, option 87 absent (MUST be discarded,
    RFC 7341 9) or there more than once (RFC 7341 9 allows one; taking either would be a guess).
    """
    reader = Reader(data)
    msg_type = reader.u8("message type")
    if msg_type not in (MessageType.DHCPV4_QUERY, MessageType.DHCPV4_RESPONSE):
        raise WireError(f"message type {msg_type} is neither 20 nor 21", 0)
    flags = reader.u24("flags")
    options = decode_options(data, reader.offset)
    inner = every(options, Option.DHCPV4_MSG)
    if len(inner) != 1:
        raise WireError(f"{len(inner)} DHCPv4 Message options instead of one")
    return Dhcp4o6Message(
        msg_type, flags, inner[0], tuple((code, value) for code, value in options if code != Option.DHCPV4_MSG)
    )


def decode_servers(value: bytes) -> tuple[IPv6Address, ...]:
    """Value of option 88 (RFC 7341 7.2): each address once, in order of first appearance, at most MAX_SERVERS.

    Empty means ff02::1:2 [F-3]. Raises WireError unless the length is a multiple of 16 [X-3].
    """
    if len(value) % 16:
        raise WireError(f"DHCP 4o6 Server Address option of {len(value)} octets")
    # Duplicates MUST be removed (RFC 7341 12); a dict keeps the order.
    unique = dict.fromkeys(IPv6Address(value[i : i + 16]) for i in range(0, len(value), 16))
    return tuple(unique)[:MAX_SERVERS]


def encode_servers(addresses: Iterable[IPv6Address]) -> bytes:
    """Value of option 88, as given. Raises ValueError when it does not fit into an option."""
    out = Writer()
    for address in addresses:
        out.raw(address.packed)
    return out.finish("DHCP 4o6 Server Address option")
