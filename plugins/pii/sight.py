"""How the texts of one exchange's answer are read: as a detector reads them, and the exchange's placeholders besides.

Text that is JSON, as tools' arguments are, is read through a `view` of the same length, in which an escape is the
letter that it stands for, with blanks (NUL, which JSON cannot hold) before it: its places are
those of the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson

from plugins.pii.findings import Finding
from plugins.pii.placeholder import word_of
from plugins.pii.tail import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from plugins.pii.placeholder import Table
    from plugins.pii.settings import Action

PLACEHOLDER: Final = ""
"""What a finding is that stands for one of the exchange's own values."""

_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_WHOLE: Final = re.compile(r"(?:[^\\]+|\\(?:u[0-9a-fA-F]{4}|[^u]))*", re.DOTALL)
_BLANK: Final = "\0"
_LETTERS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LONGEST_ESCAPE: Final = 6
_CANNOT_STAND: Final = re.compile("[\ud800-\udfff]")  # half a letter: no detector can read it
_UNKNOWN: Final = "\ufffd"


class Sight:
    """`plain` and `json`: readings of the two kinds of text. `instead`: what stands in the place of a finding."""

    __slots__ = ("_actions", "_count", "_json", "_table", "plain")

    def __init__(
        self, base: Reading, table: Table, actions: Mapping[str, Action], count: Callable[[str], None], *, masks: bool
    ) -> None:
        """`masks`: what the app has not sent is masked; `count` is told of which entity."""
        self._table = table
        self._actions = actions
        self._count = count
        if not masks:
            base = _NOTHING
        self.plain = _with_placeholders(base, table) if table.values else base
        self._json: Reading | None = None

    @property
    def json(self) -> Reading:
        """Made when it is first needed."""
        if self._json is None:
            self._json = _through_view(self.plain)
        return self._json

    def instead(self, entity: str, text: str, *, is_json: bool) -> str | None:
        """None where the text may stay."""
        if entity == PLACEHOLDER:
            return self._restored(text, is_json=is_json)
        if self._table.holds(text):
            return None
        self._count(entity)
        return None if self._actions[entity] == "report" else f"<{word_of(entity)}>"

    def _restored(self, text: str, *, is_json: bool) -> str | None:
        found = self._table.grammar.pattern.search(text)
        value = None if found is None else self._table.value(found)
        if value is None or not is_json:
            return value
        return orjson.dumps(_CANNOT_STAND.sub(_UNKNOWN, value)).decode()[1:-1]


_NOTHING: Final = Reading(lambda _: [], len, lambda _: False, lambda _: False)
"""Finds nothing and holds nothing."""


def _with_placeholders(base: Reading, table: Table) -> Reading:
    grammar, value = table.grammar, table.value

    def find(text: str) -> list[Finding]:
        found = base.find(text)
        marks = [
            Finding(match.start(), match.end(), PLACEHOLDER)
            for match in grammar.within(text)
            if value(match) is not None
        ]
        return _joined(marks, found) if marks else found

    def opening(text: str) -> int:
        at = base.opening(text)
        while (start := grammar.opening(text, at)) < at:
            at = base.opening(text[:start])  # nor is there a cut within the word that it begins in
        return at

    return base._replace(find=find, opening=opening)


def _joined(marks: list[Finding], found: list[Finding]) -> list[Finding]:
    """Placeholders win."""
    others = [one for one in found if not any(one.start < mark.end and mark.start < one.end for mark in marks)]
    return sorted([*marks, *others])


def _through_view(base: Reading) -> Reading:
    """Findings and openings begin where an escape begins."""

    def find(text: str) -> list[Finding]:
        found = base.find(text)
        return [one._replace(start=_before_blanks(text, one.start)) for one in found] if _BLANK in text else found

    def opening(text: str) -> int:
        return _before_blanks(text, base.opening(text))

    return base._replace(find=find, opening=opening)


def _before_blanks(text: str, at: int) -> int:
    while at and text[at - 1] == _BLANK:
        at -= 1
    return at


def view(text: str) -> str:
    """Of JSON text that ends with no half escape."""
    return _ESCAPE.sub(_letter, text) if "\\" in text else text


def _letter(match: re.Match[str]) -> str:
    if match[1]:
        letter = _CANNOT_STAND.sub(_UNKNOWN, chr(int(match[1], 16)))
        return letter.rjust(_LONGEST_ESCAPE, _BLANK)
    return _BLANK + _LETTERS.get(match[2], match[2])


def whole_escapes(text: str) -> int:
    """How much of the text ends with no half escape; what can be none is taken for text."""
    if "\\" not in text:
        return len(text)
    found = _WHOLE.match(text)
    end = found.end() if found else 0
    return len(text) if len(text) - end >= _LONGEST_ESCAPE else end
