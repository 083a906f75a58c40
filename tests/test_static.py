"""Static answers as apps see them: whole and streamed, in each endpoint's shape, after upstreams that failed or without any."""

import contextlib
import io

import openai
import orjson
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response as ApiResponse

from proxy import static, testing
from proxy.plugin import Plugin, PluginConfig
from tests import wire

SORRY = "Sorry, back soon."
DOWN = testing.answer(b'{"error": {"message": "down"}}', status=503)
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
RETRY = "[{retry: {use: 'tests.test_attempts:Retry'}}]"
PRICED = "[{retry: {use: 'tests.test_attempts:Retry'}}, metering]"


def house(up="http://127.0.0.1:1", plugins="[]", targets=f"[{{static: '{SORRY}'}}]"):
    return (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        f'upstreams: {{up: {{base_url: "{up}/v1"}}}}\nplugins: {plugins}\n'
        f"routes: [{{name: main, targets: {targets}}}]\n"
    )


BEHIND = f"[up, {{upstream: up, model: other}}, {{static: '{SORRY}'}}]"


def events(answer):
    assert answer.headers["content-type"] == "text/event-stream"
    lines = [line.removeprefix(b"data: ") for line in answer.body.split(b"\n") if line.startswith(b"data: ")]
    return [line if line == b"[DONE]" else orjson.loads(line) for line in lines]


# -- whole answers


async def test_a_chat_gets_its_answer_from_weir_itself():
    async with testing.configured(house()) as weir:
        answer = await testing.ask(weir, CHAT)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-weir-static"] == "true"
    assert answer.headers["x-weir-attempts"] == "0"
    assert answer.headers["x-weir-route"] == "main"
    assert "x-weir-upstream" not in answer.headers
    told = ChatCompletion.model_validate(answer.json(), strict=True)
    assert (told.model, told.choices[0].message.content, told.choices[0].finish_reason) == ("gpt-4o", SORRY, "stop")
    assert told.usage.total_tokens == 0


async def test_a_completion_gets_a_choice_for_each_prompt():
    async with testing.configured(house()) as weir:
        answer = await testing.ask(weir, {"model": "m", "prompt": ["a", "b"], "n": 2}, path="/v1/completions")
    told = Completion.model_validate(answer.json(), strict=True)
    assert [(choice.index, choice.text) for choice in told.choices] == [(place, SORRY) for place in range(4)]


async def test_a_response_gets_a_message():
    async with testing.configured(house()) as weir:
        answer = await testing.ask(weir, {"model": "m", "input": "Hi"}, path="/v1/responses")
    told = ApiResponse.model_validate(answer.json())
    assert (told.status, told.output_text, told.usage.total_tokens) == ("completed", SORRY, 0)


@pytest.mark.parametrize(
    ("body", "choices"),
    [
        ({"messages": [], "n": 3}, 3),
        ({"messages": [], "n": 10**9}, static.MAX_CHOICES),
        ({"messages": [], "n": -1}, 1),
        ({"messages": [], "n": "2"}, 1),
        ([], 1),
        (b"no json", 1),
        (b"", 1),
    ],
)
async def test_whatever_is_asked_there_is_an_answer(body, choices):
    async with testing.configured(house()) as weir:
        answer = await testing.ask(weir, body)
    assert [choice["message"]["content"] for choice in answer.json()["choices"]] == [SORRY] * choices


@pytest.mark.parametrize(("prompt", "choices"), [([1, 2, 3], 1), ([[1, 2], [3]], 2), ("a", 1), ([], 1)])
async def test_numbers_are_one_prompt(prompt, choices):
    async with testing.configured(house()) as weir:
        answer = await testing.ask(weir, {"prompt": prompt}, path="/v1/completions")
    assert len(answer.json()["choices"]) == choices


# -- streams


@pytest.mark.parametrize("counted", [False, True])
async def test_a_chat_streams(counted):
    body = {**CHAT, "stream": True, **({"stream_options": {"include_usage": True}} if counted else {})}
    async with testing.configured(house()) as weir:
        answer = await testing.ask(weir, body)
        await wire.until(lambda: not weir.in_flight)
        page = weir.metrics.page().decode()
    assert answer.is_whole
    *told, done = events(answer)
    usage = told.pop() if counted else None
    assert done == b"[DONE]"
    assert [(chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]) for chunk in told] == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": SORRY}, None),
        ({}, "stop"),
    ]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 0) if counted else usage is None
    assert 'weir_requests_total{endpoint="chat",outcome="ok",route="main"} 1.0' in page
    assert "gen_ai_server_time_to_first_token_seconds_count" not in page


async def test_openais_client_reads_every_shape():
    async with contextlib.AsyncExitStack() as stack:
        weir = await stack.enter_async_context(testing.configured(house()))
        client = openai.AsyncOpenAI(base_url=f"{weir.url}/v1", api_key="any", max_retries=0)
        await stack.enter_async_context(client)
        chat = await client.chat.completions.create(**CHAT, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in chat]) == SORRY
        text = await client.completions.create(model="m", prompt="Hi", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in text]) == SORRY
        async with client.responses.stream(model="m", input="Hi") as response:
            kinds = [event.type async for event in response]
            assert (await response.get_final_response()).output_text == SORRY
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


# -- as the last target


async def test_it_serves_when_the_upstreams_do_not():
    async with testing.upstream(DOWN) as up, testing.configured(house(up.url, RETRY, BEHIND)) as weir:
        answer = await testing.ask(weir, CHAT)
        await wire.until(lambda: not weir.in_flight)
        assert weir.gateway.upstreams["up"].in_flight == 0
    assert len(up.requests) == 2
    assert answer.json()["choices"][0]["message"]["content"] == SORRY
    assert (answer.headers["x-weir-static"], answer.headers["x-weir-attempts"]) == ("true", "2")
    assert "x-weir-upstream" not in answer.headers


async def test_an_upstream_that_serves_is_heard():
    async with (
        testing.upstream(testing.chat("hi")) as up,
        testing.configured(house(up.url, RETRY, BEHIND)) as weir,
    ):
        answer = await testing.ask(weir, CHAT)
    assert (answer.headers["x-weir-upstream"], "x-weir-static" in answer.headers) == ("up", False)


class Continue(Plugin[PluginConfig]):
    """Lets a text that breaks off be continued, by whoever is left."""

    async def on_attempt(self, exchange, attempt):
        attempt.continues = True

    def on_attempt_end(self, exchange, attempt):
        attempt.retry = True


async def test_it_does_not_go_on_with_what_an_upstream_has_begun():
    plugins = f"[{{continue: {{use: '{__name__}:Continue'}}}}]"
    breaks = testing.stream(*testing.chat_events(["To", "be"], ends=False), ends=False)
    async with (
        testing.upstream(breaks) as up,
        testing.configured(house(up.url, plugins, f"[up, {{static: '{SORRY}'}}]"), stdout := io.BytesIO()) as weir,
    ):
        answer = await testing.ask(weir, {**CHAT, "stream": True})
        await wire.until(lambda: not weir.in_flight)
    assert not answer.is_whole
    assert SORRY.encode() not in answer.body
    assert b'"error"' in answer.body.splitlines()[-2]
    access = orjson.loads(stdout.getvalue())
    assert (access["upstream"], access["outcome"]) == ("up", "stream_interrupted")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/images/generations", "/v1/responses/r1/cancel"])
async def test_another_endpoint_gets_the_upstreams_own_failure(path):
    async with testing.upstream(DOWN) as up, testing.configured(house(up.url, RETRY, BEHIND)) as weir:
        answer = await testing.ask(weir, {"model": "m", "input": "x"}, path=path)
    assert (answer.status, answer.headers["x-weir-attempts"]) == (503, "2")


async def test_alone_it_leaves_other_endpoints_without_a_target():
    async with testing.configured(house()) as weir:
        answer = await testing.ask(weir, {"model": "m", "input": "x"}, path="/v1/embeddings")
    assert (answer.status, answer.json()["error"]["code"]) == (503, "upstream_unavailable")


@pytest.mark.parametrize("stream", [False, True])
async def test_it_costs_nothing_and_its_lines_name_no_upstream(stream):
    stdout = io.BytesIO()
    async with testing.upstream(DOWN) as up, testing.configured(house(up.url, PRICED, BEHIND), stdout) as weir:
        await testing.ask(weir, {**CHAT, "stream": stream})
        await wire.until(lambda: not weir.in_flight)
        page = weir.metrics.page().decode()
    lines = [orjson.loads(line) for line in stdout.getvalue().splitlines()]
    access, ledger = (next(line for line in lines if line["log"] == log) for log in ("access", "ledger"))
    assert (access["upstream"], access["attempts"], access["status"], access["outcome"]) == (None, 2, 200, "ok")
    assert (ledger["upstream"], ledger["cost_usd"], ledger["tokens"]["output"]) == (None, "0", 0)
    assert [attempt["upstream"] for attempt in ledger["attempts"]] == ["up", "up"]
    assert "weir_tokens_total{" not in page
    assert "weir_unpriced_requests_total{" not in page


async def test_a_long_request_is_read_before_it_is_answered():
    async with testing.configured(house()) as weir:
        body = {**CHAT, "stream": True, "messages": [{"role": "user", "content": "x" * 200_000}]}
        assert events(await testing.ask(weir, body))[-1] == b"[DONE]"


async def test_state_shows_it_without_its_text():
    async with testing.configured(house(targets=f"[up, {{static: '{SORRY}'}}]")) as weir:
        state = weir.state()
    assert state["routes"][0]["targets"] == [{"upstream": "up", "model": None}, {"static": True}]
