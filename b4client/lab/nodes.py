"""The roles of a laboratory's namespaces, their addresses, and how each is set up: LAN host, CPE, ISP, lwAFTR, server.

Interfaces: LAN host ``eth0``; CPE ``lan`` and ``wan``; ISP ``wan`` and ``core``; lwAFTR ``core`` and ``inet``;
server ``eth0``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface
from typing import Final

from b4client.lab.cable import Veth, lay, make_nodes
from b4client.lab.netns import Namespace, ip_batch

LAN_HOST: Final = IPv4Address("192.168.1.10")
CPE_LAN: Final = IPv4Address("192.168.1.1")
ISP_LINK_LOCAL: Final = IPv6Address("fe80::1")
ISP_CORE: Final = IPv6Interface("2001:db8:ffff::ffff/64")
BR: Final = IPv6Address("2001:db8:ffff::1")
AFTR_INET: Final = IPv4Address("198.51.100.1")
SERVER: Final = IPv4Address("198.51.100.10")
POOL: Final = IPv4Network("192.0.2.0/24")
KEA_IPV4: Final = IPv4Address("203.0.113.53")
"""kea-dhcp4 needs an IPv4 address on its interface; it becomes the server identifier (option 54)."""
LO_UP: Final = "link set lo up"


def set_up_lan_host(namespace: Namespace) -> None:
    """192.168.1.10 behind the CPE; no IPv6."""
    namespace.sysctl({"ipv6/conf/eth0/disable_ipv6": 1})
    ip_batch(
        namespace.name,
        [LO_UP, f"addr add {LAN_HOST}/24 dev eth0", "link set eth0 up", f"route add default via {CPE_LAN}"],
    )


def set_up_cpe(namespace: Namespace, address: IPv6Interface) -> None:
    """192.168.1.1 towards the LAN; ``address`` on the WAN."""
    namespace.sysctl({"ipv6/conf/lan/disable_ipv6": 1, "ipv6/conf/all/forwarding": 1})
    ip_batch(
        namespace.name,
        [LO_UP, f"addr add {CPE_LAN}/24 dev lan", "link set lan up", "link set wan up", *wan_address(address)],
    )


def wan_address(address: IPv6Interface) -> list[str]:
    """The ``ip`` commands that give a CPE its IPv6 address and default route, as the access network does."""
    return [f"addr replace {address} dev wan nodad", f"route replace default via {ISP_LINK_LOCAL} dev wan"]


def set_up_isp(namespace: Namespace, address: IPv6Interface) -> None:
    """The router between access network (``address``) and lwAFTR; the DHCP servers live here."""
    namespace.sysctl({"ipv6/conf/all/forwarding": 1})
    open_access(namespace, address)
    ip_batch(namespace.name, [LO_UP, f"addr add {ISP_CORE} dev core nodad", "link set core up"])


def open_access(namespace: Namespace, address: IPv6Interface) -> None:
    """The router's end of the access network."""
    # One link-local address only: Kea opens a socket for each, and would answer a multicast once per socket.
    namespace.sysctl({"ipv6/conf/wan/addr_gen_mode": 1})
    ip_batch(namespace.name, [f"addr add {KEA_IPV4}/32 dev wan", *isp_wan_addresses(address), "link set wan up"])


def isp_wan_addresses(address: IPv6Interface) -> list[str]:
    """The ``ip`` commands for the router's addresses in the access network."""
    return [f"addr replace {a} dev wan nodad" for a in (address, f"{ISP_LINK_LOCAL}/64")]


def set_up_core(aftr: Namespace, server: Namespace) -> None:
    """lwAFTR and IPv4 server; ``POOL`` is behind the lwAFTR."""
    for namespace, interface in ((aftr, "inet"), (server, "eth0")):
        namespace.sysctl({f"ipv6/conf/{interface}/disable_ipv6": 1})
    aftr.sysctl({"ipv4/ip_forward": 1})
    ip_batch(
        aftr.name,
        [
            LO_UP,
            f"addr add {BR}/{ISP_CORE.network.prefixlen} dev core nodad",
            f"addr add {AFTR_INET}/24 dev inet",
            "link set core up",
            "link set inet up",
            f"route add default via {ISP_CORE.ip}",
        ],
    )
    ip_batch(
        server.name,
        [LO_UP, f"addr add {SERVER}/24 dev eth0", "link set eth0 up", f"route add {POOL} via {AFTR_INET}"],
    )


def set_up_line(
    nodes: Mapping[str, Namespace], cables: Iterable[Veth], cpe_wan: IPv6Interface, isp_wan: IPv6Interface
) -> None:
    """Make ``nodes`` with ``cables`` between them; set up ``lan``, ``cpe``, ``isp``, ``aftr`` and ``srv`` of them."""
    make_nodes(nodes.values())
    lay(cables, nodes)
    set_up_lan_host(nodes["lan"])
    set_up_cpe(nodes["cpe"], cpe_wan)
    set_up_isp(nodes["isp"], isp_wan)
    set_up_core(nodes["aftr"], nodes["srv"])
