"""The store: leases over restarts and reboots, damaged files, directories that cannot be written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from b4client.daemon.store import Store
from b4client.model.lease import Lease4, LeasedSoftwire
from b4client.model.portset import PortSet

SOURCE = IPv6Address("2001:db8::2")
BR = IPv6Address("2001:db8:ffff::1")
LEASE = Lease4(
    IPv4Address("192.0.2.1"), PortSet(0, 8, 0x34), IPv4Address("192.0.2.254"), 1000.0, 2800.0, 4150.0, 4600.0,
    ((6, bytes([192, 0, 2, 53])),),
)  # fmt: skip


class Clocks:
    """Two clocks that the test moves."""

    def __init__(self) -> None:
        self.boot, self.wall, self.boot_id = 1000.0, 1.8e9, "boot-a"

    def store(self, directory: Path) -> Store:
        return Store(directory, "wan", boot_now=lambda: self.boot, wall_now=lambda: self.wall, boot_id=self.boot_id)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_a_restart_gives_the_lease_back_unchanged(tmp_path: Path, clocks: Clocks) -> None:
    clocks.store(tmp_path).save_lease(LEASE, SOURCE)
    clocks.boot += 60
    clocks.wall -= 5000  # of no account within one boot
    stored = clocks.store(tmp_path).load_lease()
    assert stored is not None
    assert (stored.lease, stored.source, stored.trusted) == (LEASE, SOURCE, True)


@pytest.mark.parametrize(
    "lease",
    [
        replace(LEASE, ports=None),
        replace(LEASE, t1_at=math.inf, t2_at=math.inf, expires_at=math.inf),
        replace(LEASE, softwire=LeasedSoftwire((BR,), IPv6Network("2001:db8::/56"), SOURCE)),
        replace(LEASE, softwire=LeasedSoftwire((BR, SOURCE))),
    ],
)
def test_unshared_and_infinite_leases_survive_too(tmp_path: Path, clocks: Clocks, lease: Lease4) -> None:
    clocks.store(tmp_path).save_lease(lease, SOURCE)
    stored = clocks.store(tmp_path).load_lease()
    assert stored is not None
    assert stored.lease == lease


def test_a_file_from_before_rfc_8539_is_read(tmp_path: Path, clocks: Clocks) -> None:
    clocks.store(tmp_path).save_lease(LEASE, SOURCE)
    (file,) = tmp_path.glob("*lease*")
    document = json.loads(file.read_text())
    del document["softwire"]
    file.write_text(json.dumps(document))
    stored = clocks.store(tmp_path).load_lease()
    assert stored is not None
    assert stored.lease == LEASE


@pytest.mark.parametrize(
    "softwire", [{}, {"brs": []}, {"brs": ["x"], "bind_prefix": None, "saddr": None}, 3, {"brs": ["2001:db8::1"]}]
)
def test_a_damaged_softwire_is_a_damaged_file(tmp_path: Path, clocks: Clocks, softwire: object) -> None:
    clocks.store(tmp_path).save_lease(LEASE, SOURCE)
    (file,) = tmp_path.glob("*lease*")
    file.write_text(json.dumps({**json.loads(file.read_text()), "softwire": softwire}))
    store = clocks.store(tmp_path)
    assert store.load_lease() is None
    assert store.problem is not None


def test_after_a_reboot_the_wall_clock_tells_the_age(tmp_path: Path, clocks: Clocks) -> None:
    clocks.store(tmp_path).save_lease(LEASE, SOURCE)  # 3600 s are left
    clocks.boot, clocks.wall, clocks.boot_id = 20.0, clocks.wall + 600, "boot-b"
    stored = clocks.store(tmp_path).load_lease()
    assert stored is not None
    assert stored.trusted
    assert stored.lease.expires_at == pytest.approx(20 + 3000)
    assert stored.lease.t1_at == pytest.approx(20 + 1200)


def test_a_clock_that_went_back_is_not_trusted(tmp_path: Path, clocks: Clocks) -> None:
    clocks.store(tmp_path).save_lease(LEASE, SOURCE)
    clocks.boot, clocks.wall, clocks.boot_id = 20.0, 0.0, "boot-b"
    stored = clocks.store(tmp_path).load_lease()
    assert stored is not None
    assert not stored.trusted
    assert stored.lease.same_binding(LEASE)


def test_forgetting(tmp_path: Path, clocks: Clocks) -> None:
    store = clocks.store(tmp_path)
    store.save_lease(LEASE, SOURCE)
    store.forget_lease()
    store.forget_lease()
    assert store.load_lease() is None


def _documents() -> list[object]:
    good = {
        "format": 1, "address": "192.0.2.1", "ports": {"offset": 0, "psid_len": 8, "psid": 52},
        "server_id": "192.0.2.254", "source": "2001:db8::2", "boot_id": "boot-a", "requested_at": 1.0, "t1_at": 2.0,
        "t2_at": 3.0, "expires_at": 4.0, "saved_boot": 1.0, "saved_wall": 1.0, "options": [],
    }  # fmt: skip
    bad: list[object] = [[], 3, None, "x", {}]
    bad += [{k: v for k, v in good.items() if k != missing} for missing in good]
    for key, value in (
        ("format", 2), ("address", "x"), ("ports", {"offset": 9, "psid_len": 9, "psid": 0}), ("ports", 3),
        ("source", 1.5),
        ("t1_at", 0.5), ("expires_at", "x"), ("saved_boot", True), ("options", [[1]]), ("options", [["x", "zz"]]),
        ("requested_at", 1e999),
    ):  # fmt: skip
        bad.append({**good, key: value})
    return bad


@pytest.mark.parametrize("document", _documents(), ids=lambda d: json.dumps(d)[:60])
def test_a_damaged_file_is_set_aside_and_reported(tmp_path: Path, clocks: Clocks, document: object) -> None:
    file = tmp_path / "wan.lease.json"
    file.write_text(json.dumps(document))
    store = clocks.store(tmp_path)
    assert store.load_lease() is None
    assert store.problem is not None
    assert "damaged" in store.problem
    assert not file.exists()
    assert (tmp_path / "wan.lease.json.damaged").read_text() == json.dumps(document)
    store.save_lease(LEASE, SOURCE)
    assert clocks.store(tmp_path).load_lease() is not None


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff" * 10, b"[" * 70000, b"[" * 60000], ids=lambda t: f"{t[:4]!r}*{len(t)}"
)
def test_any_octets_are_borne(tmp_path: Path, clocks: Clocks, text: bytes) -> None:
    (tmp_path / "wan.lease.json").write_bytes(text)
    store = clocks.store(tmp_path)
    assert store.load_lease() is None
    assert store.problem is not None


def test_a_file_cut_at_every_octet_is_never_half_believed(tmp_path: Path, clocks: Clocks) -> None:
    clocks.store(tmp_path).save_lease(LEASE, SOURCE)
    file = tmp_path / "wan.lease.json"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        stored = clocks.store(tmp_path).load_lease()
        # Only the final newline may be missing.
        assert stored is None or (stored.lease == LEASE and length >= len(whole) - 1)


def test_the_duid_is_made_once_and_kept(tmp_path: Path, clocks: Clocks) -> None:
    first = clocks.store(tmp_path).duid(b"\2\0\0\0\0\1")
    assert first.hex() == "00030001020000000001"
    assert clocks.store(tmp_path).duid(b"\2\0\0\0\0\2") == first


def test_without_a_hardware_address_the_duid_is_random(tmp_path: Path, clocks: Clocks) -> None:
    first = clocks.store(tmp_path).duid(None)
    assert first[:2] == b"\0\4"
    assert len(first) == 18
    assert clocks.store(tmp_path).duid(None) == first
    assert clocks.store(tmp_path / "other").duid(None) != first


def test_a_damaged_duid_is_set_aside(tmp_path: Path, clocks: Clocks) -> None:
    (tmp_path / "duid").write_text("nonsense")
    store = clocks.store(tmp_path)
    assert store.duid(b"\2\0\0\0\0\1").hex() == "00030001020000000001"
    assert store.problem is None or "damaged" in store.problem
    assert (tmp_path / "duid.damaged").read_text() == "nonsense"


def test_a_place_that_cannot_be_written_is_borne_and_reported(clocks: Clocks) -> None:
    store = clocks.store(Path("/proc/b4client"))
    store.save_lease(LEASE, SOURCE)
    assert store.problem is not None
    assert "cannot write" in store.problem
    assert store.duid(b"\2\0\0\0\0\1").hex() == "00030001020000000001"
    assert store.load_lease() is None


def test_files_are_private(tmp_path: Path, clocks: Clocks) -> None:
    clocks.store(tmp_path / "new").save_lease(LEASE, SOURCE)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "wan.lease.json").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["wan.lease.json"]
