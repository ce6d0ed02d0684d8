"""Scenarios: from a seed to a world, what happens in it, and the judgement at its end.

``chaos`` has short leases and something happening all the time; ``crowd`` is the same with fewer port sets than
clients, so that whatever becomes free is taken at once; ``years`` has long leases, long quiet and now and then a bad
day; ``dynamic`` is ``chaos`` with softwires that come with their leases (RFC 8539). All end with a network that
becomes well, and then as many clients as there are port sets for must be bound within ``Scenario.bound_s``, and, once
whatever a forgetful server gave twice has run out, stay so.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from simcheck import Violation
from simnet import FAIR, Weather
from simstory import tell
from simworld import Customer, Provider, World

from b4client.lab.dhcp4_server import Dhcp4Settings
from b4client.lab.pools import FullPool, Pools, SharedPool
from b4client.lab.server import ServerSettings
from b4client.model.settings import ProtocolSettings
from b4client.protocol import events
from b4client.wire.softwire46 import Lw4o6Container

BR = IPv6Address("2001:db8:ffff::1")
SERVERS = (IPv6Address("2001:db8:ffff::547"), IPv6Address("2001:db8:ffff::548"))
YEAR_S = 365.25 * 86400
INF_MAX_RT_S = 3600.0
STRAGGLE_S = 30.0
PROFILES = ("chaos", "crowd", "dynamic", "years")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a seed means. Times in seconds."""

    seed: int
    profile: str
    clients: int
    servers: int
    unicast: bool
    lease_s: int
    refresh_s: int
    inf_max_rt_s: int
    addresses: int
    offset_len: int
    psid_len: int
    full: bool
    chaos_s: float
    mean_pause_s: float
    durations: tuple[float, ...]
    weather: Weather
    forgetful: bool
    dynamic: bool = False
    saddr_interval_s: float = 0.0

    @property
    def capacity(self) -> int:
        """How many clients can have a lease at one time."""
        return self.servers * (self.addresses * sets_of(self.offset_len, self.psid_len) + self.full)

    @property
    def bound_s(self) -> float:
        """How long after the network is well everybody is bound again, at the latest.

        An INFORMATION-REQUEST whose wait has grown to the maximum and a tenth; or 4o6 that came back with option 88 and
        is noticed at the next refresh. Then a DISCOVER that waits 65 s, a REQUEST sent five times for an offer that
        nobody remembers (129 s), a refusal with the longest pause and its repetition (2 x 65 s), start delays. And
        where slots are scarce: the end of leases that a restarted client has no use for, and of offers.
        """
        waits = max(1.1 * INF_MAX_RT_S, self.refresh_s) + 65 + 129 + 2 * 65 + 3 * 11
        if self.dynamic:
            # Two rounds in which a server may refuse a softwire's source, and the pauses before them (RFC 8539 7.5).
            waits += 2 * (75 + 129)
        return waits + self.lease_s + 120


def sets_of(offset_len: int, psid_len: int) -> int:
    """Port sets of an address that may be leased: with offset 0 the one of PSID 0 holds the system ports."""
    return (1 << psid_len) - (offset_len == 0)


def scenario_of(seed: int, profile: str) -> Scenario:
    """The scenario of a seed. Raises ValueError for an unknown profile."""
    rng = random.Random(f"scenario {profile} {seed}")
    if profile == "dynamic":
        # RFC 8539: no container has a BR, so that every softwire comes with its lease.
        interval_s = rng.choice((0.0, 0.0, 60.0))
        return replace(scenario_of(seed, "chaos"), profile=profile, dynamic=True, saddr_interval_s=interval_s)
    if profile in ("chaos", "crowd"):
        crowd = profile == "crowd"
        lease_s = rng.choice((300, 600, 1200, 3600))
        offset_len = rng.choice((0, 0, 4, 6))
        psid_len = 2 if crowd else rng.choice((2, 3))
        sets = sets_of(offset_len, psid_len)
        clients = sets + rng.randint(1, 2) if crowd else rng.randint(2, 8)
        return Scenario(
            seed,
            profile,
            clients=clients,
            servers=1 if crowd else rng.choice((1, 1, 2)),
            unicast=rng.random() < 0.7,
            lease_s=lease_s,
            refresh_s=rng.choice((600, 1800, 7200)),
            inf_max_rt_s=rng.choice((60, 120, 3600)),
            addresses=1 if crowd else math.ceil((clients + rng.choice((0, 1, clients))) / sets),
            offset_len=offset_len,
            psid_len=psid_len,
            full=not crowd and rng.random() < 0.15,
            chaos_s=rng.choice((10, 20, 40)) * lease_s,
            mean_pause_s=rng.choice((0.05, 0.2, 1.0)) * lease_s,
            durations=(1.0, 10.0, 0.2 * lease_s, 1.5 * lease_s),
            weather=Weather(
                loss=rng.choice((0.0, 0.1, 0.3, 0.6)),
                double=rng.choice((0.0, 0.1, 0.3)),
                corrupt=rng.choice((0.0, 0.02, 0.1)),
                delay=rng.choice(((0.001, 0.02), (0.01, 0.5), (0.01, 3.0))),
                straggle=rng.choice((0.0, 0.05)),
                straggle_s=STRAGGLE_S,
            ),
            forgetful=rng.random() < 0.5,
        )
    if profile == "years":
        lease_s = rng.choice((7, 14, 30)) * 86400
        return Scenario(
            seed,
            profile,
            clients=50,
            servers=1,
            unicast=rng.random() < 0.7,
            lease_s=lease_s,
            refresh_s=lease_s,
            inf_max_rt_s=3600,
            addresses=20,
            offset_len=rng.choice((0, 6)),
            psid_len=2,
            full=False,
            chaos_s=4 * YEAR_S,
            mean_pause_s=10 * 86400.0,
            durations=(60.0, 3600.0, 12 * 3600.0),
            weather=Weather(loss=0.01, double=0.01, corrupt=0.001, delay=(0.001, 0.3)),
            forgetful=rng.random() < 0.5,
        )
    raise ValueError(f"no such profile: {profile}")


@dataclass(slots=True)
class Result:
    """What a run was: for the measurement, and ``digest`` for the comparison of two runs of one seed."""

    scenario: Scenario
    simulated_s: float = 0.0
    elapsed_s: float = 0.0
    steps: int = 0
    sent: int = 0
    grants: int = 0
    overlaps_by_amnesia: int = 0
    slowest_recovery_s: float = 0.0
    happened: collections.Counter[str] = field(default_factory=collections.Counter)
    client: collections.Counter[str] = field(default_factory=collections.Counter)
    server: collections.Counter[str] = field(default_factory=collections.Counter)
    digest: str = ""

    @property
    def client_years(self) -> float:
        """Simulated time of all clients together."""
        return self.scenario.clients * self.simulated_s / YEAR_S


class Failure(AssertionError):
    """A run that broke an invariant; the text has the seed, the command that repeats it, and the story."""


class Run:
    """One scenario, lived through."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = random.Random(f"run {scenario.profile} {scenario.seed}")
        self.world = World(scenario.seed, start=self.rng.uniform(10, 1e6))
        self.happened: collections.Counter[str] = collections.Counter()
        self.recovery_s = 0.0
        self._busy_until: dict[str, float] = {}
        self._build()

    # ---- building

    def _build(self) -> None:
        scenario, world = self.scenario, self.world
        used = SERVERS[: scenario.servers]
        for number, address in enumerate(used):
            pools = self._pools(IPv4Address(f"192.0.{2 + number}.1"))
            settings = ServerSettings(
                duid=b"\0\3\0\1\2\0\0\0\0" + bytes((number,)),
                dhcp4=Dhcp4Settings(
                    IPv4Address(f"192.0.0.{number + 1}"),
                    lease_s=scenario.lease_s,
                    t1_s=self.rng.choice((None, scenario.lease_s // 2)),
                    t2_s=None,
                    offer_hold_s=60.0,
                    saddr_interval_s=scenario.saddr_interval_s,
                    drop_saddr_changes=self.rng.random() < 0.5 if scenario.dynamic else False,
                ),
                servers_4o6=used if scenario.unicast else (),
                lw4o6=None if scenario.dynamic else Lw4o6Container((BR,)),
                bind_prefix=IPv6Network("2001:db8::/32") if scenario.dynamic else None,
                refresh_s=scenario.refresh_s,
                inf_max_rt_s=scenario.inf_max_rt_s,
                brs=(BR,),
            )
            world.providers.append(Provider(world, address, settings, pools))
        watched = scenario.profile != "years"
        for number in range(scenario.clients):
            protocol = ProtocolSettings(
                start_delay=self.rng.random() < 0.8,
                prefer_shared=self.rng.random() < 0.3,
                offer_window_s=self.rng.choice((0.0, 1.0)),
            )
            customer = Customer(world, number, protocol, scenario.lease_s, watched=watched)
            customer.destinations = scenario.servers if scenario.unicast else 1
            if watched:
                customer.install_fails = self.rng.choice((0.0, 0.0, 0.1))
            world.customers.append(customer)

    def _pools(self, first: IPv4Address) -> Pools:
        scenario = self.scenario
        shared = SharedPool(first, first + scenario.addresses - 1, scenario.offset_len, scenario.psid_len)
        full = (FullPool(first + 200, first + 200),) if scenario.full else ()
        return Pools((shared,), full)

    # ---- living

    def live(self) -> Result:
        """Run it. Raises Failure."""
        began = time.perf_counter()
        start = self.world.clock.now
        try:
            self._chaos()
            self._heal()
            self._calm()
        except Exception as error:
            raise Failure(self._story(error)) from error
        result = Result(self.scenario, happened=self.happened)
        world = self.world
        result.simulated_s = world.clock.now - start
        result.elapsed_s = time.perf_counter() - began
        result.steps = world.steps
        result.sent = world.network.counts["sent"]
        result.grants = world.ledger.count
        result.overlaps_by_amnesia = world.owners.overlaps_by_amnesia
        result.slowest_recovery_s = self.recovery_s
        for provider in world.providers:
            provider.kill()
            result.server += provider.counters
        result.client.update(world.network.counts)
        state = [(c.name, c.installed, c.stored, c.manners.sent) for c in world.customers]
        result.digest = hashlib.sha256(repr((state, world.steps, result.server.items())).encode()).hexdigest()
        return result

    def _story(self, error: Exception) -> str:
        scenario = self.scenario
        text = "; ".join((f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())))
        lines = [
            text,
            f"seed {scenario.seed}, profile {scenario.profile}; repeat it with:",
            f"  python tests/simulation/soak.py --profile {scenario.profile} --seed {scenario.seed}",
            f"{scenario}",
            "the last things that happened:",
            *tell(list(self.world.trace), text),
        ]
        return "\n".join(lines)

    def _chaos(self) -> None:
        scenario, world = self.scenario, self.world
        end = world.clock.now + scenario.chaos_s
        world.network.weather = scenario.weather
        for customer in world.customers:
            customer.link_up = True
            world.clock.after(self.rng.uniform(0, scenario.lease_s / 4), customer.start)
        when = world.clock.now
        while True:
            when += self.rng.expovariate(1 / scenario.mean_pause_s)
            if when >= end:
                break
            world.clock.at(when, self._something)
        world.clock.run(end)

    def _heal(self) -> None:
        """The network is well, and everybody has got up."""
        world = self.world
        # What was begun before (a suspension, an outage) comes to its own end first; new things do not begin.
        world.clock.run(max([world.clock.now, *self._busy_until.values()]) + STRAGGLE_S + 1)
        world.network.weather = FAIR
        world.note("network", "well again")
        for provider in world.providers:
            if provider.server is None:
                provider.start(remembering=True)
            if provider.settings.servers_4o6 is None:
                provider.reconfigure(replace(provider.settings, servers_4o6=self._option88()))
        for customer in world.customers:
            customer.install_fails = 0.0
            if customer.agent is None:
                customer.start()
            if not customer.link_up:
                customer.plug(up=True)
            if customer.released:
                customer.ask(events.RestartRequested())

    def _calm(self) -> None:
        scenario, world = self.scenario, self.world
        healed_at = world.clock.now
        expected = min(scenario.clients, scenario.capacity)
        for _ in range(200):
            if len(self._bound()) >= expected:
                break
            world.clock.run(world.clock.now + scenario.bound_s / 200)
        self.recovery_s = world.clock.now - healed_at
        if len(self._bound()) < expected:
            missing = ", ".join(c.name for c in world.customers if c.installed is None)
            raise Violation(f"not bound {self.recovery_s:.0f} s after the network was well: {missing}")
        # Leases that a forgetful server gave twice are refused at their next renewal, and replaced.
        world.clock.run(healed_at + scenario.bound_s + scenario.lease_s)
        losses: list[str] = []
        before = self._bound()
        for customer in world.customers:
            customer.on_loss = functools.partial(losses.append, customer.name)
        world.clock.run(world.clock.now + 2.5 * scenario.lease_s)
        if losses or len(before) < expected or self._bound() != before:
            raise Violation(f"without any cause lost by {losses}; bound before: {before}, now: {self._bound()}")

    def _bound(self) -> list[str]:
        return [c.name for c in self.world.customers if c.installed is not None]

    # ---- what happens

    def _something(self) -> None:
        weights, things = zip(*self._events(), strict=True)
        self.rng.choices(things, weights)[0]()

    def _events(self) -> list[tuple[float, Callable[[], None]]]:
        forget = 1.0 if self.scenario.forgetful else 0.0
        return [
            (3, self._client_crash),
            (3, self._client_sleeps),
            (3, self._link_flap),
            (2, self._renumbering),
            (1, self._client_released),
            (2, self._operator),
            (2, self._server_restart),
            (forget, self._server_forgets),
            (1, self._server_outage),
            (2, self._partition),
            (0.5, self._option88_withdrawn),
        ]

    def _happens(self, what: str, who: str, lasts_s: float = 0.0) -> bool:
        """Note an event. False when something is going on with ``who`` already, so that nothing is undone twice."""
        now = self.world.clock.now
        if self._busy_until.get(who, 0.0) > now:
            return False
        self._busy_until[who] = now + lasts_s
        self.happened[what] += 1
        self.world.note(who, what)
        return True

    def _someone(self) -> Customer:
        return self.rng.choice(self.world.customers)

    def _while(self) -> float:
        """How long something lasts: mostly moments, sometimes longer than a lease (in years: a night)."""
        return self.rng.choice(self.scenario.durations) * self.rng.random()

    def _client_crash(self) -> None:
        customer, lasts_s = self._someone(), self._while()
        if customer.agent is None or not self._happens("client crash", customer.name, lasts_s):
            return
        customer.crash()
        remembering, trusted = self.rng.random() < 0.8, self.rng.random() < 0.8
        self.world.clock.after(lasts_s, lambda: customer.start(remembering=remembering, trusted=trusted))

    def _client_sleeps(self) -> None:
        customer, lasts_s = self._someone(), self._while()
        if customer.agent is None or not self._happens("client sleeps", customer.name, lasts_s):
            return
        customer.sleep()
        moved = self.rng.random() < 0.5
        self.world.clock.after(lasts_s, lambda: customer.wake_up(moved=moved))

    def _link_flap(self) -> None:
        customer, lasts_s = self._someone(), self._while()
        if customer.agent is None or not self._happens("link flap", customer.name, lasts_s):
            return
        customer.plug(up=False)
        self.world.clock.after(lasts_s, lambda: customer.plug(up=True, moved=True))

    def _renumbering(self) -> None:
        customer = self._someone()
        if customer.agent is not None and self._happens("renumbering", customer.name):
            customer.renumber()

    def _client_released(self) -> None:
        # The pause is longer than any datagram is under way: a RELEASE that arrives after the next lease was granted
        # would end that one, and DHCP has nothing against it (RFC 2131 4.4.6: RELEASE is not answered).
        customer, lasts_s = self._someone(), STRAGGLE_S + 1 + self._while()
        if customer.agent is None or not self._happens("release", customer.name, lasts_s):
            return
        if self.rng.random() < 0.5:
            customer.ask(events.ReleaseRequested())
            self.world.clock.after(lasts_s, lambda: customer.ask(events.RestartRequested()))
        else:
            customer.stop(release=True)
            self.world.clock.after(lasts_s, customer.start)

    def _operator(self) -> None:
        customer = self._someone()
        event = self.rng.choice((events.RenewRequested(), events.RebindRequested(), events.RestartRequested()))
        if customer.agent is not None and self._happens(type(event).__name__, customer.name):
            customer.ask(event)

    def _server_restart(self) -> None:
        self._server_stops("server restart", self.rng.uniform(0, 5), remembering=True)

    def _server_forgets(self) -> None:
        self._server_stops("server forgets", self._while(), remembering=False)

    def _server_outage(self) -> None:
        self._server_stops("server outage", self._while(), remembering=True)

    def _server_stops(self, what: str, lasts_s: float, *, remembering: bool) -> None:
        number = self.rng.randrange(len(self.world.providers))
        provider = self.world.providers[number]
        if provider.server is None or not self._happens(what, f"server {number}", lasts_s):
            return
        provider.kill()
        self.world.clock.after(lasts_s, lambda: provider.start(remembering=remembering))

    def _partition(self) -> None:
        lasts_s = self._while()
        if not self._happens("partition", "network", lasts_s):
            return
        network = self.world.network
        network.weather = replace(self.scenario.weather, loss=1.0)

        def over() -> None:
            network.weather = self.scenario.weather

        self.world.clock.after(lasts_s, over)

    def _option88(self) -> tuple[IPv6Address, ...]:
        return SERVERS[: self.scenario.servers] if self.scenario.unicast else ()

    def _option88_withdrawn(self) -> None:
        lasts_s = self.rng.uniform(0, 2 * self.scenario.refresh_s)
        if not self._happens("option 88 withdrawn", "option 88", lasts_s):
            return
        for provider in self.world.providers:
            provider.reconfigure(replace(provider.settings, servers_4o6=None))

        def again() -> None:
            for provider in self.world.providers:
                provider.reconfigure(replace(provider.settings, servers_4o6=self._option88()))

        self.world.clock.after(lasts_s, again)


def simulate(seed: int, profile: str = "chaos", **changes: object) -> Result:
    """Live through the scenario of a seed, with ``changes`` to it. Raises Failure."""
    return Run(replace(scenario_of(seed, profile), **changes)).live()  # type: ignore[arg-type]
