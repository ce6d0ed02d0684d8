"""A full disk: the client works without memory, says so, and remembers again when there is room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faultbed import FaultBed, fault_bed, fill_up, small_disk
from test_e2e_survival import assert_nothing_left, state_of

from b4client.lab.netns import wait_until
from b4client.lab.traffic import Server


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as path:
        yield path


@pytest.fixture
def bed(disk: Path, tmp_path: Path, encapsulation: str) -> Iterator[FaultBed]:
    (tmp_path / "bed").mkdir()
    with fault_bed(f"fd{os.getpid()}", tmp_path / "bed", encapsulation) as made:
        yield made


@pytest.mark.parametrize("kind", ["state", pytest.param("run", marks=pytest.mark.slow)])
def test_disk_full(bed: FaultBed, disk: Path, kind: str) -> None:
    before = state_of(bed.cpe)
    client = bed.client()
    directory = disk / kind
    directory.mkdir()
    # The last of these options counts.
    client._arguments += [f"--{kind}-dir", str(directory)]
    if kind == "run":
        client.run_dir = directory
    filler = fill_up(disk)
    client.start()
    client.wait_bound()
    with Server(bed.srv):
        bed.comes_back()
        if kind == "state":
            assert list(directory.glob("*.lease.json")) == []
            assert any("No space left" in str(record) for record in client.log)
        client.command("renew")
        client.wait_bound()
        client.kill()
        client.start()  # nothing is remembered
        client.wait_bound()
        bed.comes_back()
        filler.unlink()
        acknowledged = client.status()["counters"]["received-ack"]
        client.command("renew")
        wait_until(lambda: client.status()["counters"]["received-ack"] > acknowledged, 10, "a renewal")
        if kind == "state":
            wait_until(lambda: list(directory.glob("*.lease.json")), 5, "the lease to be kept")
    assert client.stop() == 0
    wait_until(lambda: bed.cpe.pids() == [], 5, "processes to end")
    after = state_of(bed.cpe)
    if kind == "run":
        # What the settings were before could be noted nowhere: they stay. All else is as it was.
        assert_nothing_left(bed.cpe, before)
    assert after == before
    leftovers = [p.name for p in directory.rglob(".*.new")]
    assert leftovers == [], "half-written files"
