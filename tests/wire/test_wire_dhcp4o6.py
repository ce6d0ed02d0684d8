"""DHCPV4-QUERY, DHCPV4-RESPONSE and the list of 4o6 servers (RFC 7341 6-7)."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from wire_table import both_ways, cut_everywhere, refused

from b4client.wire import dhcp4o6
from b4client.wire.dhcp4o6 import Dhcp4o6Message, decode, encode_query, encode_response

INNER = b"any octets: not decoded here"
INNER_HEX = "0057001c" + INNER.hex()
ORO = ((6, bytes.fromhex("005a0089")),)

TABLE = [
    pytest.param("14800000" + INNER_HEX, Dhcp4o6Message(20, 0x800000, INNER), id="unicast query"),
    pytest.param("14000000" + INNER_HEX, Dhcp4o6Message(20, 0, INNER), id="broadcast query"),
    pytest.param("14000000" + INNER_HEX + "00060004005a0089", Dhcp4o6Message(20, 0, INNER, ORO), id="query asking"),
    pytest.param("15000000" + INNER_HEX, Dhcp4o6Message(21, 0, INNER), id="response"),
    pytest.param(
        "15000000" + INNER_HEX + "0089000100 0089000100",
        Dhcp4o6Message(21, 0, INNER, ((137, b"\0"), (137, b"\0"))),
        id="response with options",
    ),
    pytest.param("15ffffff" + INNER_HEX, Dhcp4o6Message(21, 0xFFFFFF, INNER), id="response with every flag"),
    pytest.param("1500000000570000", Dhcp4o6Message(21, 0, b""), id="empty option 87"),
]


def encode(message: Dhcp4o6Message) -> bytes:
    if message.msg_type == 20:
        return encode_query(message.dhcp4, unicast=message.unicast, options=message.options)
    return encode_response(message.dhcp4, options=message.options, flags=message.flags)


@pytest.mark.parametrize(("text", "message"), TABLE)
def test_both_ways(text, message):
    both_ways(decode, encode, bytes.fromhex(text), message)


@pytest.mark.parametrize(("text", "message"), TABLE)
def test_cut_at_every_octet(text, message):
    # Without end mark a cut between two options goes unseen; option 87 is complete then.
    legal = {}
    length = 8 + len(message.dhcp4)
    for index, (_, value) in enumerate(message.options):
        legal[length] = Dhcp4o6Message(message.msg_type, message.flags, message.dhcp4, message.options[:index])
        length += 4 + len(value)
    cut_everywhere(decode, bytes.fromhex(text), legal)


def test_option_87_need_not_come_first():
    message = decode(bytes.fromhex("15000000 005a0001aa" + INNER_HEX + "005a0001bb"))
    assert message.dhcp4 == INNER
    assert message.options == ((90, b"\xaa"), (90, b"\xbb"))
    assert message.get(90) == b"\xaa"
    assert message.get_all(90) == (b"\xaa", b"\xbb")
    assert message.get(87) is None


def test_unicast_is_the_first_flag_bit_alone():
    # RFC 7341 6.3: the other 23 bits MUST be ignored when receiving.
    assert decode(bytes.fromhex("14800000" + INNER_HEX)).unicast is True
    assert decode(bytes.fromhex("14ffffff" + INNER_HEX)).unicast is True
    assert decode(bytes.fromhex("147fffff" + INNER_HEX)).unicast is False


def test_a_server_sends_no_flags():
    # RFC 7341 6.4
    assert encode_response(INNER) == bytes.fromhex("15000000" + INNER_HEX)


@pytest.mark.parametrize("msg_type", [t for t in range(256) if t not in (20, 21)])
def test_other_types(msg_type):
    refused(decode, bytes((msg_type, 0, 0, 0)) + bytes.fromhex(INNER_HEX), "neither 20 nor 21")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("15000000", "^0 DHCPv4 Message"),
        ("15000000 00580000", "^0 DHCPv4 Message"),
        ("15000000" + INNER_HEX * 2, "^2 DHCPv4 Message"),
        ("15000000 00570000 00570000", "^2 DHCPv4 Message"),
        ("15000000" + INNER_HEX + "00", "truncated"),
        ("15000000 0057ffff 00", "truncated option 87"),
        ("150000", "truncated flags"),
        ("", "message type"),
    ],
)
def test_refused(text, reason):
    refused(decode, bytes.fromhex(text), reason)


def test_longer_than_any_datagram():
    refused(decode, b"\x15" + bytes(65535), "longer than 65535")


@pytest.mark.parametrize(
    ("dhcp4", "options", "flags", "reason"),
    [
        (b"", ((87, b""),), 0, "option 87"),
        (b"", (), 1 << 24, "flags"),
        (b"", (), -1, "flags"),
        (bytes(65536), (), 0, "option 87"),
        (bytes(65530), (), 0, "longer than 65535"),
        (b"", ((65536, b""),), 0, "option code"),
    ],
)
def test_encode_refuses_to_write_something_wrong(dhcp4, options, flags, reason):
    with pytest.raises(ValueError, match=reason):
        encode_response(dhcp4, options=options, flags=flags)


# ---------------------------------------------------------------------------------------------------------- option 88

ONE = IPv6Address("2001:db8::1")
TWO = IPv6Address("fd00::2")
ALL = IPv6Address("ff02::1:2")


@pytest.mark.parametrize("servers", [(), (ONE,), (ONE, ALL), (TWO, ONE, ALL)])
def test_servers_both_ways_and_cut(servers):
    data = b"".join(s.packed for s in servers)
    both_ways(dhcp4o6.decode_servers, dhcp4o6.encode_servers, data, servers)
    cut_everywhere(dhcp4o6.decode_servers, data, {16 * n: servers[:n] for n in range(len(servers))})


def test_duplicate_servers_keep_the_first():
    # [F-4]; RFC 7341 12: MUST, against amplification.
    data = dhcp4o6.encode_servers((TWO, ONE, TWO, ONE, ALL, TWO))
    assert dhcp4o6.decode_servers(data) == (TWO, ONE, ALL)


def test_servers_are_bounded():
    many = [IPv6Address(int(ONE) + n) for n in range(4095)]
    assert dhcp4o6.decode_servers(dhcp4o6.encode_servers(many)) == tuple(many[: dhcp4o6.MAX_SERVERS])
    assert dhcp4o6.decode_servers(dhcp4o6.encode_servers([ONE] * 4000 + [TWO])) == (ONE, TWO)


def test_servers_that_fill_no_address():
    refused(dhcp4o6.decode_servers, bytes(15), "15 octets")
    refused(dhcp4o6.decode_servers, bytes(33), "33 octets")


def test_more_servers_than_an_option_holds():
    with pytest.raises(ValueError, match="longer than 65535"):
        dhcp4o6.encode_servers([ONE] * 4096)
