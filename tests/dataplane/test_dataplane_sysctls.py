"""Settings of the whole machine: what they were is kept and put back exactly where they were changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from b4client.dataplane import sharing, sysctl
from b4client.dataplane.memory import Memory, MemoryFile
from b4client.dataplane.undo import Undo
from b4client.model.errors import DataplaneError

FORWARD, IGNORE = "net/ipv4/ip_forward", "net/ipv4/conf/all/arp_ignore"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for path in (FORWARD, IGNORE):
        (tmp_path / "sys" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / path).write_text("0\n")
    monkeypatch.setattr(sysctl, "ROOT", tmp_path / "sys")
    return tmp_path / "sys"


def test_what_could_not_be_changed_is_not_put_back(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only /proc/sys: the installation fails, and a later withdrawal must not fail for the same reason."""
    file, memory = MemoryFile(tmp_path, "b4"), Memory()
    monkeypatch.setattr(sysctl, "ROOT", kernel)
    real = sysctl.write

    def write(path: str, value: str) -> None:
        if path == IGNORE:
            raise DataplaneError(f"set {path}", "Read-only file system")
        real(path, value)

    monkeypatch.setattr(sysctl, "write", write)
    with pytest.raises(DataplaneError, match="Read-only"):
        sysctl.ensure([(FORWARD, "1"), (IGNORE, "1")], Undo(), memory, file.save)
    assert memory.sysctls == {FORWARD: "0"}
    assert MemoryFile(tmp_path, "b4").load().sysctls == {FORWARD: "0"}


def test_the_last_softwire_puts_back(tmp_path: Path) -> None:
    """The first found what the operator had; the second found it as it needs it."""
    for device, sysctls in (("b4", {FORWARD: "0"}), ("b4b", {}), ("b4c", {IGNORE: "0"})):
        MemoryFile(tmp_path, device).save(Memory(device=device, sysctls=sysctls))
    assert sharing.give_up(tmp_path, "b4", {FORWARD: "0"}) == {}
    MemoryFile(tmp_path, "b4").forget()
    # The first comes again, finds everything as it needs it, and leaves again.
    assert sharing.give_up(tmp_path, "b4", {}) == {}
    assert sharing.give_up(tmp_path, "b4c", {IGNORE: "0"}) == {}
    MemoryFile(tmp_path, "b4c").forget()
    assert sharing.give_up(tmp_path, "b4b", {}) == {FORWARD: "0", IGNORE: "0"}
    assert not (tmp_path / sharing.LEFT).exists()
    MemoryFile(tmp_path, "b4b").forget()
    assert sharing.give_up(tmp_path, "b4", {FORWARD: "1"}) == {FORWARD: "1"}


def test_a_softwire_alone(tmp_path: Path) -> None:
    assert sharing.give_up(None, "b4", {FORWARD: "0"}) == {FORWARD: "0"}
    (tmp_path / sharing.LEFT).write_text("not JSON")
    assert sharing.give_up(tmp_path, "b4", {FORWARD: "0"}) == {FORWARD: "0"}
