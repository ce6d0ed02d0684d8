"""The agent in words: what stands between it and IPv4, which way it takes, what it was told. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from b4client.model.lease import Lease4
from b4client.model.settings import ProtocolSettings
from b4client.model.softwire import Mode
from b4client.protocol import events
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp4_states import Coasting, Confirming, Preparing, State
from b4client.protocol.effects import Report
from b4client.protocol.provisioning import Provisioning
from b4client.protocol.softwire_choice import Way, ways
from b4client.protocol.softwire_keeper import SoftwireKeeper
from b4client.protocol.status import Lease6Status, ProvisioningStatus
from b4client.protocol.transport import Path


@dataclass(frozen=True, slots=True)
class Situation:
    """Where an agent stands. ``asking`` says what is waited for while nothing is provisioned yet."""

    interface: str
    settings: ProtocolSettings
    link: events.LinkChanged
    provisioning: Provisioning
    way: Way | None
    path: Path | None
    dhcp4: State
    leased: bool
    keeper: SoftwireKeeper
    counters: Counters
    released: bool
    informed: bool
    asking: str
    has_prefix: bool
    unfit: str | None
    aftr_problem: str | None


def waiting_for(s: Situation) -> str | None:
    """The first thing that stands between here and IPv4; None when nothing does."""
    if s.released:
        return "b4client restart: the lease was given back"
    if not s.link.up:
        return f"{s.interface} to come up"
    if s.link.link_local is None:
        return f"a link-local address on {s.interface}"
    if s.way is None:
        return s.asking if not s.informed else "the DHCPv6 server to provision IPv4: " + _missing(s)
    if s.way.leased and not s.leased:
        return _lease(s)
    if s.keeper.desired is None:
        return f"{s.unfit} ({s.aftr_problem})" if s.aftr_problem and s.way.mode is Mode.DS_LITE else s.unfit
    if s.keeper.desired != s.keeper.installed:
        return s.keeper.problem or "the softwire to be made"
    return None


def _lease(s: Situation) -> str:
    if s.path is None and not isinstance(s.dhcp4, Coasting):
        return (
            f"a global or unique-local IPv6 address on {s.interface}, or one of the delegated prefix on another "
            "interface, to speak to the DHCP 4o6 server from"
        )
    if s.way is not None and s.way.dynamic:
        if not s.has_prefix:
            return f"a global or unique-local IPv6 prefix on {s.interface}, for the softwire (RFC 8539 7)"
        if isinstance(s.dhcp4, Preparing):
            return f"the softwire's address on {s.interface} to pass duplicate address detection"
        if isinstance(s.dhcp4, Confirming):
            return "the DHCP 4o6 server to take the softwire's source (option 109)"
        dropped = s.counters["drop-offer-without-br"]
        if dropped:
            return (
                f"an OFFER with a BR address (option 90, RFC 8539): {dropped} had none, and no container 94 or 96 came "
                "by DHCPv6 either"
            )
    return f"an answer of the DHCP 4o6 server ({s.dhcp4.name})"


def _missing(s: Situation) -> str:
    p = s.provisioning
    provisioned = ways(p, s.settings)
    if provisioned:
        names = " and ".join(dict.fromkeys(way.mode.value for way in provisioned))
        return f"its Reply has {names}, but no option 111 that permits it (profile rfc8585)"
    lacks = []
    if p.servers_4o6 is None:
        lacks.append("no option 88 (DHCP 4o6 server)")
    if not p.brs:
        lacks.append("no BR address (container 94 or 96)")
    switched_off = [m for m in ("dhcp4o6", "lw4o6", "map-e", "ds-lite") if m not in s.settings.mechanisms]
    off = f"; switched off here: {', '.join(switched_off)}" if switched_off else ""
    return "its Reply has " + (" and ".join(lacks) or "nothing that fits together") + off


def describe_way(way: Way, settings: ProtocolSettings) -> str:
    """One sentence about the way that is taken, and why where that is not obvious."""
    if way.mode is Mode.DS_LITE:
        return "IPv4 by DS-Lite: the AFTR translates"
    if way.dynamic:
        why = "as configured" if settings.rfc8539 == "on" else "option 88 came without a BR address in a container"
        return f"IPv4 and softwire by DHCP 4o6 (RFC 8539): {why}"
    source = "the operator's file" if settings.static is not None else "a DHCPv6 container"
    return f"IPv4 by {way.mode.value}: address from {'DHCP 4o6' if way.leased else source}, BR {way.br}"


def view_provisioning(
    p: Provisioning,
    state: str,
    refresh_in_s: float | None,
    way: Way | None,
    *,
    mode: str,
    problem: str | None,
    leases: tuple[Lease6Status, ...],
) -> ProvisioningStatus:
    """The view of what DHCPv6 (or the operator's file) says."""
    mechanism = None if way is None else "rfc8539" if way.dynamic else way.mode.value
    return ProvisioningStatus(
        state=state,
        refresh_in_s=None if refresh_in_s is None else round(refresh_in_s, 3),
        servers_4o6=None if p.servers_4o6 is None else tuple(map(str, p.servers_4o6)),
        brs=tuple(map(str, p.brs)),
        containers=tuple(n for n, c in (("lw4o6", p.lw4o6), ("map-e", p.map_e)) if c is not None),
        problems=p.problems + ((problem,) if problem else ()),
        mode=mode,
        leases=leases,
        mechanism=mechanism,
        aftr=None if p.aftr is None else str(p.aftr),
    )


def describe_reply(p: Provisioning, source: str) -> str:
    """One sentence about what a Reply provisions."""
    servers = p.servers_4o6
    said = "no option 88" if servers is None else f"DHCP 4o6 at {', '.join(map(str, servers)) or 'multicast'}"
    containers = [n for n, c in (("lw4o6", p.lw4o6), ("MAP-E", p.map_e)) if c is not None]
    brs = ", ".join(map(str, p.brs))
    tail = (f", BR {brs}" if brs else "") + (f", AFTR {p.aftr}" if p.aftr else "")
    return f"DHCPv6 ({source}): {said}; {' and '.join(containers) or 'no'} container{tail}"


def report_lease(lease: Lease4, shown: Lease4 | None, way: Way | None, now: float) -> list[Report]:
    """What there is to say about a lease that was granted; ``shown`` is the one before."""
    ports = lease.ports
    what = f"{lease.address}, {'the whole address' if ports is None else ports}"
    for_s = "ever" if math.isinf(lease.expires_at) else f"{lease.expires_at - now:.0f} s"
    fields = (("address", str(lease.address)), ("ports", str(ports)), ("server_id", str(lease.server_id)))
    if lease.same_binding(shown):
        return [Report("renewed", "info", f"renewed {what}, for {for_s}", fields)]
    reports = []
    if ports is not None and ports.range_at(0).first < 1024:
        # P-8: the server decided; whoever runs it should know.
        reports.append(Report("system-ports", "warning", f"the port set {ports} holds system ports (below 1024)"))
    if ports is not None and ports.offset_len and way is not None and way.mode is Mode.LW4O6:
        # RFC 7618 9 has no use for an offset here; server and lwAFTR must agree on what it means.
        reports.append(Report("psid-offset", "warning", f"the port set {ports} has an offset, which lw4o6 lacks"))
    return [*reports, Report("bound", "info", f"leased {what}, for {for_s}", fields)]
