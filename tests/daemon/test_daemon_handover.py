"""Hand-over documents: what is read, and that a wrong one is refused whole with its reason."""

from __future__ import annotations

import math
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client.config import parse
from b4client.daemon.handover import read_handover
from b4client.daemon.store6 import Store6
from b4client.daemon.wanside import WanSide
from b4client.model.errors import ControlError
from b4client.model.lease6 import Binding6, Lease6, Leased6
from b4client.wire import dhcp6, softwire46

BR = IPv6Address("2001:db8:ffff::1")
LW = softwire46.encode_lw4o6(softwire46.Lw4o6Container((BR,))).hex()
INF = math.inf


def test_everything() -> None:
    event = read_handover(
        {
            "options": {"88": "20010db8000000000000000000000088", "96": [LW]},
            "prefixes": ["2001:db8:100::/56", {"prefix": "2001:db8:200::/56", "preferred": 10, "valid": 20}],
            "addresses": [{"address": "2001:db8:46::5", "valid": 0xFFFFFFFF}],
        },
        100.0,
    )
    assert event.options == ((88, IPv6Address("2001:db8::88").packed), (96, bytes.fromhex(LW)))
    assert event.lease == Lease6(
        (Leased6(IPv6Network("2001:db8:46::5"), INF, INF),),
        (
            Leased6(IPv6Network("2001:db8:100::/56"), INF, INF),
            Leased6(IPv6Network("2001:db8:200::/56"), 110.0, 120.0),
        ),
    )


def test_nothing_is_a_document_too() -> None:
    event = read_handover({}, 0.0)
    assert (event.options, event.lease) == ((), Lease6())


def test_a_prefix_that_has_ended_is_not_held() -> None:
    assert not read_handover({"prefixes": [{"prefix": "2001:db8::/56", "valid": 0}]}, 0.0).lease


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"option": {}}, "'option' is not known here; known: options, prefixes, addresses"),
    "options no object": ({"options": ["88"]}, "options must be an object"),
    "an option of another kind": ({"options": {"23": ""}}, "option '23' says nothing about IPv4; known: 64, 88"),
    "no number": ({"options": {"eighty-eight": ""}}, "'eighty-eight' says nothing"),
    "an Arabic number": ({"options": {"٨٨": ""}}, "says nothing"),
    "no hexadecimal": ({"options": {"88": "xyz"}}, "option 88 must be hexadecimal octets, not 'xyz'"),
    "no text": ({"options": {"88": 88}}, "option 88 must be hexadecimal octets, not 88"),
    "too often": ({"options": {"96": [LW] * 17}}, "option 96 comes 17 times; at most 16"),
    "option 88 cut off": ({"options": {"88": "2001"}}, "option 88 ignored"),
    "container cut off": ({"options": {"96": LW[:-2]}}, "lw4o6 container (96) ignored"),
    "container without BR": ({"options": {"96": ""}}, "lw4o6 container (96) ignored"),
    "one of two": ({"options": {"96": [LW, "00"]}}, "lw4o6 container (96) ignored"),
    "priority": ({"options": {"111": "00"}}, "option 111 ignored"),
    "prefixes no list": ({"prefixes": "2001:db8::/56"}, "prefixes must be a list of at most 16"),
    "too many": ({"prefixes": ["2001:db8::/56"] * 17}, "prefixes must be a list of at most 16"),
    "no prefix": ({"prefixes": ["2001:db8::/560"]}, "'2001:db8::/560' is no IPv6 prefix"),
    "host bits": ({"prefixes": ["2001:db8::1/56"]}, "is no IPv6 prefix"),
    "IPv4": ({"prefixes": ["192.0.2.0/24"]}, "is no IPv6 prefix"),
    "a number": ({"prefixes": [1]}, "1 is no IPv6 prefix"),
    "multicast": ({"prefixes": ["ff02::/64"]}, "ff02::/64 is nothing that a customer is given"),
    "link-local": ({"addresses": ["fe80::1"]}, "fe80::1/128 is nothing that a customer is given"),
    "everything": ({"prefixes": ["::/0"]}, "::/0 is nothing that a customer is given"),
    "an address with length": ({"addresses": ["2001:db8::/64"]}, "is a prefix, not an address"),
    "unknown field": ({"prefixes": [{"prefix": "2001:db8::/56", "vaild": 1}]}, "'vaild' is not known"),
    "lifetime": ({"prefixes": [{"prefix": "2001:db8::/56", "valid": -1}]}, "valid must be seconds"),
    "lifetime true": ({"prefixes": [{"prefix": "2001:db8::/56", "valid": True}]}, "valid must be seconds"),
    "lifetimes": (
        {"prefixes": [{"prefix": "2001:db8::/56", "preferred": 2, "valid": 1}]},
        "2001:db8::/56 is preferred for longer than it is valid",
    ),
}


@pytest.mark.parametrize(("document", "reason"), WRONG.values(), ids=WRONG)
def test_what_is_refused(document: dict[str, Any], reason: str) -> None:
    with pytest.raises(ControlError) as refused:
        read_handover(document, 0.0)
    assert str(refused.value).startswith("provision: ")
    assert reason in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["options", "prefixes", "addresses", "x"]),
        JSON
        | st.dictionaries(st.sampled_from(["88", "94", "95", "96", "111", "64"]), JSON | st.binary().map(bytes.hex)),
    )
)
def test_any_json_is_taken_or_refused(document: dict[str, Any]) -> None:
    try:
        event = read_handover(document, 0.0)
    except ControlError:
        return
    assert dhcp6.decode_options(dhcp6.encode_options(event.options)) == event.options


# ---- who may, and what is kept


def side(tmp_path: Path, mode: str) -> WanSide:
    document = {"wan": {"interface": "wan"}, "dhcp6": {"mode": mode}, "daemon": {"run_dir": str(tmp_path)}}
    return WanSide(parse(document), lambda _: None)


def test_only_in_external_mode(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r'set dhcp6\.mode = "external"'):
        side(tmp_path, "stateless").provision({})


def test_a_hand_over_outlives_the_daemon(tmp_path: Path) -> None:
    """With the lifetimes that are left, and not in another mode."""
    event = side(tmp_path, "external").provision(
        {"options": {"96": LW}, "prefixes": [{"prefix": "2001:db8::/56", "valid": 50}]}
    )
    assert side(tmp_path, "external").handed_over() == event
    assert side(tmp_path, "prefix").handed_over() is None


def test_a_refused_one_is_not_kept(tmp_path: Path) -> None:
    before = side(tmp_path, "external").provision({"options": {"96": LW}})
    with pytest.raises(ControlError):
        side(tmp_path, "external").provision({"options": {"96": "00"}})
    assert side(tmp_path, "external").handed_over() == before


# ---- leases over restarts


def store(tmp_path: Path, boot_id: str = "this") -> Store6:
    return Store6(tmp_path, "wan", boot_id=boot_id)


BINDING = Binding6(
    b"\0\3\0\1",
    Lease6(
        (Leased6(IPv6Network("2001:db8::5"), 10.0, 20.0),),
        (Leased6(IPv6Network("2001:db8:100::/56"), INF, INF),),
    ),
    7.5,
    INF,
)


def test_a_binding_comes_back_as_it_was(tmp_path: Path) -> None:
    store(tmp_path).save_binding(BINDING)
    assert store(tmp_path).load_binding() == BINDING
    store(tmp_path).save_binding(None)
    assert store(tmp_path).load_binding() is None


def test_another_boot_has_another_clock(tmp_path: Path) -> None:
    store(tmp_path).save_binding(BINDING)
    assert store(tmp_path, "other").load_binding() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"boot_id": "this"}',
        '{"boot_id": "this", "content": 5}',
        '{"boot_id": "this", "content": {}}',
        '{"boot_id": "this", "content": {"server": "zz", "addresses": [], "prefixes": [], "t1_at": 1, "t2_at": 1}}',
        '{"boot_id": "this", "content": {"server": "", "addresses": [[1]], "prefixes": [], "t1_at": 1, "t2_at": 1}}',
        "x" * 300_000,
    ],
)
def test_a_damaged_file_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "wan.dhcp6.json").write_text(text)
    (tmp_path / "wan.handover.json").write_text(text)
    assert store(tmp_path).load_binding() is None
    assert store(tmp_path).load_handover() is None


def test_a_directory_that_cannot_be_written_is_borne(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    Store6(tmp_path / "file", "wan", boot_id="this").save_binding(BINDING)
    assert "cannot write" in caplog.text
