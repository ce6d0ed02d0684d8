"""Messages as trees: every option's value, errors in their place, and whatever octets come."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from captures import ack, discover, inner, reply
from hypothesis import example, given
from hypothesis import strategies as st

from b4client.decode.message import MAX_DEPTH, Tree, decode_dhcp4, decode_message, errors_in, render_message
from b4client.decode.names import read_names
from b4client.decode.values import DHCP4, DHCP6
from b4client.model.errors import WireError
from b4client.wire import dhcp4, dhcp6

ADDRESS = "20010db8000000000000000000000001"


def options6(octets: str) -> list[Tree]:
    """The options of a REPLY that has these."""
    tree = decode_message(bytes.fromhex("07abcdef" + octets))
    options = tree["options"]
    assert isinstance(options, list)
    return options


def option6(code: int, value: str) -> Tree:
    octets = bytes.fromhex(value)
    (option,) = options6(f"{code:04x}{len(octets):04x}{value}")
    assert (option["code"], option["offset"], option["length"], option["hex"]) == (code, 4, len(octets), octets.hex())
    return option


def option4(code: int, value: str) -> Tree:
    tree = decode_dhcp4(inner(5, 2, (code, bytes.fromhex(value))))
    return next(o for o in tree["options"] if o["code"] == code)


# ------------------------------------------------------------------------------------------------------ whole messages


def test_client_server_message() -> None:
    tree = decode_message(reply())
    assert tree["errors"] == []
    assert (tree["protocol"], tree["type"], tree["name"]) == ("dhcpv6", 7, "REPLY")
    assert (tree["length"], tree["transaction_id"]) == (len(reply()), 0xABCDEF)
    assert [(o["code"], o["name"]) for o in tree["options"]] == [
        (1, "CLIENTID"),
        (88, "DHCP4_O_DHCP6_SERVER"),
        (96, "S46_CONT_LW"),
    ]
    binding, br = tree["options"][2]["options"]
    assert binding["value"] == {"ipv4": "192.0.2.18", "prefix": "2001:db8:12:3400::/56"}
    assert binding["options"][0]["value"] == {"offset": 0, "psid_len": 8, "psid": 0x34}
    assert br["value"] == "2001:db8:ffff::1"
    octets = reply()
    for option in (binding, br, binding["options"][0]):
        start = option["offset"]
        assert octets[start : start + 2] == option["code"].to_bytes(2, "big")
        assert octets[start + 4 : start + 4 + option["length"]].hex() == option["hex"]


def test_4o6_message() -> None:
    tree = decode_message(ack())
    assert (tree["name"], tree["flags"], tree["unicast"]) == ("DHCPV4-RESPONSE", 0, False)
    inside = tree["options"][0]["message"]
    assert (inside["protocol"], inside["type"], inside["name"], inside["op"]) == ("dhcpv4", 5, "ACK", 2)
    assert (inside["xid"], inside["yiaddr"], inside["chaddr"]) == (0xDEADBEEF, "192.0.2.18", "02:00:00:00:00:01")
    assert inside["errors"] == []
    for option in inside["options"]:
        assert ack()[option["offset"]] == option["code"]
    assert list(errors_in(tree)) == []
    unicast = decode_message(b"\x14\x80\0\0" + discover()[4:])
    assert (unicast["name"], unicast["flags"], unicast["unicast"]) == ("DHCPV4-QUERY", 0x800000, True)


def test_relay_message_in_relay_message() -> None:
    def relayed(data: bytes, kind: int, hops: int) -> bytes:
        return (
            bytes([kind, hops]) + bytes(16) + bytes.fromhex(ADDRESS) + b"\0\x09" + len(data).to_bytes(2, "big") + data
        )

    tree = decode_message(relayed(relayed(discover(), 12, 0), 12, 1))
    assert (tree["name"], tree["hop_count"], tree["link_address"], tree["peer_address"]) == (
        "RELAY-FORW",
        1,
        "::",
        "2001:db8::1",
    )
    inside = tree["options"][0]["message"]["options"][0]["message"]
    assert inside["name"] == "DHCPV4-QUERY"
    assert inside["options"][0]["message"]["name"] == "DISCOVER"
    assert list(errors_in(tree)) == []
    assert inside["options"][0]["offset"] == 34 + 4 + 34 + 4 + 4
    broken = decode_message(relayed(discover()[:-1], 12, 0))
    assert [e["offset"] for e in errors_in(broken)] == [34 + 4 + len(discover()) - 4]


def test_dhcpv4_alone() -> None:
    tree = decode_message(inner(1))
    assert (tree["protocol"], tree["name"], tree["op"], tree["errors"]) == ("dhcpv4", "DISCOVER", 1, [])


def test_split_and_overloaded_options() -> None:
    """RFC 3396, RFC 2132 9.3: options continue in file, then in sname; instances are joined."""
    data = bytearray(inner(5, 2))
    data[44 : 44 + 64] = b"\x0c\x03end\xff".ljust(64, b"\0")  # sname
    data[108 : 108 + 128] = b"\x0c\x05host-\x06\x02ab\xff".ljust(128, b"\0")  # file
    data[-1:] = b"\x34\x01\x03\x06\x02\xc0\x00\xff"
    tree = decode_message(bytes(data))
    assert tree["errors"] == []
    by_code = {o["code"]: o for o in tree["options"]}
    assert (by_code[12]["value"], by_code[12]["offset"]) == ("host-end", 108)
    assert by_code[6]["value"] == ["192.0.97.98"]
    assert (tree["sname"], tree["file"]) == ("", "")
    assert by_code[52]["value"] == 3
    # Where an octet of a joined value is in the message cannot be said.
    data[-2:] = b"\x01\xff"
    joined = {o["code"]: o for o in decode_message(bytes(data))["options"]}[6]
    assert joined["value"] == ["192.1.97.98"]


# -------------------------------------------------------------------------------------------------------- DHCPv6 values


@pytest.mark.parametrize(
    ("code", "value", "data", "text"),
    [
        (1, "00030001020000000001", {"type": 3, "duid": "00030001020000000001"}, "DUID-LL 02:00:00:00:00:01"),
        (2, "0001000100000001020000000001", ..., "DUID-LLT 02:00:00:00:00:01"),
        (2, "00020000000901", ..., "DUID-EN 00:00:00:09:01"),
        (2, "0009ff", ..., "DUID of type 9: ff"),
        (3, "000000010000000affffffff", {"iaid": 1, "t1": 10, "t2": 0xFFFFFFFF}, "IAID 0x1, T1 10 s, T2 for ever"),
        (4, "00000002", {"iaid": 2}, "IAID 0x2"),
        (5, ADDRESS + "0000000a00000014", ..., "2001:db8::1, preferred 10 s, valid 20 s"),
        (6, "005a0089ffff", [90, 137, 65535], "90 S46_BR, 137 S46_BIND_IPV6_PREFIX, 65535 option-65535"),
        (6, "", [], ""),
        (7, "ff", 255, "255"),
        (8, "0096", 1.5, "1.5 s"),
        (8, "ffff", 655.35, "655.35 s or more"),
        (11, "0102", "0102", "0102"),
        (12, ADDRESS, "2001:db8::1", "2001:db8::1"),
        (13, "00024e6f", {"status": 2, "name": "NO_ADDRS_AVAIL", "message": "No"}, 'NO_ADDRS_AVAIL (2): "No"'),
        (13, "0063", {"status": 99, "name": "status-99", "message": ""}, "status-99 (99)"),
        (14, "", None, ""),
        (15, "000161000162", ["61", "62"], "61, 62"),
        (16, "00000009000161", {"enterprise": 9, "data": ["61"]}, "enterprise 9: 61"),
        (17, "0000000900010000", {"enterprise": 9, "data": "00010000"}, "enterprise 9: 00010000"),
        (18, "657468301b", "eth0\\x1b", '"eth0\\x1b"'),
        (19, "05", 5, "5"),
        (20, "", None, ""),
        (23, ADDRESS, ["2001:db8::1"], "2001:db8::1"),
        (24, "026c61036e657400026f6b00", ["la.net.", "ok."], "la.net., ok."),
        (25, "000000010000000000000000", {"iaid": 1, "t1": 0, "t2": 0}, "IAID 0x1, T1 0 s, T2 0 s"),
        (26, "0000000a0000001438" + ADDRESS, ..., "2001:db8::/56, preferred 10 s, valid 20 s"),
        (31, ADDRESS, ["2001:db8::1"], "2001:db8::1"),
        (32, "00015180", 86400, "86400 s"),
        (64, "0261660361667400", "af.aft.", "af.aft."),
        (82, "ffffffff", 0xFFFFFFFF, "for ever"),
        (83, "0000003c", 60, "60 s"),
        (88, "", [], "empty: ff02::1:2"),
        (88, ADDRESS * 2, ["2001:db8::1"] * 2, "2001:db8::1, 2001:db8::1"),
        (
            89,
            "011018c00002002820010db800",
            {"fmr": True, "ea_len": 16, "rule_ipv4": "192.0.2.0/24", "rule_ipv6": "2001:db8::/40"},
            "192.0.2.0/24 in 2001:db8::/40, 16 EA bits, also for forwarding",
        ),
        (90, ADDRESS, "2001:db8::1", "2001:db8::1"),
        (91, "4020010db800000000", "2001:db8::/64", "2001:db8::/64"),
        (92, "c00002123820010db8001234", ..., "192.0.2.18 in 2001:db8:12:3400::/56"),
        (93, "06083400", {"offset": 6, "psid_len": 8, "psid": 0x34}, ...),
        (93, "00000000", {"offset": 0, "psid_len": 0, "psid": None}, "offset 0, not shared"),
        (93, "00101234", ..., "PSID 0x1234/16 offset 0: 1 port, 4660"),
        (93, "00083401", ..., "PSID 0x34/8 offset 0: 256 ports, 13312-13567 (padding bits 0x1 set)"),
        (111, "00600058", [96, 88], "96 S46_CONT_LW, 88 DHCP4_O_DHCP6_SERVER"),
        (137, "3820010db8001234", "2001:db8:12:3400::/56", "2001:db8:12:3400::/56"),
        (109, "61", "61", "61"),  # ANI_OPERATOR_ID here, not a softwire source: the DHCPv4 option is another
        (60000, "ab" * 40, "ab" * 40, "ab" * 32 + "..."),
    ],
)
def test_dhcpv6_value(code: int, value: str, data: Any, text: Any) -> None:
    option = option6(code, value)
    assert option["error"] is None
    if data is not ...:
        assert option["value"] == data
    if text is not ...:
        assert option["text"] == text


@pytest.mark.parametrize(
    ("code", "value", "reason", "offset"),
    [
        (1, "0003", "DUID of 2 octets", None),
        (3, "0000000100000000", "truncated identity association", 8 + 8),
        (5, ADDRESS, "truncated lifetime", 8 + 16),
        (6, "005a00", "Option Request option of 3 octets", None),
        (7, "", "0 octets instead of 1", None),
        (13, "00", "truncated status code", 8),
        (14, "00", "1 octets instead of 0", None),
        (16, "0000000900", "truncated length", 8 + 4),
        (23, "00", "1 octets are no list of IPv6 addresses", None),
        (24, "026c61", "truncated domain name", 8 + 3),
        (24, "c000", "label length 0xc0", 8),
        (26, "0000000a0000001481" + ADDRESS, "IPv6 prefix of 129 bits", 8 + 8),
        (32, "00", "time of 1 octets instead of 4", None),
        (64, "00", "AFTR name of 1 octets", None),
        (89, "013118c00002002820010db800", "EA length of 49 bits", 8 + 1),
        (89, "", "truncated S46_RULE", 8),
        (90, "ff" * 16, "cannot be a border relay", None),
        (91, "4020010db8", "truncated", 8 + 1),
        (92, "c0000212", "truncated bind IPv6 prefix", 8 + 4),
        (93, "060834", "truncated port parameters", 8 + 2),
        (93, "0a083400", "exceed the 16 bits", None),
        (111, "005800", "S46_PRIORITY of 3 octets", None),
        (137, "38", "truncated S46_BIND_IPV6_PREFIX", 8 + 1),
    ],
)
def test_dhcpv6_value_that_is_none(code: int, value: str, reason: str, offset: int | None) -> None:
    option = option6(code, value)
    assert option["value"] is None
    assert option["error"]["offset"] == offset
    assert reason in option["error"]["reason"]
    assert option["text"] == bytes.fromhex(value).hex()  # the octets at least


def test_containers_are_judged_as_a_whole_and_options_inside_by_themselves() -> None:
    assert option6(94, "")["error"] == {
        "reason": "MAP-E container with 0 rules and 0 border relays",
        "offset": None,
    }
    twice = "005c000ac00002123820010db8001234".replace("000a", "000c") * 2 + "005a0010" + ADDRESS
    assert "2 bindings" in option6(96, twice)["error"]["reason"]
    # What is wrong inside is said inside, and once.
    inside = option6(96, "005a000f" + ADDRESS[2:])
    assert inside["error"] is None
    assert inside["options"][0]["error"]["reason"].startswith("truncated")
    # An option inside that is cut off belongs to the container.
    cut = option6(96, "005a0010" + ADDRESS + "005c0044")
    assert cut["error"] == {"reason": "truncated option 92: 0 of 68 octets", "offset": 8 + 24}
    assert [o["code"] for o in cut["options"]] == [90]


def test_options_inside_associations() -> None:
    prefix = "001a0019" + "0000000a0000001438" + ADDRESS + ""
    option = option6(25, "000000010000000000000000" + prefix + "000d00020006")
    assert [o["name"] for o in option["options"]] == ["IAPREFIX", "STATUS_CODE"]
    assert option["options"][0]["offset"] == 4 + 4 + 12


# -------------------------------------------------------------------------------------------------------- DHCPv4 values


@pytest.mark.parametrize(
    ("code", "value", "data", "text"),
    [
        (1, "ffffff00", "255.255.255.0", "255.255.255.0"),
        (2, "fffff1f0", -3600, "-3600 s"),
        (3, "c0000201c0000202", ["192.0.2.1", "192.0.2.2"], "192.0.2.1, 192.0.2.2"),
        (12, "63656c6c0a00", "cell\\n", '"cell\\n"'),
        (26, "05b4", 1460, "1460"),
        (33, "c0000200c0000201", [{"network": "192.0.2.0", "router": "192.0.2.1"}], "192.0.2.0 by 192.0.2.1"),
        (43, "0102", "0102", "0102"),
        (51, "ffffffff", 0xFFFFFFFF, "for ever"),
        (54, "c0000201", "192.0.2.1", "192.0.2.1"),
        (55, "019ffd", [1, 159, 253], "1 SUBNET_MASK, 159 V4_PORTPARAMS, 253 option-253"),
        (57, "0240", 576, "576"),
        (61, "ff0000000100030001020000000001", ..., "IAID 0x1, DUID-LL 02:00:00:00:00:01"),
        (61, "01020000000001", {"type": 1, "identifier": "020000000001"}, "type 1: 02:00:00:00:00:01"),
        (80, "", None, ""),
        (81, "000000" + b"cpe.net".hex(), {"flags": 0, "name": "cpe.net"}, "cpe.net (flags 0x00)"),
        (81, "04000003637065", {"flags": 4, "name": "cpe."}, "cpe. (flags 0x04)"),
        (82, "0104616263640200", [{"code": 1, "hex": "61626364"}, {"code": 2, "hex": ""}], "1: 61626364, 2: "),
        (108, "00000708", 1800, "1800 s"),
        (109, ADDRESS, "2001:db8::1", "2001:db8::1"),
        (119, "036c616e00036370" + "65c000", ["lan.", "cpe.lan."], "lan., cpe.lan."),
        (121, "18c00002c0000201", [{"network": "192.0.2.0/24", "router": "192.0.2.1"}], "192.0.2.0/24 by 192.0.2.1"),
        (121, "00c0000201", [{"network": "0.0.0.0/0", "router": "192.0.2.1"}], ...),
        (159, "06083400", ..., "PSID 0x34/8 offset 6: 252 ports, 1232-1235 and so on"),
        (224, "0a", "0a", "0a"),
    ],
)
def test_dhcpv4_value(code: int, value: str, data: Any, text: Any) -> None:
    option = option4(code, value)
    assert option["error"] is None
    if data is not ...:
        assert option["value"] == data
    if text is not ...:
        assert option["text"] == text


@pytest.mark.parametrize(
    ("code", "value", "reason"),
    [
        (1, "ffffff", "3 octets instead of 4"),
        (3, "", "0 octets are no list"),
        (33, "c0000200", "no list of routes"),
        (51, "00", "time of 1 octets"),
        (61, "01", "client identifier of 1 octets"),
        (61, "ff00000001", "DUID of 0 octets"),
        (81, "00", "truncated result codes"),
        (82, "0104", "truncated sub-option"),
        (119, "c000", "does not point back"),
        (119, "0161c002", "does not point back"),
        (119, "0161c000", "a name of more than 255 octets"),  # a name in a circle
        (119, "00" * 129, "more than 128 names"),
        (121, "21c0000200c0000201", "prefix of 33 bits"),
        (121, "", "no route"),
        (159, "0608340006083400", "octets too many after port parameters"),  # two instances, joined [Q-9]
    ],
)
def test_dhcpv4_value_that_is_none(code: int, value: str, reason: str) -> None:
    option = option4(code, value)
    assert reason in option["error"]["reason"]
    assert option["value"] is None


def test_error_offset_in_dhcpv4() -> None:
    data = inner(5, 2, (121, bytes.fromhex("21c0000200c0000201")))
    (error,) = errors_in(decode_message(data))
    assert error == {"reason": "prefix of 33 bits", "offset": data.index(b"\x21\xc0\0\2\0")}


def test_a_name_in_a_circle_ends() -> None:
    with pytest.raises(WireError, match="more than 255"):
        read_names(b"\x3f" + b"a" * 63 + b"\xc0\0", pointers=True)


# -------------------------------------------------------------------------------------------------------- wrong octets


@pytest.mark.parametrize(
    ("octets", "reason", "offset"),
    [
        ("", "truncated message type", 0),
        ("63aabbcc", "message type 99 is none of 1 to 11", 0),
        ("07abcd", "truncated transaction-id", 1),
        ("07abcdef0058", "truncated length of option 88", 6),
        ("07abcdef00580010" + "00" * 15, "truncated option 88: 15 of 16 octets", 8),
        ("14800000", "0 DHCPv4 Message options instead of one", None),
        ("15000000" + "00570000" * 2, "2 DHCPv4 Message options instead of one", None),
        ("0c00" + "00" * 31, "truncated peer-address", 18),
        ("0d00" + "00" * 32, "0 Relay Message options instead of one", None),
    ],
)
def test_messages_that_are_none(octets: str, reason: str, offset: int | None) -> None:
    tree = decode_message(bytes.fromhex(octets))
    assert tree["errors"][0]["offset"] == offset
    assert reason in tree["errors"][0]["reason"]
    assert "ERROR" in "\n".join(render_message(tree))


def test_dhcpv4_that_is_none_shows_what_is_whole() -> None:
    tree = decode_message(inner(5, 2, (51, b"\0\0\0\x3c"))[:-1])
    assert (tree["name"], len(tree["options"])) == ("ACK", 2)
    assert tree["errors"][0]["reason"].startswith("truncated options: END is missing")
    short = decode_message(b"\x14\0\0\0\0\x57\0\x05\x01\x01\x06\0\0")
    inside = short["options"][0]["message"]
    assert inside["errors"][0]["offset"] == 12
    assert inside["options"] == []


@pytest.mark.parametrize("whole", [reply(), discover(), ack(), inner(5, 2, (159, bytes.fromhex("06083400")))])
def test_cut_at_every_octet(whole: bytes) -> None:
    for length in range(len(whole)):
        tree = decode_message(whole[:length])
        errors = list(errors_in(tree))
        assert all(e["offset"] is None or e["offset"] <= length for e in errors)
        # Between two options a DHCPv6 message is whole again.
        assert errors or length in {4, *(o["offset"] for o in decode_message(whole)["options"])}
        json.dumps(tree)


def every_tree(tree: Tree) -> Iterator[Tree]:
    yield tree
    options = list(tree["options"])
    while options:
        option = options.pop()
        assert set(option) >= {"code", "name", "offset", "length", "hex", "value", "text", "error"}
        assert option["text"].isprintable()
        options += option.get("options", [])
        if "message" in option:
            yield from every_tree(option["message"])


def check(data: bytes) -> None:
    tree = decode_message(data)
    for inside in every_tree(tree):
        assert set(inside) >= {"protocol", "type", "name", "length", "options", "errors"}
    assert json.loads(json.dumps(tree)) == tree
    for line in render_message(tree):
        assert line.isprintable()
    for error in errors_in(tree):
        assert set(error) == {"reason", "offset"}
        assert error["offset"] is None or 0 <= error["offset"] <= len(data)


STARTS = [b"", b"\x07abc", b"\x14\0\0\0\0\x57", b"\x15\0\0\0", b"\x0c\0" + bytes(32), inner(5, 2)[:240]]


@given(st.sampled_from(STARTS), st.binary(max_size=200))
@example(b"", b"\x0c\0" + bytes(32) + b"\0\x09\0\x00")
def test_any_octets(start: bytes, data: bytes) -> None:
    check(start + data)


@given(st.lists(st.tuples(st.sampled_from(sorted(DHCP6)), st.binary(max_size=60)), max_size=8))
def test_any_dhcpv6_values(options: list[tuple[int, bytes]]) -> None:
    check(dhcp6.encode(dhcp6.Dhcp6Message(7, 1, tuple((int(code), value) for code, value in options))))


@given(st.dictionaries(st.sampled_from(sorted(DHCP4)), st.binary(max_size=60), max_size=8))
def test_any_dhcpv4_values(options: dict[int, bytes]) -> None:
    special = {dhcp4.Option.OVERLOAD, dhcp4.Option.MESSAGE_TYPE}
    kept = tuple((int(code), value) for code, value in options.items() if code not in special)
    check(inner(5, 2, *kept))


@given(st.sampled_from([reply(), discover(), ack()]), st.data())
def test_any_change(whole: bytes, data: st.DataObject) -> None:
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 5))):
        changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    check(bytes(changed))


def nested(code: int, count: int, head: bytes = b"") -> bytes:
    """The value of an option that holds nothing but an option of its own kind, and so on."""
    value = head
    for _ in range(count):
        value = head + code.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
    return value


@pytest.mark.parametrize(
    "data",
    [
        b"\x07abc" + nested(dhcp6.Option.S46_CONT_LW, 1000),
        b"\x07abc\0\x19\x3e\x8c" + nested(dhcp6.Option.IA_PD, 1000, bytes(12)),
        nested(dhcp6.Option.RELAY_MSG, 900, b"\x0c\0" + bytes(32)),
    ],
)
def test_nesting_is_bounded(data: bytes) -> None:
    tree = decode_message(data)
    assert any(f"nested more than {MAX_DEPTH} deep" in e["reason"] for e in errors_in(tree))
    assert len(list(render_message(tree))) < 10 * MAX_DEPTH
    json.dumps(tree)


@pytest.mark.parametrize(
    "data",
    [
        b"\x07abc" + b"\0\0\0\0" * 16383,
        b"\x07abc\0\x60\xff\xf6" + b"\0\x5a\0\0" * 16381 + bytes(2),
        inner(5, 2)[:-1] + (b"\x77\xff" + b"\x01a\0" * 85) * 200 + b"\xff",
        b"\x07abc" + b"\0\x18\xff\xf0" + b"\x00" * 65520,
        bytes(70000),
    ],
)
def test_the_largest_messages_take_no_time(data: bytes) -> None:
    before = time.process_time()
    check(data)
    assert time.process_time() - before < 5
