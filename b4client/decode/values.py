"""Values of DHCP options for people and for programs: what each octet string means, by option code.

A decoder takes the value of one option and gives a :class:`Value`; it raises WireError for a value that is none, with
the offset inside the value where it knows one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from typing import Any, Final

from b4client.decode import plain
from b4client.decode.names import read_names
from b4client.decode.plain import Decoder, Value
from b4client.model.errors import WireError
from b4client.wire import aftrname, dhcp4, dhcp6, identity, softwire46
from b4client.wire.cursor import Reader, printable

# -------------------------------------------------------------------------------------------------------------- names


def _names(value: bytes) -> Value:
    return plain.listing(read_names(value, pointers=False))


def _compressed_names(value: bytes) -> Value:
    return plain.listing(read_names(value, pointers=True))


def _aftr_name(value: bytes) -> Value:
    name = aftrname.decode_aftr_name(value)
    return Value(name, name)


def _fqdn(value: bytes) -> Value:
    """Client FQDN (RFC 4702 2): flags, two unused octets, a name in DNS form (E bit) or in ASCII."""
    reader = Reader(value)
    flags = reader.u8("flags")
    reader.take(2, "result codes")
    rest = reader.rest()
    # A name in DNS form may be without its root label (RFC 4702 3.3).
    name = ".".join(read_names(rest + b"\0", pointers=False)[:1]) if flags & 4 else printable(rest)
    return Value({"flags": flags, "name": name}, f"{name} (flags {flags:#04x})")


# -------------------------------------------------------------------------------------------------- identity, status

_DUID_NAMES: Final = {int(kind): kind.name for kind in identity.DuidType}

_DUID_SHOWN_FROM: Final[Mapping[int, int]] = {identity.DuidType.LLT: 8, identity.DuidType.LL: 4}
"""Where the link-layer address begins."""


def _duid_text(data: bytes) -> str:
    duid = identity.decode_duid(data)
    name = _DUID_NAMES.get(duid.type)
    start = _DUID_SHOWN_FROM.get(duid.type, 2)
    return f"DUID-{name} {data[start:].hex(':')}".rstrip() if name else f"DUID of type {duid.type}: {data[2:].hex(':')}"


def _duid(value: bytes) -> Value:
    text = _duid_text(value)
    return Value({"type": int.from_bytes(value[:2], "big"), "duid": value.hex()}, text)


def _client_id(value: bytes) -> Value:
    """DHCPv4 client identifier (RFC 2132 9.14, RFC 4361 6.1)."""
    if len(value) < 2:
        raise WireError(f"client identifier of {len(value)} octets")
    if value[0] == identity.CLIENT_IDENTIFIER_TYPE:
        iaid, duid = identity.decode_client_identifier(value)
        return Value({"iaid": iaid, "duid": duid.hex()}, f"IAID {iaid:#x}, {_duid_text(duid)}")
    return Value({"type": value[0], "identifier": value[1:].hex()}, f"type {value[0]}: {value[1:].hex(':')}")


def _status(value: bytes) -> Value:
    code, text = dhcp6.decode_status(value)
    name = name_of(dhcp6.StatusCode, code, "status")
    return Value({"status": code, "name": name, "message": text}, f"{name} ({code})" + (f': "{text}"' if text else ""))


def name_of(kind: Any, number: int, what: str) -> str:
    """The name of a number in an enumeration, as the RFCs write it, or ``what`` and the number."""
    try:
        return str(kind(number).name)
    except ValueError:
        return f"{what}-{number}"


# ---------------------------------------------------------------------------------------------- lists of option codes


def _codes(kind: Any, decode_list: Callable[[bytes], tuple[int, ...]]) -> Decoder:
    def decode(value: bytes) -> Value:
        codes = decode_list(value)
        return Value(list(codes), ", ".join(f"{code} {name_of(kind, code, 'option')}" for code in codes))

    return decode


def _message_type4(value: bytes) -> Value:
    number = plain.exactly(value, 1)[0]
    return Value(number, f"{name_of(dhcp4.MessageType, number, 'type')} ({number})")


# ----------------------------------------------------------------------------------------- associations and softwires


def _ia(value: bytes) -> Value:
    ia = Reader(value)
    iaid, t1, t2 = (ia.u32("identity association") for _ in range(3))
    return Value(
        {"iaid": iaid, "t1": t1, "t2": t2},
        f"IAID {iaid:#x}, T1 {plain.time_text(t1)}, T2 {plain.time_text(t2)}",
        ia.offset,
    )


def _ia_ta(value: bytes) -> Value:
    iaid = Reader(value).u32("identity association")
    return Value({"iaid": iaid}, f"IAID {iaid:#x}", 4)


def _lifetimes(preferred: int, valid: int) -> str:
    return f"preferred {plain.time_text(preferred)}, valid {plain.time_text(valid)}"


def _iaaddr(value: bytes) -> Value:
    reader = Reader(value)
    address, preferred, valid = reader.ipv6(), reader.u32("lifetime"), reader.u32("lifetime")
    data = {"address": str(address), "preferred": preferred, "valid": valid}
    return Value(data, f"{address}, {_lifetimes(preferred, valid)}", reader.offset)


def _iaprefix(value: bytes) -> Value:
    prefix = dhcp6.decode_iaprefix(value[:25])
    data = {"prefix": str(prefix.prefix), "preferred": prefix.preferred, "valid": prefix.valid}
    return Value(data, f"{prefix.prefix}, {_lifetimes(prefix.preferred, prefix.valid)}", 25)


def _port_params(value: bytes) -> Value:
    params = softwire46.decode_portparams(value)
    data = {"offset": params.offset_len, "psid_len": params.psid_len, "psid": params.psid if params.psid_len else None}
    ports = params.port_set()
    text = f"offset {params.offset_len}, not shared"
    if ports is not None:
        count = f"{ports.port_count} ports" if ports.port_count > 1 else "1 port"
        text = f"{ports}: {count}, {ports.range_at(0)}" + (" and so on" if ports.range_count > 1 else "")
    if params.padding:
        text += f" (padding bits {params.padding:#x} set)"
    return Value(data, text)


def _rule(value: bytes) -> Value:
    rule = softwire46.decode_rule(value[: 8 + _prefix_octets(value, 7)])
    data = {
        "fmr": rule.fmr,
        "ea_len": rule.ea_len,
        "rule_ipv4": str(rule.rule_ipv4),
        "rule_ipv6": str(rule.rule_ipv6),
    }
    text = f"{rule.rule_ipv4} in {rule.rule_ipv6}, {rule.ea_len} EA bits" + (", also for forwarding" * rule.fmr)
    return Value(data, text, 8 + _prefix_octets(value, 7))


def _binding(value: bytes) -> Value:
    end = 5 + _prefix_octets(value, 4)
    binding = softwire46.decode_v4v6bind(value[:end])
    data = {"ipv4": str(binding.ipv4), "prefix": str(binding.prefix)}
    return Value(data, f"{binding.ipv4} in {binding.prefix}", end)


def _prefix_octets(value: bytes, at: int) -> int:
    return (value[at] + 7) // 8 if len(value) > at else 0


def _prefix6(value: bytes) -> Value:
    text = str(softwire46.decode_bind_prefix(value))
    return Value(text, text)


def _border_relay(value: bytes) -> Value:
    text = str(softwire46.decode_br(value))
    return Value(text, text)


def _servers_4o6(value: bytes) -> Value:
    servers = plain.addresses6(value)
    return servers if value else Value([], f"empty: {dhcp6.ALL_SERVERS}")


def _container(_value: bytes) -> Value:
    return Value(None, "", 0)


# ----------------------------------------------------------------------------------------------------- other DHCPv6/4


def _opaque_list(value: bytes) -> Value:
    return plain.listing([item.hex() for item in _counted(Reader(value))])


def _counted(reader: Reader) -> list[bytes]:
    items = []
    while reader.remaining:
        items.append(reader.take(reader.u16("length"), "data"))
    return items


def _vendor_class(value: bytes) -> Value:
    reader = Reader(value)
    enterprise = reader.u32("enterprise number")
    items = [item.hex() for item in _counted(reader)]
    return Value({"enterprise": enterprise, "data": items}, f"enterprise {enterprise}: {', '.join(items)}")


def _vendor_options(value: bytes) -> Value:
    reader = Reader(value)
    enterprise = reader.u32("enterprise number")
    rest = reader.rest()
    return Value({"enterprise": enterprise, "data": rest.hex()}, f"enterprise {enterprise}: {plain.octets(rest).text}")


def _sub_options4(value: bytes) -> Value:
    reader = Reader(value)
    found = []
    while reader.remaining:
        code = reader.u8("sub-option")
        found.append({"code": code, "hex": reader.take(reader.u8("sub-option"), "sub-option").hex()})
    return Value(found, ", ".join(f"{item['code']}: {item['hex']}" for item in found))


def _classless_routes(value: bytes) -> Value:
    """RFC 3442: prefix length, as many octets of the network as it needs, router."""
    reader = Reader(value)
    routes = []
    while reader.remaining:
        length = reader.u8("prefix length")
        if length > 32:
            raise WireError(f"prefix of {length} bits", reader.offset - 1)
        network = reader.take((length + 7) // 8, "network").ljust(4, b"\0")
        routes.append({"network": str(IPv4Network((network, length), strict=False)), "router": str(reader.ipv4())})
    if not routes:
        raise WireError("no route")
    return Value(routes, ", ".join(f"{r['network']} by {r['router']}" for r in routes))


def _static_routes(value: bytes) -> Value:
    if not value or len(value) % 8:
        raise WireError(f"{len(value)} octets are no list of routes")
    reader = Reader(value)
    routes = [{"network": str(reader.ipv4()), "router": str(reader.ipv4())} for _ in range(len(value) // 8)]
    return Value(routes, ", ".join(f"{r['network']} by {r['router']}" for r in routes))


# ------------------------------------------------------------------------------------------------------------- tables

_6, _4 = dhcp6.Option, dhcp4.Option

DHCP6: Final[Mapping[int, Decoder]] = {
    _6.CLIENTID: _duid,
    _6.SERVERID: _duid,
    _6.IA_NA: _ia,
    _6.IA_TA: _ia_ta,
    _6.IAADDR: _iaaddr,
    _6.ORO: _codes(_6, dhcp6.decode_oro),
    _6.PREFERENCE: plain.number(1),
    _6.ELAPSED_TIME: plain.elapsed,
    _6.RELAY_MSG: plain.message("dhcpv6"),
    _6.UNICAST: plain.address6,
    _6.STATUS_CODE: _status,
    _6.RAPID_COMMIT: plain.nothing,
    _6.USER_CLASS: _opaque_list,
    _6.VENDOR_CLASS: _vendor_class,
    _6.VENDOR_OPTS: _vendor_options,
    _6.INTERFACE_ID: plain.text,
    _6.RECONF_MSG: plain.number(1),
    _6.RECONF_ACCEPT: plain.nothing,
    _6.DNS_SERVERS: plain.addresses6,
    _6.DOMAIN_LIST: _names,
    _6.IA_PD: _ia,
    _6.IAPREFIX: _iaprefix,
    _6.SNTP_SERVERS: plain.addresses6,
    _6.INFORMATION_REFRESH_TIME: plain.seconds,
    _6.AFTR_NAME: _aftr_name,
    _6.SOL_MAX_RT: plain.seconds,
    _6.INF_MAX_RT: plain.seconds,
    _6.DHCPV4_MSG: plain.message("dhcpv4"),
    _6.DHCP4_O_DHCP6_SERVER: _servers_4o6,
    _6.S46_RULE: _rule,
    _6.S46_BR: _border_relay,
    _6.S46_DMR: _prefix6,
    _6.S46_V4V6BIND: _binding,
    _6.S46_PORTPARAMS: _port_params,
    _6.S46_CONT_MAPE: _container,
    _6.S46_CONT_MAPT: _container,
    _6.S46_CONT_LW: _container,
    _6.S46_PRIORITY: _codes(_6, softwire46.decode_priority),
    _6.S46_BIND_IPV6_PREFIX: _prefix6,
}
"""DHCPv6 options. What is not here is shown as octets."""

CONTAINERS: Final[Mapping[int, Callable[[bytes], object]]] = {
    _6.S46_CONT_MAPE: softwire46.decode_mape,
    _6.S46_CONT_MAPT: softwire46.decode_mapt,
    _6.S46_CONT_LW: softwire46.decode_lw4o6,
}
"""What judges a container as a whole."""

DHCP4: Final[Mapping[int, Decoder]] = {
    _4.SUBNET_MASK: plain.address4,
    _4.TIME_OFFSET: plain.number(4, signed=True, unit=" s"),
    _4.ROUTER: plain.addresses4,
    _4.TIME_SERVER: plain.addresses4,
    _4.DNS: plain.addresses4,
    _4.LOG_SERVER: plain.addresses4,
    _4.HOSTNAME: plain.text,
    _4.DOMAIN: plain.text,
    _4.MTU: plain.number(2),
    _4.BROADCAST_ADDRESS: plain.address4,
    _4.STATIC_ROUTES: _static_routes,
    _4.NTP: plain.addresses4,
    _4.REQUESTED_ADDRESS: plain.address4,
    _4.LEASE_TIME: plain.seconds,
    _4.OVERLOAD: plain.number(1),
    _4.MESSAGE_TYPE: _message_type4,
    _4.SERVER_ID: plain.address4,
    _4.PARAMETER_LIST: _codes(_4, tuple),
    _4.MESSAGE: plain.text,
    _4.MAX_SIZE: plain.number(2),
    _4.T1: plain.seconds,
    _4.T2: plain.seconds,
    _4.VENDOR_CLASS: plain.text,
    _4.CLIENT_ID: _client_id,
    _4.TFTP_SERVER: plain.text,
    _4.BOOTFILE: plain.text,
    _4.RAPID_COMMIT: plain.nothing,
    _4.CLIENT_FQDN: _fqdn,
    _4.RELAY_AGENT_INFORMATION: _sub_options4,
    _4.V6ONLY_PREFERRED: plain.seconds,
    _4.S46_SADDR: plain.address6,
    _4.CAPTIVE_PORTAL: plain.text,
    _4.DOMAIN_SEARCH: _compressed_names,
    _4.CLASSLESS_ROUTES: _classless_routes,
    _4.V4_PORTPARAMS: _port_params,
}
"""DHCPv4 options. What is not here is shown as octets."""
