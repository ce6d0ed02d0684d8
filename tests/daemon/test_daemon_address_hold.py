"""Mending waits while an address is prepared for a softwire that is to come (RFC 8539 7.1), and goes on afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from b4client.config import parse
from b4client.daemon import loop
from b4client.daemon.loop import Daemon
from b4client.model.softwire import Mode, SoftwireConfig
from b4client.protocol import events

ADDRESS = IPv6Address("2001:db8::46")
CONFIG = SoftwireConfig(
    Mode.LW4O6, "wan", IPv6Address("2001:db8::1"), IPv6Address("2001:db8:ffff::1"), IPv4Address("192.0.2.18"), None
)


class Mender:
    def __init__(self) -> None:
        self.kept: SoftwireConfig | None = CONFIG

    def keep(self, config: SoftwireConfig | None) -> None:
        self.kept = config


class Kernel:
    def __init__(self) -> None:
        self.prepared: list[tuple[str, IPv6Address]] = []

    def prepare_address(self, wan: str, address: IPv6Address) -> None:
        self.prepared.append((wan, address))


def run(work: Callable[[Any, list[events.Event]], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run ``work`` with a daemon whose kernel and mender are the ones above."""
    monkeypatch.setattr(loop, "ADDRESS_HOLD_S", 0.05)

    async def main() -> None:
        daemon: Any = Daemon(parse({"wan": {"interface": "wan"}}))
        posted: list[events.Event] = []
        daemon.loop, daemon.mender, daemon.dataplane = asyncio.get_running_loop(), Mender(), Kernel()
        daemon.post = posted.append
        await work(daemon, posted)

    asyncio.run(main())


def test_nothing_is_mended_while_the_address_waits_and_the_old_softwire_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(daemon: Any, posted: list[events.Event]) -> None:
        await daemon._address_job(ADDRESS)
        assert daemon.dataplane.prepared == [("wan", ADDRESS)]
        assert posted == [events.AddressReady(ADDRESS)]
        assert daemon.mender.kept is None
        await asyncio.sleep(0.15)
        assert daemon.mender.kept is CONFIG

    run(work, monkeypatch)


def test_what_was_changed_meanwhile_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(daemon: Any, posted: list[events.Event]) -> None:
        await daemon._address_job(ADDRESS)
        daemon._changes += 1  # as an Install or a Withdraw does
        await asyncio.sleep(0.15)
        assert daemon.mender.kept is None

    run(work, monkeypatch)
