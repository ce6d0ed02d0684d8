"""The tests of this folder need network namespaces, as those of ``tests/netns`` do; they use its helpers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "netns"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.netns)


@pytest.fixture(scope="session")
def encapsulation() -> str:
    """What the softwire is made of in this run."""
    return os.environ.get("B4CLIENT_TEST_ENCAPSULATION", "userspace")
