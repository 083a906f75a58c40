"""The contract as an author meets it: signatures, settings, and what the hooks around targets and attempts may do."""

import asyncio
import gzip
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError
from typing_extensions import override

from proxy import plugin, testing
from proxy.plugin import (
    Attempt,
    Event,
    EventFilter,
    Exchange,
    FailureMode,
    Key,
    Outcome,
    Plugin,
    PluginConfig,
    Response,
    Target,
)
from proxy.registry import EITHER_HOOKS

HERE = __name__
ODD = b'{ "model":"m", "n":1.0, "n":1e2,\t"s":"\\u00e9\\/\\ud83d\\ude00" }\n'
WORDS = testing.chat_events(["one", "two"])
BUSY = testing.answer(b'{"error":{"message":"busy","type":"x","param":null,"code":null}}', status=503)


def used(name: str, cls: type[Plugin[Any]], **settings: Any) -> dict[str, Any]:
    return {name: {"use": f"{HERE}:{cls.__name__}", **settings}}


def yaml(first: str, second: str, plugins: str) -> str:
    """Two upstreams, tried in order."""
    return (
        'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
        f"upstreams: {{first: {{base_url: '{first}/v1'}}, second: {{base_url: '{second}/v1', api_key: sesame}}}}\n"
        f"plugins: [{plugins}]\n"
        "routes: [{name: default, targets: [first, {upstream: second, model: other}]}]\n"
    )


# -- the contract's words


def test_the_hooks_have_the_signatures_of_the_design():
    found = {
        name: (inspect.iscoroutinefunction(hook), list(inspect.signature(hook).parameters)[1:])
        for name, hook in vars(Plugin).items()
        if inspect.isfunction(hook) and name != "__init__"
    }
    assert found == {
        "lifespan": (False, ["services"]),
        "on_head": (False, ["exchange"]),
        "on_request": (False, ["exchange"]),
        "select_targets": (False, ["exchange", "targets"]),
        "on_attempt": (False, ["exchange", "attempt"]),
        "on_attempt_end": (False, ["exchange", "attempt"]),
        "on_response": (False, ["exchange", "response"]),
        "explain": (False, ["exchange", "services"]),
        "state": (False, []),
        "on_complete": (False, ["exchange", "outcome"]),
    }
    assert {
        "on_head",
        "on_request",
        "on_attempt",
        "on_response",
        "on_complete",
        "explain",
    } == EITHER_HOOKS  # those may be an `async def`


def test_all_that_the_contract_names_is_there_and_documented_where_it_says_more_than_its_name():
    assert all(hasattr(plugin, name) for name in plugin.__all__)
    assert all(hook.__doc__ for name, hook in vars(Plugin).items() if name.startswith(("on_", "select_", "lifespan")))


def test_settings_are_strict_and_frozen_and_every_plugin_has_two():
    class Config(PluginConfig):
        size: int = 1

    assert set(Config.model_fields) == {"use", "failure_mode", "size"}
    for wrong in ({"size": "1"}, {"sise": 1}, {"failure_mode": "ajar"}):
        with pytest.raises(ValidationError):
            Config.model_validate_json(testing.orjson.dumps(wrong))
    with pytest.raises(ValidationError):
        Config().size = 2


def test_a_plugin_that_overrides_nothing_changes_nothing():
    bare: Plugin[PluginConfig] = Plugin(PluginConfig(), name="bare")
    exchange, targets = testing.exchange(), [Target("up")]
    assert bare.failure_mode is FailureMode.CLOSED
    assert bare.lifespan(None) is None
    assert bare.on_request(exchange) is None
    assert bare.select_targets(exchange, targets) is targets
    assert bare.on_attempt(exchange, Attempt(1, targets[0], [], b"")) is None
    assert bare.on_attempt_end(exchange, Attempt(1, targets[0], [], b"")) is None
    assert bare.on_response(exchange, Response(200)) is None
    assert bare.on_complete(exchange, Outcome.OK) is None


# -- bodies


class Hooked(Plugin[PluginConfig]):
    """Runs every hook and asks for no body."""

    @override
    async def on_request(self, exchange: Exchange) -> None:
        assert exchange.request.endpoint == "chat"

    @override
    async def on_attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        assert attempt.headers["content-type"]

    @override
    async def on_response(self, exchange: Exchange, response: Response) -> None:
        assert response.headers["content-type"]


@pytest.mark.parametrize("body", [ODD, b'{"broken": ', b"\xff\x00", b""])
async def test_a_body_that_nobody_asks_for_is_not_parsed(body: bytes, monkeypatch: pytest.MonkeyPatch):
    async with (
        testing.upstream(testing.answer(body)) as upstream,
        testing.weir(upstream, [used("hooked", Hooked)]) as weir,
    ):
        for module in ("exchange", "routing", "body", "responses", "usage"):
            monkeypatch.setattr(f"proxy.{module}.orjson", None, raising=False)
        answer = await testing.ask(weir, body)
        monkeypatch.undo()
    assert upstream.last.body == body
    assert answer.body == body


class Reads(Plugin[PluginConfig]):
    seen: ClassVar[list[Any]] = []

    @override
    async def on_request(self, exchange: Exchange) -> None:
        Reads.seen.append(await exchange.request.json())


async def test_a_body_that_is_read_is_parsed_once_for_all_and_leaves_as_it_came():
    Reads.seen.clear()
    plugins = [used("one", Reads), used("other", Reads)]
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, plugins) as weir:
        await testing.ask(weir, ODD)
    one, other = Reads.seen
    assert one is other
    assert one["n"] == 100.0
    assert upstream.last.body == ODD


async def test_a_body_that_is_asked_for_and_is_no_json_is_the_clients_fault():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, [used("reads", Reads)]) as weir:
        answer = await testing.ask(weir, b'{"broken": ')
    assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_json")
    assert upstream.requests == []


class Replaces(Plugin[PluginConfig]):
    @override
    async def on_request(self, exchange: Exchange) -> None:
        exchange.request.replace_body(b'{"model":"m","replaced":true}')


async def test_a_body_that_is_replaced_goes_up_with_a_length_of_its_own():
    plugins = [used("it", Replaces)]
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, plugins) as weir:
        await testing.ask(weir, ODD)
    assert upstream.last.json() == {"model": "m", "replaced": True}
    assert upstream.last.headers["content-length"] == str(len(upstream.last.body))


# -- state of one request


NUMBER: Key[str] = Key("number")


class Numbered(Plugin[PluginConfig]):
    @override
    async def on_request(self, exchange: Exchange) -> None:
        exchange[NUMBER] = exchange.request.headers["x-number"]
        await asyncio.sleep(0.02)

    @override
    async def on_response(self, exchange: Exchange, response: Response) -> None:
        response.headers["x-number"] = exchange[NUMBER]


async def test_what_a_request_left_on_its_exchange_is_its_own():
    plugins = [used("numbered", Numbered)]
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, plugins) as weir:
        asks = [testing.ask(weir, {}, headers={"x-number": str(number)}) for number in range(8)]
        answers = await asyncio.gather(*asks)
    assert [answer.headers["x-number"] for answer in answers] == [str(number) for number in range(8)]


class Breaks(Plugin[PluginConfig]):
    @override
    async def on_response(self, exchange: Exchange, response: Response) -> None:
        response.headers["x-said"] = exchange.request.headers["x-said"].replace("|", "\r\n")


async def test_a_line_break_in_a_response_header_cannot_begin_another_field():
    plugins = [used("breaks", Breaks)]
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, plugins) as weir:
        answer = await testing.ask(weir, {}, headers={"x-said": "a|x-evil: 1"})
    assert "x-evil" not in answer.headers
    assert answer.headers["x-said"] == "a  x-evil: 1"


# -- targets


class Selects(Plugin[PluginConfig]):
    """Keeps the upstreams that a header names, in its order."""

    @override
    def select_targets(self, exchange: Exchange, targets: Sequence[Target]) -> Sequence[Target]:
        wanted = exchange.request.headers["x-targets"].split()
        return [target for name in wanted for target in targets if target.upstream == name]


@pytest.mark.parametrize(
    ("wanted", "asked"), [("first second", "first"), ("second first", "second"), ("second", "second"), ("", None)]
)
async def test_select_targets_reorders_and_drops(wanted: str, asked: str | None):
    text = f"selects: {{use: '{HERE}:Selects'}}"
    async with (
        testing.upstream(testing.chat("1")) as first,
        testing.upstream(testing.chat("2")) as second,
        testing.configured(yaml(first.url, second.url, text)) as weir,
    ):
        answer = await testing.ask(weir, {"model": "m"}, headers={"x-targets": wanted})
    if asked is None:
        assert (answer.status, answer.json()["error"]["code"]) == (503, "upstream_unavailable")
    else:
        assert answer.headers["x-weir-upstream"] == asked
    assert (len(first.requests), len(second.requests)) == (asked == "first", asked == "second")


# -- attempts


class Retries(Plugin[PluginConfig]):
    """Marks every try in its own header and body; asks for the next target after a 5xx or no answer."""

    ended: ClassVar[list[tuple[int, str, str, int]]] = []

    @override
    async def on_attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        assert "x-try" not in attempt.headers, "each try starts from the request again"
        attempt.headers["x-try"] = str(attempt.number)
        assert attempt.body is not None
        attempt.body = attempt.body.replace(b"}", b',"try":%d}' % attempt.number)

    @override
    def on_attempt_end(self, exchange: Exchange, attempt: Attempt) -> None:
        Retries.ended.append((attempt.number, attempt.target.upstream, str(attempt.outcome), attempt.status))
        attempt.retry = attempt.outcome is not Outcome.OK


async def two_tries(first: Any, second: Any, body: Any = None) -> tuple[Any, list[Any], list[Any]]:
    Retries.ended.clear()
    text = f"retries: {{use: '{HERE}:Retries'}}"
    async with (
        testing.upstream(first) as one,
        testing.upstream(second) as other,
        testing.configured(yaml(one.url, other.url, text)) as weir,
    ):
        answer = await testing.ask(weir, body or {"model": "m"})
        await weir.drain(5)
    return answer, one.requests, other.requests


async def test_a_retry_goes_to_the_next_target_with_a_request_of_its_own():
    answer, (one,), (other,) = await two_tries(BUSY, testing.chat("hi"))
    assert (answer.status, answer.headers["x-weir-upstream"], answer.headers["x-weir-attempts"]) == (200, "second", "2")
    assert one.json() == {"model": "m", "try": 1}
    assert other.json() == {"model": "other", "try": 2}
    assert (one.headers["x-try"], other.headers["x-try"]) == ("1", "2")
    assert [r.headers["content-length"] for r in (one, other)] == [str(len(r.body)) for r in (one, other)]
    assert Retries.ended == [(1, "first", "upstream_error", 503), (2, "second", "ok", 200)]


async def test_an_upstream_that_hangs_up_leads_to_the_next_target():
    async def hang_up(received: testing.Received, wire: testing.Wire) -> None:
        wire.close()

    answer, _, _ = await two_tries(hang_up, testing.chat("hi"))
    assert answer.headers["x-weir-upstream"] == "second"
    assert Retries.ended == [(1, "first", "upstream_error", 0), (2, "second", "ok", 200)]


async def test_the_last_targets_failure_is_the_answer():
    answer, _, _ = await two_tries(BUSY, testing.answer(b'{"error":{"message":"mine"}}', status=500))
    assert (answer.status, answer.json()["error"]["message"]) == (500, "mine")


async def test_no_retry_after_a_byte_went_down():
    answer, _, untried = await two_tries(testing.stream(*WORDS[:1], ends=False), testing.chat("hi"))
    assert (answer.status, answer.is_whole, untried) == (200, False, [])
    assert Retries.ended == [(1, "first", "stream_interrupted", 200)]


class Insists(Plugin[PluginConfig]):
    @override
    async def on_attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        attempt.retry = True


async def test_no_retry_of_a_try_that_serves_whatever_a_plugin_wants():
    text = f"insists: {{use: '{HERE}:Insists'}}"
    async with (
        testing.upstream(testing.chat("hi")) as first,
        testing.upstream(testing.chat("hi")) as second,
        testing.configured(yaml(first.url, second.url, text)) as weir,
    ):
        assert (await testing.ask(weir, {"model": "m"})).headers["x-weir-upstream"] == "first"
    assert second.requests == []


async def test_without_a_plugin_that_asks_for_it_nothing_is_tried_twice():
    async with (
        testing.upstream(BUSY) as first,
        testing.upstream(testing.chat("hi")) as second,
        testing.configured(yaml(first.url, second.url, "")) as weir,
    ):
        assert (await testing.ask(weir, {"model": "m"})).status == 503
    assert second.requests == []


# -- encodings


class Marks(Plugin[PluginConfig]):
    @override
    async def on_response(self, exchange: Exchange, response: Response) -> EventFilter | None:
        return Marking() if response.is_event_stream else None


class Marking(EventFilter):
    @override
    def feed(self, event: Event) -> Iterable[Event]:
        return (Event(event.raw.replace(b"two", b"TWO")),)


class Counts(Plugin[PluginConfig]):
    reads_usage = True


@pytest.mark.parametrize(("cls", "encoding"), [(Hooked, "identity"), (Counts, "identity"), (Reads, "gzip, br")])
async def test_the_upstream_is_asked_for_identity_only_where_a_plugin_reads_bodies(cls: Any, encoding: str):
    plugins = [used("it", cls)]
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, plugins) as weir:
        await testing.ask(weir, {"model": "m"}, headers={"accept-encoding": "gzip, br"})
    assert upstream.last.headers["accept-encoding"] == encoding


async def test_an_event_filter_reads_a_gzip_stream_that_was_sent_all_the_same():
    packed = gzip.compress(b"".join(WORDS))
    script = testing.stream(packed[:50], packed[50:], content_encoding="gzip")
    async with testing.upstream(script) as upstream, testing.weir(upstream, [used("marks", Marks)]) as weir:
        answer = await testing.ask(weir, {"model": "m", "stream": True})
    assert answer.body == b"".join(WORDS).replace(b"two", b"TWO")
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(("mode", "status"), [("closed", 502), ("open", 200)])
async def test_an_event_filter_and_an_encoding_that_cannot_be_read(mode: str, status: int):
    script = testing.stream(b"\x0b\x02\x80", content_encoding="br")
    plugins = [used("marks", Marks, failure_mode=mode)]
    async with testing.upstream(script) as upstream, testing.weir(upstream, plugins) as weir:
        answer = await testing.ask(weir, {"model": "m", "stream": True})
    assert answer.status == status
    if status == 200:
        assert (answer.headers["content-encoding"], answer.body) == ("br", b"\x0b\x02\x80")
    else:
        assert answer.json()["error"]["code"] == "upstream_bad_answer"
