import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.answer import Answer, InBandError, in_band_error
from proxy.sse import Event, Reader
from proxy.usage import Usage


class Told(NamedTuple):
    whole: bool = True
    started: bool = True
    error: InBandError | None = None
    usage: Usage | None = None


def told(answer: Answer) -> Told:
    return Told(answer.is_whole(), answer.started, answer.error, answer.usage())


def replay(chunks: Iterable[bytes], *, expected: bool = True, reads_usage: bool = True, limit: int = 10**6) -> Told:
    reader, answer = Reader(limit), Answer(expected=expected, reads_usage=reads_usage)
    for event in itertools.chain(*map(reader.feed, chunks), reader.end()):
        answer.see(event)
    return told(answer)


def data(*values: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % (value if isinstance(value, bytes) else orjson.dumps(value)) for value in values)


def chunk(content: str | None = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more}


DONE = b"[DONE]"
COUNTS = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
USAGE = Usage(9, 2)

OPENAI = b"""\
data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}

data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}],"usage":null,"obfuscation":"x"}

data: {"id":"c","choices":[{"index":0,"delta":{"content":"!"},"finish_reason":null}],"usage":null,"obfuscation":"xyz"}

data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}

data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}

data: [DONE]

"""
TGI_NATIVE = b"""\
data:{"index":1,"token":{"id":5,"text":" a","logprob":-0.5,"special":false},"generated_text":null,"details":null}

:

data:{"index":2,"token":{"id":6,"text":"b","logprob":-0.1,"special":false},"generated_text":" ab","details":null}

"""
TGI_TOOL = b"""\
data: {"object":"chat.completion.chunk","id":"","choices":[{"index":0,"delta":{"role":"assistant","tool_calls":\
[{"index":0,"id":"0","type":"function","function":{"name":"f","arguments":"{"}}]},"finish_reason":null}],"usage":null}

data: {"object":"chat.completion.chunk","id":"","choices":[{"index":0,"delta":{"role":"assistant","tool_calls":\
[{"index":0,"id":"0","type":"function","function":{"name":null,"arguments":"}"}}]},"finish_reason":null}],"usage":null}

data: [DONE]

"""
RESPONSES = b"""\
event: response.created
data: {"type":"response.created","response":{"id":"r","status":"in_progress","error":null,"usage":null}}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":4,"delta":"Hi"}

event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":5,"delta":"!"}

event: response.completed
data: {"type":"response.completed","response":{"status":"completed","usage":{"input_tokens":9,"output_tokens":2}}}

"""
RESPONSES_FAILED = b"""\
event: response.failed
data: {"type":"response.failed","response":{"error":{"code":"server_error","message":"boom"},"usage":null}}

"""
OPENROUTER = b"""\
: OPENROUTER PROCESSING

data: {"id":"g","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}

: OPENROUTER PROCESSING

data: {"id":"g","error":{"code":502,"message":"Provider disconnected"},"choices":[{"index":0,"delta":{"content":""},\
"finish_reason":"error"}]}

"""
TGI_PROMPTS = data(
    *({"choices": [{"index": index, "text": "x", "finish_reason": ""}], "usage": None} for index in (0, 1, 0)),
    {
        "choices": [{"index": 1, "text": "", "finish_reason": "eos_token"}],
        "usage": {**COUNTS, "completion_tokens": 1, "total_tokens": 10},
    },
    {"choices": [{"index": 0, "text": "y", "finish_reason": "length"}], "usage": {**COUNTS, "completion_tokens": 2}},
)

GOLDEN: dict[str, tuple[bytes, Told]] = {
    "openai": (OPENAI, Told(usage=USAGE)),
    "openai with crlf": (OPENAI.replace(b"\n", b"\r\n"), Told(usage=USAGE)),
    "openai, cut": (OPENAI[:340], Told(whole=False)),
    "azure": (
        data({"id": "", "choices": [], "prompt_filter_results": []}, chunk(""), chunk("Hi"), chunk(finish="stop"))
        + data(chunk(content_filter_offsets={"start_offset": 0}), DONE),
        Told(),
    ),
    "azure, filter results after the end": (data(chunk("Hi"), chunk(finish="stop"), chunk()), Told()),
    "azure, nothing after its filter results": (
        data({"id": "", "choices": [], "prompt_filter_results": []}),
        Told(whole=False, started=False),
    ),
    "vllm, reasoning, keys unset": (
        data({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        + data({"choices": [{"index": 0, "delta": {"reasoning": "hm"}}]}, chunk(finish="stop"), DONE),
        Told(),
    ),
    "vllm, error": (
        data(chunk("Hi"), {"error": {"message": "boom", "type": "InternalServerError", "param": None, "code": 500}}, DONE),
        Told(error=InBandError("boom", "InternalServerError", 500)),
    ),
    "sglang": (
        data({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "finish_reason": None}]})
        + b'event: sglext_ids\ndata: {"ids":[1,2]}\n\n'
        + data(chunk(finish="stop"), {"choices": [], "sglext": {}}, {"choices": [], "usage": COUNTS}, DONE),
        Told(usage=USAGE),
    ),
    "sglang, queue full": (
        data({"error": {"object": "error", "message": "The request queue is full.", "type": "503", "code": 503}}, DONE),
        Told(started=False, error=InBandError("The request queue is full.", "503", 503)),
    ),
    "llama.cpp": (
        b":\n\n" + data(chunk("Hi"), chunk(finish="stop", timings={"prompt_n": 4, "cache_n": 5, "predicted_n": 2}), DONE),
        Told(usage=Usage(9, 2, cached_input_tokens=5)),
    ),
    "llama.cpp, error without an end": (
        data(chunk("Hi"), {"error": {"code": 500, "message": "boom", "type": "server_error"}}),
        Told(whole=False, error=InBandError("boom", "server_error", 500)),
    ),
    "ollama, cut": (data(chunk("Hi"), chunk("")), Told(whole=False)),
    "ollama completions": (
        data({"choices": [{"index": 0, "text": "Hi", "finish_reason": None}], "usage": {"prompt_tokens": 0}})
        + data({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}, {"choices": [], "usage": COUNTS}, DONE),
        Told(usage=USAGE),
    ),
    "groq": (
        data(chunk("", x_groq={"id": "r"}), chunk("Hi"), chunk(finish="stop", x_groq={"id": "r", "usage": COUNTS}), DONE),
        Told(usage=USAGE),
    ),
    "groq, error": (
        data(chunk("Hi"), chunk(x_groq={"id": "r", "error": "over capacity"})),
        Told(whole=False, error=InBandError("over capacity")),
    ),
    "openrouter, error in the middle": (
        OPENROUTER,
        Told(whole=False, error=InBandError("Provider disconnected", None, 502)),
    ),
    "gemini": (
        data(chunk("Hi", usage={**COUNTS, "completion_tokens": 1}), chunk("!", finish="stop", usage=COUNTS), DONE),
        Told(usage=USAGE),
    ),
    "gemini, error": (
        data([{"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}}]),
        Told(whole=False, started=False, error=InBandError("Quota", "RESOURCE_EXHAUSTED", 429)),
    ),
    "mistral, finish_reason error": (
        data(chunk("Hi"), chunk(finish="error"), DONE),
        Told(error=InBandError('finish_reason "error"')),
    ),
    "perplexity, no [DONE]": (data(chunk("Hi"), chunk("Hi there"), chunk("Hi there", finish="stop")), Told()),
    "finish_reason without [DONE] (S11)": (data(chunk("Hi"), chunk(finish="stop"), {"choices": [], "usage": COUNTS}), Told(usage=USAGE)),
    "three choices": (data(*(chunk("x", finish, index) for finish in (None, "stop") for index in (2, 0, 1))), Told()),
    "three choices, one open": (
        data(*(chunk("x", index=index) for index in (0, 1, 2)), *(chunk(finish="stop", index=index) for index in (0, 2))),
        Told(whole=False),
    ),
    "tgi chat": (
        data(chunk("OK", usage=None), chunk("", finish="stop_sequence", usage=None), {"choices": [], "usage": COUNTS}, DONE),
        Told(usage=USAGE),
    ),
    "tgi chat, overloaded": (
        data({"error": {"message": "Model is overloaded", "http_status_code": 422}}, DONE),
        Told(started=False, error=InBandError("Model is overloaded", None, 422)),
    ),
    "tgi tools": (TGI_TOOL, Told()),
    "tgi tools, cut": (TGI_TOOL.removesuffix(b"data: [DONE]\n\n"), Told(whole=False)),
    "tgi completions": (TGI_PROMPTS, Told(usage=Usage(18, 3))),
    "tgi native": (TGI_NATIVE, Told(usage=Usage(0, 2))),
    "tgi native, one space": (TGI_NATIVE.replace(b"data:", b"data: "), Told(usage=Usage(0, 2))),
    "tgi native, details": (
        TGI_NATIVE.replace(b'" ab","details":null', b'" ab","details":{"generated_tokens":2,"input_length":9}'),
        Told(usage=USAGE),
    ),
    "tgi native, cut": (TGI_NATIVE[:120], Told(whole=False, usage=Usage(0, 1))),
    "tgi native, overloaded": (
        data({"error": "Model is overloaded", "error_type": "overloaded"}),
        Told(whole=False, started=False, error=InBandError("Model is overloaded", "overloaded")),
    ),
    "litserve, error without its blank line": (
        data(chunk("Hi")) + b'data: {"error": {"message": "boom", "type": "internal"}}',
        Told(whole=False, error=InBandError("boom", "internal")),
    ),
    "a bare JSON tail (case 48)": (
        data(chunk("Hi")) + b'{"error": {"message": "out of memory",\n "code": 503}}\n',
        Told(whole=False, error=InBandError("out of memory", None, 503)),
    ),
    "a bare tail that is no JSON": (data(chunk("Hi")) + b'{"error": {"mess', Told(whole=False)),
    "event: error, payload without error (case 47)": (
        data(chunk("Hi")) + b'event: error\ndata: {"message": "boom", "code": "rate_limit_exceeded"}\n\n',
        Told(whole=False, error=InBandError("boom", None, "rate_limit_exceeded")),
    ),
    "event: error, plain text": (
        b"event: error\ndata: boom\n\n",
        Told(whole=False, started=False, error=InBandError("boom")),
    ),
    "responses": (RESPONSES, Told(usage=USAGE)),
    "responses, names only": (RESPONSES.replace(b'"type":"response', b'"t":"'), Told(usage=USAGE)),
    "responses, types only": (RESPONSES.replace(b"event:", b":"), Told(usage=USAGE)),
    "responses, cut": (RESPONSES[: RESPONSES.rindex(b"event:")], Told(whole=False)),
    "responses, failed": (RESPONSES_FAILED, Told(started=False, error=InBandError("boom", None, "server_error"))),
    "responses, error": (
        b'event: error\ndata: {"type":"error","code":"x","message":"boom","param":null}\n\n',
        Told(whole=False, started=False, error=InBandError("boom", "error", "x")),
    ),
    "anthropic": (
        data({"type": "message_start"}, {"type": "content_block_delta", "delta": {"text": "Hi"}}, {"type": "message_stop"}),
        Told(),
    ),
    "a thread": (b'event: thread.message.delta\ndata: {"id":"m"}\n\nevent: done\ndata: [DONE]\n\n', Told()),
    "a broken chunk only passes (case 43)": (
        data(chunk("Hi")) + b'data: {bad\n\ndata:\n\ndata: "text"\n\ndata: 7\n\n' + data(chunk("!"), chunk(finish="stop"), DONE),
        Told(),
    ),
    "done with a trailing CR": (data(chunk("Hi")) + b"data: [DONE]\r\n\n", Told()),
    "nothing": (b"", Told(whole=False, started=False)),
    "only comments": (b": ping\n\n", Told(whole=False, started=False)),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "expected"), GOLDEN.values(), ids=GOLDEN.keys())
def test_a_stream_tells_the_same_however_it_is_cut(stream: bytes, expected: Told) -> None:
    assert replay([stream]) == expected
    assert replay(stream[at : at + 1] for at in range(len(stream))) == expected
    for cut in range(1, len(stream)):
        assert replay([stream[:cut], stream[cut:]]) == expected, stream[:cut]
    assert replay([stream], reads_usage=False) == expected._replace(usage=None)


@pytest.mark.parametrize(
    ("stream", "whole"),
    [
        (b"", True),
        (b": ping\n\n", True),
        (b"data: plain text\n\n", True),
        (data({"content": "native llama.cpp", "stop": False}), True),
        (data({"object": "chat.completion.chunk", "choices": []}), False),
        (data(chunk("Hi")), False),
        (data({"token": {"text": "x"}, "generated_text": None}), False),
        (data(chunk("Hi", type="response.completed", generated_text="Hi")), False),
        (data({"type": "response.created"}), False),
        (data({"type": "image_generation.partial_image", "b64_json": "x"}), False),
        (data({"type": "image_generation.completed", "b64_json": "x"}), True),
        (data({"type": "image_edit.completed", "b64_json": "x"}), True),
        (data({"type": "speech.audio.delta", "audio": "x"}), False),
        (data({"type": "speech.audio.delta", "audio": "x"}, {"type": "speech.audio.done"}), True),
        (data({"type": "transcript.text.delta", "delta": "x"}, {"type": "transcript.text.done"}), True),
        (data({"error": "boom"}), False),
    ],
)
def test_an_unknown_stream_is_taken_at_the_transports_word_a_known_one_is_not(stream: bytes, whole: bool) -> None:
    assert replay([stream], expected=False).whole is whole


@pytest.mark.parametrize(
    ("delta", "started"),
    [
        ({"role": "assistant"}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"content": None, "tool_calls": None, "function_call": None, "refusal": None, "reasoning": None}, False),
        ({"tool_calls": []}, False),
        ({"content": " "}, True),
        ({"content": [{"type": "thinking"}]}, True),
        ({"reasoning": "x"}, True),
        ({"reasoning_content": "x"}, True),
        ({"tool_calls": [{"index": 0}]}, True),
        ({"tool_calls": {"index": 0}}, True),
        ({"function_call": {"name": "f"}}, True),
        ({"refusal": "x"}, True),
        ({"audio": {"data": "x"}}, True),
        (None, False),
    ],
)
def test_the_first_token_is_the_first_content(delta: Any, started: bool) -> None:
    assert replay([data({"choices": [{"index": 0, "delta": delta}]})]).started is started


def test_the_first_token_of_the_other_dialects() -> None:
    assert replay([data({"choices": [{"text": "x"}]})]).started
    assert not replay([data({"choices": [{"text": ""}]})]).started
    assert replay([data({"token": {"text": "x"}})]).started
    assert not replay([data({"token": {"text": ""}})]).started
    assert replay([b"event: response.function_call_arguments.delta\ndata: {}\n\n"]).started
    assert not replay([b"event: response.output_item.added\ndata: {}\n\n"]).started


def test_an_oversized_terminal_ends_its_stream_once_it_is_all_there() -> None:
    event = b"event: image_generation.completed\ndata: " + b"x" * 200 + b"\n\n"
    stream = data({"type": "image_generation.partial_image"}) + event
    assert replay([stream[:150], stream[150:]], limit=100) == Told()
    assert replay([stream[:150], stream[150:-1]], limit=100).whole is False


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"message": {"detail": [1]}, "type": "t", "code": None}}, InBandError('{"detail":[1]}', "t")),
        ({"object": "error", "message": "m", "type": "t", "code": 400}, InBandError("m", "t", 400)),
        ({"error": {"code": 1.5, "type": 3}}, InBandError('{"code":1.5,"type":3}')),
        ({"choices": [{"index": 0, "error": {"message": "m"}}]}, InBandError("m")),
        ({"error": True}, InBandError("true")),
        ({"error": None, "choices": []}, None),
        ({"error": {}, "x_groq": {"error": None}, "response": {"error": None}}, None),
        ([{"error": "a"}, {"error": "b"}], None),
        ("error", None),
        (None, None),
    ],
)
def test_errors_in_bodies(body: Any, error: InBandError | None) -> None:
    assert in_band_error(body) == error


NAMES = [
    "choices",
    "delta",
    "index",
    "finish_reason",
    "error",
    "message",
    "code",
    "type",
    "x_groq",
    "response",
    "token",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=3) | st.just("error"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
EVENT_NAMES = st.sampled_from(["", "error", "done", "response.completed", "x"])
EVENTS = st.builds(Event.of_json, JSON, EVENT_NAMES) | st.builds(Event.of, st.binary(max_size=9), EVENT_NAMES)


@given(st.lists(EVENTS.map(lambda event: event.raw) | st.binary(max_size=30)))
def test_nothing_raises(chunks: list[bytes]) -> None:
    assert isinstance(replay(chunks), Told)


WORDS = [f" word{number}" for number in range(40)]


def delivered(stream: bytes, size: int) -> int:
    """What was counted of a stream that came in chunks of so many bytes, looked at as the relay does."""
    reader, answer = Reader(), Answer(expected=True, reads_usage=True)
    for start in range(0, len(stream), size):
        part = stream[start : start + size]
        if not (reader.at_boundary and answer.says_nothing(part)):
            for event in reader.feed(part):
                answer.see(event)
    return answer.delivered_tokens()


CHAT_STREAM = data(chunk(""), *map(chunk, WORDS))
EVENT_BYTES = len(data(chunk(" word11")))
STREAMS_TO_COUNT = {
    "chat": (CHAT_STREAM, 40),
    "chat with padding": (data(*(chunk(word, obfuscation="x" * (number % 17)) for number, word in enumerate(WORDS))), 40),
    "chat without a role chunk": (data(*map(chunk, WORDS)), 40),
    "two choices": (data(*(chunk(word, index=number % 2) for number, word in enumerate(WORDS))), 40),
    "completions": (data(*({"choices": [{"index": 0, "text": word, "finish_reason": None}]} for word in WORDS)), 40),
    "reasoning first": (data({"choices": [{"index": 0, "delta": {"reasoning": "hm"}}]}, *map(chunk, WORDS)), 41),
    "responses": (data(*({"type": "response.output_text.delta", "delta": word} for word in WORDS)), 40),
    "TGI": (data(*({"index": n, "token": {"text": word}, "generated_text": None} for n, word in enumerate(WORDS, 1))), 40),
    "blocks of text": (data(chunk("a block of some forty letters, as I said"), *[chunk("and another one of forty letters, again.")] * 9), 100),
    "nothing yet": (data(chunk("")), 0),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "tokens"), STREAMS_TO_COUNT.values(), ids=STREAMS_TO_COUNT)
def test_tokens_are_counted_on_the_way_however_the_stream_is_cut(stream: bytes, tokens: int) -> None:
    sizes = (1, 7, EVENT_BYTES, 12 * EVENT_BYTES, len(stream))
    assert {delivered(stream, size) for size in sizes} == {tokens}


@pytest.mark.parametrize("ended", [0, 1, 10, 39])
def test_what_was_delivered_before_a_cut_is_counted_to_the_token(ended: int) -> None:
    assert delivered(data(chunk(""), *map(chunk, WORDS[:ended])), 7) == ended


@pytest.mark.parametrize(
    "value", [{"model": "gpt-4o-2024-08-06"}, {"type": "response.created", "response": {"model": "gpt-4o-2024-08-06"}}]
)
def test_the_model_is_the_one_that_says_it_answered(value: Any) -> None:
    answer = Answer(expected=True, reads_usage=True)
    for event in Reader().feed(data(chunk("", model=""), value, chunk("x", model="another"))):
        answer.see(event)
    assert answer.model == "gpt-4o-2024-08-06"
