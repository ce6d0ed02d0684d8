"""Links, addresses and routes through rtnetlink: the only importer of pyroute2.

Works with pyroute2 0.7.2 (Debian 12) and 0.9. Blocking; never call it from the event loop. Opening a socket costs more
than asking through it, so what asks many questions does so inside a ``session``.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar

import tenacity

from b4client.model.errors import DataplaneError

IFF_UP = 0x1
IFF_NOARP = 0x80
IFF_MULTICAST = 0x1000
IFF_LOWER_UP = 0x10000
IFA_F_DADFAILED = 0x08
IFA_F_DEPRECATED = 0x20
IFA_F_TENTATIVE = 0x40
IFA_F_NOPREFIXROUTE = 0x200
IFA_F_OPTIMISTIC = 0x04
IFA_F_TEMPORARY = 0x01
SCOPE_UNIVERSE = 0
SCOPE_LINK = 253
SCOPE_HOST = 254
NEXT_HEADER_IPIP = 4
IP6_TNL_F_IGN_ENCAP_LIMIT = 0x1
IP6_TNL_F_USE_ORIG_TCLASS = 0x2
IP6_TNL_F_RCV_DSCP_COPY = 0x10
_TUNNEL_FLAGS = IP6_TNL_F_IGN_ENCAP_LIMIT | IP6_TNL_F_USE_ORIG_TCLASS | IP6_TNL_F_RCV_DSCP_COPY
TUNNEL_HOP_LIMIT = 64
DAD_WAIT_S = 5.0
RTPROT_DHCP = 16
UNREACHABLE_METRIC = 2147483647
"""Behind every route that leads somewhere."""
TRANSIENT = frozenset({errno.EBUSY, errno.ENOBUFS, errno.EAGAIN, errno.EINTR, -1})
"""-1 is pyroute2's NetlinkDumpInterrupted: something changed while it was listed."""

T = TypeVar("T")


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
    """A softwire device as the kernel has it; ``local`` and ``remote`` only for ip6tnl."""

    index: int
    kind: str | None
    up: bool
    mtu: int
    local: IPv6Address | None
    remote: IPv6Address | None
    ours: bool
    """True when its parameters (protocol, encapsulation limit, hop limit) are those that we set."""
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


@cache
def _pyroute2() -> Any:
    """pyroute2 at first use: it costs 100 ms and 20 MB, which `b4client status` need not pay."""
    try:
        import pyroute2
    except ImportError:
        raise DataplaneError(
            "load pyroute2", "not installed", remedy="apt install python3-pyroute2, or pip install pyroute2."
        ) from None
    return pyroute2


def netlink_error() -> Any:
    """pyroute2's exception class, for an ``except`` clause."""
    return _pyroute2().NetlinkError


def _transient(error: BaseException) -> bool:
    # A kernel's answer has a code; a socket that fails itself, as with ENOBUFS when its buffer ran over, an errno.
    return _code_of(error) in TRANSIENT


def _code_of(error: Any) -> int:
    return int(getattr(error, "code", 0) or getattr(error, "errno", 0) or 0)


def patiently(work: Callable[[], T]) -> T:
    """Do ``work`` again when netlink was busy or out of buffers."""
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_transient),
        stop=tenacity.stop_after_attempt(5),
        wait=tenacity.wait_exponential(0.02),
        reraise=True,
    )
    return retry(work)


def dataplane_error(what: str, error: Any) -> DataplaneError:
    """The kernel's no, in our words."""
    code = _code_of(error)
    text = str(error.args[-1]) if error.args else str(error)
    remedy = ""
    if code == errno.EPERM:
        remedy = "Run as root, or with CAP_NET_ADMIN."
    return DataplaneError(what, text, errno=code, remedy=remedy, transient=code in TRANSIENT)


class _Session(threading.local):
    depth = 0
    socket: Any = None


_session = _Session()


@contextmanager
def session() -> Iterator[None]:
    """One route socket for all that this thread does inside. It belongs to the network namespace it was opened in: do
    not change the thread's within. Sessions nest."""
    _session.depth += 1
    try:
        yield
    finally:
        _session.depth -= 1
        if _session.depth == 0 and _session.socket is not None:
            opened, _session.socket = _session.socket, None
            opened.close()


@contextmanager
def _route_socket() -> Iterator[Any]:
    with session():
        if _session.socket is None:
            _session.socket = _pyroute2().IPRoute()
        yield _session.socket


def _do(what: str, work: Callable[[Any], T], *, fine: frozenset[int] = frozenset()) -> T | None:
    """Run one netlink request; the errno values in ``fine`` mean that it was so already."""

    def attempt() -> T:
        with _route_socket() as ipr:
            try:
                return work(ipr)
            except OSError:
                # What it was still to read is of unknown state: the next request has a socket of its own.
                _session.socket = None
                ipr.close()
                raise

    with session():
        try:
            return patiently(attempt)
        except (_pyroute2().NetlinkError, OSError) as error:
            if _code_of(error) in fine:
                return None
            raise dataplane_error(what, error) from None


def _ask(what: str, question: Callable[[Any], Iterable[Any]], *, fine: frozenset[int] = frozenset()) -> list[Any]:
    """What netlink answers to a question, all of it; nothing for the errno values in ``fine``."""
    return _do(what, lambda ipr: list(question(ipr)), fine=fine) or []


# ---- looking


def observe_link(name: str) -> LinkState | None:
    """The interface ``name`` as it is now; None when there is none."""
    with session():
        message = _link(name)
        if message is None:
            return None
        index = message["index"]
        link_local: IPv6Address | None = None
        stable: list[IPv6Address] = []
        temporary: list[IPv6Address] = []
        for address in _addresses(name, index, socket.AF_INET6):
            value = _source(address)
            if value is None:
                continue
            if value.is_link_local:
                link_local = link_local or value
            elif address["scope"] == SCOPE_UNIVERSE:
                is_temporary = (address.get_attr("IFA_FLAGS") or address["flags"]) & IFA_F_TEMPORARY
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


def _source(address: Any) -> IPv6Address | None:
    """The address of a netlink message; None when it may not be used as a source now."""
    flags = address.get_attr("IFA_FLAGS") or address["flags"]
    if flags & (IFA_F_DADFAILED | IFA_F_DEPRECATED) or (flags & IFA_F_TENTATIVE and not flags & IFA_F_OPTIMISTIC):
        return None
    # For a point-to-point address IFA_ADDRESS is the peer's.
    return IPv6Address(address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"))


def addresses6_elsewhere(index: int) -> tuple[IPv6Address, ...]:
    """The global and unique-local addresses of all interfaces but this one that may be used as a source, sorted."""
    found = set()
    for address in _ask("list the addresses", lambda ipr: ipr.get_addr(family=socket.AF_INET6)):
        flags = address.get_attr("IFA_FLAGS") or address["flags"]
        if address["index"] != index and address["scope"] == SCOPE_UNIVERSE and not flags & IFA_F_TEMPORARY:
            found.add(_source(address))
    return tuple(sorted(a for a in found if a is not None))


def _link(name: str) -> Any | None:
    index = _lookup(name)
    if index is None:
        return None
    gone = frozenset({errno.ENODEV})
    return next(iter(_ask(f"look at {name}", lambda ipr: ipr.get_links(index), fine=gone)), None)


def _addresses(name: str, index: int, family: int) -> list[Any]:
    gone = frozenset({errno.ENODEV})
    return _ask(f"list the addresses of {name}", lambda ipr: ipr.get_addr(family=family, index=index), fine=gone)


def _lookup(name: str) -> int | None:
    """The index of an interface: by ioctl, a tenth of what a netlink request costs."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _kind(message: Any) -> str | None:
    info = message.get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_KIND") if info else None


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


def observe_tunnel(name: str) -> Tunnel | None:
    """The softwire device ``name``; None when there is none."""
    message = _link(name)
    if message is None:
        return None
    kind = _kind(message)
    local = remote = None
    ours = kind == "tun"
    if kind == "ip6tnl":
        data = message.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
        local = IPv6Address(data.get_attr("IFLA_IP6TNL_LOCAL"))
        remote = IPv6Address(data.get_attr("IFLA_IP6TNL_REMOTE"))
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
        **{key: int(stats.get(key, 0)) for key in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")},
    )


def addresses4(index: int) -> tuple[tuple[IPv4Address, int], ...]:
    """The IPv4 addresses of an interface with their prefix lengths."""
    return tuple(
        (IPv4Address(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")), a["prefixlen"])
        for a in _addresses(f"interface {index}", index, socket.AF_INET)
    )


def has_address6(index: int, address: IPv6Address) -> bool:
    """True when the interface has the address, tentative or not."""
    return any(
        IPv6Address(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")) == address
        for a in _addresses(f"interface {index}", index, socket.AF_INET6)
    )


def routes4(index: int) -> tuple[tuple[IPv4Network, int], ...]:
    """(destination, metric) of the main table's IPv4 unicast routes through an interface."""
    return tuple((destination, metric) for destination, metric, oif in _routes4() if oif == index)


def _routes4() -> list[tuple[IPv4Network, int, int | None]]:
    found = []
    for r in _ask("list the routes", lambda ipr: ipr.get_routes(family=socket.AF_INET, table=254, type=1)):
        destination = IPv4Network((r.get_attr("RTA_DST") or "0.0.0.0", r["dst_len"]))  # noqa: S104
        found.append((destination, int(r.get_attr("RTA_PRIORITY") or 0), r.get_attr("RTA_OIF")))
    return found


def path_mtu(destination: IPv6Address) -> int | None:
    """IPv6 MTU of the route to ``destination`` in octets: learnt from the path, the route's own, or the link's.

    None when there is no route.
    """
    no_route = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
    with session():
        found = _ask(
            f"look for the route to {destination}",
            lambda ipr: ipr.route("get", dst=str(destination), family=socket.AF_INET6),
            fine=no_route,
        )
        route = next(iter(found), None)
        if route is None or route["type"] not in (1, 2):
            return None
        metrics = route.get_attr("RTA_METRICS")
        learnt = metrics.get_attr("RTAX_MTU") if metrics else None
        if learnt:
            return int(learnt)
        oif = route.get_attr("RTA_OIF")
        links = _ask(f"look at interface {oif}", lambda ipr: ipr.get_links(oif), fine=frozenset({errno.ENODEV}))
        return int(links[0].get_attr("IFLA_MTU")) if links else None


# ---- changing


def create_ip6tnl(name: str, wan_index: int, local: IPv6Address, remote: IPv6Address, mtu: int) -> None:
    """Make the kernel's IPv4-in-IPv6 tunnel, plain IPv6 headers without encapsulation limit (RFC 2473 5.1), traffic
    class copied from the inner packet and to it (RFC 6333 7.1 [L-9])."""
    _do(
        f"create the tunnel {name}",
        lambda ipr: ipr.link("add", ifname=name, **_tunnel(wan_index, local, remote), mtu=mtu),
    )


def change_ip6tnl(name: str, wan_index: int, local: IPv6Address, remote: IPv6Address) -> None:
    """Give an existing tunnel other end points, without taking it down."""
    index = _index(name)
    _do(
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


def create_veth(name: str, peer: str, hardware_address: str, mtu: int) -> None:
    """Make a veth pair, both ends with this MAC address and MTU; they are down."""
    end = {"mtu": mtu, "address": hardware_address}
    _do(
        f"create the veth pair {name}",
        lambda ipr: ipr.link("add", ifname=name, kind="veth", peer={"ifname": peer, **end}, **end),
    )


def silence(name: str) -> None:
    """Bring a device up, without ARP and without multicast: nothing that looks for interfaces to announce itself on
    takes it."""
    index = _index(name)
    change = IFF_UP | IFF_NOARP | IFF_MULTICAST
    _do(f"set {name} up", lambda ipr: ipr.link("set", index=index, flags=IFF_UP | IFF_NOARP, change=change))


def has_ip6tnl() -> bool:
    """True when the kernel can make ip6tnl devices (loads the module where it is one). Leaves nothing behind."""
    name = "b4probe"
    ends = _tunnel(0, IPv6Address("100::1"), IPv6Address("100::2"))
    with session():
        try:
            # An index of our own makes the answer about this device alone, and RTM_NEWLINK is all or nothing.
            _do("look for the ip6_tunnel driver", lambda ipr: ipr.link("add", ifname=name, **ends))
        except DataplaneError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
                return False
            if error.errno != errno.EEXIST:
                raise
        delete_link(name)
        return True


def _index(name: str) -> int:
    index = _lookup(name)
    if index is None:
        raise DataplaneError(f"find {name}", "no such interface", errno=errno.ENODEV)
    return index


def delete_link(name: str) -> None:
    """Remove a device if it is there."""

    index = _lookup(name)
    if index is not None:
        _do(f"delete {name}", lambda ipr: ipr.link("del", index=index), fine=frozenset({errno.ENODEV}))


def set_link(name: str, *, up: bool | None = None, mtu: int | None = None) -> None:
    """Bring a device up or down, or set its MTU."""
    index = _index(name)
    change: dict[str, Any] = {}
    if up is not None:
        change["state"] = "up" if up else "down"
    if mtu is not None:
        change["mtu"] = mtu
    _do(f"set {name} {change}", lambda ipr: ipr.link("set", index=index, **change))


def add_address4(name: str, address: IPv4Address, *, prefixlen: int = 32, host_scope: bool = False) -> None:
    """Add an address. For a /32 of a device of ours the kernel sends no ARP: the device has none. ``host_scope`` keeps
    it from being chosen as a source."""
    index = _index(name)
    scope = {"scope": SCOPE_HOST} if host_scope else {}
    _do(
        f"add {address} to {name}",
        lambda ipr: ipr.addr("add", index=index, address=str(address), prefixlen=prefixlen, **scope),
        fine=frozenset({errno.EEXIST}),
    )


def delete_address4(name: str, address: IPv4Address, prefixlen: int) -> None:
    """Remove an address if it is there."""
    index = _index(name)
    _do(
        f"remove {address} from {name}",
        lambda ipr: ipr.addr("del", index=index, address=str(address), prefixlen=prefixlen),
        fine=frozenset({errno.EADDRNOTAVAIL}),
    )


def add_address6(name: str, address: IPv6Address) -> None:
    """Add our softwire address as a /128 and wait until duplicate address detection is through (RFC 4862 5.4).

    Raises DataplaneError when another host has it, or the wait is too long.
    """
    index = _index(name)
    _do(
        f"add {address} to {name}",
        lambda ipr: ipr.addr("add", index=index, address=str(address), prefixlen=128, family=socket.AF_INET6),
        fine=frozenset({errno.EEXIST}),
    )

    def flags() -> int:
        present = address6_flags(name, address)
        return IFA_F_DADFAILED if present is None else present

    retry = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda f: f & IFA_F_TENTATIVE and not f & IFA_F_DADFAILED),
        stop=tenacity.stop_after_delay(DAD_WAIT_S),
        wait=tenacity.wait_exponential(0.01, max=0.2),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else 0,
    )
    found = retry(flags)
    if found & (IFA_F_DADFAILED | IFA_F_TENTATIVE):
        delete_address6(name, address)
        reason = "another host has it already" if found & IFA_F_DADFAILED else "duplicate address detection did not end"
        raise DataplaneError(
            f"use {address} on {name}", reason, remedy="Check the delegated prefix and the BR's binding."
        )


def delete_address6(name: str, address: IPv6Address) -> None:
    """Remove our softwire address if it (and the interface) is there."""

    index = _lookup(name)
    if index is not None:
        _do(
            f"remove {address} from {name}",
            lambda ipr: ipr.addr("del", index=index, address=str(address), prefixlen=128, family=socket.AF_INET6),
            fine=frozenset({errno.EADDRNOTAVAIL, errno.ENODEV}),
        )


def lease_address6(name: str, address: IPv6Address, preferred_s: int, valid_s: int) -> None:
    """Give the interface a leased address as a /128, or the address its lifetimes (RFC 8415 18.2.10.1: an IA_NA makes
    nothing on-link). It is not waited for: look at ``address6_flags``."""
    index = _index(name)
    times = {"preferred": preferred_s, "valid": valid_s}
    _do(
        f"give {name} the address {address}",
        lambda ipr: ipr.addr(
            "replace",
            index=index,
            address=str(address),
            prefixlen=128,
            family=socket.AF_INET6,
            # pyroute2 0.7.2 reads the times here, 0.9 there.
            **times,
            cacheinfo=times,
        ),
    )


def address6_flags(name: str, address: IPv6Address) -> int | None:
    """The IFA_F flags of an address; None when it (or the interface) is not there."""
    index = _lookup(name)
    for a in _addresses(name, index, socket.AF_INET6) if index is not None else ():
        if IPv6Address(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")) == address:
            return int(a.get_attr("IFA_FLAGS") or a["flags"])
    return None


def _unreachable6(prefix: IPv6Network) -> dict[str, Any]:
    return {
        "dst": str(prefix),
        "family": socket.AF_INET6,
        "type": "unreachable",
        "priority": UNREACHABLE_METRIC,
        "oif": _index("lo"),
        "proto": RTPROT_DHCP,
    }


def add_unreachable6(prefix: IPv6Network) -> bool:
    """Make what is not routed more precisely within a delegated prefix unreachable, so that it does not loop between
    here and the provider (RFC 7084 WPD-5). Returns False when it was so already."""
    done = _do(
        f"make the rest of {prefix} unreachable",
        lambda ipr: (ipr.route("add", **_unreachable6(prefix)), True)[1],
        fine=frozenset({errno.EEXIST}),
    )
    return bool(done)


def delete_unreachable6(prefix: IPv6Network) -> None:
    """Remove the route of ``add_unreachable6`` if it is there."""
    _do(
        f"remove the unreachable route of {prefix}",
        lambda ipr: ipr.route("del", **_unreachable6(prefix)),
        fine=frozenset({errno.ESRCH}),
    )


def add_route4(name: str, destination: IPv4Network, metric: int) -> None:
    """Add a route through the softwire. Another one of the same destination and metric is the operator's: an error."""
    index = _index(name)
    what = f"add the route {destination} metric {metric} through {name}"
    for other, other_metric, oif in _routes4():
        if (other, other_metric) == (destination, metric) and oif != index:
            raise DataplaneError(
                what,
                "another route like it exists",
                errno=errno.EEXIST,
                remedy="Choose another softwire.route_metric, or set softwire.default_route = false.",
            )
    # "default" is refused by the kernel when it comes from pyroute2 0.9.
    _do(
        what,
        lambda ipr: ipr.route("add", dst=str(destination), oif=index, priority=metric, scope=SCOPE_LINK),
        fine=frozenset({errno.EEXIST}),
    )


def delete_route4(name: str, destination: IPv4Network, metric: int) -> None:
    """Remove a route of the softwire if it is there."""
    index = _index(name)
    _do(
        f"remove the route {destination}",
        # Without the scope pyroute2 asks for one of scope universe, and there is no such route.
        lambda ipr: ipr.route("del", dst=str(destination), oif=index, priority=metric, scope=SCOPE_LINK),
        fine=frozenset({errno.ESRCH}),
    )
