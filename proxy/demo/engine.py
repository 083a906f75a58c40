"""Plays answers at a model's pace, counts what was played, and fails as the failing models do."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator, Sequence
from http import HTTPStatus

from aiohttp import web

from proxy.demo.answers import Answer, output_tokens
from proxy.demo.errors import ApiError, ConnectionCutError

SLOW_FIRST_TOKEN = 2.0
FAILS_AFTER = 5  # tokens


@dataclasses.dataclass(slots=True)
class Stats:
    requests: int = 0
    active: int = 0
    cancelled: int = 0
    tokens: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Engine:
    pace: float  # seconds per token
    first_token: float  # seconds before it
    started: int  # seconds of the epoch; `created` in every answer
    stats: Stats = dataclasses.field(default_factory=Stats)

    async def think(self, model: str) -> None:
        await asyncio.sleep(SLOW_FIRST_TOKEN if model == "demo-slow" else self.first_token)

    async def complete(self, model: str, answers: Sequence[Answer]) -> None:
        """The time that the answers take after the first token, in one piece."""
        await asyncio.sleep(self.pace * (max(len(answer.tokens) for answer in answers) - 1))
        self.stats.tokens += output_tokens(answers)
        _fail(model)

    async def speak(self, model: str, answers: Sequence[Answer]) -> AsyncIterator[tuple[int, str | None]]:
        """``(choice, token)``, one token of every choice per beat; ``(choice, None)`` where one ends."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        left = min(FAILS_AFTER, output_tokens(answers))
        for beat in range(max(len(answer.tokens) for answer in answers) or 1):
            if beat:
                due += self.pace
                await asyncio.sleep(max(0.0, due - loop.time()))
            for choice, token in _beat(answers, beat):
                yield choice, token
                if token is not None:
                    self.stats.tokens += 1
                    left -= 1
                if left == 0:
                    _fail(model)


def _beat(answers: Sequence[Answer], beat: int) -> Iterator[tuple[int, str | None]]:
    for choice, answer in enumerate(answers):
        if beat < len(answer.tokens):
            yield choice, answer.tokens[beat]
        if beat == max(0, len(answer.tokens) - 1):
            yield choice, None


def _fail(model: str) -> None:
    if model == "demo-cut":
        raise ConnectionCutError
    if model == "demo-error":
        message = "The server had an error while processing your request."
        raise ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="server_error")


ENGINE = web.AppKey("engine", Engine)
