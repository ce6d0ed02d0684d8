"""``b4client provision``: documents from files and from odhcp6c's environment."""

from __future__ import annotations

import io
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client import cli
from b4client.daemon.handover import read_handover
from b4client.model.errors import ControlError
from b4client.protocol.counters import Counters
from b4client.protocol.provisioning import Provisioning, read_reply
from b4client.provision import from_odhcp6c, read_document
from b4client.wire.dhcp6 import Dhcp6Message

BR = IPv6Address("2001:db8:ffff::1")
BASE = {"SERVER": "fe80::1", "RA_HOPLIMIT": "0"}


def provisioned(environ: dict[str, str]) -> Provisioning:
    """What the agent understands of an environment."""
    event = read_handover(from_odhcp6c({**BASE, **environ}), 0.0)
    return read_reply(Dhcp6Message(7, 0, event.options), Counters())


def test_map_e_as_odhcp6c_writes_it() -> None:
    """RFC 7597 Appendix A example 1, twice: a basic rule with port parameters, and a forwarding rule."""
    found = provisioned(
        {
            "MAPE": "type=map-e,ealen=16,prefix4len=24,prefix6len=40,ipv4prefix=192.0.2.0,ipv6prefix=2001:db8::,"
            "offset=6,psidlen=0,psid=0,br=2001:db8:ffff::1, "
            "fmr,type=map-e,ealen=8,prefix4len=24,prefix6len=44,ipv4prefix=198.51.100.0,ipv6prefix=2001:db8:f0::,"
            "br=2001:db8:ffff::1, "
        }
    ).map_e
    assert found is not None
    assert found.brs == (BR,)
    first, second = found.rules
    assert (first.fmr, first.ea_len) == (False, 16)
    assert (first.rule_ipv4, first.rule_ipv6) == (IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/40"))
    assert first.port_params is not None
    assert first.port_params.offset_len == 6
    assert (second.fmr, second.ea_len, second.port_params) == (True, 8, None)


def test_lw4o6_as_odhcp6c_writes_it() -> None:
    """The PSID is what was in the option: aligned to the left (RFC 7598 4.5)."""
    found = provisioned(
        {
            "LW4O6": "type=lw4o6,prefix4len=32,prefix6len=64,ipv4prefix=192.0.2.18,ipv6prefix=2001:db8:100::,"
            "offset=0,psidlen=8,psid=13312,br=2001:db8:ffff::1, "
        }
    ).lw4o6
    assert found is not None
    assert found.brs == (BR,)
    assert found.binding is not None
    assert found.binding.ipv4 == IPv4Address("192.0.2.18")
    assert found.binding.prefix == IPv6Network("2001:db8:100::/64")
    assert found.binding.port_params is not None
    ports = found.binding.port_params.port_set()
    assert ports is not None
    assert (ports.psid_len, ports.psid) == (8, 0x34)


def test_raw_options_and_leases() -> None:
    document = from_odhcp6c(
        {
            **BASE,
            "OPTION_88": "20010db8000000000000000000000088",
            "OPTION_96": "005a0010" + BR.packed.hex(),
            "LW4O6": "",
            "PREFIXES": "2001:db8:100::/56,300,600,150,240 "
            "2001:db8:200::/56,0,60,0,0,class=00000002,excluded=2001:db8:200::/64",
            "ADDRESSES": "2001:db8:46::5/64,300,600,150,240",
            "RDNSS": "2001:db8::53",
        }
    )
    event = read_handover(document, 0.0)
    found = read_reply(Dhcp6Message(7, 0, event.options), Counters())
    assert found.servers_4o6 == (IPv6Address("2001:db8::88"),)
    assert found.brs == (BR,)
    assert [(str(i.network), i.preferred_until, i.valid_until) for i in event.lease.every] == [
        ("2001:db8:46::5/128", 300, 600),
        ("2001:db8:100::/56", 300, 600),
        ("2001:db8:200::/56", 0, 60),
    ]


def test_an_empty_option_88_is_multicast() -> None:
    assert provisioned({"OPTION_88": ""}).servers_4o6 == ()
    assert provisioned({}).servers_4o6 is None


def test_the_aftr_name() -> None:
    document = from_odhcp6c({**BASE, "AFTR": "aftr.example.net"})
    assert document["options"] == {"64": "0461667472076578616d706c65036e657400"}


def test_another_environment() -> None:
    with pytest.raises(ValueError, match="none of odhcp6c's variables"):
        from_odhcp6c({"PATH": "/bin"})


WRONG = {
    "MAPE: no key": ({"MAPE": "type=map-e,nonsense"}, "'nonsense' is no KEY=VALUE"),
    "MAPE: missing": ({"MAPE": "type=map-e,ealen=16"}, "'prefix6len' is missing"),
    "MAPE: no number": (
        {"MAPE": "ealen=x,prefix4len=24,prefix6len=40,ipv4prefix=192.0.2.0,ipv6prefix=2001:db8::"},
        "MAPE: ",
    ),
    "MAPE: too great": (
        {"MAPE": "ealen=256,prefix4len=24,prefix6len=40,ipv4prefix=192.0.2.0,ipv6prefix=2001:db8::"},
        "MAPE: ",
    ),
    "MAPE: no address": ({"MAPE": "br=router"}, "'router' is no IPv6 address"),
    "MAPE: negative length": (
        {"MAPE": "ealen=1,prefix4len=24,prefix6len=-40,ipv4prefix=192.0.2.0,ipv6prefix=2001:db8::"},
        "MAPE: ",
    ),
    "PREFIXES": ({"PREFIXES": "2001:db8::/56"}, "PREFIXES: '2001:db8::/56' has no preferred and valid lifetime"),
    "ADDRESSES": ({"ADDRESSES": "2001:db8::5/64,a,b"}, "ADDRESSES: "),
}


@pytest.mark.parametrize(("environ", "reason"), WRONG.values(), ids=WRONG)
def test_a_variable_that_cannot_be_read_is_named(environ: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        from_odhcp6c({**BASE, **environ})
    assert reason in str(refused.value)


def test_what_can_be_read_but_breaks_the_standard() -> None:
    """The container is judged as one from the network: a prefix of 129 bits, offset 16."""
    rule = "ealen=16,prefix4len=24,prefix6len=40,ipv4prefix=192.0.2.0,ipv6prefix=2001:db8::,br=2001:db8:ffff::1,"
    for broken in (rule.replace("prefix6len=40", "prefix6len=129"), rule + "offset=16,psidlen=0,psid=0,"):
        with pytest.raises(ControlError, match=r"MAP-E container \(94\) ignored"):
            read_handover(from_odhcp6c({**BASE, "MAPE": broken}), 0.0)


@given(
    st.dictionaries(
        st.sampled_from(["MAPE", "LW4O6", "PREFIXES", "ADDRESSES", "OPTION_88", "OPTION_96", "AFTR"]),
        st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"))
        | st.from_regex(r"((ealen|prefix6len|ipv6prefix|br|psid|offset)=[0-9a-f:.]{0,9},){0,8}", fullmatch=True),
    )
)
def test_any_environment_is_taken_or_refused(environ: dict[str, str]) -> None:
    try:
        read_handover(from_odhcp6c({**BASE, **environ}), 0.0)
    except (ValueError, ControlError):
        pass


def test_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "document.json"
    path.write_text('{"options": {}}')
    assert read_document(str(path)) == {"options": {}}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"prefixes": []}'))
    assert read_document("-") == {"prefixes": []}


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "is no JSON"), ("[]", "must be an object"), (" " * 70000, "is longer than"), ("[" * 60000, "is no JSON")],
)
def test_documents_that_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "document.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_document(str(path))


def test_no_such_file() -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_document("/nowhere.json")


def test_the_command_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["provision", str(tmp_path / "none.json")]) == 1
    assert "b4client: provision: " in capsys.readouterr().err
    for name in ("SERVER", "RDNSS", "PREFIXES", "ADDRESSES", "RA_ADDRESSES", "RA_ROUTES", "RA_HOPLIMIT"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["provision", "--from-odhcp6c"]) == 1
    assert "odhcp6c -s" in capsys.readouterr().err
    assert cli.main(["provision", "--clear", "--run-dir", str(tmp_path)]) == 3
    assert "no b4client runs here" in capsys.readouterr().err
