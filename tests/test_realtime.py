"""What a session's messages say: summed up, noted once, and never in the way."""

import orjson
import pytest

from proxy import testing
from proxy.realtime import Session
from proxy.usage import Usage


def heard(*events):
    exchange = testing.exchange("GET", "/v1/realtime")
    session = Session(exchange)
    for event in events:
        session.see(event if isinstance(event, bytes) else orjson.dumps(event))
    return exchange


def done(kind="response.done", **usage):
    return {"type": kind, "event_id": "event_1", "response": {"object": "realtime.response", "usage": usage}}


SPOKEN = {
    "total_tokens": 253,
    "input_tokens": 132,
    "output_tokens": 121,
    "input_token_details": {"text_tokens": 119, "audio_tokens": 13, "cached_tokens": 64},
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}
TYPED = {"total_tokens": 30, "input_tokens": 20, "output_tokens": 10, "input_token_details": {"cached_tokens": 5}}


def test_usage_is_the_sum_over_all_responses():
    exchange = heard({"type": "session.created"}, done(**SPOKEN), done(**TYPED), done(**TYPED))
    assert exchange.usage == Usage(172, 141, 74)


@pytest.mark.parametrize("kind", ["response.done", "response.completed", "response.incomplete", "response.failed"])
def test_both_apis_end_a_response_with_its_usage(kind):
    assert heard(done(kind, **TYPED)).usage == Usage(20, 10, 5)


@pytest.mark.parametrize(
    "event",
    [
        done(),
        {"type": "response.done", "response": {"usage": None, "status": "cancelled"}},
        {"type": "response.done", "response": None},
        {"type": "response.done", "usage": TYPED},
        {"type": "response.output_text.done", "text": '"response.done"', "response": {"usage": TYPED}},
        {"type": ["response.done"], "response": {"usage": TYPED}},
        [done(**TYPED)],
        b'{"type":"response.done","response":{"usage":',
        b'"response.done"',
        b'\xff"response.done"',
        b"",
    ],
    ids=str,
)
def test_what_tells_no_usage_changes_nothing(event):
    assert heard(event).usage is None
    assert heard(done(**TYPED), event).usage == Usage(20, 10, 5)


DELTAS = ["response.output_audio.delta", "response.output_text.delta", "response.function_call_arguments.delta"]


@pytest.mark.parametrize("kind", DELTAS)
def test_the_first_delta_is_the_first_token(kind):
    exchange = testing.exchange()
    session = Session(exchange)
    session.see(orjson.dumps({"type": "response.created", "note": "no .delta yet"}))
    session.see(orjson.dumps({"type": "conversation.item.input_audio_transcription.delta", "delta": "what was asked"}))
    assert exchange.first_token_at is None
    session.see(orjson.dumps({"type": kind, "delta": "AAAA"}))
    first = exchange.first_token_at
    assert first is not None
    session.see(orjson.dumps({"type": kind, "delta": "BBBB"}))
    assert exchange.first_token_at == first


def test_the_model_is_the_one_that_the_session_names():
    assert heard({"type": "session.created", "session": {"model": "gpt-realtime"}}).model == "gpt-realtime"
    assert heard({"type": "session.created", "session": {"id": "sess_1"}}).model is None
    updated = {"type": "session.updated", "session": {"model": "gpt-realtime-mini"}}
    assert heard({"type": "session.created", "session": {"model": "x"}}, updated).model == "gpt-realtime-mini"
    assert heard({"type": "response.completed", "response": {"model": "gpt-5"}}).model == "gpt-5"
