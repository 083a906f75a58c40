"""Whose credential and cookies go where: the caller's stay with Weir, and the upstream's stay there, unless passed through."""

from operator import attrgetter

import pytest

from tests import wire
from tests.contract.double import CHAT, Case, answers, asks, compare, upstream, weir

CREDENTIALS = ("authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie")
OWN_KEY = "api_key: sk-upstream"
PASSTHROUGH = "auth: passthrough"

SPELLINGS = [
    "Authorization: Bearer sk-app",
    "authorization: bearer sk-app",
    "AUTHORIZATION: Basic c2s6YXBw",
    "aUTHORIZATION:Bearer sk-app",
    "api-key: sk-app",
    "Api-Key: sk-app",
    "API-KEY: sk-app",
    "x-api-key: sk-app",
    "X-API-Key: sk-app",
    "x-goog-api-key: sk-app",
    "Cookie: sid=sk-app",
    "cookie: a=b; sid=sk-app",
    "Proxy-Authorization: Bearer sk-app",
]
ALL = ["Authorization: Bearer sk-app", "Api-Key: sk-app", "x-api-key: sk-app", "Cookie: sid=1", "cookie: b=2"]
COOKIES = answers(
    "200 OK", "Set-Cookie: sid=upstream; Path=/", "Content-Type: text/plain", "set-cookie: b=2", "X-Last: 1", body=b"ok"
)

CASES = [
    *(
        Case(f"none of ours, {each}", asks("GET /v1/models", "A: 1", each, "B: 2"), lost=CREDENTIALS)
        for each in SPELLINGS
    ),
    *(
        Case(
            f"ours for {each}",
            asks(f"POST {CHAT}", "A: 1", each, each, "B: 2", body=b"{}"),
            lost=CREDENTIALS,
            gained=[(b"Authorization", b"Bearer sk-upstream")],
            settings=OWN_KEY,
        )
        for each in SPELLINGS
    ),
    Case(
        "ours where the app sent none",
        asks("GET /v1/models", "A: 1"),
        gained=[(b"Authorization", b"Bearer sk-upstream")],
        settings=OWN_KEY,
    ),
    Case("passed through, both ways", asks("GET /v1/models", "A: 1", *ALL), COOKIES, settings=PASSTHROUGH),
    Case("set-cookie stays there", asks("GET /v1/models"), COOKIES, hidden=("set-cookie",)),
    Case("nothing to pass through", asks("GET /v1/models"), COOKIES, settings=PASSTHROUGH),
]


@pytest.mark.parametrize("case", CASES, ids=attrgetter("name"))
async def test_credentials_and_cookies(case):
    answer = await compare(case)
    assert bool(answer.head.all("set-cookie")) is (case.settings == PASSTHROUGH)


async def test_a_callers_key_is_nowhere_in_what_goes_up():
    """Field case 30: not in another field, not in the path, not in what follows on the connection."""
    async with upstream(answers("200 OK", body=b"{}")) as double, weir(double.url, settings=OWN_KEY) as proxy:
        for spelling in SPELLINGS:
            await wire.fetch(proxy.url, asks("GET /v1/models", "A: 1", spelling))
            await wire.fetch(proxy.url, asks("GET /v1/models", "Connection: Authorization, X-Api-Key", spelling))
        received = repr(double.requests)
    assert received.count("sk-upstream") == 2 * len(SPELLINGS)
    assert "sk-app" not in received
    assert "c2s6YXBw" not in received


async def test_connection_cannot_unsay_our_own_key():
    async with upstream(answers("200 OK", body=b"{}")) as double, weir(double.url, settings=OWN_KEY) as proxy:
        await wire.fetch(proxy.url, asks("GET /v1/models", "Connection: authorization"))
        [request] = double.requests
    assert request.head.all("authorization") == [b"Bearer sk-upstream"]


async def test_no_cookie_of_one_app_reaches_another():
    """Field case 31, by name as well as by address: a name is where cookie jars leak."""
    async with upstream(COOKIES) as double:
        by_name = double.url.replace("127.0.0.1", "localhost")
        async with weir(by_name) as proxy:
            for _ in range(2):
                await wire.fetch(proxy.url, asks("GET /v1/models", "Cookie: sid=mine"))
        assert [request.head.all("cookie") for request in double.requests] == [[], []]
