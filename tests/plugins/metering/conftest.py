"""A metered Weir in front of a scripted upstream, and its ledger."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from proxy import app, testing
from tests import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

PRICES = """
  gpt-4o: {input: "2.50", cached_input: "1.25", output: "10"}
  gpt-4o-2024-08-06: {input: "2.50", cached_input: "1.25", output: "10"}
  free-model: {free: true}
"""


@dataclass
class House:
    upstream: testing.Upstream
    weir: app.Weir
    out: io.BytesIO = field(default_factory=io.BytesIO)

    def lines(self) -> list[dict[str, Any]]:
        found = [orjson.loads(line) for line in self.out.getvalue().splitlines()]
        return [line for line in found if line["log"] == "ledger"]

    async def line(self) -> dict[str, Any]:
        """The one that there is to be, when all is over."""
        await wire.until(lambda: self.lines() and not self.weir.in_flight)
        (line,) = self.lines()
        return line

    def metric(self, name: str) -> dict[str, float]:
        """By the labels as the page has them."""
        page = self.weir.metrics.page().decode().splitlines()
        found = [line.rsplit(" ", 1) for line in page if line.startswith((f"{name}{{", f"{name} "))]
        return {labels.removeprefix(name): float(value) for labels, value in found}


@pytest.fixture
def house() -> Callable[..., AbstractAsyncContextManager[House]]:
    @contextlib.asynccontextmanager
    async def made(
        script: testing.Script,
        *,
        before: str = "",
        metering: str = "{}",
        settings: str = "",
        routes: str = "",
        last: str = "",
    ) -> AsyncIterator[House]:
        """`before` are plugins in front of metering, `settings` further keys of the upstream, `last` of the last route."""
        prices = "".join(f"      {line}\n" for line in map(str.strip, PRICES.strip().splitlines()))
        async with testing.upstream(script) as upstream:
            text = (
                'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0", max_request_bytes: 512KiB}\n'
                f'upstreams:\n  up:\n    base_url: "{upstream.url}/v1"\n{settings}    prices:\n{prices}'
                f"plugins:\n{before}  - metering: {metering}\n"
                f"routes:\n{routes}  - {{name: default, targets: [up]{last}}}\n"
            )
            out = io.BytesIO()
            async with testing.configured(text, out) as weir:
                yield House(upstream, weir, out)

    return made
