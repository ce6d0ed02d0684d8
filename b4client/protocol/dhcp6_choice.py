"""The DHCPv6 source that the operator chose."""

from __future__ import annotations

import random

from b4client.model.lease6 import Binding6
from b4client.model.settings import ProtocolSettings
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp6_client import Dhcp6Client
from b4client.protocol.dhcp6_leases import Wanted
from b4client.protocol.dhcp6_source import Dhcp6Source, HandedOver
from b4client.protocol.dhcp6_stateful import StatefulDhcp6Client


def choose_source6(
    settings: ProtocolSettings,
    duid: bytes,
    iaid: int,
    *,
    rng: random.Random,
    counters: Counters,
    stored: Binding6 | None = None,
) -> Dhcp6Source:
    """The source for ``settings.dhcp6_mode``. A ``stored`` binding is of use only to one that holds leases."""
    if settings.dhcp6_mode == "external":
        return HandedOver(counters)
    if settings.dhcp6_mode == "stateless":
        return Dhcp6Client(duid, start_delay=settings.start_delay, rng=rng, counters=counters)
    wanted = Wanted(iaid, address=settings.dhcp6_mode == "address+prefix", prefix_len=settings.prefix_len_hint)
    return StatefulDhcp6Client(
        duid,
        wanted,
        start_delay=settings.start_delay,
        rng=rng,
        counters=counters,
        rapid_commit=settings.rapid_commit,
        stored=stored,
    )
