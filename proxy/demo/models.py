"""``GET /v1/models``: what this server calls its own. Any other name is served as well."""

from typing import Any

from aiohttp import web

from proxy.demo import payload
from proxy.demo.engine import ENGINE, Engine
from proxy.demo.errors import printable

NAMES = (
    "demo",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "demo-slow",
    "demo-cut",
    "demo-error",
    "demo-429",
    "demo-500",
)


async def listed(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    return payload.answer({"object": "list", "data": [_model(name, engine) for name in NAMES]})


async def retrieve(request: web.Request) -> web.Response:
    name = printable(request.match_info["id"])
    if name not in NAMES:
        payload.check_model(name)
    return payload.answer(_model(name, request.app[ENGINE]))


def _model(name: str, engine: Engine) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": engine.started, "owned_by": "weir-demo"}
