"""Which fields travel: what must go goes, the rest keeps its spelling, order and repetitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.headers import (
    connection_named,
    decode,
    downstream_fields,
    encode,
    is_value,
    unbroken,
    upgrade_fields,
    upstream_fields,
)

REQUEST = [
    ("HOST", "localhost:8080"),
    ("Connection", "keep-alive, X-Only-Here"),
    ("X-Only-Here", "1"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Authorization", "Basic abc"),
    ("Proxy-Connection", "keep-alive"),
    ("TE", "trailers"),
    ("Transfer-Encoding", "chunked"),
    ("Upgrade", "h2c"),
    ("HTTP2-Settings", "AAMAAABk"),
    ("Authorization", "Bearer callers"),
    ("api-key", "callers"),
    ("X-API-Key", "callers"),
    ("x-goog-api-key", "callers"),
    ("Cookie", "session=1"),
    ("X-Forwarded-For", "10.0.0.1"),
    ("x-forwarded-anything", "1"),
    ("x-stainless-retry-count", "1"),
    ("Idempotency-Key", "k"),
    ("X-Tag", "one"),
    ("accept", "*/*"),
    ("x-tag", "two"),
    ("X_Under.Dotted", "1"),
    ("Trailer", "x-sum"),
    ("x-weir-tag", "theirs"),
]
PLAIN = REQUEST[17:]
CREDENTIALS = REQUEST[10:15]


def going_up(fields, *, passthrough=False):
    headers = CIMultiDictProxy(CIMultiDict(fields))
    kept = upstream_fields(encode(headers), headers.getall("connection", ()), passthrough=passthrough)
    return list(decode(kept).items())


def coming_down(fields, *, passthrough=False):
    return downstream_fields(fields, {name.lower(): value for name, value in fields}, passthrough=passthrough)


def test_what_the_upstream_sees():
    assert going_up(REQUEST) == PLAIN


def test_what_the_upstream_sees_where_credentials_pass():
    assert going_up(REQUEST, passthrough=True) == [*CREDENTIALS, *PLAIN]


def test_what_is_said_to_the_ledger_alone_stays_here():
    for passthrough in (False, True):
        assert going_up([("X-Weir-Prompt-Version", "v7"), ("x-weir-tag", "1")], passthrough=passthrough) == [
            ("x-weir-tag", "1")
        ]


def test_each_header_is_judged_by_its_own_names():
    tag, cookie = ("X-Tag", "1"), ("Cookie", "1")
    for fields in [[tag, cookie], [cookie, tag], [tag], [tag, cookie], [tag, cookie, tag]]:
        assert going_up(fields) == [field for field in fields if field is tag]


def test_names_go_up_as_the_app_spelled_them():
    spelled = [(b"cOnTent-type", b"a/b"), (b"x-TAG", b"Gr\xfc\xdfe"), (b"COOKIE", b"a=1")]
    assert upstream_fields(spelled, (), passthrough=False) == spelled[:2]


ANSWER = [
    (b"Date", b"today"),
    (b"Connection", b"keep-alive, x-only-here"),
    (b"Keep-Alive", b"timeout=5"),
    (b"X-Only-Here", b"1"),
    (b"Transfer-Encoding", b"chunked"),
    (b"Proxy-Authenticate", b"Basic"),
    (b"Upgrade", b"h2c"),
    (b"X-Weir-Request-Id", b"another Weir's"),
    (b"x-weir-anything", b"1"),
    (b"Set-Cookie", b"a=1"),
    (b"set-cookie2", b"b=2"),
    (b"x-ratelimit-remaining-tokens", b"9"),
    (b"Retry-After", b"1"),
    (b"WWW-Authenticate", b"Bearer"),
    (b"X-Tag", b"one"),
    (b"x-tag", b"two"),
    (b"X-Raw", b"Gr\xfc\xdfe"),
    (b"Trailer", b"x-sum"),
]


def test_what_the_app_sees():
    assert coming_down(ANSWER) == [ANSWER[0], *ANSWER[11:]]


def test_what_the_app_sees_where_cookies_pass():
    assert coming_down(ANSWER, passthrough=True) == [ANSWER[0], *ANSWER[9:]]


def test_connection_fields_that_are_repeated_name_what_each_names():
    fields = [(b"connection", b"a"), (b"A", b"1"), (b"Connection", b"B , close"), (b"b", b"2"), (b"c", b"3")]
    assert coming_down(fields) == [(b"c", b"3")]
    assert going_up([(name.decode(), value.decode()) for name, value in fields]) == [("c", "3")]


@pytest.mark.parametrize("name", ["Content-Length", "content-type", "Content-Encoding", "Host"])
def test_connection_cannot_unsay_what_frames_or_describes_the_message(name):
    assert connection_named((f"x-a, {name}, close",)) == {"x-a"}


@given(st.lists(st.tuples(st.binary(), st.binary())))
def test_fields_of_any_bytes_come_back_as_they_were(fields):
    clean = [tuple(part.translate(None, b"\r\n\0") for part in field) for field in fields]
    assert encode(decode(clean)) == clean


def test_a_line_break_in_a_plugins_field_starts_no_field_of_its_own():
    assert unbroken(encode(CIMultiDict([("x-a", "1\r\nx-b: 2\0")]))) == [(b"x-a", b"1  x-b: 2 ")]


HOP = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]


@pytest.mark.parametrize(
    ("offered", "left"),
    [
        (b"realtime", b"realtime"),
        (b"realtime,openai-beta.realtime-v1", b"realtime,openai-beta.realtime-v1"),
        (b"realtime, openai-insecure-api-key.sk-1, openai-beta.realtime-v1", b"realtime, openai-beta.realtime-v1"),
        (b"openai-insecure-api-key.sk-1,realtime", b"realtime"),
        (b"OPENAI-INSECURE-API-KEY.sk-1\t,  realtime", b"realtime"),
        (b"xai-client-secret.sk-1, openai-insecure-api-key.sk-2", None),
        (b"", b""),
    ],
)
def test_a_key_that_is_offered_as_a_subprotocol_does_not_travel(offered, left):
    fields = [(b"Sec-WebSocket-Key", b"k"), (b"sec-WebSocket-Protocol", offered), (b"X", b"1")]
    kept = [] if left is None else [(b"sec-WebSocket-Protocol", left)]
    assert upgrade_fields(fields, passthrough=False) == [fields[0], *kept, fields[2], *HOP]
    assert upgrade_fields(fields, passthrough=True) == [*fields, *HOP]


@pytest.mark.parametrize("text", ["sk-1", "a: b # c", "~" * 5000])
def test_what_a_field_can_hold(text):
    assert is_value(text)


@pytest.mark.parametrize("text", ["", "a\nb", "a\r", "a\0b", "a\tb", "a\x7f", "größe", "sk–1", "\udcff"])
def test_what_no_field_should(text):
    assert not is_value(text)
