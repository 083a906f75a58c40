"""The prompt of a request as bytes to compare: the same for the same words, in whatever order its keys stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROMPTS = ("messages", "input", "prompt", "inputs")


def opening(body: Any) -> bytes:
    """All up to the user's first message, which stays the same over a conversation's turns; b"" without a prompt."""
    told = b""
    for role, content in _messages(body):
        told += b"%b\0%b\0" % (role.encode(), _text(content))
        if role == "user":
            break
    return told


def beginning(body: Any, size: int) -> bytes:
    """At most `size` bytes."""
    told = b""
    for role, content in _messages(body):
        told += b"%b\0%b\0" % (role.encode(), _text(content))
        if len(told) >= size:
            break
    return told[:size]


def _messages(body: Any) -> Iterator[tuple[str, Any]]:
    """Role and content, in order; a plain prompt is the user's."""
    if not isinstance(body, dict):
        return
    if body.get("instructions"):
        yield "system", body["instructions"]
    for name in _PROMPTS:
        value = body.get(name)
        for message in value if isinstance(value, list) else [value]:
            if isinstance(message, dict):
                yield str(message.get("role", "")), message.get("content", message)
            elif message is not None:
                yield "user", message


def _text(content: Any) -> bytes:
    return b"".join(map(_part, content if isinstance(content, list) else [content]))


def _part(part: Any) -> bytes:
    text = part.get("text") if isinstance(part, dict) else part
    if isinstance(text, str):
        return text.encode()
    try:
        return orjson.dumps(part, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # nested deeper than can be written
        return b""
