"""A kept answer in the way that an app asks for it: as it came where that is the same way, else made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from plugins.cache import choices, responses
from plugins.cache.request import HAVE_USAGE_EVENTS
from plugins.cache.stream import without_usage

if TYPE_CHECKING:
    from plugins.cache.entry import Entry
    from plugins.cache.request import Asked

_OF_STREAM = {
    "chat": choices.chat_of,
    "completions": choices.completion_of,
    "responses": responses.response_of,
}


def needs_usage(entry: Entry, asked: Asked) -> bool:
    """JSON reports its usage, and so do streams where that was asked for: an entry that knows of none cannot serve."""
    return (asked.wants_usage if asked.streams else entry.is_stream) and asked.shape in HAVE_USAGE_EVENTS


def body_for(entry: Entry, asked: Asked) -> bytes:
    """Of an entry that tells its usage where that `needs_usage`."""
    if entry.is_stream and asked.streams:
        return without_usage(entry.body) if asked.hides_usage else entry.body
    if entry.is_stream:
        return orjson.dumps(_OF_STREAM[asked.shape](entry.body))
    return b"".join(_events(entry, asked)) if asked.streams else entry.body


def _events(entry: Entry, asked: Asked) -> list[bytes]:
    whole = orjson.loads(entry.body)
    if asked.shape not in HAVE_USAGE_EVENTS:
        return list(responses.response_events(whole))
    make = choices.chat_events if asked.shape == "chat" else choices.completion_events
    return list(make(whole, wants_usage=asked.wants_usage))
