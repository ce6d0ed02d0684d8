"""Wireshark's dissectors on every kind of message that Kea, the lab server and the client say to each other: nothing
malformed, and the DHCPv4 message inside is unwrapped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exchange import read_4o6
from faultbed import document, fault_bed
from scapy.layers.inet import IP, UDP
from scapy.utils import wrpcap

from b4client.lab.netns import wait_until

KINDS = {"1": "DISCOVER", "2": "OFFER", "3": "REQUEST", "5": "ACK", "6": "NAK", "7": "RELEASE"}


def dissect(file: Path, protocol: str = "dhcpv6") -> list[dict[str, Any]]:
    """The layers of each packet, as tshark has them."""
    done = subprocess.run(
        ["tshark", "-n", "-r", str(file), "-T", "json", "--no-duplicate-keys", "-Y", protocol],
        capture_output=True,
        text=True,
        check=True,
    )
    return [packet["_source"]["layers"] for packet in json.loads(done.stdout)]


def everything_in(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(k, v) for k, v in value.items()] + [x for v in value.values() for x in everything_in(v)]
    if isinstance(value, list):
        return [x for v in value for x in everything_in(v)]
    return []


@pytest.mark.skipif(
    shutil.which("tshark") is None,
    reason="tshark is not installed (netns-scripts/setup tests installs it where CI runs)",
)
def test_every_kind_of_message(tmp_path: Path) -> None:
    with fault_bed(f"pt{os.getpid()}", tmp_path, os.environ.get("B4CLIENT_TEST_ENCAPSULATION", "userspace")) as bed:
        from b4client.lab.capture import Capture

        with Capture(bed.cpe, "wan", tmp_path / "wan.pcap", "udp port 546 or udp port 547") as capture:
            client = bed.client()
            client.start()
            client.wait_bound()
            acknowledged = client.status()["counters"]["received-ack"]
            client.command("renew")
            wait_until(lambda: client.status()["counters"]["received-ack"] > acknowledged, 10, "a renewal")
            client.command("rebind")
            wait_until(lambda: client.status()["counters"]["received-ack"] > acknowledged + 1, 10, "a rebinding")
            bed.provider.change(**document(shared=[{"first": "192.0.2.2", "psid_len": 8}]))
            client.command("renew")
            wait_until(lambda: (client.status()["lease"] or {}).get("address") == "192.0.2.2", 20, "another lease")
            client.wait_bound()
            assert client.stop("release") == 0
            time.sleep(0.2)
    packets = dissect(capture.file)
    found: Counter[str] = Counter()
    for layers in packets:
        pairs = everything_in(layers)
        assert not [name for name, _ in pairs if "malformed" in name], layers
        found[f"outer {next(str(v) for n, v in pairs if n == 'dhcpv6.msgtype')}"] += 1
    # Its dissector leaves option 87 as octets: what is inside is laid on the wire by itself, as DHCPv4 has it.
    unwrapped = tmp_path / "inner.pcap"
    said = read_4o6(capture.file)
    wrpcap(str(unwrapped), [_as_dhcp4(s.outer.dhcp4, to_server=s.inner.op == 1) for s in said])
    inner = dissect(unwrapped, "dhcp")
    assert len(inner) == len(said)
    for layers in inner:
        pairs = everything_in(layers)
        assert not [name for name, _ in pairs if "malformed" in name], layers
        found[KINDS[next(str(v) for n, v in pairs if n == "dhcp.option.dhcp")]] += 1
    assert {"outer 11", "outer 7", "outer 20", "outer 21", *KINDS.values()} <= set(found), found


def _as_dhcp4(message: bytes, *, to_server: bool) -> Any:
    source, destination = (68, 67) if to_server else (67, 68)
    return IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=source, dport=destination) / message
