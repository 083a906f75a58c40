r"""A JSON text as a detector has to see it: escapes undone, long binary values left out, and a way back to its bytes.

Escapes hide what is found (`bob\u0040example.com`), and their letters look like text (`\nbob@example.com`). Strings
that hold JSON themselves, as the arguments of tools do, have both kinds of escapes undone. Nothing is parsed: a text
that is not quite JSON is read all the same. Replacing goes by the places of the original text, so that all else in it
stays as it was.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOBS_FROM: Final = 4096
"""Characters of a text from which on leaving out images and sound is worth a look for them."""

_BLOBS: Final = ("url", "blob")
_BINARY_KEYS: Final = ("data", "file_data", "b64_json", "encrypted_content")
_BYTES: Final = r"(?:[A-Za-z0-9+/=_-]|\\/){256,}"
_BLOB: Final = rf'base64,(?P<url>{_BYTES})|"(?:{"|".join(_BINARY_KEYS)})": ?"(?P<blob>{_BYTES})'
_PAIR: Final = r"u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\{1,2}u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
_CODE: Final = rf"{_PAIR}|u(?P<code>[0-9a-fA-F]{{4}})"
_ESCAPE: Final = re.compile(rf'\\(?:{_CODE}|(?P<letter>[bfnrt"/\\]))', re.ASCII)
_ESCAPE_OR_BLOB: Final = re.compile(rf"{_BLOB}|{_ESCAPE.pattern}", re.ASCII)
_INNER_ESCAPE: Final = re.compile(
    rf'\\\\\\(?P<quoted>["\\/])|\\{{1,2}}(?:{_CODE}|(?P<letter>[bfnrt/]))|\\(?P<quote>")', re.ASCII
)
_INNER: Final = re.compile(r'(?<!\\)"\s*[\[{][^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_LETTERS: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_CONTENT: Final = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NUMBER: Final = "0123456789+-.eE"


class Page:
    """`raw` as it came, `text` as it reads; `place` takes an offset in `text` to the one in `raw`."""

    __slots__ = ("_ends", "_shifts", "_strings", "raw", "text")

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self._strings: tuple[list[int], list[int]] | None = None
        undone = _undone(raw)
        if not undone:
            self.text, self._ends, self._shifts = raw, [], []
            return
        pieces, ends, gained = list[str](), list[int](), list[int]()
        at = length = 0
        for start, end, read in undone:
            pieces += (raw[at:start], read)
            length += start - at + len(read)
            ends.append(length)
            gained.append(end - start - len(read))
            at = end
        self.text = "".join((*pieces, raw[at:]))
        self._ends, self._shifts = ends, [0, *accumulate(gained)]

    def place(self, offset: int) -> int:
        return offset + self._shifts[bisect_right(self._ends, offset)] if self._ends else offset

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Of a finding in `text` the place in `raw`: within one string, or all of a number."""
        begin, stop = self.place(start), self.place(end)
        if self.is_bare(begin):
            return self._number(begin, stop)
        content = _CONTENT.match(self.raw, begin, stop + 1)  # an escape may be cut by `stop`
        return begin, min(stop, content.end() if content else stop)

    def is_bare(self, at: int) -> bool:
        """Whether this place of `raw` is outside of all strings."""
        starts, ends = self._strings = self._strings or _strings(self.raw)
        place = bisect_right(starts, at) - 1
        return place < 0 or at >= ends[place]

    def is_number(self, start: int, end: int) -> bool:
        """Whether all between these places of `raw` is of a number outside of strings."""
        return self.is_bare(start) and all(letter in _NUMBER for letter in self.raw[start:end])

    def strings(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """The contents of the strings that begin between two offsets of `text`, as offsets."""
        starts, ends = self._strings = self._strings or _strings(self.raw)
        first, last = bisect_left(starts, self.place(begin)), bisect_left(starts, self.place(end))
        for at in range(first, last):
            yield self.offset(starts[at] + 1), self.offset(ends[at] - 1)

    def offset(self, at: int) -> int:
        """The first offset in `text` that does not lie before this place of `raw`."""
        low, high = 0, len(self.text)
        while low < high:
            middle = (low + high) // 2
            if self.place(middle) < at:
                low = middle + 1
            else:
                high = middle
        return low

    def _number(self, start: int, end: int) -> tuple[int, int]:
        raw = self.raw
        while start and raw[start - 1] in _NUMBER:
            start -= 1
        while end < len(raw) and raw[end] in _NUMBER:
            end += 1
        return start, end


def replaced(raw: str, changes: Iterable[tuple[int, int, str]]) -> str:
    """With other texts at these places, which are in order."""
    pieces, at = list[str](), 0
    for start, end, text in changes:
        pieces += (raw[at:start], text)
        at = end
    return "".join((*pieces, raw[at:]))


def _strings(raw: str) -> tuple[list[int], list[int]]:
    spans = [match.span() for match in _STRING.finditer(raw)]
    return [start for start, _ in spans], [end for _, end in spans]


def _undone(raw: str) -> list[tuple[int, int, str]]:
    """What reads otherwise than it is written: where it stands in `raw`, and how it reads."""
    is_long = len(raw) > BLOBS_FROM
    if not is_long and "\\" not in raw:
        return []
    outer = _ESCAPE_OR_BLOB if is_long else _ESCAPE
    found, at = [], 0
    for start, end in _inner_strings(raw):
        found += _found(outer, raw, at, start)
        found += _found(_INNER_ESCAPE, raw, start, end)
        at = end
    return [*found, *_found(outer, raw, at, len(raw))]


def _inner_strings(raw: str) -> Iterator[tuple[int, int]]:
    """Strings that may be JSON with escapes of its own."""
    if "\\\\" in raw:
        yield from (match.span() for match in _INNER.finditer(raw) if "\\\\" in match[0])


def _found(pattern: re.Pattern[str], raw: str, start: int, end: int) -> list[tuple[int, int, str]]:
    return [(*match.span(_place(match)), _read(match)) for match in pattern.finditer(raw, start, end)]


def _place(match: re.Match[str]) -> str | int:
    """Of binary values the group: what stands before them is text."""
    return match.lastgroup if match.lastgroup in _BLOBS else 0


def _read(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind in _BLOBS:
        return ""
    if kind == "low":
        high, low = int(match["high"], 16), int(match["low"], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    if kind == "code":
        letter = chr(int(match["code"], 16))
        return "\ufffd" if "\ud800" <= letter <= "\udfff" else letter
    assert kind is not None
    return _LETTERS.get(match[kind], match[kind])
