"""What of a request's JSON stays as it is: the model's name, the seed, and messages of roles that nobody asked for."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

import orjson

from proxy.plugin import top_level_values

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

_STRUCTURE: Final = ("model", "seed")
_DIALOGUES: Final = ("messages", "input")
_OF_ROLES: Final = {"instructions": "system", "system": "system", "prompt": "user", "inputs": "user"}
_ROLE_OF_TYPE: Final = {"function_call_output": "tool", "custom_tool_call_output": "tool", "message": "user"}
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],]', re.DOTALL)


class Kept:
    """Places in order, none within another; there may be thousands, and findings too."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]

    def __contains__(self, at: int) -> bool:
        place = bisect_right(self._starts, at) - 1
        return place >= 0 and at < self._ends[place]


def kept(body: bytes, raw: str, roles: frozenset[str] | None, found: Collection[str]) -> list[tuple[int, int]]:
    """Places in `raw`, which is `body` decoded, where something of what was `found` may stand: in order.

    None where it is no JSON object: then nothing is known of it.
    """
    try:
        value = orjson.loads(body)
    except ValueError:
        return []
    if not isinstance(value, dict):
        return []
    structure = [key for key in _STRUCTURE if key in value and any(text in str(value[key]) for text in found)]
    spans = [span for key in structure for span in top_level_values(body, key)]
    if roles is not None:
        spans += _of_other_roles(body, value, roles)
    spans.sort()
    return spans if len(body) == len(raw) else list(_in_characters(body, spans))


def _in_characters(body: bytes, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    at = characters = 0
    for start, end in spans:
        first = characters + len(body[at:start].decode())
        at, characters = end, first + len(body[start:end].decode())
        yield first, characters


def _of_other_roles(body: bytes, value: dict[str, Any], roles: frozenset[str]) -> Iterator[tuple[int, int]]:
    for key, role in _OF_ROLES.items():
        if key in value and role not in roles:
            yield from top_level_values(body, key)
    for key in _DIALOGUES:
        for start, end in top_level_values(body, key) if key in value else ():
            if body[start : start + 1] == b"[":
                yield from (
                    (start + first, start + last)
                    for first, last in elements(body[start:end])
                    if _role(body[start + first : start + last]) not in roles
                )
            elif "user" not in roles:
                yield start, end


def _role(element: bytes) -> str:
    value = orjson.loads(element)
    if not isinstance(value, dict):
        return "user"
    role = value.get("role")
    return role if isinstance(role, str) else _ROLE_OF_TYPE.get(str(value.get("type")), "assistant")


def elements(array: bytes) -> Iterator[tuple[int, int]]:
    """Where the elements of a valid JSON array lie, with the blanks around them."""
    depth, start = 0, 1
    for token in _TOKEN.finditer(array):
        mark = token[0]
        if mark in {b"[", b"{"}:
            depth += 1
        elif mark in {b"]", b"}"}:
            depth -= 1
        if (mark == b"," and depth == 1) or (mark == b"]" and not depth):
            if array[start : token.start()].strip():
                yield start, token.start()
            start = token.end()
