"""From a request, whichever endpoint it came through, to the whole answer: its tokens and why it ends.

The answer is known before the first token goes out; playing it at a model's pace is the engine's part.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import orjson

from proxy.demo import conversation, prose, schema
from proxy.demo.conversation import Turn
from proxy.demo.tools import Tool

MAX_TOKENS = 4096
JSON_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompt:
    model: str
    turns: Sequence[Turn]
    seed: object = None
    limit: int = MAX_TOKENS  # tokens
    stops: tuple[str, ...] = ()
    tool: Tool | None = None
    schema: dict[str, Any] | None = None
    endless: bool = False  # up to the limit

    @functools.cached_property
    def digest(self) -> bytes:
        turns = [(turn.role, turn.text) for turn in self.turns]
        return hashlib.blake2b(orjson.dumps([self.model, turns, self.seed], default=str), digest_size=16).digest()

    @functools.cached_property
    def tokens(self) -> int:
        return conversation.tokens(sum(len(turn.text) for turn in self.turns))

    @property
    def tool_result(self) -> str | None:
        return self.turns[-1].text if self.turns[-1].role == "tool" else None


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    tokens: list[str]
    ending: Literal["end", "stop", "limit"]  # it said all, it met a stop sequence, it ran into max_tokens
    tool: str | None = None  # then the tokens are its arguments

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def finish_reason(self) -> str:
        if self.ending == "limit":
            return "length"
        return "tool_calls" if self.tool else "stop"


def answers(prompt: Prompt, count: int) -> list[Answer]:
    return [answer(prompt, index) for index in range(count)]


def answer(prompt: Prompt, index: int = 0) -> Answer:
    digest = hashlib.blake2b(prompt.digest + index.to_bytes(2, "big"), digest_size=16).digest()
    if prompt.tool:
        arguments = schema.written(prompt.tool.parameters, prose.subject(conversation.said(prompt.turns)))
        return _limited(prompt, prose.tokens(arguments), prompt.tool.name)
    text = _text(prompt, digest)
    stop = min((at for stop in prompt.stops if stop and (at := text.find(stop)) >= 0), default=None)
    if stop is not None:
        limited = _limited(prompt, prose.tokens(text[:stop]))
        return limited if limited.ending == "limit" else dataclasses.replace(limited, ending="stop")
    if prompt.endless:
        return Answer(list(itertools.islice(itertools.cycle(prose.tokens(text + " ")), prompt.limit)), "limit")
    return _limited(prompt, prose.tokens(text))


def _text(prompt: Prompt, digest: bytes) -> str:
    said = conversation.said(prompt.turns)
    if prompt.schema is None:
        return prose.reply(said, prompt.tool_result, digest)
    text = f"You said “{prose.echo(said)}” to Weir's demo upstream ☕ Voilà, du JSON généré."
    return schema.written(prompt.schema, text)


def _limited(prompt: Prompt, tokens: list[str], tool: str | None = None) -> Answer:
    whole = len(tokens) <= prompt.limit
    return Answer(tokens[: prompt.limit], "end" if whole else "limit", tool)


def output_tokens(answers: Sequence[Answer]) -> int:
    return sum(len(answer.tokens) for answer in answers)


def usage(prompt_tokens: int, answers: Sequence[Answer]) -> dict[str, Any]:
    """As chat and legacy completions write it."""
    completion_tokens = output_tokens(answers)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
