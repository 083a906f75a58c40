"""The events of a kept stream, and of one on its way: what they say, and which of them an app did not ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from proxy.plugin import Event, EventReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proxy.plugin import ProxyError

    Fields = list[tuple[bytes, bytes]]

DONE = b"data: [DONE]\n\n"
_BLANK = (b"\n\n", b"\r\n\r\n", b"\r\r")


def values_of(body: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects that a stream's events are."""
    for event in _events(body):
        value = _value(event)
        if value is not None:
            yield value


def event(value: Any, name: str = "") -> bytes:
    head = b"event: %b\n" % name.encode() if name else b""
    return b"%bdata: %b\n\n" % (head, orjson.dumps(value))


def without_usage(body: bytes) -> bytes:
    """The stream for an app that did not ask for its usage: the event that tells only that is left out."""
    return b"".join(each.raw for each in _events(body) if not _tells_only_usage(each)) if b"[]" in body else body


def before_done(body: bytes, told: bytes) -> bytes:
    """The stream with another event at its end."""
    events = _events(body)
    end = events.pop().raw if events and events[-1].is_done else b""
    before = b"".join([each.raw for each in events])
    return b"%b%b%b%b" % (before, b"" if before.endswith(_BLANK) else b"\n\n", told, end)


class HideUsage:
    """Stands before a relay, and leaves out the event that tells only the usage."""

    def __init__(self, receiver: Any) -> None:
        self._receiver = receiver
        self._reader = EventReader()

    def feed(self, chunk: bytes) -> None:
        if b"[]" not in chunk and self._reader.is_clear and chunk.endswith(b"\n\n"):
            self._receiver.feed(chunk)
        else:
            self._pass(self._reader.feed(chunk))

    def end(self, trailers: Fields) -> None:
        self._pass(self._reader.end())
        self._receiver.end(trailers)

    def fail(self, error: ProxyError) -> None:
        self._pass(self._reader.end())
        self._receiver.fail(error)

    def _pass(self, events: Sequence[Event]) -> None:
        shown = b"".join([each.raw for each in events if not _tells_only_usage(each)])
        if shown:
            self._receiver.feed(shown)


def _events(body: bytes) -> list[Event]:
    reader = EventReader(len(body) + 1)
    return [*reader.feed(body), *reader.end()]


def _tells_only_usage(each: Event) -> bool:
    value = _value(each) if b"[]" in each.raw else None
    return value is not None and value.get("choices") == [] and isinstance(value.get("usage"), dict)


def _value(each: Event) -> dict[str, Any] | None:
    try:
        value = each.json()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
