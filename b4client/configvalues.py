"""Readers of single settings: each takes (key, value of TOML or a flag), returns the setting or raises ConfigError."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

from b4client.model.errors import ConfigError
from b4client.model.settings import MECHANISMS
from b4client.model.softwire import Encapsulation

INTERFACE_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}"


def kind(value: object) -> str:
    """What a TOML value is, in words."""
    names = {bool: "true/false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a table"}
    return names.get(type(value), type(value).__name__)


def boolean(key: str, value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ConfigError(key, f"must be true or false, not {kind(value)}")
    return value


def text(key: str, value: object) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ConfigError(key, f"must be text in quotes, not {kind(value) if value != '' else 'empty'}")
    return value


def integer(low: int, high: int) -> Callable[[str, object], int]:
    """Makes the reader of a whole number from ``low`` to ``high``."""

    def read(key: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(key, f"must be a whole number from {low} to {high}, not {kind(value)}")
        if not low <= value <= high:
            raise ConfigError(key, f"must be from {low} to {high}, not {value}")
        return value

    return read


def seconds(low: float, high: float) -> Callable[[str, object], float]:
    """Makes the reader of a number of seconds from ``low`` to ``high``."""

    def read(key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigError(key, f"must be a number of seconds from {low:g} to {high:g}, not {value!r}")
        return float(value)

    return read


def choice(options: tuple[str, ...]) -> Callable[[str, object], str]:
    """Makes the reader of one of ``options``."""

    def read(key: str, value: object) -> str:
        if value not in options:
            raise ConfigError(key, f"must be one of {', '.join(options)}, not {value!r}")
        return str(value)

    return read


def interface(key: str, value: object) -> str:
    """An interface name as the kernel takes it: 1..15 octets, no slash, no blank; here ASCII without quotes too."""
    name = text(key, value)
    if not re.fullmatch(INTERFACE_NAME, name):
        raise ConfigError(key, f"{name!r} is no interface name (1 to 15 letters, digits, and _ . : @ -)")
    return name


def ipv6(key: str, value: object) -> IPv6Address:
    """An IPv6 address."""
    try:
        address = IPv6Address(text(key, value))
    except ValueError:
        raise ConfigError(key, f"{value!r} is no IPv6 address") from None
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.scope_id:
        raise ConfigError(key, f"{value} is no unicast address of one host")
    return address


def ipv6_list(key: str, value: object) -> tuple[IPv6Address, ...]:
    """A list of IPv6 addresses."""
    if not isinstance(value, list):
        raise ConfigError(key, f"must be a list of IPv6 addresses, not {kind(value)}")
    return tuple(dict.fromkeys(ipv6(f"{key}[{i}]", v) for i, v in enumerate(value)))


def networks(key: str, value: object) -> tuple[IPv4Network, ...]:
    """A list of IPv4 networks."""
    if not isinstance(value, list):
        raise ConfigError(key, f'must be a list such as ["192.168.1.0/24"], not {kind(value)}')
    return tuple(ipv4_network(f"{key}[{i}]", item) for i, item in enumerate(value))


def ipv4(key: str, value: object) -> IPv4Address:
    """An IPv4 address."""
    try:
        return IPv4Address(text(key, value))
    except ValueError:
        raise ConfigError(key, f"{value!r} is no IPv4 address") from None


def ipv4_network(key: str, value: object) -> IPv4Network:
    """An IPv4 network."""
    try:
        return IPv4Network(text(key, value))
    except ValueError as error:
        raise ConfigError(key, f"{value!r} is no IPv4 network: {error}") from None


def prefix(key: str, value: object) -> IPv6Network:
    """An IPv6 prefix."""
    try:
        return IPv6Network(text(key, value))
    except ValueError as error:
        raise ConfigError(key, f"{value!r} is no IPv6 prefix: {error}") from None


def prefixes(key: str, value: object) -> tuple[IPv6Network, ...]:
    """A list of IPv6 prefixes."""
    if not isinstance(value, list):
        raise ConfigError(key, f'must be a list such as ["2001:db8::/56"], not {kind(value)}')
    return tuple(dict.fromkeys(prefix(f"{key}[{i}]", v) for i, v in enumerate(value)))


def mechanisms(key: str, value: object) -> tuple[str, ...]:
    """A list of softwire mechanisms, each named once."""
    if not isinstance(value, list):
        raise ConfigError(key, f"must be a list of {', '.join(MECHANISMS)}, not {kind(value)}")
    read = choice(MECHANISMS)
    return tuple(dict.fromkeys(read(f"{key}[{i}]", v) for i, v in enumerate(value)))


def aftr(key: str, value: object) -> IPv6Address | str:
    """The AFTR: an IPv6 address, or a host name, which is taken as absolute (RFC 6334 3)."""
    given = text(key, value)
    if ":" in given:
        return ipv6(key, given)
    name = given.removesuffix(".")
    if len(name) > 253 or not all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", label) for label in name.split(".")):
        raise ConfigError(key, f"{given!r} is neither an IPv6 address nor a host name")
    return f"{name}."


def octets(low: int, high: int) -> Callable[[str, object], bytes]:
    """Makes the reader of ``low`` to ``high`` octets in hexadecimal."""

    def read(key: str, value: object) -> bytes:
        try:
            octets = bytes.fromhex(re.sub(r"[:\s-]", "", text(key, value)))
        except ValueError:
            raise ConfigError(key, f"{value!r} is no hexadecimal number such as 02:00:00:00:00:01") from None
        if not low <= len(octets) <= high:
            raise ConfigError(key, f"must have {low} to {high} octets, not {len(octets)}")
        return octets

    return read


def encapsulation(key: str, value: object) -> Encapsulation:
    """Who encapsulates."""
    return Encapsulation(choice(tuple(e.value for e in Encapsulation))(key, value))


def hostname(key: str, value: object) -> str:
    """One label of a host name (RFC 1123 2.1)."""
    name = text(key, value)
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", name):
        raise ConfigError(key, f"{name!r} is no host name (letters, digits and hyphens, at most 63)")
    return name


def host(key: str, value: object) -> str:
    """An IP address of either family, as text."""
    try:
        return str(ip_address(text(key, value)))
    except ValueError:
        raise ConfigError(key, f"{value!r} is no IP address of this machine such as 127.0.0.1 or ::1") from None


def path(key: str, value: object) -> Path:
    """An absolute path."""
    path = Path(text(key, value))
    if not path.is_absolute():
        raise ConfigError(key, f"must be an absolute path, not {value!r}")
    return path
