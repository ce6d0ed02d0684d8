"""Cables between namespaces, and what a namespace must have so that they behave like cables between machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from b4client.lab.netns import Namespace, ip_batch

NODE_SYSCTLS: Final = {
    "ipv4/ip_forward": 0,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    "ipv4/conf/default/send_redirects": 0,
    "ipv6/conf/all/disable_ipv6": 0,
    "ipv6/conf/default/disable_ipv6": 0,
    # Kea refuses tentative addresses, and nobody else is on these links.
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/accept_ra": 0,
    "ipv6/conf/default/addr_gen_mode": 0,
    # An interface that goes down and up again keeps its addresses, as with a cable that is pulled.
    "ipv6/conf/default/keep_addr_on_down": 1,
}
"""A new namespace may inherit the machine's settings: start from known ones."""


@dataclass(frozen=True, slots=True)
class Veth:
    """A cable: (node, interface) at both ends, with fixed MACs so that link-local addresses are predictable."""

    a: tuple[str, str]
    b: tuple[str, str]
    number: int

    def mac(self, end: int) -> str:
        """Hardware address of end 0 (a) or 1 (b)."""
        return f"02:00:{self.number >> 8:02x}:46:{self.number & 0xFF:02x}:{end:02x}"


def make_nodes(namespaces: Iterable[Namespace]) -> None:
    """Make the namespaces, with the sysctls of a node. Raises LabError."""
    made = list(namespaces)
    ip_batch(None, [f"netns add {namespace.name}" for namespace in made])
    for namespace in made:
        namespace.sysctl(NODE_SYSCTLS)


def lay(cables: Iterable[Veth], nodes: Mapping[str, Namespace]) -> None:
    """Lay the cables between ``nodes``. Raises LabError.

    Offloads are off: the lwAFTR reads whole packets from a raw socket. With segmentation offload a veth hands over
    64 KB super-packets, with checksum offload packets whose checksum is still to be computed, and with GRO packets that
    were joined: TCP through the raw socket then stands still. Real networks have none of these between machines.
    """
    for cable in cables:
        (a_node, a_if), (b_node, b_if) = cable.a, cable.b
        # Born inside the namespaces, both ends: the machine's own never sees them.
        ip_batch(
            nodes[a_node].name,
            [
                f"link add {a_if} address {cable.mac(0)} type veth "
                f"peer name {b_if} address {cable.mac(1)} netns {nodes[b_node].name}"
            ],
        )
        for node, interface in (cable.a, cable.b):
            nodes[node].run(
                *("ethtool", "-K", interface, "tso", "off", "gso", "off", "gro", "off", "tx", "off"), check=True
            )
