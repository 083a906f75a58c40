"""What an exchange used: reported, or estimated from what went up and down."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy import testing
from proxy.answer import InBandError
from proxy.errors import ConnectFailed
from proxy.plugin import (
    Attempt,
    Exchange,
    Outcome,
    Target,
    Usage,
    asked_model,
    consumed,
    output_tokens,
    prompt_tokens,
    rough_prompt_tokens,
)

HELLO = {"messages": [{"role": "user", "content": "x" * 40}]}


def ended(
    body: Any, *, path: str = testing.CHAT, method: str = "POST", outcome: Outcome = Outcome.OK, tries: int = 1
) -> Exchange:
    """An exchange whose attempts were all answered with 200; the last served."""
    exchange = testing.exchange(method, path, body=orjson.dumps(body))
    for number in range(1, tries + 1):
        attempt = Attempt(number, Target("up"), [], b"")
        attempt.status, attempt.outcome = 200, Outcome.OK
        exchange.attempts.append(attempt)
    exchange.outcome = outcome
    return exchange


PROMPTS = {
    "chat": (testing.CHAT, {"messages": [{"role": "user", "content": "x" * 40}]}, 10),
    "parts": (testing.CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 40}]}]}, 10),
    "a picture": (testing.CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, {"type": "text", "text": "x" * 8}]}]}, 2),
    "many messages": (testing.CHAT, {"messages": [{"role": "system", "content": "x" * 4}, {"role": "tool", "tool_call_id": "call_1", "content": "x" * 4}]}, 2),
    "nothing said": (testing.CHAT, {"messages": [{"role": "user", "content": None}]}, 0),
    "a prompt": ("/v1/completions", {"prompt": "x" * 41}, 11),
    "prompts": ("/v1/completions", {"prompt": ["x" * 20, "x" * 20]}, 10),
    "tokens": ("/v1/completions", {"prompt": [1, 2, 3]}, 3),
    "responses": ("/v1/responses", {"instructions": "x" * 4, "input": [{"role": "user", "content": [{"type": "input_text", "text": "x" * 4}]}]}, 2),
    "Anthropic's own": ("/v1/messages", {"system": "x" * 4, "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "x" * 400}}, {"type": "text", "text": "x" * 4}]}]}, 2),
    "embeddings": ("/v1/embeddings", {"input": ["x" * 4, "x" * 8]}, 3),
    "TGI": ("/generate", {"inputs": "x" * 4, "parameters": {"stop": ["x" * 400]}}, 1),
    "TGI for Vertex": ("/vertex", {"instances": [{"inputs": "x" * 4}, {"messages": [{"role": "user", "content": "x" * 8}]}]}, 3),
    "not JSON's object": (testing.CHAT, ["x" * 40], 0),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "tokens"), PROMPTS.values(), ids=PROMPTS)
def test_a_prompt_that_nobody_counted_is_taken_for_four_characters_a_token(path, body, tokens):
    made = consumed(ended(body, path=path, outcome=Outcome.CLIENT_ABORT))
    assert (made.usage.input_tokens, made.is_estimated) == (tokens, True)


def test_a_prompt_is_estimated_before_it_is_sent_and_again_when_it_was_changed():
    request = testing.exchange(body=orjson.dumps(HELLO)).request
    assert prompt_tokens(request) == 10
    request.replace_body(orjson.dumps({"messages": [{"content": "x" * 80}]}))
    assert prompt_tokens(request) == 20


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}"])
def test_what_is_no_prompt_has_no_tokens(body):
    assert prompt_tokens(testing.exchange(body=body).request) == 0


def test_a_rough_estimate_takes_four_bytes_of_the_body_for_a_token_but_not_of_what_is_no_text():
    chat = orjson.dumps(HELLO)
    assert rough_prompt_tokens(testing.exchange(body=chat).request) == -(-len(chat) // 4)
    for part in ({"image_url": {"url": "data:image/png;base64,AAAA"}}, {"input_audio": {"data": "AAAA"}}):
        seen = orjson.dumps({"messages": [{"content": [part, {"type": "text", "text": "x" * 8}]}]})
        assert rough_prompt_tokens(testing.exchange(body=seen).request) == 2
    assert rough_prompt_tokens(testing.exchange(target="/v1/audio/transcriptions", body=b"x" * 4000).request) == 0


def test_the_model_that_was_asked_for_is_another_when_the_body_is():
    request = testing.exchange(body=b'{"model":"a"}').request
    assert (asked_model(request), asked_model(request)) == ("a", "a")
    request.replace_body(b'{"model":"b"}')
    assert asked_model(request) == "b"


def test_a_deployment_in_the_path_is_the_model_whatever_the_body_says():
    for path in ("/openai/deployments/gpt-4o%2Fmine/chat/completions", "/v1/engines/gpt-4o%2Fmine/completions"):
        assert asked_model(testing.exchange(target=path, body=b'{"model":"cheap"}').request) == "gpt-4o/mine"


def test_an_answer_without_a_usage_is_estimated_from_its_length():
    exchange = ended(HELLO)
    exchange.response_bytes = 400
    assert consumed(exchange).usage == Usage(10, 100)


def test_vectors_are_no_output():
    exchange = ended({"input": "x" * 40}, path="/v1/embeddings")
    exchange.response_bytes = 40_000
    assert consumed(exchange).usage == Usage(10, 0)


def test_an_app_that_left_used_what_was_delivered():
    exchange = ended(HELLO, outcome=Outcome.CLIENT_ABORT)
    exchange.delivered_tokens, exchange.response_bytes = 7, 4000
    assert consumed(exchange)[:3] == (Usage(10, 7), True, True)


def test_a_report_from_before_the_cut_is_not_less_than_what_came():
    exchange = ended(HELLO, outcome=Outcome.STREAM_INTERRUPTED)
    exchange.usage, exchange.delivered_tokens = Usage(3, 1), 10
    assert consumed(exchange)[:2] == (Usage(3, 10), True)


def test_what_is_reported_is_believed():
    exchange = ended(HELLO)
    exchange.usage, exchange.delivered_tokens = Usage(3, 5), 10
    assert consumed(exchange)[:3] == (Usage(3, 5), False, True)


def test_the_prompt_of_a_native_stream_that_tells_only_its_tokens_is_estimated():
    exchange = ended({"inputs": "x" * 40}, path="/generate_stream")
    exchange.usage = Usage(0, 5)
    assert consumed(exchange)[:3] == (Usage(10, 5), True, True)


def test_a_chat_that_reports_no_prompt_is_believed():
    exchange = ended(HELLO)
    exchange.usage = Usage(0, 5)
    assert consumed(exchange)[:3] == (Usage(0, 5), False, True)


def test_an_upstream_that_could_not_be_reached_did_no_work():
    exchange = ended(HELLO, outcome=Outcome.UPSTREAM_ERROR)
    exchange.attempts[0].status, exchange.attempts[0].error = 0, ConnectFailed("down")
    assert consumed(exchange) == (Usage(), False, False, ())


def test_an_error_within_a_200_used_nothing_unless_tokens_came_before():
    exchange = ended(HELLO, outcome=Outcome.STREAM_INTERRUPTED)
    exchange.told, exchange.response_bytes = InBandError("Model is overloaded"), 400
    assert consumed(exchange) == (Usage(), False, False, ())
    exchange = ended(HELLO, outcome=Outcome.STREAM_INTERRUPTED)
    exchange.told, exchange.delivered_tokens = InBandError("Request failed during generation"), 3
    assert consumed(exchange) == (Usage(10, 3), True, True, ())


def test_reading_a_response_again_uses_nothing():
    exchange = ended({}, method="GET", path="/v1/responses/resp_1")
    exchange.usage = Usage(3, 5)
    assert consumed(exchange) == (Usage(), False, False, ())


def test_attempts_that_did_not_serve_have_wasted_the_prompt_and_what_had_come():
    exchange = ended(HELLO, tries=3)
    exchange.usage = Usage(3, 5)
    exchange.attempts[0].status = 503
    exchange.attempts[1].delivered_tokens = 4
    assert consumed(exchange) == (Usage(3, 5), False, True, (Usage(), Usage(10, 4)))


def test_a_static_answer_uses_nothing_and_what_failed_before_it_is_wasted():
    exchange = ended(HELLO)
    exchange.is_static, exchange.usage = True, Usage()
    exchange.attempts[0].delivered_tokens = 5
    assert consumed(exchange) == (Usage(), False, False, (Usage(10, 5),))


ANSWERS = {
    "as many as it may have": ({"max_tokens": 20}, 20),
    "the larger of two": ({"max_tokens": 20, "max_completion_tokens": 30}, 30),
    "responses": ({"max_output_tokens": 20}, 20),
    "TGI": ({"inputs": "x", "parameters": {"max_new_tokens": 20, "best_of": 2}}, 40),
    "for each choice": ({"max_tokens": 20, "n": 3}, 60),
    "as usual": ({"n": 2}, 400),
    "no number": ({"max_tokens": "20", "n": None}, 200),
    "no limit": ({"max_tokens": -1}, 200),
    "more than there can be": ({"max_tokens": 10**18, "n": 10**18}, 2**27),
    "not JSON's object": ([], 0),
}


@pytest.mark.parametrize(("body", "tokens"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_estimated_before_it_is_there(body, tokens):
    assert output_tokens(testing.exchange(body=orjson.dumps(body)).request, 200) == tokens


def test_vectors_are_no_answer():
    assert output_tokens(testing.exchange(target="/v1/embeddings").request, 200) == 0


def test_it_is_found_once_for_all_who_ask():
    exchange = ended(HELLO)
    assert consumed(exchange) is consumed(exchange)
