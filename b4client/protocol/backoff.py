"""When to send again: the arithmetic of RFC 2131 4.1, 4.4.5 and RFC 8415 15, and the rate limit of RFC 8415 14.1.

Pure: the caller gives time (seconds on any one clock) and randomness.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

DHCP4_FIRST_S = 4.0
DHCP4_MAX_S = 64.0
DHCP4_JITTER_S = 1.0
RENEW_FOREVER_MAX_S = 86400.0
RENEW_FLOOR_S = 60.0
DHCP6_RAND = 0.1
MAX_RT_VALID = range(60, 86401)
"""Values of SOL_MAX_RT and INF_MAX_RT that may be believed (RFC 8415 21.24, 21.25 [D-9])."""


def dhcp4_delay_s(attempt: int, rng: random.Random) -> float:
    """Wait after transmission number ``attempt`` (from 0): 4, 8, 16, 32, 64, 64 ... each +-1 s (RFC 2131 4.1 [S-2])."""
    # The exponent is capped before the power is taken: an attempt counter may grow for months.
    wait = min(DHCP4_FIRST_S * 2.0 ** min(attempt, 8), DHCP4_MAX_S)
    return wait + rng.uniform(-DHCP4_JITTER_S, DHCP4_JITTER_S)


def renew_delay_s(now: float, until: float, since: float) -> float:
    """Wait between two REQUESTs while RENEWING (``until`` T2) or REBINDING (``until`` expiry): half of what remains, at
    least 60 s (RFC 2131 4.4.5 [S-8]).

    An infinite lease is renewed only when an operator wants it, ``since`` then: as long as it has been tried already,
    at most a day, since half of what remains would be never.
    """
    if math.isinf(until):
        return min(max(RENEW_FLOOR_S, now - since), RENEW_FOREVER_MAX_S)
    return max(RENEW_FLOOR_S, (until - now) / 2)


@dataclass(frozen=True, slots=True)
class Dhcp6Retransmission:
    """The times of one DHCPv6 exchange (RFC 8415 15): first and greatest retransmission time (0: no limit), seconds."""

    irt_s: float
    mrt_s: float

    def first_s(self, rng: random.Random) -> float:
        """Wait after the first transmission."""
        return self.irt_s * (1 + rng.uniform(-DHCP6_RAND, DHCP6_RAND))

    def next_s(self, previous_s: float, rng: random.Random) -> float:
        """Wait after a retransmission that followed a wait of ``previous_s``."""
        wait = previous_s * (2 + rng.uniform(-DHCP6_RAND, DHCP6_RAND))
        if self.mrt_s and wait > self.mrt_s:
            wait = self.mrt_s * (1 + rng.uniform(-DHCP6_RAND, DHCP6_RAND))
        return wait


class TokenBucket:
    """At most ``burst`` messages at once and ``burst`` more in every ``per_s`` seconds (RFC 8415 14.1 [D-14])."""

    def __init__(self, burst: int = 20, per_s: float = 20.0) -> None:
        self._burst = burst
        self._rate = burst / per_s
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """True when one more message may be sent at ``now``."""
        if self._at is not None and now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now if self._at is None else max(self._at, now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
