"""Interfaces: the WAN as it is, the ip6tnl of a softwire, veth pairs. Blocking; raises DataplaneError."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from b4client.dataplane import netlink, rtaddr
from b4client.model.errors import DataplaneError

IFF_UP = 0x1
IFF_NOARP = 0x80
IFF_MULTICAST = 0x1000
IFF_LOWER_UP = 0x10000
NEXT_HEADER_IPIP = 4
IP6_TNL_F_IGN_ENCAP_LIMIT = 0x1
IP6_TNL_F_USE_ORIG_TCLASS = 0x2
IP6_TNL_F_RCV_DSCP_COPY = 0x10
_TUNNEL_FLAGS = IP6_TNL_F_IGN_ENCAP_LIMIT | IP6_TNL_F_USE_ORIG_TCLASS | IP6_TNL_F_RCV_DSCP_COPY
TUNNEL_HOP_LIMIT = 64


@dataclass(frozen=True, slots=True)
class LinkState:
    """An interface as it is. ``up`` means IFF_UP and carrier; ``addresses`` are the global and unique-local ones that
    may be used as a source now (not tentative, deprecated or failed), stable before temporary ones. ``elsewhere`` is
    what ``addresses6_elsewhere`` found, for who asked it."""

    index: int
    name: str
    kind: str | None
    up: bool
    mtu: int
    hardware_address: bytes | None
    link_local: IPv6Address | None
    addresses: tuple[IPv6Address, ...]
    elsewhere: tuple[IPv6Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A softwire device as the kernel has it; ``local``, ``remote`` and ``over`` (the index of the interface that it
    sends by) only for ip6tnl."""

    index: int
    kind: str | None
    up: bool
    mtu: int
    local: IPv6Address | None
    remote: IPv6Address | None
    ours: bool
    """True when its parameters (protocol, encapsulation limit, hop limit) are those that we set."""
    over: int | None = None
    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """One end of a veth pair. ``hardware_address`` as text, ``02:00:...``; ``silent`` is what ``silence`` makes it."""

    index: int
    kind: str | None
    silent: bool
    mtu: int
    hardware_address: str | None


def observe_link(name: str) -> LinkState | None:
    """The interface ``name`` as it is now; None when there is none."""
    with netlink.session():
        message = _link(name)
        if message is None:
            return None
        index = message["index"]
        link_local: IPv6Address | None = None
        stable: list[IPv6Address] = []
        temporary: list[IPv6Address] = []
        for address in rtaddr.list_addresses(name, index, socket.AF_INET6):
            value = rtaddr.usable_source(address)
            if value is None:
                continue
            if value.is_link_local:
                link_local = link_local or value
            elif address["scope"] == rtaddr.SCOPE_UNIVERSE:
                is_temporary = (address.get_attr("IFA_FLAGS") or address["flags"]) & rtaddr.IFA_F_TEMPORARY
                (temporary if is_temporary else stable).append(value)
        hardware = message.get_attr("IFLA_ADDRESS")
        flags = message["flags"]
        return LinkState(
            index=index,
            name=name,
            kind=_kind(message),
            up=bool(flags & IFF_UP and flags & IFF_LOWER_UP),
            mtu=message.get_attr("IFLA_MTU") or 0,
            hardware_address=bytes.fromhex(hardware.replace(":", ""))
            if hardware and message["ifi_type"] == 1
            else None,
            link_local=link_local,
            addresses=(*stable, *temporary),
        )


def observe_tunnel(name: str) -> Tunnel | None:
    """The softwire device ``name``; None when there is none."""
    message = _link(name)
    if message is None:
        return None
    kind = _kind(message)
    local = remote = over = None
    ours = kind == "tun"
    if kind == "ip6tnl":
        data = message.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
        local = IPv6Address(data.get_attr("IFLA_IP6TNL_LOCAL"))
        remote = IPv6Address(data.get_attr("IFLA_IP6TNL_REMOTE"))
        over = data.get_attr("IFLA_IP6TNL_LINK")
        flags = data.get_attr("IFLA_IP6TNL_FLAGS") or 0
        ours = (
            data.get_attr("IFLA_IP6TNL_PROTO") == NEXT_HEADER_IPIP
            and flags & _TUNNEL_FLAGS == _TUNNEL_FLAGS
            and data.get_attr("IFLA_IP6TNL_TTL") == TUNNEL_HOP_LIMIT
        )
    stats = message.get_attr("IFLA_STATS64") or {}
    return Tunnel(
        index=message["index"],
        kind=kind,
        up=bool(message["flags"] & IFF_UP),
        mtu=message.get_attr("IFLA_MTU") or 0,
        local=local,
        remote=remote,
        ours=ours,
        over=over,
        **{key: int(stats.get(key, 0)) for key in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")},
    )


def observe_end(name: str) -> End | None:
    """An interface of our own making as far as we set it; None when there is none."""
    message = _link(name)
    if message is None:
        return None
    return End(
        index=message["index"],
        kind=_kind(message),
        silent=message["flags"] & (IFF_UP | IFF_NOARP | IFF_MULTICAST) == IFF_UP | IFF_NOARP,
        mtu=message.get_attr("IFLA_MTU") or 0,
        hardware_address=message.get_attr("IFLA_ADDRESS"),
    )


def _link(name: str) -> Any | None:
    index = netlink.lookup(name)
    if index is None:
        return None
    gone = frozenset({errno.ENODEV})
    return next(iter(netlink.ask(f"look at {name}", lambda ipr: ipr.get_links(index), fine=gone)), None)


def _kind(message: Any) -> str | None:
    info = message.get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_KIND") if info else None


def create_ip6tnl(name: str, wan_index: int, local: IPv6Address, remote: IPv6Address, mtu: int) -> None:
    """Make the kernel's IPv4-in-IPv6 tunnel, plain IPv6 headers without encapsulation limit (RFC 2473 5.1), traffic
    class copied from the inner packet and to it (RFC 6333 7.1 [L-9])."""
    netlink.do(
        f"create the tunnel {name}",
        lambda ipr: ipr.link("add", ifname=name, **_tunnel(wan_index, local, remote), mtu=mtu),
    )


def change_ip6tnl(name: str, wan_index: int, local: IPv6Address, remote: IPv6Address) -> None:
    """Give an existing tunnel other end points, without taking it down."""
    index = netlink.index_of(name)
    netlink.do(
        f"change the tunnel {name}",
        lambda ipr: ipr.link("set", index=index, **_tunnel(wan_index, local, remote)),
    )


def _tunnel(wan_index: int, local: IPv6Address, remote: IPv6Address) -> dict[str, Any]:
    return {
        "kind": "ip6tnl",
        "ip6tnl_link": wan_index,
        "ip6tnl_local": str(local),
        "ip6tnl_remote": str(remote),
        "ip6tnl_proto": NEXT_HEADER_IPIP,
        "ip6tnl_ttl": TUNNEL_HOP_LIMIT,
        "ip6tnl_encap_limit": 0,
        "ip6tnl_flags": _TUNNEL_FLAGS,
    }


def has_ip6tnl() -> bool:
    """True when the kernel can make ip6tnl devices (loads the module where it is one). Leaves nothing behind."""
    name = "b4probe"
    ends = _tunnel(0, IPv6Address("100::1"), IPv6Address("100::2"))
    with netlink.session():
        try:
            # An index of our own makes the answer about this device alone, and RTM_NEWLINK is all or nothing.
            netlink.do("look for the ip6_tunnel driver", lambda ipr: ipr.link("add", ifname=name, **ends))
        except DataplaneError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
                return False
            if error.errno != errno.EEXIST:
                raise
        delete_link(name)
        return True


def create_veth(name: str, peer: str, hardware_address: str, mtu: int) -> None:
    """Make a veth pair, both ends with this MAC address and MTU; they are down."""
    end = {"mtu": mtu, "address": hardware_address}
    netlink.do(
        f"create the veth pair {name}",
        lambda ipr: ipr.link("add", ifname=name, kind="veth", peer={"ifname": peer, **end}, **end),
    )


def silence(name: str) -> None:
    """Bring a device up, without ARP and without multicast: nothing that looks for interfaces to announce itself on
    takes it."""
    index = netlink.index_of(name)
    change = IFF_UP | IFF_NOARP | IFF_MULTICAST
    netlink.do(f"set {name} up", lambda ipr: ipr.link("set", index=index, flags=IFF_UP | IFF_NOARP, change=change))


def set_link(name: str, *, up: bool | None = None, mtu: int | None = None) -> None:
    """Bring a device up or down, or set its MTU."""
    index = netlink.index_of(name)
    change: dict[str, Any] = {}
    if up is not None:
        change["state"] = "up" if up else "down"
    if mtu is not None:
        change["mtu"] = mtu
    netlink.do(f"set {name} {change}", lambda ipr: ipr.link("set", index=index, **change))


def delete_link(name: str) -> None:
    """Remove a device if it is there."""

    index = netlink.lookup(name)
    if index is not None:
        netlink.do(f"delete {name}", lambda ipr: ipr.link("del", index=index), fine=frozenset({errno.ENODEV}))
