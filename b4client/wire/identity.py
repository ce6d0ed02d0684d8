"""Who the client is: DUID (RFC 8415 11), IAID and the DHCPv4 client identifier made of both (RFC 4361 6.1)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from b4client.wire.cursor import Reader, WireError, Writer

MIN_DUID: Final = 3
MAX_DUID: Final = 130
"""A DUID is a type of two octets and 1 to 128 more (RFC 8415 11.1)."""
CLIENT_IDENTIFIER_TYPE: Final = 255
"""First octet of a client identifier that is IAID and DUID (RFC 4361 6.1)."""


class DuidType(enum.IntEnum):
    """DUID types (RFC 8415 11.1)."""

    LLT = 1
    EN = 2
    LL = 3
    UUID = 4


@dataclass(frozen=True, slots=True)
class Duid:
    """A DUID with its type, 3 to 130 octets; ValueError otherwise.

    What is inside is not looked at: DUIDs are opaque and only compared (RFC 8415 11), whatever their type.
    """

    data: bytes

    def __post_init__(self) -> None:
        if not MIN_DUID <= len(self.data) <= MAX_DUID:
            raise ValueError(f"a DUID has {MIN_DUID} to {MAX_DUID} octets, not {len(self.data)}")

    @property
    def type(self) -> int:
        """The two octets of the type; not necessarily one of DuidType."""
        return int.from_bytes(self.data[:2], "big")

    def __bytes__(self) -> bytes:
        return self.data

    def __str__(self) -> str:
        return self.data.hex(":")


def decode_duid(value: bytes) -> Duid:
    """Value of a Client or Server Identifier option (RFC 8415 21.2, 21.3). Raises WireError for a bad length."""
    if not MIN_DUID <= len(value) <= MAX_DUID:
        raise WireError(f"DUID of {len(value)} octets")
    return Duid(value)


def duid_llt(hwtype: int, time: int, lladdr: bytes) -> Duid:
    """DUID-LLT (RFC 8415 11.2); ``time`` in seconds since 2000-01-01 UTC, modulo 2**32. Raises ValueError."""
    _some(lladdr, "link-layer address")
    out = Writer().u16(DuidType.LLT).u16(hwtype, "hardware type").u32(time, "time")
    return Duid(out.raw(lladdr).finish("DUID"))


def duid_en(pen: int, identifier: bytes) -> Duid:
    """DUID-EN of a private enterprise number (RFC 8415 11.3). Raises ValueError."""
    _some(identifier, "identifier")
    return Duid(Writer().u16(DuidType.EN).u32(pen, "enterprise number").raw(identifier).finish("DUID"))


def duid_ll(hwtype: int, lladdr: bytes) -> Duid:
    """DUID-LL (RFC 8415 11.4). Raises ValueError."""
    _some(lladdr, "link-layer address")
    return Duid(Writer().u16(DuidType.LL).u16(hwtype, "hardware type").raw(lladdr).finish("DUID"))


def duid_uuid(uuid: bytes) -> Duid:
    """DUID-UUID (RFC 8415 11.5) of sixteen octets. Raises ValueError for another length."""
    if len(uuid) != 16:
        raise ValueError(f"a UUID has 16 octets, not {len(uuid)}")
    return Duid(Writer().u16(DuidType.UUID).raw(uuid).finish("DUID"))


def client_identifier(iaid: int, duid: Duid | bytes) -> bytes:
    """Value of DHCPv4 option 61: 255, IAID (four octets), DUID (RFC 4361 6.1). Raises ValueError."""
    checked = duid if isinstance(duid, Duid) else Duid(duid)
    return Writer().u8(CLIENT_IDENTIFIER_TYPE).u32(iaid, "IAID").raw(checked.data).finish("client identifier")


def decode_client_identifier(value: bytes) -> tuple[int, bytes]:
    """IAID and DUID of a DHCPv4 client identifier.

    Raises WireError when it is cut off, of another type (an older kind of identifier) or its DUID of bad length.
    """
    reader = Reader(value)
    kind = reader.u8("client identifier")
    if kind != CLIENT_IDENTIFIER_TYPE:
        raise WireError(f"client identifier of type {kind} instead of {CLIENT_IDENTIFIER_TYPE}", 0)
    iaid = reader.u32("IAID")
    return iaid, decode_duid(reader.rest()).data


def _some(value: bytes, what: str) -> None:
    if not value:
        raise ValueError(f"a DUID needs a {what}")
