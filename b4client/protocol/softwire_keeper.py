"""The softwire that is wanted and the one that is there: installs, failures, and trying again. Pure."""

from __future__ import annotations

from ipaddress import IPv6Address

from b4client.model.softwire import SoftwireConfig
from b4client.protocol.effects import Effect, Install, PrepareAddress, Report, Withdraw

INSTALL_RETRY_S = (1.0, 300.0)
"""Wait before a softwire that could not be installed is tried again: doubled each time, up to the second value."""


class SoftwireKeeper:
    """One softwire's life. Methods return what is to be done about it.

    ``desired`` is what there should be, ``installed`` what the data plane last confirmed, ``problem`` why it failed.
    """

    def __init__(self) -> None:
        self.desired: SoftwireConfig | None = None
        self.installed: SoftwireConfig | None = None
        self.problem: str | None = None
        self._made: set[IPv6Address] = set()
        self._wait_s = INSTALL_RETRY_S[0]
        self._retry_at: float | None = None

    @property
    def made(self) -> frozenset[IPv6Address]:
        """The addresses on the WAN that are there because of us, or may still be: they say nothing about the
        provider's prefixes."""
        return frozenset(self._made)

    def deadline(self) -> float | None:
        """When ``wake`` has something to do."""
        return self._retry_at

    def wake(self, now: float) -> list[Effect]:
        """Try again what has failed."""
        if self._retry_at is None or now < self._retry_at:
            return []
        self._retry_at = None
        return [Install(self.desired)] if self.desired is not None else []

    def prepare(self, address: IPv6Address) -> list[Effect]:
        """An address of the softwire's own is needed before the softwire itself (RFC 8539 7.1)."""
        self._made.add(address)
        return [PrepareAddress(address)]

    def want(self, config: SoftwireConfig) -> list[Effect]:
        """This is the softwire from now on."""
        self.desired = config
        if config.own_local:
            # The one before may be on the WAN until the data plane has changed over.
            before = self.installed
            self._made = {config.local} | ({before.local} if before is not None and before.own_local else set())
        self._retry_at, self.problem, self._wait_s = None, None, INSTALL_RETRY_S[0]
        return [Install(config)]

    def drop(self, reason: str) -> list[Effect]:
        """There should be none."""
        there = self.desired is not None
        self.desired = self.installed = None
        self._retry_at = self.problem = None
        return [Report("softwire-down", "info", f"the softwire goes: {reason}")] if there else []

    def has_installed(self, config: SoftwireConfig) -> list[Effect]:
        """The data plane has made it."""
        if self.desired is None:
            return []  # a withdrawal is behind it in the queue
        before, self.installed = self.installed, config
        if config != self.desired:
            return []
        self.problem, self._wait_s = None, INSTALL_RETRY_S[0]
        if before == config:
            return []
        return [Report("softwire-up", "info", f"softwire {config.local} to {config.remote} carries {_cargo(config)}")]

    def install_failed(self, config: SoftwireConfig, reason: str, now: float) -> list[Effect]:
        """The data plane could not make it, and is what it was before."""
        desired, there = self.desired, self.installed
        if desired is None or config != desired:
            return []  # about something that is not wanted any more
        effects: list[Effect] = []
        if there is None or (there.ipv4, there.ports) != (desired.ipv4, desired.ports):
            # Whatever is there still is not covered by the lease.
            self.installed = None
            effects.append(Withdraw("the softwire could not be changed to the present lease"))
        self._retry_at, self._wait_s = now + self._wait_s, min(2 * self._wait_s, INSTALL_RETRY_S[1])
        if reason != self.problem:
            effects.append(Report("install-failed", "error", f"the softwire could not be made: {reason}"))
        self.problem = reason
        return effects


def _cargo(config: SoftwireConfig) -> str:
    if config.ipv4_prefix is not None:
        return f"{config.ipv4_prefix} (as {config.ipv4}), all ports"
    return f"{config.ipv4}, {'the whole address' if config.ports is None else config.ports}"
