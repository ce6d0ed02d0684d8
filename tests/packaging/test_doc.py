"""Documentation that the code can contradict: manual pages and references are current, complete and well-formed."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tools

from b4client import cli, config

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted((PROJECT / "packaging/man").iterdir())


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=PROJECT)


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every option of every command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from options(sub)
        elif not isinstance(action, argparse._HelpAction):
            yield from action.option_strings


def configuration_keys() -> set[str]:
    names = {setting.rpartition(".")[2] for setting in tools.settings()}
    return names | set(config.RULE_KEYS) | {"interface", "protocol", "port", "to", "to_port", "on_change"}


@pytest.mark.parametrize("script", ["generate.py", "ledger.py"])
def test_generated_files_are_current(script: str) -> None:
    done = run(sys.executable, f"packaging/doc/{script}", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


# The tags are put together here: a tag that stands in a test is a citation.
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"S-{99} | SHALL | RFC 1 | x", "TAG | MUST/SHOULD"),
        (f"S-{6} | MUST | RFC 1 | x", "is there already"),
        (f"S-{99} | MUST | RFC 1 | x | @wire/test_wire_dhcp4::test_of_nothing", "there is no test"),
    ],
)
def test_ledger_believes_no_false_line(tmp_path: Path, line: str, words: str) -> None:
    source = (PROJECT / "packaging/doc/requirements.txt").read_text()
    changed = tmp_path / "requirements.txt"
    changed.write_text(source + line + "\n")
    program = f"import pathlib, ledger; ledger.LIST = pathlib.Path({str(changed)!r}); ledger.ledger()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=PROJECT / "packaging/doc"
    )
    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_manual_page_is_well_formed(page: Path) -> None:
    lint = run(tools.need("mandoc"), "-Tlint", "-Wwarning", str(page))
    assert lint.stdout + lint.stderr == ""
    # And as man-db renders it, with groff's own warnings.
    groff = run(tools.need("groff"), "-mandoc", "-Tutf8", "-ww", "-z", str(page))
    assert groff.stderr == ""


def rendered(name: str) -> str:
    done = run(tools.need("mandoc"), "-Tascii", "-Owidth=300", str(PROJECT / "packaging/man" / name))
    return re.sub(r".\x08", "", done.stdout)


def test_every_option_is_in_the_manual_page_and_no_other() -> None:
    """Read back from the rendered page, not from what wrote it."""
    shown = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", rendered("b4client.1")))
    assert shown == set(options(cli.build_parser()))


def test_every_setting_is_in_the_manual_page_and_no_other() -> None:
    shown = set(re.findall(r"(?m)^ {5}([a-z0-9_]+)\b(?: {2,}\(|$)", rendered("b4client.toml.5")))
    assert shown == configuration_keys()


def test_every_setting_is_in_the_reference_and_no_other() -> None:
    text = (PROJECT / "packaging/doc/configuration.md").read_text()
    assert set(re.findall(r"(?m)^\| `([a-z0-9_]+)` ", text)) == configuration_keys()


def test_the_example_names_every_setting() -> None:
    text = (PROJECT / "packaging/b4client.toml.example").read_text()
    assert set(re.findall(r"(?m)^#{0,2} ?([a-z0-9_]+) = ", text)) == configuration_keys()


WRITTEN = sorted([*PROJECT.glob("packaging/**/*.md"), *PROJECT.glob("packaging/man/*.8"), PROJECT / "README.md"])


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: str(file.relative_to(PROJECT)))
def test_written_documents_name_only_what_exists(file: Path) -> None:
    """Commands, options and files of ours that are named in prose."""
    text = file.read_text().replace("\\-", "-")
    commands = cli.build_parser()._subparsers
    assert commands is not None
    verbs = next(iter(commands._group_actions)).choices
    assert isinstance(verbs, dict)
    # Code: fenced blocks, spans, and literal lines of mdoc.
    code = re.findall(r"(?ms)^```\w*\n(.*?)^```", text)
    code += re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text)) + re.findall(r"(?m)^\.Dl (.*)", text)
    for verb in re.findall(r"(?m)^ *(?:netifd-run )?b4client ([a-z][a-z-]*)", "\n".join(code)):
        assert verb in verbs, verb
    known = set(options(cli.build_parser()))
    for line in re.findall(r"(?m)b4client (?:run|status|monitor|stop|renew|calc|decode)\b[^`\n]*", text):
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", line):
            assert option in known, f"{option} in: {line}"
    for path in re.findall(r"(?<![\w/.])((?:packaging|netns-scripts|tests|b4client)/[\w@./-]*\w)", text):
        assert (PROJECT / path).exists(), path
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (file.parent / target).exists(), target
