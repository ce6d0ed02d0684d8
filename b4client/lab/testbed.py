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
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any, Final

from b4client import api
from b4client.lab.binding import Binding
from b4client.lab.kea import Kea, KeaPlace, KeaSettings
from b4client.lab.netns import LabError, Namespace, end_processes, ip, ip_batch, wait_until
from b4client.model.errors import ControlError
from b4client.model.portset import PortSet

BASE_DIR: Final = Path("/run/b4client-lab")
NODES: Final = ("lan", "cpe", "isp", "aftr", "srv")

LAN_HOST: Final = IPv4Address("192.168.1.10")
CPE_LAN: Final = IPv4Address("192.168.1.1")
CPE_WAN: Final = IPv6Interface("2001:db8:46::100/64")
ISP_WAN: Final = IPv6Interface("2001:db8:46::1/64")
ISP_LINK_LOCAL: Final = IPv6Address("fe80::1")
ISP_CORE: Final = IPv6Interface("2001:db8:ffff::ffff/64")
BR: Final = IPv6Address("2001:db8:ffff::1")
AFTR_INET: Final = IPv4Address("198.51.100.1")
SERVER: Final = IPv4Address("198.51.100.10")
POOL: Final = IPv4Network("192.0.2.0/24")
KEA_IPV4: Final = IPv4Address("203.0.113.53")
"""kea-dhcp4 needs an IPv4 address on its interface; it becomes the server identifier (option 54)."""


@dataclass(frozen=True, slots=True)
class Veth:
    """A cable: (node, interface) at both ends, with fixed MACs so that link-local addresses are predictable."""

    a: tuple[str, str]
    b: tuple[str, str]
    number: int

    def mac(self, end: int) -> str:
        """Hardware address of end 0 (a) or 1 (b)."""
        return f"02:00:00:46:{self.number:02x}:{end:02x}"


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
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,19}", self.prefix):
            raise LabError(f"B4_PREFIX: {self.prefix!r} must be 1 to 20 of a-z, 0-9 and -")

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
        self.directory = BASE_DIR / self.settings.prefix
        self.nodes = {node: Namespace(f"{self.settings.prefix}-{node}") for node in NODES}
        self.lan, self.cpe, self.isp, self.aftr, self.srv = (self.nodes[node] for node in NODES)
        self.kea = Kea(self.isp, self.directory / "kea", KeaPlace("wan", ISP_WAN.ip, ISP_WAN.network, POOL, BR))

    # ---- up and down

    def up(self) -> bool:
        """Build it, or leave it as it is when it is up with these settings. Returns True when it was built.

        What is half built or has other settings is taken down first. Raises LabError, with nothing left behind.
        """
        self._check_machine()
        if self.is_up:
            return False
        self.down()
        taken = [n.name for n in self.nodes.values() if n.exists]
        if taken:
            raise LabError(
                f"the namespaces {', '.join(taken)} exist and are not this testbed's: remove them, or choose another "
                "name in B4_PREFIX"
            )
        try:
            self.directory.mkdir(parents=True)
            self.directory.chmod(0o700)
            self._build()
            self.kea.start(self.settings.kea)
            self._start_aftr()
            self._wait_for_path()
            self._state_file.write_text(self._fingerprint, encoding="utf-8")
        except BaseException:
            self.down()
            raise
        return True

    def down(self) -> None:
        """Take everything away; nothing to do is fine."""
        if not self.directory.exists():
            return
        there = [node for node in self.nodes.values() if node.exists]
        end_processes(there)
        for node in there:
            ip("netns", "delete", node.name)
        shutil.rmtree(self.directory)
        try:
            BASE_DIR.rmdir()
        except OSError:
            pass  # another testbed is up

    @property
    def is_up(self) -> bool:
        """True when it is complete, with these settings, and its servers run."""
        try:
            complete = self._state_file.read_text(encoding="utf-8") == self._fingerprint
        except OSError:
            return False
        return complete and all(n.exists for n in self.nodes.values()) and self.kea.running and self._aftr_answers()

    @property
    def _state_file(self) -> Path:
        return self.directory / "settings.json"

    @property
    def _fingerprint(self) -> str:
        return json.dumps(api.jsonable(self.settings), indent=1) + "\n"

    @classmethod
    def existing(cls, prefix: str) -> Testbed:
        """The testbed that is up under ``prefix`` (its ``settings`` are the defaults). Raises LabError."""
        testbed = cls(TestbedSettings(prefix=prefix))
        if not testbed._state_file.exists():
            raise LabError(f"no testbed {prefix!r} is up: start it with netns-scripts/up")
        return testbed

    def describe(self) -> dict[str, Any]:
        """What is up, for people and scripts: settings, processes by node, Kea, the lwAFTR's table and counters."""
        return {
            "settings": json.loads(self._state_file.read_text(encoding="utf-8")),
            "processes": {node: namespace.pids() for node, namespace in self.nodes.items()},
            "kea-running": self.kea.running,
            "lwaftr": {**self.aftr_call("bindings"), "counters": self.aftr_counters()},
        }

    def _check_machine(self) -> None:
        if os.geteuid():
            raise LabError("network namespaces need root: run this as root")
        missing = [name for name in ("ip", "ethtool", "ping", "tcpdump") if shutil.which(name) is None]
        if missing:
            raise LabError(f"missing commands: {', '.join(missing)}; netns-scripts/setup installs them")

    def _build(self) -> None:
        names = {node: namespace.name for node, namespace in self.nodes.items()}
        ip_batch(None, [f"netns add {name}" for name in names.values()])
        for namespace in self.nodes.values():
            # A new namespace may inherit the machine's IPv4 settings: start from known ones.
            namespace.sysctl(
                {
                    "ipv4/ip_forward": 0,
                    "ipv4/conf/all/rp_filter": 0,
                    "ipv4/conf/default/rp_filter": 0,
                    "ipv4/conf/default/send_redirects": 0,
                    "ipv6/conf/all/disable_ipv6": 0,
                    "ipv6/conf/default/disable_ipv6": 0,
                    # Kea refuses tentative addresses, and nobody else is on these links.
                    "ipv6/conf/default/accept_dad": 0,
                    "ipv6/conf/default/accept_ra": 0,
                    "ipv6/conf/default/addr_gen_mode": 0,
                    # An interface that goes down and up again keeps its addresses, as with a cable that is pulled.
                    "ipv6/conf/default/keep_addr_on_down": 1,
                }
            )
        for cable in CABLES:
            (a_node, a_if), (b_node, b_if) = cable.a, cable.b
            # Born inside the namespaces, both ends: the machine's own never sees them.
            ip_batch(
                names[a_node],
                [
                    f"link add {a_if} address {cable.mac(0)} type veth "
                    f"peer name {b_if} address {cable.mac(1)} netns {names[b_node]}"
                ],
            )
        for node, interface in (("lan", "eth0"), ("cpe", "lan"), ("aftr", "inet"), ("srv", "eth0")):
            self.nodes[node].sysctl({f"ipv6/conf/{interface}/disable_ipv6": 1})
        self.cpe.sysctl({"ipv6/conf/all/forwarding": 1})
        # One link-local address only: Kea opens a socket for each, and would answer a multicast once per socket.
        self.isp.sysctl({"ipv6/conf/all/forwarding": 1, "ipv6/conf/wan/addr_gen_mode": 1})
        self.aftr.sysctl({"ipv4/ip_forward": 1})
        self._offloads_off()
        up = ["link set lo up"]
        ip_batch(
            self.lan.name,
            [*up, f"addr add {LAN_HOST}/24 dev eth0", "link set eth0 up", f"route add default via {CPE_LAN}"],
        )
        ip_batch(self.cpe.name, [*up, f"addr add {CPE_LAN}/24 dev lan", "link set lan up", "link set wan up"])
        ip_batch(
            self.isp.name,
            [
                *up,
                f"addr add {KEA_IPV4}/32 dev wan",
                f"addr add {ISP_WAN} dev wan nodad",
                f"addr add {ISP_LINK_LOCAL}/64 dev wan nodad",
                f"addr add {ISP_CORE} dev core nodad",
                "link set wan up",
                "link set core up",
            ],
        )
        ip_batch(
            self.aftr.name,
            [
                *up,
                f"addr add {BR}/{ISP_CORE.network.prefixlen} dev core nodad",
                f"addr add {AFTR_INET}/24 dev inet",
                "link set core up",
                "link set inet up",
                f"route add default via {ISP_CORE.ip}",
            ],
        )
        ip_batch(
            self.srv.name,
            [*up, f"addr add {SERVER}/24 dev eth0", "link set eth0 up", f"route add {POOL} via {AFTR_INET}"],
        )
        self.give_wan_address()

    def _offloads_off(self) -> None:
        # The lwAFTR reads whole packets from a raw socket. With segmentation offload a veth hands over 64 KB
        # super-packets, with checksum offload packets whose checksum is still to be computed, and with GRO packets that
        # were joined: TCP through the raw socket then stands still. Real networks have none of these between machines.
        for cable in CABLES:
            for node, interface in (cable.a, cable.b):
                self.nodes[node].run(
                    *("ethtool", "-K", interface, "tso", "off", "gso", "off", "gro", "off", "tx", "off"), check=True
                )

    def _start_aftr(self) -> None:
        settings = self.settings
        command = [sys.executable, "-m", "b4client.lab.aftr", "--address", str(BR), "--route", str(POOL)]
        command += ["--binding", str(settings.binding), "--control", str(self._aftr_socket)]
        if settings.reject:
            command.append("--reject")
        log = self.directory / "aftr.log"
        process = self.aftr.start(*command, log=log)

        def answers() -> bool:
            if process.poll() is not None:
                raise LabError(f"the lwAFTR ended at once:\n{log.read_text(errors='replace')}")
            return self._aftr_answers()

        wait_until(answers, 20, "the lwAFTR to start")

    def _wait_for_path(self) -> None:
        def reachable() -> bool:
            return not self.cpe.run("ping", "-6", "-n", "-q", "-c1", "-W1", str(BR), check=False).returncode

        wait_until(reachable, 15, f"the CPE to reach the lwAFTR {BR}")

    # ---- while it is up

    @property
    def _aftr_socket(self) -> Path:
        return self.directory / "aftr.sock"

    def _aftr_answers(self) -> bool:
        try:
            api.call(self._aftr_socket, "counters", timeout_s=5)
        except ControlError:
            return False
        return True

    def aftr_call(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Ask the lwAFTR: ``counters``, ``bindings``, ``bind``/``unbind`` with ``binding``. Raises ControlError."""
        result: dict[str, Any] = api.call(self._aftr_socket, command, arguments)["arguments"]
        return result

    def aftr_counters(self) -> dict[str, int]:
        """The lwAFTR's counters by the name of the fate."""
        return self.aftr_call("counters")

    def give_wan_address(self) -> None:
        """Give the CPE its IPv6 address and default route, as the access network does; again after a link was down."""
        ip_batch(
            self.cpe.name,
            [f"addr replace {CPE_WAN} dev wan nodad", f"route replace default via {ISP_LINK_LOCAL} dev wan"],
        )

    def pull_cable(self) -> None:
        """Take the carrier from the CPE's WAN (the other end goes down)."""
        ip("-n", self.isp.name, "link", "set", "wan", "down")

    def plug_cable(self) -> None:
        """Give the carrier back, and what IPv6 both ends have lost (the ISP's end was down as a whole)."""
        ip_batch(
            self.isp.name,
            [
                "link set wan up",
                f"addr replace {ISP_WAN} dev wan nodad",
                f"addr replace {ISP_LINK_LOCAL}/64 dev wan nodad",
            ],
        )
        self.give_wan_address()

    def capture(self, node: str, interface: str, file: Path, expression: str = "") -> Capture:
        """Start capturing into ``file``; returns when packets are being recorded."""
        return Capture(self.nodes[node], interface, file, expression)


class Capture:
    """A running tcpdump. Usable in a ``with`` statement; ``stop`` returns when the file is complete."""

    def __init__(self, namespace: Namespace, interface: str, file: Path, expression: str = "") -> None:
        self.file = file
        messages = file.with_name(file.name + ".log")
        messages.write_bytes(b"")
        self._process = namespace.start(
            *("tcpdump", "-n", "-U", "--immediate-mode", "-s", "0", "-Z", "root", "-i", interface, "-w", str(file)),
            *([expression] if expression else []),
            log=messages,
        )

        def listening() -> bool:
            text = messages.read_text(errors="replace")
            if self._process.poll() is not None:
                raise LabError(f"tcpdump ended at once: {text.strip()}")
            return "listening on" in text

        wait_until(listening, 15, "tcpdump to listen")

    def stop(self) -> Path:
        """End the capture; the file is complete afterwards."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(10)
        self.file.with_name(self.file.name + ".log").unlink(missing_ok=True)
        return self.file

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
