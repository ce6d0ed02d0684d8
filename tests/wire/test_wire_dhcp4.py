"""DHCPv4 messages: fixed part, options, END, padding, long and overloaded options (RFC 2131, 2132, 3396)."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address

import pytest
from wire_table import both_ways, cut_everywhere, refused

from b4client.wire import dhcp4
from b4client.wire.cursor import WireError
from b4client.wire.dhcp4 import BOOTREPLY, BOOTREQUEST, Dhcp4Message, MessageType, Option, decode, encode

COOKIE = "63825363"
MAC = bytes.fromhex("020000000001")


def octets(options: str, *, head: str = "01010600", tail: str = "", **fields: str) -> bytes:
    """A message from hex, field by field as in the figure of RFC 2131 2, without help from the code under test."""
    widths = {
        "xid": 4,
        "secs": 2,
        "flags": 2,
        "ciaddr": 4,
        "yiaddr": 4,
        "siaddr": 4,
        "giaddr": 4,
        "chaddr": 16,
        "sname": 64,
        "file": 128,
    }
    defaults = {"xid": "11223344", "chaddr": MAC.hex()}
    out = bytes.fromhex(head)
    for name, width in widths.items():
        out += bytes.fromhex(fields.get(name, defaults.get(name, ""))).ljust(width, b"\0")
    assert len(out) == 236
    return out + bytes.fromhex(COOKIE + options + tail)


BASE = Dhcp4Message(op=BOOTREQUEST, xid=0x11223344, chaddr=MAC)
CLIENT_ID = bytes.fromhex("ff0000000100030001020000000001")

TABLE = [
    pytest.param(octets("ff"), BASE, id="no options at all"),
    pytest.param(
        octets("350101ff"), dataclasses.replace(BASE, options=((Option.MESSAGE_TYPE, b"\x01"),)), id="discover"
    ),
    pytest.param(
        octets("350101 3d0fff0000000100030001020000000001 9f0400080000 3703019f06 ff"),
        dataclasses.replace(
            BASE,
            options=((53, b"\1"), (61, CLIENT_ID), (159, bytes.fromhex("00080000")), (55, bytes.fromhex("019f06"))),
        ),
        id="discover with size hint",
    ),
    pytest.param(
        octets(
            "350105 3604c0000201 330400000e10 9f0406083400 6d1020010db8001234000000c00002120034 ff",
            head="02010600",
            secs="0102",
            flags="8000",
            ciaddr="c0000212",
            yiaddr="c0000213",
            siaddr="c0000214",
            giaddr="c0000215",
        ),
        Dhcp4Message(
            op=BOOTREPLY,
            xid=0x11223344,
            secs=0x0102,
            broadcast=True,
            ciaddr=IPv4Address("192.0.2.18"),
            yiaddr=IPv4Address("192.0.2.19"),
            siaddr=IPv4Address("192.0.2.20"),
            giaddr=IPv4Address("192.0.2.21"),
            chaddr=MAC,
            options=(
                (53, b"\5"),
                (54, bytes.fromhex("c0000201")),
                (51, bytes.fromhex("00000e10")),
                (159, bytes.fromhex("06083400")),
                (109, bytes.fromhex("20010db8001234000000c00002120034")),
            ),
        ),
        id="ack with everything",
    ),
    pytest.param(
        octets("ff", head="01000007", chaddr=""), dataclasses.replace(BASE, htype=0, hops=7, chaddr=b""), id="no hlen"
    ),
    pytest.param(
        octets("ff", head="01201000", chaddr="ff" * 16),
        dataclasses.replace(BASE, htype=32, chaddr=b"\xff" * 16),
        id="hlen 16",
    ),
    pytest.param(
        octets("ff", sname="73" + "6e" * 63, file="66" * 128),
        dataclasses.replace(BASE, sname=b"s" + b"n" * 63, file=b"f" * 128),
        id="sname and file filled",
    ),
    pytest.param(
        octets("ff", sname=b"server".hex(), file=b"dir/boot".hex()),
        dataclasses.replace(BASE, sname=b"server", file=b"dir/boot"),
        id="sname and file",
    ),
    pytest.param(
        octets("5000 0101aa fe00 ff"),
        dataclasses.replace(BASE, options=((80, b""), (1, b"\xaa"), (254, b""))),
        id="options without value",
    ),
    pytest.param(
        octets("2bff" + "aa" * 255 + "2b2d" + "bb" * 45 + "350102 ff"),
        dataclasses.replace(BASE, options=((43, b"\xaa" * 255 + b"\xbb" * 45), (53, b"\2"))),
        id="long option in two parts",
    ),
    pytest.param(
        octets("2bff" + "aa" * 255 + "2bff" + "bb" * 255 + "ff"),
        dataclasses.replace(BASE, options=((43, b"\xaa" * 255 + b"\xbb" * 255),)),
        id="long option of exactly two parts",
    ),
]


@pytest.mark.parametrize(("data", "message"), TABLE)
def test_both_ways(data, message):
    both_ways(decode, encode, data, message)


@pytest.mark.parametrize(("data", "message"), TABLE)
def test_cut_at_every_octet(data, message):
    # END is the last octet of every one of them: there is no shorter legal message.
    cut_everywhere(decode, data)


def test_minimum_is_fixed_part_cookie_and_end():
    shortest = octets("ff")
    assert len(shortest) == 241
    refused(decode, shortest[:-1], "END is missing")
    refused(decode, b"", "truncated")


def test_padding_behind_end_is_accepted_and_not_kept():
    # BOOTP's 300 octets (RFC 1542 2.1) and whatever else is zero.
    for zeros in (1, 59, 300):
        assert decode(octets("350101ff", tail="00" * zeros)) == decode(octets("350101ff"))


def test_padded_message_cut_at_every_octet():
    data = octets("350101ff", tail="00" * 8)
    whole = decode(data)
    cut_everywhere(decode, data, {n: whole for n in range(len(data) - 8, len(data))})


@pytest.mark.parametrize("tail", ["01", "00ff", "0000350105", "ff"])
def test_other_octets_behind_end_are_refused(tail):
    refused(decode, octets("350101ff", tail=tail), "behind the END option")


def test_pad_between_options_is_not_kept():
    assert decode(octets("00 350101 0000 0c0161 00 ff")).options == ((53, b"\1"), (12, b"a"))


def test_reserved_flag_bits_and_octets_behind_hlen_are_ignored():
    assert decode(octets("ff", flags="7fff")) == BASE
    assert decode(octets("ff", flags="ffff")) == dataclasses.replace(BASE, broadcast=True)
    assert decode(octets("ff", head="01010600", chaddr=MAC.hex() + "ff" * 10)) == BASE


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (octets("ff", head="00010600"), "op 0"),
        (octets("ff", head="03010600"), "op 3"),
        (octets("ff", head="01011100"), "hardware address of 17"),
        (octets("ff", head="0101ff00"), "hardware address of 255"),
        (octets("ff").replace(bytes.fromhex(COOKIE), bytes.fromhex("63825364")), "magic cookie"),
        (octets(""), "END is missing"),
        (octets("000000"), "END is missing"),
        (octets("350101"), "END is missing"),
        (octets("35"), "option 53"),
        (octets("3501"), "option 53"),
        (octets("9f04060834"), "option 159"),
        (octets("2bff" + "aa" * 254), "option 43"),
        (octets("3500ff"), "option 53 of 0 octets"),
        (octets("35020101ff"), "option 53 of 2 octets"),
        (octets("350101 350101 ff"), "option 53 of 2 octets"),
        (octets("340100ff"), "option 52"),
        (octets("340104ff"), "option 52"),
        (octets("3400ff"), "option 52"),
        (octets("34020101ff"), "option 52"),
        (octets("340101 340101 ff", file="ff"), "option 52"),
    ],
)
def test_refused(data, reason):
    refused(decode, data, reason)


def test_longer_than_any_datagram():
    refused(decode, octets("ff", tail="00" * 65536), "longer than 65535")


# ---------------------------------------------------------------------------------- repeated and overloaded (RFC 3396)


def test_repeated_options_are_joined_in_order_of_first_appearance():
    message = decode(octets("0602c000 350102 06020201 0c0161 0604c0000202 ff"))
    assert message.options == ((6, bytes.fromhex("c0000201c0000202")), (53, b"\2"), (12, b"a"))
    assert dhcp4.addresses_option(message, Option.DNS) == (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))


def test_two_port_parameters_become_one_of_eight_octets():
    # the typed decoder then refuses it.
    assert decode(octets("9f0406083400 9f0406083400 ff")).get(159) == bytes.fromhex("0608340006083400")


def test_overloaded_file_then_sname():
    # RFC 3396 5: options, file, sname, though sname stands first in the packet.
    message = decode(octets("2b0101 340103 ff", sname="2b0103 0c0173 ff", file="2b0102 350105 ff"))
    assert message.options == ((43, b"\1\2\3"), (53, b"\5"), (12, b"s"))
    assert (message.sname, message.file) == (b"", b"")


@pytest.mark.parametrize(
    ("overload", "options", "sname", "file"),
    [
        ("01", ((53, b"\2"), (1, b"\xaa")), b"\x02\x01\xbb\xff", b""),
        ("02", ((53, b"\2"), (2, b"\xbb")), b"", b"\x01\x01\xaa\xff"),
        ("03", ((53, b"\2"), (1, b"\xaa"), (2, b"\xbb")), b"", b""),
    ],
)
def test_overload_says_which_field_holds_options(overload, options, sname, file):
    message = decode(octets(f"3401{overload} 350102 ff", sname="0201bbff", file="0101aaff"))
    assert (message.options, message.sname, message.file) == (options, sname, file)


def test_overloaded_message_is_written_plainly():
    message = decode(octets("350102 340103 ff", sname="0201bbff", file="0101aaff"))
    assert encode(message) == octets("350102 0101aa 0201bb ff")
    assert decode(encode(message)) == message


def test_an_option_may_fill_an_overloaded_field():
    message = decode(octets("340101 ff", file="2b7d" + "aa" * 125 + "ff"))
    assert message.get(43) == b"\xaa" * 125


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"file": ""}, "END is missing"),
        ({"file": "0101aa"}, "END is missing"),
        ({"file": "2b7e" + "aa" * 126}, "END is missing"),
        ({"file": "2b7f" + "aa" * 126}, "truncated option 43"),
        ({"file": "ff01"}, "behind the END option"),
        ({"file": "340102ff", "sname": "ff"}, "outside the options field"),
        ({"file": "350101ff"}, "option 53 of 2 octets"),
    ],
)
def test_overloaded_field_refused(fields, reason):
    refused(decode, octets("350101 340101 ff", **fields), reason)


def test_error_in_an_overloaded_field_tells_its_place_in_the_message():
    with pytest.raises(WireError) as caught:
        decode(octets("340102 ff", sname="0c40"))
    assert caught.value.offset == 44 + 2
    with pytest.raises(WireError) as caught:
        decode(octets("340101 ff", file="ff000001"))
    assert caught.value.offset == 108 + 1


# ------------------------------------------------------------------------------------------------------------- encode


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"op": 0}, "op 0"),
        ({"op": 256}, "op 256"),
        ({"xid": 1 << 32}, "xid"),
        ({"xid": -1}, "xid"),
        ({"secs": 65536}, "secs"),
        ({"hops": 256}, "hops"),
        ({"htype": 256}, "htype"),
        ({"chaddr": bytes(17)}, "chaddr"),
        ({"chaddr": bytes(300)}, "hlen"),
        ({"sname": bytes(65)}, "sname"),
        ({"file": bytes(129)}, "file"),
        ({"options": ((0, b""),)}, "option code 0"),
        ({"options": ((255, b""),)}, "option code 255"),
        ({"options": ((256, b""),)}, "option code 256"),
        ({"options": ((-1, b""),)}, "option code -1"),
        ({"options": ((52, b"\1"),)}, "option code 52"),
        ({"options": ((12, b"a"), (12, b"b"))}, "stands twice"),
        ({"options": ((53, b""),)}, "option 53"),
        ({"options": ((53, b"\1\1"),)}, "option 53"),
        ({"options": ((43, bytes(65535)),)}, "longer than 65535"),
    ],
)
def test_encode_refuses_to_write_something_wrong(change, reason):
    with pytest.raises(ValueError, match=reason):
        encode(dataclasses.replace(BASE, **change))


@pytest.mark.parametrize(("length", "parts"), [(0, 1), (1, 1), (254, 1), (255, 1), (256, 2), (510, 2), (511, 3)])
def test_long_values_are_split_at_255(length, parts):
    message = dataclasses.replace(BASE, options=((43, bytes(length)),))
    assert len(encode(message)) == 240 + 2 * parts + length + 1
    assert decode(encode(message)) == message


# ------------------------------------------------------------------------------------------------------ typed accessors


def with_option(code: int, value: str) -> Dhcp4Message:
    return dataclasses.replace(BASE, options=((code, bytes.fromhex(value)),))


def test_absent_options_are_none():
    assert BASE.get(1) is None
    assert BASE.message_type is None
    for read in (
        dhcp4.address_option,
        dhcp4.addresses_option,
        dhcp4.seconds_option,
        dhcp4.u16_option,
        dhcp4.text_option,
    ):
        assert read(BASE, 54) is None


@pytest.mark.parametrize("value", range(256))
def test_message_type_is_any_octet(value):
    assert decode(octets(f"3501{value:02x}ff")).message_type == value


@pytest.mark.parametrize(
    ("members", "numbers"),
    [
        # RFC 2132 9.6
        (MessageType, "DISCOVER 1 OFFER 2 REQUEST 3 DECLINE 4 ACK 5 NAK 6 RELEASE 7 INFORM 8"),
        (
            Option,
            # RFC 2132, 3004, 3046, 3118, 3397, 3442, 4039, 4702, 7618, 8539, 8910, 8925
            "PAD 0 SUBNET_MASK 1 TIME_OFFSET 2 ROUTER 3 TIME_SERVER 4 DNS 6 LOG_SERVER 7 HOSTNAME 12 DOMAIN 15 MTU 26 "
            "BROADCAST_ADDRESS 28 STATIC_ROUTES 33 NTP 42 VENDOR_SPECIFIC 43 REQUESTED_ADDRESS 50 LEASE_TIME 51 "
            "OVERLOAD 52 MESSAGE_TYPE 53 SERVER_ID 54 PARAMETER_LIST 55 MESSAGE 56 MAX_SIZE 57 T1 58 T2 59 "
            "VENDOR_CLASS 60 CLIENT_ID 61 TFTP_SERVER 66 BOOTFILE 67 USER_CLASS 77 RAPID_COMMIT 80 CLIENT_FQDN 81 "
            "RELAY_AGENT_INFORMATION 82 AUTHENTICATION 90 V6ONLY_PREFERRED 108 S46_SADDR 109 CAPTIVE_PORTAL 114 "
            "DOMAIN_SEARCH 119 CLASSLESS_ROUTES 121 V4_PORTPARAMS 159 END 255",
        ),
    ],
)
def test_names_have_their_assigned_numbers(members, numbers):
    words = numbers.split()
    assert {name: int(m) for name, m in members.__members__.items()} == dict(
        zip(words[::2], map(int, words[1::2]), strict=True)
    )


def test_message_type_of_a_message_made_by_hand():
    with pytest.raises(WireError, match="option 53 of 0"):
        assert with_option(53, "").message_type


ACCESSORS = [
    (dhcp4.address_option, 50, "c0000212", IPv4Address("192.0.2.18"), {}),
    (
        dhcp4.addresses_option,
        6,
        "c0000201c0000202",
        (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")),
        {4: (IPv4Address("192.0.2.1"),)},
    ),
    (dhcp4.seconds_option, 51, "ffffffff", dhcp4.INFINITY, {}),
    (dhcp4.seconds_option, 58, "00000708", 1800, {}),
    (dhcp4.u16_option, 57, "05dc", 1500, {}),
    (dhcp4.text_option, 56, "6e6f00", "no", {0: "", 1: "n", 2: "no"}),
]


@pytest.mark.parametrize(("read", "code", "value", "meaning", "legal"), ACCESSORS)
def test_accessors_whole_and_cut(read, code, value, meaning, legal):
    def decode_value(data):
        return read(with_option(code, data.hex()), code)

    assert decode_value(bytes.fromhex(value)) == meaning
    cut_everywhere(decode_value, bytes.fromhex(value), legal)
    if read is not dhcp4.text_option:
        refused(decode_value, bytes.fromhex(value) + b"\0", f"option {code} of")


def test_one_bad_value_never_loses_the_message():
    message = decode(octets("350105 3303000e10 3604c0000201 ff"))
    assert dhcp4.address_option(message, Option.SERVER_ID) == IPv4Address("192.0.2.1")
    with pytest.raises(WireError, match="option 51 of 3"):
        dhcp4.seconds_option(message, Option.LEASE_TIME)


def test_values_for_requests():
    assert dhcp4.encode_seconds(3600) == bytes.fromhex("00000e10")
    assert dhcp4.encode_seconds(dhcp4.INFINITY) == b"\xff" * 4
    assert dhcp4.encode_max_size(1500) == bytes.fromhex("05dc")
    assert dhcp4.encode_max_size(576) == bytes.fromhex("0240")
    assert dhcp4.encode_parameter_list((Option.SUBNET_MASK, Option.V4_PORTPARAMS, 254)) == bytes((1, 159, 254))


@pytest.mark.parametrize(
    ("write", "value"),
    [
        (dhcp4.encode_seconds, -1),
        (dhcp4.encode_seconds, 1 << 32),
        (dhcp4.encode_max_size, 575),
        (dhcp4.encode_max_size, 65536),
        (dhcp4.encode_parameter_list, ()),
        (dhcp4.encode_parameter_list, (0,)),
        (dhcp4.encode_parameter_list, (255,)),
        (dhcp4.encode_parameter_list, (300,)),
    ],
)
def test_values_that_cannot_be_requested(write, value):
    with pytest.raises(ValueError, match=r"\S"):
        write(value)
