"""What the User Mode Linux runner tells its guest; tests/run shows that it runs one."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from b4client.lab import uml


def test_job_keeps_odd_words_apart(tmp_path: Path) -> None:
    words = ["printf", "%s\n", "two words", "it's", "$HOME", "", "*"]
    uml.write_job(tmp_path, words, [tmp_path], {"ODD": "a'b c\n$d", "PATH": "/usr/bin:/bin"})
    done = subprocess.run(["/bin/sh", str(tmp_path / "command")], capture_output=True, text=True, env={})
    assert done.stdout.splitlines() == words[2:]
    uml.write_job(tmp_path, ["sh", "-c", 'printf %s "$ODD"'], [], {"ODD": "a'b c\n$d", "PATH": "/usr/bin:/bin"})
    done = subprocess.run(["/bin/sh", str(tmp_path / "command")], capture_output=True, text=True, env={})
    assert done.stdout == "a'b c\n$d"
    assert shlex.split((tmp_path / "settings").read_text()) == ["WRITABLE="]


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B4CLIENT_TEST_ENCAPSULATION", "kernel")
    monkeypatch.setenv("AWS_SECRET", "s")
    monkeypatch.setenv("WISHED", "w")
    environment = uml.passed_on(["WISHED", "GIVEN=1=2", "ABSENT"])
    assert environment["B4CLIENT_TEST_ENCAPSULATION"] == "kernel"
    assert environment["WISHED"] == "w"
    assert environment["GIVEN"] == "1=2"
    assert not {"AWS_SECRET", "ABSENT"} & set(environment)


def test_a_guest_that_dies_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    init = tmp_path / "init"
    init.write_text("")
    assert uml.run(Path("/bin/false"), init, ["true"]) == uml.EXIT_DIED
    assert "the guest died" in capfd.readouterr().err


def test_a_guest_that_hangs_is_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kernel, init = tmp_path / "kernel", tmp_path / "init"
    init.write_text("")
    kernel.write_text("#!/bin/sh\necho begun\nexec sleep 100\n")
    kernel.chmod(0o755)
    assert uml.run(kernel, init, ["true"], timeout_s=0.5) == uml.EXIT_TIMEOUT
    captured = capfd.readouterr()
    assert captured.out == "begun\n"
    assert "not done after 0.5 s" in captured.err


@pytest.mark.parametrize("arguments", [[], ["--"], ["no-such-command-anywhere"]])
def test_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        uml.main(["--kernel", "/bin/false", "--init", "/bin/false", *arguments])
    assert caught.value.code == 2
