"""The core's Prometheus metrics: names are a contract (DESIGN §8), label values come from closed sets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from typing_extensions import override

from proxy.errors import Outcome
from proxy.lag import LOOK_SECONDS, Lag
from proxy.series import SECONDS, Counter, Family, Gauge, GaugeFamily, Histogram
from proxy.services import OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from prometheus_client import Metric

    from proxy.attempt import Attempt
    from proxy.exchange import Exchange
    from proxy.series import Labels
    from proxy.upstream.openai import OpenAI

NO_ROUTE = "none"

OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
"""OpenTelemetry's buckets for a server's time to first token, and two for models that think."""


class Metrics:
    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ways = ("route", "endpoint")
        self._requests = Counter(registry, "weir_requests", "exchanges that ended", (*ways, "outcome"))
        self._duration = Histogram(
            registry, "weir_request_duration_seconds", "from the request to the answer's last byte", ways, SECONDS
        )
        self._overhead = Histogram(
            registry, "weir_overhead_seconds", "the part that was Weir's, not the upstream's", ("route",), OVERHEAD
        )
        self._in_flight = Gauge(registry, "weir_in_flight_requests", "exchanges under way", ("route",))
        self._attempts = Counter(registry, "weir_attempts", "tries of a target", ("upstream", "outcome"))
        self._upstreams = [
            Upstreams(registry, "weir_upstream_in_flight", "attempts under way", _in_flight),
            Upstreams(registry, "weir_upstream_load", "requests that the upstream says it has", _load, ("state",)),
            Upstreams(registry, "weir_upstream_loading", "1 while the upstream loads its model", _loading),
            Upstreams(
                registry, "weir_upstream_seconds", "time of upstreams that cost by the hour", _seconds, ("state",)
            ),
        ]
        self._first_token = Histogram(
            registry,
            "gen_ai_server_time_to_first_token_seconds",
            "from an attempt to its first content, reasoning or tool delta",
            ("upstream", "model"),
            FIRST_TOKEN,
        )
        self._failures = Counter(registry, "weir_plugin_errors", "hooks and stages that raised", ("plugin",))
        late = "how late the event loop was, at worst, in the last 30 to 60 seconds"
        self._lag = Gauge(registry, "weir_event_loop_lag_seconds", late, (), "max")
        self._models: AbstractSet[str] = frozenset()
        self.before_page: Callable[[], None] = lambda: None

    def know(self, models: AbstractSet[str], upstreams: Mapping[str, OpenAI]) -> None:
        """The closed sets: models that the config names, and the upstreams to watch."""
        self._models = models
        for family in self._upstreams:
            family.watched = upstreams

    def entered(self, route: str) -> None:
        self._in_flight.values[(route,)] += 1

    def attempt_ended(self, attempt: Attempt) -> None:
        self._attempts.values[attempt.target.upstream, attempt.outcome or Outcome.UPSTREAM_ERROR] += 1

    def plugin_failed(self, name: str) -> None:
        self._failures.values[(name,)] += 1

    def exchange_ended(self, exchange: Exchange) -> None:
        route, endpoint = exchange.route or NO_ROUTE, exchange.request.endpoint
        self._requests.values[route, endpoint, exchange.outcome or Outcome.CLIENT_ABORT] += 1
        self._duration.observe((route, endpoint), exchange.ended - exchange.started)
        self._overhead.observe((route,), _overhead(exchange))
        if exchange.route:
            self._in_flight.values[(route,)] -= 1
        if exchange.first_token_at is not None and (attempt := exchange.served_by) is not None:
            took = exchange.first_token_at - attempt.started
            self._first_token.observe((attempt.target.upstream, self._model(exchange, attempt)), took)

    def page(self) -> bytes:
        """What Prometheus reads, up to the last exchange that ended."""
        self.before_page()
        return prometheus_client.generate_latest(self.registry)

    async def watch_lag(self) -> None:
        """How late a timer fires, until cancelled."""
        loop, lag = asyncio.get_running_loop(), Lag()
        while True:
            due = loop.time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            now = loop.time()
            self._lag.values[()] = lag.noted(now, max(now - due, 0.0))

    def _model(self, exchange: Exchange, attempt: Attempt) -> str:
        """What was asked for, where the config names it, else what says that it answered, likewise."""
        names = (attempt.target.model or exchange.request.model, exchange.model)
        return next((name for name in names if name is not None and name in self._models), OTHER)


class Upstreams(Family):
    """What there is to tell of each upstream, asked when somebody looks; seconds only grow, all else comes and goes."""

    watched: Mapping[str, OpenAI] = {}

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        documentation: str,
        told: Callable[[OpenAI], Mapping[Labels, float]],
        labels: Labels = (),
    ) -> None:
        """`told`: by the values of `labels`, which stand behind the upstream's."""
        self._told = told
        super().__init__(registry, name, documentation, ("upstream", *labels))

    @override
    def collect(self) -> Iterator[Metric]:
        kind = CounterMetricFamily if self._told is _seconds else GaugeFamily
        family = kind(self.name, self.documentation, labels=self.labels)
        if isinstance(family, GaugeFamily) and self._told is not _in_flight:
            family.how = "max"  # every worker asks the same server
        for name, upstream in self.watched.items():
            for labels, value in self._told(upstream).items():
                family.add_metric((name, *labels), value)
        yield family


def _in_flight(upstream: OpenAI) -> Mapping[Labels, float]:
    return {(): upstream.in_flight}


def _load(upstream: OpenAI) -> Mapping[Labels, float]:
    """None where it is too long ago, or was never told."""
    told = upstream.work.reading if upstream.work is not None and upstream.work.is_fresh() else None
    return {} if told is None else {("running",): told.running, ("waiting",): told.waiting}


def _loading(upstream: OpenAI) -> Mapping[Labels, float]:
    return {(): float(upstream.is_loading)} if upstream.can_load else {}


def _seconds(upstream: OpenAI) -> Mapping[Labels, float]:
    """Busy, with requests of this process, and idle; others' time is neither."""
    work = upstream.work if upstream.settings.usd_per_hour is not None else None
    if work is None:
        return {}
    work.advance()
    return {("busy",): work.busy, ("idle",): work.idle}


def _overhead(exchange: Exchange) -> float:
    """Before the first attempt and after the last one's header; waiting for the app's own body is not ours."""
    if not exchange.attempts:
        streams = exchange.response is not None and exchange.response.incoming is not None
        end = exchange.answered if streams and exchange.answered else exchange.ended
        return max(end - exchange.started - exchange.request.waited, 0.0)
    before = exchange.attempts[0].started - exchange.started - exchange.request.waited
    response = exchange.response
    head_at = response.head_at if response else 0.0
    after = exchange.answered - head_at if head_at and exchange.answered else 0.0
    return max(before + after, 0.0)
