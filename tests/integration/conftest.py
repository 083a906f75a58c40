from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy import demo
from tests.integration import weir as processes
from tests.integration.weir import Weir


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[str]:
    """The demo upstream's root URL; it talks fast."""
    async with demo.running(pace=0.001, first_token=0.005) as root:
        yield root


@pytest.fixture(scope="module")
def weir(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weir]:
    with processes.running(f"{upstream}/v1", folder(tmp_path_factory)) as started:
        yield started


@pytest.fixture(scope="module")
def native_weir(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weir]:
    """In front of the same upstream as of a TGI server, native routes and all."""
    with processes.running(upstream, folder(tmp_path_factory), kind="tgi") as started:
        yield started


def folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("weir")
