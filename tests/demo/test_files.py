import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError


async def test_a_file_comes_back_as_it_went_up(client: AsyncOpenAI):
    content = bytes(range(256)) * 5000
    file = await client.files.create(file=("Größe.bin", content, "application/x-test"), purpose="batch")
    assert (file.filename, file.bytes, file.purpose, file.status) == ("Größe.bin", len(content), "batch", "processed")
    assert [one.id async for one in client.files.list()] == [file.id]
    assert [one.id async for one in client.files.list(purpose="vision")] == []
    assert await client.files.retrieve(file.id) == file
    kept = await client.files.content(file.id)
    assert kept.content == content
    assert kept.response.headers["content-type"] == "application/x-test"
    assert (await client.files.delete(file.id)).deleted
    with pytest.raises(NotFoundError):
        await client.files.content(file.id)


async def test_no_more_than_a_hundred_are_kept(client: AsyncOpenAI):
    first = await client.files.create(file=b"x", purpose="batch")
    for _ in range(99):
        await client.files.create(file=b"x", purpose="batch")
    with pytest.raises(BadRequestError) as refused:
        await client.files.create(file=b"x", purpose="batch")
    assert refused.value.code == "storage_limit_exceeded"
    await client.files.delete(first.id)
    await client.files.create(file=b"x", purpose="batch")


async def test_no_more_than_64_mib_are_kept(client: AsyncOpenAI):
    await client.files.create(file=bytes(40 * 2**20), purpose="batch")
    with pytest.raises(BadRequestError) as refused:
        await client.files.create(file=bytes(30 * 2**20), purpose="batch")
    assert refused.value.code == "storage_limit_exceeded"


async def test_a_purpose_is_needed(client: AsyncOpenAI):
    with pytest.raises(BadRequestError) as refused:
        await client.files.create(file=b"x", purpose="")
    assert refused.value.param == "purpose"
