"""Hours without a server, on the real driver: its clock runs 1000 times as fast (``fastdaemon``), or has jumped ahead
while no daemon ran (a time namespace: its offset can only be given before the first process is in it)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faultbed import FaultBed, document, fault_bed
from leaks import holding
from test_e2e_survival import assert_nothing_left, state_of
from weather import dhcp6_payload, is_dhcp6

from b4client.lab.client import Client
from b4client.lab.netns import wait_until
from b4client.lab.traffic import Server

FACTOR = 1000
HOUR_S = 3600.0 / FACTOR


@pytest.fixture
def bed(tmp_path: Path, encapsulation: str) -> Iterator[FaultBed]:
    with fault_bed(f"ft{os.getpid()}", tmp_path, encapsulation) as made:
        yield made


@pytest.mark.slow
def test_server_gone_for_hours(bed: FaultBed) -> None:
    """The lease of an hour ends without a server: the softwire goes, the daemon asks on with patience, and has a lease
    soon after the server is back."""
    before = state_of(bed.cpe)
    origin = time.time()
    # Its time goes as fast as the client's: a lease is an hour for both.
    bed.providers.remove(bed.provider)
    bed.provider.close()
    provider = bed.serve(document(), now=lambda: origin + (time.time() - origin) * FACTOR)
    client = bed.client(factor=FACTOR)
    client.start()
    client.wait_bound()
    held = holding(client.pid)
    provider.mute = True
    sent = [0]

    def count(frame: bytes, end: str) -> None:
        sent[0] += end == "cpe" and is_dhcp6(frame) and dhcp6_payload(frame)[0] in (11, 20)

    bed.weather.seen = count
    wait_until(lambda: client.status()["lease"] is None, 3 * HOUR_S + 20, "the lease to run out")
    wait_until(lambda: not (client.status()["dataplane"] or {}).get("up"), 10, "the softwire to go")
    sent[0] = 0
    time.sleep(5 * HOUR_S)
    # Once a minute and a bit at the most (RFC 2131 4.1: the wait is doubled up to 64 s; RFC 8415 for the rest).
    assert 0 < sent[0] < 5 * 3600 / 30
    provider.mute = False
    with Server(bed.srv):
        client.wait_bound(HOUR_S + 20)
        bed.comes_back()
    # One more than when it was just bound: the pump's, which is watched from then on.
    wait_until(lambda: holding(client.pid).descriptors <= held.descriptors + 1, 10, "descriptors to be closed")
    after = holding(client.pid)
    assert after.rss_kb <= held.rss_kb + 3000
    assert client.stop() == 0
    wait_until(lambda: bed.cpe.pids() == [], 5, "processes to end")
    assert_nothing_left(bed.cpe, before)


class LaterClient(Client):
    """A daemon whose boot clock is two hours ahead."""

    def _argv(self, *arguments: str) -> list[str]:  # type: ignore[override]
        command = [sys.executable, "-m", "b4client", *arguments]
        if arguments[0] != "run":
            return command
        return ["unshare", "--time", "--boottime", "7200", "--fork", "--kill-child", *command]


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--time", "--boottime", "1", "true"], check=False, capture_output=True).returncode
    != 0,
    reason="this kernel has no time namespaces; the machine's own kernel, where tests/run runs it too, has",
)
def test_lease_ran_out_while_no_daemon_ran(bed: FaultBed) -> None:
    """Killed, and started again when the lease is long over, without a server: the softwire that the killed daemon left
    must go, since the address may be somebody else's by now [S-9]."""
    client = bed.client()
    client.start()
    client.wait_bound()
    client.kill()
    with Server(bed.srv):
        assert bed.flows()
        bed.provider.mute = True
        later = LaterClient(bed.cpe, client.run_dir.parent, encapsulation=bed.encapsulation)
        bed.clients.append(later)
        later.start()
        wait_until(lambda: not bed.flows(0.2), 20, "the softwire to be shut")
        bed.provider.mute = False
        later.wait_bound(40)
        bed.comes_back()
    assert later.stop() == 0
