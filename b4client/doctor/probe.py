"""Packets that doctor sends: a DHCPv6 Information-request, echo requests, a STUN Binding request. Blocking."""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import random
import secrets
import select
import socket
import struct
import time
from ipaddress import IPv4Address, IPv6Address

from b4client.protocol.counters import Counters
from b4client.protocol.dhcp6_client import Dhcp6Client
from b4client.protocol.provisioning import Provisioning, read_reply
from b4client.wire import identity

ANSWER_S = 1.0
DHCP6_S = 4.0
_IPV6_MTU_DISCOVER, _IPV6_PROBE, _IPV6_DONTFRAG = 23, 3, 62
_IP_MTU_DISCOVER, _IP_PROBE = 10, 3
_ECHO6, _REPLY6, _TOO_BIG6 = 128, 129, 2
_ECHO4, _REPLY4 = 8, 0
IPV6_HEADER, IPV4_HEADER, ICMP_HEADER = 40, 20, 8
STUN_COOKIE = 0x2112A442
_STUN_BINDING, _STUN_SUCCESS, _STUN_XOR_MAPPED = 0x0001, 0x0101, 0x0020


class Echo(enum.Enum):
    """How an echo request fared."""

    ANSWERED = "answered"
    SILENT = "no answer"
    TOO_BIG = "too big"


def ask_dhcp6(wan: str) -> Provisioning | None:
    """An Information-request from port 546 of ``wan``. OSError when the port is taken."""
    counters = Counters()
    index = socket.if_nametoindex(wan)
    duid = identity.duid_uuid(secrets.token_bytes(16)).data
    client = Dhcp6Client(duid, start_delay=False, rng=random.Random(secrets.randbits(64)), counters=counters)  # noqa: S311
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, wan.encode())
        sock.bind(("::", 546))
        end = time.monotonic() + DHCP6_S
        messages = client.start(time.monotonic())
        while (now := time.monotonic()) < end:
            for message in messages:
                sock.sendto(message, ("ff02::1:2", 547, 0, index))
            deadline = client.deadline() or end
            if select.select([sock], [], [], max(0.0, min(deadline, end) - now))[0]:
                reply = client.received(sock.recv(65535), time.monotonic())
                if reply is not None:
                    return read_reply(reply, counters)
            messages = client.wake(time.monotonic())
    return None


def ping6(destination: IPv6Address, size: int) -> Echo:
    """``size`` counts the IPv6 packet's octets."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6) as sock:
        # PROBE: what the kernel has learnt of the path is not applied, the packet leaves as it is.
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IPV6_PROBE)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
        sock.connect((str(destination), 0))
        identifier = secrets.randbits(16)
        request = struct.pack("!BBHHH", _ECHO6, 0, 0, identifier, 1)
        payload = bytes(size - IPV6_HEADER - ICMP_HEADER)
        return _exchange(sock, request + payload, identifier, (_REPLY6, _TOO_BIG6))


def ping4(device: str, destination: IPv4Address, size: int) -> Echo:
    """``size`` counts the IPv4 packet's octets. The NAT puts an identifier of the port set in the place of ours."""
    # A raw socket: those for pings without privileges are closed to everybody unless ping_group_range says otherwise.
    with socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PROBE)
        sock.connect((str(destination), 0))
        identifier = secrets.randbits(16)
        # Zeros add nothing to the checksum: it is that of the header.
        total = (_ECHO4 << 8) + identifier + 1
        checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        request = struct.pack("!BBHHH", _ECHO4, 0, checksum, identifier, 1)
        payload = bytes(size - IPV4_HEADER - ICMP_HEADER)
        return _exchange(sock, request + payload, identifier, (_REPLY4, None))


def _exchange(sock: socket.socket, request: bytes, identifier: int, kinds: tuple[int, int | None]) -> Echo:
    try:
        sock.send(request)
        end = time.monotonic() + ANSWER_S
        while (left := end - time.monotonic()) > 0 and select.select([sock], [], [], left)[0]:
            data = sock.recv(65535)
            if sock.family == socket.AF_INET:
                data = data[(data[0] & 0x0F) * 4 :]  # a raw IPv4 socket gives the header too
            if len(data) < ICMP_HEADER:
                continue
            kind, number = data[0], int.from_bytes(data[4:6], "big")
            if kind == kinds[1]:
                return Echo.TOO_BIG
            if kind == kinds[0] and number == identifier:
                return Echo.ANSWERED
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            return Echo.TOO_BIG
        if error.errno not in (errno.EHOSTUNREACH, errno.ECONNREFUSED):
            raise
    return Echo.SILENT


def ask_stun(device: str, server: tuple[IPv4Address, int]) -> tuple[IPv4Address, int] | None:
    """A Binding request (RFC 8489) through ``device``, sent three times at the most."""
    transaction = os.urandom(12)
    request = struct.pack("!HHI", _STUN_BINDING, 0, STUN_COOKIE) + transaction
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.connect((str(server[0]), server[1]))
        for _ in range(3):
            with contextlib.suppress(ConnectionRefusedError):
                sock.send(request)
                if select.select([sock], [], [], ANSWER_S)[0]:
                    return read_stun(sock.recv(2048), transaction)
    return None


def read_stun(data: bytes, transaction: bytes) -> tuple[IPv4Address, int] | None:
    """XOR-MAPPED-ADDRESS of a success response (RFC 8489 14.2); None when it is not one to ``transaction``."""
    if len(data) < 20 or struct.unpack_from("!HHI", data)[::2] != (_STUN_SUCCESS, STUN_COOKIE):
        return None
    if data[8:20] != transaction:
        return None
    offset = 20
    while offset + 4 <= len(data):
        kind, length = struct.unpack_from("!HH", data, offset)
        value = data[offset + 4 : offset + 4 + length]
        if kind == _STUN_XOR_MAPPED and len(value) == 8 and value[1] == 1:
            port, address = struct.unpack("!HI", value[2:])
            return IPv4Address(address ^ STUN_COOKIE), port ^ (STUN_COOKIE >> 16)
        offset += 4 + (length + 3 & ~3)
    return None
