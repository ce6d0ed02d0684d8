"""The testbed: LAN host - CPE - ISP router with Kea - lwAFTR - IPv4 server, each a network namespace.

::

    PREFIX-lan            PREFIX-cpe                 PREFIX-isp                 PREFIX-aftr            PREFIX-srv
    eth0 ──────────── lan      wan ──────────── wan      core ──────────── core     inet ──────────── eth0
    192.168.1.10  192.168.1.1  2001:db8:46::100  ::1                 2001:db8:ffff::1  198.51.100.1   198.51.100.10
                      b4client           Kea (DHCPv6, DHCP 4o6)            lwAFTR

One implementation for the scripts in ``netns-scripts/`` (``python -m b4client.lab.testbed up``) and for the tests.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any, Final

from b4client import api
from b4client.lab.binding import Binding
from b4client.lab.cable import Veth, lay
from b4client.lab.capture import Capture
from b4client.lab.kea import Kea, KeaPlace, KeaSettings
from b4client.lab.lwaftr import Lwaftr, LwaftrPlace
from b4client.lab.netns import LabError, Namespace, ip, ip_batch, wait_until
from b4client.lab.nodes import (
    AFTR_INET,
    BR,
    CPE_LAN,
    ISP_LINK_LOCAL,
    KEA_IPV4,
    LAN_HOST,
    POOL,
    SERVER,
    isp_wan_addresses,
    open_access,
    set_up_line,
    wan_address,
)
from b4client.lab.site import BASE_DIR, Site, check_machine, check_prefix
from b4client.model.portset import PortSet

__all__ = [
    "AFTR_INET",
    "BASE_DIR",
    "BR",
    "CPE_LAN",
    "CPE_WAN",
    "ISP_LINK_LOCAL",
    "ISP_WAN",
    "KEA_IPV4",
    "LAN_HOST",
    "NODES",
    "POOL",
    "SERVER",
    "Capture",
    "Testbed",
    "TestbedSettings",
    "parse_portparams",
    "softwire_address",
]

PREFIX_OPTION: Final = "B4_PREFIX"
COMMANDS: Final = ("ip", "ethtool", "nft", "ping", "tcpdump", "kea-dhcp4", "kea-dhcp6")
NODES: Final = ("lan", "cpe", "isp", "aftr", "srv")

CPE_WAN: Final = IPv6Interface("2001:db8:46::100/64")
ISP_WAN: Final = IPv6Interface("2001:db8:46::1/64")

CABLES: Final = (
    Veth(("lan", "eth0"), ("cpe", "lan"), 1),
    Veth(("cpe", "wan"), ("isp", "wan"), 2),
    Veth(("isp", "core"), ("aftr", "core"), 3),
    Veth(("aftr", "inet"), ("srv", "eth0"), 4),
)


@dataclass(frozen=True, slots=True)
class TestbedSettings:
    """What may be chosen. ``prefix`` starts the namespaces' names: testbeds of different prefixes live side by side.

    ``b4`` is the softwire's end at the subscriber; None derives it as the client does (WAN address for lw4o6 without
    binding prefix, else the address of RFC 7597 6). ``reject`` makes the lwAFTR answer unbound packets with ICMPv6.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    prefix: str = "b4"
    kea: KeaSettings = field(default_factory=KeaSettings)
    b4: IPv6Address | None = None
    reject: bool = False

    def __post_init__(self) -> None:
        check_prefix(self.prefix, PREFIX_OPTION)

    @property
    def binding(self) -> Binding:
        """The lwAFTR's one binding: Kea's first address and its port set."""
        return Binding(self.kea.first, self.kea.ports, self.b4 or softwire_address(self.kea))


def softwire_address(kea: KeaSettings) -> IPv6Address:
    """The IPv6 address at which the client must end its softwire, given what Kea tells it."""
    prefix = kea.map_rule_ipv6 if kea.container == "map-e" else kea.bind_prefix
    if prefix is None:
        return CPE_WAN.ip
    psid = kea.ports.psid if kea.ports else 0
    # Interface identifier 0x0000 | IPv4 | PSID, right-aligned (RFC 7597 6, RFC 7596 5.1 figure 3).
    return IPv6Address(int(prefix.network_address) | int(kea.first) << 16 | psid)


def parse_portparams(text: str) -> PortSet | None:
    """``OFFSET, PSID/PSIDLEN`` as in Kea's configuration, or ``none``. Raises LabError."""
    if text.strip() == "none":
        return None
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(0x[0-9a-fA-F]+|\d+)\s*/\s*(\d+)\s*", text)
    try:
        if match:
            return PortSet(int(match[1]), int(match[3]), int(match[2], 0))
    except ValueError as error:
        raise LabError(f"port parameters {text!r}: {error}") from None
    raise LabError(f'port parameters must read "OFFSET, PSID/PSIDLEN" such as "0, 0x34/8", or "none": {text!r}')


class Testbed:
    """A testbed, up or not. ``lan``, ``cpe``, ``isp``, ``aftr`` and ``srv`` are its namespaces."""

    __test__ = False

    def __init__(self, settings: TestbedSettings | None = None) -> None:
        self.settings = settings or TestbedSettings()
        prefix = self.settings.prefix
        self._site = Site(prefix, "|".join(NODES), BASE_DIR / prefix, option=PREFIX_OPTION)
        self.directory = self._site.directory
        self.nodes = {node: Namespace(f"{self.settings.prefix}-{node}") for node in NODES}
        self.lan, self.cpe, self.isp, self.aftr, self.srv = (self.nodes[node] for node in NODES)
        self.kea = Kea(self.isp, self.directory / "kea", KeaPlace("wan", ISP_WAN.ip, ISP_WAN.network, POOL, BR))
        self.lwaftr = Lwaftr(self.aftr, self.directory)

    # ---- up and down

    def up(self) -> bool:
        """Build it, or leave it as it is when it is up with these settings. Returns True when it was built.

        What is half built or has other settings is taken down first. Raises LabError, with nothing left behind.
        """
        check_machine(COMMANDS)
        return self._site.build(self._build, self._fingerprint, self._in_good_health)

    def down(self) -> None:
        """Take everything away; nothing to do is fine."""
        self._site.remove()

    @property
    def is_up(self) -> bool:
        """True when it is complete, with these settings, and its servers run."""
        return self._site.state() == self._fingerprint and self._in_good_health()

    def _in_good_health(self) -> bool:
        return all(n.exists for n in self.nodes.values()) and self.kea.running and self.lwaftr.answers

    @property
    def _fingerprint(self) -> str:
        return json.dumps(api.jsonable(self.settings), indent=1) + "\n"

    @classmethod
    def existing(cls, prefix: str) -> Testbed:
        """The testbed that is up under ``prefix`` (its ``settings`` are the defaults). Raises LabError."""
        testbed = cls(TestbedSettings(prefix=prefix))
        if testbed._site.state() is None:
            raise LabError(f"no testbed {prefix!r} is up: start it with netns-scripts/up")
        return testbed

    def describe(self) -> dict[str, Any]:
        """What is up, for people and scripts: settings, processes by node, Kea, the lwAFTR's table and counters."""
        return {
            "settings": json.loads(self._site.state() or "null"),
            "processes": {node: namespace.pids() for node, namespace in self.nodes.items()},
            "kea-running": self.kea.running,
            "lwaftr": {**self.aftr_call("bindings"), "counters": self.aftr_counters()},
        }

    def _build(self) -> None:
        set_up_line(self.nodes, CABLES, CPE_WAN, ISP_WAN)
        self.kea.start(self.settings.kea)
        settings = self.settings
        self.lwaftr.start(LwaftrPlace(BR, POOL, (settings.binding,), reject=settings.reject))
        self._wait_for_path()

    def _wait_for_path(self) -> None:
        def reachable() -> bool:
            return not self.cpe.run("ping", "-6", "-n", "-q", "-c1", "-W1", str(BR), check=False).returncode

        wait_until(reachable, 15, f"the CPE to reach the lwAFTR {BR}")

    # ---- while it is up

    def aftr_call(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Ask the lwAFTR (``aftrcontrol``). Raises ControlError."""
        return self.lwaftr.call(command, **arguments)

    def aftr_counters(self) -> dict[str, int]:
        """The lwAFTR's counters by the name of the fate."""
        return self.lwaftr.counters()

    def give_wan_address(self) -> None:
        """Give the CPE its IPv6 address and default route, as the access network does; again after a link was down."""
        ip_batch(self.cpe.name, wan_address(CPE_WAN))

    def pull_cable(self) -> None:
        """Take the carrier from the CPE's WAN (the other end goes down)."""
        ip("-n", self.isp.name, "link", "set", "wan", "down")

    def plug_cable(self) -> None:
        """Give the carrier back, and what IPv6 both ends have lost (the ISP's end was down as a whole)."""
        ip_batch(self.isp.name, ["link set wan up", *isp_wan_addresses(ISP_WAN)])
        self.give_wan_address()

    def replace_wan(self) -> None:
        """Lay the WAN's cable anew, as when a modem or a PPP session comes again: both ends are other interfaces then.
        Kea knows only the old one: restart it."""
        ip("-n", self.cpe.name, "link", "del", "wan")
        lay([cable for cable in CABLES if cable.a == ("cpe", "wan")], self.nodes)
        open_access(self.isp, ISP_WAN)
        ip("-n", self.cpe.name, "link", "set", "wan", "up")
        self.give_wan_address()

    def capture(self, node: str, interface: str, file: Path, expression: str = "") -> Capture:
        """Start capturing into ``file``; returns when packets are being recorded."""
        return Capture(self.nodes[node], interface, file, expression)
