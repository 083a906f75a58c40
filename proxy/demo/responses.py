"""``POST /v1/responses``: the response object, and its event stream, which has no ``[DONE]``."""

import itertools
from typing import Any

from aiohttp import web

from proxy.demo import conversation, payload, stream, tools
from proxy.demo.answers import JSON_OBJECT, MAX_TOKENS, Answer, Prompt, answer
from proxy.demo.conversation import Turn
from proxy.demo.engine import ENGINE, Engine
from proxy.demo.errors import ApiError, invalid

# What an answer says of settings that the request left out.
DEFAULTS: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


async def create(request: web.Request) -> web.StreamResponse:
    body = await payload.model_request(request)
    made = Made(body, request.app[ENGINE])
    await made.engine.think(made.prompt.model)
    if body.get("stream"):
        return await stream.send(request, _frames(made))
    await made.engine.complete(made.prompt.model, [made.answer])
    return payload.answer(made.response(made.status))


class Made:
    """A response with all that is said of it while it comes into being."""

    def __init__(self, body: dict[str, Any], engine: Engine) -> None:
        self.engine = engine
        self.prompt = _prompt(body)
        self.answer = answer(self.prompt)
        self.status = "incomplete" if self.answer.ending == "limit" else "completed"
        self._settings = {name: default if body.get(name) is None else body[name] for name, default in DEFAULTS.items()}

    @property
    def item_id(self) -> str:
        return f"{'fc' if self.answer.tool else 'msg'}_{self.prompt.digest.hex()}"

    def item(self, status: str) -> dict[str, Any]:
        """The one output item, empty as long as it is in progress."""
        text = "" if status == "in_progress" else self.answer.text
        if self.answer.tool:
            call = {"call_id": f"call_{self.prompt.digest.hex()}", "name": self.answer.tool, "arguments": text}
            return {"id": self.item_id, "type": "function_call", "status": status, **call}
        content = [part(text)] if text else []
        return {"id": self.item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def response(self, status: str) -> dict[str, Any]:
        ended = status != "in_progress"
        return {
            "id": f"resp_{self.prompt.digest.hex()}",
            "object": "response",
            "created_at": self.engine.started,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": self.prompt.model,
            "output": [self.item(status)] if ended else [],
            "usage": _usage(self.prompt, self.answer) if ended else None,
            **self._settings,
        }


def part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _prompt(body: dict[str, Any]) -> Prompt:
    turns = conversation.from_input(body.get("input"))
    if isinstance(body.get("instructions"), str):
        turns = (Turn("system", body["instructions"]), *turns)
    tool = tools.choose(tools.parse(body.get("tools")), body.get("tool_choice"), conversation.said(turns))
    return Prompt(
        model=body["model"],
        turns=turns,
        limit=min(payload.integer(body, "max_output_tokens", MAX_TOKENS), MAX_TOKENS),
        tool=None if turns[-1].role == "tool" else tool,
        schema=_schema(body.get("text")),
        endless=body.get("ignore_eos") is True,
    )


def _schema(text: Any) -> dict[str, Any] | None:
    match text.get("format") if isinstance(text, dict) else None:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return JSON_OBJECT
        case {"type": "json_schema", "schema": dict(schema)}:
            return schema
    raise invalid("Invalid value for 'text.format': it is none that this server knows.", "text.format")


def _usage(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": prompt.tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": len(answer.tokens),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt.tokens + len(answer.tokens),
    }


class Events:
    """Writes one response's events, numbered."""

    def __init__(self) -> None:
        self._number = itertools.count()

    def frame(self, kind: str, **fields: Any) -> bytes:
        return b"event: %b\n" % kind.encode() + stream.data(
            {"type": kind, "sequence_number": next(self._number), **fields}
        )


async def _frames(made: Made) -> stream.Frames:
    events = Events()
    begun = made.response("in_progress")
    yield events.frame("response.created", response=begun)
    yield events.frame("response.in_progress", response=begun)
    yield events.frame("response.output_item.added", output_index=0, item=made.item("in_progress"))
    try:
        async for frame in _call(made, events) if made.answer.tool else _message(made, events):
            yield frame
    except ApiError as error:
        yield events.frame("error", code=error.code, message=error.message, param=error.param)
        return
    yield events.frame("response.output_item.done", output_index=0, item=made.item(made.status))
    yield events.frame(f"response.{made.status}", response=made.response(made.status))


async def _message(made: Made, events: Events) -> stream.Frames:
    at = {"item_id": made.item_id, "output_index": 0, "content_index": 0}
    text = made.answer.text
    yield events.frame("response.content_part.added", **at, part=part(""))
    async for _, token in made.engine.speak(made.prompt.model, [made.answer]):
        if token is not None:
            yield events.frame("response.output_text.delta", **at, delta=token, logprobs=[])
    yield events.frame("response.output_text.done", **at, text=text, logprobs=[])
    yield events.frame("response.content_part.done", **at, part=part(text))


async def _call(made: Made, events: Events) -> stream.Frames:
    at = {"item_id": made.item_id, "output_index": 0}
    async for _, token in made.engine.speak(made.prompt.model, [made.answer]):
        if token is not None:
            yield events.frame("response.function_call_arguments.delta", **at, delta=token)
    done = {"name": made.answer.tool, "arguments": made.answer.text}
    yield events.frame("response.function_call_arguments.done", **at, **done)
