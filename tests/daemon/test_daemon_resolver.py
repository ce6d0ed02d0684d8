"""Names to IPv6 addresses: what getaddrinfo says, as one event."""

from __future__ import annotations

import socket
import threading
from ipaddress import IPv6Address
from typing import Any

import pytest

from b4client.daemon import resolver
from b4client.protocol.events import Resolved


def answers(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[tuple[Any, ...]]:
    asked: list[tuple[Any, ...]] = []

    def getaddrinfo(*arguments: Any) -> object:
        asked.append(arguments)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(resolver.socket, "getaddrinfo", getaddrinfo)
    return asked


def found(*addresses: str) -> list[tuple[Any, ...]]:
    return [(socket.AF_INET6, socket.SOCK_DGRAM, 17, "", (a, 0, 0, 0)) for a in addresses]


def test_addresses_in_order_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, found("2001:db8::2", "2001:db8::1", "2001:db8::2", "fe80::1%eth0"))
    addresses = tuple(map(IPv6Address, ("2001:db8::2", "2001:db8::1", "fe80::1")))
    assert resolver.look_up("aftr.example.") == Resolved("aftr.example.", addresses)
    assert asked == [("aftr.example.", None, socket.AF_INET6, socket.SOCK_DGRAM)]


def test_too_many_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, found(*(f"2001:db8::{n:x}" for n in range(1, 100))))
    assert len(resolver.look_up("aftr.example.").addresses) == resolver.MAX_ADDRESSES


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (UnicodeError("label too long"), "label too long"),
        (OSError("out of descriptors"), "out of descriptors"),
    ],
)
def test_a_name_without_address(error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, error)
    assert resolver.look_up("aftr.example.") == Resolved("aftr.example.", (), reason)


def test_the_answer_comes_once_from_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, found("2001:db8::1"))
    heard: list[tuple[Resolved, str]] = []
    done = threading.Event()

    def answer(event: Resolved) -> None:
        heard.append((event, threading.current_thread().name))
        done.set()
        raise RuntimeError("Event loop is closed")  # the daemon has ended meanwhile: nobody minds

    resolver.resolve("aftr.example.", answer)
    assert done.wait(5)
    assert heard == [(Resolved("aftr.example.", (IPv6Address("2001:db8::1"),)), "resolver")]
