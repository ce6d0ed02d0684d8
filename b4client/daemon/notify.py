"""sd_notify: readiness, one line of status and the watchdog, for service managers that ask for them."""

from __future__ import annotations

import os
import socket


def notify(*assignments: str) -> None:
    """Send ``READY=1``, ``STATUS=...`` and the like to the service manager; does nothing when there is none."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path or path[0] not in "/@":
        return
    address = "\0" + path[1:] if path[0] == "@" else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto("\n".join(assignments).encode(), address)
    except OSError:
        pass  # a manager that went away is no reason to stop carrying traffic


def watchdog_interval_s() -> float | None:
    """Half of the service manager's watchdog time, or None when it keeps no watch over this process."""
    try:
        microseconds = int(os.environ["WATCHDOG_USEC"])
        if int(os.environ.get("WATCHDOG_PID", os.getpid())) != os.getpid():
            return None
    except (KeyError, ValueError):
        return None
    return microseconds / 2e6 if microseconds > 0 else None
