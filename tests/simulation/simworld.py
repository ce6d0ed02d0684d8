"""Customers, provider and network joined in one process, in virtual time.

A customer is the client's real machine (``protocol.agent.Agent``) with a store and a data plane of values; a provider
is the lab server's real behaviour (``lab.server.Server``). What happens to them comes from ``simscenario``; what must
hold is in ``simcheck``.
"""

from __future__ import annotations

import collections
import functools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address

from simcheck import Belief, Ledger, Manners, Owners, Violation, check_deadline
from simnet import Clock, Network

from b4client.lab.leases import LeaseDatabase
from b4client.lab.pools import Pools, Slot
from b4client.lab.server import Server, ServerSettings
from b4client.model.lease import Lease4, StoredLease
from b4client.model.settings import ProtocolSettings
from b4client.model.softwire import SoftwireConfig
from b4client.protocol import effects, events
from b4client.protocol.agent import Agent
from b4client.wire import dhcp6, identity

TRACE = 400
QUEUED = 4
"""Datagrams that wait in the socket of a machine that sleeps."""


class World:
    """The clock, the network, everybody on it, and the last things that happened."""

    def __init__(self, seed: int, start: float, ledger: Ledger | None = None) -> None:
        self.rng = random.Random(f"world {seed}")
        self.clock = Clock(start)
        self.network = Network(self.clock, random.Random(f"network {seed}"), self._deliver)
        self.ledger = Ledger() if ledger is None else ledger
        self.owners = Owners(self.ledger)
        self.customers: list[Customer] = []
        self.providers: list[Provider] = []
        self.homes: dict[IPv6Address, Customer] = {}
        self.trace: collections.deque[tuple[float, str, object]] = collections.deque(maxlen=TRACE)
        self.steps = 0
        self._epochs = 0

    def new_epoch(self) -> int:
        """The number of a server's new memory."""
        self._epochs += 1
        return self._epochs

    def note(self, who: str, what: object) -> None:
        """For the story that a failure tells."""
        self.trace.append((self.clock.now, who, what))

    def _deliver(self, data: bytes, source: IPv6Address, destination: IPv6Address) -> None:
        home = self.homes.get(destination)
        if home is not None:
            home.receive(data, source)
            return
        for provider in self.providers:
            if destination in (provider.address, dhcp6.ALL_SERVERS):
                provider.receive(data, source, destination)


class Provider:
    """One server with its lease file. While it is down datagrams are lost."""

    def __init__(
        self,
        world: World,
        address: IPv6Address,
        settings: ServerSettings,
        pools: Pools,
        build: Callable[[ServerSettings, LeaseDatabase], Server] = Server,
    ) -> None:
        self._world = world
        self._build = build
        self.address = address
        self.settings = settings
        self._pools = pools
        self.server: Server | None = None
        self._file = "[]"
        self._epoch = 0
        self.counters: collections.Counter[str] = collections.Counter()
        self.amnesias = 0
        self.start(remembering=False)

    def start(self, *, remembering: bool) -> None:
        """Come up with the lease file or without."""
        if not remembering:
            self._epoch = self._world.new_epoch()
            self._file = "[]"
        leases = LeaseDatabase(self._pools, LeaseDatabase.leases_from_json(json.loads(self._file)))
        self.server = self._build(self.settings, leases)

    def kill(self) -> None:
        """Stop at once. The lease file has every change, since each is written before its answer leaves."""
        if self.server is not None:
            self._file = json.dumps(self.server.leases.to_json())
            self.counters += self.server.counters
            self.server = None

    def reconfigure(self, settings: ServerSettings) -> None:
        """Other settings from now on, the same leases."""
        self.settings = settings
        if self.server is not None:
            self.kill()
            self.start(remembering=True)

    def receive(self, data: bytes, source: IPv6Address, destination: IPv6Address) -> None:
        """One datagram on port 547."""
        world = self._world
        if self.server is None:
            return
        replies = self.server.handle(data, source, world.clock.now, destination=destination)
        changes = self.server.leases.drain()
        if changes:
            world.ledger.write(changes, self._epoch, world.clock.now)
        for reply in replies:
            world.network.send(reply.data, self.address, reply.destination)


class Customer:
    """One client machine: its agent while the daemon runs, what it stored, what its data plane does."""

    def __init__(
        self, world: World, number: int, settings: ProtocolSettings, lease_s: float, *, watched: bool = True
    ) -> None:
        self._world = world
        self.name = f"client {number}"
        self._settings = settings
        self._rng = random.Random(f"{world.rng.random()} {number}")
        self._duid = identity.duid_ll(1, b"\x02\0" + number.to_bytes(4, "big")).data
        self._hardware = b"\x02\0" + number.to_bytes(4, "big")
        self.client_id = identity.client_identifier(1, self._duid)
        self._number = number
        self._generation = 0
        self.link_local = IPv6Address(f"fe80::{number + 1:x}")
        self.global_address = self._new_address()
        self.agent: Agent | None = None
        self.stored: StoredLease | None = None
        self._saved: Lease4 | None = None
        self.installed: SoftwireConfig | None = None
        self._prepared: set[IPv6Address] = set()
        self.link_up = False
        self.asleep = False
        self.released = False
        self._queue: list[tuple[bytes, IPv6Address]] = []
        self._armed: float | None = None
        self.manners = Manners(lease_s)
        self._watched = watched
        self.install_fails = 0.0
        self.destinations = 1
        self.unbound_since: float | None = world.clock.now
        self.on_loss: Callable[[], None] = lambda: None
        self.counters: collections.Counter[str] = collections.Counter()
        world.homes[self.link_local] = self
        world.homes[self.global_address] = self

    def _new_address(self) -> IPv6Address:
        return IPv6Address((0x20010DB8 << 96) | (self._generation << 80) | ((self._number + 1) << 72) | 0xB4)

    # ---- what happens to it

    def start(self, *, remembering: bool = True, trusted: bool = True) -> None:
        """The daemon starts, with what it stored or without."""
        stored = self.stored if remembering else None
        if stored is not None:
            stored = replace(stored, trusted=trusted)
        self.agent = Agent(
            self._settings,
            wan="wan",
            mtu=None,
            forwards=(),
            duid=self._duid,
            iaid=1,
            hardware_address=self._hardware,
            stored=stored,
            rng=self._rng,
        )
        self.released = False
        self.manners.disturbed()
        self.step(self._link_event())

    def crash(self) -> None:
        """The machine loses its power: no farewell, and the data plane goes with it."""
        self.agent = None
        self._armed = None
        self._queue.clear()
        self.asleep = False
        self._believe(None, None)

    def stop(self, *, release: bool) -> None:
        """The daemon is told to end."""
        if self.agent is not None:
            self.step(events.StopRequested(withdraw=True, release=release))
            self.crash()

    def plug(self, *, up: bool, moved: bool = False) -> None:
        """The WAN goes up or down."""
        self.link_up = up
        self.manners.disturbed()
        self.step(self._link_event(moved=moved))

    def renumber(self) -> None:
        """Another IPv6 prefix; the old address is gone."""
        del self._world.homes[self.global_address]
        self._generation += 1
        self.global_address = self._new_address()
        self._world.homes[self.global_address] = self
        self.manners.disturbed()
        if self.link_up:
            self.step(self._link_event())

    def sleep(self) -> None:
        """The machine is suspended."""
        self.asleep = True

    def wake_up(self, *, moved: bool) -> None:
        """The machine goes on: the timer, what waited in the socket, and the link's news in any order."""
        if not self.asleep:
            return
        self.asleep = False
        self.manners.disturbed()
        things: list[events.Event] = [events.Woke()]
        things += [events.DatagramReceived(data, source) for data, source in self._queue]
        self._queue.clear()
        if moved:
            things.append(self._link_event(moved=True))
        self._rng.shuffle(things)
        for thing in things:
            self.step(thing)

    def ask(self, event: events.Event) -> None:
        """An operator's command."""
        self.manners.disturbed()
        if isinstance(event, events.ReleaseRequested):
            self.released = True
        if isinstance(event, events.RestartRequested):
            self.released = False
        self.step(event)

    def _link_event(self, *, moved: bool = False) -> events.LinkChanged:
        if not self.link_up:
            return events.LinkChanged(False, None, ())
        return events.LinkChanged(True, self.link_local, (self.global_address,), moved)

    def receive(self, data: bytes, source: IPv6Address) -> None:
        """One datagram on port 546."""
        if self.agent is None or not self.link_up:
            return
        if self.asleep:
            self._queue = [*self._queue, (data, source)][-QUEUED:]
            return
        self.step(events.DatagramReceived(data, source))

    # ---- the shell: as daemon.loop, with values instead of a kernel

    def step(self, event: events.Event) -> None:
        """Give the machine one event and carry out what it wants."""
        try:
            self._step(event)
        except Violation as violation:
            raise violation if self.name in str(violation) else Violation(f"{self.name}: {violation}") from None
        except Exception as error:
            error.add_note(f"in {self.name}")
            raise

    def _step(self, event: events.Event) -> None:
        if self.agent is None or self.asleep:
            return
        world = self._world
        now = world.clock.now
        world.steps += 1
        world.note(self.name, event)
        failed: list[events.Event] = []
        for effect in self.agent.handle(event, now):
            self._carry_out(effect, failed)
        deadline = self.agent.deadline()
        if isinstance(event, events.Woke) and deadline is not None and deadline <= now:
            raise Violation(f"after Woke at {now} the deadline is {deadline}")
        check_deadline(world.owners.of(self.client_id), deadline, now)
        if deadline != self._armed:
            self._armed = deadline
            if deadline is not None:
                world.clock.at(deadline, functools.partial(self._timer, deadline))
        for event_ in failed:
            self.step(event_)

    def _timer(self, deadline: float) -> None:
        if self._armed == deadline and self.agent is not None and not self.asleep:
            self._armed = None
            self.step(events.Woke())

    def _carry_out(self, effect: effects.Effect, failed: list[events.Event]) -> None:
        world = self._world
        world.note(self.name, effect)
        match effect:
            case effects.Send(data, destination, source):
                if not self.link_up or source not in (self.link_local, self.global_address):
                    failed.append(events.SendFailed("no route"))
                    return
                if source.is_link_local != destination.is_multicast:
                    raise Violation(f"{source} is no source for {destination}")
                if self._watched:
                    self.manners.sends(data, destination, self.destinations, world.clock.now)
                else:
                    self.manners.sent += 1
                world.network.send(data, source, destination)
            case effects.SaveLease(lease, source):
                self._saved = lease
                self.stored = StoredLease(lease, source)
                if self.installed is not None and self._matches(lease):
                    self._believe(self.installed, lease)
            case effects.ForgetLease():
                self.stored = None
            case effects.Install(config):
                self._install(config)
            case effects.PrepareAddress(address):
                self._prepare(address)
            case effects.Resolve():
                raise Violation("nobody here has a name")
            case effects.Withdraw():
                self._prepared.clear()
                self._believe(None, None)

    def _prepare(self, address: IPv6Address) -> None:
        """Duplicate address detection takes a moment; a withdrawal in between is faster."""
        agent = self.agent
        self._prepared.add(address)

        def answered() -> None:
            if agent is self.agent:
                self.step(events.AddressReady(address))

        self._world.clock.after(self._rng.uniform(0.5, 2.0), answered)

    def _install(self, config: SoftwireConfig) -> None:
        """The data plane works for a moment and answers. When it fails it is what it was before."""
        agent, before = self.agent, self.installed
        leased = None if self._saved is None else self._saved.softwire
        if leased is not None and (config.local, config.remote) != (leased.saddr, leased.brs[0]):
            # RFC 8539 7.5: the lwAFTR knows only what the server has stored.
            raise Violation(f"{self.name} installs {config.local} and the server has stored {leased}")
        fails = self.install_fails > 0 and self._rng.random() < self.install_fails
        if not fails:
            self._believe(config, self._saved)
        elif before is not None and self._saved is not None and self._matches(self._saved):
            self._believe(before, self._saved)
        answer = events.InstallFailed(config, "simulated") if fails else events.Installed(config)

        def answered() -> None:
            if agent is self.agent:
                self.step(answer)

        self._world.clock.after(self._rng.uniform(0, 0.2), answered)

    def _matches(self, lease: Lease4) -> bool:
        config = self.installed
        return config is not None and (config.ipv4, config.ports) == (lease.address, lease.ports)

    def _believe(self, config: SoftwireConfig | None, lease: Lease4 | None) -> None:
        now = self._world.clock.now
        before, self.installed = self.installed, config
        if config is None:
            self._world.owners.believe(self.client_id, None, now)
            if before is not None:
                self.unbound_since = now
                self.on_loss()
            return
        if lease is None or not self._matches(lease):
            raise Violation(f"{self.name} installs {config.ipv4} {config.ports} and has stored {lease}")
        self._world.owners.believe(self.client_id, Belief(Slot(config.ipv4, config.ports), lease), now)
        self.unbound_since = None
