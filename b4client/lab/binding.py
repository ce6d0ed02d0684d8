"""The lwAFTR's decisions as pure code: the binding table, and the fate of one packet (RFC 7596 6).

A softwire is bound to an IPv4 address and a set of its ports. The subscriber's end of a packet (source going up,
destination coming down) must match a binding: by the port for TCP, UDP, SCTP, DCCP and UDP-Lite, by the identifier for
ICMP queries, and by the packet quoted inside for ICMP errors (RFC 7596 8.1). Each fate has a name and is counted.
"""

from __future__ import annotations

import collections
import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from b4client.model.portset import PortSet

PORT_PROTOCOLS = frozenset((6, 17, 33, 132, 136))
"""TCP, UDP, DCCP, SCTP, UDP-Lite: the source and the destination port are their first four octets."""
ICMP = 1
ICMP_QUERIES = frozenset((0, 8, 13, 14, 15, 16, 17, 18))
ICMP_ERRORS = frozenset((3, 4, 5, 11, 12))
MAX_TRAINS = 1024
TRAIN_LIFE_S = 30.0


class Fate(enum.Enum):
    """What became of a packet; the value is its counter's name."""

    DECAPSULATED = "decapsulated"
    ENCAPSULATED = "encapsulated"
    DROP_UNKNOWN_SOFTWIRE = "drop-unknown-softwire"
    DROP_FOREIGN_ADDRESS = "drop-foreign-ipv4-address"
    DROP_OUTSIDE_PORT_SET = "drop-outside-port-set"
    DROP_NO_BINDING = "drop-no-binding"
    DROP_MALFORMED = "drop-malformed"
    DROP_UNSUPPORTED = "drop-unsupported-protocol"
    DROP_FRAGMENT = "drop-fragment-without-first"
    DROP_SEND = "drop-send-failed"


@dataclass(frozen=True, slots=True)
class Binding:
    """IPv4 ``address`` (only ``ports`` of it, None: all) lives behind the softwire of ``b4``."""

    address: IPv4Address
    ports: PortSet | None
    b4: IPv6Address

    def __str__(self) -> str:
        ports = self.ports
        shared = f",a={ports.offset_len},k={ports.psid_len},psid={ports.psid:#x}" if ports else ""
        return f"{self.address}{shared},b4={self.b4}"

    @classmethod
    def parse(cls, text: str) -> Binding:
        """``192.0.2.1,a=0,k=8,psid=0x34,b4=2001:db8::1``, or without a, k, psid. Raises ValueError."""
        address, *pairs = text.split(",")
        fields = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if len(fields) != len(pairs) or "b4" not in fields or set(fields) - {"a", "k", "psid", "b4"}:
            raise ValueError(f"not a binding (ADDRESS[,a=A,k=K,psid=PSID],b4=IPV6): {text!r}")
        ports = None
        if "psid" in fields:
            if "k" not in fields:
                raise ValueError(f"psid without k: {text!r}")
            ports = PortSet(int(fields.get("a", "0")), int(fields["k"]), int(fields["psid"], 0))
        return cls(IPv4Address(address), ports, IPv6Address(fields["b4"]))

    def owns(self, port: int) -> bool:
        """True when ``port`` (or ICMP identifier) belongs to the binding."""
        return self.ports is None or port in self.ports


class BindingTable:
    """Bindings by IPv4 address; no port of an address is ever bound twice."""

    def __init__(self, bindings: Iterable[Binding] = ()) -> None:
        self._by_address: dict[bytes, list[Binding]] = {}
        self._by_b4: collections.Counter[bytes] = collections.Counter()
        for binding in bindings:
            self.add(binding)

    def __iter__(self) -> Iterator[Binding]:
        return (binding for bindings in self._by_address.values() for binding in bindings)

    def add(self, binding: Binding) -> None:
        """Add one. Raises ValueError when a port of it is bound already."""
        there = self._by_address.setdefault(binding.address.packed, [])
        for other in there:
            if binding.ports is None or other.ports is None or binding.ports.overlaps(other.ports):
                raise ValueError(f"{binding} overlaps {other}")
        there.append(binding)
        self._by_b4[binding.b4.packed] += 1

    def remove(self, binding: Binding) -> None:
        """Remove one. Raises KeyError when it is not there."""
        there = self._by_address.get(binding.address.packed, [])
        if binding not in there:
            raise KeyError(str(binding))
        there.remove(binding)
        if not there:
            del self._by_address[binding.address.packed]
        self._by_b4[binding.b4.packed] -= 1
        if not self._by_b4[binding.b4.packed]:
            del self._by_b4[binding.b4.packed]

    def find(self, address: bytes, port: int) -> Binding | None:
        """The binding of ``port`` on ``address`` (4 octets)."""
        return next((b for b in self._by_address.get(address, ()) if b.owns(port)), None)

    def knows(self, b4: bytes) -> bool:
        """True when some binding's softwire ends at ``b4`` (16 octets)."""
        return b4 in self._by_b4

    def bound_to(self, b4: bytes, address: bytes) -> bool:
        """True when ``b4`` has some ports of ``address``."""
        return any(binding.b4.packed == b4 for binding in self._by_address.get(address, ()))


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a packet as the binding sees them. The ports are None in fragments behind the first."""

    protocol: int
    source: bytes
    source_port: int | None
    destination: bytes
    destination_port: int | None
    train: tuple[bytes, ...] | None = None
    """What the fragments of one packet have in common; None for a packet that is whole."""


def ends_of(packet: bytes) -> Ends | Fate:
    """The ends of an IPv4 packet, or the fate of one that has none.

    For an ICMP query both ports are the identifier. For an ICMP error they are those of the *quoted* packet, turned
    round: the error travels to whoever sent the packet, so the quoted source is the error's destination.
    """
    header = _header(packet)
    if header is None:
        return Fate.DROP_MALFORMED
    protocol, source, destination, body, offset, more = header
    train = (source, destination, bytes((protocol,)), packet[4:6]) if offset or more else None
    if offset:
        return Ends(protocol, source, None, destination, None, train)
    if protocol in PORT_PROTOCOLS:
        if len(body) < 4:
            return Fate.DROP_MALFORMED
        return Ends(protocol, source, _u16(body, 0), destination, _u16(body, 2), train)
    if protocol != ICMP:
        return Fate.DROP_UNSUPPORTED
    if len(body) < 8:
        return Fate.DROP_MALFORMED
    if body[0] in ICMP_QUERIES:
        return Ends(protocol, source, _u16(body, 4), destination, _u16(body, 4), train)
    if body[0] not in ICMP_ERRORS:
        return Fate.DROP_UNSUPPORTED
    quoted = _header(body[8:], whole=False)
    if quoted is None or quoted[4]:
        return Fate.DROP_MALFORMED
    inner_protocol, inner_source, inner_destination, inner_body, _, _ = quoted
    if inner_protocol in PORT_PROTOCOLS and len(inner_body) >= 4:
        from_port, to_port = _u16(inner_body, 0), _u16(inner_body, 2)
    elif inner_protocol == ICMP and len(inner_body) >= 8 and inner_body[0] in ICMP_QUERIES:
        from_port = to_port = _u16(inner_body, 4)
    else:
        return Fate.DROP_UNSUPPORTED
    return Ends(protocol, inner_destination, to_port, inner_source, from_port, train)


def _u16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _header(packet: bytes, *, whole: bool = True) -> tuple[int, bytes, bytes, bytes, int, bool] | None:
    """(protocol, source, destination, payload, fragment offset in octets, more fragments), or None."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    length, total = (packet[0] & 15) * 4, _u16(packet, 2)
    if length < 20 or len(packet) < length or total < length or (whole and len(packet) < total):
        return None
    fragment = _u16(packet, 6)
    body = packet[length:total]
    return packet[9], packet[12:16], packet[16:20], body, (fragment & 0x1FFF) * 8, bool(fragment & 0x2000)


class Aftr:
    """The lwAFTR's mind: a table, a memory for fragments, and a counter for every fate."""

    def __init__(self, table: BindingTable) -> None:
        self.table = table
        self.counters: collections.Counter[str] = collections.Counter({fate.value: 0 for fate in Fate})
        self._trains: collections.OrderedDict[tuple[bytes, ...], tuple[Fate, bytes, float]] = collections.OrderedDict()

    def upward(self, packet: bytes, b4: bytes, now: float) -> Fate:
        """The fate of an IPv4 ``packet`` that came out of the softwire of ``b4`` (16 octets). ``now`` in seconds."""
        return self._decide(packet, b4, now)[0]

    def downward(self, packet: bytes, now: float) -> tuple[Fate, bytes]:
        """The fate of a ``packet`` from the IPv4 side, and the B4 (16 octets) it goes to when encapsulated."""
        return self._decide(packet, None, now)

    def _decide(self, packet: bytes, b4: bytes | None, now: float) -> tuple[Fate, bytes]:
        ends = ends_of(packet)
        if isinstance(ends, Fate):
            verdict = ends, b""
        elif ends.source_port is None or ends.destination_port is None:
            verdict = self._train((b4 or b"", *(ends.train or ())), now)
        else:
            verdict = (
                self._admit(ends.source, ends.source_port, packet, b4)
                if b4 is not None
                else self._deliver(ends.destination, ends.destination_port, packet)
            )
            if ends.train is not None:
                self._trains[(b4 or b"", *ends.train)] = (*verdict, now + TRAIN_LIFE_S)
                if len(self._trains) > MAX_TRAINS:
                    self._trains.popitem(last=False)
        self.counters[verdict[0].value] += 1
        return verdict

    def _train(self, key: tuple[bytes, ...], now: float) -> tuple[Fate, bytes]:
        # Fragments behind the first have no ports: they share the first one's fate (RFC 7597 8.3.2).
        fate, b4, until = self._trains.get(key, (Fate.DROP_FRAGMENT, b"", now))
        return (fate, b4) if until >= now else (Fate.DROP_FRAGMENT, b"")

    def _admit(self, address: bytes, port: int, packet: bytes, b4: bytes) -> tuple[Fate, bytes]:
        table = self.table
        binding = table.find(address, port)
        if binding is not None and binding.b4.packed == b4:
            # An ICMP error is matched by what it quotes, and must not come from another address than that.
            return (Fate.DECAPSULATED if packet[12:16] == address else Fate.DROP_FOREIGN_ADDRESS), b""
        if not table.knows(b4):
            return Fate.DROP_UNKNOWN_SOFTWIRE, b""
        return (Fate.DROP_OUTSIDE_PORT_SET if table.bound_to(b4, address) else Fate.DROP_FOREIGN_ADDRESS), b""

    def _deliver(self, address: bytes, port: int, packet: bytes) -> tuple[Fate, bytes]:
        binding = self.table.find(address, port)
        if binding is None or packet[16:20] != address:
            return Fate.DROP_NO_BINDING, b""
        return Fate.ENCAPSULATED, binding.b4.packed
