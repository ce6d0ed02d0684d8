"""Every misbehaviour of ``lab.misbehave`` and what the client makes of it: counted, survived, and nothing believed.

A case is tried in each of its phases: the server is honest until then, wrong once, and honest again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from simcheck import Grant, Ledger
from simnet import Weather
from simworld import Customer, Provider, World

from b4client.lab.dhcp4_server import Dhcp4Settings
from b4client.lab.leases import LeaseDatabase
from b4client.lab.misbehave import CASES, MisbehavingServer, phase_of
from b4client.lab.pools import Pools, SharedPool, Slot
from b4client.lab.server import Server, ServerSettings
from b4client.model.lease import Lease4
from b4client.model.portset import PortSet
from b4client.model.settings import ProtocolSettings
from b4client.wire import dhcp6
from b4client.wire.softwire46 import Lw4o6Container

BR = IPv6Address("2001:db8:ffff::1")
SERVER = IPv6Address("2001:db8:ffff::547")
A = IPv4Address("192.0.2.1")
LEASE_S = 1200
T1_S, T2_S = 600, 1050
OFFERED, OTHER = PortSet(0, 4, 1), PortSet(0, 4, 0)


class Trusting(Ledger):
    """A ledger that knows every grant: here the server lies about them."""

    def covering(self, client_id: bytes, slot: Slot, lease: Lease4) -> list[Grant]:
        return [Grant(0, lease.requested_at, lease.expires_at)]


class Lab:
    """One client, one server that misbehaves in ``phase`` as ``case`` says, ``times`` times."""

    def __init__(self, case: str, phase: str, times: int | None = 1) -> None:
        self.world = World(1, start=1000.0, ledger=Trusting())
        self.world.network.weather = Weather(delay=(0.01, 0.01))  # two answers stay in order
        self.case = replace(CASES[case], phases=frozenset((phase,)))
        self.phase = phase
        self.times = times
        self.sent: list[tuple[str | None, IPv6Address]] = []

        def build(settings: ServerSettings, leases: LeaseDatabase) -> Server:
            return MisbehavingServer(settings, leases, self.case, self.times)

        settings = ServerSettings(
            b"\0\3\0\1\2\0\0\0\0\1",
            Dhcp4Settings(IPv4Address("192.0.0.1"), lease_s=LEASE_S, t1_s=T1_S, t2_s=T2_S),
            servers_4o6=(SERVER,),
            lw4o6=Lw4o6Container((BR,)),
            refresh_s=86400,
            brs=(BR,),
        )
        self.provider = Provider(self.world, SERVER, settings, Pools((SharedPool(A, A, 0, 4),)), build)
        self.world.providers.append(self.provider)
        self.client = Customer(self.world, 0, ProtocolSettings(start_delay=False, offer_window_s=0.0), LEASE_S)
        self.world.customers.append(self.client)
        send = self.world.network.send

        def watched(data: bytes, source: IPv6Address, destination: IPv6Address) -> None:
            if source != SERVER:
                self.sent.append((phase_of(data), destination))
            send(data, source, destination)

        self.world.network.send = watched  # type: ignore[method-assign]

    @property
    def misbehaved(self) -> int:
        server = self.provider.server
        return server.done if isinstance(server, MisbehavingServer) else 0

    def run(self, seconds: float) -> None:
        self.world.clock.run(self.world.clock.now + seconds)

    def until(self, happened: Callable[[], bool], limit_s: float) -> float:
        """Let time pass until it has happened; how long that took."""
        began = self.world.clock.now
        while not happened():
            assert self.world.clock.now < began + limit_s, f"not within {limit_s} s"
            self.run(0.25)
        return self.world.clock.now - began

    def begin(self) -> None:
        """Start the client, and bring it to where the case is to happen."""
        self.client.link_up = True
        self.client.start()
        if self.phase in ("reboot", "renewing", "rebinding"):
            self.until(lambda: self.client.installed is not None, 30)
        if self.phase == "reboot":
            self.client.crash()
            self.client.start()
        elif self.phase == "rebinding":
            self.run(T1_S - 10)
            self.provider.kill()
            self.run(T2_S - T1_S + 5)
            self.provider.start(remembering=True)

    def counted(self) -> dict[str, int]:
        """The client's counters that are no plain traffic."""
        assert self.client.agent is not None
        counters = self.client.agent.snapshot(self.world.clock.now).counters
        return {name: count for name, count in counters.items() if not name.startswith(("sent-", "received-"))}

    def received(self, what: str) -> int:
        assert self.client.agent is not None
        return int(self.client.agent.snapshot(self.world.clock.now).counters.get(f"received-{what}", 0))


MALFORMED = "drop-response-malformed"
PORTPARAMS = "drop-offer-portparams"
ANY = ("discover", "selecting", "reboot", "renewing", "rebinding")
ACKS = ("selecting", "renewing", "rebinding")


@dataclass(frozen=True)
class Reaction:
    """What is counted for one wrong answer (None: nothing), and what the client has in the end."""

    case: str
    phases: tuple[str, ...]
    counter: str | None
    ports: PortSet = OFFERED


REACTIONS = [
    Reaction("response-without-87", ANY, MALFORMED),
    Reaction("response-two-87", ANY, MALFORMED),
    Reaction("response-cut-off", ANY, MALFORMED),
    Reaction("flags-set", ANY, None),
    Reaction("bind-prefix-octets", ANY, None),
    Reaction("wrong-xid", ANY, "drop-response-foreign-xid"),
    Reaction("foreign-client-id", ANY, "drop-response-foreign-client-id"),
    Reaction("without-client-id", ANY, None),
    Reaction("request-op", ANY, "drop-response-not-a-reply"),
    Reaction("without-type", ANY, "drop-response-not-a-reply"),
    Reaction("without-server-id", ("discover", "selecting"), "drop-offer-without-server-id"),
    Reaction("address-zero", ("discover", "selecting"), "drop-offer-address"),
    Reaction("ack-without-lease-time", ACKS, "drop-ack-lease-time"),
    Reaction("ack-lease-time-zero", ACKS, "drop-ack-lease-time"),
    Reaction("ack-times-disordered", ACKS, "warned-lease-times"),
    Reaction("offer-for-ack", ("selecting", "reboot", "renewing", "rebinding"), "drop-response-wrong-state"),
    Reaction("ack-for-offer", ("discover",), "drop-response-wrong-state"),
    Reaction("ack-other-psid", ACKS, None, OTHER),
    Reaction("ack-without-159", ACKS, "drop-ack-without-portparams"),
    Reaction("ack-without-109", ACKS, None),
    Reaction("portparams-3-octets", ("discover", "selecting"), PORTPARAMS),
    Reaction("portparams-5-octets", ("discover", "selecting"), PORTPARAMS),
    Reaction("portparams-doubled", ("discover", "selecting"), PORTPARAMS),
    Reaction("portparams-offset-16", ("discover", "selecting"), PORTPARAMS),
    Reaction("portparams-17-bits", ("discover", "selecting"), PORTPARAMS),
    Reaction("portparams-padding", ("discover", "selecting"), "warned-portparams-padding"),
    Reaction("nak-discover", ("discover",), "drop-response-wrong-state"),
    Reaction("nak-bound", ("selecting",), "drop-response-not-in-use"),
    Reaction("nak-other-server", ("selecting", "renewing"), "drop-response-other-server"),
    Reaction("nak-without-server-id", ("selecting", "renewing"), "drop-nak-without-server-id"),
    Reaction("reply-wrong-transaction", ("information",), "drop-reply-foreign-transaction"),
    Reaction("reply-without-server-id", ("information",), "drop-reply-without-server-id"),
    Reaction("reply-foreign-client-id", ("information",), "drop-reply-foreign-client-id"),
    Reaction("servers-empty", ("information",), None),
    Reaction("servers-duplicate", ("information",), None),
    Reaction("two-brs", ("information",), None),
]


@pytest.mark.parametrize(
    ("reaction", "phase"),
    [pytest.param(r, phase, id=f"{r.case} in {phase}") for r in REACTIONS for phase in r.phases],
)
def test_reaction(reaction: Reaction, phase: str) -> None:
    lab = Lab(reaction.case, phase)
    lab.begin()
    lab.until(lambda: lab.misbehaved == 1, T1_S + 120)
    lab.run(1.0)
    assert lab.counted() == ({} if reaction.counter is None else {reaction.counter: 1})
    # Refused or not: it is bound soon, and stays so over renewals. (After a refused ACK of a renewal the next one is
    # tried at half of what is left, RFC 2131 4.4.5.)
    lab.until(lambda: lab.client.installed is not None, 70)
    lost: list[float] = []
    lab.client.on_loss = lambda: lost.append(lab.world.clock.now)
    assert lab.client.installed is not None
    assert (lab.client.installed.ipv4, lab.client.installed.remote) == (A, BR)
    assert lab.client.installed.ports == reaction.ports
    if reaction.case != "ack-other-psid":
        lab.run(2 * LEASE_S)
        assert lost == []


def test_every_case_has_a_reaction() -> None:
    elsewhere = {"nak-selecting", "nak-reboot", "nak-renewing", "nak-rebinding", "servers-odd", "servers-withdrawn"}
    elsewhere.add("bind-prefix-malformed")
    assert {r.case for r in REACTIONS} | elsewhere == set(CASES)
    for reaction in REACTIONS:
        assert set(reaction.phases) <= CASES[reaction.case].phases


# ---- NAK where it is waited for


@pytest.mark.parametrize("phase", ["selecting", "reboot", "renewing", "rebinding"])
def test_nak(phase: str) -> None:
    lab = Lab(f"nak-{phase}", phase)
    lost: list[float] = []
    lab.client.on_loss = lambda: lost.append(lab.world.clock.now)
    lab.begin()
    lost.clear()  # that of the crash
    lab.until(lambda: lab.misbehaved == 1, T1_S + 120)
    lab.run(0.1)
    held = phase in ("renewing", "rebinding")
    assert len(lost) == (1 if held else 0)  # at once [S-10]
    assert lab.received("nak") == 1
    assert lab.until(lambda: lab.client.installed is not None, 70) < 20
    assert lab.counted() == {}


def test_a_server_that_always_refuses_is_asked_less_and_less() -> None:
    lab = Lab("nak-selecting", "selecting", times=None)
    lab.begin()
    lab.run(86400)
    discovers = [phase for phase, _ in lab.sent if phase == "discover"]
    assert 86400 / 66 < len(discovers) < 86400 / 62 + 10
    assert lab.received("nak") == len(discovers)


# ---- option 88 and the containers


def test_servers_empty() -> None:
    lab = Lab("servers-empty", "information", times=None)
    lab.begin()
    lab.until(lambda: lab.client.installed is not None, 30)
    queries = [destination for phase, destination in lab.sent if phase != "information"]
    assert queries == [dhcp6.ALL_SERVERS] * 2


def test_a_hundred_times_the_same_server_is_one() -> None:
    lab = Lab("servers-duplicate", "information", times=None)
    lab.begin()
    lab.until(lambda: lab.client.installed is not None, 30)
    assert [destination for phase, destination in lab.sent if phase != "information"] == [SERVER] * 2


@pytest.mark.parametrize(
    ("case", "counted"),
    [("servers-withdrawn", {}), ("servers-odd", {"ignored-option88-malformed": 1})],
)
def test_no_servers(case: str, counted: dict[str, int]) -> None:
    lab = Lab(case, "information")
    lab.begin()
    lab.run(3600)
    # RFC 7341 9: MUST NOT without option 88; it is asked for again at the refresh [D-1].
    assert {phase for phase, _ in lab.sent} == {"information"}
    assert lab.counted() == counted
    lab.until(lambda: lab.client.installed is not None, 86400)


def test_option_88_withdrawn_while_bound() -> None:
    lab = Lab("servers-withdrawn", "information", times=0)
    lab.begin()
    lab.until(lambda: lab.client.installed is not None, 30)
    lab.times = 1
    lab.provider.kill()
    lab.provider.start(remembering=True)
    lost: list[float] = []
    lab.client.on_loss = lambda: lost.append(lab.world.clock.now)
    lab.run(86390 - lab.world.clock.now + 1000.0)
    assert lost == []
    lab.until(lambda: lab.misbehaved == 1, 30)
    withdrawn_at = lab.world.clock.now
    del lab.sent[:]
    lab.until(lambda: bool(lost), LEASE_S + 1)  # kept until its end, never renewed
    assert lost[0] > withdrawn_at
    assert [phase for phase, _ in lab.sent if phase != "information"] == []
    lab.until(lambda: lab.client.installed is not None, 86400)


def test_a_container_that_is_malformed() -> None:
    lab = Lab("bind-prefix-malformed", "information")
    lab.begin()
    lab.run(3600)
    # As if absent: the BR is then asked of the DHCP 4o6 server (RFC 8539).
    assert lab.client.installed is not None
    assert lab.client.installed.own_local
    assert lab.counted() == {"ignored-container-malformed": 1}
    lab.until(lambda: lab.client.installed is not None, 86400)
