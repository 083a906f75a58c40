import pytest
from openai import AsyncOpenAI, BadRequestError


async def test_an_answer_has_16_tokens_unless_more_are_asked_for(client: AsyncOpenAI):
    short = await client.completions.create(model="m", prompt="Once upon a time")
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 16)
    whole = await client.completions.create(model="m", prompt="Once upon a time", max_tokens=500)
    assert (whole.choices[0].finish_reason, whole.usage.prompt_tokens) == ("stop", 4)
    assert whole.choices[0].text.startswith(short.choices[0].text)
    assert "“Once upon a time”" in whole.choices[0].text


async def test_every_prompt_has_its_choices(client: AsyncOpenAI):
    answer = await client.completions.create(model="m", prompt=["first", "second"], n=2, max_tokens=200)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert ["“first”" in choice.text for choice in answer.choices] == [True, True, False, False]
    assert answer.choices[0].text != answer.choices[1].text
    assert answer.usage.prompt_tokens == 2 + 2


async def test_a_stream_carries_text_of_all_prompts_then_usage(client: AsyncOpenAI):
    whole = await client.completions.create(model="m", prompt=["first", "second"])
    stream = await client.completions.create(
        model="m", prompt=["first", "second"], stream=True, stream_options={"include_usage": True}
    )
    *events, usage = [chunk async for chunk in stream]
    for choice in whole.choices:
        mine = [chunk.choices[0] for chunk in events if chunk.choices[0].index == choice.index]
        assert "".join(one.text for one in mine) == choice.text
        assert [one.finish_reason for one in mine if one.finish_reason] == ["length"]
    assert usage.usage == whole.usage
    assert usage.usage.completion_tokens == sum(chunk.choices[0].text != "" for chunk in events)


async def test_echo_and_stop(client: AsyncOpenAI):
    plain = await client.completions.create(model="m", prompt="Say: ", max_tokens=100, stop="Weir")
    echoed = await client.completions.create(model="m", prompt="Say: ", max_tokens=100, stop="Weir", echo=True)
    assert echoed.choices[0].text == "Say: " + plain.choices[0].text
    assert "Weir" not in plain.choices[0].text
    assert echoed.usage == plain.usage


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2], [3]]])
async def test_token_ids_are_prompts(client: AsyncOpenAI, prompt: list[object]):
    answer = await client.completions.create(model="m", prompt=prompt)
    assert len(answer.choices) == (1 if prompt[0] == 1 else 2)


@pytest.mark.parametrize(
    ("wrong", "param"), [({"prompt": None}, "prompt"), ({"prompt": []}, "prompt"), ({"n": 200}, "n")]
)
async def test_what_is_wrong_is_named(client: AsyncOpenAI, wrong: dict[str, object], param: str):
    with pytest.raises(BadRequestError) as refused:
        await client.completions.create(**({"model": "m", "prompt": "hi"} | wrong))
    assert refused.value.param == param
