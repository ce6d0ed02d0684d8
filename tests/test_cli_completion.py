"""Completion scripts: those in packaging/ are what the parser says, and bash completes with them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from b4client import completion
from b4client.cli import build_parser

PACKAGED = Path(__file__).parent.parent / "packaging" / "completion"


@pytest.mark.parametrize(("shell", "name"), [("bash", "b4client.bash"), ("zsh", "_b4client")])
def test_the_packaged_scripts_are_the_parsers(shell: str, name: str) -> None:
    assert (PACKAGED / name).read_text() == completion.render(shell, build_parser()), (
        f"run: b4client completion {shell} > packaging/completion/{name}"
    )


def complete(*words: str) -> set[str]:
    """What bash offers for the last of ``words``."""
    script = (
        f'source "{PACKAGED / "b4client.bash"}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _b4client; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_and_values(tmp_path: Path) -> None:
    assert complete("b4client", "rel") == {"release", "reload"}
    assert {"status", "doctor", "metrics", "completion"} <= complete("b4client", "")
    assert complete("b4client", "log-level", "") >= {"debug", "info", "warning", "error", "--json"}
    assert complete("b4client", "stop", "--policy", "") == {"keep", "withdraw", "release"}
    assert complete("b4client", "run", "--enc") == {"--encapsulation"}
    assert complete("b4client", "run", "--encapsulation", "k") == {"kernel"}
    assert "lo" in complete("b4client", "status", "--instance", "")
    (tmp_path / "file.toml").touch()
    assert complete("b4client", "run", "--config", f"{tmp_path}/f") == {f"{tmp_path}/file.toml"}
