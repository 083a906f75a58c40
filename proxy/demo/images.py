"""``POST /v1/images/generations``: tiny PNGs in colours that the prompt decides."""

import asyncio
import base64
import hashlib
import struct
import zlib

from aiohttp import web

from proxy.demo import conversation, payload
from proxy.demo.engine import ENGINE
from proxy.demo.errors import invalid

EDGE = 16  # pixels
MAX_IMAGES = 10
IMAGE_TOKENS = 272


async def create(request: web.Request) -> web.Response:
    body = await payload.model_request(request)
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise invalid("Missing required parameter: 'prompt'.", "prompt")
    count = payload.integer(body, "n", 1, MAX_IMAGES)
    engine = request.app[ENGINE]
    await asyncio.sleep(engine.first_token)
    data = [{"b64_json": base64.b64encode(_png(f"{index} {prompt}")).decode()} for index in range(count)]
    asked, made = conversation.tokens(len(prompt)), IMAGE_TOKENS * count
    usage = {"input_tokens": asked, "output_tokens": made, "total_tokens": asked + made}
    details = {"text_tokens": asked, "image_tokens": 0}
    return payload.answer(
        {"created": engine.started, "data": data, "usage": {**usage, "input_tokens_details": details}}
    )


def _png(prompt: str) -> bytes:
    """A gradient between two colours, 8 bit RGB: https://www.w3.org/TR/png-3/"""
    colours = hashlib.blake2b(prompt.encode(), digest_size=6).digest()
    rows = b"".join(b"\0" + _row(colours, y) for y in range(EDGE))
    header = struct.pack(">IIBBBBB", EDGE, EDGE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _row(colours: bytes, y: int) -> bytes:
    pixel = bytes((colours[at] * (EDGE - y) + colours[at + 3] * y) // EDGE for at in range(3))
    return pixel * EDGE


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
