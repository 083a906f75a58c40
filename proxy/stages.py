"""The stages of a response: small objects, one per response, through which its body runs.

The strictest one that a chain returns picks the relay: none (pipe), Tap and EventTap (tap), EventFilter (events),
BodyFilter (buffer). A Heartbeat goes with any that passes a stream event by event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.errors import Outcome
    from proxy.sse import Event


class Stage:
    """What all stages are; plugins subclass one of the four kinds below."""

    __slots__ = ()


class Tap(Stage):
    """Watches the bytes after they were written: it cannot delay or break the answer; one that raises is dropped."""

    __slots__ = ()

    def feed(self, chunk: bytes) -> None:
        """One chunk of the decoded body, as this plugin's place in the chain sees it."""

    def finish(self, outcome: Outcome) -> None:
        """No more will come: said once, however the answer ended."""


class EventTap(Stage):
    """Watches the events of a stream (`response.is_event_stream`), after they were written."""

    __slots__ = ()

    def feed(self, event: Event) -> None:
        """One event with data; comments pass by."""

    def finish(self, outcome: Outcome) -> None:
        """No more will come: said once, however the answer ended."""


class Heartbeat(Stage):
    """A comment that goes down where a stream has been silent for an interval, and only between two events."""

    __slots__ = ("beat", "interval")

    def __init__(self, interval: float, beat: bytes) -> None:
        """`interval` in seconds; `beat` are whole lines."""
        self.interval = interval
        self.beat = beat


class EventFilter(Stage):
    """Changes, drops, holds or adds events of a stream. An event that is handed back as it came leaves as it came.

    A ProxyError that it raises ends the stream, told as its last event; anything else is judged by the failure mode.
    """

    __slots__ = ()

    def skips(self, chunk: bytes) -> bool:  # noqa: ARG002 - for those who override
        """Whether these bytes, which are whole events, may pass unread: a cheap look that spares most of the cost.

        Never while events are held. A no is always right.
        """
        return False

    def feed(self, event: Event) -> Iterable[Event]:
        """What goes on in place of one event with data; comments pass by at once."""
        return (event,)

    def finish(self, outcome: Outcome) -> Iterable[Event]:  # noqa: ARG002 - for those who override
        """What was held, to be sent before the stream ends; `outcome` says whether it ended well."""
        return ()


class BodyFilter(Stage):
    """Changes the whole body at once. On a stream it costs the time to the first token: the start-up log warns."""

    __slots__ = ()

    async def apply(self, body: bytes) -> bytes:
        """The body that goes on; the decoded body comes in."""
        return body
