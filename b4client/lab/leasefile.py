"""The lab server's memory on disk: a journal of lease records that survives a kill at any instant.

One JSON object a line. A change is on the disk before the answer that promises it leaves (append and fsync), and the
last line may be cut off by a kill: then its answer was never sent, and it is left out. Anything else that is not a
record stops the server: a lease that is forgotten is one that is given twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path

from b4client.lab.leaserecord import Lease
from b4client.lab.leases import LeaseDatabase
from b4client.model.errors import B4Error

HEADER = {"format": "b4client-lab-leases", "version": 1}
COMPACT_AFTER = 1000
"""Lines beyond the number of leases after which the journal is written anew."""


class LeaseFileError(B4Error):
    """The lease file cannot be read or is in use; the sentence says which and what to do."""


class LeaseFile:
    """The journal at ``path``, which only one server uses at a time. Raises LeaseFileError, OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise LeaseFileError(f"{path} is in use by another server") from None
        self._journal: int | None = None
        self._lines = 0

    def load(self) -> list[Lease]:
        """What the journal says; empty when there is none. Raises LeaseFileError."""
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return []
        # What follows the last line end is a record that a kill cut off: its answer was never sent.
        lines = text.split(b"\n")[:-1]
        if not lines:
            return []
        try:
            if json.loads(lines[0]) != HEADER:
                raise ValueError("not the header of a lease file")
            return LeaseDatabase.leases_from_json(json.loads(line) for line in lines[1:])
        except (ValueError, KeyError, TypeError) as error:
            raise LeaseFileError(f"{self._path} is damaged ({error}): move it away to begin without leases") from None

    def rewrite(self, leases: Iterable[Lease]) -> None:
        """Replace the journal by one record a lease, atomically."""
        records = [HEADER, *(lease.to_json() for lease in leases)]
        new = self._path.with_name(self._path.name + ".new")
        with new.open("wb") as file:
            file.write(b"".join(_line(record) for record in records))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        if self._journal is not None:
            os.close(self._journal)
        self._journal = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = 0

    def append(self, leases: list[Lease]) -> bool:
        """Write changes down; True when the journal has grown so long that it wants ``rewrite``."""
        if self._journal is None:
            raise LeaseFileError("the lease file was not opened by rewrite()")
        if leases:
            os.write(self._journal, b"".join(_line(lease.to_json()) for lease in leases))
            os.fsync(self._journal)
            self._lines += len(leases)
        return self._lines > COMPACT_AFTER

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError):
            if self._journal is not None:
                os.close(self._journal)
        os.close(self._lock)


def _line(record: object) -> bytes:
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
