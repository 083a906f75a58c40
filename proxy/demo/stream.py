"""Server-sent events as OpenAI's servers write them: one event, one write."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import orjson
from aiohttp import web

from proxy.demo.errors import ApiError

DONE = b"data: [DONE]\n\n"
HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}

Frames = AsyncGenerator[bytes, None]


def data(payload: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(payload)


async def send(request: web.Request, frames: Frames, headers: Mapping[str, str] = HEADERS) -> web.StreamResponse:
    """Headers at once, then each frame as it comes. An error is an event by then, and the end of the stream."""
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    async with contextlib.aclosing(frames):
        try:
            async for frame in frames:
                await response.write(frame)
        except ApiError as error:
            await response.write(data(error.body()))
    return response
