"""What a server's events say of a session over a WebSocket: its model, its usage, and when the first content came.

`response.done` is the Realtime API's; the Responses API ends a response as it does in event streams.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import orjson

from proxy.usage import usage_from_object

if TYPE_CHECKING:
    from proxy.exchange import Exchange

_ENDS = frozenset({"response.done", "response.completed", "response.incomplete", "response.failed"})
_WORTH_READING = re.compile(rb'"(?:response\.(?:done|completed|incomplete|failed)|session\.(?:created|updated))"')


class Session:
    """Notes on the exchange what the messages say; sound and text pass unparsed once the first was seen."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def see(self, message: bytes) -> None:
        is_first = self._exchange.first_token_at is None and b".delta" in message
        if not is_first and not _WORTH_READING.search(message):
            return
        try:
            event = orjson.loads(message)
        except ValueError:
            return
        if isinstance(event, dict) and isinstance(kind := event.get("type"), str):
            self._note(kind, event)

    def _note(self, kind: str, event: dict[str, Any]) -> None:
        exchange = self._exchange
        if kind in _ENDS:
            response = _part(event, "response")
            self._note_model(response)
            usage = usage_from_object(_part(response, "usage"))
            if usage is not None:
                exchange.usage = usage if exchange.usage is None else exchange.usage + usage
        elif kind in {"session.created", "session.updated"}:
            self._note_model(_part(event, "session"))
        elif kind.startswith("response.") and kind.endswith(".delta") and exchange.first_token_at is None:
            exchange.first_token_at = time.monotonic()

    def _note_model(self, named: dict[str, Any]) -> None:
        if isinstance(model := named.get("model"), str):
            self._exchange.model = model


def _part(value: dict[str, Any], name: str) -> dict[str, Any]:
    part = value.get(name)
    return part if isinstance(part, dict) else {}
