"""The AFTR's address for DS-Lite: from the name that DHCPv6 gives (RFC 6334 5). Pure; the shell does the asking."""

from __future__ import annotations

from ipaddress import IPv6Address

from b4client.protocol.effects import Effect, Report, Resolve

RETRY_S = (5.0, 300.0)
"""Wait before a name that was not found is tried again: doubled each time, up to the second value."""
REFRESH_S = 3600.0
"""A name is resolved again that often: how long an answer holds is not known (getaddrinfo does not tell)."""


class AftrFinder:
    """One AFTR. ``address`` is None while it is not known; ``problem`` says why in words."""

    def __init__(self) -> None:
        self.address: IPv6Address | None = None
        self.problem: str | None = None
        self._name: str | None = None
        self._ask_at: float | None = None
        self._wait_s = RETRY_S[0]

    def deadline(self) -> float | None:
        """When ``wake`` has something to do."""
        return self._ask_at

    def want(self, aftr: IPv6Address | str | None, now: float) -> list[Effect]:
        """This is the AFTR from now on: its address, or its name; None when none is wanted."""
        if isinstance(aftr, IPv6Address):
            self._name, self._ask_at, self.address, self.problem = None, None, aftr, None
            return []
        if aftr == self._name:
            return []
        self._name, self.address, self.problem, self._wait_s = aftr, None, None, RETRY_S[0]
        self._ask_at = None
        return self._ask(now) if aftr is not None else []

    def wake(self, now: float) -> list[Effect]:
        """Ask (again) when it is time."""
        return self._ask(now) if self._ask_at is not None and now >= self._ask_at else []

    def _ask(self, now: float) -> list[Effect]:
        if self._name is None:
            return []
        # Until an answer says otherwise: the shell may never answer.
        self._ask_at = now + RETRY_S[1]
        return [Resolve(self._name)]

    def resolved(self, name: str, addresses: tuple[IPv6Address, ...], reason: str, now: float) -> list[Effect]:
        """The answer. An address in use is kept while the name has it, and while the name cannot be resolved."""
        if name != self._name:
            return []
        usable = [a for a in addresses if not (a.is_multicast or a.is_unspecified or a.is_loopback or a.is_link_local)]
        if usable:
            self._ask_at, self._wait_s, self.problem = now + REFRESH_S, RETRY_S[0], None
            if self.address not in usable:
                self.address = usable[0]
            return []
        text = reason or "it has no usable IPv6 address"
        self._ask_at, self._wait_s = now + self._wait_s, min(2 * self._wait_s, RETRY_S[1])
        if text == self.problem:
            return []
        self.problem = text
        return [Report("aftr-unknown", "warning", f"the AFTR {name} cannot be resolved: {text}")]
