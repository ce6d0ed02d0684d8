"""The shell's DHCPv6 side: the socket beside or instead of another client's, what is leased to the WAN, what is kept.

``loop`` owns it and calls it; nothing here decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from b4client.config import Config
from b4client.daemon import clock
from b4client.daemon.handover import read_handover
from b4client.daemon.sockets import WanSocket, open_wan_socket
from b4client.daemon.store6 import Store6
from b4client.dataplane.wan6 import LeasedWan
from b4client.model.errors import ControlError, DataplaneError
from b4client.model.lease6 import Binding6, Lease6
from b4client.protocol import effects, events

log = logging.getLogger("b4client")

LEASING = ("prefix", "address+prefix")
"""Modes whose leases are ours to put on the WAN."""


class WanSide:
    """One WAN's. ``say`` tells the operator."""

    def __init__(self, config: Config, say: Callable[[effects.Report], None]) -> None:
        self._config = config
        self._say = say
        self._mode = config.protocol.dhcp6_mode
        self._leased = LeasedWan(config.wan, config.daemon.run_dir)
        self._store = Store6(config.daemon.run_dir, config.instance, boot_id=clock.boot_id())

    # ---- socket

    def open_socket(self, loop: asyncio.AbstractEventLoop, received: Callable[[bytes, IPv6Address], None]) -> WanSocket:
        """Open port 546 as ``dhcp6.socket`` says. Raises DataplaneError."""

        def say(text: str) -> None:
            self._say(effects.Report("port-shared", "info", text))

        return open_wan_socket(loop, self._config.wan, received, kind=self._config.daemon.socket, say=say)

    # ---- leases

    def binding(self) -> Binding6 | None:
        """The leases of an earlier life. Where there are none, what such a life left on the WAN is taken away."""
        if self._mode in LEASING:
            found = self._store.load_binding()
            if found is not None and found.lease.at(clock.boot_now()):
                return found
        self._store.save_binding(None)
        self.configure(Lease6())
        return None

    def save(self, binding: Binding6 | None) -> None:
        """Keep the leases over restarts."""
        self._store.save_binding(binding)

    def configure(self, lease: Lease6) -> events.Event | None:
        """Make the WAN hold the lease; the event that another host has an address of it. Blocking."""
        try:
            duplicates = self._leased.apply(lease, clock.boot_now())
        except DataplaneError as error:
            log.error("%s", error)
            return None
        return events.AddressDuplicated(duplicates[0]) if duplicates else None

    # ---- hand-over

    def handed_over(self) -> events.Event | None:
        """What another client handed over to an earlier life, with the lifetimes that are left."""
        found = self._store.load_handover() if self._mode == "external" else None
        if found is None:
            return None
        try:
            return read_handover(*found)
        except ControlError as error:
            log.warning("what was handed over before cannot be used: %s", error)
            return None

    def provision(self, document: dict[str, Any]) -> events.InformationHandedOver:
        """The event of a hand-over, which is also kept. Raises ControlError: nothing of it is used then."""
        if self._mode != "external":
            raise ControlError(
                f'provision: dhcp6.mode is "{self._mode}": b4client asks by itself; set dhcp6.mode = "external"'
            )
        now = clock.boot_now()
        event = read_handover(document, now)
        self._store.save_handover(document, now)
        return event
