"""The last target of a route: a text of the operator's, in the shape and the way of sending that the app asked for.

It is an answer like any other to the app, and costs nothing: no upstream is asked, and its usage is zero.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from proxy.response import Response
from proxy.sse import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.exchange import Exchange
    from proxy.request import Request

    Said = tuple[dict[str, Any], str, dict[str, Any]]

MAX_CHOICES = 128
"""As many as OpenAI gives."""

_COUNTS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
_DONE = b"data: [DONE]\n\n"


def can_answer(request: Request) -> bool:
    return request.method == "POST" and request.path.rstrip("/") in _SHAPES


def answer(exchange: Exchange, text: str) -> Response:
    """`text` as the answer to a request that `can_answer`, its body at hand; what is no JSON gets the usual shape."""
    request = exchange.request
    asked = request.glimpse()
    asked = asked if isinstance(asked, dict) else {}
    whole, events = _SHAPES[request.path.rstrip("/")]
    said = (asked, text, _envelope(exchange, asked))
    streams = asked.get("stream") is True
    headers = {
        "content-type": "text/event-stream" if streams else "application/json",
        "x-weir-static": "true",
        "x-weir-attempts": str(len(exchange.attempts)),
    }
    return Response(200, headers=headers, body=b"".join(events(said)) if streams else orjson.dumps(whole(said)))


def _envelope(exchange: Exchange, asked: dict[str, Any]) -> dict[str, Any]:
    model = asked.get("model")
    return {
        "id": f"static-{exchange.id}",
        "created": int(datetime.now(UTC).timestamp()),
        "model": model if isinstance(model, str) else "static",
    }


def _count(asked: dict[str, Any]) -> int:
    """Choices: for each prompt `n`."""
    wanted, prompt = asked.get("n"), asked.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and not all(type(part) is int for part in prompt) else 1
    return min(max(wanted if type(wanted) is int else 1, 1) * prompts, MAX_CHOICES)


def _usage_events(said: Said, chunk: dict[str, Any]) -> Iterator[bytes]:
    options = said[0].get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        yield Event.of_json({**chunk, "choices": [], "usage": _COUNTS}).raw
    yield _DONE


# -- chat


def _chat(said: Said) -> dict[str, Any]:
    asked, text, envelope = said
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"message": message, "logprobs": None, "finish_reason": "stop"}
    choices = [{"index": index, **choice} for index in range(_count(asked))]
    return {**envelope, "object": "chat.completion", "choices": choices, "usage": _COUNTS}


def _chat_events(said: Said) -> Iterator[bytes]:
    asked, text, envelope = said
    chunk = {**envelope, "object": "chat.completion.chunk"}
    steps: tuple[tuple[dict[str, Any], str | None], ...] = (
        ({"role": "assistant", "content": ""}, None),
        ({"content": text}, None),
        ({}, "stop"),
    )
    for delta, finish in steps:
        for index in range(_count(asked)):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
            yield Event.of_json({**chunk, "choices": [choice]}).raw
    yield from _usage_events(said, chunk)


# -- completions


def _completion(said: Said) -> dict[str, Any]:
    asked, text, envelope = said
    choices = [_text_choice(index, text, "stop") for index in range(_count(asked))]
    return {**envelope, "object": "text_completion", "choices": choices, "usage": _COUNTS}


def _completion_events(said: Said) -> Iterator[bytes]:
    asked, text, envelope = said
    chunk = {**envelope, "object": "text_completion"}
    for said_now, finish in ((text, None), ("", "stop")):
        for index in range(_count(asked)):
            yield Event.of_json({**chunk, "choices": [_text_choice(index, said_now, finish)]}).raw
    yield from _usage_events(said, chunk)


def _text_choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


# -- responses


def _response(said: Said, status: str = "completed") -> dict[str, Any]:
    _, text, envelope = said
    ended = status == "completed"
    details = {
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return {
        "id": envelope["id"],
        "object": "response",
        "created_at": envelope["created"],
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": envelope["model"],
        "output": [_item(said, [_part(text)])] if ended else [],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, **details} if ended else None,
    }


def _item(said: Said, content: list[dict[str, Any]]) -> dict[str, Any]:
    status = "completed" if content else "in_progress"
    return {"id": f"msg-{said[2]['id']}", "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _response_events(said: Said) -> Iterator[bytes]:
    text = said[1]
    begun, item, whole = _response(said, "in_progress"), _item(said, []), _part(text)
    at = {"output_index": 0, "item_id": item["id"], "content_index": 0}
    steps: tuple[tuple[str, dict[str, Any]], ...] = (
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": item}),
        ("response.content_part.added", {**at, "part": _part("")}),
        ("response.output_text.delta", {**at, "delta": text, "logprobs": []}),
        ("response.output_text.done", {**at, "text": text, "logprobs": []}),
        ("response.content_part.done", {**at, "part": whole}),
        ("response.output_item.done", {"output_index": 0, "item": _item(said, [whole])}),
        ("response.completed", {"response": _response(said)}),
    )
    for number, (kind, fields) in enumerate(steps):
        yield Event.of_json({"type": kind, "sequence_number": number, **fields}, kind).raw


_SHAPES: dict[str, tuple[Callable[[Said], dict[str, Any]], Callable[[Said], Iterator[bytes]]]] = {
    "/v1/chat/completions": (_chat, _chat_events),
    "/v1/completions": (_completion, _completion_events),
    "/v1/responses": (_response, _response_events),
}
