"""A Weir whose callers have budgets, in front of a scripted upstream; what a day is, the test says."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from plugins.budget import period
from proxy import app, testing
from proxy.plugin import PRINCIPAL, Plugin, PluginConfig, Principal
from tests import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

NOON = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)
"""A Saturday."""


class Who(Plugin[PluginConfig]):
    """Believes what `x-who` says; who it knows has a metric of its own."""

    provides = (PRINCIPAL,)

    async def on_request(self, exchange):
        name = exchange.request.headers.get("x-who", "search-team")
        labels = {"feature": exchange.request.headers["x-feature"]} if "x-feature" in exchange.request.headers else {}
        exchange[PRINCIPAL] = Principal(name, labels, metric=name if name.endswith("-team") else "other")


@dataclass
class House:
    upstream: testing.Upstream
    weir: app.Weir
    out: io.BytesIO = field(default_factory=io.BytesIO)

    async def ask(self, tokens: int | None = 1000, *, prompt: int = 0, who: str = "search-team", **more: Any) -> Any:
        """A chat with a prompt of so many tokens, and an answer of so many at most."""
        headers = {"x-who": who, **more.pop("headers", {})}
        path = more.pop("path", testing.CHAT)
        body: dict[str, Any] = {"model": "gpt", "messages": [{"role": "user", "content": "x" * 4 * prompt}], **more}
        if tokens is not None:
            body["max_tokens"] = tokens
        return await testing.ask(self.weir, body, headers=headers, path=path)

    async def ledger(self, count: int) -> list[dict[str, Any]]:
        """The lines of so many exchanges, when all are over."""

        def lines() -> list[dict[str, Any]]:
            found = [orjson.loads(line) for line in self.out.getvalue().splitlines()]
            return [line for line in found if line["log"] == "ledger"]

        await wire.until(lambda: len(lines()) >= count and not self.weir.in_flight)
        return lines()

    def spent(self, name: str = "budget") -> dict[str, tuple[Decimal, Decimal]]:
        """Of each subject and period what was used, and the limit, as `/state` has them."""
        shown = self.weir.state()["plugins"][name]["spent"]
        return {f"{s['subject']} {s['period']}": (Decimal(s["used_usd"]), Decimal(s["limit_usd"])) for s in shown}

    async def settled(self, used: str, period: str = "search-team 2026-11-28") -> None:
        """Raises where it never comes to that."""
        await wire.until(lambda: self.spent().get(period, (0,))[0] == Decimal(used))

    def metric(self, name: str) -> dict[str, float]:
        page = self.weir.metrics.page().decode().splitlines()
        found = [line.rsplit(" ", 1) for line in page if line.startswith((f"{name}{{", f"{name} "))]
        return {labels.removeprefix(name): float(value) for labels, value in found}


def counted(prompt: int, answer: int, **more: Any) -> testing.Script:
    """An upstream that reports these tokens."""
    usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    return testing.answer(orjson.dumps({"model": "gpt", "choices": [], "usage": usage, **more}))


@pytest.fixture
def clock(monkeypatch):
    """What time it is, in a list of one."""
    moment = [NOON]

    def seconds() -> float:
        return moment[0].timestamp()

    monkeypatch.setattr(period, "seconds", seconds)
    return moment


@pytest.fixture
def house(clock, monkeypatch) -> Callable[..., AbstractAsyncContextManager[House]]:
    """`gpt` costs $1 for 1,000 tokens of an answer, and $0.10 for 1,000 of a prompt."""

    monkeypatch.setattr("plugins.budget.budget.LOOK_SECONDS", 0.01)

    @contextlib.asynccontextmanager
    async def made(
        script: testing.Script,
        budget: str,
        *,
        routes: str = "",
        before: str = "",
        after: str = "",
        upstreams: str = "",
        top: str = "",
    ) -> AsyncIterator[House]:
        """`before` and `after` are the plugins around the budget."""
        async with testing.upstream(script) as upstream:
            text = (
                f'server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}\n{top}'
                f'upstreams:\n  up: {{base_url: "{upstream.url}/v1", prices: {{gpt: {{input: "100", output: "1000"}}, '
                f"free: {{free: true}}}}}}\n{upstreams.replace('URL', upstream.url)}"
                f"plugins:\n  - who: {{use: '{__name__}:Who'}}\n  - metering\n{before}  - budget: {budget}\n{after}"
                f"routes:\n{routes}  - {{name: default, targets: [up]}}\n"
            )
            out = io.BytesIO()
            async with testing.configured(text, out) as weir:
                yield House(upstream, weir, out)

    return made
