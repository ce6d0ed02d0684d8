"""The feed from the lab server's leases to the lwAFTR's bindings: both ends, and whatever restarts (RFC 7596 6.1)."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b4client import api
from b4client.lab import feed as feed_module
from b4client.lab import feedhub
from b4client.lab.aftrfeed import FeedReader, Follower
from b4client.lab.binding import Binding, BindingTable
from b4client.lab.feed import Publication
from b4client.lab.feedhub import FeedHub
from b4client.lab.leaserecord import Lease, State
from b4client.lab.netns import wait_until
from b4client.lab.pools import Slot
from b4client.model.portset import PortSet

A = IPv4Address("192.0.2.1")
HOME, AWAY = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")


def lease(psid: int, source: IPv6Address = HOME, until: float = 1000.0, state: State = State.BOUND) -> Lease:
    return Lease(Slot(A, PortSet(0, 4, psid)), bytes((psid,)), state, until, "site", source)


def text(psid: int, b4: IPv6Address = HOME) -> str:
    return f"{A},a=0,k=4,psid={psid:#x},b4={b4}"


# ---- what is published


def test_changes() -> None:
    publication = Publication()
    assert publication.update([lease(1), lease(2, until=math.inf)]) == [
        {"bind": [[text(1), 1000.0], [text(2), None]], "unbind": []}
    ]
    assert publication.update([lease(1)]) == []
    assert publication.update([lease(1, until=2000.0)]) == [{"bind": [[text(1), 2000.0]], "unbind": []}]  # a renewal
    assert publication.update([lease(1, AWAY)]) == [{"bind": [[text(1, AWAY), 1000.0]], "unbind": [text(1)]}]
    assert publication.update([lease(1, AWAY, state=State.FORMER)]) == [{"bind": [], "unbind": [text(1, AWAY)]}]
    assert publication.update([lease(1, state=State.DECLINED)]) == []
    # Known by a link-local address only: nothing an lwAFTR could use.
    assert publication.update([lease(3, IPv6Address("fe80::1"))]) == []
    # There and back within one step.
    assert publication.update([lease(2, state=State.FORMER), lease(2, until=math.inf)]) == []
    assert publication.snapshot() == [{"snapshot": [[text(2), None]], "more": False}]


def test_long_ones_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "CHUNK", 2)
    publication = Publication()
    assert publication.snapshot() == [{"snapshot": [], "more": False}]
    parts = publication.update([lease(n) for n in range(5)])
    assert [len(part["bind"]) for part in parts] == [2, 2, 1]
    assert [(len(part["snapshot"]), part["more"]) for part in publication.snapshot()] == [
        (2, True),
        (2, True),
        (1, False),
    ]


def test_the_longest_message_fits() -> None:
    publication = Publication()
    leases = [
        Lease(Slot(IPv4Address(n), PortSet(10, 6, 63)), b"", State.BOUND, 1e10 / 3, "", IPv6Address((1 << 128) - 1))
        for n in range(0xC8C8C8C8, 0xC8C8C8C8 + feed_module.CHUNK)
    ]
    ((message,)) = publication.update(leases)
    assert len(api.encode(message)) < api.MAX_LINE


# ---- what is followed


def follow(*messages: object, table: BindingTable | None = None) -> tuple[BindingTable, Follower]:
    table = BindingTable() if table is None else table
    follower = Follower(table)
    for message in messages:
        follower.take(message)
    return table, follower


def bound(table: BindingTable) -> set[str]:
    return {str(binding) for binding in table}


def test_following() -> None:
    table, follower = follow({"snapshot": [[text(1), 50.0]], "more": False}, {"bind": [[text(2), None]], "unbind": []})
    assert bound(table) == {text(1), text(2)}
    customers = {c.binding.ports.psid: c for c in table.customers() if c.binding.ports}
    assert (customers[1].until, customers[2].until) == (50.0, None)
    follower.take({"bind": [[text(1), 70.0]], "unbind": [text(2)]})
    assert bound(table) == {text(1)}
    assert table.customer(Binding.parse(text(1))) is customers[1]  # a renewal changes nothing but the end
    assert customers[1].until == 70.0
    assert not customers[2].bound


def test_a_snapshot_replaces_what_came_from_the_feed_and_only_that() -> None:
    mine = Binding.parse(text(9))
    table, follower = follow(
        {"snapshot": [[text(1), None], [text(2), None]], "more": False}, table=BindingTable([mine])
    )
    kept = table.customer(Binding.parse(text(2)))
    follower.take({"snapshot": [[text(2), None]], "more": True})
    assert bound(table) == {text(1), text(2), text(9)}  # nothing before it is whole
    follower.take({"snapshot": [[text(3), None]], "more": False})
    assert bound(table) == {text(2), text(3), text(9)}
    assert table.customer(Binding.parse(text(2))) is kept


def test_half_a_snapshot_is_worth_nothing_at_the_next_meeting() -> None:
    table, follower = follow({"snapshot": [[text(1), None]], "more": True})
    follower.begin()
    follower.take({"snapshot": [[text(2), None]], "more": False})
    assert bound(table) == {text(2)}


def test_a_port_goes_from_one_softwire_to_another_in_one_message() -> None:
    table, follower = follow({"snapshot": [[text(1), None]], "more": False})
    follower.take({"bind": [[text(1, AWAY), None]], "unbind": [text(1)]})
    assert bound(table) == {text(1, AWAY)}
    assert follower.refused == 0


def test_what_overlaps_a_static_binding_is_refused_and_counted() -> None:
    table, follower = follow(
        {"snapshot": [[text(1), None], [text(2), None]], "more": False},
        table=BindingTable([Binding.parse(text(1, AWAY))]),
    )
    assert bound(table) == {text(1, AWAY), text(2)}
    assert (follower.refused, len(follower)) == (1, 1)
    follower.take({"bind": [], "unbind": [text(1)]})  # was never made: nothing to take away
    assert bound(table) == {text(1, AWAY), text(2)}


def test_what_the_operator_took_away_can_be_unbound() -> None:
    table, follower = follow({"snapshot": [[text(1), None]], "more": False})
    table.remove(Binding.parse(text(1)))
    follower.take({"bind": [], "unbind": [text(1)]})
    assert len(follower) == 0


def test_bindings_end_with_their_leases() -> None:
    """The lifetimes MUST be the same (RFC 7596 6.1), also while the server is away."""
    table, follower = follow({"snapshot": [[text(1), 50.0], [text(2), 60.0], [text(3), None]], "more": False})
    follower.expire(49.9)
    assert len(table) == 3
    follower.expire(50.0)
    assert bound(table) == {text(2), text(3)}
    follower.expire(1e12)
    assert bound(table) == {text(3)}
    assert follower.expired == 2


NONSENSE = [
    None,
    [],
    "x",
    {"snapshot": None},
    {"snapshot": [["x", None]]},
    {"snapshot": [[text(1)]]},
    {"snapshot": [[7, None]]},
    {"snapshot": [[text(1), "soon"]]},
    {"bind": {}, "unbind": []},
    {"bind": [], "unbind": ["x"]},
    {"bind": [[text(5), None]], "unbind": 7},
]


@pytest.mark.parametrize("message", NONSENSE)
def test_nonsense_changes_nothing(message: object) -> None:
    table, follower = follow({"snapshot": [[text(1), None]], "more": False})
    with pytest.raises(ValueError, match=r"feed|binding|form|unpack"):
        follower.take(message)
    assert bound(table) == {text(1)}


@st.composite
def leases(draw: st.DrawFn) -> Lease:
    state = draw(st.sampled_from([State.BOUND, State.BOUND, State.FORMER, State.DECLINED]))
    return lease(draw(st.integers(0, 3)), draw(st.sampled_from([HOME, AWAY])), draw(st.integers(1, 3)), state)


@given(st.lists(st.tuples(st.lists(leases(), max_size=4), st.booleans()), max_size=12))
def test_the_follower_has_what_is_in_force(steps: list[tuple[list[Lease], bool]]) -> None:
    """Whatever changes, and whenever the two meet anew: the table is what the last record of each slot says."""
    publication, table, latest = Publication(), BindingTable(), {}
    follower = Follower(table)
    for changes, meet in steps:
        latest.update({change.slot: change for change in changes})
        messages = publication.update(changes)
        for message in publication.snapshot() if meet else messages:
            follower.take(json.loads(api.encode(message)))
        met = meet or follower.snapshots
        expected = {str(feed_module.binding_of(x)): x.until for x in latest.values() if x.state is State.BOUND}
        if met:
            assert {str(c.binding): c.until for c in table.customers()} == expected
            assert follower.refused == 0
        else:
            follower = Follower(table := BindingTable())


# ---- the two ends over a socket


class Reader:
    """An lwAFTR's feed in a thread, that can be watched."""

    def __init__(self, path: Path, now: float = 0.0) -> None:
        self.table = BindingTable()
        self.lock = threading.Lock()
        self.now = now
        self.reader = FeedReader(path, Follower(self.table), self.lock, lambda: self.now)
        self.ended = threading.Event()
        threading.Thread(target=self.reader.run, args=(self.ended,), daemon=True).start()

    @property
    def bound(self) -> set[str]:
        with self.lock:
            return bound(self.table)

    def wait_connected(self, *, connected: bool = True) -> None:
        wait_until(lambda: self.reader.to_json()["connected"] is connected, 5, "the feed")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "feed.sock"


@pytest.fixture
def reader_at() -> Iterator[Callable[..., Reader]]:
    """Call it for a Reader that ends with the test."""
    made: list[Reader] = []

    def make(path: Path, now: float = 0.0) -> Reader:
        made.append(Reader(path, now))
        return made[-1]

    yield make
    for reader in made:
        reader.ended.set()


ReaderAt = Callable[..., Reader]


@pytest.fixture
def hub(path: Path) -> Iterator[FeedHub]:
    hub = FeedHub(path)
    hub.publish([lease(1)])
    hub.start()
    yield hub
    hub.close()


def test_published_is_in_force(hub: FeedHub, path: Path, reader_at: ReaderAt) -> None:
    """``publish`` returns when the binding is there: the client's ACK leaves after it."""
    readers = [reader_at(path), reader_at(path)]
    for reader in readers:
        reader.wait_connected()
        assert reader.bound == {text(1)}
    assert path.stat().st_mode & 0o777 == 0o600
    for psid in range(2, 8):
        hub.publish([lease(psid)])
        assert all(text(psid) in reader.bound for reader in readers)
        hub.publish([lease(psid, state=State.FORMER)])
        assert all(reader.bound == {text(1)} for reader in readers)
    assert readers[0].reader.to_json() == {
        "path": str(path),
        "connected": True,
        "bindings": 1,
        "refused": 0,
        "expired": 0,
        "snapshots": 1,
    }


def test_the_server_is_started_again(hub: FeedHub, path: Path, reader_at: ReaderAt) -> None:
    reader = reader_at(path)
    reader.wait_connected()
    hub.close()
    reader.wait_connected(connected=False)
    assert reader.bound == {text(1)}
    # Meanwhile 1 was released; what the lease file still has is 2.
    again = FeedHub(path)
    again.publish([lease(2)])
    again.start()
    wait_until(lambda: reader.bound == {text(2)}, 5, "the new bindings")
    again.close()


def test_an_aftr_before_its_server(path: Path, reader_at: ReaderAt) -> None:
    reader = reader_at(path)
    hub = FeedHub(path)
    hub.publish([lease(1)])
    hub.start()
    wait_until(lambda: reader.bound == {text(1)}, 5, "the bindings")
    hub.close()


def test_expired_on_arrival(hub: FeedHub, path: Path, reader_at: ReaderAt) -> None:
    reader = reader_at(path, now=1000.0)
    wait_until(lambda: reader.reader.to_json()["expired"] == 1, 5, "the lease to be over")
    assert reader.bound == set()
    hub.publish([lease(2, until=1001.0)])
    assert reader.bound == {text(2)}
    # The server goes for good, the lease ends all the same.
    hub.close()
    reader.wait_connected(connected=False)
    reader.reader.expire()
    assert reader.bound == {text(2)}
    reader.now = 1001.0
    reader.reader.expire()
    assert reader.bound == set()


def subscriber(path: Path) -> socket.socket:
    """One that comes, gets the snapshot, and then says nothing more."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(5)
    connection.connect(str(path))
    connection.sendall(api.encode({"command": "subscribe"}))
    assert connection.recv(65536).endswith(b"\n")
    connection.sendall(b"{}\n")
    return connection


def test_one_that_does_not_answer_is_let_go(
    hub: FeedHub, path: Path, monkeypatch: pytest.MonkeyPatch, reader_at: ReaderAt
) -> None:
    monkeypatch.setattr(feedhub, "ANSWER_S", 0.2)
    silent, good = subscriber(path), reader_at(path)
    good.wait_connected()
    begin = time.monotonic()
    hub.publish([lease(2)])
    assert 0.2 <= time.monotonic() - begin < 2
    assert good.bound == {text(1), text(2)}
    with silent:
        while silent.recv(65536):
            pass  # what was sent, and then the end
    begin = time.monotonic()
    hub.publish([lease(3)])
    assert time.monotonic() - begin < 0.2
    assert text(3) in good.bound


def test_subscribers_are_bounded_and_the_dead_make_room(
    hub: FeedHub, path: Path, monkeypatch: pytest.MonkeyPatch, reader_at: ReaderAt
) -> None:
    monkeypatch.setattr(feedhub, "MAX_SUBSCRIBERS", 2)
    first, second = subscriber(path), subscriber(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as third:
        third.settimeout(5)
        third.connect(str(path))
        third.sendall(api.encode({"command": "subscribe"}))
        assert third.recv(100) == b""
    first.close()
    reader = reader_at(path)
    reader.wait_connected()
    second.close()


@pytest.mark.parametrize("said", [b"", b"\n", b'{"command":"dance"}\n', b"x" * 20000])
def test_who_does_not_subscribe_gets_nothing(
    hub: FeedHub, path: Path, said: bytes, monkeypatch: pytest.MonkeyPatch, reader_at: ReaderAt
) -> None:
    monkeypatch.setattr(feedhub, "ANSWER_S", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(said)
        try:
            assert connection.recv(100) == b""
        except ConnectionResetError:
            pass  # closed with octets unread
    hub.publish([lease(2)])
    reader_at(path).wait_connected()


def test_a_server_that_speaks_nonsense(path: Path, capfd: pytest.CaptureFixture[str], reader_at: ReaderAt) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        reader = reader_at(path)
        for line in (b"nonsense\n", b"[" * 100000 + b"\n", b'{"snapshot":[["x",1]]}\n'):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(line)
                while connection.recv(100):
                    pass
        connection, _ = listener.accept()
        with connection:
            connection.sendall(api.encode({"snapshot": [[text(4), None]], "more": False}))
            wait_until(lambda: reader.bound == {text(4)}, 5, "sense at last")
    assert capfd.readouterr().err.count("speaks nonsense") == 3
