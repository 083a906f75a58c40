from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI

from proxy.demo import running


@pytest.fixture
async def demo() -> AsyncIterator[str]:
    """The root URL of a demo upstream that does not wait."""
    async with running(pace=0, first_token=0) as url:
        yield url


@pytest.fixture
async def client(demo: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{demo}/v1", api_key="any", max_retries=0, timeout=20) as client:
        yield client
