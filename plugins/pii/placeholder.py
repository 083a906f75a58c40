"""What stands in a text in a value's place: `<EMAIL_7f3a>`, how a value gets one, and how a model may distort it.

The id is a keyed hash of tenant and value, so a value has the same placeholder in every turn of a conversation, and
nobody without the key can tell what it was. It begins with a digit: no word of a text looks like one.
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

SHORTEST: Final = 4
HASHED: Final = 16
"""Characters of an id that can be put back, where no other value has it, and of one that cannot."""

LONGEST: Final = 24
WINDOW: Final = 96
"""Characters that the longest placeholder takes, distorted as far as it is understood."""

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_REMEMBERED: Final = 64
_OPEN: Final = r"(?:\\{0,2}<|&lt;|%3C)"
_CLOSE: Final = r"\x00*(?:\\{0,2}>|&gt;|%3E)"
_JOINT: Final = r"\\{0,2}[_-]"


def word_of(entity: str) -> str:
    """`credit_card` is `CREDIT_CARD`."""
    return re.sub("[^A-Z0-9]", "_", entity.upper())


def identity(key: bytes, tenant: str, entity: str, value: str) -> str:
    """LONGEST characters of `0-9a-z`, the first a digit; of these as many are taken as are needed."""
    told = b"\0".join(part.encode("utf-8", "surrogatepass") for part in (tenant, entity, value))
    number = int.from_bytes(blake2b(told, key=key, digest_size=20).digest())
    number, first = divmod(number, 10)
    letters = _DIGITS[first]
    while len(letters) < LONGEST:
        number, digit = divmod(number, 36)
        letters += _DIGITS[digit]
    return letters


class Grammar:
    """Placeholders of these entities, as they are written and as models write them."""

    def __init__(self, entities: Iterable[str]) -> None:
        words = sorted((word_of(entity) for entity in entities), key=len, reverse=True)
        spaced = "|".join(word.replace("_", rf"(?:{_JOINT}|\ )") for word in words)
        joined = "|".join(word.replace("_", _JOINT) for word in words)
        tail = rf"([0-9][0-9a-z]{{{SHORTEST - 1},{LONGEST - 1}}})(?![0-9a-z_])"
        bracketed = rf"{_OPEN}\ ?({spaced})(?:{_JOINT}|\ ){tail}(?:\ ?{_CLOSE})?"
        self.pattern = re.compile(
            rf"{bracketed}|(?<![0-9a-z_])({joined}){_JOINT}{tail}(?:{_CLOSE})?", re.IGNORECASE | re.ASCII | re.VERBOSE
        )
        self._words = tuple(words)
        self._parts = tuple({max(word.split("_"), key=len) for word in words})

    def within(self, text: str, start: int = 0, end: int = sys.maxsize) -> Iterator[re.Match[str]]:
        """What is written like a placeholder; texts without a number or an entity's word are not looked at twice."""
        if _NUMBER.search(text, start, end) is None:
            return iter(())
        upper = text.upper()
        return self.pattern.finditer(text, start, end) if any(part in upper for part in self._parts) else iter(())

    def names(self, text: str) -> frozenset[str]:
        """Of all that is written in the text like a placeholder."""
        return frozenset(self.key(match) for match in self.within(text))

    def key(self, found: re.Match[str]) -> str:
        """`EMAIL_7f3a`, for whatever of it was written."""
        word, letters = found[1] or found[3], found[2] or found[4]
        plain = re.sub(r"[\\ _-]+", "_", word).upper()
        return f"{plain}_{letters.lower()}"

    def opening(self, text: str, at: int) -> int:
        """Where a placeholder has begun that ends behind `at`, or may end in later text; `at` where none has."""
        for match in self.within(text, max(0, at - WINDOW), at + WINDOW):
            if match.start() < at < match.end():
                at = match.start()
        found = _PENDING.search(text, max(0, len(text) - WINDOW))
        while found is not None and found.start() < at:
            if self._may_become(found):
                return found.start()
            found = _PENDING.search(text, found.start() + 1)
        return at

    def _may_become(self, found: re.Match[str]) -> bool:
        told = re.sub(r"[\\ _-]+", "_", found[1] or found[2] or "").strip("_").upper()
        return any(word.startswith(told) or told.startswith(word) for word in self._words)


_NUMBER: Final = re.compile("[0-9][0-9A-Za-z]{3}")
_CLOSING: Final = r"[\x00\\]*(?:&|&g|&gt|%|%3)?\Z"
_PENDING: Final = re.compile(
    rf"""
    {_OPEN}\ ?([0-9a-z]*(?:(?:{_JOINT}|\ )[0-9a-z]*){{0,3}})\ ?{_CLOSING}
    |(?:&|&l|&lt|%|%3|\\{{1,2}})\Z
    |(?<![0-9a-z_])([0-9a-z]+(?:{_JOINT}[0-9a-z]+){{0,3}}(?:\\{{1,2}}(?:[_-][0-9a-z]*)?|[_-])?){_CLOSING}
    """,
    re.IGNORECASE | re.ASCII | re.VERBOSE,
)
"""Ends of a text that a placeholder may have begun in."""


class Table:
    """One exchange's values, nobody else's, and what stands for them. `found`: how many were found in its request."""

    __slots__ = ("_key", "_names", "_tenant", "found", "grammar", "sent", "values")

    def __init__(self, grammar: Grammar, key: bytes, tenant: str) -> None:
        self.grammar = grammar
        self.found = 0
        self.sent: bytes = b""
        self.values: dict[str, str] = {}
        self._key = key
        self._tenant = tenant
        self._names: dict[tuple[str, str], str] = {}

    def name(self, entity: str, value: str, taken: Container[str] = ()) -> str:
        """The placeholder of a value; none of those whose names are `taken`."""
        known = self._names.get((entity, value))
        if known is None:
            candidates = self._candidates(entity, value)
            known = next(name for name in candidates if name not in self.values and name not in taken)
            self._names[entity, value] = known
            self.values[known] = value
        return f"<{known}>"

    def _candidates(self, entity: str, value: str) -> Iterator[str]:
        """Longer and longer ones: a text that holds all of one hash's is answered with another hash."""
        word, tenant = word_of(entity), self._tenant
        while True:
            letters = identity(self._key, tenant, entity, value)
            yield from (f"{word}_{letters[:size]}" for size in range(SHORTEST, LONGEST + 1))
            tenant += "\0"

    def hashed(self, entity: str, value: str) -> str:
        """What stands for a value for good."""
        return f"<{word_of(entity)}_{identity(self._key, self._tenant, entity, value)[:HASHED]}>"

    def value(self, found: re.Match[str]) -> str | None:
        """What a placeholder of this exchange stood for."""
        return self.values.get(self.grammar.key(found))

    def holds(self, value: str) -> bool:
        """Whether the app itself has sent this text: it may be told it again."""
        return value.encode("utf-8", "surrogatepass") in self.sent


@lru_cache(_REMEMBERED)
def grammar(entities: tuple[str, ...]) -> Grammar:
    """The same for all instances with the same entities."""
    return Grammar(entities)
