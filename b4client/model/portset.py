"""Port sets: which layer-4 ports of a shared IPv4 address belong to one subscriber (RFC 7597 5.1, RFC 7618 9).

A 16-bit port is read as three fields, from the left::

    | A: offset_len bits | PSID: psid_len bits | j: the other m bits |

A subscriber owns every port whose PSID field is its own. With ``offset_len`` > 0 the field A must not be 0,
which keeps the low ports out of every set; with ``offset_len`` = 0 the set is one contiguous range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PORT_BITS = 16
PORT_MAX = 0xFFFF


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports ``first`` to ``last``, both included, 0 <= first <= last <= 65535."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= PORT_MAX:
            raise ValueError(f"not a port range: {self.first}-{self.last}")

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return f"{self.first}-{self.last}" if self.first != self.last else f"{self.first}"


@dataclass(frozen=True, slots=True)
class PortSet:
    """The ports of one subscriber of a shared address.

    ``offset_len`` (a in RFC 7597 5.1) 0..15 bits; ``psid_len`` (k) 1..16 bits; ``psid`` an ordinary integer below
    2**psid_len (right-aligned; the left-aligned form of options 159 and 93 lives in ``wire`` only). A set needs
    offset_len + psid_len <= 16 [P-3]. An address that is not shared has no ``PortSet`` at all.
    Raises ValueError when the three do not describe a port set.
    """

    offset_len: int
    psid_len: int
    psid: int

    def __post_init__(self) -> None:
        if not 0 <= self.offset_len <= 15:
            raise ValueError(f"the offset must be 0 to 15 bits, not {self.offset_len}")
        if not 1 <= self.psid_len <= PORT_BITS:
            raise ValueError(f"the PSID length must be 1 to 16 bits, not {self.psid_len}")
        if self.offset_len + self.psid_len > PORT_BITS:
            raise ValueError(
                f"offset ({self.offset_len}) and PSID length ({self.psid_len}) together exceed the 16 bits of a port"
            )
        if not 0 <= self.psid < 1 << self.psid_len:
            raise ValueError(f"PSID {self.psid} does not fit in {self.psid_len} bits")

    @property
    def contiguous_bits(self) -> int:
        """m in RFC 7597 5.1: a range of the set has 2**m ports."""
        return PORT_BITS - self.offset_len - self.psid_len

    @property
    def range_size(self) -> int:
        """Ports in each range: 2**m."""
        return 1 << self.contiguous_bits

    @property
    def range_count(self) -> int:
        """Number of ranges: 2**a - 1, or 1 when a = 0 (where RFC 7597's formula does not apply) [P-6]."""
        return (1 << self.offset_len) - 1 if self.offset_len else 1

    @property
    def port_count(self) -> int:
        """Number of ports in the set: 2**(16-k) - 2**m for a > 0, 2**(16-k) for a = 0 [P-6]."""
        return self.range_count * self.range_size

    @property
    def sharing_ratio(self) -> int:
        """R in RFC 7597 Appendix B: how many subscribers share the address."""
        return 1 << self.psid_len

    @property
    def mask(self) -> int:
        """Bits of a port that hold the PSID: ``port & mask == value`` is necessary for membership."""
        return ((1 << self.psid_len) - 1) << self.contiguous_bits

    @property
    def value(self) -> int:
        """What ``port & mask`` equals for every port of the set."""
        return self.psid << self.contiguous_bits

    @property
    def floor(self) -> int:
        """Lowest port number the algorithm can give out: 2**(16-a) for a > 0, else 0 [P-5].

        ``port & mask == value and port >= floor`` is exactly membership.
        """
        return 1 << (PORT_BITS - self.offset_len) if self.offset_len else 0

    def range_at(self, index: int) -> PortRange:
        """The ``index``-th range (0-based, ascending). Raises IndexError outside 0..range_count-1."""
        if not 0 <= index < self.range_count:
            raise IndexError(index)
        # The field A is never 0, so that the first range has A = 1; without offset bits there is no A.
        first = self.floor * (index + 1) + self.value
        return PortRange(first, first + self.range_size - 1)

    def ranges(self) -> Iterator[PortRange]:
        """All ranges, ascending; ``range_count`` of them."""
        return (self.range_at(i) for i in range(self.range_count))

    def ports(self) -> Iterator[int]:
        """All ports of the set, ascending."""
        for r in self.ranges():
            yield from range(r.first, r.last + 1)

    def __contains__(self, port: int) -> bool:
        return 0 <= port <= PORT_MAX and port & self.mask == self.value and port >= self.floor

    def __len__(self) -> int:
        return self.port_count

    def overlaps(self, other: PortSet) -> bool:
        """True when some port belongs to both sets (also for sets of different offset or length)."""
        if (self.value ^ other.value) & self.mask & other.mask:
            return False
        # With the bits that neither PSID fixes all set this is the highest port with both PSIDs; a floor is all that
        # can keep it out.
        highest = self.value | other.value | (PORT_MAX & ~(self.mask | other.mask))
        return highest >= max(self.floor, other.floor)

    def __str__(self) -> str:
        return f"PSID {self.psid:#x}/{self.psid_len} offset {self.offset_len}"


def psid_of_port(port: int, offset_len: int, psid_len: int) -> int | None:
    """The PSID that owns ``port`` (RFC 7597 Appendix B), or None when the offset excludes the port from every set.

    Raises ValueError for what is no port, and for lengths that describe no port set.
    """
    if not 0 <= port <= PORT_MAX:
        raise ValueError(f"not a port: {port}")
    lengths = PortSet(offset_len, psid_len, 0)  # refuses lengths that describe no port set
    return (port & lengths.mask) >> lengths.contiguous_bits if port >= lengths.floor else None
