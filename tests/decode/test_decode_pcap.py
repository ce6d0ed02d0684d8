"""Captures: both file formats in both byte orders, every link type, and cut at every octet."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from captures import (
    CLIENT,
    ETHERNET,
    SERVER,
    ack,
    block,
    discover,
    enhanced,
    inner,
    interface,
    packet4,
    packet6,
    pcap,
    reply,
    section,
)
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import PcapNgWriter, wrpcap

from b4client.decode.pcap import MAX_PACKET, Datagram, is_capture, read_capture

FRAME = bytes(ETHERNET / packet6(discover()))
EXCHANGE = [bytes(ETHERNET / packet6(m, *p)) for m, p in ((discover(), (546, 547)), (ack(), (547, 546)))]


def only(data: bytes) -> Datagram:
    capture = read_capture(data)
    assert capture.fault is None
    assert len(capture.datagrams) == 1
    return capture.datagrams[0]


# ------------------------------------------------------------------------------------------------------- file formats


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_classic(order: str, nanoseconds: bool) -> None:
    data = pcap([*EXCHANGE, b"other"], order=order, nanoseconds=nanoseconds)
    assert is_capture(data)
    capture = read_capture(data)
    assert capture.datagrams == (
        Datagram(1000.0, CLIENT, SERVER, 546, 547, discover(), 1),
        Datagram(1000.5, CLIENT, SERVER, 547, 546, ack(), 2),
    )
    assert (capture.packets, capture.fragments, capture.fault) == (3, 0, None)


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng(order: str) -> None:
    nanoseconds = struct.pack(order + "HHB3x", 9, 1, 9) + struct.pack(order + "HH", 0, 0)
    binary_and_offset = (
        struct.pack(order + "HHB3x", 9, 1, 0x80 | 4)
        + struct.pack(order + "HHq", 14, 8, 500)
        + struct.pack(order + "HH", 2, 0)
    )
    data = (
        section(order)
        + interface(1, order=order)
        + interface(1, nanoseconds, order)
        + interface(1, binary_and_offset, order)
        + block(5, b"statistics!", order)
        + enhanced(FRAME, 1_000_500_000, order=order)
        + enhanced(FRAME, 2_000_000_000_000, index=1, order=order)
        + enhanced(FRAME, 40, index=2, order=order)
        + block(3, struct.pack(order + "I", len(FRAME)) + FRAME, order)
    )
    assert is_capture(data)
    capture = read_capture(data)
    assert capture.fault is None
    assert [d.at for d in capture.datagrams] == [1000.5, 2000.0, 502.5, 0.0]
    assert {d.payload for d in capture.datagrams} == {discover()}
    assert [d.number for d in capture.datagrams] == [1, 2, 3, 4]


def test_sections_have_their_own_byte_order_and_interfaces() -> None:
    data = section("<") + interface(1) + enhanced(FRAME, 0) + section(">") + interface(101, order=">")
    data += enhanced(FRAME[14:], 0, order=">")
    assert len(read_capture(data).datagrams) == 2
    without = read_capture(section("<") + interface(1) + section("<") + enhanced(FRAME, 0))
    assert without.fault is not None
    assert "interface 0, which is not described" in str(without.fault)


def test_as_scapy_writes_them(tmp_path: Path) -> None:
    frames = [ETHERNET / packet6(reply(), 547, 546), ETHERNET / packet4(inner(1))]
    for number, frame in enumerate(frames):
        frame.time = 1_700_000_000 + number
    wrpcap(str(tmp_path / "x.pcap"), frames)
    writer = PcapNgWriter(str(tmp_path / "x.pcapng"))
    for frame in frames:
        writer.write(frame)
    writer.close()
    for name in ("x.pcap", "x.pcapng"):
        capture = read_capture((tmp_path / name).read_bytes())
        assert capture.fault is None
        assert [(d.payload, d.at) for d in capture.datagrams] == [(reply(), 1.7e9), (inner(1), 1.7e9 + 1)]


# ------------------------------------------------------------------------------------------------------------- layers


def test_link_types() -> None:
    ip6, ip4 = bytes(packet6(discover())), bytes(packet4(inner(1)))
    sll = bytes(14)
    for payload, frames in (
        (
            discover(),
            (
                (1, FRAME),
                (1, bytes(Ether(src="02::", dst="02::") / Dot1Q(vlan=7, type=0x86DD)) + ip6),
                (1, bytes(12) + bytes.fromhex("88a80007 81000008 86dd") + ip6),
                (113, sll + b"\x86\xdd" + ip6),
                (113, sll + bytes.fromhex("8100000786dd") + ip6),
                (276, b"\x86\xdd" + bytes(18) + ip6),
                (101, ip6),
                (12, ip6),
                (229, ip6),
            ),
        ),
        (
            inner(1),
            ((1, bytes(ETHERNET)[:12] + b"\x08\0" + ip4), (113, sll + b"\x08\0" + ip4), (101, ip4), (228, ip4)),
        ),
    ):
        for link_type, frame in frames:
            found = only(pcap([frame], link_type))
            assert found.payload == payload, (link_type, frame.hex())


def test_ipv4() -> None:
    found = only(pcap([bytes(ETHERNET / packet4(inner(1)))]))
    assert (found.source, found.destination) == (IPv4Address("0.0.0.0"), IPv4Address("255.255.255.255"))
    assert (found.source_port, found.destination_port, found.payload) == (68, 67, inner(1))
    with_options = packet4(inner(1))
    with_options.options = [b"\x94\x04\0\0"]  # router alert
    assert only(pcap([bytes(ETHERNET / with_options)])).payload == inner(1)


def test_ipv6_extension_headers() -> None:
    packet = packet6(discover())
    udp = packet.payload
    packet.remove_payload()
    for headers in (IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(offset=0, m=0)):
        assert only(pcap([bytes(ETHERNET / packet.copy() / headers / udp.copy())])).payload == discover()
    for fragment in (IPv6ExtHdrFragment(offset=0, m=1), IPv6ExtHdrFragment(offset=8, m=0)):
        capture = read_capture(pcap([bytes(ETHERNET / packet.copy() / fragment / udp.copy()), FRAME]))
        assert (capture.packets, capture.fragments, len(capture.datagrams)) == (2, 1, 1)


def test_ipv4_fragments_are_counted() -> None:
    first, last = packet4(inner(1)), packet4(inner(1))
    first.flags, last.frag = "MF", 3
    capture = read_capture(pcap([bytes(ETHERNET / first), bytes(ETHERNET / last)]))
    assert (capture.packets, capture.fragments, capture.datagrams) == (2, 2, ())


def test_ports_decide() -> None:
    frames = [bytes(ETHERNET / packet6(b"x", 1000, 53)), bytes(ETHERNET / packet6(b"x", 67, 68))]
    frames += [bytes(ETHERNET / packet4(b"x", 546, 547)), bytes(ETHERNET / packet6(b"y", 547, 547))]
    frames += [bytes(ETHERNET / packet4(b"z", 67, 1067))]
    assert [d.payload for d in read_capture(pcap(frames)).datagrams] == [b"y", b"z"]


def test_what_the_capture_has_not_all_of() -> None:
    short = only(pcap([FRAME[:-20]], lost=20))
    assert short.cut
    assert short.payload == discover()[:-20]
    # The same loss without the capture having said so is a lying packet.
    assert read_capture(pcap([FRAME[:-20]])).datagrams == ()
    # What Ethernet appends to a short frame does not belong to the message.
    assert only(pcap([FRAME + bytes(6)])).payload == discover()
    block_cut = section() + interface(snapshot=len(FRAME) - 20) + block(3, struct.pack("<I", len(FRAME)) + FRAME[:-20])
    assert only(block_cut).cut


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        FRAME[:13],
        FRAME[:12] + b"\x08\x06" + FRAME[14:],  # ARP
        FRAME[:14] + b"\x45" + FRAME[15:],  # IPv4 where IPv6 was said
        FRAME[:20] + b"\x06" + FRAME[21:],  # TCP
        FRAME[:58] + b"\0\x07" + FRAME[60:],  # UDP length below its header
        FRAME[:58] + b"\xff\xff" + FRAME[60:],  # beyond the packet
        FRAME[:12] + bytes.fromhex("81000001") * 5 + FRAME[12:],  # more tags than anybody stacks
        FRAME[:20] + b"\0" + FRAME[21:54] + bytes.fromhex("0000000000000000") * 9 + FRAME[54:],
    ],
)
def test_packets_that_are_none_of_ours(frame: bytes) -> None:
    capture = read_capture(pcap([frame, FRAME]))
    assert (capture.packets, [d.number for d in capture.datagrams]) == (2, [2])


@pytest.mark.parametrize("link_type", [0, 105, 127, 228])
def test_link_types_that_are_not_understood_or_not_true(link_type: int) -> None:
    capture = read_capture(pcap([FRAME[14:]], link_type))
    assert (capture.packets, capture.datagrams, capture.fault) == (1, (), None)


def test_raw_packet_of_no_ip_version() -> None:
    assert read_capture(pcap([b"\x50" + bytes(60), b""], 101)).datagrams == ()


# ------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (b"", "truncated pcap header", 0),
        (b"no capture at all", "neither a pcap nor a pcapng file", 0),
        (pcap([])[:4] + struct.pack("<HH", 2, 3) + pcap([])[8:], r"pcap version 2\.3 is not 2\.4", 4),
        (pcap([]) + struct.pack("<IIII", 0, 0, MAX_PACKET + 1, 0), f"packet of {MAX_PACKET + 1} octets", 32),
        (section()[:8] + b"abcd" + section()[12:], "unknown byte order", 8),
        (section() + block(1, bytes(8))[:-4] + b"\0\0\0\0", "the two lengths of a block differ", 44),
        (section() + struct.pack("<II", 1, 8), "block of 8 octets", 32),
        (section() + struct.pack("<II", 1, 21), "block of 21 octets", 32),
        (section() + interface(1, struct.pack("<HHB3x", 9, 1, 64)), "time resolution 0x40", 48),
        (section() + interface(1, struct.pack("<HH", 9, 8)), "truncated option of an interface", 48),
        (section() + block(1, bytes(4)), "truncated interface", 40),
        (section() + enhanced(FRAME, 0), "interface 0, which is not described", 36),
        (section() + interface() + block(6, struct.pack("<IIIII", 0, 0, 0, 9, 9)), "truncated packet", 76),
        (section() + interface() + block(6, struct.pack("<IIIII", 0, 0, 0, 2**31, 9)), "packet of 2147483648", 56),
        (section() + interface() * 4097, "more than 4096 interfaces", 28 + 4096 * 20),
    ],
)
def test_faults_have_their_place(data: bytes, reason: str, offset: int) -> None:
    capture = read_capture(data)
    assert capture.fault is not None
    assert capture.fault.offset == offset
    with pytest.raises(type(capture.fault), match=reason):
        raise capture.fault


@pytest.mark.parametrize(
    "whole",
    [
        pcap(EXCHANGE),
        section() + interface() + enhanced(EXCHANGE[0], 5) + block(4, b"names") + enhanced(EXCHANGE[1], 9),
    ],
)
def test_cut_at_every_octet(whole: bytes) -> None:
    everything = read_capture(whole)
    assert len(everything.datagrams) == 2
    ends = 0
    for length in range(len(whole)):
        capture = read_capture(whole[:length])
        assert capture.datagrams == everything.datagrams[: len(capture.datagrams)]
        if capture.fault is None:
            ends += 1  # between two records
        else:
            assert "truncated" in str(capture.fault)
            assert capture.fault.offset is not None
            assert capture.fault.offset <= length
    assert ends == (2 if whole[:1] == b"\xd4" else 4)


@given(
    st.binary(max_size=300), st.sampled_from([pcap([]), pcap([], order=">"), section(), section() + interface(), b""])
)
def test_any_octets(data: bytes, start: bytes) -> None:
    capture = read_capture(start + data)
    assert capture.packets >= len(capture.datagrams)


@given(st.data())
def test_any_change_of_a_capture(data: st.DataObject) -> None:
    whole = bytearray(pcap(EXCHANGE) if data.draw(st.booleans()) else section() + interface() + enhanced(FRAME, 1))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    capture = read_capture(bytes(whole))
    assert len(capture.datagrams) <= 2


@given(st.binary(max_size=120), st.sampled_from([1, 101, 113, 228, 229, 276]))
def test_any_packet(frame: bytes, link_type: int) -> None:
    assert read_capture(pcap([frame, frame], link_type)).packets == 2
