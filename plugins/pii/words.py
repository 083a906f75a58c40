"""Where a text may be cut: nothing that is found reaches over these places.

A *word* is a run of the characters below; whatever else stands between words (white space, brackets, quotes, commas,
letters of other scripts) ends it for good. Words in a line that are one space apart may belong together where each
could be a group of a number: it has a digit, or is at most four capitals (the country and bank of an IBAN). Every
detector keeps to it, but for two that say so themselves: quoted values of keys, and PEM blocks.
"""

from __future__ import annotations

import re
import string

_LETTERS_AND_DIGITS = string.ascii_letters + string.digits
DASHES = "\u2010\u2011\u2012\u2013"  # models like to write numbers with these
JOINERS = " \u00a0\u202f"
WORD = _LETTERS_AND_DIGITS + "_.+-@:/%#&=?~!$*^'()" + DASHES

_DIGIT = re.compile("[0-9]")
_MOST_CAPITALS = 4
_SHORT = 32

# Of these no detector can make anything unless a key's sign stands before: see `plain`. So many letters behind a hyphen
# are more than a word's: a key's without a digit.
_NOT_PLAIN = re.compile(r"[^A-Za-z \n.,!?;'\"()*`\u00c0-\u024f\u2018-\u201d\u2026-]|--|-[A-Za-z]{15}")


def opening(text: str) -> int:
    """From where on the text's meaning may still change with what comes after it."""
    at = _start_of_word(text, len(text))
    while at and text[at - 1] in JOINERS:
        start = _start_of_word(text, at - 1)
        if not _may_be_group(text[start : at - 1]):
            break
        at = start
    return at


def _start_of_word(text: str, end: int) -> int:
    """Of the word that ends there; a little of the text is taken first, as nearly all words are short."""
    for span in (_SHORT, end):
        start = max(0, end - span)
        rest = len(text[start:end].rstrip(WORD))
        if rest:
            return start + rest
    return 0


def _may_be_group(word: str) -> bool:
    if _DIGIT.search(word):
        return True
    return 0 < len(word) <= _MOST_CAPITALS and word.isalpha() and word.isupper()


def plain(text: str) -> bool:
    """Prose without a digit or a sign of its own: nothing in it can be found."""
    return _NOT_PLAIN.search(text) is None


_ARMING = re.compile(r"[:=>,(|][\s\"'`\\>|-]{0,20}(?:(?:[Bb]earer|Basic|[Tt]oken) |[bfruLB@]{1,2}[\"'`])?\Z")
_ARMING_SPAN = 32


def arming(text: str) -> bool:
    """Whether a plain word behind this could be a key's value: `password: `."""
    return _ARMING.search(text, max(0, len(text) - _ARMING_SPAN)) is not None
