import asyncio

import orjson
import pydantic
import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI, pydantic_function_tool

from .wire import exchange, unchunked

HELLO = [{"role": "user", "content": "Hello from the test-suite, please answer me now or never"}]
RAIN = [{"role": "user", "content": "What is the weather in Lisbon?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 2},
                "unit": {"enum": ["C"]},
            },
            "required": ["city", "days"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "tell_time"}}


async def test_an_answer_says_who_speaks_and_what_it_heard(client: AsyncOpenAI):
    answer = await client.chat.completions.create(model="any/model:tag", messages=HELLO)
    text = answer.choices[0].message.content
    assert "Weir" in text
    assert "demo upstream" in text
    assert "“Hello from the test-suite, please answer me now”" in text
    assert "é" in text
    assert any(ord(letter) > 0xFFFF for letter in text), "a character of four bytes is in every answer"
    assert (answer.model, answer.object, answer.choices[0].finish_reason) == (
        "any/model:tag",
        "chat.completion",
        "stop",
    )
    assert answer.usage.prompt_tokens == 14  # 56 characters
    assert answer.usage.total_tokens == 14 + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


async def test_a_stream_is_the_same_answer_token_by_token(client: AsyncOpenAI):
    whole = await client.chat.completions.create(model="m", messages=HELLO)
    stream = await client.chat.completions.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    role, *tokens, finish, usage = [chunk async for chunk in stream]
    assert (role.choices[0].delta.role, role.choices[0].delta.content) == ("assistant", "")
    assert "".join(chunk.choices[0].delta.content for chunk in tokens) == whole.choices[0].message.content
    assert {chunk.choices[0].finish_reason for chunk in [role, *tokens]} == {None}
    assert (finish.choices[0].finish_reason, finish.choices[0].delta.to_dict()) == ("stop", {})
    assert {chunk.to_dict()["usage"] for chunk in [role, *tokens, finish]} == {None}
    assert (usage.choices, usage.usage.completion_tokens) == ([], len(tokens))
    assert usage.usage == whole.usage
    assert {chunk.id for chunk in [role, *tokens, finish, usage]} == {whole.id}


async def test_on_the_wire_every_event_is_a_chunk_of_its_own(demo: str):
    body = orjson.dumps({"model": "m", "messages": HELLO, "stream": True, "max_tokens": 3})
    status, head, framed = await exchange(demo, "POST", "/v1/chat/completions", body)
    chunks, ended = unchunked(framed)
    assert (status, ended) == (200, True)
    assert b"content-type: text/event-stream" in head
    assert all(chunk.startswith(b"data: {") and chunk.endswith(b"}\n\n") for chunk in chunks[:-1])
    assert chunks[-1] == b"data: [DONE]\n\n"
    assert len(chunks) == 1 + 3 + 1 + 1  # role, tokens, finish, done
    assert b'"usage"' not in framed, "nobody asked for it"
    assert await exchange(demo, "POST", "/v1/chat/completions", body) != (status, head, framed), (
        "ids of requests differ"
    )
    assert (await exchange(demo, "POST", "/v1/chat/completions", body))[2] == framed, "the body does not"


def asked(url: str) -> tuple[str, str]:
    with OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        whole = client.chat.completions.create(model="m", messages=HELLO).choices[0].message.content
        with client.chat.completions.stream(model="m", messages=HELLO) as stream:
            return whole, stream.get_final_completion().choices[0].message.content


async def test_the_synchronous_client_hears_the_same(demo: str):
    whole, streamed = await asyncio.to_thread(asked, demo)
    assert whole == streamed


@pytest.mark.parametrize(
    "limit", [{"max_tokens": 4}, {"max_completion_tokens": 4}, {"max_completion_tokens": 4, "max_tokens": 9}]
)
async def test_max_tokens_ends_with_length(client: AsyncOpenAI, limit: dict[str, int]):
    answer = await client.chat.completions.create(model="m", messages=HELLO, **limit)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 4)


async def test_no_answer_is_longer_than_the_cap(client: AsyncOpenAI):
    answer = await client.chat.completions.create(
        model="m", messages=HELLO, max_tokens=1_000_000, extra_body={"ignore_eos": True}
    )
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 4096)


@pytest.mark.parametrize("stop", ["said", ["never met", "said", "Hello from"]])
async def test_stop_sequences_end_it_before_they_are_said(client: AsyncOpenAI, stop: str | list[str]):
    whole = await client.chat.completions.create(model="m", messages=HELLO)
    answer = await client.chat.completions.create(model="m", messages=HELLO, stop=stop)
    assert answer.choices[0].message.content == whole.choices[0].message.content.partition("said")[0] != ""
    assert answer.choices[0].finish_reason == "stop"


async def test_choices_differ_and_interleave(client: AsyncOpenAI):
    whole = await client.chat.completions.create(model="m", messages=HELLO, n=3, max_tokens=30)
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    stream = await client.chat.completions.create(model="m", messages=HELLO, n=3, max_tokens=30, stream=True)
    chunks = [chunk.choices[0] async for chunk in stream]
    assert [choice.index for choice in chunks[:9]] == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert ["".join(one.delta.content or "" for one in chunks if one.index == index) for index in range(3)] == texts
    assert [choice.finish_reason for choice in chunks if choice.finish_reason] == ["length"] * 3
    assert whole.usage.completion_tokens == 90


async def test_the_seed_decides(client: AsyncOpenAI):
    async def text(seed: int) -> str:
        answer = await client.chat.completions.create(model="m", messages=HELLO, seed=seed)
        return answer.choices[0].message.content

    assert await text(1) == await text(1)
    assert len({await text(seed) for seed in range(8)}) > 1


async def test_content_parts_are_read(client: AsyncOpenAI):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "Look here"}, picture]}]
    answer = await client.chat.completions.create(model="m", messages=messages)
    assert "“Look here”" in answer.choices[0].message.content


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("auto", "get_weather"),
        ("required", "get_weather"),
        ({"type": "function", "function": {"name": "tell_time"}}, "tell_time"),
        ("none", None),
    ],
)
async def test_tool_choice_is_obeyed(client: AsyncOpenAI, choice: object, called: str | None):
    answer = await client.chat.completions.create(model="m", messages=RAIN, tools=[CLOCK, WEATHER], tool_choice=choice)
    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ([called] if called else [])
    assert answer.choices[0].finish_reason == ("tool_calls" if called else "stop")


async def test_what_mentions_no_tool_calls_none_unless_one_is_required(client: AsyncOpenAI):
    free = await client.chat.completions.create(model="m", messages=HELLO, tools=[CLOCK, WEATHER])
    assert free.choices[0].message.tool_calls is None
    forced = await client.chat.completions.create(
        model="m", messages=HELLO, tools=[CLOCK, WEATHER], tool_choice="required"
    )
    assert forced.choices[0].message.tool_calls[0].function.name == "tell_time"


async def test_a_tool_call_streams_as_fragments_that_fit_its_schema(client: AsyncOpenAI):
    whole = await client.chat.completions.create(model="m", messages=RAIN, tools=[WEATHER])
    call = whole.choices[0].message.tool_calls[0]
    assert orjson.loads(call.function.arguments) == {"city": "Lisbon", "days": 2}
    stream = await client.chat.completions.create(
        model="m", messages=RAIN, tools=[WEATHER], stream=True, stream_options={"include_usage": True}
    )
    first, *fragments, finish, usage = [chunk async for chunk in stream]
    opening = first.choices[0].delta.tool_calls[0]
    assert (opening.id, opening.function.name, opening.function.arguments) == (call.id, "get_weather", "")
    written = [chunk.choices[0].delta.tool_calls[0].function.arguments for chunk in fragments]
    assert len(written) > 3
    assert "".join(written) == call.function.arguments
    assert finish.choices[0].finish_reason == "tool_calls"
    assert usage.usage.completion_tokens == len(written)


async def test_the_answer_of_a_tool_is_put_into_words(client: AsyncOpenAI):
    called = await client.chat.completions.create(model="m", messages=RAIN, tools=[WEATHER])
    call = called.choices[0].message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "22 °C and sunny"}
    messages = [*RAIN, called.choices[0].message, result]
    answer = await client.chat.completions.create(model="m", messages=messages, tools=[WEATHER])
    assert "“22 °C and sunny”" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


class City(pydantic.BaseModel):
    name: str


class Trip(pydantic.BaseModel):
    """A trip"""

    title: str
    nights: int
    stops: list[City]
    next: "Trip | None"


async def test_json_schemas_are_met(client: AsyncOpenAI):
    answer = await client.chat.completions.parse(model="m", messages=HELLO, response_format=Trip)
    assert isinstance(answer.choices[0].message.parsed, Trip)
    async with client.chat.completions.stream(model="m", messages=HELLO, response_format=Trip) as stream:
        streamed = await stream.get_final_completion()
    assert streamed.choices[0].message.parsed == answer.choices[0].message.parsed


async def test_pydantic_tools_are_met(client: AsyncOpenAI):
    messages = [{"role": "user", "content": "Plan a trip to Porto"}]
    answer = await client.chat.completions.parse(model="m", messages=messages, tools=[pydantic_function_tool(Trip)])
    assert answer.choices[0].message.tool_calls[0].function.parsed_arguments.title == "Porto"


async def test_json_mode_writes_an_object(client: AsyncOpenAI):
    answer = await client.chat.completions.create(model="m", messages=HELLO, response_format={"type": "json_object"})
    assert "Hello from" in orjson.loads(answer.choices[0].message.content)["answer"]


async def test_logprobs_cover_every_token(client: AsyncOpenAI):
    answer = await client.chat.completions.create(model="m", messages=HELLO, logprobs=True, top_logprobs=2)
    scored = answer.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in scored).decode() == answer.choices[0].message.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in scored)
    stream = await client.chat.completions.create(model="m", messages=HELLO, logprobs=True, max_tokens=1, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[1].choices[0].logprobs.content[0].token == scored[0].token


BAD = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    ({"model": None}, "model"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"logprobs": True, "top_logprobs": 21, "stream": True}, "top_logprobs"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"stop": [1]}, "stop"),
    ({"tools": "all"}, "tools"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ({"tools": [CLOCK], "tool_choice": 7}, "tool_choice"),
    ({"response_format": {"type": "poem"}}, "response_format"),
]


@pytest.mark.parametrize(("wrong", "param"), BAD)
async def test_what_is_wrong_is_named(client: AsyncOpenAI, wrong: dict[str, object], param: str):
    body = {"model": "m", "messages": HELLO} | wrong
    with pytest.raises(BadRequestError) as refused:
        await client.post("/chat/completions", body=body, cast_to=object)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
