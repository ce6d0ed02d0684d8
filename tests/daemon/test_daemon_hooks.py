"""Hooks: what they are told, whatever a server sends, and what they may do to the daemon, which is nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client.config import HookSettings
from b4client.daemon import dnsrecord, hookenv, hooks
from b4client.daemon.hookenv import Told, environment, tell
from b4client.daemon.hooks import Hooks
from b4client.model.lease import Lease4
from b4client.model.portset import PortSet
from b4client.model.softwire import Mode, SoftwireConfig

PORTS = PortSet(6, 8, 0x34)
CONFIG = SoftwireConfig(
    Mode.LW4O6,
    "wan",
    IPv6Address("2001:db8::1"),
    IPv6Address("2001:db8:ffff::1"),
    IPv4Address("192.0.2.18"),
    PORTS,
)
DNS, DOMAIN, NTP, SEARCH = 6, 15, 42, 119


def lease(**options: bytes) -> Lease4:
    codes = {"dns": DNS, "domain": DOMAIN, "ntp": NTP, "search": SEARCH}
    given_options = tuple((codes[name], value) for name, value in options.items())
    return Lease4(CONFIG.ipv4, PORTS, IPv4Address("192.0.2.1"), 0.0, 1.0, 2.0, 3.0, given_options)


def variables(**options: bytes) -> dict[str, str]:
    return environment("up", tell(CONFIG, lease(**options), device="b4"))


def test_everything_is_told() -> None:
    found = variables(
        dns=bytes([192, 0, 2, 53, 192, 0, 2, 54]),
        domain=b"example.net\0",
        ntp=bytes([192, 0, 2, 123]),
        search=b"\7example\3net\0\3lan\xc0\0",
    )
    assert found == {
        "PATH": hookenv.PATH,
        "LANG": "C",
        "B4_REASON": "up",
        "B4_WAN": "wan",
        "B4_DEVICE": "b4",
        "B4_MODE": "lw4o6",
        "B4_ADDRESS": "192.0.2.18",
        "B4_LOCAL": "2001:db8::1",
        "B4_BR": "2001:db8:ffff::1",
        "B4_DNS": "192.0.2.53 192.0.2.54",
        "B4_NTP": "192.0.2.123",
        "B4_DOMAIN": "example.net",
        "B4_SEARCH": "example.net lan.example.net",
        "B4_SERVER_ID": "192.0.2.1",
        "B4_FORWARDS": "",
        "B4_SHARED": "yes",
        "B4_PORTS": " ".join(f"{r.first}-{r.last}" for r in PORTS.ranges()),
        "B4_PSID": "52",
        "B4_PSID_LEN": "8",
        "B4_PSID_OFFSET": "6",
    }


def test_an_address_that_is_not_shared_and_ipv4_without_a_lease() -> None:
    found = environment("up", tell(replace(CONFIG, ports=None), None, device="b4"))
    assert (found["B4_SHARED"], found["B4_PORTS"], found["B4_PSID"]) == ("no", "1-65535", "")
    assert found["B4_DNS"] == found["B4_SERVER_ID"] == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("domain", b"$(reboot)"),
        ("domain", b"a b"),
        ("domain", b"x;reboot"),
        ("domain", b"`reboot`"),
        ("domain", b"a\nB4_DNS=6.6.6.6"),
        ("domain", b"../../etc/passwd"),
        ("domain", b"-rf"),
        ("domain", b"a..b"),
        ("domain", b"\xff\xfe"),
        ("domain", b"a" * 64),
        ("domain", b".".join([b"a" * 60] * 5)),
        ("domain", b""),
        ("domain", b"\0"),
        ("search", b"\4-rf \0"),
        ("search", b"\3a b\0"),
        ("search", b"\xc0\0"),
        ("search", b"\7example"),
        ("dns", b"\1\2\3"),
        ("dns", bytes(4)),
        ("dns", bytes([127, 0, 0, 1])),
        ("dns", bytes([224, 0, 0, 1])),
        ("dns", b"\xff" * 4),
    ],
)
def test_what_is_malformed_or_hostile_is_not_told(name: str, value: bytes) -> None:
    assert variables(**{name: value})[f"B4_{name.upper()}"] == ""


def test_a_flood_of_servers_and_names_is_cut() -> None:
    found = variables(dns=bytes(range(1, 241)), search=b"".join(b"\3a%02d\0" % i for i in range(100)))
    assert len(found["B4_DNS"].split()) == hookenv.MAX_SERVERS
    assert len(found["B4_SEARCH"].split()) == hookenv.MAX_DOMAINS


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=100))
def test_whatever_a_server_sends(domain: bytes, search: bytes, dns: bytes) -> None:
    told = tell(CONFIG, lease(domain=domain, search=search, dns=dns), device="b4")
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_. :")
    for value in environment("up", told).values():
        assert set(value.replace("/", "")) <= allowed
    for command in dnsrecord.set_servers("resolved", told):
        assert not any(argument.startswith("-") for argument in command.argv[1:])


# ---- running


def run(settings: HookSettings, work: Callable[[Hooks], Awaitable[None]], path: str = hookenv.PATH) -> None:
    async def main() -> None:
        hook = Hooks(settings, path=path)
        try:
            await asyncio.wait_for(work(hook), 20)
        finally:
            await hook.close()

    asyncio.run(main())


def script(place: Path, body: str, name: str = "hook") -> Path:
    path = place / name
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return path


TOLD = tell(CONFIG, lease(dns=bytes([192, 0, 2, 53])), device="b4")


def test_up_change_down_each_once_with_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_OF_OURS", "secret")
    seen = tmp_path / "seen"
    hook = script(tmp_path, f'echo "$1 $B4_REASON $B4_ADDRESS [$B4_DNS] $(pwd)" >> {seen}; env > {tmp_path}/env')

    async def work(h: Hooks) -> None:
        other = tell(CONFIG, lease(), device="b4")
        for told in (TOLD, TOLD, other, None, None):
            h.update(told)
            await h.settle()
        assert h.problem is None

    run(HookSettings(script=hook), work)
    assert seen.read_text().splitlines() == [
        "up up 192.0.2.18 [192.0.2.53] /",
        "change change 192.0.2.18 [] /",
        "down down 192.0.2.18 [] /",
    ]
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert {n for n in names if not n.startswith("B4_")} <= {"PATH", "LANG", "PWD", "SHLVL", "_", "OLDPWD"}


def test_what_was_overtaken_is_left_out(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    hook = script(tmp_path, f"echo $B4_REASON $B4_MODE >> {seen}; sleep 0.2")

    async def work(h: Hooks) -> None:
        h.update(TOLD)
        await asyncio.sleep(0.1)
        for _ in range(50):
            h.update(None)
            h.update(replace(TOLD, servers=()))
        await h.settle()

    run(HookSettings(script=hook), work)
    assert seen.read_text().splitlines() == ["up lw4o6", "change lw4o6"]


def test_who_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hook = script(tmp_path, f"sleep 300 & echo $! > {pids}; echo $$ >> {pids}; trap '' TERM; sleep 300; sleep 300")

    async def work(h: Hooks) -> None:
        started = time.monotonic()
        h.update(TOLD)
        await h.settle()
        assert time.monotonic() - started < 3
        assert h.problem is not None
        assert "took longer than 0.5 s and was killed" in h.problem

    run(HookSettings(script=hook, timeout_s=0.5), work)
    time.sleep(0.1)
    for pid in pids.read_text().split():
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_child_left_behind_does_not_keep_us_waiting(tmp_path: Path) -> None:
    hook = script(tmp_path, "sleep 300 & echo done")

    async def work(h: Hooks) -> None:
        started = time.monotonic()
        h.update(TOLD)
        await h.settle()
        assert time.monotonic() - started < 3
        assert h.problem is None

    run(HookSettings(script=hook), work)


def test_output_is_logged_and_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook = script(tmp_path, "echo hello; head -c 3000000 /dev/zero | tr '\\0' x; exit 7")

    async def work(h: Hooks) -> None:
        h.update(TOLD)
        await h.settle()
        assert h.problem is not None
        assert h.problem.endswith("ended with status 7")

    with caplog.at_level("INFO", "b4client.hooks"):
        run(HookSettings(script=hook), work)
    assert any(r.message.endswith(": hello") for r in caplog.records)
    assert sum(len(r.message) for r in caplog.records) < 2 * hooks.MAX_OUTPUT


def test_a_hook_that_others_could_change_is_not_run(tmp_path: Path) -> None:
    hook = script(tmp_path, "")
    assert hooks.refusal(hook) is None
    hook.chmod(0o777)
    assert hooks.refusal(hook) == "others than root can change it"
    hook.chmod(0o644)
    assert hooks.refusal(hook) == "it is not executable"
    assert hooks.refusal(tmp_path) == "it is no file"
    assert hooks.refusal(tmp_path / "absent") == "No such file or directory"
    (tmp_path / "broken").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "broken").chmod(0o755)

    async def work(h: Hooks) -> None:
        h.update(TOLD)
        await h.settle()
        assert h.problem is not None
        assert "cannot be run: Exec format error" in h.problem

    run(HookSettings(script=tmp_path / "broken"), work)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away; tests/run runs as root")
def test_a_hook_of_another_user_is_not_run(tmp_path: Path) -> None:
    hook = script(tmp_path, "")
    os.chown(hook, 12345, 12345)
    assert hooks.refusal(hook) == "others than root can change it"


# ---- DNS


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A directory with commands that note how they were called."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("resolvectl", "resolvconf"):
        script(
            place, f'for a; do printf "<%s>" "$a"; done >> {tmp_path}/{name}; cat >> {tmp_path}/{name}; exit 0\n', name
        )
    return place


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("resolved", "<dns><b4><192.0.2.53><domain><b4><example.net>"),
        ("resolvconf", "<-a><b4.b4client>nameserver 192.0.2.53\nsearch example.net\n"),
    ],
)
def test_dns_is_handed_over_and_taken_back(tmp_path: Path, tools: Path, way: str, expected: str) -> None:
    told = tell(CONFIG, lease(dns=bytes([192, 0, 2, 53]), domain=b"example.net"), device="b4")
    log = tmp_path / ("resolvectl" if way == "resolved" else "resolvconf")

    async def work(h: Hooks) -> None:
        h.update(told)
        await h.settle()
        assert h.problem is None
        assert log.read_text() == expected
        h.update(None)
        await h.settle()
        assert log.read_text() == expected + ("<revert><b4>" if way == "resolved" else "<-d><b4.b4client>")

    run(HookSettings(dns=way), work, path=f"{tools}:/bin:/usr/bin")


def test_who_is_there_is_found(tmp_path: Path, tools: Path) -> None:
    runs, nothing = tmp_path / "run", tmp_path / "nothing"
    for way in ("none", "auto"):
        assert dnsrecord.find(way, path=str(nothing), resolved_runs=runs) is None
    assert dnsrecord.find("auto", path=str(tools), resolved_runs=runs) == "resolvconf"
    runs.mkdir()
    assert dnsrecord.find("auto", path=str(tools), resolved_runs=runs) == "resolved"
    assert dnsrecord.find("none", path=str(tools), resolved_runs=runs) is None


def test_a_resolver_that_is_not_there_is_told(tmp_path: Path) -> None:
    async def work(h: Hooks) -> None:
        h.update(TOLD)
        await h.settle()
        assert h.problem == "resolvconf is not installed: the DNS servers are told to nobody"

    run(HookSettings(dns="resolvconf"), work, path=str(tmp_path))


def test_without_servers_nothing_is_left_known() -> None:
    told = Told("b4", (), ("example.net",), ())
    assert [c.argv for c in dnsrecord.set_servers("resolved", told)] == [("resolvectl", "revert", "b4")]
