"""Which netlink notifications are about our softwire. Pure: octets in, yes or no out.

On a busy router most notifications are about others (a routing daemon's routes, the elements of a firewall's sets); a
look at the kernel for each of them would cost more than reading where they belong. In doubt the answer is yes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
_GROUP = {"link": 1, "ipv4-address": 5, "ipv4-route": 7, "ipv6-address": 9, "ipv4-netconf": 24, "ipv6-netconf": 25}
WAN_GROUPS = 1 << _GROUP["link"] - 1 | 1 << _GROUP["ipv6-address"] - 1
SOFTWIRE_GROUPS = sum(1 << group - 1 for group in _GROUP.values())
NFTABLES_GROUPS = 1 << 7 - 1

_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_DELADDR = 16, 17, 20, 21
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_NEWNETCONF, _RTM_DELNETCONF = 24, 25, 80, 81
_NFNL_SUBSYS_NFTABLES = 10
_HEADER_LEN = 16
_IFLA_IFNAME, _RTA_OIF, _NFTA_TABLE = 3, 4, 1
_ATTRIBUTE_TYPE = 0x3FFF


@dataclass(frozen=True, slots=True)
class Ours:
    """Devices by name, the softwire's index and the WAN's, and the nft table's name, the same in each family;
    ``lan_index`` is that of a LAN where an address of ours is."""

    devices: frozenset[str]
    index: int
    wan_index: int
    table: str
    lan_index: int = -1


def concerns(data: bytes, ours: Ours) -> bool:
    """True when one of the netlink messages in ``data`` may be about ``ours``."""
    offset = 0
    while offset + _HEADER_LEN <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < _HEADER_LEN or offset + length > len(data):
            return True  # cut off
        if _message_concerns(kind, data[offset + _HEADER_LEN : offset + length], ours):
            return True
        offset += (length + 3) & ~3
    return False


def _message_concerns(kind: int, body: bytes, ours: Ours) -> bool:
    if kind >> 8 == _NFNL_SUBSYS_NFTABLES:
        return _text(_attribute(body, 4, _NFTA_TABLE)) == ours.table
    if kind in (_RTM_NEWLINK, _RTM_DELLINK) and len(body) >= 16:
        return _number(body[4:8]) == ours.index or _text(_attribute(body, 16, _IFLA_IFNAME)) in ours.devices
    if kind == _RTM_NEWADDR and len(body) >= 8:
        # Router advertisements renew the WAN's addresses all the time; only one that goes can be ours.
        return _number(body[4:8]) == ours.index
    if kind == _RTM_DELADDR and len(body) >= 8:
        return _number(body[4:8]) in (ours.index, ours.wan_index, ours.lan_index)
    if kind in (_RTM_NEWROUTE, _RTM_DELROUTE) and len(body) >= 12:
        default = body[0] == socket.AF_INET and body[1] == 0
        return default or _number(_attribute(body, 12, _RTA_OIF)) == ours.index
    return kind in (_RTM_NEWNETCONF, _RTM_DELNETCONF)


def _attributes(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if length < 4:
            return
        yield kind & _ATTRIBUTE_TYPE, body[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _attribute(body: bytes, offset: int, wanted: int) -> bytes | None:
    return next((value for kind, value in _attributes(body, offset) if kind == wanted), None)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.rstrip(b"\0").decode("ascii", "replace")


def _number(value: bytes | None) -> int | None:
    return int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big") if value is not None else None
