"""What the DHCPv6 side keeps over restarts of the daemon: the leases, and what another client handed over.

Kept in the run directory and only believed in the boot that wrote it: the instants are of its clock. After a reboot the
server gives the same prefix again, to the same DUID and IAID.
"""

from __future__ import annotations

import json
import logging
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any

from b4client.daemon.statefile import plain_instant, read_bounded, read_instant, replace_file
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
            "t1_at": plain_instant(binding.t1_at),
            "t2_at": plain_instant(binding.t2_at),
        }
        self._write(self._binding_file, document)

    def load_binding(self) -> Binding6 | None:
        """The leases of an earlier life; None when there are none or the file is damaged."""
        found = self._read(self._binding_file)
        try:
            if found is None:
                return None
            lease = Lease6(tuple(map(_revived, found["addresses"])), tuple(map(_revived, found["prefixes"])))
            times = read_instant(found["t1_at"]), read_instant(found["t2_at"])
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
            return None if found is None else (dict(found["document"]), read_instant(found["taken_at"]))
        except (KeyError, TypeError, ValueError) as error:
            log.warning("%s is damaged (%s): ignored", self._handover_file, error)
            return None

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            found = json.loads(read_bounded(path, MAX_FILE))
            if self._boot_id and found["boot_id"] == self._boot_id:
                return dict(found["content"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            log.warning("%s cannot be used (%s): ignored", path, error)
        return None

    def _write(self, path: Path, content: dict[str, Any] | None) -> None:
        """Replace ``path`` whole, or remove it."""
        try:
            if content is None:
                path.unlink(missing_ok=True)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"boot_id": self._boot_id, "content": content}) + "\n"
            # Not waited for: it is believed in this boot only.
            replace_file(path, text, durable=False)
        except OSError as error:
            log.warning("cannot write %s: %s; after a restart it must be asked for anew", path, error.strerror)


def _written(item: Leased6) -> list[Any]:
    return [str(item.network), plain_instant(item.preferred_until), plain_instant(item.valid_until)]


def _revived(value: list[Any]) -> Leased6:
    network, preferred, valid = value
    return Leased6(IPv6Network(network), read_instant(preferred), read_instant(valid))
