"""The lab server's configuration: TOML or JSON to frozen settings. Every error names its key.

::

    interface = "wan"
    server_id = "192.0.0.1"                # option 54
    lease_file = "/var/tmp/lab.leases"     # without it a restart forgets
    aftr = "/run/lab/aftr.sock"            # the lwAFTR that learns the bindings
    feed = "/run/lab/feed.sock"            # where lwAFTRs come and ask for them (b4client.lab.aftr --feed)
    [[shared]]                             # addresses with port sets; offset 0, psid_len 6
    first = "192.0.2.1"
    last = "192.0.2.9"
    hints = [5, 7]                         # lengths that a client may ask for
    [[full]]                               # whole addresses
    first = "198.51.100.1"
    last = "198.51.100.9"
    [policy]
    reserved = ["0-1023"]
    ignore_portparams = false
    max_leases_per_customer = 4
    authoritative = false
    [lease]
    time = 3600                            # and t1, t2, offer_hold
    [options]                              # for DHCPv4 clients that list them
    dns = ["192.0.2.53"]                   # and mtu, domain
    [dhcp6]
    servers_4o6 = []                       # option 88; "off" leaves it out
    container = "lw4o6"                    # or "map-e", "none"
    br = ["2001:db8:ffff::1"]
    bind_prefix = "2001:db8:1::/48"        # in option 92, and option 137
    priority = [96]
    refresh = 7200
    [softwire]                             # RFC 8539
    saddr_interval = 60
    drop_saddr_changes = false

A map-e container needs ``[[rule]]`` tables: ipv4, ipv6, ea_len, fmr, offset, psid_len.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, TypeVar

from b4client.lab.dhcp4_server import Dhcp4Settings
from b4client.lab.pools import SYSTEM_PORTS, FullPool, Pools, SharedPool
from b4client.lab.server import ServerSettings
from b4client.model.errors import ConfigError
from b4client.model.portset import PortRange
from b4client.wire import dhcp4, identity
from b4client.wire.softwire46 import Lw4o6Container, MapEContainer, PortParams, Rule, V4V6Bind

DEFAULT_DUID = identity.duid_en(0, b"b4client-lab").data
T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class LabConfig:
    """Everything that ``python -m b4client.lab.serve`` is told."""

    interface: str
    server: ServerSettings
    pools: Pools
    max_per_customer: int | None = None
    lease_file: Path | None = None
    aftr: Path | None = None
    feed: Path | None = None


class _Table:
    """A table of the document whose entries are taken one by one; what is left over is unknown."""

    def __init__(self, key: str, value: object) -> None:
        if not isinstance(value, dict):
            raise ConfigError(key, "must be a table")
        self._key = key
        self._rest: dict[str, object] = dict(value)

    def take(self, name: str, read: Callable[[Any], T], default: D) -> T | D:
        """The entry ``name`` as ``read`` makes it, ``default`` when it is absent."""
        if name not in self._rest:
            return default
        return self.need(name, read)

    def need(self, name: str, read: Callable[[Any], T]) -> T:
        """The entry ``name``, which must be there."""
        if name not in self._rest:
            raise ConfigError(self._name(name), "is missing")
        value = self._rest.pop(name)
        try:
            return read(value)
        except (ValueError, TypeError) as error:
            raise ConfigError(self._name(name), f"{value!r}: {error}") from None

    def table(self, name: str) -> _Table:
        """A table inside."""
        return _Table(self._name(name), self._rest.pop(name, {}))

    def tables(self, name: str) -> list[_Table]:
        """A list of tables inside."""
        value = self._rest.pop(name, [])
        if not isinstance(value, list):
            raise ConfigError(self._name(name), "must be a list of tables")
        return [_Table(f"{self._name(name)}[{i}]", item) for i, item in enumerate(value)]

    def finish(self) -> None:
        """Raises ConfigError when something is left that nobody took."""
        for name in self._rest:
            raise ConfigError(self._name(name), "unknown setting")

    def _name(self, name: str) -> str:
        return f"{self._key}.{name}" if self._key else name


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be text")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0xFFFFFFFF:
        raise ValueError("must be a whole number from 0 to 4294967295")
    return value


def _some(value: object) -> int:
    if not _count(value):
        raise ValueError("must not be 0")
    return _count(value)


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise ValueError("must be a number of seconds")
    return float(value)


def _list(read: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    def read_all(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        return tuple(read(item) for item in value)

    return read_all


def _range(value: object) -> PortRange:
    first, _, last = _text(value).partition("-")
    return PortRange(int(first), int(last or first))


def _octets(value: object) -> bytes:
    return identity.Duid(bytes.fromhex(_text(value).replace(":", ""))).data


def _path(value: object) -> Path:
    return Path(_text(value))


def _ipv6(value: object) -> IPv6Address:
    return IPv6Address(_text(value))


def _servers(value: object) -> tuple[IPv6Address, ...] | None:
    return None if value == "off" else _list(_ipv6)(value)


def _container(value: object) -> str:
    if value not in ("lw4o6", "map-e", "none"):
        raise ValueError("must be lw4o6, map-e or none")
    return str(value)


def parse(document: object) -> LabConfig:
    """Settings from a TOML or JSON document. Raises ConfigError naming the key."""
    top = _Table("", document)
    interface = top.need("interface", _text)
    server_id = top.take("server_id", IPv4Address, IPv4Address("192.0.0.1"))
    duid = top.take("duid", _octets, DEFAULT_DUID)
    lease_file: Path | None = top.take("lease_file", _path, None)
    aftr: Path | None = top.take("aftr", _path, None)
    feed: Path | None = top.take("feed", _path, None)
    policy = top.table("policy")
    limit: int | None = policy.take("max_leases_per_customer", _some, None)
    authoritative = policy.take("authoritative", _flag, False)
    customer_prefix_len = policy.take("customer_prefix_len", _count, 56)
    pools = _pools(top, policy)
    policy.finish()
    dhcp4_settings = _dhcp4(top, server_id, authoritative)
    server = _dhcp6(top, duid, dhcp4_settings, customer_prefix_len)
    top.finish()
    return LabConfig(interface, server, pools, limit, lease_file, aftr, feed)


def _pools(top: _Table, policy: _Table) -> Pools:
    shared, full = [], []
    for table in top.tables("shared"):
        first = table.need("first", IPv4Address)
        last = table.take("last", IPv4Address, first)
        offset, length = table.take("offset", _count, 0), table.take("psid_len", _count, 6)
        hints = table.take("hints", _list(_count), ())
        table.finish()
        shared.append(_make("shared", lambda: SharedPool(first, last, offset, length, hints)))  # noqa: B023
    for table in top.tables("full"):
        first = table.need("first", IPv4Address)
        last = table.take("last", IPv4Address, first)
        table.finish()
        full.append(_make("full", lambda: FullPool(first, last)))  # noqa: B023
    reserved = policy.take("reserved", _list(_range), (SYSTEM_PORTS,))
    ignore = policy.take("ignore_portparams", _flag, False)
    return _make("shared", lambda: Pools(tuple(shared), tuple(full), reserved, ignore))


def _make(key: str, build: Callable[[], T]) -> T:
    try:
        return build()
    except ValueError as error:
        raise ConfigError(key, str(error)) from None


def _dhcp4(top: _Table, server_id: IPv4Address, authoritative: bool) -> Dhcp4Settings:
    lease, options, softwire = top.table("lease"), top.table("options"), top.table("softwire")
    values: list[tuple[int, bytes]] = []
    dns = options.take("dns", _list(IPv4Address), ())
    if dns:
        values.append((dhcp4.Option.DNS, b"".join(address.packed for address in dns)))
    domain = options.take("domain", _text, "")
    if domain:
        values.append((dhcp4.Option.DOMAIN, domain.encode("ascii")))
    mtu = options.take("mtu", _count, 0)
    if mtu:
        values.append((dhcp4.Option.MTU, mtu.to_bytes(2, "big")))
    t1: int | None = lease.take("t1", _count, None)
    t2: int | None = lease.take("t2", _count, None)
    settings = Dhcp4Settings(
        server_id=server_id,
        lease_s=lease.take("time", _some, 3600),
        t1_s=t1,
        t2_s=t2,
        offer_hold_s=lease.take("offer_hold", _seconds, 120.0),
        decline_hold_s=lease.take("decline_hold", _seconds, 86400.0),
        options=tuple(values),
        authoritative=authoritative,
        saddr_interval_s=softwire.take("saddr_interval", _seconds, 0.0),
        drop_saddr_changes=softwire.take("drop_saddr_changes", _flag, False),
    )
    for table in (lease, options, softwire):
        table.finish()
    return settings


def _dhcp6(top: _Table, duid: bytes, settings: Dhcp4Settings, customer_prefix_len: int) -> ServerSettings:
    table = top.table("dhcp6")
    brs = table.take("br", _list(_ipv6), ())
    container = table.take("container", _container, "lw4o6" if brs else "none")
    prefix: IPv6Network | None = table.take("bind_prefix", IPv6Network, None)
    lw4o6 = map_e = None
    if container != "none" and not brs:
        raise ConfigError("dhcp6.br", f"is missing: a {container} container needs one")
    if container == "lw4o6":
        # 0.0.0.0: the address itself comes by DHCP 4o6 (RFC 7596 5.1).
        lw4o6 = Lw4o6Container(brs, None if prefix is None else V4V6Bind(IPv4Address(0), prefix))
    elif container == "map-e":
        rules = tuple(_rule(rule) for rule in top.tables("rule"))
        if not rules:
            raise ConfigError("rule", "is missing: a map-e container needs one")
        map_e = MapEContainer(rules, brs)
    refresh: int | None = table.take("refresh", _count, None)
    server = ServerSettings(
        duid=duid,
        dhcp4=settings,
        servers_4o6=table.take("servers_4o6", _servers, ()),
        lw4o6=lw4o6,
        map_e=map_e,
        priority=table.take("priority", _list(_count), ()),
        refresh_s=refresh,
        brs=brs,
        bind_prefix=prefix,
        customer_prefix_len=customer_prefix_len,
    )
    table.finish()
    return server


def _rule(table: _Table) -> Rule:
    ipv4, ipv6 = table.need("ipv4", IPv4Network), table.need("ipv6", IPv6Network)
    ea_len, fmr = table.take("ea_len", _count, 0), table.take("fmr", _flag, False)
    offset, psid_len = table.take("offset", _count, 6), table.take("psid_len", _count, None)
    table.finish()
    params = None if psid_len is None else _make("rule", lambda: PortParams(offset, psid_len, 0))
    return _make("rule", lambda: Rule(fmr, ea_len, ipv4, ipv6, params))


def load(path: Path) -> LabConfig:
    """Read a ``.json`` or TOML file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
        return parse(json.loads(text) if path.suffix == ".json" else tomllib.loads(text))
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(str(path), f"is neither TOML nor JSON: {error}") from None
