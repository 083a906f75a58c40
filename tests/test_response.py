"""An answer's header is decoded only when looked at, and what is added to it is seen."""

import orjson
import pytest

from proxy.errors import NotFound
from proxy.response import Response


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
