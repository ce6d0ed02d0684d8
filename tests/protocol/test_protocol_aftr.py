"""The AFTR's name becomes an address (RFC 6334 5), as time scripts."""

from __future__ import annotations

from ipaddress import IPv6Address

from b4client.protocol.aftr import AftrFinder
from b4client.protocol.effects import Report, Resolve

ONE, TWO = IPv6Address("2001:db8:ffff::1"), IPv6Address("2001:db8:ffff::2")
NAME = "aftr.example."


def test_a_name() -> None:
    finder = AftrFinder()
    assert finder.want(NAME, 0.0) == [Resolve(NAME)]
    assert finder.address is None
    assert finder.resolved(NAME, (ONE, TWO), "", 1.0) == []
    assert finder.address == ONE
    assert finder.want(NAME, 2.0) == []
    assert finder.deadline() == 3601.0


def test_an_address_needs_no_resolver() -> None:
    finder = AftrFinder()
    assert finder.want(ONE, 0.0) == []
    assert (finder.address, finder.deadline()) == (ONE, None)


def test_a_name_that_is_not_found_is_asked_for_again() -> None:
    """5, 10, 20 ... 300 s; told once for each reason."""
    finder = AftrFinder()
    finder.want(NAME, 0.0)
    now, waits = 0.0, []
    told = []
    for _ in range(8):
        told += finder.resolved(NAME, (), "no such name", now)
        due = finder.deadline()
        assert due is not None
        waits.append(due - now)
        now = due
        assert finder.wake(now) == [Resolve(NAME)]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    assert [type(effect) for effect in told] == [Report]


def test_a_resolver_that_never_answers() -> None:
    finder = AftrFinder()
    finder.want(NAME, 0.0)
    assert finder.wake(299.0) == []
    assert finder.wake(300.0) == [Resolve(NAME)]


def test_the_address_is_kept_while_the_name_has_it() -> None:
    finder = AftrFinder()
    finder.want(NAME, 0.0)
    finder.resolved(NAME, (TWO,), "", 0.0)
    finder.resolved(NAME, (ONE, TWO), "", 3600.0)
    assert finder.address == TWO
    finder.resolved(NAME, (), "resolver is down", 7200.0)
    assert finder.address == TWO
    finder.resolved(NAME, (ONE,), "", 7300.0)
    assert finder.address == ONE


def test_what_no_tunnel_can_go_to_is_no_address() -> None:
    finder = AftrFinder()
    finder.want(NAME, 0.0)
    unusable = tuple(map(IPv6Address, ("::", "::1", "ff02::1", "fe80::1")))
    (report,) = finder.resolved(NAME, unusable, "", 0.0)
    assert isinstance(report, Report)
    assert "no usable IPv6 address" in report.text
    assert finder.resolved(NAME, (*unusable, ONE), "", 5.0) == []
    assert finder.address == ONE


def test_another_name_and_none() -> None:
    finder = AftrFinder()
    finder.want(NAME, 0.0)
    finder.resolved(NAME, (ONE,), "", 0.0)
    assert finder.want("other.example.", 1.0) == [Resolve("other.example.")]
    assert finder.address is None
    assert finder.resolved(NAME, (ONE,), "", 2.0) == []  # late, about the other
    assert finder.address is None
    assert finder.want(None, 3.0) == []
    assert finder.deadline() is None
