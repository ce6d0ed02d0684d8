"""A running daemon tells of other people's rules that stand in its way, until they do not any more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from b4client.lab.client import Client
from b4client.lab.netns import wait_until
from b4client.lab.testbed import SERVER, Testbed
from b4client.lab.traffic import Server, tcp_transfer

pytestmark = pytest.mark.kea

CLOSED = """
table inet closed {
  chain through { type filter hook forward priority 0; policy drop; }
  chain arriving { type filter hook input priority 0; policy drop; iifname != "wan" accept; icmpv6 type != 0 accept; }
}
"""


def test_conflicts_in_status(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    testbed.cpe.run("nft", "-f", "-", text=CLOSED)
    try:
        # DHCPv6 has to come in first: what the daemon cannot do anything about is doctor's.
        testbed.cpe.run("nft", "insert rule inet closed arriving udp dport 546 accept")
        client = client_in(testbed)
        client.start()
        client.wait_bound()
        wait_until(lambda: client.status()["conflicts"], 5, "the conflicts to be seen")
        conflicts = client.status()["conflicts"]
        assert len(conflicts) == 2
        assert all(c["fatal"] for c in conflicts)
        for remedy in (c["remedy"] for c in conflicts):
            testbed.cpe.run("sh", "-ec", remedy)
        assert client.status()["conflicts"] == []
        with Server(testbed.srv):
            tcp_transfer(testbed.lan, SERVER, 20_000)
    finally:
        testbed.cpe.run("nft", "delete", "table", "inet", "closed", check=False)
