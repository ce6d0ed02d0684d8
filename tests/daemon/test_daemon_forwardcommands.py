"""``forward-add`` and ``forward-del``: what the kernel refuses is put back before the answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from b4client.daemon.forwardcommands import forward_commands
from b4client.daemon.forwards import Forwards
from b4client.model.errors import ControlError
from b4client.model.forwards import in_force
from b4client.model.portset import PortSet
from b4client.model.softwire import Mode, PortForward, SoftwireConfig

PORTS = PortSet(0, 8, 0x34)
CONFIG = SoftwireConfig(
    Mode.LW4O6, "wan", IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2"), IPv4Address("192.0.2.1"), PORTS
)
FORWARD = {"protocol": "tcp", "port": 0x3402, "to": "192.168.1.10"}


@dataclass
class Kernel:
    """The part of a daemon that the commands see; its kernel takes a while, and refuses forwards to ``refused``."""

    directory: Path
    refused: str = ""
    problem: str | None = None
    wanted: list[tuple[PortForward, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kinds: list[str] = []
        self.forwards = Forwards((), self.directory / "f.json", lambda report: self.kinds.append(report.kind))
        self.agent = SimpleNamespace(snapshot=self.snapshot)
        self.forwards.follow(CONFIG)

    def snapshot(self, _: float) -> Any:
        return SimpleNamespace(softwire=SimpleNamespace(installed=self.problem is None, problem=self.problem))

    def settings_event(self) -> tuple[PortForward, ...]:
        return self.forwards.wanted

    def post(self, wanted: tuple[PortForward, ...]) -> None:
        self.wanted.append(wanted)

    async def kernel_settled(self) -> None:
        await asyncio.sleep(0)
        forwards = in_force(self.wanted[-1], CONFIG.mode, PORTS)
        self.problem = "no memory" if any(str(f.to) == self.refused for f in forwards) else None
        if self.problem is None:
            self.forwards.follow(replace(CONFIG, forwards=forwards))


def ask(kernel: Kernel, *requests: tuple[str, dict[str, Any]]) -> list[Any]:
    """The answers of requests that all come at once."""

    async def run() -> list[Any]:
        handlers = forward_commands(kernel)  # type: ignore[arg-type]
        return await asyncio.gather(*(handlers[name](a) for name, a in requests), return_exceptions=True)

    return asyncio.run(run())


def test_added_listed_deleted(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    (added,) = ask(kernel, ("forward-add", FORWARD))
    assert added["text"] == "tcp 192.0.2.1:13314 leads to 192.168.1.10:13314"
    (listed,) = ask(kernel, ("forward-list", {}))
    assert listed["arguments"]["forwards"] == [added["arguments"]["forward"]]
    (deleted,) = ask(kernel, ("forward-del", FORWARD))
    assert deleted["text"] == "tcp 13314 is no longer forwarded to 192.168.1.10:13314"
    assert kernel.forwards.added == ()
    assert kernel.kinds == ["forward-active", "forward-added", "forward-deleted"]


def test_what_the_kernel_refuses_is_put_back(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, refused="192.168.1.99")
    ask(kernel, ("forward-add", FORWARD))
    kept = (tmp_path / "f.json").read_text()
    (refusal,) = ask(kernel, ("forward-add", {**FORWARD, "port": 0x3403, "to": "192.168.1.99"}))
    assert isinstance(refusal, ControlError)
    assert str(refusal) == "the kernel refused, everything is as before: no memory"
    assert [f.port for f in kernel.forwards.added] == [0x3402]
    assert (tmp_path / "f.json").read_text() == kept
    assert kernel.wanted[-1] == kernel.forwards.wanted
    assert kernel.problem is None
    assert kernel.kinds[-1] == "forward-added"


def test_requests_at_once_come_one_after_the_other(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    answers = ask(kernel, *(("forward-add", {**FORWARD, "to": f"192.168.1.{i}"}) for i in range(1, 4)))
    assert [isinstance(a, ControlError) for a in answers] == [False, True, True]
    assert len(kernel.forwards.added) == 1


def test_without_a_softwire_it_waits(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path)
    kernel.forwards.follow(None)
    kernel.forwards.added = ()
    (added,) = ask(kernel, ("forward-add", {**FORWARD, "port": 80, "on_change": "move"}))
    # The stub's kernel has a softwire by then: the port that it has is told.
    assert added["arguments"]["forward"]["external_port"] == 0x3450
    assert "since port 80 is not in the port set" in added["text"]


@pytest.mark.parametrize("command", ["forward-add", "forward-del"])
@pytest.mark.parametrize("arguments", [{}, {"protocol": 1}, {"port": "x"}, {"protocol": "tcp", "port": [], "to": {}}])
def test_nonsense(tmp_path: Path, command: str, arguments: dict[str, Any]) -> None:
    kernel = Kernel(tmp_path)
    (refusal,) = ask(kernel, (command, arguments))
    assert isinstance(refusal, ControlError)
    assert kernel.wanted == []
