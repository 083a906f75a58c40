"""What each LLM system sends, replayed through a real Weir: bytes, tokens, ends, kinds of faults, and the `openai` SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import openai
import orjson
import pytest
import pytest_asyncio

from proxy.answer import Answer
from proxy.kind import Kind
from proxy.sse import Reader
from tests.contract import systems
from tests.contract.systems import CASE, CHAT, SPARE, Golden, House

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy import testing

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOLDENS = systems.goldens()
STREAMS = [golden for golden in GOLDENS if golden.is_stream]
FAULTS = list(systems.faults().values())
BESIDE = {SPARE: "yes"}
REQUEST = {"model": "m", "messages": []}


class Told(NamedTuple):
    answer: testing.Answer
    line: Any


def ident(case: Any) -> str:
    return case.id if isinstance(case, Golden) else str(case)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    async with systems.house() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(house: House) -> dict[str, Told]:
    """What the app got, and the ledger's line: of each golden answer and fault, alone and (`+ spare`) beside another target."""
    names, answers = [], []
    for golden in GOLDENS:
        names += [golden.id, f"{golden.id} + spare"]
        answers.append(await house.ask(golden.id, golden.request, golden.path))
        answers.append(await house.ask(golden.id, golden.request, golden.path, **BESIDE))
    for case in FAULTS:
        names += [case["name"], f"{case['name']} + spare"]
        answers.append(await house.ask(case["name"], REQUEST))
        answers.append(await house.ask(case["name"], REQUEST, **BESIDE))
    return dict(zip(names, map(Told, answers, await house.lines(answers)), strict=True))


def check_bytes(golden: Golden, answer: testing.Answer) -> None:
    sent = b"".join(golden.pieces) if golden.is_stream else golden.body.encode()
    assert answer.status == 200
    if golden.ends != "cut":
        assert (answer.body, answer.is_whole) == (sent, True)
        return
    assert answer.body.startswith(sent)
    assert not answer.is_whole
    *_, last = Reader().feed(answer.body)
    assert orjson.loads(last.data or b"")["error"]["message"]
    assert last.name == ("error" if golden.path == "/v1/messages" else "")


@pytest.mark.parametrize("golden", GOLDENS, ids=ident)
async def test_the_app_gets_the_same_bytes(told: dict[str, Told], golden: Golden) -> None:
    check_bytes(golden, told[golden.id].answer)


@pytest.mark.parametrize("golden", STREAMS, ids=ident)
async def test_the_app_gets_the_same_bytes_in_whatever_pieces(house: House, golden: Golden) -> None:
    for house.double.size in (1, 37):
        check_bytes(golden, await house.ask(golden.id, golden.request, golden.path))
    house.double.size = 0


@pytest.mark.parametrize("golden", GOLDENS, ids=ident)
async def test_tokens_and_end_are_told_right(told: dict[str, Told], golden: Golden) -> None:
    """Where nobody counted, what was delivered is estimated: an event without text may count as a token there."""
    line = told[golden.id].line
    counted = {kind: number for kind, number in line["tokens"].items() if number}
    if line["estimated"]:
        assert golden.tokens.get("output", 0) <= counted.get("output", 0) <= len(golden.events or golden.body)
        assert "input" not in golden.tokens
    else:
        assert counted == golden.tokens
    assert line["outcome"] == outcome_of(golden)
    assert line["attempts"][-1]["fault"] == golden.kind


def outcome_of(golden: Golden) -> str:
    if golden.kind is None:
        return "ok"
    if golden.is_stream:
        return "stream_interrupted"
    return "upstream_error" if Kind(golden.kind).is_upstreams else "client_error"


@pytest.mark.parametrize("golden", STREAMS, ids=ident)
async def test_the_first_token_is_the_first_text(golden: Golden) -> None:
    answer, reader = Answer(expected=True), Reader()
    started = []
    for piece in golden.pieces:
        for event in reader.feed(piece):
            answer.see(event)
        started.append(answer.started)
    assert (started.index(True) + 1 if True in started else 0) == golden.first


@pytest.mark.parametrize("golden", [golden for golden in GOLDENS if golden.kind and not golden.first], ids=ident)
async def test_before_the_first_token_another_target_serves(told: dict[str, Told], golden: Golden) -> None:
    answer, line = told[f"{golden.id} + spare"]
    tried = [(attempt["upstream"], attempt["fault"]) for attempt in line["attempts"]]
    assert tried == [(golden.system, golden.kind), ("spare", None)]
    assert (line["outcome"], answer.status, answer.is_whole) == ("ok", 200, True)
    assert b"spare" in answer.body


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case["name"])
async def test_an_error_passes_as_it_is_and_is_known_for_what_it_is(
    told: dict[str, Told], case: dict[str, Any]
) -> None:
    """Those that say nothing are told in a sentence."""
    answer, line = told[case["name"]]
    assert answer.status == case.get("status", 200)
    if case["body"]:
        assert answer.body == systems.fault_body(case)
    else:
        assert answer.json()["error"]["message"]
    assert [attempt["fault"] for attempt in line["attempts"]] == [case["kind"]]
    assert not any(line["tokens"].values())


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case["name"])
async def test_another_target_serves_where_that_may_help(told: dict[str, Told], case: dict[str, Any]) -> None:
    """But for a prompt that is too long: no target here is known to take more."""
    answer, _ = told[f"{case['name']} + spare"]
    kind = Kind(case["kind"])
    moves = kind.may_move and kind is not Kind.CONTEXT_LENGTH
    assert (b"spare" in answer.body) == moves
    assert moves or not case["body"] or answer.body == systems.fault_body(case)


@pytest.mark.parametrize("golden", [golden for golden in STREAMS if golden.usage], ids=ident)
async def test_a_usage_that_only_weir_asked_for_is_not_seen(house: House, golden: Golden) -> None:
    request = {key: value for key, value in golden.request.items() if key != "stream_options"}
    answer = await house.ask(golden.id, request, golden.path)
    assert house.upstream.last.json()["stream_options"] == {"include_usage": True}
    assert answer.body == b"".join([event for event in golden.pieces if event != golden.usage])


async def test_who_refuses_to_be_asked_gets_the_request_as_it_was(house: House) -> None:
    (golden, *_) = (golden for golden in STREAMS if golden.system == "mistral")
    house.upstream.requests.clear()
    for _ in range(2):
        answer = await house.ask(golden.id, golden.request)
        assert answer.body == b"".join(golden.pieces)
    assert all(b"stream_options" not in request.body for request in house.upstream.requests[-2:])
    assert len(house.upstream.requests) <= 3


@pytest.mark.parametrize("name", systems.systems())
async def test_a_chat_arrives_where_the_system_expects_it(house: House, name: str) -> None:
    """With its own credential, and without the app's."""
    system = systems.systems()[name]
    golden = system.answers[0]
    await house.ask(golden.id, golden.request, golden.path, authorization="Bearer app", **{"x-api-key": "app"})
    expected = dict(system.gets)
    received = house.upstream.last
    assert received.target == expected.pop("target")
    credentials = {
        key: value for key, value in received.headers.items() if key in {"authorization", "api-key", "x-api-key"}
    }
    assert credentials == expected


# -- the official SDK


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(house: House) -> AsyncIterator[list[openai.AsyncOpenAI]]:
    """Of the upstream itself, and of Weir."""
    made = [
        openai.AsyncOpenAI(base_url=f"{root}/v1", api_key="app", max_retries=0)
        for root in (house.upstream.url, house.weir.url)
    ]
    yield made
    for client in made:
        await client.close()


async def seen(client: openai.AsyncOpenAI, golden: Golden) -> dict[str, Any]:
    """All that the app gets to see: the text, why it ended, the usage, and how it failed."""
    found: dict[str, Any] = {"text": "", "ends": [], "usage": None, "error": None}
    try:
        answer = await client.chat.completions.create(**golden.request, extra_headers={CASE: golden.id})
        chunks = [chunk async for chunk in answer] if golden.is_stream else [answer]
    except openai.APIError as error:
        return {**found, "error": error.message}
    for chunk in chunks:
        for choice in chunk.choices:
            said = choice.delta if golden.is_stream else choice.message
            found["text"] += (said and said.content) or ""
            found["ends"] += [choice.finish_reason] if choice.finish_reason else []
        found["usage"] = chunk.usage or found["usage"]
    return found


@pytest.mark.parametrize("golden", [golden for golden in GOLDENS if golden.path == CHAT and golden.sdk], ids=ident)
async def test_the_sdk_sees_what_it_sees_without_weir(clients: list[openai.AsyncOpenAI], golden: Golden) -> None:
    """But for a stream that breaks off, which is an error only through Weir."""
    direct, through = [await seen(client, golden) for client in clients]
    if golden.ends == "cut":
        assert through["error"]
        return
    assert through == direct
    if golden.text is not None and golden.ends == "whole":
        assert through["text"] == golden.text
