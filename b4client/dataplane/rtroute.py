"""IPv4 routes through the softwire, the path to the BR, and what a delegated prefix leaves unreachable. Blocking;
raises DataplaneError."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Any

from b4client.dataplane import netlink
from b4client.model.errors import DataplaneError

SCOPE_LINK = 253
RTPROT_DHCP = 16
UNREACHABLE_METRIC = 2147483647
"""Behind every route that leads somewhere."""


def routes4(index: int) -> tuple[tuple[IPv4Network, int], ...]:
    """(destination, metric) of the main table's IPv4 unicast routes through an interface."""
    return tuple((destination, metric) for destination, metric, oif in _routes4() if oif == index)


def _routes4() -> list[tuple[IPv4Network, int, int | None]]:
    found = []
    for r in netlink.ask("list the routes", lambda ipr: ipr.get_routes(family=socket.AF_INET, table=254, type=1)):
        destination = IPv4Network((r.get_attr("RTA_DST") or "0.0.0.0", r["dst_len"]))  # noqa: S104
        found.append((destination, int(r.get_attr("RTA_PRIORITY") or 0), r.get_attr("RTA_OIF")))
    return found


def add_route4(name: str, destination: IPv4Network, metric: int) -> None:
    """Add a route through the softwire. Another one of the same destination and metric is the operator's: an error."""
    index = netlink.index_of(name)
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
    netlink.do(
        what,
        lambda ipr: ipr.route("add", dst=str(destination), oif=index, priority=metric, scope=SCOPE_LINK),
        fine=frozenset({errno.EEXIST}),
    )


def delete_route4(name: str, destination: IPv4Network, metric: int) -> None:
    """Remove a route of the softwire if it is there."""
    index = netlink.index_of(name)
    netlink.do(
        f"remove the route {destination}",
        # Without the scope pyroute2 asks for one of scope universe, and there is no such route.
        lambda ipr: ipr.route("del", dst=str(destination), oif=index, priority=metric, scope=SCOPE_LINK),
        fine=frozenset({errno.ESRCH}),
    )


def path_mtu(destination: IPv6Address) -> int | None:
    """IPv6 MTU of the route to ``destination`` in octets: learnt from the path, the route's own, or the link's.

    None when there is no route.
    """
    no_route = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
    with netlink.session():
        found = netlink.ask(
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
        links = netlink.ask(f"look at interface {oif}", lambda ipr: ipr.get_links(oif), fine=frozenset({errno.ENODEV}))
        return int(links[0].get_attr("IFLA_MTU")) if links else None


def _unreachable6(prefix: IPv6Network) -> dict[str, Any]:
    return {
        "dst": str(prefix),
        "family": socket.AF_INET6,
        "type": "unreachable",
        "priority": UNREACHABLE_METRIC,
        "oif": netlink.index_of("lo"),
        "proto": RTPROT_DHCP,
    }


def add_unreachable6(prefix: IPv6Network) -> bool:
    """Make what is not routed more precisely within a delegated prefix unreachable, so that it does not loop between
    here and the provider (RFC 7084 WPD-5). Returns False when it was so already."""
    done = netlink.do(
        f"make the rest of {prefix} unreachable",
        lambda ipr: (ipr.route("add", **_unreachable6(prefix)), True)[1],
        fine=frozenset({errno.EEXIST}),
    )
    return bool(done)


def delete_unreachable6(prefix: IPv6Network) -> None:
    """Remove the route of ``add_unreachable6`` if it is there."""
    netlink.do(
        f"remove the unreachable route of {prefix}",
        lambda ipr: ipr.route("del", **_unreachable6(prefix)),
        fine=frozenset({errno.ESRCH}),
    )
