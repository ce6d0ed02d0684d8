"""What is fuzzed: one function of octets a parser. The first line of each says what must hold.

A target returns True when the input was understood; anything but the parser's own error is a finding. ``SEEDS`` are
messages of real exchanges (``tests/decode/captures.py`` and the codecs themselves), from which mutations begin.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import fuzzmachine

from b4client import api, config
from b4client.daemon.store import Store
from b4client.dataplane import ipip
from b4client.dataplane.reassembly import MAX_PACKETS, Fragment, Reassembler
from b4client.decode import message, pcap
from b4client.lab.aftrcore import Aftr
from b4client.lab.binding import Binding, BindingTable
from b4client.model.errors import ConfigError, ControlError, WireError
from b4client.model.portset import PortSet
from b4client.wire import aftrname, dhcp4, dhcp4o6, dhcp6, identity, softwire46

Target = Callable[[bytes], bool]

OPTION_CODECS: tuple[tuple[Callable[[bytes], object], Callable[..., bytes] | None], ...] = (
    (softwire46.decode_portparams, softwire46.encode_portparams),
    (softwire46.decode_rule, softwire46.encode_rule),
    (softwire46.decode_v4v6bind, softwire46.encode_v4v6bind),
    (softwire46.decode_br, softwire46.encode_br),
    (softwire46.decode_dmr, softwire46.encode_dmr),
    (softwire46.decode_bind_prefix, softwire46.encode_bind_prefix),
    (softwire46.decode_mape, softwire46.encode_mape),
    (softwire46.decode_mapt, softwire46.encode_mapt),
    (softwire46.decode_lw4o6, softwire46.encode_lw4o6),
    (softwire46.decode_priority, softwire46.encode_priority),
    (softwire46.decode_saddr, softwire46.encode_saddr),
    (aftrname.decode_aftr_name, aftrname.encode_aftr_name),
    (dhcp4o6.decode_servers, dhcp4o6.encode_servers),
    (dhcp6.decode_ia, dhcp6.encode_ia),
    (dhcp6.decode_iaaddr, dhcp6.encode_iaaddr),
    (dhcp6.decode_iaprefix, dhcp6.encode_iaprefix),
    (identity.decode_duid, bytes),
    (identity.decode_client_identifier, None),
    (dhcp6.decode_status, None),
    (dhcp6.decode_oro, dhcp6.encode_oro),
)


def fuzz_dhcp4(data: bytes) -> bool:
    """A message or WireError; what was read, written and read again is the same."""
    try:
        first = dhcp4.decode(data)
    except WireError:
        return False
    assert dhcp4.decode(dhcp4.encode(first)) == first
    return True


def fuzz_dhcp6(data: bytes) -> bool:
    """A message (or relay message) or WireError; stable when written and read again."""
    for decode, encode in ((dhcp6.decode, dhcp6.encode), (dhcp6.decode_relay, dhcp6.encode_relay)):
        try:
            first = decode(data)  # type: ignore[operator]
        except WireError:
            continue
        assert decode(encode(first)) == first  # type: ignore[operator]
        return True
    return False


def fuzz_dhcp4o6(data: bytes) -> bool:
    """A message with one option 87 or WireError; the DHCPv4 message inside likewise."""
    try:
        outer = dhcp4o6.decode(data)
    except WireError:
        return False
    fuzz_dhcp4(outer.dhcp4)
    if outer.msg_type == dhcp6.MessageType.DHCPV4_RESPONSE:
        again = dhcp4o6.decode(dhcp4o6.encode_response(outer.dhcp4, options=outer.options, flags=outer.flags))
        assert again == outer
    return True


def fuzz_options(data: bytes) -> bool:
    """A value or WireError, for the decoder that the first octet chooses; stable when written and read again."""
    if not data:
        return False
    decode, encode = OPTION_CODECS[data[0] % len(OPTION_CODECS)]
    try:
        value = decode(data[1:])
    except WireError:
        return False
    if encode is not None:
        assert decode(encode(value)) == value
    return True


def fuzz_capture(data: bytes) -> bool:
    """A capture, whatever its fault; no more packets than the file has octets for."""
    found = pcap.read_capture(data)
    assert found.packets <= len(data) // 8
    return found.fault is None


def fuzz_explain(data: bytes) -> bool:
    """A tree and its text, whatever the octets: every line printable, their number bounded by the input's size."""
    tree = message.decode_message(data)
    lines = message.render_message(tree)
    assert len(lines) <= 60 + 3 * len(data)
    assert all(line.isprintable() for line in lines)
    json.dumps(tree)
    return not any(True for _ in message.errors_in(tree))


def fuzz_control(data: bytes) -> bool:
    """A command and its arguments, or ControlError."""
    try:
        command, arguments = api.decode_request(data)
    except ControlError:
        return False
    assert isinstance(command, str)
    assert isinstance(arguments, dict)
    return True


def fuzz_config(data: bytes) -> bool:
    """Settings or ConfigError, for whatever TOML is."""
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        return False
    try:
        config.parse(document)
    except ConfigError:
        return False
    return True


class LeaseFile:
    """A lease (and DUID) or None; a damaged file is set aside, never the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self, data: bytes) -> bool:
        """Load ``data`` as the stored lease."""
        path = self._directory / "wan.lease.json"
        path.write_bytes(data)
        store = Store(self._directory, "wan", boot_now=lambda: 5000.0, wall_now=lambda: 1e9, boot_id="here")
        stored = store.load_lease()
        if stored is not None:
            assert stored.lease.requested_at <= stored.lease.t1_at <= stored.lease.t2_at <= stored.lease.expires_at
        return stored is not None


def fuzz_ipip(data: bytes) -> bool:
    """The helpers of the userspace softwire: an answer of bounded size to any packet, or none."""
    answer = ipip.icmp_unreachable(ipip.TOO_BIG, 1280, data)
    assert answer is None or (len(answer) <= 576 and ipip.checksum(answer[:20]) == 0)
    found = ipip.skip_options(data, 60, 0, len(data))
    assert found is None or found[1] <= len(data) + 2048
    if len(data) >= 21:
        packet = bytearray(data[1:])
        ipip.set_tos(packet, 0, data[0])
        assert packet[1] == data[0]
    return answer is not None


def fuzz_reassembly(data: bytes) -> bool:
    """Packets whole or nothing, memory bounded, for any sequence of fragments."""
    reassembler = Reassembler()
    whole = 0
    for at in range(0, len(data) - 6, 6):
        ident, place, flags, size, fill, step = data[at : at + 6]
        fragment = Fragment(
            ident % 80, 4, place * 8, bool(flags & 1), bytes([fill]) * (size * 8 if flags & 2 else size), 0
        )
        whole += reassembler.add(fragment, at + step) is not None
        assert len(reassembler._packets) <= MAX_PACKETS
    return whole > 0


B4, PORTS = IPv6Address("2001:db8:46::100"), PortSet(0, 8, 0x34)


def fuzz_aftr(data: bytes) -> bool:
    """The lwAFTR decides about any octets in either direction without raising."""
    aftr = Aftr(BindingTable([Binding(IPv4Address("192.0.2.18"), PORTS, B4)]), IPv6Address("2001:db8:ffff::1"))
    before = sum(aftr.counters.values())
    aftr.upward(data, B4.packed, 0, 1.0)
    aftr.downward(data, 2.0)
    assert sum(aftr.counters.values()) > before
    return True


def targets(directory: Path) -> dict[str, Target]:
    """All of them by name; ``directory`` is for the one that reads a file."""
    return {
        "dhcp4": fuzz_dhcp4,
        "dhcp6": fuzz_dhcp6,
        "dhcp4o6": fuzz_dhcp4o6,
        "options": fuzz_options,
        "capture": fuzz_capture,
        "explain": fuzz_explain,
        "control": fuzz_control,
        "config": fuzz_config,
        "leasefile": LeaseFile(directory),
        "ipip": fuzz_ipip,
        "reassembly": fuzz_reassembly,
        "aftr": fuzz_aftr,
        "machine": fuzzmachine.fuzz_machine,
    }
