"""Mesh mode of MAP-E (RFC 7597 5.4, 8.1): which customer edge has a port, and whether a sender is it. Pure.

``model.maprule`` says the same with addresses and networks, and is what this is tested against. Here it is made for the
pump, which asks it for packets: integers, tables made once, a bounded number of steps however many rules there are,
and no imports that would cost a small router memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

PORT_BITS: Final = 16
IPV4_BITS: Final = 32
IPV6_BITS: Final = 128
IPV4_MAX: Final = 0xFFFFFFFF
MAX_SAME_PREFIX: Final = 64
"""Rules of one IPv6 prefix that are looked at for a packet without ports: no operator has more than a few."""


class Rule(NamedTuple):
    """A forwarding rule: the fields of ``model.maprule.MappingRule``, prefixes as number and length."""

    ipv4: int
    ipv4_len: int
    ipv6: int
    ipv6_len: int
    ea_len: int
    offset_len: int
    psid_len: int = 0
    psid: int = 0

    @property
    def suffix_len(self) -> int:
        """Bits of the IPv4 address in the EA bits."""
        return min(self.ea_len, IPV4_BITS - self.ipv4_len)

    @property
    def embedded_len(self) -> int:
        """Bits of the PSID in the EA bits."""
        return self.ea_len - self.suffix_len

    @property
    def explicit(self) -> bool:
        """True when the PSID stands beside the EA bits and means something: not for an IPv4 prefix (RFC 7598 4.5)."""
        return bool(self.psid_len) and self.ipv4_len + self.suffix_len == IPV4_BITS


class Owner(NamedTuple):
    """Who has a port: the customer edge's IPv6 address, and the place of the rule that says so."""

    address: int
    rule: int


class _Entry:
    """One rule, prepared. ``mask``, ``value`` and ``floor`` say which ports it is for (all: 0, 0, 0)."""

    __slots__ = (
        "_base",
        "_ea_shift",
        "_host_len",
        "_host_mask",
        "_id_shift",
        "_psid",
        "_psid_mask",
        "_psid_shift",
        "_rule",
        "_suffix_mask",
        "embedded",
        "floor",
        "mask",
        "place",
        "shared",
        "value",
    )

    def __init__(self, rule: Rule, place: int, id_shift: int) -> None:
        self.place = place
        self._rule = rule
        self.embedded = rule.embedded_len
        self._base = rule.ipv6
        self._ea_shift = IPV6_BITS - rule.ipv6_len - rule.ea_len
        self._host_mask = (1 << self._ea_shift) - 1
        self._host_len = IPV4_BITS - rule.ipv4_len - rule.suffix_len
        self._suffix_mask = (1 << rule.suffix_len) - 1
        self._id_shift = id_shift
        self._psid = rule.psid if rule.explicit else None
        length = self.embedded or (rule.psid_len if rule.explicit else 0)
        self._psid_shift = PORT_BITS - rule.offset_len - length
        self._psid_mask = (1 << length) - 1
        self.shared = length
        self.floor = 1 << (PORT_BITS - rule.offset_len) if rule.offset_len and length else 0
        self.mask = self._psid_mask << self._psid_shift if rule.explicit else 0
        self.value = rule.psid << self._psid_shift if rule.explicit else 0

    def address(self, ipv4: int, port: int | None) -> int | None:
        """The customer edge that has ``port`` of ``ipv4``, which the rule covers; None for a port that nobody has."""
        if not self._psid_mask:
            return self.build(ipv4, 0)
        if port is None or port < self.floor:
            return None
        psid = port >> self._psid_shift & self._psid_mask
        return self.build(ipv4, psid) if self._psid in (None, psid) else None

    def build(self, ipv4: int, psid: int) -> int:
        """The MAP address of ``psid`` of ``ipv4`` (RFC 7597 6)."""
        host = ipv4 >> self._host_len
        ea_bits = (host & self._suffix_mask) << self.embedded | (psid if self.embedded else 0)
        identifier = (host << self._host_len << PORT_BITS | psid) << self._id_shift
        return self._base | ea_bits << self._ea_shift | identifier & self._host_mask

    def covers(self, ipv4: int) -> bool:
        """True when ``ipv4`` is in the rule's prefix."""
        shift = IPV4_BITS - self._rule.ipv4_len
        return ipv4 >> shift == self._rule.ipv4 >> shift

    def psid_in(self, source: int) -> int:
        """The PSID that an address of the rule has by its EA bits, or the one given beside them."""
        return source >> self._ea_shift & self._psid_mask if self.embedded else self._psid or 0


class MeshTable:
    """All forwarding rules of a softwire. ``draft03`` is the layout of the interface identifiers."""

    def __init__(self, rules: Iterable[Rule], *, draft03: bool = False) -> None:
        self.rules = tuple(rules)
        self.draft03 = draft03
        by_ipv4: dict[int, dict[int, list[_Entry]]] = {}
        for place, rule in enumerate(self.rules):
            of_length = by_ipv4.setdefault(rule.ipv4_len, {})
            of_length.setdefault(rule.ipv4, []).append(_Entry(rule, place, 8 if draft03 else 0))
        # The longest match first (RFC 7597 5.4), a step for each length that occurs.
        self._by_ipv4 = [
            (
                IPV4_MAX & ~((1 << (IPV4_BITS - length)) - 1),
                {network: _shapes(entries) for network, entries in networks.items()},
            )
            for length, networks in sorted(by_ipv4.items(), reverse=True)
        ]
        self._by_ipv6: dict[tuple[int, int], list[_Entry]] = {}
        for place, rule in enumerate(self.rules):
            there = self._by_ipv6.setdefault((rule.ipv6, rule.ipv6_len), [])
            if len(there) < MAX_SAME_PREFIX:
                there.append(_Entry(rule, place, 8 if draft03 else 0))
        self._ipv6_lengths = tuple(sorted({length for _, length in self._by_ipv6}))

    @property
    def prefixes(self) -> tuple[tuple[int, int], ...]:
        """The IPv6 prefixes that customer edges have, as number and length."""
        return tuple(self._by_ipv6)

    def owner(self, ipv4: int, port: int | None) -> Owner | None:
        """Who has ``port`` of ``ipv4``; None: a border relay knows. The port is the identifier of an ICMP query, and
        None where a packet has none."""
        for mask, networks in self._by_ipv4:
            shapes = networks.get(ipv4 & mask)
            if shapes is None:
                continue
            best: Owner | None = None
            for port_mask, by_value in shapes:
                entry = by_value.get((port or 0) & port_mask)
                if entry is not None and (best is None or entry.place < best.rule):
                    address = entry.address(ipv4, port)
                    best = best if address is None else Owner(address, entry.place)
            return best
        return None

    def plausible(self, source: int, ipv4: int) -> bool:
        """True when the customer edge of IPv6 address ``source`` has some port of ``ipv4`` (RFC 7597 8.1): all that can
        be said of a packet that shows no port."""
        return any(
            entry.covers(ipv4) and entry.build(ipv4, entry.psid_in(source)) == source for entry in self._of(source)
        )

    def covers(self, source: int) -> bool:
        """True when the IPv6 address ``source`` is in a rule's prefix."""
        return any(True for _ in self._of(source))

    def _of(self, source: int) -> Iterator[_Entry]:
        for length in self._ipv6_lengths:
            shift = IPV6_BITS - length
            yield from self._by_ipv6.get((source >> shift << shift, length), ())


def _shapes(entries: list[_Entry]) -> list[tuple[int, dict[int, _Entry]]]:
    """Rules for one IPv4 prefix by where they look in a port: a step for each shape, however many PSIDs there are."""
    shapes: dict[tuple[int, int, int], dict[int, _Entry]] = {}
    for entry in entries:
        # Of two rules that say something about the same ports the first counts.
        shapes.setdefault((entry.mask, entry.floor, entry.shared), {}).setdefault(entry.value, entry)
    return [(mask, by_value) for (mask, _, _), by_value in shapes.items()]
