"""Where a request would go, offline: its targets in order, at which URL each is asked, and what that may cost.

What chance or load decides is said to be so; upstreams are taken to be well.
"""

from __future__ import annotations

import urllib.parse
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from proxy import balance, static
from proxy.consumption import ESTIMABLE, asked_model
from proxy.errors import ProxyError
from proxy.exchange import PRINCIPAL
from proxy.findings import Cost, Destination
from proxy.plan import targets_of
from proxy.prompt import beginning, opening
from proxy.supply import made
from proxy.tariff import FEMTO, TARIFF
from proxy.veil import HIDDEN

if TYPE_CHECKING:
    from proxy import config
    from proxy.attempt import Target
    from proxy.exchange import Exchange
    from proxy.findings import Asked
    from proxy.plan import Plan
    from proxy.targets import Balance
    from proxy.upstream.openai import OpenAI

SHOWN: Final = 100
PLAIN_QUERY: Final = frozenset({"api-version"})
"""Parameters whose values may be shown: any other one may be a key."""


class Destinations:
    """Of one route."""

    def __init__(self, plan: Plan, exchange: Exchange, asked: Asked, route: config.Route) -> None:
        """`exchange` has the facts that plugins left on it. Raises ConfigError."""
        self._plan = plan
        self._exchange = exchange
        self._request = exchange.request
        self._asked = asked
        self._balance = route.balance
        self._targets = targets_of(route)
        names = {target.upstream for target in self._targets if target.static is None}
        self._upstreams = {name: made(name, plan.config.upstreams[name], plan.source) for name in names}

    def found(self) -> tuple[str, list[Destination]]:
        """Why they stand as they do, and they."""
        way, targets = self._balance, self._targets
        first = next((upstream for name, upstream in way.header.items() if name in self._request.headers), "")
        order, is_certain = self._order(way, first)
        if is_certain and (ordered := balance.compiled(way, targets, self._upstreams)) is not None:
            try:
                targets = ordered(self._exchange)
            except ProxyError as error:
                return f"nowhere, {error.status}: {error.message}", []
        elif first:
            targets = sorted(targets, key=lambda target: (target.static is not None, target.upstream != first))
        weights = [target.weight for target in targets if target.static is None]
        total = 0 if is_certain or first or len(weights) == 1 else sum(weights)
        served = [target for target in targets if target.static is None or static.can_answer(self._request)]
        return order, [self._destination(each, round(each.weight / total, 4) if total else None) for each in served]

    def _order(self, way: Balance, first: str) -> tuple[str, bool]:
        """Why they stand as they do, and whether that is certain. `first`: the upstream that a header asks for."""
        match way.by:
            case "ordered":
                return "as they are written", True
            case "weighted":
                chance = "by chance, each as often as its weight says"
                return (f"{first} is first by a header of the request, then {chance}" if first else chance), False
            case "sticky" | "prefix":
                key = f"sticky by {way.key}" if way.by == "sticky" else "by the prompt's beginning"
                if not self._has_key(way):
                    return f"{key}, which this request lacks: by chance", False
                return f"{key}, the same each time{' while the load is even' if way.by == 'prefix' else ''}", True
            case _:
                return f"{way.by}, by what is under way then; idle ones by chance", False

    def _has_key(self, way: Balance) -> bool:
        asked = self._request.glimpse()
        if way.by == "prefix":
            return bool(beginning(asked, way.bytes))
        if way.key == "principal":
            return PRINCIPAL in self._exchange
        if way.key == "conversation":
            return bool(opening(asked))
        return bool(self._request.headers.get(way.key.removeprefix("header:")))

    def _destination(self, target: Target, share: float | None) -> Destination:
        if target.static is not None:
            return Destination(note="a static answer of Weir's own")
        upstream, request = self._upstreams[target.upstream], self._request
        model = target.model or asked_model(request)
        sent = model and model[:SHOWN]
        try:
            located = upstream.locate(request.target, target.model or request.model)
        except ProxyError as error:
            return Destination(target.upstream, sent, share=share, note=f"{error.status}: {error.message}")
        base = urllib.parse.urlsplit(upstream.settings.base_url)
        return Destination(
            target.upstream,
            sent,
            f"{base.scheme}://{base.netloc}{shown_target(located)}",
            self._credential(upstream),
            share,
            self._cost(target.upstream, model),
            "while it has no key the built-in demo answers instead" if upstream.settings.is_demo else None,
        )

    def _credential(self, upstream: OpenAI) -> str:
        settings = upstream.settings
        if settings.auth == "passthrough":
            return "the caller's own"
        if settings.token is not None:
            return "an OAuth token, as bearer"
        if settings.api_key is None:
            return "none; the caller's stays here"
        filled = self._plan.source.filled.get(("upstreams", upstream.name, "api_key"))
        place = settings.api_key_in or upstream.KEY_IN
        where = f"in the {place.where} {place.name}" if place.name else f"as {place.where}"
        return f"{HIDDEN if filled is None else filled.references}, {where}"

    def _cost(self, upstream: str, model: str | None) -> Cost | None:
        """None: it has no price, or nobody in the chain knows any."""
        tariff, asked = self._exchange.get(TARIFF, None), self._asked
        rates = None if tariff is None or asked.endpoint not in ESTIMABLE else tariff.rates(upstream, model)
        if rates is None:
            return None
        given, made = rates
        prompt = asked.prompt_tokens * given
        most = None if asked.answer_tokens is None and made else prompt + (asked.answer_tokens or 0) * made
        return Cost(_usd(prompt), _usd(made), None if most is None else _usd(most))


def shown_target(target: str) -> str:
    """A request target without values in its query that could be a key, and not too long."""
    path, mark, query = target.partition("?")
    parts = [_parameter(part) for part in query.split("&")] if mark else []
    return f"{path[: 3 * SHOWN]}{mark}{'&'.join(parts)}"


def _parameter(part: str) -> str:
    name, mark, value = part.partition("=")
    return f"{name}{mark}{value if name in PLAIN_QUERY else HIDDEN if mark else ''}"


def _usd(femto: int) -> str:
    return f"{(Decimal(femto) / FEMTO).normalize():f}"
