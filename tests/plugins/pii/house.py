"""Weir with pii in front of one scripted upstream that says again what it was told."""

from __future__ import annotations

import contextlib
import hashlib
import io
from typing import TYPE_CHECKING, Any

import openai
import orjson

from proxy import testing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from proxy import app
    from proxy.testing import Answer, Received, Script, Wire

EMAIL, OTHER = "bob@example.com", "carol@example.com"


def keys(*names: str) -> dict[str, Any]:
    """An auth plugin that knows these callers by keys of the same names."""
    return {"auth": {"keys": [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in names]}}


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


async def echo(received: Received, wire: Wire) -> None:
    """A model that repeats its last message."""
    await testing.chat(f"You wrote: {received.json()['messages'][-1]['content']} and that is all")(received, wire)


class House:
    def __init__(self, weir: app.Weir, upstream: testing.Upstream, log: io.BytesIO) -> None:
        self.weir, self.upstream, self.log = weir, upstream, log

    async def ask(self, body: Any, *, key: str = "ada", path: str = testing.CHAT, **fields: str) -> Answer:
        """By the caller `key`; `fields` are further header fields, `_` for `-`."""
        headers = {
            "authorization": f"Bearer {key}",
            **{name.replace("_", "-"): value for name, value in fields.items()},
        }
        return await testing.ask(self.weir, body, path=path, headers=headers)

    @property
    def sdk(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.weir.url}/v1", api_key="ada", max_retries=0)

    def page(self) -> str:
        """All metrics."""
        return self.weir.metrics.page().decode()

    def found(self) -> dict[str, float]:
        """What was counted, by entity and direction."""
        counted = {}
        for line in self.page().splitlines():
            if line.startswith("weir_pii_found_total{") and not line.endswith(" 0.0"):
                labels, value = line.rsplit(" ", 1)
                parts = dict(part.split("=") for part in labels[labels.index("{") + 1 : -1].split(","))
                counted[f"{parts['entity']} {parts['direction']}".replace('"', "")] = float(value)
        return counted


@contextlib.asynccontextmanager
async def house(
    script: Script = echo,
    *,
    before: Iterable[Any] = (),
    behind: Iterable[Any] = (),
    redis: str = "",
    route: str = "",
    targets: str = "[up]",
    **pii: Any,
) -> AsyncIterator[House]:
    """`before` and `behind` are plugins of the chain, `pii` its settings, `route` further keys of the route."""
    log = io.BytesIO()
    async with testing.upstream(script) as upstream:
        plugins = orjson.dumps([*before, {"pii": pii}, *behind]).decode()
        text = (
            f'server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}\nredis: "{redis}"\n'
            f'upstreams: {{up: {{base_url: "{upstream.url}/v1"}}}}\n'
            f"plugins: {plugins}\n"
            f"routes: [{{name: main, targets: {targets}{', ' if route else ''}{route}}}]\n"
        )
        async with testing.configured(text, log) as weir:
            yield House(weir, upstream, log)
