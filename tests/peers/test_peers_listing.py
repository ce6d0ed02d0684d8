"""libnftables' own listing of our table, read back: loading it gives the same table, and it says what was sent."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from softwirebed import FIRST, TABLE, dataplane, softwire_bed

from b4client.dataplane.nft import essence
from b4client.dataplane.plan import plan
from b4client.lab.netns import Namespace
from b4client.model.portset import PortSet
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation, SoftwireConfig

SETS = {"one range": PortSet(0, 8, 3), "15 ranges": PortSet(4, 8, 3), "63 ranges": PortSet(6, 8, 3), "whole": None}


def listing(namespace: Namespace) -> str:
    return essence(namespace.run("nft", "-s", "list", "table", "ip", TABLE).stdout)


@pytest.mark.parametrize("name", SETS)
def test_listing_read_back_is_equal(name: str, tmp_path: Path) -> None:
    from dataclasses import replace

    config: SoftwireConfig = replace(FIRST, ports=SETS[name])
    with softwire_bed(f"pl{os.getpid()}") as namespace:
        with namespace.entered():
            plane = dataplane(tmp_path, "userspace")
            plane.install(config)
        try:
            first = listing(namespace)
            assert first.startswith(f"table ip {TABLE} {{")
            namespace.run("nft", "-f", "-", text=f"delete table ip {TABLE}\n{first}")
            assert listing(namespace) == first
            assert ("0 : goto range_0" in first) == (SETS[name] is not None)
            target = plan(config, SoftwireSettings(), encapsulation=Encapsulation.USERSPACE, path_mtu=1500)
            sent = set(re.findall(r"^\s*chain (\w+)", target.ruleset, re.MULTILINE))
            assert sent
            assert sent >= set(re.findall(r"^\tchain (\w+)", first, re.MULTILINE))
        finally:
            with namespace.entered():
                plane.withdraw()
                plane.close()
