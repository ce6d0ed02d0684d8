"""The two directions of the userspace softwire, a blocking thread each, and what they answer.

LAN -> NAT -> TUN --outward thread--> raw IPv6 socket, connected to the BR      (the kernel adds the IPv6 header)
LAN <- NAT <- TUN <--inward thread--- packet socket, filtered to BR -> us       (the header is cut off here)

With forwarding rules (``meshgate``) there is a second raw socket, towards other customers' edges, and the packet socket
takes from their prefixes, too.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable

from b4client.dataplane import ipip, tunio
from b4client.dataplane.mesh import MeshTable, Owner
from b4client.dataplane.meshgate import MeshGate, Verdict
from b4client.dataplane.reassembly import Fragment, Reassembler

TAKEOVER_S = 3.0
"""How long a predecessor on the same TUN has to end."""
MIN_TUNNEL_MTU = 1280 - ipip.IPV6_HEADER_LEN
ICMP_PER_SECOND = 100
MAX_TARGETS = 4096
"""Customer edges whose addresses are kept as the socket wants them."""
ICMP6_UNREACHABLE, ICMP6_TOO_BIG = 1, 2
ICMP6_SOURCE_POLICY = 5
"""Source address failed ingress/egress policy: code of ICMPv6 type 1 (RFC 4443 3.1)."""

COUNTERS = {
    "out-packets": "IPv4 packets sent",
    "out-mesh-packets": "of these, sent to another customer's edge and not to the BR",
    "out-fragmented": "of these, sent in IPv6 fragments",
    "out-icmp-too-big": "ICMPv4 fragmentation needed, to senders inside",
    "out-icmp-unreachable": "ICMPv4 host unreachable, to senders inside",
    "drop-out-not-ipv4": "came to the TUN and is no IPv4",
    "drop-out-malformed": "came to the TUN with a wrong length",
    "drop-out-too-big": "DF set and longer than the tunnel MTU",
    "drop-out-no-route": "no route to the far end",
    "drop-out-own": "for a port that the forwarding rules give to ourselves",
    "drop-out-refused": "the kernel refused to send (firewall, memory, address gone)",
    "in-packets": "IPv4 packets received; merged ones count once",
    "in-mesh-packets": "of these, received from another customer's edge",
    "in-reassembled": "of these, came in IPv6 fragments",
    "drop-in-malformed": "cut short or of wrong length",
    "drop-in-not-ipv4": "next header 4 and no IPv4 inside",
    "drop-in-spoofed": "from a customer's edge that has another IPv4 address or port (RFC 7597 8.1)",
    "drop-in-foreign": "from an IPv6 address in no forwarding rule's prefix",
    "drop-in-fragment-first": "IPv4 fragments from a customer's edge whose first one did not come in time",
    "drop-in-congestion": "congestion met, and the sender cannot be told (RFC 6040 4.2)",
    "drop-in-fragment": "IPv6 fragments that overlap, are malformed or never completed",
    "drop-in-queue-full": "came faster than the pump could read",
    "drop-in-refused": "the TUN refused (down, or an offload that it does not know)",
    "icmp6-too-big": "ICMPv6 packet too big about our packets",
    "icmp6-source-policy": "ICMPv6 type 1 code 5 from the BR: it knows no binding for us [L-6]",
    "icmp6-unreachable": "other ICMPv6 errors about our packets",
    "drop-icmp6-foreign": "ICMPv6 errors about packets that the forwarding rules send elsewhere",
    "drop-icmp6-source-policy-foreign": "ICMPv6 type 1 code 5 from somebody else than the BR [L-6]",
}
"""Every packet's fate, by name."""


_REFUSED = {
    Verdict.SPOOFED: "drop-in-spoofed",
    Verdict.FOREIGN: "drop-in-foreign",
    Verdict.DROPPED: "drop-in-fragment-first",
}


def _number(address: str) -> int:
    return int.from_bytes(socket.inet_pton(socket.AF_INET6, address.partition("%")[0]), "big")


class StartError(Exception):
    """The pump cannot start: what was tried, and why not."""

    def __init__(self, operation: str, error: OSError) -> None:
        super().__init__(operation)
        self.report = {"operation": operation, "reason": error.strerror or str(error), "errno": error.errno or 0}


class Forwarder:
    """One softwire: its descriptors, its two threads, its counters.

    ``mtu`` is the configured IPv4 MTU in octets; ``tunnel_mtu`` the one in force, lower when the path is narrower.
    ``mesh`` None speaks with the BR alone.
    """

    def __init__(self, device: str, local: str, remote: str, mtu: int, mesh: MeshTable | None = None) -> None:
        self.device, self.local, self.remote, self.mtu = device, local, remote, mtu
        self.tunnel_mtu = mtu
        self.addresses = socket.inet_pton(socket.AF_INET6, remote) + socket.inet_pton(socket.AF_INET6, local)
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.reassembler = Reassembler()
        # Customers have one of their own, so that none of them can push out what the BR sent.
        self.mesh_reassembler = Reassembler()
        self.gate = None if mesh is None else MeshGate(mesh, _number(local))
        self.end_reason = ""
        self.ended, self.alarm = socket.socketpair()
        self.alarm.setblocking(False)
        self._mesh_tos = 0
        self._targets: dict[int, tuple[str, int]] = {}
        self._tokens, self._tokens_at = float(ICMP_PER_SECOND), 0.0
        try:
            self.raw = tunio.open_raw(local, remote)
            self.mesh_raw = tunio.open_raw(local, None) if mesh is not None else None
        except OSError as error:
            raise StartError(f"open a raw socket from {local} to {remote}", error) from error
        remotes = [(_number(remote), 128), *(mesh.prefixes if mesh is not None else ())]
        try:
            self.packet = tunio.open_packet(self.addresses[16:], remotes)
        except OSError as error:
            raise StartError("open a packet socket", error) from error

    def attach(self, release: Callable[[], None]) -> None:
        """Take the TUN; ``release`` makes a predecessor let go of it, and returns when it has. StartError."""
        deadline = time.monotonic() + TAKEOVER_S
        asked = False
        while True:
            try:
                self.tun = tunio.open_tun(self.device)
                return
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise StartError(f"attach to the TUN {self.device}", error) from error
            if not asked:
                release()
                asked = True
            else:
                time.sleep(0.001)

    def start(self) -> None:
        """Start both directions. They run until the TUN is deleted or the process ends."""
        self.follow_path()
        for direction in (self._outward, self._inward):
            threading.Thread(target=self._guarded, args=(direction,), daemon=True).start()

    def end(self, reason: str) -> None:
        """Ask the main thread to end the process."""
        self.end_reason = self.end_reason or reason
        try:
            self.alarm.send(b"\0")
        except BlockingIOError:
            pass

    def follow_path(self) -> bool:
        """Adopt the path MTU that the kernel knows; True while it is below what was configured.

        The TUN's own MTU follows where it was the tunnel MTU, so that the kernel answers too large packets itself.
        Where it is larger, its owner wants packets without DF fragmented outside (RFC 6333 5.3): then only we answer.
        """
        path = tunio.path_mtu(self.local, self.remote)
        tunnel_mtu = self.mtu
        if path is not None:
            tunnel_mtu = min(self.mtu, max(path - ipip.IPV6_HEADER_LEN, MIN_TUNNEL_MTU))
        if tunnel_mtu != self.tunnel_mtu:
            try:
                if tunio.device_mtu(self.device) == self.tunnel_mtu:
                    tunio.set_device_mtu(self.device, tunnel_mtu)
            except OSError:
                pass  # the device is being deleted, or is not ours to change: answering ourselves is enough
            self.tunnel_mtu = tunnel_mtu
        return tunnel_mtu < self.mtu

    def status(self) -> dict[str, object]:
        """What the Unix socket tells."""
        self.counters["drop-in-queue-full"] += tunio.packet_drops(self.packet)
        gate = self.gate
        return {
            "pid": os.getpid(),
            "device": self.device,
            "local": self.local,
            "remote": self.remote,
            "mtu": self.mtu,
            "tunnel-mtu": self.tunnel_mtu,
            "counters": self.counters,
            "mesh": None if gate is None else {"rules": gate.table.rules, "draft03": gate.table.draft03},
            "by-rule": [] if gate is None else list(zip(gate.sent, gate.received, strict=True)),
        }

    @property
    def raws(self) -> tuple[socket.socket, ...]:
        """The sockets outwards."""
        return (self.raw,) if self.mesh_raw is None else (self.raw, self.mesh_raw)

    def read_errors(self, raw: socket.socket) -> None:
        """Empty the error queue of a raw socket: ICMPv6 errors that quote a packet of this softwire (RFC 2473 8)."""
        while True:
            try:
                quoted, control, _, target = raw.recvmsg(
                    ipip.MAX_PACKET, 256, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                break
            except OSError:
                continue  # the pending error itself; reading it clears it
            for level, kind, data in control:
                if (level, kind) == (socket.IPPROTO_IPV6, tunio.IPV6_RECVERR) and len(data) >= 40:
                    _, origin, icmp_type, icmp_code, mtu = struct.unpack_from("=IBBBxI", data)
                    if origin != tunio.SO_EE_ORIGIN_ICMP6:
                        continue
                    if raw is self.raw:
                        self._icmp6_received(icmp_type, icmp_code, data[24:40], quoted)
                    else:
                        self._icmp6_from_mesh(icmp_type, mtu, _number(target[0]), quoted)
        raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _icmp6_from_mesh(self, icmp_type: int, mtu: int, peer: int, quoted: bytes) -> None:
        """About a packet to a customer's edge: its path may be narrower than the one to the BR."""
        gate, now = self.gate, time.monotonic()
        owner = gate.quoted_owner(quoted) if gate is not None else None
        if gate is None or owner is None or owner.address != peer:
            self.counters["drop-icmp6-foreign"] += 1
        elif icmp_type == ICMP6_TOO_BIG:
            self.counters["icmp6-too-big"] += 1
            narrow = max(mtu - ipip.IPV6_HEADER_LEN, MIN_TUNNEL_MTU)
            gate.narrow(peer, narrow, now)
            if quoted[6] & ipip.DF:
                self._answer(ipip.TOO_BIG, min(narrow, self.tunnel_mtu), quoted)
        else:
            self.counters["icmp6-unreachable"] += 1
            self._answer(ipip.HOST_UNREACHABLE, 0, quoted)

    def _icmp6_received(self, icmp_type: int, icmp_code: int, sender: bytes, quoted: bytes) -> None:
        """RFC 2473 8.3: packet too big becomes ICMPv4 3/4 when DF was set, every other error ICMPv4 3/1 [L-11]."""
        if icmp_type == ICMP6_TOO_BIG:
            self.counters["icmp6-too-big"] += 1
            self.follow_path()
            if len(quoted) > 6 and quoted[6] & ipip.DF:
                self._answer(ipip.TOO_BIG, self.tunnel_mtu, quoted)
            return
        if (icmp_type, icmp_code) == (ICMP6_UNREACHABLE, ICMP6_SOURCE_POLICY):
            if sender != self.addresses[:16]:
                self.counters["drop-icmp6-source-policy-foreign"] += 1
                return
            self.counters["icmp6-source-policy"] += 1
        else:
            self.counters["icmp6-unreachable"] += 1
        self._answer(ipip.HOST_UNREACHABLE, 0, quoted)

    def _guarded(self, direction: Callable[[], None]) -> None:
        try:
            direction()
        except OSError as error:
            self.end(f"{direction.__name__}: {error}")
        except BaseException as error:
            self.end(f"{direction.__name__}: {error!r}")
            raise

    def _outward(self) -> None:
        counters, send, read, tun = self.counters, self.raw.send, os.read, self.tun
        gate, mesh_raw = self.gate, self.mesh_raw
        tos = 0
        while True:
            packet = read(tun, tunio.VNET_LEN + ipip.MAX_PACKET)[tunio.VNET_LEN :]
            length = len(packet)
            if length < 20 or packet[0] >> 4 != 4:
                counters["drop-out-not-ipv4"] += 1
                continue
            if packet[2] << 8 | packet[3] != length:
                counters["drop-out-malformed"] += 1
                continue
            if gate is not None and mesh_raw is not None:
                owner = gate.owner(packet)
                if owner is not None:
                    self._to_mesh(gate, mesh_raw, owner, packet)
                    continue
            if length > self.tunnel_mtu:
                if packet[6] & ipip.DF:
                    counters["drop-out-too-big"] += 1
                    self._answer(ipip.TOO_BIG, self.tunnel_mtu, packet)
                    continue
                counters["out-fragmented"] += 1
            if packet[1] != tos:
                # A system call where it changes, none where it does not; a control message would slow every packet.
                tos = packet[1]
                self.raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)
            try:
                send(packet)
            except OSError:
                self._send_again(packet, self.raw)
            else:
                counters["out-packets"] += 1

    def _to_mesh(self, gate: MeshGate, raw: socket.socket, owner: Owner, packet: bytes) -> None:
        """One packet to the customer edge ``owner``."""
        counters = self.counters
        if owner.address == gate.local:
            counters["drop-out-own"] += 1
            return
        mtu = self.tunnel_mtu if gate.all_wide else gate.mtu(owner.address, self.tunnel_mtu, time.monotonic())
        if len(packet) > mtu:
            if packet[6] & ipip.DF:
                counters["drop-out-too-big"] += 1
                self._answer(ipip.TOO_BIG, mtu, packet)
                return
            counters["out-fragmented"] += 1
        if packet[1] != self._mesh_tos:
            self._mesh_tos = packet[1]
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, packet[1])
        target = self._targets.get(owner.address)
        if target is None:
            if len(self._targets) >= MAX_TARGETS:
                self._targets.clear()
            text = socket.inet_ntop(socket.AF_INET6, owner.address.to_bytes(16, "big"))
            target = self._targets[owner.address] = (text, 0)
        try:
            raw.sendto(packet, target)
        except OSError:
            if not self._send_again(packet, raw, target):
                return
        else:
            counters["out-packets"] += 1
        counters["out-mesh-packets"] += 1
        gate.sent[owner.rule] += 1

    def _send_again(self, packet: bytes, raw: socket.socket, target: tuple[str, int] | None = None) -> bool:
        """An error of an earlier packet (ICMPv6) is reported by the next send, which then did nothing: once more."""
        try:
            if target is None:
                raw.send(packet)
            else:
                raw.sendto(packet, target)
        except OSError as error:
            unreachable = error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
            self.counters["drop-out-no-route" if unreachable else "drop-out-refused"] += 1
            return False
        self.counters["out-packets"] += 1
        return True

    def _inward(self) -> None:
        counters, receive, addresses = self.counters, self.packet.recv_into, self.addresses
        local = addresses[16:] if self.gate is not None else None
        # vnet header | link header, 14 octets or none | IPv6 header | IPv4 packet
        buffer = bytearray(tunio.VNET_LEN + 14 + ipip.IPV6_HEADER_LEN + ipip.MAX_PACKET + 1)
        view = memoryview(buffer)
        while True:
            end = receive(buffer)
            ipv6 = tunio.VNET_LEN + 14
            sender = None
            if buffer[ipv6 + 8 : ipv6 + 40] != addresses:
                if local is None or buffer[ipv6 + 24 : ipv6 + 40] != local:
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
        counters = self.counters
        if len(packet) < at + ipip.FRAGMENT_HEADER_LEN:
            counters["drop-in-malformed"] += 1
            return
        next_header, _, place, identification = struct.unpack_from("!BBHI", packet, at)
        tos = (packet[0] << 4 | packet[1] >> 4) & 0xFF
        payload = bytes(packet[at + ipip.FRAGMENT_HEADER_LEN :])
        reassembler = self.reassembler
        if sender is not None:
            if self.gate is None or not self.gate.table.covers(int.from_bytes(sender, "big")):
                counters["drop-in-foreign"] += 1
                return
            reassembler = self.mesh_reassembler
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
        counters = self.counters
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
            os.write(self.tun, view[ipv4 - tunio.VNET_LEN : ipv4 + length])
        except OSError as error:
            if error.errno == errno.EBADFD:
                raise
            counters["drop-in-refused"] += 1
        else:
            counters["in-packets"] += 1
            if sender is not None:
                counters["in-mesh-packets"] += 1
                self._deliver_waiting(buffer, ipv4, ipv4 + length, sender)

    def _admitted(self, buffer: bytearray, ipv4: int, end: int, tos: int, *, sender: bytes) -> bool:
        """RFC 7597 8.1: whether ``sender`` has the IPv4 address and the port that the packet comes from."""
        gate, now = self.gate, time.monotonic()
        if gate is None:
            return False
        self.counters["drop-in-fragment-first"] += gate.expire(now)
        verdict = gate.judge(sender, buffer, ipv4, end, tos=tos, now=now)
        if verdict is not Verdict.ADMITTED and verdict is not Verdict.HELD:
            self.counters[_REFUSED[verdict]] += 1
        return verdict is Verdict.ADMITTED

    def _deliver_waiting(self, buffer: bytearray, ipv4: int, end: int, sender: bytes) -> None:
        """The fragments that overtook the first one, which this is."""
        if self.gate is not None:
            for packet, tos in self.gate.waiting_for(sender, buffer, ipv4, end):
                held = bytearray(packet)
                self._deliver(held, memoryview(held), tunio.VNET_LEN, len(held), tos, sender=sender)

    def _answer(self, code: int, mtu: int, offending: bytes) -> None:
        """ICMPv4 to the sender inside, at most ICMP_PER_SECOND."""
        now = time.monotonic()
        self._tokens = min(ICMP_PER_SECOND, self._tokens + (now - self._tokens_at) * ICMP_PER_SECOND)
        self._tokens_at = now
        message = ipip.icmp_unreachable(code, mtu, offending)
        if message is None or self._tokens < 1:
            return
        self._tokens -= 1
        try:
            os.write(self.tun, bytes(tunio.VNET_LEN) + message)
        except OSError:
            self.counters["drop-in-refused"] += 1
        else:
            self.counters["out-icmp-too-big" if code == ipip.TOO_BIG else "out-icmp-unreachable"] += 1
