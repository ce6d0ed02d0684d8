"""DHCPv6 messages, relay messages, options and their plain values (RFC 8415 8, 9, 21)."""

from __future__ import annotations

import dataclasses
import math
from ipaddress import IPv6Address, IPv6Network

import pytest
from wire_table import both_ways, cut_everywhere, refused

from b4client.wire import dhcp6
from b4client.wire.dhcp6 import (
    Dhcp6Message,
    IaAddress,
    IaPrefix,
    IdentityAssociation,
    MessageType,
    Option,
    RelayMessage,
)

DUID = bytes.fromhex("00030001020000000001")
LINK = IPv6Address("2001:db8::1")
PEER = IPv6Address("fe80::1")


def hexed(text: str) -> bytes:
    return bytes.fromhex(text)


def boundaries(header: int, options: dhcp6.Options) -> dict[int, dhcp6.Options]:
    """Lengths at which a cut falls between two options, with the options before it: DHCPv6 has no end mark, and who
    delivers a datagram delivers all of it."""
    legal = {}
    length = header
    for index, (_, value) in enumerate(options):
        legal[length] = options[:index]
        length += 4 + len(value)
    return legal


# ---------------------------------------------------------------------------------------------------- numbers


def test_numbers_that_must_not_change():
    assert (dhcp6.CLIENT_PORT, dhcp6.SERVER_PORT) == (546, 547)
    assert IPv6Address("ff02::1:2") == dhcp6.ALL_SERVERS
    assert dhcp6.HOP_COUNT_LIMIT == 8


@pytest.mark.parametrize(
    ("members", "numbers"),
    [
        (
            MessageType,
            # RFC 8415 7.3, RFC 7341 6.1
            "SOLICIT 1 ADVERTISE 2 REQUEST 3 CONFIRM 4 RENEW 5 REBIND 6 REPLY 7 RELEASE 8 DECLINE 9 RECONFIGURE 10 "
            "INFORMATION_REQUEST 11 RELAY_FORW 12 RELAY_REPL 13 DHCPV4_QUERY 20 DHCPV4_RESPONSE 21",
        ),
        (
            Option,
            # RFC 8415 21, 3646, 4075, 5908, 6334, 7341, 7598, 8026, 8539
            "CLIENTID 1 SERVERID 2 IA_NA 3 IA_TA 4 IAADDR 5 ORO 6 PREFERENCE 7 ELAPSED_TIME 8 RELAY_MSG 9 AUTH 11 "
            "UNICAST 12 STATUS_CODE 13 RAPID_COMMIT 14 USER_CLASS 15 VENDOR_CLASS 16 VENDOR_OPTS 17 INTERFACE_ID 18 "
            "RECONF_MSG 19 RECONF_ACCEPT 20 DNS_SERVERS 23 DOMAIN_LIST 24 IA_PD 25 IAPREFIX 26 SNTP_SERVERS 31 "
            "INFORMATION_REFRESH_TIME 32 NTP_SERVER 56 AFTR_NAME 64 SOL_MAX_RT 82 INF_MAX_RT 83 DHCPV4_MSG 87 "
            "DHCP4_O_DHCP6_SERVER 88 S46_RULE 89 S46_BR 90 S46_DMR 91 S46_V4V6BIND 92 S46_PORTPARAMS 93 "
            "S46_CONT_MAPE 94 S46_CONT_MAPT 95 S46_CONT_LW 96 S46_PRIORITY 111 S46_BIND_IPV6_PREFIX 137",
        ),
        (
            dhcp6.StatusCode,
            # RFC 8415 21.13
            "SUCCESS 0 UNSPEC_FAIL 1 NO_ADDRS_AVAIL 2 NO_BINDING 3 NOT_ON_LINK 4 USE_MULTICAST 5 NO_PREFIX_AVAIL 6",
        ),
    ],
)
def test_names_have_their_assigned_numbers(members, numbers):
    words = numbers.split()
    assert {name: int(m) for name, m in members.__members__.items()} == dict(
        zip(words[::2], map(int, words[1::2]), strict=True)
    )


# ---------------------------------------------------------------------------------------------------- options


OPTIONS = [
    ("", ()),
    ("00580000", ((88, b""),)),
    ("0008 0002 0000", ((8, b"\0\0"),)),
    ("00060004005a0089", ((6, hexed("005a0089")),)),
    ("0000 0000 ffff 0001 aa", ((0, b""), (65535, b"\xaa"))),
    ("005e0001aa 00010001bb 005e0001cc", ((94, b"\xaa"), (1, b"\xbb"), (94, b"\xcc"))),
]


@pytest.mark.parametrize(("text", "options"), OPTIONS)
def test_options_both_ways_and_cut(text, options):
    both_ways(dhcp6.decode_options, dhcp6.encode_options, hexed(text), options)
    cut_everywhere(dhcp6.decode_options, hexed(text), boundaries(0, options))


def test_options_behind_an_offset():
    assert dhcp6.decode_options(hexed("ffff 00580000"), 2) == ((88, b""),)
    assert dhcp6.decode_options(hexed("ffff"), 2) == ()
    refused(lambda data: dhcp6.decode_options(data, 3), hexed("ffff"), "truncated")
    refused(lambda data: dhcp6.decode_options(data, 2), hexed("ffff 0058 0001"), r"option 88.*at octet 6")


@pytest.mark.parametrize("text", ["00", "0058", "005800", "00580001", "00580000 00", "0000005d0004000834000000"])
def test_left_over_octets(text):
    refused(dhcp6.decode_options, hexed(text), "truncated")


@pytest.mark.parametrize(
    "options", [((-1, b""),), ((65536, b""),), ((1, bytes(65536)),), ((1, bytes(65532)),), ((1, bytes(40000)),) * 2]
)
def test_options_that_cannot_be_written(options):
    with pytest.raises(ValueError, match=r"fit|longer"):
        dhcp6.encode_options(options)


def test_options_longer_than_any_datagram():
    refused(dhcp6.decode_options, bytes(65536), "longer than 65535")


# ---------------------------------------------------------------------------------------------------- messages

REPLY = Dhcp6Message(
    MessageType.REPLY,
    0x123456,
    ((1, DUID), (2, DUID), (88, b""), (94, b"a"), (94, b"b")),
)
MESSAGES = [
    ("0b000000", Dhcp6Message(MessageType.INFORMATION_REQUEST, 0)),
    ("01ffffff", Dhcp6Message(MessageType.SOLICIT, 0xFFFFFF)),
    (
        "0babcdef 00080002ffff 00060006 0058 0020 0053",
        Dhcp6Message(MessageType.INFORMATION_REQUEST, 0xABCDEF, ((8, b"\xff\xff"), (6, hexed("005800200053")))),
    ),
    (
        "07123456 0001000a00030001020000000001 0002000a00030001020000000001 00580000 005e000161 005e000162",
        REPLY,
    ),
]


@pytest.mark.parametrize(("text", "message"), MESSAGES)
def test_messages_both_ways_and_cut(text, message):
    both_ways(dhcp6.decode, dhcp6.encode, hexed(text), message)
    legal = {
        length: Dhcp6Message(message.msg_type, message.transaction_id, options)
        for length, options in boundaries(4, message.options).items()
    }
    cut_everywhere(dhcp6.decode, hexed(text), legal)


def test_first_and_all_instances():
    assert REPLY.get(94) == b"a"
    assert REPLY.get_all(94) == (b"a", b"b")
    assert REPLY.get(88) == b""
    assert REPLY.get(87) is None
    assert REPLY.get_all(87) == ()


@pytest.mark.parametrize("msg_type", range(256))
def test_only_client_server_types(msg_type):
    data = bytes((msg_type, 0, 0, 1))
    assert dhcp6.message_type(data) == msg_type
    if 1 <= msg_type <= 11:
        assert dhcp6.decode(data) == Dhcp6Message(msg_type, 1)
    else:
        refused(dhcp6.decode, data, f"message type {msg_type}")
        with pytest.raises(ValueError, match=f"message type {msg_type}"):
            dhcp6.encode(Dhcp6Message(msg_type, 1))


def test_empty_datagram_has_no_type():
    refused(dhcp6.message_type, b"", "message type")


@pytest.mark.parametrize("transaction_id", [-1, 1 << 24])
def test_transaction_id_has_24_bits(transaction_id):
    with pytest.raises(ValueError, match="transaction-id"):
        dhcp6.encode(Dhcp6Message(1, transaction_id))


def test_message_longer_than_any_datagram():
    refused(dhcp6.decode, b"\7" + bytes(65535), "longer than 65535")
    refused(dhcp6.decode_relay, b"\x0c" + bytes(65535), "longer than 65535")


# ---------------------------------------------------------------------------------------------------- relay

RELAYED = RelayMessage(MessageType.RELAY_FORW, 3, LINK, PEER, ((18, b"eth0"), (9, hexed("0b000001"))))
RELAYED_HEX = "0c03 20010db8000000000000000000000001 fe800000000000000000000000000001 0012000465746830 000900040b000001"


def test_relay_both_ways_and_cut():
    both_ways(dhcp6.decode_relay, dhcp6.encode_relay, hexed(RELAYED_HEX), RELAYED)
    legal = {
        length: RelayMessage(MessageType.RELAY_FORW, 3, LINK, PEER, options)
        for length, options in boundaries(34, RELAYED.options).items()
    }
    cut_everywhere(dhcp6.decode_relay, hexed(RELAYED_HEX), legal)
    assert RELAYED.relayed() == hexed("0b000001")


@pytest.mark.parametrize("count", [0, 2])
def test_relay_message_holds_exactly_one(count):
    message = RelayMessage(MessageType.RELAY_REPL, 0, LINK, PEER, ((9, b"x"),) * count)
    assert dhcp6.decode_relay(dhcp6.encode_relay(message)) == message
    refused(lambda data: dhcp6.decode_relay(data).relayed(), dhcp6.encode_relay(message), f"{count} Relay Message")


@pytest.mark.parametrize("msg_type", [0, 1, 7, 11, 14, 20, 21, 255])
def test_relay_types(msg_type):
    refused(dhcp6.decode_relay, bytes((msg_type,)) + bytes(33), "neither 12 nor 13")
    with pytest.raises(ValueError, match="neither 12 nor 13"):
        dhcp6.encode_relay(RelayMessage(msg_type, 0, LINK, PEER))


def test_hop_count_is_an_octet():
    assert dhcp6.decode_relay(b"\x0d\xff" + bytes(32)).hop_count == 255
    with pytest.raises(ValueError, match="hop-count"):
        dhcp6.encode_relay(RelayMessage(12, 256, LINK, PEER))


# ---------------------------------------------------------------------------------------------------- plain values


@pytest.mark.parametrize(
    ("text", "codes"), [("", ()), ("0058", (88,)), ("005a0089", (90, 137)), ("ffff0000ffff", (65535, 0, 65535))]
)
def test_oro_both_ways_and_cut(text, codes):
    both_ways(dhcp6.decode_oro, dhcp6.encode_oro, hexed(text), codes)
    cut_everywhere(dhcp6.decode_oro, hexed(text), {2 * n: codes[:n] for n in range(len(codes))})


@pytest.mark.parametrize("code", [-1, 65536])
def test_oro_codes_have_16_bits(code):
    with pytest.raises(ValueError, match="option code"):
        dhcp6.encode_oro((code,))


@pytest.mark.parametrize(
    ("seconds", "centis"),
    [
        (0, 0),
        (0.004, 0),
        (0.01, 1),
        (0.29, 29),
        (1.0, 100),
        (655.34, 65534),
        (655.35, 65535),
        (655.36, 65535),
        (1e9, 65535),
        (math.inf, 65535),
    ],
)
def test_elapsed_time_in_hundredths_capped(seconds, centis):
    assert dhcp6.encode_elapsed(seconds) == centis.to_bytes(2, "big")
    assert dhcp6.decode_elapsed(dhcp6.encode_elapsed(seconds)) == centis


@pytest.mark.parametrize("seconds", [-0.1, -math.inf, math.nan])
def test_elapsed_time_that_is_none(seconds):
    with pytest.raises(ValueError, match="elapsed"):
        dhcp6.encode_elapsed(seconds)


SIZED = [
    (dhcp6.decode_elapsed, "0102", 0x0102),
    (dhcp6.decode_seconds, "00015180", 86400),
    (dhcp6.decode_seconds, "ffffffff", dhcp6.INFINITY),
    (dhcp6.decode_preference, "ff", 255),
]


@pytest.mark.parametrize(("decode", "text", "value"), SIZED)
def test_sized_values(decode, text, value):
    assert decode(hexed(text)) == value
    cut_everywhere(decode, hexed(text))
    refused(decode, hexed(text) + b"\0", "octets instead of")


def test_seconds_both_ways():
    both_ways(dhcp6.decode_seconds, dhcp6.encode_seconds, hexed("00000258"), 600)
    for value in (-1, 1 << 32):
        with pytest.raises(ValueError, match="seconds"):
            dhcp6.encode_seconds(value)


def test_status_both_ways_and_cut():
    data = hexed("0006") + b"no prefix"
    both_ways(dhcp6.decode_status, lambda v: dhcp6.encode_status(*v), data, (6, "no prefix"))
    cut_everywhere(dhcp6.decode_status, data, {n: (6, "no prefix"[: n - 2]) for n in range(2, len(data))})
    assert dhcp6.StatusCode(6).name == "NO_PREFIX_AVAIL"
    with pytest.raises(ValueError, match="status code"):
        dhcp6.encode_status(65536)


def test_a_bad_status_text_does_not_hide_the_code():
    assert dhcp6.decode_status(hexed("0001 ff0a61")) == (1, "\\xff\\na")


# ---------------------------------------------------------------------------------------------------- associations

ADDRESS = IaAddress(LINK, 1800, 3600)
PREFIX = IaPrefix(IPv6Network("2001:db8:12:3400::/56"), 0, dhcp6.INFINITY)
ADDRESS_HEX = "20010db8000000000000000000000001 00000708 00000e10"
PREFIX_HEX = "00000000 ffffffff 38 20010db8001234000000000000000000"


@pytest.mark.parametrize(
    ("decode", "encode", "text", "value", "header"),
    [
        (dhcp6.decode_iaaddr, dhcp6.encode_iaaddr, ADDRESS_HEX, ADDRESS, 24),
        (
            dhcp6.decode_iaaddr,
            dhcp6.encode_iaaddr,
            ADDRESS_HEX + "000d00020000",
            IaAddress(LINK, 1800, 3600, ((13, b"\0\0"),)),
            24,
        ),
        (dhcp6.decode_iaprefix, dhcp6.encode_iaprefix, PREFIX_HEX, PREFIX, 25),
        (
            dhcp6.decode_iaprefix,
            dhcp6.encode_iaprefix,
            PREFIX_HEX + "000d00020000",
            IaPrefix(PREFIX.prefix, 0, dhcp6.INFINITY, ((13, b"\0\0"),)),
            25,
        ),
        (dhcp6.decode_ia, dhcp6.encode_ia, "00000001 00000708 00000b40", IdentityAssociation(1, 1800, 2880), 12),
        (
            dhcp6.decode_ia,
            dhcp6.encode_ia,
            "00000001 00000000 00000000 0005 0018" + ADDRESS_HEX + "001a 0019" + PREFIX_HEX + "000d00020004",
            IdentityAssociation(1, options=((5, hexed(ADDRESS_HEX)), (26, hexed(PREFIX_HEX)), (13, hexed("0004")))),
            12,
        ),
    ],
)
def test_associations_both_ways_and_cut(decode, encode, text, value, header):
    both_ways(decode, encode, hexed(text), value)
    legal = boundaries(header, value.options)
    cut_everywhere(
        decode, hexed(text), {n: dataclasses.replace(value, options=options) for n, options in legal.items()}
    )


def test_what_is_inside_an_association():
    ia = IdentityAssociation(
        1,
        options=(
            (Option.IAADDR, hexed(ADDRESS_HEX)),
            (Option.IAPREFIX, hexed(PREFIX_HEX)),
            (Option.STATUS_CODE, hexed("0004")),
        ),
    )
    assert ia.addresses() == (ADDRESS,)
    assert ia.prefixes() == (PREFIX,)
    assert ia.status() == (4, "")
    assert IdentityAssociation(1).status() == (0, "")
    assert IdentityAssociation(1).prefixes() == ()


def test_a_bad_prefix_inside_does_not_lose_the_association():
    ia = dhcp6.decode_ia(hexed("00000001 00000000 00000000 001a 0001 00"))
    assert ia.iaid == 1
    refused(lambda _: ia.prefixes(), b"", "truncated")


def test_prefix_length_and_bits():
    refused(dhcp6.decode_iaprefix, hexed("00000000 00000000 81" + "00" * 16), "129 bits")
    assert dhcp6.decode_iaprefix(hexed("00000000 00000000 38" + "ff" * 16)).prefix == IPv6Network(
        "ffff:ffff:ffff:ff00::/56"
    )
    assert dhcp6.decode_iaprefix(hexed("00000000 00000000 80" + "ff" * 16)).prefix.prefixlen == 128
    # A wish for a size only (RFC 8415 21.22).
    assert dhcp6.decode_iaprefix(hexed("00000000 00000000 38" + "00" * 16)).prefix == IPv6Network("::/56")


@pytest.mark.parametrize(
    ("value", "consistent"),
    [
        (ADDRESS, True),
        (IaAddress(LINK, 3601, 3600), False),
        (IaAddress(LINK, 0, 0), True),
        (PREFIX, True),
        (IaPrefix(PREFIX.prefix, dhcp6.INFINITY, 3600), False),
        (IaPrefix(PREFIX.prefix, dhcp6.INFINITY, dhcp6.INFINITY), True),
        (IdentityAssociation(1), True),
        (IdentityAssociation(1, 1800, 2880), True),
        (IdentityAssociation(1, 2881, 2880), False),
        (IdentityAssociation(1, 2880, 0), True),
        (IdentityAssociation(1, 2, 1), False),
        (IdentityAssociation(1, 1800, 1800), True),
    ],
)
def test_times_that_contradict_each_other(value, consistent):
    assert value.consistent is consistent
