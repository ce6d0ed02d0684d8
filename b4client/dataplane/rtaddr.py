"""IPv4 and IPv6 addresses of interfaces. Blocking; raises DataplaneError."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import tenacity

from b4client.dataplane import netlink
from b4client.model.errors import DataplaneError

IFA_F_DADFAILED = 0x08
IFA_F_DEPRECATED = 0x20
IFA_F_TENTATIVE = 0x40
IFA_F_NOPREFIXROUTE = 0x200
IFA_F_OPTIMISTIC = 0x04
IFA_F_TEMPORARY = 0x01
SCOPE_UNIVERSE = 0
SCOPE_HOST = 254
DAD_WAIT_S = 5.0


def addresses4(index: int) -> tuple[tuple[IPv4Address, int], ...]:
    """The IPv4 addresses of an interface with their prefix lengths."""
    return tuple(
        (IPv4Address(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")), a["prefixlen"])
        for a in list_addresses(f"interface {index}", index, socket.AF_INET)
    )


def add_address4(name: str, address: IPv4Address, *, prefixlen: int = 32, host_scope: bool = False) -> None:
    """Add an address. For a /32 of a device of ours the kernel sends no ARP: the device has none. ``host_scope`` keeps
    it from being chosen as a source."""
    index = netlink.index_of(name)
    scope = {"scope": SCOPE_HOST} if host_scope else {}
    netlink.do(
        f"add {address} to {name}",
        lambda ipr: ipr.addr("add", index=index, address=str(address), prefixlen=prefixlen, **scope),
        fine=frozenset({errno.EEXIST}),
    )


def delete_address4(name: str, address: IPv4Address, prefixlen: int) -> None:
    """Remove an address if it is there."""
    index = netlink.index_of(name)
    netlink.do(
        f"remove {address} from {name}",
        lambda ipr: ipr.addr("del", index=index, address=str(address), prefixlen=prefixlen),
        fine=frozenset({errno.EADDRNOTAVAIL}),
    )


def addresses6_elsewhere(index: int) -> tuple[IPv6Address, ...]:
    """The global and unique-local addresses of all interfaces but this one that may be used as a source, sorted."""
    found = set()
    for address in netlink.ask("list the addresses", lambda ipr: ipr.get_addr(family=socket.AF_INET6)):
        flags = address.get_attr("IFA_FLAGS") or address["flags"]
        if address["index"] != index and address["scope"] == SCOPE_UNIVERSE and not flags & IFA_F_TEMPORARY:
            found.add(usable_source(address))
    return tuple(sorted(a for a in found if a is not None))


def has_address6(index: int, address: IPv6Address) -> bool:
    """True when the interface has the address, tentative or not."""
    return any(
        IPv6Address(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")) == address
        for a in list_addresses(f"interface {index}", index, socket.AF_INET6)
    )


def address6_flags(name: str, address: IPv6Address) -> int | None:
    """The IFA_F flags of an address; None when it (or the interface) is not there."""
    index = netlink.lookup(name)
    for a in list_addresses(name, index, socket.AF_INET6) if index is not None else ():
        if IPv6Address(a.get_attr("IFA_LOCAL") or a.get_attr("IFA_ADDRESS")) == address:
            return int(a.get_attr("IFA_FLAGS") or a["flags"])
    return None


def add_address6(name: str, address: IPv6Address) -> None:
    """Add our softwire address as a /128 and wait until duplicate address detection is through (RFC 4862 5.4).

    Raises DataplaneError when another host has it, or the wait is too long.
    """
    index = netlink.index_of(name)
    netlink.do(
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

    index = netlink.lookup(name)
    if index is not None:
        netlink.do(
            f"remove {address} from {name}",
            lambda ipr: ipr.addr("del", index=index, address=str(address), prefixlen=128, family=socket.AF_INET6),
            fine=frozenset({errno.EADDRNOTAVAIL, errno.ENODEV}),
        )


def lease_address6(name: str, address: IPv6Address, preferred_s: int, valid_s: int) -> None:
    """Give the interface a leased address as a /128, or the address its lifetimes (RFC 8415 18.2.10.1: an IA_NA makes
    nothing on-link). It is not waited for: look at ``address6_flags``."""
    index = netlink.index_of(name)
    times = {"preferred": preferred_s, "valid": valid_s}
    netlink.do(
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


def list_addresses(name: str, index: int, family: int) -> list[Any]:
    """pyroute2's messages of an interface's addresses; none when the interface is gone."""
    gone = frozenset({errno.ENODEV})
    return netlink.ask(f"list the addresses of {name}", lambda ipr: ipr.get_addr(family=family, index=index), fine=gone)


def usable_source(address: Any) -> IPv6Address | None:
    """The address of a netlink message; None when it may not be used as a source now."""
    flags = address.get_attr("IFA_FLAGS") or address["flags"]
    if flags & (IFA_F_DADFAILED | IFA_F_DEPRECATED) or (flags & IFA_F_TENTATIVE and not flags & IFA_F_OPTIMISTIC):
        return None
    # For a point-to-point address IFA_ADDRESS is the peer's.
    return IPv6Address(address.get_attr("IFA_LOCAL") or address.get_attr("IFA_ADDRESS"))
