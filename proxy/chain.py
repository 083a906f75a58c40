"""Runs a route's hooks, compiled once: only hooks that a class overrides are called.

`exchange.entered` counts the plugins that a request has met, in YAML order; what answers or refuses is met as well, but
only those before it see the response. A plugin that fails is judged by its failure mode, and counted.
"""

from __future__ import annotations

import inspect
import logging
import sys
from typing import TYPE_CHECKING, Any

from proxy.errors import Outcome, PluginFailed, ProxyError, StoreDown
from proxy.plugin import FailureMode
from proxy.registry import overrides
from proxy.response import Response
from proxy.stages import EventFilter, EventTap, Stage, Tap

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.attempt import Attempt, Target
    from proxy.exchange import Exchange
    from proxy.plugin import Plugin
    from proxy.sse import Event

log = logging.getLogger("weir.plugins")


class Placed:
    """A stage with the plugin that it came from; its kind and its `feed` are at hand for the relay."""

    __slots__ = ("feed", "filters", "is_finished", "plugin", "stage", "taps_bytes")

    def __init__(self, plugin: Plugin[Any], stage: Stage) -> None:
        self.plugin = plugin
        self.stage = stage
        self.is_finished = False
        self.feed: Callable[[Any], Any] = getattr(stage, "feed", _nothing)
        self.filters = isinstance(stage, EventFilter)
        self.taps_bytes = isinstance(stage, Tap)

    def retire(self) -> None:
        """From now on it filters nothing, and nobody tells it anything."""
        self.stage = EventFilter()
        self.feed = self.stage.feed
        self.is_finished = True

    def finish(self, outcome: Outcome) -> list[Event]:
        """Tell the stage, once, that no more comes; what a filter held comes back. Raises what the stage raises."""
        if self.is_finished:
            return []
        self.is_finished = True
        if isinstance(self.stage, EventFilter):
            return list(self.stage.finish(outcome))
        if isinstance(self.stage, Tap | EventTap):
            self.stage.finish(outcome)
        return []


class Chain:
    def __init__(self, plugins: Sequence[Plugin[Any]], on_failure: Callable[[str], None]) -> None:
        """`on_failure` is told the name of each plugin that raised."""
        self.plugins = tuple(plugins)
        self.reads_usage = any(plugin.reads_usage for plugin in plugins)
        self.reads_bodies = self.reads_usage or any(overrides(plugin, "on_response") for plugin in plugins)
        self._on_failure = on_failure
        self._on_head = self._with("on_head")
        self._on_request = self._with("on_request")
        self.sees_requests = bool(self._on_request)
        self._on_response = self._with("on_response")[::-1]
        self.sees_responses = bool(self._on_response)
        completing = self._with("on_complete")[::-1]
        self._on_complete = tuple(each for each in completing if _is_async(each[2]))
        self._completes = tuple(each for each in completing if not _is_async(each[2]))
        self.completes_on_task = bool(self._on_complete)
        self._select_targets = self._with("select_targets")
        self._on_attempt = self._with("on_attempt")
        self.sees_attempts = bool(self._on_attempt)
        self._on_attempt_end = self._with("on_attempt_end")

    def _with(self, hook: str) -> tuple[tuple[int, Plugin[Any], Callable[..., Any]], ...]:
        """The places of those that have such a hook, themselves, and their hook."""
        having = ((place, plugin) for place, plugin in enumerate(self.plugins) if overrides(plugin, hook))
        return tuple((place, plugin, getattr(plugin, hook)) for place, plugin in having)

    async def on_head(self, exchange: Exchange) -> None:
        for _, plugin, hook in self._on_head:
            try:
                waiting = hook(exchange)
                if waiting is not None:
                    await waiting
            except Exception as error:  # noqa: BLE001 - judged by the failure mode
                self.judge(plugin, error, exchange)

    async def on_request(self, exchange: Exchange) -> Response | None:
        response: Response | None
        for place, plugin, hook in self._on_request:
            try:
                response = hook(exchange)
                if response is None:
                    continue
                exchange.answered_by, exchange.entered = plugin, place + 1
                response = _checked_answer(response if isinstance(response, Response) else await response)
            except Exception as error:  # noqa: BLE001 - judged by the failure mode
                exchange.answered_by, exchange.entered = plugin, place + 1
                self.judge(plugin, error, exchange)
            else:
                if response is not None:
                    break
        else:
            exchange.answered_by, exchange.entered, response = None, len(self.plugins), None
        if exchange.admission is not None:  # what plugins claim of limits is taken where the request has passed all
            waiting = exchange.admission.decide(exchange)
            if waiting is not None:
                await waiting
        return response

    def select_targets(self, exchange: Exchange, targets: Sequence[Target]) -> Sequence[Target]:
        for _, plugin, hook in self._select_targets:
            try:
                targets = hook(exchange, targets)
            except Exception as error:  # noqa: BLE001 - judged by the failure mode
                self.judge(plugin, error, exchange)
        return targets

    async def on_attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        for _, plugin, hook in self._on_attempt:
            try:
                waiting = hook(exchange, attempt)
                if waiting is not None:
                    await waiting
            except Exception as error:  # noqa: BLE001 - judged by the failure mode
                self.judge(plugin, error, exchange)

    def on_attempt_end(self, exchange: Exchange, attempt: Attempt) -> None:
        """Once per attempt; what fails here is only counted, the attempt is over."""
        if attempt.is_over:
            return
        attempt.is_over = True
        for _, plugin, hook in self._on_attempt_end:
            try:
                hook(exchange, attempt)
            except Exception:  # noqa: BLE001 - a plugin may raise anything
                self.count(plugin, "on_attempt_end", exchange)

    async def on_response(self, exchange: Exchange, response: Response) -> tuple[Response, list[Placed]]:
        """The stages, in the order that the body meets them; a closed plugin that fails puts an error in its place."""
        stages: list[Placed] = []
        entered, answered_by = exchange.entered, exchange.answered_by
        for place, plugin, hook in self._on_response:
            if place >= entered or plugin is answered_by:
                continue
            try:
                stage = hook(exchange, response)
                if stage is not None:
                    stage = _checked_stage(stage if isinstance(stage, Stage) else await stage, response)
            except Exception as error:  # noqa: BLE001 - judged by the failure mode
                refusal = self.refusal(plugin, error, exchange)
                if refusal is not None:
                    if response.incoming is not None:
                        response.incoming.cancel()
                    response, stages = Response.of_error(refusal), []
            else:
                if stage is not None:
                    stages.append(Placed(plugin, stage))
                    exchange.stages = (*exchange.stages, stages[-1])
        return response, stages

    def finish(self, exchange: Exchange, outcome: Outcome) -> None:
        """Stages that no relay has told of the end hear it now."""
        for placed in exchange.stages:
            try:
                placed.finish(outcome)
            except Exception:  # noqa: BLE001 - a stage may raise anything
                self.count(placed.plugin, type(placed.stage).__name__, exchange)

    async def on_complete(self, exchange: Exchange, outcome: Outcome) -> None:
        """Those that may wait."""
        for place, plugin, hook in self._on_complete:
            if place < exchange.entered or plugin.sees_all:
                try:
                    await hook(exchange, outcome)
                except Exception:  # noqa: BLE001 - a plugin may raise anything
                    self.count(plugin, "on_complete", exchange)

    def complete(self, exchange: Exchange) -> None:
        """Those that need not wait."""
        entered, outcome = exchange.entered, exchange.outcome or Outcome.CLIENT_ABORT
        for place, plugin, hook in self._completes:
            if place < entered or plugin.sees_all:
                try:
                    hook(exchange, outcome)
                except Exception:  # noqa: BLE001 - a plugin may raise anything
                    self.count(plugin, "on_complete", exchange)

    def judge(self, plugin: Plugin[Any], error: Exception, exchange: Exchange) -> None:
        """Raises what the client gets, or returns where the exchange goes on without the plugin."""
        refusal = self.refusal(plugin, error, exchange)
        if refusal is not None:
            raise refusal from error

    def count(self, plugin: Plugin[Any], where: str, exchange: Exchange) -> None:
        """Called where an exception is being handled."""
        told = {"plugin": plugin.name, "request_id": exchange.id, "where": where}
        log.error("plugin failed", extra=told, exc_info=sys.exc_info())
        self._on_failure(plugin.name)

    def refusal(self, plugin: Plugin[Any], error: Exception, exchange: Exchange) -> ProxyError | None:
        """What the client gets for what a hook or a filter raised, or None where it fails open."""
        if isinstance(error, ProxyError) and not isinstance(error, PluginFailed | StoreDown):
            return error
        log.error("plugin failed", extra={"plugin": plugin.name, "request_id": exchange.id}, exc_info=error)
        self._on_failure(plugin.name)
        if mode_of(plugin) is FailureMode.OPEN:
            return None
        if isinstance(error, ProxyError):
            return error
        return PluginFailed(f"the plugin '{plugin.name}' failed, and it does not let requests pass when it does")


def _is_async(hook: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(hook))


def _nothing(_: Any) -> None:
    """Of a stage that is not fed."""


def mode_of(plugin: Plugin[Any]) -> FailureMode:
    mode: FailureMode | None = plugin.config.failure_mode
    return plugin.failure_mode if mode is None else mode


def _checked_answer(response: Response | None) -> Response | None:
    if response is not None and not isinstance(response, Response):
        raise TypeError(f"on_request returns a Response or None, not {type(response).__name__}")
    return response


def _checked_stage(stage: Stage | None, response: Response) -> Stage | None:
    if stage is not None and not isinstance(stage, Stage):
        raise TypeError(f"on_response returns a Stage or None, not {type(stage).__name__}")
    if isinstance(stage, EventTap | EventFilter) and not response.is_event_stream:
        raise TypeError(f"{type(stage).__name__} reads events, but this response is not an event stream")
    return stage
