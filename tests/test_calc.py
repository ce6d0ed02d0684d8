"""``b4client calc``: the RFCs' examples by the command line, the JSON as documented, and errors that help."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import pytest

from b4client import calc

EXAMPLE_1 = ("--end-user-prefix", "2001:db8:12:3400::/56", "--rule", "2001:db8::/40,192.0.2.0/24,16")
EXAMPLE_5 = ("--end-user-prefix", "2001:db8:12:3400::/56", "--rule", "2001:db8:12:3400::/56,192.0.2.18/32,0")


def run(*argv: str) -> int:
    parser = argparse.ArgumentParser(prog="b4client")
    calc.add_parser(parser.add_subparsers())
    args = parser.parse_args(["calc", *argv])
    status = args.func(args)
    assert isinstance(status, int)
    return status


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    def ask(*argv: str) -> dict[str, Any]:
        assert run(*argv, "--json") == 0
        out, err = capsys.readouterr()
        assert not err
        decoded = json.loads(out)
        assert isinstance(decoded, dict)
        return decoded

    return ask


# -------------------------------------------------------------------------------------------------------------- JSON


def test_portset(answer: Any) -> None:
    got = answer("portset", "--offset", "6", "--psid-len", "8", "--psid", "0x34")
    assert list(got) == ["offset", "psid_len", "psid", "port_count", "ranges"]
    assert (got["offset"], got["psid_len"], got["psid"], got["port_count"]) == (6, 8, 0x34, 252)
    assert got["ranges"][:2] + got["ranges"][-2:] == [[1232, 1235], [2256, 2259], [63696, 63699], [64720, 64723]]
    assert len(got["ranges"]) == 63
    assert got == answer("portset", "--offset", "0x6", "--psid-len", "8", "--psid", "52")


@pytest.mark.parametrize("psid", [(), ("--psid", "9")])
def test_portset_of_a_whole_address(answer: Any, psid: tuple[str, ...]) -> None:
    # [P-2]: with a PSID length of 0 the PSID is ignored.
    assert answer("portset", "--offset", "6", "--psid-len", "0", *psid) == {
        "offset": 6,
        "psid_len": 0,
        "psid": None,
        "port_count": 65536,
        "ranges": [[0, 65535]],
    }


def test_map_example_1(answer: Any) -> None:
    got = answer("map", *EXAMPLE_1)
    assert sorted(got) == ["ce_address", "ipv4", "offset", "port_count", "psid", "psid_len", "ranges"]
    assert (got["ipv4"], got["ce_address"]) == ("192.0.2.18", "2001:db8:12:3400:0:c000:212:34")
    assert (got["offset"], got["psid_len"], got["psid"], got["port_count"]) == (6, 8, 0x34, 252)
    assert got["ranges"][0] == [1232, 1235]


def test_map_example_4_and_5(answer: Any) -> None:
    whole = answer("map", *EXAMPLE_5)
    assert (whole["ipv4"], whole["ce_address"]) == ("192.0.2.18", "2001:db8:12:3400:0:c000:212:0")
    assert (whole["psid"], whole["psid_len"], whole["port_count"]) == (None, 0, 65536)
    shared = answer("map", *EXAMPLE_5, "--psid", "0x34", "--psid-len", "8")
    assert shared == answer("map", *EXAMPLE_1)


def test_map_with_options(answer: Any) -> None:
    got = answer("map", *EXAMPLE_1, "--offset", "4", "--interface-identifier", "draft03")
    assert got["ce_address"] == "2001:db8:12:3400:c0:2:1200:3400"
    assert (got["offset"], got["port_count"], len(got["ranges"])) == (4, 240, 15)
    prefix = answer("map", "--end-user-prefix", "2001:db8:2:1000::/52", "--rule", "2001:db8::/40,192.0.0.0/16,12")
    assert (prefix["ipv4"], prefix["psid"]) == ("192.0.2.16/28", None)


def test_lw(answer: Any) -> None:
    where = ("lw", "--prefix", "2001:db8:0:1::/64", "--ipv4", "198.51.100.1")
    got = answer(*where, "--psid", "0x34", "--psid-len", "8")
    assert sorted(got) == ["ce_address", "ipv4", "offset", "port_count", "psid", "psid_len", "ranges"]
    assert (got["ipv4"], got["ce_address"]) == ("198.51.100.1", "2001:db8:0:1:0:c633:6401:34")
    assert got["ranges"] == [[13312, 13567]]
    assert answer(*where)["ce_address"] == "2001:db8:0:1:0:c633:6401:0"
    assert len(answer(*where, "--psid", "0x34", "--psid-len", "8", "--offset", "6")["ranges"]) == 63


@pytest.mark.parametrize(("port", "psid"), [(1232, 0x34), (64723, 0x34), (1023, None)])
def test_port(answer: Any, port: int, psid: int | None) -> None:
    got = answer("port", "--offset", "6", "--psid-len", "8", "--port", str(port))
    assert got == {"offset": 6, "psid_len": 8, "port": port, "psid": psid}


# -------------------------------------------------------------------------------------------------------------- text


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("map", *EXAMPLE_1) == 0
    out = capsys.readouterr().out
    for part in (
        "PSID 0x34/8 offset 6",
        "·░░░░",
        "192.0.2.18\n",
        "2001:db8:12:3400:0:c000:212:34\n",
        "16 from bit 40: 8 of the IPv4 address, 8 of the PSID\n",
        "252 in 63 ranges of 4\n",
        "1232-1235, 2256-2259, 3280-3283, 4304-4307, ..., 61648-61651, 62672-62675, 63696-63699, 64720-64723\n",
        "port & 0x03fc == 0x00d0 and port >= 1024\n",
        "256 subscribers\n",
        "06 08 3400 ",
    ):
        assert part in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (
            ("portset", "--offset", "0", "--psid-len", "8", "--psid", "52"),
            ("256 in one range", "13312-13567", "0xff00"),
        ),
        (("portset", "--offset", "0", "--psid-len", "0"), ("not shared: every port", "65536")),
        (
            ("portset", "--offset", "3", "--psid-len", "8", "--psid", "0"),  # seven ranges: none left out, none twice
            ("8192-8223, 16384-16415, 24576-24607, 32768-32799, 40960-40991, 49152-49183, 57344-57375\n",),
        ),
        (("map", *EXAMPLE_5), ("EA bits     none", "not shared")),
        (
            ("map", "--end-user-prefix", "2001:db8:2:1000::/52", "--rule", "2001:db8::/40,192.0.0.0/16,12"),
            ("192.0.2.16/28", "12 from bit 40: 12 of the IPv4 address\n"),
        ),
        (("lw", "--prefix", "2001:db8::/64", "--ipv4", "192.0.2.1"), ("2001:db8::c000:201:0", "not shared")),
        (
            ("port", "--offset", "6", "--psid-len", "8", "--port", "1232"),
            ("belongs to PSID 0x34/8 offset 6 (PSID 52)",),
        ),
        (
            ("port", "--offset", "6", "--psid-len", "8", "--port", "80"),
            ("belongs to nobody: an offset of 6 leaves out the ports below 1024",),
        ),
    ],
)
def test_text(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], parts: tuple[str, ...]) -> None:
    assert run(*argv) == 0
    out = capsys.readouterr().out
    for part in parts:
        assert part in out


# ------------------------------------------------------------------------------------------------------------ errors

NUMBERS = ("-1", "16", "1_0", "٣", "six", "", "0x", "0x1g", "+6", "99999999999999999999")


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        *(
            (("portset", f"--offset={bad}", "--psid-len", "1", "--psid", "0"), "is no number from 0 to 15; write it")
            for bad in NUMBERS
        ),
        (("portset", "--offset", "6", "--psid-len", "17", "--psid", "0"), "--psid-len '17' is no number from 0 to 16"),
        (
            ("portset", "--offset", "6", "--psid-len", "11", "--psid", "0"),
            "with this offset --psid-len can be 10 at most",
        ),
        (("portset", "--offset", "6", "--psid-len", "8"), "--psid is missing; give one from 0 to 255"),
        (
            ("portset", "--offset", "6", "--psid-len", "8", "--psid", "256"),
            "does not fit in 8 bits; give one from 0 to",
        ),
        (("lw", "--prefix", "2001:db8::/64", "--ipv4", "192.0.2.1", "--psid", "1"), "add --psid-len"),
        (("lw", "--prefix", "2001:db8::", "--ipv4", "192.0.2.1"), "write one with its length, like 2001:db8::/56"),
        (("lw", "--prefix", "2001:db8::1/64", "--ipv4", "192.0.2.1"), "behind its length; write 2001:db8::/64"),
        (("lw", "--prefix", "192.0.2.0/24", "--ipv4", "192.0.2.1"), "is no IPv6 prefix"),
        (("lw", "--prefix", "2001:db8::/64", "--ipv4", "192.0.2.256"), "is no IPv4 address; write one like 192.0.2.18"),
        (("map", *EXAMPLE_1[:3], "2001:db8::/40,192.0.2.0/24"), "has 2 parts instead of 3; write RULE6,RULE4,EALEN"),
        (("map", *EXAMPLE_1[:3], "2001:db8::/40,192.0.2.0,16"), "--rule '192.0.2.0' is no IPv4 prefix"),
        (("map", *EXAMPLE_1[:3], "2001:db8::/40,192.0.2.0/24,49"), "EALEN of --rule '49' is no number from 0 to 48"),
        (("map", *EXAMPLE_1[:3], "2001:db8::/40,192.0.2.0/24,20"), "exceeds the 16 bits of a port; compare --rule"),
        (("map", *EXAMPLE_1[:3], "2001:db9::/40,192.0.2.0/24,16"), "is not inside the rule's 2001:db9::/40; compare"),
        (("map", *EXAMPLE_1, "--psid", "1", "--psid-len", "8"), "contradicts 0x34/8 in the End-user prefix; compare"),
        (
            (*("map", *EXAMPLE_1[:3], "2001:db8::/40,192.0.0.0/16,12"), "--psid", "1", "--psid-len", "8"),
            "which is never shared; leave out --psid",
        ),
        (("port", "--offset", "6", "--psid-len", "0", "--port", "80"), "give 1 to 16"),
        (
            ("port", "--offset", "6", "--psid-len", "8", "--port", "65536"),
            "--port '65536' is no number from 0 to 65535",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], reason: str
) -> None:
    assert run(*argv, "--json") == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"b4client calc {argv[0]}: ")
    assert reason in err
    assert err.count("\n") == 1


def test_missing_arguments_are_argparse_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run("portset", "--offset", "6")
    assert stop.value.code == 2
    assert "--psid-len" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- processes


def test_as_a_process() -> None:
    command = [sys.executable, "-m", "b4client", "calc", "portset", "--offset", "6", "--psid-len", "8"]
    done = subprocess.run([*command, "--psid", "0x34", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["port_count"] == 252
    wrong = subprocess.run([*command, "--psid", "999"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("b4client calc portset: PSID 999 does not fit")


def test_a_terminal_that_knows_no_blocks() -> None:
    command = [sys.executable, "-m", "b4client", "calc", "portset", "--offset", "0", "--psid-len", "1", "--psid", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONIOENCODING": "ascii"})
    assert "?" * 64 in done.stdout


def test_nothing_heavy_is_loaded() -> None:
    code = "import sys, b4client.calc; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "pyroute2", "nftables", "tenacity", "rich", "scapy", "socket"} & set(loaded)
