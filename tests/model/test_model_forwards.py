"""Where forwards are in a port set: as asked, moved, waiting; deterministic."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from b4client.model.forwards import describe_ports, in_force, place
from b4client.model.portset import PortSet
from b4client.model.softwire import Mode, PortForward

HOST = IPv4Address("192.168.1.10")
FLAT, MANY = PortSet(0, 8, 0x34), PortSet(4, 8, 0x34)


def forward(port: int, *, protocol: str = "tcp", move: bool = False, to_port: int = 80) -> PortForward:
    return PortForward(protocol, port, HOST, to_port, move)


def ports_of(wanted: list[PortForward], ports: PortSet | None, mode: Mode = Mode.LW4O6) -> list[int | None]:
    return [p.port for p in place(wanted, mode, ports)]


def test_as_asked_or_not_at_all() -> None:
    wanted = [forward(0x3400), forward(80), forward(0x34FF, protocol="udp")]
    assert ports_of(wanted, FLAT) == [0x3400, None, 0x34FF]
    assert place(wanted, Mode.LW4O6, FLAT)[1].reason == "port 80 is not in the port set (PSID 0x34/8 offset 0)"
    assert ports_of(wanted, None) == [0x3400, 80, 0x34FF]
    assert ports_of(wanted, None, Mode.DS_LITE) == [None] * 3
    assert "AFTR" in str(place(wanted, Mode.DS_LITE, None)[0].reason)
    assert [f.port for f in in_force(wanted, Mode.LW4O6, FLAT)] == [0x3400, 0x34FF]


def test_the_first_of_two_has_the_port() -> None:
    wanted = [forward(0x3401, to_port=1), forward(0x3401, to_port=2), forward(0x3401, protocol="udp")]
    assert ports_of(wanted, FLAT) == [0x3401, None, 0x3401]
    assert place(wanted, Mode.LW4O6, FLAT)[1].reason == "tcp 13313 is forwarded to 192.168.1.10:1 already"


def test_a_moved_one_has_its_place_in_the_set() -> None:
    """The port asked for modulo the number of ports; in a set of many ranges counted through them."""
    assert ports_of([forward(80, move=True)], FLAT) == [0x3400 + 80]
    assert ports_of([forward(80, move=True), forward(80, move=True, protocol="udp")], MANY) == [
        list(MANY.ports())[80],
        list(MANY.ports())[80],
    ]
    # Asked for exactly, it is not taken by one that moves, whichever is first; the next one is, past the end the first.
    assert ports_of([forward(255, move=True), forward(0x34FF)], FLAT) == [0x3400, 0x34FF]
    moved = place([forward(80, move=True)], Mode.LW4O6, FLAT)[0]
    assert moved.placed == PortForward("tcp", 0x3450, HOST, 80)
    assert moved.reason == "port 80 is not in the port set (PSID 0x34/8 offset 0)"


def test_port_0_is_given_to_nobody() -> None:
    assert ports_of([forward(4096, move=True)], PortSet(0, 4, 0)) == [1]


def test_no_port_is_left() -> None:
    tiny = PortSet(0, 15, 7)
    wanted = [forward(p, move=True) for p in (1, 2, 3)]
    assert sorted(p or 0 for p in ports_of(wanted, tiny)) == [0, 14, 15]
    assert "no port of the set is free of forwards" in str(place(wanted, Mode.LW4O6, tiny)[2].reason)


def test_what_is_possible() -> None:
    assert describe_ports(FLAT) == "13312-13567"
    assert describe_ports(None) == "1-65535"
    assert describe_ports(MANY).startswith("4928-4943, 9024-9039, ")
    assert describe_ports(PortSet(8, 4, 1)).endswith("... (255 ranges)")


FORWARDS = st.builds(
    forward,
    st.integers(1, 65535),
    protocol=st.sampled_from(["tcp", "udp"]),
    move=st.booleans(),
    to_port=st.integers(1, 9),
)
SETS = st.one_of(
    st.none(),
    st.builds(lambda a, k, p: PortSet(a, k, p % (1 << k)), st.integers(0, 6), st.integers(4, 9), st.integers(0)),
)


@given(st.lists(FORWARDS, max_size=40), SETS)
def test_nothing_outside_the_set_and_nothing_twice(wanted: list[PortForward], ports: PortSet | None) -> None:
    placed = place(wanted, Mode.LW4O6, ports)
    assert [p.forward for p in placed] == wanted
    had = [(p.forward.protocol, p.port) for p in placed if p.port is not None]
    assert len(set(had)) == len(had)
    assert all(ports is None or port in ports for _, port in had)
    assert all((p.port == p.forward.port) == (p.reason is None) for p in placed)
    # With the same set it is the same again; with the set back, as it was.
    place(wanted, Mode.LW4O6, PortSet(6, 8, 1))
    assert place(wanted, Mode.LW4O6, ports) == placed
