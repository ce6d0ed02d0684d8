"""When to mend what others undo, and when to stop fighting them. Pure; instants are seconds of the boot clock.

A few repairs are made at once, however they come. Who keeps undoing them is met with growing patience: the attempts
become rare, it is said once, and said again when it is over.
"""

from __future__ import annotations

from dataclasses import dataclass

BURST = 6
"""Repairs made at once; one more is earned every REFILL_S seconds."""
REFILL_S = 30.0
SPACING_S = 0.2
"""Between two looks: a storm of notifications costs at most five looks a second."""
BACKOFF_S = (5.0, 300.0)
"""Wait before the next repair of something that others keep undoing, doubled each time up to the second value."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the kernel found and did: ``repaired`` names what was put right, ``problem`` why it failed.

    ``undone``: somebody undid it again before we were through.
    """

    repaired: tuple[str, ...] = ()
    problem: str | None = None
    undone: bool = False
    pump_pid: int | None = None


@dataclass(frozen=True, slots=True)
class Remark:
    """Something to tell the operator: ``kind`` and ``level`` as in effects.Report."""

    kind: str
    level: str
    text: str


class MendPolicy:
    """Counts repairs, paces looks, and finds the words."""

    def __init__(self) -> None:
        self.looks = 0
        self.mends = 0
        self.contested = False
        self.problem: str | None = None
        self.last: tuple[float, str] | None = None
        self._tokens = float(BURST)
        self._at = 0.0
        self._earliest = 0.0
        self._wait_s = 0.0

    def earliest(self) -> float:
        """The instant before which no look may be made."""
        return self._earliest

    @property
    def waiting(self) -> bool:
        """True while repairs are held back."""
        return self._wait_s > 0

    def looked(self, look: Look, now: float) -> list[Remark]:
        """Take note of a look made at ``now``; what is to be said about it."""
        self.looks += 1
        self._tokens = min(BURST, self._tokens + (now - self._at) / REFILL_S)
        self._at = now
        self._earliest = now + SPACING_S
        if look.problem is not None:
            return self._failed(look.problem, now)
        if not look.repaired:
            return self._sound()
        self.mends += 1
        self.problem = None
        what = ", ".join(look.repaired)
        self.last = (now, what)
        self._tokens = -1 if look.undone else self._tokens - 1
        if self._tokens < 0 or self.contested:
            self._back_off(now)
            if self.contested:
                return []
            self.contested = True
            text = (
                f"something keeps undoing the softwire ({what}): it is mended less often from now on, next in "
                f"{self._wait_s:g} s. Look for a network manager or firewall script that owns all interfaces or rules"
            )
            return [Remark("contested", "error", text)]
        return [Remark("mended", "warning", f"put right what somebody else had changed: {what}")]

    def _sound(self) -> list[Remark]:
        remarks = []
        if self.contested:
            remarks.append(Remark("settled", "info", "nobody undoes the softwire any more"))
        elif self.problem is not None:
            remarks.append(Remark("mended", "info", "the softwire is as it should be again"))
        self.contested, self.problem, self._wait_s = False, None, 0.0
        return remarks

    def _failed(self, problem: str, now: float) -> list[Remark]:
        self._back_off(now)
        known, self.problem = self.problem, problem
        return [] if problem == known else [Remark("mend-failed", "error", f"the softwire is damaged: {problem}")]

    def _back_off(self, now: float) -> None:
        low, high = BACKOFF_S
        self._wait_s = min(max(2 * self._wait_s, low), high)
        self._earliest = now + self._wait_s

    def retry_at(self) -> float | None:
        """When to look without being told to: while something is contested or broken."""
        return self._earliest if self.waiting else None

    def snapshot(self, now: float) -> dict[str, object]:
        """For ``status``."""
        last = self.last
        return {
            "looks": self.looks,
            "mends": self.mends,
            "contested": self.contested,
            "problem": self.problem,
            "next_attempt_in_s": round(max(self._earliest - now, 0.0), 3) if self.waiting else None,
            "last": None if last is None else {"what": last[1], "ago_s": round(now - last[0], 3)},
        }
