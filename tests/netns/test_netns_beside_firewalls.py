"""The NAT beside other people's firewalls: what they drop is told with what to allow, and with that it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import firewalls
import pytest
from natbed import ADDRESS, FAR, NatBed, hear, plan_of, serving

from b4client.dataplane.neighbours import Conflict, Scene, find
from b4client.dataplane.nft import Nft, counters
from b4client.dataplane.recirculation import loop_plan
from b4client.doctor.firewall import complete
from b4client.doctor.system import System
from b4client.model.portset import PortSet

PORTS = PortSet(4, 8, 0x34)
BR, LOCAL = "2001:db8::2", "2001:db8::1"


@pytest.fixture(scope="module")
def the_bed(prefix: str) -> Iterator[NatBed]:
    bed = NatBed(prefix)
    yield bed
    bed.close()


@dataclass
class Beside:
    """The bed with a firewall in its customer edge."""

    bed: NatBed
    scratch: Path
    firewall: firewalls.Firewall | None = None

    def conflicts(self) -> list[Conflict]:
        with self.bed.cpe.entered():
            system = System()
            objects = complete(system.ruleset(), system)
            lans = system.lans("b4", "wan")
        assert [lan.name for lan in lans] == ["lan0"]
        return find(objects, Scene("b4", "wan", str(ADDRESS), lans, loop_plan("b4"), BR, LOCAL))

    def follow(self, conflicts: list[Conflict]) -> None:
        """Do exactly what the remedies say."""
        assert self.firewall is not None
        for conflict in conflicts:
            self.firewall.sh(conflict.remedy.replace("; ", "\n"))

    def check_traffic(self) -> None:
        """All ports of the set for TCP from the LAN, some for UDP and echo, and for this machine itself."""
        bed = self.bed
        bed.flush()
        with serving(bed):
            outcomes = bed.connect(PORTS.port_count)
            assert sum(o.immediate for o in outcomes) == PORTS.port_count
            assert hear(bed.send(5, FAR[1]), 1.0)
            assert all(isinstance(v, bytes) for v in hear(bed.send(5, FAR[2]), 1.0).values())
            assert len(hear(bed.ping(3, FAR[3]), 1.0)) == 3
            assert all(o.error == 0 for o in bed.connect(3, FAR[4], where=bed.cpe))
        assert bed.judged()[0] == 0
        bed.drop_sockets()


@pytest.fixture
def beside(the_bed: NatBed, tmp_path: Path) -> Iterator[Beside]:
    the_bed.build()
    the_bed.load(plan_of(PORTS), PORTS)
    held = Beside(the_bed, tmp_path / "firewall")
    yield held
    if held.firewall is not None:
        held.firewall.close()
    the_bed.close()


def test_nobody_else(beside: Beside) -> None:
    assert beside.conflicts() == []
    beside.check_traffic()


@pytest.mark.parametrize("name", ["ufw", "docker", "firewalld", "nft"])
def test_a_firewall_that_drops(beside: Beside, name: str) -> None:
    make: dict[str, Callable[[], firewalls.Firewall]] = {
        "ufw": lambda: firewalls.ufw(beside.bed.cpe, beside.scratch),
        "docker": lambda: firewalls.iptables(beside.bed.cpe, beside.scratch, firewalls.DOCKER),
        "firewalld": lambda: firewalls.firewalld(beside.bed.cpe, beside.scratch),
        "nft": lambda: firewalls.Firewall(beside.bed.cpe, beside.scratch, ()),
    }
    if name != "nft" and not firewalls.has_nft_compat(beside.bed.cpe):
        pytest.skip("this kernel lacks parts of netfilter that these firewalls use: tested on the machine's own kernel")
    beside.firewall = make[name]()
    if name == "nft":
        beside.firewall.sh(
            """nft 'table inet mine {
            chain through { type filter hook forward priority 10; policy drop; iifname "lan0" oifname "wan" accept; }
            chain before { type filter hook prerouting priority raw; fib saddr . iif oif missing drop; }
            }'"""
        )
    found = beside.conflicts()
    assert any(c.fatal for c in found), name
    with serving(beside.bed):
        assert not any(o.immediate for o in beside.bed.connect(3))
    beside.bed.drop_sockets()
    if name == "firewalld":
        # It cannot know the names of the zones.
        found = [
            Conflict(c.text, c.remedy.replace("ZONE-OF-THE-LAN", "home").split(": ", 1)[-1].replace("=ZONE", "=public"),
                     c.fatal)
            for c in found
        ]  # fmt: skip
    beside.follow(found)
    assert beside.conflicts() == []
    beside.check_traffic()


def test_fw4(beside: Beside) -> None:
    """fw4 with its default settings, and with what doctor tells to set; reloaded after us each time."""
    beside.firewall = firewalls.Firewall(beside.bed.cpe, beside.scratch, ())
    for zone in (False, True):
        with beside.bed.cpe.entered():
            Nft().run("load fw4", firewalls.fw4(zone=zone))
        found = beside.conflicts()
        assert bool(found) is not zone
        assert all("uci " in c.remedy for c in found)
    beside.check_traffic()


@pytest.mark.parametrize(("priority", "works"), [("srcnat - 1", True), ("srcnat", False)])
def test_a_masquerade_that_is_loaded_after_us(beside: Beside, priority: str, works: bool) -> None:
    """Of two chains of one priority the later one is first: hence a priority of our own."""
    text = plan_of(PORTS).ruleset
    assert "priority srcnat - 1;" in text
    beside.bed.load_text(text.replace("priority srcnat - 1;", f"priority {priority};"), PORTS)
    with beside.bed.cpe.entered():
        Nft().run(
            "load another's NAT",
            "table inet other { chain post { type nat hook postrouting priority srcnat; masquerade; }\n}",
        )
    if works:
        assert beside.conflicts() == []
        beside.check_traffic()
        return
    with serving(beside.bed):
        outcomes = beside.bed.connect(20)
        assert sum(o.immediate for o in outcomes) < 20
    assert beside.bed.counter("guard_drop") > 0


def test_a_masquerade_before_ours_is_told(beside: Beside) -> None:
    with beside.bed.cpe.entered():
        Nft().run(
            "load another's NAT",
            "table ip other { chain post { type nat hook postrouting priority 50; oifname != wan masquerade; }\n}",
        )
    found = beside.conflicts()
    assert [c.fatal for c in found] == [True]
    assert "priority 50" in found[0].text


def test_marks_of_the_user_survive(beside: Beside) -> None:
    """fwmark, conntrack mark and DSCP are as the user set them when a packet leaves, also that of a copy."""
    with beside.bed.cpe.entered():
        Nft().run(
            "load the user's marks",
            """
            table ip user {
              counter kept { }
              counter lost { }
              chain pre {
                type filter hook prerouting priority mangle - 10;
                iifname "lan0" ip saddr 192.168.1.10 meta mark set 0x1234
                iifname "lan0" ip dscp set af21
                meta mark 0x1234 ct mark set 0x99
              }
              chain post {
                type filter hook postrouting priority 300;
                oifname "b4" meta mark 0x1234 ct mark 0x99 ip dscp af21 counter name kept accept
                oifname "b4" counter name lost
              }
            }
            """,
        )
    bed = beside.bed
    with serving(bed):
        outcomes = bed.connect(PORTS.port_count)
        assert sum(o.immediate for o in outcomes) == PORTS.port_count
    assert bed.counter("retries") > 0
    with bed.cpe.entered():
        found = counters(Nft().list_table("ip", "user"))
    assert found["lost"]["packets"] == 0
    assert found["kept"]["packets"] >= PORTS.port_count
