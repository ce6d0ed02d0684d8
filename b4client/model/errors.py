"""The error tree. Each class says whose fault it is, and each is caught in exactly one place."""

from __future__ import annotations


class B4Error(Exception):
    """Base of every error that b4client raises on purpose. Anything else is a bug and ends the process."""


class WireError(B4Error):
    """A peer sent octets that are no valid message or option.

    ``offset`` is the octet (from the start of the buffer that was given to the decoder) at which decoding
    failed; ``None`` when a value as a whole is wrong.
    """

    def __init__(self, reason: str, offset: int | None = None) -> None:
        super().__init__(reason if offset is None else f"{reason} (at octet {offset})")
        self.reason = reason
        self.offset = offset


class OfferError(B4Error):
    """A peer sent a well-formed message that must be refused; ``counter`` is the drop counter's name."""

    def __init__(self, reason: str, counter: str) -> None:
        super().__init__(reason)
        self.counter = counter


class ConfigError(B4Error):
    """The operator's configuration cannot be used. ``key`` names the setting (``"softwire.mtu"``). Exit status 78."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


class DataplaneError(B4Error):
    """The kernel refused. ``operation`` is what was tried, ``errno`` its number (0 when it has none).

    ``remedy`` tells the operator what to do; ``transient`` says that trying again may help.
    """

    def __init__(
        self, operation: str, reason: str, *, errno: int = 0, remedy: str = "", transient: bool = False
    ) -> None:
        text = f"{operation}: {reason}"
        super().__init__(f"{text}. {remedy}" if remedy else text)
        self.operation = operation
        self.reason = reason
        self.errno = errno
        self.remedy = remedy
        self.transient = transient


class ControlError(B4Error):
    """A request on the control socket was refused, or the daemon cannot be reached."""


class NotRunningError(ControlError):
    """There is no daemon to talk to."""
