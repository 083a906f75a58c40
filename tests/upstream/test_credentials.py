"""What an upstream gets for a credential: where it goes, what it displaces, and how it changes under way."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from proxy import config, testing
from proxy.scalars import Placement
from proxy.services import Services
from proxy.watch import Watch
from tests.upstream.double import OK, ask, each, opened, request, serving, until
from tests.upstream.test_token import is_alive

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator

    from proxy import app
    from proxy.upstream.openai import OpenAI

KEY = "sk-Our0wn/Secret+Key&=="
QUERY = "key=sk-Our0wn%2FSecret%2BKey%26%3D%3D"
CALLERS = {
    "Authorization": "Bearer sk-app",
    "api-key": "sk-app",
    "X-Api-Key": "sk-app",
    "x-goog-api-key": "sk-app",
    "Cookie": "sid=sk-app",
}


async def sent(
    target: str = "/v1/x", headers: Any = None, own: Any = None, **settings: Any
) -> tuple[str, list[tuple[bytes, bytes]]]:
    """The request target at the upstream, and the fields but for Host; `own`: the upstream's own."""
    async with serving(each(OK)) as server, opened(server.url, headers=own or {}, **settings) as upstream:
        await ask(upstream, request(target=target, headers={**CALLERS, "X-Last": "1", **(headers or {})}))
    [head] = server.heads
    return head.start.split()[1].decode(), head.fields[1:]


# -- where it goes


async def test_nothing_without_a_key() -> None:
    assert await sent() == ("/v1/x", [(b"X-Last", b"1")])


@pytest.mark.parametrize(
    ("place", "field"),
    [
        (None, (b"Authorization", b"Bearer " + KEY.encode())),
        (Placement("bearer"), (b"Authorization", b"Bearer " + KEY.encode())),
        (Placement("header", "api-key"), (b"api-key", KEY.encode())),
        (Placement("header", "X-Goog-Api-Key"), (b"X-Goog-Api-Key", KEY.encode())),
        (Placement("header", "Authorization"), (b"Authorization", KEY.encode())),
        (Placement("header", "Ocp-Apim-Subscription-Key"), (b"Ocp-Apim-Subscription-Key", KEY.encode())),
    ],
)
async def test_a_key_in_the_header(place: Placement | None, field: tuple[bytes, bytes]) -> None:
    assert await sent(api_key=KEY, api_key_in=place) == ("/v1/x", [(b"X-Last", b"1"), field])


async def test_the_callers_field_of_that_name_stays_here() -> None:
    place = Placement("header", "X-Team-Key")
    _, fields = await sent(headers={"x-team-key": "sk-app", "X-TEAM-KEYS": "1"}, api_key=KEY, api_key_in=place)
    assert fields == [(b"X-Last", b"1"), (b"X-TEAM-KEYS", b"1"), (b"X-Team-Key", KEY.encode())]
    _, fields = await sent(headers={"x-team-key": "sk-app"}, api_key_in=place)
    assert fields == [(b"X-Last", b"1")]


@pytest.mark.parametrize(
    ("target", "at_the_upstream"),
    [
        ("/v1/x", f"/v1/x?{QUERY}"),
        ("/v1/a%2Fb?q=%20&z", f"/v1/a%2Fb?q=%20&z&{QUERY}"),
        ("/v1/x?key=sk-app&a=1&K%65y=sk-app", f"/v1/x?a=1&{QUERY}"),
    ],
)
async def test_a_key_in_the_query(target: str, at_the_upstream: str) -> None:
    place = Placement("query", "key")
    assert await sent(target, api_key=KEY, api_key_in=place) == (at_the_upstream, [(b"X-Last", b"1")])


async def test_a_callers_parameter_stays_here_also_where_there_is_no_key() -> None:
    assert (await sent("/v1/x?key=sk-app&a", api_key_in=Placement("query", "key")))[0] == "/v1/x?a"


async def test_passthrough_sends_what_the_caller_sent() -> None:
    _, fields = await sent(auth="passthrough")
    assert {name.decode(): value.decode() for name, value in fields} == {**CALLERS, "X-Last": "1"}


async def test_fields_of_its_own_take_the_place_of_the_callers() -> None:
    said = {"Modal-Key": SecretStr("wk-1"), "OpenAI-Organization": SecretStr(" org-ours ")}
    _, fields = await sent(headers={"openai-organization": "org-app", "x-a": "1"}, own=said, api_key=KEY)
    ours = [
        (b"Modal-Key", b"wk-1"),
        (b"OpenAI-Organization", b"org-ours"),
        (b"Authorization", b"Bearer " + KEY.encode()),
    ]
    assert fields == [(b"X-Last", b"1"), (b"x-a", b"1"), *ours]


async def test_what_fields_of_its_own_have_from_elsewhere_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the config is no secret: an error may well speak of it."""
    monkeypatch.setenv("MODAL_SECRET", "ws-0123456789")
    body = b'{"error":{"message":"ws-0123456789 is not for team-red"}}'
    async with testing.upstream(testing.answer(body, status=401)) as upstream:
        settings = 'headers: {Modal-Secret: "${MODAL_SECRET}", X-Team: team-red}'
        async with testing.weir(upstream, settings=settings) as weir:
            answer = await testing.ask(weir, {"model": "m"})
        assert upstream.last.headers["modal-secret"] == "ws-0123456789"
    assert answer.body == body.replace(b"ws-0123456789", b"***")


async def test_health_checks_have_the_fields_too() -> None:
    async with serving(each(OK)) as server, opened(server.url, headers={"X-Team": SecretStr("red")}) as upstream:
        assert await upstream.probe("/health") == 200
    [head] = server.heads
    assert (b"X-Team", b"red") in head.fields


async def test_it_does_not_show() -> None:
    async with opened("http://127.0.0.1:1/v1", api_key=KEY, headers={"X": SecretStr("sk-x")}) as upstream:
        assert "sk-" not in f"{upstream!r} {upstream.credential!r} {upstream.settings!r} {upstream.credential}"


# -- a key that changes under way


@contextlib.asynccontextmanager
async def following(folder: pathlib.Path, written: str, more: str = "") -> AsyncIterator[OpenAI]:
    """The upstream of a config whose key is written so, its files looked at often."""
    from proxy.upstream.openai import OpenAI

    file = folder / "config.yaml"
    block = f'{{base_url: "http://127.0.0.1:1/v1", api_key: "{written}"{more}}}'
    file.write_text(f"upstreams: {{up: {block}}}\nroutes: [{{name: all, targets: [up]}}]\n")
    source, loaded = config.load(file, {"PREFIX": "sk-"})
    services = Services(CollectorRegistry())
    services.watch = Watch(services.tasks, 0.02)
    upstream = OpenAI("up", loaded.upstreams["up"])
    upstream.credential.keep_fresh(source, services)
    await upstream.credential.settled()
    try:
        yield upstream
    finally:
        services.watch.stop()
        await services.tasks.drain(1)


def bearer(upstream: OpenAI) -> str:
    field = upstream.credential.field
    return field[1].decode() if field else ""


async def test_a_key_from_a_file_changes_with_it(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "key").write_text("sk-first-one\n")
    async with following(tmp_path, "${file:key}") as upstream:
        assert bearer(upstream) == "Bearer sk-first-one"
        (tmp_path / "key").write_text("sk-second-one\r\n")
        await until(lambda: bearer(upstream) == "Bearer sk-second-one")
        assert upstream.credential.mask.hide(b"sk-first-one sk-second-one") == b"*** ***"
    assert [record.getMessage() for record in caplog.records if record.name == "weir.credentials"] == [
        "a new key is in use"
    ]
    assert "sk-" not in "".join(str(vars(record)) for record in caplog.records)


async def test_the_swap_of_a_mounted_secret_is_seen(tmp_path: pathlib.Path) -> None:
    """As Kubernetes does it: `key` is a link to `..data/key`, `..data` one to a folder, and that link is swapped."""
    for name, key in (("..first", "sk-first-one"), ("..second", "sk-second-one")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(key)
    (tmp_path / "..data").symlink_to("..first")
    (tmp_path / "key").symlink_to("..data/key")
    async with following(tmp_path, "${file:key}") as upstream:
        (tmp_path / "..tmp").symlink_to("..second")
        (tmp_path / "..tmp").replace(tmp_path / "..data")
        await until(lambda: bearer(upstream) == "Bearer sk-second-one")


async def test_a_key_that_holds_files_is_put_together_again(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_text("one\n")
    (tmp_path / "b").write_text("two\n")
    async with following(tmp_path, "${PREFIX}${file:a}-${file:b}$$") as upstream:
        assert bearer(upstream) == "Bearer sk-one-two$"
        (tmp_path / "b").write_text("three\n")
        await until(lambda: bearer(upstream) == "Bearer sk-one-three$")


@pytest.mark.parametrize("content", [b"", b"\n", b"sk-a\nsk-b", b"\xff\xfe", "sk–dash".encode(), b"sk\x00"])
async def test_what_is_no_key_leaves_the_old_one(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "key").write_text("sk-first-one")
    async with following(tmp_path, "${file:key}") as upstream:
        (tmp_path / "key").write_bytes(content)
        await until(lambda: caplog.records)
        assert bearer(upstream) == "Bearer sk-first-one"
        [record] = caplog.records
        assert record.getMessage() == "a new key cannot be taken: the old one stays"
        assert (record.levelno, record.upstream) == (logging.WARNING, "up")
        assert "sk-" not in str(vars(record))
        (tmp_path / "key").write_text("sk-second-one")
        await until(lambda: bearer(upstream) == "Bearer sk-second-one")


async def test_a_file_that_cannot_be_read_leaves_the_old_one(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "key").write_text("sk-first-one")
    async with following(tmp_path, "${file:key}") as upstream:
        (tmp_path / "key").unlink()
        (tmp_path / "key").mkdir()
        await until(lambda: caplog.records)
        assert bearer(upstream) == "Bearer sk-first-one"
        assert "Is a directory" in caplog.records[0].reason


async def test_a_key_that_comes_after_the_start_is_taken(tmp_path: pathlib.Path) -> None:
    (tmp_path / "key").write_text("")
    async with following(tmp_path, "${file:key}") as upstream:
        assert upstream.credential.field is None
        (tmp_path / "key").write_text("sk-first-one")
        await until(lambda: bearer(upstream) == "Bearer sk-first-one")


async def test_what_passes_through_gets_no_key_that_comes_later(tmp_path: pathlib.Path) -> None:
    (tmp_path / "key").write_text("")
    (tmp_path / "other").write_text("")
    async with (
        following(tmp_path, "${file:key}", ", auth: passthrough") as upstream,
        following(tmp_path, "${file:other}") as witness,
    ):
        (tmp_path / "key").write_text("sk-first-one")
        (tmp_path / "other").write_text("sk-first-one")
        await until(lambda: bearer(witness))
        assert upstream.credential.field is None


async def test_a_query_key_changes_too(tmp_path: pathlib.Path) -> None:
    (tmp_path / "key").write_text("sk-first-one")
    async with following(tmp_path, "${file:key}", ', api_key_in: "query:key"') as upstream:
        assert upstream.credential.signed("/v1/x") == "/v1/x?key=sk-first-one"
        (tmp_path / "key").write_text("sk-second+one")
        await until(lambda: upstream.credential.signed("/v1/x") == "/v1/x?key=sk-second%2Bone")


# -- tokens, in a running Weir

ASK = {"model": "m", "messages": []}


def house(url: str, token: Any, more: str = "", targets: str = "[up]") -> str:
    block = f'{{base_url: "{url}/v1", token: {orjson.dumps(token).decode()}}}'
    return (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        f"upstreams: {{up: {block}{more}}}\nroutes: [{{name: all, targets: {targets}}}]\n"
    )


async def test_the_first_request_has_its_token_already() -> None:
    async with testing.upstream(testing.chat("hi")) as upstream:
        shell = ["/bin/sh", "-c", 'sleep 0.2; echo \'{"access_token": "token-1", "expires_in": 3600}\'']
        async with testing.configured(house(upstream.url, {"command": shell})) as weir:
            answer = await testing.ask(weir, ASK, headers=CALLERS)
    assert answer.status == 200
    assert upstream.last.headers["authorization"] == "Bearer token-1"
    assert not {"api-key", "x-api-key", "x-goog-api-key", "cookie"} & set(upstream.last.headers)


async def test_without_a_token_requests_are_refused_until_there_is_one(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        testing.configured(house(upstream.url, {"file": str(file)})) as weir,
    ):
        refused = await testing.ask(weir, ASK)
        assert refused.status == 503
        assert refused.json()["error"] == {
            "message": "upstream 'up' has no valid token now; Weir's log says why",
            "type": "upstream_error",
            "code": "upstream_unavailable",
            "param": None,
        }
        assert not upstream.wires
        assert [record.levelno for record in caplog.records if record.name == "weir.credentials"] == [logging.ERROR]
        file.write_text("token-1")
        await until(lambda: bearer_of(weir) == b"Bearer token-1")
        assert (await testing.ask(weir, ASK)).status == 200
    assert upstream.last.headers["authorization"] == "Bearer token-1"


def bearer_of(weir: app.Weir) -> bytes:
    field = weir.gateway.upstreams["up"].credential.field
    return field[1] if field else b""


async def test_an_attempt_that_began_without_a_token_does_not_go_up_without_one() -> None:
    """It came while the attempt's plugins were at work: the header was made before."""
    async with serving(each(OK)) as server, opened(server.url, token=config.Token(command=["true"])) as upstream:
        from proxy.attempt import Attempt, Target
        from proxy.errors import Unavailable

        asked = request()
        attempt = Attempt(1, Target("up"), upstream.request_fields(asked), asked.at_hand)
        upstream.credential.put("token-1")
        with pytest.raises(Unavailable, match="no valid token") as refused:
            await upstream.send(asked, attempt, lambda *_: None)
        assert refused.value.status == 503
        await ask(upstream)
    assert [head.all("authorization") for head in server.heads] == [[b"Bearer token-1"]]


async def test_the_demo_does_not_stand_in_for_a_token() -> None:
    yaml = house("http://127.0.0.1:1", {"command": ["echo", "token-1"]}).replace(
        "token:", "without_api_key: demo, token:"
    )
    async with testing.configured(yaml) as weir:
        assert weir.gateway.upstreams["up"].settings.base_url == "http://127.0.0.1:1/v1"


async def test_a_stop_ends_a_command_that_hangs(tmp_path: pathlib.Path) -> None:
    hangs = "[ -e once ] && { echo $$$$ > second; exec sleep 600; }; touch once; echo token-1"
    command = ["/bin/sh", "-c", f"cd {tmp_path}; {hangs}"]
    async with testing.configured(house("http://127.0.0.1:1", {"command": command, "timeout": "60s"})) as weir:
        assert bearer_of(weir) == b"Bearer token-1"
        renewal = weir.gateway.upstreams["up"].credential._renewal
        assert renewal is not None
        renewal.wake()
        await until(lambda: (tmp_path / "second").exists() and (tmp_path / "second").read_text())
    pid = int((tmp_path / "second").read_text())
    await until(lambda: not is_alive(pid))
