"""``b4client teardown``: what an ended daemon left goes, what a running one has stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from b4client.lab.client import Client
from b4client.lab.netns import LabError
from b4client.lab.testbed import SERVER, Testbed
from b4client.lab.traffic import Server, udp_exchange

pytestmark = pytest.mark.kea


def test_teardown(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    client, cpe = client_in(testbed), testbed.cpe
    cpe.sysctl({"ipv4/ip_forward": 0})
    client.start()
    client.wait_bound()
    with pytest.raises(LabError, match="running there already"):
        client.command("teardown")
    client.kill()
    with Server(testbed.srv):
        udp_exchange(testbed.lan, SERVER, requests=1)  # nothing has happened to the softwire
    removed = json.loads(client.command("teardown", "--json"))["removed"]
    assert any("interface b4 " in text for text in removed)
    assert any("nft tables b4client_b4 (arp, ip, ip6)" in text for text in removed)
    assert any("b4-n0, b4-n1" in text for text in removed)
    assert any(text == "net/ipv4/ip_forward put back to 0" for text in removed)
    assert "b4client" not in cpe.run("nft", "list", "tables").stdout
    assert not {"b4", "b4-n0"} & set(cpe.run("ls", "/sys/class/net").stdout.split())
    assert cpe.run("sysctl", "-n", "net.ipv4.ip_forward").stdout.strip() == "0"
    assert client.command("teardown") == "nothing was left\n"
    # A daemon that comes later knows nothing of it.
    client.start()
    client.wait_bound()


def test_teardown_without_the_run_directory(testbed: Testbed, tmp_path: Path) -> None:
    """Only with the device's name; somebody else's device is not touched."""
    cpe = testbed.cpe
    cpe.run("ip", "link", "add", "b4x", "type", "veth", "peer", "name", "b4xp")
    try:
        command = Client._argv("teardown", "--run-dir", str(tmp_path), "--device", "b4x")
        done = cpe.run(*command, check=False)
        assert done.returncode == 1
        assert "no softwire of ours" in done.stderr
        cpe.run("nft", "add table ip b4client_b4y")
        command[-1] = "b4y"
        assert "b4client_b4y (ip)" in cpe.run(*command).stdout
        assert cpe.run(*command).stdout == "nothing was left\n"
    finally:
        cpe.run("ip", "link", "del", "b4x")
