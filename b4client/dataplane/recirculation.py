"""Recirculation: how a new flow tries one range of the port set after the other until conntrack has given it a port.

One ``snat`` searches one range once, and nothing later in the same traversal can choose again; a packet whose range was
full is dropped when conntrack confirms it. So the first packet of a flow is copied (``dup``) into a veth pair before
``snat``::

    LAN ─► first try: range h ───────────────────────► softwire
                │ copy                                  ▲
                ▼                                       │
            sender ═veth═► receiver: is the flow confirmed? yes: drop the copy
                ▲                     no: it is the next try: range h + 1
                └──────── copy ◄──────┘   after the last range: refused, with an ICMP error

The copy lies in the queue of the same CPU until the original is through, and finds by then whether that one got a port.
Success is conntrack's own verdict, so there is no count that could be wrong; the price is one copy per new flow.

Where a copy keeps which try it is: in its destination MAC address, and nowhere else. ``dup`` sends it to a multicast
next hop, whose MAC address follows from the IPv4 address (RFC 1112 6.4) without ARP or neighbour entries: 16 bits of
our own, in a header that ends at the receiver. The fwmark, the conntrack mark and the DSCP stay the user's. One more
bit says that DF was clear, since ``dup`` sets it.

Pure: names, addresses and numbers only; ``ruleset`` makes the rules of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from b4client.model.portset import PortRange, PortSet

RECLAIMED_PORTS = 32
"""Only in its last 32 steps does the kernel's search take a port over from a connection in TIME_WAIT or CLOSE, so only
a range up to this size is searched for those entirely (NF_NAT_HARDER_THRESH in nf_nat_core.c)."""
EXHAUSTIVE_PORTS = 128
"""The kernel looks at every port of a range up to this size, at a sample of a larger one (nf_nat_core.c)."""
FEW_TRIES = 64
"""Ranges are not cut smaller than EXHAUSTIVE_PORTS when that makes more parts than this."""
MAX_TRIES = 256
"""Tries of one flow. Sets of more ranges than this are searched from a hashed start, this far."""
COPIES = IPv4Network("239.72.0.0/15")
"""Next hops of copies: 239.72.x.y is try x * 256 + y of a packet with DF, 239.73.x.y of one without."""
RECEIVER_ADDRESS = IPv4Address("192.0.0.8")
"""The IPv4 dummy address (RFC 7600 4.8): loose rp_filter drops on an interface without any address."""
LOOP_MTU = 65535
"""A first packet may be a reassembled one, and copies have DF set."""
NAME_MAX = 15


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """The veth pair of one softwire. Copies are sent into ``sender`` and come in at ``receiver``.

    ``hardware_address`` is that of both ends, and how the pair is known again; ``route`` leads through ``sender``, its
    ``metric`` differs between softwires. ``sysctls`` are (path below /proc/sys, value).
    """

    sender: str
    receiver: str
    hardware_address: str
    address: IPv4Address
    route: IPv4Network
    metric: int
    mtu: int
    sysctls: tuple[tuple[str, str], ...]


def loop_plan(device: str) -> LoopPlan:
    """The pair that belongs to the softwire ``device``: another device, other names, addresses and metric."""
    mark = zlib.crc32(device.encode())
    stem = device if len(device) <= NAME_MAX - 3 else f"{device[:4]}{mark:08x}"
    sender, receiver = f"{stem}-n0", f"{stem}-n1"
    return LoopPlan(
        sender=sender,
        receiver=receiver,
        # Locally administered, unicast.
        hardware_address=":".join(f"{o:02x}" for o in (0x02, 0xB4, *mark.to_bytes(4, "big"))),
        address=RECEIVER_ADDRESS,
        route=COPIES,
        metric=1024 + mark % 0xFFFF,
        mtu=LOOP_MTU,
        sysctls=(
            (f"net/ipv4/conf/{receiver}/forwarding", "1"),
            # Loose: a LAN source comes in here although its route points to the LAN. Larger than the operator's
            # "all" whatever that is, so it is what counts.
            (f"net/ipv4/conf/{receiver}/rp_filter", "2"),
            # This machine's own connections come in here as well.
            (f"net/ipv4/conf/{receiver}/accept_local", "1"),
            (f"net/ipv6/conf/{sender}/disable_ipv6", "1"),
            (f"net/ipv6/conf/{receiver}/disable_ipv6", "1"),
        ),
    )


def copy_address(number: int, *, df: bool) -> IPv4Address:
    """The next hop of the copy that is try ``number`` of a packet with or without DF.

    0 goes in the place of an original that has tried nothing yet; the last, MAX_TRIES at most, will not be tried any
    more. Raises ValueError outside 0..MAX_TRIES.
    """
    if not 0 <= number <= MAX_TRIES:
        raise ValueError(f"no try: {number}")
    return COPIES.network_address + ((0 if df else 1 << 16) + number)


def copy_mac(number: int, *, df: bool) -> str:
    """The destination MAC address of that copy."""
    return multicast_mac(copy_address(number, df=df))


def multicast_mac(group: IPv4Address) -> str:
    """RFC 1112 6.4: 01:00:5e and the low 23 bits."""
    return ":".join(f"{o:02x}" for o in (0x01, 0x00, 0x5E, *(int(group) & 0x7FFFFF).to_bytes(3, "big")))


def pieces(ports: PortSet, reserved: Iterable[int]) -> tuple[PortRange, ...]:
    """The ranges of ``ports`` without the ``reserved`` ports (of port forwards), ascending."""
    taken = sorted({p for p in reserved if p in ports})
    if not taken:
        return tuple(ports.ranges())
    return tuple(_cut_out(ports.ranges(), taken))


def _cut_out(ranges: Iterable[PortRange], taken: list[int]) -> Iterator[PortRange]:
    for whole in ranges:
        first = whole.first
        for port in (p for p in taken if p in whole):
            if first < port:
                yield PortRange(first, port - 1)
            first = port + 1
        if first <= whole.last:
            yield PortRange(first, whole.last)


def chunks(ranges: tuple[PortRange, ...]) -> tuple[PortRange, ...]:
    """``ranges`` cut so that the kernel searches each of them exhaustively, in at most MAX_TRIES parts if possible."""
    size = RECLAIMED_PORTS
    while True:
        cut = tuple(
            PortRange(first, min(first + size - 1, whole.last))
            for whole in ranges
            for first in range(whole.first, whole.last + 1, size)
        )
        limit = FEW_TRIES if size < EXHAUSTIVE_PORTS else MAX_TRIES
        if len(cut) <= limit or len(cut) == len(ranges):
            return cut
        size *= 2
