"""What survives a restart: the DUID and the lease. Written atomically; a damaged file is set aside, never trusted."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from b4client.daemon.statefile import plain_instant, read_bounded, read_instant, replace_file
from b4client.model.errors import WireError
from b4client.model.lease import Lease4, LeasedSoftwire, StoredLease
from b4client.model.portset import PortSet
from b4client.wire import identity

log = logging.getLogger("b4client.store")

FORMAT = 1
MAX_FILE = 65536
MAX_OPTIONS = 64
CLOCK_SLACK_S = 2.0


class DamagedFile(Exception):
    """The lease file does not hold a lease."""


class Store:
    """The files of one instance below ``state_dir``.

    A directory that cannot be written is reported once and otherwise borne: the client then works without memory.
    ``boot_now``, ``wall_now`` and ``boot_id`` are the clocks, given from outside for the tests.
    """

    def __init__(
        self,
        state_dir: Path,
        instance: str,
        *,
        boot_now: Callable[[], float],
        wall_now: Callable[[], float],
        boot_id: str,
    ) -> None:
        self._dir = state_dir
        self._lease_file = state_dir / f"{instance}.lease.json"
        self._duid_file = state_dir / "duid"
        self._boot_now = boot_now
        self._wall_now = wall_now
        self._boot_id = boot_id
        self.problem: str | None = None

    # ---- identity

    def duid(self, hardware_address: bytes | None) -> bytes:
        """The DUID of this machine, made at first use (RFC 8415 11, RFC 4361 6.1: it must survive reboots [S-17]).

        A DUID-LL from the WAN's hardware address where there is one, which comes out the same again when the file
        cannot be kept; else a DUID-UUID.
        """
        try:
            stored = bytes.fromhex(self._duid_file.read_text(encoding="ascii").strip())
            return identity.Duid(stored).data
        except FileNotFoundError:
            pass
        except (OSError, ValueError, WireError) as error:
            self._set_aside(self._duid_file, error)
        made = identity.duid_ll(1, hardware_address) if hardware_address else identity.duid_uuid(uuid.uuid4().bytes)
        self._write(self._duid_file, made.data.hex() + "\n")
        return made.data

    # ---- lease

    def save_lease(self, lease: Lease4, source: IPv6Address) -> None:
        """Keep the lease and the IPv6 source address it came to."""
        now, wall = self._boot_now(), self._wall_now()
        document = {
            "format": FORMAT,
            "address": str(lease.address),
            "ports": None
            if lease.ports is None
            else {"offset": lease.ports.offset_len, "psid_len": lease.ports.psid_len, "psid": lease.ports.psid},
            "server_id": str(lease.server_id),
            "source": str(source),
            "boot_id": self._boot_id,
            "requested_at": lease.requested_at,
            "t1_at": plain_instant(lease.t1_at),
            "t2_at": plain_instant(lease.t2_at),
            "expires_at": plain_instant(lease.expires_at),
            "saved_boot": now,
            "saved_wall": wall,
            "options": [[code, value.hex()] for code, value in lease.options[:MAX_OPTIONS]],
            "softwire": None if lease.softwire is None else _plain_softwire(lease.softwire),
        }
        self._write(self._lease_file, json.dumps(document, indent=1) + "\n")

    def forget_lease(self) -> None:
        """Remove the stored lease."""
        try:
            self._lease_file.unlink(missing_ok=True)
        except OSError as error:
            self._complain(f"cannot remove {self._lease_file}: {error.strerror}")

    def load_lease(self) -> StoredLease | None:
        """The stored lease with its instants on the present boot clock; None when there is none or it is damaged."""
        try:
            return self._revive(json.loads(read_bounded(self._lease_file, MAX_FILE)))
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(f"cannot read {self._lease_file}: {error.strerror}")
            return None
        except (DamagedFile, KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:
            self._set_aside(self._lease_file, error)
            return None

    def _revive(self, d: dict[str, Any]) -> StoredLease:
        if d["format"] != FORMAT:
            raise DamagedFile(f"its format is {d['format']!r}, not {FORMAT}")
        ports = (
            None if d["ports"] is None else PortSet(d["ports"]["offset"], d["ports"]["psid_len"], d["ports"]["psid"])
        )
        saved_boot, saved_wall = read_instant(d["saved_boot"]), read_instant(d["saved_wall"])
        requested, t1, t2, expires = (read_instant(d[k]) for k in ("requested_at", "t1_at", "t2_at", "expires_at"))
        if not requested <= t1 <= t2 <= expires:
            raise DamagedFile("its times are out of order")
        shift, trusted = 0.0, True
        if not self._boot_id or d["boot_id"] != self._boot_id:
            # Another boot: only the wall clock connects the two. A clock that went back (no battery, no NTP yet) cannot
            # tell how old the lease is.
            away = self._wall_now() - saved_wall
            trusted = away >= -CLOCK_SLACK_S
            shift = self._boot_now() - saved_boot - max(away, 0.0)
        options = tuple((int(code), bytes.fromhex(value)) for code, value in d["options"][:MAX_OPTIONS])
        lease = Lease4(
            IPv4Address(d["address"]),
            ports,
            IPv4Address(d["server_id"]),
            requested + shift,
            t1 + shift,
            t2 + shift,
            expires + shift,
            options,
            None if d.get("softwire") is None else _revive_softwire(d["softwire"]),
        )
        return StoredLease(lease, IPv6Address(d["source"]), trusted)

    # ---- files

    def _write(self, path: Path, text: str) -> None:
        try:
            self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(path, text, durable=True)
            self.problem = None
        except OSError as error:
            self._complain(f"cannot write {path}: {error.strerror}; after a restart the lease must be asked for anew")

    def _set_aside(self, path: Path, error: Exception) -> None:
        aside = path.with_name(path.name + ".damaged")
        try:
            path.replace(aside)
        except OSError:
            aside = path
        self._complain(f"{path} is damaged ({error}); set aside as {aside.name}, starting anew")

    def _complain(self, text: str) -> None:
        if text != self.problem:
            log.warning("%s", text)
        self.problem = text


def _plain_softwire(softwire: LeasedSoftwire) -> dict[str, Any]:
    return {
        "brs": [str(br) for br in softwire.brs],
        "bind_prefix": None if softwire.bind_prefix is None else str(softwire.bind_prefix),
        "saddr": None if softwire.saddr is None else str(softwire.saddr),
    }


def _revive_softwire(d: dict[str, Any]) -> LeasedSoftwire:
    brs = tuple(IPv6Address(br) for br in d["brs"])
    if not brs:
        raise DamagedFile("a softwire without BR")
    prefix = None if d["bind_prefix"] is None else IPv6Network(d["bind_prefix"])
    return LeasedSoftwire(brs, prefix, None if d["saddr"] is None else IPv6Address(d["saddr"]))
