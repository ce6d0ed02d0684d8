"""Bounded reading and checked writing of octets: the only place where offsets are counted.

A decoder cuts first (lengths only) and decodes values second, so that one bad value can neither desynchronise the rest
nor loop. Whatever the octets are, a :class:`Reader` gives a value or raises :class:`WireError`; whatever the values
are, a :class:`Writer` writes them faithfully or raises ValueError. All integers are unsigned and big-endian.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

from b4client.model.errors import WireError

__all__ = ["MAX_MESSAGE", "MAX_TEXT", "Reader", "WireError", "Writer", "check_length", "printable"]

MAX_MESSAGE: Final = 0xFFFF
"""Octets of the longest message that is looked at or written: no UDP payload and no DHCPv6 option is longer."""
MAX_TEXT: Final = 512
"""Octets of a peer's text that are looked at; enough for every error message, too few to flood a log."""


class Reader:
    """Reads ``data`` from ``offset`` to its end; every method raises WireError rather than read past it.

    ``base`` is added to the offsets in errors, for a value that was cut out of a larger buffer.
    """

    __slots__ = ("_base", "_data", "_offset")

    def __init__(self, data: bytes, offset: int = 0, *, base: int = 0) -> None:
        if not 0 <= offset <= len(data):
            raise WireError(f"truncated: {len(data)} octets, {offset} expected before what follows", base + len(data))
        self._data = data
        self._offset = offset
        self._base = base

    @property
    def offset(self) -> int:
        """Where the next octet is read, as errors report it."""
        return self._base + self._offset

    @property
    def remaining(self) -> int:
        """Octets not yet read."""
        return len(self._data) - self._offset

    def take(self, count: int, what: str = "value") -> bytes:
        """The next ``count`` octets. Raises WireError, naming ``what``, when there are fewer."""
        if not 0 <= count <= self.remaining:
            raise WireError(f"truncated {what}: {self.remaining} of {count} octets", self.offset)
        start = self._offset
        self._offset += count
        return self._data[start : self._offset]

    def u8(self, what: str = "value") -> int:
        """The next octet as an integer."""
        return self.take(1, what)[0]

    def u16(self, what: str = "value") -> int:
        """The next two octets as an integer."""
        return int.from_bytes(self.take(2, what), "big")

    def u24(self, what: str = "value") -> int:
        """The next three octets as an integer."""
        return int.from_bytes(self.take(3, what), "big")

    def u32(self, what: str = "value") -> int:
        """The next four octets as an integer."""
        return int.from_bytes(self.take(4, what), "big")

    def ipv4(self, what: str = "IPv4 address") -> IPv4Address:
        """The next four octets as an address."""
        return IPv4Address(self.take(4, what))

    def ipv6(self, what: str = "IPv6 address") -> IPv6Address:
        """The next sixteen octets as an address."""
        return IPv6Address(self.take(16, what))

    def prefix6(self, what: str = "IPv6 prefix") -> IPv6Network:
        """A length octet (0..128) and that many bits, rounded up to whole octets; padding bits are ignored.

        The shape of every prefix in RFC 7598 4.1, 4.3, 4.4 and RFC 8539 6.1.
        """
        length = self.u8(what)
        if length > 128:
            raise WireError(f"{what} of {length} bits", self.offset - 1)
        octets = self.take((length + 7) // 8, what)
        return IPv6Network((octets.ljust(16, b"\0"), length), strict=False)

    def rest(self) -> bytes:
        """All octets not yet read; may be empty."""
        return self.take(self.remaining)

    def finish(self, what: str = "value") -> None:
        """Raises WireError when octets are left over."""
        if self.remaining:
            raise WireError(f"{self.remaining} octets too many after {what}", self.offset)


class Writer:
    """Collects octets; every method raises ValueError for a value that does not fit its field, and returns self."""

    __slots__ = ("_out",)

    def __init__(self) -> None:
        self._out = bytearray()

    def __len__(self) -> int:
        return len(self._out)

    def _uint(self, value: int, octets: int, what: str) -> Writer:
        if not 0 <= value < 1 << (8 * octets):
            raise ValueError(f"{what} {value} does not fit in {octets} octets")
        self._out += value.to_bytes(octets, "big")
        return self

    def u8(self, value: int, what: str = "value") -> Writer:
        """Append an integer of one octet."""
        return self._uint(value, 1, what)

    def u16(self, value: int, what: str = "value") -> Writer:
        """Append an integer of two octets."""
        return self._uint(value, 2, what)

    def u24(self, value: int, what: str = "value") -> Writer:
        """Append an integer of three octets."""
        return self._uint(value, 3, what)

    def u32(self, value: int, what: str = "value") -> Writer:
        """Append an integer of four octets."""
        return self._uint(value, 4, what)

    def raw(self, value: bytes) -> Writer:
        """Append octets as they are."""
        self._out += value
        return self

    def padded(self, value: bytes, width: int, what: str = "value") -> Writer:
        """Append octets, filled with zeros on the right to ``width``. Raises ValueError when they are more."""
        if len(value) > width:
            raise ValueError(f"{what} of {len(value)} octets does not fit in {width}")
        self._out += value.ljust(width, b"\0")
        return self

    def prefix6(self, prefix: IPv6Network) -> Writer:
        """Append length octet and prefix, the inverse of :meth:`Reader.prefix6`; padding bits are zero."""
        self.u8(prefix.prefixlen)
        return self.raw(prefix.network_address.packed[: (prefix.prefixlen + 7) // 8])

    def finish(self, what: str = "message") -> bytes:
        """What was written. Raises ValueError when it is longer than MAX_MESSAGE."""
        if len(self._out) > MAX_MESSAGE:
            raise ValueError(f"{what} of {len(self._out)} octets is longer than {MAX_MESSAGE}")
        return bytes(self._out)


def check_length(data: bytes, what: str = "message") -> None:
    """Raises WireError when ``data`` is longer than MAX_MESSAGE: no datagram is, so none is worth the work."""
    if len(data) > MAX_MESSAGE:
        raise WireError(f"{what} of {len(data)} octets is longer than {MAX_MESSAGE}")


def printable(value: bytes) -> str:
    """Text from a peer, made safe for one log line: UTF-8 where it is, escapes for everything that does not print.

    Trailing NULs are removed (RFC 2132 2 obliges the receiver to). What lies behind MAX_TEXT octets is left out.
    """
    text = value.rstrip(b"\0")[:MAX_TEXT].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
