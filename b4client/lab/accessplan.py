"""What an access network with many customers shall be: settings, checked, and what follows from them. Pure.

Customer n has the IPv6 prefix 2001:db8:46:n::/64 and the address ::100 of it on the WAN. One IPv4 address is shared:

- **lw4o6, lab server**: whoever asks gets the next free port set of 192.0.2.1 (RFC 7618), one contiguous range.
- **lw4o6, Kea**: Kea cannot lease an address twice, so customer n has an address of its own, all with one port set.
- **MAP-E**: the /64 is the End-user prefix, and the EA bits in it are the PSID (RFC 7597 5.2): address and ports follow
  from the prefix, so that no DHCPv4 is spoken at all. DHCPv6 gives the rule (RFC 7598); the offset is 6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, Final

from b4client.lab.binding import Binding
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import LabError
from b4client.lab.nodes import BR
from b4client.lab.pools import SYSTEM_PORTS, usable_psids
from b4client.lab.site import check_prefix
from b4client.model.maprule import DEFAULT_OFFSET_LEN
from b4client.model.portset import PORT_BITS, PortSet

PREFIX_OPTION: Final = "--prefix"
MODES: Final = ("lw4o6", "map-e")
SERVERS: Final = ("lab", "kea")
ENCAPSULATIONS: Final = ("auto", "kernel", "userspace")
MAX_CUSTOMERS: Final = 250
ACCESS: Final = IPv6Network("2001:db8:46::/48")
ISP_WAN: Final = IPv6Interface((int(ACCESS.network_address) | 1, ACCESS.prefixlen))
SHARED_ADDRESS: Final = IPv4Address("192.0.2.1")
HOST: Final = 0x100
SUBNET_LEN: Final = 64


@dataclass(frozen=True, slots=True)
class AccessPlan:
    """What ``b4client lab up`` is asked for. ``sharing_ratio`` None: the smallest that fits. Raises LabError."""

    customers: int = 2
    sharing_ratio: int | None = None
    mode: str = "lw4o6"
    server: str = "lab"
    encapsulation: str = "auto"
    prefix: str = "b4lab"
    lease_s: int = 3600

    def __post_init__(self) -> None:
        check_prefix(self.prefix, PREFIX_OPTION)
        if not 1 <= self.customers <= MAX_CUSTOMERS:
            raise LabError(f"--customers: must be 1 to {MAX_CUSTOMERS}, not {self.customers}")
        ratio = self.sharing_ratio
        if ratio is None:
            return
        biggest = 1 << (PORT_BITS - self.offset_len)
        if not 2 <= ratio <= biggest or ratio & (ratio - 1):
            raise LabError(f"--sharing-ratio: must be a power of two from 2 to {biggest}, not {ratio}")
        room = self._room(ratio.bit_length() - 1)
        if self.customers > room and not self.own_addresses:
            why = (
                f"the sets with ports {SYSTEM_PORTS} are reserved"
                if self.mode == "lw4o6"
                else "PSID 0 is the router's own subnet"
            )
            raise LabError(
                f"--sharing-ratio {ratio} has room for {room} customers on one address ({why}), not for "
                f"{self.customers}: the ratio must be at least {1 << self._smallest_psid_len()}"
            )

    @property
    def own_addresses(self) -> bool:
        """True when each customer has an IPv4 address of its own."""
        return self.mode == "lw4o6" and self.server == "kea"

    @property
    def offset_len(self) -> int:
        """The offset of the port sets: none for lw4o6, RFC 7597's default for MAP-E."""
        return 0 if self.mode == "lw4o6" else DEFAULT_OFFSET_LEN

    @property
    def psid_len(self) -> int:
        """Bits of the PSID."""
        return self._smallest_psid_len() if self.sharing_ratio is None else self.sharing_ratio.bit_length() - 1

    def _room(self, psid_len: int) -> int:
        """How many customers fit on one address."""
        if self.mode == "map-e":
            return (1 << psid_len) - 1
        return len(usable_psids(self.offset_len, psid_len, (SYSTEM_PORTS,)))

    def _smallest_psid_len(self) -> int:
        wanted = self.customers
        return next(length for length in range(1, PORT_BITS + 1) if self._room(length) >= wanted)

    def wan(self, number: int) -> IPv6Interface:
        """The WAN address of customer ``number`` (1 is the first)."""
        subnet = int(ACCESS.network_address) | number << (128 - SUBNET_LEN)
        return IPv6Interface((subnet | HOST, SUBNET_LEN))

    @property
    def rule_prefix(self) -> IPv6Network:
        """The rule IPv6 prefix of MAP-E: what comes before the EA bits."""
        return IPv6Network((ACCESS.network_address, SUBNET_LEN - self.psid_len))

    @property
    def mapping_rule(self) -> str:
        """The mapping rule, as the lwAFTR reads it (``binding.parse_rule``)."""
        return f"{SHARED_ADDRESS}/32,v6={self.rule_prefix},ea={self.psid_len},a={self.offset_len}"

    @property
    def kea(self) -> KeaSettings:
        """What Kea shall serve."""
        timed = KeaSettings(
            first=SHARED_ADDRESS,
            last=SHARED_ADDRESS,
            valid_lifetime=self.lease_s,
            renew_timer=self.lease_s // 2,
            rebind_timer=self.lease_s * 7 // 8,
        )
        if self.mode == "map-e":
            return replace(
                timed,
                ports=None,
                option88="none",
                container="map-e",
                map_rule=f"0, {self.psid_len}, 32, {SHARED_ADDRESS}, {self.rule_prefix}",
            )
        ports = PortSet(self.offset_len, self.psid_len, usable_psids(0, self.psid_len, (SYSTEM_PORTS,))[0])
        return replace(timed, last=SHARED_ADDRESS + self.customers - 1, ports=ports)

    @property
    def lab_server(self) -> dict[str, Any]:
        """The configuration of the lab server (``serverconfig``), without its files."""
        dhcp6: dict[str, Any] = {"br": [str(BR)], "container": self.mode}
        if self.mode == "map-e":
            rule = {"ipv4": f"{SHARED_ADDRESS}/32", "ipv6": str(self.rule_prefix), "ea_len": self.psid_len}
            return {"interface": "wan", "rule": [rule], "dhcp6": {**dhcp6, "servers_4o6": "off"}}
        return {
            "interface": "wan",
            "shared": [{"first": str(SHARED_ADDRESS), "psid_len": self.psid_len, "offset": self.offset_len}],
            "lease": {"time": self.lease_s},
            "dhcp6": {**dhcp6, "servers_4o6": [str(ISP_WAN.ip)]},
        }


def binding_of(status: dict[str, Any]) -> Binding | None:
    """The binding that a client has, by its answer to ``status``; None while it has none."""
    softwire, dataplane = status.get("softwire") or {}, status.get("dataplane") or {}
    if not (softwire.get("installed") and dataplane.get("up")):
        return None
    ports = softwire["ports"]
    shared = None if ports is None else PortSet(ports["offset"], ports["psid_len"], ports["psid"])
    return Binding(IPv4Address(softwire["ipv4"]), shared, IPv6Address(softwire["binding_ipv6_addr"]))
