"""One load on one subject: the order to a load process on its core, and the figures out of its result."""

import subprocess
import sys
from dataclasses import dataclass
from typing import TypeVar

from tests.bench.measures import (
    EVENT_US,
    FULL_LOAD,
    FULL_REQUEST_US,
    PACED,
    RATE,
    REQUEST_LOAD,
    REQUEST_US,
    REQUESTS_S,
    STREAM_KB,
    WIDE,
    first_event_key,
    load_busy_key,
    percentile,
    proxy_busy_key,
    proxy_waited_key,
    stalled_key,
    stream_load,
)
from tests.bench.processes import pinned
from tests.bench.runs import RequestOrder, RequestResult, StreamOrder, StreamResult, Window

_CONNECTIONS = 32
_INTERVAL_MS = 50
_LIMIT_S = 60
_START_S = 20
_R = TypeVar("_R", RequestResult, StreamResult)


class TrialError(Exception):
    """A load process could not carry its order through."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything; counts and seconds as in runs.py."""

    rounds: int
    warm_up: int
    count: int
    paced_spread_s: float
    paced_window_s: float
    wide_spread_s: float
    wide_window_s: float


FULL = Scale(3, warm_up=4000, count=24000, paced_spread_s=1, paced_window_s=5, wide_spread_s=1.5, wide_window_s=0.5)
QUICK = Scale(1, warm_up=1000, count=10000, paced_spread_s=0.5, paced_window_s=2, wide_spread_s=1, wide_window_s=0.5)


@dataclass(frozen=True, slots=True)
class Upstream:
    port: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """Where a load goes, and whose CPU time it costs; without `proxy_pids` it goes straight to the upstream."""

    name: str
    port: int
    proxy_pids: tuple[int, ...]
    upstream: Upstream


class Trials:
    def __init__(self, scale: Scale, core: int) -> None:
        self._scale = scale
        self._core = core

    def run(self, load: str, subject: Subject) -> dict[str, float]:
        if load in (REQUEST_LOAD, FULL_LOAD):
            order = self._request_order(subject, RATE if load == REQUEST_LOAD else None)
            return _request_figures(load, self._result(order, RequestResult))
        streams = int(load.rpartition("-")[2])
        return stream_figures(streams, self._result(self._stream_order(streams, subject), StreamResult))

    def _request_order(self, subject: Subject, rate: int | None) -> RequestOrder:
        return RequestOrder(
            port=subject.port,
            proxy_pids=subject.proxy_pids,
            upstream_pids=subject.upstream.pids,
            limit_s=_LIMIT_S,
            connections=_CONNECTIONS,
            warm_up=self._scale.warm_up,
            count=self._scale.count,
            rate=rate,
        )

    def _stream_order(self, streams: int, subject: Subject) -> StreamOrder:
        paced = streams == PACED
        return StreamOrder(
            port=subject.port,
            proxy_pids=subject.proxy_pids,
            upstream_pids=subject.upstream.pids,
            limit_s=_LIMIT_S,
            streams=streams,
            spread_s=self._scale.paced_spread_s if paced else self._scale.wide_spread_s,
            window_s=self._scale.paced_window_s if paced else self._scale.wide_window_s,
            interval_ms=_INTERVAL_MS,
        )

    def _result(self, order: RequestOrder | StreamOrder, expected: type[_R]) -> _R:
        command = [sys.executable, "-m", "tests.bench.load", order.model_dump_json()]
        try:
            with pinned(self._core):
                done = subprocess.run(command, capture_output=True, check=True, timeout=_LIMIT_S + _START_S)
        except subprocess.CalledProcessError as error:
            raise TrialError(error.stderr.decode(errors="replace").strip().rpartition("\n")[2]) from error
        except subprocess.TimeoutExpired as error:
            raise TrialError(f"not done within {error.timeout:.0f} s") from error
        return expected.model_validate_json(done.stdout)


def _request_figures(load: str, result: RequestResult) -> dict[str, float]:
    request_us = result.window.proxy_cpu_ns / result.requests / 1e3
    if load == REQUEST_LOAD:
        return {REQUEST_US: request_us, **_checks(load, result.window)}
    per_second = result.requests / result.window.wall_ns * 1e9
    return {FULL_REQUEST_US: request_us, REQUESTS_S: per_second, **_checks(load, result.window)}


def stream_figures(streams: int, result: StreamResult) -> dict[str, float]:
    load = stream_load(streams)
    stalled = {stalled_key(streams): float(result.stalled)}
    if streams == PACED:
        event_us = result.window.proxy_cpu_ns / result.events / 1e3
        return {EVENT_US: event_us, **stalled, **_checks(load, result.window)}
    first = {first_event_key(streams, percent): percentile(result.first_ms, percent) for percent in (50, 99)}
    figures = first | stalled | _checks(load, result.opening)
    return (
        figures | {STREAM_KB: (result.rss_open - result.rss_before) / streams / 1e3} if streams == WIDE[-1] else figures
    )


def _checks(load: str, window: Window) -> dict[str, float]:
    wanted_ns = window.proxy_cpu_ns + window.proxy_wait_ns or 1  # none: straight to the upstream
    return {
        proxy_busy_key(load): 100 * window.proxy_cpu_ns / window.wall_ns,
        proxy_waited_key(load): 100 * window.proxy_wait_ns / wanted_ns,
        load_busy_key(load): 100 * window.load_cpu_ns / window.wall_ns,
    }
