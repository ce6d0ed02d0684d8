"""``b4client doctor`` in the testbed: with and without a daemon, in good health and not."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from b4client.doctor.probe import STUN_COOKIE
from b4client.lab.client import Client
from b4client.lab.netns import ip, wait_until
from b4client.lab.testbed import SERVER, Testbed

pytestmark = pytest.mark.kea


def examine(testbed: Testbed, run_dir: Path, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """(exit status, findings by check: the worst of each)."""
    done = testbed.cpe.run(
        *Client._argv("doctor", "--json", "--wan", "wan", "--run-dir", str(run_dir), *options), check=False
    )
    assert done.stdout, done.stderr
    findings: dict[str, dict[str, Any]] = {}
    order = ["ok", "note", "warning", "error"]
    for finding in json.loads(done.stdout)["findings"]:
        known = findings.setdefault(finding["check"], finding)
        if order.index(finding["level"]) > order.index(known["level"]):
            findings[finding["check"]] = finding
    return done.returncode, findings


@contextmanager
def stun_server(testbed: Testbed) -> Iterator[int]:
    with testbed.srv.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((str(SERVER), 0))

    def serve() -> None:
        while True:
            data, peer = sock.recvfrom(2048)
            if not data:
                return
            mapped = struct.pack("!HHI", 1, peer[1] ^ STUN_COOKIE >> 16, int(IPv4Address(peer[0])) ^ STUN_COOKIE)
            answer = struct.pack("!HHI", 0x0101, 12, STUN_COOKIE) + data[8:20] + struct.pack("!HH", 0x20, 8) + mapped
            sock.sendto(answer, peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = int(sock.getsockname()[1])
    try:
        yield port
    finally:
        with testbed.srv.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (str(SERVER), port))
        thread.join(5)
        sock.close()


def test_beside_a_daemon(testbed: Testbed, client_in: Callable[..., Client], encapsulation: str) -> None:
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    with stun_server(testbed) as port:
        status, findings = examine(testbed, client.run_dir, "--ping", str(SERVER), "--stun", f"{SERVER}:{port}")
    bad = {k: f for k, f in findings.items() if f["level"] in ("warning", "error")}
    assert (status, bad) == (0, {})
    assert {"reach", "source-port", "softwire", "daemon", "br-route", "path-mtu", "option-88"} <= set(findings)
    assert "192.0.2.18" in findings["source-port"]["text"]
    assert findings["reach"]["level"] == findings["nft"]["level"] == "ok"
    assert client.status()["mending"]["mends"] == 0  # looking has changed nothing

    # Another firewall's masquerade, and a route that is gone.
    testbed.cpe.run(
        "nft",
        "add table ip other; add chain ip other post { type nat hook postrouting priority 90; }; "
        "add rule ip other post masquerade",
    )
    ip("-n", testbed.cpe.name, "-6", "route", "del", "default")
    try:
        status, findings = examine(testbed, client.run_dir)
        assert status == 1
        assert findings["br-route"]["level"] == "error"
        assert "other" in findings["firewall"]["text"]
        text = testbed.cpe.run(
            *Client._argv("doctor", "--wan", "wan", "--run-dir", str(client.run_dir)), check=False
        ).stdout
        assert "error   there is no IPv6 route to the BR" in text
        assert text.splitlines()[-1] == "2 errors"
    finally:
        testbed.cpe.run("nft", "delete", "table", "ip", "other")
        testbed.give_wan_address()
    wait_until(lambda: client.status()["mending"]["problem"] is None, 10, "the daemon to be content")


def test_without_a_daemon(testbed: Testbed, tmp_path: Path) -> None:
    status, findings = examine(testbed, tmp_path)
    assert status == 0
    assert findings["daemon"]["level"] == "note"
    assert "2001:db8:46::1" in findings["option-88"]["text"]
    assert "2001:db8:ffff::1" in findings["br-route"]["text"]
    # A cable that is not there.
    testbed.pull_cable()
    try:
        status, findings = examine(testbed, tmp_path)
        assert status == 1
        assert findings["wan"]["level"] == findings["provisioning"]["level"] == "error"
    finally:
        testbed.plug_cable()
