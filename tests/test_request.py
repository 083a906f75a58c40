"""A request's body is read once, parsed once, and bounded."""

import asyncio
import gzip

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from proxy import request as request_module
from proxy import testing
from proxy.errors import ClientFault, Outcome, UploadStalled
from proxy.request import Request, endpoint_of


class Upload:
    """A body that comes in pieces; each is given once."""

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    async def readany(self):
        return self.pieces.pop(0) if self.pieces else b""

    def is_eof(self):
        return not self.pieces


def request(*pieces, **headers):
    fields = CIMultiDictProxy(CIMultiDict(headers))
    return Request("POST", "/v1/chat/completions?a=%20b", fields, upload=Upload(*pieces))


def test_a_target_is_path_and_query_undecoded():
    asked = testing.exchange("GET", "/v1/models/org%2Fname?x=%3F?y=1").request
    assert (asked.path, asked.query) == ("/v1/models/org%2Fname", "x=%3F?y=1")


def test_a_replaced_header_goes_up_and_the_apps_own_stays_readable():
    asked = testing.exchange(headers={"x-user": "bob"}).request
    asked.replace_fields([(b"X-User", b"somebody")])
    assert (asked.fields(), asked.headers["x-user"]) == ([(b"X-User", b"somebody")], "bob")


async def test_a_body_is_read_once_and_shared():
    asked = request(b'{"a":', b"1}")
    assert (asked.is_buffered, asked.at_hand) == (False, None)
    assert await asked.body() == b'{"a":1}'
    assert await asked.body() == b'{"a":1}'
    assert asked.is_buffered
    assert await asked.json() is await asked.json()


class Slow(Upload):
    async def readany(self):
        await asyncio.sleep(self.pieces.pop(0))
        return b"x" if self.pieces else b""


async def test_a_body_that_stops_coming_is_not_waited_for(monkeypatch):
    """One that is slow is, as long as something comes."""
    monkeypatch.setattr(request_module, "STALL_SECONDS", 0.2)
    fields = CIMultiDictProxy(CIMultiDict())
    assert await Request("POST", "/", fields, upload=Slow(*[0.05] * 8)).body() == b"x" * 7
    with pytest.raises(UploadStalled, match=r"^the request's body stopped coming$") as refused:
        await Request("POST", "/", fields, upload=Slow(0, 9, 0)).body()
    assert (refused.value.status, refused.value.outcome) == (408, Outcome.CLIENT_ERROR)


class Broken(Upload):
    async def readany(self):
        raise ClientFault("it broke off", code="bad_body")


async def test_a_body_that_was_not_all_there_is_none_for_whoever_asks_next():
    asked = Request("POST", "/", CIMultiDictProxy(CIMultiDict()), upload=Broken())
    for _ in range(2):
        with pytest.raises(ClientFault, match="it broke off"):
            await asked.body()
    with pytest.raises(ClientFault, match="it broke off"):
        await asked.json()
    assert not asked.is_buffered


async def test_an_upload_comes_as_it_comes_and_only_once():
    asked = request(b"ab", b"cd")
    assert [chunk async for chunk in asked.upload()] == [b"ab", b"cd"]
    assert [chunk async for chunk in asked.upload()] == []


async def test_json_that_is_none_is_the_clients_fault():
    with pytest.raises(ClientFault, match="not valid JSON") as refused:
        await request(b'{"a":').json()
    assert refused.value.error_code == "invalid_json"


async def test_json_that_is_compressed_is_told_for_what_it_is():
    with pytest.raises(ClientFault) as refused:
        await request(gzip.compress(b"{}"), **{"content-encoding": "GZip"}).json()
    assert (refused.value.message, refused.value.error_code) == (
        "a compressed body cannot be read; send it without content-encoding",
        "invalid_json",
    )


async def test_a_replaced_body_is_parsed_anew():
    asked = request(b'{"a":1}')
    assert await asked.json() == {"a": 1}
    asked.replace_body(b'{"a":2}')
    assert (await asked.body(), await asked.json(), asked.is_replaced) == (b'{"a":2}', {"a": 2}, True)


async def test_a_replaced_body_may_name_another_model():
    asked = request(b'{"model":"a"}')
    asked.replace_body(b'{"model":"a","x":1}')
    assert (asked.model, asked.is_model_read) == (None, False)
    asked.replace_body(b'{"model":"b"}', model="b")
    assert (asked.model, asked.is_model_read) == ("b", True)


async def test_a_client_that_waits_to_be_asked_is_asked_when_its_body_is_wanted():
    asked, calls = request(b"a"), []
    asked.call_when_wanted(lambda: calls.append("100"))
    assert (asked.expects_continue, calls) == (True, [])
    await asked.body()
    await asked.body()
    assert calls == ["100"]


@pytest.mark.parametrize(
    ("body", "names"),
    [(b'{"model":"m"}', True), (b'{"model":null}', True), (b"{}", False), (b"[]", False), (b"", False), (b"{", False)],
)
def test_whether_a_body_names_a_model(body, names):
    assert testing.exchange(body=body).request.names_model() is names


@pytest.mark.parametrize(
    ("content_type", "seen"),
    [("application/json", "application/json"), ("Text/PLAIN ; charset=utf-8", "text/plain"), ("", "")],
)
def test_a_content_type_without_its_parameters(content_type, seen):
    assert testing.exchange(headers={"content-type": content_type}).request.content_type == seen


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/chat/completions/", "chat"),
        ("/v1/completions", "completions"),
        ("/v1/responses", "responses"),
        ("/v1/responses/resp_1", "responses"),
        ("/v1/responses/compact", "responses"),
        ("/v1/responses/resp_1/cancel", "other"),
        ("/v1/responses/input_tokens", "other"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/messages", "messages"),
        ("/v1/messages/count_tokens", "other"),
        ("/v1/models", "models"),
        ("/v1/models/org%2Fname", "models"),
        ("/v1/moderations", "moderations"),
        ("/v1/audio/speech", "audio"),
        ("/v1/images/generations", "images"),
        ("/v1/files/f/content", "files"),
        ("/v1/batches", "batches"),
        ("/v1/uploads/u/parts", "uploads"),
        ("/v1/fine_tuning/jobs", "fine_tuning"),
        ("/v1/realtime", "realtime"),
        ("/v1/realtime/client_secrets", "realtime"),
        ("/", "generate"),
        ("/generate", "generate"),
        ("/generate_stream", "generate"),
        ("/invocations", "generate"),
        ("/vertex", "generate"),
        ("/v1", "other"),
        ("/v1/", "other"),
        ("/v1/unknown", "other"),
        ("/v1/chat", "other"),
        ("/v2/models", "other"),
        ("/modelsx", "other"),
        ("/v1/modelsx", "other"),
        # as upstreams may read it: decoded, and below another prefix or none
        ("/chat/completions", "chat"),
        ("/openai/deployments/gpt-4o/chat/completions", "chat"),
        ("/v1/chat%2Fcompletions", "chat"),
        ("/v1/chat/%63ompletions", "chat"),
        ("/V1/Chat/Completions", "chat"),
        ("/api/v1/completions", "completions"),
        ("/responses", "responses"),
        ("/v1/respons%65s/resp_1/cancel", "other"),
        ("/embeddings/", "embeddings"),
        ("/anthropic/v1/messages", "messages"),
        ("/v1/threads/t/messages", "other"),
        ("/v1/chat/completions/chatcmpl-1", "other"),
        ("/gener%61te", "generate"),
        ("/mychat/xcompletions", "other"),
    ],
)
def test_endpoints_are_a_closed_set(path, endpoint):
    assert endpoint_of(path) == endpoint
    assert testing.exchange(target=f"{path}?x=/v1/models").request.endpoint == endpoint
