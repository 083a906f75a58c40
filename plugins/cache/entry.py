"""A kept answer: a line of JSON that says what it is, then its body as it came."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 1


class Entry(NamedTuple):
    """`at`: when it was made, in seconds since 1970, by `upstream`, which was asked for `model`.

    `pace`: the milliseconds before and the length of each piece of a stream, where that is to be kept.
    """

    at: float
    is_stream: bool
    upstream: str
    model: str | None
    pace: Sequence[Sequence[int]]
    body: bytes

    def packed(self) -> bytes:
        at, is_stream, upstream, model, pace, body = self
        return orjson.dumps((VERSION, at, is_stream, upstream, model, pace)) + b"\n" + body


def unpacked(value: bytes) -> Entry | None:
    """None where it is not one of ours."""
    head, _, body = value.partition(b"\n")
    try:
        version, *told = orjson.loads(head)
        return Entry._make([*told, body]) if version == VERSION else None
    except (ValueError, TypeError):
        return None
