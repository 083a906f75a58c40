r"""Private keys in PEM and in PGP's armour: many lines, so a state for streams rather than a word.

A block begins with its BEGIN line and a first run of base64, headers between them or not; it ends with its END line,
with what cannot belong to it, or after `LIMIT` characters. Line breaks may be written as `\n`, and lines may be quoted,
as in JSON and in source code. A BEGIN line without a key behind it is no finding.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from plugins.pii.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 16_384

GATE = "-----BEGIN [A-Z0-9 ]*PRIVATE KEY"

_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_GAP = r"(?:[\s\"'+,]|\\[nrt\\]|\\(?=[\"'nrt]))"
_HEADERS = rf"(?:{_GAP}{{0,12}}[A-Z][A-Za-z-]{{2,20}}: [^\n\\]{{0,120}}){{0,6}}"
_BODY = re.compile(rf"{_HEADERS}{_GAP}{{0,12}}[A-Za-z0-9+/=]{{20}}(?:[A-Za-z0-9+/=]|{_GAP})*")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_MAYBE_BEGIN = re.compile(r"-----BEGIN[A-Z0-9 ]{0,60}-{0,4}\Z")
_LONGEST_END = 80
_MAYBE_BODY = re.compile(
    rf"{_HEADERS}{_GAP}{{0,12}}(?:[A-Z][A-Za-z-]{{0,20}}(?:: [^\n\\]{{0,120}})?|[A-Za-z0-9+/=]{{0,19}}|\\)\Z"
)


def blocks(text: str, start: int, end: int) -> Iterator[Finding]:
    at = start
    while (begin := _BEGIN.search(text, at, end)) is not None:
        start, at = begin.span()
        body = _BODY.match(text, at, start + LIMIT)
        if body is not None:
            over = _END.match(text, body.end())
            at = min(start + LIMIT, over.end() if over else body.start() + len(body[0].rstrip(" \t\r\n\\\"'+,")))
            yield Finding(start, at, "secret")


def opening(text: str, at: int) -> int:
    """Where a block begins that is not over before `at`; `at` where there is none."""
    start = text.find("-----BEGIN")
    while start >= 0:
        if _end(text, start) > at:
            return min(at, start)
        start = text.find("-----BEGIN", start + 1)
    return at


def _end(text: str, start: int) -> int:
    """Where the block that begins there ends; behind the text's end if more of it may come, 0 if it is none."""
    may_go_on = len(text) + 1
    begin = _BEGIN.match(text, start)
    if begin is None:
        return may_go_on if _MAYBE_BEGIN.match(text, start) else 0
    body = _BODY.match(text, begin.end())
    if body is None:
        return may_go_on if _MAYBE_BODY.match(text, begin.end()) else 0
    end = _END.match(text, body.end())
    if end is not None:
        return end.end()
    rest = text[body.end() : body.end() + _LONGEST_END]
    return may_go_on if rest == "\\" or _may_be_end(rest) else body.end()


def _may_be_end(rest: str) -> bool:
    """Whether an END line has only begun."""
    return "-----END ".startswith(rest) or re.fullmatch("-----END [A-Z0-9 ]{0,40}-{0,5}", rest) is not None
