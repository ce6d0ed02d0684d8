"""For any octets: a value or WireError. For any value: octets that read back as that value."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from b4client.wire import aftrname, dhcp4, dhcp4o6, dhcp6, identity, softwire46
from b4client.wire.cursor import WireError, printable

quick = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])

# ------------------------------------------------------------------------------------------------------------- values

ipv4 = st.integers(0, 2**32 - 1).map(IPv4Address)
ipv6 = st.integers(0, 2**128 - 1).map(IPv6Address)
border_relays = ipv6.filter(lambda a: not (a.is_unspecified or a.is_multicast or a.is_loopback))
prefix4 = st.builds(lambda a, n: IPv4Network((a, n), strict=False), ipv4, st.integers(0, 32))
prefix6 = st.builds(lambda a, n: IPv6Network((a, n), strict=False), ipv6, st.integers(0, 128))
u8, u16, u24, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 24, 32))


def no_trailing_zero(limit: int) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=limit).map(lambda b: b.rstrip(b"\0"))


@st.composite
def dhcp4_options(draw: st.DrawFn) -> tuple[tuple[int, bytes], ...]:
    codes = draw(st.lists(st.integers(1, 254).filter(lambda c: c not in (52, 53)), unique=True, max_size=6))
    options = [(code, draw(st.binary(max_size=600))) for code in codes]
    if draw(st.booleans()):
        options.insert(draw(st.integers(0, len(options))), (53, draw(st.binary(min_size=1, max_size=1))))
    return tuple(options)


dhcp4_messages = st.builds(
    dhcp4.Dhcp4Message,
    op=st.sampled_from((1, 2)),
    xid=u32,
    secs=u16,
    broadcast=st.booleans(),
    ciaddr=ipv4,
    yiaddr=ipv4,
    siaddr=ipv4,
    giaddr=ipv4,
    htype=u8,
    hops=u8,
    chaddr=st.binary(max_size=16),
    sname=no_trailing_zero(64),
    file=no_trailing_zero(128),
    options=dhcp4_options(),
)
options6 = st.lists(st.tuples(u16, st.binary(max_size=40)), max_size=6).map(tuple)
options_beside_87 = options6.map(lambda options: tuple(o for o in options if o[0] != 87))
dhcp6_messages = st.builds(dhcp6.Dhcp6Message, st.integers(1, 11), u24, options6)
relay_messages = st.builds(dhcp6.RelayMessage, st.sampled_from((12, 13)), u8, ipv6, ipv6, options6)
dhcp4o6_messages = st.builds(dhcp4o6.Dhcp4o6Message, st.just(21), u24, st.binary(max_size=400), options_beside_87)


@st.composite
def port_params(draw: st.DrawFn) -> softwire46.PortParams:
    offset_len = draw(st.integers(0, 15))
    psid_len = draw(st.integers(0, 16 - offset_len))
    return softwire46.PortParams(offset_len, psid_len, draw(st.integers(0, 2**psid_len - 1)))


rules = st.builds(softwire46.Rule, st.booleans(), st.integers(0, 48), prefix4, prefix6, st.none() | port_params())
bindings = st.builds(softwire46.V4V6Bind, ipv4, prefix6, st.none() | port_params())
some_rules = st.lists(rules, min_size=1, max_size=4).map(tuple)
some_brs = st.lists(border_relays, min_size=1, max_size=3).map(tuple)
labels = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=1, max_size=63)
names = st.lists(labels, min_size=1, max_size=3).map(lambda parts: ".".join(parts) + ".").filter(lambda n: len(n) > 2)


def encode_4o6(message: dhcp4o6.Dhcp4o6Message) -> bytes:
    if message.msg_type == 20:
        # The 23 reserved bits are never written (RFC 7341 6.3).
        return dhcp4o6.encode_query(message.dhcp4, unicast=message.unicast, options=message.options)
    return dhcp4o6.encode_response(message.dhcp4, options=message.options, flags=message.flags)


Encode = Callable[[Any], bytes]
# name: (decode, encode, values)
CODECS: dict[str, tuple[Callable[[bytes], Any], Encode, st.SearchStrategy[Any]]] = {
    "dhcp4": (dhcp4.decode, dhcp4.encode, dhcp4_messages),
    "dhcp6": (dhcp6.decode, dhcp6.encode, dhcp6_messages),
    "relay": (dhcp6.decode_relay, dhcp6.encode_relay, relay_messages),
    "options": (dhcp6.decode_options, dhcp6.encode_options, options6),
    "oro": (dhcp6.decode_oro, dhcp6.encode_oro, st.lists(u16, max_size=20).map(tuple)),
    "seconds": (dhcp6.decode_seconds, dhcp6.encode_seconds, u32),
    "elapsed": (dhcp6.decode_elapsed, lambda v: dhcp6.encode_elapsed(v / 100), u16),
    "ia": (
        dhcp6.decode_ia,
        dhcp6.encode_ia,
        st.builds(dhcp6.IdentityAssociation, u32, u32, u32, options6),
    ),
    "iaaddr": (dhcp6.decode_iaaddr, dhcp6.encode_iaaddr, st.builds(dhcp6.IaAddress, ipv6, u32, u32, options6)),
    "iaprefix": (dhcp6.decode_iaprefix, dhcp6.encode_iaprefix, st.builds(dhcp6.IaPrefix, prefix6, u32, u32, options6)),
    "4o6": (dhcp4o6.decode, encode_4o6, dhcp4o6_messages),
    "servers": (
        dhcp4o6.decode_servers,
        dhcp4o6.encode_servers,
        st.lists(ipv6, unique=True, max_size=dhcp4o6.MAX_SERVERS).map(tuple),
    ),
    "portparams": (softwire46.decode_portparams, softwire46.encode_portparams, port_params()),
    "rule": (softwire46.decode_rule, softwire46.encode_rule, rules),
    "v4v6bind": (softwire46.decode_v4v6bind, softwire46.encode_v4v6bind, bindings),
    "br": (softwire46.decode_br, softwire46.encode_br, border_relays),
    "dmr": (softwire46.decode_dmr, softwire46.encode_dmr, prefix6),
    "bind-prefix": (softwire46.decode_bind_prefix, softwire46.encode_bind_prefix, prefix6),
    "mape": (
        softwire46.decode_mape,
        softwire46.encode_mape,
        st.builds(softwire46.MapEContainer, some_rules, some_brs),
    ),
    "mapt": (
        softwire46.decode_mapt,
        softwire46.encode_mapt,
        st.builds(softwire46.MapTContainer, some_rules, prefix6),
    ),
    "lw4o6": (
        softwire46.decode_lw4o6,
        softwire46.encode_lw4o6,
        st.builds(softwire46.Lw4o6Container, some_brs, st.none() | bindings),
    ),
    "priority": (
        softwire46.decode_priority,
        softwire46.encode_priority,
        st.lists(u16, unique=True, min_size=1, max_size=8).map(tuple),
    ),
    "saddr": (softwire46.decode_saddr, softwire46.encode_saddr, ipv6),
    "aftr-name": (aftrname.decode_aftr_name, aftrname.encode_aftr_name, names),
    "duid": (identity.decode_duid, bytes, st.binary(min_size=3, max_size=130).map(identity.Duid)),
    "client-id": (
        identity.decode_client_identifier,
        lambda v: identity.client_identifier(*v),
        st.tuples(u32, st.binary(min_size=3, max_size=130)),
    ),
}
ALL_CODECS = pytest.mark.parametrize("name", CODECS)


def value_or_wire_error(name: str, data: bytes) -> None:
    """The contract of every decoder; and what it returns, its encoder writes so that it reads back the same."""
    decode, encode, _ = CODECS[name]
    try:
        value = decode(data)
    except WireError:
        return
    assert decode(encode(value)) == (
        # A query's reserved flags are ignored and not written again.
        dhcp4o6.Dhcp4o6Message(20, value.flags & 0x800000, value.dhcp4, value.options)
        if name == "4o6" and value.msg_type == 20
        else value
    )


@ALL_CODECS
def test_every_value_reads_back(name):
    decode, encode, values = CODECS[name]

    @quick
    @given(values)
    def check(value: Any) -> None:
        octets = encode(value)
        assert decode(octets) == value
        assert encode(decode(octets)) == octets

    check()


@ALL_CODECS
def test_any_octets_give_a_value_or_wire_error(name):
    @quick
    @given(st.binary(max_size=400))
    def check(data: bytes) -> None:
        value_or_wire_error(name, data)

    check()


@st.composite
def damaged(draw: st.DrawFn, octets: st.SearchStrategy[bytes]) -> bytes:
    """Octets that were a valid encoding until something happened to them: these reach the inner decoders."""
    data = bytearray(draw(octets))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("set", "insert", "delete", "double", "cut"))):
            case "set" if at < len(data):
                data[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | u8)
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=4))
            case "delete":
                del data[at : at + draw(st.integers(1, 4))]
            case "double":
                data[at:at] = data[at : at + 20]
            case _:
                del data[at:]
    return bytes(data)


@ALL_CODECS
def test_damaged_octets_give_a_value_or_wire_error(name):
    _, encode, values = CODECS[name]

    @quick
    @given(damaged(values.map(encode)))
    def check(data: bytes) -> None:
        value_or_wire_error(name, data)

    check()


@quick
@given(st.binary(max_size=300), st.integers(0, 64))
def test_damaged_option_area_of_dhcp4(tail, hlen):
    """Behind a sound header everything is options, overloaded fields included."""
    head = bytes((2, 1, hlen, 0)) + bytes(40) + (tail * 8)[:192].ljust(192, b"\0") + dhcp4.MAGIC_COOKIE
    for overload in (b"", b"\x34\x01\x01", b"\x34\x01\x02", b"\x34\x01\x03"):
        value_or_wire_error("dhcp4", head + overload + tail + b"\xff")


OTHERS: list[Callable[[bytes], Any]] = [
    dhcp6.message_type,
    dhcp6.decode_preference,
    dhcp6.decode_status,
    lambda data: dhcp6.decode_ia(data).addresses(),
    lambda data: dhcp6.decode_ia(data).prefixes(),
    lambda data: dhcp6.decode_ia(data).status(),
    lambda data: dhcp6.decode_relay(data).relayed(),
    *(
        lambda data, read=read: read(dhcp4.Dhcp4Message(1, 1, options=((50, data),)), 50)
        for read in (
            dhcp4.address_option,
            dhcp4.addresses_option,
            dhcp4.seconds_option,
            dhcp4.u16_option,
            dhcp4.text_option,
        )
    ),
]


@pytest.mark.parametrize("decode", OTHERS)
def test_any_octets_give_the_other_readers_a_value_or_wire_error(decode):
    @quick
    @given(st.binary(max_size=100))
    def check(data: bytes) -> None:
        with contextlib.suppress(WireError):
            decode(data)

    check()


@quick
@given(st.binary(max_size=200))
def test_text_from_a_peer_always_prints(data):
    assert printable(data).isprintable()


@quick
@given(dhcp4_messages, options_beside_87, st.booleans())
def test_a_whole_query_reads_back(message, options, unicast):
    outer = dhcp4o6.decode(dhcp4o6.encode_query(dhcp4.encode(message), unicast=unicast, options=options))
    assert (outer.msg_type, outer.unicast, outer.options) == (20, unicast, options)
    assert outer.flags == (0x800000 if unicast else 0)
    assert dhcp4.decode(outer.dhcp4) == message
