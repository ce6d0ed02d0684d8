"""What every codec test does with its table: both directions, and cut at every octet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from b4client.model.errors import WireError

Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]


def both_ways(decode: Decode, encode: Encode, octets: bytes, value: object) -> None:
    """``octets`` and ``value`` are each other's image, and the round trips close."""
    assert decode(octets) == value
    assert encode(value).hex() == octets.hex()
    assert encode(decode(octets)) == octets
    assert decode(encode(value)) == value


def cut_everywhere(decode: Decode, octets: bytes, legal: Mapping[int, object] | None = None) -> None:
    """Every proper prefix of ``octets`` is refused, but for the lengths in ``legal``, which give the value there."""
    allowed = {} if legal is None else legal
    for length in range(len(octets)):
        if length in allowed:
            assert decode(octets[:length]) == allowed[length], f"cut to {length}"
        else:
            with pytest.raises(WireError):
                decode(octets[:length])


def refused(decode: Decode, octets: bytes, reason: str) -> None:
    """``octets`` raise WireError, and for the reason that the case is about (a regular expression)."""
    with pytest.raises(WireError, match=reason):
        decode(octets)
