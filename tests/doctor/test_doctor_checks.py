"""Every check of ``b4client doctor``, for a machine in good health and for each thing that can be wrong with it."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from b4client.config import parse
from b4client.dataplane.neighbours import Lan
from b4client.dataplane.rtlink import LinkState, Tunnel
from b4client.doctor import examine, firewall, machine, network, probe, render
from b4client.doctor.finding import Level
from b4client.doctor.probe import Echo
from b4client.doctor.system import Context, System
from b4client.model.errors import DataplaneError
from b4client.protocol.provisioning import Provisioning
from b4client.wire.softwire46 import Lw4o6Container

BR = IPv6Address("2001:db8:ffff::1")
WAN = LinkState(2, "wan", None, True, 1500, b"\2\0\0\0\0\1", IPv6Address("fe80::1"), (IPv6Address("2001:db8::1"),))
TUNNEL = Tunnel(7, "ip6tnl", True, 1460, IPv6Address("2001:db8::1"), BR, True)
HOST = IPv4Address("198.51.100.10")
STATUS: dict[str, Any] = {
    "pid": 42,
    "state": "BOUND",
    "waiting_for": None,
    "provisioning": {
        "state": "informed",
        "servers_4o6": ["2001:db8::53"],
        "brs": [str(BR)],
        "containers": ["lw4o6"],
        "problems": [],
    },
    "lease": {"ports": {"offset": 0, "psid_len": 8, "psid": 0x34}},
    "softwire": {"br_ipv6_addr": str(BR), "ipv4": "192.0.2.18", "installed": True},
    "dataplane": {"device": "b4"},
    "mending": {"mends": 0, "contested": False, "problem": None, "last": None},
    "store_problem": None,
}


@dataclass
class Machine(System):
    """A machine in good health; tests break one thing."""

    files: dict[str, str] = field(
        default_factory=lambda: {
            "/proc/sys/net/ipv4/ip_forward": "1",
            "/proc/sys/net/ipv4/conf/all/rp_filter": "0",
            "/proc/sys/net/netfilter/nf_conntrack_count": "10",
            "/proc/sys/net/netfilter/nf_conntrack_max": "1000",
        }
    )
    facts: dict[str, Any] = field(default_factory=dict)

    def _fact(self, name: str, good: Any) -> Any:
        value = self.facts.get(name, good)
        if isinstance(value, Exception):
            raise value
        return value

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def free_octets(self, path: Path) -> int | None:
        return self._fact("free", 1 << 20)

    def now(self) -> float:
        return self._fact("now", Path(machine.__file__).stat().st_mtime + 1000)

    def has_module(self, name: str) -> bool:
        return name not in self._fact("absent", ())

    def missing_capabilities(self) -> list[str]:
        return self._fact("missing", [])

    def processes(self) -> list[tuple[int, str, str]]:
        return self._fact("processes", [(1, "init", "/sbin/init")])

    def port_owners(self, port: int) -> list[str]:
        return self._fact("owners", [])

    def rules(self) -> Any:
        return self._fact("nft", None)

    def try_rules(self, text: str) -> str | None:
        return next((why for part, why in self._fact("nft_lacks", {}).items() if part in text), None)

    def ruleset(self) -> list[dict[str, Any]]:
        return self._fact("ruleset", [])

    def iptables(self) -> list[dict[str, Any]]:
        return self._fact("iptables", [])

    def lans(self, device: str, wan: str | None) -> tuple[Lan, ...]:
        return (Lan("lan0", "192.168.1.10"),)

    def link(self, name: str) -> LinkState | None:
        return self._fact("link", WAN)

    def link_names(self) -> list[str]:
        return ["lo", "wan"]

    def tunnel(self, name: str) -> Tunnel | None:
        return self._fact("tunnel", TUNNEL)

    def addresses4(self, index: int) -> list[IPv4Interface]:
        return [IPv4Interface(a) for a in self._fact("addresses4", ["192.0.2.18/32"])]

    def path_mtu(self, destination: IPv6Address) -> int | None:
        return self._fact("path_mtu", 1500)

    def kernel_softwire(self) -> bool:
        return self._fact("ip6tnl", True)

    def userspace_softwire(self) -> str | None:
        return self._fact("tun", None)

    def ask_dhcp6(self, wan: str) -> Provisioning | None:
        return self._fact("dhcp6", Provisioning(servers_4o6=(BR,), lw4o6=Lw4o6Container(brs=(BR,))))

    def ping6(self, destination: IPv6Address, size: int) -> Echo:
        return self._fact("ping6", {}).get(size, Echo.ANSWERED)

    def ping4(self, device: str, destination: IPv4Address, size: int) -> Echo:
        return self._fact("ping4", {}).get(size, Echo.ANSWERED)

    def ask_stun(self, device: str, server: tuple[IPv4Address, int]) -> tuple[IPv4Address, int] | None:
        return self._fact("stun", (IPv4Address("192.0.2.18"), 0x3401))


CONFIG = parse({"wan": {"interface": "wan"}})
RUNNING = Context(CONFIG, "wan", STATUS, HOST, (HOST, 3478))
IDLE = Context(CONFIG, "wan")


def chain(table: str, name: str, hook: str, policy: str = "accept", prio: int = 50) -> dict[str, Any]:
    body = {"family": "ip", "table": table, "name": name, "hook": hook, "policy": policy, "type": "filter", "prio": 0}
    return {"chain": body | ({"type": "nat", "prio": prio} if hook == "postrouting" else {})}


def nat_rule(table: str, *matches: dict[str, Any]) -> dict[str, Any]:
    expressions = [*({"match": m} for m in matches), {"masquerade": None}]
    return {"rule": {"family": "ip", "table": table, "chain": "post", "expr": expressions}}


def out(op: str, right: object) -> dict[str, Any]:
    return {"op": op, "left": {"meta": {"key": "oifname"}}, "right": right}


def status(**changes: Any) -> Context:
    return replace(RUNNING, status={**STATUS, **changes})


def settings(section: str, **values: object) -> Context:
    return replace(RUNNING, config=parse({"wan": {"interface": "wan"}, section: values}))


NO_OPTION_88 = {**STATUS["provisioning"], "servers_4o6": None}
NO_BR = {**STATUS["provisioning"], "brs": []}
WITH_PORTS = {"mends": 2, "contested": False, "problem": None, "last": {"what": "NAT rules", "ago_s": 3.0}}

# check, the machine's broken fact, the context, expected level, words of text or remedy
BAD: list[tuple[str, dict[str, Any], Context, Level, str]] = [
    ("privileges", {"missing": ["CAP_NET_ADMIN"]}, RUNNING, Level.WARNING, "CAP_NET_ADMIN"),
    ("libraries", {"absent": ("nftables",)}, RUNNING, Level.ERROR, "apt install python3-nftables"),
    ("nft", {"nft": DataplaneError("use nf_tables", "not permitted", remedy="root")}, RUNNING, Level.ERROR, "root"),
    ("nft", {"nft_lacks": {"jhash": "no such thing"}}, RUNNING, Level.ERROR, "CONFIG_NFT_NUMGEN"),
    ("nft", {"nft_lacks": {"ct timeout": "no"}}, RUNNING, Level.NOTE, "CONFIG_NF_CONNTRACK_TIMEOUT"),
    ("softwire-driver", {"ip6tnl": False}, RUNNING, Level.NOTE, "userspace"),
    ("softwire-driver", {"ip6tnl": False, "tun": "no /dev/net/tun"}, RUNNING, Level.ERROR, "no /dev/net/tun"),
    ("softwire-driver", {"ip6tnl": False}, settings("softwire", encapsulation="kernel"), Level.ERROR, "modprobe"),
    ("port-546", {"owners": ["odhcp6c (pid 7)"]}, RUNNING, Level.WARNING, "odhcp6c (pid 7)"),
    ("dhcp-clients", {"processes": [(5, "dhclient", "dhclient -4 wan")]}, RUNNING, Level.WARNING, "RFC 7341 9"),
    ("dhcp-clients", {"processes": [(5, "dhcpcd", "dhcpcd")]}, RUNNING, Level.WARNING, "dhcpcd (pid 5)"),
    ("managers", {"processes": [(5, "systemd-network", "x")]}, RUNNING, Level.NOTE, "Unmanaged=yes"),
    ("managers", {"processes": [(5, "NetworkManager", "x")]}, RUNNING, Level.NOTE, "managed no"),
    ("forwarding", {"file /proc/sys/net/ipv4/ip_forward": "0"}, RUNNING, Level.ERROR, "ip_forward=1"),
    ("forwarding", {"file /proc/sys/net/ipv4/ip_forward": "0"}, IDLE, Level.NOTE, "turns it on"),
    (
        "rp-filter",
        {"file /proc/sys/net/ipv4/conf/all/rp_filter": "1"},
        settings("softwire", default_route=False),
        Level.WARNING,
        "rp_filter=2",
    ),
    ("conntrack", {"file /proc/sys/net/netfilter/nf_conntrack_count": "990"}, RUNNING, Level.WARNING, "990 of 1000"),
    ("conntrack", {"file /proc/sys/net/netfilter/nf_conntrack_max": ""}, RUNNING, Level.NOTE, "not loaded"),
    ("clock", {"now": 86400.0}, RUNNING, Level.WARNING, "NTP"),
    ("storage", {"free": None}, RUNNING, Level.WARNING, "read-only"),
    ("storage", {"free": 100}, RUNNING, Level.WARNING, "no room"),
    ("storage", {}, status(store_problem="cannot write"), Level.WARNING, "cannot write"),
    ("firewall", {"ruleset": DataplaneError("list", "not permitted")}, RUNNING, Level.NOTE, "not permitted"),
    (
        "firewall",
        {"ruleset": [chain("fw", "fwd", "forward", "drop")]},
        RUNNING,
        Level.ERROR,
        "comes from lan0 for",
    ),
    ("firewall", {"ruleset": [chain("d", "post", "postrouting"), nat_rule("d")]}, RUNNING, Level.ERROR, "oifname"),
    (
        "firewall",
        {"ruleset": [chain("d", "post", "postrouting"), nat_rule("d", out("==", {"set": ["b4", "wan"]}))]},
        RUNNING,
        Level.ERROR,
        "nft table ip d",
    ),
    ("wan", {}, replace(RUNNING, wan=None), Level.ERROR, "--wan IFACE"),
    ("wan", {"link": None}, RUNNING, Level.ERROR, "Interfaces here: lo, wan"),
    ("wan", {"link": replace(WAN, up=False)}, RUNNING, Level.ERROR, "carrier"),
    ("wan", {"link": replace(WAN, link_local=None)}, RUNNING, Level.ERROR, "disable_ipv6=0"),
    ("wan", {"link": replace(WAN, addresses=())}, RUNNING, Level.ERROR, "accept_ra"),
    ("provisioning", {"dhcp6": None}, IDLE, Level.ERROR, "no DHCPv6 server answers"),
    ("provisioning", {"dhcp6": OSError(98, "Address already in use")}, IDLE, Level.NOTE, "already in use"),
    ("provisioning", {}, status(provisioning={"state": "asking"}), Level.ERROR, "no DHCPv6 server answers"),
    (
        "provisioning",
        {"dhcp6": Provisioning(servers_4o6=(), lw4o6=Lw4o6Container(brs=(BR,)), problems=("option 88 is odd",))},
        IDLE,
        Level.WARNING,
        "option 88 is odd",
    ),
    ("option-88", {"dhcp6": Provisioning()}, IDLE, Level.ERROR, "no option 88"),
    ("option-88", {}, status(provisioning=NO_OPTION_88), Level.WARNING, "no option 88"),
    ("br", {"dhcp6": Provisioning(servers_4o6=())}, IDLE, Level.ERROR, "names no BR"),
    ("br", {}, status(provisioning=NO_BR, softwire=None), Level.ERROR, "softwire.br"),
    ("br-route", {"path_mtu": None}, RUNNING, Level.ERROR, "no IPv6 route"),
    ("br-route", {"path_mtu": 1200}, RUNNING, Level.ERROR, "1200"),
    ("path-mtu", {"ping6": {100: Echo.SILENT}}, RUNNING, Level.NOTE, "does not answer pings"),
    ("path-mtu", {"ping6": {1500: Echo.SILENT}}, RUNNING, Level.WARNING, "black hole"),
    ("path-mtu", {"ping6": {1500: Echo.TOO_BIG}}, RUNNING, Level.WARNING, "narrower"),
    ("path-mtu", {"ping6": PermissionError(1, "Operation not permitted")}, RUNNING, Level.NOTE, "not tried"),
    ("daemon", {}, IDLE, Level.NOTE, "not running"),
    ("daemon", {}, status(waiting_for="a cable", state="INIT"), Level.ERROR, "a cable"),
    ("mending", {}, status(mending={**WITH_PORTS, "problem": "no route"}), Level.ERROR, "no route"),
    ("mending", {}, status(mending={**WITH_PORTS, "contested": True}), Level.ERROR, "keeps undoing"),
    ("mending", {}, status(mending=WITH_PORTS), Level.NOTE, "mended 2 times, last 3 s ago: NAT rules"),
    ("softwire", {"tunnel": None}, RUNNING, Level.ERROR, "not there"),
    ("softwire", {"tunnel": replace(TUNNEL, up=False)}, RUNNING, Level.ERROR, "is down"),
    ("softwire", {"tunnel": replace(TUNNEL, ours=False)}, RUNNING, Level.WARNING, "encapsulation limit"),
    ("softwire", {"addresses4": ["192.0.2.18/32", "169.254.1.1/16"]}, RUNNING, Level.ERROR, "RFC 7618 7.1"),
    ("softwire", {"addresses4": ["192.0.2.18/32", "10.0.0.1/8"]}, RUNNING, Level.WARNING, "10.0.0.1/8"),
    ("softwire-mtu", {"path_mtu": 1492}, RUNNING, Level.WARNING, "1452"),
    ("mss", {}, settings("softwire", clamp_mss=False), Level.WARNING, "clamp_mss = true"),
    ("reach", {"ping4": {100: Echo.SILENT}}, RUNNING, Level.ERROR, "has the lwAFTR this binding"),
    ("reach", {"ping4": {1460: Echo.SILENT}}, RUNNING, Level.WARNING, "1460 octets"),
    ("reach", {"ping4": OSError(101, "Network is unreachable")}, RUNNING, Level.ERROR, "unreachable"),
    ("source-port", {"stun": None}, RUNNING, Level.ERROR, "does not answer"),
    ("source-port", {"stun": (IPv4Address("203.0.113.1"), 0x3401)}, RUNNING, Level.ERROR, "Somebody translates"),
    ("source-port", {"stun": (IPv4Address("192.0.2.18"), 0x3501)}, RUNNING, Level.ERROR, "another subscriber"),
    ("source-port", {"stun": OSError(101, "Network is unreachable")}, RUNNING, Level.ERROR, "unreachable"),
]


def broken(facts: dict[str, Any]) -> Machine:
    found = Machine(facts={k: v for k, v in facts.items() if not k.startswith("file ")})
    found.files.update({k.removeprefix("file "): v for k, v in facts.items() if k.startswith("file ")})
    return found


@pytest.mark.parametrize(("check", "facts", "context", "level", "words"), BAD)
def test_what_is_wrong_is_found_and_explained(
    check: str, facts: dict[str, Any], context: Context, level: Level, words: str
) -> None:
    findings = [f for f in examine(broken(facts), context) if f.check == check]
    bad = [f for f in findings if f.level is level]
    assert bad, findings
    assert any(words in f"{f.text} {f.remedy}" for f in bad), bad
    assert all(f.remedy for f in bad if level in (Level.WARNING, Level.ERROR))


@pytest.mark.parametrize("context", [RUNNING, IDLE], ids=["running", "idle"])
def test_a_healthy_machine_is_called_healthy(context: Context) -> None:
    findings = examine(Machine(), context)
    assert {f.level for f in findings} <= {Level.OK, Level.NOTE}
    assert [f.check for f in findings if f.level is Level.NOTE] == ([] if context.status else ["daemon"])
    assert render(findings)[-1] == "nothing is wrong"


def test_every_check_has_been_seen_good_and_bad() -> None:
    good = {f.check for c in (RUNNING, IDLE) for f in examine(Machine(), c) if f.level is Level.OK}
    names = {c.__name__.removeprefix("check_").replace("_", "-") for c in (*machine.CHECKS, *network.CHECKS)}
    bad = {check for check, *_ in BAD}
    renamed = {"port": "port-546"}
    assert {renamed.get(n, n) for n in names} <= bad
    # "provisioning" says its good news as option-88 and br.
    assert {renamed.get(n, n) for n in names} - {"provisioning"} <= good


@pytest.mark.parametrize(
    "rules",
    [
        [chain("d", "post", "postrouting"), nat_rule("d", out("==", "wan"))],
        [chain("d", "post", "postrouting"), nat_rule("d", out("!=", "b4"))],
        [chain("d", "post", "postrouting"), nat_rule("d", out("==", "eth*"))],
        [chain("b4client_b4", "post", "postrouting"), nat_rule("b4client_b4")],
        [chain("d", "fwd", "forward")],
        # Behind ours (99): new flows have their source by then.
        [chain("d", "post", "postrouting", prio=100), nat_rule("d")],
    ],
)
def test_rules_that_do_no_harm_are_not_called_harmful(rules: list[dict[str, Any]]) -> None:
    assert [f.level for f in firewall.check_firewall(Machine(facts={"ruleset": rules}), RUNNING)] == [Level.OK]


def test_the_daemon_itself_may_hold_its_port() -> None:
    machine_ = Machine(facts={"owners": ["b4client (pid 42)"]})
    assert [f.level for f in machine.check_port(machine_, RUNNING)] == [Level.OK]
    assert [f.level for f in machine.check_port(machine_, IDLE)] == [Level.WARNING]


def test_without_a_daemon_the_servers_answer_names_the_br() -> None:
    findings = examine(Machine(facts={"path_mtu": None}), IDLE)
    assert any(f.check == "br-route" and str(BR) in f.text for f in findings)


def test_a_check_that_cannot_look_does_not_end_the_others() -> None:
    findings = examine(Machine(facts={"path_mtu": DataplaneError("look", "not permitted")}), RUNNING)
    assert any(f.check == "br-route" and f.level is Level.NOTE and "not permitted" in f.text for f in findings)
    assert any(f.check == "source-port" for f in findings)


def test_findings_are_drawn_with_their_remedies() -> None:
    lines = render(examine(Machine(facts={"link": None}), RUNNING), colour=True)
    at = next(i for i, line in enumerate(lines) if "there is no interface wan" in line)
    assert lines[at].startswith("\x1b[1;31merror")
    assert lines[at + 1] == "        -> Interfaces here: lo, wan."
    assert lines[-1] == "1 error"


# ---- STUN (RFC 8489)

TRANSACTION = bytes(range(12))


def stun(kind: int, *attributes: tuple[int, bytes], transaction: bytes = TRANSACTION) -> bytes:
    body = b"".join(struct.pack("!HH", k, len(v)) + v + bytes(-len(v) % 4) for k, v in attributes)
    return struct.pack("!HHI", kind, len(body), probe.STUN_COOKIE) + transaction + body


# RFC 5769 2.2: 192.0.2.1 port 32853.
MAPPED = (0x0020, bytes.fromhex("0001a147e112a643"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (stun(0x0101, (0x8022, b"test vector"), MAPPED), (IPv4Address("192.0.2.1"), 32853)),
        (stun(0x0111, MAPPED), None),
        (stun(0x0101, MAPPED, transaction=bytes(12)), None),
        (stun(0x0101, (0x0020, b"\0\2" + bytes(18))), None),
        (stun(0x0101)[:19], None),
        (b"", None),
    ],
)
def test_stun_answers(data: bytes, expected: object) -> None:
    assert probe.read_stun(data, TRANSACTION) == expected


def test_stun_exchange_over_loopback() -> None:
    import threading

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            data, peer = server.recvfrom(2048)
            port = peer[1] ^ (probe.STUN_COOKIE >> 16)
            address = int(IPv4Address(peer[0])) ^ probe.STUN_COOKIE
            server.sendto(stun(0x0101, (0x20, struct.pack("!HHI", 1, port, address)), transaction=data[8:20]), peer)

        thread = threading.Thread(target=serve)
        thread.start()
        seen = probe.ask_stun("lo", (IPv4Address("127.0.0.1"), server.getsockname()[1]))
        thread.join()
    assert seen is not None
    assert seen[0] == IPv4Address("127.0.0.1")
