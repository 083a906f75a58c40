"""How long an upstream takes to begin an answer: the peak of late, which fades.

A slow answer counts at once and a fast one little by little, so that trouble shows soon and luck does not hide it. What
is long ago fades, so that an upstream that once was slow is asked again; of one that was not heard of lately nothing is
known, and it gets one request at a time until it has answered.
"""

from __future__ import annotations

import math

FADE_SECONDS = 10.0
STALE_SECONDS = 30.0
PENALTY_SECONDS = 10.0
"""What a failed attempt counts for at least: failing fast is not being fast."""


class Pace:
    """`now` is monotonic seconds everywhere."""

    __slots__ = ("_at", "_seconds")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._at = -math.inf

    def note(self, seconds: float, now: float) -> None:
        """An answer began after so long."""
        kept = math.exp(min(self._at - now, 0.0) / FADE_SECONDS)
        self._seconds = max(seconds, self._seconds * kept + seconds * (1.0 - kept))
        self._at = now

    def note_failure(self, seconds: float, now: float) -> None:
        """An attempt failed after so long."""
        self.note(max(seconds, PENALTY_SECONDS), now)

    def is_fresh(self, now: float) -> bool:
        """Whether it was heard of lately."""
        return now - self._at <= STALE_SECONDS

    def cost(self, in_flight: float, now: float) -> float:
        """Seconds that one more request is thought to wait, beside those under way; for comparisons only."""
        if not self.is_fresh(now):
            return PENALTY_SECONDS * in_flight
        return self._seconds * math.exp((self._at - now) / FADE_SECONDS) * (in_flight + 1)
