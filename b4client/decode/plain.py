"""What the value of an option can be: the plain kinds, which many options share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Final

from b4client.model.errors import WireError
from b4client.wire import dhcp6
from b4client.wire.cursor import Reader, printable

Json = Any
"""None, bool, int, float, str, or lists and dicts of these."""

MAX_HEX_SHOWN: Final = 32
INFINITY: Final = 0xFFFFFFFF
"""A time that never ends, in seconds (RFC 2131 3.3, RFC 8415 7.7)."""


@dataclass(frozen=True, slots=True)
class Value:
    """``data`` for JSON; ``text`` for people, one line; ``options_at`` is where options inside begin, None when
    there are none; ``message`` says that the value is a message of its own (``"dhcpv4"``, ``"dhcpv6"``)."""

    data: Json
    text: str
    options_at: int | None = None
    message: str | None = None


Decoder = Callable[[bytes], Value]


def octets(value: bytes) -> Value:
    """Octets as they are."""
    shown = value[:MAX_HEX_SHOWN].hex()
    return Value(value.hex(), f"{shown}..." if len(value) > MAX_HEX_SHOWN else shown)


def exactly(value: bytes, length: int) -> bytes:
    """``value`` if it has ``length`` octets, else WireError."""
    if len(value) != length:
        raise WireError(f"{len(value)} octets instead of {length}")
    return value


def nothing(value: bytes) -> Value:
    """An option without value."""
    exactly(value, 0)
    return Value(None, "")


def number(length: int, *, signed: bool = False, unit: str = "") -> Decoder:
    """A decoder of an integer of ``length`` octets."""

    def decode(value: bytes) -> Value:
        number = int.from_bytes(exactly(value, length), "big", signed=signed)
        return Value(number, f"{number}{unit}")

    return decode


def seconds(value: bytes) -> Value:
    """A time in seconds."""
    number = dhcp6.decode_seconds(value)
    return Value(number, time_text(number))


def time_text(seconds: int) -> str:
    """A time for people."""
    return "for ever" if seconds == INFINITY else f"{seconds} s"


def elapsed(value: bytes) -> Value:
    """Hundredths of a second."""
    hundredths = dhcp6.decode_elapsed(value)
    return Value(hundredths / 100, f"{hundredths / 100:g} s" + (" or more" if hundredths == 0xFFFF else ""))


def text(value: bytes) -> Value:
    """Text."""
    text = printable(value)
    return Value(text, f'"{text}"')


def address4(value: bytes) -> Value:
    """One IPv4 address."""
    text = str(Reader(exactly(value, 4)).ipv4())
    return Value(text, text)


def addresses4(value: bytes) -> Value:
    """One IPv4 address or several."""
    if not value or len(value) % 4:
        raise WireError(f"{len(value)} octets are no list of IPv4 addresses")
    reader = Reader(value)
    return listing([str(reader.ipv4()) for _ in range(len(value) // 4)])


def address6(value: bytes) -> Value:
    """One IPv6 address."""
    text = str(IPv6Address(exactly(value, 16)))
    return Value(text, text)


def addresses6(value: bytes) -> Value:
    """IPv6 addresses."""
    if len(value) % 16:
        raise WireError(f"{len(value)} octets are no list of IPv6 addresses")
    return listing([str(IPv6Address(value[i : i + 16])) for i in range(0, len(value), 16)])


def listing(items: list[str]) -> Value:
    """Several items."""
    return Value(items, ", ".join(items))


def message(protocol: str) -> Decoder:
    """A decoder of a whole message of ``protocol``."""

    def decode(_value: bytes) -> Value:
        return Value(None, "", message=protocol)

    return decode
