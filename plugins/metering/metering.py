"""The plugin: asks for usage, hides what came of it, and at each exchange's end writes the bill."""

from __future__ import annotations

import contextlib
import functools
import logging
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field
from typing_extensions import override

from plugins.metering import ledger
from plugins.metering.asking import REFUSED, HideUsage, Unwilling, asked, streams
from plugins.metering.bill import LONGEST, bill
from plugins.metering.hours import Hours
from plugins.metering.prices import PriceBook, PriceList
from proxy.plugin import (
    OTHER,
    PRINCIPAL,
    SAVED,
    TARIFF,
    ConfigError,
    EventFilter,
    ExistingFile,
    FailureMode,
    FilePath,
    Key,
    Kind,
    NotSet,
    Outcome,
    Plugin,
    PluginConfig,
)

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from plugins.metering.bill import Bill, Spent
    from proxy.plugin import Attempt, Exchange, Feedback, Principal, Response, Saved, Services, Usage

ASKED: Key[int] = Key("the attempt that asked for a usage")
PLAIN: Key[str] = Key("the upstream that is tried without asking")
ASKABLE = frozenset({"chat", "completions"})
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
"""OpenTelemetry's buckets for the time per output token."""

UNKNOWN = ("unknown", OTHER, "unknown")
"""Labels of feedback on what nobody remembers."""

REMEMBERED = 1024
"""Of those who pay: what their labels are."""

log = logging.getLogger("weir.metering")


class Labels(NamedTuple):
    """Of who pays, and with each kind of token; of an answer that was rated."""

    model: str
    payer: tuple[str, ...]
    rated: tuple[str, ...]
    input: tuple[str, ...]
    output: tuple[str, ...]
    cached_input: tuple[str, ...]
    reasoning: tuple[str, ...]


class MeteringConfig(PluginConfig):
    prices: Annotated[ExistingFile | None, NotSet] = Field(
        default=None, description="the price list; read again when it changes"
    )
    ledger: Literal["stdout", "none"] | FilePath = Field(
        default="stdout", description="where each exchange leaves its line: `stdout`, `none`, or a file to append to"
    )
    include_usage: bool = Field(
        default=True, description="streams are asked for their usage where the app did not, unseen by it"
    )


class Metering(Plugin[MeteringConfig]):
    Config = MeteringConfig
    provides = (TARIFF,)
    reads_usage = True
    sees_all = True
    failure_mode = FailureMode.OPEN

    def __init__(self, config: MeteringConfig, *, name: str) -> None:
        """Raises ConfigError: `weir check` reads the prices too."""
        super().__init__(config, name=name)
        self._made: Key[Bill] = Key(f"{name}: the bill")
        self._listed = PriceList.load(config.prices) if config.prices else PriceList({})

    @override
    @contextlib.asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncIterator[None]:
        self._services = services
        self._own = {name: PriceList(upstream.prices) for name, upstream in services.upstreams.items()}
        by_the_hour = ((name, upstream.usd_per_hour) for name, upstream in services.upstreams.items())
        self._hours = {
            name: services.kept((Hours, name, usd), functools.partial(Hours, usd))
            for name, usd in by_the_hour
            if usd is not None
        }
        addresses = frozenset((name, upstream.base_url) for name, upstream in services.upstreams.items())
        self._unwilling = services.kept(("metering", self.name, addresses), lambda: Unwilling(services.clock))
        self._willing = {
            name
            for name, upstream in services.upstreams.items()
            if self.config.include_usage and upstream.include_usage
        }
        self._write = self._ledger(services)
        self._count(services)
        self._take(self._listed)
        if self.config.prices is not None:
            services.watch.add(self.config.prices, functools.partial(self._reload, self.config.prices))
        self._inbox = services.feedback
        with self._inbox.open(self._hear):
            yield

    def _ledger(self, services: Services) -> Callable[[bytes], None] | None:
        if self.config.ledger == "none":
            return None
        return (services.stdout if self.config.ledger == "stdout" else services.lines(self.config.ledger)).write

    def _count(self, services: Services) -> None:
        payer = ("route", "upstream", "model", "principal")
        self._tokens = services.counter("weir_tokens", "tokens by kind", (*payer, "kind"))
        self._cost = services.counter("weir_cost_usd", "what upstreams' tokens and time cost", payer)
        self._saved = services.counter("weir_saved_cost_usd", "what answers from a cache would have cost", payer)
        self._saved_tokens = services.counter("weir_saved_tokens", "tokens of answers from a cache", (*payer, "kind"))
        self._wasted = services.counter(
            "weir_wasted_cost_usd",
            "cost of answers that nobody wanted any more, and of attempts that failed",
            ("reason",),
        )
        rated = ("route", "model", "principal")
        self._feedback = services.counter("weir_feedback", "scores that apps handed in", rated)
        self._scores = services.counter(
            "weir_feedback_score", "sum of the scores: by weir_feedback_total it is the mean", rated
        )
        self._unpriced = services.counter("weir_unpriced_requests", "requests without a price", ("model",))
        self._per_token = services.histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "from the first token to the last, per token after the first",
            ("upstream", "model"),
            PER_TOKEN,
        )

    def _take(self, listed: PriceList) -> None:
        self._book = PriceBook(listed, self._own, self._hours)
        self._services.models.update(listed.names, *(own.names for own in self._own.values()))
        self._labels = lru_cache(REMEMBERED)(self._labelled)

    def _reload(self, file: pathlib.Path) -> None:
        try:
            self._take(PriceList.load(file))
        except ConfigError as error:
            log.error("the new prices are not taken: %s", error)  # noqa: TRY400 - says where, a trace adds nothing
        else:
            log.info("prices read again", extra={"file": str(file)})

    @override
    def on_request(self, exchange: Exchange) -> None:
        exchange.facts[TARIFF] = self

    @override
    def explain(self, exchange: Exchange, services: Services) -> Sequence[str]:
        own = {name: PriceList(upstream.prices) for name, upstream in services.upstreams.items()}
        self._book = PriceBook(self._listed, own)
        services.models.update(self._listed.names, *(prices.names for prices in own.values()))
        exchange[TARIFF] = self
        is_askable = self.config.include_usage and exchange.request.endpoint in ASKABLE
        is_asked = is_askable and asked(exchange.request.at_hand or b"", exchange.request.glimpse()) is not None
        return ["asks the stream for its usage, unseen by the app"] if is_asked else []

    def rates(self, upstream: str, model: str | None) -> tuple[int, int] | None:
        """As a Tariff."""
        return self._book.femto(upstream, (model or "")[:LONGEST])

    def spent(self, exchange: Exchange) -> Decimal:
        """As a Tariff."""
        made = self._bill(exchange)
        usd = made.usd or Decimal(0)
        return sum((spent.usd for spent in made.wasted if spent.usd), usd) if made.wasted else usd

    def _bill(self, exchange: Exchange) -> Bill:
        """Made once: those that ask for it before this plugin's own `on_complete` see the same."""
        made: Bill | None = exchange.facts.get(self._made)
        if made is None:
            made = exchange.facts[self._made] = bill(exchange, self._book)
        return made

    @override
    def on_attempt(self, exchange: Exchange, attempt: Attempt) -> Awaitable[None] | None:
        request, upstream = exchange.request, attempt.target.upstream
        if request.endpoint not in ASKABLE:
            return None
        if attempt.body is None:
            return self._read(exchange, attempt) if self._may_ask(exchange, upstream) else None
        if streams(request.glimpse()) and self._may_ask(exchange, upstream):
            self._ask(exchange, attempt, attempt.body)
        return None

    async def _read(self, exchange: Exchange, attempt: Attempt) -> None:
        attempt.body = await exchange.request.body()
        self._ask(exchange, attempt, attempt.body)

    def _ask(self, exchange: Exchange, attempt: Attempt, body: bytes) -> None:
        if changed := asked(body, exchange.request.glimpse()):
            attempt.body = changed
            exchange[ASKED] = attempt.number

    def _may_ask(self, exchange: Exchange, upstream: str) -> bool:
        return upstream in self._willing and upstream not in self._unwilling and exchange.get(PLAIN, "") != upstream

    @override
    def on_attempt_end(self, exchange: Exchange, attempt: Attempt) -> None:
        """What the app wrote may pass where our wish did not: nothing has been done for it yet."""
        is_unclear = attempt.fault is not None and attempt.fault.kind is Kind.CLIENT
        if is_unclear and attempt.status in REFUSED and exchange.get(ASKED, 0) == attempt.number:
            exchange[PLAIN] = attempt.target.upstream
            attempt.retry = attempt.again = True

    @override
    def on_response(self, exchange: Exchange, response: Response) -> EventFilter | None:
        attempt = exchange.served_by if ASKED in exchange.facts else None
        if attempt is None:
            return None
        if response.status < 400 and exchange.get(PLAIN, "") == attempt.target.upstream:
            self._unwilling.note(attempt.target.upstream)
        return HideUsage() if exchange.get(ASKED, 0) == attempt.number and response.is_event_stream else None

    @override
    def on_complete(self, exchange: Exchange, outcome: Outcome) -> None:
        made = self._bill(exchange)
        known = ledger.about(exchange, made)
        if self._write is not None:
            self._write(ledger.line(exchange, made, known))
        for spent in made.wasted:
            if spent.usd:
                self._wasted.add(("retry",), spent.usd)
        if made.upstream is not None:
            labels = self._note(exchange, outcome, made, made.upstream)
            self._inbox.remember(exchange.id, self._hear, (known, labels))
        elif made.saved is not None:
            labels = self._note_saved(exchange, exchange[SAVED], made.saved)
            self._inbox.remember(exchange.id, self._hear, (known, labels))

    def _hear(self, feedback: Feedback, facts: tuple[ledger.About, Labels] | None) -> None:
        known, labels = (ledger.NOTHING, UNKNOWN) if facts is None else (facts[0], facts[1].rated)
        if self._write is not None:
            self._write(ledger.feedback_line(feedback, known))
        self._feedback.add(labels)
        self._scores.add(labels, feedback.score)

    def _note_saved(self, exchange: Exchange, saved: Saved, spent: Spent) -> Labels:
        labels = self._labels(exchange.route, saved.upstream, saved.model, saved.served, _metric(exchange))
        self._saved_tokens.values[labels.input] += spent.usage.input_tokens
        self._saved_tokens.values[labels.output] += spent.usage.output_tokens
        if spent.usd:
            self._saved.add(labels.payer, spent.usd)
        return labels

    def _note(self, exchange: Exchange, outcome: Outcome, made: Bill, upstream: str) -> Labels:
        labels = self._labels(exchange.route, upstream, made.model, made.served, _metric(exchange))
        generated = self._note_tokens(labels, made.usage)
        if upstream in self._hours and outcome is Outcome.OK and exchange.served_by is not None:
            self._hours[upstream].learn(exchange.served_by.busy_seconds, generated)
        if made.usd is None:
            self._unpriced.add((labels.model,))
        elif made.usd:
            self._cost.values[labels.payer] += made.usd
            if outcome is Outcome.CLIENT_ABORT:
                self._wasted.add(("abort",), made.usd)
        if exchange.first_token_at is not None and generated > 1:
            took = exchange.ended - exchange.first_token_at
            self._per_token.observe((upstream, labels.model), took / (generated - 1))
        return labels

    def _note_tokens(self, labels: Labels, usage: Usage) -> int:
        """How many were generated."""
        values, (given, generated, cached, _, thought) = self._tokens.values, usage
        values[labels.input] += given
        values[labels.output] += generated
        if cached:
            values[labels.cached_input] += cached
        if thought:
            values[labels.reasoning] += thought
        return generated

    def _labelled(self, route: str, upstream: str, model: str | None, served: str | None, principal: str) -> Labels:
        label = self._model_label(model, served)
        payer = (route, upstream, label, principal)
        kinds = ("input", "output", "cached_input", "reasoning")
        return Labels(label, payer, (route, label, principal), *((*payer, kind) for kind in kinds))

    def _model_label(self, model: str | None, served: str | None) -> str:
        """What was served, where the price list has it; else what was asked for, where the config names it."""
        label = self._services.model_label(served)
        return self._services.model_label(model) if label == OTHER else label


def _metric(exchange: Exchange) -> str:
    principal: Principal | None = exchange.facts.get(PRINCIPAL)
    return "none" if principal is None else principal.metric
