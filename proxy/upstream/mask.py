"""Takes an upstream's own credential out of what that upstream says: errors like to repeat it.

Every value that was current lately counts, as it is, as JSON escapes it, and percent-encoded. What is no error is not
searched: an answer's bytes are the app's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.errors import ProxyError
    from proxy.headers import Fields
    from proxy.upstream.incoming import Receiver

HIDDEN = b"***"
KEPT = 64
"""Values that are remembered: with the pauses between renewals, those of the last minutes."""
RECOGNISABLE = 8
"""Shorter values (`none`, `EMPTY`) are words too: they are taken out only where they stand alone."""
HELD_BYTES = 64 * 1024

_HEAD = 8
_SPELLING = re.compile(rb"\\u00([0-9A-Fa-f]{2})|%([0-9A-Fa-f]{2})|\\?(.)", re.DOTALL)
_BROKEN_OFF = re.compile(rb"(?:\\(?:u[0-9A-Fa-f]{0,3})?|%[0-9A-Fa-f]?)?\Z")
_WORD = re.compile(rb"\w")
_BLANK = re.compile(rb"\n\n|\r\r|\n\r\n")
_BEGINNINGS = (b"e", b"er", b"err", b"erro")
(_LF,) = b"\n"


class Mask:
    """The secrets of one upstream; they are ASCII."""

    def __init__(self) -> None:
        self._heads: dict[bytes, re.Pattern[bytes]] = {}
        self._longest_first: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._heads)

    def add(self, secret: str) -> None:
        key = secret.encode()
        self._heads.pop(key, None)
        self._heads[key] = re.compile(b"".join(map(_spelt, secret[:_HEAD])))
        if len(self._heads) > KEPT:
            del self._heads[next(iter(self._heads))]
        self._longest_first = sorted(self._heads, key=len, reverse=True)

    def hide(self, text: bytes) -> bytes:
        for secret in self._longest_first:
            if len(secret) >= RECOGNISABLE:
                text = text.replace(secret, HIDDEN)
            if self._heads[secret].search(text):
                text = self._without(text, secret)
        return text

    def hide_fields(self, fields: Fields) -> Fields:
        return [(name, self.hide(value)) for name, value in fields]

    def before(self, receiver: Receiver) -> Guard:
        return Guard(self, receiver)

    def _without(self, text: bytes, secret: bytes) -> bytes:
        pieces, done = [], 0
        for found in self._heads[secret].finditer(text):
            start, end = found.start(), _end_of(secret, text, found.start())
            if end is not None and start >= done and (len(secret) >= RECOGNISABLE or _stands_alone(text, start, end)):
                pieces += [text[done:start], HIDDEN]
                done = end
        return b"".join([*pieces, text[done:]])


def _spelt(letter: str) -> bytes:
    """Each spelling begins with a byte of its own: so the search skips what begins with another."""
    own = re.escape(letter)
    code = "".join(f"[{digit}{digit.upper()}]" for digit in f"{ord(letter):02x}")
    return rf"(?:{own}|\\(?:{own}|u00{code})|%{code})".encode()


def _end_of(secret: bytes, text: bytes, start: int) -> int | None:
    """Where the secret that begins at `start` ends, or the text that breaks off within it; None where it is another.

    Letter by letter: a pattern for a whole token would take as long to compile as a thousand requests to serve.
    """
    at = start
    for place, letter in enumerate(secret):
        spelling = _SPELLING.match(text, at)
        if spelling is None or _meant(spelling) != letter:
            return len(text) if place >= RECOGNISABLE and _BROKEN_OFF.match(text, at) else None
        at = spelling.end()
    return at


def _meant(spelling: re.Match[bytes]) -> int:
    code = spelling[1] or spelling[2]
    return int(code, 16) if code else spelling[3][0]


def _stands_alone(text: bytes, start: int, end: int) -> bool:
    return not (_WORD.match(text[start - 1 : start]) or _WORD.match(text, end))


class Guard:
    """Stands before the receiver of an event stream, and hides the credential in events that speak of an error.

    Such an event that comes in parts is held until it is whole, at most HELD_BYTES of it.
    """

    __slots__ = ("_held", "_mask", "_pass", "_receiver")

    def __init__(self, mask: Mask, receiver: Receiver) -> None:
        self._mask = mask
        self._receiver = receiver
        self._pass = receiver.feed
        self._held = b""

    def feed(self, chunk: bytes) -> None:
        if self._held or chunk.find(b"error") >= 0 or (chunk[-1] != _LF and chunk.endswith(_BEGINNINGS)):
            self._check(self._held + chunk)
        else:
            self._pass(chunk)

    def end(self, trailers: Fields) -> None:
        self._release()
        self._receiver.end(trailers)

    def fail(self, error: ProxyError) -> None:
        self._release()
        self._receiver.fail(error)

    def _check(self, data: bytes) -> None:
        pieces, at = [], 0
        for blank in _BLANK.finditer(data):
            pieces.append(self._shown(data[at : blank.end()]))
            at = blank.end()
        rest = data[at:]
        is_held = len(rest) <= HELD_BYTES and (b"error" in rest or rest.endswith(_BEGINNINGS))
        self._held = rest if is_held else b""
        if not is_held:
            pieces.append(self._shown(rest))
        if shown := b"".join(pieces):
            self._pass(shown)

    def _shown(self, event: bytes) -> bytes:
        return self._mask.hide(event) if b"error" in event else event

    def _release(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._pass(self._shown(held))
