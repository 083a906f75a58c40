r"""Private keys in PEM and in PGP's armour: many lines, so a state for streams rather than a word.

A block begins with its BEGIN line and a first run of base64, headers between them or not; it ends with its END line,
with what cannot belong to it, or after `LIMIT` characters. Line breaks may be written as `\n`, and lines may be quoted,
as in JSON and in source code. A BEGIN line without a key behind it is no finding.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from plugins.pii.findings import Finding
from plugins.pii.words import WORD

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 16_384

GATE = "-----BEGIN [A-Z0-9 ]*PRIVATE KEY"

_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_GAP = r"(?:[\s\"'+,]|\\[nrt\\]|\\(?=[\"'nrt]))"
_HEADERS = rf"(?:{_GAP}{{0,12}}[A-Z][A-Za-z-]{{2,20}}: [^\n\\]{{0,120}}){{0,6}}"
_BODY = re.compile(rf"{_HEADERS}{_GAP}{{0,12}}[A-Za-z0-9+/=]{{20}}(?:[A-Za-z0-9+/=]|{_GAP})*")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
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


def opening(text: str) -> int:
    """Where a block begins that is not over yet; the text's end where there is none."""
    start = text.rfind("-----BEGIN")
    if start < 0:
        return len(text)
    begin = _BEGIN.match(text, start)
    if begin is None:
        return start if len(text) - start < 64 and "\n" not in text[start:] else len(text)
    body = _BODY.match(text, begin.end())
    if body is None:
        return start if _MAYBE_BODY.match(text, begin.end()) else len(text)
    end = _END.match(text, body.end())
    rest = text[end.end() if end else body.end() :]
    may_go_on = end is None and (rest == "\\" or _may_be_end(rest))
    return len(text) if rest.strip(WORD) and not may_go_on else start


def _may_be_end(rest: str) -> bool:
    """Whether an END line has only begun."""
    return "-----END ".startswith(rest) or re.fullmatch("-----END [A-Z0-9 ]{0,40}-{0,5}", rest) is not None
