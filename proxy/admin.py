"""The admin port: /livez, /readyz, /metrics, /state, POST /drain and /feedback. Never on the data plane, no secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.errors import ProxyError, error_body
from proxy.feedback import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.feedback import Desk
    from proxy.metrics import Metrics


def application(
    metrics: Metrics,
    readiness: Callable[[], str],
    state: Callable[[], object],
    drain: Callable[[], None],
    feedback: Desk,
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

    async def take_feedback(request: web.Request) -> web.Response:
        """Only as JSON by name: a page in somebody's browser cannot send that here unasked."""
        if request.content_type != "application/json":
            return _error(415, "send it as application/json", "unsupported_media_type")
        if request.content_length is None or request.content_length > MAX_BYTES:
            return _error(413, f"send a content-length of at most {MAX_BYTES} bytes", "request_too_large")
        try:
            request_id, is_known = feedback.hand_in(await request.read())
        except ProxyError as error:
            return web.Response(status=error.status, body=error.body(), content_type="application/json")
        body = orjson.dumps({"request_id": request_id, "known": is_known})
        return web.Response(status=200 if is_known else 202, body=body, content_type="application/json")

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
    app.router.add_post("/feedback", take_feedback)
    return app


def _error(status: int, message: str, code: str) -> web.Response:
    body = error_body(message, "invalid_request_error", code)
    return web.Response(status=status, body=body, content_type="application/json")


async def _unsigned(_: web.Request, response: web.StreamResponse) -> None:
    """Which versions run here is nobody's business."""
    response.headers.popall("server", None)
