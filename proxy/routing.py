"""Which route a request takes: the first whose path, header and model all match.

Path and header decide first; the body is read and parsed only when a rule that still could match asks for the model.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

import orjson

from proxy.body import multipart_field
from proxy.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy import config
    from proxy.attempt import Target
    from proxy.chain import Chain
    from proxy.exchange import Exchange
    from proxy.queue import Queue
    from proxy.request import Request

    Glob = Callable[[str], bool]
    Order = Callable[[Exchange], list[Target]]

_WILD = re.compile(r"[*?\[]")


class Rule:
    """What a request must be like; every part that is None matches anything."""

    def __init__(self, match: config.Match) -> None:
        self._path = None if match.path is None else path_glob(match.path)
        self._model = None if match.model is None else glob(match.model)
        self._headers = [(name, glob(pattern)) for name, pattern in match.header.items()]
        self.asks_model = self._model is not None

    def matches_head(self, request: Request) -> bool:
        if self._path is not None and not self._path(request.path):
            return False
        return not self._headers or self._matches_headers(request)

    def _matches_headers(self, request: Request) -> bool:
        return all(any(wanted(v) for v in request.headers.getall(name, ())) for name, wanted in self._headers)

    def matches_model(self, model: str | None) -> bool:
        return self._model is None or (model is not None and self._model(model))


class Route:
    """A rule with what happens to its requests: a chain, and targets in order."""

    def __init__(
        self,
        name: str,
        rule: Rule,
        chain: Chain,
        targets: Sequence[Target],
        *,
        drains: bool = False,
        order: Order | None = None,
        needs_body: bool = False,
        queue: Queue | None = None,
        may_load: bool = False,
    ) -> None:
        """`drains`: a target's upstream is read to its end when the app has gone; `may_load`: one may be loading.

        `order`: which targets a request is offered, first to last; it may need the body at hand. None: as they stand.
        """
        self.drains = drains
        self.needs_body = needs_body
        self.queue = queue
        self.may_load = may_load
        self._order = order
        self.name = name
        self.rule = rule
        self.chain = chain
        self.targets = tuple(targets)

    def ordered(self, exchange: Exchange) -> list[Target]:
        return list(self.targets) if self._order is None else self._order(exchange)


class Router:
    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self.named = {route.name: route for route in routes}

    def close(self) -> None:
        """No request comes any more."""
        for route in self.routes:
            if route.queue is not None:
                route.queue.close()

    def find(self, request: Request) -> Route | None:
        """None where a rule that could match asks for the model, which nobody has read yet; raises NotFound."""
        for route in self.routes:
            if not route.rule.matches_head(request):
                continue
            if route.rule.asks_model and not request.is_model_read:
                return None
            if route.rule.matches_model(request.model):
                return route
        asked = f" with model '{request.model[:100]}'" if request.model else ""
        raise NotFound(f"no route matches {request.method} {request.path[:200]}{asked}", code="no_route")


async def read_model(request: Request) -> None:
    """Raises ClientFault where the body says that it is JSON and is not."""
    request.model = await model_of(request)
    request.is_model_read = True


async def model_of(request: Request) -> str | None:
    """The model that a request names, in JSON or in a form; None where it names none."""
    kind = request.content_type
    if kind == "multipart/form-data":
        return multipart_field(await request.body(), request.headers.get("content-type", ""), "model")
    if kind == "application/json" or kind.endswith("+json"):
        body = await request.json() if await request.body() else None
    else:
        body = _json_or_none(await request.body())
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) else None


def _json_or_none(body: bytes) -> object:
    """Clients that forget the content type still mean their model."""
    if body.lstrip()[:1] != b"{":
        return None
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def glob(pattern: str) -> Glob:
    if not _WILD.search(pattern):
        return pattern.__eq__
    return re.compile(fnmatch.translate(pattern)).match  # type: ignore[return-value]  # a Match is as good as True


def path_glob(pattern: str) -> Glob:
    """Exact; a prefix where it ends in `/*`; a glob over the raw path where it has wildcards elsewhere."""
    prefix = pattern.removesuffix("*")
    if pattern.endswith("/*") and not _WILD.search(prefix):
        return lambda path: path.startswith(prefix)
    return glob(pattern)
