"""When repairs are made, held back and told; and which notifications count at all."""

from __future__ import annotations

import struct

import pytest

from b4client.daemon import bell
from b4client.daemon.mendpolicy import BACKOFF_S, BURST, REFILL_S, Look, MendPolicy

BROKEN = Look(repaired=("NAT rules",))
SOUND = Look()


def kinds(policy: MendPolicy, look: Look, now: float) -> list[str]:
    return [remark.kind for remark in policy.looked(look, now)]


def test_a_few_repairs_are_made_at_once_each_said_once() -> None:
    policy, now = MendPolicy(), 100.0
    for _ in range(BURST):
        assert kinds(policy, BROKEN, now) == ["mended"]
        assert policy.earliest() - now < 1
        assert not policy.waiting
        now += 0.5
        assert kinds(policy, SOUND, now) == []
        now += 0.5
    assert policy.mends == BURST


def test_a_fighter_is_met_with_growing_patience_and_told_once() -> None:
    policy, now, said = MendPolicy(), 100.0, []
    attempts = []
    while now < 100 + 3600:
        said += kinds(policy, BROKEN, now)
        attempts.append(now)
        now = max(policy.earliest(), now + 0.2)
    assert said == ["mended"] * BURST + ["contested"]
    assert len(attempts) < BURST + 8 + 3600 / BACKOFF_S[1]
    assert policy.snapshot(now)["contested"] is True
    assert policy.retry_at() == policy.earliest()


def test_peace_is_told_and_what_follows_is_mended_at_once_again() -> None:
    policy, now = MendPolicy(), 100.0
    while not policy.contested:
        policy.looked(BROKEN, now)
        now += 0.3
    assert kinds(policy, SOUND, now) == ["settled"]
    assert (policy.waiting, policy.retry_at()) == (False, None)
    assert kinds(policy, BROKEN, now + REFILL_S * 2) == ["mended"]


def test_rare_damage_is_no_fight() -> None:
    policy, now = MendPolicy(), 100.0
    for _ in range(200):
        assert kinds(policy, BROKEN, now) == ["mended"]
        assert kinds(policy, SOUND, now + 0.3) == []
        now += REFILL_S


def test_what_is_undone_before_the_repair_is_through_is_a_fight_at_once() -> None:
    policy = MendPolicy()
    assert kinds(policy, Look(repaired=("the NAT rules",), undone=True), 5.0) == ["contested"]
    assert policy.earliest() == 5.0 + BACKOFF_S[0]


def test_a_repair_that_fails_is_told_once_and_tried_again_ever_more_rarely() -> None:
    policy = MendPolicy()
    assert kinds(policy, Look(problem="no"), 0.0) == ["mend-failed"]
    assert policy.retry_at() == BACKOFF_S[0]
    assert kinds(policy, Look(problem="no"), 5.0) == []
    assert policy.retry_at() == 5.0 + 2 * BACKOFF_S[0]
    assert kinds(policy, Look(problem="other"), 15.0) == ["mend-failed"]
    assert kinds(policy, SOUND, 60.0) == ["mended"]
    assert policy.snapshot(60.0)["problem"] is None


# ---- notifications

OURS = bell.Ours(frozenset({"b4", "b4-n0"}), 7, 3, "b4client_b4")


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + b"\0" * (-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def link(index: int, name: str) -> bytes:
    return message(16, struct.pack("=BxHiII", 0, 1, index, 0, 0) + attribute(3, name.encode() + b"\0"))


def address(kind: int, index: int) -> bytes:
    return message(kind, struct.pack("=BBBBi", 2, 32, 0, 0, index))


def route(prefix_len: int, oif: int, family: int = 2) -> bytes:
    return message(
        25,
        struct.pack("=BBBBBBBBI", family, prefix_len, 0, 0, 254, 3, 0, 1, 0) + attribute(4, oif.to_bytes(4, "little")),
    )


def rule(table: str) -> bytes:
    return message(0x0A06, struct.pack("=BBH", 2, 0, 0) + attribute(1, table.encode() + b"\0"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (link(7, "renamed"), True),
        (link(9, "b4"), True),
        (link(9, "b4-n0"), True),
        (link(9, "veth0"), False),
        (address(20, 7), True),
        (address(21, 7), True),
        (address(20, 3), False),  # a router advertisement renews the WAN's address
        (address(21, 3), True),
        (address(21, 4), False),
        (route(24, 7), True),
        (route(24, 4), False),
        (route(0, 4), True),
        (route(0, 4, family=10), False),
        (rule("b4client_b4"), True),
        (rule("docker"), False),
        (message(80, b"\2\0\0\0"), True),
        (message(0x0A0F, b"\0\0\0\0" + attribute(1, b"\0\0\0\1")), False),  # nft's NEWGEN
        (link(9, "veth0") + rule("docker") + address(21, 7), True),
        (link(9, "veth0")[:-4], True),  # cut off: in doubt yes
        (b"", False),
        (b"\0" * 64, True),
        (message(25, b"\2"), False),
        (message(16, b"\0" * 16 + b"\2\0\3\0"), False),
    ],
)
def test_which_notifications_concern_us(data: bytes, expected: bool) -> None:
    assert bell.concerns(data, OURS) is expected
