"""The LAN of an IPv4 prefix that needs no NAT: the router's address there, made, kept and taken away.

With it come the connected route and the answers to ARP that hosts with addresses of the prefix need.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Interface

from b4client.dataplane import rtaddr, rtlink
from b4client.dataplane.memory import Memory
from b4client.dataplane.plan import LanPlan
from b4client.dataplane.undo import Undo

log = logging.getLogger("b4client.dataplane")


def ensure(lan: LanPlan | None, memory: Memory, save: Callable[[], None], undo: Undo) -> bool:
    """Make the LAN as ``lan`` wants, and take away what an earlier plan had there; True when something was done.

    A LAN that does not exist (yet) is no reason to do without the softwire: it is said once, and made when it appears.
    """
    changed = False
    wanted = [] if lan is None else [(lan.interface, str(lan.address))]
    missing = ""
    if lan is not None:
        link = rtlink.observe_link(lan.interface)
        if link is None:
            missing = lan.interface
        elif (lan.address.ip, lan.address.network.prefixlen) not in rtaddr.addresses4(link.index):
            if wanted[0] not in memory.lan_addresses:
                # Before it is there: whatever happens next, it is known to be ours.
                memory.lan_addresses = [*memory.lan_addresses, *wanted]
                save()
            _add(*wanted[0])
            undo.add(f"the address of {lan.interface}", partial(_delete, *wanted[0]))
            changed = True
    for interface, address in [pair for pair in memory.lan_addresses if pair not in wanted]:
        _delete(interface, address)
        undo.add(f"the address of {interface}", partial(_add, interface, address))
        memory.lan_addresses = [pair for pair in memory.lan_addresses if pair != (interface, address)]
        save()
        changed = True
    if missing and missing != memory.lan_missing:
        log.warning("%s does not exist: hosts with addresses of %s cannot be reached", missing, wanted[0][1])
    if missing != memory.lan_missing:
        memory.lan_missing = missing
        save()
    return changed


def remove(memory: Memory) -> None:
    """Take everything away. Raises DataplaneError."""
    for interface, address in memory.lan_addresses:
        _delete(interface, address)


def _add(interface: str, address: str) -> None:
    parsed = IPv4Interface(address)
    rtaddr.add_address4(interface, parsed.ip, prefixlen=parsed.network.prefixlen)


def _delete(interface: str, address: str) -> None:
    if rtlink.observe_link(interface) is not None:
        parsed = IPv4Interface(address)
        rtaddr.delete_address4(interface, parsed.ip, parsed.network.prefixlen)
