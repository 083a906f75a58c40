"""``POST /v1/moderations``: violent words are flagged, nothing else is."""

import hashlib
import re
from typing import Any

from aiohttp import web

from proxy.demo import payload
from proxy.demo.errors import invalid

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_VIOLENT = re.compile(r"\b(kill|murder|attack|shoot)\b", re.IGNORECASE)
DEFAULT_MODEL = "omni-moderation-latest"


async def create(request: web.Request) -> web.Response:
    body = await payload.read(request)
    model = body.get("model") or DEFAULT_MODEL
    payload.check_model(model)
    texts = _texts(body.get("input"))
    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()
    return payload.answer({"id": f"modr-{digest}", "model": model, "results": [_result(text) for text in texts]})


def _texts(given: object) -> list[str]:
    """A string, several, or content parts, which are judged as one."""
    if isinstance(given, list) and given and all(isinstance(part, dict) for part in given):
        return [" ".join(part["text"] for part in given if isinstance(part.get("text"), str))]
    if not given:
        raise invalid("Missing required parameter: 'input'.", "input")
    return list(payload.strings(given, "input"))


def _result(text: str) -> dict[str, Any]:
    violent = _VIOLENT.search(text) is not None
    flags = {name: violent and name == "violence" for name in CATEGORIES}
    return {
        "flagged": violent,
        "categories": flags,
        "category_scores": {name: 0.93 if flag else 0.0001 for name, flag in flags.items()},
        "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
    }
