"""A kept answer in the way that an app asks for it: as it came where that is the same way, else made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from plugins.cache import choices, responses
from plugins.cache.request import HAVE_USAGE_EVENTS
from plugins.cache.stream import before_done, without_usage
from proxy.plugin import streamed_tokens

if TYPE_CHECKING:
    from plugins.cache.entry import Entry
    from plugins.cache.request import Asked

_OF_STREAM = {
    "chat": choices.chat_of,
    "completions": choices.completion_of,
    "responses": responses.response_of,
}


def needs_usage(entry: Entry, asked: Asked) -> bool:
    """JSON reports its usage, and so do streams where that was asked for."""
    return (asked.wants_usage if asked.streams else entry.is_stream) and asked.shape in HAVE_USAGE_EVENTS


def with_usage(entry: Entry, asked: Asked, prompt: int) -> Entry:
    """An entry that knows of no usage with an estimated one, for a prompt of so many tokens."""
    if not entry.is_stream:
        made = b"".join(_events(entry, asked))
        return entry._replace(body=orjson.dumps({**orjson.loads(entry.body), "usage": _usage(prompt, made)}))
    body = before_done(entry.body, choices.usage_event(entry.body, _usage(prompt, entry.body)))
    pace = [*entry.pace, (0, len(body) - len(entry.body))] if entry.pace else ()
    return entry._replace(body=body, pace=pace)


def _usage(prompt: int, stream: bytes) -> dict[str, int]:
    made = streamed_tokens(stream)
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


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
