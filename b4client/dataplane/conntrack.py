"""Conntrack entries through netlink: those of our NAT, found and deleted. Blocking."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address
from typing import Any

from b4client.dataplane import rtnl
from b4client.dataplane.ctdump import Flow
from b4client.model.portset import PortSet


def flush(address: IPv4Address, *, keep: PortSet | None = None) -> int:
    """Delete the entries that use the public ``address``, ours and nobody else's; returns how many.

    Those on ports of ``keep`` stay. RFC 7596 5.1 [L-4]: entries must go when the address or the PSID changes.
    """
    try:
        with _socket() as ct:
            return _flush(ct, address, keep)
    except (rtnl.netlink_error(), OSError) as error:
        raise rtnl.dataplane_error("flush the NAT table", error) from None


def _flush(ct: Any, address: IPv4Address, keep: PortSet | None) -> int:
    count = 0
    for entry in _of(ct, address):
        original, reply = entry.get_attr("CTA_TUPLE_ORIG"), entry.get_attr("CTA_TUPLE_REPLY")
        # Outbound flows have the address where replies go, inbound ones where they came to.
        public = reply if _ip(reply, "DST") == str(address) else original
        if _ip(public, "DST") != str(address) or (keep is not None and _public_port(public) in keep):
            continue
        try:
            ct.entry("del", tuple_orig=_tuple(original))
            count += 1
        except rtnl.netlink_error() as error:
            if error.code != errno.ENOENT:  # it ended by itself meanwhile
                raise
    return count


def delete(flow: Flow) -> bool:
    """Delete one entry; False when it has ended by itself meanwhile. Raises DataplaneError."""
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

    original = NFCTAttrTuple(
        saddr=socket.inet_ntoa(flow.source),
        daddr=socket.inet_ntoa(flow.destination),
        proto=flow.protocol,
        sport=flow.source_port,
        dport=flow.destination_port,
    )
    with _socket() as ct:
        try:
            ct.entry("del", tuple_orig=original)
        except rtnl.netlink_error() as error:
            if error.code != errno.ENOENT:
                raise rtnl.dataplane_error("flush the NAT table", error) from None
            return False
    return True


@contextmanager
def _socket() -> Iterator[Any]:
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

    ct = NFCTSocket()
    try:
        yield ct
    finally:
        ct.close()


def _of(ct: Any, address: IPv4Address) -> Iterator[Any]:
    """The entries of the address: the kernel filters, since a busy table has 100 000 others."""
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

    wanted = NFCTAttrTuple(daddr=str(address))
    for question in ({"tuple_reply": wanted}, {"tuple_orig": wanted}):
        yield from rtnl.patiently(partial(_dump, ct, question))


def _dump(ct: Any, question: dict[str, Any]) -> list[Any]:
    return list(ct.dump(**question))


def _tuple(original: Any) -> Any:
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

    proto = original.get_attr("CTA_TUPLE_PROTO")
    match: dict[str, Any] = {
        "saddr": _ip(original, "SRC"),
        "daddr": _ip(original, "DST"),
        "proto": proto.get_attr("CTA_PROTO_NUM"),
    }
    if match["proto"] == socket.IPPROTO_ICMP:
        names = {"icmp_id": "ICMP_ID", "icmp_type": "ICMP_TYPE", "icmp_code": "ICMP_CODE"}
    else:
        names = {"sport": "SRC_PORT", "dport": "DST_PORT"}
    match.update({name: proto.get_attr(f"CTA_PROTO_{attribute}") for name, attribute in names.items()})
    return NFCTAttrTuple(**match)


def _public_port(tuple_: Any) -> int:
    proto = tuple_.get_attr("CTA_TUPLE_PROTO")
    identifier = proto.get_attr("CTA_PROTO_ICMP_ID")
    port = proto.get_attr("CTA_PROTO_DST_PORT") if identifier is None else identifier
    return -1 if port is None else int(port)


def _ip(tuple_: Any, end: str) -> str | None:
    addresses = tuple_.get_attr("CTA_TUPLE_IP")
    return addresses.get_attr(f"CTA_IP_V4_{end}") if addresses else None
