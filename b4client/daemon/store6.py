"""What the DHCPv6 side keeps over restarts of the daemon: the leases, and what another client handed over.

Kept in the run directory and only believed in the boot that wrote it: the instants are of its clock. After a reboot the
server gives the same prefix again, to the same DUID and IAID.
"""

from __future__ import annotations

import json
import logging
import math
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

from b4client.model.lease6 import Binding6, Lease6, Leased6

log = logging.getLogger("b4client.store")

MAX_FILE = 262144


class Store6:
    """The files of one instance below ``run_dir``; what cannot be written is reported and otherwise borne."""

    def __init__(self, run_dir: Path, instance: str, *, boot_id: str) -> None:
        self._binding_file = run_dir / f"{instance}.dhcp6.json"
        self._handover_file = run_dir / f"{instance}.handover.json"
        self._boot_id = boot_id

    def save_binding(self, binding: Binding6 | None) -> None:
        """Keep the leases; None forgets them."""
        if binding is None:
            self._write(self._binding_file, None)
            return
        document = {
            "server": binding.server.hex(),
            "addresses": [_written(item) for item in binding.lease.addresses],
            "prefixes": [_written(item) for item in binding.lease.prefixes],
            "t1_at": _finite(binding.t1_at),
            "t2_at": _finite(binding.t2_at),
        }
        self._write(self._binding_file, document)

    def load_binding(self) -> Binding6 | None:
        """The leases of an earlier life; None when there are none or the file is damaged."""
        found = self._read(self._binding_file)
        try:
            if found is None:
                return None
            lease = Lease6(tuple(map(_revived, found["addresses"])), tuple(map(_revived, found["prefixes"])))
            times = _instant(found["t1_at"]), _instant(found["t2_at"])
            return Binding6(bytes.fromhex(found["server"]), lease, *times)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("%s is damaged (%s): ignored", self._binding_file, error)
            return None

    def save_handover(self, document: dict[str, Any], taken_at: float) -> None:
        """Keep what was handed over, and when (boot clock)."""
        self._write(self._handover_file, {"taken_at": taken_at, "document": document})

    def load_handover(self) -> tuple[dict[str, Any], float] | None:
        """(document, boot-clock instant of when it came); None when there is none."""
        found = self._read(self._handover_file)
        try:
            return None if found is None else (dict(found["document"]), _instant(found["taken_at"]))
        except (KeyError, TypeError, ValueError) as error:
            log.warning("%s is damaged (%s): ignored", self._handover_file, error)
            return None

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            with path.open("rb") as file:
                text = file.read(MAX_FILE + 1)
            found = json.loads(text)
            if self._boot_id and found["boot_id"] == self._boot_id:
                return dict(found["content"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            log.warning("%s cannot be used (%s): ignored", path, error)
        return None

    def _write(self, path: Path, content: dict[str, Any] | None) -> None:
        """Replace ``path`` whole, or remove it."""
        temporary = path.with_name(f".{path.name}.new")
        try:
            if content is None:
                path.unlink(missing_ok=True)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"boot_id": self._boot_id, "content": content}) + "\n", encoding="ascii")
            temporary.replace(path)
        except OSError as error:
            log.warning("cannot write %s: %s; after a restart it must be asked for anew", path, error.strerror)


def _written(item: Leased6) -> list[Any]:
    return [str(item.network), _finite(item.preferred_until), _finite(item.valid_until)]


def _revived(value: list[Any]) -> Leased6:
    network, preferred, valid = value
    return Leased6(IPv6Network(network), _instant(preferred), _instant(valid))


def _finite(instant: float) -> float | None:
    return None if math.isinf(instant) else instant


def _instant(value: object) -> float:
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no instant")
    return float(value)
