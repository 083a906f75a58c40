"""Kept as a stream or as JSON, asked for as a stream or as JSON: the official SDK reads the same out of all four (66, 67)."""

import asyncio

import orjson
import pytest

from proxy import testing
from tests.plugins.cache.house import USAGE, house

SHELL = {"id": "chatcmpl-7", "created": 1760000000, "model": "m-2026", "system_fingerprint": "fp_1"}
TOKEN = {
    "token": "Hi",
    "logprob": -0.1,
    "bytes": [72, 105],
    "top_logprobs": [{"token": "Hi", "logprob": -0.1, "bytes": None}],
}
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ghent"}'}},
    {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
]


def choice(index=0, reason="stop", logprobs=None, **message):
    return {
        "index": index,
        "message": {"role": "assistant", "content": None, "refusal": None, **message},
        "logprobs": logprobs,
        "finish_reason": reason,
    }


def delta(index=0, reason=None, logprobs=None, **told):
    return {"index": index, "delta": told, "logprobs": logprobs, "finish_reason": reason}


CHATS = {
    "text": (
        [choice(content="Hi there")],
        [delta(role="assistant", content=""), delta(content="Hi"), delta(content=" there"), delta(reason="stop")],
    ),
    "three choices, interleaved": (
        [choice(0, content="a b"), choice(1, content="c"), choice(2, content="d")],
        [
            *(delta(index, role="assistant", content="") for index in (0, 1, 2)),
            delta(0, content="a"),
            delta(2, content="d"),
            delta(1, content="c"),
            delta(1, "stop"),
            delta(0, content=" b"),
            delta(0, "stop"),
            delta(2, "stop"),
        ],
    ),
    "tool calls": (
        [choice(reason="tool_calls", tool_calls=CALLS)],
        [
            delta(role="assistant", content=None),
            delta(tool_calls=[{"index": 0, **CALLS[0], "function": {"name": "weather", "arguments": ""}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"city": '}}]),
            delta(tool_calls=[{"index": 1, **CALLS[1], "function": {"name": "time", "arguments": "{}"}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": '"Ghent"}'}}]),
            delta(reason="tool_calls"),
        ],
    ),
    "reasoning": (
        [choice(content="42", reasoning_content="Let me think.")],
        [
            delta(role="assistant", content=""),
            delta(reasoning_content="Let me"),
            delta(reasoning_content=" think."),
            delta(content="42"),
            delta(reason="stop"),
        ],
    ),
    "logprobs": (
        [choice(content="HiHi", logprobs={"content": [TOKEN, TOKEN], "refusal": None})],
        [
            delta(role="assistant", content=""),
            delta(content="Hi", logprobs={"content": [TOKEN], "refusal": None}),
            delta(content="Hi", logprobs={"content": [TOKEN], "refusal": None}),
            delta(reason="stop"),
        ],
    ),
    "a refusal": (
        [choice(refusal="I cannot help")],
        [delta(role="assistant", refusal=""), delta(refusal="I cannot"), delta(refusal=" help"), delta(reason="stop")],
    ),
    "what is nobody's standard": (
        [choice(content="x", annotations=[{"url": "u"}])],
        [
            delta(role="assistant", content=""),
            delta(content="x", annotations=[{"url": "u"}]),
            delta(reason="stop"),
        ],
    ),
}


def chat_script(choices, deltas):
    """Answers in both ways, with a usage where that is asked for."""
    whole = testing.answer(orjson.dumps({**SHELL, "object": "chat.completion", "choices": choices, "usage": USAGE}))
    chunk = {**SHELL, "object": "chat.completion.chunk"}
    events = [_event({**chunk, "choices": [one]}) for one in deltas]
    usage = _event({**chunk, "choices": [], "usage": USAGE})
    stream = testing.stream(*events, usage, b"data: [DONE]\n\n")

    async def script(received, up):
        await (stream if received.json().get("stream") else whole)(received, up)

    return script


def _event(value, name=""):
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: %b\n\n" % orjson.dumps(value)


async def as_stream(client, **more):
    """What the SDK puts together from a stream."""
    options = {"stream_options": {"include_usage": True}}
    async with client.chat.completions.stream(model="m", messages=[], **options, **more) as stream:
        return (await stream.get_final_completion()).to_dict()


async def as_json(client, **more):
    return (await client.chat.completions.create(model="m", messages=[], **more)).to_dict()


WAYS = {"stream": as_stream, "json": as_json}


def plain(value):
    """Without what is null or empty, the SDK's own additions, and the numbers of tool calls."""
    if isinstance(value, dict):
        kept = {name: plain(part) for name, part in value.items() if name not in {"parsed", "parsed_arguments"}}
        return {
            name: part
            for name, part in kept.items()
            if part not in (None, [], "") and not (name == "index" and "function" in kept)
        }
    return [plain(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("read", WAYS)
@pytest.mark.parametrize("stored", WAYS)
@pytest.mark.parametrize("name", CHATS)
async def test_a_chat_in_all_four_ways(name, stored, read):
    choices, deltas = CHATS[name]
    n = {"n": len(choices)} if len(choices) > 1 else {}
    async with house(chat_script(choices, deltas), before=("metering",), tool_calls=True) as home:
        await WAYS[stored](home.sdk, **n)
        got = await WAYS[read](home.sdk, **n)
        assert home.calls == 1
    assert plain(got["choices"]) == plain(choices)
    assert plain(got["usage"]) == plain(USAGE)
    assert {key: got[key] for key in SHELL} == SHELL


@pytest.mark.parametrize("wants", [True, False])
@pytest.mark.parametrize("stored", WAYS)
async def test_the_usage_event_is_there_where_it_was_asked_for(stored, wants):
    async with house(chat_script(*CHATS["text"]), before=("metering",)) as home:
        await WAYS[stored](home.sdk)
        options = {"stream_options": {"include_usage": True}} if wants else {}
        stream = await home.sdk.chat.completions.create(model="m", messages=[], stream=True, **options)
        chunks = [chunk async for chunk in stream]
        assert home.calls == 1
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [wants]
    assert (chunks[-1].choices == []) is wants
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hi there"


# -- completions

LOGPROBS = {"tokens": ["Hi"], "token_logprobs": [-0.5], "top_logprobs": [{"Hi": -0.5}], "text_offset": [0]}
TEXTS = [
    {"index": 0, "text": "Hi there", "logprobs": LOGPROBS, "finish_reason": "stop"},
    {"index": 1, "text": "Ho", "logprobs": None, "finish_reason": "stop"},
]


def completion_script():
    shell = {**SHELL, "object": "text_completion"}
    whole = testing.answer(orjson.dumps({**shell, "choices": TEXTS, "usage": USAGE}))
    told = [
        {"index": 0, "text": "Hi", "logprobs": LOGPROBS, "finish_reason": None},
        {"index": 1, "text": "Ho", "logprobs": None, "finish_reason": "stop"},
        {"index": 0, "text": " there", "logprobs": None, "finish_reason": "stop"},
    ]
    events = [_event({**shell, "choices": [one]}) for one in told]
    stream = testing.stream(*events, _event({**shell, "choices": [], "usage": USAGE}), b"data: [DONE]\n\n")

    async def script(received, up):
        await (stream if received.json().get("stream") else whole)(received, up)

    return script


async def text_as_stream(client):
    stream = await client.completions.create(
        model="m", prompt="x", n=2, stream=True, stream_options={"include_usage": True}
    )
    choices = [{"index": index, "text": "", "logprobs": None, "finish_reason": None} for index in (0, 1)]
    usage = None
    async for chunk in stream:
        usage = chunk.usage or usage
        for told in chunk.choices:
            known = choices[told.index]
            known["text"] += told.text
            known["finish_reason"] = told.finish_reason or known["finish_reason"]
            known["logprobs"] = told.logprobs.to_dict() if told.logprobs else known["logprobs"]
    return choices, usage.to_dict()


async def text_as_json(client):
    made = (await client.completions.create(model="m", prompt="x", n=2)).to_dict()
    return made["choices"], made["usage"]


TEXT_WAYS = {"stream": text_as_stream, "json": text_as_json}


@pytest.mark.parametrize("read", TEXT_WAYS)
@pytest.mark.parametrize("stored", TEXT_WAYS)
async def test_a_completion_in_all_four_ways(stored, read):
    async with house(completion_script(), before=("metering",)) as home:
        await TEXT_WAYS[stored](home.sdk)
        choices, usage = await TEXT_WAYS[read](home.sdk)
        assert home.calls == 1
    assert plain(choices) == plain(TEXTS)
    assert plain(usage) == plain(USAGE)


# -- responses

PART = {"type": "output_text", "text": "Hi there", "annotations": [], "logprobs": []}
OUTPUT = [
    {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "I thought."}]},
    {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [PART]},
    {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "f", "arguments": "{}"},
]
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1760000000,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "model": "m-2026",
    "output": OUTPUT,
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "usage": {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 6,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 11,
    },
}


def response_script():
    at = {"output_index": 1, "item_id": "msg_1", "content_index": 0}
    begun = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}
    steps = [
        ("response.created", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": {**OUTPUT[0], "summary": []}}),
        ("response.output_item.done", {"output_index": 0, "item": OUTPUT[0]}),
        (
            "response.output_item.added",
            {"output_index": 1, "item": {**OUTPUT[1], "content": [], "status": "in_progress"}},
        ),
        ("response.content_part.added", {**at, "part": {**PART, "text": ""}}),
        ("response.output_text.delta", {**at, "delta": "Hi ", "logprobs": []}),
        ("response.output_text.delta", {**at, "delta": "there", "logprobs": []}),
        ("response.output_text.done", {**at, "text": "Hi there", "logprobs": []}),
        ("response.content_part.done", {**at, "part": PART}),
        ("response.output_item.done", {"output_index": 1, "item": OUTPUT[1]}),
        ("response.output_item.added", {"output_index": 2, "item": {**OUTPUT[2], "arguments": ""}}),
        ("response.function_call_arguments.delta", {"output_index": 2, "item_id": "fc_1", "delta": "{}"}),
        (
            "response.function_call_arguments.done",
            {"output_index": 2, "item_id": "fc_1", "name": "f", "arguments": "{}"},
        ),
        ("response.output_item.done", {"output_index": 2, "item": OUTPUT[2]}),
        ("response.completed", {"response": RESPONSE}),
    ]
    stream = testing.stream(
        *(_event({"type": kind, "sequence_number": number, **told}, kind) for number, (kind, told) in enumerate(steps))
    )
    whole = testing.answer(orjson.dumps(RESPONSE))

    async def script(received, up):
        await (stream if received.json().get("stream") else whole)(received, up)

    return script


async def response_as_stream(client):
    said, called = "", ""
    async with client.responses.stream(model="m", input="x") as stream:
        async for event in stream:
            said += event.delta if event.type == "response.output_text.delta" else ""
            called += event.delta if event.type == "response.function_call_arguments.delta" else ""
        assert (said, called) == ("Hi there", "{}")
        return (await stream.get_final_response()).to_dict()


async def response_as_json(client):
    return (await client.responses.create(model="m", input="x")).to_dict()


RESPONSE_WAYS = {"stream": response_as_stream, "json": response_as_json}


@pytest.mark.parametrize("read", RESPONSE_WAYS)
@pytest.mark.parametrize("stored", RESPONSE_WAYS)
async def test_a_response_in_all_four_ways(stored, read):
    async with house(response_script(), before=("metering",), tool_calls=True) as home:
        await RESPONSE_WAYS[stored](home.sdk)
        got = await RESPONSE_WAYS[read](home.sdk)
        assert home.calls == 1
    assert plain(got) == plain(RESPONSE)


async def test_a_response_that_calls_a_tool_is_not_kept_by_default():
    async with house(response_script()) as home:
        for _ in range(2):
            await response_as_json(home.sdk)
            await response_as_stream(home.sdk)
        assert home.calls == 4


async def test_a_stream_at_its_original_pace():
    events = [testing.chat_event({"content": word}) for word in ("a", "b", "c")]
    script = testing.stream(*events, testing.chat_event({}, "stop"), b"data: [DONE]\n\n", pause=0.05)
    async with house(script, pace="original") as home:
        loop, times = asyncio.get_running_loop(), []
        for _ in range(2):
            begun = loop.time()
            answer = await home.ask({"model": "m", "messages": [], "stream": True})
            times.append(loop.time() - begun)
        assert home.calls == 1
    assert answer.headers["x-weir-cache"] == "hit"
    assert answer.body.startswith(b"".join(events))
    assert times[1] > 0.6 * times[0] > 0.1
