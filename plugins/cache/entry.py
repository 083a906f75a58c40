"""A kept answer: a line of JSON that says what it is, then its body as it came."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from proxy.plugin import Saved, Usage

VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """`at`: when it was made, in seconds since 1970. `pace`: of a stream, the milliseconds before and the length of
    each piece. `tells_usage`: the body reports its usage.
    """

    at: float
    is_stream: bool
    tells_usage: bool
    saved: Saved
    body: bytes
    pace: tuple[tuple[int, int], ...] = ()

    def packed(self) -> bytes:
        head = {
            "v": VERSION,
            "at": self.at,
            "stream": self.is_stream,
            "tells": self.tells_usage,
            "upstream": self.saved.upstream,
            "model": self.saved.model,
            "served": self.saved.served,
            "usage": asdict(self.saved.usage),
            "pace": self.pace,
        }
        return orjson.dumps(head) + b"\n" + self.body


def unpacked(value: bytes) -> Entry | None:
    """None where it is not one of ours."""
    head, _, body = value.partition(b"\n")
    try:
        return _entry(orjson.loads(head), body)
    except (ValueError, KeyError, TypeError):
        return None


def _entry(head: dict[str, Any], body: bytes) -> Entry | None:
    if head["v"] != VERSION:
        return None
    saved = Saved(head["upstream"], head["model"], head["served"], Usage(**head["usage"]))
    pace = tuple((wait, size) for wait, size in head["pace"])
    return Entry(float(head["at"]), head["stream"], head["tells"], saved, body, pace)
