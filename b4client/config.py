"""The configuration: TOML and flags to frozen settings. Every error names its key and the remedy.

Nothing but the WAN interface must be given; every other setting has a default that works.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from b4client import configvalues as values
from b4client.model.errors import ConfigError
from b4client.model.maprule import DEFAULT_OFFSET_LEN, MappingRule
from b4client.model.portset import PortSet
from b4client.model.settings import NatTimeouts, ProtocolSettings, SoftwireSettings, StaticSoftwire
from b4client.model.softwire import FORWARD_PROTOCOLS, Mode, PortForward

DEFAULT_CONFIG = Path("/etc/b4client.toml")
INSTANCE_CONFIGS = Path("/etc/b4client")
"""Holds ``WAN.toml`` for machines with several: it is read instead of the default file."""
STOP_POLICIES = ("keep", "withdraw", "release")
LOG_LEVELS = ("debug", "info", "warning", "error")
DNS_WAYS = ("none", "auto", "resolved", "resolvconf")
LOG_FORMATS = ("text", "json", "syslog")
DHCP6_MODES = ("stateless", "prefix", "address+prefix", "external")
SOCKETS = ("auto", "udp", "packet")
IPV4_MTU_FLOOR = 576
IPV4_MTU_MAX = 65495
MAX_FORWARDS = 1024
ON_CHANGE = ("report", "move")
"""What becomes of a forward whose port cannot be had: it waits and that is reported, or takes another port."""
MAX_RULES = 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """Where the daemon keeps its things and how it ends.

    ``stop`` is what SIGTERM and SIGINT do to the softwire: ``keep`` leaves it (a restart does not cut traffic),
    ``withdraw`` takes it down, ``release`` also gives the lease back. ``interface_wait_s`` is how long to wait at start
    for a WAN interface that does not exist yet. ``socket`` says how port 546 is listened to: ``udp`` owns it,
    ``packet`` lives beside another DHCPv6 client that does, ``auto`` takes what is possible.
    """

    state_dir: Path = Path("/var/lib/b4client")
    run_dir: Path = Path("/run/b4client")
    stop: str = "withdraw"
    log_level: str = "info"
    log_format: str = "text"
    interface_wait_s: float = 3.0
    socket: str = "auto"


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where metrics can be had besides the control socket; by default nowhere.

    ``port`` 0 is no HTTP endpoint, else it listens on ``address``. ``textfile`` is a file for node_exporter, written
    every ``textfile_interval_s``.
    """

    address: str = "127.0.0.1"
    port: int = 0
    textfile: Path | None = None
    textfile_interval_s: float = 15.0


@dataclass(frozen=True, slots=True)
class HookSettings:
    """Who is told about IPv4 coming and going.

    ``script`` is a program that is run at every change, for at most ``timeout_s``. ``dns`` says to whom the provider's
    DNS servers are handed: ``none``, ``resolved`` (systemd-resolved), ``resolvconf``, or ``auto``: who is there.
    """

    script: Path | None = None
    timeout_s: float = 10.0
    dns: str = "none"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the operator decided."""

    wan: str
    protocol: ProtocolSettings = field(default_factory=ProtocolSettings)
    softwire: SoftwireSettings = field(default_factory=SoftwireSettings)
    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    hooks: HookSettings = field(default_factory=HookSettings)

    @property
    def instance(self) -> str:
        """Name of this instance in file names: the WAN interface's."""
        return self.wan


def read_forward(key: str, value: object) -> PortForward:
    """One ``[[forward]]`` table: ``protocol``, ``port``, ``to`` and optionally ``to_port`` and ``on_change``."""
    if not isinstance(value, dict):
        raise ConfigError(key, f"must be a table with protocol, port, to, not {values.kind(value)}")
    _known(key, value, ("protocol", "port", "to", "to_port", "on_change"))
    for needed in ("protocol", "port", "to"):
        if needed not in value:
            raise ConfigError(f"{key}.{needed}", "is missing")
    port = values.integer(1, 65535)(f"{key}.port", value["port"])
    to = values.ipv4(f"{key}.to", value["to"])
    if to.is_multicast or to.is_unspecified or to.is_loopback or to.is_link_local:
        raise ConfigError(f"{key}.to", f"{to} is no host of the LAN")
    return PortForward(
        protocol=values.choice(FORWARD_PROTOCOLS)(f"{key}.protocol", value["protocol"]),
        port=port,
        to=to,
        to_port=values.integer(1, 65535)(f"{key}.to_port", value.get("to_port", port)),
        move=values.choice(ON_CHANGE)(f"{key}.on_change", value.get("on_change", "report")) == "move",
    )


_Reader = Callable[[str, object], object]

_DHCP: dict[str, tuple[str, _Reader]] = {
    "start_delay": ("start_delay", values.boolean),
    "psid_len_hint": ("psid_len_hint", values.integer(1, 16)),
    "prefer_shared": ("prefer_shared", values.boolean),
    "offer_window": ("offer_window_s", values.seconds(0, 30)),
    "keep_lease_without_option88": ("keep_lease_without_option88", values.boolean),
    "servers": ("servers_4o6", values.ipv6_list),
    "duid": ("duid", values.octets(3, 130)),
    "iaid": ("iaid", values.integer(0, 0xFFFFFFFF)),
    "hardware_address": ("hardware_address", values.octets(6, 6)),
    "hostname": ("hostname", values.hostname),
    "rfc8539": ("rfc8539", values.choice(("auto", "on", "off"))),
    "saddr_retry": ("saddr_retry_s", values.seconds(1, 3600)),
}
_SOFTWIRE_PROTOCOL: dict[str, tuple[str, _Reader]] = {
    "br": ("br", values.ipv6),
    "local": ("local", values.ipv6),
    "aftr": ("aftr", values.aftr),
    "interface_identifier": ("interface_identifier", values.choice(("rfc7597", "draft03"))),
}
_PROVISIONING: dict[str, tuple[str, _Reader]] = {
    "mechanisms": ("mechanisms", values.mechanisms),
    "profile": ("profile", values.choice(("rfc8026", "rfc8585"))),
    "prefixes": ("prefixes", values.prefixes),
}
_DHCP6: dict[str, tuple[str, _Reader]] = {
    "mode": ("dhcp6_mode", values.choice(DHCP6_MODES)),
    "rapid_commit": ("rapid_commit", values.boolean),
    "prefix_len_hint": ("prefix_len_hint", values.integer(24, 64)),
}
_DHCP6_DAEMON: dict[str, tuple[str, _Reader]] = {"socket": ("socket", values.choice(SOCKETS))}
_SOFTWIRE: dict[str, tuple[str, _Reader]] = {
    "device": ("device", values.interface),
    "encapsulation": ("encapsulation", values.encapsulation),
    "mtu": ("mtu", values.integer(IPV4_MTU_FLOOR, IPV4_MTU_MAX)),
    "default_route": ("default_route", values.boolean),
    "route_metric": ("route_metric", values.integer(0, 0xFFFFFFFF)),
    "lan": ("lan", values.networks),
    "accept_local": ("accept_local", values.boolean),
    "clamp_mss": ("clamp_mss", values.boolean),
    "mesh": ("mesh", values.choice(("auto", "on", "off"))),
    "prefix_lan": ("prefix_lan", values.interface),
}
_TIMEOUTS: dict[str, tuple[str, _Reader]] = {
    f.name: (f.name, values.integer(1, 86400 * 7)) for f in fields(NatTimeouts)
}
_DAEMON: dict[str, tuple[str, _Reader]] = {
    "state_dir": ("state_dir", values.path),
    "run_dir": ("run_dir", values.path),
    "stop": ("stop", values.choice(STOP_POLICIES)),
    "log_level": ("log_level", values.choice(LOG_LEVELS)),
    "log_format": ("log_format", values.choice(LOG_FORMATS)),
    "interface_wait": ("interface_wait_s", values.seconds(0, 3600)),
}
_METRICS: dict[str, tuple[str, _Reader]] = {
    "address": ("address", values.host),
    "port": ("port", values.integer(0, 65535)),
    "textfile": ("textfile", values.path),
    "textfile_interval": ("textfile_interval_s", values.seconds(1, 3600)),
}
_HOOKS: dict[str, tuple[str, _Reader]] = {
    "script": ("script", values.path),
    "timeout": ("timeout_s", values.seconds(0.1, 600)),
    "dns": ("dns", values.choice(DNS_WAYS)),
}


SECTION_OF = {"protocol": "dhcp", "softwire": "softwire", "daemon": "daemon", "metrics": "metrics", "hooks": "hooks"}
"""Parts of Config (attributes) and the sections of the file that they are mostly read from."""


def key_of(part: str, attribute: str) -> str:
    """The name in the file of an attribute of one part of Config: ``("daemon", "stop")`` is ``daemon.stop``."""
    if part == "softwire" and attribute in ("forwards", "timeouts"):
        return {"forwards": "forward", "timeouts": "nat.timeouts"}[attribute]
    if part == "protocol" and attribute == "static":
        return "static"
    if part == "protocol":
        for section, table in (("softwire", _SOFTWIRE_PROTOCOL), ("provisioning", _PROVISIONING)):
            if found := next((name for name, (known, _) in table.items() if known == attribute), None):
                return f"{section}.{found}"
    if any(attribute == known for known, _ in (*_DHCP6.values(), *_DHCP6_DAEMON.values())):
        names = {known: name for name, (known, _) in {**_DHCP6, **_DHCP6_DAEMON}.items()}
        return f"dhcp6.{names[attribute]}"
    tables = {"protocol": _DHCP, "softwire": _SOFTWIRE, "daemon": _DAEMON, "metrics": _METRICS, "hooks": _HOOKS}
    names = {known: name for name, (known, _) in tables[part].items()}
    return f"{SECTION_OF[part]}.{names.get(attribute, attribute)}"


# ---- a static softwire

_PORTS = ("offset", "psid", "psid_len")
STATIC_KEYS: dict[Mode, tuple[str, ...]] = {
    Mode.LW4O6: ("ipv4", *_PORTS, "bind_prefix"),
    Mode.MAP_E: ("rule",),
    Mode.DS_LITE: (),
}
"""Keys of ``[static]`` beside ``mode``."""
RULE_KEYS = ("ipv6", "ipv4", "ea_len", *_PORTS, "fmr")
"""Keys of a ``[[static.rule]]`` table."""


def _port_set(key: str, table: Mapping[str, object], default_offset: int) -> PortSet | None:
    """``psid`` and ``psid_len`` (and ``offset``) of ``table``; None when it has no PSID."""
    if "psid" not in table and "psid_len" not in table:
        return None
    for needed in ("psid", "psid_len"):
        if needed not in table:
            raise ConfigError(f"{key}.{needed}", "is missing: a port set needs psid and psid_len")
    psid = values.integer(0, 0xFFFF)(f"{key}.psid", table["psid"])
    length = values.integer(1, 16)(f"{key}.psid_len", table["psid_len"])
    try:
        return PortSet(_offset(key, table, default_offset), length, psid)
    except ValueError as error:
        raise ConfigError(f"{key}.psid", str(error)) from None


def _offset(key: str, table: Mapping[str, object], default: int) -> int:
    return values.integer(0, 15)(f"{key}.offset", table.get("offset", default))


def _rule(key: str, value: object) -> MappingRule:
    if not isinstance(value, dict):
        raise ConfigError(key, f"must be a table with ipv6, ipv4, ea_len, not {values.kind(value)}")
    _known(key, value, RULE_KEYS)
    for needed in ("ipv6", "ipv4", "ea_len"):
        if needed not in value:
            raise ConfigError(f"{key}.{needed}", "is missing")
    ports = _port_set(key, value, DEFAULT_OFFSET_LEN)
    try:
        return MappingRule(
            values.prefix(f"{key}.ipv6", value["ipv6"]),
            values.ipv4_network(f"{key}.ipv4", value["ipv4"]),
            values.integer(0, 48)(f"{key}.ea_len", value["ea_len"]),
            _offset(key, value, DEFAULT_OFFSET_LEN),
            0 if ports is None else ports.psid_len,
            0 if ports is None else ports.psid,
            values.boolean(f"{key}.fmr", value.get("fmr", False)),
        )
    except ValueError as error:
        raise ConfigError(key, str(error)) from None


def _static(table: Mapping[str, object], settings: ProtocolSettings) -> StaticSoftwire:
    """The ``[static]`` table: a softwire without DHCPv6. Raises ConfigError for what is missing or has no meaning."""
    if "mode" not in table:
        raise ConfigError("static.mode", "is missing: lw4o6, map-e or ds-lite")
    mode = Mode(values.choice(tuple(m.value for m in Mode))("static.mode", table["mode"]))
    _known("static", table, ("mode", *STATIC_KEYS[mode]))
    if mode is Mode.DS_LITE:
        if settings.aftr is None and settings.br is None:
            raise ConfigError("softwire.aftr", "is missing: static DS-Lite needs the AFTR's address or name")
        return StaticSoftwire(mode)
    if settings.br is None:
        raise ConfigError("softwire.br", f"is missing: a static {mode.value} softwire needs the BR's address")
    if mode is Mode.MAP_E:
        rules = table.get("rule", [])
        if not isinstance(rules, list) or not 1 <= len(rules) <= MAX_RULES:
            raise ConfigError("static.rule", f"must be 1 to {MAX_RULES} [[static.rule]] tables")
        return StaticSoftwire(mode, rules=tuple(_rule(f"static.rule[{i}]", item) for i, item in enumerate(rules)))
    if "ipv4" not in table:
        raise ConfigError("static.ipv4", "is missing: the public IPv4 address")
    static = StaticSoftwire(mode, values.ipv4("static.ipv4", table["ipv4"]), _port_set("static", table, 0))
    if "bind_prefix" in table:
        static = replace(static, bind_prefix=values.prefix("static.bind_prefix", table["bind_prefix"]))
    return static


def _known(where: str, table: Mapping[str, object], names: tuple[str, ...]) -> None:
    for name in table:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}"
            raise ConfigError(f"{where}.{name}" if where else name, f"unknown setting; {hint}")


def _apply(settings: T, section: str, table: Mapping[str, object], readers: dict[str, tuple[str, _Reader]]) -> T:
    changes: dict[str, Any] = {}
    for name, value in table.items():
        if name in readers:
            attribute, reader = readers[name]
            changes[attribute] = reader(f"{section}.{name}", value)
    return replace(settings, **changes) if changes else settings  # type: ignore[type-var]


def _table(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(name, f"must be a table ([{name}]), not {values.kind(table)}")
    return table


def parse(document: Mapping[str, object]) -> Config:
    """Turn a TOML document (as ``tomllib`` gives it) into a Config. Raises ConfigError naming the key."""
    sections = (
        "wan",
        "dhcp",
        "dhcp6",
        "provisioning",
        "static",
        "softwire",
        "nat",
        "daemon",
        "metrics",
        "hooks",
        "forward",
    )
    _known("", document, sections)
    wan, dhcp, softwire = _table(document, "wan"), _table(document, "dhcp"), _table(document, "softwire")
    nat, daemon, dhcp6 = _table(document, "nat"), _table(document, "daemon"), _table(document, "dhcp6")
    _known("wan", wan, ("interface",))
    provisioning = _table(document, "provisioning")
    _known("dhcp", dhcp, tuple(_DHCP))
    _known("provisioning", provisioning, tuple(_PROVISIONING))
    _known("dhcp6", dhcp6, (*_DHCP6, *_DHCP6_DAEMON))
    _known("softwire", softwire, (*_SOFTWIRE, *_SOFTWIRE_PROTOCOL))
    _known("nat", nat, ("timeouts",))
    _known("daemon", daemon, tuple(_DAEMON))
    metrics, hooks = _table(document, "metrics"), _table(document, "hooks")
    _known("metrics", metrics, tuple(_METRICS))
    _known("hooks", hooks, tuple(_HOOKS))
    if "interface" not in wan:
        raise ConfigError("wan.interface", "is missing: name the interface towards the provider, or give --wan IFACE")
    timeouts = _table(nat, "timeouts")
    _known("nat.timeouts", timeouts, tuple(_TIMEOUTS))

    forwards_raw = document.get("forward", [])
    if not isinstance(forwards_raw, list) or len(forwards_raw) > MAX_FORWARDS:
        raise ConfigError("forward", f"must be [[forward]] tables, at most {MAX_FORWARDS}")
    forwards = tuple(read_forward(f"forward[{i}]", item) for i, item in enumerate(forwards_raw))
    taken: dict[tuple[str, int], int] = {}
    for i, forward in enumerate(forwards):
        first = taken.setdefault((forward.protocol, forward.port), i)
        if first != i:
            raise ConfigError(f"forward[{i}].port", f"{forward.protocol} {forward.port} is taken by forward[{first}]")

    protocol = _apply(ProtocolSettings(), "dhcp", dhcp, _DHCP)
    protocol = _apply(protocol, "dhcp6", dhcp6, _DHCP6)
    protocol = _apply(protocol, "softwire", softwire, _SOFTWIRE_PROTOCOL)
    protocol = _apply(protocol, "provisioning", provisioning, _PROVISIONING)
    if "static" in document:
        protocol = replace(protocol, static=_static(_table(document, "static"), protocol))
    realised = _apply(SoftwireSettings(), "softwire", softwire, _SOFTWIRE)
    realised = replace(realised, forwards=forwards, timeouts=_apply(NatTimeouts(), "nat.timeouts", timeouts, _TIMEOUTS))
    interface = values.interface("wan.interface", wan["interface"])
    if realised.device == interface:
        raise ConfigError("softwire.device", f"{interface!r} is the WAN: the softwire needs a name of its own")
    if realised.prefix_lan in (interface, realised.device):
        raise ConfigError("softwire.prefix_lan", f"{realised.prefix_lan!r} is not the LAN")
    shell = _apply(_apply(DaemonSettings(), "daemon", daemon, _DAEMON), "dhcp6", dhcp6, _DHCP6_DAEMON)
    return Config(
        interface,
        protocol,
        realised,
        shell,
        _apply(MetricsSettings(), "metrics", metrics, _METRICS),
        _apply(HookSettings(), "hooks", hooks, _HOOKS),
    )


def _default_file(wan: object) -> Path | None:
    candidates = [DEFAULT_CONFIG]
    if isinstance(wan, str) and re.fullmatch(values.INTERFACE_NAME, wan):
        candidates.insert(0, INSTANCE_CONFIGS / f"{wan}.toml")
    return next((file for file in candidates if file.is_file()), None)


def load(path: Path | None, overrides: Mapping[str, Mapping[str, object]] | None = None) -> Config:
    """Read ``path`` (None: the instance's or the default file when it exists) and lay ``overrides`` (section -> key ->
    value) over it."""
    document: dict[str, Any] = {}
    file = path or _default_file((overrides or {}).get("wan", {}).get("interface"))
    if file is not None:
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(str(file), f"cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(str(file), f"is no valid TOML: {error}") from None
    for section, table in (overrides or {}).items():
        if table:
            document[section] = {**_table(document, section), **table}
    return parse(document)


__all__ = ["DEFAULT_CONFIG", "Config", "DaemonSettings", "load", "parse", "read_forward"]
