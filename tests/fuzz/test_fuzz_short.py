"""A short, repeatable run of every fuzz target; the long ones are ``fuzz.py``."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "decode"))  # its captures are our seeds

import fuzztargets
from fuzzseeds import mutations, seeds

COUNTS = {"machine": 400, "leasefile": 1000, "explain": 1500, "capture": 1500, "config": 400}
NAMES = list(fuzztargets.targets(Path()))


@pytest.mark.parametrize("name", NAMES)
def test_mutations(name: str, tmp_path: Path) -> None:
    target = fuzztargets.targets(tmp_path)[name]
    understood = sum(target(data) for data in mutations(name, COUNTS.get(name, 3000), random.Random(name)))
    assert understood > 0  # some of it got through: the target does something


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("reassembly", "explain")])
def test_seeds_are_understood(name: str, tmp_path: Path) -> None:
    target = fuzztargets.targets(tmp_path)[name]
    assert any(target(data) for data in seeds(name))


@pytest.mark.parametrize("name", ["dhcp4", "dhcp6", "dhcp4o6", "options", "ipip", "aftr"])
def test_cut_at_every_octet(name: str, tmp_path: Path) -> None:
    target = fuzztargets.targets(tmp_path)[name]
    for data in seeds(name):
        for length in range(len(data)):
            target(data[:length])
