"""``python -m b4client.lab.aftrbench [--path]``: how many packets a second the laboratory's lwAFTR decides and carries.

Without ``--path``: the pure decision, for 1 to 65536 customers on one address, 128 octets of UDP each. With it: the
whole path in the testbed's network namespaces (needs root and Kea), offered more than it can carry; the generator, the
kernels of three machines and the lwAFTR share the processors. Such numbers compare, and promise nothing.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

from b4client.lab.aftrcore import Aftr
from b4client.lab.aftrpacket import checksum
from b4client.lab.binding import Binding, BindingTable
from b4client.lab.testbed import BR, CPE_WAN, POOL, SERVER, Testbed, TestbedSettings
from b4client.model.portset import PortSet

ADDRESS = IPv4Address("192.0.2.18")
PAYLOAD = 100
PACKETS = 1024
ROUNDS = 5
SECONDS = 3.0
DISCARD = 9


def udp(source: IPv4Address, source_port: int, destination: IPv4Address, destination_port: int) -> bytes:
    """A UDP packet without checksum, 128 octets long."""
    length = 28 + PAYLOAD
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 17, 0, source.packed, destination.packed)
    ports = struct.pack("!HHHH", source_port, destination_port, 8 + PAYLOAD, 0)
    return header[:10] + checksum(header) + header[12:] + ports + bytes(PAYLOAD)


def decide(customers: int) -> tuple[float, float]:
    """Decisions a second, up and down, the best of some rounds, with this many customers (a power of two)."""
    bits = customers.bit_length() - 1
    ends = [IPv6Address(0x20010DB8 << 96 | number) for number in range(customers)]
    ports = [PortSet(0, bits, number) if bits else None for number in range(customers)]
    aftr = Aftr(BindingTable(map(Binding, [ADDRESS] * customers, ports, ends), pools=[POOL]), BR)
    step = 65536 // PACKETS
    up = [(udp(ADDRESS, port, SERVER, 80), ends[port * customers >> 16].packed) for port in range(0, 65536, step)]
    down = [udp(SERVER, 80, ADDRESS, port) for port in range(0, 65536, step)]

    def all_up() -> None:
        for packet, b4 in up:
            aftr.upward(packet, b4, 0, 1.0)

    def all_down() -> None:
        for packet in down:
            aftr.downward(packet, 1.0)

    rates = best(all_up), best(all_down)
    if {aftr.counters["decapsulated"], aftr.counters["encapsulated"]} != {ROUNDS * PACKETS}:
        raise RuntimeError("not every packet passed")
    return rates


def best(work: Callable[[], None]) -> float:
    """Packets a second in the quickest round."""
    rates = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        rates.append(PACKETS / (time.perf_counter() - begin))
    return max(rates)


def carry() -> None:
    """Measure the whole path and print it."""
    testbed = Testbed(TestbedSettings(prefix="b4bench"))
    try:
        testbed.up()
        with testbed.cpe.entered():
            softwire = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_IPIP)
        with testbed.srv.entered():
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with softwire, server, sink:
            sink.bind((str(SERVER), DISCARD))
            softwire.bind((str(CPE_WAN.ip), 0))
            softwire.connect((str(BR), 0))
            port = testbed.settings.kea.ports.range_at(0).first if testbed.settings.kea.ports else 1024
            server.connect((str(testbed.settings.kea.first), port))
            packet = udp(testbed.settings.kea.first, port, SERVER, DISCARD)
            measure(testbed, "up", "decapsulated", lambda: softwire.send(packet))
            measure(testbed, "down", "encapsulated", lambda: server.send(bytes(PAYLOAD)))
    finally:
        testbed.down()


def measure(testbed: Testbed, name: str, counter: str, send: Callable[[], object]) -> None:
    """Offer packets for some seconds and print what was carried."""
    before, begin, offered = testbed.aftr_counters(), time.monotonic(), 0
    while time.monotonic() < begin + SECONDS:
        for _ in range(100):
            send()
        offered += 100
    after, seconds = testbed.aftr_counters(), time.monotonic() - begin
    carried = after[counter] - before[counter]
    print(f"path, {name:5} offered {offered / seconds:9,.0f}/s   carried {carried / seconds:9,.0f}/s", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m b4client.lab.aftrbench", description="packets a second")
    parser.add_argument("--path", action="store_true", help="the whole path in network namespaces (needs root)")
    args = parser.parse_args(argv)
    if args.path:
        carry()
        return 0
    for customers in (1, 64, 1024, 65536):
        up, down = decide(customers)
        print(f"decision, {customers:6} customers on one address: up {up:9,.0f}/s   down {down:9,.0f}/s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
