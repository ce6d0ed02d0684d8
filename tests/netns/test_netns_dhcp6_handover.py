"""``dhcp6.mode = "external"``: another client asks, and hands over; b4client sends no DHCPv6 of its own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from exchange import read_dhcp6
from otherclients import networkd

from b4client.lab.client import Client
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import LabError, ip, wait_until
from b4client.lab.testbed import BR, ISP_WAN, SERVER, Testbed, softwire_address
from b4client.lab.traffic import Server, ping, udp_exchange

pytestmark = pytest.mark.kea

POOL = IPv6Network("2001:db8:100::/56")
KEA = KeaSettings(pd_pool=POOL, bind_prefix=IPv6Network("2001:db8:100::/64"))


def lw4o6() -> str:
    """Container 96 with the BR and the binding prefix: the address and the ports come by DHCP 4o6."""
    from ipaddress import IPv4Address

    from b4client.wire.softwire46 import Lw4o6Container, V4V6Bind, encode_lw4o6

    return encode_lw4o6(Lw4o6Container((BR,), V4V6Bind(IPv4Address("192.0.2.18"), KEA.bind_prefix or POOL))).hex()


def document(**changes: object) -> str:
    return json.dumps({"options": {"88": ISP_WAN.ip.packed.hex(), "96": lw4o6()}, "prefixes": [str(POOL)], **changes})


@pytest.fixture
def line(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client], tmp_path: Path
) -> tuple[Testbed, Client]:
    """A daemon that waits for a hand-over."""
    testbed = testbed_with(kea=KEA)
    ip("-n", testbed.isp.name, "route", "replace", str(POOL), "via", "fe80::ff:fe46:200", "dev", "wan")
    config = tmp_path / "external.toml"
    config.write_text('[dhcp6]\nmode = "external"\n')
    client = client_in(testbed, "--config", str(config))
    client.start()
    client.wait_for_state("STOPPED")
    return testbed, client


def provision(testbed: Testbed, client: Client, text: str) -> None:
    """As a script does it: the document on standard input."""
    import sys

    command = [sys.executable, "-m", "b4client", "provision", "-", "--run-dir", str(client.run_dir)]
    testbed.cpe.run(*command, text=text)


def carry(testbed: Testbed) -> None:
    with Server(testbed.srv):
        ping(testbed.lan, SERVER, 1)
        udp_exchange(testbed.lan, SERVER)


def test_from_another_client_to_traffic(line: tuple[Testbed, Client], tmp_path: Path) -> None:
    """systemd-networkd has the prefix; handed over with the options it makes a lease by DHCP 4o6 and a softwire in it.
    Not one DHCPv6 message is ours; the leases on the WAN stay the other client's."""
    testbed, client = line
    assert "b4client provision" in (client.status()["waiting_for"] or "")
    client.stop()
    with (
        testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture,
        networkd(testbed, tmp_path / "other") as neighbour,
    ):
        neighbour.wait_bound()
        client.start()
        client.wait_for_state("STOPPED")
        provision(testbed, client, document())
        status = client.wait_bound()
        assert status["softwire"]["binding_ipv6_addr"] == str(softwire_address(KEA))
        assert [item["network"] for item in status["provisioning"]["leases"]] == [str(POOL)]
        carry(testbed)
        duid = bytes.fromhex(status["identity"]["duid"])
        client.stop("release")
    assert [m for _, m in read_dhcp6(capture.file) if m.get(1) == duid] == []
    assert not list(client.run_dir.glob("*.wan6.json"))


def test_as_odhcp6c_calls_its_script(line: tuple[Testbed, Client]) -> None:
    """The environment of odhcp6c -r 88: everything that is needed for a softwire in the prefix."""
    testbed, client = line
    environ = {
        **os.environ,
        "SERVER": "fe80::1",
        "OPTION_88": ISP_WAN.ip.packed.hex(),
        "LW4O6": f"type=lw4o6,prefix4len=32,prefix6len=64,ipv4prefix=192.0.2.18,ipv6prefix=2001:db8:100::,br={BR}, ",
        "PREFIXES": f"{POOL},300,600,150,240",
    }
    import sys

    command = [sys.executable, "-m", "b4client", "provision", "--from-odhcp6c", "--run-dir", str(client.run_dir)]
    done = testbed.cpe.run(*command, env=environ)
    assert done.stdout == "taken over\n"
    client.wait_bound()
    carry(testbed)
    (lease,) = client.status()["provisioning"]["leases"]
    assert 590 < lease["valid_in_s"] <= 600


def test_a_wrong_document_changes_nothing(line: tuple[Testbed, Client]) -> None:
    testbed, client = line
    provision(testbed, client, document())
    before = client.wait_bound()
    for broken, reason in (
        (document(options={"88": "20"}), "option 88 ignored"),
        (document(prefixes=["2001:db8:100::1/56"]), "is no IPv6 prefix"),
        ("{", "is no JSON"),
    ):
        with pytest.raises(LabError, match=re.escape(reason)):
            provision(testbed, client, broken)
    after = client.status()
    assert after["provisioning"] == before["provisioning"]
    assert after["softwire"] == {**before["softwire"], "installed": True}
    assert after["state"] == "BOUND"
    carry(testbed)


def test_taken_back(line: tuple[Testbed, Client]) -> None:
    """``--clear``: the other client has nothing any more, and neither have we."""
    testbed, client = line
    provision(testbed, client, document())
    client.wait_bound()
    client.command("provision", "--clear")
    wait_until(lambda: client.status()["softwire"] is None, 5, "the softwire to go")
    provision(testbed, client, document())
    client.wait_bound()
    carry(testbed)


def test_prefixes_end_by_themselves(line: tuple[Testbed, Client]) -> None:
    """A client that dies hands over nothing more: what it gave ends with its lifetimes (RFC 7597 7.1)."""
    testbed, client = line
    provision(testbed, client, document(prefixes=[{"prefix": str(POOL), "valid": 4}]))
    client.wait_bound()
    wait_until(lambda: client.status()["softwire"] is None, 10, "the softwire to go")
    assert client.status()["provisioning"]["leases"] == []


def test_killed_and_started_again(line: tuple[Testbed, Client]) -> None:
    """The hand-over is kept over a restart: nobody has to repeat it."""
    testbed, client = line
    provision(testbed, client, document())
    client.wait_bound()
    client.kill()
    carry(testbed)
    client.start()
    client.wait_bound()
    carry(testbed)
