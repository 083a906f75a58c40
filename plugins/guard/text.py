"""How much text a prompt is: the parts that a model reads as text, and token ids at four bytes each.

Media and parts of kinds that nobody knows here count nothing. `most` bounds the sum by the body's size, so that a body
well below a limit is never looked through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.plugin import top_level_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugins.guard.endpoints import Endpoint

TOKEN_BYTES = 4

KEYS = frozenset(
    {
        "content",
        "text",
        "name",
        "refusal",
        "reasoning",
        "reasoning_content",
        "summary",
        "tool_calls",
        "function_call",
        "function",
        "arguments",
        "output",
        "input",
    }
)
"""What holds text within a message."""


def most(body: bytes) -> int:
    """More than `body` can hold of text: a token id takes at least two bytes."""
    return len(body) * TOKEN_BYTES // 2


def messages(endpoint: Endpoint, value: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Each message with its bytes of text, as an error names it; a lone prompt is one."""
    for key in endpoint.texts:
        below = value.get(key)
        if isinstance(below, list) and below and not isinstance(below[0], int):
            for place, entry in enumerate(below):
                yield f"{key}[{place}]" + (".content" if isinstance(entry, dict) else ""), _bytes(entry)
        else:
            yield key, _bytes(below)


def tools(endpoint: Endpoint, body: bytes) -> int:
    """The bytes of the tool definitions, as they stand in the body."""
    return sum(end - start for key in endpoint.tools for start, end in top_level_values(body, key))


def _bytes(value: Any) -> int:
    """Not recursive: JSON may be nested deeper than Python calls."""
    size, waiting = 0, [value]
    while waiting:
        match waiting.pop():
            case str(text):
                size += len(text) if text.isascii() else len(text.encode())
            case bool():
                pass
            case int():
                size += TOKEN_BYTES
            case list(entries):
                waiting.extend(entries)
            case dict(members):
                waiting.extend(below for key, below in members.items() if key.casefold() in KEYS)
    return size
