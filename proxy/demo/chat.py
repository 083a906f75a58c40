"""``POST /v1/chat/completions``."""

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from proxy.demo import conversation, payload, stream, tools
from proxy.demo.answers import JSON_OBJECT, MAX_TOKENS, Answer, Prompt, answers, usage
from proxy.demo.engine import ENGINE, Engine
from proxy.demo.errors import invalid

MAX_CHOICES = 128
MAX_LOGPROBS = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """A request, checked, with its whole answer."""

    prompt: Prompt
    choices: list[Answer]
    created: int
    counts: bool  # a usage event ends the stream
    logprobs: int | None  # alternatives per token; None: no logprobs at all


async def create(request: web.Request) -> web.StreamResponse:
    body = await payload.model_request(request)
    engine = request.app[ENGINE]
    made = _made(body, engine.started)
    await engine.think(made.prompt.model)
    if body.get("stream"):
        return await stream.send(request, _frames(made, engine))
    await engine.complete(made.prompt.model, made.choices)
    return payload.answer(_completion(made))


def _made(body: dict[str, Any], created: int) -> Made:
    prompt = _prompt(body)
    choices = answers(prompt, payload.integer(body, "n", 1, MAX_CHOICES))
    top = payload.integer(body, "top_logprobs", 0, MAX_LOGPROBS, least=0)
    return Made(prompt, choices, created, payload.includes_usage(body), top if body.get("logprobs") is True else None)


def _prompt(body: dict[str, Any]) -> Prompt:
    turns = conversation.from_messages(body.get("messages"))
    limit = payload.integer(body, "max_completion_tokens", payload.integer(body, "max_tokens", MAX_TOKENS))
    tool = tools.choose(tools.parse(body.get("tools")), body.get("tool_choice"), conversation.said(turns))
    return Prompt(
        model=body["model"],
        turns=turns,
        seed=body.get("seed"),
        limit=min(limit, MAX_TOKENS),
        stops=payload.strings(body.get("stop"), "stop"),
        tool=None if turns[-1].role == "tool" else tool,
        schema=_schema(body.get("response_format")),
        endless=body.get("ignore_eos") is True,
    )


def _schema(form: Any) -> dict[str, Any] | None:
    match form:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return JSON_OBJECT
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
    raise invalid("Invalid value for 'response_format': it is none that this server knows.", "response_format")


def _envelope(made: Made, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{made.prompt.digest.hex()}",
        "object": kind,
        "created": made.created,
        "model": made.prompt.model,
        "service_tier": "default",
        "system_fingerprint": "fp_weir_demo",
    }


def _completion(made: Made) -> dict[str, Any]:
    choices = [_choice(made, answer, index) for index, answer in enumerate(made.choices)]
    counts = usage(made.prompt.tokens, made.choices)
    return _envelope(made, "chat.completion") | {"choices": choices, "usage": counts}


def _choice(made: Made, answer: Answer, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if answer.tool is None:
        message["content"] = answer.text
    else:
        message["tool_calls"] = [_call(made, answer.tool, index, answer.text)]
    logprobs = _logprobs(made, answer.tokens) if answer.tool is None else None
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": answer.finish_reason}


def _call(made: Made, name: str, index: int, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{made.prompt.digest.hex()[:20]}{index:04}", "type": "function", "function": function}


async def _frames(made: Made, engine: Engine) -> stream.Frames:
    head = _envelope(made, "chat.completion.chunk")
    tail = {"usage": None} if made.counts else {}

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return stream.data({**head, "choices": [choice], **tail})

    for index, answer in enumerate(made.choices):
        yield chunk(index, _opening(made, answer, index))
    async for index, token in engine.speak(made.prompt.model, made.choices):
        answer = made.choices[index]
        if token is None:
            yield chunk(index, {}, answer.finish_reason)
        elif answer.tool:
            yield chunk(index, {"tool_calls": [{"index": 0, "function": {"arguments": token}}]})
        else:
            yield chunk(index, {"content": token}, None, _logprobs(made, [token]))
    if made.counts:
        yield stream.data({**head, "choices": [], "usage": usage(made.prompt.tokens, made.choices)})
    yield stream.DONE


def _opening(made: Made, answer: Answer, index: int) -> dict[str, Any]:
    if answer.tool is None:
        return {"role": "assistant", "content": "", "refusal": None}
    call = {"index": 0, **_call(made, answer.tool, index, "")}
    return {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}


def _logprobs(made: Made, tokens: Sequence[str]) -> dict[str, Any] | None:
    if made.logprobs is None:
        return None
    return {"content": [_scored(token, made.logprobs) for token in tokens], "refusal": None}


def _scored(token: str, top: int) -> dict[str, Any]:
    logprob = -(zlib.crc32(token.encode()) % 300) / 1000
    others = [_score(f"{token}{'~' * rank}", logprob - rank) for rank in range(top)]
    return {**_score(token, logprob), "top_logprobs": others}


def _score(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
