"""Replaces what is found in texts of a request: of each value all places, of the text nothing else.

What cannot be read is refused, never passed: a body in another encoding than UTF-8, a compressed one, a form that is
written in percents and has something in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

from plugins.pii.page import Page, replaced
from plugins.pii.parts import parts_of
from plugins.pii.placeholder import word_of
from plugins.pii.scope import Kept, kept
from proxy.plugin import ClientFault, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from plugins.pii.findings import Finding
    from plugins.pii.placeholder import Table
    from plugins.pii.settings import Action, PiiConfig

    Find = Callable[[str], list[Finding]]
    Count = Callable[[str], None]

_CONTEXT: Final = 80
"""Characters before a string that may say what it is."""

FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
_BINARY: Final = ("audio/", "image/", "video/", "application/octet-stream", "application/pdf", "application/zip")
_READ_AS_ASCII: Final = ("", "utf-8", "utf8", "us-ascii", "ascii")


class Redactor:
    def __init__(self, config: PiiConfig, find: Find, count: Count) -> None:
        """`count` is told the entity of each finding."""
        self._find = find
        self._count = count
        self._roles = None if config.roles is None else frozenset(config.roles)
        self._actions: dict[str, Action] = {name: config.action_of(name) for name in config.names}

    def body(self, body: bytes, content_type: str, table: Table) -> bytes:
        """What goes up instead; the same object where nothing was changed. Raises ClientFault and Rejected."""
        kind = content_type.partition(";")[0].strip().lower()
        if kind == MULTIPART:
            return self._multipart(body, content_type, table)
        text = _decoded(body, content_type)
        if text is None:
            if kind.startswith(_BINARY):
                return body
            raise _unreadable("the body is not UTF-8 text, so nobody can look for personal data in it")
        if kind == FORM:
            self.refuse(unquote_plus(text), "the form", table)
            return body
        changed = self._json(text, body, table) if _is_json(kind, text) else self.plain(text, table)
        return body if changed is text else changed.encode()

    def plain(self, text: str, table: Table, *, but: str = "") -> str:
        """Of a text without escapes; `but` is an entity that may stand there. The same object where nothing changes."""
        found = [one for one in self._find(text) if one.entity != but]
        if not found:
            return text
        changes = self._changes([(start, end, entity, text[start:end]) for start, end, entity in found], text, table)
        return replaced(text, changes) if changes else text

    def refuse(self, text: str, where: str, table: Table, *, but: str = "") -> None:
        """Raises Rejected for what is found where it cannot be replaced; `but` is an entity that may stand there."""
        for _, _, entity in self._find(text):
            if entity != but:
                self._count(entity)
                table.found += 1
                if self._actions[entity] != "report":
                    raise _held(entity, f"{where} holds", "send it in the body of a known endpoint, or not at all")

    def _json(self, raw: str, body: bytes, table: Table) -> str:
        page = Page(raw)
        seen = self._find(page.text)
        if not seen:
            return raw
        keeps = Kept(kept(body, raw, self._roles, {page.text[start:end] for start, end, _ in seen}))
        found = [
            (start, end, entity, value) for start, end, entity, value in self._on_page(page, seen) if start not in keeps
        ]
        changes = [
            (start, end, f'"{name}"' if page.is_number(start, end) else name)
            for start, end, name in self._changes(found, page.text, table)
        ]
        return replaced(raw, changes) if changes else raw

    def _on_page(self, page: Page, found: Sequence[Finding]) -> Iterator[tuple[int, int, str, str]]:
        """Places in the raw text with entity and value. A finding ends with the string that it begins in."""
        for at, (start, end, entity) in enumerate(found):
            first, last = page.span(start, end)
            if last >= page.place(end):
                yield first, last, entity, page.text[start:end]
                continue
            stop = page.offset(last)
            if stop > start:
                yield first, last, entity, page.text[start:stop]
            yield from self._swallowed(page, stop, end, found[at + 1].start if at + 1 < len(found) else len(page.text))

    def _swallowed(self, page: Page, begin: int, end: int, limit: int) -> Iterator[tuple[int, int, str, str]]:
        """What is in the strings that a finding ran across; each is read by itself, behind what stands before it."""
        for start, stop in page.strings(begin, end):
            before = max(0, start - _CONTEXT)
            found = self._find(page.text[before:stop])
            if any(before + one.start < start < before + one.end for one in found):
                before, found = start, self._find(page.text[start:stop])
            for one in found:
                first, last = before + one.start, before + one.end
                if first >= start and last <= limit:
                    yield *page.span(first, last), one.entity, page.text[first:last]

    def _changes(
        self, found: Sequence[tuple[int, int, str, str]], text: str, table: Table
    ) -> list[tuple[int, int, str]]:
        changes, taken = [], table.grammar.names(text)
        for start, end, entity, value in found:
            self._count(entity)
            table.found += 1
            match self._actions[entity]:
                case "restore":
                    changes.append((start, end, table.name(entity, value, taken)))
                case "mask":
                    changes.append((start, end, f"<{word_of(entity)}>"))
                case "hash":
                    changes.append((start, end, table.hashed(entity, value)))
                case "block":
                    raise _held(entity, "the request holds", "remove it")
                case "report":
                    pass
        return changes

    def _multipart(self, body: bytes, content_type: str, table: Table) -> bytes:
        parts = parts_of(body, content_type)
        if parts is None:
            raise _unreadable("the form is not what its content-type says")
        changed, at = [], 0
        for start, end, kind in parts:
            before = body[start:end]
            text = _decoded(before, kind)
            if text is None and not _is_binary(before):
                raise _unreadable("a text in the form is not UTF-8, so nobody can look for personal data in it")
            if text is not None:
                after = self._json(text, before, table) if _is_json(kind, text) else self.plain(text, table)
                changed += [body[at:start], after.encode()]
                at = end
        whole = b"".join((*changed, body[at:]))
        return body if whole == body else whole


def _decoded(body: bytes, content_type: str) -> str | None:
    """The text, or None where it is none in UTF-8."""
    if "charset" in content_type and not _is_utf8(content_type):
        return None
    if b"\0" in body:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _is_utf8(content_type: str) -> bool:
    charset = content_type.lower().partition("charset=")[2].partition(";")[0]
    return charset.strip(" \"'") in _READ_AS_ASCII


def _is_binary(data: bytes) -> bool:
    """Sound, pictures and the like: what has no text in it, in UTF-16 either."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    sample = data[:1024]
    letters = sum(byte in _PRINTABLE for byte in sample)
    return letters * 2 - sample.count(0) * 2 < len(sample) and not _looks_wide(sample)


def _looks_wide(sample: bytes) -> bool:
    """Whether every second byte is zero, as in UTF-16 of Latin letters."""
    half = len(sample) // 2
    return half > 1 and max(sample[::2].count(0), sample[1::2].count(0)) * 10 > half * 7


def _is_json(kind: str, text: str) -> bool:
    return "json" in kind or text.lstrip()[:1] in {"{", "["}


def _unreadable(what: str) -> ClientFault:
    return ClientFault(f"{what}; send UTF-8", code="unreadable_body")


def _held(entity: str, what: str, fix: str) -> Rejected:
    return Rejected(f"{what} a value of the kind '{entity}', which must not leave here; {fix}", code="pii_found")


_PRINTABLE: Final = frozenset(b"\t\n\r" + bytes(range(32, 127)))
