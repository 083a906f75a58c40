"""The admin port: /livez, /readyz, /metrics, /state, POST /drain. Never on the data plane, never a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class House(Protocol):
    """What is shown: one Weir, or several workers. The first two say why not, or nothing."""

    async def alive(self) -> str: ...
    async def readiness(self) -> str: ...
    async def page(self) -> bytes: ...
    async def state(self) -> object: ...
    async def begin_drain(self) -> None: ...


def application(house: House) -> web.Application:
    async def page(_: web.Request) -> web.Response:
        return web.Response(body=await house.page(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def show_state(_: web.Request) -> web.Response:
        body = orjson.dumps(await house.state(), option=orjson.OPT_INDENT_2)
        return web.Response(body=body, content_type="application/json")

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
    return app


def _probe(asked: Callable[[], Awaitable[str]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        why_not = await asked()
        return web.Response(text=f"{why_not or 'ok'}\n", status=503 if why_not else 200)

    return answer


async def _unsigned(_: web.Request, response: web.StreamResponse) -> None:
    """Which versions run here is nobody's business."""
    response.headers.popall("server", None)
