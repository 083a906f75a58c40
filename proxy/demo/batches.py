"""``/v1/batches``: taken and kept, never run; cancelling one ends it. At most 100."""

import secrets
from typing import Any

from aiohttp import web

from proxy.demo import payload
from proxy.demo.errors import invalid, missing
from proxy.demo.files import FILES, now

MAX_BATCHES = 100

BATCHES = web.AppKey("batches", dict[str, dict[str, Any]])


async def create(request: web.Request) -> web.Response:
    body = await payload.read(request)
    batches = request.app[BATCHES]
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(body.get(name), str):
            raise invalid(f"Missing required parameter: '{name}'.", name)
    if body["input_file_id"] not in request.app[FILES]:
        raise invalid(f"There is no file '{body['input_file_id']}'.", "input_file_id")
    if len(batches) >= MAX_BATCHES:
        raise invalid(f"The demo upstream keeps at most {MAX_BATCHES} batches.", code="batch_limit_exceeded")
    batch = _batch(body)
    batches[batch["id"]] = batch
    return payload.answer(batch)


def _batch(body: dict[str, Any]) -> dict[str, Any]:
    asked = {name: body[name] for name in ("input_file_id", "endpoint", "completion_window")}
    return {
        "id": f"batch_{secrets.token_hex(12)}",
        "object": "batch",
        **asked,
        "status": "in_progress",
        "errors": None,
        "output_file_id": None,
        "error_file_id": None,
        "created_at": now(),
        "in_progress_at": now(),
        "cancelled_at": None,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": body.get("metadata"),
    }


async def listed(request: web.Request) -> web.Response:
    found = list(request.app[BATCHES].values())
    ends = {"first_id": found[0]["id"], "last_id": found[-1]["id"]} if found else {"first_id": None, "last_id": None}
    return payload.answer({"object": "list", "data": found, "has_more": False, **ends})


async def retrieve(request: web.Request) -> web.Response:
    return payload.answer(_found(request))


async def cancel(request: web.Request) -> web.Response:
    batch = _found(request)
    if batch["status"] == "in_progress":
        batch |= {"status": "cancelled", "cancelled_at": now()}
    return payload.answer(batch)


def _found(request: web.Request) -> dict[str, Any]:
    name = request.match_info["id"]
    batch = request.app[BATCHES].get(name)
    if batch is None:
        raise missing("batch", name)
    return batch
