"""Single values of a request body, read and replaced as bytes: what nobody asked to change stays byte-identical."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.message import Message
from functools import lru_cache
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOKEN = re.compile(_TEXT + rb"|[{}\[\]:,]", re.DOTALL)
"""Strings and structure; numbers, literals and blanks lie between."""

_MEMBER = re.compile(rb"(%b)\s*:(?:\s*%b)?|%b|[{}]" % (_TEXT, _TEXT, _TEXT), re.DOTALL)
"""Keys, other strings, and the borders of objects."""

_ESCAPED = re.compile(rb"\\u00[2-7]")
"""A letter of ASCII that needs no escape, as it may stand in the keys that are asked for here."""

_PART_HEAD_BYTES = 4096
_KEYS = 64  # sets of keys that are asked for again and again


def replace_value(body: bytes, key: str, value: object) -> bytes:
    """`body`, a valid JSON object, with every top-level `key` set to `value`; a missing key is added in front."""
    spans = list(top_level_values(body, key))
    written = orjson.dumps(value)
    if not spans:
        return _with_member(body, orjson.dumps(key) + b":" + written)
    for start, end in reversed(spans):
        body = body[:start] + written + body[end:]
    return body


def top_level_values(body: bytes, key: str) -> Iterator[tuple[int, int]]:
    """Where the values of a top-level key lie in a valid JSON object, blanks around them excluded."""
    if b'"%b"' % key.encode() not in body and not _ESCAPED.search(body):
        return
    depth, is_key, wanted, start = 0, True, False, 0
    for token in _TOKEN.finditer(body):
        mark = body[token.start()]
        if mark in b"}],":
            if depth == 1 and wanted:
                yield _trimmed(body, start, token.start())
                wanted = False
            depth -= mark != _COMMA
            is_key = depth == 1
        elif mark in b"{[":
            depth += 1
        elif depth == 1 and mark == _COLON:
            start, is_key = token.end(), False
        elif depth == 1 and is_key:
            wanted = orjson.loads(token.group()) == key


def repeated_key(body: bytes, keys: frozenset[str]) -> str | None:
    """One of `keys` that some object within `body`, valid JSON, holds twice: parsers differ on which one counts."""
    if not _ESCAPED.search(body):
        found = _sought(keys).findall(body)
        if len(found) == len(set(found)):
            return None
    spelled, opened = {key.encode() for key in keys}, list[set[str]]()
    for token in _MEMBER.finditer(body):
        text = token[1]
        if text is None:
            _open_or_close(opened, token[0])
        elif text[1:-1] in spelled or b"\\" in text:
            key = orjson.loads(text)
            if key in opened[-1]:
                return str(key)
            opened[-1].update({key} & keys)
    return None


@lru_cache(_KEYS)
def _sought(keys: frozenset[str]) -> re.Pattern[bytes]:
    return re.compile(rb'"(%b)"\s*:' % b"|".join(key.encode() for key in sorted(keys)))


def _open_or_close(opened: list[set[str]], mark: bytes) -> None:
    if mark == b"{":
        opened.append(set())
    elif mark == b"}":
        opened.pop()


def _trimmed(body: bytes, start: int, end: int) -> tuple[int, int]:
    value = body[start:end]
    return start + len(value) - len(value.lstrip()), end - (len(value) - len(value.rstrip()))


def _with_member(body: bytes, member: bytes) -> bytes:
    at = body.index(b"{") + 1
    rest = body[at:]
    return body[:at] + member + (b"" if rest.lstrip().startswith(b"}") else b",") + rest


def multipart_field(body: bytes, content_type: str, name: str) -> str | None:
    """The text of a form field, the last of that name as servers read it, or None."""
    values = multipart_fields(body, content_type, name)
    return values[-1] if values else None


def multipart_fields(body: bytes, content_type: str, name: str) -> list[str]:
    """The texts of all form fields of that name."""
    spans = _multipart_spans(body, content_type, name)
    return [body[start:end].decode("utf-8", "replace") for start, end in spans]


def replace_multipart_field(body: bytes, content_type: str, name: str, value: str) -> bytes:
    for start, end in reversed(list(_multipart_spans(body, content_type, name))):
        body = body[:start] + value.encode() + body[end:]
    return body


def _multipart_spans(body: bytes, content_type: str, name: str) -> Iterator[tuple[int, int]]:
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str):
        return
    fence = b"--" + boundary.encode("utf-8", "surrogateescape")
    at = body.find(fence)
    while at >= 0:
        head_end = body.find(b"\r\n\r\n", at, at + _PART_HEAD_BYTES)
        following = body.find(b"\r\n" + fence, at)
        if 0 <= head_end < following and _part_name(body[at + len(fence) + 2 : head_end]) == name:
            yield head_end + 4, following
        at = following + 2 if following >= 0 else -1


def _part_name(head: bytes) -> object:
    return message_from_bytes(head).get_param("name", header="content-disposition")


_COMMA, _COLON = b",:"
