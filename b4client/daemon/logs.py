"""Log lines: plain text for people (and the journal), one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
from typing import TextIO

SYSLOG = "/dev/log"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# The journal reads a leading "<n>" as the syslog priority.
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def _clean(text: str) -> str:
    """Text from the network stays on its line and cannot steer a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


class TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00.123 warning b4client.store: text``; the journal keeps the time itself."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback, which only a bug produces, follows on further lines."""
        text = _clean(record.getMessage())
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        if self._journal:
            return f"<{_PRIORITY.get(record.levelno, 6)}>{text}{trace}"
        stamp = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        return f"{stamp}.{int(record.msecs):03d} {record.levelname.lower():7} {text}{trace}"


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, text, and for reports their kind and fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The object as one line."""
        document: dict[str, object] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": record.getMessage(),
        }
        document.update(getattr(record, "report", {}))
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document)


class SyslogFormatter(logging.Formatter):
    """``b4client[42]: text``, on one line: a syslog daemon takes the rest of a datagram for another message."""

    def format(self, record: logging.LogRecord) -> str:
        """The message; a traceback's lines stand behind it."""
        text = _clean(record.getMessage())
        trace = " | ".join(self.formatException(record.exc_info).splitlines()) if record.exc_info else ""
        return f"b4client[{os.getpid()}]: {text}{f' | {trace}' if trace else ''}"


class SyslogHandler(logging.handlers.SysLogHandler):
    """Facility daemon, to the socket of the local syslog; it connects again when that was restarted."""

    append_nul = False

    def __init__(self, address: str) -> None:
        super().__init__(address, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
        self.setFormatter(SyslogFormatter())

    def handleError(self, record: logging.LogRecord) -> None:
        """Nobody listens: to stderr, so that nothing is lost."""
        print(self.format(record), file=sys.stderr)


def setup(level: str, form: str, *, journal: bool = False, stream: TextIO | None = None) -> None:
    """Send the program's log to ``stream`` (stderr), or to the local syslog."""
    handler: logging.Handler
    if form == "syslog":
        handler = SyslogHandler(SYSLOG)
    else:
        handler = logging.StreamHandler(stream or sys.stderr)
        handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(journal=journal))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries
    logging.getLogger("b4client").setLevel(LEVELS[level])
