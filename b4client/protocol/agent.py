"""The agent: DHCPv6 information, the DHCPv4 client and the softwire joined into one machine.

``handle(event, now) -> effects``; ``deadline()`` says when to wake it; ``snapshot(now)`` shows it. Pure.

Decisions where the RFCs leave room (requirements section 12):

- X-1: another 4o6 source address, or another softwire address, means DISCOVER (RFC 7618 6, RFC 7596 5.1).
- X-2: option 88 withdrawn: the lease is used until it ends and never renewed (``keep_lease_without_option88``), unless
  the BR vanishes with it. No RELEASE is sent.
- A link that may be another one (RFC 2131 3.7): the lease is asked for again in INIT-REBOOT while its traffic goes on.
- No 4o6 without a BR: a lease without a softwire would only take an address from others.
"""

from __future__ import annotations

import random
from ipaddress import IPv6Address

from b4client.model.errors import WireError
from b4client.model.lease import Lease4, StoredLease
from b4client.model.lease6 import Binding6, Lease6
from b4client.model.settings import ProtocolSettings
from b4client.model.softwire import PortForward, SoftwireConfig
from b4client.protocol import events
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp4_client import Dhcp4Client, Gained, Lost, Noted, Output, Query
from b4client.protocol.dhcp4_messages import Identity
from b4client.protocol.dhcp4_states import Coasting, Stopped
from b4client.protocol.dhcp6_choice import choose_source6
from b4client.protocol.dhcp6_source import HandedOver
from b4client.protocol.effects import (
    ConfigureWan,
    Effect,
    ForgetLease,
    Install,
    Report,
    SaveBinding,
    SaveLease,
    Withdraw,
)
from b4client.protocol.provisioning import Provisioning, read_reply
from b4client.protocol.softwire_choice import Unfit, Wan, Way, choose_softwire, choose_source, pick_way
from b4client.protocol.status import Lease6Status, LeaseStatus, ProvisioningStatus, SoftwireStatus, Status
from b4client.protocol.transport import Outbox, Path, choose_path
from b4client.wire import dhcp4, dhcp4o6, identity
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Options

INSTALL_RETRY_S = (1.0, 300.0)
"""Wait before a softwire that could not be installed is tried again: doubled each time, up to the second value."""
MAX_TURNS = 32
"""What is due at one instant is done in at most this many turns; more would be a loop."""


class Agent:
    """One WAN's machine. ``stored`` is the lease of an earlier life; ``rng`` gives xids and jitter."""

    def __init__(
        self,
        settings: ProtocolSettings,
        *,
        wan: str,
        mtu: int | None,
        forwards: tuple[PortForward, ...],
        duid: bytes,
        iaid: int,
        hardware_address: bytes,
        stored: StoredLease | None,
        rng: random.Random,
        binding: Binding6 | None = None,
    ) -> None:
        self._settings = settings
        self._interface = wan
        self._mtu = mtu
        self._forwards = forwards
        self._duid = duid
        self._counters = Counters()
        self._outbox = Outbox(self._counters)
        self._client_id = identity.client_identifier(iaid, duid)
        self._dhcp6 = choose_source6(settings, duid, iaid, rng=rng, counters=self._counters, stored=binding)
        self._lease6 = Lease6()
        self._dhcp4 = Dhcp4Client(
            Identity(self._client_id, hardware_address, settings.hostname), settings, rng=rng, counters=self._counters
        )
        self._link = events.LinkChanged(False, None, ())
        self._provisioning = Provisioning()
        self._informed = False
        self._stored = stored
        self._way: Way | None = None
        self._wide: IPv6Address | None = None
        self._path: Path | None = None
        self._source: IPv6Address | None = None
        self._desired: SoftwireConfig | None = None
        self._installed: SoftwireConfig | None = None
        self._shown: Lease4 | None = None
        self._unfit: str | None = None
        self._install_problem: str | None = None
        self._install_wait_s = INSTALL_RETRY_S[0]
        self._install_at: float | None = None
        self._send_problem: str | None = None
        self._released = False
        self._started = self._ended = False
        self._state_since = 0.0
        self._state_name = self._dhcp4.state.name
        self._effects: list[Effect] = []

    # ---- the machine's interface

    def handle(self, event: events.Event, now: float) -> list[Effect]:
        """Take one event at boot-clock instant ``now``; what is to be done about it, in order."""
        if self._ended:
            return []
        if not self._started:
            self._start(now)
        # Whatever the event is: a lease whose time has come ends before it (a suspended machine wakes up with both).
        self._do_what_is_due(now)
        match event:
            case events.LinkChanged():
                self._link_changed(event, now)
            case events.DatagramReceived(data, source):
                self._received(data, source, now)
            case events.InformationHandedOver(options, lease):
                self._handed_over(options, lease, now)
            case events.AddressDuplicated(address):
                self._report("address-duplicated", "warning", f"another host has {address}: it is declined")
                self._ask(self._dhcp6.decline(address, now), now)
            case events.SendFailed(reason):
                self._send_failed(reason)
            case events.Installed(config):
                self._has_installed(config)
            case events.InstallFailed(config, reason):
                self._install_failed(config, reason, now)
            case events.RenewRequested():
                self._take(self._dhcp4.renew(now), now)
                self._ask(self._dhcp6.renew(now), now)
            case events.RebindRequested():
                self._take(self._dhcp4.rebind(now), now)
            case events.ReleaseRequested():
                self._release(now)
            case events.RestartRequested():
                self._restart(now)
            case events.SettingsChanged(settings, mtu, forwards):
                self._settings, self._dhcp4.settings = settings, settings
                self._mtu, self._forwards = mtu, forwards
                self._steer(now)
            case events.StopRequested(withdraw, release):
                self._stop(now, withdraw=withdraw, release=release)
        self._follow_lease6(now)
        if not self._ended:
            self._do_what_is_due(now)
        self._note_state(now)
        effects, self._effects = self._effects, []
        return _without_needless_withdrawals(effects)

    def deadline(self) -> float | None:
        """When ``handle(Woke(), ...)`` has something to do; None when nothing is waited for."""
        if self._ended:
            return None
        instants = [self._dhcp6.deadline(), self._dhcp4.deadline(), self._install_at]
        if self._stored is not None and self._started:
            instants.append(self._stored.lease.expires_at)
        return min((i for i in instants if i is not None and i != float("inf")), default=None)

    def snapshot(self, now: float) -> Status:
        """What the machine has and does, for people and tests."""
        deadline, lease, desired, path = self.deadline(), self._dhcp4.lease, self._desired, self._path
        return Status(
            state=self._dhcp4.state.name,
            state_for_s=round(now - self._state_since, 3) if self._started else 0.0,
            waiting_for=self._waiting_for(),
            deadline_in_s=None if deadline is None else round(deadline - now, 3),
            source=None if self._source is None else str(self._source),
            destinations=() if path is None else tuple(str(server) for server, _ in path.targets),
            provisioning=self._provisioning_status(now),
            lease=None if lease is None else LeaseStatus.of(lease, now),
            softwire=None
            if desired is None
            else SoftwireStatus.of(desired, installed=desired == self._installed, problem=self._install_problem),
            identity={"duid": self._duid.hex(), "client_id": self._client_id.hex()},
            counters=self._counters.snapshot(),
        )

    # ---- beginning and end

    def _start(self, now: float) -> None:
        self._started = True
        self._state_since = now
        stored = self._stored
        if stored is None or now >= stored.lease.expires_at:
            # What an earlier process left in the kernel has no lease behind it.
            self._effects.append(Withdraw("there is no lease from before"))

    def _stop(self, now: float, *, withdraw: bool, release: bool) -> None:
        if release:
            self._release(now)
        elif withdraw:
            self._effects.append(Withdraw("stopped"))
            if self._lease6 and self._dhcp6.configures_wan:
                # They stay ours at the server, and are verified by the next start.
                self._effects.append(ConfigureWan(Lease6()))
        self._ended = True

    def _release(self, now: float) -> None:
        self._released = True
        self._stored = None
        self._take(self._dhcp4.release(now), now)
        self._ask(self._dhcp6.release(now), now)
        self._drop_softwire("released")
        self._effects += [Withdraw("released"), ForgetLease()]
        self._shown = None

    def _restart(self, now: float) -> None:
        self._released = False
        self._provisioning, self._informed = Provisioning(), False
        self._take(self._dhcp4.stop(now, keep_lease=False, reason="restarted by the operator"), now)
        self._way = None
        self._drop_softwire("restarted by the operator")
        if self._able_to_ask:
            self._ask(self._dhcp6.start(now), now)
        if isinstance(self._dhcp6, HandedOver) and self._dhcp6.message is not None:
            self._has_been_informed(self._dhcp6.message, "handed over", now)
        self._steer(now)

    # ---- time

    def _do_what_is_due(self, now: float) -> None:
        for _ in range(MAX_TURNS):
            deadline = self.deadline()
            if deadline is None or deadline > now:
                return
            self._ask(self._dhcp6.wake(now), now)
            self._follow_lease6(now)
            self._take(self._dhcp4.wake(now), now)
            if self._stored is not None and now >= self._stored.lease.expires_at:
                self._forget_stored("the stored lease has expired")
            if self._install_at is not None and now >= self._install_at:
                self._install_at = None
                if self._desired is not None:
                    self._effects.append(Install(self._desired))
        raise AssertionError(f"still due at {now}: {self.deadline()} ({self._dhcp4.state}, {self._dhcp6.state})")

    def _forget_stored(self, reason: str) -> None:
        """The lease of an earlier life cannot be used: what is left of it in the kernel goes, it stays as a hint."""
        if self._stored is not None:
            self._dhcp4.hint(self._stored.lease)
            self._stored = None
            self._effects.append(Withdraw(reason))

    # ---- the link

    @property
    def _able_to_ask(self) -> bool:
        return self._link.up and self._link.link_local is not None

    def _link_changed(self, link: events.LinkChanged, now: float) -> None:
        self._link = link
        if not self._able_to_ask:
            self._dhcp6.stop()
        elif (link.moved or self._dhcp6.idle) and not self._released:
            # A new link, or one that may be another: what DHCPv6 says is asked for again, not too often [D-13].
            self._ask(self._dhcp6.start(now, opportunistic=self._informed), now)
        self._steer(now, moved=link.moved)

    def _wide_address(self) -> IPv6Address | None:
        """The global or unique-local address to use: the present one while it can be used, whatever comes beside it."""
        own = self._desired.local if self._desired is not None and self._desired.own_local else self._settings.local
        usable = tuple(a for a in self._link.addresses if a != own) if self._link.up else ()
        if self._wide not in usable:
            stored = self._stored.source if self._stored is not None else None
            found = stored if stored in usable else choose_source(usable, self._far_end)
            if found is None:
                return None
            self._wide = found
        return self._wide

    @property
    def _far_end(self) -> IPv6Address | None:
        brs = self._provisioning.brs
        return self._settings.br or (brs[0] if brs else None)

    # ---- receiving

    def _received(self, data: bytes, source: IPv6Address, now: float) -> None:
        if data[:1] == bytes((MessageType.DHCPV4_RESPONSE,)):
            try:
                outer = dhcp4o6.decode(data)
                inner = dhcp4.decode(outer.dhcp4)
            except WireError:
                self._counters.count("drop-response-malformed")
                return
            self._take(self._dhcp4.received(inner, now), now)
            return
        reply = self._dhcp6.received(data, now)
        self._follow_lease6(now, steer=reply is None)
        if reply is not None:
            self._has_been_informed(reply, str(source), now)

    def _handed_over(self, options: Options, lease: Lease6, now: float) -> None:
        if isinstance(self._dhcp6, HandedOver):
            message = self._dhcp6.take(options, lease)
            self._follow_lease6(now, steer=False)
            self._has_been_informed(message, "handed over", now)

    def _follow_lease6(self, now: float, *, steer: bool = True) -> None:
        """Bring the WAN in line with the DHCPv6 leases. What was provisioned with them ends with the last one [F-2].

        ``steer`` False: what the same message provisions is still to come, and decides with it.
        """
        before, lease = self._lease6, self._dhcp6.lease
        if lease == before:
            return
        self._lease6 = lease
        if self._dhcp6.configures_wan:
            self._effects += [ConfigureWan(lease), SaveBinding(self._dhcp6.binding)]
        if lease.networks == before.networks:
            return
        names = ", ".join(str(item.network) for item in lease.every)
        self._report("lease6", "info" if lease else "warning", f"DHCPv6 leases: {names or 'nothing any more'}")
        if not lease:
            self._provisioning = Provisioning()
        if steer:
            self._steer(now)

    def _has_been_informed(self, reply: Dhcp6Message, source: str, now: float) -> None:
        before = self._provisioning
        self._provisioning, self._informed = read_reply(reply, self._counters), True
        for problem in self._provisioning.problems:
            if problem not in before.problems:
                self._report("provisioning-problem", "warning", f"{problem} (from {source})")
        if self._provisioning != before:
            self._report("informed", "info", self._provisioning_in_words(source))
        self._steer(now)

    def _provisioning_in_words(self, source: str) -> str:
        p = self._provisioning
        servers = p.servers_4o6
        said = "no option 88" if servers is None else f"DHCP 4o6 at {', '.join(map(str, servers)) or 'multicast'}"
        containers = [n for n, c in (("lw4o6", p.lw4o6), ("MAP-E", p.map_e)) if c is not None]
        brs = ", ".join(map(str, p.brs))
        return f"DHCPv6 ({source}): {said}; {' and '.join(containers) or 'no'} container{f', BR {brs}' if brs else ''}"

    # ---- steering: may 4o6 run, and how

    def _steer(self, now: float, *, moved: bool = False) -> None:
        """Bring the DHCPv4 client and the softwire in line with what is provisioned and with the link."""
        if self._released:
            return
        way = pick_way(self._provisioning, self._settings)
        if way is not None and way.leased:
            self._way = way
            self._steer_lease(now, moved=moved)
        elif way is not None:
            self._way = way
            self._forget_stored("IPv4 is provisioned without a lease")
            stopped = self._dhcp4.stop(now, keep_lease=False, reason="IPv4 is provisioned without a lease")
            self._take(stopped, now)
        elif self._informed:
            last = self._way
            known = self._settings.br or (last is not None and last.br in self._provisioning.brs)
            keep = bool(self._settings.keep_lease_without_option88 and known)
            if not keep:
                self._forget_stored("DHCPv6 provisions no IPv4 any more")
                self._way = None
            stopped = self._dhcp4.stop(now, keep_lease=keep, reason="DHCPv6 provisions no IPv4 any more")
            self._take(stopped, now)
        self._reconsider(now)

    def _steer_lease(self, now: float, *, moved: bool) -> None:
        servers = self._settings.servers_4o6
        if servers is None:
            servers = self._provisioning.servers_4o6 or ()
        before = self._path
        self._path = path = choose_path(servers, self._link.link_local, self._wide_address()) if self._link.up else None
        if path is None:
            return
        self._dhcp4.several_servers = path.several
        source_before, self._source = self._source, path.source
        state = self._dhcp4.state
        if isinstance(state, Stopped):
            self._begin(path, now)
        elif source_before is not None and source_before != path.source:
            self._take(self._dhcp4.restart(now, f"the 4o6 source address changed to {path.source}"), now)
        elif isinstance(state, Coasting):
            self._take(self._dhcp4.resume(now), now)
        elif moved or before is None:
            self._take(self._dhcp4.verify(now), now)

    def _begin(self, path: Path, now: float) -> None:
        stored = self._stored
        if stored is None:
            self._take(self._dhcp4.start(now), now)
        elif stored.source != path.source:
            # RFC 7618 6 [S-4]: INIT-REBOOT only from the address that the lease was given to.
            self._forget_stored(f"the 4o6 source address is {path.source}, no longer {stored.source}")
            self._take(self._dhcp4.start(now, previous=stored.lease), now)
        else:
            self._stored = None
            self._take(self._dhcp4.reboot(now, stored.lease, in_use=False, usable=stored.trusted), now)

    # ---- the DHCPv4 client's outputs

    def _take(self, outputs: list[Output], now: float) -> None:
        for output in outputs:
            match output:
                case Query():
                    self._query(output, now)
                case Gained(lease):
                    self._gained(lease, now)
                case Lost(reason, forget):
                    self._drop_softwire(reason)
                    self._effects.append(Withdraw(reason))
                    if forget:
                        self._effects.append(ForgetLease())
                    self._shown = None
                    level = "info" if self._released else "warning"
                    self._report("lost", level, f"IPv4 is gone: {reason}")
                case Noted(kind, level, text):
                    self._report(kind, level, text)

    def _query(self, query: Query, now: float) -> None:
        if self._path is None:
            self._counters.count("sent-no-source")
            return
        data = dhcp4o6.encode_query(dhcp4.encode(query.message), unicast=query.unicast)
        self._effects += self._outbox.query(data, self._path, now)

    def _ask(self, messages: list[bytes], now: float) -> None:
        for data in messages:
            if self._link.link_local is not None:
                self._effects += self._outbox.multicast(data, self._link.link_local, now)

    def _gained(self, lease: Lease4, now: float) -> None:
        if self._source is not None:
            self._effects.append(SaveLease(lease, self._source))
        what = f"{lease.address}, {'the whole address' if lease.ports is None else lease.ports}"
        for_s = "ever" if lease.expires_at == float("inf") else f"{lease.expires_at - now:.0f} s"
        fields = (("address", str(lease.address)), ("ports", str(lease.ports)), ("server_id", str(lease.server_id)))
        if lease.same_binding(self._shown):
            self._report("renewed", "info", f"renewed {what}, for {for_s}", *fields)
        else:
            if lease.ports is not None and lease.ports.range_at(0).first < 1024:
                # P-8: the server decided; whoever runs it should know.
                self._report("system-ports", "warning", f"the port set {lease.ports} holds system ports (below 1024)")
            self._report("bound", "info", f"leased {what}, for {for_s}", *fields)
        self._shown = lease
        self._reconsider(now, fresh=True)

    # ---- the softwire

    def _reconsider(self, now: float, *, fresh: bool = False) -> None:
        """Decide what softwire there should be, and have it made. ``fresh``: the lease was granted just now."""
        lease, way, desired = self._dhcp4.lease, self._way, self._desired
        if way is None or (way.leased and lease is None):
            if desired is not None:
                self._drop_softwire("nothing provisions it any more")
                self._effects.append(Withdraw("nothing provisions IPv4 any more"))
            return
        source = self._wide_address()
        if source is None and desired is not None and not desired.own_local:
            source = desired.local  # it may come back; until then the softwire stays as it is
        prefixes = tuple(item.network for item in self._lease6.preferred_first(now))
        wan = Wan(self._interface, self._link.addresses, prefixes, source)
        try:
            config = choose_softwire(
                way, self._provisioning, self._settings, wan, lease, mtu=self._mtu, forwards=self._forwards
            )
        except Unfit as error:
            self._does_not_fit(str(error), lease)
            return
        self._unfit = None
        if config == desired:
            return
        if desired is not None and config.local != desired.local and way.leased and not fresh:
            # RFC 7596 5.1 [L-4]: another encapsulation source means provisioning anew.
            reason = f"the softwire's address changed from {desired.local} to {config.local}"
            if isinstance(self._dhcp4.state, Coasting):
                self._take(self._dhcp4.stop(now, keep_lease=False, reason=reason), now)
            else:
                self._take(self._dhcp4.restart(now, reason), now)
            return
        self._desired = config
        self._install_at, self._install_problem, self._install_wait_s = None, None, INSTALL_RETRY_S[0]
        self._effects.append(Install(config))

    def _does_not_fit(self, reason: str, lease: Lease4 | None) -> None:
        if reason != self._unfit:
            self._report("unfit", "warning", f"no softwire can be made: {reason}")
        self._unfit = reason
        desired = self._desired
        held = lease is None or desired is None or (desired.ipv4, desired.ports) == (lease.address, lease.ports)
        if desired is not None and not (held and not self._link.addresses):
            self._drop_softwire(reason)
            self._effects.append(Withdraw(reason))

    def _drop_softwire(self, reason: str) -> None:
        if self._desired is not None:
            self._report("softwire-down", "info", f"the softwire goes: {reason}")
        self._desired = self._installed = None
        self._install_at = self._install_problem = None

    def _has_installed(self, config: SoftwireConfig) -> None:
        if self._desired is None:
            return  # a withdrawal is behind it in the queue
        before, self._installed = self._installed, config
        if config == self._desired:
            self._install_problem, self._install_wait_s = None, INSTALL_RETRY_S[0]
            if before != config:
                ports = "the whole address" if config.ports is None else str(config.ports)
                text = f"softwire {config.local} to {config.remote} carries {config.ipv4}, {ports}"
                self._report("softwire-up", "info", text)

    def _install_failed(self, config: SoftwireConfig, reason: str, now: float) -> None:
        desired = self._desired
        if desired is None or config != desired:
            return  # about something that is not wanted any more
        there = self._installed
        if there is None or (there.ipv4, there.ports) != (desired.ipv4, desired.ports):
            # Whatever is there still is not covered by the lease.
            self._installed = None
            self._effects.append(Withdraw("the softwire could not be changed to the present lease"))
        wait = self._install_wait_s
        self._install_at, self._install_wait_s = now + wait, min(2 * wait, INSTALL_RETRY_S[1])
        if reason != self._install_problem:
            self._report("install-failed", "error", f"the softwire could not be made: {reason}")
        self._install_problem = reason

    # ---- telling

    def _report(self, kind: str, level: str, text: str, *fields: tuple[str, str | int | float | None]) -> None:
        self._effects.append(Report(kind, level, text, fields))

    def _send_failed(self, reason: str) -> None:
        self._counters.count("sent-failed")
        if reason != self._send_problem:
            self._report("send-failed", "warning", f"could not send: {reason}")
        self._send_problem = reason

    def _note_state(self, now: float) -> None:
        name = self._dhcp4.state.name
        if name != self._state_name:
            self._report("state", "debug", f"{self._state_name} -> {name}", ("from", self._state_name), ("to", name))
            self._state_name, self._state_since = name, now

    def _provisioning_status(self, now: float) -> ProvisioningStatus:
        p, state = self._provisioning, self._dhcp6.state
        refresh = self._dhcp6.deadline()
        return ProvisioningStatus(
            state=type(state).__name__.lower(),
            refresh_in_s=None if refresh is None else round(refresh - now, 3),
            servers_4o6=None if p.servers_4o6 is None else tuple(map(str, p.servers_4o6)),
            brs=tuple(map(str, p.brs)),
            containers=tuple(n for n, c in (("lw4o6", p.lw4o6), ("map-e", p.map_e)) if c is not None),
            problems=p.problems + ((self._dhcp6.problem,) if self._dhcp6.problem else ()),
            mode=self._settings.dhcp6_mode,
            leases=tuple(Lease6Status.of(item, now) for item in self._dhcp6.lease.every),
        )

    def _waiting_for(self) -> str | None:
        """The first thing that stands between here and IPv4."""
        if self._released:
            return "b4client restart: the lease was given back"
        if not self._link.up:
            return f"{self._interface} to come up"
        if self._link.link_local is None:
            return f"a link-local address on {self._interface}"
        if self._way is None:
            if not self._informed:
                return self._dhcp6.waiting_for
            return "the DHCPv6 server to provision IPv4: " + self._missing()
        if self._way.leased and self._path is None and not isinstance(self._dhcp4.state, Coasting):
            return f"a global or unique-local IPv6 address on {self._interface}, to speak to the DHCP 4o6 server from"
        if self._way.leased and self._dhcp4.lease is None:
            return f"an answer of the DHCP 4o6 server ({self._dhcp4.state.name})"
        if self._desired is None:
            return self._unfit
        if self._desired != self._installed:
            return self._install_problem or "the softwire to be made"
        return None

    def _missing(self) -> str:
        p = self._provisioning
        lacks = []
        if p.servers_4o6 is None:
            lacks.append("no option 88 (DHCP 4o6 server)")
        if not p.brs:
            lacks.append("no BR address (container 94 or 96)")
        return "its Reply has " + (" and ".join(lacks) or "nothing that fits together")


def _without_needless_withdrawals(effects: list[Effect]) -> list[Effect]:
    """Drop what another effect of the same step makes needless: a Withdraw before an Install (which replaces what is
    there in one transaction), and a second Withdraw."""
    kept: list[Effect] = []
    later = False
    for effect in reversed(effects):
        if isinstance(effect, Withdraw) and later:
            continue
        later = later or isinstance(effect, Install | Withdraw)
        kept.append(effect)
    return kept[::-1]
