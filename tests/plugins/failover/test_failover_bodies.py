"""What is sent again is what was sent: long bodies, forms, chunks; and what is too precious to be kept streams through."""

import orjson
import pytest

from proxy import testing
from tests import wire
from tests.contract import sse
from tests.plugins.failover.house import ASK, DOWN, SERVES, house, way

FORM = (
    b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%b\r\n--x--\r\n'
)
TRANSCRIPT = testing.answer(b'{"text": "hello"}')


async def test_a_body_above_64_kib_is_sent_again():
    body = orjson.dumps({**ASK, "user": "x" * 300_000})
    async with house(DOWN, SERVES) as (weir, a, b):
        assert way(await testing.ask(weir, body)) == (200, "b", "3")
    assert [received.body for received in (*a.requests, *b.requests)] == [body] * 3


async def test_each_target_gets_its_own_model_in_it():
    models = [{"model": "large"}, {"model": "small"}]
    async with house(DOWN, SERVES, targets=models) as (weir, a, b):
        assert way(await testing.ask(weir, {**ASK, "user": "x" * 100_000})) == (200, "b", "3")
    assert [received.json()["model"] for received in (*a.requests, *b.requests)] == ["large", "large", "small"]


async def test_a_form_is_sent_again():
    form = FORM % (bytes(range(256)) * 1000)
    fields = {"content-type": "multipart/form-data; boundary=x"}
    async with house(DOWN, TRANSCRIPT, targets=[{}, {"model": "whisper-2"}]) as (weir, a, b):
        answer = await testing.ask(weir, form, path="/v1/audio/transcriptions", headers=fields)
    assert (way(answer), answer.json()) == ((200, "b", "3"), {"text": "hello"})
    assert a.last.body == form
    assert b.last.body == form.replace(b"whisper-1", b"whisper-2")


async def test_embeddings_are_asked_of_the_next_target():
    vectors = testing.answer(b'{"object": "list", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 1}}')
    async with house(DOWN, vectors) as (weir, *_):
        answer = await testing.ask(weir, {"model": "m", "input": "hi"}, path="/v1/embeddings")
    assert way(answer) == (200, "b", "3")
    assert answer.json()["data"] == [{"embedding": [0.5]}]


async def test_a_body_that_comes_in_chunks_is_sent_again():
    text = orjson.dumps(ASK)
    pieces = b"".join(sse.chunk(text[place : place + 10]) for place in range(0, len(text), 10)) + sse.LAST
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    async with house(DOWN, SERVES) as (weir, a, b):
        answer = await wire.fetch(weir.url, head + b"transfer-encoding: chunked\r\n\r\n" + pieces)
    assert (answer.status, answer.head.get("x-weir-upstream")) == (200, "b")
    assert [received.body for received in (*a.requests, *b.requests)] == [text] * 3


async def test_an_app_that_waits_for_a_100_gets_it_and_its_answer():
    text = orjson.dumps(ASK)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    async with house(DOWN, SERVES) as (weir, *_), wire.connected(weir.url) as app:
        await app.send(head + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(text))
        assert (await app.head()).status == 100
        await app.send(text)
        answer = await app.answer()
    assert (answer.status, answer.head.get("x-weir-upstream")) == (200, "b")


@pytest.mark.parametrize("path", [b"/v1/files", b"/v1/uploads/u/parts"])
async def test_files_stream_through_and_are_sent_once(path):
    async with house(DOWN, SERVES) as (weir, a, b), wire.connected(weir.url) as app:
        await app.send(b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n" % path, bytes(1000))
        await wire.until(lambda: a.wires)
        await app.send(bytes(99_000))
        assert (await app.answer()).status == 500
    assert (len(a.requests), len(a.last.body), b.requests) == (1, 100_000, [])


async def test_without_further_tries_uploads_stream_through():
    async with house(SERVES, failover={"max_attempts": 1}) as (weir, a), wire.connected(weir.url) as app:
        await app.send(b"POST /v1/x HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n", bytes(1000))
        await wire.until(lambda: a.wires)
        await app.send(bytes(99_000))
        assert (await app.answer()).status == 200
