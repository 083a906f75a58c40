"""What a caller, an upstream and everything in between get to see, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import logging
import re
import threading
from typing import TYPE_CHECKING, Any

import aiohttp
import openai
import orjson
import pytest
from prometheus_client import CollectorRegistry

from plugins.pii import Pii, PiiConfig
from plugins.pii.redactor import Redactor
from proxy import cli, testing
from proxy.logs import JsonLines
from proxy.services import Services
from proxy.source import ConfigError
from tests import wire
from tests.plugins.pii.house import EMAIL, OTHER, ask, echo, house, keys

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

CANARY = "canary.7@example.com"
PLACEHOLDER = re.compile(r"<EMAIL_[0-9a-z]{4,}>")

PLACES: dict[str, tuple[str, Any]] = {
    "a message": (testing.CHAT, ask(CANARY)),
    "a part": (testing.CHAT, ask("", messages=[{"role": "user", "content": [{"type": "text", "text": CANARY}]}])),
    "an image's URL": (
        testing.CHAT,
        ask(
            "",
            messages=[
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"http://x/?{CANARY}"}}]}
            ],
        ),
    ),
    "the system's message": (testing.CHAT, ask("", messages=[{"role": "system", "content": CANARY}])),
    "the developer's message": (testing.CHAT, ask("", messages=[{"role": "developer", "content": CANARY}])),
    "a name": (testing.CHAT, ask("", messages=[{"role": "user", "content": "", "name": CANARY}])),
    "a refusal": (testing.CHAT, ask("", messages=[{"role": "assistant", "refusal": CANARY}])),
    "a tool's arguments": (
        testing.CHAT,
        ask(
            "",
            messages=[
                {
                    "role": "assistant",
                    "tool_calls": [{"function": {"arguments": orjson.dumps({"to": f"\n{CANARY}"}).decode()}}],
                }
            ],
        ),
    ),
    "a tool's result": (testing.CHAT, ask("", messages=[{"role": "tool", "content": f'{{"to":"{CANARY}"}}'}])),
    "a tool's description": (testing.CHAT, ask("", tools=[{"function": {"name": "f", "description": CANARY}}])),
    "a schema's enum": (testing.CHAT, ask("", tools=[{"function": {"parameters": {"enum": [CANARY]}}}])),
    "a prediction": (testing.CHAT, ask("", prediction={"type": "content", "content": CANARY})),
    "the user": (testing.CHAT, ask("", user=CANARY)),
    "metadata": (testing.CHAT, ask("", metadata={"who": CANARY})),
    "a key of metadata": (testing.CHAT, ask("", metadata={CANARY: "x"})),
    "a stop word": (testing.CHAT, ask("", stop=["x", CANARY])),
    "something unheard of": (testing.CHAT, ask("", extra={"deep": [[{"er": CANARY}]]})),
    "escapes": (testing.CHAT, b'{"messages":[{"content":"%b"}]}' % CANARY.replace("@", "\\u0040").encode()),
    "a prompt": ("/v1/completions", {"model": "m", "prompt": CANARY}),
    "prompts": ("/v1/completions", {"model": "m", "prompt": ["x", CANARY], "suffix": "y"}),
    "an input": ("/v1/responses", {"model": "m", "input": CANARY}),
    "instructions": ("/v1/responses", {"model": "m", "input": "x", "instructions": CANARY}),
    "a call's output": ("/v1/responses", {"model": "m", "input": [{"type": "function_call_output", "output": CANARY}]}),
    "what is embedded": ("/v1/embeddings", {"model": "m", "input": [CANARY, "x"]}),
    "Anthropic's messages": ("/v1/messages", {"model": "m", "system": [{"text": CANARY}], "messages": []}),
    "TGI's inputs": ("/generate", {"inputs": CANARY, "parameters": {"stop": [CANARY]}}),
    "invalid JSON": (testing.CHAT, b'{"messages":[{"content":"' + CANARY.encode()),
    "plain text": ("/unknown", CANARY.encode()),
    "lines of JSON": ("/v1/files", b'{"a":1}\n{"a":"%b"}\n' % CANARY.encode()),
}


@pytest.mark.parametrize("place", PLACES)
async def test_a_canary_reaches_nothing_that_is_behind_pii(place: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    path, body = PLACES[place]
    async with house(behind=[{"cache": {}}], script=testing.answer(b'{"ok":true}')) as home:
        answer = await home.ask(body, path=path)
        assert (answer.status, answer.json()) == (200, {"ok": True})
        sent = home.upstream.last
        assert PLACEHOLDER.search(sent.body.decode())
        kept = repr(home.weir.store.__dict__) + home.page() + home.log.getvalue().decode()
        told = "".join(JsonLines().format(record) for record in caplog.records)
        for seen in (sent.body.decode(), sent.target, repr(sent.fields), kept, told):
            assert CANARY not in seen


async def test_nothing_but_placeholders_is_in_redis_and_each_caller_gets_his_own(redis: RedisServer):
    async with house(before=[keys("ada", "eve")], behind=[{"cache": {"scope": "shared"}}], redis=redis.url) as home:
        for key, value in (("ada", EMAIL), ("ada", EMAIL), ("eve", EMAIL), ("ada", OTHER), ("ada", OTHER)):
            answer = await home.ask(ask(f"I am {value}"), key=key)
            assert answer.json()["choices"][0]["message"]["content"] == f"You wrote: I am {value} and that is all"
            home.weir.gateway.settle()
        assert len(home.upstream.requests) == 3  # two of ada's again; eve's are hers
        kept = [redis.ask("GET", key) for key in redis.keys("*cache1:*")]
        assert len(kept) == 3
    assert all("<EMAIL_" in str(entry) and "example.com" not in str(entry) for entry in kept)


async def test_those_who_share_an_answer_on_its_way_get_their_own_values_back():
    gate = asyncio.Event()

    async def slow(received: testing.Received, out: testing.Wire) -> None:
        await gate.wait()
        await echo(received, out)

    async with house(slow, behind=[{"cache": {}}]) as home:
        body = ask(f"I am {EMAIL}", stream=True)
        asking = [asyncio.ensure_future(home.ask(body)) for _ in range(3)]
        await wire.until(lambda: home.upstream.requests and home.weir.in_flight == len(asking))
        gate.set()
        got = [await each for each in asking]
        assert len(home.upstream.requests) == 1
        assert all(EMAIL.encode() in answer.body and b"<EMAIL" not in answer.body for answer in got)


async def test_the_official_sdk_reads_all_of_it():
    async with house() as home, home.sdk as sdk:
        chat = await sdk.chat.completions.create(model="m", messages=ask(f"I am {EMAIL}")["messages"])
        assert chat.choices[0].message.content == f"You wrote: I am {EMAIL} and that is all"
        stream = await sdk.chat.completions.create(model="m", stream=True, messages=ask(f"I am {EMAIL}.")["messages"])
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == f"You wrote: I am {EMAIL}. and that is all"
        assert home.found() == {"email request": 2.0}


async def test_a_placeholder_is_the_same_in_each_turn_and_another_for_another_caller():
    async with house(before=[keys("ada", "eve")], script=testing.answer(b"{}")) as home:
        for key in ("ada", "ada", "eve"):
            await home.ask(ask(f"{EMAIL} and {EMAIL}"), key=key)
        told = [PLACEHOLDER.findall(received.body.decode()) for received in home.upstream.requests]
        assert told[0] == told[1] == [told[0][0]] * 2
        assert told[2][0] != told[0][0]


async def test_replicas_with_the_same_key_make_the_same_placeholders():
    told = []
    for key in ("k" * 16, "k" * 16, "l" * 16):
        async with house(key=key, script=testing.answer(b"{}")) as home:
            await home.ask(ask(EMAIL))
            told.append(home.upstream.last.body)
    assert told[0] == told[1] != told[2]


async def test_only_what_was_found_changes():
    before = (
        b'{ "model":"m", "temperature":1.0, "temperature":1e0, "n":123456789012345678901, "a":"\\u00e9\\/ caf\xc3\xa9 '
    )
    body = before + EMAIL.encode() + b'\\n", "messages":[ ]}\r\n'
    async with house(script=testing.answer(b"{}")) as home:
        await home.ask(body)
        sent = home.upstream.last
        assert sent.body.startswith(before + b"<EMAIL_")
        assert sent.body.endswith(b'>\\n", "messages":[ ]}\r\n')
        assert sent.headers["content-length"] == str(len(sent.body))


UNTOUCHED = """
def f(a, b): return a @ b  # v1.2.3, 10 items at $19.99; see #12345 and C4, S3, EKS-2
commit 3f2b8c1d9e0a7f6b5c4d3e2f1a0b9c8d7e6f5a4b  uuid 123e4567-e89b-12d3-a456-426614174000
2026-11-28T21:13:14.123Z INFO order 4711-0815-2342 took 12.5ms, 1760000000 1760000000000
git@github.com:org/name.git std::vector<int> a::b::c x = "\\n\\t" C:\\new\\bin  ISBN 978-3-16-148410-0
"""


async def test_code_logs_and_ids_pass_byte_for_byte():
    body = orjson.dumps(ask(UNTOUCHED, stream=True, metadata={"id": "user-123", "sha": "deadbeef" * 5}))
    said = [
        b'data: {"choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % orjson.dumps(line)
        for line in UNTOUCHED.splitlines(keepends=True)
    ]
    async with house(testing.stream(*said, testing.chat_event({}, "stop"), b"data: [DONE]\n\n")) as home:
        answer = await home.ask(body)
        assert home.upstream.last.body == body
        assert answer.body == b"".join([*said, testing.chat_event({}, "stop"), b"data: [DONE]\n\n"])
        assert "x-weir-pii" not in answer.headers


ACTIONS = {
    "restore": (r"I am <EMAIL_[0-9][0-9a-z]{3}>", f"I am {EMAIL}"),
    "mask": (r"I am <EMAIL>", "I am <EMAIL>"),
    "hash": (r"I am <EMAIL_[0-9][0-9a-z]{15}>", "I am <EMAIL_"),
    "report": (f"I am {EMAIL}", f"I am {EMAIL}"),
}


@pytest.mark.parametrize("action", ACTIONS)
async def test_actions(action: str):
    sent, got = ACTIONS[action]
    async with house(action=action) as home:
        answer = await home.ask(ask(f"I am {EMAIL}"))
        assert re.fullmatch(sent, home.upstream.last.json()["messages"][0]["content"])
        assert got in answer.json()["choices"][0]["message"]["content"]
        assert answer.headers["x-weir-pii"] == "1"


async def test_an_entity_may_have_an_action_of_its_own():
    async with house(actions={"email": "block"}) as home:
        answer = await home.ask(ask(f"I am {EMAIL}"))
        assert (answer.status, answer.json()["error"]["code"]) == (403, "pii_found")
        assert EMAIL not in answer.body.decode()
        assert not home.upstream.requests
        assert (await home.ask(ask("pay 4111 1111 1111 1111"))).status == 200


async def test_what_may_pass():
    allow = {"domains": ["example.com"], "values": ["4111 1111 1111 1111"]}
    async with house(allow=allow) as home:
        body = ask(f"{EMAIL}, x@mail.example.com, 4111 1111 1111 1111")
        await home.ask(body)
        assert home.upstream.last.json() == body


async def test_roles():
    body = ask("", messages=[{"role": "system", "content": f"Tell {OTHER}"}, {"role": "user", "content": f"é {EMAIL}"}])
    async with house(roles=["user"]) as home:
        await home.ask(body)
        system, user = home.upstream.last.json()["messages"]
        assert system["content"] == f"Tell {OTHER}"
        assert user["content"].startswith("é <EMAIL_")


async def test_a_route_may_have_other_settings_or_none():
    async with house(route="plugins: {pii: off}") as home:
        await home.ask(ask(EMAIL))
        assert home.upstream.last.json() == ask(EMAIL)


async def test_an_operators_own_text_may_name_an_address():
    async with house(
        testing.answer(b"{}", status=503), behind=["failover"], targets='[up, {static: "ask help@example.com"}]'
    ) as home:
        answer = await home.ask(ask("hi"))
        assert answer.json()["choices"][0]["message"]["content"] == "ask help@example.com"


async def test_answers_may_say_what_they_like():
    async with house(testing.chat(f"Ask {OTHER}"), answers="pass") as home:
        answer = await home.ask(ask("Whom?"))
        assert answer.json()["choices"][0]["message"]["content"] == f"Ask {OTHER}"
        assert home.found() == {}


REFUSED: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "UTF-16": (orjson.dumps(ask(EMAIL)).decode().encode("utf-16"), {}, 400, "unreadable_body"),
    "UTF-16 without a mark": (orjson.dumps(ask(EMAIL)).decode().encode("utf-16-le"), {}, 400, "unreadable_body"),
    "another charset": (
        orjson.dumps(ask(EMAIL)),
        {"content_type": "application/json; charset=utf-7"},
        400,
        "unreadable_body",
    ),
    "gzip": (gzip.compress(orjson.dumps(ask(EMAIL))), {"content_encoding": "gzip"}, 400, "unreadable_body"),
    "a form": (b"a=bob%40example.com", {"content_type": "application/x-www-form-urlencoded"}, 403, "pii_found"),
    "a broken form": (b"--x bob", {"content_type": "multipart/form-data; boundary=B"}, 400, "unreadable_body"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_read_is_refused(case: str):
    body, fields, status, code = REFUSED[case]
    async with house() as home:
        answer = await home.ask(body, **fields)
        assert (answer.status, answer.json()["error"]["code"]) == (status, code)
        assert not home.upstream.requests


async def test_a_form_is_looked_through_part_by_part():
    form = aiohttp.FormData()
    form.add_field("file", b"\x00\x01RIFF" + bytes(range(256)) * 8, filename=f"{EMAIL}.wav", content_type="audio/wav")
    form.add_field("prompt", f"This is {EMAIL}")
    async with house(testing.answer(b"{}")) as home, aiohttp.ClientSession() as client:
        async with client.post(f"{home.weir.url}/v1/audio/transcriptions", data=form) as answer:
            assert answer.status == 200
        sent = home.upstream.last.body
        assert EMAIL.encode() not in sent
        assert b"\x00\x01RIFF" + bytes(range(256)) * 8 in sent
        assert b"This is <EMAIL_" in sent


async def test_a_url_and_a_header_are_looked_at_as_well():
    async with house(testing.answer(b"{}")) as home:
        answer = await home.ask({}, path="/v1/models/bob%40example.com?x=1")
        assert (answer.status, answer.json()["error"]["code"]) == (403, "pii_found")
        assert (await home.ask({}, path="/v1/x?key=AIzaSyA1234567890abcdefghijklmnopqrstuv")).status == 200
        await home.ask({}, x_user_email=EMAIL, x_team_key="sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD")
        assert home.upstream.last.headers["x-user-email"].startswith("<EMAIL_")
        assert home.upstream.last.headers["x-team-key"].startswith("sk-proj-")
    assert b"example.com" not in home.log.getvalue()


async def test_a_websocket_is_refused():
    async with house() as home, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{home.weir.url}/v1/realtime")
        assert refused.value.status == 403
        assert not home.upstream.requests


async def test_endpoints_that_nobody_knows_may_be_blocked():
    async with house(testing.answer(b"{}"), unknown="block") as home:
        answer = await home.ask({}, path="/v1/files")
        assert (answer.status, answer.json()["error"]["code"]) == (403, "pii_unknown_endpoint")
        assert (await home.ask(ask("hi"))).status == 200


async def test_an_upstreams_error_that_quotes_the_prompt_is_told_in_the_apps_own_words():
    async def refuse(received: testing.Received, out: testing.Wire) -> None:
        quoted = received.json()["messages"][0]["content"]
        body = orjson.dumps({"error": {"message": f"cannot: {quoted}", "type": "x", "code": None, "param": None}})
        await testing.answer(body, status=400)(received, out)

    async with house(refuse) as home, home.sdk as sdk:
        with pytest.raises(openai.BadRequestError, match=f"cannot: I am {EMAIL}"):
            await sdk.chat.completions.create(model="m", messages=ask(f"I am {EMAIL}")["messages"])
    assert b"example.com" not in home.log.getvalue()


async def test_a_detector_that_fails_lets_nothing_pass(monkeypatch: pytest.MonkeyPatch):
    async with house() as home:
        plugin = home.weir.plan.plugins[0]
        monkeypatch.setattr(plugin._redactor, "_find", lambda text: 1 / 0)
        answer = await home.ask(ask(EMAIL))
        assert (answer.status, answer.json()["error"]["code"]) == (500, "plugin_failed")
        assert not home.upstream.requests


async def test_a_long_body_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch):
    """Field case 92: it is read beside the loop's thread."""
    text, read, where = "a word and another one. " * 20_000, Redactor.body, []

    def body(*args: Any) -> bytes:
        where.append(threading.current_thread())
        return read(*args)

    monkeypatch.setattr(Redactor, "body", body)
    async with house(testing.answer(b"{}")) as home:
        await home.ask(ask(f"{text} {EMAIL}"))
        assert re.search(rb"one\.  <EMAIL_[0-9a-z]{4}>", home.upstream.last.body)
    assert where
    assert threading.main_thread() not in where


async def test_a_cache_before_it_is_refused_at_the_start(tmp_path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "config.yaml"
    file.write_text(
        'upstreams: {up: {base_url: "http://127.0.0.1:1/v1"}}\nplugins:\n  - cache\n  - pii\n'
        "routes:\n  - {name: default, targets: [up]}\n"
    )
    assert cli.main(["check", str(file)]) == 1
    told = capsys.readouterr().err
    assert "config.yaml:3 plugins[0].cache: plugin 'cache' stands before 'pii', which gives 'redacted text'" in told
    assert "put pii before it" in told


async def test_explain_says_what_it_would_find():
    plugin = Pii(PiiConfig(actions={"credit_card": "mask"}), name="pii")
    asked = testing.exchange(body=orjson.dumps(ask(f"{EMAIL}, {OTHER}, 4111 1111 1111 1111")))
    services = Services(CollectorRegistry())
    assert await plugin.explain(asked, services) == [
        "finds 2 of the kind 'email' (restore), 1 of the kind 'credit_card' (mask)"
    ]
    assert await plugin.explain(testing.exchange(), services) == ["finds nothing"]


async def test_settings_that_do_not_fit_are_refused():
    for setting, said in (
        ({"actions": {"emial": "mask"}}, "did you mean 'email'?"),
        ({"key": "short"}, "16 characters"),
        ({"entities": ["name"]}, "entities"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            async with house(**setting):
                pass
