"""ARCHITECTURE.md: what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
TEXT = (TESTS.parent / "b4client" / "ARCHITECTURE.md").read_text(encoding="utf-8")
ROWS = [
    line.split("|")[1:-1]
    for line in TEXT.splitlines()
    if re.match(r"\| (X-\d+)? ?\| ", line) and "question" not in line
]


def test_every_contradiction_is_decided() -> None:
    """X-1 to X-13, each with a decision, a reason and a test."""
    named = [row[0].strip() for row in ROWS if row[0].strip()]
    assert named == [f"X-{n}" for n in range(1, 14)]
    for row in ROWS:
        assert len(row) == 5
        assert all(cell.strip() for cell in row[1:])


def test_the_tests_that_it_names_exist() -> None:
    defined = set()
    for file in TESTS.rglob("test_*.py"):
        defined |= set(re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    for row in ROWS:
        named = re.findall(r"`(test_\w+)`", row[4])
        assert named
        assert set(named) <= defined


def test_the_modules_that_it_names_exist() -> None:
    package = TESTS.parent / "b4client"
    for layer, module in re.findall(r"`(model|wire|protocol|dataplane|daemon|lab)/(\w+)(?:\.py)?`", TEXT):
        assert (package / layer / f"{module}.py").exists(), f"{layer}/{module}"
