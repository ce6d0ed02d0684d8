"""The server hears of a release when the softwire is down, and not while the kernel still works on it."""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv6Address
from types import SimpleNamespace
from typing import Any

from b4client.config import parse
from b4client.daemon.loop import Daemon
from b4client.protocol import effects

SERVER, SOURCE = IPv6Address("2001:db8::53"), IPv6Address("2001:db8::1")


async def _carry_out(*wanted: effects.Effect) -> list[str]:
    done: list[str] = []

    def withdraw() -> None:
        time.sleep(0.05)
        done.append("withdrawn")

    async def look(_: object) -> None:
        pass

    daemon = Daemon(parse({"wan": {"interface": "wan"}}))
    daemon.loop = asyncio.get_running_loop()
    parts: dict[str, Any] = {
        "dataplane": SimpleNamespace(withdraw=withdraw),
        "mender": SimpleNamespace(keep=lambda _: None, kept=None),
        "neighbourhood": SimpleNamespace(look=look),
        "forwards": SimpleNamespace(follow=lambda _: None),
        "_socket": SimpleNamespace(send=lambda data, *_: done.append(data.decode())),
    }
    for name, part in parts.items():
        setattr(daemon, name, part)
    for effect in wanted:
        daemon._carry_out(effect)
    await asyncio.gather(*daemon._jobs)
    return done


def test_the_release_is_sent_after_the_withdrawal() -> None:
    last = effects.Send(b"release", SERVER, SOURCE, after_kernel=True)
    assert asyncio.run(_carry_out(effects.Withdraw("released"), last)) == ["withdrawn", "release"]


def test_anything_else_does_not_wait() -> None:
    now = effects.Send(b"request", SERVER, SOURCE)
    assert asyncio.run(_carry_out(effects.Withdraw("moved"), now)) == ["request", "withdrawn"]
