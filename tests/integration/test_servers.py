"""Real servers give the same through Weir as direct: bytes, what the `openai` SDK makes of them, errors; tokens are counted.

`make test-clients` runs them; the first run installs what they need, and builds llama-cpp-python from source.
"""

import asyncio
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from tests.integration import servers, wire
from tests.integration import weir as processes
from tests.integration.clients import Server, canonical, interrupted, sync

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(3000)]
beside_the_upstream = pytest.mark.asyncio(loop_scope="module")

SERVERS: dict[str, Callable[[Path], AbstractContextManager[Server]]] = {
    "litserve": servers.litserve,
    "transformers serve": servers.transformers,
}
if shutil.which("c++"):
    SERVERS["llama-cpp-python"] = servers.llama
FAILS = {"litserve": "fail in the middle", "llama-cpp-python": "too long " * 200}
"""Messages that a stream cannot be whole with; transformers serve cuts them to what its model takes."""

NEW = re.compile(rb'("(?:id|created|created_at|request_id)": ?)("[^"]*"|[\d.]+)')
OWN = ("x-weir-", "x-litellm-", "llm_provider-", "x-ratelimit-", "x-request-id", "request-id", "openai-processing-ms")
OF_THE_HOP = {"connection", "content-length", "transfer-encoding", "date"}
METERED = "plugins: [metering: {{ledger: {folder}/ledger.jsonl}}]\n"


def chat(model: str, text: str = "one two three", **settings: Any) -> bytes:
    said = [{"role": "user", "content": text}]
    return orjson.dumps({"model": model, "messages": said, "max_tokens": 6, "temperature": 0, **settings})


def seen(server: Server, body: bytes) -> Any:
    """Status, header and every byte, but for what is new in each answer."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {server.key}"}
    answer = asyncio.run(wire.by_httpx2(server.root, wire.Ask("POST", wire.CHAT, body, headers)))
    fields = sorted((name.lower(), value) for name, value in answer.headers)
    kept = [(name, value) for name, value in fields if name not in OF_THE_HOP and not name.startswith(OWN)]
    return answer.status, kept, NEW.sub(rb"\1*", answer.body)


def said(server: Server, text: str = "one two three", **settings: Any) -> Any:
    with sync(server) as client:
        message: Any = [{"role": "user", "content": text}]
        answer = client.chat.completions.create(
            model=server.model, messages=message, max_tokens=6, temperature=0, **settings
        )
        return list(answer) if settings.get("stream") else answer


def told(value: Any) -> Any:
    """What the SDK gave, with stars for ids, moments and the name of the model."""
    stars = {"id": "*", "model": "*", "created": "*"}
    if isinstance(value, dict):
        return {key: stars.get(key) or told(part) for key, part in value.items()}
    return [told(part) for part in value] if isinstance(value, list) else value


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return told(canonical(call()))
    except openai.APIError as error:
        return type(error).__name__, getattr(error, "status_code", None), error.body


def ledger(folder: Path) -> list[Any]:
    return [orjson.loads(line) for line in (folder / "ledger.jsonl").read_bytes().splitlines()]


def compare(direct: Server, through: Server) -> None:
    usage = {"stream_options": {"include_usage": True}}
    bodies = [
        chat(direct.model),
        chat(direct.model, stream=True, **usage),
        b'{"model": ',
        chat("no-such-model"),
        chat(direct.model, messages="wrong"),
    ]
    for body in bodies:
        status, fields, answer = seen(direct, body)
        if ("content-type", "text/plain; charset=utf-8") in fields:  # that no SDK can read is told in a sentence
            found = seen(through, body)
            assert (found[0], answer.decode() in orjson.loads(found[2])["error"]["message"]) == (status, True)
        else:
            assert seen(through, body) == (status, fields, answer)
    for settings in ({}, {"stream": True}, {"stream": True, **usage}):
        whole = outcome(partial(said, direct, **settings))
        assert outcome(partial(said, through, **settings)) == whole
        assert "Error" not in str(whole)


@pytest.mark.parametrize("name", SERVERS)
def test_a_real_server_is_the_same_through_weir(name: str, tmp_path: Path) -> None:
    with SERVERS[name](tmp_path) as direct:
        with processes.running(direct.base_url, tmp_path, more=METERED.format(folder=tmp_path)) as weir:
            through = Server(weir.root, direct.model)
            compare(direct, through)
            whole: Any = said(through)
        lines = ledger(tmp_path)
        assert [line["outcome"] for line in lines].count("ok") >= 5
        counts = lines[-1]["tokens"]["input"], lines[-1]["tokens"]["output"]
        assert counts == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
        assert not lines[-1]["estimated"]


@pytest.mark.parametrize("name", sorted(FAILS.keys() & SERVERS.keys()))
def test_a_stream_that_a_real_server_does_not_end_is_an_error(name: str, tmp_path: Path) -> None:
    """LitServe tells it in what is no whole event; llama-cpp-python ends an empty answer in order."""
    with SERVERS[name](tmp_path) as direct:
        with processes.running(direct.base_url, tmp_path, more=METERED.format(folder=tmp_path)) as weir:
            through = Server(weir.root, direct.model)
            with pytest.raises(openai.APIError):
                said(through, FAILS[name], stream=True)
        (line,) = ledger(tmp_path)
        assert line["outcome"] == "stream_interrupted"


@beside_the_upstream
async def test_litellm_behind_and_in_front(upstream: str, tmp_path: Path) -> None:
    await asyncio.to_thread(behind_and_in_front, upstream, tmp_path)


def behind_and_in_front(upstream: str, folder: Path) -> None:
    """App, LiteLLM, Weir, upstream; and app, Weir, LiteLLM, upstream."""
    (inner := folder / "inner").mkdir()
    (outer := folder / "outer").mkdir()
    with (
        processes.running(f"{upstream}/v1", inner, more=METERED.format(folder=inner)) as below,
        servers.litellm(folder, upstream, below.root) as litellm,
        processes.running(litellm.base_url, outer, more=METERED.format(folder=outer)) as above,
    ):
        compare(litellm, Server(above.root, "demo", litellm.key))
        by_weir = Server(litellm.root, "by-weir", litellm.key)
        for settings in ({}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}):
            assert outcome(partial(said, by_weir, **settings)) == outcome(partial(said, litellm, **settings))
        for model in ("demo-cut", "by-weir-cut"):  # how much of it LiteLLM lets through is a matter of moments
            assert interrupted(Server(litellm.root, model, litellm.key))[1] == "APIError"
    assert {line["outcome"] for line in ledger(inner)} == {"ok", "stream_interrupted"}
    whole = [line for line in ledger(outer) if line["outcome"] == "ok"]
    assert len(whole) >= 4
    assert not any(line["estimated"] for line in whole)
