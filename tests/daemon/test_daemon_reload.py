"""What a reload takes up at once, and what it says needs a restart."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from b4client import config
from b4client.config import SECTION_OF, Config, key_of, load, parse
from b4client.daemon.reload import compare
from b4client.model.errors import ConfigError

BASE: dict[str, Any] = {"wan": {"interface": "wan"}}
FORWARD = {"protocol": "tcp", "port": 5000, "to": "192.168.1.10"}


def with_(section: str, **values: object) -> Config:
    return parse({**BASE, section: {**BASE.get(section, {}), **values}})


@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        ("softwire", {"mtu": 1400}, "softwire.mtu"),
        ("softwire", {"lan": ["192.168.1.0/24"]}, "softwire.lan"),
        ("softwire", {"default_route": False}, "softwire.default_route"),
        ("softwire", {"br": "2001:db8::1"}, "softwire.br"),
        ("nat", {"timeouts": {"udp": 200}}, "nat.timeouts"),
        ("dhcp", {"offer_window": 2.0}, "dhcp.offer_window"),
        ("dhcp", {"servers": []}, "dhcp.servers"),
        ("daemon", {"log_level": "debug"}, "daemon.log_level"),
        ("daemon", {"stop": "keep"}, "daemon.stop"),
        ("metrics", {"port": 9546}, "metrics.port"),
        ("hooks", {"timeout": 3}, "hooks.timeout"),
    ],
)
def test_taken_up_at_once(section: str, values: dict[str, object], key: str) -> None:
    new = with_(section, **values)
    changes = compare(parse(BASE), new)
    assert (changes.config, changes.changed, changes.restart) == (new, (key,), ())
    assert key in changes.text


@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        ("wan", {"interface": "wan2"}, "wan.interface"),
        ("softwire", {"device": "b5"}, "softwire.device"),
        ("softwire", {"encapsulation": "userspace"}, "softwire.encapsulation"),
        ("dhcp", {"iaid": 3}, "dhcp.iaid"),
        ("dhcp", {"hostname": "cpe"}, "dhcp.hostname"),
        ("daemon", {"state_dir": "/srv/x"}, "daemon.state_dir"),
        ("daemon", {"interface_wait": 9.0}, "daemon.interface_wait"),
        ("metrics", {"textfile": "/srv/x.prom"}, "metrics.textfile"),
        ("hooks", {"script": "/srv/x"}, "hooks.script"),
        ("hooks", {"dns": "auto"}, "hooks.dns"),
    ],
)
def test_needs_a_restart(section: str, values: dict[str, object], key: str) -> None:
    changes = compare(parse(BASE), with_(section, **values))
    assert (changes.config, changes.changed, changes.restart) == (parse(BASE), (), (key,))
    assert f"needs a restart: {key}" in changes.text


def test_both_at_once_and_nothing() -> None:
    new = parse({**BASE, "forward": [FORWARD], "softwire": {"device": "b5", "mtu": 1300}})
    changes = compare(parse(BASE), new)
    assert (set(changes.changed), changes.restart) == ({"softwire.mtu", "forward"}, ("softwire.device",))
    assert (changes.config.softwire.device, changes.config.softwire.mtu) == ("b4", 1300)
    assert compare(new, new).text == "nothing has changed"


def test_every_setting_has_a_name_in_the_file() -> None:
    """A setting that is added must be named as the file names it, whichever way it is reloaded."""
    known = {
        *(f"dhcp.{n}" for n in config._DHCP),
        *(f"softwire.{n}" for n in (*config._SOFTWIRE, *config._SOFTWIRE_PROTOCOL)),
        *(f"daemon.{n}" for n in config._DAEMON),
        *(f"dhcp6.{n}" for n in (*config._DHCP6, *config._DHCP6_DAEMON)),
        *(f"metrics.{n}" for n in config._METRICS),
        *(f"hooks.{n}" for n in config._HOOKS),
        *(f"provisioning.{n}" for n in config._PROVISIONING),
        "forward",
        "nat.timeouts",
        "static",
    }
    named = {key_of(part, f.name) for part in SECTION_OF for f in fields(getattr(parse(BASE), part))}
    assert named <= known


def test_an_instances_own_file_comes_before_the_common_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_CONFIG", tmp_path / "b4client.toml")
    monkeypatch.setattr(config, "INSTANCE_CONFIGS", tmp_path)
    overrides = {"wan": {"interface": "wan2"}}
    assert load(None, overrides).softwire.device == "b4"
    (tmp_path / "b4client.toml").write_text('softwire.device = "common"\n')
    (tmp_path / "wan2.toml").write_text('softwire.device = "own"\n')
    assert load(None, overrides).softwire.device == "own"
    assert load(None, {"wan": {"interface": "wan"}}).softwire.device == "common"
    with pytest.raises(ConfigError, match="no interface name"):
        load(None, {"wan": {"interface": "../../x"}})
