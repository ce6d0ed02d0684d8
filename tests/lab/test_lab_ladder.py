"""The ladder: what is drawn for messages of known octets, and for octets that are no message."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from b4client.lab.ladder import Datagram, describe, read_pcap, render
from b4client.wire import dhcp4, dhcp4o6

ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # or scapy asks the network for the address
CLIENT, SERVER = IPv6Address("fe80::c"), IPv6Address("2001:db8:46::1")


def query(
    *, unicast: bool = False, kind: int = 1, options: tuple[tuple[int, bytes], ...] = (), **fields: object
) -> bytes:
    inner = dhcp4.Dhcp4Message(
        op=1,
        xid=0xDEADBEEF,
        options=((53, bytes([kind])), *options),
        **fields,  # type: ignore[arg-type]
    )
    return dhcp4o6.encode_query(dhcp4.encode(inner), unicast=unicast)


def sent(payload: bytes, at: float = 100.0) -> Datagram:
    return Datagram(at, CLIENT, SERVER, 546, 547, payload)


def test_request_with_port_set() -> None:
    payload = query(
        unicast=True,
        kind=3,
        ciaddr=IPv4Address("192.0.2.18"),
        options=((50, bytes([192, 0, 2, 18])), (159, bytes.fromhex("06083400"))),
    )
    rung = describe(sent(payload))
    assert rung.name == "DHCPV4-QUERY: REQUEST"
    assert rung.from_client
    assert rung.details[:3] == ("U=1", "xid deadbeef", "ciaddr 192.0.2.18")
    assert "50 requested 192.0.2.18" in rung.details
    assert "159 06083400 = PSID 0x34/8 offset 6: 252 ports" in rung.details


def test_reply_with_option_88_and_container() -> None:
    options = "00580010" + SERVER.packed.hex()
    options += "0060002c005c0014c00002123820010db8001234005d000400083400005a001020010db8ffff00000000000000000001"
    rung = describe(Datagram(0, SERVER, CLIENT, 547, 546, bytes.fromhex("07abcdef" + options)))
    assert rung.name == "REPLY"
    assert not rung.from_client
    assert rung.details == ("xid abcdef", "88 2001:db8:46::1", "96 lw4o6, BR 2001:db8:ffff::1, 2001:db8:12:3400::/56")


def test_empty_option_88() -> None:
    rung = describe(Datagram(0, SERVER, CLIENT, 547, 546, bytes.fromhex("07000001" + "00580000")))
    assert "88 empty: use multicast" in rung.details


@given(st.binary(max_size=80), st.sampled_from([b"", b"\x07", b"\x14", b"\x15\0\0\0\0\x57"]))
def test_any_octets_are_drawn(data: bytes, start: bytes) -> None:
    lines = render([sent(start + data)])
    assert len(lines) >= 2


def test_pcap_as_scapy_writes_it(tmp_path: Path) -> None:
    def frame(payload: bytes, sport: int, dport: int) -> Ether:
        return ETHERNET / IPv6(src=str(CLIENT), dst=str(SERVER)) / UDP(sport=sport, dport=dport) / Raw(payload)

    packets = [frame(query(), 546, 547), frame(b"other", 1000, 53), frame(query(kind=7, unicast=True), 546, 547)]
    for number, packet in enumerate(packets):
        packet.time = 1000 + number / 2
    path = tmp_path / "x.pcap"
    wrpcap(str(path), packets)
    datagrams = read_pcap(path)
    assert [d.at for d in datagrams] == [1000.0, 1001.0]
    assert [describe(d).name for d in datagrams] == ["DHCPV4-QUERY: DISCOVER", "DHCPV4-QUERY: RELEASE"]
    text = "\n".join(render(datagrams))
    assert text.index("0.0000 s") < text.index("DISCOVER") < text.index("1.0000 s") < text.index("RELEASE")
    assert "\x1b" not in text
    assert "\x1b" in "\n".join(render(datagrams, colour=True))


def test_a_pcap_that_is_cut_off_keeps_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    wrpcap(
        str(path), [ETHERNET / IPv6(src=str(CLIENT), dst=str(SERVER)) / UDP(sport=546, dport=547) / Raw(query())] * 2
    )
    path.write_bytes(path.read_bytes()[:-10])
    assert [describe(d).name for d in read_pcap(path)] == ["DHCPV4-QUERY: DISCOVER"]


@pytest.mark.parametrize(
    "data", [b"", b"no pcap file at all, by its first octets", struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 9, 113)]
)
def test_what_is_no_pcap_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.pcap"):
        read_pcap(path)


def test_nothing() -> None:
    assert render([]) == ["(no DHCPv6 message)"]
