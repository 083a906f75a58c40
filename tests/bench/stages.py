"""What the bench puts on every event: a tap that reads it and a filter that reads it and lets it pass as it came."""

from collections.abc import Iterable

from typing_extensions import override

from proxy.plugin import Event, EventFilter, EventTap, Exchange, Plugin, PluginConfig, Response


def _tokens(event: Event) -> int:
    return 0 if event.is_done else sum(bool(choice["delta"].get("content")) for choice in event.json()["choices"])


class _Counting(EventTap):
    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = 0

    @override
    def feed(self, event: Event) -> None:
        self.tokens += _tokens(event)


class _Reading(EventFilter):
    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = 0

    @override
    def feed(self, event: Event) -> Iterable[Event]:
        self.tokens += _tokens(event)
        return (event,)


class TapEveryEvent(Plugin[PluginConfig]):
    @override
    async def on_response(self, exchange: Exchange, response: Response) -> EventTap | None:
        return _Counting() if response.is_event_stream else None


class FilterEveryEvent(Plugin[PluginConfig]):
    @override
    async def on_response(self, exchange: Exchange, response: Response) -> EventFilter | None:
        return _Reading() if response.is_event_stream else None
