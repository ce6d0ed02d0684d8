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
from b4client.dataplane.fates import COUNTERS
from b4client.dataplane.inward import Inward
from b4client.dataplane.mesh import MeshTable
from b4client.dataplane.meshgate import MeshGate
from b4client.dataplane.outward import Outward

TAKEOVER_S = 3.0
"""How long a predecessor on the same TUN has to end."""
MIN_TUNNEL_MTU = 1280 - ipip.IPV6_HEADER_LEN
ICMP_PER_SECOND = 100
ICMP6_UNREACHABLE, ICMP6_TOO_BIG = 1, 2
ICMP6_SOURCE_POLICY = 5
"""Source address failed ingress/egress policy: code of ICMPv6 type 1 (RFC 4443 3.1)."""


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
        self.gate = None if mesh is None else MeshGate(mesh, _number(local))
        self.end_reason = ""
        self.ended, self.alarm = socket.socketpair()
        self.alarm.setblocking(False)
        self._tokens, self._tokens_at = float(ICMP_PER_SECOND), 0.0
        try:
            widest = mtu + ipip.IPV6_HEADER_LEN
            self.raw = tunio.open_raw(local, remote, widest)
            self.mesh_raw = tunio.open_raw(local, None, widest) if mesh is not None else None
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
        for direction in (Outward(self).run, Inward(self).run):
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
        if peer == _number(self.remote):
            return  # the BR's socket hears of it, too
        owner = gate.quoted_owner(quoted) if gate is not None else None
        if gate is None or owner is None or owner.address != peer:
            self.counters["drop-icmp6-foreign"] += 1
        elif icmp_type == ICMP6_TOO_BIG:
            self.counters["icmp6-too-big"] += 1
            narrow = max(mtu - ipip.IPV6_HEADER_LEN, MIN_TUNNEL_MTU)
            gate.narrow(peer, narrow, now)
            if quoted[6] & ipip.DF:
                self.answer(ipip.TOO_BIG, min(narrow, self.tunnel_mtu), quoted)
        else:
            self.counters["icmp6-unreachable"] += 1
            self.answer(ipip.HOST_UNREACHABLE, 0, quoted)

    def _icmp6_received(self, icmp_type: int, icmp_code: int, sender: bytes, quoted: bytes) -> None:
        """RFC 2473 8.3: packet too big becomes ICMPv4 3/4 when DF was set, every other error ICMPv4 3/1 [L-11]."""
        if icmp_type == ICMP6_TOO_BIG:
            self.counters["icmp6-too-big"] += 1
            self.follow_path()
            if len(quoted) > 6 and quoted[6] & ipip.DF:
                self.answer(ipip.TOO_BIG, self.tunnel_mtu, quoted)
            return
        if (icmp_type, icmp_code) == (ICMP6_UNREACHABLE, ICMP6_SOURCE_POLICY):
            if sender != self.addresses[:16]:
                self.counters["drop-icmp6-source-policy-foreign"] += 1
                return
            self.counters["icmp6-source-policy"] += 1
        else:
            self.counters["icmp6-unreachable"] += 1
        self.answer(ipip.HOST_UNREACHABLE, 0, quoted)

    def _guarded(self, direction: Callable[[], None]) -> None:
        try:
            direction()
        except OSError as error:
            self.end(f"{direction.__qualname__}: {error}")
        except BaseException as error:
            self.end(f"{direction.__qualname__}: {error!r}")
            raise

    def answer(self, code: int, mtu: int, offending: bytes) -> None:
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
