"""Domain names in options (RFC 1035 3.1, 4.1.4)."""

from __future__ import annotations

from typing import Final

from b4client.model.errors import WireError
from b4client.wire.cursor import Reader, printable

MAX_NAME: Final = 255
MAX_NAMES: Final = 128
"""Domain names in one option; more could only be there to keep the reader busy."""


def read_names(value: bytes, *, pointers: bool) -> list[str]:
    """Domain names in DNS form (RFC 1035 3.1), with compression pointers (4.1.4) only where they are allowed.

    Raises WireError: cut off, a label type that does not exist, a pointer that does not point back, a name of more
    than 255 octets, or more than 128 names.
    """
    names: list[str] = []
    reader = Reader(value)
    while reader.remaining:
        if len(names) == MAX_NAMES:
            raise WireError(f"more than {MAX_NAMES} names", reader.offset)
        labels: list[str] = []
        here, size = reader, 0
        while length := here.u8("domain name"):
            at = here.offset - 1
            if length >= 0xC0 and pointers:
                target = (length & 0x3F) << 8 | here.u8("domain name")
                if target >= at:
                    raise WireError("a compression pointer that does not point back", at)
                here = Reader(value, target)  # comes to an end: pointers go back, labels make the name longer
                continue
            if length > 63:
                raise WireError(f"label length {length:#x}", at)
            size += 1 + length
            if size > MAX_NAME:
                raise WireError(f"a name of more than {MAX_NAME} octets", at)
            labels.append(printable(here.take(length, "label")).replace(".", "\\."))
        names.append(".".join(labels) + ".")
    return names
