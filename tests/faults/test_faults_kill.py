"""SIGKILL at random moments: nothing is ever open without its rules, a restart mends it, nothing is left at the end.

Not one netlink message changes link, address, route and rules together, so that a killed process can leave a state
between old and new. What it must never leave is a way out for untranslated packets.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faultbed import FIRST_PORTS, FaultBed, fault_bed
from killcheck import Killing, check_guarded
from leaks import own_descriptors
from softwirebed import FIRST, OTHER_LEASE, TABLE, dataplane, kernel_state, softwire_bed
from test_e2e_survival import assert_nothing_left, state_of
from weather import dhcp6_payload, is_dhcp6

from b4client.lab.client import Client
from b4client.lab.netns import wait_until
from b4client.lab.traffic import Server
from b4client.model.errors import WireError
from b4client.model.softwire import SoftwireConfig
from b4client.wire import dhcp4, dhcp4o6

SEED = int(os.environ.get("B4CLIENT_TEST_SEED", "7"))
KILLS = int(os.environ.get("B4CLIENT_TEST_KILLS", "40"))
"""A start and a kill take three seconds: 200 take ten minutes."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("before", "times"),
    [
        pytest.param(FIRST, 4, id="change-4"),
        pytest.param(FIRST, 100, id="change-100", marks=pytest.mark.slow),
        pytest.param(None, 100, id="first-100", marks=pytest.mark.slow),
    ],
)
def test_installation_killed(before: SoftwireConfig | None, times: int, tmp_path: Path, encapsulation: str) -> None:
    descriptors = own_descriptors()
    with softwire_bed(f"tk{os.getpid()}") as namespace, namespace.entered():
        empty = kernel_state(namespace, tmp_path)
        dataplane(tmp_path, encapsulation).probe()  # loaded here, inherited by what is killed
        killing = Killing(namespace, tmp_path, encapsulation, before, FIRST if before is None else OTHER_LEASE)
        longest = killing.measure()
        rng = random.Random(SEED)
        for _ in range(times):
            killing.kill(rng, longest * 1.1)
        print(f"installation {longest * 1000:.0f} ms; {killing.outcomes}")
        dataplane(tmp_path, encapsulation).withdraw()
        assert kernel_state(namespace, tmp_path) == empty
        assert namespace.pids() == [] or set(namespace.pids()) <= {os.getpid()}
    assert own_descriptors() <= descriptors + 2


@pytest.fixture
def bed(tmp_path: Path, encapsulation: str) -> Iterator[FaultBed]:
    with fault_bed(f"fk{os.getpid()}", tmp_path, encapsulation) as made:
        yield made


def is_ack(frame: bytes, end: str) -> bool:
    """True for a DHCPACK on its way to the customer."""
    if end != "isp" or not is_dhcp6(frame):
        return False
    try:
        return dhcp4.decode(dhcp4o6.decode(dhcp6_payload(frame)).dhcp4).message_type == dhcp4.MessageType.ACK
    except WireError:
        return False


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("times", [1, pytest.param(KILLS, marks=pytest.mark.slow)])
def test_daemon_killed_between_ack_and_softwire(bed: FaultBed, times: int) -> None:
    """The whole daemon, killed within 80 ms of the ACK on the wire; then started again, and stopped without a trace."""
    before = state_of(bed.cpe)
    reference = bed.client(name="reference")
    reference.start()
    reference.wait_bound()
    rules = bed.cpe.run("nft", "-s", "list", "table", "ip", TABLE).stdout
    assert reference.stop() == 0
    rng = random.Random(SEED)
    acks: list[float] = []
    bed.weather.seen = lambda frame, end: acks.append(time.monotonic()) if is_ack(frame, end) else None
    found = {"carries": 0, "closed": 0}
    with Server(bed.srv):
        for number in range(times):
            client: Client = bed.client(name=f"k{number}")
            acks.clear()
            client.start()
            wait_until(lambda: acks, 20, "the ACK", poll_s=0.0005)
            delay = rng.uniform(0, 0.08)
            time.sleep(max(0.0, acks[0] + delay - time.monotonic()))
            client.kill()
            check_guarded(bed.cpe, [rules], f"killed {delay * 1000:.1f} ms after the ACK")
            found["carries" if bed.flows(0.2) else "closed"] += 1
            client.start()
            client.wait_bound()
            bed.comes_back(10)
            lease = client.status()["lease"]
            assert (lease["address"], lease["ports"]["psid"]) == ("192.0.2.1", FIRST_PORTS.psid)
            assert client.stop() == 0
            wait_until(lambda: bed.cpe.pids() == [], 5, "processes to end")
            assert_nothing_left(bed.cpe, before)
    print(f"{times} kills within 80 ms of the ACK: {found}")
