"""Others undo what the daemon made: it is noticed, mended within a second, said once, and never fought over."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from b4client.lab.client import Client
from b4client.lab.netns import ip, wait_until
from b4client.lab.testbed import SERVER, Testbed
from b4client.lab.traffic import Server, TransferError, udp_exchange

pytestmark = [pytest.mark.kea, pytest.mark.softwire]
DEVICE = "b4"
TABLE = "b4client_b4"
WITHIN_S = 1.0


def mending(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.call("status")["mending"]
    return found


def quiet(client: Client) -> dict[str, Any]:
    """Wait until no look follows another; the counts then."""
    seen: list[dict[str, Any]] = [mending(client)]

    def still() -> bool:
        time.sleep(0.5)
        seen.append(mending(client))
        return bool(seen[-1]["looks"] == seen[-2]["looks"])

    wait_until(still, 10, "the daemon to stop looking")
    return seen[-1]


def kernel_state(testbed: Testbed) -> str:
    """What of the softwire can be damaged, as text."""
    cpe = testbed.cpe
    commands = ("ip -o -4 addr show dev b4", "ip -4 route show", "nft -s list tables", f"nft -s list table ip {TABLE}")
    text = "".join(cpe.run(*command.split(), check=False).stdout for command in commands)
    text = re.sub(rf"^\d+: {DEVICE} ", "", text)  # a new device has a new index
    state = cpe.run("ip", "-o", "link", "show", "dev", DEVICE, check=False).stdout
    sysctls = [
        cpe.run("cat", f"/proc/sys/net/ipv4/{name}", check=False).stdout
        for name in ("ip_forward", f"conf/{DEVICE}/rp_filter", f"conf/{DEVICE}/forwarding")
    ]
    return text + f"up={',UP' in state} {sysctls}"


def damage_flush_ruleset(testbed: Testbed, client: Client) -> None:
    testbed.cpe.run("nft", "flush", "ruleset")


def damage_delete_table(testbed: Testbed, client: Client) -> None:
    testbed.cpe.run("nft", "delete", "table", "ip", TABLE)


def damage_delete_a_chain(testbed: Testbed, client: Client) -> None:
    testbed.cpe.run("nft", "flush", "chain", "ip", TABLE, "guard_softwire")


def damage_delete_device(testbed: Testbed, client: Client) -> None:
    if testbed.cpe.run("ip", "-d", "link", "show", "dev", DEVICE).stdout.count("tun"):
        testbed.cpe.run("ip", "tuntap", "del", "dev", DEVICE, "mode", "tun", check=False)
    testbed.cpe.run("ip", "link", "del", "dev", DEVICE, check=False)


def damage_delete_address(testbed: Testbed, client: Client) -> None:
    testbed.cpe.run("ip", "-4", "addr", "flush", "dev", DEVICE)


def damage_delete_route(testbed: Testbed, client: Client) -> None:
    testbed.cpe.run("ip", "-4", "route", "del", "default", "dev", DEVICE)


def damage_link_down(testbed: Testbed, client: Client) -> None:
    testbed.cpe.run("ip", "link", "set", DEVICE, "down")


def damage_delete_nat_loop(testbed: Testbed, client: Client) -> None:
    if client.status()["dataplane"]["nat"]["design"] == "recirculation":
        testbed.cpe.run("ip", "link", "del", "dev", f"{DEVICE}-n0")
    else:
        damage_delete_table(testbed, client)  # this kernel has none


def damage_nat_loop_down(testbed: Testbed, client: Client) -> None:
    if client.status()["dataplane"]["nat"]["design"] == "recirculation":
        testbed.cpe.run("ip", "link", "set", f"{DEVICE}-n1", "down")
    else:
        damage_link_down(testbed, client)


def damage_add_link_local(testbed: Testbed, client: Client) -> None:
    testbed.cpe.run("ip", "addr", "add", "169.254.7.7/16", "dev", DEVICE)


def damage_forwarding_off(testbed: Testbed, client: Client) -> None:
    testbed.cpe.sysctl({"ipv4/ip_forward": 0})


def damage_rp_filter(testbed: Testbed, client: Client) -> None:
    testbed.cpe.sysctl({f"ipv4/conf/{DEVICE}/rp_filter": 1})


def damage_mtu(testbed: Testbed, client: Client) -> None:
    testbed.cpe.run("ip", "link", "set", DEVICE, "mtu", "1300")


def damage_kill_pump(testbed: Testbed, client: Client) -> None:
    pump = client.status()["dataplane"]["pump"]
    if pump is None:
        damage_delete_device(testbed, client)  # the kernel's own softwire has no process to kill
    else:
        os.kill(pump["pid"], signal.SIGKILL)


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__.removeprefix("damage_"))
def test_damage_is_mended_within_a_second(
    testbed: Testbed, client_in: Callable[..., Client], damage: Callable[[Testbed, Client], None]
) -> None:
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    with Server(testbed.srv):
        udp_exchange(testbed.lan, SERVER, requests=1)
        before = quiet(client)
        sound = kernel_state(testbed)
        damage(testbed, client)
        started = time.monotonic()
        wait_until(lambda: mending(client)["mends"] > before["mends"], 5, "the daemon to mend")
        took = time.monotonic() - started
        assert took < WITHIN_S, took
        udp_exchange(testbed.lan, SERVER, requests=1, timeout_s=1)
    after = quiet(client)
    assert kernel_state(testbed) == sound
    assert (after["mends"], after["contested"], after["problem"]) == (before["mends"] + 1, False, None)
    assert [e["kind"] for e in client.events()].count("mended") == 1  # said once
    assert after["looks"] - before["looks"] <= 4  # no echo of our own changes


def test_the_daemons_own_changes_start_no_mending(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    first = quiet(client)
    assert (first["mends"], first["problem"]) == (0, None)
    assert first["looks"] <= 3
    with Server(testbed.srv):
        udp_exchange(testbed.lan, SERVER, requests=20)
    client.command("renew")
    wait_until(lambda: client.status()["counters"]["received-ack"] > 1, 10, "the renewal")
    # What others do elsewhere is none of our business.
    testbed.cpe.run("nft", "add table inet somebody; add chain inet somebody c")
    ip("-n", testbed.cpe.name, "route", "add", "10.9.0.0/16", "dev", "lan")
    ip("-n", testbed.cpe.name, "route", "del", "10.9.0.0/16", "dev", "lan")
    testbed.cpe.run("nft", "delete", "table", "inet", "somebody")
    second = quiet(client)
    assert second["mends"] == 0
    assert second["looks"] <= first["looks"] + 1  # the one of the renewal


@pytest.mark.slow
def test_no_fight_with_who_keeps_undoing_it(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    quiet(client)
    fighter = (
        f"while :; do nft delete table ip {TABLE} 2>/dev/null && echo x >> {client.log_file}.fights; sleep 0.1; done"
    )
    process = testbed.cpe.start("sh", "-c", fighter, log=client.log_file.with_suffix(".fighter"))
    try:
        wait_until(lambda: mending(client)["contested"], 20, "the daemon to see that it is a fight")
        time.sleep(6)
        found = mending(client)
        assert found["mends"] <= 9, found
        assert found["next_attempt_in_s"] > 0
        assert "NAT rules" in found["last"]["what"]
        kinds = [e["kind"] for e in client.events()]
        assert kinds.count("contested") == 1
        # Without its rules the softwire carries nothing.
        wait_until(lambda: not client.status()["dataplane"]["up"], 3, "the softwire to be shut")
        assert "keeps undoing it" in client.command("status")
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not mending(client)["contested"], 60, "peace")
    with Server(testbed.srv):
        udp_exchange(testbed.lan, SERVER, requests=1)
    assert [e["kind"] for e in client.events()].count("settled") == 1


def test_a_route_that_somebody_else_took_is_reported_and_not_taken_back(
    testbed: Testbed, client_in: Callable[..., Client]
) -> None:
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    quiet(client)
    ip("-n", testbed.cpe.name, "route", "replace", "default", "via", "192.168.1.10")
    wait_until(lambda: mending(client)["problem"] is not None, 5, "the problem to be seen")
    assert "another route like it exists" in mending(client)["problem"]
    assert [e["kind"] for e in client.events()].count("mend-failed") == 1
    ip("-n", testbed.cpe.name, "route", "del", "default", "via", "192.168.1.10")
    with Server(testbed.srv):

        def answered() -> bool:
            try:
                udp_exchange(testbed.lan, SERVER, requests=1, timeout_s=0.3)
            except TransferError:
                return False
            return True

        wait_until(answered, 15, "traffic to come back")
