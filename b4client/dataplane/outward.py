"""From the TUN into the IPv6 network: one thread, a system call or two for each packet."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import TYPE_CHECKING

from b4client.dataplane import ipip, tunio
from b4client.dataplane.mesh import Owner

if TYPE_CHECKING:
    from b4client.dataplane.forward import Forwarder

MAX_TARGETS = 4096
"""Customer edges whose addresses are kept as the socket wants them."""
Target = tuple[str, int]


class Outward:
    """The direction outwards of ``forwarder``."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._counters = forwarder.counters
        self._gate = forwarder.gate
        self._raw, self._mesh_raw = forwarder.raw, forwarder.mesh_raw
        self._tos = self._mesh_tos = 0
        self._targets: dict[int, Target] = {}

    def run(self) -> None:
        """Until the TUN is deleted: OSError."""
        forwarder, counters, send, read = self._forwarder, self._counters, self._raw.send, os.read
        gate, tun = self._gate, forwarder.tun
        while True:
            packet = read(tun, tunio.VNET_LEN + ipip.MAX_PACKET)[tunio.VNET_LEN :]
            length = len(packet)
            if length < 20 or packet[0] >> 4 != 4:
                counters["drop-out-not-ipv4"] += 1
                continue
            if packet[2] << 8 | packet[3] != length:
                counters["drop-out-malformed"] += 1
                continue
            if gate is not None:
                owner = gate.owner(packet)
                if owner is not None:
                    self._to_mesh(owner, packet)
                    continue
            if length > forwarder.tunnel_mtu:
                if packet[6] & ipip.DF:
                    counters["drop-out-too-big"] += 1
                    forwarder.answer(ipip.TOO_BIG, forwarder.tunnel_mtu, packet)
                    continue
                counters["out-fragmented"] += 1
            if packet[1] != self._tos:
                self._set_tos(packet[1])
            try:
                send(packet)
            except OSError:
                self._send_again(packet)
            else:
                counters["out-packets"] += 1

    def _set_tos(self, tos: int) -> None:
        """A system call where it changes, none where it does not; a control message would slow every packet."""
        self._tos = tos
        self._raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)

    # ---- to other customers

    def _is_own(self, owner: Owner) -> bool:
        own = self._gate is not None and owner.address == self._gate.local
        if own:
            self._counters["drop-out-own"] += 1
        return own

    def _mtu(self, owner: Owner) -> int:
        mtu, gate = self._forwarder.tunnel_mtu, self._gate
        return mtu if gate is None or gate.all_wide else gate.mtu(owner.address, mtu, time.monotonic())

    def _target(self, owner: Owner) -> Target:
        target = self._targets.get(owner.address)
        if target is None:
            if len(self._targets) >= MAX_TARGETS:
                self._targets.clear()
            text = socket.inet_ntop(socket.AF_INET6, owner.address.to_bytes(16, "big"))
            target = self._targets[owner.address] = (text, 0)
        return target

    def _to_mesh(self, owner: Owner, packet: bytes) -> None:
        """One packet to the customer edge ``owner``."""
        counters, gate, raw = self._counters, self._gate, self._mesh_raw
        if gate is None or raw is None or self._is_own(owner):
            return
        mtu = self._mtu(owner)
        if len(packet) > mtu:
            if packet[6] & ipip.DF:
                counters["drop-out-too-big"] += 1
                self._forwarder.answer(ipip.TOO_BIG, mtu, packet)
                return
            counters["out-fragmented"] += 1
        if packet[1] != self._mesh_tos:
            self._mesh_tos = packet[1]
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, packet[1])
        target = self._target(owner)
        try:
            raw.sendto(packet, target)
        except OSError:
            try:
                raw.sendto(packet, target)  # as below
            except OSError as error:
                self._count_refusal(error)
                return
        counters["out-packets"] += 1
        counters["out-mesh-packets"] += 1
        gate.sent[owner.rule] += 1

    def _send_again(self, packet: bytes) -> None:
        """An error of an earlier packet (ICMPv6) is reported by the next send, which then did nothing: once more."""
        try:
            self._raw.send(packet)
        except OSError as error:
            self._count_refusal(error)
        else:
            self._counters["out-packets"] += 1

    def _count_refusal(self, error: OSError) -> None:
        unreachable = error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
        self._counters["drop-out-no-route" if unreachable else "drop-out-refused"] += 1
