"""TGI's native answers, kept and given again."""

import orjson
import pytest

from plugins.cache import generation
from proxy import testing
from proxy.plugin import Usage
from tests.contract.tgi_double import WORDS, Tgi
from tests.plugins.cache.house import house

TEXT = "".join(WORDS[:-1])
ROUTES = {
    "/": ("/", {"inputs": "Hi you", "parameters": {"details": True}}),
    "/, streamed": ("/", {"inputs": "Hi you", "stream": True, "parameters": {"details": True}}),
    "/generate": ("/generate", {"inputs": "Hi you", "parameters": {"details": True}}),
    "/generate, without details": ("/generate", {"inputs": "Hi you", "parameters": {"max_new_tokens": 20}}),
    "/generate_stream": ("/generate_stream", {"inputs": "Hi you", "parameters": {"details": True}}),
    "/generate_stream, without details": ("/generate_stream", {"inputs": "Hi", "parameters": {"max_new_tokens": 20}}),
}


@pytest.mark.parametrize(("path", "body"), ROUTES.values(), ids=ROUTES)
async def test_an_answer_is_given_again(path, body):
    async with house(Tgi().script, before=("metering",)) as home:
        first, again = await home.ask(body, path=path), await home.ask(body, path=path)
    assert (first.headers["x-weir-cache"], again.headers["x-weir-cache"]) == ("miss", "hit")
    assert (first.body, home.calls) == (again.body, 1)
    assert again.headers["content-type"].partition(";")[0] == first.headers["content-type"].partition(";")[0]
    kept = home.lines("ledger")[1]
    assert kept["cached"]
    assert kept["saved_tokens"] >= len(TEXT) // 4


CUT = {
    "length": ("/generate", {"inputs": "Hi", "parameters": {"details": True, "max_new_tokens": 3}}),
    "as many as allowed": ("/generate", {"inputs": "Hi", "parameters": {"max_new_tokens": 3}}),
    "as many as allowed, streamed": ("/generate_stream", {"inputs": "Hi", "parameters": {"max_new_tokens": 3}}),
    "nobody knows": ("/generate", {"inputs": "Hi"}),
    "overloaded": ("/generate", {"inputs": "overloaded"}),
    "fails in a stream": ("/generate_stream", {"inputs": "later: failed"}),
}


@pytest.mark.parametrize(("path", "body"), CUT.values(), ids=CUT)
async def test_what_may_be_cut_is_not_kept(path, body):
    async with house(Tgi().script) as home:
        assert await home.results(body, body, path=path) == ["miss", "miss"]


async def test_each_route_and_each_way_of_sending_is_kept_for_itself():
    body = {"inputs": "Hi", "parameters": {"details": True}}
    async with house(Tgi().script) as home:
        assert await home.results(body, {**body, "stream": True}, path="/") == ["miss", "miss"]
        assert await home.results(body, body, path="/generate") == ["miss", "hit"]
        assert await home.results({**body, "inputs": "Ho"}, path="/generate") == ["miss"]
        assert (await home.ask({**body, "stream": True}, path="/")).body.count(b"data:") == len(WORDS)


async def test_a_stream_where_an_object_was_due_is_not_kept():
    event = b'data: {"index":1,"token":{"text":"x"},"generated_text":"x","details":{"finish_reason":"eos_token"}}\n\n'
    async with house(testing.stream(event)) as home:
        assert await home.results({"inputs": "Hi"}, {"inputs": "Hi"}, path="/generate") == ["miss", "miss"]


async def test_what_another_server_serves_at_its_root_passes_by():
    async with house(testing.answer(b"{}")) as home:
        assert await home.results({"jsonrpc": "2.0"}, path="/") == ["bypass"]


def told(**more):
    return orjson.dumps({"generated_text": "Hi you", **more})


KEPT = {
    "ended": (told(details={"finish_reason": "eos_token"}), None, None, True),
    "a stop sequence, in a list": (b"[%b]" % told(details={"finish_reason": "stop_sequence"}), None, None, True),
    "length": (told(details={"finish_reason": "length"}), 9, 3, False),
    "fewer than allowed": (told(), 9, 3, True),
    "as many as allowed": (told(), 3, 3, False),
    "nobody knows how many": (told(), 3, None, False),
    "nobody knows how many were allowed": (told(), None, 3, False),
    "an error": (b'{"error":"no","error_type":"generation"}', 9, 3, False),
    "no text": (b'{"generated_text":null}', 9, 3, False),
    "no JSON": (b"{", 9, 3, False),
    "two": (b"[{},{}]", 9, 3, False),
}


@pytest.mark.parametrize(("body", "limit", "made", "kept"), KEPT.values(), ids=KEPT)
def test_which_are_kept(body, limit, made, kept):
    assert generation.is_kept(body, is_stream=False, limit=limit, made=made) is kept


def test_a_stream_that_says_nothing_is_not_kept():
    assert not generation.is_kept(b"", is_stream=True, limit=9, made=None)


@pytest.mark.parametrize(
    ("asked", "limit"),
    [({"parameters": {"max_new_tokens": 3}}, 3), ({"parameters": None}, None), ({"parameters": {"max_new_tokens": True}}, None), ([], None)],
)  # fmt: skip
def test_the_limit_that_a_request_sets(asked, limit):
    assert generation.limit_of(asked) == limit


USAGES = {
    "details of a stream": (b'data: {"generated_text":"x","details":{"generated_tokens":3,"input_length":5}}\n\n', True, Usage(5, 3)),
    "a stream's last index": (b'data: {"index":4,"generated_text":"x","details":null}\n\n', True, Usage(7, 4)),
    "details": (told(details={"generated_tokens": 3, "prefill": []}), False, Usage(7, 3)),
    "text": (told(), False, Usage(7, 2)),
}  # fmt: skip


@pytest.mark.parametrize(("body", "streams", "usage"), USAGES.values(), ids=USAGES)
def test_what_it_has_used(body, streams, usage):
    assert generation.usage_of(body, is_stream=streams, prompt=7) == usage
