"""Fixtures of the laboratory's tests."""

from __future__ import annotations

import pytest
from aftrcase import Case


@pytest.fixture
def case() -> Case:
    """An lwAFTR's core with its customers, and what it was given."""
    return Case()
