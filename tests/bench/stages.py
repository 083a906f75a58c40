"""What the bench puts on every event: a tap that looks at its data, and a filter that does too and lets it pass as it came.

They do not parse it: what a plugin makes of an event is its own cost, this is the relay's.
"""

from collections.abc import Iterable

from typing_extensions import override

from proxy.plugin import Event, EventFilter, EventTap, Exchange, Plugin, PluginConfig, Response


class _Counting(EventTap):
    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen = 0

    @override
    def feed(self, event: Event) -> None:
        self.seen += len(event.data or b"")


class _Reading(EventFilter):
    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen = 0

    @override
    def feed(self, event: Event) -> Iterable[Event]:
        self.seen += len(event.data or b"")
        return (event,)


class TapEveryEvent(Plugin[PluginConfig]):
    @override
    async def on_response(self, exchange: Exchange, response: Response) -> EventTap | None:
        return _Counting() if response.is_event_stream else None


class FilterEveryEvent(Plugin[PluginConfig]):
    @override
    async def on_response(self, exchange: Exchange, response: Response) -> EventFilter | None:
        return _Reading() if response.is_event_stream else None
