"""What an OFFER or ACK must be before it is believed (RFC 2131 4.4, table 3; RFC 7618 6, 7, 9)."""

from __future__ import annotations

import math
import random
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timescript import (
    ADDRESS,
    DNS,
    OTHER_ADDRESS,
    PORTS,
    PORTS_OCTETS,
    SERVER,
    Highest,
    Lowest,
    Middle,
    reply,
)

from b4client.model.errors import OfferError
from b4client.model.lease import Lease4
from b4client.model.portset import PortSet
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp4_messages import read_lease, read_offer, usable_address
from b4client.protocol.dhcp4_states import Offer
from b4client.wire import dhcp4
from b4client.wire.dhcp4 import Dhcp4Message, MessageType, Option

# ---- reading: which addresses can be ours


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        ("0.0.0.0", False),
        ("0.1.2.3", False),
        ("1.0.0.0", True),
        ("10.0.0.1", True),
        ("127.0.0.1", False),
        ("169.253.255.255", True),
        ("169.254.0.1", False),  # RFC 7618 7.1 [F-11]
        ("169.254.255.255", False),
        ("169.255.0.0", True),
        ("192.0.2.18", True),
        ("223.255.255.255", True),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
    ],
)
def test_usable_addresses(text: str, usable: bool) -> None:
    assert usable_address(IPv4Address(text)) == usable


# ---- reading OFFERs


def read(message: Dhcp4Message) -> tuple[Offer, dict[str, int]]:
    counters = Counters()
    offer = read_offer(dhcp4.decode(dhcp4.encode(message)), counters)
    return offer, counters.snapshot()


def test_a_shared_offer() -> None:
    assert read(reply(MessageType.OFFER, 1)) == (Offer(ADDRESS, PORTS, SERVER), {})


def test_an_unshared_offer() -> None:
    """RFC 7618 7 [S-13]: no 159 although it was asked for means the whole address."""
    assert read(reply(MessageType.OFFER, 1, ports=None)) == (Offer(ADDRESS, None, SERVER), {})


def test_psid_length_0_is_the_whole_address() -> None:
    """RFC 7618 9 [P-2]."""
    assert read(reply(MessageType.OFFER, 1, ports=bytes.fromhex("06000000"))) == (Offer(ADDRESS, None, SERVER), {})


def test_psid_length_0_leaves_the_psid_without_meaning() -> None:
    """RFC 7618 9 [P-2]: the PSID field is then ignored; all of it lies right of the PSID, which is worth a warning."""
    offer, counted = read(reply(MessageType.OFFER, 1, ports=bytes.fromhex("06003400")))
    assert offer.ports is None
    assert counted == {"warned-portparams-padding": 1}


def test_padding_right_of_the_psid_is_masked_off() -> None:
    """P-4: masked, and counted."""
    offer, counted = read(reply(MessageType.OFFER, 1, ports=bytes.fromhex("060834ff")))
    assert offer.ports == PORTS
    assert counted == {"warned-portparams-padding": 1}


REFUSED_OFFERS = {
    "no address": ({"address": dhcp4.ZERO}, "drop-offer-address"),
    "link-local address": ({"address": IPv4Address("169.254.1.1")}, "drop-offer-address"),
    "no server": ({"server": None}, "drop-offer-without-server-id"),
    "short server": ({"server": b"\xc0\0\0"}, "drop-offer-without-server-id"),
    "long server": ({"server": b"\xc0\0\0\1\1"}, "drop-offer-without-server-id"),
    "159 empty": ({"ports": b""}, "drop-offer-portparams"),
    "159 of 3 octets": ({"ports": bytes.fromhex("060834")}, "drop-offer-portparams"),
    "159 of 5 octets": ({"ports": bytes.fromhex("0608340000")}, "drop-offer-portparams"),
    "159 twice": ({"ports": PORTS_OCTETS * 2}, "drop-offer-portparams"),  # RFC 3396 7
    "offset 16": ({"ports": bytes.fromhex("10000000")}, "drop-offer-portparams"),  # P-1
    "length 17": ({"ports": bytes.fromhex("00110000")}, "drop-offer-portparams"),
    "a + k = 17": ({"ports": bytes.fromhex("06 0b 3400")}, "drop-offer-portparams"),  # P-3
}


@pytest.mark.parametrize(("changes", "counter"), REFUSED_OFFERS.values(), ids=REFUSED_OFFERS)
@pytest.mark.parametrize("kind", [MessageType.OFFER, MessageType.ACK])
def test_refused_offers(kind: MessageType, changes: dict[str, Any], counter: str) -> None:
    """The same holds for ACKs, which are read by the same rules."""
    message = reply(kind, 1, **changes)
    with pytest.raises(OfferError) as caught:
        (read if kind == MessageType.OFFER else take)(message)
    assert caught.value.counter == counter


# ---- reading ACKs


def take(
    message: Dhcp4Message,
    *,
    at: float = 100.0,
    wanted: PortSet | None = PORTS,
    rng: random.Random | None = None,
    counters: Counters | None = None,
) -> Lease4:
    message = dhcp4.decode(dhcp4.encode(message))
    return read_lease(message, requested_at=at, wanted=wanted, rng=rng or Middle(), counters=counters or Counters())


def ack(**changes: Any) -> Dhcp4Message:
    return reply(MessageType.ACK, 1, **changes)


def test_times_count_from_the_request() -> None:
    """RFC 2131 4.4.1 [S-6]."""
    assert take(ack(), at=1000.0) == Lease4(ADDRESS, PORTS, SERVER, 1000.0, 2800.0, 4150.0, 4600.0)


def test_the_acks_parameters_count() -> None:
    """S-11, S-14: another address and another port set than were asked for are taken as they are."""
    lease = take(ack(address=OTHER_ADDRESS, ports=PortSet(4, 6, 20)))
    assert (lease.address, lease.ports) == (OTHER_ADDRESS, PortSet(4, 6, 20))


@pytest.mark.parametrize("t1", [None, 1800])
def test_an_infinite_lease(t1: int | None) -> None:
    """RFC 2131 3.3 [S-6]: 0xffffffff never ends, and needs no renewal."""
    lease = take(ack(lease=0xFFFFFFFF, t1=t1, t2=None))
    assert (lease.requested_at, lease.t1_at, lease.t2_at, lease.expires_at) == (100.0, math.inf, math.inf, math.inf)


def test_the_longest_finite_lease() -> None:
    assert take(ack(lease=0xFFFFFFFE, t1=None, t2=None), at=0.0).expires_at == 0xFFFFFFFE


@pytest.mark.parametrize("lease", [None, 0, b"", b"\0\x0e\x10", b"\0\0\0\x0e\x10"])
def test_without_a_lease_time(lease: int | bytes | None) -> None:
    """RFC 2131 table 3: 51 is a MUST in an ACK [S-6]."""
    with pytest.raises(OfferError) as caught:
        take(ack(lease=lease))
    assert caught.value.counter == "drop-ack-lease-time"


def test_159_missing_for_a_shared_address() -> None:
    """RFC 7618 6 step 4: the whole address would be other subscribers' ports too."""
    with pytest.raises(OfferError) as caught:
        take(ack(ports=None))
    assert caught.value.counter == "drop-ack-without-portparams"


def test_159_missing_where_none_was_offered() -> None:
    """S-13."""
    assert take(ack(ports=None), wanted=None).ports is None


def test_psid_length_0_for_a_shared_address() -> None:
    """X-11: the server says explicitly that all ports are ours."""
    assert take(ack(ports=bytes(4))).ports is None


def test_159_where_none_was_offered() -> None:
    """RFC 7618 7 [S-14]: the explicit PSID of the ACK MUST be used."""
    assert take(ack(), wanted=None).ports == PORTS


DEFAULTS = (1800.0, 3150.0)
WARNED = {"warned-lease-times": 1}


@pytest.mark.parametrize(
    ("t1", "t2", "times", "counted"),
    [
        pytest.param(600, 1200, (600, 1200), {}, id="given"),
        pytest.param(1, 2, (1, 2), {}, id="very early"),
        pytest.param(3598, 3599, (3598, 3599), {}, id="just in order"),
        pytest.param(None, None, DEFAULTS, {}, id="none given"),
        pytest.param(600, None, (600, 3150), {}, id="T1 only"),
        pytest.param(None, 2000, (1800, 2000), {}, id="T2 only"),
        pytest.param(2000, 1000, DEFAULTS, WARNED, id="T1 > T2"),
        pytest.param(2000, 2000, DEFAULTS, WARNED, id="T1 = T2"),
        pytest.param(1800, 3600, DEFAULTS, WARNED, id="T2 = lease"),
        pytest.param(3600, 3700, DEFAULTS, WARNED, id="both beyond the lease"),
        pytest.param(0xFFFFFFFF, 0xFFFFFFFF, DEFAULTS, WARNED, id="infinite"),
        pytest.param(0, 3150, DEFAULTS, WARNED, id="T1 = 0"),
        pytest.param(3200, None, DEFAULTS, WARNED, id="T1 above the default T2"),
        pytest.param(None, 1700, DEFAULTS, WARNED, id="T2 below the default T1"),
        pytest.param(b"\0\1", b"\0\0\0\0\2", DEFAULTS, {}, id="unreadable is absent"),
    ],
)
def test_t1_and_t2(t1: Any, t2: Any, times: tuple[float, float], counted: dict[str, int]) -> None:
    """RFC 2131 4.4.5 [S-7]: T1 < T2 < lease MUST hold; where it does not, the defaults."""
    counters = Counters()
    lease = take(ack(t1=t1, t2=t2), at=0.0, counters=counters)
    assert (lease.t1_at, lease.t2_at) == times
    assert counters.snapshot() == counted


@pytest.mark.parametrize("given", [None, 9999], ids=["absent", "out of order"])
def test_default_times_have_fuzz(given: int | None) -> None:
    """RFC 2131 4.4.5 SHOULD: defaults scatter, by 2 % of the lease; the server's own times do not."""
    low, high = (take(ack(t1=given, t2=given), at=0.0, rng=rng) for rng in (Lowest(), Highest()))
    assert (low.t1_at, low.t2_at, high.t1_at, high.t2_at) == pytest.approx((1728, 3078, 1872, 3222))
    assert take(ack(), at=0.0, rng=Lowest()).t1_at == take(ack(), at=0.0, rng=Highest()).t1_at == 1800


seconds = st.none() | st.integers(0, 0xFFFFFFFF) | st.binary(max_size=6)


@given(st.integers(1, 0xFFFFFFFE), seconds, seconds, st.integers(0, 2**32).map(random.Random))
def test_t1_t2_and_the_end_are_always_in_order(lease_s: int, t1: Any, t2: Any, rng: random.Random) -> None:
    """S-7, whatever the server says."""
    lease = take(ack(lease=lease_s, t1=t1, t2=t2), at=50.0, rng=rng)
    assert 50.0 < lease.t1_at < lease.t2_at < lease.expires_at == 50.0 + lease_s


def test_what_is_kept_of_the_other_options() -> None:
    """DNS and the like; nothing of the lease itself, and nothing that nobody asked for."""
    domain, mtu = b"example.org", b"\x05\xb4"
    options = ((Option.DNS, DNS), (Option.ROUTER, DNS), (Option.DOMAIN, domain), (Option.MTU, mtu))
    assert take(ack(options=options)).options == ((Option.DNS, DNS), (Option.DOMAIN, domain), (Option.MTU, mtu))
