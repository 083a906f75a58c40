"""Finds out offline what a config would do with one request: its route, its chain, its targets, and what it may cost.

Every part is judged by the code that serves requests: rules, orderers and upstreams are the real ones. A plugin's
refusal does not end the search: what follows is as if it had not refused.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from proxy.config import Match
from proxy.consumption import ESTIMABLE, asked_model, output_tokens, prompt_tokens
from proxy.destinations import SHOWN, Destinations, shown_target
from proxy.errors import ProxyError
from proxy.exchange import Exchange
from proxy.findings import Asked, Findings, Passed, Refusal, Setting, Step
from proxy.headers import CREDENTIALS
from proxy.plan import targets_of
from proxy.routing import Rule, read_model
from proxy.services import Services
from proxy.veil import HIDDEN, default_of, veiled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from proxy.plan import Plan
    from proxy.plugin import Plugin
    from proxy.request import Request
    from proxy.source import Path


async def find(plan: Plan, request: Request) -> Findings:
    """The request's body is at hand, and JSON where it says so."""
    await read_model(request)
    return await _Search(plan, request).run()


class _Search:
    def __init__(self, plan: Plan, request: Request) -> None:
        self._plan = plan
        self._request = request
        self._exchange = Exchange("req_explain", request)
        targets = {route.name: targets_of(route) for route in plan.config.routes}
        self._services = Services(CollectorRegistry(), upstreams=plan.config.upstreams, routes=targets)

    async def run(self) -> Findings:
        passed = list(self._routes())
        place = len(passed) - 1 if passed[-1].is_taken else None
        route = None if place is None else self._plan.config.routes[place]
        if route is not None:
            self._exchange.route, self._exchange.offered = route.name, tuple(self._services.routes[route.name])
        chain = [step async for step in self._chain(place)]
        asked = _asked(self._request)
        order, targets = (None, []) if route is None else Destinations(self._plan, self._exchange, asked, route).found()
        answer = next((step.refusal for step in chain if step.refusal is not None), None)
        if answer is None and route is None:
            answer = Refusal("", 404, "no_route", "no route matches this request")
        file, name = str(self._plan.source.file), None if route is None else route.name
        return Findings(file, asked, passed, name, chain, order, targets, answer)

    def _at(self, path: Path) -> str:
        return f"{self._plan.source.file}:{self._plan.source.line(path)}"

    # -- routes

    def _routes(self) -> Iterator[Passed]:
        """Up to the first that matches."""
        for place, route in enumerate(self._plan.config.routes):
            at = self._at(("routes", place))
            why = next(self._mismatches(route.match), None)
            yield Passed(route.name, why is None, why or _matching(route.match), at)
            if why is None:
                return

    def _mismatches(self, match: Match) -> Iterator[str]:
        """Each part of the match as a rule of its own, in the order in which a router looks."""
        request = self._request
        if not Rule(Match(path=match.path)).matches_head(request):
            yield f"path {shown_target(request.path)} is not {match.path}"
        for name, pattern in match.header.items():
            if not Rule(Match(header={name: pattern})).matches_head(request):
                yield _header_mismatch(request, name, pattern)
        if not Rule(Match(model=match.model)).matches_model(request.model):
            yield _model_mismatch(request.model, match.model)

    # -- the chain

    async def _chain(self, place: int | None) -> AsyncIterator[Step]:
        route = None if place is None else self._plan.config.routes[place]
        plugins = self._plan.unrouted if place is None else self._plan.chains[place]
        built = {plugin.name: plugin for plugin in plugins}
        for position, entry in enumerate(self._plan.config.plugins):
            at: Path = ("plugins", position, entry.name)
            override = {} if route is None else route.plugins.get(entry.name, {})
            over: Path = ("routes", place or 0, "plugins", entry.name)
            if override is False:
                yield Step(entry.name, self._at(at), is_off=True, overridden_at=self._at(over))
                continue
            plugin = built[entry.name]
            settings = list(self._settings(plugin, (entry.settings, at), (override, over)))
            says, refusal = await self._said(plugin)
            where = self._at(over) if override else None
            yield Step(entry.name, self._at(at), overridden_at=where, settings=settings, says=says, refusal=refusal)

    def _settings(
        self, plugin: Plugin[Any], entry: tuple[Mapping[str, Any], Path], override: tuple[Mapping[str, Any], Path]
    ) -> Iterator[Setting]:
        """As they were written, the route's before the chain's; those that every plugin has only where they are set."""
        for key, info in plugin.Config.model_fields.items():
            for of, (written, at) in (("route", override), ("chain", entry)):
                if key in written:
                    value = veiled(self._plan.source, plugin.Config, (*at, key), key, written[key])
                    yield Setting(key, value, of, self._at((*at, key)))
                    break
            else:
                if key not in {"use", "failure_mode"}:
                    yield Setting(key, default_of(info), "default", None)

    async def _said(self, plugin: Plugin[Any]) -> tuple[list[str], Refusal | None]:
        try:
            told = plugin.explain(self._exchange, self._services)
            return list(await told if inspect.isawaitable(told) else told), None
        except ProxyError as error:
            return [], Refusal(plugin.name, error.status, error.error_code, error.message)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            return [f"cannot say what it would do: {type(error).__name__}: {error}"], None


def _asked(request: Request) -> Asked:
    """After the chain, which may have changed it."""
    is_estimable = request.endpoint in ESTIMABLE
    given, made = (prompt_tokens(request), output_tokens(request, 0)) if is_estimable else (0, 0)
    most = made if made or request.endpoint == "embeddings" or not is_estimable else None
    model = asked_model(request)
    return Asked(request.method, shown_target(request.target), request.endpoint, model and model[:SHOWN], given, most)


def _matching(match: Match) -> str:
    parts = [f"path {match.path}"] if match.path else []
    parts += [f"header {name} {_pattern(name, pattern)}" for name, pattern in match.header.items()]
    parts += [f"model {match.model}"] if match.model else []
    return ", ".join(parts) or "it takes everything"


def _model_mismatch(model: str | None, wanted: str | None) -> str:
    if model is None:
        return f"the request names no model, and {wanted} is asked for"
    return f"model {model[:SHOWN]} is not {wanted}"


def _header_mismatch(request: Request, name: str, pattern: str) -> str:
    seen = request.headers.getall(name, ())
    wanted = _pattern(name, pattern)
    if not seen:
        return f"header {name} is missing, and {wanted} is asked for"
    return f"header {name} is {', '.join(_pattern(name, value[:SHOWN]) for value in seen)}, not {wanted}"


def _pattern(name: str, value: str) -> str:
    return HIDDEN if name in CREDENTIALS else value
