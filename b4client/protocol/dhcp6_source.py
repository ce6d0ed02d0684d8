"""Where the DHCPv6 information comes from: the interface that the agent sees, and the source that asks nobody.

Three sources have it: ``dhcp6_client`` (INFORMATION-REQUEST), ``dhcp6_stateful`` (leases) and ``HandedOver`` (another
DHCPv6 client has the port and the leases, and hands over what it was told).
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Protocol

from b4client.model.lease6 import Binding6, Lease6
from b4client.protocol.counters import Counters
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Options


class Dhcp6Source(Protocol):
    """One WAN's DHCPv6 side. Times are boot-clock seconds; what the methods return is to be multicast."""

    @property
    def configures_wan(self) -> bool:
        """True when its leases are ours to put on the WAN; False when another program does."""

    @property
    def state(self) -> object:
        """Where it stands; the class's name is the state's."""

    @property
    def idle(self) -> bool:
        """True when it must be started."""

    @property
    def lease(self) -> Lease6:
        """Addresses and prefixes that may be used."""

    @property
    def binding(self) -> Binding6 | None:
        """What must be kept over restarts."""

    @property
    def waiting_for(self) -> str:
        """What it waits for, in words."""

    @property
    def problem(self) -> str | None:
        """Why a server refuses, in words."""

    def deadline(self) -> float | None:
        """When ``wake`` has something to do."""

    def start(self, now: float, *, opportunistic: bool = False) -> list[bytes]:
        """Begin, or begin anew."""

    def stop(self) -> None:
        """The link is gone."""

    def wake(self, now: float) -> list[bytes]:
        """Do what is due."""

    def received(self, data: bytes, now: float) -> Dhcp6Message | None:
        """The Reply in ``data`` when it answers us."""

    def renew(self, now: float) -> list[bytes]:
        """Renew the leases now, when nothing else is being asked."""

    def release(self, now: float) -> list[bytes]:
        """Give everything back and stay idle."""

    def decline(self, address: IPv6Address, now: float) -> list[bytes]:
        """Another host has this address."""


class NoLeases:
    """What a source has that leases nothing."""

    configures_wan = False
    lease = Lease6()
    binding: Binding6 | None = None
    problem: str | None = None

    def renew(self, _: float) -> list[bytes]:
        """Nothing to renew."""
        return []

    def release(self, _: float) -> list[bytes]:
        """Nothing to give back."""
        return []

    def decline(self, _address: IPv6Address, _now: float) -> list[bytes]:
        """Nothing to decline."""
        return []


class Waiting:
    """Nothing was handed over yet, or it has ended."""


class HandedOver(NoLeases):
    """What another DHCPv6 client hands over; it sends nothing and believes no datagram.

    ``take`` replaces everything. The prefixes end by themselves, and what was provisioned with them (RFC 7597 7.1
    [M-12]): the agent sees the lease become empty.
    """

    waiting_for = "another DHCPv6 client's information (b4client provision)"

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._lease = Lease6()
        self._message: Dhcp6Message | None = None

    @property
    def state(self) -> object:
        """``handed-over`` once something was."""
        return self if self._message is not None else Waiting()

    @property
    def idle(self) -> bool:
        """It need not be started."""
        return False

    @property
    def lease(self) -> Lease6:  # type: ignore[override]
        """The prefixes of the other client that are valid."""
        return self._lease

    @property
    def message(self) -> Dhcp6Message | None:
        """What was handed over, as the Reply that it came from; None when nothing was, or it has ended."""
        return self._message

    def take(self, options: Options, lease: Lease6) -> Dhcp6Message:
        """What the other client holds now."""
        self._lease = lease
        self._message = Dhcp6Message(MessageType.REPLY, 0, options)
        return self._message

    def deadline(self) -> float | None:
        """When the next lease ends."""
        due = min((item.valid_until for item in self._lease.every), default=float("inf"))
        return None if due == float("inf") else due

    def start(self, _: float, *, opportunistic: bool = False) -> list[bytes]:
        """Nothing is asked."""
        return []

    def stop(self) -> None:
        """What was handed over outlives a link that is down."""

    def wake(self, now: float) -> list[bytes]:
        """Drop what has ended."""
        held, self._lease = self._lease, self._lease.at(now)
        if held and not self._lease:
            self._message = None
        return []

    def received(self, _data: bytes, _now: float) -> Dhcp6Message | None:
        """Whatever it is, it answers the other client."""
        self._counters.count("drop-datagram-unexpected-type")
        return None
