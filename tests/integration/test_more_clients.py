"""Clients that bring their own environments: LangChain, Node's `openai` and `ai`, Anthropic's SDK, and the `openai`
package's own tests.

`make test-clients` runs them; the first run installs what they need.
"""

import asyncio
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from tests.contract import systems
from tests.integration import environments, sdk_suite
from tests.integration import weir as processes
from tests.integration.clients import OPENAI, Server
from tests.integration.weir import Weir

HERE = Path(__file__).parent
CLIENT_SECONDS = 60
AT_LEAST = 7000  # tests of the package that need a server

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(1200),
    # aiohttp's multipart reader, with which the demo upstream reads an upload, warns of its own call.
    pytest.mark.filterwarnings("ignore:unread_data:DeprecationWarning"),
]
beside_the_upstream = pytest.mark.asyncio(loop_scope="module")


async def printed(*command: str) -> Any:
    """What a client prints: the JSON of all that it received."""
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=CLIENT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return orjson.loads(done.stdout)


@beside_the_upstream
async def test_langchain(upstream: str, weir: Weir) -> None:
    python = str(await asyncio.to_thread(environments.python, "langchain", "langchain-openai", "orjson"))
    script = str(HERE / "langchain_client.py")
    direct = await printed(python, script, f"{upstream}/v1", "demo")
    assert await printed(python, script, f"{weir.root}/v1", "demo") == direct


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")
@beside_the_upstream
async def test_node(upstream: str, weir: Weir) -> None:
    packages = ("openai", "ai", "@ai-sdk/openai", "zod")
    folder = await asyncio.to_thread(environments.node, "node", *packages)
    script = shutil.copy(HERE / "node_clients.mjs", folder)
    direct = await printed("node", str(script), f"{upstream}/v1", "demo")
    assert await printed("node", str(script), f"{weir.root}/v1", "demo") == direct


@beside_the_upstream
async def test_anthropics_own_api() -> None:
    """Its SDK against the golden answers: whole, streamed, overloaded; and what stops short is an error through Weir."""
    python = str(await asyncio.to_thread(environments.python, "anthropic", "anthropic"))
    names = [golden.id for golden in systems.goldens() if golden.path == "/v1/messages"]
    command = (python, str(HERE / "anthropic_client.py"))
    async with systems.house() as house:
        whole, streamed, overloaded, short = await printed(*command, house.upstream.url, systems.CASE, *names)
        *through, cut = await printed(*command, house.weir.url, systems.CASE, *names)
    assert through == [whole, streamed, overloaded]
    assert whole["content"][0]["text"] == streamed[1]["content"][0]["text"] == "Hello there"
    assert "Overloaded" in str(overloaded)
    assert (isinstance(short[1], dict), isinstance(cut[1], dict)) == (True, False)


def test_the_tests_of_the_openai_package(tmp_path: Path) -> None:
    """Test by test as direct, and the server of those tests receives the same requests."""
    suite = sdk_suite.suite()
    with sdk_suite.double(suite, tmp_path) as double:
        direct = sdk_suite.outcomes(suite, double.root, tmp_path / "direct.xml")
        sent = double.requests()
        assert Counter(direct.values())["passed"] > AT_LEAST
        assert sent.total() > AT_LEAST
        with processes.running(double.root, tmp_path) as weir:
            assert sdk_suite.outcomes(suite, f"{weir.root}/v1", tmp_path / "weir.xml") == direct
        assert double.requests() == sent


@pytest.mark.skipif("WEIR_TEST_UPSTREAM" not in os.environ, reason="WEIR_TEST_UPSTREAM names a real server's root URL")
def test_a_real_server(tmp_path: Path) -> None:
    """`WEIR_TEST_UPSTREAM=http://127.0.0.1:9300 WEIR_TEST_MODEL=…`; what that server cannot do is left out."""
    server = Server(os.environ["WEIR_TEST_UPSTREAM"], os.environ["WEIR_TEST_MODEL"])
    direct = {name: answer for name in OPENAI if (answer := received(name, server)) is not None}
    assert {"openai_chat", "openai_chat_stream", "openai_async"} <= direct.keys()
    with processes.running(server.base_url, tmp_path) as weir:
        assert {name: received(name, Server(weir.root, server.model)) for name in direct} == direct


def received(name: str, server: Server) -> Any:
    try:
        return OPENAI[name](server)
    except (openai.OpenAIError, AttributeError):
        return None
