"""The ruleset of a DS-Lite softwire (RFC 6333): nothing is translated here, since the AFTR does that. Pure.

What is left to do: keep to the LANs that may use the softwire, keep 169.254/16 and the LAN's DHCP out of it, and fit
TCP's segments to its MTU. The softwire's own address, 192.0.0.2, is every subscriber's and needs no guard.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from b4client.model.settings import SoftwireSettings

LINK_LOCAL_V4 = IPv4Network("169.254.0.0/16")
TCP_HEADERS_LEN = 40
"""IPv4 and TCP headers without options, in octets: what a segment's packet has beside the segment."""


def dslite_ruleset(name: str, device: str, settings: SoftwireSettings, mtu: int, counters: Iterable[str]) -> list[str]:
    """Lines of nft text that replace the tables ``name`` of the families ip and arp; ``device`` is quoted."""
    mss = mtu - TCP_HEADERS_LEN
    lan = ", ".join(map(str, settings.lan))
    clamp = [
        "  chain clamp {",
        "    type filter hook forward priority mangle; policy accept;",
        *(
            f"    {way} {device} tcp flags & (syn | rst) == syn tcp option maxseg size > {mss} "
            f"tcp option maxseg size set {mss}"
            for way in ("oifname", "iifname")
        ),
        "  }",
    ]
    return [
        f"table ip {name}",
        f"delete table ip {name}",
        f"table ip {name} {{",
        *(f"  counter {counter} {{ }}" for counter in counters),
        *(clamp if settings.clamp_mss else []),
        "  chain inbound {",
        "    type filter hook prerouting priority mangle; policy accept;",
        f"    iifname {device} ip saddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        "  }",
        *(
            []
            if settings.accept_local
            else [
                "  chain input {",
                "    type filter hook input priority filter; policy accept;",
                f"    iifname {device} ct state new counter name not_forwarded drop",
                "  }",
            ]
        ),
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        f"    oifname {device} goto outbound",
        "  }",
        "  chain output {",
        "    type filter hook output priority filter; policy accept;",
        f"    oifname {device} ip saddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        f"    oifname {device} ip daddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        "  }",
        "  chain outbound {",
        f"    ip saddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        f"    ip daddr {LINK_LOCAL_V4} counter name link_local_drop drop",
        *([f"    ip saddr != {{ {lan} }} counter name not_lan_drop reject with icmp admin-prohibited"] if lan else []),
        "    # DHCP belongs to the LAN (RFC 8585 8)",
        "    udp dport { 67, 68 } counter name out_drop reject with icmp admin-prohibited",
        "  }",
        "}",
        # The same tables as with the other mechanisms, so that a change of mechanism replaces them.
        f"table arp {name}",
        f"delete table arp {name}",
        f"table arp {name} {{",
        "}",
    ]
