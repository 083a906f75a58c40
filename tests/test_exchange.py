"""A request's body is read once and bounded, an answer's header is decoded only when looked at, facts are typed."""

import orjson
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from proxy import testing
from proxy.errors import ClientFault, NotFound
from proxy.exchange import Attempt, Exchange, Key, Request, Response, Target, endpoint_of

COUNT: Key[int] = Key("count")
NAME: Key[str] = Key("name")


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


async def test_a_body_is_read_once_and_shared():
    asked = request(b'{"a":', b"1}")
    assert (asked.is_buffered, asked.at_hand) == (False, None)
    assert await asked.body() == b'{"a":1}'
    assert await asked.body() == b'{"a":1}'
    assert asked.is_buffered
    assert await asked.json() is await asked.json()


async def test_an_upload_comes_as_it_comes_and_only_once():
    asked = request(b"ab", b"cd")
    assert [chunk async for chunk in asked.upload()] == [b"ab", b"cd"]
    assert [chunk async for chunk in asked.upload()] == []


async def test_json_that_is_none_is_the_clients_fault():
    with pytest.raises(ClientFault, match="not valid JSON") as refused:
        await request(b'{"a":').json()
    assert refused.value.error_code == "invalid_json"


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
        ("/v1/responses/resp_1/cancel", "responses"),
        ("/v1/embeddings", "embeddings"),
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
        ("/v1", "other"),
        ("/v1/", "other"),
        ("/v1/unknown", "other"),
        ("/v1/chat", "other"),
        ("/v2/models", "other"),
        ("/modelsx", "other"),
        ("/v1/modelsx", "other"),
    ],
)
def test_endpoints_are_a_closed_set(path, endpoint):
    assert endpoint_of(path) == endpoint
    assert testing.exchange(target=f"{path}?x=/v1/models").request.endpoint == endpoint


def test_an_attempts_header_is_its_own():
    fields = [(b"X-Tag", b"1"), (b"x-tag", b"2")]
    attempt, other = (Attempt(number, Target("up"), fields, b"") for number in (1, 2))
    assert attempt.fields() is fields
    attempt.headers["x-new"] = "3"
    assert attempt.fields() == [(b"X-Tag", b"1"), (b"x-tag", b"2"), (b"x-new", b"3")]
    assert other.fields() == fields == [(b"X-Tag", b"1"), (b"x-tag", b"2")]


def test_a_response_that_weir_made():
    response = Response.of_json(201, {"a": 1})
    assert (response.status, response.body, response.content_type) == (201, b'{"a":1}', b"application/json")
    assert response.fields() == [(b"content-type", b"application/json")]
    assert Response(204).fields() == []


def test_a_refusal_has_openais_shape_and_its_own_fields():
    response = Response.of_error(NotFound("no such thing", code="gone", headers={"retry-after": "1"}))
    assert response.status == 404
    assert dict(response.headers) == {"content-type": "application/json", "retry-after": "1"}
    assert orjson.loads(response.body)["error"]["code"] == "gone"
    assert isinstance(response.error, NotFound)


def test_an_answers_fields_stay_bytes_until_somebody_looks():
    fields = [(b"X-Raw", b"Gr\xfc\xdfe"), (b"content-type", b"Text/Event-Stream; charset=utf-8")]
    response = Response.of_fields(Response(200), fields)
    assert response.field(b"x-raw") == b"Gr\xfc\xdfe"
    assert response.is_event_stream
    assert response.fields() is fields
    response.headers["x-new"] = "☺"
    assert response.fields() == [*fields, (b"x-new", "☺".encode())]
    assert response.field(b"x-new") == "☺".encode()


def test_a_field_that_a_plugin_took_away_is_gone():
    response = Response.of_fields(Response(200), [(b"x-a", b"1"), (b"x-b", b"2")])
    assert response.field(b"x-a") == b"1"
    del response.headers["X-A"]
    assert (response.field(b"x-a"), response.fields()) == (b"", [(b"x-b", b"2")])


def test_facts_are_found_by_their_key():
    exchange = testing.exchange()
    exchange[COUNT] = 1
    assert (COUNT in exchange, exchange[COUNT], exchange.get(COUNT, 0)) == (True, 1, 1)
    assert (NAME in exchange, exchange.get(NAME, "none")) == (False, "none")
    with pytest.raises(KeyError):
        exchange[NAME]
    assert Key("count") not in exchange
    assert repr(COUNT) == "Key('count')"


LIMITED = b"x-ratelimit-limit-requests: 1\r\n"


@pytest.mark.parametrize("is_looked_at", [False, True], ids=["as bytes", "decoded"])
def test_lines_take_the_place_of_those_that_begin_so(is_looked_at):
    response = Response(200, headers={"Content-Type": "text/event-stream", "X-RateLimit-Limit-Tokens": "5"})
    if not is_looked_at:
        response._fields, response._headers = response.fields(), None
    response.put_lines(LIMITED, instead_of=b"x-ratelimit-")
    assert response.is_event_stream
    assert (response.field(b"x-ratelimit-limit-requests"), response.field(b"x-ratelimit-limit-tokens")) == (b"1", b"")
    assert response.fields() == [(b"Content-Type", b"text/event-stream"), (b"x-ratelimit-limit-requests", b"1")]


def test_lines_that_are_only_added_leave_what_is_known_of_the_header():
    response = Response(200)
    response._fields, response._index = [(b"Content-Type", b"a/b")], {b"content-type": b"a/b"}
    response.put_lines(b"x-left: 1\r\n", instead_of=b"x-left")
    assert (response.content_type, response.field(b"x-left")) == (b"a/b", b"1")
    assert (response.headers["content-type"], response.headers["x-left"]) == ("a/b", "1")


def test_an_exchange_that_somebody_holds_goes_on_when_its_app_leaves():
    exchange, stopped = testing.exchange(), []
    exchange.hold()
    exchange.hold()
    assert exchange.leave(lambda: stopped.append("now"))
    exchange.release()
    assert (exchange.goes_on, stopped) == (True, [])
    exchange.release()
    assert stopped == ["now"]


def test_without_one_it_stops_at_once():
    exchange, stopped = testing.exchange(), []
    assert not exchange.leave(lambda: stopped.append("now"))
    assert (exchange.goes_on, stopped) == (False, ["now"])


def test_who_is_told_that_the_app_leaves_can_still_hold_it():
    exchange, stopped = testing.exchange(), []
    exchange.on_leave = Exchange.hold
    assert exchange.leave(lambda: stopped.append("now"))
    assert not stopped


def fields(response):
    return [(name.lower(), value) for name, value in response.fields()]


def answered():
    response = Response(200)
    response.set_fields({b"content-type": b"text/plain", b"vary": b"origin"})
    return response


def test_fields_are_set_once_whether_they_were_there_or_not():
    response = answered()
    assert response.field(b"vary") == b"origin"
    response.set_fields({b"vary": b"authorization", b"age": b"1"})
    assert fields(response) == [(b"content-type", b"text/plain"), (b"vary", b"authorization"), (b"age", b"1")]
    assert (response.field(b"vary"), response.field(b"age")) == (b"authorization", b"1")


def test_also_where_somebody_has_decoded_the_header():
    response = answered()
    response.headers["x-a"] = "b"
    response.set_fields({b"vary": b"authorization"})
    assert sorted(fields(response)) == [(b"content-type", b"text/plain"), (b"vary", b"authorization"), (b"x-a", b"b")]


@pytest.mark.parametrize("is_decoded", [False, True])
def test_lines_are_added_in_place_of_others_and_whoever_looks_sees_them(is_decoded):
    response = answered()
    response.set_fields({b"x-a-left": b"9"})
    if is_decoded:
        assert response.headers["x-a-left"] == "9"
    response.put_lines(b"x-a-left: 5\r\nx-a-limit: 7\r\n", instead_of=b"x-a-")
    assert response.field(b"x-a-left") == b"5"
    response.put_lines(b"x-a-left: 4\r\n", instead_of=b"x-a-")
    assert (response.headers.getall("x-a-left"), "x-a-limit" in response.headers) == (["4"], False)
    response.put_lines(b"x-b: 1\r\n", instead_of=b"x-b")
    assert fields(response)[-2:] == [(b"x-a-left", b"4"), (b"x-b", b"1")]
    assert response.take_lines() == b""


def test_lines_that_nobody_looks_at_stay_lines():
    response = answered()
    response.put_lines(b"x-a: 5\r\n", instead_of=b"x-a")
    assert response.field(b"vary") == b"origin"
    assert response.take_lines() == b"x-a: 5\r\n"
    assert fields(response) == [(b"content-type", b"text/plain"), (b"vary", b"origin")]
