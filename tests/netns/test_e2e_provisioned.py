"""Every way to be provisioned, on real links: Kea's containers without DHCPv4, RFC 8539, DS-Lite, a static softwire."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from exchange import read_4o6

from b4client.lab.client import Client
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import ip_batch, wait_until
from b4client.lab.testbed import BR, CPE_WAN, LAN_HOST, SERVER, Testbed
from b4client.lab.traffic import Server, ping, tcp_transfer
from b4client.model.errors import ControlError
from b4client.model.portset import PortSet
from b4client.wire import dhcp6, softwire46

pytestmark = pytest.mark.kea
ADDRESS, PORTS = IPv4Address("192.0.2.18"), PortSet(6, 8, 0x34)
WAN_PREFIX = IPv6Network("2001:db8:46::/64")
SADDR = IPv6Address("2001:db8:46::c000:212:34")


def ready(client: Client, timeout_s: float = 20) -> dict[str, Any]:
    """The status once nothing is waited for any more."""
    found: dict[str, Any] = {}

    def there() -> bool:
        found.clear()
        try:
            found.update(client.status())
        except ControlError:
            return False  # it is still starting
        return found["waiting_for"] is None and bool((found.get("dataplane") or {}).get("up"))

    wait_until(there, timeout_s, "the softwire to be up")
    return found


def client_started(client: Client) -> None:
    wait_until((client.run_dir / "wan.sock").exists, 20, "the daemon's control socket")


@pytest.fixture
def server_in() -> Iterator[Callable[[Testbed], Server]]:
    servers: list[Server] = []

    def start(testbed: Testbed) -> Server:
        servers.append(Server(testbed.srv))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def carry(testbed: Testbed, server: Server, ports: PortSet | None, address: IPv4Address) -> None:
    """TCP and ping from the LAN; everything that came out came from ``address`` and ``ports``."""
    before = testbed.aftr_counters()
    assert ping(testbed.lan, SERVER)
    tcp_transfer(testbed.lan, SERVER, 100_000)
    wait_until(lambda: bool(server.seen), 5, "the watch at the server")
    assert {s.address for s in server.seen} == {address}
    if ports is not None:
        assert [s for s in server.seen if s.port is not None and s.port not in ports] == []
    grown = {k: v - before.get(k, 0) for k, v in testbed.aftr_counters().items()}
    assert {k: v for k, v in grown.items() if v and k.startswith("drop-")} == {}


# ---- containers, no DHCPv4 at all

CONTAINERS = {
    "lw4o6 with 92 and 93": (
        KeaSettings(option88="none", ports=PORTS, bind_prefix=WAN_PREFIX, container_ports=PORTS),
        ADDRESS,
        SADDR,
    ),
    "lw4o6 with 92, whole address": (
        KeaSettings(option88="none", ports=None, bind_prefix=WAN_PREFIX),
        ADDRESS,
        IPv6Address("2001:db8:46::c000:212:0"),
    ),
    "MAP-E with EA bits": (
        # 2001:db8:46::/64 behind /40: EA bits 0x4600, so 192.0.2.70 and PSID 0.
        KeaSettings(
            option88="none",
            container="map-e",
            first=IPv4Address("192.0.2.70"),
            last=IPv4Address("192.0.2.70"),
            ports=PortSet(6, 8, 0),
            map_rule="0, 16, 24, 192.0.2.0, 2001:db8::/40",
        ),
        IPv4Address("192.0.2.70"),
        IPv6Address("2001:db8:46::c000:246:0"),
    ),
    "MAP-E with an explicit PSID": (
        KeaSettings(option88="none", container="map-e", ports=PORTS, container_ports=PORTS),
        ADDRESS,
        SADDR,
    ),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_of_kea_is_enough(
    name: str,
    testbed_with: Callable[..., Testbed],
    client_in: Callable[..., Client],
    server_in: Callable[[Testbed], Server],
    tmp_path: Path,
) -> None:
    """RFC 7598 5.1, 5.3; RFC 7597 5.2, 6."""
    kea, address, local = CONTAINERS[name]
    testbed = testbed_with(kea=kea, b4=local)
    client = client_in(testbed)
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        status = ready(client)
    assert read_4o6(capture.file) == []
    assert (status["state"], status["lease"]) == ("STOPPED", None)
    assert status["softwire"]["binding_ipv6_addr"] == str(local)
    assert status["softwire"]["br_ipv6_addr"] == str(BR)
    assert status["softwire"]["ipv4"] == str(address)
    carry(testbed, server_in(testbed), kea.ports, address)
    text = client.command("status")
    assert "IPv4 without a lease" in text
    assert str(address) in text


def test_map_t_and_the_priority(testbed_with: Callable[..., Testbed], client_in: Callable[..., Client]) -> None:
    """Option 95 is recognised; option 111 lists it first and the client skips it (RFC 8026 1.4)."""
    kea = KeaSettings(
        option88="none",
        ports=PORTS,
        bind_prefix=WAN_PREFIX,
        container_ports=PORTS,
        map_t=True,
        priority=(95, 96),
    )
    testbed = testbed_with(kea=kea, b4=SADDR)
    config = write_config(testbed, "[provisioning]\nprofile = 'rfc8585'\n")
    client = client_in(testbed, "--config", str(config))
    client.start()
    status = ready(client)
    assert status["provisioning"]["problems"] == ["MAP-T container (95) ignored: not implemented"]
    assert status["provisioning"]["mechanism"] == "lw4o6"


def write_config(testbed: Testbed, text: str) -> Path:
    file = testbed.directory / "client.toml"
    file.write_text("[wan]\ninterface = 'wan'\n" + text, encoding="utf-8")
    return file


# ---- the operator's file


def test_a_static_softwire(
    testbed_with: Callable[..., Testbed],
    client_in: Callable[..., Client],
    server_in: Callable[[Testbed], Server],
) -> None:
    """No DHCP at all, and the address that the client added is taken away in the end."""
    testbed = testbed_with(kea=KeaSettings(ports=PORTS), b4=SADDR)
    config = write_config(
        testbed,
        f"[softwire]\nbr = '{BR}'\n[static]\nmode = 'lw4o6'\nipv4 = '{ADDRESS}'\n"
        "psid = 0x34\npsid_len = 8\noffset = 6\n",
    )
    client = client_in(testbed, "--config", str(config))
    client.start()
    status = ready(client)
    assert status["provisioning"]["state"] == "static"
    assert "sent-information-request" not in status["counters"]
    carry(testbed, server_in(testbed), PORTS, ADDRESS)
    # A restart that keeps the softwire finds its own address there, and still knows that it is its own.
    assert client.stop("keep") == 0
    client.start()
    ready(client)
    assert str(SADDR) in testbed.cpe.run("ip", "-6", "addr", "show", "dev", "wan").stdout
    assert client.stop("withdraw") == 0
    assert str(SADDR) not in testbed.cpe.run("ip", "-6", "addr", "show", "dev", "wan").stdout


# ---- DS-Lite


def test_ds_lite(
    testbed_with: Callable[..., Testbed],
    client_in: Callable[..., Client],
    server_in: Callable[[Testbed], Server],
) -> None:
    """RFC 6333, 6334: the name comes by DHCPv6 and is resolved; LAN addresses go into the softwire as they are."""
    testbed = testbed_with(kea=KeaSettings(option88="none", container="none", aftr_name="aftr.example"), b4=CPE_WAN.ip)
    # What an AFTR translates this lwAFTR passes on as it is: it knows the LAN host's own address, and 192.0.0.2.
    for address in (LAN_HOST, IPv4Address("192.0.0.2")):
        testbed.aftr_call("bind", binding=f"{address},b4={CPE_WAN.ip}")
    device = tun_of(testbed)
    ip_batch(testbed.aftr.name, [f"route add {a} dev {device}" for a in (LAN_HOST, "192.0.0.2")])
    ip_batch(testbed.srv.name, [f"route add {a} via 198.51.100.1" for a in (LAN_HOST, "192.0.0.2")])
    hosts = Path("/etc/netns") / testbed.cpe.name / "hosts"
    hosts.parent.mkdir(parents=True, exist_ok=True)
    hosts.write_text(f"{BR} aftr.example.\n", encoding="ascii")
    try:
        client = client_in(testbed)
        client.start()
        status = ready(client)
        assert status["softwire"]["mode"] == "ds-lite"
        assert status["softwire"]["br_ipv6_addr"] == str(BR)
        server = server_in(testbed)
        assert ping(testbed.lan, SERVER)
        tcp_transfer(testbed.lan, SERVER, 100_000)
        wait_until(lambda: bool(server.seen), 5, "the watch at the server")
        assert {s.address for s in server.seen} == {LAN_HOST}
        assert ping(testbed.cpe, SERVER)
        assert "translated by the AFTR" in client.command("status")
        client.stop()
    finally:
        hosts.unlink()
        hosts.parent.rmdir()
        testbed.down()  # its lwAFTR is no longer what the settings say


def tun_of(testbed: Testbed) -> str:
    links = json.loads(testbed.aftr.run("ip", "-j", "link", "show", "type", "tun").stdout)
    return str(links[0]["ifname"])


# ---- RFC 8539 with the lab's server


@pytest.fixture
def lab_server(testbed_with: Callable[..., Testbed]) -> Iterator[Callable[..., Testbed]]:
    """Call it with the ``dhcp6`` and ``softwire`` tables of the lab server for a testbed where it serves, not Kea."""
    used: list[Testbed] = []

    def build(dhcp6_table: dict[str, Any], softwire: dict[str, Any] | None = None) -> Testbed:
        testbed = testbed_with(kea=KeaSettings(ports=PORTS))  # one offset for all bindings of the address
        used.append(testbed)
        testbed.kea.stop()
        config, log = testbed.directory / "lab.json", testbed.directory / "lab.log"
        config.write_text(
            json.dumps(
                {
                    "interface": "wan",
                    "lease_file": str(testbed.directory / "lab.leases"),
                    "aftr": str(testbed.directory / "aftr.sock"),
                    "shared": [{"first": str(ADDRESS), "psid_len": 8, "offset": 6}],
                    "dhcp6": {"container": "none", "br": [str(BR)], **dhcp6_table},
                    "softwire": softwire or {},
                }
            )
        )
        testbed.isp.start(sys.executable, "-m", "b4client.lab.serve", "--config", str(config), log=log)
        wait_until(lambda: "serving on wan" in log.read_text(), 10, "the lab server to serve")
        return testbed

    yield build
    for testbed in used:
        testbed.down()


def test_rfc_8539(
    lab_server: Callable[..., Testbed],
    client_in: Callable[..., Client],
    server_in: Callable[[Testbed], Server],
    tmp_path: Path,
) -> None:
    """DISCOVER with ORO 90 and 137, OFFER with both, the address on the WAN, REQUEST with 109, ACK, traffic; the lwAFTR
    has learnt the binding from the server. Then renumbering: the lease stays, the server is told."""
    testbed = lab_server({"bind_prefix": "2001:db8:46::/48"})
    client = client_in(testbed)
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        status = client.wait_bound()
    said = read_4o6(capture.file)
    assert [s.row for s in said if s.inner.op == 1] == ["DISCOVER", "REQUEST selecting"]
    ports = PortSet(6, 8, status["lease"]["ports"]["psid"])
    saddr = IPv6Address(int(WAN_PREFIX.network_address) | int(ADDRESS) << 16 | ports.psid)
    assert status["softwire"]["binding_ipv6_addr"] == str(saddr)
    assert status["provisioning"]["mechanism"] == "rfc8539"
    discover, offer, request, ack = said
    assert dhcp6.decode_oro(dict(discover.outer.options)[6]) == (90, 137)
    assert dict(offer.outer.options)[90] == BR.packed
    assert softwire46.decode_bind_prefix(dict(offer.outer.options)[137]) == IPv6Network("2001:db8:46::/48")
    assert discover.inner.get(109) is None
    assert request.inner.get(109) == ack.inner.get(109) == saddr.packed
    server = server_in(testbed)
    carry(testbed, server, ports, ADDRESS)
    addresses = testbed.cpe.run("ip", "-6", "addr", "show", "dev", "wan").stdout
    assert f"{saddr}/128" in addresses
    assert client.stop("release") == 0
    assert str(saddr) not in testbed.cpe.run("ip", "-6", "addr", "show", "dev", "wan").stdout


def test_rfc_8539_renumbering(lab_server: Callable[..., Testbed], client_in: Callable[..., Client]) -> None:
    """7.2.1, X-1: the transport is multicast and stays, the softwire's prefix goes: REQUEST with the new source."""
    testbed = lab_server({"servers_4o6": []})
    client = client_in(testbed)
    client.start()
    before = client.wait_bound()
    psid = before["lease"]["ports"]["psid"]
    other = IPv6Address("2001:db8:47::100")
    ip_batch(testbed.isp.name, ["addr add 2001:db8:47::1/64 dev wan nodad"])
    ip_batch(testbed.cpe.name, [f"addr add {other}/64 dev wan nodad", f"addr del {CPE_WAN} dev wan"])
    expected = IPv6Address((0x20010DB8_00470000 << 64) | int(ADDRESS) << 16 | psid)

    def moved() -> bool:
        status = client.status()
        return status["state"] == "BOUND" and (status["softwire"] or {}).get("binding_ipv6_addr") == str(expected)

    wait_until(moved, 20, "the softwire to move")
    after = client.status()
    assert after["lease"]["address"] == before["lease"]["address"]
    assert after["lease"]["ports"]["psid"] == psid
    assert not [e for e in client.events() if e["kind"] == "lost"]
    assert ping(testbed.lan, SERVER)
    assert before["softwire"]["binding_ipv6_addr"] not in testbed.cpe.run("ip", "-6", "addr", "show").stdout
    client.stop()


def test_rfc_8539_restart(lab_server: Callable[..., Testbed], client_in: Callable[..., Client], tmp_path: Path) -> None:
    """A daemon that was killed resumes: INIT-REBOOT with option 109, the address and the softwire untouched."""
    testbed = lab_server({})
    client = client_in(testbed)
    client.start()
    before = ready(client)
    client.kill()
    assert ping(testbed.lan, SERVER)  # nobody is there, and the traffic goes on
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        after = ready(client)
    assert [s.row for s in read_4o6(capture.file) if s.inner.op == 1] == ["REQUEST init-reboot"]
    assert after["softwire"] == before["softwire"]
    assert ping(testbed.lan, SERVER)


def test_rfc_8539_duplicate_address(lab_server: Callable[..., Testbed], client_in: Callable[..., Client]) -> None:
    """RFC 4862 5.4: somebody on the link has the softwire's address: no REQUEST is sent with it."""
    testbed = lab_server({})
    testbed.cpe.sysctl({"ipv6/conf/wan/accept_dad": 1, "ipv6/conf/wan/dad_transmits": 1})
    ip_batch(
        testbed.isp.name,
        [f"addr add 2001:db8:46::c000:212:{psid:x}/128 dev wan nodad" for psid in range(5)],
    )
    client = client_in(testbed)
    client.start()
    client_started(client)
    wait_until(lambda: any(e["kind"] == "unprepared" for e in client.events()), 20, "the duplicate to be found")
    text = next(e["text"] for e in client.events() if e["kind"] == "unprepared")
    assert "another host has it already" in text
    status = client.status()
    assert status["lease"] is None
    assert status["counters"].get("received-ack", 0) == 0
    client.stop()
