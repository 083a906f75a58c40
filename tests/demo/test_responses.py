import orjson
import pydantic
import pytest
from openai import AsyncOpenAI, BadRequestError

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
KINDS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


async def test_a_response(client: AsyncOpenAI):
    answer = await client.responses.create(
        model="m", input="Hello there", instructions="Be brief", metadata={"team": "a"}
    )
    assert (answer.status, answer.instructions, answer.metadata) == ("completed", "Be brief", {"team": "a"})
    assert "“Hello there”" in answer.output_text
    assert answer.usage.input_tokens == 5  # "Be brief" and "Hello there": 19 characters
    assert answer.usage.total_tokens == 5 + answer.usage.output_tokens


async def test_its_stream_tells_every_step_in_order(client: AsyncOpenAI):
    whole = await client.responses.create(model="m", input="Hello there")
    events = [event async for event in await client.responses.create(model="m", input="Hello there", stream=True)]
    assert list(dict.fromkeys(event.type for event in events)) == KINDS
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    assert events[0].response.status == "in_progress"
    assert events[-1].response.usage.output_tokens == len(deltas)
    assert events[-1].response == whole


async def test_the_sdk_accumulates_it(client: AsyncOpenAI):
    async with client.responses.stream(model="m", input="Hello there") as stream:
        final = await stream.get_final_response()
    assert final.output_text == (await client.responses.create(model="m", input="Hello there")).output_text


async def test_max_output_tokens_leave_it_incomplete(client: AsyncOpenAI):
    answer = await client.responses.create(model="m", input="Hello", max_output_tokens=16)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    events = [
        e async for e in await client.responses.create(model="m", input="Hello", max_output_tokens=16, stream=True)
    ]
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.usage.output_tokens == 16


async def test_a_function_call_and_its_output(client: AsyncOpenAI):
    asked = [{"role": "user", "content": [{"type": "input_text", "text": "The weather in Lisbon?"}]}]
    answer = await client.responses.create(model="m", input=asked, tools=[WEATHER])
    (call,) = answer.output
    assert (call.type, call.name, orjson.loads(call.arguments)) == ("function_call", "get_weather", {"city": "Lisbon"})
    events = [
        event async for event in await client.responses.create(model="m", input=asked, tools=[WEATHER], stream=True)
    ]
    assert "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta") == call.arguments
    assert events[-1].response.output == [call]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "22 °C"}
    history = [*asked, call.model_dump(exclude_none=True), output]
    told = await client.responses.create(model="m", input=history, tools=[WEATHER])
    assert "“22 °C”" in told.output_text


class Trip(pydantic.BaseModel):
    title: str
    nights: int


async def test_a_json_schema_is_met(client: AsyncOpenAI):
    answer = await client.responses.parse(model="m", input="Hello", text_format=Trip)
    assert isinstance(answer.output_parsed, Trip)
    loose = await client.responses.create(model="m", input="Hello", text={"format": {"type": "json_object"}})
    assert orjson.loads(loose.output_text)["answer"]


async def test_a_failing_stream_says_so_in_an_event_of_its_own(client: AsyncOpenAI):
    events = [event async for event in await client.responses.create(model="demo-error", input="Hello", stream=True)]
    assert [event.type for event in events][-2:] == ["response.output_text.delta", "error"]
    assert events[-1].code == "server_error"
    assert sum(event.type == "response.output_text.delta" for event in events) == 5


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": 7}]}, "input[0].role"),
        ({"text": {"format": {"type": "poem"}}}, "text.format"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
async def test_what_is_wrong_is_named(client: AsyncOpenAI, wrong: dict[str, object], param: str):
    with pytest.raises(BadRequestError) as refused:
        await client.post("/responses", body={"model": "m", "input": "hi"} | wrong, cast_to=object)
    assert refused.value.param == param
