"""Keeps silent streams alive: a comment between events, for whoever on the way gives up on a silent connection.

One line, `: ping`, and not the blank line that would end an event: SDKs take that for an event of its own where the one
before had an `id`. With `before_headers` the stream begins before the upstream has answered; an error that comes
then can only be told as an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field
from typing_extensions import override

from proxy.plugin import EARLY, Duration, Heartbeat, Plugin, PluginConfig, fault, written

if TYPE_CHECKING:
    from proxy.plugin import Exchange, Response

BEAT = b": ping\n"
SHORTEST = 0.1


def _calm(seconds: float) -> float:
    if seconds < SHORTEST:
        raise fault("is too short", f"write at least {SHORTEST * 1000:.0f}ms")
    return seconds


class KeepaliveConfig(PluginConfig):
    interval: Annotated[Duration, AfterValidator(_calm)] = written("15s", "how long a stream may be silent")
    before_headers: bool = Field(
        default=False,
        description="also before the upstream answers: the status is 200 then, and an error comes as an event",
    )


class SseKeepalive(Plugin[KeepaliveConfig]):
    Config = KeepaliveConfig

    def __init__(self, config: KeepaliveConfig, *, name: str) -> None:
        super().__init__(config, name=name)
        self._heartbeat = Heartbeat(config.interval, BEAT)

    @override
    async def on_request(self, exchange: Exchange) -> None:
        if self.config.before_headers and await _asks_for_stream(exchange):
            exchange[EARLY] = self._heartbeat

    @override
    async def on_response(self, exchange: Exchange, response: Response) -> Heartbeat | None:
        return self._heartbeat if response.is_event_stream else None


async def _asks_for_stream(exchange: Exchange) -> bool:
    request = exchange.request
    if request.method != "POST" or not request.content_type.endswith("json"):
        return False
    await request.body()
    asked = request.glimpse()
    return isinstance(asked, dict) and asked.get("stream") is True
