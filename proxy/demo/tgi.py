"""The native routes of Hugging Face's text-generation-inference, as its 3.x servers answer them.

Unlike the ``/v1`` routes, streams send their headers before the first token, and end without ``[DONE]``.
"""

import functools
import zlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from proxy.demo import payload, prose, stream
from proxy.demo.answers import MAX_TOKENS, Answer, Prompt, answer
from proxy.demo.conversation import Turn
from proxy.demo.engine import ENGINE, Engine
from proxy.demo.errors import ApiError, invalid

MODEL = "weir/demo"
DEFAULT_TOKENS = 100
MAX_INPUT_CHARACTERS = 512 * 1024
END = "</s>"
REASONS = {"end": "eos_token", "stop": "stop_sequence", "limit": "length"}
STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
    "x-compute-type": "cpu+demo",
}


Native = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


def _native(handler: Native) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Gives ``handler`` the body, and its errors the shape of TGI's: text where JSON cannot be read, else flat JSON."""

    @functools.wraps(handler)
    async def respond(request: web.Request) -> web.StreamResponse:
        try:
            body = await payload.read(request)
        except ApiError as error:
            return web.Response(text=f"Failed to parse the request body as JSON: {error}", status=error.status)
        try:
            return await handler(request, body)
        except ApiError as error:
            flat = {"error": f"Input validation error: {error}", "error_type": "validation"}
            return payload.answer(flat, HTTPStatus.UNPROCESSABLE_ENTITY)

    return respond


class Generation:
    """One request with its answer, which the end-of-sequence token is a part of."""

    def __init__(self, body: dict[str, Any], engine: Engine) -> None:
        self.engine = engine
        self.inputs = _inputs(body)
        self.parameters: dict[str, Any] = body.get("parameters") or {}
        self.answer = answer(self._prompt())
        self.seed = self.parameters.get("seed")
        self.input_length = len(prose.tokens(self.inputs))
        if self.answer.ending == "end":
            self.played = Answer([*self.answer.tokens, END], "end")
        else:
            self.played = self.answer

    def _prompt(self) -> Prompt:
        return Prompt(
            model=MODEL,
            turns=[Turn("user", self.inputs)],
            seed=self.parameters.get("seed"),
            limit=min(payload.integer(self.parameters, "max_new_tokens", DEFAULT_TOKENS), MAX_TOKENS),
            stops=payload.strings(self.parameters.get("stop"), "stop"),
            endless=self.parameters.get("ignore_eos_token") is True,
        )

    @property
    def text(self) -> str:
        return self.inputs * (self.parameters.get("return_full_text") is True) + self.answer.text

    def ending(self) -> dict[str, Any]:
        reason = REASONS[self.played.ending]
        return {"finish_reason": reason, "generated_tokens": len(self.played.tokens), "seed": self.seed}

    def details(self) -> dict[str, Any]:
        asked = self.parameters.get("decoder_input_details") is True
        prefill = [_token(text) for text in prose.tokens(self.inputs)] if asked else []
        written = [{**_token(text), "special": text == END} for text in self.played.tokens]
        return {**self.ending(), "prefill": prefill, "tokens": written}


def _inputs(body: dict[str, Any]) -> str:
    inputs = body.get("inputs")
    if not isinstance(inputs, str) or not inputs:
        raise invalid("`inputs` cannot be empty")
    if len(inputs) > MAX_INPUT_CHARACTERS:
        raise invalid(f"`inputs` must have less than {MAX_INPUT_CHARACTERS // 4} tokens")
    if not isinstance(body.get("parameters"), dict | None):
        raise invalid("`parameters` must be an object")
    return inputs


def _token(text: str) -> dict[str, Any]:
    mark = zlib.crc32(text.encode())
    return {"id": mark % 32000, "text": text, "logprob": -(mark % 300) / 100}


@_native
async def compatible(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """``POST /``: streamed or whole as the body says; the whole answer is an array of one."""
    generation = Generation(body, request.app[ENGINE])
    if body.get("stream") is True:
        return await stream.send(request, _frames(generation), STREAM_HEADERS)
    return _answer(generation, [await _written(generation)])


@_native
async def generate(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    generation = Generation(body, request.app[ENGINE])
    return _answer(generation, await _written(generation))


@_native
async def generate_stream(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    return await stream.send(request, _frames(Generation(body, request.app[ENGINE])), STREAM_HEADERS)


async def _written(generation: Generation) -> dict[str, Any]:
    await generation.engine.think(MODEL)
    await generation.engine.complete(MODEL, [generation.played])
    written: dict[str, Any] = {"generated_text": generation.text}
    if generation.parameters.get("details") is True or generation.parameters.get("decoder_input_details") is True:
        written["details"] = generation.details()
    return written


def _answer(generation: Generation, written: object) -> web.Response:
    response = payload.answer(written)
    response.headers["x-compute-type"] = STREAM_HEADERS["x-compute-type"]
    response.headers["x-compute-characters"] = str(len(generation.inputs))
    response.headers["x-prompt-tokens"] = str(generation.input_length)
    response.headers["x-generated-tokens"] = str(len(generation.played.tokens))
    return response


async def _frames(generation: Generation) -> stream.Frames:
    await generation.engine.think(MODEL)
    last = len(generation.played.tokens)
    number = 0
    async for _, token in generation.engine.speak(MODEL, [generation.played]):
        if token is not None:
            number += 1
            yield stream.data(_event(generation, number, token, ended=number == last))


def _event(generation: Generation, number: int, token: str, *, ended: bool) -> dict[str, Any]:
    asked = ended and generation.parameters.get("details") is True
    return {
        "index": number,
        "token": {**_token(token), "special": token == END},
        "generated_text": generation.text if ended else None,
        "details": {**generation.ending(), "input_length": generation.input_length} if asked else None,
    }


@_native
async def tokenize(_: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    found: list[dict[str, Any]] = []
    at = 0
    for text in prose.tokens(_inputs(body)):
        found.append({"id": _token(text)["id"], "text": text, "start": at, "stop": at + len(text)})
        at += len(text)
    return payload.answer(found)


async def health(_: web.Request) -> web.Response:
    return web.Response()


async def info(_: web.Request) -> web.Response:
    limits = {"max_concurrent_requests": 128, "max_best_of": 1, "max_stop_sequences": 4, "max_client_batch_size": 4}
    tokens = {"max_input_tokens": MAX_INPUT_CHARACTERS // 4, "max_total_tokens": MAX_INPUT_CHARACTERS // 4 + MAX_TOKENS}
    names = {"model_id": MODEL, "model_sha": None, "model_pipeline_tag": "text-generation"}
    build = {"router": "weir-demo", "version": "3.3.7", "sha": None, "docker_label": None, "validation_workers": 1}
    return payload.answer({**names, **limits, **tokens, **build})
