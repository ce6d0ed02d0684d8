"""Devices and sockets of the userspace softwire: the TUN, the raw socket outwards, the packet socket inwards.

Constants that the ``socket`` module lacks have their kernel names.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from collections.abc import Sequence

SOL_PACKET = 263
PACKET_STATISTICS = 6
PACKET_VNET_HDR = 15
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
IPV6_MTU_DISCOVER = 23
IPV6_MTU = 24
IPV6_MIN_MTU = 1280
IPV6_RECVERR = 25
IPV6_PMTUDISC_WANT = 1
SO_EE_ORIGIN_ICMP6 = 3
ETH_P_IPV6 = 0x86DD

VNET_LEN = 10
"""Octets of ``struct virtio_net_hdr``, which stands before every packet on the TUN and on the packet socket."""

HOP_LIMIT = 64
RECEIVE_BUFFER = 4 << 20
"""Octets queued for the pump: one merged packet counts up to 100 kB, so that the usual 200 kB would hold two."""

_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
# <asm/ioctl.h> of these families has the direction bits elsewhere.
_IOW = 0x80000000 if os.uname().machine.startswith(("mips", "ppc", "sparc", "alpha")) else 0x40000000
_TUNSETIFF = _IOW | 0x454CA
_TUNSETPERSIST = _IOW | 0x454CB
_TUNSETOFFLOAD = _IOW | 0x454D0
_TUNSETVNETHDRSZ = _IOW | 0x454D8
_SIOCGIFMTU = 0x8921
_SIOCSIFMTU = 0x8922

_LOAD_WORD, _LOAD_BYTE, _AND, _JUMP, _JUMP_EQUAL, _RETURN = 0x20, 0x30, 0x54, 0x05, 0x15, 0x06
MAX_FILTERED = 256
"""IPv6 prefixes that the kernel looks for; with more of them it lets every sender through, and the pump looks."""
_NETWORK = 0xFFF00000
"""SKF_NET_OFF: offsets from the IPv6 header, whatever the link puts before it."""
_PACKET_TYPE = 0xFFFFF004
"""SKF_AD_OFF + SKF_AD_PKTTYPE; 0 is PACKET_HOST: received, and for us."""

Instruction = tuple[int, int, int, int]


def open_tun(device: str) -> int:
    """Attach to the TUN ``device``, made when absent, and return its descriptor. OSError; EBUSY when somebody holds it.

    The device outlives the process. The kernel hands over complete packets (no offload towards us) and takes
    unfinished ones (checksum or segmentation left to do) when the virtio header says so.
    """
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
        fcntl.ioctl(tun, _TUNSETOFFLOAD, 0)
        fcntl.ioctl(tun, _TUNSETVNETHDRSZ, struct.pack("i", VNET_LEN))
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    except OSError:
        os.close(tun)
        raise
    return tun


def delete_tun(device: str) -> None:
    """Delete the TUN ``device``; nothing when there is none. OSError when it is held or is no TUN."""
    try:
        socket.if_nametoindex(device)
    except OSError:
        return
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
        fcntl.ioctl(tun, _TUNSETPERSIST, 0)
    finally:
        os.close(tun)


def device_mtu(device: str) -> int:
    """MTU of ``device`` in octets. OSError when there is no such device."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as any_socket:
        reply = fcntl.ioctl(any_socket, _SIOCGIFMTU, struct.pack("16si20x", device.encode(), 0))
    mtu: int = struct.unpack("16si20x", reply)[1]
    return mtu


def set_device_mtu(device: str, mtu: int) -> None:
    """Set the MTU of ``device`` in octets. OSError."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFMTU, struct.pack("16si20x", device.encode(), mtu))


def path_mtu(local: str, remote: str) -> int | None:
    """What the kernel believes of the path to ``remote``, in octets of IPv6; None without a route."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:  # a fresh one: no route cached; it sends nothing
        try:
            probe.bind((local, 0))
            probe.connect((remote, 9))
            return probe.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
        except OSError:
            return None


def attach_filter(sock: socket.socket, program: list[Instruction]) -> None:
    """Give ``sock`` a classic BPF program of (code, jump if true, jump if false, operand)."""
    code = array.array("B", b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), code.buffer_info()[0]))


def softwire_filter(local: bytes, remotes: Sequence[tuple[int, int]]) -> list[Instruction]:
    """Program that passes what may be packets of this softwire: for this host, to our address, from one of ``remotes``,
    prefixes as number and length: the BR's address [L-7], and customer edges' in mesh mode.

    Next header IPv4; or fragment, or destination options, whose next header is one of the three.
    """
    if len(remotes) > MAX_FILTERED:
        remotes = ((0, 0),)
    program: list[Instruction] = []
    for offset, value in [
        (_PACKET_TYPE, 0),
        *((_NETWORK + 24 + at, int.from_bytes(local[at : at + 4], "big")) for at in range(0, 16, 4)),
    ]:
        program += [(_LOAD_WORD, 0, 0, offset), (_JUMP_EQUAL, 1, 0, value), (_RETURN, 0, 0, 0)]
    tests = [_prefix_test(*remote) for remote in remotes]
    left = sum(map(len, tests)) + len(tests)
    for test in tests:
        # The last test's jump leads past the refusal that ends them.
        left -= len(test) + 1
        program += [*test, (_JUMP, 0, 0, left + 1)]
    return [
        *program,
        (_RETURN, 0, 0, 0),
        (_LOAD_BYTE, 0, 0, _NETWORK + 6),
        (_JUMP_EQUAL, 6, 0, 4),
        (_JUMP_EQUAL, 1, 0, 44),
        (_JUMP_EQUAL, 0, 5, 60),
        (_LOAD_BYTE, 0, 0, _NETWORK + 40),
        (_JUMP_EQUAL, 2, 0, 4),
        (_JUMP_EQUAL, 1, 0, 44),
        (_JUMP_EQUAL, 0, 1, 60),
        (_RETURN, 0, 0, 0x40000),
        (_RETURN, 0, 0, 0),
    ]


def _prefix_test(network: int, length: int) -> list[Instruction]:
    """Instructions that run to their end when the source is in the prefix, else past the one behind them."""
    test: list[Instruction] = []
    words = [(at, min(32, length - 8 * at)) for at in range(0, 16, 4) if length > 8 * at]
    sizes = [2 if bits == 32 else 3 for _, bits in words]
    for i, (at, bits) in enumerate(words):
        mask = 0xFFFFFFFF << (32 - bits) & 0xFFFFFFFF
        test.append((_LOAD_WORD, 0, 0, _NETWORK + 8 + at))
        if bits < 32:
            test.append((_AND, 0, 0, mask))
        test.append((_JUMP_EQUAL, 0, sum(sizes[i + 1 :]) + 1, network >> (96 - 8 * at) & mask))
    return test


def open_raw(local: str, remote: str | None, mtu: int) -> socket.socket:
    """The way out: what is sent becomes the payload of an IPv6 packet of next header 4, fragmented where it must be: to
    what the path takes, and to ``mtu`` octets of IPv6 at most.

    Receives nothing; but that it exists keeps the kernel from telling the BR that nobody here speaks IPv4-in-IPv6.
    ICMPv6 errors that quote our packets wait in its error queue. ``remote`` None: each packet says where it goes.
    """
    raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_IPIP)
    try:
        attach_filter(raw, [(_RETURN, 0, 0, 0)])
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, HOP_LIMIT)
        raw.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_WANT)
        raw.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        raw.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU, max(mtu, IPV6_MIN_MTU))
        raw.bind((local, 0))
        if remote is not None:
            raw.connect((remote, 0))
    except OSError:
        raw.close()
        raise
    return raw


def open_packet(local: bytes, remotes: Sequence[tuple[int, int]]) -> socket.socket:
    """The way in: tunnel packets as the link delivered them, a virtio header before each.

    A packet socket and no raw one, because only here the kernel says how far a packet is finished: with offloads on, it
    comes merged with its successors (GRO) or without its checksum, and nothing else tells how to cut or to sum.
    """
    packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(ETH_P_IPV6))
    try:
        attach_filter(packet, softwire_filter(local, remotes))
        # Before there are virtio headers: with them the kernel refuses to hand over less than one (EINVAL).
        _discard_queued(packet)
        packet.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        try:
            packet.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:
            packet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    except OSError:
        packet.close()
        raise
    return packet


def _discard_queued(packet: socket.socket) -> None:
    """Drop what came in before the filter was there."""
    packet.setblocking(False)
    try:
        while True:
            packet.recv(1)
    except BlockingIOError:
        packet.setblocking(True)


def packet_drops(packet: socket.socket) -> int:
    """Packets lost since the last call because the queue of ``packet`` was full."""
    drops: int = struct.unpack("=II", packet.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
    return drops
