"""One Weir as its admin port shows it, and the inner door by which a worker is asked and told by the admin process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from proxy import admin, merge
from proxy.errors import ProxyError

if TYPE_CHECKING:
    from proxy.weir import Weir


class Desk:
    """See `admin.House`."""

    def __init__(self, weir: Weir) -> None:
        self._weir = weir

    async def alive(self) -> str:
        """The event loop lives: it answers."""
        return ""

    async def readiness(self) -> str:
        return self._weir.readiness()

    async def page(self) -> bytes:
        return self._weir.metrics.page()

    async def state(self) -> dict[str, Any]:
        return self._weir.state()

    async def begin_drain(self) -> None:
        self._weir.begin_drain()

    async def take_feedback(self, body: bytes) -> tuple[int, bytes]:
        try:
            request_id, is_known = self._weir.feedback.hand_in(body)
        except ProxyError as error:
            return error.status, error.body()
        return 200 if is_known else 202, orjson.dumps({"request_id": request_id, "known": is_known})


def inside(weir: Weir) -> web.Application:
    """As the admin port, and what only the admin process asks for."""

    async def measured(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(measure(weir)), content_type="application/json")

    async def remembers(request: web.Request) -> web.Response:
        return web.Response(status=200 if weir.feedback.remembers(request.match_info["id"]) else 404)

    async def prepare(_: web.Request) -> web.Response:
        report = await weir.prepare()
        return web.Response(body=orjson.dumps(report._asdict()), content_type="application/json")

    async def commit(_: web.Request) -> web.Response:
        await weir.commit()
        return web.Response()

    async def discard(_: web.Request) -> web.Response:
        await weir.discard()
        return web.Response()

    app = admin.application(Desk(weir))
    app.router.add_get("/measured", measured)
    app.router.add_get("/remembers/{id}", remembers)
    for step in (prepare, commit, discard):
        app.router.add_post(f"/{step.__name__}", step)
    return app


def measure(weir: Weir) -> dict[str, Any]:
    weir.metrics.before_page()
    return {"hash": weir.hash, "metrics": merge.taken(weir.metrics.registry)}
