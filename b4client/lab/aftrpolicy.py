"""What the RFCs leave to the operator of an lwAFTR. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

IPV6_MIN_MTU = 1280


class IcmpPolicy(enum.IntEnum):
    """Which ICMPv4 goes through, each with those before it ("SHOULD be configurable", RFC 7596 8.1)."""

    NONE = 0
    ERRORS = 1
    ECHO = 2
    """Errors by the packet they quote, echo by its identifier: RFC 7596 8.1 to the letter."""
    QUERIES = 3
    """Whatever has an identifier, so timestamps too: RFC 7597 8.2."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The switches. Raises ValueError for numbers that cannot be.

    ``reject``: ICMPv6 type 1 code 5 to softwires without binding; ``unreachable``: ICMPv4 type 3 code 1 to who sends to
    nobody (both MAY in RFC 7596 6.2; RFC 7597 8.1 wants silence). ``hairpin``: customers may talk to each other.
    ``honour_df``: RFC 2473 7.2, else fragments outside whatever DF says. ``link_mtu``: IPv6 MTU towards the softwires,
    in octets. The rates are ICMP messages a second, with as many at once; 0 is none.
    """

    reject: bool = False
    unreachable: bool = False
    hairpin: bool = True
    honour_df: bool = True
    icmp: IcmpPolicy = IcmpPolicy.ECHO
    link_mtu: int = 1500
    reject_rate: float = 10.0
    icmpv4_rate: float = 100.0

    def __post_init__(self) -> None:
        if not IPV6_MIN_MTU <= self.link_mtu <= 65575:
            raise ValueError(f"link_mtu: {self.link_mtu} is no MTU of an IPv6 link (at least {IPV6_MIN_MTU})")
        if not (0 <= self.reject_rate <= 1e6 and 0 <= self.icmpv4_rate <= 1e6):
            raise ValueError("reject_rate, icmpv4_rate: must be 0 to 1000000 a second")

    def changed(self, values: Mapping[str, Any]) -> Policy:
        """With other values, as ``to_json`` writes them; those that are not named stay. Raises ValueError."""
        changes: dict[str, Any] = {}
        for name, value in values.items():
            if name == "icmp":
                if not isinstance(value, str) or value.upper() not in IcmpPolicy.__members__:
                    raise ValueError(f"icmp: must be one of {', '.join(m.lower() for m in IcmpPolicy.__members__)}")
                changes[name] = IcmpPolicy[value.upper()]
            elif name not in {f.name for f in fields(self)}:
                raise ValueError(f"{name}: no such policy")
            else:
                number = name == "link_mtu" or name.endswith("_rate")
                kinds = (int,) if name == "link_mtu" else (int, float) if number else (bool,)
                if not isinstance(value, kinds) or (number and isinstance(value, bool)):
                    raise ValueError(f"{name}: must be {'a number' if number else 'true or false'}")
                changes[name] = value
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """By name, for the control socket."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"icmp": self.icmp.name.lower()}
