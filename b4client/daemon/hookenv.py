"""What hooks are told: the lease and the softwire as environment variables and as DNS settings. Pure.

Names and addresses come from a server that may be anybody: only what is well formed is passed on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address

from b4client.decode.names import read_names
from b4client.model.errors import WireError
from b4client.model.lease import Lease4
from b4client.model.softwire import SoftwireConfig
from b4client.wire.dhcp4 import Option

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
MAX_SERVERS = 8
MAX_DOMAINS = 8
MAX_RANGES = 256
MAX_NAME = 253
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True)
class Told:
    """What is in force, as hooks and resolvers are told it. ``variables`` are without reason and times."""

    device: str
    servers: tuple[IPv4Address, ...]
    domains: tuple[str, ...]
    """Search list; the domain of option 15 first."""
    variables: tuple[tuple[str, str], ...]


def tell(config: SoftwireConfig, lease: Lease4 | None, *, device: str) -> Told:
    """What to tell about a softwire and the lease that it carries (None: IPv4 without a lease)."""
    options = dict(lease.options) if lease is not None else {}
    servers, ntp = (_addresses(options.get(code)) for code in (Option.DNS, Option.NTP))
    domain = _domain(options.get(Option.DOMAIN))
    search = _search(options.get(Option.DOMAIN_SEARCH))
    ports = config.ports
    variables = {
        "B4_WAN": config.wan,
        "B4_DEVICE": device,
        "B4_MODE": config.mode.value,
        "B4_ADDRESS": str(config.ipv4),
        "B4_LOCAL": str(config.local),
        "B4_BR": str(config.remote),
        "B4_DNS": " ".join(map(str, servers)),
        "B4_NTP": " ".join(map(str, ntp)),
        "B4_DOMAIN": domain or "",
        "B4_SEARCH": " ".join(search),
        "B4_SERVER_ID": str(lease.server_id) if lease is not None else "",
        "B4_FORWARDS": " ".join(f"{f.protocol}:{f.port}:{f.to}:{f.to_port}" for f in config.forwards),
        "B4_SHARED": "no" if ports is None else "yes",
        "B4_PORTS": "1-65535",
        "B4_PSID": "",
        "B4_PSID_LEN": "",
        "B4_PSID_OFFSET": "",
    }
    if ports is not None:
        ranges = [ports.range_at(i) for i in range(min(ports.range_count, MAX_RANGES))]
        variables["B4_PORTS"] = " ".join(f"{r.first}-{r.last}" for r in ranges)
        variables["B4_PSID"], variables["B4_PSID_LEN"] = str(ports.psid), str(ports.psid_len)
        variables["B4_PSID_OFFSET"] = str(ports.offset_len)
    domains = tuple(dict.fromkeys((*([domain] if domain else []), *search)))
    return Told(device, servers, domains, tuple(variables.items()))


def environment(reason: str, told: Told) -> dict[str, str]:
    """The whole environment of a hook: nothing of ours, ``B4_REASON`` (up, change, down) and what is told."""
    return {"PATH": PATH, "LANG": "C", "B4_REASON": reason, **dict(told.variables)}


def _addresses(value: bytes | None) -> tuple[IPv4Address, ...]:
    if not value or len(value) % 4:
        return ()
    found = (IPv4Address(value[i : i + 4]) for i in range(0, len(value), 4))
    hosts = [a for a in found if not (a.is_multicast or a.is_unspecified or a.is_loopback or a.is_reserved)]
    return tuple(dict.fromkeys(hosts))[:MAX_SERVERS]


def _domain(value: bytes | None) -> str | None:
    if not value:
        return None
    # Some servers end option 15 with a zero octet (RFC 2132 2 calls that tolerable).
    return _name(value.rstrip(b"\0").decode("ascii", "replace"))


def _search(value: bytes | None) -> tuple[str, ...]:
    if not value:
        return ()
    try:
        names = read_names(value, pointers=True)
    except WireError:
        return ()
    return tuple(dict.fromkeys(name for text in names if (name := _name(text))))[:MAX_DOMAINS]


def _name(text: str) -> str | None:
    name = text.removesuffix(".")
    return name if len(name) <= MAX_NAME and _NAME.fullmatch(name) else None
