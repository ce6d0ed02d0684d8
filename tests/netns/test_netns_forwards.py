"""``b4client forward``: added, refused, listed, kept, deleted, with traffic through the softwire."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from b4client.lab.client import Client
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import LabError, Namespace, wait_until
from b4client.lab.testbed import CPE_WAN, LAN_HOST, SERVER, Testbed
from b4client.lab.traffic import Server, TcpClient
from b4client.model.portset import PortSet

pytestmark = pytest.mark.kea
HOST_PORT = 8080
PUBLIC = "192.0.2.18"
FIRST = 0x3400
"""The first port of PSID 0x34/8 at offset 0."""


def udp(where: Namespace, bind: tuple[str, int] | None = None) -> socket.socket:
    with where.entered():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(2)
    if bind is not None:
        s.bind(bind)
    return s


def heard(s: socket.socket) -> bytes | None:
    try:
        return s.recv(100)
    except TimeoutError:
        return None


def listed(client: Client) -> list[dict[str, object]]:
    found: list[dict[str, object]] = client.call("forward-list")["forwards"]
    return found


@pytest.fixture
def host(testbed: Testbed) -> Iterator[socket.socket]:
    """A UDP server of the LAN host."""
    with closing(udp(testbed.lan, (str(LAN_HOST), HOST_PORT))) as s:
        yield s


def test_added_used_and_deleted(testbed: Testbed, client_in: Callable[..., Client], host: socket.socket) -> None:
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    with closing(udp(testbed.srv)) as peer, Server(testbed.srv) as server:
        other = TcpClient(testbed.lan, SERVER, timeout_s=10)
        with other:
            port = other.transfer(1000).port
            # A peer that was there before the forward: its flow ends at the router, and must not go on doing so.
            peer.connect((PUBLIC, FIRST + 7))
            peer.send(b"too early")
            with pytest.raises(ConnectionRefusedError):
                peer.recv(100)
            said = client.command("forward", "add", "udp", str(FIRST + 7), f"{LAN_HOST}:{HOST_PORT}")
            assert said == f"udp {PUBLIC}:{FIRST + 7} leads to {LAN_HOST}:{HOST_PORT}\n"
            peer.send(b"in")
            data, source = host.recvfrom(100)
            assert data == b"in"
            host.sendto(b"out", source)
            assert heard(peer) == b"out"

            (entry,) = listed(client)
            assert (entry["external_port"], entry["active"], entry["origin"]) == (FIRST + 7, True, "command")
            assert client.status()["forwards"]["active"] == 1

            said = client.command("forward", "del", "udp", str(FIRST + 7))
            assert "no longer forwarded" in said
            # The flow of the forward goes with it, and no other does.
            host.sendto(b"too late", source)  # leaves by another port now
            assert heard(peer) is None
            peer.send(b"still there?")
            assert heard(host) is None
            assert other.transfer(1000).port == port
            assert len(server.connections) == 1
    assert listed(client) == []
    assert not (client.state_dir / "wan.forwards.json").exists()
    kinds = [e["kind"] for e in client.events()]
    assert [k for k in kinds if k in ("forward-added", "forward-deleted")] == ["forward-added", "forward-deleted"]
    assert client.status()["mending"]["mends"] == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("tcp", "80", "192.168.1.10"), r"exit 1: .*port 80 is not in the port set.*Possible ports: 13312-13567"),
        (("tcp", "13313", "192.168.1.10"), r"exit 1: .*tcp 13313 is forwarded to 192.168.1.9:80 already \(by the conf"),
        (("udp", "13313", "224.0.0.1"), r"exit 1: .*to: 224.0.0.1 is no host of the LAN"),
        (("udp", "13313", "host.example"), r"exit 1: .*to: 'host.example' is no IPv4 address"),
        (("icmp", "13313", "192.168.1.10"), r"exit 2: .*'icmp'.*tcp"),
        (("udp", "13313", PUBLIC), r"exit 1: .*is the public address itself"),
        (("udp", "0", "192.168.1.10"), r"exit 2: .*'0' is no port"),
        (("udp", "13313"), r"exit 2: .*HOST"),
    ],
)
def test_refused_with_the_reason(bound: Client, arguments: tuple[str, ...], reason: str) -> None:
    with pytest.raises(LabError, match=f"(?s){reason}"):
        bound.command("forward", "add", *arguments)
    assert [e["origin"] for e in listed(bound)] == ["configuration"]


@pytest.fixture
def bound(testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path) -> Client:
    """A client that is bound, with one forward of the configuration."""
    file = tmp_path / "b4client.toml"
    file.write_text('[[forward]]\nprotocol = "tcp"\nport = 13313\nto = "192.168.1.9"\nto_port = 80\n')
    client = client_in(testbed, "--config", str(file))
    client.start()
    client.wait_bound()
    return client


def test_kept_over_restart_reload_and_renewal(bound: Client, testbed: Testbed, host: socket.socket) -> None:
    bound.command("forward", "add", "udp", "13400", f"{LAN_HOST}:{HOST_PORT}")
    bound.command("forward", "add", "sctp", "13401", str(LAN_HOST))
    before = listed(bound)
    rules = testbed.cpe.run("nft", "-s", "list", "table", "ip", "b4client_b4").stdout
    bound.command("renew")
    bound.command("reload")
    bound.kill()
    with closing(udp(testbed.srv)) as peer:
        peer.sendto(b"while it is away", (PUBLIC, 13400))
        assert heard(host) == b"while it is away"
        bound.start()
        bound.wait_bound()
        wait_until(lambda: [f["active"] for f in listed(bound)] == [True] * 3, 5, "the forwards")
        assert listed(bound) == before
        assert testbed.cpe.run("nft", "-s", "list", "table", "ip", "b4client_b4").stdout == rules
        assert bound.status()["process"]["installs"] == 1
        peer.sendto(b"afterwards", (PUBLIC, 13400))
        assert heard(host) == b"afterwards"
    with pytest.raises(LabError, match="by the configuration: take it out there"):
        bound.command("forward", "del", "tcp", "13313")
    with pytest.raises(LabError, match=r"tcp 99 is not forwarded; .* udp 13400, sctp 13401"):
        bound.command("forward", "del", "tcp", "99")


def test_another_port_set(testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path) -> None:
    """What the set does not have waits or moves, as asked; with the set of before all is as before."""
    file = tmp_path / "b4client.toml"

    def static(psid: int) -> None:
        file.write_text(
            'softwire.br = "2001:db8:ffff::1"\n[static]\nmode = "lw4o6"\nipv4 = "192.0.2.18"\n'
            f"psid = {psid}\npsid_len = 8\noffset = 0\n"
        )

    client = client_in(testbed, "--config", str(file))

    def run() -> list[tuple[object, object]]:
        client.start()
        wait_until(lambda: client.running and up(client), 20, "the softwire")
        found = [(f["external_port"], f["reason"]) for f in listed(client)]
        return found

    static(0x34)
    run()
    client.command("forward", "add", "udp", str(FIRST + 1), f"{LAN_HOST}:1")
    client.command("forward", "add", "udp", str(FIRST + 2), f"{LAN_HOST}:2", "--any-port")
    said = client.command("forward", "add", "tcp", "80", f"{LAN_HOST}:3", "--any-port")
    assert said.startswith(f"tcp {PUBLIC}:{FIRST + 80} leads to {LAN_HOST}:3, since port 80 is not in the port set")
    client.stop()
    static(0x35)
    waits, moved, again = run()
    assert waits[0] is None
    assert moved[0] == 0x3500 + (FIRST + 2) % 256
    assert again[0] == 0x3500 + 80
    text = client.command("forward", "list")
    assert "inactive: port 13313 is not in the port set" in text
    assert client.status()["forwards"]["inactive"] == 1
    assert "forward-inactive" in [e["kind"] for e in client.events()]
    assert 'b4client_forwards{wan="wan",state="inactive"} 1' in client.command("metrics")
    client.stop()
    static(0x34)
    assert [port for port, _ in run()] == [FIRST + 1, FIRST + 2, FIRST + 80]


def test_the_lease_brings_another_set_and_back(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client]
) -> None:
    """While the daemon runs, with traffic through the forward that moves."""
    testbed = testbed_with(kea=KeaSettings(authoritative=True))
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    client.command("forward", "add", "udp", str(FIRST + 1), str(LAN_HOST))
    client.command("forward", "add", "udp", str(FIRST + 2), f"{LAN_HOST}:{HOST_PORT}", "--any-port")

    def lease(psid: int) -> None:
        testbed.kea.restart(KeaSettings(authoritative=True, ports=PortSet(0, 8, psid)))
        testbed.aftr_call("bind", binding=f"{PUBLIC},a=0,k=8,psid={psid:#x},b4={CPE_WAN.ip}")
        client.command("release")
        client.command("restart")
        wait_until(lambda: (client.status()["lease"] or {}).get("ports", {}).get("psid") == psid, 30, "the set")
        wait_until(lambda: up(client), 10, "the softwire")

    def reached(port: int) -> bool:
        with closing(udp(testbed.lan, (str(LAN_HOST), HOST_PORT))) as host, closing(udp(testbed.srv)) as peer:
            peer.sendto(b"x", (PUBLIC, port))
            return heard(host) == b"x"

    lease(0x35)
    waits, moved = listed(client)
    assert (waits["active"], waits["reason"]) == (False, "port 13313 is not in the port set (PSID 0x35/8 offset 0)")
    assert moved["external_port"] == 0x3500 + (FIRST + 2) % 256
    assert reached(0x3500 + (FIRST + 2) % 256)
    lease(0x34)
    assert [f["external_port"] for f in listed(client)] == [FIRST + 1, FIRST + 2]
    assert reached(FIRST + 2)
    kinds = [e["kind"] for e in client.events() if str(e["kind"]).startswith("forward-") and e["level"] != "debug"]
    assert kinds == [
        *("forward-added", "forward-added"),
        *("forward-inactive", "forward-moved", "forward-active", "forward-active"),
    ]
    client.stop()
    testbed.down()  # its Kea and its lwAFTR are no longer what the settings say


def up(client: Client) -> bool:
    try:
        return bool((client.status()["softwire"] or {}).get("installed"))
    except Exception:
        return False


def test_full_disk_and_damaged_file(testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], check=True)
    try:
        client = client_in(testbed, "--state-dir", str(place))
        file = place / "wan.forwards.json"
        file.write_text('{"format": 1, "forwards": [{"protocol": "tcp", "po')
        client.start()
        client.wait_bound()
        assert (place / "wan.forwards.json.damaged").exists()
        assert "is damaged" in client.status()["forwards"]["problem"]
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        with pytest.raises(LabError, match=r"(?s)exit 4: .*done, but cannot write .*Read-only file system"):
            client.command("forward", "add", "udp", "13400", str(LAN_HOST))
        assert listed(client)[0]["active"]
        assert "Read-only" in client.command("forward", "list")
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        client.command("forward", "add", "tcp", "13400", str(LAN_HOST))
        assert client.status()["forwards"]["problem"] is None
        assert len(json.loads(file.read_text())["forwards"]) == 2
        client.stop()
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
