"""The rules that give a new flow its port: maps of ranges, tries, and what becomes of copies that come back. Pure.

The part of ``ruleset`` that decides how well a port set is used; ``recirculation`` says how it works.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from b4client.dataplane.recirculation import (
    COPIES,
    MAX_TRIES,
    LoopPlan,
    chunks,
    copy_address,
    copy_mac,
    multicast_mac,
)
from b4client.model.portset import PortRange

PORT_PROTOCOLS = "{ tcp, udp, udplite, dccp, sctp }"
TRANSLATED = "{ tcp, udp, udplite, dccp, sctp, icmp }"
RETRIED = "{ tcp, udp, icmp }"
"""The others are few, and a kernel that cannot translate them would make every packet of theirs try every range."""
HASH_SEED = 0x5EED
UDP_RETRY_S = 5
FULL_S = 1
"""How long a destination towards which the whole set is in use answers for later flows, without tries of their own."""
DYNAMIC_SIZE = 4096
COPY_KEY = "@ll,16,32"
"""The last four octets of the destination MAC address. Not ``ether daddr``: that asks for the type of the incoming
interface, and in postrouting the kernel (6.18) answers with the outgoing one's, which has no Ethernet."""


def quoted(interface: str) -> str:
    """An interface name as nft text. Raises ValueError for what is none."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}", interface):
        raise ValueError(f"not an interface name: {interface!r}")
    return f'"{interface}"'


@dataclass(frozen=True, slots=True)
class PortChoice:
    """Source NAT of one softwire. ``device`` is quoted; ``ranges`` None means an address that is not shared.

    ``ranges`` may be empty: every port of the set is forwarded. ``loop`` None does without recirculation.
    """

    device: str
    address: IPv4Address
    ranges: tuple[PortRange, ...] | None
    forwards: bool
    loop: LoopPlan | None

    @property
    def _recirculates(self) -> bool:
        return self.loop is not None and bool(self.ranges)

    @property
    def _chunks(self) -> tuple[PortRange, ...]:
        return chunks(self.ranges or ())

    @property
    def _mapped(self) -> tuple[PortRange, ...]:
        """What a flow is led to by its hash."""
        return self._chunks if self._recirculates else self.ranges or ()

    @property
    def _tries(self) -> int:
        return min(len(self._chunks), MAX_TRIES)

    @property
    def _sender(self) -> str:
        return quoted(self.loop.sender) if self.loop else ""

    @property
    def _receiver(self) -> str:
        return quoted(self.loop.receiver) if self.loop else ""

    # ---- maps

    def maps(self) -> list[str]:
        """Maps from an index to a range, and the sets that remember for seconds."""
        if not self.ranges:
            return []
        lines = []
        n = len(self._mapped)
        if n > 1:
            # A hash plus the number of the try runs past the last chunk: then it starts again at the first.
            lines += self._map(n + self._tries - 1 if self._recirculates else n, n)
        if len(self.ranges) > 1:
            lines += [
                "  set udp_tried {",
                "    type ipv4_addr . inet_service . ipv4_addr . inet_service",
                f"    size {DYNAMIC_SIZE}; flags dynamic, timeout; timeout {UDP_RETRY_S}s",
                "  }",
            ]
        if self._recirculates:
            lines += [
                "  set full {",
                "    type inet_proto . ipv4_addr . inet_service",
                f"    size {DYNAMIC_SIZE}; flags dynamic, timeout; timeout {FULL_S}s",
                "  }",
            ]
        return lines

    def _map(self, count: int, targets: int) -> list[str]:
        # A map to address and range would need no chains, but nft 1.0.6 lists one as what it cannot read: whoever keeps
        # a listing for the next boot would boot without a firewall.
        elements = ", ".join(f"{i} : goto range_{i % targets}" for i in range(count))
        return [
            "  map ranges {",
            "    typeof numgen inc mod 2 : verdict",
            f"    elements = {{ {elements} }}",
            "  }",
        ]

    def _range_chains(self) -> list[str]:
        """One chain for each range that the map leads to: a new flow gets a port of it, or none."""
        targets = self._mapped
        if len(targets) < 2:
            return []
        lines = ["  # one range each; dropped when all of it is in use towards the flow's destination"]
        for i, piece in enumerate(targets):
            lines += [
                f"  chain range_{i} {{",
                f"    meta l4proto {TRANSLATED} snat ip to {self.address}:{piece}",
                "  }",
            ]
        return lines

    # ---- copies that come back from the loop

    @property
    def not_a_copy(self) -> str:
        """A match for what is no copy: the original has passed what is matched with it."""
        return f"iifname != {self._receiver} " if self._recirculates else ""

    def prerouting(self) -> list[str]:
        """Rules of the filter chain in prerouting."""
        return [f"    iifname {self._receiver} goto copy"] if self._recirculates else []

    def copies(self) -> list[str]:
        """The chains that receive a copy: dropped when its flow has a port by now, else made what the original was."""
        if not self._recirculates:
            return []
        return [
            "  # a copy from the loop: of no use when the original got a port; else the next try",
            "  chain copy {",
            "    ct status & confirmed == confirmed drop",
            f"    ether daddr & ff:ff:ff:fe:00:00 != {multicast_mac(COPIES.network_address)} drop",
            "    meta pkttype set host",
            "    ether daddr & 00:00:00:01:00:00 != 0 ip frag-off set ip frag-off & 0xbfff",
            "    # being forwarded once more costs a hop; 1.0.6 cannot add 1",
            "    ip ttl 63 ip ttl set 64 counter name retries accept",
            "    ip ttl 64 ip ttl set 65 counter name retries accept",
            "    ip ttl 127 ip ttl set 128 counter name retries accept",
            "    ip ttl > 40 ip ttl set 64",
            "    counter name retries accept",
            "  }",
        ]

    def forward_new(self) -> list[str]:
        """Rules for a new flow on its way out: refuse at once what has no chance."""
        if not self._recirculates:
            return []
        last = ", ".join(_key(self._tries, df=df) for df in (True, False))
        return [
            "    ct status & confirmed == confirmed accept",
            f"    iifname {self._receiver} {COPY_KEY} {{ {last} }} goto exhausted",
            f"    iifname != {self._receiver} meta l4proto . ip daddr . th dport @full goto refused",
        ]

    def refusals(self, prefix: str) -> list[str]:
        """Chains that end a flow for which there is no port. ``prefix`` begins the line in the kernel log."""
        if not self._recirculates:
            return []
        return [
            "  # all tries failed",
            "  chain exhausted {",
            "    meta l4proto { tcp, udp } update @full { meta l4proto . ip daddr . th dport }",
            "    counter name exhausted",
            f'    limit rate 1/minute burst 3 packets log prefix "{prefix}: port set exhausted: "',
            "    goto refuse",
            "  }",
            "  chain refused {",
            "    counter name refused",
            "    goto refuse",
            "  }",
            "  # host-unreachable would not be heard by a connected UDP socket. The kernel sends a host one ICMP error",
            "  # per second (icmp_ratelimit, RFC 1812 4.3.2.8): TCP above that is reset, so that no connect() hangs.",
            "  chain refuse {",
            "    limit rate 1/second burst 4 packets reject with icmp admin-prohibited",
            "    meta l4proto tcp reject with tcp reset",
            "    reject with icmp admin-prohibited",
            "  }",
        ]

    # ---- choosing

    def source_nat(self, routed: IPv4Network | None = None) -> list[str]:
        """The source NAT chains; only the first packet of a flow comes here. Hosts of ``routed`` stay as they are."""
        return [
            "  # source NAT of new flows; only the first packet of a flow comes here",
            "  chain source_nat {",
            "    type nat hook postrouting priority srcnat - 1; policy accept;",
            *(
                []
                if routed is None
                else [f"    oifname {self.device} ip saddr {routed} ip saddr != {self.address} accept"]
            ),
            f"    oifname {self.device} goto choose_port",
            *(
                [f"    iifname != {self.device} ct status dnat ct original ip daddr {self.address} goto choose_once"]
                if self.forwards
                else []
            ),
            "  }",
            "  chain choose_port {",
            *(["    snat ip to ip saddr . meta l4proto . th sport map @fwd_out"] if self.forwards else []),
            "    meta l4proto icmp icmp type != echo-request counter name out_drop drop",
            *self._recirculate(),
            "    goto choose_once",
            "  }",
            "  # one try, for what the loop is not for: the sender's next packet is another",
            "  chain choose_once {",
            *self._once(),
            "    counter name out_drop drop",
            "  }",
            *self._range_chains(),
            *self._try_chains(),
        ]

    def _once(self) -> list[str]:
        everything = f"meta l4proto {TRANSLATED}"
        if self.ranges is None:
            return [f"    {everything} snat ip to {self.address}"]
        if not self.ranges:
            return []
        if len(self.ranges) == 1:
            return [f"    {everything} snat ip to {self.address}:{self.ranges[0]}"]
        n = len(self._mapped)
        tried = "ip saddr . th sport . ip daddr . th dport"
        return [
            "    # UDP: the same inner endpoint keeps its outer port; "
            "when that range is full a second try goes elsewhere",
            f"    meta l4proto {{ udp, udplite }} {tried} != @udp_tried add @udp_tried {{ {tried} }} "
            f"jhash ip saddr . th sport mod {n} seed {HASH_SEED:#x} vmap @ranges",
            f"    {everything} numgen random mod {n} vmap @ranges",
        ]

    def _recirculate(self) -> list[str]:
        if not self._recirculates:
            return []
        to_first, to_local = (
            ", ".join(f"{value} : {copy_address(number, df=df)}" for value, df in (("0x4000", True), ("0x0", False)))
            for number in (1, 0)
        )
        return [
            f"    iifname {self._receiver} goto choose_again",
            "    # A copy knows its flow by the addresses that it shows: not those from before another NAT.",
            "    ct status & dnat == dnat goto choose_once",
            "    # In process context the copy is through before the original is: so it goes in the original's place.",
            "    # TCP does not mind; UDP would be told EPERM.",
            f"    fib saddr type local meta l4proto tcp dup to ip frag-off & 0x4000 map {{ {to_local} }} "
            f"device {self._sender} drop",
            "    fib saddr type local goto choose_once",
            f"    meta l4proto {RETRIED} dup to ip frag-off & 0x4000 map {{ {to_first} }} "
            f"device {self._sender} goto try_0",
        ]

    def _try_chains(self) -> list[str]:
        if not self._recirculates:
            return []
        numbers = range(self._tries)
        following = ", ".join(
            f"{_key(i, df=df)} : {copy_address(i + 1, df=df)}" for i in numbers for df in (True, False)
        )
        verdicts = ", ".join(f"{_key(i, df=df)} : goto try_{i}" for i in numbers for df in (True, False))
        lines = [
            "  chain choose_again {",
            f"    dup to {COPY_KEY} map {{ {following} }} device {self._sender}",
            f"    {COPY_KEY} vmap {{ {verdicts} }}",
            "    counter name out_drop drop",
            "  }",
        ]
        chunks_ = self._chunks
        n = len(chunks_)
        for i in numbers:
            offset = f" offset {i}" if i else ""
            if n == 1:
                choice = f"meta l4proto {RETRIED} snat ip to {self.address}:{chunks_[0]}"
            else:
                choice = f"jhash ip saddr . th sport mod {n} seed {HASH_SEED:#x}{offset} vmap @ranges"
            lines += [f"  chain try_{i} {{", f"    {choice}", "  }"]
        return lines


def _key(number: int, *, df: bool) -> str:
    """COPY_KEY of the copy that is try ``number``."""
    return "0x" + copy_mac(number, df=df).replace(":", "")[-8:]
