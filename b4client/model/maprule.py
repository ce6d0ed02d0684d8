"""MAP-E mapping rules and softwire addresses (RFC 7597 5.2-5.4, 6; RFC 7596 5.1).

A rule says how an End-user IPv6 prefix and an IPv4 address with its ports follow from each other::

    | rule IPv6 prefix: n bits | EA bits: o bits           | subnet: zeros to 64 | interface identifier |
    |<------------- End-user IPv6 prefix ---------------->|
                               | IPv4 suffix: p | PSID: q |

With r, the length of the rule's IPv4 prefix: r + o < 32 gives an IPv4 prefix, r + o = 32 a whole address, r + o > 32 an
address that is shared, with a PSID of q = r + o - 32 bits. Where the EA bits hold no PSID one may be given beside them
(option 93, or option 159 by DHCP 4o6): then an address with r + o = 32 is shared as well (RFC 7597 App. A ex. 5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal

from b4client.model.portset import PORT_BITS, PortSet, psid_of_port

IPV4_BITS: Final = 32
IPV6_BITS: Final = 128
MAX_EA_LEN: Final = 48
DEFAULT_OFFSET_LEN: Final = 6
"""a in RFC 7597 5.1 when no port parameters give another one [M-4]."""

InterfaceIdentifier = Literal["rfc7597", "draft03"]
"""Layout of the lower 64 bits. ``rfc7597``: 16 zero bits, IPv4 address, PSID (RFC 7597 6). ``draft03``: eight zero
bits, IPv4 address, PSID, eight zero bits, as in draft-ietf-softwire-map-03, which some operators still use (OpenWrt's
``legacymap``). In both the PSID is right-aligned in its 16 bits."""


@dataclass(frozen=True, slots=True)
class MappingRule:
    """A mapping rule (RFC 7597 5). ``ea_len`` (o) 0..48 bits; ``offset_len`` (a) 0..15 bits.

    ``psid`` of ``psid_len`` bits is the explicit PSID of port parameters inside the rule; a length of 0 means none
    (RFC 7598 4.5). ``fmr``: the rule is for forwarding, too. Raises ValueError when the lengths fit no rule.
    """

    rule_ipv6: IPv6Network
    rule_ipv4: IPv4Network
    ea_len: int
    offset_len: int = DEFAULT_OFFSET_LEN
    psid_len: int = 0
    psid: int = 0
    fmr: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.ea_len <= MAX_EA_LEN:
            raise ValueError(f"the EA bits must be 0 to {MAX_EA_LEN}, not {self.ea_len}")
        if self.rule_ipv6.prefixlen + self.ea_len > IPV6_BITS:
            raise ValueError(f"{self.ea_len} EA bits behind {self.rule_ipv6} exceed the {IPV6_BITS} bits of an address")
        if not 0 <= self.offset_len < PORT_BITS:
            raise ValueError(f"the offset must be 0 to 15 bits, not {self.offset_len}")
        embedded = self.embedded_psid_len
        if self.offset_len + embedded > PORT_BITS:
            raise ValueError(
                f"{self.ea_len} EA bits for {self.rule_ipv4} leave a PSID of {embedded} bits, which with an offset of "
                f"{self.offset_len} exceeds the {PORT_BITS} bits of a port"
            )
        if self.psid_len:
            PortSet(self.offset_len, self.psid_len, self.psid)  # raises ValueError
        elif self.psid:
            raise ValueError(f"PSID {self.psid} does not fit in 0 bits")
        if embedded and self.psid_len not in (0, embedded):
            raise ValueError(f"a PSID of {self.psid_len} bits is given, but the EA bits hold one of {embedded} bits")

    @property
    def suffix_len(self) -> int:
        """Bits of the IPv4 address in the EA bits: p in RFC 7597 5.2."""
        return min(self.ea_len, IPV4_BITS - self.rule_ipv4.prefixlen)

    @property
    def embedded_psid_len(self) -> int:
        """Bits of the PSID in the EA bits: q in RFC 7597 5.2. 0 when they hold none."""
        return self.ea_len - self.suffix_len

    @property
    def ipv4_len(self) -> int:
        """Length of the IPv4 prefix that a CE gets; 32 is an address."""
        return self.rule_ipv4.prefixlen + self.suffix_len

    @property
    def end_user_len(self) -> int:
        """Bits of an End-user prefix that the rule knows about: n + o."""
        return self.rule_ipv6.prefixlen + self.ea_len

    @property
    def explicit_ports(self) -> PortSet | None:
        """The port set of the explicit PSID. None also for an IPv4 prefix, where it MUST be discarded
        (RFC 7598 4.5 [P-10])."""
        if not self.psid_len or self.ipv4_len < IPV4_BITS:
            return None
        return PortSet(self.offset_len, self.psid_len, self.psid)


@dataclass(frozen=True, slots=True)
class MapCe:
    """What a CE has by its Basic Mapping Rule.

    ``ipv4`` is an address, or a network when the rule assigns a prefix shorter than 32 bits; ``ports`` is None when it
    is not shared. ``address`` is the MAP IPv6 address: source of the softwire, to be assigned to an interface [M-8].
    """

    rule: MappingRule
    end_user_prefix: IPv6Network
    ipv4: IPv4Address | IPv4Network
    ports: PortSet | None
    address: IPv6Address


def lw_address(prefix: IPv6Network, ipv4: IPv4Address, psid: int) -> IPv6Address:
    """The lwB4's /128: ``prefix`` padded with zeros to 64 bits, 0x0000, ``ipv4``, ``psid`` (RFC 7596 5.1 Fig. 3 [L-3]).

    ``psid`` is the ordinary integer, 0 for an address that is not shared. A prefix longer than 64 bits overwrites what
    it reaches of the lower half (RFC 7597 6 [M-7, X-10]). Raises ValueError when the PSID does not fit in 16 bits.
    """
    return _address(prefix, int(ipv4), psid, "rfc7597")


def _address(prefix: IPv6Network, ipv4: int, psid: int, layout: InterfaceIdentifier) -> IPv6Address:
    if not 0 <= psid < 1 << PORT_BITS:
        raise ValueError(f"PSID {psid} does not fit in the 16 bits of an interface identifier")
    identifier = ipv4 << PORT_BITS | psid
    if layout == "draft03":
        identifier <<= 8
    return IPv6Address(int(prefix.network_address) | identifier & int(prefix.hostmask))


def select_bmr(rules: Iterable[MappingRule], end_user_prefix: IPv6Network) -> MappingRule | None:
    """The Basic Mapping Rule: the longest match of a rule's IPv6 prefix (RFC 7597 5 [M-1]); None when none matches.

    Raises ValueError when two rules that differ in more than the F flag match equally well: there can only be one.
    """
    matching = [rule for rule in rules if end_user_prefix.subnet_of(rule.rule_ipv6)]
    if not matching:
        return None
    longest = max(rule.rule_ipv6.prefixlen for rule in matching)
    best = [rule for rule in matching if rule.rule_ipv6.prefixlen == longest]
    if len({replace(rule, fmr=False) for rule in best}) > 1:
        raise ValueError(f"{end_user_prefix} matches several rules for {best[0].rule_ipv6}; only one can be basic")
    return best[0]


def map_ce(
    rule: MappingRule,
    end_user_prefix: IPv6Network,
    explicit: PortSet | None = None,
    interface_identifier: InterfaceIdentifier = "rfc7597",
) -> MapCe:
    """IPv4 address, ports and IPv6 address of the CE that has ``end_user_prefix`` (RFC 7597 5.2, 6 [M-2, M-3, M-5..7]).

    ``explicit`` is a port set given beside the rule (option 159); it goes before the one inside the rule, and both are
    ignored where the CE gets an IPv4 prefix [P-10]. Raises ValueError when the prefix does not belong to the rule, is
    too short for its EA bits, or an explicit PSID is another than the one in the EA bits.
    """
    if not end_user_prefix.subnet_of(rule.rule_ipv6):
        raise ValueError(f"the End-user prefix {end_user_prefix} is not inside the rule's {rule.rule_ipv6}")
    if end_user_prefix.prefixlen < rule.end_user_len:
        raise ValueError(
            f"the End-user prefix {end_user_prefix} is too short: {rule.rule_ipv6} and {rule.ea_len} EA bits "
            f"need {rule.end_user_len} bits"
        )
    ea_bits = int(end_user_prefix.network_address) >> (IPV6_BITS - rule.end_user_len) & _ones(rule.ea_len)
    suffix = ea_bits >> rule.embedded_psid_len
    network = int(rule.rule_ipv4.network_address) | suffix << (IPV4_BITS - rule.ipv4_len)
    ipv4: IPv4Address | IPv4Network
    if rule.ipv4_len < IPV4_BITS:
        ipv4, ports = IPv4Network((network, rule.ipv4_len)), None
    else:
        ipv4, ports = IPv4Address(network), _ports(rule, ea_bits, explicit)
    address = _address(end_user_prefix, network, 0 if ports is None else ports.psid, interface_identifier)
    return MapCe(rule, end_user_prefix, ipv4, ports, address)


def _ports(rule: MappingRule, ea_bits: int, explicit: PortSet | None) -> PortSet | None:
    given = explicit if explicit is not None else rule.explicit_ports
    length = rule.embedded_psid_len
    if not length:
        return given
    psid = ea_bits & _ones(length)
    if given is None:
        return PortSet(rule.offset_len, length, psid)
    # An explicit PSID MUST be used (RFC 7598 4.5), but to the PSID of another End-user prefix nothing would come back.
    if (given.psid_len, given.psid) != (length, psid):
        raise ValueError(
            f"the given PSID {given.psid:#x}/{given.psid_len} contradicts {psid:#x}/{length} in the End-user prefix"
        )
    return given


def ce_address_for(
    rule: MappingRule,
    ipv4: IPv4Address,
    port: int | None,
    interface_identifier: InterfaceIdentifier = "rfc7597",
) -> IPv6Address | None:
    """The MAP IPv6 address of the CE that has ``port`` of ``ipv4`` (RFC 7597 5.3): where a forwarding rule sends it.

    ``port`` is the identifier for ICMP queries, None for a protocol without ports. None when the rule does not cover
    it: another address, a port that the offset keeps from every CE, or a port outside an explicit PSID's set. What an
    End-user prefix has beyond rule prefix and EA bits is taken as zero: the rule cannot know it.
    """
    if ipv4 not in rule.rule_ipv4:
        return None
    psid = 0
    if rule.embedded_psid_len:
        owner = None if port is None else psid_of_port(port, rule.offset_len, rule.embedded_psid_len)
        if owner is None:
            return None
        psid = owner
    explicit = rule.explicit_ports
    if explicit is not None:
        if port is None or port not in explicit:
            return None
        psid = explicit.psid
    host_len = IPV4_BITS - rule.ipv4_len
    suffix = int(ipv4) >> host_len & _ones(rule.suffix_len)
    ea_bits = suffix << rule.embedded_psid_len | psid & _ones(rule.embedded_psid_len)
    known = IPV6_BITS - rule.end_user_len
    prefix = IPv6Network((int(rule.rule_ipv6.network_address) | ea_bits << known, rule.end_user_len))
    # An IPv4 prefix stands in the identifier padded with zeros (RFC 7597 6): one address for all hosts in it.
    return _address(prefix, int(ipv4) >> host_len << host_len, psid, interface_identifier)


def fmr_destination(
    rules: Iterable[MappingRule],
    ipv4: IPv4Address,
    port: int | None,
    interface_identifier: InterfaceIdentifier = "rfc7597",
) -> IPv6Address | None:
    """Where a packet to ``port`` of ``ipv4`` goes in mesh mode; None is the border relay (RFC 7597 5, 5.4 [M-9]).

    The longest match of the IPv4 prefix among the rules with the F flag decides; rules for the same prefix (one
    address with several explicit PSIDs) are tried in order. The same answer validates a packet's source [M-10].
    """
    matching = [rule for rule in rules if rule.fmr and ipv4 in rule.rule_ipv4]
    longest = max((rule.rule_ipv4.prefixlen for rule in matching), default=0)
    for rule in matching:
        if rule.rule_ipv4.prefixlen == longest:
            address = ce_address_for(rule, ipv4, port, interface_identifier)
            if address is not None:
                return address
    return None


def _ones(count: int) -> int:
    return (1 << count) - 1
