import pytest
from openai import AsyncOpenAI, BadRequestError


async def test_violence_is_flagged(client: AsyncOpenAI):
    answer = await client.moderations.create(input=["Good morning", "I will attack at dawn"])
    calm, violent = answer.results
    assert (calm.flagged, violent.flagged, violent.categories.violence) == (False, True, True)
    assert violent.category_scores.violence > calm.category_scores.violence
    assert violent.categories.harassment_threatening is False


async def test_content_parts_are_one_input(client: AsyncOpenAI):
    answer = await client.moderations.create(
        model="m", input=[{"type": "text", "text": "Kill"}, {"type": "text", "text": "it"}]
    )
    assert [result.flagged for result in answer.results] == [True]


async def test_no_input_is_refused(client: AsyncOpenAI):
    with pytest.raises(BadRequestError) as refused:
        await client.moderations.create(input=[])
    assert refused.value.param == "input"
