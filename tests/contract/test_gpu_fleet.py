"""Three servers that tell their load over HTTP as TGI and vLLM do: who is asked, who waits, and who is told that it cannot be."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from proxy import testing
from tests import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy import app

ASK = {"model": "tgi", "messages": [{"role": "user", "content": "What is a weir?"}]}


@dataclass
class Gpu:
    """Answers chats when it is told to. `others`: what somebody else has it do; what waits beyond `batch` is queued."""

    batch: int = 4
    others: int = 0
    concurrent: int = 128
    dialect: str = "tgi"
    chats: list[testing.Received] = field(default_factory=list)
    under_way: int = 0
    free: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, received: testing.Received, up: testing.Wire) -> None:
        match received.target:
            case "/metrics":
                await testing.answer(self._metrics(), content_type="text/plain")(received, up)
            case "/info" if self.dialect == "tgi":
                told = {"max_concurrent_requests": self.concurrent, "max_input_tokens": 900, "max_total_tokens": 1000}
                await testing.answer(orjson.dumps(told))(received, up)
            case "/v1/chat/completions":
                await self._chat(received, up)
            case _:
                await testing.answer(b"", status=404)(received, up)

    async def _chat(self, received: testing.Received, up: testing.Wire) -> None:
        self.chats.append(received)
        self.under_way += 1
        await self.free.wait()
        await asyncio.sleep(0.003 * max((self.others + self.under_way) / self.batch, 1.0))
        self.under_way -= 1
        await testing.chat("A dam.")(received, up)

    def _metrics(self) -> bytes:
        total = self.others + self.under_way
        running, waiting = min(total, self.batch), max(total - self.batch, 0)
        if self.dialect == "vllm":
            return b'vllm:num_requests_running{engine="0"} %d\nvllm:num_requests_waiting{engine="0"} %d\n' % (
                running,
                waiting,
            )
        return b"tgi_queue_size %d\ntgi_batch_current_size %d\n" % (waiting, running)


@contextlib.asynccontextmanager
async def fleet(*gpus: Gpu, route: str = "balance: queue", interval: str = "50ms") -> AsyncIterator[app.Weir]:
    async with contextlib.AsyncExitStack() as stack:
        blocks = []
        for name, gpu in zip("abc", gpus, strict=False):
            up = await stack.enter_async_context(testing.upstream(gpu))
            where = f'kind: tgi, base_url: "{up.url}"' if gpu.dialect == "tgi" else f'base_url: "{up.url}/v1"'
            blocks.append(f"{name}: {{{where}, load: {{interval: {interval}, timeout: 20s}}}}")
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f"upstreams: {{{', '.join(blocks)}}}\n"
            f"routes: [{{name: gpus, targets: [{', '.join('abc'[: len(gpus)])}], {route}}}]\n"
        )
        weir = await stack.enter_async_context(testing.configured(text))
        await wire.until(lambda: all(told["load"]["running"] is not None for told in upstreams(weir)))
        yield weir


def upstreams(weir: app.Weir) -> list[dict[str, Any]]:
    return list(weir.state()["upstreams"].values())


async def test_the_server_with_the_shorter_queue_is_asked() -> None:
    gpus = [Gpu(others=20), Gpu(others=2), Gpu(others=20, dialect="vllm")]
    for gpu in gpus:
        gpu.free.set()
    async with fleet(*gpus, interval="2s") as weir:
        await wire.until(lambda: b'weir_upstream_load{state="waiting",upstream="c"} 16.0' in weir.metrics.page())
        await wire.until(lambda: b'weir_upstream_load{state="running",upstream="b"} 2.0' in weir.metrics.page())
        exchange = testing.exchange(body=orjson.dumps(ASK))
        first = [weir.gateway.router.routes[0].ordered(exchange)[0].upstream for _ in range(600)]
        answer = await testing.ask(weir, ASK)
    # two are drawn each time, so that replicas do not all go to the one without a queue: it is among them twice in three
    assert 300 < first.count("b") < 500
    assert answer.status == 200


async def test_a_request_that_fits_nowhere_reaches_no_server() -> None:
    gpu = Gpu()
    gpu.free.set()
    async with fleet(gpu) as weir:
        await wire.until(lambda: upstreams(weir)[0]["capacity"]["total_tokens"])
        too_long = await testing.ask(weir, {"messages": [{"role": "user", "content": "word " * 901}]})
        too_much = await testing.ask(weir, {**ASK, "max_tokens": 998})
        fits = await testing.ask(weir, {**ASK, "max_tokens": 900})
    error = too_long.json()["error"]
    assert (too_long.status, error["code"], error["type"]) == (400, "context_length_exceeded", "invalid_request_error")
    assert (too_much.status, too_much.json()["error"]["param"], fits.status) == (400, "max_tokens", 200)
    assert len(gpu.chats) == 1


async def test_a_full_fleet_queues_and_goes_by_what_the_servers_take() -> None:
    gpus = [Gpu(concurrent=2), Gpu(concurrent=1)]
    async with fleet(*gpus, route="balance: queue, queue: {max: 2, timeout: 20s}") as weir:
        await wire.until(lambda: all(told["capacity"]["concurrent"] for told in upstreams(weir)))
        asking = [asyncio.ensure_future(testing.ask(weir, ASK)) for _ in range(6)]
        queue = weir.gateway.router.routes[0].queue
        assert queue is not None
        await wire.until(lambda: sum(task.done() for task in asking) == 1 and queue.waiting == 2)
        assert [len(gpu.chats) for gpu in gpus] == [2, 1]
        for gpu in gpus:
            gpu.free.set()
        statuses = sorted([(await task).status for task in asking])
    assert statuses == [200] * 5 + [429]


async def test_others_requests_fill_a_server_too() -> None:
    gpu = Gpu(others=3, concurrent=4)
    async with fleet(gpu, route="queue: {max: 5, timeout: 20s}") as weir:
        await wire.until(lambda: upstreams(weir)[0]["capacity"]["concurrent"])
        asking = [asyncio.ensure_future(testing.ask(weir, ASK)) for _ in range(2)]
        queue = weir.gateway.router.routes[0].queue
        assert queue is not None
        await wire.until(lambda: gpu.under_way == 1 and queue.waiting == 1)
        gpu.others = 0
        await wire.until(lambda: gpu.under_way == 2)
        gpu.free.set()
        assert {(await task).status for task in asking} == {200}


async def test_a_server_that_says_nothing_of_its_load_serves_all_the_same() -> None:
    async def mute(received: testing.Received, up: testing.Wire) -> None:
        script = testing.chat("hi") if "chat" in received.target else testing.answer(b"", status=404)
        await script(received, up)

    async with testing.upstream(mute) as one, testing.upstream(mute) as two:
        text = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{a: {{base_url: "{one.url}/v1"}}, b: {{base_url: "{two.url}/v1", load: off}}}}\n'
            "routes: [{name: gpus, targets: [a, b], balance: queue}]\n"
        )
        async with testing.configured(text) as weir:
            answers = [await testing.ask(weir, ASK) for _ in range(40)]
            assert [told["load"] for told in upstreams(weir)] == [{"running": None, "waiting": None}] * 2
    assert {answer.headers["x-weir-upstream"] for answer in answers} == {"a", "b"}
    assert not [received for received in two.requests if "chat" not in received.target]
