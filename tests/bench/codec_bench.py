"""The codecs beside scapy's, with the same work: octets to fields, and fields to octets.

    .venv/bin/python tests/bench/codec_bench.py [--json]      no root needed

*decode* takes octets and reads the fields that a client acts on. *encode* takes a message's fields and gives octets: in
both the objects are made anew, since scapy keeps what it once built. That both say the same is checked first. scapy
knows neither DHCPV4-QUERY nor option 87: the DHCPv6 message is a Reply. Microseconds for a call, the best of five loops
that take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from scapy.layers.dhcp import BOOTP, DHCP  # noqa: E402
from scapy.layers.dhcp6 import (  # noqa: E402
    DUID_LL,
    DHCP6_Reply,
    DHCP6OptClientId,
    DHCP6OptDNSServers,
    DHCP6OptServerId,
)

from b4client.wire import dhcp4, dhcp6  # noqa: E402

LOOPS = 5
CLIENT_ID = bytes.fromhex("ff0000000100030001020000000001")
ADDRESS, SERVER = IPv4Address("192.0.2.18"), IPv4Address("192.0.0.1")
PORTS = bytes.fromhex("00083400")
DNS = "2001:db8::53"
CLIENT_MAC, SERVER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


@dataclass(frozen=True)
class Work:
    """The same done twice; ``size`` is the message's octets."""

    name: str
    size: int
    ours: Callable[[], object]
    scapy: Callable[[], object]


def our_ack() -> bytes:
    """An ACK with a port set, from its fields."""
    options = (
        (53, b"\5"),
        (54, SERVER.packed),
        (51, (3600).to_bytes(4, "big")),
        (58, (1800).to_bytes(4, "big")),
        (59, (3150).to_bytes(4, "big")),
        (61, CLIENT_ID),
        (159, PORTS),
    )
    return dhcp4.encode(dhcp4.Dhcp4Message(op=2, xid=7, yiaddr=ADDRESS, options=options))


def scapy_ack() -> bytes:
    """The same by scapy."""
    options = [
        ("message-type", 5),
        ("server_id", str(SERVER)),
        ("lease_time", 3600),
        ("renewal_time", 1800),
        ("rebinding_time", 3150),
        ("client_id", CLIENT_ID),
        (159, PORTS),
        "end",
    ]
    return bytes(BOOTP(op=2, xid=7, hlen=0, yiaddr=str(ADDRESS)) / DHCP(options=options))


def read_ours(data: bytes) -> tuple[object, ...]:
    """The fields of an ACK."""
    message = dhcp4.decode(data)
    seconds = [dhcp4.seconds_option(message, code) for code in (51, 58, 59)]
    return (
        message.xid,
        str(message.yiaddr),
        message.message_type,
        str(dhcp4.address_option(message, 54)),
        *seconds,
        message.get(61),
        message.get(159),
    )


def read_scapy(data: bytes) -> tuple[object, ...]:
    """The same by scapy."""
    message = BOOTP(data)
    found = {option[0]: option[1] for option in message[DHCP].options if isinstance(option, tuple)}
    times = (found["lease_time"], found["renewal_time"], found["rebinding_time"])
    ports = next(value for name, value in found.items() if name in (159, "159", "V4_PORTPARAMS", "v4-portparams"))
    return (message.xid, message.yiaddr, found["message-type"], found["server_id"], *times, found["client_id"], ports)


def duid(mac: str) -> bytes:
    """A DUID-LL (RFC 9915 11.4)."""
    return b"\0\3\0\1" + bytes.fromhex(mac.replace(":", ""))


def our_reply() -> bytes:
    """A Reply to an INFORMATION-REQUEST, from its fields."""
    dns = dhcp6.IPv6Address(DNS).packed
    return dhcp6.encode(dhcp6.Dhcp6Message(7, 5, ((1, duid(CLIENT_MAC)), (2, duid(SERVER_MAC)), (23, dns))))


def scapy_reply() -> bytes:
    """The same by scapy."""
    return bytes(
        DHCP6_Reply(trid=5)
        / DHCP6OptClientId(duid=DUID_LL(lladdr=CLIENT_MAC))
        / DHCP6OptServerId(duid=DUID_LL(lladdr=SERVER_MAC))
        / DHCP6OptDNSServers(dnsservers=[DNS])
    )


def read_our_reply(data: bytes) -> tuple[object, ...]:
    """The fields of a Reply."""
    message = dhcp6.decode(data)
    servers = message.get(23) or b""
    return message.transaction_id, message.get(1), message.get(2), str(dhcp6.IPv6Address(servers))


def read_scapy_reply(data: bytes) -> tuple[object, ...]:
    """The same by scapy."""
    message = DHCP6_Reply(data)
    client, server = bytes(message[DHCP6OptClientId].duid), bytes(message[DHCP6OptServerId].duid)
    return message.trid, client, server, message[DHCP6OptDNSServers].dnsservers[0]


def works() -> list[Work]:
    """What is measured. Raises RuntimeError when both do not say the same."""
    ack, reply = our_ack(), our_reply()
    pairs: tuple[tuple[str, object, object], ...] = (
        ("DHCPv4 octets", ack, scapy_ack()),
        ("DHCPv6 octets", reply, scapy_reply()),
        ("DHCPv4 fields", read_ours(ack), read_scapy(ack)),
        ("DHCPv6 fields", read_our_reply(reply), read_scapy_reply(reply)),
    )
    for name, ours, theirs in pairs:
        if ours != theirs:
            raise RuntimeError(f"{name} differ: {ours!r} and {theirs!r}")
    return [
        Work("decode DHCPv4", len(ack), lambda: read_ours(ack), lambda: read_scapy(ack)),
        Work("encode DHCPv4", len(ack), our_ack, scapy_ack),
        Work("decode DHCPv6", len(reply), lambda: read_our_reply(reply), lambda: read_scapy_reply(reply)),
        Work("encode DHCPv6", len(reply), our_reply, scapy_reply),
    ]


def loop(work: Callable[[], object], seconds: float) -> float:
    """Microseconds of a call, over about ``seconds``."""
    count, begun = 0, time.perf_counter()
    end = begun + seconds
    while time.perf_counter() < end:
        for _ in range(20):
            work()
        count += 20
    return (time.perf_counter() - begun) / count * 1e6


def measure(seconds: float) -> list[dict[str, object]]:
    """A record for each work; ``seconds`` is the length of a loop."""
    rows: list[dict[str, object]] = []
    for work in works():
        found = [(loop(work.ours, seconds), loop(work.scapy, seconds)) for _ in range(LOOPS)]
        ours, scapy = (min(values) for values in zip(*found, strict=True))
        rows.append({"work": work.name, "octets": work.size, "ours_us": ours, "scapy_us": scapy})
    return rows


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.2, help="of each loop")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(options.seconds)
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        ours, scapy = float(str(row["ours_us"])), float(str(row["scapy_us"]))
        print(f"{row['work']:15}{ours:8.1f} us{scapy:9.1f} us by scapy   {scapy / ours:5.1f} times")


if __name__ == "__main__":
    main()
