import pytest
from openai import AsyncOpenAI, NotFoundError


async def test_the_list_and_any_other_name(client: AsyncOpenAI):
    names = [model.id async for model in client.models.list()]
    assert {"demo", "demo-slow", "demo-cut", "demo-error", "demo-429", "demo-500"} <= set(names)
    for name in [*names, "org/name:tag"]:
        assert (await client.models.retrieve(name)).id == name


async def test_one_is_unknown(client: AsyncOpenAI):
    with pytest.raises(NotFoundError) as refused:
        await client.models.retrieve("unknown-model")
    assert refused.value.code == "model_not_found"
