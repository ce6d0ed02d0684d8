"""Softwire options: DHCPv6 89-96, 111, 137 and DHCPv4 109, 159 (RFC 7598, 7618, 8026, 8539).

Every function works on the *value* of an option, without code and length. Rules for all of them:

- Bits of a prefix beyond its length and reserved flag bits are ignored when read and zero when written.
- Options inside options that are not known are ignored; known ones in a place where RFC 7598 6 does not permit them
  make the container invalid, as does any invalid value inside (RFC 7598 8): WireError.
- The PSID is left-aligned on the wire and an ordinary integer here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from b4client.model.portset import PORT_BITS, PortSet
from b4client.wire.cursor import Reader, WireError, Writer
from b4client.wire.dhcp6 import Option, Options, decode_options, encode_options, every

MAX_OFFSET_LEN: Final = 15
MAX_EA_LEN: Final = 48
FMR_FLAG: Final = 0x01
"""F, the least significant bit of a rule's flags (RFC 7598 4.1)."""


# --------------------------------------------------------------------------------------------------- port parameters


@dataclass(frozen=True, slots=True)
class PortParams:
    """Offset, PSID length and PSID of option 159 (RFC 7618 9) or 93 (RFC 7598 4.5).

    ``offset_len`` 0..15 bits, ``psid_len`` 0..16 bits, together at most 16 [P-3]; ``psid`` right-aligned, 0 when
    ``psid_len`` is 0. ``padding`` holds non-zero bits that stood right of the PSID, where zeros belong: worth a line
    in the log, never written, not part of the value (no part in ==). Raises ValueError for what is no such option.
    """

    offset_len: int
    psid_len: int
    psid: int
    padding: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        reason = _port_params_fault(self.offset_len, self.psid_len)
        if reason:
            raise ValueError(reason)
        if not 0 <= self.psid < 1 << self.psid_len:
            raise ValueError(f"PSID {self.psid} does not fit in {self.psid_len} bits")

    @property
    def looks_right_aligned(self) -> bool:
        """True when the 16 bits make sense only as a PSID that a server has aligned to the right, against RFC 7598 4.5.

        Read as the standard wants it such a field is another subscriber's PSID, mostly 0. A right-aligned PSID whose
        low bits happen to be zero cannot be told from a good one.
        """
        spare = PORT_BITS - self.psid_len
        return bool(self.padding) and self.psid << spare | self.padding < 1 << self.psid_len

    def port_set(self) -> PortSet | None:
        """The ports meant; None when the PSID length is 0, which is an address that is not shared [P-2]."""
        return PortSet(self.offset_len, self.psid_len, self.psid) if self.psid_len else None

    @classmethod
    def of(cls, ports: PortSet) -> PortParams:
        """The parameters that describe ``ports``."""
        return cls(ports.offset_len, ports.psid_len, ports.psid)

    @classmethod
    def hint(cls, psid_len: int) -> PortParams:
        """A wish for a size of port set only: offset and PSID 0 (RFC 7618 7 [S-18]). Raises ValueError."""
        return cls(0, psid_len, 0)


def _port_params_fault(offset_len: int, psid_len: int) -> str | None:
    if not 0 <= offset_len <= MAX_OFFSET_LEN:
        return f"PSID offset of {offset_len} bits"
    if not 0 <= psid_len <= PORT_BITS:
        return f"PSID length of {psid_len} bits"
    if offset_len + psid_len > PORT_BITS:
        return f"PSID offset {offset_len} and length {psid_len} exceed the 16 bits of a port"
    return None


def decode_portparams(value: bytes) -> PortParams:
    """Value of DHCPv4 option 159 or DHCPv6 option 93.

    Raises WireError [P-1, P-3]: not four octets (two joined instances of 159 are eight), offset above 15, PSID length
    above 16, or both together above 16.
    """
    reader = Reader(value)
    offset_len = reader.u8("port parameters")
    psid_len = reader.u8("port parameters")
    field_ = reader.u16("port parameters")
    reader.finish("port parameters")
    reason = _port_params_fault(offset_len, psid_len)
    if reason:
        raise WireError(reason)
    spare = PORT_BITS - psid_len
    return PortParams(offset_len, psid_len, field_ >> spare, field_ & ((1 << spare) - 1))


def encode_portparams(params: PortParams) -> bytes:
    """The inverse of ``decode_portparams``; padding bits are zero."""
    out = Writer().u8(params.offset_len).u8(params.psid_len).u16(params.psid << (PORT_BITS - params.psid_len))
    return out.finish()


def _port_params_inside(options: Options, where: str) -> PortParams | None:
    """The one option 93 among ``options``. Two of them contradict or repeat each other: refused."""
    values = every(options, Option.S46_PORTPARAMS)
    if len(values) > 1:
        raise WireError(f"{len(values)} S46_PORTPARAMS options in one {where}")
    return decode_portparams(values[0]) if values else None


def _port_params_options(params: PortParams | None) -> bytes:
    return b"" if params is None else encode_options(((Option.S46_PORTPARAMS, encode_portparams(params)),))


# ----------------------------------------------------------------------------------------- options inside containers


@dataclass(frozen=True, slots=True)
class Rule:
    """A mapping rule, option 89 (RFC 7598 4.1). ``fmr``: also for forwarding (F flag). ``ea_len`` 0..48 bits.

    Whether rule, EA bits and port parameters fit together is for whoever applies the rule to judge (RFC 7597 5.2).
    """

    fmr: bool
    ea_len: int
    rule_ipv4: IPv4Network
    rule_ipv6: IPv6Network
    port_params: PortParams | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.ea_len <= MAX_EA_LEN:
            raise ValueError(f"EA length of {self.ea_len} bits")


def decode_rule(value: bytes) -> Rule:
    """Value of option 89. Raises WireError: cut off, EA length above 48, prefix length above 32 or 128, option 93
    twice or malformed."""
    reader = Reader(value)
    flags = reader.u8("S46_RULE")
    ea_len = reader.u8("S46_RULE")
    if ea_len > MAX_EA_LEN:
        raise WireError(f"EA length of {ea_len} bits", 1)
    prefix4_len = reader.u8("S46_RULE")
    if prefix4_len > 32:
        raise WireError(f"IPv4 prefix of {prefix4_len} bits", 2)
    rule_ipv4 = IPv4Network((reader.take(4, "S46_RULE"), prefix4_len), strict=False)
    rule_ipv6 = reader.prefix6("rule IPv6 prefix")
    params = _port_params_inside(decode_options(value, reader.offset), "S46_RULE")
    return Rule(bool(flags & FMR_FLAG), ea_len, rule_ipv4, rule_ipv6, params)


def encode_rule(rule: Rule) -> bytes:
    """The inverse of ``decode_rule``."""
    out = Writer().u8(FMR_FLAG if rule.fmr else 0).u8(rule.ea_len).u8(rule.rule_ipv4.prefixlen)
    out.raw(rule.rule_ipv4.network_address.packed).prefix6(rule.rule_ipv6)
    return out.raw(_port_params_options(rule.port_params)).finish()


@dataclass(frozen=True, slots=True)
class V4V6Bind:
    """An IPv4 address, perhaps shared, and the IPv6 prefix that the tunnel source comes from, option 92 (7598 4.4)."""

    ipv4: IPv4Address
    prefix: IPv6Network
    port_params: PortParams | None = None


def decode_v4v6bind(value: bytes) -> V4V6Bind:
    """Value of option 92. Raises WireError: cut off, prefix length above 128, option 93 twice or malformed."""
    reader = Reader(value)
    ipv4 = reader.ipv4("S46_V4V6BIND")
    prefix = reader.prefix6("bind IPv6 prefix")
    return V4V6Bind(ipv4, prefix, _port_params_inside(decode_options(value, reader.offset), "S46_V4V6BIND"))


def encode_v4v6bind(binding: V4V6Bind) -> bytes:
    """The inverse of ``decode_v4v6bind``."""
    out = Writer().raw(binding.ipv4.packed).prefix6(binding.prefix)
    return out.raw(_port_params_options(binding.port_params)).finish()


def decode_br(value: bytes) -> IPv6Address:
    """Value of option 90, the border relay or lwAFTR (RFC 7598 4.2).

    Raises WireError unless it is sixteen octets and an address that a tunnel can go to: as a tunnel's remote end the
    unspecified address would mean "anyone".
    """
    reader = Reader(value)
    address = reader.ipv6("S46_BR")
    reader.finish("S46_BR")
    fault = _br_fault(address)
    if fault:
        raise WireError(fault)
    return address


def encode_br(address: IPv6Address) -> bytes:
    """The inverse of ``decode_br``. Raises ValueError for the same addresses."""
    fault = _br_fault(address)
    if fault:
        raise ValueError(fault)
    return address.packed


def _br_fault(address: IPv6Address) -> str | None:
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        return f"{address} cannot be a border relay"
    return None


def decode_dmr(value: bytes) -> IPv6Network:
    """Value of option 91, the default mapping rule of MAP-T (RFC 7598 4.3). Raises WireError: length above 128 or not
    exactly as many octets as it needs."""
    return _decode_prefix(value, "S46_DMR")


def encode_dmr(prefix: IPv6Network) -> bytes:
    """The inverse of ``decode_dmr``."""
    return Writer().prefix6(prefix).finish()


def decode_bind_prefix(value: bytes) -> IPv6Network:
    """Value of option 137, the prefix that the server proposes for the tunnel source (RFC 8539 6.1, 7.4 [E-4]).

    Raises WireError: length above 128 or not exactly (length + 7) / 8 octets.
    """
    return _decode_prefix(value, "S46_BIND_IPV6_PREFIX")


def encode_bind_prefix(prefix: IPv6Network) -> bytes:
    """The inverse of ``decode_bind_prefix``."""
    return Writer().prefix6(prefix).finish()


def _decode_prefix(value: bytes, what: str) -> IPv6Network:
    reader = Reader(value)
    prefix = reader.prefix6(what)
    reader.finish(what)
    return prefix


# -------------------------------------------------------------------------------------------------------- containers


@dataclass(frozen=True, slots=True)
class MapEContainer:
    """Option 94 (RFC 7598 5.1): at least one rule and one border relay."""

    rules: tuple[Rule, ...]
    brs: tuple[IPv6Address, ...]


@dataclass(frozen=True, slots=True)
class MapTContainer:
    """Option 95 (RFC 7598 5.2): at least one rule, exactly one default mapping rule."""

    rules: tuple[Rule, ...]
    dmr: IPv6Network


@dataclass(frozen=True, slots=True)
class Lw4o6Container:
    """Option 96 (RFC 7598 5.3): at least one lwAFTR, at most one binding."""

    brs: tuple[IPv6Address, ...]
    binding: V4V6Bind | None = None


# RFC 7598 6, table 1: what each container must not hold. The table lists option 93 for every container, but 4.5 says
# that it is contained in a rule or a binding. What one that stands beside them belongs to is said nowhere; ignoring it
# could turn a shared address into a whole one, so it is refused as well.
_NOT_IN_MAPE: Final = (Option.S46_DMR, Option.S46_V4V6BIND, Option.S46_PORTPARAMS)
_NOT_IN_MAPT: Final = (Option.S46_BR, Option.S46_V4V6BIND, Option.S46_PORTPARAMS)
_NOT_IN_LW: Final = (Option.S46_RULE, Option.S46_DMR, Option.S46_PORTPARAMS)


def _cut_container(value: bytes, refused: tuple[Option, ...], what: str) -> Options:
    options = decode_options(value)
    for code, _ in options:
        if code in refused:
            raise WireError(f"option {code} in a {what} container")
    return options


def decode_mape(value: bytes) -> MapEContainer:
    """Value of option 94. Raises WireError: no rule, no border relay, an option that is not permitted, or any invalid
    value inside."""
    options = _cut_container(value, _NOT_IN_MAPE, "MAP-E")
    rules = tuple(decode_rule(v) for v in every(options, Option.S46_RULE))
    brs = tuple(decode_br(v) for v in every(options, Option.S46_BR))
    if not rules or not brs:
        raise WireError(f"MAP-E container with {len(rules)} rules and {len(brs)} border relays")
    return MapEContainer(rules, brs)


def encode_mape(container: MapEContainer) -> bytes:
    """The inverse of ``decode_mape``: rules, then border relays. Raises ValueError when either is missing."""
    if not container.rules or not container.brs:
        raise ValueError("a MAP-E container needs a rule and a border relay")
    rules = tuple((int(Option.S46_RULE), encode_rule(r)) for r in container.rules)
    return encode_options(rules + _br_options(container.brs))


def decode_mapt(value: bytes) -> MapTContainer:
    """Value of option 95. Raises WireError: no rule, not exactly one DMR, an option that is not permitted, or any
    invalid value inside."""
    options = _cut_container(value, _NOT_IN_MAPT, "MAP-T")
    rules = tuple(decode_rule(v) for v in every(options, Option.S46_RULE))
    dmrs = tuple(decode_dmr(v) for v in every(options, Option.S46_DMR))
    if not rules or len(dmrs) != 1:
        raise WireError(f"MAP-T container with {len(rules)} rules and {len(dmrs)} default mapping rules")
    return MapTContainer(rules, dmrs[0])


def encode_mapt(container: MapTContainer) -> bytes:
    """The inverse of ``decode_mapt``: rules, then DMR. Raises ValueError when there is no rule."""
    if not container.rules:
        raise ValueError("a MAP-T container needs a rule")
    rules = tuple((int(Option.S46_RULE), encode_rule(r)) for r in container.rules)
    return encode_options((*rules, (Option.S46_DMR, encode_dmr(container.dmr))))


def decode_lw4o6(value: bytes) -> Lw4o6Container:
    """Value of option 96. Raises WireError: no lwAFTR, more than one binding, an option that is not permitted, or any
    invalid value inside."""
    options = _cut_container(value, _NOT_IN_LW, "lightweight 4over6")
    bindings = tuple(decode_v4v6bind(v) for v in every(options, Option.S46_V4V6BIND))
    brs = tuple(decode_br(v) for v in every(options, Option.S46_BR))
    if len(bindings) > 1 or not brs:
        raise WireError(f"lightweight 4over6 container with {len(bindings)} bindings and {len(brs)} lwAFTRs")
    return Lw4o6Container(brs, bindings[0] if bindings else None)


def encode_lw4o6(container: Lw4o6Container) -> bytes:
    """The inverse of ``decode_lw4o6``: binding, then lwAFTRs. Raises ValueError when there is no lwAFTR."""
    if not container.brs:
        raise ValueError("a lightweight 4over6 container needs an lwAFTR")
    binding: Options = ()
    if container.binding is not None:
        binding = ((Option.S46_V4V6BIND, encode_v4v6bind(container.binding)),)
    return encode_options(binding + _br_options(container.brs))


def _br_options(brs: tuple[IPv6Address, ...]) -> Options:
    return tuple((int(Option.S46_BR), encode_br(address)) for address in brs)


# ------------------------------------------------------------------------------------------------------ plain values


def decode_priority(value: bytes) -> tuple[int, ...]:
    """Value of option 111: option codes of mechanisms, best first (RFC 8026 1.3 [F-13]). Unknown codes are kept.

    Raises WireError: empty, odd length, or a code that stands twice.
    """
    if not value or len(value) % 2:
        raise WireError(f"S46_PRIORITY of {len(value)} octets")
    codes = tuple(int.from_bytes(value[i : i + 2], "big") for i in range(0, len(value), 2))
    if len(set(codes)) != len(codes):
        raise WireError("a code stands twice in S46_PRIORITY")
    return codes


def encode_priority(codes: Iterable[int]) -> bytes:
    """The inverse of ``decode_priority``. Raises ValueError: empty, a code twice, or above 65535."""
    listed = tuple(codes)
    if not listed or len(set(listed)) != len(listed):
        raise ValueError(f"no priority list: {listed}")
    out = Writer()
    for code in listed:
        out.u16(code, "option code")
    return out.finish("S46_PRIORITY")


def decode_saddr(value: bytes) -> IPv6Address:
    """Value of DHCPv4 option 109, the softwire's IPv6 source (RFC 8539 6.2). Raises WireError unless 16 octets."""
    reader = Reader(value)
    address = reader.ipv6("DHCP4O6_S46_SADDR")
    reader.finish("DHCP4O6_S46_SADDR")
    return address


def encode_saddr(address: IPv6Address) -> bytes:
    """The inverse of ``decode_saddr``."""
    return address.packed
