"""A MAP-E domain: customers with the real client behind one router, a border relay, a server on the Internet.

::

    PREFIX-mlan1 ── PREFIX-mce1 ──┐
    PREFIX-mlan2 ── PREFIX-mce2 ──┼── PREFIX-misp ══ PREFIX-maftr ── PREFIX-msrv
       ...             ...     ───┘      router        BR             198.51.100.10

The rule is that of RFC 7597 Appendix A, so that a customer's address and ports follow from the End-user prefix. Nothing
is provisioned by DHCPv6 here: the clients have it from their files.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any

from b4client.lab.cable import Veth, lay, make_nodes
from b4client.lab.client import Client
from b4client.lab.lwaftr import Lwaftr, LwaftrPlace
from b4client.lab.netns import Namespace, end_processes, ip_batch, wait_until
from b4client.lab.nodes import BR, POOL, set_up_core, set_up_cpe, set_up_isp, set_up_lan_host
from b4client.model.errors import ControlError
from b4client.model.maprule import MappingRule, map_ce

RULE = "192.0.2.0/24,v6=2001:db8::/40,ea=16,a=6"
TOML_RULE = "ipv6 = '2001:db8::/40'\nipv4 = '192.0.2.0/24'\nea_len = 16\nfmr = true\n"
ISP_WAN = IPv6Interface("2001:db8:ff00::1/64")


@dataclass(slots=True)
class Edge:
    """One customer: namespaces, client, and what follows from the End-user prefix."""

    number: int
    prefix: IPv6Network
    lan: Namespace
    cpe: Namespace
    client: Client
    ipv4: IPv4Address
    address: IPv6Address

    def status(self) -> dict[str, Any]:
        """The client's, once its softwire is up."""
        found: dict[str, Any] = {}

        def there() -> bool:
            found.clear()
            try:
                found.update(self.client.status())
            except ControlError:
                return False
            return found["waiting_for"] is None and bool((found.get("dataplane") or {}).get("up"))

        try:
            wait_until(there, 20, f"customer {self.number} to have its softwire")
        except Exception as error:
            raise AssertionError(f"{error}\n{self.client.explain()}") from None
        return found

    def pump(self) -> dict[str, int]:
        """The pump's counters."""
        counters: dict[str, int] = self.status()["dataplane"]["pump"]
        return counters


class MeshBed:
    """The namespaces; customers by their End-user prefixes."""

    def __init__(
        self,
        prefix: str,
        directory: Path,
        rules: tuple[MappingRule, ...],
        edges: tuple[str, ...],
        *,
        encapsulation: str = "userspace",
    ) -> None:
        self.directory = directory
        names = ["isp", "aftr", "srv", *(f"{kind}{n + 1}" for n in range(len(edges)) for kind in ("lan", "ce"))]
        self.nodes = {name: Namespace(f"{prefix}-m{name}") for name in names}
        self.isp, self.aftr, self.srv = (self.nodes[name] for name in ("isp", "aftr", "srv"))
        self.lwaftr = Lwaftr(self.aftr, directory)
        self.edges = []
        for n, text in enumerate(edges, 1):
            network = IPv6Network(text)
            ce = map_ce(next(rule for rule in rules if network.subnet_of(rule.rule_ipv6)), network)
            ipv4 = ce.ipv4 if isinstance(ce.ipv4, IPv4Address) else ce.ipv4[1]
            cpe = self.nodes[f"ce{n}"]
            client = Client(
                cpe,
                directory / f"ce{n}",
                encapsulation=encapsulation,
                options=("--config", str(directory / f"ce{n}.toml")),
            )
            self.edges.append(Edge(n, network, self.nodes[f"lan{n}"], cpe, client, ipv4, ce.address))

    def build(self, *aftr_rules: str) -> None:
        """Cables, addresses, routes, the border relay."""
        make_nodes(self.nodes.values())
        lay([Veth(("isp", "core"), ("aftr", "core"), 1), Veth(("aftr", "inet"), ("srv", "eth0"), 2)], self.nodes)
        ip_batch(self.isp.name, ["link add wan address 02:00:00:46:00:ff type bridge mcast_snooping 0"])
        set_up_isp(self.isp, ISP_WAN)
        set_up_core(self.aftr, self.srv)
        for edge in self.edges:
            n, line = edge.number, f"c{edge.number}"
            cables = [Veth((f"lan{n}", "eth0"), (f"ce{n}", "lan"), 2 * n + 1)]
            lay([*cables, Veth((f"ce{n}", "wan"), ("isp", line), 2 * n + 2)], self.nodes)
            self.isp.sysctl({f"ipv6/conf/{line}/disable_ipv6": 1})
            wan = ISP_WAN.ip + 0xFF + n
            ip_batch(
                self.isp.name,
                [f"link set {line} master wan", f"link set {line} up", f"route add {edge.prefix} via {wan} dev wan"],
            )
            set_up_lan_host(edge.lan)
            set_up_cpe(edge.cpe, IPv6Interface((int(wan), 64)))
        self.lwaftr.start(LwaftrPlace(BR, POOL, rules=aftr_rules))

    def start(self, edge: Edge, *rules: str, softwire: str = "") -> None:
        """Start a client with these ``[[static.rule]]`` tables and lines of ``[softwire]``."""
        tables = "".join(f"[[static.rule]]\n{rule}" for rule in rules or (TOML_RULE,))
        (self.directory / f"ce{edge.number}.toml").write_text(
            f"[wan]\ninterface = 'wan'\n[provisioning]\nprefixes = ['{edge.prefix}']\n"
            f"[softwire]\nbr = '{BR}'\n{softwire}\n[static]\nmode = 'map-e'\n{tables}",
            encoding="utf-8",
        )
        edge.client.start()

    def remove(self) -> None:
        """Take everything away."""
        for edge in self.edges:
            edge.client.kill()
        there = [n for n in self.nodes.values() if n.exists]
        end_processes(there, grace_s=0)
        if there:
            ip_batch(None, [f"netns delete {n.name}" for n in there])
