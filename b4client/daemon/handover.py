"""What another DHCPv6 client hands over (``b4client provision``), read as strictly as what the network sends.

A document is JSON::

    {"options": {"88": "20010db8...", "96": ["005a0010..."]},
     "prefixes": ["2001:db8:100::/56", {"prefix": "2001:db8:200::/56", "preferred": 3600, "valid": 7200}],
     "addresses": [{"address": "2001:db8:46::5", "preferred": 3600, "valid": 7200}]}

It is everything that the other client holds: what is not in it is not there any more; ``{}`` takes all of it back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from ipaddress import IPv6Network
from typing import Any

from b4client.model.errors import ControlError
from b4client.model.lease6 import Lease6, Leased6
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp6_exchange import INFINITY, PROVISIONING_OPTIONS
from b4client.protocol.events import InformationHandedOver
from b4client.protocol.provisioning import read_reply
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option, Options

HANDED_OPTIONS = frozenset((*PROVISIONING_OPTIONS, Option.S46_CONT_MAPT, Option.AFTR_NAME))
MAX_ITEMS = 16
REFUSING = ("-malformed", "-misaligned")
"""Ends of the counters' names that mean: the sender's mistake."""


def read_handover(document: Mapping[str, Any], now: float) -> InformationHandedOver:
    """The event that a document describes; its lifetimes run from ``now``.

    Raises ControlError that names what is wrong; then nothing of the document is used.
    """
    for key in document:
        if key not in ("options", "prefixes", "addresses"):
            raise ControlError(f"provision: {key!r} is not known here; known: options, prefixes, addresses")
    options = _options(document.get("options", {}))
    lease = Lease6(
        _leases(document.get("addresses", []), "addresses", "address", now),
        _leases(document.get("prefixes", []), "prefixes", "prefix", now),
    )
    scratch = Counters()
    found = read_reply(Dhcp6Message(MessageType.REPLY, 0, options), scratch)
    if any(name.endswith(REFUSING) for name in scratch.snapshot()):
        raise ControlError("provision: " + "; ".join(found.problems))
    return InformationHandedOver(options, lease)


def _options(value: object) -> Options:
    if not isinstance(value, Mapping):
        raise ControlError('provision: options must be an object such as {"88": "20010db8..."}')
    options: list[tuple[int, bytes]] = []
    for key, given in value.items():
        known = ", ".join(str(int(code)) for code in sorted(HANDED_OPTIONS))
        if not str(key).isascii() or not str(key).isdigit() or int(key) not in HANDED_OPTIONS:
            raise ControlError(f"provision: option {key!r} says nothing about IPv4; known: {known}")
        texts = given if isinstance(given, list) else [given]
        if len(texts) > MAX_ITEMS:
            raise ControlError(f"provision: option {key} comes {len(texts)} times; at most {MAX_ITEMS}")
        for text in texts:
            try:
                options.append((int(key), bytes.fromhex(text)))
            except (TypeError, ValueError):
                raise ControlError(f"provision: option {key} must be hexadecimal octets, not {text!r:.60}") from None
    return tuple(options)


def _leases(value: object, key: str, noun: str, now: float) -> tuple[Leased6, ...]:
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise ControlError(f"provision: {key} must be a list of at most {MAX_ITEMS}")
    found: dict[IPv6Network, Leased6] = {}
    for item in value:
        given = item if isinstance(item, dict) else {noun: item}
        for name in given:
            if name not in (noun, "preferred", "valid"):
                raise ControlError(f"provision: {key}: {name!r} is not known; known: {noun}, preferred, valid")
        network = _network(given.get(noun), key, noun)
        valid = _lifetime(given.get("valid"), f"{key}: valid")
        preferred = _lifetime(given.get("preferred"), f"{key}: preferred") if "preferred" in given else valid
        if preferred > valid:
            raise ControlError(f"provision: {key}: {network} is preferred for longer than it is valid")
        if valid > 0:
            found[network] = Leased6(network, now + preferred, now + valid)
    return tuple(found.values())


def _network(value: object, key: str, noun: str) -> IPv6Network:
    try:
        network = IPv6Network(value if isinstance(value, str) else "")
    except ValueError:
        raise ControlError(f"provision: {key}: {value!r:.60} is no IPv6 {noun}") from None
    address = network.network_address
    if noun == "address" and network.prefixlen != 128:
        raise ControlError(f"provision: {key}: {network} is a prefix, not an address")
    if address.is_multicast or address.is_link_local or address.is_loopback or address.is_unspecified:
        raise ControlError(f"provision: {key}: {network} is nothing that a customer is given")
    return network


def _lifetime(value: object, where: str) -> float:
    """Seconds; infinite when absent or 0xffffffff, as in DHCPv6."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INFINITY:
        raise ControlError(f"provision: {where} must be seconds from 0 to {INFINITY}, not {value!r:.60}")
    return math.inf if value == INFINITY else float(value)
