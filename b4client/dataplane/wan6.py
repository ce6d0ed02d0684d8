"""The WAN as DHCPv6 leases it: addresses with lifetimes, and delegated prefixes that do not loop (RFC 7084 WPD-5).

What was made is remembered in the run directory, so that a later daemon takes away what the lease has no more, and
never what somebody else made. Numbering the LAN from the prefix is the operator's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import tenacity

from b4client.dataplane import rtaddr, rtroute
from b4client.model.errors import DataplaneError
from b4client.model.lease6 import Lease6

FOREVER = 0xFFFFFFFF
"""A lifetime that never ends, for the kernel as in DHCPv6."""
LONGEST = FOREVER - 1


class LeasedWan:
    """The leased addresses and prefixes of one interface. Blocking; for the worker thread."""

    def __init__(self, interface: str, directory: Path) -> None:
        self._interface = interface
        self._path = directory / f"{interface}.wan6.json"

    def apply(self, lease: Lease6, now: float) -> tuple[IPv6Address, ...]:
        """Make the kernel hold exactly ``lease`` of what is ours; returns the addresses that another host has (they
        are taken away again). Goes on past what fails, then raises DataplaneError with all of it."""
        addresses, prefixes = self._remembered()
        wanted_addresses = {item.address for item in lease.addresses}
        wanted_prefixes = {item.network for item in lease.prefixes}
        # First remembered, then made: a crash in between leaves something that is looked for in vain, not forgotten.
        everything = addresses | wanted_addresses, prefixes | wanted_prefixes
        if everything != (addresses, prefixes):
            self._remember(*everything)
        problems: list[str] = []

        def attempt(step: Callable[[], object]) -> bool:
            try:
                step()
            except DataplaneError as error:
                problems.append(str(error))
                return False
            return True

        for prefix in wanted_prefixes:
            attempt(partial(rtroute.add_unreachable6, prefix))
        new = []
        for item in lease.addresses:
            known = rtaddr.address6_flags(self._interface, item.address) is not None
            times = _seconds(item.preferred_until, now), _seconds(item.valid_until, now)
            if attempt(partial(rtaddr.lease_address6, self._interface, item.address, *times)) and not known:
                new.append(item.address)
        for prefix in prefixes - wanted_prefixes:
            attempt(partial(rtroute.delete_unreachable6, prefix))
        for address in addresses - wanted_addresses:
            attempt(partial(rtaddr.delete_address6, self._interface, address))
        duplicates = tuple(address for address in new if self._is_duplicate(address))
        for address in duplicates:
            attempt(partial(rtaddr.delete_address6, self._interface, address))
        kept = wanted_addresses - set(duplicates), wanted_prefixes
        if kept != everything:
            self._remember(*kept)
        if problems:
            raise DataplaneError(f"set up {self._interface} as DHCPv6 leases it", "; ".join(problems))
        return duplicates

    def describe(self) -> list[str]:
        """What of the WAN is ours, in words."""
        addresses, prefixes = self._remembered()
        return [
            *(f"the leased address {address} of {self._interface}" for address in sorted(addresses)),
            *(f"the unreachable route of the leased prefix {prefix}" for prefix in sorted(prefixes)),
        ]

    def _is_duplicate(self, address: IPv6Address) -> bool:
        """The outcome of duplicate address detection (RFC 4862 5.4), waited for. An address that will not last for ever
        is not marked by the kernel when it fails, but taken away."""
        retry = tenacity.Retrying(
            retry=tenacity.retry_if_result(
                lambda flags: (
                    flags is not None and flags & rtaddr.IFA_F_TENTATIVE and not flags & rtaddr.IFA_F_DADFAILED
                )
            ),
            stop=tenacity.stop_after_delay(rtaddr.DAD_WAIT_S),
            wait=tenacity.wait_exponential(0.01, max=0.2),
            retry_error_callback=lambda _: 0,
        )
        flags = retry(rtaddr.address6_flags, self._interface, address)
        return flags is None or bool(flags & rtaddr.IFA_F_DADFAILED)

    def _remembered(self) -> tuple[set[IPv6Address], set[IPv6Network]]:
        try:
            found = json.loads(self._path.read_text(encoding="ascii"))
            return {IPv6Address(a) for a in found["addresses"]}, {IPv6Network(p) for p in found["prefixes"]}
        except (OSError, ValueError, TypeError, KeyError):
            return set(), set()

    def _remember(self, addresses: Iterable[IPv6Address], prefixes: Iterable[IPv6Network]) -> None:
        """Replace the file whole. A directory that cannot be written costs only the memory."""
        document = {"addresses": sorted(map(str, addresses)), "prefixes": sorted(map(str, prefixes))}
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            if any(document.values()):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_text(json.dumps(document), encoding="ascii")
                temporary.replace(self._path)
            else:
                self._path.unlink(missing_ok=True)
        except OSError:
            pass


def _seconds(until: float, now: float) -> int:
    """The lifetime that is left, whole seconds."""
    return FOREVER if math.isinf(until) else max(0, min(math.floor(until - now), LONGEST))
