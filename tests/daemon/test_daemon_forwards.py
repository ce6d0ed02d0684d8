"""The forwards of a daemon: what is refused, what is said when the set changes, what is kept."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from b4client.daemon.forwards import Forwards
from b4client.model.errors import ControlError
from b4client.model.forwards import in_force
from b4client.model.portset import PortSet
from b4client.model.softwire import Mode, PortForward, SoftwireConfig
from b4client.protocol.effects import Report

SET, OTHER = PortSet(0, 8, 0x34), PortSet(0, 8, 0x35)
CONFIGURED = PortForward("tcp", 0x3401, IPv4Address("192.168.1.9"), 80)
CONFIG = SoftwireConfig(
    Mode.LW4O6, "wan", IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2"), IPv4Address("192.0.2.1"), SET
)


class Story:
    """Forwards, and what they report."""

    def __init__(self, directory: Path, configured: tuple[PortForward, ...] = (CONFIGURED,)) -> None:
        self.said: list[Report] = []
        self.forwards = Forwards(configured, directory / "wan.forwards.json", self.said.append)

    def softwire(self, ports: PortSet | None = SET, **other: Any) -> list[str]:
        """The data plane has this now; the kinds of what is said about it."""
        config = replace(CONFIG, ports=ports, **other)
        forwards = in_force(self.forwards.wanted, config.mode, ports)
        self.said.clear()
        self.forwards.follow(replace(config, forwards=forwards))
        return [report.kind for report in self.said]

    def add(self, protocol: str, port: int, **more: Any) -> PortForward:
        arguments = {"protocol": protocol, "port": port, "to": "192.168.1.10", **more}
        forward = self.forwards.read_addition(arguments)
        self.forwards.keep((*self.forwards.added, forward))
        return forward


def test_refused(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.softwire()
    story.add("udp", 0x3402)
    story.add("tcp", 80, on_change="move")
    story.softwire()
    for protocol, port, reason in (
        ("tcp", 0x3401, r"forwarded to 192.168.1.9:80 already \(by the configuration\)"),
        ("udp", 0x3402, r"already \(by b4client forward\)"),
        ("tcp", 0x3450, "tcp 80 has moved there"),
        ("udp", 99, "port 99 is not in the port set .* Possible ports: 13312-13567"),
    ):
        with pytest.raises(ControlError, match=reason):
            story.add(protocol, port)
    for wrong in ({"port": 0}, {"port": True}, {"port": "80"}, {"to": 1}, {"to": "::1"}, {"x": 1}, {"to_port": 65536}):
        with pytest.raises(ControlError):
            story.forwards.read_addition({"protocol": "udp", "port": 0x3410, "to": "192.168.1.10", **wrong})
    assert len(story.forwards.added) == 2
    story.softwire(None, mode=Mode.DS_LITE)
    with pytest.raises(ControlError, match="the AFTR's"):
        story.add("udp", 0x3420)


def test_found_by_either_port(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.softwire()
    moved = story.add("tcp", 80, on_change="move")
    story.softwire()
    assert story.forwards.find({"protocol": "tcp", "port": 80}) is moved
    assert story.forwards.find({"protocol": "tcp", "port": 0x3450}) is moved
    with pytest.raises(ControlError, match="by the configuration"):
        story.forwards.find({"protocol": "tcp", "port": 0x3401})
    with pytest.raises(ControlError, match=r"is not forwarded; .* tcp 80"):
        story.forwards.find({"protocol": ["x" * 5000], "port": {}})


def test_what_is_said_when_the_set_changes(tmp_path: Path) -> None:
    story = Story(tmp_path)
    assert story.softwire() == ["forward-active"]
    story.add("udp", 0x3402, on_change="move")
    assert story.softwire() == ["forward-active"]
    assert story.softwire() == []  # a renewal
    assert story.softwire(OTHER) == ["forward-inactive", "forward-moved"]
    assert [r.level for r in story.said] == ["warning", "warning"]
    assert dict(story.said[1].fields)["external_port"] == 0x3502
    assert "Possible ports: 13568-13823" in story.said[0].text
    assert story.forwards.summary()["inactive"] == 1
    assert story.forwards.summary()["moved"] == 1
    # Nothing new is said while there is no softwire; all are inactive all the same.
    story.said.clear()
    story.forwards.follow(None)
    assert story.said == []
    assert {e["reason"] for e in story.forwards.entries()} == {"there is no softwire"}
    assert story.softwire(OTHER) == []
    assert story.softwire() == ["forward-active", "forward-active"]


def test_the_configuration_takes_a_port_that_the_command_had(tmp_path: Path) -> None:
    story = Story(tmp_path, ())
    story.softwire()
    story.add("tcp", 0x3401)
    story.softwire()
    story.forwards.configured = (CONFIGURED,)
    assert "forward-inactive" in story.softwire()
    _, added = story.forwards.entries()
    assert added["reason"] == "tcp 13313 is forwarded to 192.168.1.9:80 already"


def test_very_many_that_change_are_told_in_one(tmp_path: Path) -> None:
    story = Story(tmp_path, tuple(replace(CONFIGURED, port=0x3400 + i) for i in range(40)))
    story.softwire()
    assert story.softwire(OTHER) == ["forward-inactive"] * 32 + ["forwards-changed"]
    assert story.said[-1].text.startswith("8 more forwards have changed")


def test_kept_and_taken_up_again(tmp_path: Path) -> None:
    story = Story(tmp_path)
    added = [story.add("udp", 1000 + i, to_port=i + 1) for i in range(3)]  # before there is a softwire
    again = Story(tmp_path)
    assert again.forwards.added == tuple(added)
    again.forwards.keep(())
    assert list(tmp_path.iterdir()) == []
    assert Story(tmp_path).forwards.added == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 2, "forwards": []}',
        '{"format": 1, "forwards": {}}',
        '{"format": 1, "forwards": [{"protocol": "tcp", "port": 1, "to": "x"}]}',
        '{"format": 1, "forwards": [' + ", ".join(['{"protocol": "tcp", "port": 1, "to": "192.168.1.1"}'] * 2) + "]}",
        "[" * 100000,
        " " * 300000,
    ],
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, text: str) -> None:
    file = tmp_path / "wan.forwards.json"
    file.write_text(text)
    story = Story(tmp_path)
    assert story.forwards.added == ()
    assert "set aside as wan.forwards.json.damaged" in str(story.forwards.problem)
    assert (tmp_path / "wan.forwards.json.damaged").read_text() == text
    story.add("udp", 5)
    assert story.forwards.problem is None
    assert file.exists()
