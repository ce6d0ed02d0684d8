"""What the checks ask of the machine: looking only, apart from probes that leave nothing behind. Faked in the tests."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from pathlib import Path
from typing import Any

from b4client.config import Config
from b4client.daemon import portowner, privileges
from b4client.dataplane import foreign, nft, rtaddr, rtlink, rtroute, userspace
from b4client.dataplane.neighbours import Lan
from b4client.doctor import probe
from b4client.model.errors import DataplaneError
from b4client.protocol.provisioning import Provisioning


@dataclass(frozen=True)
class Context:
    """What is examined. ``status`` is the running daemon's, None when none runs; ``br`` the BR if it is known.

    Without a daemon the DHCPv6 server is asked: ``answer``, None without one; ``not_asked`` is why it was not.
    """

    config: Config | None = None
    wan: str | None = None
    status: dict[str, Any] | None = None
    ping_target: IPv4Address | None = None
    stun: tuple[IPv4Address, int] | None = None
    device: str = "b4"
    answer: Provisioning | None = None
    not_asked: str | None = None

    @property
    def softwire(self) -> dict[str, Any]:
        """The softwire that the daemon wants; empty when there is none."""
        return (self.status or {}).get("softwire") or {}

    @property
    def observed(self) -> dict[str, Any]:
        """What the daemon sees of the softwire in the kernel."""
        return (self.status or {}).get("dataplane") or {}

    @property
    def br(self) -> IPv6Address | None:
        """The BR: the softwire's, the configured one, or the first that was provisioned."""
        provisioned = ((self.status or {}).get("provisioning") or {}).get("brs") or (
            self.answer.brs if self.answer is not None else ()
        )
        configured = self.config.protocol.br if self.config is not None else None
        found = self.softwire.get("br_ipv6_addr") or configured or next(iter(provisioned), None)
        return None if found is None else IPv6Address(str(found))


@dataclass
class System:
    """The machine. Methods return None where a thing is absent; what may not be looked at raises DataplaneError."""

    _rules: nft.Nft | None = field(default=None, init=False)

    def read(self, path: str) -> str | None:
        """The stripped text of a small file."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        """True when the path is there."""
        return Path(path).exists()

    def free_octets(self, path: Path) -> int | None:
        """Room for a file at ``path`` or its nearest parent; None when it is mounted read-only."""
        while not path.exists() and path != path.parent:
            path = path.parent
        found = os.statvfs(path)
        return None if found.f_flag & os.ST_RDONLY else found.f_bavail * found.f_frsize

    def now(self) -> float:
        """The wall clock."""
        return time.time()

    def has_module(self, name: str) -> bool:
        """True when Python can import it."""
        return importlib.util.find_spec(name) is not None

    def missing_capabilities(self) -> list[str]:
        """Of those that the client needs, which this process lacks."""
        return privileges.missing()

    def processes(self) -> list[tuple[int, str, str]]:
        """(pid, name, command line) of every process that can be seen."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found.append((int(entry.name), (entry / "comm").read_text(encoding="utf-8").strip(), command))
        return found

    def port_owners(self, port: int) -> list[str]:
        """Who holds a UDP port."""
        return portowner.udp6_port_owners(port)

    # ---- nft

    def rules(self) -> nft.Nft:
        """The library's context. Raises DataplaneError."""
        if self._rules is None:
            self._rules = nft.Nft()
            self._rules.probe()
        return self._rules

    def try_rules(self, text: str) -> str | None:
        """None when the kernel takes ``text`` (the body of a table that is deleted in the same transaction)."""
        try:
            self.rules().run("try", f"table ip b4client_probe {{\n{text}\n}}\ndelete table ip b4client_probe\n")
        except DataplaneError as refused:
            return refused.reason
        return None

    def ruleset(self) -> list[dict[str, Any]]:
        """Everything that nft lists, as libnftables' JSON has it."""
        return self.rules().list_ruleset()

    def iptables(self) -> list[dict[str, Any]]:
        """The rules of iptables (``foreign.read_iptables``)."""
        return foreign.read_iptables()

    def lans(self, device: str, wan: str | None) -> tuple[Lan, ...]:
        """The interfaces behind which hosts are."""
        return foreign.lans(device, wan)

    # ---- links, addresses, routes

    def link(self, name: str) -> rtlink.LinkState | None:
        """An interface."""
        return rtlink.observe_link(name)

    def link_names(self) -> list[str]:
        """All interfaces."""
        return sorted(p.name for p in Path("/sys/class/net").glob("*"))

    def tunnel(self, name: str) -> rtlink.Tunnel | None:
        """A softwire device."""
        return rtlink.observe_tunnel(name)

    def addresses4(self, index: int) -> list[IPv4Interface]:
        """The IPv4 addresses of an interface."""
        return [IPv4Interface((address, length)) for address, length in rtaddr.addresses4(index)]

    def path_mtu(self, destination: IPv6Address) -> int | None:
        """MTU of the IPv6 route; None when there is no route."""
        return rtroute.path_mtu(destination)

    def kernel_softwire(self) -> bool:
        """True when the kernel has ip6_tunnel."""
        return rtlink.has_ip6tnl()

    def userspace_softwire(self) -> str | None:
        """None when the userspace softwire can work, else why not."""
        return userspace.available()

    # ---- the network

    def ask_dhcp6(self, wan: str) -> Provisioning | None:
        """What a DHCPv6 server says of IPv4; None when none answers. Raises OSError."""
        return probe.ask_dhcp6(wan)

    def ping6(self, destination: IPv6Address, size: int) -> probe.Echo:
        """One echo request of ``size`` octets that must not be fragmented. Raises OSError."""
        return probe.ping6(destination, size)

    def ping4(self, device: str, destination: IPv4Address, size: int) -> probe.Echo:
        """The same through the softwire. Raises OSError."""
        return probe.ping4(device, destination, size)

    def ask_stun(self, device: str, server: tuple[IPv4Address, int]) -> tuple[IPv4Address, int] | None:
        """Our address and port as a STUN server sees them; None without an answer. Raises OSError."""
        return probe.ask_stun(device, server)
