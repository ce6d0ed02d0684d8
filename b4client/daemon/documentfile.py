"""A JSON file that survives restarts: replaced whole, a damaged one set aside, trouble reported once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from b4client.daemon.statefile import read_bounded, replace_file

log = logging.getLogger("b4client.store")

T = TypeVar("T")


class DocumentFile:
    """One such file. ``lost`` says what it means that it cannot be written; ``problem`` is what is wrong now."""

    def __init__(self, path: Path, *, max_octets: int, lost: str) -> None:
        self._path = path
        self._max = max_octets
        self._lost = lost
        self.problem: str | None = None

    def load(self, revive: Callable[[Any], T]) -> T | None:
        """What ``revive`` makes of the document; None when there is none, or it is damaged (``revive`` raises
        KeyError, TypeError, ValueError or AttributeError)."""
        try:
            return revive(json.loads(read_bounded(self._path, self._max)))
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(f"cannot read {self._path}: {error.strerror}")
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:
            self._complain(f"{self._path} is damaged ({error}); set aside as {self._set_aside()}, starting anew")
        return None

    def save(self, document: dict[str, Any] | None) -> None:
        """Keep the document; None: there is none any more. What cannot be written is reported and borne."""
        try:
            if document is None:
                self._path.unlink(missing_ok=True)
            else:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                replace_file(self._path, json.dumps(document, indent=1) + "\n", durable=True)
            self.problem = None
        except OSError as error:
            self._complain(f"cannot write {self._path}: {error.strerror}; {self._lost}")

    def _set_aside(self) -> str:
        aside = self._path.with_name(self._path.name + ".damaged")
        try:
            self._path.replace(aside)
        except OSError:
            return self._path.name
        return aside.name

    def _complain(self, text: str) -> None:
        if text != self.problem:
            log.warning("%s", text)
        self.problem = text
