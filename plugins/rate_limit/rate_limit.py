"""The plugin: claims what a request will need of its limits, tells how they stand, and settles what it really used."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from plugins.rate_limit.dimension import Bounds, Owner, dimensions, lines, told
from plugins.rate_limit.estimate import Answers, estimate
from plugins.rate_limit.settings import TOKENS, RateLimitConfig
from proxy.plugin import PRINCIPAL, Key, Plugin, RateLimited, consumed, read_model

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, Sequence

    from plugins.rate_limit.dimension import Dimension
    from plugins.rate_limit.settings import Limits
    from proxy.plugin import Claim, Exchange, Grant, Outcome, Response, Services, Standing

    Granted = tuple[Grant, Bounds, int]

SUBJECTS = 4096
"""Whose limits are at hand, compiled."""

LONGEST_SUBJECT = 64
ESTIMATED = frozenset({"chat", "completions", "responses", "messages", "generate", "embeddings"})
TOLD: Key[tuple[Granted, ...]] = Key("what was told of limits")


class TokensLimited(RateLimited):
    type = "tokens"


class RateLimit(Plugin[RateLimitConfig]):
    Config = RateLimitConfig
    uses_store = True

    def __init__(self, config: RateLimitConfig, *, name: str) -> None:
        super().__init__(config, name=name)
        self.reads_usage = any(map(_counts_tokens, (config, *config.limits.values())))
        self._is_by_principal, self._is_by_model = config.by == "principal", config.by == "model"
        if self._is_by_principal:
            self.needs = (PRINCIPAL,)
        self._granted: Key[Granted] = Key(f"{name}: what was granted")
        self._header = config.by.partition(":")[2]
        self._answers = Answers()
        self._bounds = lru_cache(SUBJECTS)(self._compiled)
        self._refuse = self._refusal
        self._refused = 0

    @override
    def lifespan(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._answers = services.kept(("rate_limit: answers", self.name), Answers)
        self._limited = services.counter("weir_rate_limited", "requests that a limit refused", ("limit", "principal"))
        if self.config.by == "model":
            services.models.update(self.config.limits)

    @override
    def on_request(self, exchange: Exchange) -> Awaitable[None] | None:
        """Waits only for what it has to read: the body where tokens count, and a model that nobody has looked for."""
        request = exchange.request
        reads = self.reads_usage and request.method == "POST" and request.endpoint in ESTIMATED
        if (reads and request.at_hand is None) or (self._is_by_model and not request.is_model_read):
            return self._read(exchange, reads=reads)
        self._claim(exchange, request.at_hand if reads else None)
        return None

    async def _read(self, exchange: Exchange, *, reads: bool) -> None:
        if self._is_by_model:
            await read_model(exchange.request)
        self._claim(exchange, await exchange.request.body() if reads else None)

    def _claim(self, exchange: Exchange, body: bytes | None) -> None:
        bounds = self._bounds(exchange.facts[PRINCIPAL].name if self._is_by_principal else self._subject(exchange))
        if bounds is None:
            return
        claims, count = bounds.untold, 1
        if body is not None and bounds.counts_tokens:
            given, most, count = estimate(exchange.request, body)
            each = self._answers.expected(bounds.subject) if most is None else most
            claims = bounds.claims(given, count * each)
        exchange.facts[self._granted] = (self._store.claim(exchange, claims, self._refuse), bounds, count)

    @override
    def on_response(self, exchange: Exchange, response: Response) -> None:
        """Of all rate limits of the chain, since each adds its own."""
        facts = exchange.facts
        granted: Granted | None = facts.get(self._granted)
        if granted is None or not granted[0].is_taken:
            return
        if TOLD in facts:
            told_ = lines(standing for each in (*facts[TOLD], granted) for standing in _standings(each))
        else:
            told_ = granted[1].told(granted[0].remaining)
        facts[TOLD] = (*facts.get(TOLD, ()), granted)
        response.put_lines(told_, instead_of=b"x-ratelimit-")

    @override
    def on_complete(self, exchange: Exchange, outcome: Outcome) -> None:
        granted: Granted | None = exchange.facts.get(self._granted)
        if granted is None or not granted[0].is_taken:
            return
        grant, bounds, count = granted
        if not exchange.attempts and (exchange.response is None or exchange.error is not None):
            grant.settle([0] * len(bounds.dims))  # it got no further than this house
        elif bounds.counts_tokens:
            usage = consumed(exchange).usage
            grant.settle(bounds.used(usage))
            if usage.output_tokens and exchange.usage is not None:
                self._answers.learn(bounds.subject, usage.output_tokens / count)

    @override
    def explain(self, exchange: Exchange, services: Services) -> Sequence[str]:
        if self._is_by_principal and PRINCIPAL not in exchange:
            return ["counts for whoever calls, who is not known here"]
        self._services = services
        subject = exchange[PRINCIPAL].name if self._is_by_principal else self._subject(exchange)
        bounds, body = self._bounds(subject), exchange.request.at_hand
        if bounds is None:
            return [f"sets {self._whose(subject)} no limit"]
        claims = bounds.untold
        if self.reads_usage and body and exchange.request.endpoint in ESTIMATED:
            given, most, count = estimate(exchange.request, body)
            claims = bounds.claims(given, count * (self._answers.expected(subject) if most is None else most))
        whose = self._whose(subject)
        return [f"claims {c.amount} of {d.said} for {whose}" for c, d in zip(claims, bounds.dims, strict=True)]

    @override
    def state(self) -> Mapping[str, Any]:
        """By what it limits: a route that overrides it has another."""
        dims = dimensions(self.config, Owner(self.name, self.config.by, "", self.config.when_store_down))
        limits = ", ".join(dim.said for dim in dims) or "nobody but those in limits"
        subjects = self._bounds.cache_info().currsize
        return {f"{self.config.by}: {limits}": {"subjects": subjects, "refused": self._refused}}

    def _subject(self, exchange: Exchange) -> str:
        """Of models those that the config names, and `other`: an app could make up any number."""
        by, request = self.config.by, exchange.request
        if by == "route":
            return exchange.route
        if by == "model":
            return self._services.model_label(request.model)
        return self._bounded(request.headers.get(self._header, ""))

    def _bounded(self, value: str) -> str:
        """What a header says may be long, and no text."""
        if value in self.config.limits or (value.isascii() and len(value) <= LONGEST_SUBJECT):
            return value
        return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()

    def _compiled(self, subject: str) -> Bounds | None:
        """What a subject of its own limits does not set is as for all."""
        limits, own = self.config, self.config.limits.get(subject)
        if own is not None:
            changed = {name: getattr(own, name) for name in own.model_fields_set}
            limits = limits.model_copy(update={"burst": None, **changed} if "requests" in changed else changed)
        dims = dimensions(limits, Owner(self.name, self.config.by, subject, self.config.when_store_down))
        return Bounds(subject, dims) if dims else None

    def _refusal(self, exchange: Exchange, claim: Claim, standing: Standing) -> RateLimited:
        grant, bounds, _ = exchange[self._granted]
        dimension = next(dim for dim in bounds.dims if dim.claim.key == claim.key)
        principal = exchange.get(PRINCIPAL, None)
        self._limited.add((dimension.name, principal.metric if principal else "none"))
        self._refused += 1
        kind = TokensLimited if dimension.counts_tokens else RateLimited
        wait = max(math.ceil(standing.seconds), 1)
        fields = {name.decode(): value.decode() for name, value in told(bounds.standings(grant.remaining))}
        return kind(
            f"rate limit reached for {self._whose(bounds.subject)}: {dimension.said}; {standing.remaining} left, "
            f"{claim.amount} asked for; try again in {wait} s",
            headers={**fields, "retry-after": str(wait)},
        )

    def _whose(self, subject: str) -> str:
        """What a header says may be a secret."""
        return f"what the header '{self._header}' says" if self._header else f"{self.config.by} '{subject}'"


def _standings(granted: Granted) -> Iterable[tuple[Dimension, int]]:
    return granted[1].standings(granted[0].remaining)


def _counts_tokens(limits: Limits) -> bool:
    return any(getattr(limits, name) for name in TOKENS)
