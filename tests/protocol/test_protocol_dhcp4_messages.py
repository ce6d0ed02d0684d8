"""The client's DHCPv4 messages: table T field by field, hints, both directions (RFC 2131, 7341, 7618)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timescript import (
    ADDRESS,
    CLIENT_ID,
    MAC,
    PORTS,
    PORTS_OCTETS,
    SERVER,
    Script,
    Sent,
    bound,
    lease_at,
)

from b4client.model.lease import Lease4
from b4client.model.portset import PortSet
from b4client.protocol.dhcp4_messages import Composer, Identity
from b4client.protocol.dhcp4_states import Offer
from b4client.wire import dhcp4, softwire46
from b4client.wire.dhcp4 import MessageType, Option

WHOLE = replace(lease_at(), ports=None)

# ---- table T


@dataclass(frozen=True)
class Row:
    """A column of table T: the script that brings the client to send it, and what it must be."""

    send: Callable[[PortSet | None], Script]
    kind: MessageType
    unicast: bool
    ciaddr: IPv4Address
    requested: IPv4Address | None
    server: IPv4Address | None
    listed: bool
    same_xid: bool = False


def discovering(ports: PortSet | None) -> Script:
    script = Script(several=False)
    script.tell(script.client.start, previous=lease_at(ports=ports))
    return script


def selecting(ports: PortSet | None) -> Script:
    """An offer that comes after two retransmissions of the DISCOVER (4 s, 12 s)."""
    script = Script(several=False).to_selecting()
    script.until(12.5)
    script.offer(ports=ports)
    return script


def rebooting(ports: PortSet | None) -> Script:
    script = Script(several=False)
    script.tell(script.client.reboot, lease_at(ports=ports), in_use=False, usable=True)
    return script


def renewing(ports: PortSet | None) -> Script:
    script = Script(several=False).to_bound(offer={"ports": ports}, ports=ports)
    script.until(1800)
    return script


def rebinding(ports: PortSet | None) -> Script:
    script = renewing(ports)
    script.until(3150)
    return script


def releasing(ports: PortSet | None) -> Script:
    script = Script(several=False).to_bound(offer={"ports": ports}, ports=ports)
    script.now = 100.0
    script.tell(script.client.release)
    return script


DISCOVER, REQUEST, RELEASE = MessageType.DISCOVER, MessageType.REQUEST, MessageType.RELEASE
TABLE_T = {
    "discover": Row(discovering, DISCOVER, False, dhcp4.ZERO, ADDRESS, None, True),
    "selecting": Row(selecting, REQUEST, False, dhcp4.ZERO, ADDRESS, SERVER, True, same_xid=True),
    "init-reboot": Row(rebooting, REQUEST, False, dhcp4.ZERO, ADDRESS, None, True),
    "renewing": Row(renewing, REQUEST, True, ADDRESS, None, None, True),
    "rebinding": Row(rebinding, REQUEST, False, ADDRESS, None, None, True),
    "release": Row(releasing, RELEASE, True, ADDRESS, None, SERVER, False),
}
rows = pytest.mark.parametrize("row", TABLE_T.values(), ids=TABLE_T)
sharing = pytest.mark.parametrize("ports", [PORTS, PortSet(0, 2, 3), None], ids=["shared", "one range", "unshared"])


@rows
@sharing
def test_table_t(row: Row, ports: PortSet | None) -> None:
    """Every option that is there is one that the table wants, with its value; nothing else is there."""
    script = row.send(ports)
    sent = script.last
    expected: dict[int, bytes] = {Option.MESSAGE_TYPE: bytes((row.kind,)), Option.CLIENT_ID: CLIENT_ID}
    if row.requested is not None:
        expected[Option.REQUESTED_ADDRESS] = row.requested.packed
    if row.server is not None:
        expected[Option.SERVER_ID] = row.server.packed
    if ports is not None:
        expected[Option.V4_PORTPARAMS] = bytes.fromhex("06083400" if ports == PORTS else "0002c000")
    found = sent.options()
    if row.listed:
        expected[Option.PARAMETER_LIST] = found[Option.PARAMETER_LIST]
        expected[Option.MAX_SIZE] = found[Option.MAX_SIZE]
    assert found == expected
    assert sent.unicast == row.unicast  # RFC 7341 8
    message = sent.message
    assert message.ciaddr == row.ciaddr
    assert (message.op, message.hops) == (dhcp4.BOOTREQUEST, 0)
    assert (message.yiaddr, message.siaddr, message.giaddr) == (dhcp4.ZERO,) * 3
    assert (message.htype, message.chaddr) == (1, MAC)  # T-2
    assert not message.broadcast  # T-1
    assert (message.sname, message.file) == (b"", b"")


@rows
@sharing
def test_flags_on_the_wire_are_zero(row: Row, ports: PortSet | None) -> None:
    """W-18, T-1: B = 0 and the 15 reserved bits 0."""
    octets = dhcp4.encode(row.send(ports).last.message)
    assert octets[10:12] == b"\0\0"


@rows
def test_parameter_list(row: Row) -> None:
    """RFC 7618 5: 159 is in it; RFC 8925 3.2 [S-19]: 108 is not; RFC 2131 3.5 [T-3]: the same list in every message
    that has one. Table 5 forbids it in a RELEASE."""
    script = row.send(PORTS)
    listed = script.last.options().get(Option.PARAMETER_LIST)
    if not row.listed:
        assert listed is None
        return
    assert listed is not None
    assert {159, 51, 54, 58, 59} <= set(listed)
    assert 108 not in listed
    assert len(set(listed)) == len(listed)
    assert {s.options()[Option.PARAMETER_LIST] for s in script.sent} == {listed}


@rows
def test_maximum_size(row: Row) -> None:
    """RFC 2131 3.5 [T-7]: option 57 in DISCOVER and REQUEST, at least 576 (RFC 2132 9.10); not in RELEASE (table 5)."""
    size = dhcp4.u16_option(row.send(PORTS).last.message, Option.MAX_SIZE)
    assert (size is not None and size >= 576) if row.listed else size is None


@rows
def test_transaction_numbers(row: Row) -> None:
    """The REQUEST that takes an offer has the OFFER's xid (table 5); every other exchange has a new one."""
    script = row.send(PORTS)
    assert 0 <= script.last.message.xid < 2**32
    before = [s.message.xid for s in script.sent[:-1] if s.kind != script.last.kind or s.unicast != row.unicast]
    assert (script.last.message.xid in before) == row.same_xid


@rows
def test_secs(row: Row) -> None:
    """RFC 2131 3.1 step 3: as in the DISCOVER that was answered (12 s after the first); 0 in a RELEASE (table 5)."""
    assert row.send(PORTS).last.message.secs == (12 if row.same_xid else 0)


def test_secs_of_a_retransmitted_discover() -> None:
    """RFC 2131 table 1: seconds since the client began."""
    script = Script()
    script.now = 1000.0
    script.to_selecting().until(1030)
    assert [(s.at, s.message.secs) for s in script.sent] == [(1000, 0), (1004, 4), (1012, 12), (1028, 28)]


@pytest.mark.parametrize("start_delay", [False, True])
def test_secs_of_a_retransmitted_reboot(start_delay: bool) -> None:
    """Since its first REQUEST; the random wait before it does not count."""
    script = Script(start_delay=start_delay)
    script.now = 1000.0
    script.tell(script.client.reboot, lease_at(), in_use=False, usable=True)
    script.until(1020)
    first = 1005.5 if start_delay else 1000.0
    assert [(s.at, s.message.secs) for s in script.sent] == [(first, 0), (first + 4, 4), (first + 12, 12)]


def test_secs_ends_at_16_bits() -> None:
    script = Script().to_selecting()
    script.jump(70000.0)
    assert script.last.message.secs == 65535


def test_secs_of_renewals_counts_from_the_first() -> None:
    script = bound()
    script.until(3400)
    assert [(s.at, s.message.secs) for s in script.sent if s.unicast][:3] == [(1800, 0), (2475, 675), (2812.5, 1012)]
    assert [(s.at, s.message.secs) for s in script.sent if s.at >= 3150] == [(3150, 0), (3375, 225)]


# ---- DISCOVER's hints [S-18]


def discover(previous: Lease4 | None = None, hint: int | None = None) -> dict[int, bytes]:
    message = Composer(Identity(CLIENT_ID, MAC)).discover(7, 0, previous=previous, hint=hint)
    return Sent(0, False, message).options()


def test_a_discover_without_history_asks_for_nothing() -> None:
    options = discover()
    assert Option.REQUESTED_ADDRESS not in options
    assert Option.V4_PORTPARAMS not in options


def test_the_previous_pair_is_asked_for_whole() -> None:
    """RFC 7618 7: 50 together with 159, all three fields."""
    options = discover(lease_at())
    assert options[Option.REQUESTED_ADDRESS] == ADDRESS.packed
    assert options[Option.V4_PORTPARAMS] == PORTS_OCTETS


@pytest.mark.parametrize(("psid_len", "octets"), [(1, "00010000"), (8, "00080000"), (16, "00100000")])
def test_a_size_hint_has_only_the_length(psid_len: int, octets: str) -> None:
    """RFC 7618 7: no 50, and a non-zero value in the PSID-len field only."""
    options = discover(hint=psid_len)
    assert Option.REQUESTED_ADDRESS not in options
    assert options[Option.V4_PORTPARAMS].hex() == octets


def test_the_previous_pair_goes_before_the_size_hint() -> None:
    assert discover(lease_at(), 4)[Option.V4_PORTPARAMS] == PORTS_OCTETS


def test_a_whole_address_is_asked_for_without_159() -> None:
    options = discover(WHOLE, 4)
    assert options[Option.REQUESTED_ADDRESS] == ADDRESS.packed
    assert Option.V4_PORTPARAMS not in options


# ---- what an interface without hardware address, and a host name, change


def test_no_hardware_address() -> None:
    """T-2: htype and hlen 0."""
    message = Composer(Identity(CLIENT_ID, b"")).discover(7, 0, previous=None, hint=None)
    assert (message.htype, message.chaddr) == (0, b"")
    assert dhcp4.encode(message)[1:3] == b"\0\0"


def test_host_name_in_all_but_the_release() -> None:
    composer = Composer(Identity(CLIENT_ID, MAC, "cpe-1"))
    lease, offer = lease_at(), Offer(ADDRESS, PORTS, SERVER)
    for message in (
        composer.discover(1, 0, previous=None, hint=None),
        composer.select(1, 0, offer),
        composer.reboot(1, 0, lease),
        composer.extend(1, 0, lease),
    ):
        assert message.get(Option.HOSTNAME) == b"cpe-1"
    assert composer.release(1, lease).get(Option.HOSTNAME) is None


# ---- both directions: whatever the composer writes comes back from the wire

port_sets = st.integers(0, 15).flatmap(
    lambda a: st.integers(1, 16 - a).flatmap(
        lambda k: st.builds(PortSet, st.just(a), st.just(k), st.integers(0, 2**k - 1))
    )
)
addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
leases = st.builds(
    lambda address, ports, server: lease_at(address=address, ports=ports, server=server),
    addresses,
    st.none() | port_sets,
    addresses,
)
identities = st.builds(
    Identity,
    st.binary(min_size=6, max_size=135),
    st.binary(max_size=16),
    st.none() | st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z"),
)


@given(identities, leases, st.integers(0, 2**32 - 1), st.integers(0, 65535), st.none() | st.integers(1, 16))
def test_both_directions(identity: Identity, lease: Lease4, xid: int, secs: int, hint: int | None) -> None:
    composer, offer = Composer(identity), Offer(lease.address, lease.ports, lease.server_id)
    messages = (
        composer.discover(xid, secs, previous=None, hint=hint),
        composer.discover(xid, secs, previous=lease, hint=hint),
        composer.select(xid, secs, offer),
        composer.reboot(xid, secs, lease),
        composer.extend(xid, secs, lease),
        composer.release(xid, lease),
    )
    for message in messages:
        back = dhcp4.decode(dhcp4.encode(message))
        assert back == message
        assert back.get(Option.CLIENT_ID) == identity.client_id
        assert back.xid == xid
    for message in messages[1:]:
        value = message.get(Option.V4_PORTPARAMS)
        assert (None if value is None else softwire46.decode_portparams(value).port_set()) == lease.ports
