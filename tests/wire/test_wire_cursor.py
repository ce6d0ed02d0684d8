"""Reader and Writer: bounds, offsets in errors, prefixes, and text from peers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from wire_table import both_ways, cut_everywhere, refused

from b4client.model import errors
from b4client.wire import aftrname, cursor, dhcp4, dhcp4o6, dhcp6, identity, softwire46
from b4client.wire.cursor import MAX_MESSAGE, Reader, WireError, Writer, check_length, printable


def test_wire_error_is_the_models():
    assert cursor.WireError is errors.WireError


def test_reads_every_kind_in_order():
    octets = bytes.fromhex("01 0203 040506 0708090a c0000201 20010db8000000000000000000000001 aabb")
    reader = Reader(octets)
    assert reader.u8() == 0x01
    assert reader.u16() == 0x0203
    assert reader.u24() == 0x040506
    assert reader.u32() == 0x0708090A
    assert reader.ipv4() == IPv4Address("192.0.2.1")
    assert reader.ipv6() == IPv6Address("2001:db8::1")
    assert reader.remaining == 2
    assert reader.take(1) == b"\xaa"
    assert reader.rest() == b"\xbb"
    assert reader.rest() == b""
    reader.finish()


@pytest.mark.parametrize(("method", "size"), [("u8", 1), ("u16", 2), ("u24", 3), ("u32", 4), ("ipv4", 4), ("ipv6", 16)])
def test_one_octet_too_few_is_an_error_and_consumes_nothing(method, size):
    reader = Reader(b"\xff" * (size - 1))
    with pytest.raises(WireError):
        getattr(reader, method)()
    assert reader.remaining == size - 1


@pytest.mark.parametrize("count", [-1, 4, 1 << 70])
def test_take_outside_the_buffer(count):
    with pytest.raises(WireError):
        Reader(b"abc").take(count)


@pytest.mark.parametrize("offset", [-1, 4])
def test_start_outside_the_buffer(offset):
    with pytest.raises(WireError):
        Reader(b"abc", offset)


def test_errors_tell_where_in_the_whole_buffer():
    reader = Reader(b"\0" * 6, 2, base=100)
    reader.u16()
    with pytest.raises(WireError) as caught:
        reader.u32("lease time")
    assert caught.value.offset == 104
    assert "lease time" in caught.value.reason
    with pytest.raises(WireError) as caught:
        reader.finish()
    assert caught.value.offset == 104


PREFIXES = [
    ("00", "::/0"),
    ("0120", "::/1"),
    ("0180", "8000::/1"),
    ("0820", "2000::/8"),
    ("092080", "2080::/9"),
    ("382001 0db8001234", "2001:db8:12:3400::/56"),
    ("392001 0db800123480", "2001:db8:12:3480::/57"),
    ("80 20010db8000000000000000000000001", "2001:db8::1/128"),
]


@pytest.mark.parametrize(("text", "prefix"), [p for p in PREFIXES if p[0] != "0120"])
def test_prefixes_both_ways_and_cut(text, prefix):
    octets = bytes.fromhex(text)

    def decode(data):
        reader = Reader(data)
        value = reader.prefix6()
        reader.finish()
        return value

    both_ways(decode, lambda v: Writer().prefix6(v).finish(), octets, IPv6Network(prefix))
    cut_everywhere(decode, octets)


def test_prefix_bits_beyond_the_length_are_ignored():
    assert Reader(bytes.fromhex("0120")).prefix6() == IPv6Network("::/1")
    assert Reader(bytes.fromhex("39 20010db8001234ff")).prefix6() == IPv6Network("2001:db8:12:3480::/57")


def test_prefix_longer_than_an_address():
    refused(lambda data: Reader(data).prefix6(), b"\x81" + b"\xff" * 17, "129 bits")
    refused(lambda data: Reader(data).prefix6(), b"\xff" * 64, "255 bits")


@pytest.mark.parametrize(("method", "bits"), [("u8", 8), ("u16", 16), ("u24", 24), ("u32", 32)])
def test_writer_refuses_what_does_not_fit(method, bits):
    top = (1 << bits) - 1
    assert getattr(Writer(), method)(top).finish() == b"\xff" * (bits // 8)
    assert getattr(Writer(), method)(0).finish() == b"\0" * (bits // 8)
    for value in (-1, top + 1):
        with pytest.raises(ValueError, match="does not fit"):
            getattr(Writer(), method)(value)


def test_writer_pads_and_refuses_to_cut():
    assert Writer().padded(b"ab", 4).finish() == b"ab\0\0"
    assert len(Writer().padded(b"abcd", 4)) == 4
    with pytest.raises(ValueError, match="file of 5 octets"):
        Writer().padded(b"abcde", 4, "file")


def test_nothing_is_longer_than_a_datagram():
    assert len(Writer().raw(bytes(MAX_MESSAGE)).finish()) == MAX_MESSAGE
    with pytest.raises(ValueError, match="longer than 65535"):
        Writer().raw(bytes(MAX_MESSAGE + 1)).finish()
    check_length(bytes(MAX_MESSAGE))
    with pytest.raises(WireError):
        check_length(bytes(MAX_MESSAGE + 1))


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"", ""),
        (b"pool exhausted", "pool exhausted"),
        (b"trailing\0\0", "trailing"),
        (b"in\0side", "in\\x00side"),
        (b"two\nlines\r", "two\\nlines\\r"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("für \u202e\u2028".encode(), "für \\u202e\\u2028"),
        (b"\xf0\x9f\x98\x80\xf3\xa0\x80\x81", "\U0001f600\\U000e0001"),
    ],
)
def test_text_from_a_peer_cannot_disturb_a_log(octets, text):
    assert printable(octets) == text
    assert printable(octets).isprintable()


def test_text_from_a_peer_cannot_flood_a_log():
    assert printable(b"a" * 60000) == "a" * 512


@pytest.mark.parametrize(
    ("decode", "text", "offset"),
    [
        (dhcp4.decode, "03", 1),
        (dhcp4.decode, "03010600", 0),
        (dhcp4.decode, "01011100", 2),
        (dhcp4.decode, "01010600" + "00" * 236, 236),
        (dhcp4.decode, "01010600" + "00" * 232 + "63825363 350201", 242),
        (dhcp6.decode, "0c000000", 0),
        (dhcp6.decode, "07000000 00010001", 8),
        (dhcp6.decode_relay, "07" + "00" * 33, 0),
        (dhcp6.decode_iaprefix, "00" * 8 + "81" + "00" * 16, 8),
        (dhcp4o6.decode, "07000000", 0),
        (identity.decode_client_identifier, "01020000000001", 0),
        (softwire46.decode_rule, "01 31 18 c0000200 00", 1),
        (softwire46.decode_rule, "01 10 21 c0000200 00", 2),
        (softwire46.decode_rule, "01 10 18 c0000200 81", 7),
        (aftrname.decode_aftr_name, "03616263 40", 4),
        (aftrname.decode_aftr_name, "0361622e 00", 1),
        (aftrname.decode_aftr_name, "0361626300 00", 5),
        (softwire46.decode_saddr, "00" * 17, 16),
    ],
)
def test_decoders_tell_where_it_went_wrong(decode, text, offset):
    with pytest.raises(WireError) as caught:
        decode(bytes.fromhex(text))
    assert caught.value.offset == offset
