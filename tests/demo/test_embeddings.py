import math

import pytest
from openai import AsyncOpenAI, BadRequestError


async def vectors(client: AsyncOpenAI, texts: object, **settings: object) -> list[list[float]]:
    answer = await client.embeddings.create(model="m", input=texts, **settings)
    return [item.embedding for item in answer.data]


async def test_vectors_have_unit_length_and_256_dimensions(client: AsyncOpenAI):
    for vector in await vectors(client, ["A river", "é ☕", "x"]):
        assert len(vector) == 256
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [1, 3, 1536])
async def test_dimensions_are_as_asked(client: AsyncOpenAI, size: int):
    (vector,) = await vectors(client, "A river", dimensions=size)
    assert len(vector) == size
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)


async def test_floats_and_base64_are_the_same_vector(client: AsyncOpenAI):
    assert await vectors(client, "A river", encoding_format="float") == [
        pytest.approx(vector, abs=1e-6) for vector in await vectors(client, "A river")
    ]
    raw = await client.embeddings.with_raw_response.create(model="m", input="A river", encoding_format="base64")
    assert isinstance(raw.http_response.json()["data"][0]["embedding"], str)


async def test_likeness_is_seen(client: AsyncOpenAI):
    river, stream, invoice = await vectors(
        client, ["a river in the valley", "the valley of a river", "unpaid invoice 77"]
    )
    assert dot(river, stream) > dot(river, invoice) + 0.3


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


async def test_token_ids_count_as_they_are(client: AsyncOpenAI):
    answer = await client.embeddings.create(model="m", input=[[1, 2, 3], [4]])
    assert (len(answer.data), answer.usage.prompt_tokens, answer.data[1].index) == (2, 4, 1)
    assert len((await client.embeddings.create(model="m", input=[1, 2, 3])).data) == 1


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ["ok", ""]}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"dimensions": 4097}, "dimensions"),
    ],
)
async def test_what_is_wrong_is_named(client: AsyncOpenAI, wrong: dict[str, object], param: str):
    with pytest.raises(BadRequestError) as refused:
        await client.post("/embeddings", body={"model": "m", "input": "hi"} | wrong, cast_to=object)
    assert refused.value.param == param
