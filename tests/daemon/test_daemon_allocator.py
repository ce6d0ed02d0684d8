"""Memory is given back: the knobs are turned, and a C library without them is borne."""

from __future__ import annotations

import ctypes

import pytest

from b4client.daemon import allocator


class Library:
    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def mallopt(self, knob: int, value: int) -> int:
        self.calls.append((knob, value))
        return 1


def test_one_arena_and_an_early_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    allocator.spare()
    assert library.calls == [(-8, 1), (-1, allocator.TRIM_THRESHOLD)]


def test_a_library_without_knobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    allocator.spare()


def test_what_is_free_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[int] = []

    class Trimming:
        def malloc_trim(self, pad: int) -> int:
            trimmed.append(pad)
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Trimming())
    allocator.give_back()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    allocator.give_back()
    assert trimmed == [0]
