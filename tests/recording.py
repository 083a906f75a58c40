"""Plugins that tests put into chains: what each hook and stage was told, in one list, and ways to fail."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from proxy.chain import Chain
from proxy.plugin import (
    BodyFilter,
    Event,
    EventFilter,
    EventTap,
    FailureMode,
    Plugin,
    PluginConfig,
    Rejected,
    Response,
    Tap,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from proxy import testing
    from proxy.plugin import Attempt, Exchange, Outcome, Services, Stage

    Made = Callable[["Recording"], Stage | None]

journal: list[str] = []
"""What happened, in order: `name hook`. Each test file empties it before each test."""


def of(*whats: str) -> list[str]:
    """The lines of the journal about these hooks and methods."""
    return [line for line in journal if line.split(" ", 1)[1].startswith(whats)]


def outcomes() -> list[str]:
    return of("on_complete")


class RecordingConfig(PluginConfig):
    """What a Recording does beside writing the journal."""

    answers: bool = False
    refuses: bool = False
    fails: str = ""
    stage: str = ""


class Recording(Plugin[RecordingConfig]):
    Config = RecordingConfig

    def note(self, what: str) -> None:
        journal.append(f"{self.name} {what}")
        if self.config.fails and what.startswith(self.config.fails):
            raise RuntimeError(f"{self.name} fails in {what}")

    @override
    @contextlib.asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncIterator[None]:
        self.note("lifespan")
        try:
            yield
        finally:
            self.note("left")

    @override
    async def on_request(self, exchange: Exchange) -> Response | None:
        self.note("on_request")
        if self.config.refuses:
            raise Rejected("not today")
        return Response.of_json(200, {"by": self.name}) if self.config.answers else None

    @override
    def select_targets(self, exchange: Exchange, targets: Any) -> Any:
        self.note("select_targets")
        return targets

    @override
    async def on_attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        self.note("on_attempt")

    @override
    def on_attempt_end(self, exchange: Exchange, attempt: Attempt) -> None:
        self.note(f"on_attempt_end {attempt.outcome}")

    @override
    async def on_response(self, exchange: Exchange, response: Response) -> Stage | None:
        self.note(f"on_response {response.status}")
        make = STAGES.get(self.config.stage)
        if make is None or (make in STREAMING and not response.is_event_stream):
            return None
        return make(self)

    @override
    async def on_complete(self, exchange: Exchange, outcome: Outcome) -> None:
        self.note(f"on_complete {outcome}")


class NotingTap(Tap):
    def __init__(self, plugin: Recording) -> None:
        self.plugin = plugin

    @override
    def feed(self, chunk: bytes) -> None:
        self.plugin.note("feed")

    @override
    def finish(self, outcome: Outcome) -> None:
        self.plugin.note(f"finish {outcome}")


class NotingEventTap(EventTap):
    def __init__(self, plugin: Recording) -> None:
        self.plugin = plugin

    @override
    def feed(self, event: Event) -> None:
        self.plugin.note("feed")

    @override
    def finish(self, outcome: Outcome) -> None:
        self.plugin.note(f"finish {outcome}")


class NotingEventFilter(EventFilter):
    def __init__(self, plugin: Recording) -> None:
        self.plugin = plugin

    @override
    def feed(self, event: Event) -> Iterable[Event]:
        self.plugin.note("feed")
        return (event,)

    @override
    def finish(self, outcome: Outcome) -> Iterable[Event]:
        self.plugin.note(f"finish {outcome}")
        return ()


class NotingBodyFilter(BodyFilter):
    def __init__(self, plugin: Recording) -> None:
        self.plugin = plugin

    @override
    async def apply(self, body: bytes) -> bytes:
        self.plugin.note("apply")
        return body


STAGES: dict[str, Made] = {
    "tap": NotingTap,
    "event_tap": NotingEventTap,
    "event_filter": NotingEventFilter,
    "body_filter": NotingBodyFilter,
}
STREAMING = (NotingEventTap, NotingEventFilter)


def entry(name: str, **settings: Any) -> dict[str, Any]:
    """A Recording of that name for a YAML list."""
    return {name: {"use": f"{__name__}:Recording", **settings}}


def chain_of(*plugins: Plugin[Any], failures: list[str] | None = None) -> Chain:
    """Compiled; the names of plugins that failed go into `failures`."""
    return Chain(plugins, (failures if failures is not None else []).append)


class Idle(Plugin[PluginConfig]):
    """Overrides no hook."""


def idle(name: str = "idle", mode: FailureMode | None = None) -> Idle:
    return Idle(PluginConfig(failure_mode=mode), name=name)


async def completed(weir: testing.app.Weir, count: int) -> None:
    """Returns when so many `on_complete` stand in the journal and nobody is under way."""
    async with asyncio.timeout(10):
        while weir.in_flight or sum(" on_complete" in line for line in journal) < count:  # noqa: ASYNC110 - polled, bounded
            await asyncio.sleep(0.005)
