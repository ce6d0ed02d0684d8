"""A bad network on the real driver: loss, duplicates, overtaking, damage, slow and quarrelling servers, rogues, flaps.

Each ends in fair weather with traffic flowing, and with nothing left when the daemon is stopped.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faultbed import CPE_WAN, FIRST_PORTS, FaultBed, document, fault_bed
from leaks import holding, tracked
from steady import Steady
from test_e2e_survival import assert_nothing_left, state_of
from weather import CALM, Storm

from b4client.lab.client import Client
from b4client.lab.netns import LabError, ip, ip_batch, wait_until
from b4client.lab.nodes import BR, SERVER
from b4client.lab.traffic import Server, TransferError, tcp_transfer

STORMS = {
    "loss": Storm(lose=0.3),
    "duplication": Storm(double=0.7),
    "reordering": Storm(overtake=0.5, double=0.2),
    "corruption": Storm(corrupt=0.5),
    "broken-checksums": Storm(corrupt=0.3, break_checksums=True),
    "everything": Storm(lose=0.2, double=0.3, overtake=0.3, corrupt=0.2, jitter_s=0.05),
}
ALL_BUT_FIRST = [f"0-{min(FIRST_PORTS.ports()) - 1}", f"{max(FIRST_PORTS.ports()) + 1}-65535"]
LONG = ("broken-checksums", "everything")


@pytest.fixture(scope="module")
def shared_bed(tmp_path_factory: pytest.TempPathFactory, encapsulation: str) -> Iterator[FaultBed]:
    with fault_bed(f"fb{os.getpid()}", tmp_path_factory.mktemp("faultbed"), encapsulation) as bed:
        yield bed


@pytest.fixture
def bed(shared_bed: FaultBed) -> Iterator[FaultBed]:
    """In fair weather, before and after; every daemon has gone without a trace."""
    before = state_of(shared_bed.cpe)
    shared_bed.provider.change(**document())
    yield shared_bed
    calm(shared_bed)
    for client in shared_bed.clients:
        if client.running:
            assert client.stop() == 0
    shared_bed.clients.clear()
    wait_until(lambda: not shared_bed.cpe.pids(), 5, "processes to end")
    assert_nothing_left(shared_bed.cpe, before)
    assert tracked(shared_bed.cpe, "192.0.2.") == 0


def calm(bed: FaultBed) -> None:
    bed.weather.storm = CALM
    bed.weather.cut.clear()
    bed.provider.mute, bed.provider.delay_s = False, 0.0


@pytest.fixture
def start(bed: FaultBed, request: pytest.FixtureRequest) -> Callable[..., Client]:
    def begin(*options: str, bound_s: float = 30, factor: int = 1) -> Client:
        client = bed.client(*options, name=f"c{len(list(bed.directory.iterdir()))}", factor=factor)
        client.start()
        if bound_s:
            client.wait_bound(bound_s)
        return client

    return begin


@pytest.mark.timeout(300)
@pytest.mark.parametrize("storm", [pytest.param(s, marks=pytest.mark.slow if s in LONG else ()) for s in STORMS])
def test_storm(bed: FaultBed, start: Callable[..., Client], storm: str) -> None:
    """A lease is had through it and renewed through it; the daemon lives, and keeps no more than before."""
    bed.weather.storm = STORMS[storm]
    bed.weather.counts.clear()
    # RFC 2131's 4, 8, 16 ... s between tries would make this a test of patience: the client's clock runs faster.
    client = start(bound_s=120, factor=20)
    for _ in range(5):
        client.command("renew")
        time.sleep(0.05)
    calm(bed)
    if STORMS[storm].corrupt and not STORMS[storm].break_checksums:
        # Damage that no checksum tells is believed by both: the server has given the ports to a client identifier that
        # nobody has, the client has a BR that is none, or ports that the lwAFTR knows nothing of, and would like to
        # keep them. Both forget, once what was under way has arrived.
        time.sleep(0.5)
        bed.provider.change(**document(policy={"authoritative": True, "reserved": ALL_BUT_FIRST}))
        client.command("restart")
    else:
        # Else the next try would be half the time to T2 away (RFC 2131 4.4.5).
        client.command("renew")
    with Server(bed.srv):
        client.wait_bound(60)
        try:
            bed.comes_back()
        except LabError as error:
            raise LabError(
                f"{error}; {client.status()}; granted {bed.provider.granted()}; {client.explain()}"
            ) from None
        seen = client.status()["counters"]
        granted = seen["received-ack"]
        client.command("renew")
        wait_until(lambda: client.status()["counters"]["received-ack"] > granted, 20, "a renewal in calm weather")
    happened = bed.weather.counts
    assert sum(n for kind, n in happened.items() if kind not in ("passed", "refused")) > 0
    assert client.status()["lease"]["address"] == "192.0.2.1"


def test_server_slow(bed: FaultBed, start: Callable[..., Client]) -> None:
    """Answers come after the next retransmission has been sent: they are answers all the same [RFC 2131 4.1]."""
    bed.provider.delay_s = 0.6
    client = start(bound_s=60, factor=10)
    with Server(bed.srv):
        bed.comes_back()
    assert client.status()["state"] == "BOUND"


def test_two_servers_that_disagree(bed: FaultBed, start: Callable[..., Client]) -> None:
    """Both offer, with addresses of their own: one lease is taken, renewed at its server, and traffic keeps to it."""
    other = bed.serve(
        document(shared=[{"first": "192.0.2.99", "psid_len": 8}], server_id="192.0.0.2", duid="00020000000099"),
        node="rogue",
    )
    try:
        client = start()
        address = client.status()["lease"]["address"]
        for _ in range(3):
            before = client.status()["counters"]["received-ack"]
            client.command("renew")
            wait_until(lambda n=before: client.status()["counters"]["received-ack"] > n, 10, "a renewal")
            assert client.status()["lease"]["address"] == address
        client.command("rebind")  # both hear it; the other one has no such lease and, being authoritative, says NAK
        client.wait_bound()
        assert client.status()["lease"]["address"] in ("192.0.2.1", "192.0.2.99")
        if client.status()["lease"]["address"] == "192.0.2.1":
            with Server(bed.srv):
                bed.comes_back()
    finally:
        other.close()
        bed.providers.remove(other)


def test_rogue_server_without_option_88(bed: FaultBed, start: Callable[..., Client]) -> None:
    """A second DHCPv6 server that knows nothing of DHCP 4o6 and answers first must not keep the client from it."""
    bed.provider.delay_s = 0.3
    settings = document(duid="00020000000099", dhcp6={"servers_4o6": "off", "container": "none"})
    rogue = bed.serve(settings, node="rogue")
    try:
        client = start(bound_s=60)
        with Server(bed.srv):
            bed.comes_back()
        assert client.status()["lease"]["address"] == "192.0.2.1"
        assert rogue.counters.get("received-information-request", 0) >= 1
    finally:
        rogue.close()
        bed.providers.remove(rogue)


def test_address_flaps(bed: FaultBed, start: Callable[..., Client]) -> None:
    """The WAN's address comes and goes thirty times; then all is as it was, and the daemon holds what it held."""
    client = start()
    with Server(bed.srv):
        bed.comes_back()
        before = holding(client.pid)
        for _ in range(30):
            ip("-n", bed.cpe.name, "addr", "del", str(CPE_WAN), "dev", "wan")
            time.sleep(0.03)
            ip_batch(
                bed.cpe.name, [f"addr replace {CPE_WAN} dev wan nodad", "route replace default via fe80::1 dev wan"]
            )
            time.sleep(0.03)
        bed.comes_back()
        client.wait_bound()

    def settled() -> bool:
        now = holding(client.pid)
        return now.descriptors <= before.descriptors + 2 and now.threads <= before.threads

    # A question to the kernel that is still being asked holds some, for as long as it takes.
    wait_until(settled, 10, "descriptors and threads to be what they were")
    after = holding(client.pid)
    assert after.rss_kb <= before.rss_kb + 4096


def test_mtu_drops_in_the_path(bed: FaultBed, start: Callable[..., Client]) -> None:
    """Behind the ISP's router the path becomes narrow and wide again: large transfers go on."""
    start()
    with Server(bed.srv), Steady(bed.lan, SERVER) as steady:
        for mtu in (1280, 1500, 1400, 1500):
            ip("-n", bed.isp.name, "link", "set", "core", "mtu", str(mtu))
            ip("-n", bed.aftr.name, "link", "set", "core", "mtu", str(mtu))
            steady.go_on(5, 30)
        ping = bed.lan.run("ping", "-n", "-c", "3", "-i", "0.2", "-s", "1400", str(SERVER), check=False).stdout
        assert ", 0% packet loss" in ping
    assert bed.cpe.run("ping", "-6", "-n", "-c", "1", str(BR)).returncode == 0


def test_packets_too_big_vanish_silently(tmp_path: Path, encapsulation: str) -> None:
    """A narrow path whose router tells nobody (no ICMPv6 2): doctor names it, its remedy helps.

    In a bed of its own: what routers told of the path in another test is known for ten minutes.
    """
    file = tmp_path / "b4client.toml"
    file.write_text("")
    with fault_bed(f"fq{os.getpid()}", tmp_path, encapsulation) as bed:
        client = bed.client("--config", str(file))
        client.start()
        client.wait_bound()
        with Server(bed.srv), quiet_narrows(bed, 1400):
            bed.comes_back()
            with pytest.raises(TransferError, match="timed out"):
                tcp_transfer(bed.lan, SERVER, 100_000, timeout_s=3)
            client.command("renew")
            wait_until(lambda: client.status()["counters"]["received-ack"] == 2, 10, "the renewal")
            finding = path_finding(bed, client)
            assert finding["level"] == "warning"
            assert "black hole" in finding["text"]
            said = re.search(r"softwire\.mtu .*for example (\d+)", finding["remedy"])
            assert said is not None
            file.write_text(f"softwire.mtu = {said[1]}\n")
            assert client.command("reload") == "changed: softwire.mtu\n"
            wait_until(lambda: client.status()["dataplane"]["mtu"] == int(said[1]), 5, "the MTU")
            assert tcp_transfer(bed.lan, SERVER, 300_000, timeout_s=20).octets == 300_000
        assert path_finding(bed, client)["level"] == "ok"
        assert client.stop() == 0


@contextmanager
def quiet_narrows(bed: FaultBed, mtu: int) -> Iterator[None]:
    """Between the ISP's router and the lwAFTR nothing larger passes, either way, and nobody is told."""
    ip("-n", bed.isp.name, "link", "set", "core", "mtu", str(mtu))
    bed.isp.run(
        "nft",
        "add table ip6 quiet; add chain ip6 quiet out { type filter hook output priority 0; }; "
        "add rule ip6 quiet out icmpv6 type packet-too-big drop",
    )
    try:
        yield
    finally:
        bed.isp.run("nft", "delete table ip6 quiet")
        ip("-n", bed.isp.name, "link", "set", "core", "mtu", "1500")


def path_finding(bed: FaultBed, client: Client) -> dict[str, str]:
    """What ``doctor`` says of the path's MTU."""
    asked = Client._argv("doctor", "--json", "--wan", "wan", "--run-dir", str(client.run_dir))
    findings: list[dict[str, str]] = json.loads(bed.cpe.run(*asked, check=False).stdout)["findings"]
    (found,) = [f for f in findings if f["check"] == "path-mtu"]
    return found
