"""Where one upstream's text ends and the next one's goes on, sans-io.

A model that is given the beginning of an answer may go on behind it, repeat its last words first, or start all over.
The first characters are held until that is clear; what the app has got already is left out.
"""

from __future__ import annotations

HELD = 32
"""Characters that tell going on from starting over; an overlap may be so long."""
OVERLAP = 3
"""A shorter one is taken for chance."""


class Seam:
    """`has_diverged`: the text started over, and then became another: it cannot be put behind what was sent."""

    def __init__(self, sent: str) -> None:
        self._sent = sent
        self._held = ""
        self._is_open = True
        self.has_diverged = False

    def feed(self, text: str) -> str:
        """What of the text so far may go down now."""
        if not self._is_open:
            return text
        self._held += text
        held, sent = self._held, self._sent
        if held.startswith(sent):  # started over, and is as far as the first one was
            return self._close(len(sent))
        if sent.startswith(held):
            return ""
        if len(_common(held, sent)) >= HELD:
            self.has_diverged = True
            return ""
        return self._close(_overlap(sent, held)) if len(held) >= HELD else ""

    def flush(self) -> str:
        """No more comes that could tell."""
        return self._close(_overlap(self._sent, self._held)) if self._is_open else ""

    def _close(self, known: int) -> str:
        self._is_open = False
        rest, self._held = self._held[known:], ""
        return rest


def _common(one: str, other: str) -> str:
    at = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:at]


def _overlap(sent: str, text: str) -> int:
    """How many of the text's first characters are the last that were sent."""
    sizes = range(min(len(sent), len(text), HELD), OVERLAP - 1, -1)
    return next((size for size in sizes if sent.endswith(text[:size])), 0)
