"""The lwAFTR's binding table: (IPv4 address, port set) -> IPv6 address of the softwire (RFC 7596 6.1). Pure.

A packet is looked up by hashing: the address leads to the shapes that its bindings have (offset and PSID length, one
for all bindings of an address in every sane network), and in a shape the PSID's bits of the port lead to the binding.
So 65536 customers on one address cost what one costs.

A MAP-E border relay has mapping rules instead of a table (RFC 7597 5). Here they fill it: the binding of a packet that
a rule covers is derived when it is first needed, and forgotten again when there are too many of such.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from b4client.lab.aftrcustomer import Customer, Softwire
from b4client.model.maprule import DEFAULT_OFFSET_LEN, MappingRule, ce_address_for, map_ce
from b4client.model.portset import PortSet, psid_of_port

MAX_DERIVED = 65536
Shape = tuple[int, int, dict[int, Customer]]
"""Mask of the PSID in a port, lowest port that a set may have, and the customers by the masked port."""


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
        address, fields = _fields(text, "ADDRESS[,a=A,k=K,psid=PSID],b4=IPV6", {"b4"}, {"a", "k", "psid"})
        ports = None
        if "psid" in fields:
            if "k" not in fields:
                raise ValueError(f"psid without k: {text!r}")
            ports = PortSet(int(fields.get("a", "0")), int(fields["k"]), int(fields["psid"], 0))
        elif fields.keys() & {"a", "k"}:
            raise ValueError(f"a or k without psid: {text!r}")
        return cls(IPv4Address(address), ports, IPv6Address(fields["b4"]))

    def owns(self, port: int) -> bool:
        """True when ``port`` (or ICMP identifier) belongs to the binding."""
        return self.ports is None or port in self.ports

    def overlaps(self, other: Binding) -> bool:
        """True when some port of the same address is in both."""
        if self.address != other.address:
            return False
        return self.ports is None or other.ports is None or self.ports.overlaps(other.ports)


def parse_rule(text: str) -> MappingRule:
    """A mapping rule ``192.0.2.0/24,v6=2001:db8::/40,ea=16[,a=6]`` (RFC 7597 5). Raises ValueError."""
    network, fields = _fields(text, "IPV4/LEN,v6=IPV6/LEN,ea=BITS[,a=A]", {"v6", "ea"}, {"a"})
    return MappingRule(
        IPv6Network(fields["v6"]), IPv4Network(network), int(fields["ea"]), int(fields.get("a", DEFAULT_OFFSET_LEN))
    )


def _fields(text: str, form: str, needed: set[str], optional: set[str]) -> tuple[str, dict[str, str]]:
    first, *pairs = text.split(",")
    fields = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(fields) != len(pairs) or needed - fields.keys() or fields.keys() - needed - optional:
        raise ValueError(f"not of the form {form}: {text!r}")
    return first, fields


class BindingTable:
    """Bindings by address and port; no port of an address is ever bound twice.

    Iterating gives the bindings, ``customers`` what is remembered of each. ``pools`` are the prefixes that are routed
    to the lwAFTR, whether somebody is bound there or not.
    """

    def __init__(
        self,
        bindings: Iterable[Binding] = (),
        rules: Iterable[MappingRule] = (),
        pools: Iterable[IPv4Network] = (),
    ) -> None:
        self._shapes: dict[bytes, list[Shape]] = {}
        self._by_b4: dict[bytes, Softwire] = {}
        self._derived: collections.OrderedDict[Customer, None] = collections.OrderedDict()
        self._rules = tuple(sorted(rules, key=lambda rule: -rule.rule_ipv4.prefixlen))
        prefixes = {*pools, *(rule.rule_ipv4 for rule in self._rules)}
        self._prefixes = [(int(prefix.network_address), int(prefix.netmask)) for prefix in prefixes]
        self._size = 0
        for binding in bindings:
            self.add(binding)

    def __iter__(self) -> Iterator[Binding]:
        return (customer.binding for customer in self.customers())

    def __len__(self) -> int:
        return self._size

    def __contains__(self, binding: Binding) -> bool:
        return self.customer(binding) is not None

    def customers(self) -> Iterator[Customer]:
        """All, the bindings of an address together."""
        return (c for shapes in self._shapes.values() for _, _, by_value in shapes for c in by_value.values())

    def customer(self, binding: Binding) -> Customer | None:
        """What is remembered of exactly this binding."""
        mask, _, value = _shape_of(binding)
        for there, _, by_value in self._shapes.get(binding.address.packed, ()):
            if there == mask:
                found = by_value.get(value)
                return found if found is not None and found.binding == binding else None
        return None

    # ---- changing

    def add(self, binding: Binding) -> Customer:
        """Add one. Raises ValueError when a port of it is bound already. Derived bindings give way."""
        for other in self._overlapping(binding):
            if not other.derived:
                raise ValueError(f"{binding} overlaps {other.binding}")
            self.remove(other.binding)
        return self._insert(Customer(binding))

    def remove(self, binding: Binding) -> None:
        """Remove one. Raises KeyError when it is not there."""
        customer = self.customer(binding)
        if customer is None:
            raise KeyError(str(binding))
        # Fragments of a datagram that has begun hold on to it: they see that it is over.
        customer.bound = False
        self._derived.pop(customer, None)
        address = binding.address.packed
        mask, _, value = _shape_of(binding)
        shapes = self._shapes[address]
        for shape in shapes:
            if shape[0] == mask:
                del shape[2][value]
                if not shape[2]:
                    shapes.remove(shape)
                break
        if not shapes:
            del self._shapes[address]
        addresses = customer.softwire.addresses
        addresses[address] -= 1
        if not addresses[address]:
            del addresses[address]
        if not addresses:
            del self._by_b4[customer.b4]
        self._size -= 1

    def _insert(self, customer: Customer) -> Customer:
        address = customer.binding.address.packed
        mask, floor, value = _shape_of(customer.binding)
        shapes = self._shapes.setdefault(address, [])
        for there, _, by_value in shapes:
            if there == mask:
                by_value[value] = customer
                break
        else:
            shapes.append((mask, floor, {value: customer}))
        customer.softwire = self._by_b4.setdefault(customer.b4, customer.softwire)
        customer.softwire.addresses[address] += 1
        self._size += 1
        return customer

    def _overlapping(self, binding: Binding) -> list[Customer]:
        mask, _, value = _shape_of(binding)
        found = []
        for there, _, by_value in self._shapes.get(binding.address.packed, ()):
            if there == mask:
                # Of one shape: equal or disjoint.
                found += [by_value[value]] if value in by_value else []
            else:
                found += [c for c in by_value.values() if c.binding.overlaps(binding)]
        return found

    # ---- looking up

    def find(self, address: bytes, port: int) -> Customer | None:
        """Who is bound to ``port`` of ``address`` (4 octets)."""
        for mask, floor, by_value in self._shapes.get(address, ()):
            if port >= floor:
                found = by_value.get(port & mask)
                if found is not None:
                    return found
        return self._derive(address, port) if self._rules else None

    def whole(self, address: bytes) -> Customer | None:
        """Who is bound to all of ``address``: the only one who may use protocols without ports (RFC 7618 7.1)."""
        for mask, _, by_value in self._shapes.get(address, ()):
            if not mask:
                return by_value[0]
        return self._derive(address, None) if self._rules else None

    def has(self, address: bytes) -> bool:
        """True when ``address`` is one of ours: somebody is bound there, or it is in a pool, or a rule covers it."""
        if address in self._shapes:
            return True
        number = int.from_bytes(address, "big")
        for network, mask in self._prefixes:  # noqa: SIM110 - asked for every packet: any() costs twice as much
            if number & mask == network:
                return True
        return False

    def taken(self, address: bytes) -> bool:
        """True when somebody is, or by a rule could be, bound to a part of ``address``."""
        if address in self._shapes:
            return True
        return bool(self._rules) and any(IPv4Address(address) in rule.rule_ipv4 for rule in self._rules)

    def knows(self, b4: bytes) -> bool:
        """True when some binding's softwire ends at ``b4`` (16 octets)."""
        return b4 in self._by_b4 or any(True for _ in self._homes(b4))

    def bound_to(self, b4: bytes, address: bytes) -> bool:
        """True when ``b4`` has some ports of ``address``."""
        softwire = self._by_b4.get(b4)
        if softwire is not None and address in softwire.addresses:
            return True
        return any(IPv4Address(address) in home for home in self._homes(b4))

    def refuse(self, b4: bytes) -> None:
        """Something that came from ``b4`` was not its own."""
        softwire = self._by_b4.get(b4)
        if softwire is not None:
            softwire.refused += 1

    # ---- mapping rules

    def _homes(self, b4: bytes) -> Iterator[IPv4Network]:
        """The IPv4 address or prefix of the CE whose MAP address is ``b4``."""
        address = IPv6Address(b4)
        for rule in self._rules:
            if address in rule.rule_ipv6:
                ce = map_ce(rule, IPv6Network((b4, rule.end_user_len), strict=False))
                if ce.address == address:
                    yield ce.ipv4 if isinstance(ce.ipv4, IPv4Network) else IPv4Network(ce.ipv4)

    def _derive(self, address: bytes, port: int | None) -> Customer | None:
        """The binding that the longest matching rule gives (RFC 7597 5.3); it is remembered."""
        ipv4 = IPv4Address(address)
        rule = next((rule for rule in self._rules if ipv4 in rule.rule_ipv4), None)
        b4 = None if rule is None else ce_address_for(rule, ipv4, port)
        if rule is None or b4 is None:
            return None
        length = rule.embedded_psid_len
        psid = psid_of_port(port, rule.offset_len, length) if length and port is not None else None
        ports = rule.explicit_ports if psid is None else PortSet(rule.offset_len, length, psid)
        binding = Binding(ipv4, ports, b4)
        if self._overlapping(binding):
            return None  # a binding of the table goes before the rules
        customer = self._insert(Customer(binding, derived=True))
        self._derived[customer] = None
        if len(self._derived) > MAX_DERIVED:
            self.remove(next(iter(self._derived)).binding)
        return customer


def _shape_of(binding: Binding) -> tuple[int, int, int]:
    """(mask, lowest port, masked port): shapes of one mask have one lowest port."""
    ports = binding.ports
    return (0, 0, 0) if ports is None else (ports.mask, ports.floor, ports.value)
