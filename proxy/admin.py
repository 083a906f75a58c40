"""The admin port: /livez, /readyz, /metrics, /state, POST /drain and /feedback. Never on the data plane, no secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.errors import error_body
from proxy.feedback import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class House(Protocol):
    """What is shown: one Weir, or several workers. The first two say why not, or nothing.

    Feedback is answered by a status and a body.
    """

    async def alive(self) -> str: ...
    async def readiness(self) -> str: ...
    async def page(self) -> bytes: ...
    async def state(self) -> object: ...
    async def begin_drain(self) -> None: ...
    async def take_feedback(self, body: bytes) -> tuple[int, bytes]: ...


def application(house: House) -> web.Application:
    async def page(_: web.Request) -> web.Response:
        return web.Response(body=await house.page(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def show_state(_: web.Request) -> web.Response:
        body = orjson.dumps(await house.state(), option=orjson.OPT_INDENT_2)
        return web.Response(body=body, content_type="application/json")

    async def take_feedback(request: web.Request) -> web.Response:
        """Only as JSON by name: a page in somebody's browser cannot send that here unasked."""
        if request.content_type != "application/json":
            return _error(415, "send it as application/json", "unsupported_media_type")
        if request.content_length is None or request.content_length > MAX_BYTES:
            return _error(413, f"send a content-length of at most {MAX_BYTES} bytes", "request_too_large")
        status, body = await house.take_feedback(await request.read())
        return web.Response(status=status, body=body, content_type="application/json")

    async def begin_drain(_: web.Request) -> web.Response:
        await house.begin_drain()
        return web.Response(text="draining\n", status=202)

    app = web.Application()
    app.on_response_prepare.append(_unsigned)
    app.router.add_get("/livez", _probe(house.alive))
    app.router.add_get("/readyz", _probe(house.readiness))
    app.router.add_get("/metrics", page)
    app.router.add_get("/state", show_state)
    app.router.add_post("/drain", begin_drain)
    app.router.add_post("/feedback", take_feedback)
    return app


def _error(status: int, message: str, code: str) -> web.Response:
    body = error_body(message, "invalid_request_error", code)
    return web.Response(status=status, body=body, content_type="application/json")


def _probe(asked: Callable[[], Awaitable[str]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        why_not = await asked()
        return web.Response(text=f"{why_not or 'ok'}\n", status=503 if why_not else 200)

    return answer


async def _unsigned(_: web.Request, response: web.StreamResponse) -> None:
    """Which versions run here is nobody's business."""
    response.headers.popall("server", None)
