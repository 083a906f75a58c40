"""The demo upstream as a server: its routes, what every answer has in common, and where errors become answers."""

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus

from aiohttp import web

from proxy.demo import (
    audio,
    batches,
    chat,
    completions,
    embeddings,
    files,
    images,
    models,
    moderations,
    payload,
    realtime,
    responses,
    tgi,
)
from proxy.demo.engine import ENGINE, Engine, Stats
from proxy.demo.errors import ApiError, ConnectionCutError, routing

REQUESTS_PER_MINUTE = 10_000
TOKENS_PER_MINUTE = 2_000_000
BACKLOG = 1024  # a whole load test connects at once
SHUTDOWN_SECONDS = 0.1  # for answers that are still going out

STATS_PATH = "/demo/stats"
ARRIVED = web.RequestKey("arrived", float)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def running(
    host: str = "127.0.0.1", port: int = 0, *, pace: float = 0.02, first_token: float = 0.2
) -> AsyncIterator[str]:
    """The server's root URL, ``http://127.0.0.1:PORT``, while it runs in this event loop.

    ``pace`` is the seconds from token to token, ``first_token`` those before the first.
    """
    runner = web.AppRunner(
        application(pace=pace, first_token=first_token),
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        yield f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def application(*, pace: float, first_token: float) -> web.Application:
    app = web.Application(middlewares=[_boundary], client_max_size=payload.MAX_BODY)
    app[ENGINE] = Engine(pace, first_token, started=files.now())
    app[files.FILES] = {}
    app[batches.BATCHES] = {}
    app.on_response_prepare.append(_label)
    app.add_routes(ROUTES)
    return app


async def _stats(request: web.Request) -> web.Response:
    return payload.answer(dataclasses.asdict(request.app[ENGINE].stats))


@web.middleware
async def _boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[ARRIVED] = asyncio.get_running_loop().time()
    if request.path == STATS_PATH:
        return await handler(request)
    with _counted(request.app[ENGINE].stats):
        try:
            _authenticate(request)
            return await handler(request)
        except ApiError as error:
            return error.response()
        except web.HTTPException as error:
            return routing(request, error).response()
        except ConnectionCutError:
            return _cut(request)


@contextlib.contextmanager
def _counted(stats: Stats) -> Iterator[None]:
    stats.requests += 1
    stats.active += 1
    try:
        yield
    except (asyncio.CancelledError, ConnectionError):
        stats.cancelled += 1
        raise
    finally:
        stats.active -= 1


def _authenticate(request: web.Request) -> None:
    if request.headers.get("authorization") == "Bearer wrong-key":
        raise ApiError(HTTPStatus.UNAUTHORIZED, "Incorrect API key provided: wro***key.", code="invalid_api_key")


def _cut(request: web.Request) -> web.Response:
    """Closes the connection behind what was written; nobody will read the answer that aiohttp wants."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


async def _label(request: web.Request, response: web.StreamResponse) -> None:
    now = asyncio.get_running_loop().time()
    milliseconds = round(1000 * (now - request.get(ARRIVED, now)))  # an unknown `expect` is refused before it arrives
    asked = 1 + (request.content_length or 0) // 4
    active = request.app[ENGINE].stats.active
    labels = {
        "x-request-id": f"req_{secrets.token_hex(16)}",
        "openai-processing-ms": str(milliseconds),
        "openai-organization": "weir-demo",
        "openai-version": "2020-10-01",
        "x-ratelimit-limit-requests": str(REQUESTS_PER_MINUTE),
        "x-ratelimit-remaining-requests": str(max(0, REQUESTS_PER_MINUTE - active)),
        "x-ratelimit-reset-requests": f"{6 * active}ms",
        "x-ratelimit-limit-tokens": str(TOKENS_PER_MINUTE),
        "x-ratelimit-remaining-tokens": str(max(0, TOKENS_PER_MINUTE - asked)),
        "x-ratelimit-reset-tokens": f"{60_000 * asked // TOKENS_PER_MINUTE}ms",
    }
    for name, value in labels.items():
        response.headers.setdefault(name, value)


ROUTES = (
    web.get(STATS_PATH, _stats),
    web.post("/v1/chat/completions", chat.create),
    web.post("/v1/completions", completions.create),
    web.post("/v1/responses", responses.create),
    web.get("/v1/realtime", realtime.connect),
    web.post("/v1/embeddings", embeddings.create),
    web.get("/v1/models", models.listed),
    web.get("/v1/models/{id:.*}", models.retrieve),
    web.post("/v1/moderations", moderations.create),
    web.post("/v1/audio/speech", audio.speech),
    web.post("/v1/audio/transcriptions", audio.transcriptions),
    web.post("/v1/images/generations", images.create),
    web.post("/v1/files", files.create),
    web.get("/v1/files", files.listed),
    web.get("/v1/files/{id}", files.retrieve),
    web.get("/v1/files/{id}/content", files.content),
    web.delete("/v1/files/{id}", files.delete),
    web.post("/v1/batches", batches.create),
    web.get("/v1/batches", batches.listed),
    web.get("/v1/batches/{id}", batches.retrieve),
    web.post("/v1/batches/{id}/cancel", batches.cancel),
    web.get("/", tgi.health),
    web.get("/health", tgi.health),
    web.get("/info", tgi.info),
    web.post("/", tgi.compatible),
    web.post("/generate", tgi.generate),
    web.post("/generate_stream", tgi.generate_stream),
    web.post("/tokenize", tgi.tokenize),
)
