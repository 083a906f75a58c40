"""``POST /v1/embeddings``: texts that share words lie near each other, and every vector has unit length."""

import asyncio
import base64
import math
import struct
import zlib
from typing import Any

from aiohttp import web

from proxy.demo import conversation, payload
from proxy.demo.engine import ENGINE
from proxy.demo.errors import invalid

DEFAULT_DIMENSIONS = 256
MAX_DIMENSIONS = 4096
MAX_INPUTS = 2048
MAX_CHARACTERS = 32 * 1024  # of one text that count: about 8192 tokens


async def create(request: web.Request) -> web.Response:
    body = await payload.model_request(request)
    texts = _texts(body.get("input"))
    dimensions = payload.integer(body, "dimensions", DEFAULT_DIMENSIONS, MAX_DIMENSIONS)
    await asyncio.sleep(request.app[ENGINE].first_token)
    data = []
    for index, text in enumerate(texts):
        await asyncio.sleep(0)  # streams go on between two vectors
        vector = _vector(text, dimensions)
        data.append({"object": "embedding", "index": index, "embedding": _encoded(body, vector)})
    tokens = sum(len(text) if isinstance(text, list) else conversation.tokens(len(text)) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return payload.answer({"object": "list", "data": data, "model": body["model"], "usage": usage})


def _texts(given: object) -> list[str | list[int]]:
    """A string, its token ids, or an array of either."""
    texts = [given] if isinstance(given, str) or _is_tokens(given) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) or _is_tokens(one) for one in texts):
        raise invalid("'input' must be a string, token ids, or a non-empty array of either.", "input")
    if len(texts) > MAX_INPUTS:
        raise invalid(f"'input' has more than {MAX_INPUTS} items.", "input")
    if "" in texts:
        raise invalid("'input' has an empty string.", "input")
    return texts


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, int) for one in value)


def _vector(text: str | list[int], dimensions: int) -> list[float]:
    sums = [0.0] * dimensions
    for feature in _features(text):
        mark = zlib.crc32(feature.encode())
        sums[mark % dimensions] += 1.0 if mark & 0x8000_0000 else -1.0
    if not any(sums):
        sums[0] = 1.0
    length = math.hypot(*sums)
    return [one / length for one in sums]


def _features(text: str | list[int]) -> list[str]:
    if isinstance(text, list):
        return [str(one) for one in text[:MAX_CHARACTERS]]
    text = text[:MAX_CHARACTERS].lower()
    return text.split() + [text[at : at + 3] for at in range(len(text) - 2)]


def _encoded(body: dict[str, Any], vector: list[float]) -> str | list[float]:
    if body.get("encoding_format") != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
