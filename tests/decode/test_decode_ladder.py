"""The ladder: who says what to whom, and nothing that is inside can break it."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from captures import CLIENT, LW_CONTAINER, SERVER, ack, discover, inner, reply
from hypothesis import given
from hypothesis import strategies as st

from b4client.decode.ladder import decode_datagram, message_name, render_ladder
from b4client.decode.pcap import Datagram
from b4client.wire import dhcp6

ADDRESS = "20010db8000000000000000000000001"


def sent(payload: bytes, at: float = 100.0) -> Datagram:
    return Datagram(at, CLIENT, SERVER, 546, 547, payload)


def answered(payload: bytes, at: float = 100.0) -> Datagram:
    return Datagram(at, SERVER, CLIENT, 547, 546, payload)


def details(datagram: Datagram) -> str:
    return "\n".join(render_ladder([datagram], width=2000)[2:])


def test_an_exchange() -> None:
    lines = render_ladder([sent(discover()), answered(ack(), 100.25)])
    assert lines == [
        "            client                                 server",
        "   0.0000 s ├─ DHCPV4-QUERY: DISCOVER ──────────────────▶  fe80::c → 2001:db8:46::1",
        "            │    U=0 · asks for 90 137 · xid 0xdeadbeef · asks for 1 3 159",
        "   0.2500 s ◀──────────────────── DHCPV4-RESPONSE: ACK ─┤  2001:db8:46::1 → fe80::c",
        "            │    90 BR 2001:db8:46::1 · xid 0xdeadbeef · yiaddr 192.0.2.18 · 51 lease 3600 s",
        "            │    54 server 192.0.2.1 · 159 ports PSID 0x34/8 offset 6: 252 ports, 1232-1235 and so on",
    ]


def test_arrows_end_at_the_same_columns() -> None:
    lines = render_ladder([sent(discover()), answered(ack()), answered(reply()), sent(b"\x01\0\0\0")])
    arrows = [line for line in lines if line.startswith("   0.")]
    assert {line.find("▶") for line in arrows if "▶" in line} == {56}
    assert {line.find("┤") for line in arrows if "◀" in line} == {56}
    assert {line.find("◀") for line in arrows if "◀" in line} == {12}


def test_reply_with_container() -> None:
    assert details(answered(reply())) == (
        "            │    xid 0xabcdef · 88 4o6 server 2001:db8:46::1 · "
        "96 lw4o6 192.0.2.18 in 2001:db8:12:3400::/56, PSID 0x34/8 offset 0: 256 ports, 13312-13567, "
        "BR 2001:db8:ffff::1"
    )


@pytest.mark.parametrize(
    ("octets", "part"),
    [
        ("00580000", "88 4o6 server empty: ff02::1:2"),
        ("0089000100", "137 bind prefix ::/0"),
        ("006f000400600058", "111 priority 96 S46_CONT_LW, 88 DHCP4_O_DHCP6_SERVER"),
        ("002000040000003c", "32 refresh 60 s"),
        ("0019000c000000010000000000000000", "25 IA_PD IAID 0x1, T1 0 s, T2 0 s"),
        ("000d00020002", "13 status NO_ADDRS_AVAIL (2)"),
        ("00060004005a0089", "asks for 90 137"),
    ],
)
def test_key_fields(octets: str, part: str) -> None:
    assert part in details(answered(bytes.fromhex("07000001" + octets)))


def test_errors_are_shown_with_their_place() -> None:
    broken = details(answered(ack()[:-1]))
    assert f"ERROR truncated option 90: 15 of 16 octets (at octet {len(ack()) - 16})" in broken
    assert "(at octet" in details(sent(b""))
    assert "no message" in render_ladder([sent(b"")])[1]
    cut = details(replace(sent(discover()), cut=True))
    assert "ERROR the capture holds only a part of this datagram" in cut


def test_direction_is_the_messages_own() -> None:
    """Relays use port 547 on both sides."""
    relay_forward = b"\x0c\0" + bytes(32) + b"\0\x09" + len(discover()).to_bytes(2, "big") + discover()
    relay_reply = b"\x0d\0" + bytes(16) + CLIENT.packed + b"\0\x09" + len(ack()).to_bytes(2, "big") + ack()
    there, back = (replace(sent(data), source_port=547) for data in (relay_forward, relay_reply))
    assert "RELAY-FORW: DHCPV4-QUERY: DISCOVER" in render_ladder([there])[1]
    assert "▶" in render_ladder([there])[1]
    assert "◀" in render_ladder([back])[1]
    assert "peer fe80::c" in details(back)


@pytest.mark.parametrize(("op", "arrow", "port"), [(1, "▶", 68), (2, "◀", 67), (2, "◀", 68)])
def test_dhcpv4(op: int, arrow: str, port: int) -> None:
    datagram = Datagram(
        0.0, IPv4Address("0.0.0.0"), IPv4Address("192.0.2.1"), 68, port, inner(5, op, (50, bytes([192, 0, 2, 7])))
    )
    line = render_ladder([datagram])[1]
    assert arrow in line
    assert " ACK " in line
    assert "50 requested 192.0.2.7" in details(datagram)
    assert message_name(decode_datagram(datagram)) == "ACK"


def test_octets_that_say_nothing_go_where_their_port_says() -> None:
    assert "▶" in render_ladder([sent(b"")])[1]
    assert "◀" in render_ladder([answered(b"")])[1]


def test_colour_changes_nothing_but_colour() -> None:
    exchange = [sent(discover()), answered(ack()[:-1])]
    plain, coloured = render_ladder(exchange), render_ladder(exchange, colour=True)
    assert not any("\x1b" in line for line in plain)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain
    assert sum("\x1b" in line for line in coloured) == len(coloured) - 1
    assert any("\x1b[31mERROR" in line for line in coloured)


def test_nothing() -> None:
    assert render_ladder([]) == ["(no DHCP message)"]


def test_a_long_text_is_broken() -> None:
    long = sent(dhcp6.encode(dhcp6.Dhcp6Message(7, 1, ((13, b"\0\1" + b"a" * 400),))))
    lines = render_ladder([long], width=70)
    assert max(map(len, lines[2:])) <= 70
    assert "".join(line.strip(" │") for line in lines[2:]).count("a") == 400 + 1  # and the one of "status"
    assert render_ladder([long], width=1) == render_ladder([long], width=60)


@given(
    st.lists(st.tuples(st.sampled_from([b"", b"\x07abc", b"\x14\0\0\0\0\x57", discover()]), st.binary(max_size=80))),
    st.integers(0, 200),
)
def test_any_octets(parts: list[tuple[bytes, bytes]], width: int) -> None:
    lines = render_ladder([sent(start + data) for start, data in parts], width=width)
    assert len(lines) >= 1 + len(parts) if parts else lines == ["(no DHCP message)"]
    assert all(line.isprintable() for line in lines)


def test_container_vector_is_the_one_of_the_requirements() -> None:
    assert decode_datagram(answered(reply()))["options"][2]["hex"] == LW_CONTAINER
