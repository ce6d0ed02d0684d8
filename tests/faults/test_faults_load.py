"""A short run of ``load.py``; the long one is the script."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import load
import pytest
from faultbed import fault_bed

SHORT = {"renewals": 50, "changes": 3, "seconds": 1.0, "idle_s": 1.0, "warm_up": 4}
LONG = {"renewals": 500, "changes": 40, "seconds": 20.0, "idle_s": 5.0}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("extent", [pytest.param(SHORT, id="short"), pytest.param(LONG, id="long")])
def test_renewals_and_changes_under_load(tmp_path: Path, encapsulation: str, extent: dict[str, Any]) -> None:
    with fault_bed(f"fl{os.getpid()}", tmp_path, encapsulation) as bed:
        # Ports of connections that were reset are waited for (``load.OPEN_WITHIN_S``): not for so long.
        bed.cpe.sysctl({"netfilter/nf_conntrack_tcp_timeout_close": 1})
        found = load.run(bed, **extent, say=print)
    print(found)
