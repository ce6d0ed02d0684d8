"""``b4client ports``: what is counted is what the traffic is, and those who ask cannot hurt."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from b4client import api
from b4client.lab.client import Client
from b4client.lab.netns import Namespace, wait_until
from b4client.lab.testbed import LAN_HOST, SERVER, Testbed
from b4client.lab.traffic import PORT, Server, TcpClient

pytestmark = pytest.mark.kea
PUBLIC = "192.0.2.18"


@pytest.fixture
def bound(testbed: Testbed, client_in: Callable[..., Client]) -> Client:
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    return client


def senders(where: Namespace, count: int) -> list[socket.socket]:
    """UDP sockets that have each sent one datagram to the server."""
    opened = []
    with where.entered():
        for _ in range(count):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.connect((str(SERVER), PORT))
            s.send(b"x")
            opened.append(s)
    return opened


def use_of(client: Client, protocol: str) -> dict[str, int]:
    time.sleep(1)  # no look is nearer to the one before
    found: dict[str, int] = client.call("ports")["protocols"][protocol]
    return found


def test_counted_as_it_is(testbed: Testbed, bound: Client) -> None:
    bound.command("forward", "add", "tcp", "13400", str(LAN_HOST))
    with Server(testbed.srv), TcpClient(testbed.lan, SERVER, timeout_s=10) as connection:
        connection.transfer(1000)
        with TcpClient(testbed.lan, SERVER, timeout_s=10) as second:
            second.transfer(1000)
        for s in senders(testbed.lan, 20):
            s.close()
        found = bound.call("ports")
        assert found["address"] == PUBLIC
        tcp, udp = found["protocols"]["tcp"], found["protocols"]["udp"]
        assert (tcp["used"] + tcp["time_wait"], tcp["forwarded"], tcp["flows"]) == (2, 1, 2)
        assert (udp["used"], udp["time_wait"], udp["flows"]) == (20, 0, 20)
        assert all(sum(u[k] for k in ("used", "time_wait", "forwarded", "free")) == 256 for u in (tcp, udp))
        assert found["forwarded_ports"] == [[13400, 13400]]
        held = {p for first, last in udp["used_ports"] for p in range(first, last + 1)}
        assert len(held) == 20
        assert all(13312 <= p <= 13567 for p in held)
        assert found["hosts"] == [{"host": str(LAN_HOST), "flows": 22, "ports": 22}]
        assert found["destinations"][0] == {"protocol": "udp", "address": str(SERVER), "port": PORT, "flows": 20}
        assert (found["outside"], found["complete"]) == (0, True)
        wait_until(lambda: use_of(bound, "tcp")["time_wait"] == 1, 5, "TIME_WAIT")
    testbed.cpe.run("ping", "-c", "1", "-W", "1", "-I", PUBLIC, str(SERVER))
    assert use_of(bound, "icmp")["used"] == 1
    text = bound.command("ports")
    assert "\x1b" not in text
    assert re.search(r"udp +20 +- +1 +235 +20 +20\n", text)
    assert f"{PUBLIC} (this machine)" in text
    metrics = bound.command("metrics")
    assert 'b4client_port_use{wan="wan",protocol="udp",state="used"} 20' in metrics
    assert 'b4client_port_use_peak{wan="wan",protocol="udp"} 20' in metrics


def test_nobody_looks_nothing_is_counted(bound: Client) -> None:
    assert bound.status()["port_use"] is None
    time.sleep(2)
    assert bound.status()["port_use"] is None
    bound.call("ports")
    assert bound.status()["port_use"]["looks"] == 1
    assert bound.status()["port_use"]["looks"] == 1


def test_many_who_ask_get_one_look(testbed: Testbed, bound: Client) -> None:
    """Eight clients ask as fast as they can for three seconds; meanwhile the daemon answers others, and renews."""
    end, answers = time.monotonic() + 3, [0] * 8
    path = bound.run_dir / "wan.sock"

    def ask(number: int) -> None:
        while time.monotonic() < end:
            with contextlib.suppress(api.ControlError):
                api.call(path, "ports")
                answers[number] += 1

    for s in senders(testbed.lan, 200):
        s.close()
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    bound.command("renew")
    while time.monotonic() < end:
        begin = time.monotonic()
        bound.call("recent")
        slowest = max(slowest, time.monotonic() - begin)
    for thread in threads:
        thread.join()
    assert sum(answers) > 50
    assert bound.call("ports")["looks"] <= 6
    assert slowest < 1
    assert bound.status()["counters"]["received-ack"] == 2


def test_watch_redraws_in_place_and_ends_cleanly(testbed: Testbed, bound: Client) -> None:
    main, terminal = pty.openpty()
    argv = testbed.cpe.argv(*Client._argv("ports", "--watch", "--interval", "1", "--run-dir", str(bound.run_dir)))
    # A shell's background job, as these tests may be, ignores SIGINT, and what it starts does so as well.
    argv = ("env", "--default-signal=INT", *argv)
    process = subprocess.Popen(argv, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    seen = b""
    try:
        end = time.monotonic() + 15
        while seen.count(b"\x1b[H") < 3 and time.monotonic() < end:
            if select.select([main], [], [], 1)[0]:
                seen += os.read(main, 65536)
        os.killpg(process.pid, signal.SIGINT)
        # Read on: a terminal that nobody reads holds up who writes to it.
        while select.select([main], [], [], 10)[0]:
            try:
                seen += os.read(main, 65536)
            except OSError:  # nobody has the terminal any more
                break
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait()
        os.close(main)
    text = seen.decode()
    assert text.startswith("\x1b[?25l\x1b[2J\x1b[H")
    assert text.count("\x1b[2J") == 1
    assert "\x1b[?25h" in text
    assert "Traceback" not in text


def test_watch_as_json_lines(testbed: Testbed, bound: Client) -> None:
    argv = Client._argv("ports", "--watch", "--interval", "1", "--json", "--run-dir", str(bound.run_dir))
    process = subprocess.Popen(testbed.cpe.argv(*argv), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline())["looks"] for _ in range(3)]
        assert looks == [1, 2, 3]
    finally:
        process.kill()
        process.wait()
