"""The lab server's shell without a network: lease file, feed for the lwAFTR, configuration."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest
from labquery import A1, A2, ALICE, BOB, BR, HOME, LINK_LOCAL, SERVER_ID, SETTINGS, SHARED_ONLY, message, params, query

from b4client.lab import leasefile, serverconfig
from b4client.lab.binding import Binding
from b4client.lab.feed import Change, Feed
from b4client.lab.leasefile import LeaseFile, LeaseFileError
from b4client.lab.leaserecord import Lease, State
from b4client.lab.leases import LeaseDatabase
from b4client.lab.pools import FullPool, SharedPool, Slot
from b4client.lab.serve import Service
from b4client.lab.serverconfig import LabConfig
from b4client.model.errors import ConfigError, ControlError
from b4client.model.portset import PortRange, PortSet
from b4client.wire.dhcp4 import MessageType
from b4client.wire.softwire46 import Lw4o6Container, PortParams, Rule, V4V6Bind

SLOT, SLOT2 = Slot(A1, PortSet(0, 2, 1)), Slot(A1, PortSet(0, 2, 2))
LEASE = Lease(SLOT, ALICE, State.BOUND, 1000.0, "site", HOME)
LEASE2 = Lease(SLOT2, BOB, State.BOUND, math.inf, "site", HOME, BR, 5.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases"


@pytest.fixture
def open_file(path: Path) -> Iterator[LeaseFile]:
    file = LeaseFile(path)
    yield file
    file.close()


# ---- the lease file


def test_journal_and_back(open_file: LeaseFile) -> None:
    assert open_file.load() == []
    open_file.rewrite([LEASE])
    assert open_file.load() == [LEASE]
    open_file.append([LEASE2, replace(LEASE, state=State.FORMER, released_xid=7)])
    open_file.append([])
    assert open_file.load() == [LEASE2, replace(LEASE, state=State.FORMER, released_xid=7)]


def test_every_instant_of_a_kill(path: Path, open_file: LeaseFile) -> None:
    open_file.rewrite([LEASE])
    whole = path.stat().st_size
    open_file.append([LEASE2])
    text = path.read_bytes()
    for length in range(whole, len(text)):
        path.write_bytes(text[:length])
        assert open_file.load() == [LEASE]
    path.write_bytes(text)
    assert open_file.load() == [LEASE, LEASE2]


def test_rewriting_is_atomic(path: Path, open_file: LeaseFile, monkeypatch: pytest.MonkeyPatch) -> None:
    open_file.rewrite([LEASE])

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(leasefile.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        open_file.rewrite([LEASE2])
    assert open_file.load() == [LEASE]


@pytest.mark.parametrize(
    "text", [b"{}\n", b"not JSON\n", b'{"format":"b4client-lab-leases","version":2}\n', b"\n", b"[]\n"]
)
def test_a_damaged_file_is_no_empty_file(path: Path, open_file: LeaseFile, text: bytes) -> None:
    path.write_bytes(text)
    with pytest.raises(LeaseFileError, match="move it away"):
        open_file.load()


def test_damage_in_the_middle(path: Path, open_file: LeaseFile) -> None:
    open_file.rewrite([LEASE])
    path.write_bytes(path.read_bytes() + b'{"address":\n' + json.dumps(LEASE2.to_json()).encode() + b"\n")
    with pytest.raises(LeaseFileError):
        open_file.load()


def test_one_server_at_a_time(path: Path, open_file: LeaseFile) -> None:
    with pytest.raises(LeaseFileError, match="in use"):
        LeaseFile(path)
    with pytest.raises(LeaseFileError, match="rewrite"):
        open_file.append([LEASE])


# ---- the feed


def test_feed() -> None:
    feed = Feed()
    one, two = Binding(A1, SLOT.ports, HOME), Binding(A1, SLOT2.ports, BR)
    assert feed.update([LEASE, LEASE2]) == [("bind", one), ("bind", two)]
    assert feed.update([replace(LEASE, until=2000.0)]) == []  # a renewal
    moved = Binding(A1, SLOT.ports, BR)
    assert feed.update([replace(LEASE, saddr=BR)]) == [("unbind", one), ("bind", moved)]
    assert feed.update([replace(LEASE, state=State.FORMER)]) == [("unbind", moved)]
    assert feed.update([replace(LEASE, state=State.FORMER)]) == []
    assert feed.update([replace(LEASE, source=LINK_LOCAL)]) == []
    assert feed.update([replace(LEASE2, state=State.DECLINED)]) == [("unbind", two)]


# ---- all together


def config(path: Path | None) -> LabConfig:
    return LabConfig("wan", SETTINGS, SHARED_ONLY, None, path)


def discover_and_request(service: Service, now: float) -> None:
    for kind, what in (
        (MessageType.DISCOVER, {}),
        (MessageType.REQUEST, {"requested": A1, "ports": params(1), "server_id": SERVER_ID}),
    ):
        assert service.handle(query(message(kind, **what)), HOME, now, None)  # type: ignore[arg-type]


def test_a_lease_survives_a_kill(path: Path) -> None:
    told: list[Change] = []
    service = Service.open(config(path), 0.0, told.append)
    discover_and_request(service, 10.0)
    bound = ("bind", Binding(A1, SLOT.ports, HOME))
    assert told == [bound]
    # The process dies here: only the kernel's lock goes with it.
    service.close()
    after = Service.open(config(path), 100.0, told.append)
    assert told == [bound, bound]
    assert not after.server.leases.free(SLOT, BOB, 3609.0)
    assert after.handle(query(message(3, ciaddr=A1, ports=params(1)), unicast=True), HOME, 200.0, None)
    after.tick(3799.0)
    assert told == [bound, bound]
    after.tick(3800.0)
    assert told[2:] == [("unbind", bound[1])]
    assert after.describe(3800.0)["leases"] == []
    after.close()
    expired = Service.open(config(path), 9999.0, told.append)
    assert expired.server.leases.knows(ALICE)
    assert len(told) == 3
    expired.close()


def test_without_a_lease_file_nothing_survives() -> None:
    service = Service.open(config(None), 0.0)
    discover_and_request(service, 0.0)
    assert Service.open(config(None), 1.0).server.leases.free(SLOT, BOB, 1.0)


def test_the_journal_is_kept_short(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leasefile, "COMPACT_AFTER", 5)
    service = Service.open(config(path), 0.0)
    for now in range(30):
        discover_and_request(service, float(now))
        assert len(path.read_bytes().splitlines()) <= 1 + 1 + 5
    service.close()
    assert [lease.until for lease in LeaseFile(path).load()] == [3629.0]


def test_an_aftr_that_is_away_learns_later() -> None:
    told: list[Change] = []
    answers: list[Exception | None] = [ControlError("away"), OSError("away"), None, ValueError("overlaps"), None]

    def tell(change: Change) -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        told.append(change)

    service = Service.open(config(None), 0.0, tell)
    discover_and_request(service, 0.0)  # away
    service.tick(1.0)  # still away
    assert told == []
    service.tick(2.0)
    bound = Binding(A1, SLOT.ports, HOME)
    assert told == [("bind", bound)]
    service.tick(4000.0)  # refused: said, and not said again
    discover_and_request(service, 5000.0)
    assert told == [("bind", bound), ("bind", bound)]


# ---- configuration


EXAMPLE = "\n".join(
    line.removeprefix("    ") for line in (serverconfig.__doc__ or "").splitlines() if line.startswith("    ")
)


def test_the_example_in_the_documentation(path: Path) -> None:
    file = path.with_suffix(".toml")
    file.write_text(EXAMPLE)
    loaded = serverconfig.load(file)
    assert loaded.interface == "wan"
    assert loaded.pools.shared == (SharedPool(A1, IPv4Address("192.0.2.9"), 0, 6, (5, 7)),)
    assert loaded.pools.full == (FullPool(IPv4Address("198.51.100.1"), IPv4Address("198.51.100.9")),)
    assert loaded.pools.reserved == (PortRange(0, 1023),)
    assert (loaded.max_per_customer, loaded.aftr) == (4, Path("/run/lab/aftr.sock"))
    dhcp4 = loaded.server.dhcp4
    assert (dhcp4.lease_s, dhcp4.server_id, dhcp4.saddr_interval_s) == (3600, IPv4Address("192.0.0.1"), 60.0)
    assert dhcp4.options == ((6, IPv4Address("192.0.2.53").packed),)
    bind = V4V6Bind(IPv4Address(0), IPv6Network("2001:db8:1::/48"))
    assert loaded.server.lw4o6 == Lw4o6Container((BR,), bind)
    assert (loaded.server.servers_4o6, loaded.server.priority, loaded.server.refresh_s) == ((), (96,), 7200)
    assert (loaded.server.brs, loaded.server.bind_prefix) == ((BR,), IPv6Network("2001:db8:1::/48"))


def test_json_map_e_and_more(path: Path) -> None:
    document = {
        "interface": "eth0",
        "duid": "00:03:00:01:02:00",
        "shared": [{"first": "192.0.2.1", "offset": 6, "psid_len": 8}],
        "lease": {"time": 60, "t1": 20, "t2": 40, "offer_hold": 5},
        "options": {"dns": ["192.0.2.53"], "mtu": 1460, "domain": "example"},
        "policy": {"reserved": ["5000", "6000-6001"], "ignore_portparams": True, "authoritative": True},
        "dhcp6": {"servers_4o6": "off", "container": "map-e", "br": [str(BR)]},
        "rule": [{"ipv4": "192.0.2.0/24", "ipv6": "2001:db8::/40", "ea_len": 16, "fmr": True, "psid_len": 8}],
    }
    file = path.with_suffix(".json")
    file.write_text(json.dumps(document))
    loaded = serverconfig.load(file)
    assert loaded.server.servers_4o6 is None
    assert loaded.server.map_e is not None
    rule = Rule(True, 16, IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/40"), PortParams(6, 8, 0))
    assert loaded.server.map_e.rules == (rule,)
    assert loaded.pools.reserved == (PortRange(5000, 5000), PortRange(6000, 6001))
    assert loaded.pools.ignore_portparams
    dhcp4 = loaded.server.dhcp4
    assert (dhcp4.t1_s, dhcp4.t2_s, dhcp4.offer_hold_s, dhcp4.authoritative) == (20, 40, 5.0, True)
    assert dict(dhcp4.options) == {6: IPv4Address("192.0.2.53").packed, 26: b"\x05\xb4", 15: b"example"}


SHARED = {"first": "192.0.2.1"}


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({}, "interface"),
        ({"interface": 1}, "interface"),
        ({"interface": "wan", "colour": 1}, "colour"),
        ({"interface": "wan", "shared": {}}, "shared"),
        ({"interface": "wan", "shared": ["x"]}, "shared[0]"),
        ({"interface": "wan", "shared": [{}]}, "shared[0].first"),
        ({"interface": "wan", "shared": [{**SHARED, "size": 1}]}, "shared[0].size"),
        ({"interface": "wan", "shared": [{**SHARED, "psid_len": 17}]}, "shared"),
        ({"interface": "wan", "shared": [SHARED, SHARED]}, "shared"),
        ({"interface": "wan", "full": [{"first": "192.0.2.9", "last": "192.0.2.1"}]}, "full"),
        ({"interface": "wan", "lease": {"time": 0}}, "lease.time"),
        ({"interface": "wan", "lease": {"time": True}}, "lease.time"),
        ({"interface": "wan", "lease": {"offer_hold": "x"}}, "lease.offer_hold"),
        ({"interface": "wan", "lease": 3}, "lease"),
        ({"interface": "wan", "policy": {"reserved": ["70000"]}}, "policy.reserved"),
        ({"interface": "wan", "policy": {"reserved": "0-1023"}}, "policy.reserved"),
        ({"interface": "wan", "policy": {"authoritative": 1}}, "policy.authoritative"),
        ({"interface": "wan", "duid": "00"}, "duid"),
        ({"interface": "wan", "dhcp6": {"container": "lw4o6"}}, "dhcp6.br"),
        ({"interface": "wan", "dhcp6": {"container": "dslite"}}, "dhcp6.container"),
        ({"interface": "wan", "dhcp6": {"container": "map-e", "br": ["2001:db8::1"]}}, "rule"),
        ({"interface": "wan", "dhcp6": {"br": ["192.0.2.1"]}}, "dhcp6.br"),
        ({"interface": "wan", "options": {"dns": [""]}}, "options.dns"),
    ],
)
def test_errors_name_their_key(document: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        serverconfig.parse(document)
    assert caught.value.key == key


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        serverconfig.load(tmp_path / "absent.toml")
    for name in ("a.toml", "a.json"):
        (tmp_path / name).write_text("= =")
        with pytest.raises(ConfigError, match="neither TOML nor JSON"):
            serverconfig.load(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "b4client.lab.serve", "--config", str(tmp_path / "a.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert "neither TOML nor JSON" in done.stderr


def test_leases_of_a_file_fit_another_configuration(path: Path) -> None:
    # The pool is now cut into other sizes: what is leased stays leased, nothing overlaps it.
    file = LeaseFile(path)
    file.rewrite([replace(LEASE, until=100.0)])
    file.close()
    pools = replace(SHARED_ONLY, shared=(SharedPool(A1, A2, psid_len=4),))
    service = Service.open(replace(config(path), pools=pools), 0.0)
    leases: LeaseDatabase = service.server.leases
    chosen = [leases.choose(bytes((n,)), 0.0, wants_shared=True) for n in range(1)]
    assert chosen == [Slot(A1, PortSet(0, 4, 1))]
    assert not leases.free(Slot(A1, PortSet(0, 4, 4)), BOB, 99.0)
    assert leases.free(Slot(A1, PortSet(0, 4, 4)), BOB, 100.0)
    service.close()
