"""The admin port: /livez, /readyz, /metrics, /state, POST /drain. Never on the data plane, never a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.metrics import Metrics


def application(
    metrics: Metrics, readiness: Callable[[], str], state: Callable[[], object], drain: Callable[[], None]
) -> web.Application:
    """`readiness` says why not, or nothing; `state` gives what /state shows; `drain` begins to."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        why_not = readiness()
        return web.Response(text=f"{why_not or 'ok'}\n", status=503 if why_not else 200)

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=metrics.page(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def show_state(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(state(), option=orjson.OPT_INDENT_2), content_type="application/json")

    async def begin_drain(_: web.Request) -> web.Response:
        drain()
        return web.Response(text="draining\n", status=202)

    app = web.Application()
    app.on_response_prepare.append(_unsigned)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", page)
    app.router.add_get("/state", show_state)
    app.router.add_post("/drain", begin_drain)
    return app


async def _unsigned(_: web.Request, response: web.StreamResponse) -> None:
    """Which versions run here is nobody's business."""
    response.headers.popall("server", None)
