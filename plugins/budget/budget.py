"""The plugin: reserves what a request may cost at most, refuses or detours what does not fit, and settles the bill.

A reservation is the estimated prompt and the longest answer that the request allows, at the dearest of the targets that
could serve it. What costs nothing, or has no price, reserves nothing and always fits.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from plugins.budget import period
from plugins.budget.account import Account, Held
from plugins.budget.alarms import Alarms, dollars
from plugins.budget.settings import MICRO, BudgetConfig
from plugins.budget.usual import Usual
from proxy.plugin import (
    ESTIMABLE,
    FEMTO,
    OTHER,
    PAID,
    PRINCIPAL,
    TARIFF,
    Key,
    Plugin,
    QuotaExceeded,
    Rejected,
    asked_model,
    consumed,
    output_tokens,
    read_model,
    rough_prompt_tokens,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence

    from plugins.budget.account import Purse
    from plugins.budget.usual import Habit
    from proxy.plugin import Claim, Exchange, Outcome, Request, Services, Standing, Target, Tariff

LOOK_SECONDS, ALL_TURNS = 1.0, 30
"""How often accounts are looked at that were spent from, and each how many times all are."""

MOST_ACCOUNTS = 10_000
SHOWN = 100
"""Of them in `/state`: those that have spent most of what they may."""

ORDINARY = 10
"""A request that may cost less than this part of an amount and does not fit shows that all of it is spent."""

NOBODY = "none"
"""Whose money it is where a principal has no such label, or a request no such header or model."""


class Budget(Plugin[BudgetConfig]):
    Config = BudgetConfig
    reads_usage = True
    uses_store = True

    def __init__(self, config: BudgetConfig, *, name: str) -> None:
        super().__init__(config, name=name)
        self._kind, _, self._key = config.by.partition(":")
        self.needs = (TARIFF, PRINCIPAL) if self._kind in {"principal", "label"} else (TARIFF,)
        self._held: Key[Held] = Key(f"{name}: what is held")
        self._when_down = config.when_store_down
        self._spending = set[Account]()
        self._refuse = self._refusal

    @override
    @contextlib.asynccontextmanager
    async def lifespan(self, services: Services) -> AsyncIterator[None]:
        self._remember(services)
        self._store = services.store
        self._alarms = Alarms(self.config, self.name, services)
        self._limited = services.counter("weir_rate_limited", "requests that a limit refused", ("limit", "principal"))
        self._detoured = services.counter("weir_budget_detours", "requests that `downgrade_to` served", ("budget",))
        self._ratio = services.gauge(
            "weir_budget_used_ratio",
            "part of the budget that is spent in its period",
            ("budget", "period", "principal"),
            "max" if self._store.parts == 1 else "sum",
        )
        looking = services.tasks.start(self._look(), "budgets")
        try:
            yield
        finally:
            looking.cancel()

    def _remember(self, services: Services) -> None:
        self._routes = services.routes
        self._accounts: OrderedDict[str, Account] = services.kept(("budget", self.name, str(self.config)), OrderedDict)
        self._usual = services.kept(("budget: usual", self.name), Usual)

    @override
    def on_request(self, exchange: Exchange) -> Awaitable[None] | None:
        request = exchange.request
        if exchange.route not in self._routes or not (request.method == "POST" or request.is_upgrade):
            return None
        if request.at_hand is None or request.endpoint not in ESTIMABLE:
            return self._read(exchange)
        self._reserve(exchange)
        return None

    async def _read(self, exchange: Exchange) -> None:
        await _have_model(exchange.request)
        self._reserve(exchange)

    def _reserve(self, exchange: Exchange) -> None:
        account, micro, habit = self._account(exchange), 0, None
        if exchange.request.endpoint in PAID:
            micro, habit = self._reservation(exchange, account.subject)
        claims = account.claims(micro, self._when_down)
        exchange.facts[self._held] = account.hold(self._store.claim(exchange, claims, self._refuse), micro, habit)

    @override
    def on_complete(self, exchange: Exchange, outcome: Outcome) -> None:
        held: Held | None = exchange.facts.get(self._held)
        if held is None:
            return
        account = held.account
        account.release(held)
        if held.grant.is_taken:
            tariff: Tariff = exchange.facts[TARIFF]
            account.settle(held, tariff.spent(exchange))
            if held.habit is not None:
                self._learn(exchange, held.habit)
        self._spending.add(account)

    @override
    def explain(self, exchange: Exchange, services: Services) -> Sequence[str]:
        if self._kind in {"principal", "label"} and PRINCIPAL not in exchange:
            return ["reserves from whoever calls, who is not known here"]
        if exchange.request.endpoint not in PAID or exchange.route not in services.routes:
            return ["reserves nothing"]
        self._remember(services)
        account = self._account(exchange)
        micro, habit = self._reservation(exchange, account.subject)
        taken = "" if habit is None else f", an answer taken to have {self._usual.tokens(habit)} tokens"
        return [
            f"reserves ${dollars(micro)} of {purse.amount} for {self._kind} '{account.tag}'{taken}"
            for purse in account.purses
        ]

    @override
    def state(self) -> Mapping[str, Any]:
        spent = [(account, purse) for account in self._accounts.values() for purse in account.purses]
        spent.sort(key=lambda both: both[0].used(both[1]) / max(both[1].limit, 1), reverse=True)
        return {"subjects": len(self._accounts), "spent": [_shown(*both) for both in spent[:SHOWN]]}

    def _subject(self, exchange: Exchange) -> str:
        match self._kind:
            case "principal":
                return exchange[PRINCIPAL].name
            case "label":
                return exchange[PRINCIPAL].labels.get(self._key, NOBODY)
            case "route":
                return exchange.route
            case "model":
                return asked_model(exchange.request) or NOBODY
        return exchange.request.headers.get(self._key, NOBODY)

    def _account(self, exchange: Exchange) -> Account:
        """Made anew when a period of it has ended."""
        subject = self._subject(exchange)
        known = self._accounts.get(subject)
        if known is not None and period.seconds() < known.ends_at:
            return known
        if known is None and len(self._accounts) >= MOST_ACCOUNTS:
            self._accounts.popitem(last=False)
        amounts = self.config.limits.get(subject, self.config.usd)
        metric = exchange[PRINCIPAL].metric if self._kind == "principal" else OTHER
        made = Account(self.name, subject, amounts, period.now(), self.config.time_zone, self.config.warn_at, metric)
        self._accounts[subject] = made
        return made

    def _reservation(self, exchange: Exchange, subject: str) -> tuple[int, Habit | None]:
        """In micro-dollars, rounded up. Raises Rejected for what has no price, where the settings say so."""
        tariff: Tariff = exchange.facts[TARIFF]
        request, dearest, habit = exchange.request, 0, None
        model, given = asked_model(request), rough_prompt_tokens(request) or 1
        made = output_tokens(request, 0)
        if not made:
            habit = subject, model
            made = output_tokens(request, self._usual.tokens(habit))
        for target in self._routes[exchange.route]:
            if target.static is None:
                rates = tariff.rates(target.upstream, target.model or model)
                if rates is not None:
                    dearest = max(dearest, given * rates[0] + made * rates[1])
                elif self.config.unpriced == "reject":
                    raise _unpriced(request, target)
        return -(-dearest * MICRO // FEMTO), habit

    def _learn(self, exchange: Exchange, habit: Habit) -> None:
        tokens = consumed(exchange).usage.output_tokens
        if exchange.usage is not None and tokens:
            self._usual.learn(habit, tokens)

    async def _look(self) -> None:
        """What was spent since the last time is shown, and told where it has reached a level.

        Now and then all accounts are looked at: others may spend from them, and periods end.
        """
        for turn in itertools.count(1):
            await asyncio.sleep(LOOK_SECONDS)
            spending, self._spending = self._spending, set()
            for account in list(self._accounts.values()) if turn % ALL_TURNS == 0 else spending:
                await account.look(self._store)
                for purse in account.purses:
                    self._show(account, purse)
                await asyncio.sleep(0)  # there may be thousands, and requests wait

    def _show(self, account: Account, purse: Purse) -> None:
        has_ended = period.now() >= purse.period.ends
        used = 0 if has_ended else account.used(purse)
        self._alarms.ring(purse.reached(used * self._store.parts), account, purse)
        if purse.limit and account.metric != OTHER:
            self._ratio.set((self.name, purse.amount.period, account.metric), used / purse.limit)

    def _refusal(self, exchange: Exchange, claim: Claim, standing: Standing) -> QuotaExceeded | None:
        held, account = exchange[self._held], exchange[self._held].account
        account.release(held)
        purse = next(purse for purse in account.purses if purse.key == claim.key)
        if claim.amount * ORDINARY <= purse.limit < account.used(purse) + claim.amount:
            self._alarms.ring(purse.reached(purse.limit), account, purse)
        if self.config.downgrade_to is not None:
            exchange.detour = self.config.downgrade_to
            self._detoured.add((self.name,))
            return None
        principal = exchange.get(PRINCIPAL, None)
        self._limited.add((f"usd/{purse.amount.period}", principal.metric if principal else "none"))
        return self._spent(account, purse, claim, standing)

    def _spent(self, account: Account, purse: Purse, claim: Claim, standing: Standing) -> QuotaExceeded:
        """`x-should-retry` keeps OpenAI's clients from asking at once, and again."""
        wait = max(math.ceil((purse.period.ends - period.now()).total_seconds()), 1)
        anew = f"it begins anew at {purse.period.ends.astimezone(self.config.time_zone).isoformat()}"
        if claim.amount > claim.limit:
            anew = f"all of it would not be enough: ask for fewer tokens; {anew}"
        return QuotaExceeded(
            f"the budget '{self.name}' of {self._kind} '{account.subject}', {purse.amount}, does not pay for this "
            f"request: ${dollars(standing.remaining)} is left and it may cost ${dollars(claim.amount)}; {anew}",
            headers={"retry-after": str(wait), "x-should-retry": "false"},
        )


async def _have_model(request: Request) -> None:
    """What is needed for an estimate is at hand then; uploads that cost nothing are left to stream through."""
    if request.endpoint in ESTIMABLE:
        if request.at_hand is None:
            await request.body()
    elif request.endpoint in PAID and not request.is_upgrade and not request.is_model_read:
        await read_model(request)


def _unpriced(request: Request, target: Target) -> Rejected:
    model = target.model or asked_model(request)
    named = f"the model '{model[:100]}'" if model else "a request that names no model"
    return Rejected(
        f"{named} has no price at the upstream '{target.upstream}', and only what has one is allowed here; it needs an "
        "entry in the price list or in the upstream's `prices`, `free: true` where it costs nothing",
        code="model_not_priced",
        param="model",
    )


def _shown(account: Account, purse: Purse) -> dict[str, Any]:
    return {
        "subject": account.subject,
        "period": purse.period.name,
        "used_usd": dollars(account.used(purse)),
        "limit_usd": dollars(purse.limit),
    }
