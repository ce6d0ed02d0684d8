"""ISC Kea as the DHCP 4o6 server of the testbed: kea-dhcp4 and kea-dhcp6 side by side in one namespace.

What is written here was learnt from Kea 2.2 on the wire: kea-dhcp4 serves 4o6 only with an IPv4 address on an interface
of the same name as in ``4o6-interface``; the daemons talk over ::1; kea-dhcp6 needs ``wan/ADDRESS`` to hear unicast; no
address may be tentative; an address is leased to one client only, so a pool of one address makes it predictable.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Final

from b4client.lab.netns import LabError, Namespace, ip, wait_until
from b4client.model.portset import PortSet

PORT_4O6: Final = 6767
READY_TIMEOUT_S: Final = 20.0
LOG_TAIL: Final = 12
SERVERS: Final = ("dhcp4", "dhcp6")
MULTI_THREADING: Final = {"enable-multi-threading": False}
"""Off: a testbed wants the same order every time, and Kea 2.4 and later warn about it otherwise."""
DEFAULT_ADDRESS: Final = IPv4Address("192.0.2.18")
DEFAULT_PORTS: Final = PortSet(0, 8, 0x34)
_MAP_T: Final = "0059000d001018c00002002820010db8005b0009402001 0db8ffff0000".replace(" ", "")
DEFAULT_PREFIX: Final = IPv6Network("2001:db8:46::/64")


@dataclass(frozen=True, slots=True)
class KeaSettings:
    """What Kea serves. Times in seconds; None leaves the option out.

    ``first``..``last`` is the IPv4 pool; ``ports`` the port set of option 159 (None: unshared). ``option88`` is
    ``unicast`` (the server's address), ``multicast`` (empty option) or ``none``. ``container`` says how the BR address
    travels: ``lw4o6`` (option 96), ``map-e`` (94: the rule ``map_rule_ipv6`` with no EA bits, the address and the port
    set come from DHCP 4o6, RFC 7597 Appendix A example 5) or ``none``. ``bind_prefix`` adds option 92 to container 96.
    ``container_ports`` is option 93 inside option 92 (or the rule), for clients without any DHCPv4; ``map_rule``
    replaces the rule: ``FLAGS, EA-LEN, PREFIX4-LEN, IPV4, IPV6/LEN``. ``map_octets`` is the whole content of container
    94 in hexadecimal, for what Kea's own words cannot say (several rules). ``aftr_name`` is option 64.
    ``priority`` lists the codes of option 111, ``map_t`` sends a container 95 unasked.
    ``pd_pool`` are prefixes to delegate, of ``pd_len`` bits each; ``na_first``..``na_last`` the addresses of IA_NA;
    their times are ``lifetimes6``: T1, T2, preferred and valid lifetime.
    ``authoritative`` makes kea-dhcp4 send NAK for addresses of unknown clients, where it is silent otherwise.
    """

    first: IPv4Address = DEFAULT_ADDRESS
    last: IPv4Address = DEFAULT_ADDRESS
    ports: PortSet | None = DEFAULT_PORTS
    valid_lifetime: int = 600
    renew_timer: int | None = 300
    rebind_timer: int | None = 525
    option88: str = "unicast"
    container: str = "lw4o6"
    map_rule_ipv6: IPv6Network = DEFAULT_PREFIX
    bind_prefix: IPv6Network | None = None
    container_ports: PortSet | None = None
    map_rule: str | None = None
    map_octets: str | None = None
    aftr_name: str | None = None
    priority: tuple[int, ...] = ()
    map_t: bool = False
    refresh_time: int | None = None
    authoritative: bool = False
    pd_pool: IPv6Network | None = None
    pd_len: int = 56
    na_first: IPv6Address | None = None
    na_last: IPv6Address | None = None
    lifetimes6: tuple[int, int, int, int] = (300, 480, 600, 900)


@dataclass(frozen=True, slots=True)
class KeaPlace:
    """Where Kea lives: its interface, the addresses on it, and what it tells about the network."""

    interface: str
    address6: IPv6Address
    link6: IPv6Network
    pool4: IPv4Network
    br: IPv6Address


def dhcp4_config(settings: KeaSettings, place: KeaPlace) -> dict[str, Any]:
    """Configuration of kea-dhcp4."""
    subnet: dict[str, Any] = {
        "id": 1,
        "subnet": str(place.pool4),
        # The interface matches link-local sources, the subnet global ones: both kinds of client are served.
        "4o6-interface": place.interface,
        "4o6-subnet": str(place.link6),
        "pools": [{"pool": f"{settings.first} - {settings.last}"}],
    }
    if settings.ports is not None:
        p = settings.ports
        subnet["option-data"] = [{"name": "v4-portparams", "data": f"{p.offset_len}, {p.psid}/{p.psid_len}"}]
    config: dict[str, Any] = {
        "interfaces-config": {"interfaces": [place.interface], "dhcp-socket-type": "udp"},
        "dhcp4o6-port": PORT_4O6,
        "lease-database": {"type": "memfile", "persist": False, "lfc-interval": 0},
        "valid-lifetime": settings.valid_lifetime,
        "authoritative": settings.authoritative,
        "multi-threading": MULTI_THREADING,
        "subnet4": [subnet],
        "loggers": _loggers("kea-dhcp4"),
    }
    if settings.renew_timer is not None:
        config["renew-timer"] = settings.renew_timer
    if settings.rebind_timer is not None:
        config["rebind-timer"] = settings.rebind_timer
    return {"Dhcp4": config}


def dhcp6_config(settings: KeaSettings, place: KeaPlace) -> dict[str, Any]:
    """Configuration of kea-dhcp6. Raises LabError for a setting that is not known."""
    options: list[dict[str, Any]] = []
    if settings.option88 == "unicast":
        options.append({"name": "dhcp4o6-server-addr", "data": str(place.address6)})
    elif settings.option88 == "multicast":
        options.append({"name": "dhcp4o6-server-addr", "data": ""})
    elif settings.option88 != "none":
        raise LabError(f"option 88 can be unicast, multicast or none, not {settings.option88!r}")
    options += _container(settings, place)
    if settings.aftr_name is not None:
        options.append({"name": "aftr-name", "data": settings.aftr_name})
    if settings.map_t:
        # Unasked, since no client that cannot use it asks for it; as octets: a rule and a DMR.
        options.append({"code": 95, "csv-format": False, "data": _MAP_T, "always-send": True})
    if settings.priority:
        octets = b"".join(code.to_bytes(2, "big") for code in settings.priority)
        options.append({"name": "s46-priority", "csv-format": False, "data": octets.hex()})
    if settings.refresh_time is not None:
        options.append({"name": "information-refresh-time", "data": str(settings.refresh_time)})
    definitions = [{"name": "s46-priority", "code": 111, "type": "binary"}]
    t1, t2, preferred, valid = settings.lifetimes6
    return {
        "Dhcp6": {
            "option-def": definitions if settings.priority else [],
            "renew-timer": t1,
            "rebind-timer": t2,
            "preferred-lifetime": preferred,
            "valid-lifetime": valid,
            "interfaces-config": {"interfaces": [place.interface, f"{place.interface}/{place.address6}"]},
            "dhcp4o6-port": PORT_4O6,
            "server-id": {"type": "LL", "htype": 1, "identifier": "020000000001", "persist": False},
            "lease-database": {"type": "memfile", "persist": False, "lfc-interval": 0},
            "multi-threading": MULTI_THREADING,
            "subnet6": [{"id": 1, "subnet": str(place.link6), "interface": place.interface, **_pools6(settings)}],
            "option-data": options,
            "loggers": _loggers("kea-dhcp6"),
        }
    }


def _pools6(settings: KeaSettings) -> dict[str, Any]:
    pools: dict[str, Any] = {}
    if settings.pd_pool is not None:
        pool = settings.pd_pool
        where = {"prefix": str(pool.network_address), "prefix-len": pool.prefixlen}
        pools["pd-pools"] = [{**where, "delegated-len": settings.pd_len}]
    if settings.na_first is not None:
        pools["pools"] = [{"pool": f"{settings.na_first} - {settings.na_last or settings.na_first}"}]
    return pools


def _container(settings: KeaSettings, place: KeaPlace) -> list[dict[str, Any]]:
    br = {"name": "s46-br", "data": str(place.br)}
    if settings.container == "lw4o6":
        space = "s46-cont-lw-options"
        options: list[dict[str, Any]] = [{"name": "s46-cont-lw"}, {"space": space, **br}]
        if settings.bind_prefix is not None:
            address = settings.first
            options.append({"space": space, "name": "s46-v4v6bind", "data": f"{address}, {settings.bind_prefix}"})
            options += _port_params("s46-v4v6bind-options", settings.container_ports)
        return options
    if settings.container == "map-e":
        if settings.map_octets is not None:
            return [{"name": "s46-cont-mape", "csv-format": False, "data": settings.map_octets}]
        space = "s46-cont-mape-options"
        rule = settings.map_rule or f"0, 0, 32, {settings.first}, {settings.map_rule_ipv6}"
        return [
            {"name": "s46-cont-mape"},
            {"space": space, **br},
            {"space": space, "name": "s46-rule", "data": rule},
            *_port_params("s46-rule-options", settings.container_ports),
        ]
    if settings.container != "none":
        raise LabError(f"the container can be lw4o6, map-e or none, not {settings.container!r}")
    return []


def _port_params(space: str, ports: PortSet | None) -> list[dict[str, Any]]:
    if ports is None:
        return []
    data = f"{ports.offset_len}, {ports.psid}/{ports.psid_len}"
    return [{"space": space, "name": "s46-portparams", "data": data}]


def _loggers(name: str) -> list[dict[str, Any]]:
    return [{"name": name, "output_options": [{"output": "stdout", "flush": True}], "severity": "INFO"}]


class Kea:
    """Both servers in one namespace, with their files in ``directory``."""

    def __init__(self, namespace: Namespace, directory: Path, place: KeaPlace) -> None:
        self._namespace = namespace
        self._directory = directory
        self._place = place
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, server: str) -> Path:
        """The log of ``dhcp4`` or ``dhcp6``, from its latest start."""
        return self._directory / f"kea-{server}.log"

    def start(self, settings: KeaSettings) -> None:
        """Start both and wait until they serve. Leases are in memory: a start knows none. Raises LabError."""
        self._directory.mkdir(parents=True, exist_ok=True)
        # Kea opens no socket on an interface that is not running yet, never tries again, and is silent from then on.
        wait_until(self._link_runs, READY_TIMEOUT_S, f"{self._place.interface} to have a carrier", poll_s=0.01)
        # Kea's own directories belong to the distribution's service (and may not exist): use ours.
        env = dict(os.environ)
        for name in ("KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR", "KEA_DHCP_DATA_DIR", "KEA_LOG_FILE_DIR"):
            env[name] = str(self._directory)
        configs = {"dhcp4": dhcp4_config(settings, self._place), "dhcp6": dhcp6_config(settings, self._place)}
        for server in SERVERS:
            program = shutil.which(f"kea-{server}", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
            if program is None:
                raise LabError(f"kea-{server} is missing: install the package kea-{server}-server")
            path = self._directory / f"kea-{server}.conf"
            path.write_text(json.dumps(configs[server], indent=1), encoding="utf-8")
            self.log(server).write_bytes(b"")
            process = self._namespace.start(program, "-c", str(path), log=self.log(server), env=env)
            self._children[server] = process
            self._pidfile(server).write_text(f"{process.pid}\n", encoding="ascii")
        for server in SERVERS:
            ready = f"{server.upper()}_STARTED"
            try:
                wait_until(lambda s=server, r=ready: self._look(s, r), READY_TIMEOUT_S, f"kea-{server} to start")  # type: ignore[misc]
            except LabError as error:
                lines = self.log(server).read_text(errors="replace").splitlines()
                # Kea says each error three times; INFO does not explain a failed start.
                tail = [line for line in lines if " INFO " not in line][-LOG_TAIL:]
                self.stop()
                raise LabError("\n  ".join([f"{error}; what it said:", *tail])) from None

    def _link_runs(self) -> bool:
        flags = ip("-n", self._namespace.name, "-o", "link", "show", "dev", self._place.interface)
        # A link may have its carrier (LOWER_UP) for a moment before it is said to run (no NO-CARRIER).
        return "LOWER_UP" in flags and "NO-CARRIER" not in flags

    def stop(self) -> None:
        """End both; nothing when they do not run."""
        for server in SERVERS:
            pid = self._running(server)
            if pid is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            try:
                wait_until(lambda s=server: self._running(s) is None, 5, f"kea-{server} to end")  # type: ignore[misc]
            except LabError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                wait_until(lambda s=server: self._running(s) is None, 5, f"kea-{server} to die")  # type: ignore[misc]
            self._pidfile(server).unlink(missing_ok=True)

    def restart(self, settings: KeaSettings) -> None:
        """Stop and start, as a server that was restarted and has lost its leases."""
        self.stop()
        self.start(settings)

    @property
    def running(self) -> bool:
        """True while both run."""
        return all(self._running(server) is not None for server in SERVERS)

    def _pidfile(self, server: str) -> Path:
        return self._directory / f"kea-{server}.pid"

    def _running(self, server: str) -> int | None:
        """The process, when it runs: our own child, or one inside the namespace that an earlier command started."""
        try:
            pid = int(self._pidfile(server).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        child = self._children.get(server)
        if child is not None and child.pid == pid:
            return pid if child.poll() is None else None
        return pid if pid in self._namespace.pids() else None

    def _look(self, server: str, text: str) -> bool:
        if text in self.log(server).read_text(errors="replace"):
            return True
        if self._running(server) is None:
            raise LabError(f"kea-{server} ended at once")
        return False
