"""Softwire options: port parameters, containers, priority, names (RFC 6334, 7598, 7618, 8026, 8539)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from wire_table import both_ways, cut_everywhere, refused

from b4client.model.portset import PortSet
from b4client.wire import aftrname, dhcp6, softwire46
from b4client.wire.softwire46 import (
    Lw4o6Container,
    MapEContainer,
    MapTContainer,
    PortParams,
    Rule,
    V4V6Bind,
)

BR = IPv6Address("2001:db8:ffff::1")
BR2 = IPv6Address("2001:db8:ffff::2")
BR_HEX = "005a0010 20010db8ffff00000000000000000001"
BR2_HEX = "005a0010 20010db8ffff00000000000000000002"
SHARED = PortParams(0, 8, 0x34)
SHARED_HEX = "005d0004 00083400"
BINDING = V4V6Bind(IPv4Address("192.0.2.18"), IPv6Network("2001:db8:12:3400::/56"), SHARED)
BINDING_HEX = "005c0014 c0000212 3820010db8001234" + SHARED_HEX
RULE = Rule(True, 16, IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/40"))
RULE_HEX = "0059000d 01 10 18 c0000200 28 20010db800"
DMR_HEX = "005b0009 40 20010db8ffff0000"
DMR = IPv6Network("2001:db8:ffff::/64")


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


# --------------------------------------------------------------------------------------------------- port parameters

PORT_PARAMS = [
    # (option data, a, k, PSID, ports, first range, last range); the reference vectors of RFC 7597 App. A and B.2 first
    ("06083400", 6, 8, 0x34, 252, "1232-1235", "64720-64723"),
    ("06080000", 6, 8, 0, 252, "1024-1027", "64512-64515"),
    ("00060000", 0, 6, 0, 1024, "0-1023", "0-1023"),
    ("00083400", 0, 8, 0x34, 256, "13312-13567", "13312-13567"),
    ("00060400", 0, 6, 1, 1024, "1024-2047", "1024-2047"),
    ("000a0fc0", 0, 10, 63, 64, "4032-4095", "4032-4095"),
    ("000a1000", 0, 10, 64, 64, "4096-4159", "4096-4159"),
    ("04081400", 4, 8, 0x14, 240, "4416-4431", "61760-61775"),
    ("04065000", 4, 6, 20, 960, "5376-5439", "62720-62783"),
    ("0606fc00", 6, 6, 0x3F, 1008, "2032-2047", "65520-65535"),
    ("060a0140", 6, 10, 5, 63, "1029", "64517"),
    ("0f010000", 15, 1, 0, 32767, "2", "65534"),
    ("0f018000", 15, 1, 1, 32767, "3", "65535"),
    ("0010ffff", 0, 16, 0xFFFF, 1, "65535", "65535"),
    ("00043000", 0, 4, 3, 4096, "12288-16383", "12288-16383"),  # what Kea sends for "0, 3/4"
]


@pytest.mark.parametrize("row", PORT_PARAMS, ids=lambda row: row[0])
def test_port_params_both_ways_and_cut(row):
    text, offset_len, psid_len, psid, count, first, last = row
    params = PortParams(offset_len, psid_len, psid)
    both_ways(softwire46.decode_portparams, softwire46.encode_portparams, hexed(text), params)
    cut_everywhere(softwire46.decode_portparams, hexed(text))
    ports = params.port_set()
    assert ports == PortSet(offset_len, psid_len, psid)
    assert PortParams.of(ports) == params
    assert len(ports) == count
    assert (str(ports.range_at(0)), str(ports.range_at(ports.range_count - 1))) == (first, last)


def test_every_legal_pair_of_lengths_and_no_other():
    for offset_len in range(256):
        for psid_len in range(256):
            value = bytes((offset_len, psid_len, 0xFF, 0xFF))
            if offset_len <= 15 and psid_len <= 16 and offset_len + psid_len <= 16:
                params = softwire46.decode_portparams(value)
                assert (params.offset_len, params.psid_len) == (offset_len, psid_len)
                assert params.psid == (1 << psid_len) - 1
                assert params.padding == (1 << (16 - psid_len)) - 1
            else:
                refused(softwire46.decode_portparams, value, "PSID")


@pytest.mark.parametrize("text", ["", "000834", "0008340000", "0608340006083400", "000000000000"])
def test_port_params_are_four_octets(text):
    refused(softwire46.decode_portparams, hexed(text), "port parameters")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10000000", "offset of 16"),
        ("00110000", "length of 17"),
        ("08090000", "offset 8 and length 9"),
        ("0f020000", "offset 15 and length 2"),
        ("ffffffff", "offset of 255"),
    ],
)
def test_port_params_refused(text, reason):
    refused(softwire46.decode_portparams, hexed(text), reason)


def test_psid_length_zero_is_an_address_that_is_not_shared():
    # [P-2]: the PSID field is to be ignored.
    for text, padding in (("00000000", 0), ("0000ffff", 0xFFFF), ("06003400", 0x3400)):
        params = softwire46.decode_portparams(hexed(text))
        assert params.port_set() is None
        assert (params.psid, params.padding) == (0, padding)


def test_padding_bits_are_masked_reported_and_never_written():
    # [P-4]
    params = softwire46.decode_portparams(hexed("000834ab"))
    assert params == PortParams(0, 8, 0x34)
    assert params.padding == 0xAB
    assert params.port_set() == PortSet(0, 8, 0x34)
    assert softwire46.encode_portparams(params) == hexed("00083400")


def test_hint_is_a_length_only():
    # [S-18]
    assert softwire46.encode_portparams(PortParams.hint(8)) == hexed("00080000")
    assert softwire46.encode_portparams(PortParams.hint(0)) == hexed("00000000")
    with pytest.raises(ValueError, match="length of 17"):
        PortParams.hint(17)


@pytest.mark.parametrize(
    "fields", [(-1, 8, 0), (16, 0, 0), (0, -1, 0), (0, 17, 0), (8, 9, 0), (0, 8, 256), (0, 0, 1), (0, 8, -1)]
)
def test_port_params_that_cannot_be(fields):
    with pytest.raises(ValueError, match="PSID"):
        PortParams(*fields)


# ------------------------------------------------------------------------------------------------------------ option 89

ONE_TO_ONE = Rule(False, 0, IPv4Network("192.0.2.18/32"), IPv6Network("2001:db8:12:3400::/56"), SHARED)
RULES = [
    ("01 10 18 c0000200 28 20010db800", RULE, {}),
    # Cut exactly in front of option 93 it is a rule without; the option's own length forbids that in a message.
    (
        "00 00 20 c0000212 38 20010db8001234" + SHARED_HEX,
        ONE_TO_ONE,
        {15: Rule(False, 0, ONE_TO_ONE.rule_ipv4, ONE_TO_ONE.rule_ipv6)},
    ),
    ("00 00 00 00000000 00", Rule(False, 0, IPv4Network("0.0.0.0/0"), IPv6Network("::/0")), {}),
    (
        "01 30 20 ffffffff 80 20010db8000000000000000000000001",
        Rule(True, 48, IPv4Network("255.255.255.255/32"), IPv6Network("2001:db8::1/128")),
        {},
    ),
]


@pytest.mark.parametrize(("text", "rule", "legal"), RULES)
def test_rules_both_ways_and_cut(text, rule, legal):
    both_ways(softwire46.decode_rule, softwire46.encode_rule, hexed(text), rule)
    cut_everywhere(softwire46.decode_rule, hexed(text), legal)


def test_reserved_flags_and_bits_beyond_the_prefixes_are_ignored():
    assert softwire46.decode_rule(hexed("ff 10 18 c00002ff 28 20010db800")) == RULE
    assert softwire46.decode_rule(hexed("fe 10 18 c0000200 28 20010db800")).fmr is False
    assert softwire46.decode_rule(hexed("01 10 18 c0000200 26 20010db803")).rule_ipv6 == IPv6Network("2001:db8::/38")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("01 31 18 c0000200 28 20010db800", "EA length of 49"),
        ("01 ff 18 c0000200 28 20010db800", "EA length of 255"),
        ("01 10 21 c0000200 28 20010db800", "IPv4 prefix of 33"),
        ("01 10 18 c0000200 81 20010db800" + "00" * 12, "of 129 bits"),
        ("01 10 18 c0000200 29 20010db800", "truncated rule IPv6 prefix"),
        ("01 10 18 c0000200 20 20010db8 00", "truncated"),
        ("01 10 18 c0000200 28 20010db800 0000", "truncated"),
        ("01 10 18 c0000200 28 20010db800 005d0004000834", "truncated"),
        ("01 10 18 c0000200 28 20010db800 005d000600083400 0000", "too many"),
        ("01 10 18 c0000200 28 20010db800 005d0003000834", "truncated"),
        ("01 10 18 c0000200 28 20010db800 005d000410000000", "offset of 16"),
        ("01 10 18 c0000200 28 20010db800" + SHARED_HEX * 2, "2 S46_PORTPARAMS"),
    ],
)
def test_rules_refused(text, reason):
    refused(softwire46.decode_rule, hexed(text), reason)


@pytest.mark.parametrize("ea_len", [-1, 49])
def test_rules_that_cannot_be(ea_len):
    with pytest.raises(ValueError, match="EA length"):
        Rule(False, ea_len, RULE.rule_ipv4, RULE.rule_ipv6)


def test_unknown_options_inside_a_rule_or_binding_are_ignored():
    unknown = "fde80003aabbcc"
    assert softwire46.decode_rule(hexed("01 10 18 c0000200 28 20010db800" + unknown)) == RULE
    bind = hexed("c0000212 3820010db8001234" + unknown + SHARED_HEX + unknown)
    assert softwire46.decode_v4v6bind(bind) == BINDING


# ------------------------------------------------------------------------------------------------------------ option 92


def test_binding_both_ways_and_cut():
    data = hexed("c0000212 3820010db8001234" + SHARED_HEX)
    both_ways(softwire46.decode_v4v6bind, softwire46.encode_v4v6bind, data, BINDING)
    cut_everywhere(softwire46.decode_v4v6bind, data, {12: V4V6Bind(BINDING.ipv4, BINDING.prefix)})


@pytest.mark.parametrize(
    ("text", "binding"),
    [
        ("c0000212 00", V4V6Bind(IPv4Address("192.0.2.18"), IPv6Network("::/0"))),
        (
            "c0000212 80 20010db8000000000000000000000001",
            V4V6Bind(IPv4Address("192.0.2.18"), IPv6Network("2001:db8::1/128")),
        ),
        ("c0000212 39 20010db800123480", V4V6Bind(IPv4Address("192.0.2.18"), IPv6Network("2001:db8:12:3480::/57"))),
    ],
)
def test_binding_prefix_lengths(text, binding):
    both_ways(softwire46.decode_v4v6bind, softwire46.encode_v4v6bind, hexed(text), binding)
    cut_everywhere(softwire46.decode_v4v6bind, hexed(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("c0000212 81" + "00" * 17, "of 129 bits"),
        ("c0000212 3820010db8001234 00", "truncated"),
        ("c0000212 3820010db8001234" + SHARED_HEX + "0000", "truncated"),
        ("c0000212 3820010db8001234 0000" + SHARED_HEX, "truncated"),
        ("c0000212 3820010db8001234 005d0006 0000 00083400", "too many"),
        ("c0000212 3820010db8001234" + SHARED_HEX * 2, "2 S46_PORTPARAMS"),
        ("c0000212 3820010db8001234 005d000408090000", "offset 8 and length 9"),
    ],
)
def test_bindings_refused(text, reason):
    refused(softwire46.decode_v4v6bind, hexed(text), reason)


# ------------------------------------------------------------------------------------------------------ options 90, 109


def test_br_and_source_address_both_ways_and_cut():
    for decode, encode in (
        (softwire46.decode_br, softwire46.encode_br),
        (softwire46.decode_saddr, softwire46.encode_saddr),
    ):
        both_ways(decode, encode, BR.packed, BR)
        cut_everywhere(decode, BR.packed)
        refused(decode, BR.packed + b"\0", "too many")
        refused(decode, BR.packed * 2, "16 octets too many")


def test_reference_source_address():
    value = hexed("20010db8001234000000c00002120034")
    assert softwire46.decode_saddr(value) == IPv6Address("2001:db8:12:3400:0:c000:212:34")


@pytest.mark.parametrize("address", ["::", "::1", "ff02::1:2", "ff0e::1"])
def test_addresses_that_no_tunnel_goes_to(address):
    refused(softwire46.decode_br, IPv6Address(address).packed, "cannot be a border relay")
    with pytest.raises(ValueError, match="cannot be a border relay"):
        softwire46.encode_br(IPv6Address(address))


# ------------------------------------------------------------------------------------------------------ options 91, 137

PREFIXES = [
    ("00", "::/0"),
    ("3820010db8001234", "2001:db8:12:3400::/56"),
    ("3920010db800123480", "2001:db8:12:3480::/57"),
    ("4020010db8ffff0000", "2001:db8:ffff::/64"),
    ("8020010db8000000000000000000000001", "2001:db8::1/128"),
]


@pytest.mark.parametrize(
    ("decode", "encode"),
    [
        (softwire46.decode_bind_prefix, softwire46.encode_bind_prefix),
        (softwire46.decode_dmr, softwire46.encode_dmr),
    ],
)
class TestPrefixOptions:
    @pytest.mark.parametrize(("text", "prefix"), PREFIXES)
    def test_both_ways_and_cut(self, decode, encode, text, prefix):
        both_ways(decode, encode, hexed(text), IPv6Network(prefix))
        cut_everywhere(decode, hexed(text))

    def test_bits_beyond_the_length_are_ignored(self, decode, encode):
        value = decode(hexed("3920010db8001234ff"))
        assert value == IPv6Network("2001:db8:12:3480::/57")
        assert encode(value) == hexed("3920010db800123480")

    @pytest.mark.parametrize("length", range(256))
    def test_exactly_as_many_octets_as_the_length_needs(self, decode, encode, length):
        # [E-4]: byte count == (len + 7) / 8, len <= 128.
        for count in range(18):
            value = bytes((length,)) + bytes(count)
            if length <= 128 and count == (length + 7) // 8:
                assert decode(value) == IPv6Network(("::", length))
                assert encode(decode(value)) == value
            else:
                refused(decode, value, "truncated|too many|bits")


# ----------------------------------------------------------------------------------------------------------- containers

LW = [
    (BR_HEX, Lw4o6Container((BR,)), {}),
    (BR_HEX + BR2_HEX, Lw4o6Container((BR, BR2)), {20: Lw4o6Container((BR,))}),
    (BINDING_HEX + BR_HEX, Lw4o6Container((BR,), BINDING), {}),
    (BINDING_HEX + BR_HEX + BR2_HEX, Lw4o6Container((BR, BR2), BINDING), {44: Lw4o6Container((BR,), BINDING)}),
]
MAPE = [
    (RULE_HEX + BR_HEX, MapEContainer((RULE,), (BR,)), {}),
    (RULE_HEX * 2 + BR_HEX, MapEContainer((RULE, RULE), (BR,)), {}),
    (RULE_HEX + BR_HEX + BR2_HEX, MapEContainer((RULE,), (BR, BR2)), {37: MapEContainer((RULE,), (BR,))}),
]
MAPT = [
    (RULE_HEX + DMR_HEX, MapTContainer((RULE,), DMR), {}),
    (RULE_HEX * 3 + DMR_HEX, MapTContainer((RULE, RULE, RULE), DMR), {}),
]


@pytest.mark.parametrize(
    ("decode", "encode", "text", "container", "legal"),
    [
        *((softwire46.decode_lw4o6, softwire46.encode_lw4o6, *row) for row in LW),
        *((softwire46.decode_mape, softwire46.encode_mape, *row) for row in MAPE),
        *((softwire46.decode_mapt, softwire46.encode_mapt, *row) for row in MAPT),
    ],
)
def test_containers_both_ways_and_cut(decode, encode, text, container, legal):
    both_ways(decode, encode, hexed(text), container)
    cut_everywhere(decode, hexed(text), legal)


def test_reference_containers_as_whole_options():
    lw = hexed("0060002c005c0014c00002123820010db8001234005d000400083400005a001020010db8ffff00000000000000000001")
    ((code, value),) = dhcp6.decode_options(lw)
    assert (code, softwire46.decode_lw4o6(value)) == (96, Lw4o6Container((BR,), BINDING))
    assert dhcp6.encode_options(((96, softwire46.encode_lw4o6(Lw4o6Container((BR,), BINDING))),)) == lw
    mape = hexed("005e00250059000d011018c00002002820010db800005a001020010db8ffff00000000000000000001")
    ((code, value),) = dhcp6.decode_options(mape)
    assert (code, softwire46.decode_mape(value)) == (94, MapEContainer((RULE,), (BR,)))
    assert dhcp6.encode_options(((94, softwire46.encode_mape(MapEContainer((RULE,), (BR,)))),)) == mape


def test_reference_options_as_whole_options():
    for text, decode, meaning in (
        ("008900083820010db8001234", softwire46.decode_bind_prefix, IPv6Network("2001:db8:12:3400::/56")),
        ("008900093920010db800123480", softwire46.decode_bind_prefix, IPv6Network("2001:db8:12:3480::/57")),
        ("0089000100", softwire46.decode_bind_prefix, IPv6Network("::/0")),
        ("006f000600600058005e", softwire46.decode_priority, (96, 88, 94)),
    ):
        ((_, value),) = dhcp6.decode_options(hexed(text))
        assert decode(value) == meaning


def test_order_inside_a_container_is_free_and_unknown_options_are_ignored():
    unknown = "fde80003aabbcc"
    assert softwire46.decode_lw4o6(hexed(unknown + BR_HEX + unknown + BINDING_HEX)) == Lw4o6Container((BR,), BINDING)
    assert softwire46.decode_mape(hexed(BR_HEX + RULE_HEX + unknown)) == MapEContainer((RULE,), (BR,))
    assert softwire46.decode_mapt(hexed(DMR_HEX + unknown + RULE_HEX)) == MapTContainer((RULE,), DMR)


@pytest.mark.parametrize(
    ("decode", "text", "reason"),
    [
        # [M-13] what must be there
        (softwire46.decode_lw4o6, "", "0 bindings and 0 lwAFTRs"),
        (softwire46.decode_lw4o6, BINDING_HEX, "1 bindings and 0 lwAFTRs"),
        (softwire46.decode_lw4o6, BINDING_HEX * 2 + BR_HEX, "2 bindings and 1 lwAFTRs"),
        (softwire46.decode_mape, "", "0 rules and 0 border relays"),
        (softwire46.decode_mape, BR_HEX, "0 rules and 1 border relays"),
        (softwire46.decode_mape, RULE_HEX, "1 rules and 0 border relays"),
        (softwire46.decode_mapt, "", "0 rules and 0 default"),
        (softwire46.decode_mapt, RULE_HEX, "1 rules and 0 default"),
        (softwire46.decode_mapt, DMR_HEX, "0 rules and 1 default"),
        (softwire46.decode_mapt, RULE_HEX + DMR_HEX * 2, "1 rules and 2 default"),
        # RFC 7598 6, table 1: what must not
        (softwire46.decode_lw4o6, BR_HEX + RULE_HEX, "option 89"),
        (softwire46.decode_lw4o6, BR_HEX + DMR_HEX, "option 91"),
        (softwire46.decode_mape, RULE_HEX + BR_HEX + BINDING_HEX, "option 92"),
        (softwire46.decode_mape, RULE_HEX + BR_HEX + DMR_HEX, "option 91"),
        (softwire46.decode_mapt, RULE_HEX + DMR_HEX + BR_HEX, "option 90"),
        (softwire46.decode_mapt, RULE_HEX + DMR_HEX + BINDING_HEX, "option 92"),
        # port parameters of nobody
        (softwire46.decode_lw4o6, BR_HEX + SHARED_HEX, "option 93"),
        (softwire46.decode_mape, RULE_HEX + BR_HEX + SHARED_HEX, "option 93"),
        (softwire46.decode_mapt, RULE_HEX + DMR_HEX + SHARED_HEX, "option 93"),
        # an invalid value anywhere inside
        (softwire46.decode_lw4o6, BR_HEX + "005a000f" + "20" * 15, "truncated IPv6 address|truncated S46_BR"),
        (softwire46.decode_lw4o6, BR_HEX + "005a0011" + "20" * 17, "too many"),
        (softwire46.decode_lw4o6, BR_HEX + "005a0010" + "00" * 16, "cannot be a border relay"),
        (softwire46.decode_lw4o6, "005c0005 c000021281" + BR_HEX, "129 bits"),
        (softwire46.decode_mape, "0059000d 01 31 18 c0000200 28 20010db800" + BR_HEX, "EA length"),
        (softwire46.decode_mape, RULE_HEX + "00590000" + BR_HEX, "truncated S46_RULE"),
        (softwire46.decode_mapt, RULE_HEX + "005b0002 40 20", "truncated S46_DMR"),
        # left-over octets
        (softwire46.decode_lw4o6, BR_HEX + "0000", "truncated"),
        (softwire46.decode_mape, RULE_HEX + BR_HEX + "00", "truncated"),
        # two zero octets around option 93, as some servers send it
        (softwire46.decode_lw4o6, "005c0016 c0000212 3820010db8001234 0000" + SHARED_HEX + BR_HEX, "truncated"),
        (softwire46.decode_lw4o6, "005c0016 c0000212 3820010db8001234" + SHARED_HEX + "0000" + BR_HEX, "truncated"),
        (softwire46.decode_lw4o6, "005c0016 c0000212 3820010db8001234 005d0006 0008 3400 0000" + BR_HEX, "too many"),
        (softwire46.decode_mape, "00590017 011018c00002002820010db800 0000" + SHARED_HEX + BR_HEX, "truncated"),
        (softwire46.decode_mape, "00590017 011018c00002002820010db800" + SHARED_HEX + "0000" + BR_HEX, "truncated"),
    ],
)
def test_containers_refused(decode, text, reason):
    refused(decode, hexed(text), reason)


@pytest.mark.parametrize(
    ("encode", "container"),
    [
        (softwire46.encode_lw4o6, Lw4o6Container(())),
        (softwire46.encode_lw4o6, Lw4o6Container((IPv6Address("::"),))),
        (softwire46.encode_mape, MapEContainer((), (BR,))),
        (softwire46.encode_mape, MapEContainer((RULE,), ())),
        (softwire46.encode_mapt, MapTContainer((), DMR)),
        (softwire46.encode_mape, MapEContainer((RULE,) * 4000, (BR,))),
    ],
)
def test_containers_that_cannot_be(encode, container):
    with pytest.raises(ValueError, match=r"needs|cannot be|longer"):
        encode(container)


def test_many_rules():
    # [M-15]
    container = MapEContainer((RULE,) * 3000, (BR,) * 100)
    assert softwire46.decode_mape(softwire46.encode_mape(container)) == container


# ----------------------------------------------------------------------------------------------------------- option 111


@pytest.mark.parametrize("codes", [(96,), (96, 88, 94), (64, 88, 94, 95, 96), (65535, 0, 96)])
def test_priority_both_ways_and_cut(codes):
    data = b"".join(c.to_bytes(2, "big") for c in codes)
    both_ways(softwire46.decode_priority, softwire46.encode_priority, data, codes)
    cut_everywhere(softwire46.decode_priority, data, {2 * n: codes[:n] for n in range(1, len(codes))})


@pytest.mark.parametrize("text", ["", "00", "006000", "00600060", "0060005e0060"])
def test_priority_refused(text):
    # [F-13]: odd or zero length, a code twice.
    refused(softwire46.decode_priority, hexed(text), "S46_PRIORITY")


@pytest.mark.parametrize("codes", [(), (96, 96), (65536,), (-1,)])
def test_priority_that_cannot_be(codes):
    with pytest.raises(ValueError, match=r"priority|option code"):
        softwire46.encode_priority(codes)


# ------------------------------------------------------------------------------------------------------------ option 64

LONG_LABEL = "a" * 63


def wire_name(*labels: str) -> bytes:
    return b"".join(bytes((len(x),)) + x.encode("latin-1") for x in labels) + b"\0"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (hexed("04 61667472 07 6578616d706c65 03 636f6d 00"), "aftr.example.com."),  # RFC 6334 figure 2
        (wire_name("a", "b"), "a.b."),
        (wire_name("abc"), "abc."),
        (wire_name("ab"), "ab."),
        (wire_name("xn--bcher-kva", "_x", "0"), "xn--bcher-kva._x.0."),
        (wire_name(LONG_LABEL, LONG_LABEL, LONG_LABEL, "b" * 61), ".".join([LONG_LABEL] * 3 + ["b" * 61]) + "."),
    ],
)
def test_aftr_name_both_ways_and_cut(data, name):
    both_ways(aftrname.decode_aftr_name, aftrname.encode_aftr_name, data, name)
    assert aftrname.encode_aftr_name(name.removesuffix(".")) == data
    cut_everywhere(aftrname.decode_aftr_name, data)


def test_only_the_first_of_several_names_counts():
    # RFC 6334 5
    assert aftrname.decode_aftr_name(wire_name("one", "net") + wire_name("two")) == "one.net."


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "of 0 octets"),
        (wire_name("a"), "of 3 octets"),
        (wire_name("a") * 2, "of 3 octets"),
        (b"\0\0\0\0", "without label"),
        (b"\0" + wire_name("abc"), "without label"),
        (wire_name("abc") + b"\0", "without label"),
        (wire_name("abc") + b"\1", "truncated label"),
        (wire_name("abc")[:-1], "root label is missing"),
        (b"\5abc\0", "truncated label"),
        (b"\3abc\xc0\x00", "label length 0xc0"),
        (b"\xc0\x00\xc0\x00", "label length 0xc0"),
        (wire_name("a" * 64), "label length 0x40"),
        (wire_name(LONG_LABEL, LONG_LABEL, LONG_LABEL, "b" * 62), "of 256 octets"),
        (wire_name(*["a"] * 200), "of 401 octets"),
        (wire_name("a.b", "com"), "no host name has"),
        (wire_name("a b", "com"), "no host name has"),
        (wire_name("a\nb", "com"), "no host name has"),
        (wire_name("a\0b", "com"), "no host name has"),
        (wire_name("b\xfccher", "com"), "no host name has"),
        (wire_name("abc") + wire_name("a b"), "no host name has"),
    ],
)
def test_aftr_names_refused(data, reason):
    refused(aftrname.decode_aftr_name, data, reason)


def test_aftr_name_work_is_bounded():
    assert aftrname.decode_aftr_name(wire_name("abc") * 13107) == "abc."
    refused(aftrname.decode_aftr_name, b"\1a" * 32767, "root label is missing")


@pytest.mark.parametrize(
    "name",
    ["", ".", "a", "a.", "a..b", ".a.b", "a.b..", "a" * 64, "a b", "bücher.example", ".".join([LONG_LABEL] * 4), "a/b"],
)
def test_aftr_names_that_cannot_be(name):
    with pytest.raises(ValueError, match="no host name"):
        aftrname.encode_aftr_name(name)
