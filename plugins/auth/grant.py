"""What a credential is good for: whose it is, until when, and which routes and models it may use.

Models are compared by the names that the request has, wherever an upstream could read one: in the body, in Azure's
paths, and in a WebSocket's query. What names its model twice is refused: nobody can say which of the two will be used.
"""

from __future__ import annotations

import re
import urllib.parse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from plugins.auth.credential import expired
from proxy.plugin import ClientFault, Rejected, glob, read_model, repeated_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.plugin import Exchange, Principal, Request

MODEL = "model"
SHOWN_MODEL = 100

_IN_PATH = re.compile(r"/(?:deployments|engines)/([^/]+)", re.IGNORECASE)
_IN_QUERY = frozenset({MODEL, "deployment"})
_FORM = "multipart/form-data"
_FIELD = re.compile(rb"\bname\*?\s*=[^\r\n;]{0,40}?\bmodel\b", re.IGNORECASE)
"""A form's field of that name, also where only a lenient parser would find it."""


class Grant:
    __slots__ = ("_expires", "_models", "_routes", "is_limited", "principal")

    def __init__(
        self,
        principal: Principal,
        *,
        expires: datetime | None = None,
        models: Sequence[str] | None = None,
        routes: Sequence[str] | None = None,
    ) -> None:
        """`models` are globs; None is no limit."""
        self.principal = principal
        self._expires = expires
        self._models = None if models is None else [glob(pattern) for pattern in models]
        self._routes = None if routes is None else frozenset(routes)
        self.is_limited = not (expires is None and models is None and routes is None)

    async def check(self, exchange: Exchange) -> None:
        """Raises Unauthorized after the expiry, Rejected where it may not, ClientFault where that cannot be told."""
        if self._expires is not None and datetime.now(UTC) >= self._expires:
            raise expired()
        if self._routes is not None and exchange.route not in self._routes:
            raise Rejected("this API key may not be used on the route of this request", code="route_not_allowed")
        if self._models is not None:
            await self._check_models(exchange.request)

    async def _check_models(self, request: Request) -> None:
        named = _named_in_path(request)
        if request.is_upgrade:
            named += _named_in_query(request)
        elif await request.body():
            named += await _named_in_body(request)
        elif not named:
            return  # a list of models, a cancellation: nothing is generated
        for model in named or [""]:
            if not self._may_use(model):
                raise _not_allowed(model)

    def _may_use(self, model: str) -> bool:
        return bool(model) and self._models is not None and any(allowed(model) for allowed in self._models)


def _not_allowed(model: str) -> Rejected:
    what = f"the model '{model[:SHOWN_MODEL]}'" if model else "requests that name no model"
    return Rejected(f"this API key is not allowed {what}", code="model_not_allowed", param=MODEL)


def _named_in_path(request: Request) -> list[str]:
    """Below any prefix, and however it is spelled; a name may have an encoded slash in it."""
    found = _IN_PATH.search(request.path) or _IN_PATH.search(urllib.parse.unquote(request.path))
    return [urllib.parse.unquote(found[1])] if found else []


def _named_in_query(request: Request) -> list[str]:
    pairs = urllib.parse.parse_qsl(request.query, keep_blank_values=True)
    return [value for key, value in pairs if key.lower() in _IN_QUERY]


async def _named_in_body(request: Request) -> list[str]:
    if not request.is_model_read:
        await read_model(request)
    if request.model is None:
        return []
    if await _is_repeated(request):
        raise ClientFault("the request names its model more than once", code="repeated_model", param=MODEL)
    return [request.model]


async def _is_repeated(request: Request) -> bool:
    """Some upstreams do not tell `Model` from `model`, so for this neither do we."""
    body = await request.body()
    if request.content_type == _FORM:
        return len(_FIELD.findall(body)) > 1
    keys = [key for key in await request.json() if key.lower() == MODEL]
    return len(keys) > 1 or repeated_key(body, frozenset({MODEL})) is not None
