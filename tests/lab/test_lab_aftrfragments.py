"""Fragments through the lwAFTR (RFC 7597 8.3.2): the first decides, some wait, nothing overlaps, memory has an end."""

from __future__ import annotations

import random
from ipaddress import IPv4Network, IPv6Address

import pytest
from aftrcase import (
    ALICE,
    ALICE_B4,
    ALICE_PORT,
    BOB_B4,
    BOB_PORT,
    CAROL_PORT,
    DAVE_B4,
    OTHER,
    SERVER,
    SHARED,
    STRANGER,
    WHOLE,
    Case,
    back,
    icmp_error,
    out,
)
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, fragment
from scapy.packet import Packet

from b4client.lab import aftrfragments
from b4client.lab.aftrfragments import HOLD_S, MAX_GAPS, MAX_TRAINS, MAX_WAITING, TRAIN_LIFE_S, Place, Train
from b4client.lab.aftrpacket import Fragment
from b4client.lab.binding import Binding, BindingTable
from b4client.model.portset import PortSet


def cut(packet: Packet, size: int = 1400) -> list[bytes]:
    return [bytes(part) for part in fragment(IP(bytes(packet)), fragsize=size)]


def up3(identification: int = 77, port: int = ALICE_PORT, destination: object = SERVER) -> list[bytes]:
    """Three fragments of a customer's packet."""
    packet = IP(src=str(SHARED), dst=str(destination), id=identification) / UDP(sport=port, dport=CAROL_PORT)
    return cut(packet / bytes(3000))


def down3(identification: int = 78, port: int = ALICE_PORT) -> list[bytes]:
    return cut(back(port, size=3000, id=identification))


def part(start: int, end: int, *, more: bool = True, identification: int = 5) -> bytes:
    """Octets ``start`` to ``end`` of a customer's UDP packet, of whatever contents."""
    header = IP(src=str(SHARED), dst=SERVER, id=identification, proto=17, flags="MF" if more else 0, frag=start // 8)
    ports = (ALICE_PORT.to_bytes(2, "big") + b"\0\x50" + bytes(4)) if not start else b""
    return bytes(header / (ports + bytes(end - start - len(ports))))


# ---- the first decides


def test_in_order_up_and_down(case: Case) -> None:
    for number, octets in enumerate(up3()):
        done = case.up(octets)
        assert (done.fate, done.outcomes[0][1]) == ("decapsulated", octets), number
    for octets in down3():
        done = case.down(octets)
        assert done.fate == "encapsulated"
        assert done.outcomes[0][2].b4 == ALICE_B4.packed  # type: ignore[union-attr]
    assert len(case.aftr.fragments) == 0  # all is there: nothing to be remembered


def test_a_refused_first_takes_the_rest_with_it(case: Case) -> None:
    assert [case.up(octets).fate for octets in up3(port=BOB_PORT)] == ["drop-outside-port-set"] * 3
    assert [case.down(octets).fate for octets in down3(port=9)] == ["drop-no-binding"] * 3


def test_only_the_first_is_answered() -> None:
    case = Case(reject=True, unreachable=True)
    assert [case.up(octets).counted.get("icmpv6-rejects", 0) for octets in up3(port=BOB_PORT)] == [1, 0, 0]
    assert [case.down(octets).counted.get("icmpv4-unreachable", 0) for octets in down3(port=9)] == [1, 0, 0]


def test_of_another_softwire_is_another_datagram(case: Case) -> None:
    """Two customers of one address may use one identification to one destination at the same time (RFC 7597 8.3.3)."""
    alices, bobs = up3(), up3(port=BOB_PORT)
    for mine, others in zip(alices, bobs, strict=True):
        assert case.up(mine).fate == "decapsulated"
        assert case.up(others, BOB_B4).fate == "decapsulated"


def test_who_has_no_binding_gets_no_memory() -> None:
    case = Case(reject=True, unreachable=True)
    case.aftr.table = BindingTable([ALICE], pools=[IPv4Network("192.0.2.0/24")])
    assert [case.up(octets, STRANGER).fate for octets in reversed(up3())] == ["drop-unknown-softwire"] * 3
    nobody = cut(IP(src=SERVER, dst="192.0.2.200", id=4) / UDP() / bytes(3000))
    assert [case.down(octets).fate for octets in reversed(nobody)] == ["drop-no-binding"] * 3
    assert case.aftr.fragments.waiting == len(case.aftr.fragments) == 0
    assert case.aftr.counters["icmpv6-rejects"] == case.aftr.counters["icmpv4-unreachable"] == 1


def test_hairpin(case: Case) -> None:
    for octets in up3(destination=OTHER):
        done = case.up(octets)
        assert done.fate == "hairpinned"
        assert done.packet.ttl == 63
        assert done.outcomes[0][2].binding.address == OTHER  # type: ignore[union-attr]


def test_protocol_without_ports_on_a_whole_address(case: Case) -> None:
    packet = IP(src=str(WHOLE), dst=SERVER, id=3, proto=47) / bytes(3000)
    assert [case.up(octets, DAVE_B4).fate for octets in cut(packet)] == ["decapsulated"] * 3


def test_icmp_error_in_fragments(case: Case) -> None:
    # Its checksum cannot be known from the first fragment alone.
    error = cut(icmp_error(SERVER, SHARED, bytes(out()) + bytes(2000)))
    assert [case.down(octets).fate for octets in error] == ["encapsulated"] * len(error)


def test_traffic_class_of_each(case: Case) -> None:
    first, second, _ = up3()
    assert case.up(first, traffic_class=0xB8).packet.tos == 0xB8
    assert case.up(second, traffic_class=0x28).packet.tos == 0x28
    assert case.up(up3()[2], traffic_class=3).fate == "drop-congestion"


def test_too_big_with_df(case: Case) -> None:
    octets = IP(down3()[0])
    octets.flags, octets.chksum = "MF+DF", None
    assert case.down(bytes(octets)).fate == "encapsulated"
    case = Case(link_mtu=1300)
    assert case.down(bytes(octets)).counted == {"drop-too-big": 1, "icmpv4-too-big": 1}


def test_release_ends_a_datagram_in_the_middle(case: Case) -> None:
    up, down = up3(), down3()
    assert case.up(up[0]).fate == "decapsulated"
    assert case.down(down[0]).fate == "encapsulated"
    case.aftr.table.remove(ALICE)
    assert case.up(up[1]).fate == "drop-unknown-softwire"
    assert case.down(down[1]).fate == "drop-no-binding"
    # She has something else by now.
    case.aftr.table.add(Binding(OTHER, PortSet(6, 8, 1), ALICE_B4))
    assert case.up(up[2]).fate == "drop-outside-port-set"


# ---- out of order


def test_those_that_overtook_the_first_wait_for_it(case: Case) -> None:
    first, second, third = up3()
    assert case.up(third).counted == {"fragments-held": 1}
    assert case.up(second).counted == {"fragments-held": 1}
    case.now += HOLD_S / 2
    done = case.up(first)
    assert done.counted == {"decapsulated": 3}
    assert [octets for _, octets, _, _ in done.outcomes] == [first, third, second]
    case.balance()


def test_they_wait_in_vain(case: Case) -> None:
    first, second, third = down3()
    for octets in (second, third):
        assert case.down(octets).counted == {"fragments-held": 1}
    case.now += HOLD_S
    done = case.watch(lambda: case.aftr.tick(case.now))
    assert done.counted == {"drop-fragment-without-first": 2}
    assert case.down(first).fate == "encapsulated"
    case.balance()


def test_they_share_a_refusal(case: Case) -> None:
    first, second, _ = up3(port=BOB_PORT)
    case.up(second)
    assert case.up(first).counted == {"drop-outside-port-set": 2}


@pytest.mark.parametrize("seed", range(8))
def test_every_order(case: Case, seed: int) -> None:
    packet = back(size=9000, id=seed)
    parts = cut(packet, 800)
    shuffled = parts.copy()
    random.Random(seed).shuffle(shuffled)
    outcomes = [outcome for octets in shuffled for outcome in case.down(octets).outcomes]
    assert sorted(octets for _, octets, _, _ in outcomes) == sorted(parts)
    assert case.aftr.counters["encapsulated"] == len(parts)
    assert len(case.aftr.fragments) == case.aftr.fragments.waiting == 0


# ---- overlaps


@pytest.mark.parametrize(
    ("start", "end", "more"),
    [(8, 64, True), (56, 120, True), (8, 120, True), (48, 80, False)],
    ids=["from the first into the gap", "over the second", "over all", "over all, and last"],
)
def test_overlap_ends_the_datagram(case: Case, start: int, end: int, more: bool) -> None:
    assert case.up(part(0, 56)).fate == "decapsulated"
    assert case.up(part(64, 72)).fate == "decapsulated"
    assert case.up(part(start, end, more=more)).fate == "drop-fragment-overlap"
    assert case.up(part(120, 128, more=False)).fate == "drop-fragment-overlap"
    # The next datagram of the same identification is a new one.
    assert case.up(part(0, 56)).fate == "decapsulated"


def test_a_repeated_fragment_is_dropped_by_itself(case: Case) -> None:
    first, second, third = up3()
    assert [case.up(octets).fate for octets in (first, second, second, third)] == [
        "decapsulated",
        "decapsulated",
        "drop-fragment-overlap",
        "decapsulated",
    ]


def test_another_first_fragment_is_judged_by_its_own_port(case: Case) -> None:
    """Who rewrites the ports behind the check is checked again."""
    first, second, _ = up3()
    assert case.up(first).fate == "decapsulated"
    assert case.up(up3(port=BOB_PORT)[0]).fate == "drop-outside-port-set"
    assert case.up(second).fate == "drop-outside-port-set"


def test_two_ends_and_octets_behind_the_end(case: Case) -> None:
    for wrong in (part(64, 72, more=False), part(64, 72)):
        assert case.up(part(0, 16)).fate == "decapsulated"
        assert case.up(part(48, 56, more=False)).fate == "decapsulated"
        assert case.up(wrong).fate == "drop-fragment-overlap"
    assert case.up(part(0, 16)).fate == "decapsulated"
    assert case.up(part(48, 56)).fate == "decapsulated"
    assert case.up(part(24, 32, more=False)).fate == "drop-fragment-overlap"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6), st.booleans()), max_size=30))
def test_places_against_an_oracle(pieces: list[tuple[int, int, bool]]) -> None:
    """Octet by octet in a set: nothing that overlaps fits, what is new fits, and completeness is told."""
    train, there, end = Train("verdict", 0.0), set(), None
    for start, length, more in pieces:
        octets = set(range(start * 8, (start + length) * 8))
        last = max(octets) + 1
        place = train.place(Fragment((b"", b"", 17, 0), start * 8, last, more))
        if octets <= there:
            assert place is Place.AGAIN
            continue
        beyond = (end is not None and (last > end or (not more and last != end))) or (
            not more and bool(there) and max(there) >= last
        )
        assert place is (Place.OVERLAPS if octets & there or beyond else Place.FITS)
        if place is Place.OVERLAPS:
            return
        there |= octets
        end = end if more else last
        assert train.complete == (end is not None and there == set(range(end)))
        assert {octet for first, behind in train.spans for octet in range(first, behind)} == there


# ---- lengths


def test_lengths_that_cannot_be(case: Case) -> None:
    ping_of_death = IP(src=str(SHARED), dst=SERVER, proto=17, frag=0x1FFF) / bytes(24)
    not_of_eight = IP(src=str(SHARED), dst=SERVER, proto=17, flags="MF") / bytes(20)
    empty = IP(src=str(SHARED), dst=SERVER, proto=17, frag=4)
    for packet in (ping_of_death, not_of_eight, empty):
        assert case.up(packet).fate == "drop-malformed"


# ---- memory


def test_trains_are_bounded_and_end(case: Case) -> None:
    for number in range(MAX_TRAINS + 10):
        assert case.up(up3(number)[0]).fate == "decapsulated"
    assert len(case.aftr.fragments) == MAX_TRAINS
    assert case.up(up3(9)[1]).counted == {"fragments-held": 1}  # forgotten
    assert case.up(up3(10)[1]).fate == "decapsulated"
    case.now += TRAIN_LIFE_S
    case.aftr.tick(case.now)
    assert len(case.aftr.fragments) == 0


def test_those_that_wait_are_bounded(case: Case) -> None:
    for number in range(MAX_WAITING):
        assert case.up(part(64, 72, identification=number)).counted == {"fragments-held": 1}
    assert case.up(part(64, 72, identification=MAX_WAITING)).fate == "drop-fragment-memory"
    assert case.up(part(128, 136, identification=0)).counted == {"fragments-held": 1}
    case.balance()


def test_the_octets_that_wait_are_bounded(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aftrfragments, "MAX_WAITING_EACH", 10000)
    monkeypatch.setattr(aftrfragments, "MAX_WAITING_OCTETS", 25000)
    fates = [case.up(part(8192, 8192 + 4096, identification=i)).counted for i in (1, 1, 1, 2, 2, 3, 3, 4)]
    held, full = {"fragments-held": 1}, {"drop-fragment-memory": 1}
    assert fates == [held, held, full, held, held, held, full, full]
    case.now += HOLD_S
    assert case.up(part(8192, 8192 + 4096, identification=9)).counted == {
        "fragments-held": 1,
        "drop-fragment-without-first": 5,
    }


def test_what_waited_makes_room(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it ends: its first comes, or its time is over."""
    monkeypatch.setattr(aftrfragments, "MAX_WAITING_OCTETS", 2000)
    for number in range(200):
        assert case.up(part(512, 1024, identification=number)).counted["fragments-held"] == 1
        assert case.up(part(8, 16, identification=number)).counted == {"fragments-held": 1}
        if number % 2:
            assert case.up(part(0, 8, identification=number)).counted == {"decapsulated": 3}
        else:
            case.now += HOLD_S


def test_gaps_are_bounded(case: Case) -> None:
    assert case.up(part(0, 8)).fate == "decapsulated"
    fates = [case.up(part(16 * n, 16 * n + 8)).fate for n in range(1, MAX_GAPS + 3)]
    assert fates == ["decapsulated"] * (MAX_GAPS - 1) + ["drop-fragment-memory"] * 3


def test_an_identification_comes_round(case: Case) -> None:
    """A sender that is fast uses an identification again within a train's life, for a datagram of another size."""
    for size in (3000, 2000, 4000):
        packet = IP(src=str(SHARED), dst=SERVER, id=1) / UDP(sport=ALICE_PORT, dport=80) / bytes(size)
        assert {case.up(octets).fate for octets in cut(packet)} == {"decapsulated"}


def test_the_softwire_is_part_of_the_key_of_those_that_wait(case: Case) -> None:
    first, second, _ = up3()
    case.up(second, IPv6Address("2001:db8::b"))
    assert case.up(first).counted == {"decapsulated": 1}
