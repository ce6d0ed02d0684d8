"""Proof by simulation: the client's machine and the server's behaviour, with everything between them going wrong.

The invariants are in ``simcheck``, what happens in ``simscenario``; the long run is ``soak.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simscenario import YEAR_S, Failure, Result, scenario_of, simulate
from simworld import World

from b4client.lab.leases import LeaseDatabase
from b4client.protocol import backoff, dhcp4_client
from b4client.protocol.dhcp4_client import Dhcp4Client
from b4client.protocol.dhcp4_states import Init, Rebinding

HERE = Path(__file__).parent


@pytest.mark.parametrize("seed", range(1, 41))
def test_chaos(seed: int) -> None:
    assert simulate(seed, "chaos").grants > 0


@pytest.mark.parametrize("seed", range(1, 21))
def test_crowd(seed: int) -> None:
    assert simulate(seed, "crowd").grants > 0


@pytest.mark.parametrize("seed", range(1, 11))
def test_dynamic(seed: int) -> None:
    """RFC 8539, with servers that refuse some changes of the softwire's source."""
    assert simulate(seed, "dynamic").grants > 0


def test_years() -> None:
    result = simulate(1, "years", clients=20, chaos_s=2 * YEAR_S)
    assert result.client_years > 40
    assert result.grants > 1000


def test_one_seed_is_one_run() -> None:
    # In other processes with other hash seeds: neither the order of a set nor the clock of the machine plays a part.
    code = "import simscenario; print(simscenario.simulate(7).digest, simscenario.simulate(8).digest)"
    path = os.pathsep.join((str(HERE), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")))
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert digests == {f"{simulate(7).digest} {simulate(8).digest}\n"}


# ---- a simulation that finds nothing in a broken client or server proves nothing


def failure_in(seeds: Iterable[int], profile: str = "chaos", **changes: Any) -> str:
    """The story of the first failure in these seeds."""
    for seed in seeds:
        try:
            simulate(seed, profile, **changes)
        except Failure as failure:
            text = str(failure)
            assert f"soak.py --profile {profile} --seed {seed}" in text
            return text
    pytest.fail("the simulation did not notice")


def replaced(monkeypatch: pytest.MonkeyPatch, where: object, name: str, make: Callable[[Any], Any]) -> None:
    monkeypatch.setattr(where, name, make(getattr(where, name)))


def test_a_server_that_gives_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, LeaseDatabase, "free", lambda _: lambda *a: True)
    assert "both believe in ports of" in failure_in(range(1, 60), "crowd")


def test_a_server_that_forgets_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The only thing that is permitted to it is what it gave in another epoch.
    replaced(monkeypatch, World, "new_epoch", lambda _: lambda self: 1)
    assert "both believe in ports of" in failure_in(range(1, 60), "crowd", forgetful=True)


def test_a_server_that_frees_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, LeaseDatabase, "expire", lambda real: lambda self, now: real(self, now + 60))
    assert "both believe in ports of" in failure_in(range(1, 60), "crowd")


def test_a_client_that_counts_from_the_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(real: Any) -> Any:
        return lambda message, *, requested_at, **rest: real(message, requested_at=requested_at + 10, **rest)

    replaced(monkeypatch, dhcp4_client, "read_lease", late)
    assert "which nobody granted" in failure_in(range(1, 5))


def test_a_client_that_does_not_stop_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(real: Any) -> Any:
        def overdue(self: Any, now: float, lease: Any) -> Any:
            if now < lease.expires_at:
                return real(self, now, lease)
            self._enter(Rebinding(replace(lease, expires_at=now + 3600), now, 1, now, now + 3600))
            return []

        return overdue

    replaced(monkeypatch, Dhcp4Client, "_overdue", never)
    story = failure_in(range(1, 60), "crowd")
    assert "after its end" in story or "the deadline is" in story


def test_a_client_that_hurries_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, backoff, "dhcp4_delay_s", lambda _: lambda attempt, rng: 2.0)
    assert "of one transaction after" in failure_in(range(1, 60))


def test_a_client_that_renews_too_often_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, backoff, "renew_delay_s", lambda _: lambda *_: 20.0)
    assert "two requests to extend the lease" in failure_in(range(1, 60))


def test_a_client_that_gives_up_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def for_ever(_: Any) -> Any:
        def fail(self: Any, now: float, kind: str, text: str) -> Any:
            self._enter(Init(now + 1e6))
            return []

        return fail

    replaced(monkeypatch, Dhcp4Client, "_fail", for_ever)
    assert "after the network was well" in failure_in(range(1, 60))


def test_what_a_run_says() -> None:
    result: Result = simulate(3)
    scenario = scenario_of(3, "chaos")
    assert result.scenario == scenario
    assert result.simulated_s >= scenario.chaos_s + scenario.bound_s
    assert result.sent <= result.steps * (1 + scenario.servers) * 2
    assert result.server["sent-ack"] == result.grants
    with pytest.raises(ValueError, match="no such profile"):
        scenario_of(1, "calm")
