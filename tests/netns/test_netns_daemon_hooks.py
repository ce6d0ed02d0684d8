"""A hook script of a real daemon: up, down, and nothing for a renewal that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from b4client.lab.client import Client
from b4client.lab.netns import wait_until
from b4client.lab.testbed import Testbed

pytestmark = pytest.mark.kea


def test_the_hook_hears_of_everything_once(testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path) -> None:
    seen, hook, settings = tmp_path / "seen", tmp_path / "hook", tmp_path / "b4client.toml"
    hook.write_text(
        "#!/bin/sh\n"
        f'echo "$B4_REASON $B4_WAN $B4_DEVICE $B4_ADDRESS $B4_PSID/$B4_PSID_LEN $B4_PORTS ($B4_LOCAL)" >> {seen}\n'
        "echo told the neighbours\n"
        'ip -o -4 address show dev "$B4_DEVICE" | grep -q "$B4_ADDRESS" || [ "$B4_REASON" = down ]\n'
    )
    hook.chmod(0o755)
    settings.write_text(f'hooks.script = "{hook}"\n')
    client = client_in(testbed, "--config", str(settings))
    client.start()
    bound = client.wait_bound()
    local = bound["softwire"]["binding_ipv6_addr"]
    first, last = bound["lease"]["ports"]["ranges"][0]
    up = f"up wan b4 192.0.2.18 52/8 {first}-{last} ({local})"
    wait_until(lambda: seen.exists() and seen.read_text() == f"{up}\n", 5, "the hook")
    assert bound["privileges"]["landlock"] is False  # the hook must be able to write
    client.command("renew")
    wait_until(lambda: client.status()["counters"]["received-ack"] == 2, 10, "the renewal")
    wait_until(lambda: any("told the neighbours" in r["text"] for r in client.log), 5, "its output in the log")
    assert client.status()["hook_problem"] is None
    assert client.stop("withdraw") == 0
    assert seen.read_text().splitlines() == [up, up.replace("up", "down", 1)]


def test_a_hook_that_hangs_does_not_hold_up_the_client(
    testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path
) -> None:
    hook, settings = tmp_path / "hook", tmp_path / "b4client.toml"
    hook.write_text("#!/bin/sh\nsleep 1000\n")
    hook.chmod(0o755)
    settings.write_text(f'hooks.script = "{hook}"\nhooks.timeout = 1\n')
    client = client_in(testbed, "--config", str(settings))
    client.start()
    client.wait_bound()
    client.command("renew")
    wait_until(lambda: client.status()["counters"]["received-ack"] == 2, 5, "the renewal")
    wait_until(lambda: "took longer than 1 s" in (client.status()["hook_problem"] or ""), 5, "the hook's end")
    assert "took longer" in client.command("status")
    assert client.stop("withdraw") == 0
    assert testbed.cpe.pids() == []
