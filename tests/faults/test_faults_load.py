"""A short run of ``load.py``; the long one is the script."""

from __future__ import annotations

import os
from pathlib import Path

import load
import pytest
from faultbed import fault_bed


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("renewals", "changes", "seconds"), [(100, 3, 2.0), pytest.param(2000, 100, 60.0, marks=pytest.mark.slow)]
)
def test_renewals_and_changes_under_load(
    tmp_path: Path, encapsulation: str, renewals: int, changes: int, seconds: float
) -> None:
    with fault_bed(f"fl{os.getpid()}", tmp_path, encapsulation) as bed:
        found = load.run(bed, renewals=renewals, changes=changes, seconds=seconds, idle_s=5.0, say=print)
    print(found)
