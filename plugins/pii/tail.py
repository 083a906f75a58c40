"""The tail rule: a text that comes in pieces is given out as soon as it is decided, with what was found in it.

What is held is the end of the text that later text may still change (`opening`), seldom more than a word. It is decided
by reading it again together with `REACH` characters before it, which were given out already: that is as far as any
rule looks back. So the findings are those of the whole text, wherever it was cut, for as long as not more than `CAP`
characters have to be held: then these are decided as if the text ended there, at the same place for every cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from plugins.pii.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CAP = 4096
REACH = 160
_LONG, _MORE = 512, 64  # where so much is held, it is looked at again only after so many more characters


class Reading(NamedTuple):
    """How a kind of text is read; `plugins.pii.detector.Detector.reading` is one.

    `find`: findings of a text, in order and without overlaps; looks back at most `REACH` characters from a finding.
    `opening`: the offset from which on later text may change the findings; it never moves back as text is added.
    `plain`: True where no finding can lie within these characters nor begin there, after text that holds no open rule.
    `arming`: True where the end of a text makes even plain text after it count, such as `password: `.
    `limit`: how much may be held from that offset on.
    """

    find: Callable[[str], list[Finding]]
    opening: Callable[[str], int]
    plain: Callable[[str], bool]
    arming: Callable[[str], bool]
    limit: Callable[[str], int] = lambda _: CAP


class Decided(NamedTuple):
    """Text that is decided, and what was found in it; offsets count from its first character."""

    text: str
    findings: Sequence[Finding]


NOTHING = Decided("", ())


class Tail:
    """One text channel, such as one choice's content. Not for use after `finish`."""

    def __init__(self, reading: Reading) -> None:
        self._find, self._opening, self._plain, self._arming, self._limit = reading
        self._context = ""  # what was given out last
        self._held = ""
        self._armed = False
        self._patience = 0  # below this length it is not worth looking again

    @property
    def held(self) -> int:
        """Characters that wait for more text."""
        return len(self._held)

    def feed(self, text: str) -> Decided:
        held = self._held + text
        if not self._armed and len(held) < CAP and self._plain(held):
            return self._feed_plain(held)
        decided = [self._step(piece) for piece in self._pieces(text)]
        return decided[0] if len(decided) == 1 else _joined(decided)

    def finish(self) -> Decided:
        """What is still held, decided by the text's end."""
        rest = self._give_out(self._held, len(self._held))
        self._held = ""
        return rest

    def _feed_plain(self, held: str) -> Decided:
        cut = held.rfind(" ") + 1
        self._held = held[cut:]
        if not cut:
            return NOTHING
        text = held[:cut]
        self._context = (self._context + text)[-REACH:]
        return Decided(text, ())

    def _pieces(self, text: str) -> Iterator[str]:
        """So small that what is held never exceeds its limit: then it is reached at the same place for every cut."""
        at = 0
        while True:
            end = at + self._limit(self._held) - len(self._held)
            yield text[at:end]
            if end >= len(text):
                return
            at = end

    def _step(self, piece: str) -> Decided:
        held, limit = self._held + piece, self._limit(self._held)
        self._held = held
        if len(held) < min(self._patience, limit):
            return NOTHING
        before = len(self._context)
        cut = max(0, self._opening(self._context + held) - before)
        if not cut and len(held) >= self._limit(held):
            cut = len(held)
        self._held = held[cut:]
        self._patience = len(self._held) + _MORE if len(self._held) > _LONG else 0
        return self._give_out(held, cut) if cut else NOTHING

    def _give_out(self, held: str, cut: int) -> Decided:
        before = len(self._context)
        whole = self._context + held
        found = [
            Finding(start - before, end - before, entity)
            for start, end, entity in self._find(whole)
            if start >= before and end - before <= cut
        ]
        self._context = whole[: before + cut][-REACH:]
        self._armed = self._arming(self._context)
        return Decided(held[:cut], found)


def _joined(decided: Sequence[Decided]) -> Decided:
    found, at = list[Finding](), 0
    for text, findings in decided:
        found += (Finding(at + start, at + end, entity) for start, end, entity in findings)
        at += len(text)
    return Decided("".join(text for text, _ in decided), found)
