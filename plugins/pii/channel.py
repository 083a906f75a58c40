"""One text of an answer as it comes: what is decided of it, and what changes in that; places count from its start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugins.pii.sight import view, whole_escapes
from plugins.pii.tail import Tail

if TYPE_CHECKING:
    from plugins.pii.sight import Sight
    from plugins.pii.tail import Decided


class Channel:
    """`fed` and `decided`: how much has come, and how much of that no later text changes any more."""

    __slots__ = ("_half", "_is_json", "_sight", "_tail", "changes", "decided", "fed")

    def __init__(self, sight: Sight, *, is_json: bool) -> None:
        self._sight = sight
        self._is_json = is_json
        self._tail = Tail(sight.json if is_json else sight.plain)
        self._half = ""
        self.fed = self.decided = 0
        self.changes: list[tuple[int, int, str]] = []

    def feed(self, text: str) -> None:
        self.fed += len(text)
        if self._is_json:
            text = self._half + text
            end = whole_escapes(text)
            text, self._half = view(text[:end]), text[end:]
        self._note(self._tail.feed(text))

    def finish(self) -> None:
        """Nothing more will come."""
        self._note(self._tail.finish())
        self.decided = self.fed

    def cut(self, start: int, text: str) -> str:
        """How a decided piece of what was fed, which began at `start`, goes on; pieces are cut in their order."""
        end, changes = start + len(text), self.changes
        pieces, at = [], start
        for begin, stop, new in changes:
            if begin >= end:
                break
            if stop > start:
                pieces.append(text[at - start : max(begin, at) - start])
                if begin >= start:
                    pieces.append(new)
                at = min(stop, end)
        while changes and changes[0][1] <= end:
            changes.pop(0)
        return "".join((*pieces, text[at - start :]))

    def _note(self, decided: Decided) -> None:
        text = decided.text
        for start, end, entity in decided.findings:
            new = self._sight.instead(entity, text[start:end], is_json=self._is_json)
            if new is not None:
                self.changes.append((self.decided + start, self.decided + end, new))
        self.decided += len(text)


def revised(sight: Sight, text: str, *, is_json: bool) -> str:
    """A whole text as it goes on; the same object where nothing changes."""
    if not (sight.json.find(view(text)) if is_json else sight.plain.find(text)):
        return text
    channel = Channel(sight, is_json=is_json)
    channel.feed(text)
    channel.finish()
    return channel.cut(0, text) if channel.changes else text
