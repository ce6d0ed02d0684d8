"""From where and to whom DHCP 4o6 is spoken, and how fast (RFC 7341 9 [F-3, F-4, F-5]; RFC 8415 14.1 [D-14])."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from b4client.protocol.counters import Counters
from b4client.protocol.transport import Outbox, Path, choose_path, needs_link_local
from b4client.wire.dhcp6 import ALL_SERVERS

LOCAL, WIDE = IPv6Address("fe80::1"), IPv6Address("2001:db8::1")
ONE, TWO, NEAR = IPv6Address("2001:db8:1::1"), IPv6Address("2001:db8:1::2"), IPv6Address("fe80::fe")
SITE = IPv6Address("ff05::1:3")


@pytest.mark.parametrize(
    ("server", "needs"),
    [
        (ALL_SERVERS, True),
        (IPv6Address("ff01::1"), True),
        (SITE, False),  # only link scope needs the link-local source
        (IPv6Address("ff0e::1"), False),
        (NEAR, True),
        (ONE, False),
        (IPv6Address("fd00::1"), False),
    ],
)
def test_scope_of_the_source(server: IPv6Address, needs: bool) -> None:
    assert needs_link_local(server) is needs


@pytest.mark.parametrize(
    ("servers", "link_local", "wide", "path"),
    [
        ((), LOCAL, None, Path(LOCAL, ((ALL_SERVERS, LOCAL),))),
        ((), None, WIDE, None),
        ((ONE,), LOCAL, None, None),
        ((ONE,), None, WIDE, Path(WIDE, ((ONE, WIDE),))),
        ((SITE,), LOCAL, WIDE, Path(WIDE, ((SITE, WIDE),))),
        ((NEAR,), LOCAL, WIDE, Path(LOCAL, ((NEAR, LOCAL),))),
        ((NEAR, ONE), LOCAL, WIDE, Path(WIDE, ((NEAR, LOCAL), (ONE, WIDE)))),
        ((NEAR, ONE), LOCAL, None, None),
    ],
)
def test_path(
    servers: tuple[IPv6Address, ...], link_local: IPv6Address | None, wide: IPv6Address | None, path: Path | None
) -> None:
    """Nothing is sent from an address of the wrong scope [F-5]; of several the wide one stands for the path."""
    assert choose_path(servers, link_local, wide) == path


@pytest.mark.parametrize(
    ("servers", "several"), [((), True), ((ONE,), False), ((ONE, TWO), True), ((SITE,), True), ((NEAR,), False)]
)
def test_whether_several_may_answer(servers: tuple[IPv6Address, ...], several: bool) -> None:
    path = choose_path(servers, LOCAL, WIDE)
    assert path is not None
    assert path.several is several


def test_a_query_goes_to_each_server() -> None:
    counters = Counters()
    path = choose_path((ONE, TWO), LOCAL, WIDE)
    assert path is not None
    sent = list(Outbox(counters).query(b"q", path, 0.0))
    assert [(s.data, s.destination, s.source) for s in sent] == [(b"q", ONE, WIDE), (b"q", TWO, WIDE)]
    assert counters.snapshot() == {"sent-query": 2}


def test_what_the_limit_keeps_out_is_the_first_of_the_next_query() -> None:
    """No server is for ever the one that is left out."""
    counters = Counters()
    outbox = Outbox(counters)
    path = choose_path(tuple(IPv6Address(f"2001:db8:1::{i:x}") for i in range(1, 17)), LOCAL, WIDE)
    assert path is not None
    assert len(list(outbox.query(b"1", path, 0.0))) == 16
    second = list(outbox.query(b"2", path, 0.0))
    assert [int(s.destination) & 0xFF for s in second] == [1, 2, 3, 4]
    assert counters["sent-rate-limited"] == 12
    third = list(outbox.query(b"3", path, 3.0))
    assert [int(s.destination) & 0xFF for s in third] == [5, 6, 7]
    assert list(outbox.multicast(b"m", LOCAL, 3.0)) == []
    assert next(iter(outbox.multicast(b"m", LOCAL, 4.0))).destination == ALL_SERVERS
