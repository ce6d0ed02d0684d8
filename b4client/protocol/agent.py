"""The agent: provisioning, the DHCPv4 client and the softwire joined into one machine.

``handle(event, now) -> effects``; ``deadline()`` says when to wake it; ``snapshot(now)`` shows it. Pure.

Decisions where the RFCs leave room (ARCHITECTURE.md has the table):

- X-1: another 4o6 source address means DISCOVER (RFC 7618 6), and so does another softwire address (RFC 7596 5.1),
  except with RFC 8539, where the server is told of it in a REQUEST (7.2.1).
- X-2: option 88 withdrawn: the lease is used until it ends and never renewed (``keep_lease_without_option88``), unless
  the BR vanishes with it. No RELEASE is sent.
- A link that may be another one (RFC 2131 3.7): the lease is asked for again in INIT-REBOOT while its traffic goes on.
- No 4o6 without a BR, unless one can come with the lease (RFC 8539): a lease without a softwire would only take an
  address from others.
"""

from __future__ import annotations

import enum
import random
from dataclasses import replace
from ipaddress import IPv6Address

from b4client.model.errors import WireError
from b4client.model.lease import Lease4, StoredLease
from b4client.model.lease6 import Binding6, Lease6
from b4client.model.settings import ProtocolSettings
from b4client.model.softwire import Mode, PortForward
from b4client.protocol import events
from b4client.protocol.aftr import AftrFinder
from b4client.protocol.agent_view import (
    Situation,
    describe_reply,
    describe_way,
    report_lease,
    view_provisioning,
    waiting_for,
)
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp4_client import Dhcp4Client
from b4client.protocol.dhcp4_messages import Identity
from b4client.protocol.dhcp4_outputs import Gained, Lost, Noted, Output, Prepare, Query
from b4client.protocol.dhcp4_states import Coasting, Offer, Stopped
from b4client.protocol.dhcp6_choice import choose_source6
from b4client.protocol.dhcp6_source import HandedOver
from b4client.protocol.effects import (
    ConfigureWan,
    Effect,
    ForgetLease,
    Report,
    SaveBinding,
    SaveLease,
    Send,
    Withdraw,
    without_needless_repetitions,
)
from b4client.protocol.provisioning import read_reply, static_provisioning
from b4client.protocol.softwire_choice import (
    Unfit,
    Wan,
    Way,
    choose_softwire,
    choose_source,
    dynamic_source,
    pick_way,
    ways,
)
from b4client.protocol.softwire_keeper import SoftwireKeeper
from b4client.protocol.status import Lease6Status, LeaseStatus, SoftwireStatus, Status
from b4client.protocol.transport import Outbox, Path, choose_path
from b4client.wire import dhcp4, dhcp4o6, dhcp6, identity
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option, Options

MAX_TURNS = 32
"""What is due at one instant is done in at most this many turns; more would be a loop."""
ASK_SOFTWIRE = ((int(Option.ORO), dhcp6.encode_oro((Option.S46_BR, Option.S46_BIND_IPV6_PREFIX))),)
"""Beside a DHCPv4 message: what RFC 8539 5 lets a DHCPV4-QUERY ask for."""


class Purpose(enum.Enum):
    """What a softwire address of our own is prepared for (RFC 8539)."""

    OFFER = "offer"
    REBOOT = "reboot"
    CHANGE = "change"


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
        self._keeper = SoftwireKeeper()
        self._aftr = AftrFinder()
        self._link = events.LinkChanged(False, None, ())
        self._provisioning = static_provisioning(settings)
        self._informed = settings.static is not None
        self._stored = stored
        self._way: Way | None = None
        self._carried: Way | None = None
        self._wide: IPv6Address | None = None
        self._path: Path | None = None
        self._source: IPv6Address | None = None
        self._preparing: tuple[IPv6Address, Purpose] | None = None
        self._shown: Lease4 | None = None
        self._unfit: str | None = None
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
                self._effects += self._keeper.has_installed(config)
            case events.InstallFailed(config, reason):
                self._effects += self._keeper.install_failed(config, reason, now)
            case events.AddressReady(address):
                self._address_ready(address, now)
            case events.AddressFailed(address, reason):
                self._address_failed(address, reason, now)
            case events.Resolved(name, addresses, reason):
                self._effects += self._aftr.resolved(name, addresses, reason, now)
                self._reconsider(now)
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
        return without_needless_repetitions(effects)

    def deadline(self) -> float | None:
        """When ``handle(Woke(), ...)`` has something to do; None when nothing is waited for."""
        if self._ended:
            return None
        machines = (self._dhcp6, self._dhcp4, self._keeper, self._aftr)
        instants = [machine.deadline() for machine in machines]
        if self._stored is not None and self._started:
            instants.append(self._stored.lease.expires_at)
        return min((i for i in instants if i is not None and i != float("inf")), default=None)

    def snapshot(self, now: float) -> Status:
        """What the machine has and does, for people and tests."""
        deadline, lease, desired, path = self.deadline(), self._dhcp4.lease, self._keeper.desired, self._path
        installed, refresh = desired == self._keeper.installed, self._dhcp6.deadline()
        state = "static" if self._settings.static is not None else type(self._dhcp6.state).__name__.lower()
        return Status(
            state=self._dhcp4.state.name,
            state_for_s=round(now - self._state_since, 3) if self._started else 0.0,
            waiting_for=waiting_for(self._situation()),
            deadline_in_s=None if deadline is None else round(deadline - now, 3),
            source=None if self._source is None else str(self._source),
            destinations=() if path is None else tuple(str(server) for server, _ in path.targets),
            provisioning=view_provisioning(
                self._provisioning,
                state,
                None if refresh is None else refresh - now,
                self._way,
                mode=self._settings.dhcp6_mode,
                problem=self._dhcp6.problem,
                leases=tuple(Lease6Status.of(item, now) for item in self._dhcp6.lease.every),
            ),
            lease=None if lease is None else LeaseStatus.of(lease, now),
            softwire=None
            if desired is None
            else SoftwireStatus.of(desired, installed=installed, problem=self._keeper.problem),
            identity={"duid": self._duid.hex(), "client_id": self._client_id.hex()},
            counters=self._counters.snapshot(),
        )

    def _situation(self) -> Situation:
        return Situation(
            interface=self._interface,
            settings=self._settings,
            link=self._link,
            provisioning=self._provisioning,
            way=self._way,
            path=self._path,
            dhcp4=self._dhcp4.state,
            leased=self._dhcp4.lease is not None,
            keeper=self._keeper,
            counters=self._counters,
            released=self._released,
            informed=self._informed,
            asking=self._dhcp6.waiting_for,
            has_prefix=self._has_prefix,
            unfit=self._unfit,
            aftr_problem=self._aftr.problem,
        )

    # ---- beginning and end

    def _start(self, now: float) -> None:
        self._started = True
        self._state_since = now
        stored = self._stored
        if stored is None or now >= stored.lease.expires_at:
            # What an earlier process left in the kernel has no lease behind it.
            self._withdraw("there is no lease from before")

    def _stop(self, now: float, *, withdraw: bool, release: bool) -> None:
        if release:
            self._release(now)
        elif withdraw:
            self._withdraw("stopped")
            if self._lease6 and self._dhcp6.configures_wan:
                # They stay ours at the server, and are verified by the next start.
                self._effects.append(ConfigureWan(Lease6()))
        self._ended = True

    def _release(self, now: float) -> None:
        self._released = True
        self._stored = None
        self._take(self._dhcp4.release(now), now)
        last_words = self._hold_back_sends()
        self._effects += self._keeper.drop("released")
        self._withdraw("released")
        self._effects += [ForgetLease(), *last_words]
        self._shown = None
        messages = self._dhcp6.release(now)
        self._follow_lease6(now)
        self._ask(messages, now)
        last_words = self._hold_back_sends()
        self._effects += last_words

    def _hold_back_sends(self) -> list[Effect]:
        """What is to be sent so far, for later: a server hears of a release when nothing is used of it any more
        (RFC 2131 4.4.6, RFC 8415 18.2.7); another subscriber may have it then."""
        held = [replace(e, after_kernel=True) for e in self._effects if isinstance(e, Send) and not e.after_kernel]
        self._effects = [e for e in self._effects if not isinstance(e, Send) or e.after_kernel]
        return list(held)

    def _restart(self, now: float) -> None:
        self._released = False
        self._provisioning = static_provisioning(self._settings)
        self._informed = self._settings.static is not None
        self._take(self._dhcp4.stop(now, keep_lease=False, reason="restarted by the operator"), now)
        self._way = None
        if self._keeper.desired is not None:
            self._effects += self._keeper.drop("restarted by the operator")
            self._withdraw("restarted by the operator")
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
            self._effects += self._keeper.wake(now)
            self._effects += self._aftr.wake(now)
        raise AssertionError(f"still due at {now}: {self.deadline()} ({self._dhcp4.state}, {self._dhcp6.state})")

    def _forget_stored(self, reason: str) -> None:
        """The lease of an earlier life cannot be used: what is left of it in the kernel goes, it stays as a hint."""
        if self._stored is not None:
            self._dhcp4.hint(self._stored.lease)
            self._stored = None
            self._withdraw(reason)

    # ---- the link

    @property
    def _able_to_ask(self) -> bool:
        return self._link.up and self._link.link_local is not None and self._settings.static is None

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
        usable = self._addresses if self._link.up else ()
        if self._wide not in usable:
            stored = self._stored.source if self._stored is not None else None
            found = stored if stored in usable else choose_source(usable, self._far_end)
            if found is None:
                return None
            self._wide = found
        return self._wide

    @property
    def _addresses(self) -> tuple[IPv6Address, ...]:
        """The WAN's addresses but for the one that is there because of us: it says nothing about the provider's.

        On an unnumbered WAN (RFC 7084 WAA-7) those of other interfaces that lie in a prefix delegated by this provider:
        any other might be another provider's, or nobody's.
        """
        own = tuple(a for a in self._link.addresses if a not in self._keeper.made)
        if own or not self._link.elsewhere:
            return own
        delegated = (*(item.network for item in self._lease6.prefixes), *self._settings.prefixes)
        return tuple(a for a in self._link.elsewhere if any(a in network for network in delegated))

    @property
    def _has_prefix(self) -> bool:
        """True when a softwire's source can be built (RFC 8539 7 [E-1])."""
        return bool(self._settings.local or self._settings.prefixes or self._addresses or self._lease6)

    @property
    def _far_end(self) -> IPv6Address | None:
        brs = self._provisioning.brs
        return self._settings.br or (brs[0] if brs else self._aftr.address)

    def _wan(self, now: float) -> Wan:
        """The WAN as the choice of a softwire needs it."""
        source, desired = self._wide_address(), self._keeper.desired
        if source is None and desired is not None and not desired.own_local:
            source = desired.local  # it may come back; until then the softwire stays as it is
        leased = tuple(item.network for item in self._lease6.preferred_first(now))
        prefixes = tuple(dict.fromkeys((*leased, *self._settings.prefixes)))
        return Wan(self._interface, self._addresses, prefixes, source, self._aftr.address)

    # ---- receiving

    def _received(self, data: bytes, source: IPv6Address, now: float) -> None:
        if data[:1] == bytes((MessageType.DHCPV4_RESPONSE,)):
            try:
                outer = dhcp4o6.decode(data)
                inner = dhcp4.decode(outer.dhcp4)
            except WireError:
                self._counters.count("drop-response-malformed")
                return
            self._take(self._dhcp4.received(inner, now, outer.options), now)
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
            self._provisioning = static_provisioning(self._settings)
        if steer:
            self._steer(now)

    def _has_been_informed(self, reply: Dhcp6Message, source: str, now: float) -> None:
        before = self._provisioning
        self._provisioning, self._informed = read_reply(reply, self._counters), True
        for problem in self._provisioning.problems:
            if problem not in before.problems:
                self._report("provisioning-problem", "warning", f"{problem} (from {source})")
        if self._provisioning != before:
            self._report("informed", "info", describe_reply(self._provisioning, source))
        self._steer(now)

    # ---- steering: may 4o6 run, and how

    def _steer(self, now: float, *, moved: bool = False) -> None:
        """Bring the DHCPv4 client and the softwire in line with what is provisioned and with the link."""
        if self._released:
            return
        way = pick_way(self._provisioning, self._settings)
        if way is not None and way.dynamic and not self._informed and self._settings.rfc8539 == "auto":
            way = None  # whether a container has the BR is not known yet
        if way is not None and way != self._way:
            self._report("way", "info", describe_way(way, self._settings))
        aftr = self._settings.aftr or self._provisioning.aftr
        self._effects += self._aftr.want(aftr if way is not None and way.mode is Mode.DS_LITE else None, now)
        if way is not None and way.leased:
            self._way = way
            self._steer_lease(way, now, moved=moved)
        elif way is not None:
            self._way = way
            reason = "IPv4 is provisioned without a lease"
            self._forget_stored(reason)
            self._take(self._dhcp4.stop(now, keep_lease=False, reason=reason), now)
        elif self._informed:
            reason, last = "DHCPv6 provisions no IPv4 any more", self._way
            known = self._settings.br or (last is not None and (last.dynamic or last.br in self._provisioning.brs))
            leased = last is None or last.leased
            keep = bool(self._settings.keep_lease_without_option88 and known and leased)
            if not keep:
                self._forget_stored(reason)
                self._way = None
            self._take(self._dhcp4.stop(now, keep_lease=keep, reason=reason), now)
        self._reconsider(now)

    def _steer_lease(self, way: Way, now: float, *, moved: bool) -> None:
        servers = self._settings.servers_4o6
        if servers is None:
            servers = self._provisioning.servers_4o6 or ()
        before = self._path
        self._path = path = choose_path(servers, self._link.link_local, self._wide_address()) if self._link.up else None
        if path is None or (way.dynamic and not self._has_prefix and isinstance(self._dhcp4.state, Stopped)):
            return
        self._dhcp4.several_servers = path.several
        source_before, self._source = self._source, path.source
        state, other_kind = self._dhcp4.state, way.dynamic != self._dhcp4.dynamic
        self._dhcp4.dynamic = way.dynamic
        if isinstance(state, Stopped):
            self._begin(way, path, now)
        elif other_kind:
            self._take(self._dhcp4.restart(now, "the softwire is provisioned in another way"), now)
        elif source_before is not None and source_before != path.source:
            self._take(self._dhcp4.restart(now, f"the 4o6 source address changed to {path.source}"), now)
        elif isinstance(state, Coasting):
            self._take(self._dhcp4.resume(now), now)
        elif moved or before is None:
            self._take(self._dhcp4.verify(now), now)

    def _begin(self, way: Way, path: Path, now: float) -> None:
        stored = self._stored
        if stored is None:
            self._take(self._dhcp4.start(now), now)
        elif stored.source != path.source:
            # RFC 7618 6 [S-4]: INIT-REBOOT only from the address that the lease was given to.
            self._forget_stored(f"the 4o6 source address is {path.source}, no longer {stored.source}")
            self._take(self._dhcp4.start(now, previous=stored.lease), now)
        elif way.dynamic:
            self._begin_dynamic(stored.lease, now)
        else:
            self._reboot(now)

    def _begin_dynamic(self, lease: Lease4, now: float) -> None:
        """INIT-REBOOT with RFC 8539: the softwire's source must be there before the REQUEST names it."""
        known = lease.softwire
        try:
            if known is None:
                raise Unfit("the stored lease has no softwire")
            source = dynamic_source(
                known.bind_prefix,
                lease.address,
                lease.ports,
                settings=self._settings,
                wan=self._wan(now),
                present=known.saddr,
            )
        except Unfit as error:
            self._forget_stored(str(error))
            self._take(self._dhcp4.start(now), now)
        else:
            self._need_address(source, Purpose.REBOOT, now)

    def _reboot(self, now: float) -> None:
        stored, self._stored = self._stored, None
        if stored is not None:
            self._take(self._dhcp4.reboot(now, stored.lease, in_use=False, usable=stored.trusted), now)

    # ---- the DHCPv4 client's outputs

    def _take(self, outputs: list[Output], now: float) -> None:
        for output in outputs:
            match output:
                case Query():
                    self._query(output, now)
                case Prepare(offer):
                    self._prepare(offer, now)
                case Gained(lease):
                    self._gained(lease, now)
                case Lost(reason, forget):
                    self._effects += self._keeper.drop(reason)
                    self._withdraw(reason)
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
        options = ASK_SOFTWIRE if query.ask_softwire else ()
        data = dhcp4o6.encode_query(dhcp4.encode(query.message), unicast=query.unicast, options=options)
        self._effects += self._outbox.query(data, self._path, now)

    def _ask(self, messages: list[bytes], now: float) -> None:
        for data in messages:
            if self._link.link_local is not None:
                self._effects += self._outbox.multicast(data, self._link.link_local, now)

    def _gained(self, lease: Lease4, now: float) -> None:
        if self._source is not None:
            self._effects.append(SaveLease(lease, self._source))
        self._effects += report_lease(lease, self._shown, self._way, now)
        self._shown = lease
        self._reconsider(now, fresh=True)

    # ---- the softwire's own address (RFC 8539)

    def _prepare(self, offer: Offer, now: float) -> None:
        prefix = None if offer.softwire is None else offer.softwire.bind_prefix
        try:
            source = dynamic_source(prefix, offer.address, offer.ports, settings=self._settings, wan=self._wan(now))
        except Unfit as error:
            self._take(self._dhcp4.unprepared(now, str(error)), now)
            return
        if self._keeper.desired is None and self._keeper.made - {source}:
            self._withdraw("another address is needed now")
        self._need_address(source, Purpose.OFFER, now)

    def _need_address(self, address: IPv6Address, purpose: Purpose, now: float) -> None:
        if self._preparing == (address, purpose):
            return
        self._preparing = (address, purpose)
        there = self._keeper.installed
        if address in self._addresses or (there is not None and there.local == address):
            self._address_ready(address, now)
        else:
            self._effects += self._keeper.prepare(address)

    def _address_ready(self, address: IPv6Address, now: float) -> None:
        if self._preparing is None or self._preparing[0] != address:
            return  # for an exchange that is over
        (_, purpose), self._preparing = self._preparing, None
        match purpose:
            case Purpose.OFFER:
                self._take(self._dhcp4.prepared(now, address), now)
            case Purpose.REBOOT:
                self._dhcp4.saddr = address
                self._reboot(now)
            case Purpose.CHANGE:
                self._take(self._dhcp4.readdress(now, address), now)

    def _address_failed(self, address: IPv6Address, reason: str, now: float) -> None:
        if self._preparing is None or self._preparing[0] != address:
            return
        (_, purpose), self._preparing = self._preparing, None
        text = f"the softwire's address {address} cannot be used: {reason}"
        match purpose:
            case Purpose.OFFER:
                self._take(self._dhcp4.unprepared(now, text), now)
            case Purpose.REBOOT:
                self._forget_stored(text)
                self._steer(now)
            case Purpose.CHANGE:
                self._take(self._dhcp4.restart(now, text), now)

    def _watch_source(self, lease: Lease4, wan: Wan, now: float) -> None:
        """The softwire's source goes with its prefix: then the server is told of another one (RFC 8539 7.2.1)."""
        if lease.softwire is None:
            return
        present = self._dhcp4.saddr or lease.softwire.saddr
        try:
            wanted = dynamic_source(
                lease.softwire.bind_prefix,
                lease.address,
                lease.ports,
                settings=self._settings,
                wan=wan,
                present=present,
            )
        except Unfit:
            return  # without any prefix there is nothing better
        if wanted != present:
            self._need_address(wanted, Purpose.CHANGE, now)

    # ---- the softwire

    def _reconsider(self, now: float, *, fresh: bool = False) -> None:
        """Decide what softwire there should be, and have it made. ``fresh``: the lease was granted just now."""
        lease, way, desired = self._dhcp4.lease, self._way, self._keeper.desired
        carried = self._carried
        if (
            (way is not None and way.leased and lease is None)
            and (desired is not None and carried is not None and not carried.leased)
            and carried in ways(self._provisioning, self._settings)
        ):
            # A softwire without lease carries on until there is a lease, as long as it is provisioned itself.
            way = carried
        if way is None or (way.leased and lease is None):
            if desired is not None:
                self._effects += self._keeper.drop("nothing provisions it any more")
                self._withdraw("nothing provisions IPv4 any more")
            return
        if self._released:
            return
        wan = self._wan(now)
        if way.dynamic and lease is not None:
            self._watch_source(lease, wan, now)
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
        if config.rules and (desired is None or desired.rules != config.rules):
            self._report("mesh", "info", f"{len(config.rules)} forwarding rule(s) for traffic between customers")
        self._carried = way
        self._effects += self._keeper.want(config)

    def _does_not_fit(self, reason: str, lease: Lease4 | None) -> None:
        if reason != self._unfit:
            self._report("unfit", "warning", f"no softwire can be made: {reason}")
        self._unfit = reason
        desired = self._keeper.desired
        if desired is None:
            return
        held = lease is None or (desired.ipv4, desired.ports) == (lease.address, lease.ports)
        # The address may come back soon: as long as the lease lasts, or the link is down, nothing is taken away. What a
        # container provisions lives no longer than its prefix (RFC 7597 7.1, RFC 7596 5.1 [L-1, M-12]).
        if held and not self._addresses and (lease is not None or not self._link.up):
            return
        self._effects += self._keeper.drop(reason)
        self._withdraw(reason)

    def _withdraw(self, reason: str) -> None:
        """The data plane gives up everything, with the addresses that were prepared."""
        self._preparing = None
        self._effects.append(Withdraw(reason))

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
