"""``POST /v1/completions``: one choice or ``n`` for every prompt, in the prompts' order."""

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from proxy.demo import conversation, payload, stream
from proxy.demo.answers import MAX_TOKENS, Answer, Prompt, answers, usage
from proxy.demo.conversation import Turn
from proxy.demo.engine import ENGINE, Engine
from proxy.demo.errors import invalid

MAX_CHOICES = 128
DEFAULT_TOKENS = 16  # OpenAI's


async def create(request: web.Request) -> web.StreamResponse:
    body = await payload.model_request(request)
    prompts = [_prompt(body, text) for text in _texts(body.get("prompt"))]
    count = payload.integer(body, "n", 1)
    if count * len(prompts) > MAX_CHOICES:
        raise invalid(f"At most {MAX_CHOICES} choices are made for one request.", "n")
    choices = [_echoing(body, prompt, answer) for prompt in prompts for answer in answers(prompt, count)]
    engine = request.app[ENGINE]
    await engine.think(body["model"])
    if body.get("stream"):
        return await stream.send(request, _frames(body, prompts, choices, engine))
    await engine.complete(body["model"], choices)
    written = [_choice(index, answer.text, answer.finish_reason) for index, answer in enumerate(choices)]
    return payload.answer(_envelope(prompts, engine) | {"choices": written, "usage": _usage(prompts, choices)})


def _texts(prompt: object) -> list[str]:
    """A string, several, or token ids, which stand for themselves in words."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and prompt:
        if all(isinstance(one, int) for one in prompt):
            return [" ".join(map(str, prompt))]
        if all(isinstance(one, str | list) for one in prompt):
            return [one if isinstance(one, str) else " ".join(map(str, one)) for one in prompt]
    raise invalid("Missing required parameter: 'prompt' must be a string or a non-empty array.", "prompt")


def _prompt(body: dict[str, Any], text: str) -> Prompt:
    return Prompt(
        model=body["model"],
        turns=[Turn("user", text)],
        seed=body.get("seed"),
        limit=min(payload.integer(body, "max_tokens", DEFAULT_TOKENS), MAX_TOKENS),
        stops=payload.strings(body.get("stop"), "stop"),
        endless=body.get("ignore_eos") is True,
    )


def _echoing(body: dict[str, Any], prompt: Prompt, answer: Answer) -> Answer:
    if body.get("echo") is not True:
        return answer
    first, *rest = answer.tokens or [""]
    return Answer([conversation.said(prompt.turns) + first, *rest], answer.ending)


def _envelope(prompts: Sequence[Prompt], engine: Engine) -> dict[str, Any]:
    return {
        "id": f"cmpl-{prompts[0].digest.hex()}",
        "object": "text_completion",
        "created": engine.started,
        "model": prompts[0].model,
        "system_fingerprint": "fp_weir_demo",
    }


def _choice(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def _usage(prompts: Sequence[Prompt], choices: Sequence[Answer]) -> dict[str, Any]:
    return usage(sum(prompt.tokens for prompt in prompts), choices)


async def _frames(
    body: dict[str, Any], prompts: Sequence[Prompt], choices: Sequence[Answer], engine: Engine
) -> stream.Frames:
    head = _envelope(prompts, engine)
    counted = payload.includes_usage(body)
    tail = {"usage": None} if counted else {}
    async for index, token in engine.speak(body["model"], choices):
        finish = choices[index].finish_reason if token is None else None
        yield stream.data({**head, "choices": [_choice(index, token or "", finish)], **tail})
    if counted:
        yield stream.data({**head, "choices": [], "usage": _usage(prompts, choices)})
    yield stream.DONE
