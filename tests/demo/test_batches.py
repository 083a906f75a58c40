import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

SETTINGS = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}


async def test_a_batch_is_taken_listed_and_cancelled(client: AsyncOpenAI):
    assert [one async for one in client.batches.list()] == []
    file = await client.files.create(file=b"{}\n", purpose="batch")
    batch = await client.batches.create(input_file_id=file.id, metadata={"team": "a"}, **SETTINGS)
    assert (batch.status, batch.input_file_id, batch.metadata) == ("in_progress", file.id, {"team": "a"})
    assert [one.id async for one in client.batches.list()] == [batch.id]
    assert (await client.batches.cancel(batch.id)).status == "cancelled"
    assert (await client.batches.retrieve(batch.id)).cancelled_at


async def test_what_is_not_there_is_named(client: AsyncOpenAI):
    with pytest.raises(BadRequestError) as refused:
        await client.batches.create(input_file_id="file-none", **SETTINGS)
    assert refused.value.param == "input_file_id"
    with pytest.raises(NotFoundError):
        await client.batches.cancel("batch_none")


async def test_no_more_than_a_hundred_are_kept(client: AsyncOpenAI):
    file = await client.files.create(file=b"{}\n", purpose="batch")
    for _ in range(100):
        await client.batches.create(input_file_id=file.id, **SETTINGS)
    with pytest.raises(BadRequestError) as refused:
        await client.batches.create(input_file_id=file.id, **SETTINGS)
    assert refused.value.code == "batch_limit_exceeded"
