"""With `continue_midstream` a text that breaks off is gone on with; without it, and for all else, it is an error."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import openai
import orjson
import pytest

from proxy import testing
from tests.contract import sse

if TYPE_CHECKING:
    from collections.abc import Mapping

ASK = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "What is a weir?"}]}
FIRST = testing.chat_events(["A", "weir", "stands"], ends=False)
SECOND = testing.chat_events([" in", "a", "stream,", "regulates", "it", "and", "measures", "it."])
WHOLE = "A weir stands in a stream, regulates it and measures it."
CUT = testing.stream(*FIRST, ends=False)


@contextlib.asynccontextmanager
async def weir(*scripts: testing.Script, upstream: Mapping[str, object] | None = None, **settings: object):
    async with contextlib.AsyncExitStack() as stack:
        ups = [await stack.enter_async_context(testing.upstream(script)) for script in scripts]
        names = [f"u{place}" for place in range(len(ups))]
        blocks = {name: {"base_url": f"{up.url}/v1", **(upstream or {})} for name, up in zip(names, ups, strict=True)}
        config = {
            "server": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "upstreams": blocks,
            "plugins": [{"failover": settings}],
            "routes": [{"name": "r", "targets": names}],
        }
        yield await stack.enter_async_context(testing.configured(orjson.dumps(config).decode())), ups


async def test_the_official_client_gets_a_whole_answer():
    async with (
        weir(CUT, testing.stream(*SECOND), continue_midstream=True) as (running, (_, other)),
        openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(**ASK)
        words = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(words) == WHOLE
    assert other.last.json()["messages"][-1] == {"role": "assistant", "content": "A weir stands"}


def dies(ending):
    """Says three words, and then: FIN, RST, or nothing ever again."""

    async def script(received: testing.Received, wire: testing.Wire) -> None:
        await testing.stream(*FIRST, pause=0.02)(received, Unended(wire))
        if ending != "stall":
            (wire.close if ending == "cut" else wire.reset)()

    return script


class Unended:
    """A wire on which the last chunk is not sent."""

    def __init__(self, wire: testing.Wire) -> None:
        self._wire = wire

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        await self._wire.send(*(piece for piece in pieces if piece != sse.LAST), pause=pause)


@pytest.mark.parametrize("ending", ["cut", "reset", "stall"])
@pytest.mark.parametrize(
    "settings", [{}, {"hold": "full"}, {"continue_midstream": True}], ids=["none", "hold", "go on"]
)
async def test_however_a_stream_dies_the_official_client_raises_or_has_a_whole_answer(ending, settings):
    rest = testing.chat_events(WHOLE.split()) if "hold" in settings else SECOND
    limits = {"timeouts": {"idle": "300ms"}}
    text = ""
    async with (
        weir(dies(ending), testing.stream(*rest), upstream=limits, **settings) as (running, (_, other)),
        openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0) as client,
    ):
        with contextlib.nullcontext() if settings else pytest.raises(openai.APIError):
            async for chunk in await client.chat.completions.create(**ASK):
                text += chunk.choices[0].delta.content or ""
    assert (text, len(other.requests)) == ((WHOLE, 1) if settings else ("A weir stands", 0))


async def test_the_only_upstream_goes_on_itself():
    async def cut_once(received: testing.Received, wire: testing.Wire) -> None:
        await (CUT if len(up.requests) == 1 else testing.stream(*SECOND))(received, wire)

    async with weir(cut_once, continue_midstream=True) as (running, (up,)):
        answer = await testing.ask(running, ASK)
    assert (answer.is_whole, len(up.requests)) == (True, 2)


async def test_by_default_nothing_is_gone_on_with():
    async with weir(CUT, testing.stream(*SECOND)) as (running, (_, other)):
        answer = await testing.ask(running, ASK)
    assert (answer.is_whole, answer.body.count(b'"error"'), other.requests) == (False, 1, [])


async def test_the_tries_are_bounded_midstream_too():
    async with weir(CUT, CUT, CUT, max_attempts=2, continue_midstream=True) as (running, ups):
        answer = await testing.ask(running, ASK)
    assert (answer.is_whole, [len(up.requests) for up in ups]) == (False, [1, 1, 0])


@pytest.mark.parametrize("more", [{"tools": [{"type": "function"}]}, {"response_format": {"type": "json_object"}}])
async def test_what_is_no_plain_text_breaks_off(more):
    async with weir(CUT, testing.stream(*SECOND), continue_midstream=True) as (running, (_, other)):
        answer = await testing.ask(running, {**ASK, **more})
    assert (answer.is_whole, other.requests) == (False, [])
