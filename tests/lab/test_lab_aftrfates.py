"""Every counter of the lwAFTR has a name, a sentence and a packet that reaches it; every packet has one fate."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest
from aftrcase import (
    ALICE_B4,
    ALICE_PORT,
    BOB_B4,
    BOB_PORT,
    CAROL_B4,
    CAROL_PORT,
    DAVE_B4,
    OTHER,
    ROUTER,
    SERVER,
    SHARED,
    STRANGER,
    UNBOUND_PORT,
    WHOLE,
    Case,
    Done,
    back,
    echo,
    icmp_error,
    out,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet

from b4client.lab.aftrcore import TO_B4, TO_INTERNET, TO_SENDER, TO_SOFTWIRE
from b4client.lab.aftrfate import COUNTERS, EVENTS, FATES, QUEUE_FULL, SEND_FAILED, Fate
from b4client.lab.aftrfragments import HOLD_S, MAX_WAITING
from b4client.lab.binding import Binding
from b4client.model.portset import PortSet


def customers(port: int, **ip: object) -> Packet:
    """From Alice to a port of her neighbours' address."""
    return IP(src=str(SHARED), dst=str(OTHER), **ip) / UDP(sport=ALICE_PORT, dport=port) / b"x"


def later(case: Case, identification: int = 7) -> Done:
    return case.up(IP(src=str(SHARED), dst=SERVER, id=identification, proto=17, frag=8) / bytes(16))


def lost(case: Case) -> Done:
    later(case)
    case.now += HOLD_S
    return case.watch(lambda: case.aftr.tick(case.now))


def overlap(case: Case) -> Done:
    case.up(IP(src=str(SHARED), dst=SERVER, id=7, flags="MF") / UDP(sport=ALICE_PORT, dport=80) / bytes(80))
    return later(case)


def full(case: Case) -> Done:
    return [later(case, number) for number in range(MAX_WAITING + 1)][-1]


def tunnel(error: Packet, packet: Packet) -> bytes:
    return bytes(error / IPv6(src="2001:db8:ffff::1", dst=str(ALICE_B4)) / packet)


def many(case: Case, packet: Packet, b4: IPv6Address | None) -> Done:
    return [case.down(packet) if b4 is None else case.up(packet, b4) for _ in range(101)][-1]


BAD = bytes(out())[:10] + b"\0\0" + bytes(out())[12:]
REACHED: dict[str, Callable[[Case], Done]] = {
    "decapsulated": lambda case: case.up(out()),
    "encapsulated": lambda case: case.down(back()),
    "hairpinned": lambda case: case.up(customers(CAROL_PORT)),
    "drop-unknown-softwire": lambda case: case.up(out(), STRANGER),
    "drop-foreign-ipv4-address": lambda case: case.up(out(source=OTHER)),
    "drop-outside-port-set": lambda case: case.up(out(BOB_PORT)),
    "drop-no-binding": lambda case: case.down(back(UNBOUND_PORT)),
    "drop-hairpin-no-binding": lambda case: case.up(customers(UNBOUND_PORT)),
    "drop-hairpin-policy": lambda case: Case(hairpin=False).up(customers(CAROL_PORT)),
    "drop-hairpin-ttl": lambda case: case.up(customers(CAROL_PORT, ttl=1)),
    "drop-too-big": lambda case: case.down(back(size=1500, flags="DF")),
    "drop-congestion": lambda case: case.up(out(), traffic_class=3),
    "drop-malformed": lambda case: case.up(b"E"),
    "drop-bad-checksum": lambda case: case.up(BAD),
    "drop-unsupported-protocol": lambda case: case.down(IP(src=SERVER, dst=str(SHARED), proto=47) / bytes(8)),
    "drop-icmp-policy": lambda case: case.down(echo(SERVER, SHARED, ALICE_PORT, 13)),
    "drop-fragment-without-first": lost,
    "drop-fragment-overlap": overlap,
    "drop-fragment-memory": full,
    "fragments-held": later,
    "icmpv6-rejects": lambda case: Case(reject=True).up(out(), STRANGER),
    "icmpv6-rejects-suppressed": lambda case: many(Case(reject=True), out(), STRANGER),
    "icmpv4-unreachable": lambda case: Case(unreachable=True).down(back(UNBOUND_PORT)),
    "icmpv4-too-big": lambda case: case.down(back(size=1500, flags="DF")),
    "icmpv4-time-exceeded": lambda case: case.up(customers(CAROL_PORT, ttl=1)),
    "icmpv4-suppressed": lambda case: many(Case(unreachable=True), back(UNBOUND_PORT), None),
    "icmpv6-too-big": lambda case: case.error(tunnel(ICMPv6PacketTooBig(mtu=1280), back())),
    "icmpv6-unreachable": lambda case: case.error(tunnel(ICMPv6DestUnreach(), back())),
    "icmpv6-foreign": lambda case: case.error(b"\x01"),
}
OF_THE_SHELL = {SEND_FAILED, QUEUE_FULL}
"""Reached with a kernel, in tests/netns/test_netns_aftr.py."""


@pytest.mark.parametrize("name", REACHED)
def test_reached(name: str) -> None:
    assert REACHED[name](Case()).counted[name] == 1


def test_all_counters_are_reached_and_told() -> None:
    assert REACHED.keys() | OF_THE_SHELL == COUNTERS.keys()
    assert FATES.keys() == set(Fate)
    assert not FATES.keys() & EVENTS.keys()
    assert all(sentence and "\n" not in sentence for sentence in COUNTERS.values())
    assert len(set(COUNTERS.values())) == len(COUNTERS)
    assert list(Case().aftr.counters) == list(COUNTERS)


def test_names_are_those_that_people_know() -> None:
    known = "decapsulated encapsulated drop-no-binding drop-outside-port-set drop-unknown-softwire drop-malformed"
    assert not set(known.split()) - COUNTERS.keys()
    assert all(fate.startswith("drop-") for fate in Fate if fate not in ("decapsulated", "encapsulated", "hairpinned"))


# ---- whatever comes

B4S = [b4.packed for b4 in (ALICE_B4, BOB_B4, CAROL_B4, DAVE_B4, STRANGER, IPv6Address("::"))]
GOOD = [
    bytes(packet)
    for packet in (
        out(),
        back(),
        back(size=1500, flags="DF"),
        customers(CAROL_PORT),
        echo(SHARED, SERVER, ALICE_PORT),
        echo(SERVER, SHARED, BOB_PORT, 0),
        icmp_error(ROUTER, SHARED, out()),
        icmp_error(SHARED, OTHER, back()),
        IP(src=str(WHOLE), dst=SERVER, proto=50) / bytes(30),
        IP(src=str(SHARED), dst=SERVER, id=1, flags="MF") / UDP(sport=ALICE_PORT, dport=80) / bytes(24),
        IP(src=str(SHARED), dst=SERVER, id=1, frag=4, proto=17) / bytes(24),
        IP(src=SERVER, dst=str(SHARED), id=1, frag=4, proto=17, flags="MF") / bytes(24),
        IP(src=str(SHARED), dst=str(OTHER), id=2, flags="MF") / ICMP(id=ALICE_PORT) / bytes(24),
    )
]


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Octets; or a good packet, cut or with octets changed, its header checksum mended so that it gets further."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=80))
    packet = bytearray(draw(st.sampled_from(GOOD)))
    for at, value in draw(st.lists(st.tuples(st.integers(0, len(packet) - 1), st.integers(0, 255)), max_size=3)):
        packet[at] = value
    if draw(st.booleans()):
        packet[6:8] = draw(st.integers(0, 0xFFFF)).to_bytes(2, "big")
    if draw(st.booleans()):
        packet[10:12] = b"\0\0"
        mended = bytes(packet[: (packet[0] & 15) * 4])
        packet[10:12] = (0xFFFF - int.from_bytes(mended, "big") % 0xFFFF).to_bytes(2, "big")
    cut = draw(st.integers(0, 2 * len(packet)))
    return bytes(packet[:cut]) if cut else bytes(packet)


def leave_as_they_must(case: Case, done: Done) -> None:
    """What leaves is fit to leave."""
    for where, octets, customer, address in done.outcomes:
        if where in (TO_INTERNET, TO_SOFTWIRE):
            assert len(octets) == IP(octets).len
            assert not int.from_bytes(octets[: (octets[0] & 15) * 4], "big") % 0xFFFF
            assert (where is TO_SOFTWIRE) == (customer is not None)
        else:
            assert len(address) == {TO_SENDER: 4, TO_B4: 16}[where]
            assert len(octets) <= (1240 if where is TO_B4 else 556)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(packets(), st.sampled_from([*B4S, None]), st.integers(0, 255), st.floats(0, 5)),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_comes_has_one_fate(steps: list[tuple[bytes, bytes | None, int, float]]) -> None:
    case = Case(reject=True, unreachable=True)
    for packet, b4, traffic_class, pause in steps:
        case.now += pause
        done = case.down(packet) if b4 is None else case.up(packet, IPv6Address(b4), traffic_class)
        leave_as_they_must(case, done)
        case.balance()
        passed = [o for o in done.outcomes if o[0] in (TO_INTERNET, TO_SOFTWIRE)]
        good = sum(done.counted.get(name, 0) for name in ("decapsulated", "encapsulated", "hairpinned"))
        assert len(passed) == good
    case.now += 100
    case.aftr.tick(case.now)
    assert case.aftr.fragments.waiting == 0
    case.balance()


@settings(max_examples=300, deadline=None)
@given(packets(), st.sampled_from(B4S), st.sampled_from([0, 0, 3, 0xB8]), st.sampled_from([1280, 1500]))
def test_the_short_way_decides_as_the_long_one(packet: bytes, b4: bytes, traffic_class: int, mtu: int) -> None:
    short, long = Case(link_mtu=mtu), Case(link_mtu=mtu)
    for downward in (False, True):
        if downward:
            one = short.aftr.downward(packet, 1.0)
            two = long.aftr._long_way(packet, None, 0, 1.0)
        else:
            one = short.aftr.upward(packet, b4, traffic_class, 1.0)
            two = long.aftr._long_way(packet, b4, traffic_class, 1.0)
        assert [(w, o, c and c.binding, a) for w, o, c, a in one] == [(w, o, c and c.binding, a) for w, o, c, a in two]
        assert short.aftr.counters == long.aftr.counters
    lines = [[c.to_json(1.0) for c in case.aftr.table.customers()] for case in (short, long)]
    assert lines[0] == lines[1]


@given(st.binary(max_size=200), st.integers(0, 5))
def test_whatever_icmpv6_comes(octets: bytes, kind: int) -> None:
    case = Case()
    good = tunnel(ICMPv6PacketTooBig(mtu=1280), back(size=1400, flags="DF"))
    for message in (octets, bytes((kind,)) + good[1 : 8 + len(octets)] + octets, good[:48] + octets):
        counted = case.error(message).counted
        assert sum(counted.get(name, 0) for name in ("icmpv6-too-big", "icmpv6-unreachable", "icmpv6-foreign")) == 1


def test_nobody_ever_sends_from_or_gets_what_is_not_his() -> None:
    """Sixteen customers, every kind of packet at random: what passes is checked from outside."""
    rng = random.Random(4)
    ends = [IPv6Address(0x20010DB8 << 96 | n) for n in range(16)]
    case = Case(*(Binding(SHARED, PortSet(0, 4, n), b4) for n, b4 in enumerate(ends)))
    for _ in range(1500):
        b4, port, to = rng.choice(ends), rng.randrange(65536), rng.choice([SERVER, str(SHARED)])
        inner = IP(src=str(SHARED), dst=to) / UDP(sport=port, dport=rng.randrange(65536)) / b"x"
        query = IP(src=str(SHARED), dst=to) / ICMP(id=port)
        for packet in (inner, query):
            done = case.up(packet, b4)
            assert bool(done.outcomes) == (port >> 12 == ends.index(b4))
            for where, _, customer, _ in done.outcomes:
                assert (where is TO_SOFTWIRE) == (to != SERVER)
                target = packet[UDP].dport if UDP in packet else port
                assert customer is None or customer.b4 == ends[target >> 12].packed
