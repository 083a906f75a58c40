"""The issuer's keys over a real HTTP server: fetched, rotated, missing, slow, odd; and from a file."""

import asyncio
import contextlib
import socket

import pytest

from plugins.auth import keyring
from proxy import testing
from proxy.plugin import ConfigError
from tests import wire

from .house import EC, KEY, OTHER_RSA, RSA, bearer, code, entry, house, jwk, jwks, jwt_settings, token

NOT_YET = (503, "jwks_unavailable")
UNKNOWN = (401, "invalid_api_key")
ROTATED = token(OTHER_RSA, headers={"kid": "two"})
BOTH = jwks(jwk(RSA), jwk(OTHER_RSA, "two"))


@contextlib.asynccontextmanager
async def tokens(published: testing.Upstream, **settings):
    """A Weir that takes the tokens of an issuer whose keys are published there."""
    jwt = jwt_settings(f"{published.url}/keys", **settings)
    async with house(keys=[entry()], jwt=jwt) as (weir, _):
        yield weir


async def told(weir, text: str, wanted: tuple[int, str | None]) -> None:
    async with asyncio.timeout(10):
        while await code(weir, bearer(text)) != wanted:  # noqa: ASYNC110 - polled, bounded
            await asyncio.sleep(0.02)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(keyring, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(keyring, "SEARCH_SECONDS", 0.0)


async def test_the_keys_are_here_when_the_first_request_comes():
    async with testing.upstream(testing.answer(jwks())) as published, tokens(published) as weir:
        assert len(published.requests) == 1
        assert await code(weir, bearer(token())) == (200, None)
    assert (published.last.method, published.last.target) == ("GET", "/keys")
    assert published.last.headers["accept"] == "application/json"
    assert len(published.requests) == 1


async def test_another_config_takes_the_keys_over_also_while_the_issuer_is_away():
    async with testing.upstream(testing.answer(jwks())) as published, tokens(published) as weir:
        published.script = testing.answer(b"", status=500)
        file = weir.plan.source.file
        file.write_text(file.read_text().replace("name: default", "name: another"))
        assert await weir.reloads.reload() == "ok"
        assert await code(weir, bearer(token())) == (200, None)
        assert len(published.requests) == 1


async def test_until_the_keys_came_tokens_get_a_503_and_keys_are_served(impatient, caplog):
    failing = testing.answer(b"{}", status=500)
    async with testing.upstream(failing) as published, tokens(published) as weir:
        answer = await testing.ask(weir, {}, headers=bearer(token()))
        assert (answer.status, answer.json()["error"]["code"]) == NOT_YET
        assert await code(weir, bearer(KEY)) == (200, None)
        assert await code(weir, bearer("x")) == UNKNOWN
        published.script = testing.answer(jwks())
        await told(weir, token(), (200, None))
    reasons = {record.reason for record in caplog.records if record.message == "the issuer's keys cannot be had"}
    assert reasons == {"HTTP Error 500: Scripted"}


async def test_an_issuer_that_is_not_there_does_not_stop_the_start(impatient):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with house(keys=[entry()], jwt=jwt_settings(f"http://127.0.0.1:{port}/keys")) as (weir, _):
        assert await code(weir, bearer(token())) == NOT_YET
        assert await code(weir, bearer(KEY)) == (200, None)


async def test_the_keys_are_asked_for_again_and_again():
    async with testing.upstream(testing.answer(jwks())) as published, tokens(published, refresh="20ms") as weir:
        assert await code(weir, bearer(token())) == (200, None)
        published.script = testing.answer(jwks(jwk(OTHER_RSA, "two")))
        await told(weir, token(), UNKNOWN)
        assert await code(weir, bearer(ROTATED)) == (200, None)


@pytest.mark.parametrize(
    "broken",
    [
        testing.answer(b"", status=503),
        testing.answer(b"<html>"),
        testing.answer(b'{"keys":[]}'),
        testing.answer(b" " * (keyring.MAX_BYTES + 1)),
        testing.answer(b"", status=302, location="/elsewhere"),
    ],
)
async def test_a_refresh_that_fails_keeps_the_keys(broken, impatient, caplog):
    async with testing.upstream(testing.answer(jwks())) as published, tokens(published, refresh="20ms") as weir:
        published.script = broken
        await wire.until(lambda: "the issuer's keys cannot be had" in caplog.messages)
        assert await code(weir, bearer(token())) == (200, None)
        published.script = testing.answer(BOTH)
        await told(weir, ROTATED, (200, None))
    assert {received.target for received in published.requests} == {"/keys"}


async def test_a_key_that_is_not_known_is_looked_for_once_in_a_while():
    async with testing.upstream(testing.answer(jwks())) as published, tokens(published) as weir:
        published.script = testing.answer(BOTH)
        assert await code(weir, bearer(ROTATED)) == (200, None)
        assert len(published.requests) == 2
        for number in range(5):
            made_up = token(headers={"kid": f"made-up-{number}"})
            assert await code(weir, bearer(made_up)) == UNKNOWN
        assert len(published.requests) == 2


async def test_many_who_look_for_it_wait_for_one_answer_and_hold_up_nobody(impatient):
    held = asyncio.Event()

    async def slow(received: testing.Received, peer: testing.Wire) -> None:
        await held.wait()
        await testing.answer(BOTH)(received, peer)

    async with testing.upstream(testing.answer(jwks())) as published, tokens(published) as weir:
        published.script = slow
        waiting = [asyncio.create_task(code(weir, bearer(ROTATED))) for _ in range(20)]
        await wire.until(lambda: len(published.requests) == 2)
        assert await code(weir, bearer(token())) == (200, None)
        assert await code(weir, bearer(KEY)) == (200, None)
        assert not any(task.done() for task in waiting)
        held.set()
        assert set(await asyncio.gather(*waiting)) == {(200, None)}
        assert len(published.requests) == 2


async def test_who_leaves_while_waiting_takes_nobody_along(impatient):
    held = asyncio.Event()

    async def slow(received: testing.Received, peer: testing.Wire) -> None:
        await held.wait()
        await testing.answer(BOTH)(received, peer)

    async with testing.upstream(testing.answer(jwks())) as published, tokens(published) as weir:
        published.script = slow
        one, other = (asyncio.create_task(code(weir, bearer(ROTATED))) for _ in range(2))
        await wire.until(lambda: len(published.requests) == 2)
        one.cancel()
        held.set()
        assert await other == (200, None)


async def test_an_issuer_that_drips_is_given_up(monkeypatch, caplog):
    monkeypatch.setattr(keyring, "FETCH_SECONDS", 0.1)

    async def drip(_: testing.Received, peer: testing.Wire) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", *[b" "] * 100, pause=0.03)

    async with testing.upstream(drip) as published, tokens(published) as weir:
        assert await code(weir, bearer(token())) == NOT_YET
    assert next(record.reason for record in caplog.records if "cannot be had" in record.message).startswith("more than")


async def test_a_token_that_names_no_key_means_the_only_one_that_fits(impatient):
    nameless = token(headers={"kid": None})
    with_ec = jwks(jwk(RSA, "a"), jwk(EC, "b"))
    async with testing.upstream(testing.answer(with_ec)) as published, tokens(published) as weir:
        assert await code(weir, bearer(nameless)) == (200, None)
        published.script = testing.answer(BOTH)
        assert await code(weir, bearer(ROTATED)) == (200, None)
        assert await code(weir, bearer(nameless)) == UNKNOWN
        count = len(published.requests)
        assert await code(weir, bearer(nameless)) == UNKNOWN
        assert len(published.requests) == count


# -- a file


async def test_a_file_of_keys_is_read_again_when_it_changes(tmp_path, caplog):
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks())
    async with house(jwt=jwt_settings(file)) as (weir, _):
        assert await code(weir, bearer(token())) == (200, None)
        assert await code(weir, bearer(ROTATED)) == UNKNOWN
        file.write_bytes(b'{"keys":')
        await wire.until(lambda: "the old keys stay: their file is wrong" in caplog.messages)
        assert await code(weir, bearer(token())) == (200, None)
        file.write_bytes(jwks(jwk(OTHER_RSA, "two")))
        await told(weir, ROTATED, (200, None))
        assert await code(weir, bearer(token())) == UNKNOWN


async def test_a_file_without_keys_stops_the_start(tmp_path):
    file = tmp_path / "jwks.json"
    file.write_bytes(b'{"keys":[]}')
    with pytest.raises(ConfigError) as refused:
        async with house(jwt=jwt_settings(file)):
            pass
    assert "jwks.json: the key set has no public key for ES256, RS256" in str(refused.value)
