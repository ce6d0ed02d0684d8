"""Servers restart, daemons die, cables are pulled: traffic comes back each time without an operator, or never stops."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from exchange import read_4o6

from b4client.lab.client import Client
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import Namespace, ip, wait_until
from b4client.lab.testbed import SERVER, Testbed
from b4client.lab.traffic import Server, TcpClient, TransferError, ping, tcp_transfer, udp_exchange

pytestmark = [pytest.mark.kea, pytest.mark.softwire]


def traffic_flows(testbed: Testbed) -> bool:
    """True when a datagram from the LAN is answered."""
    try:
        udp_exchange(testbed.lan, SERVER, requests=1, timeout_s=0.5)
    except TransferError:
        return False
    return True


def comes_back(testbed: Testbed, timeout_s: float = 30) -> None:
    wait_until(lambda: traffic_flows(testbed), timeout_s, "traffic to come back")
    tcp_transfer(testbed.lan, SERVER, 50_000)
    ping(testbed.lan, SERVER, 1)


def test_restart_of_the_daemon_does_not_interrupt_a_connection(
    testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path
) -> None:
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    with Server(testbed.srv) as server, TcpClient(testbed.lan, SERVER, timeout_s=10) as connection:
        port = connection.transfer(5000).port
        with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
            assert client.stop("keep") == 0
            assert not client.running
            connection.transfer(5000)  # while no daemon runs
            client.start()
            client.wait_bound()
            assert connection.transfer(5000).port == port
        assert len(server.connections) == 1
        udp_exchange(testbed.lan, SERVER)
    # INIT-REBOOT, not a new lease [S-4].
    assert [s.row for s in read_4o6(capture.file) if s.inner.op == 1] == ["REQUEST init-reboot"]


def test_daemon_killed_and_started_again(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    client = client_in(testbed)
    client.start()
    before = client.wait_bound()
    with Server(testbed.srv), TcpClient(testbed.lan, SERVER, timeout_s=10) as connection:
        connection.transfer(5000)
        client.kill()
        connection.transfer(5000)
        client.start()
        after = client.wait_bound()
        connection.transfer(5000)
        comes_back(testbed)
    assert after["lease"]["address"] == before["lease"]["address"]
    assert after["pid"] != before["pid"]


def test_kea_restarted(testbed_with: Callable[..., Testbed], client_in: Callable[..., Client]) -> None:
    """The server forgets every lease: the renewal, or at the worst a new exchange, sets it right."""
    testbed = testbed_with(kea=KeaSettings(valid_lifetime=9, renew_timer=2, rebind_timer=5))
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    with Server(testbed.srv):
        testbed.kea.restart(testbed.settings.kea)
        before = client.status()["counters"]["received-ack"]
        wait_until(lambda: client.status()["counters"]["received-ack"] > before, 10, "a lease of the new Kea")
        client.wait_bound()
        comes_back(testbed)


@pytest.mark.slow
def test_kea_away_until_the_lease_has_run_out(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client]
) -> None:
    testbed = testbed_with(kea=KeaSettings(valid_lifetime=6, renew_timer=2, rebind_timer=4))
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    with Server(testbed.srv):
        assert traffic_flows(testbed)
        testbed.kea.stop()
        client.wait_for_state("SELECTING", 20)
        wait_until(lambda: not (client.status()["dataplane"] or {}).get("up"), 5, "the softwire to go")
        assert not traffic_flows(testbed)  # an expired address may not be used [S-9]
        testbed.kea.start(testbed.settings.kea)
        client.wait_bound(40)
        comes_back(testbed)


@pytest.mark.slow  # for the retransmissions that no server answers
def test_the_wan_comes_again_as_another_interface(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    """As a PPP session or a modem does: another index. The softwire follows, also while no server answers."""
    client = client_in(testbed)
    client.start()
    before = client.wait_bound()
    with Server(testbed.srv):
        assert traffic_flows(testbed)
        testbed.kea.stop()
        testbed.replace_wan()
        comes_back(testbed, 15)
        testbed.kea.start(testbed.settings.kea)
        after = client.wait_bound(60)
        comes_back(testbed)
        assert after["lease"]["address"] == before["lease"]["address"]


def test_cable_pulled_and_plugged(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    with Server(testbed.srv):
        assert traffic_flows(testbed)
        testbed.pull_cable()
        wait_until(lambda: not client.status()["wan"]["up"], 10, "the daemon to notice")
        assert not traffic_flows(testbed)
        testbed.plug_cable()
        comes_back(testbed)
        client.wait_bound()


def test_wan_down_and_up(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    with Server(testbed.srv):
        ip("-n", testbed.cpe.name, "link", "set", "wan", "down")
        wait_until(lambda: not client.status()["wan"]["up"], 10, "the daemon to notice")
        ip("-n", testbed.cpe.name, "link", "set", "wan", "up")
        testbed.give_wan_address()
        comes_back(testbed)
        client.wait_bound()


def test_wan_without_address_at_first(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    """Started before the access network has given an address: nothing is sent from a wrong one, then it goes [F-5]."""
    ip("-n", testbed.cpe.name, "-6", "addr", "flush", "dev", "wan", "scope", "global")
    client = client_in(testbed)
    client.start()
    try:
        wait_until(lambda: client.run_dir.exists() and _answers(client), 10, "the daemon to start")
        assert client.status()["state"] in ("STOPPED", "INIT")
    finally:
        testbed.give_wan_address()
    client.wait_bound()
    with Server(testbed.srv):
        comes_back(testbed)


def _answers(client: Client) -> bool:
    with contextlib.suppress(Exception):
        client.status()
        return True
    return False


# ---- nothing is left


def state_of(namespace: Namespace) -> dict[str, str]:
    """What a stopped client may have left: links, addresses, routes, rules, packet filter, processes."""
    commands = ("ip -o link", "ip -o addr", "ip route show table all", "ip -6 route show table all", "ip rule")
    found = {command: namespace.run(*command.split()).stdout for command in (*commands, "nft list ruleset")}
    # Lifetimes count down, and states of links settle; expiry of learnt routes likewise.
    found = {k: re.sub(r"(valid_lft|preferred_lft|expires|state) \w+|NO-CARRIER,", "", v) for k, v in found.items()}
    found["processes"] = str(namespace.pids())
    return found


def assert_nothing_left(namespace: Namespace, before: dict[str, str]) -> None:
    after = state_of(namespace)
    for command, text in before.items():
        assert after[command].splitlines() == text.splitlines(), command


@pytest.mark.parametrize("policy", ["withdraw", "release"])
@pytest.mark.parametrize("container", ["lw4o6", "map-e"])
def test_nothing_left_after_stop(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client], policy: str, container: str
) -> None:
    testbed = testbed_with(kea=KeaSettings(container=container))
    before = state_of(testbed.cpe)
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    with Server(testbed.srv):
        assert traffic_flows(testbed)
    assert client.stop(policy) == 0
    wait_until(lambda: testbed.cpe.pids() == [], 5, "processes to end")
    assert_nothing_left(testbed.cpe, before)
    assert [p.name for p in client.run_dir.glob("*.sock")] == []


def test_sigterm_is_a_stop(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    before = state_of(testbed.cpe)
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    assert client.terminate() == 0
    wait_until(lambda: testbed.cpe.pids() == [], 5, "processes to end")
    assert_nothing_left(testbed.cpe, before)


def test_release_takes_the_softwire_away_and_restart_brings_it_back(
    testbed: Testbed, client_in: Callable[..., Client]
) -> None:
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    client.command("release")
    client.wait_for_state("STOPPED")
    with Server(testbed.srv):
        wait_until(lambda: not (client.status()["dataplane"] or {}).get("up"), 5, "the softwire to go")
        assert not traffic_flows(testbed)
        client.command("restart")
        client.wait_bound()
        comes_back(testbed)
