"""What a DHCPv6 Reply says about IPv4: option 88 and the S46 containers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TypeVar

from b4client.model.errors import WireError
from b4client.protocol.counters import Counters
from b4client.wire import dhcp4o6, softwire46
from b4client.wire.dhcp6 import Dhcp6Message, Option

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Provisioning:
    """The IPv4-related content of one Reply.

    ``servers_4o6`` is None when option 88 is absent (4o6 must not be used [F-1]), empty when it is there without
    addresses (multicast [F-3]). ``lw4o6`` and ``map_e`` are the containers that are valid; ``priority`` is option 111.
    ``problems`` are sentences about what was ignored.
    """

    servers_4o6: tuple[IPv6Address, ...] | None = None
    lw4o6: softwire46.Lw4o6Container | None = None
    map_e: softwire46.MapEContainer | None = None
    priority: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def brs(self) -> tuple[IPv6Address, ...]:
        """BR (lwAFTR) addresses, those of the lw4o6 container first."""
        found = (*(self.lw4o6.brs if self.lw4o6 else ()), *(self.map_e.brs if self.map_e else ()))
        return tuple(dict.fromkeys(found))


def read_reply(reply: Dhcp6Message, counters: Counters) -> Provisioning:
    """Read what a Reply provisions. A malformed part is counted, named in ``problems`` and otherwise as if absent."""
    problems: list[str] = []

    def read(value: bytes | None, name: str, counter: str, decode: Callable[[bytes], T]) -> T | None:
        if value is None:
            return None
        try:
            return decode(value)
        except WireError as error:
            # X-3 for option 88; RFC 7598 6 and 8 [M-13] for containers; RFC 8026 1.4 [F-13] for the priority.
            counters.count(counter)
            problems.append(f"{name} ignored: {error}")
            return None

    def container(code: Option, name: str, decode: Callable[[bytes], T]) -> T | None:
        """The first valid one: several may come, one for each domain (RFC 7598 5.1), and one domain is used."""
        values = (read(value, name, "ignored-container-malformed", decode) for value in reply.get_all(code))
        valid = [found for found in values if found is not None]
        if len(valid) > 1:
            counters.count("ignored-container-unsupported", len(valid) - 1)
            problems.append(f"{name}: the first of {len(valid)} domains is used")
        return valid[0] if valid else None

    if reply.get(Option.S46_CONT_MAPT) is not None:
        counters.count("ignored-container-unsupported")
        problems.append("MAP-T container (95) ignored: not implemented")
    return Provisioning(
        servers_4o6=read(
            reply.get(Option.DHCP4_O_DHCP6_SERVER), "option 88", "ignored-option88-malformed", dhcp4o6.decode_servers
        ),
        lw4o6=container(Option.S46_CONT_LW, "lw4o6 container (96)", softwire46.decode_lw4o6),
        map_e=container(Option.S46_CONT_MAPE, "MAP-E container (94)", softwire46.decode_mape),
        priority=read(
            reply.get(Option.S46_PRIORITY), "option 111", "ignored-priority-malformed", softwire46.decode_priority
        )
        or (),
        problems=tuple(problems),
    )
