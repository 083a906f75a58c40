"""What counts as a credential, over sockets and byte for byte: every other spelling gets the same 401, and nothing goes up."""

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugins.auth.credential import KEY_PROTOCOL, MAX_LENGTH, presented
from proxy import testing
from proxy.plugin import Unauthorized
from tests import wire
from tests.contract.double import upstream
from tests.frames import accepts, handshake

from .house import KEY, bearer, code, entry, house

BODY = b'{"model":"m","messages":[]}'
REFUSAL = {
    "error": {
        "message": "no valid API key came with this request; "
        "send one as 'Authorization: Bearer KEY', 'api-key' or 'x-api-key'",
        "type": "invalid_request_error",
        "code": "invalid_api_key",
        "param": None,
    }
}
GOOD = [
    b"Authorization: Bearer %b",
    b"authorization: bearer %b",
    b"AUTHORIZATION:BEARER %b",
    b"Authorization: bEaReR   %b  ",
    b"Api-Key: %b",
    b"X-API-Key: %b",
    b"x-api-key:\t%b\t",
    b"Authorization: Bearer %b\r\nx-api-key: %b",
    b"Authorization: Bearer %b\r\napi-key: %b\r\nx-api-key: %b",
    b"Authorization: Bearer %b\r\nsec-websocket-protocol: openai-insecure-api-key.other",
]
BAD = [
    b"",
    b"Bearer",
    b"Bearer ",
    b"Bearer  ",
    b"bearer",
    b"%b",
    b"Token %b",
    b"Basic %b",
    b"Basic dXNlcjpwYXNz",
    b'Digest username="a", realm="b", nonce="c", response="d"',
    b"Negotiate %b",
    b"ApiKey %b",
    b"Key %b",
    b"Bearer\t%b",
    b"Bearer:%b",
    b"Bearer=%b",
    b"Bearer,%b",
    b"Bearer%b",
    b"BearerBearer %b",
    b"Bearer Bearer %b",
    b'Bearer "%b"',
    b"Bearer '%b'",
    b"Bearer <%b>",
    b"Bearer %b,",
    b"Bearer %b, Bearer %b",
    b"Bearer %b; Bearer other",
    b"Bearer other, Bearer %b",
    b"Bearer %b other",
    b"Bearer %bx",
    b"Bearer x%b",
    b"Bearer ' OR '1'='1",
    b"Bearer ' OR 1=1 --",
    b"Bearer null",
    b"Bearer undefined",
    b"Bearer *",
    b"Bearer %%s",
    b"Bearer {{key}}",
    b"Bearer ${jndi:ldap://x/a}",
    b"Bearer a.b.c",
    b"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.",
    b"Bearer \xc3\xa9\xc3\xa9",
    b"Bearer \xff\xfe",
    b"Bearer %b\xc2\xa0",
    b"Bearer \xe2\x80\x8b%b",
    b"\xef\xbb\xbfBearer %b",
    b"B\xc4\x95arer %b",
    b"Bearer " + b"k" * 4096 + b"k",
    b"Bearer " + b"k" * 60_000,
]
TWO = [
    b"Authorization: Bearer %b\r\nAuthorization: Bearer %b",
    b"Authorization: Bearer %b\r\nAuthorization: Bearer other",
    b"Authorization: Bearer other\r\nAuthorization: Bearer %b",
    b"Authorization: Bearer %b\r\nAuthorization:",
    b"x-api-key: %b\r\nx-api-key: %b",
    b"Authorization: Bearer %b\r\nx-api-key: other",
    b"Authorization: Bearer other\r\nx-api-key: %b",
    b"api-key: %b\r\nx-api-key: other",
    b"Authorization: Bearer %b\r\napi-key:",
    b"Authorization: Basic dXNlcjpwYXNz\r\nx-api-key: %b",
    b"Authorization:\r\nx-api-key: %b",
]
ELSEWHERE = [
    b"Proxy-Authorization: Bearer %b",
    b"x-goog-api-key: %b",
    b"x_api_key: %b",
    b"Cookie: api-key=%b",
    b"openai-api-key: %b",
    b"sec-websocket-protocol: openai-insecure-api-key.%b",
    b"sec-websocket-protocol: realtime, openai-insecure-api-key.%b",
]
BROKEN = [b"Authorization: Bearer " + value for value in (b"\0%b", b"%b\0", b"a\rb", b"%b\x01", b"%b\x7f")]


def with_key(lines: bytes) -> bytes:
    return lines.replace(b"%b", KEY.encode())


def post(lines: bytes, target: bytes = b"/v1/chat/completions") -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
    return head % (target, len(BODY)) + (with_key(lines) + b"\r\n" if lines else b"") + b"\r\n" + BODY


async def test_a_key_in_its_places():
    async with house(keys=[entry()]) as (weir, asked):
        for lines in GOOD:
            assert (await wire.fetch(weir.url, post(lines))).status == 200, lines
    assert len(asked.requests) == len(GOOD)
    for received in asked.requests:
        assert received.headers["authorization"] == "Bearer sk-upstream"
        assert KEY.encode() not in b"".join(value for _, value in received.fields)


@pytest.mark.parametrize(
    "lines",
    [b"", *(b"Authorization: " + value for value in BAD), *TWO, *ELSEWHERE],
    ids=lambda lines: lines[:70].decode("ascii", "backslashreplace"),
)
async def test_everything_else_gets_the_same_401(lines):
    async with house(keys=[entry()]) as (weir, asked):
        answer = await wire.fetch(weir.url, post(lines))
    assert answer.status == 401
    assert answer.head.get("www-authenticate") == "Bearer"
    assert orjson.loads(answer.body) == REFUSAL
    assert asked.requests == []


async def test_a_key_in_the_address_is_none():
    async with house(keys=[entry()]) as (weir, asked):
        for name in (b"key", b"api-key", b"api_key", b"access_token"):
            target = b"/v1/chat/completions?%b=%b" % (name, KEY.encode())
            assert (await wire.fetch(weir.url, post(b"", target))).status == 401
    assert asked.requests == []


@pytest.mark.parametrize("lines", BROKEN)
async def test_what_is_not_http_is_refused_before(lines):
    async with house(keys=[entry()]) as (weir, asked):
        assert (await wire.fetch(weir.url, post(lines))).status == 400
    assert asked.requests == []


async def test_a_header_that_is_larger_than_any_server_takes():
    async with house(keys=[entry()]) as (weir, asked):
        for size in (2**16 - 100, 2**16 + 100, 2**18):
            answer = await wire.fetch(weir.url, post(b"Authorization: Bearer " + b"k" * size))
            assert answer.status in (400, 401, 431)
    assert asked.requests == []


async def test_a_key_of_the_longest_length():
    longest = "k" * MAX_LENGTH
    async with house(keys=[entry(longest)]) as (weir, _):
        assert await code(weir, bearer(longest)) == (200, None)
        assert await code(weir, bearer(longest + "k")) == (401, "invalid_api_key")


VALUES = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(BAD).filter(lambda value: value != b"%b").map(with_key),
)
SPOILT = b"\r\n\0"


@given(pairs=st.lists(st.tuples(st.sampled_from(["authorization", "api-key", "x-api-key"]), VALUES), max_size=3))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_no_value_is_more_than_refused(pairs):
    """As the edge hands them over; on the wire they follow below."""
    exchange = testing.exchange()
    headers = exchange.request.headers.copy()
    for name, value in pairs:
        headers.add(name, value.decode("utf-8", "surrogateescape"))
    exchange.request.headers = headers
    try:
        found = presented(exchange.request)
    except Unauthorized:
        pass
    else:
        assert found.isascii()
        assert found.isprintable()
        assert 0 < len(found) <= MAX_LENGTH


@given(values=st.lists(VALUES.filter(lambda value: not set(value) & set(SPOILT)), min_size=20, max_size=20))
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
async def test_no_value_on_the_wire_leads_to_2xx_or_5xx(values):
    async with house(keys=[entry()]) as (weir, asked):
        for value in values:
            for name in (b"Authorization: ", b"x-api-key: "):
                answer = await wire.fetch(weir.url, post(name + value))
                assert answer.status in (400, 401)
    assert asked.requests == []


# -- WebSockets


def upgrade(*protocols: str, **fields: str) -> testing.Exchange:
    headers = {"upgrade": "websocket", "connection": "upgrade", **fields}
    if protocols:
        headers["sec-websocket-protocol"] = ", ".join(protocols)
    exchange = testing.exchange("GET", "/v1/realtime?model=m", headers=headers, body=b"")
    exchange.request.is_upgrade = True
    return exchange


@pytest.mark.parametrize(
    "exchange",
    [
        upgrade("realtime", KEY_PROTOCOL + KEY, "openai-beta.realtime-v1"),
        upgrade(KEY_PROTOCOL + KEY),
        upgrade(KEY_PROTOCOL + KEY, authorization=f"Bearer {KEY}"),
        upgrade("realtime", authorization=f"Bearer {KEY}"),
    ],
)
def test_a_browser_offers_its_key_as_a_protocol(exchange):
    assert presented(exchange.request) == KEY


@pytest.mark.parametrize(
    "exchange",
    [
        upgrade(),
        upgrade("realtime"),
        upgrade(KEY_PROTOCOL),
        upgrade(KEY_PROTOCOL.upper() + KEY),
        upgrade(KEY_PROTOCOL + KEY, KEY_PROTOCOL + "other"),
        upgrade(KEY_PROTOCOL + KEY, authorization="Bearer other"),
        upgrade(KEY_PROTOCOL + "é"),
        upgrade("realtime", KEY_PROTOCOL + "k" * (MAX_LENGTH + 1)),
    ],
)
def test_of_protocols_too_there_must_be_one_key(exchange):
    with pytest.raises(Unauthorized):
        presented(exchange.request)


@pytest.mark.parametrize(
    ("target", "offered", "told"),
    [
        ("?model=m", f"realtime, {KEY_PROTOCOL}{KEY}", 101),
        ("?model=m", "realtime", 401),
        ("?model=m", f"realtime, {KEY_PROTOCOL}other", 401),
        ("?model=o3", f"realtime, {KEY_PROTOCOL}{KEY}", 403),
        ("", f"realtime, {KEY_PROTOCOL}{KEY}", 403),
    ],
)
async def test_a_websocket_is_let_in_by_it_and_the_key_stays_here(target, offered, told):
    async with (
        upstream(accepts) as double,
        testing.weir(double, [{"auth": {"keys": [entry(models=["m"])]}}]) as weir,
        wire.connected(weir.url) as app,
    ):
        await app.send(handshake(f"Sec-WebSocket-Protocol: {offered}", target=f"/v1/realtime{target}"))
        assert (await app.head()).status == told
    assert len(double.requests) == (told == 101)
    for request in double.requests:
        assert request.head.all("sec-websocket-protocol") == [b"realtime"]
        assert KEY.encode() not in b"".join(value for _, value in request.head.fields)
