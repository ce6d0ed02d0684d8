"""The messages on the wire, each field against requirements table T, with Kea as the judge of whether they work."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from exchange import MULTICAST, Said, check_against_table_t, read_4o6, read_dhcp6

from b4client.lab.client import Client
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import wait_until
from b4client.lab.testbed import CPE_WAN, ISP_WAN, KEA_IPV4, Testbed
from b4client.model.portset import PortSet
from b4client.wire import dhcp4, dhcp6, softwire46
from b4client.wire.dhcp4 import MessageType

pytestmark = pytest.mark.kea
ADDRESS = IPv4Address("192.0.2.18")
PORTS = PortSet(0, 8, 0x34)


def rows(said: list[Said]) -> list[str]:
    return [s.row for s in said if s.inner.op == 1]


def reach(file: Path, row: str) -> Callable[[], bool]:
    """True once a client's message of this kind is in the capture."""
    return lambda: row in rows(read_4o6(file))


@pytest.fixture
def life(testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path) -> list[Said]:
    """One life of a client, captured: first lease, renewal, rebinding, restart, release."""
    client = client_in(testbed)
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        client.wait_bound()
        for verb, row in (("renew", "REQUEST renewing"), ("rebind", "REQUEST rebinding")):
            client.command(verb)
            wait_until(reach(capture.file, row), 10, row)
            client.wait_for_state("BOUND")
        assert client.stop("keep") == 0
        client.start()
        client.wait_bound()
        wait_until(reach(capture.file, "REQUEST init-reboot"), 10, "INIT-REBOOT")
        client.command("release")
        wait_until(reach(capture.file, "RELEASE"), 10, "RELEASE")
    return read_4o6(capture.file)


def test_every_message_against_table_t(life: list[Said]) -> None:
    assert rows(life) == [
        "DISCOVER",
        "REQUEST selecting",
        "REQUEST renewing",
        "REQUEST rebinding",
        "REQUEST init-reboot",
        "RELEASE",
    ]
    answers = [s.kind for s in life if s.inner.op == 2]
    assert answers == [MessageType.OFFER, *[MessageType.ACK] * 4]
    queries = [s for s in life if s.inner.op == 1]
    for said in queries:
        check_against_table_t(said)
        # Option 88 named one server: everything goes there, U flag or not [F-4].
        assert said.datagram.destination == ISP_WAN.ip
        assert said.datagram.source == CPE_WAN.ip
    discover, selecting, renewing, rebinding, reboot, release = (s.inner for s in queries)

    assert selecting.xid == discover.xid
    assert selecting.secs == discover.secs
    assert len({m.xid for m in (discover, renewing, rebinding, reboot)}) == 4
    for message in (selecting, reboot):
        assert dhcp4.address_option(message, 50) == ADDRESS
    for message in (selecting, release):
        assert dhcp4.address_option(message, 54) == KEA_IPV4
    for message in (renewing, rebinding, release):
        assert message.ciaddr == ADDRESS
    for message in (selecting, renewing, rebinding, reboot, release):
        assert softwire46.decode_portparams(message.get(159) or b"").port_set() == PORTS
        assert message.get(159) == bytes.fromhex("00083400")
    # The same identity and the same list in every message [Q-7, T-2, T-3].
    assert len({m.get(61) for m in (discover, selecting, renewing, rebinding, reboot, release)}) == 1
    assert len({(m.htype, m.chaddr) for m in (discover, selecting, renewing, rebinding, reboot, release)}) == 1
    assert len({m.get(55) for m in (discover, selecting, renewing, rebinding, reboot)}) == 1


def test_information_request_comes_first_and_asks_for_option_88(
    testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path
) -> None:
    client = client_in(testbed)
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        client.wait_bound()
    (asked, request), (_, reply) = read_dhcp6(capture.file)[:2]
    first_query = read_4o6(capture.file)[0]
    assert asked.at < first_query.datagram.at  # [F-1] no 4o6 before option 88 came
    assert request.msg_type == dhcp6.MessageType.INFORMATION_REQUEST
    assert (asked.destination, asked.destination_port, asked.source_port) == (MULTICAST, 547, 546)  # [D-7]
    assert asked.source.is_link_local
    oro = dhcp6.decode_oro(request.get(6) or b"")
    assert {32, 83, 88, 94, 96} <= set(oro)  # [D-1, D-2, D-3]
    assert not {89, 91, 92, 93} & set(oro)  # [D-2]
    assert request.get(8) == b"\0\0"  # elapsed time [D-3]
    assert request.get(1) is not None
    assert request.get(3) is None  # no IA option [D-3]
    assert reply.msg_type == dhcp6.MessageType.REPLY
    # RFC 4361: the DUID of both protocols is the same [D-16].
    assert first_query.inner.get(61) is not None
    assert (first_query.inner.get(61) or b"")[5:] == request.get(1)


def test_empty_option_88_means_multicast_from_link_local(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client], tmp_path: Path
) -> None:
    testbed = testbed_with(kea=KeaSettings(option88="multicast"))
    client = client_in(testbed)
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        client.wait_bound()
        client.command("renew")
        wait_until(reach(capture.file, "REQUEST renewing"), 10, "a renewal")
        client.wait_for_state("BOUND")
    queries = [s for s in read_4o6(capture.file) if s.inner.op == 1]
    assert [s.row for s in queries] == ["DISCOVER", "REQUEST selecting", "REQUEST renewing"]
    for said in queries:
        assert said.datagram.destination == MULTICAST  # [F-3], also with U = 1 [F-4]
        check_against_table_t(said)


def test_without_option_88_nothing_is_asked(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client], tmp_path: Path
) -> None:
    testbed = testbed_with(kea=KeaSettings(option88="none"))
    client = client_in(testbed)
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        wait_until(lambda: len(read_dhcp6(capture.file)) >= 2, 10, "the information")
        time.sleep(1.5)  # long enough for a DISCOVER that must not come
        assert client.status()["state"] == "STOPPED"
    assert read_4o6(capture.file) == []


def test_unshared_address_has_no_option_159(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client], tmp_path: Path
) -> None:
    testbed = testbed_with(kea=KeaSettings(ports=None))
    client = client_in(testbed)
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        client.wait_bound()
        client.command("renew")
        wait_until(reach(capture.file, "REQUEST renewing"), 10, "a renewal")
        client.wait_for_state("BOUND")
    for said in (s for s in read_4o6(capture.file) if s.inner.op == 1):
        check_against_table_t(said, shared=False)


@pytest.mark.slow
def test_times_of_a_lease_that_no_server_extends(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client], tmp_path: Path
) -> None:
    """T1 RENEW, T2 REBIND, the end: everything is taken away at once and looked for anew [S-8, S-9]."""
    testbed = testbed_with(kea=KeaSettings(valid_lifetime=8, renew_timer=2, rebind_timer=4))
    client = client_in(testbed)
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        client.wait_bound()
        wait_until(reach(capture.file, "REQUEST renewing"), 10, "a renewal by itself")
        client.wait_for_state("BOUND")
        testbed.kea.stop()
        client.wait_for_state("REBINDING", 15)
        client.wait_for_state("SELECTING", 15)
        wait_until(lambda: not (client.status()["dataplane"] or {}).get("up"), 5, "the softwire to go")
        testbed.kea.start(testbed.settings.kea)
        client.wait_bound(40)
    said = read_4o6(capture.file)
    for message in said:
        if message.inner.op == 1:
            check_against_table_t(message)
    rebound = next(i for i, s in enumerate(said) if s.inner.op == 1 and s.row == "REQUEST rebinding")
    acked = max(i for i, s in enumerate(said[:rebound]) if s.kind is MessageType.ACK)
    granted = said[acked - 1].datagram.at  # the lease counts from when its REQUEST was sent [S-6]
    after = said[acked + 1 :]
    renew = next(s for s in after if s.row == "REQUEST renewing").datagram.at - granted
    rebind = next(s for s in after if s.row == "REQUEST rebinding").datagram.at - granted
    discover = next(s for s in after if s.row == "DISCOVER").datagram.at - granted
    assert 1.9 <= renew <= 3
    assert 3.9 <= rebind <= 5
    assert 7.9 <= discover <= 9


def test_nak_means_starting_over(
    testbed_with: Callable[..., Testbed], client_in: Callable[..., Client], tmp_path: Path
) -> None:
    """INIT-REBOOT at a server that knows the address to be another's: NAK, then the whole exchange [S-4, S-10]."""
    testbed = testbed_with(kea=KeaSettings(authoritative=True))
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    assert client.stop("keep") == 0
    moved = IPv4Address("192.0.2.66")
    testbed.kea.restart(KeaSettings(first=moved, last=moved, authoritative=True))
    testbed.aftr_call("bind", binding=f"{moved},a=0,k=8,psid=0x34,b4={CPE_WAN.ip}")
    with testbed.capture("cpe", "wan", tmp_path / "wan.pcap", "ip6 and udp") as capture:
        client.start()
        status = client.wait_bound()
    said = read_4o6(capture.file)
    assert [s.kind for s in said][:2] == [MessageType.REQUEST, MessageType.NAK]
    assert rows(said) == ["REQUEST init-reboot", "DISCOVER", "REQUEST selecting"]
    assert status["lease"]["address"] == str(moved)
    client.stop()
    testbed.down()  # its Kea and its lwAFTR are no longer what the settings say
