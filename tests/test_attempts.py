"""The loop over targets: what each try sends, when the next one is tried, and that each is over exactly once."""

import asyncio
import contextlib

import orjson
import pytest

from proxy import attempts, testing
from proxy.plugin import Plugin, PluginConfig, Rejected
from tests import wire

ASK = {"model": "m", "messages": []}
DOWN = testing.answer(b'{"error": {"message": "down"}}', status=503)
TRIES: list[str] = []


class Retry(Plugin[PluginConfig]):
    """Lets the next target be tried after whatever failed."""

    def on_attempt_end(self, exchange, attempt):
        TRIES.append(f"{attempt.number} {attempt.target.upstream} {attempt.status} {attempt.outcome}")
        attempt.retry = True


class Nowhere(Plugin[PluginConfig]):
    def select_targets(self, exchange, targets):
        return ()


class Backwards(Plugin[PluginConfig]):
    def select_targets(self, exchange, targets):
        return list(reversed(targets))


class EditConfig(PluginConfig):
    does: str


class Edit(Plugin[EditConfig]):
    """Changes what a try sends."""

    Config = EditConfig

    async def on_attempt(self, exchange, attempt):
        match self.config.does:
            case "header":
                attempt.headers["x-try"] = str(attempt.number)
                attempt.headers.pop("x-app", None)
            case "body":
                attempt.body = b'{"model": "changed", "messages": []}'
            case "refuse":
                raise Rejected("not this target")
            case "line break":
                attempt.headers["x-try"] = "1\r\nx-evil: 2"


class Replace(Plugin[PluginConfig]):
    """Changes the request itself."""

    async def on_request(self, exchange):
        exchange.request.replace_body(b'{"model": "replaced", "messages": [1, 2, 3]}')


@pytest.fixture(autouse=True)
def _no_tries():
    TRIES.clear()


def used(name, **settings):
    return {name.lower(): {"use": f"{__name__}:{name}", **settings}}


@contextlib.asynccontextmanager
async def house(*scripts, plugins=(), models=()):
    """Weir in front of upstreams `a`, `b`, … that are tried in this order."""
    async with contextlib.AsyncExitStack() as stack:
        names = "abc"[: len(scripts)]
        ups = [await stack.enter_async_context(testing.upstream(script)) for script in scripts]
        blocks = ", ".join(f'{name}: {{base_url: "{up.url}/v1"}}' for name, up in zip(names, ups, strict=True))
        targets = [
            {"upstream": name, "model": model} if model else name
            for name, model in zip(names, [*models, *[None] * len(names)], strict=False)
        ]
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f"upstreams: {{{blocks}}}\nplugins: {orjson.dumps(list(plugins)).decode()}\n"
            f"routes: [{{name: main, targets: {orjson.dumps(targets).decode()}}}]\n"
        )
        yield await stack.enter_async_context(testing.configured(text)), *ups


async def idle(weir):
    await wire.until(lambda: not weir.in_flight)
    return {name: upstream.in_flight for name, upstream in weir.gateway.upstreams.items()}


async def test_without_a_plugin_that_asks_for_it_there_is_one_try():
    async with house(DOWN, testing.chat("hi")) as (weir, a, b):
        answer = await testing.ask(weir, ASK)
        assert await idle(weir) == {"a": 0, "b": 0}
    assert (answer.status, len(a.requests), len(b.requests)) == (503, 1, 0)
    assert answer.headers["x-weir-attempts"] == "1"


class Again(Plugin[PluginConfig]):
    """Tries the same target once more, and again, after whatever failed."""

    def on_attempt_end(self, exchange, attempt):
        TRIES.append(f"{attempt.number} {attempt.target.upstream}")
        attempt.retry = attempt.again = True


async def test_the_same_target_is_tried_again_where_a_plugin_says_so():
    async def at_the_third(received, wire):
        await (testing.chat("hi") if len(a.requests) == 3 else DOWN)(received, wire)

    async with house(at_the_third, DOWN, plugins=[used("Again")]) as (weir, a, b):
        answer = await testing.ask(weir, ASK)
        assert await idle(weir) == {"a": 0, "b": 0}
    assert (answer.status, len(a.requests), len(b.requests)) == (200, 3, 0)
    assert (answer.headers["x-weir-upstream"], answer.headers["x-weir-attempts"]) == ("a", "3")
    assert TRIES == ["1 a", "2 a", "3 a"]


async def test_a_plugin_that_never_has_enough_is_stopped():
    async with house(DOWN, plugins=[used("Again")]) as (weir, a):
        assert (await testing.ask(weir, ASK)).status == 503
    assert len(a.requests) == attempts.MAX_ATTEMPTS


async def test_the_next_target_is_tried_where_a_plugin_says_so():
    async with house(DOWN, testing.chat("hi"), plugins=[used("Retry")]) as (weir, a, b):
        answer = await testing.ask(weir, ASK)
        assert await idle(weir) == {"a": 0, "b": 0}
        page = weir.metrics.page().decode()
    assert answer.status == 200
    assert (answer.headers["x-weir-upstream"], answer.headers["x-weir-attempts"]) == ("b", "2")
    assert a.last.body == b.last.body == orjson.dumps(ASK)
    assert TRIES == ["1 a 503 upstream_error", "2 b 200 ok"]
    assert 'weir_attempts_total{outcome="upstream_error",upstream="a"} 1.0' in page
    assert 'weir_attempts_total{outcome="ok",upstream="b"} 1.0' in page


async def test_the_last_targets_answer_goes_down():
    last = testing.answer(b'{"error": {"message": "too much"}}', status=429, retry_after="7")
    async with house(DOWN, last, plugins=[used("Retry")]) as (weir, _, _):
        answer = await testing.ask(weir, ASK)
        await idle(weir)
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert TRIES == ["1 a 503 upstream_error", "2 b 429 client_error"]


async def test_an_upstream_that_is_not_there_is_one_try():
    async with testing.upstream(DOWN) as gone:
        pass
    async with testing.upstream(testing.chat("hi")) as up:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{a: {{base_url: "{gone.url}/v1"}}, b: {{base_url: "{up.url}/v1"}}}}\n'
            f"plugins: {orjson.dumps([used('Retry')]).decode()}\nroutes: [{{name: main, targets: [a, b]}}]\n"
        )
        async with testing.configured(text) as weir:
            assert (await testing.ask(weir, ASK)).status == 200
            await idle(weir)
    assert TRIES == ["1 a 0 upstream_error", "2 b 200 ok"]


async def test_a_body_that_has_flown_by_is_not_sent_again():
    async with (
        house(DOWN, testing.chat("hi"), plugins=[used("Retry")]) as (weir, a, b),
        wire.connected(weir.url) as app,
    ):
        await app.send(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n", bytes(1000))
        await wire.until(lambda: a.wires)
        await app.send(bytes(99_000))
        assert (await app.answer()).status == 503
        await idle(weir)
    assert (len(a.last.body), b.requests) == (100_000, [])


async def test_each_target_gets_its_own_model():
    async with house(DOWN, DOWN, testing.chat("hi"), plugins=[used("Retry")], models=["big", None, "small"]) as house_:
        weir, *ups = house_
        assert (await testing.ask(weir, ASK)).status == 200
    assert [up.last.json()["model"] for up in ups] == ["big", "m", "small"]
    assert all(up.last.headers["content-length"] == str(len(up.last.body)) for up in ups)


async def test_targets_are_tried_in_the_order_that_plugins_leave():
    async with house(testing.chat("hi"), testing.chat("hi"), plugins=[used("Backwards")]) as (weir, a, _b):
        assert (await testing.ask(weir, ASK)).headers["x-weir-upstream"] == "b"
    assert not a.requests


async def test_no_target_at_all_is_503():
    async with house(testing.chat("hi"), plugins=[used("Nowhere")]) as (weir, a):
        answer = await testing.ask(weir, ASK)
    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (503, "upstream_unavailable")
    assert error["message"] == "no target of route 'main' can serve now"
    assert not a.requests


async def test_a_header_that_a_plugin_changes_is_that_trys_own():
    async with house(DOWN, testing.chat("hi"), plugins=[used("Edit", does="header"), used("Retry")]) as (weir, a, b):
        assert (await testing.ask(weir, ASK, headers={"x-app": "1", "x-other": "2"})).status == 200
    assert [up.last.headers["x-try"] for up in (a, b)] == ["1", "2"]
    assert all("x-app" not in up.last.headers and up.last.headers["x-other"] == "2" for up in (a, b))


async def test_a_body_that_a_plugin_changes_has_a_length_of_its_own():
    async with house(testing.chat("hi"), plugins=[used("Edit", does="body")]) as (weir, a):
        assert (await testing.ask(weir, ASK)).status == 200
    assert a.last.json()["model"] == "changed"
    assert a.last.headers["content-length"] == str(len(a.last.body))


@pytest.mark.parametrize("model", [None, "target's"])
async def test_a_request_that_a_plugin_replaced_goes_up_so(model):
    async with house(testing.chat("hi"), plugins=[used("Replace")], models=[model] if model else []) as (weir, a):
        assert (await testing.ask(weir, ASK)).status == 200
    assert a.last.json() == {"model": model or "replaced", "messages": [1, 2, 3]}
    assert a.last.headers["content-length"] == str(len(a.last.body))


async def test_a_refused_try_is_over_and_reaches_nobody():
    async with house(testing.chat("hi"), plugins=[used("Edit", does="refuse"), used("Retry")]) as (weir, a):
        answer = await testing.ask(weir, ASK)
        assert await idle(weir) == {"a": 0}
    assert (answer.status, answer.json()["error"]["message"]) == (403, "not this target")
    assert TRIES == ["1 a 0 rejected"]
    assert not a.requests


async def test_a_line_break_from_a_plugin_starts_no_header_field():
    async with house(testing.chat("hi"), plugins=[used("Edit", does="line break")]) as (weir, a):
        answer = await testing.ask(weir, ASK)
        assert await idle(weir) == {"a": 0}
    assert (answer.status, answer.json()["error"]["code"]) == (500, "plugin_failed")
    assert not a.requests


async def test_a_small_body_goes_up_in_one_piece_and_a_large_one_streams():
    async with house(testing.chat("hi")) as (weir, a), wire.connected(weir.url) as client:
        head = b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
        await client.send(head % 1000, bytes(500))
        await asyncio.sleep(0.05)
        assert a.connections == 0
        await client.send(bytes(500))
        assert (await client.answer()).status == 200
        await client.send(head % 100_000, bytes(500))
        await wire.until(lambda: weir.gateway.upstreams["a"].in_flight)
        await client.send(bytes(99_500))
        assert (await client.answer()).status == 200
    assert [len(received.body) for received in a.requests] == [1000, 100_000]


async def test_plugins_that_read_answers_get_them_unpacked():
    reads = {"reader": {"use": f"{__name__}:Reader"}}
    async with house(testing.chat("hi"), plugins=[reads]) as (weir, a):
        await testing.ask(weir, ASK, headers={"accept-encoding": "gzip, br"})
        await testing.ask(weir, ASK, headers={"accept-encoding": ""})
    assert [received.headers["accept-encoding"] for received in a.requests] == ["identity", "identity"]


async def test_without_such_plugins_the_app_gets_what_it_asked_for():
    async with house(testing.chat("hi")) as (weir, a):
        await testing.ask(weir, ASK, headers={"accept-encoding": "gzip, br"})
    assert a.last.headers["accept-encoding"] == "gzip, br"


class Reader(Plugin[PluginConfig]):
    async def on_response(self, exchange, response):
        return None


FAULTS: list[str] = []


class Faults(Plugin[PluginConfig]):
    """Notes what was wrong with each attempt."""

    def on_attempt_end(self, exchange, attempt):
        FAULTS.append(str(attempt.fault and attempt.fault.kind))


TOLD = b'data: {"error": {"message": "Input validation error: too long", "http_status_code": 422}}\n\n'
WORDS = testing.chat_events(["a", "b"], ends=False)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (testing.stream(TOLD, b"data: [DONE]\n\n"), "client"),
        (testing.stream(*WORDS, ends=False), "broken"),
        (
            testing.stream(*WORDS, b'data: {"error": {"message": "Request failed during generation"}}\n\n'),
            "server_error",
        ),
        (DOWN, "overloaded"),
        (testing.chat("hi"), "None"),
    ],
)
async def test_what_was_wrong_is_known_however_it_was_told(script, fault):
    FAULTS.clear()
    async with house(script, plugins=[used("Faults")]) as (weir, _):
        await testing.ask(weir, {**ASK, "stream": True})
        await idle(weir)
    assert [fault] == FAULTS


async def test_an_app_that_leaves_is_nobodys_fault():
    FAULTS.clear()

    async def silent(received, wire):
        await asyncio.sleep(30)

    async with house(silent, plugins=[used("Faults")]) as (weir, up):
        async with wire.connected(weir.url) as client:
            await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            await wire.until(lambda: up.requests)
        await idle(weir)
    assert FAULTS == ["client_gone"]
