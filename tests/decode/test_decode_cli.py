"""``b4client decode``: octets on the command line, files, standard input; the JSON as documented; exit statuses."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from captures import ETHERNET, ack, discover, inner, packet4, packet6, pcap, reply

from b4client import decode

EXCHANGE = [bytes(ETHERNET / packet6(discover())), bytes(ETHERNET / packet6(ack(), 547, 546))]


def run(*argv: str) -> int:
    parser = argparse.ArgumentParser(prog="b4client")
    decode.add_parser(parser.add_subparsers())
    args = parser.parse_args(["decode", *argv])
    status = args.func(args)
    assert isinstance(status, int)
    return status


def json_of(capsys: pytest.CaptureFixture[str]) -> Any:
    out, err = capsys.readouterr()
    assert not err
    return json.loads(out)


@pytest.mark.parametrize(
    "words",
    [
        [reply().hex()],
        ["0x" + reply().hex()],
        [reply().hex(":").upper()],
        [reply().hex(" ")],
        reply().hex(" ", 2).split(),
    ],
)
def test_hexadecimal(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run(*words, "--json") == 0
    got = json_of(capsys)
    assert list(got) == ["message"]
    assert got["message"]["name"] == "REPLY"
    assert got["message"]["length"] == len(reply())


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ack().hex()) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"DHCPV4-RESPONSE (21), {len(ack())} octets"
    assert "  flags 0x000000, U 0\n" in out
    assert "      DHCPv4 ACK (5)" in out
    assert "        159 V4_PORTPARAMS  PSID 0x34/8 offset 6: 252 ports" in out


def test_something_wrong_inside(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ack()[:-1].hex()) == 1
    assert f"  ERROR truncated option 90: 15 of 16 octets (at octet {len(ack()) - 16})\n" in capsys.readouterr().out
    assert run(ack()[:-1].hex(), "--json") == 1
    assert json_of(capsys)["message"]["errors"][0]["offset"] == len(ack()) - 16
    assert run("07000001 005d0003 060834") == 1
    assert "ERROR truncated port parameters" in capsys.readouterr().out


@pytest.mark.parametrize("content", [discover(), discover().hex().encode(), discover().hex("\n").encode() + b"\n"])
def test_files_and_standard_input(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "message"
    path.write_bytes(content)
    assert run(str(path), "--json") == 0
    from_file = json_of(capsys)
    assert from_file["message"]["options"][0]["message"]["name"] == "DISCOVER"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert run("-", "--json") == 0
    assert json_of(capsys) == from_file


def test_a_file_goes_before_octets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "07000001").write_bytes(b"\x0b\0\0\1")
    assert run("07000001", "--json") == 0
    assert json_of(capsys)["message"]["name"] == "INFORMATION-REQUEST"


def test_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([*EXCHANGE, b"other", bytes(ETHERNET / packet4(inner(1)))]))
    assert run(str(path), "--json") == 0
    got = json_of(capsys)
    assert list(got) == ["datagrams", "packets", "fragments", "error"]
    assert (got["packets"], got["fragments"], got["error"]) == (4, 0, None)
    first, _, third = got["datagrams"]
    message = first.pop("message")
    assert first == {
        "number": 1,
        "time": 1000.0,
        "source": "fe80::c",
        "source_port": 546,
        "destination": "2001:db8:46::1",
        "destination_port": 547,
        "cut": False,
    }
    assert message["name"] == "DHCPV4-QUERY"
    assert (third["number"], third["message"]["protocol"]) == (4, "dhcpv4")
    assert run(str(path)) == 0
    ladder = capsys.readouterr().out
    assert ladder.splitlines()[0].split() == ["client", "server"]
    assert "DHCPV4-QUERY: DISCOVER" in ladder
    assert "V4_PORTPARAMS" not in ladder
    assert run(str(path), "--verbose") == 0
    verbose = capsys.readouterr().out
    assert verbose.startswith(ladder)
    assert "\npacket 2, fe80::c → 2001:db8:46::1\n  DHCPV4-RESPONSE (21)" in verbose
    assert "159 V4_PORTPARAMS" in verbose


def test_capture_that_ends_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(EXCHANGE)[:-3])
    assert run(str(path)) == 1
    out, err = capsys.readouterr()
    assert "DISCOVER" in out
    assert "ACK" not in out
    assert err.startswith("b4client decode: the capture ends early: truncated packet: ")
    assert run(str(path), "--json") == 1
    got = json_of(capsys)
    assert (len(got["datagrams"]), got["error"]["reason"].split(":")[0]) == (1, "truncated packet")
    assert isinstance(got["error"]["offset"], int)


def test_fragments_are_mentioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fragment = packet4(inner(1))
    fragment.flags = "MF"
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([bytes(ETHERNET / fragment)]))
    assert run(str(path)) == 0
    assert capsys.readouterr() == (
        "(no DHCP message)\n",
        "b4client decode: 1 fragments were not put together\n",
    )


def test_capture_with_a_wrong_or_partial_message(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([bytes(ETHERNET / packet6(b"\x63"))]))
    assert run(str(path)) == 1
    path.write_bytes(pcap([EXCHANGE[0][:-8]], lost=8))
    assert run(str(path)) == 1


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("xyz",), "'xyz' is neither hexadecimal octets nor a file; give one of them"),
        (("",), "is neither hexadecimal"),
        (("0x",), "is neither hexadecimal"),
        (("abc",), "is neither hexadecimal"),
        (("07", "zz"), "'07 zz' is neither"),
        (("q" * 500,), "qqq...' is neither"),
        (("nul\0",), "is neither"),
        (("-",), "standard input is empty"),
        (("/nonexistent/x.pcap",), "/nonexistent/x.pcap: No such file or directory"),
        ((f"{Path(__file__).parent}/",), ": Is a directory"),
    ],
)
def test_nothing_to_decode(
    argv: tuple[str, ...], reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("b4client decode: ")
    assert reason in err
    assert err.count("\n") == 1


def test_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(decode, "MAX_INPUT", 100)
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(EXCHANGE))
    assert run(str(path)) == 2
    assert "has more than 100 octets" in capsys.readouterr().err


def test_as_a_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "b4client", "decode", "-"], input=pcap(EXCHANGE), capture_output=True, check=True
    )
    assert "DHCPV4-RESPONSE: ACK" in done.stdout.decode()


def test_decoders_are_loaded_only_when_needed() -> None:
    code = "import sys, b4client.decode; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.startswith(("b4client.wire", "b4client.decode."))]
    assert not {"asyncio", "pyroute2", "scapy", "rich"} & set(loaded)
