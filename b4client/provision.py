"""``b4client provision``: a hand-over document from a file, from standard input, or from odhcp6c's environment.

The document is described in ``daemon.handover``, which reads it. Here it is only put together.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from b4client.wire import aftrname, dhcp6
from b4client.wire.dhcp6 import Option, Options

MAX_DOCUMENT = 65536
ODHCP6C_VARIABLES = ("SERVER", "RDNSS", "PREFIXES", "ADDRESSES", "RA_ADDRESSES", "RA_ROUTES", "RA_HOPLIMIT")
"""Of which odhcp6c gives its script some at every call."""
RAW_OPTIONS = (
    Option.DHCP4_O_DHCP6_SERVER,
    Option.S46_CONT_MAPE,
    Option.S46_CONT_LW,
    Option.S46_PRIORITY,
)
"""Options that odhcp6c hands over as they came, in OPTION_n (``odhcp6c -r 88,111``)."""
FMR_FLAG = 1


def read_document(source: str) -> dict[str, Any]:
    """The JSON object in a file, ``-`` for standard input. Raises ValueError with the reason in words."""
    try:
        with sys.stdin if source == "-" else Path(source).open(encoding="utf-8") as file:
            text = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise ValueError(f"{source} cannot be read: {error.strerror}") from None
    if len(text) > MAX_DOCUMENT:
        raise ValueError(f"{source} is longer than {MAX_DOCUMENT} octets")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f'{source} must be an object such as {{"options": {{"88": ""}}, "prefixes": []}}')
    return document


def from_odhcp6c(environ: Mapping[str, str]) -> dict[str, Any]:
    """The document that odhcp6c's environment describes: ``OPTION_n``, ``MAPE``, ``LW4O6``, ``AFTR``, ``PREFIXES``,
    ``ADDRESSES``. Raises ValueError that names the variable."""
    if not any(name in environ for name in ODHCP6C_VARIABLES):
        raise ValueError("none of odhcp6c's variables is in the environment: call this from the script of odhcp6c -s")
    options: dict[str, str | list[str]] = {}
    for code in RAW_OPTIONS:
        value = environ.get(f"OPTION_{int(code)}")
        if value is not None:
            options[str(int(code))] = value
    for name, code in (("MAPE", Option.S46_CONT_MAPE), ("LW4O6", Option.S46_CONT_LW)):
        if environ.get(name) and str(int(code)) not in options:
            options[str(int(code))] = _container(name, environ[name]).hex()
    if names := environ.get("AFTR", "").split():
        options[str(int(Option.AFTR_NAME))] = aftrname.encode_aftr_name(names[0]).hex()
    document: dict[str, Any] = {"options": options}
    for name, key, noun in (("PREFIXES", "prefixes", "prefix"), ("ADDRESSES", "addresses", "address")):
        document[key] = [_lease(name, word, noun) for word in environ.get(name, "").split()]
    return document


def _lease(name: str, word: str, noun: str) -> dict[str, Any]:
    """One ``ADDRESS/LENGTH,preferred,valid,...``."""
    network, *fields = word.split(",")
    if noun == "address":
        # The length beside an address is the link's, as odhcp6c believes it.
        network = network.partition("/")[0]
    try:
        preferred, valid = (int(field) for field in fields[:2])
    except ValueError:
        raise ValueError(f"{name}: {word!r:.80} has no preferred and valid lifetime") from None
    return {noun: network, "preferred": min(preferred, valid), "valid": valid}


def _container(name: str, text: str) -> bytes:
    """The S46 container whose rules (or binding) odhcp6c wrote as text. Raises ValueError."""
    options: list[tuple[int, bytes]] = []
    brs: dict[IPv6Address, None] = {}
    for rule in text.split():
        flags, fields = 0, {}
        for key, value in _fields(name, rule):
            if key == "fmr":
                flags = FMR_FLAG
            elif key == "br":
                brs[_address(name, rule, value)] = None
            else:
                fields[key] = value
        try:
            options.append(_rule(name, fields, flags))
        except (KeyError, ValueError, struct.error) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{name}: {rule!r:.120}: {reason}") from None
    options += [(int(Option.S46_BR), br.packed) for br in brs]
    return dhcp6.encode_options(tuple(options))


def _fields(name: str, rule: str) -> Iterator[tuple[str, str]]:
    for field in rule.rstrip(",").split(","):
        key, equals, value = field.partition("=")
        if not equals and key != "fmr":
            raise ValueError(f"{name}: {rule!r:.120}: {field!r} is no KEY=VALUE")
        yield key, value


def _address(name: str, rule: str, text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except ValueError:
        raise ValueError(f"{name}: {rule!r:.120}: {text!r} is no IPv6 address") from None


def _rule(name: str, fields: Mapping[str, str], flags: int) -> tuple[int, bytes]:
    """S46_RULE (RFC 7598 4.1) or S46_V4V6BIND (4.4) with its port parameters, bit by bit as they were received."""
    prefix6_len = int(fields["prefix6len"])
    prefix6 = IPv6Address(fields["ipv6prefix"]).packed[: (prefix6_len + 7) // 8]
    ipv4 = IPv4Address(fields["ipv4prefix"]).packed
    inside: Options = ()
    if "psid" in fields or "psidlen" in fields or "offset" in fields:
        params = struct.pack("!BBH", int(fields["offset"]), int(fields["psidlen"]), int(fields["psid"]))
        inside = ((int(Option.S46_PORTPARAMS), params),)
    if name == "MAPE":
        head = struct.pack("!BBB", flags, int(fields["ealen"]), int(fields["prefix4len"])) + ipv4
        return int(Option.S46_RULE), head + bytes((prefix6_len,)) + prefix6 + dhcp6.encode_options(inside)
    return int(Option.S46_V4V6BIND), ipv4 + bytes((prefix6_len,)) + prefix6 + dhcp6.encode_options(inside)
