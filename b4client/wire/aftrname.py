"""The name of the AFTR: DHCPv6 option 64, the value without code and length (RFC 6334)."""

from __future__ import annotations

import string
from typing import Final

from b4client.wire.cursor import Reader, WireError, Writer

MAX_LABEL: Final = 63
MAX_NAME: Final = 255
"""Octets of a DNS label and of a whole name with its length octets and root (RFC 1035 2.3.4)."""
MIN_NAME: Final = 4
"""The least that RFC 6334 3 takes for the name of an AFTR."""
_HOST_OCTETS: Final = frozenset((string.ascii_letters + string.digits + "-_").encode())


def decode_aftr_name(value: bytes) -> str:
    """Value of DHCPv6 option 64: the name of the AFTR, absolute, with its final dot (RFC 6334 3).

    Only the first of several names is used (RFC 6334 5). Raises WireError: a name of fewer than 4 octets or more than
    255, without root or without label, a label cut off, longer than 63 octets or a compression pointer, or characters
    that no host name has (the name goes to a resolver and into logs).
    """
    if len(value) < MIN_NAME:
        raise WireError(f"AFTR name of {len(value)} octets")
    reader = Reader(value)
    names = []
    while reader.remaining:
        names.append(_read_name(reader))
    return names[0]


def _read_name(reader: Reader) -> str:
    """One name up to and with its root label."""
    start = reader.offset
    labels: list[bytes] = []
    while length := reader.u8("AFTR name: root label is missing"):
        if length > MAX_LABEL:
            raise WireError(f"label length {length:#x} in the AFTR name", reader.offset - 1)
        label = reader.take(length, "label of the AFTR name")
        if not _HOST_OCTETS.issuperset(label):
            raise WireError("a character that no host name has in the AFTR name", reader.offset - length)
        labels.append(label)
    if not labels:
        raise WireError("AFTR name without label", start)
    if not MIN_NAME <= reader.offset - start <= MAX_NAME:
        raise WireError(f"AFTR name of {reader.offset - start} octets", start)
    return "".join(label.decode("ascii") + "." for label in labels)


def encode_aftr_name(name: str) -> bytes:
    """The inverse of ``decode_aftr_name``; the final dot may be left out.

    Raises ValueError for a name that ``decode_aftr_name`` would not read back.
    """
    out = Writer()
    for text in name.removesuffix(".").split("."):
        label = text.encode()
        if not 0 < len(label) <= MAX_LABEL or not _HOST_OCTETS.issuperset(label):
            raise ValueError(f"no host name: {name!r}")
        out.u8(len(label)).raw(label)
    out.u8(0)
    if not MIN_NAME <= len(out) <= MAX_NAME:
        raise ValueError(f"no host name of usable length: {name!r}")
    return out.finish()
