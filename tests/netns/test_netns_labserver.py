"""The lab server on a real link: multicast and unicast, two subscribers on one address, a kill, the lwAFTR that learns.

PREFIX-ls4 (subscriber) ── wan ── wan ── PREFIX-ls6 (server)
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from serverlink import SERVER, SUBSCRIBER, server_link

from b4client import api
from b4client.lab.netns import Namespace, wait_until
from b4client.model.portset import PortSet
from b4client.wire import dhcp4, dhcp4o6, softwire46
from b4client.wire.dhcp4 import Dhcp4Message, MessageType, Option
from b4client.wire.softwire46 import PortParams

A1 = IPv4Address("192.0.2.1")
SERVER_ID = IPv4Address("192.0.0.1")


@pytest.fixture
def link(prefix: str) -> Iterator[tuple[Namespace, Namespace]]:
    with server_link(prefix) as ends:
        yield ends


class Aftr:
    """What an lwAFTR's control socket is told."""

    def __init__(self, path: Path) -> None:
        self.told: list[tuple[str, str]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as lines:
                command, arguments = api.decode_request(lines.readline())
                self.told.append((command, arguments["binding"]))
                connection.sendall(api.encode({"result": 0, "text": "ok"}))


class Subscriber:
    """A hand-made client on port 546 of the link."""

    def __init__(self, namespace: Namespace) -> None:
        with namespace.entered():
            self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self._index = socket.if_nametoindex("wan")
        self._socket.bind(("::", 546, 0, 0))
        self._socket.settimeout(5)

    def ask(self, destination: str, client: bytes, *options: tuple[int, bytes], **fields: IPv4Address) -> Dhcp4Message:
        """Send a query; the answer, which must come from where it was asked for."""
        all_options = ((61, client), (55, bytes((51, 159))), *options)
        inner = Dhcp4Message(op=1, xid=5, options=all_options, **fields)  # type: ignore[arg-type]
        data = dhcp4o6.encode_query(dhcp4.encode(inner), unicast="ciaddr" in fields)
        self._socket.sendto(data, (destination, 547, 0, self._index))
        answer, source = self._socket.recvfrom(65535)
        assert source[1] == 547
        if not destination.startswith("ff"):
            assert IPv6Address(source[0].partition("%")[0]) == IPv6Address(destination)
        return dhcp4.decode(dhcp4o6.decode(answer).dhcp4)

    def bind(self, destination: str, client: bytes) -> tuple[IPv4Address, PortSet | None]:
        """DISCOVER and REQUEST; what was granted."""
        offer = self.ask(destination, client, (53, bytes((MessageType.DISCOVER,))))
        params = offer.get(Option.V4_PORTPARAMS) or b""
        request = (
            (53, bytes((MessageType.REQUEST,))),
            (50, offer.yiaddr.packed),
            (54, SERVER_ID.packed),
            (159, params),
        )
        ack = self.ask(destination, client, *request)
        assert ack.message_type == MessageType.ACK
        return ack.yiaddr, softwire46.decode_portparams(ack.get(Option.V4_PORTPARAMS) or b"").port_set()


def test_two_subscribers_one_address_and_a_kill(link: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    subscriber, server = link
    aftr = Aftr(tmp_path / "aftr.sock")
    config, log = tmp_path / "server.json", tmp_path / "server.log"
    config.write_text(
        json.dumps(
            {
                "interface": "wan",
                "lease_file": str(tmp_path / "leases"),
                "aftr": str(tmp_path / "aftr.sock"),
                "shared": [{"first": str(A1), "psid_len": 4}],
                "dhcp6": {"br": ["2001:db8:ffff::1"]},
            }
        )
    )
    command = (sys.executable, "-m", "b4client.lab.serve", "--config", str(config))

    def serving(times: int) -> bool:
        return log.exists() and log.read_text().count("serving on wan") == times

    process = server.start(*command, log=log)
    wait_until(lambda: serving(1), 10, "the server to serve")
    client = Subscriber(subscriber)
    alice, bob = b"\xff\0\0\0\1\0\3\0\1alice", b"\xff\0\0\0\1\0\3\0\1bob"
    assert client.bind(str(SERVER), alice) == (A1, PortSet(0, 4, 1))
    assert client.bind(str(SERVER), bob) == (A1, PortSet(0, 4, 2))
    wait_until(lambda: len(aftr.told) == 2, 5, "the lwAFTR to learn both")
    bindings = [("bind", f"{A1},a=0,k=4,psid={psid},b4={SUBSCRIBER}") for psid in ("0x1", "0x2")]
    assert aftr.told == bindings
    process.kill()
    process.wait()
    process = server.start(*command, log=log)
    wait_until(lambda: serving(2), 10, "the server to serve again")
    assert sorted(aftr.told[2:]) == bindings
    params = softwire46.encode_portparams(PortParams(0, 4, 1))
    renew = ((53, bytes((MessageType.REQUEST,))), (159, params))
    assert client.ask(str(SERVER), alice, *renew, ciaddr=A1).message_type == MessageType.ACK
    assert client.ask(str(SERVER), bob, *renew, ciaddr=A1).message_type == MessageType.NAK
    # By multicast the source is a link-local address: leased, but nothing an lwAFTR could use.
    assert client.bind("ff02::1:2", b"\xff\0\0\0\1\0\3\0\1carol") == (A1, PortSet(0, 4, 3))
    before = log.read_text()
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: len(log.read_text()) > len(before), 5, "the counters")
    status = json.loads(log.read_text()[len(before) :])
    assert status["counters"]["sent-ack"] == 2
    assert sorted(lease["psid"] for lease in status["leases"]) == [1, 2, 3]
    assert len(aftr.told) == 4
    process.terminate()
    assert process.wait(5) == 0
