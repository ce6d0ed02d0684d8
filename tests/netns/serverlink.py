"""A subscriber and a server on one link, each a network namespace: two addresses, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address

from b4client.lab.netns import Namespace, end_processes, ip, ip_batch

SERVER, SUBSCRIBER = IPv6Address("2001:db8:5::1"), IPv6Address("2001:db8:5::2")


@contextmanager
def server_link(prefix: str) -> Iterator[tuple[Namespace, Namespace]]:
    """(subscriber, server) with ``wan`` between them, gone afterwards with all that runs in them."""
    subscriber, server = Namespace(f"{prefix}-ls4"), Namespace(f"{prefix}-ls6")
    try:
        for namespace in (subscriber, server):
            ip("netns", "add", namespace.name)
            namespace.sysctl({"ipv6/conf/default/accept_dad": 0})
        ip("-n", subscriber.name, "link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", server.name)
        for namespace, address in ((subscriber, SUBSCRIBER), (server, SERVER)):
            ip_batch(namespace.name, ["link set lo up", "link set wan up", f"addr add {address}/64 dev wan nodad"])
        yield subscriber, server
    finally:
        end_processes([n for n in (subscriber, server) if n.exists])
        for namespace in (subscriber, server):
            if namespace.exists:
                ip("netns", "del", namespace.name)
