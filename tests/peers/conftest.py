"""Peers work in network namespaces; they use the helpers of ``tests/netns``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "netns"), str(HERE.parent / "faults"), str(HERE.parent / "decode")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.netns)
