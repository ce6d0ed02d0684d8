"""Identity associations: what we ask for in them, and what a Reply makes of the lease that we hold (RFC 8415 18.2.10).

Pure functions. What is malformed, contradicts itself or could not be used by any customer is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Network

from b4client.model.errors import WireError
from b4client.model.lease6 import Lease6, Leased6
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp6_exchange import FOREVER, INFINITY
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import (
    Dhcp6Message,
    IaAddress,
    IaPrefix,
    IdentityAssociation,
    Option,
    Options,
    StatusCode,
)

MAX_LEASES = 16
"""Addresses, and prefixes, that are kept; a server that sends more is not believed further."""
SHORTEST_PREFIX = 24
"""Nobody delegates more to a customer; the route that keeps a prefix from looping must not swallow the Internet."""
T1_SHARE, T2_SHARE = 0.5, 0.8
"""Of the shortest preferred lifetime, when the server leaves T1 and T2 to us (RFC 8415 21.4, 21.21)."""
MIN_T1_S = 5.0
"""A server cannot make us renew more often (RFC 8415 14.1)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask for: one IA_PD, or with ``address`` an IA_NA too, both of one ``iaid``. ``prefix_len`` is a hint."""

    iaid: int
    address: bool = False
    prefix: bool = True
    prefix_len: int | None = None

    @property
    def options(self) -> tuple[Option, ...]:
        """The IA options that are wanted."""
        return (*((Option.IA_NA,) if self.address else ()), *((Option.IA_PD,) if self.prefix else ()))


@dataclass(frozen=True, slots=True)
class Granted:
    """What a Reply or Advertise grants. ``lease`` is everything held afterwards; T1 and T2 are instants.

    ``updated`` is how many IAs brought a lease, ``no_binding`` whether an IA is unknown to the server, ``problem`` what
    it said about one that it did not grant.
    """

    lease: Lease6
    t1_at: float
    t2_at: float
    updated: int
    no_binding: bool
    problem: str | None


def ask_for(wanted: Wanted, lease: Lease6) -> Options:
    """The IA options of a message, with what is held or was offered. Times are 0: the server's to choose."""
    options: list[tuple[int, bytes]] = []
    for code in wanted.options:
        inside: Options
        if code == Option.IA_NA:
            inside = tuple(
                (int(Option.IAADDR), dhcp6.encode_iaaddr(IaAddress(item.address, 0, 0))) for item in lease.addresses
            )
        elif lease.prefixes or wanted.prefix_len is None:
            inside = tuple(_prefix(item.network) for item in lease.prefixes)
        else:
            inside = (_prefix(IPv6Network((0, wanted.prefix_len))),)
        options.append((int(code), dhcp6.encode_ia(IdentityAssociation(wanted.iaid, 0, 0, inside))))
    return tuple(options)


def _prefix(network: IPv6Network) -> tuple[int, bytes]:
    return int(Option.IAPREFIX), dhcp6.encode_iaprefix(IaPrefix(network, 0, 0))


def ask_again(wanted: Wanted, lease: Lease6, *, prefixes: bool = True) -> Options:
    """IA options with exactly what is held: for Confirm (addresses only), Release and Decline (RFC 8415 18.2.3, 18.2.7,
    18.2.8), which name nothing that is only wished for."""
    held = Lease6(lease.addresses, lease.prefixes if prefixes else ())
    only = Wanted(wanted.iaid, bool(held.addresses), bool(held.prefixes))
    return ask_for(only, held)


def read_leases(message: Dhcp6Message, wanted: Wanted, held: Lease6, now: float, counters: Counters) -> Granted:
    """What ``message`` makes of ``held`` (RFC 8415 18.2.10.1): leases are added, their times replaced, those of a valid
    lifetime of 0 dropped, those that it does not name left as they are."""
    addresses = {item.network: item for item in held.addresses}
    prefixes = {item.network: item for item in held.prefixes}
    t1s: list[int] = []
    t2s: list[int] = []
    updated, no_binding = 0, False
    problem: str | None = None
    for code in wanted.options:
        for value in message.get_all(code):
            try:
                ia = dhcp6.decode_ia(value)
                if ia.iaid != wanted.iaid:
                    continue
                status, text = ia.status()
                said = ia.addresses() if code == Option.IA_NA else ia.prefixes()
            except WireError:
                counters.count("ignored-ia-malformed")
                continue
            if status != StatusCode.SUCCESS:
                no_binding = no_binding or status == StatusCode.NO_BINDING
                problem = _in_words(code, status, text)
                continue
            if not ia.consistent:
                counters.count("ignored-ia-malformed")  # T1 beyond T2: the whole IA is as if absent
                continue
            taken = _take(said, addresses if code == Option.IA_NA else prefixes, now, counters)
            if taken:
                updated += 1
                t1s.append(ia.t1)
                t2s.append(ia.t2)
    lease = Lease6(tuple(addresses.values()), tuple(prefixes.values()))
    if updated < bool(addresses) + bool(prefixes):
        t1s.append(0)  # an IA that was not renewed must be, whatever the other one's T1 allows
        t2s.append(0)
    t1_at, t2_at = _renewal(lease, t1s, t2s, now)
    return Granted(lease, t1_at, t2_at, updated, no_binding, problem)


def _take(
    said: Iterable[IaAddress | IaPrefix], held: dict[IPv6Network, Leased6], now: float, counters: Counters
) -> int:
    """Enter what one IA says into ``held``; how many leases with a lifetime it brought."""
    brought = 0
    for item in said:
        network = item.prefix if isinstance(item, IaPrefix) else IPv6Network(item.address)
        if not item.consistent or not _usable(network):
            counters.count("ignored-lease6-unusable")
        elif item.valid == 0:
            held.pop(network, None)
        elif network not in held and len(held) >= MAX_LEASES:
            counters.count("ignored-lease6-unusable")
        else:
            # Re-entered at its place in the server's order, which is the order of preference among equals.
            held.pop(network, None)
            held[network] = Leased6(network, _until(item.preferred, now), _until(item.valid, now))
            brought += 1
    return brought


def _usable(network: IPv6Network) -> bool:
    """True for unicast of wider scope than the link, and no more of it than a customer is delegated."""
    address = network.network_address
    return network.prefixlen >= SHORTEST_PREFIX and not (
        address.is_multicast or address.is_link_local or address.is_loopback or address.is_unspecified
    )


def _until(seconds: int, now: float) -> float:
    return FOREVER if seconds == INFINITY else now + seconds


def _renewal(lease: Lease6, t1s: list[int], t2s: list[int], now: float) -> tuple[float, float]:
    """T1 and T2: the earliest of all IAs (RFC 8415 18.2.4), shares of the shortest lifetime where they are ours to
    choose, never beyond the end of a lease, and T1 not sooner than MIN_T1_S where the lease lasts that long."""
    if not lease:
        return FOREVER, FOREVER
    valid_s = min(item.valid_until for item in lease.every) - now
    preferred_s = min((item.preferred_until - now for item in lease.every if item.preferred_until > now), default=0.0)
    basis_s = preferred_s or valid_s

    def earliest(given: list[int], share: float) -> float:
        times = [FOREVER if t == INFINITY else float(t) if t else basis_s * share for t in given]
        return min([*times, valid_s])

    t1_s, t2_s = earliest(t1s, T1_SHARE), earliest(t2s, T2_SHARE)
    t1_s = max(min(t1_s, t2_s), min(MIN_T1_S, valid_s / 2))
    return now + t1_s, now + max(t1_s, t2_s)


_KIND = {Option.IA_NA: "an address", Option.IA_PD: "a prefix"}
_MEANING: dict[int, str] = {
    StatusCode.NO_ADDRS_AVAIL: "has none to give (NoAddrsAvail)",
    StatusCode.NO_PREFIX_AVAIL: "has none to delegate (NoPrefixAvail)",
    StatusCode.NO_BINDING: "knows nothing of ours (NoBinding)",
    StatusCode.NOT_ON_LINK: "says that ours is not of this link (NotOnLink)",
}


def _in_words(code: Option, status: int, text: str) -> str:
    meaning = _MEANING.get(status)
    said = f': "{text}"' if text else ""
    return f"the DHCPv6 server, asked for {_KIND[code]}, {meaning or f'answered with status {status}'}{said}"
