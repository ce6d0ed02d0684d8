#!/usr/bin/env python3
"""Writes rfc-ledger.md: every requirement of requirements.txt, where the code cites it and where tests do.

    packaging/doc/ledger.py              writes it
    packaging/doc/ledger.py --check      exit status 1 when the committed one is not what would be written

A citation is the tag as a word, such as [S-6], in a test or in the code. It says where to look; that a test is a good
one is for its reader to judge.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
LIST = HERE / "requirements.txt"
LEDGER = HERE / "rfc-ledger.md"
LEVELS = ("MUST", "SHOULD", "MAY", "plain", "own")
TAG = re.compile(r"(?<![A-Za-z0-9-])(SV|[DEFLMNPQSTWX])-([1-9][0-9]?)(?![0-9A-Za-z-])")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of the list."""

    chapter: str
    tag: str
    level: str
    where: str
    text: str
    note: str
    named: tuple[str, ...]


def split_note(note: str) -> tuple[str, tuple[str, ...]]:
    """The note's words, and the files of the tests that it names. Raises SystemExit for a test that is not there."""
    named = []
    for file, test in re.findall(r"@(\S+)::(\w+)", note):
        path = PROJECT / "tests" / f"{file}.py"
        if not path.exists() or not re.search(rf"def {test}\b", path.read_text(encoding="utf-8")):
            raise SystemExit(f"{LIST.name}: there is no test {file}::{test}")
        named.append(f"{file}.py")
    return re.sub(r"@\S+", "", note).strip(), tuple(dict.fromkeys(named))


def requirements() -> list[Requirement]:
    """The list. Raises SystemExit naming a line that is none of it."""
    found: list[Requirement] = []
    chapter = ""
    for number, line in enumerate(LIST.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("## "):
            chapter = line[3:]
        elif line and not line.startswith("#"):
            fields = [part.strip() for part in line.split("|")]
            if len(fields) not in (4, 5) or not TAG.fullmatch(fields[0]) or fields[1] not in LEVELS:
                raise SystemExit(f"{LIST.name}:{number}: TAG | {'/'.join(LEVELS)} | where | what [| note]")
            if any(fields[0] == earlier.tag for earlier in found):
                raise SystemExit(f"{LIST.name}:{number}: {fields[0]} is there already")
            note, named = split_note(fields[4] if len(fields) == 5 else "")
            tag, level, where, what = fields[:4]
            found.append(Requirement(chapter, tag, level, where, what, note, named))
    return found


def citations(folder: str, pattern: str) -> dict[str, list[str]]:
    """Tag -> files below ``folder`` that cite it, without the folder's name."""
    found: dict[str, list[str]] = {}
    for file in sorted((PROJECT / folder).rglob(pattern)):
        name = str(file.relative_to(PROJECT / folder))
        text = file.read_text(encoding="utf-8")
        named = {f"SV-{number}" for number in re.findall(r"(?m)^ *def test_\w*?_sv([1-9][0-9]?)(?=[_(])", text)}
        for tag in named | {match[0] for match in TAG.finditer(text)}:
            found.setdefault(tag, []).append(name)
    return found


def files(names: list[str]) -> str:
    """File names for a cell."""
    return ", ".join(f"`{name.removesuffix('.py')}`" for name in names)


def ledger() -> str:
    """The whole document. Raises SystemExit for a tag that is cited and not listed."""
    listed = requirements()
    code, tests = citations("b4client", "*.py"), citations("tests", "*.py")
    known = {requirement.tag for requirement in listed}
    for requirement in listed:
        if requirement.named:
            tests[requirement.tag] = sorted({*tests.get(requirement.tag, ()), *requirement.named})
    for kind, cited in (("b4client", code), ("tests", tests)):
        for tag, names in cited.items():
            if tag not in known:
                raise SystemExit(f"{tag} is cited in {kind}/{names[0]} and not in {LIST.name}")
    lines = [
        "# RFC ledger",
        "",
        "<!-- Written by packaging/doc/ledger.py from requirements.txt and the citations; changes here are lost. -->",
        "",
        "Where each requirement is looked after. *Code* and *tests* are files (below `b4client/` and `tests/`) that",
        "cite the requirement by its tag; `grep -rn S-6 b4client tests` finds the lines. **open** in the last column:",
        "no test cites it, and nothing says why none needs to. MUST, SHOULD and MAY are the RFC's words; *plain* is",
        "text without one; *own* is a decision of this project where the RFCs are silent or disagree.",
        "",
        *summary(listed, tests),
    ]
    chapter = ""
    for requirement in listed:
        if requirement.chapter != chapter:
            chapter = requirement.chapter
            lines += ["", f"## {chapter}", "", "| | level | where | what | code | tests |", "|---|---|---|---|---|---|"]
        tested = files(tests.get(requirement.tag, [])) or requirement.note or "**open**"
        if requirement.note and requirement.tag in tests:
            tested += f"; {requirement.note}"
        lines.append(
            f"| {requirement.tag} | {requirement.level} | {requirement.where} | {requirement.text} "
            f"| {files(code.get(requirement.tag, []))} | {tested} |"
        )
    return "\n".join(lines) + "\n"


def summary(listed: list[Requirement], tests: dict[str, list[str]]) -> Iterator[str]:
    """A table of numbers by level."""
    yield "| level | requirements | cited by tests | answered by a note | open |"
    yield "|---|---|---|---|---|"
    for level in LEVELS:
        members = [requirement for requirement in listed if requirement.level == level]
        cited = sum(requirement.tag in tests for requirement in members)
        noted = sum(requirement.tag not in tests and bool(requirement.note) for requirement in members)
        yield f"| {level} | {len(members)} | {cited} | {noted} | {len(members) - cited - noted} |"


def main() -> int:
    """Write the ledger, or check it. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only compare")
    text = ledger()
    if LEDGER.exists() and LEDGER.read_text(encoding="utf-8") == text:
        return 0
    if parser.parse_args().check:
        print(f"{LEDGER.relative_to(PROJECT)} is not current: run packaging/doc/ledger.py")
        return 1
    LEDGER.write_text(text, encoding="utf-8")
    print(LEDGER.relative_to(PROJECT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
