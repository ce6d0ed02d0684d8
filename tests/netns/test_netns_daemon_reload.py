"""A running daemon and its configuration: reload, instances beside each other, places that cannot be written."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from b4client.lab.client import Client
from b4client.lab.netns import LabError, ip, wait_until
from b4client.lab.testbed import LAN_HOST, SERVER, Testbed
from b4client.lab.traffic import Server, TcpClient, udp_exchange

pytestmark = pytest.mark.kea


def ruleset(testbed: Testbed) -> str:
    return testbed.cpe.run("nft", "list", "table", "ip", "b4client_b4").stdout


def kinds(client: Client) -> list[str]:
    return [e["kind"] for e in client.events()]


def test_reload_changes_what_changed_and_cuts_nothing(
    testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path
) -> None:
    file = tmp_path / "b4client.toml"
    file.write_text("")
    client = client_in(testbed, "--config", str(file))
    client.start()
    bound = client.wait_bound()
    port = bound["lease"]["ports"]["ranges"][0][0]
    mtu = bound["dataplane"]["mtu"]
    with Server(testbed.srv) as server, TcpClient(testbed.lan, SERVER, timeout_s=10) as connection:
        own_port = connection.transfer(3000).port
        testbed.lan.run("ping", "-c", "1", "-W", "1", "169.254.1.1", check=False)

        assert "nothing has changed" in client.command("reload")
        assert "fwd_in" not in ruleset(testbed)

        file.write_text(f'[[forward]]\nprotocol = "tcp"\nport = {port}\nto = "{LAN_HOST}"\nto_port = 80\n')
        assert client.command("reload") == "changed: forward\n"
        wait_until(lambda: f"tcp . {port} : {LAN_HOST} . 80" in ruleset(testbed), 5, "the forward")

        # By signal; timeouts are the kernel's business alone.
        file.write_text(f"nat.timeouts.udp = 234\nsoftwire.mtu = {mtu - 100}\n")
        os.kill(client.pid, signal.SIGHUP)
        wait_until(lambda: "unreplied : 234" in ruleset(testbed) or "3m54s" in ruleset(testbed), 5, "the timeout")
        wait_until(lambda: client.status()["dataplane"]["mtu"] == mtu - 100, 5, "the MTU")
        assert "fwd_in" not in ruleset(testbed)

        file.write_text('daemon.log_level = "debug"\ndaemon.interface_wait = 7\nnat.timeouts.udp = 235\n')
        said = client.command("reload")
        assert "daemon.log_level" in said
        assert "needs a restart: daemon.interface_wait" in said
        wait_until(lambda: client.status()["dataplane"]["mtu"] == mtu, 5, "the MTU of before")
        wait_until(lambda: "unreplied : 235" in ruleset(testbed) or "3m55s" in ruleset(testbed), 5, "the timeout")

        assert connection.transfer(3000).port == own_port
        assert len(server.connections) == 1
    # What was counted before the rules were loaded anew is not forgotten.
    assert client.status()["dataplane"]["counters"]["link_local_drop"]["packets"] == 1
    # An operator's change is no damage, and no new lease is needed for it.
    assert client.call("status")["mending"]["mends"] == 0
    assert client.status()["counters"]["received-ack"] == 1
    assert kinds(client).count("reloaded") == 4


def test_a_configuration_with_an_error_changes_nothing(
    testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path
) -> None:
    file = tmp_path / "b4client.toml"
    file.write_text("")
    client = client_in(testbed, "--config", str(file))
    client.start()
    client.wait_bound()
    before = ruleset(testbed)
    file.write_text("softwire.mtu = 3\nnat.timeouts.udp = 222\n")
    with pytest.raises(LabError, match=r"exit 1: .*the old one stays in force: softwire.mtu: must be from"):
        client.command("reload")
    os.kill(client.pid, signal.SIGHUP)
    wait_until(lambda: kinds(client).count("reload-refused") == 2, 5, "the refusal")
    assert ruleset(testbed) == before
    with Server(testbed.srv):
        udp_exchange(testbed.lan, SERVER, requests=1)


def test_instances_beside_each_other(testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path) -> None:
    """A second one on another WAN shares only the directories; one device cannot have two masters."""
    first = client_in(testbed)
    first.start()
    first.wait_bound()
    cpe = testbed.cpe
    ip("-n", cpe.name, "link", "add", "wan2", "type", "veth", "peer", "name", "wan2p")
    try:
        ip("-n", cpe.name, "link", "set", "wan2", "up")
        ip("-n", cpe.name, "link", "set", "wan2p", "up")
        common = ("--state-dir", str(first.state_dir), "--run-dir", str(first.run_dir), "--no-start-delay")
        refused = cpe.run(*Client._argv("run", "--wan", "wan2", *common), check=False)
        assert refused.returncode == 1
        assert "another instance of b4client has it" in refused.stderr
        assert "--device" in refused.stderr
        again = cpe.run(*Client._argv("run", "--wan", "wan", *common), check=False)
        assert again.returncode == 1
        assert "running there already" in again.stderr
        second = cpe.start(
            *Client._argv("run", "--wan", "wan2", "--device", "b4b", *common), log=tmp_path / "second.log"
        )
        try:
            socket = first.run_dir / "wan2.sock"
            wait_until(socket.exists, 10, "the second instance")
            with pytest.raises(LabError, match=r"several instances run \(wan, wan2\)"):
                first.command("status")
            other = json.loads(first.command("status", "--json", "--instance", "wan2"))
            assert (other["instance"], other["lease"]) == ("wan2", None)
            duids = {other["identity"]["duid"], first.status()["identity"]["duid"]}
            ids = {other["identity"]["client_id"], first.status()["identity"]["client_id"]}
            assert (len(duids), len(ids)) == (1, 2)  # one machine, two bindings (RFC 4361 6.1)
            first.command("stop", "--instance", "wan2")
            assert second.wait(10) == 0
        finally:
            if second.poll() is None:
                second.kill()
                second.wait()
        with Server(testbed.srv):
            udp_exchange(testbed.lan, SERVER, requests=1)
        assert first.status()["mending"]["mends"] == 0
    finally:
        ip("-n", cpe.name, "link", "del", "wan2")


# ---- places that cannot be written


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def carries_traffic(testbed: Testbed, client: Client) -> None:
    client.wait_bound()
    with Server(testbed.srv):
        udp_exchange(testbed.lan, SERVER, requests=1)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_full_disk(testbed: Testbed, client_in: Callable[..., Client], small_disk: Path) -> None:
    fill(small_disk / "fill")
    client = client_in(testbed, "--state-dir", str(small_disk / "state"))
    client.start()
    carries_traffic(testbed, client)
    assert "No space left" in client.status()["store_problem"]
    assert "No space left" in client.command("status")
    (small_disk / "fill").unlink()
    client.command("renew")
    wait_until(lambda: client.status()["store_problem"] is None, 10, "the lease to be stored")
    assert (small_disk / "state" / "wan.lease.json").stat().st_size > 100


def test_read_only_state_directory(testbed: Testbed, client_in: Callable[..., Client], small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    client = client_in(testbed, "--state-dir", str(small_disk / "state"))
    client.start()
    carries_traffic(testbed, client)
    assert "Read-only file system" in client.status()["store_problem"]


def test_corrupt_lease_file(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    client = client_in(testbed)
    client.state_dir.mkdir(parents=True)
    lease = client.state_dir / "wan.lease.json"
    lease.write_bytes(b'{"format": 1, "address": "192.0.2.18", "po\xff\xfe')
    client.start()
    carries_traffic(testbed, client)
    assert any("is damaged" in record["text"] and "set aside" in record["text"] for record in client.log)
    assert (client.state_dir / "wan.lease.json.damaged").exists()
    assert json.loads(lease.read_text())["address"] == client.status()["lease"]["address"]


def test_lease_of_another_boot_with_a_clock_from_1970(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    """No battery, no NTP yet: the age of the lease is unknown. It is asked for again, not used before the answer."""
    client = client_in(testbed)
    client.start()
    before = client.wait_bound()
    client.stop("withdraw")
    file = client.state_dir / "wan.lease.json"
    stored = json.loads(file.read_text())
    stored["boot_id"], stored["saved_wall"] = "another boot", time.time() + 86400 * 365  # we are "before" it
    file.write_text(json.dumps(stored))
    client.start()
    after = client.wait_bound()
    assert after["lease"]["address"] == before["lease"]["address"]
    order = [e["kind"] for e in client.events() if e["kind"] in ("bound", "renewed", "softwire-up")]
    assert order[:2] in (["bound", "softwire-up"], ["renewed", "softwire-up"])  # nothing came up before the answer
    carries_traffic(testbed, client)
