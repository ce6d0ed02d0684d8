"""From the IPv6 network to the TUN: one thread, two system calls for each packet."""

from __future__ import annotations

import errno
import os
import struct
import time
from typing import TYPE_CHECKING

from b4client.dataplane import ipip, tunio
from b4client.dataplane.meshgate import Verdict
from b4client.dataplane.reassembly import Fragment, Reassembler

if TYPE_CHECKING:
    from b4client.dataplane.forward import Forwarder

_REFUSED = {
    Verdict.SPOOFED: "drop-in-spoofed",
    Verdict.FOREIGN: "drop-in-foreign",
    Verdict.DROPPED: "drop-in-fragment-first",
}


class Inward:
    """The direction inwards of ``forwarder``."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._counters = forwarder.counters
        self._gate = forwarder.gate
        self._reassembler = Reassembler()
        # Customers have one of their own, so that none of them can push out what the BR sent.
        self._mesh_reassembler = Reassembler()

    def run(self) -> None:
        """Until the TUN is deleted: OSError."""
        while True:
            try:
                self._receive()
            except OSError as error:
                # A packet merged in a way for which a virtio header has no word: the kernel has thrown it away.
                if error.errno != errno.EINVAL:
                    raise
                self._counters["drop-in-malformed"] += 1

    def _receive(self) -> None:
        counters, receive, addresses = self._counters, self._forwarder.packet.recv_into, self._forwarder.addresses
        local = addresses[16:] if self._gate is not None else None
        # vnet header | link header, 14 octets or none | IPv6 header | IPv4 packet
        buffer = bytearray(tunio.VNET_LEN + 14 + ipip.IPV6_HEADER_LEN + ipip.MAX_PACKET + 1)
        view = memoryview(buffer)
        while True:
            end = receive(buffer)
            ipv6 = tunio.VNET_LEN + 14
            sender = None
            if buffer[ipv6 + 8 : ipv6 + 40] != addresses:
                if local is not None and buffer[ipv6 + 24 : ipv6 + 40] == local:
                    sender = bytes(view[ipv6 + 8 : ipv6 + 24])
                else:
                    ipv6 = tunio.VNET_LEN
                    if buffer[ipv6 + 8 : ipv6 + 40] != addresses:
                        if local is None or buffer[ipv6 + 24 : ipv6 + 40] != local:
                            continue
                        sender = bytes(view[ipv6 + 8 : ipv6 + 24])
            ipv4 = ipv6 + ipip.IPV6_HEADER_LEN
            length = buffer[ipv6 + 4] << 8 | buffer[ipv6 + 5]
            if ipv4 + length > end:
                counters["drop-in-malformed"] += 1
                continue
            end = ipv4 + length
            if buffer[ipv6 + 6] != ipip.PROTO_IPIP:
                found = ipip.skip_options(buffer, buffer[ipv6 + 6], ipv4, end)
                if found is not None and found[0] == ipip.NEXT_FRAGMENT:
                    self._fragment(buffer[ipv6:end], found[1] - ipv6, sender)
                    continue
                if found is None or found[0] != ipip.PROTO_IPIP:
                    counters["drop-in-malformed"] += 1
                    continue
                ipv4 = found[1]
            tos = (buffer[ipv6] << 4 | buffer[ipv6 + 1] >> 4) & 0xFF
            head = ipv4 - tunio.VNET_LEN
            if buffer[0] or buffer[1]:
                # Unfinished: checksum (flags) or segmentation (type) is left to whoever sends it out at last.
                flags, kind, header_len, size, start, offset = struct.unpack_from("=BBHHHH", buffer)
                struct.pack_into(
                    "=BBHHHH", buffer, head, flags, kind, max(header_len - head, 0), size, max(start - head, 0), offset
                )
            else:
                buffer[head:ipv4] = b"\0\0\0\0\0\0\0\0\0\0"
            self._deliver(buffer, view, ipv4, end, tos, sender=sender)

    def _fragment(self, packet: bytearray, at: int, sender: bytes | None) -> None:
        """One IPv6 ``packet`` with a Fragment header at ``at``: deliver the whole when it was the last one missing."""
        counters = self._counters
        if len(packet) < at + ipip.FRAGMENT_HEADER_LEN:
            counters["drop-in-malformed"] += 1
            return
        next_header, _, place, identification = struct.unpack_from("!BBHI", packet, at)
        tos = (packet[0] << 4 | packet[1] >> 4) & 0xFF
        payload = bytes(packet[at + ipip.FRAGMENT_HEADER_LEN :])
        reassembler = self._reassembler
        if sender is not None:
            if self._gate is None or not self._gate.table.covers(int.from_bytes(sender, "big")):
                counters["drop-in-foreign"] += 1
                return
            reassembler = self._mesh_reassembler
            identification |= int.from_bytes(sender, "big") << 32
        fragment = Fragment(identification, next_header, place & 0xFFF8, bool(place & 1), payload, tos)
        whole = reassembler.add(fragment, time.monotonic())
        counters["drop-in-fragment"] += reassembler.take_dropped()
        if whole is None:
            return
        found = ipip.skip_options(whole.payload, whole.next_header, 0, len(whole.payload))
        if found is None or found[0] != ipip.PROTO_IPIP:
            counters["drop-in-malformed"] += 1
            return
        counters["in-reassembled"] += 1
        buffer = bytearray(tunio.VNET_LEN) + whole.payload[found[1] :]
        self._deliver(buffer, memoryview(buffer), tunio.VNET_LEN, len(buffer), whole.tos, sender=sender)

    def _deliver(
        self, buffer: bytearray, view: memoryview, ipv4: int, end: int, tos: int, *, sender: bytes | None
    ) -> None:
        """Check the IPv4 packet at ``ipv4``, before which its virtio header stands, and write it to the TUN. ``sender``
        is the customer's edge that it came from, None where that was the BR."""
        counters = self._counters
        if end - ipv4 < 20 or buffer[ipv4] >> 4 != 4:
            counters["drop-in-not-ipv4"] += 1
            return
        length = buffer[ipv4 + 2] << 8 | buffer[ipv4 + 3]
        header_len = (buffer[ipv4] & 15) * 4
        if header_len < 20 or length < header_len or ipv4 + length > end:
            counters["drop-in-malformed"] += 1
            return
        if sender is not None and not self._admitted(buffer, ipv4, ipv4 + length, tos, sender=sender):
            return
        if buffer[ipv4 + 1] != tos:
            carried = ipip.carried_tos(tos, buffer[ipv4 + 1])
            if carried is None:
                counters["drop-in-congestion"] += 1
                return
            ipip.set_tos(buffer, ipv4, carried)
        try:
            os.write(self._forwarder.tun, view[ipv4 - tunio.VNET_LEN : ipv4 + length])
        except OSError as error:
            if error.errno == errno.EBADFD:
                raise
            counters["drop-in-refused"] += 1
        else:
            counters["in-packets"] += 1
            if sender is not None:
                counters["in-mesh-packets"] += 1
                if self._gate is not None and self._gate.holds:
                    self._deliver_waiting(buffer, ipv4, ipv4 + length, sender)

    def _admitted(self, buffer: bytearray, ipv4: int, end: int, tos: int, *, sender: bytes) -> bool:
        """RFC 7597 8.1: whether ``sender`` has the IPv4 address and the port that the packet comes from."""
        gate = self._gate
        if gate is None:
            return False
        if gate.holds:
            self._counters["drop-in-fragment-first"] += gate.expire(time.monotonic())
        if gate.recognises(sender, buffer, ipv4, end):
            return True
        now = time.monotonic()
        verdict = gate.judge(sender, buffer, ipv4, end, tos=tos, now=now)
        if verdict is not Verdict.ADMITTED and verdict is not Verdict.HELD:
            self._counters[_REFUSED[verdict]] += 1
        return verdict is Verdict.ADMITTED

    def _deliver_waiting(self, buffer: bytearray, ipv4: int, end: int, sender: bytes) -> None:
        """The fragments that overtook the first one, which this is."""
        if self._gate is not None:
            for packet, tos in self._gate.waiting_for(sender, buffer, ipv4, end):
                held = bytearray(packet)
                self._deliver(held, memoryview(held), tunio.VNET_LEN, len(held), tos, sender=sender)
