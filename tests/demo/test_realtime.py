import aiohttp
import orjson
import pytest
import websockets
from openai import AsyncOpenAI

from tests.demo import wire


async def said(socket, text: str):
    """The events of one turn."""
    content = [{"type": "input_text", "text": text}]
    await socket.conversation.item.create(item={"type": "message", "role": "user", "content": content})
    await socket.response.create()
    events = [await socket.recv()]
    while events[-1].type not in {"response.done", "error"}:
        events.append(await socket.recv())
    return events


KINDS = [
    "conversation.item.added",
    "conversation.item.done",
    "response.created",
    "response.output_text.delta",
    "response.output_text.done",
    "response.done",
]


async def test_a_session_tells_every_step_in_order(client: AsyncOpenAI):
    async with client.realtime.connect(model="m") as socket:
        created = await socket.recv()
        events = await said(socket, "Hello there")
    assert (created.type, created.session.model) == ("session.created", "m")
    assert list(dict.fromkeys(event.type for event in events)) == KINDS
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    response = events[-1].response
    assert "".join(deltas) == events[-2].text == response.output[0].content[0].text
    assert "“Hello there”" in events[-2].text
    assert (response.status, response.usage.output_tokens) == ("completed", len(deltas))
    assert response.usage.input_tokens == 7  # "You are a demo." and "Hello there": 26 characters


async def test_it_remembers_what_was_said(client: AsyncOpenAI):
    async with client.realtime.connect(model="m") as socket:
        await socket.recv()
        first, second = await said(socket, "Hello there"), await said(socket, "Hello there")
        await socket.session.update(session={"type": "realtime", "instructions": "Be brief. " * 40})
        assert (await socket.recv()).session.instructions == "Be brief. " * 40
        third = await said(socket, "Hello there")
    told = [events[-1].response.usage.input_tokens for events in (first, second, third)]
    assert told == sorted(set(told))


async def test_a_failing_model_tells_so_in_an_event(client: AsyncOpenAI):
    async with client.realtime.connect(model="demo-error") as socket:
        await socket.recv()
        events = await said(socket, "Hello")
        assert (events[-1].type, events[-1].error.code) == ("error", "server_error")
        await socket.session.update(session={"type": "realtime"})
        assert (await socket.recv()).type == "session.updated"


async def test_a_model_that_is_cut_is_cut(client: AsyncOpenAI):
    async with client.realtime.connect(model="demo-cut") as socket:
        await socket.recv()
        with pytest.raises(websockets.ConnectionClosedError):
            await said(socket, "Hello")


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"type": "response.cancel"}', '{"type": "session.update"}'])
async def test_what_is_wrong_is_told_and_the_session_goes_on(demo: str, text: str):
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{demo}/v1/realtime?model=m") as socket:
        await socket.receive()
        for _ in range(2):
            await socket.send_str(text)
            event = orjson.loads((await socket.receive()).data)
            assert (event["type"], event["error"]["type"]) == ("error", "invalid_request_error")


@pytest.mark.parametrize(("query", "status"), [("", 400), ("?model=unknown-model", 404), ("?model=demo-429", 429)])
async def test_what_is_refused_is_refused_before_the_101(demo: str, query: str, status: int):
    answer, body = await wire.ask(demo, "GET", f"/v1/realtime{query}")
    assert (answer, set(body["error"])) == (status, {"message", "type", "param", "code"})
