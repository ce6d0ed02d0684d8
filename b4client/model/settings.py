"""What the operator may decide, as frozen values with working defaults. ``config`` reads them from TOML and flags."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal

from b4client.model.maprule import InterfaceIdentifier, MappingRule
from b4client.model.portset import PortSet
from b4client.model.softwire import Encapsulation, Mode, PortForward

MECHANISMS: Final = ("dhcp4o6", "lw4o6", "map-e", "ds-lite")
"""What can be switched off one by one (RFC 8585 TRANS-2): address by DHCP 4o6, and the ways that DHCPv6 provisions."""

ANY_PREFIX: Final = IPv6Network("::/0")


@dataclass(frozen=True, slots=True)
class StaticSoftwire:
    """A softwire that the operator describes instead of DHCPv6.

    lw4o6 needs ``ipv4`` (``ports`` None: not shared); its source address is built in the WAN's prefix that matches
    ``bind_prefix`` (RFC 7596 5.1). MAP-E needs ``rules``. DS-Lite needs nothing here. The far end is
    ``ProtocolSettings.br`` or, for DS-Lite, ``aftr``.
    """

    mode: Mode
    ipv4: IPv4Address | None = None
    ports: PortSet | None = None
    bind_prefix: IPv6Network = ANY_PREFIX
    rules: tuple[MappingRule, ...] = ()


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """What the state machines may be told. Times in seconds.

    ``start_delay`` False leaves out the random waits before the first message (RFC 2131 4.4.1 [S-1], RFC 8415 18.2.6
    [D-5]): for testbeds. ``psid_len_hint`` asks for a port set of 2**(16-k) ports (RFC 7618 7 [S-18]).
    ``prefer_shared`` turns the preference for unshared offers round [S-12]; ``offer_window_s`` is how long offers are
    collected after the first one. ``duid``, ``iaid`` and ``hardware_address`` override what is found or made.
    ``keep_lease_without_option88`` decides X-2: keep the lease until it expires when option 88 is withdrawn.
    ``br`` is a static BR (lwAFTR) address that wins over what DHCPv6 says; ``local`` a static softwire address.
    ``servers_4o6`` are static DHCP 4o6 server addresses: None takes option 88 (RFC 7341 9 [F-1]); an empty tuple means
    multicast, for links whose operator documents 4o6 out of band.

    ``static`` replaces all of DHCPv6's provisioning; ``prefixes`` are prefixes delegated to this machine that nothing
    else tells it (MAP-E's End-user prefix). ``mechanisms`` are those that may be used; ``profile`` says what an option
    111 without a match means: ``rfc8026`` any mechanism, ``rfc8585`` none (X-5). ``interface_identifier`` is the layout
    of MAP-E addresses. ``aftr`` is a static AFTR, its address or its name (DS-Lite).
    ``rfc8539``: whether DHCP 4o6 also provisions the softwire: ``auto`` where option 88 comes without a BR.
    ``saddr_retry_s`` is the least wait before a softwire source that the server has not taken is sent to it again
    (RFC 8539 7.5).
    ``dhcp6_mode`` says who asks by DHCPv6, and what: ``stateless`` (INFORMATION-REQUEST), ``prefix`` (IA_PD),
    ``address+prefix`` (IA_NA too), ``external`` (another client, which hands over). ``rapid_commit`` allows the
    exchange of two messages; ``prefix_len_hint`` is the length of prefix that is asked for.
    """

    start_delay: bool = True
    psid_len_hint: int | None = None
    prefer_shared: bool = False
    offer_window_s: float = 1.0
    keep_lease_without_option88: bool = True
    br: IPv6Address | None = None
    servers_4o6: tuple[IPv6Address, ...] | None = None
    local: IPv6Address | None = None
    duid: bytes | None = None
    iaid: int | None = None
    hardware_address: bytes | None = None
    hostname: str | None = None
    static: StaticSoftwire | None = None
    prefixes: tuple[IPv6Network, ...] = ()
    mechanisms: tuple[str, ...] = MECHANISMS
    profile: Literal["rfc8026", "rfc8585"] = "rfc8026"
    interface_identifier: InterfaceIdentifier = "rfc7597"
    aftr: IPv6Address | str | None = None
    rfc8539: Literal["auto", "on", "off"] = "auto"
    saddr_retry_s: float = 60.0
    dhcp6_mode: str = "stateless"
    rapid_commit: bool = False
    prefix_len_hint: int | None = None


@dataclass(frozen=True, slots=True)
class NatTimeouts:
    """Conntrack timeouts in seconds; the defaults keep RFC 4787 REQ-5, RFC 5382 REQ-5, RFC 5508 REQ-2."""

    udp: int = 120
    udp_stream: int = 300
    tcp_established: int = 7440
    tcp_transitory: int = 240
    icmp: int = 60


@dataclass(frozen=True, slots=True)
class SoftwireSettings:
    """How the softwire is to be realised on this machine.

    ``device`` is the interface's name (1..15 characters). ``default_route`` False leaves routing to the operator.
    ``route_metric`` is the metric of the default route (0: the best). ``lan`` limits what may be forwarded into the
    softwire to these source networks; empty allows any. ``accept_local`` opens in-set ports to this machine's own INPUT
    policy (without it only forwards and replies come in). ``clamp_mss`` fits TCP's MSS to the softwire's MTU.
    ``mesh`` is whether MAP-E's forwarding rules are followed: ``auto`` where the userspace softwire can be had, ``on``
    or not at all, ``off`` never (all goes by the BR). ``prefix_lan`` is the interface of the LAN to which a whole IPv4
    prefix is given, whose hosts then need no NAT; None uses one address of the prefix, with NAT.
    """

    device: str = "b4"
    encapsulation: Encapsulation = Encapsulation.AUTO
    mtu: int | None = None
    default_route: bool = True
    route_metric: int = 0
    lan: tuple[IPv4Network, ...] = ()
    accept_local: bool = True
    clamp_mss: bool = True
    mesh: Literal["auto", "on", "off"] = "auto"
    prefix_lan: str | None = None
    forwards: tuple[PortForward, ...] = ()
    timeouts: NatTimeouts = field(default_factory=NatTimeouts)
