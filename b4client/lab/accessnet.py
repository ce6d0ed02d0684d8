"""An access network with many customers: each a CPE with the real client and a LAN host, in namespaces.

::

    PREFIX-lan1 ── PREFIX-cpe1 ──┐
    PREFIX-lan2 ── PREFIX-cpe2 ──┼── PREFIX-isp ══ PREFIX-aftr ── PREFIX-srv
       ...            ...     ───┘   DHCP server     lwAFTR       IPv4 server

The customers' lines end in a bridge of the ISP's router, whose ports are isolated from each other: every customer
reaches the router, none another one.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from b4client import api
from b4client.lab.accessplan import ACCESS, ISP_WAN, PREFIX_OPTION, SERVERS, AccessPlan, binding_of
from b4client.lab.binding import Binding
from b4client.lab.cable import Veth, lay, make_nodes
from b4client.lab.client import Client
from b4client.lab.kea import Kea, KeaPlace
from b4client.lab.labserver import LabServer
from b4client.lab.lwaftr import Lwaftr, LwaftrPlace
from b4client.lab.netns import LabError, Namespace, ip_batch, wait_until
from b4client.lab.nodes import BR, POOL, set_up_core, set_up_cpe, set_up_isp, set_up_lan_host
from b4client.lab.site import BASE_DIR, Site, check_machine
from b4client.model.errors import ControlError

CORE_CABLES: Final = (Veth(("isp", "core"), ("aftr", "core"), 1), Veth(("aftr", "inet"), ("srv", "eth0"), 2))
FIRST_CABLE: Final = 0x100
"""Number of the first customer's first cable."""
SOFTWIRE_UP: Final = "softwire-up"
NOT_RUNNING: Final = "not running"
UP_S: Final = 60.0
"""How long a customer may take from its client's start to its softwire."""
POLL_S: Final = 0.1
ASKED_AT_ONCE: Final = 8

Told = Callable[[str, int, int], None]
"""Progress: what is being done, how many are done, of how many."""


@dataclass(slots=True)
class Customer:
    """One line: its namespaces and its client. ``up_after_s``: from the client's start to its softwire, once known."""

    number: int
    lan: Namespace
    cpe: Namespace
    client: Client
    up_after_s: float | None = None
    _started_at: float = field(default=0.0, repr=False)

    def start(self) -> None:
        """Start the client."""
        self._started_at = time.monotonic()
        self.client.start()

    def ask(self) -> dict[str, Any] | None:
        """The client's status, None when it does not run."""
        try:
            return self.client.status()
        except ControlError:
            return None

    @property
    def binding(self) -> Binding | None:
        """What it has, None while it has nothing."""
        status = self.ask()
        return None if status is None else binding_of(status)

    def _says_up(self) -> bool:
        try:
            return any(event["kind"] == SOFTWIRE_UP for event in self.client.events())
        except ControlError:
            return False

    def look(self) -> Binding | None:
        """Its binding if it is up by now. Raises LabError when the client has ended, or takes too long."""
        # Not the status each time: for that the client reads back its tables from the kernel.
        binding = self.binding if self._says_up() else None
        if binding is not None:
            self.up_after_s = time.monotonic() - self._started_at
        elif not self.client.running:
            raise LabError(f"customer {self.number}: the client has ended\n{self.client.explain()}")
        elif time.monotonic() > self._started_at + UP_S:
            waiting = (self.ask() or {}).get("waiting_for", "its control socket")
            raise LabError(
                f"customer {self.number} has no IPv4 after {UP_S:g} s, it waits for {waiting}\n{self.client.explain()}"
            )
        return binding


class AccessNetwork:
    """The network of ``plan``, up or not. ``isp``, ``aftr``, ``srv`` and the customers' nodes are namespaces."""

    def __init__(self, plan: AccessPlan) -> None:
        self.plan = plan
        directory = BASE_DIR / f"{plan.prefix}.lab"
        self._site = Site(plan.prefix, r"(?:lan|cpe)\d+|isp|aftr|srv", directory, option=PREFIX_OPTION)
        self.directory = directory
        numbers = range(1, plan.customers + 1)
        names = ["isp", "aftr", "srv", *(f"{kind}{n}" for n in numbers for kind in ("cpe", "lan"))]
        self.nodes = {name: Namespace(f"{plan.prefix}-{name}") for name in names}
        self.isp, self.aftr, self.srv = (self.nodes[name] for name in ("isp", "aftr", "srv"))
        self.lwaftr = Lwaftr(self.aftr, directory)
        self.lab_server = LabServer(self.isp, directory)
        self.kea = Kea(self.isp, directory / "kea", KeaPlace("wan", ISP_WAN.ip, ACCESS, POOL, BR))
        self.customers = [self._customer(n) for n in numbers]
        self._times_file = directory / "times.json"

    def _customer(self, number: int) -> Customer:
        cpe = self.nodes[f"cpe{number}"]
        client = Client(cpe, self.directory / f"cpe{number}", encapsulation=self.plan.encapsulation)
        return Customer(number, self.nodes[f"lan{number}"], cpe, client)

    # ---- up and down

    def check_machine(self) -> None:
        """Raises LabError when this machine lacks something."""
        kea = ("kea-dhcp4", "kea-dhcp6") if self.plan.server == "kea" else ()
        check_machine(("ip", "ethtool", "nft", "ping", "tcpdump", *kea))

    def up(self, told: Told = lambda *_: None) -> bool:
        """Build it, or leave it when it is up with this plan; clients that do not run are started again.

        Returns True when it was built. Raises LabError, with nothing left behind when it was being built.
        """
        self.check_machine()
        built = self._site.build(lambda: self._build(told), self.state, self._in_good_health)
        if not built:
            self._recall()
            self._start_clients([c for c in self.customers if c.ask() is None], told)
        return built

    def down(self) -> bool:
        """Take everything away, at once: nothing in it is worth a farewell. False when there was nothing."""
        return self._site.remove(grace_s=0)

    @classmethod
    def existing(cls, prefix: str) -> AccessNetwork:
        """The network that is up under ``prefix``. Raises LabError."""
        state = cls(AccessPlan(prefix=prefix))._site.state()
        if state is None:
            raise LabError(f"no lab {prefix!r} is up: start it with b4client lab up")
        network = cls(AccessPlan(**json.loads(state)))
        network._recall()
        return network

    @property
    def state(self) -> str:
        """The plan as JSON: what is noted when it is built."""
        return json.dumps(api.jsonable(self.plan), indent=1) + "\n"

    def _in_good_health(self) -> bool:
        server = self.lab_server if self.plan.server == SERVERS[0] else self.kea
        return all(n.exists for n in self.nodes.values()) and server.running and self.lwaftr.answers

    def _build(self, told: Told) -> None:
        told("network namespaces", 0, len(self.nodes))
        self._wire(told)
        told("DHCP server", 0, 1)
        self.start_server()
        told("lwAFTR", 0, 1)
        self.start_lwaftr()
        self._wait_for_path(self.customers[-1])
        self._start_clients(self.customers, told)

    def _wire(self, told: Told) -> None:
        make_nodes(self.nodes.values())
        lay(CORE_CABLES, self.nodes)
        ip_batch(self.isp.name, ["link add wan address 02:00:00:46:00:ff type bridge mcast_snooping 0"])
        set_up_isp(self.isp, ISP_WAN)
        set_up_core(self.aftr, self.srv)
        done = 3
        for customer in self.customers:
            told("network namespaces", done, len(self.nodes))
            self._wire_customer(customer)
            done += 2
        told("network namespaces", done, len(self.nodes))

    def _wire_customer(self, customer: Customer) -> None:
        n, line = customer.number, f"c{customer.number}"
        number = FIRST_CABLE + 2 * n
        lay(
            [
                Veth((f"lan{n}", "eth0"), (f"cpe{n}", "lan"), number),
                Veth((f"cpe{n}", "wan"), ("isp", line), number + 1),
            ],
            self.nodes,
        )
        self.isp.sysctl({f"ipv6/conf/{line}/disable_ipv6": 1})
        isolated = f"link set {line} type bridge_slave isolated on"
        ip_batch(self.isp.name, [f"link set {line} master wan", isolated, f"link set {line} up"])
        set_up_lan_host(customer.lan)
        set_up_cpe(customer.cpe, self.plan.wan(n))

    def start_server(self) -> None:
        """Start the DHCP server. Raises LabError."""
        if self.plan.server == "kea":
            self.kea.start(self.plan.kea)
        else:
            self.lab_server.start(self.plan.lab_server)

    def start_lwaftr(self) -> None:
        """Start the lwAFTR; its bindings come by the feed, by the mapping rule, or with Kea one by one from us."""
        feed = self.lab_server.feed if self.plan.server == "lab" and self.plan.mode == "lw4o6" else None
        rules = (self.plan.mapping_rule,) if self.plan.mode == "map-e" else ()
        self.lwaftr.start(LwaftrPlace(BR, POOL, rules=rules, feed=feed))

    def _wait_for_path(self, customer: Customer) -> None:
        def reachable() -> bool:
            return not customer.cpe.run("ping", "-6", "-n", "-q", "-c1", "-W1", str(BR), check=False).returncode

        wait_until(reachable, 15, f"customer {customer.number} to reach the lwAFTR {BR}")

    def _start_clients(self, customers: Iterable[Customer], told: Told) -> None:
        """Start the clients, as many at once as this machine has room for, and wait until all have their softwire."""
        at_once = 2 * (os.cpu_count() or 1)
        waiting, starting = deque(customers), list[Customer]()
        total = len(waiting)
        while waiting or starting:
            told("customers with IPv4", total - len(waiting) - len(starting), total)
            while waiting and len(starting) < at_once:
                starting.append(waiting.popleft())
                starting[-1].start()
            time.sleep(POLL_S)
            for customer in tuple(starting):
                binding = customer.look()
                if binding is not None:
                    starting.remove(customer)
                    if self.plan.own_addresses:
                        self.lwaftr.call("bind", binding=str(binding))
        told("customers with IPv4", total, total)
        self._times_file.write_text(json.dumps({c.number: c.up_after_s for c in self.customers}), encoding="ascii")

    def _recall(self) -> None:
        """Read the customers' times that the process which built it has noted."""
        try:
            times = json.loads(self._times_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return
        for customer in self.customers:
            customer.up_after_s = times.get(str(customer.number))

    # ---- while it is up

    def table(self) -> list[dict[str, Any]]:
        """A line for each customer: what its client says, and what the lwAFTR has seen of it (``null``: nothing)."""
        with concurrent.futures.ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            answers = list(pool.map(Customer.ask, self.customers))
        try:
            seen = self.lwaftr.customers()
        except ControlError:
            seen = None
        return [self._row(customer, status, seen) for customer, status in zip(self.customers, answers, strict=True)]

    def _row(
        self, customer: Customer, status: dict[str, Any] | None, seen: dict[Binding, dict[str, Any]] | None
    ) -> dict[str, Any]:
        binding = None if status is None else binding_of(status)
        ports = None if binding is None else binding.ports
        at_lwaftr: dict[str, Any] = {}
        if binding is not None and seen is not None:
            # A binding that follows from a mapping rule is made by the first packet.
            nothing = dict.fromkeys(("ports_seen", "packets_up", "packets_down", "refused_up"), 0)
            at_lwaftr = seen.get(binding, nothing if self.plan.mode == "map-e" else {})
        state = NOT_RUNNING if status is None else str(status.get("state"))
        if self.plan.mode == "map-e" and binding is not None:
            state = "UP"  # no DHCPv4, so no state of it
        return {
            "customer": customer.number,
            "wan": str(self.plan.wan(customer.number).ip),
            "state": state,
            "waiting_for": None if status is None else status.get("waiting_for"),
            "softwire": None if binding is None else str(binding.b4),
            "address": None if binding is None else str(binding.address),
            "psid": None if ports is None else ports.psid,
            "psid_len": None if ports is None else ports.psid_len,
            "offset": None if ports is None else ports.offset_len,
            "port_count": None if binding is None else 65536 if ports is None else ports.port_count,
            "range_count": None if ports is None else ports.range_count,
            "first_range": None if ports is None else str(ports.range_at(0)),
            "ports_seen": at_lwaftr.get("ports_seen"),
            "packets_up": at_lwaftr.get("packets_up"),
            "packets_down": at_lwaftr.get("packets_down"),
            "refused_up": at_lwaftr.get("refused_up"),
            "up_after_s": None if customer.up_after_s is None else round(customer.up_after_s, 3),
        }
