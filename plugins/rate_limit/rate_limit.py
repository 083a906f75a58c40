"""The plugin: claims what a request will need of its limits, tells how they stand, and settles what it really used."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from typing_extensions import override

from plugins.rate_limit.dimension import dimensions, said
from plugins.rate_limit.estimate import Answers, input_tokens
from plugins.rate_limit.settings import DIMENSIONS, RateLimitConfig
from proxy.plugin import PRINCIPAL, Key, Plugin, RateLimited, consumed, read_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plugins.rate_limit.dimension import Dimension
    from plugins.rate_limit.settings import Limits
    from proxy.plugin import Claim, Exchange, Grant, Outcome, Response, Services, Standing, Usage

SUBJECTS = 4096
"""Whose limits are at hand, compiled."""

ESTIMATED = frozenset({"chat", "completions", "responses", "generate", "embeddings"})
NONE = (0, 0)


class TokensLimited(RateLimited):
    type = "tokens"


class RateLimit(Plugin[RateLimitConfig]):
    Config = RateLimitConfig
    uses_store = True

    def __init__(self, config: RateLimitConfig, *, name: str) -> None:
        super().__init__(config, name=name)
        self.reads_usage = any(map(_counts_tokens, (config, *config.limits.values())))
        if config.by == "principal":
            self.needs = (PRINCIPAL,)
        self._granted: Key[tuple[Grant, Sequence[Dimension], str]] = Key(f"{name}: what was granted")
        self._header = config.by.partition(":")[2]
        self._answers = Answers()
        self._dimensions = lru_cache(SUBJECTS)(self._compiled)
        self._refuse = self._refusal

    @override
    def lifespan(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._limited = services.counter("weir_rate_limited", "requests that a limit refused", ("limit", "principal"))

    @override
    async def on_request(self, exchange: Exchange) -> None:
        subject = await self._subject(exchange)
        dims = self._dimensions(subject)
        if not dims:
            return
        request = exchange.request
        given, made = NONE
        if self.reads_usage and request.method == "POST" and request.endpoint in ESTIMATED:
            body = await request.body()
            given = input_tokens(request, body)
            made = 0 if request.endpoint == "embeddings" else self._answers.expected(subject, body)
        claims = [
            dimension.claim if dimension.name in _ONES else dimension.claimed(_part(dimension.name, given, made))
            for dimension in dims
        ]
        exchange[self._granted] = (self._store.claim(exchange, claims, self._refuse), dims, subject)

    @override
    async def on_response(self, exchange: Exchange, response: Response) -> None:
        granted = exchange.get(self._granted, None)
        if granted is not None and granted[0].is_taken:
            response.put_fields(said(granted[1], granted[0].standings), instead_of=b"x-ratelimit-")

    @override
    def on_complete(self, exchange: Exchange, outcome: Outcome) -> None:
        granted = exchange.get(self._granted, None)
        if granted is None or not granted[0].is_taken:
            return
        grant, dims, subject = granted
        if not exchange.attempts and (exchange.response is None or exchange.error is not None):
            grant.settle([0] * len(dims))  # it got no further than this house
            return
        usage = consumed(exchange).usage
        grant.settle([_used(dimension.name, usage) for dimension in dims])
        if exchange.usage is not None and usage.output_tokens:
            self._answers.learn(subject, usage.output_tokens)

    async def _subject(self, exchange: Exchange) -> str:
        """Of models those that the config names, and `other`: an app could make up any number."""
        by, request = self.config.by, exchange.request
        if by == "principal":
            return exchange[PRINCIPAL].name
        if by == "route":
            return exchange.route
        if by == "model":
            if not request.is_model_read:
                await read_model(request)
            return self._services.model_label(request.model)
        return request.headers.get(self._header, "")

    def _compiled(self, subject: str) -> list[Dimension]:
        """What a subject of its own limits does not set is as for all."""
        limits, own = self.config, self.config.limits.get(subject)
        if own is not None:
            changed = {name: getattr(own, name) for name in own.model_fields_set}
            limits = limits.model_copy(update={"burst": None, **changed} if "requests" in changed else changed)
        return dimensions(limits, subject, self.name, self.config.when_store_down)

    def _refusal(self, exchange: Exchange, claim: Claim, standing: Standing) -> RateLimited:
        grant, dims, subject = exchange[self._granted]
        dimension = next(dim for dim in dims if dim.claim.key == claim.key)
        principal = exchange.get(PRINCIPAL, None)
        self._limited.add((dimension.name, principal.metric if principal else "none"))
        kind = TokensLimited if "tokens" in dimension.name else RateLimited
        wait = max(math.ceil(standing.seconds), 1)
        fields = {name.decode(): value.decode() for name, value in said(dims, grant.standings)}
        return kind(
            f"the limit of {dimension.said()} is reached for {self.config.by.partition(':')[0]} '{subject}': limit "
            f"{claim.limit}, left {standing.remaining}, asked for {claim.amount}; try again in {wait} s",
            headers={**fields, "retry-after": str(wait)},
        )


_ONES = frozenset({"requests", "concurrent"})


def _counts_tokens(limits: Limits) -> bool:
    return any(getattr(limits, name) for name in DIMENSIONS if name not in _ONES)


def _part(name: str, given: int, made: int) -> int:
    if name == "tokens":
        return given + made
    return given if name == "input_tokens" else made


def _used(name: str, usage: Usage) -> int:
    return 1 if name in _ONES else _part(name, usage.input_tokens, usage.output_tokens)
