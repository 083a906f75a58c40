"""Asking an upstream to report the usage of a stream, unseen by the app.

The request goes up with `stream_options.include_usage` where the app said nothing of it; every other byte stays. The
event that comes for it is taken out of the answer: a usage, and no choices or (LiteLLM) such that say nothing. An
upstream that refuses the field gets the request once more as the app wrote it, and if that was it, is not asked again
for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from proxy.plugin import EventFilter, replace_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxy.plugin import Event

FORGET_SECONDS = 3600.0
REFUSED = frozenset({400, 422})
"""How strict servers answer to a field that they do not know; both come before any work is done."""


def streams(request: Any) -> bool:
    """Whether its JSON asks for a stream: any other answer has its usage in it."""
    return isinstance(request, dict) and request.get("stream") is True


def asked(body: bytes, request: Any) -> bytes | None:
    """The body, of which `request` is the JSON, with the wish for a usage in it; None where it is not to be changed."""
    if not streams(request):
        return None
    options = request.get("stream_options")
    if options is None:
        return replace_value(body, "stream_options", {"include_usage": True})
    if not isinstance(options, dict) or "include_usage" in options:
        return None
    return replace_value(body, "stream_options", {**options, "include_usage": True})


_COUNTS = b'_tokens"'
"""In every usage, and seldom in what else a stream says."""


class Unwilling:
    """Upstreams that refused to be asked, and until when they are left alone."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def note(self, upstream: str) -> None:
        self._until[upstream] = self._clock() + FORGET_SECONDS

    def __contains__(self, upstream: str) -> bool:
        return upstream in self._until and self._clock() < self._until[upstream]


class HideUsage(EventFilter):
    """Drops the event that nobody but us asked for."""

    __slots__ = ()

    @override
    def skips(self, chunk: bytes) -> bool:
        return _COUNTS not in chunk

    @override
    def feed(self, event: Event) -> Iterable[Event]:
        return () if _COUNTS in event.raw and _tells_only_usage(event) else (event,)


def _tells_only_usage(event: Event) -> bool:
    try:
        value = event.json()
    except ValueError:
        return False
    if not isinstance(value, dict) or not isinstance(value.get("usage"), dict):
        return False
    choices = value.get("choices")
    return isinstance(choices, list) and all(map(_says_nothing, choices))


def _says_nothing(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("delta") == {} and not choice.get("finish_reason")
