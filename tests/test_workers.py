"""Several processes as one: what is counted, who is replaced, how a config is taken, and that nothing is dropped."""

import asyncio
import contextlib
import os
import pathlib
import re
import signal
import socket
import sys

import orjson
import pytest

from proxy import testing, workers
from proxy.config import Address
from proxy.testing import chat_events
from tests import wire
from tests.integration.weir import free_ports

ROOT = pathlib.Path(__file__).parents[1]
ASK = orjson.dumps({"model": "m", "messages": []})
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
)
POST = HEAD % (len(ASK), b"connection: close\r\n") + ASK
KEPT = HEAD % (len(ASK), b"") + ASK


class Crew:
    def __init__(self, process, folder, port, admin, count):
        self.process = process
        self.folder = folder
        self.url, self.admin = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
        self.head = f'server: {{listen: "127.0.0.1:{port}", admin: "127.0.0.1:{admin}", workers: {count}}}\n'

    async def asks(self, path, method="GET"):
        request = f"{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        return await wire.fetch(self.admin, request.encode())

    async def ready(self):
        with contextlib.suppress(ConnectionError, EOFError):
            return (await self.asks("/readyz")).status == 200
        return False

    async def state(self):
        return orjson.loads((await self.asks("/state")).body)

    async def metrics(self, name):
        page = (await self.asks("/metrics")).body.decode()
        found = re.findall(rf"^{name}(?:\{{([^}}]*)\}})? (\S+)$", page, re.MULTILINE)
        return {labels: float(value) for labels, value in found}

    async def counts(self, exchanges):
        """All of them were answered; a worker that is slow to answer is shown as it was."""

        async def counted():
            found = await self.metrics("weir_requests_total")
            return found == {'endpoint="chat",outcome="ok",route="default"': exchanges}

        await self.until(counted)

    async def pids(self):
        return [one["pid"] for one in (await self.state())["workers"]]

    def log(self):
        lines = (self.folder / "err").read_text().splitlines()
        return [orjson.loads(line) for line in lines if line.startswith("{")]

    def said(self, message):
        return [line for line in self.log() if line["message"] == message]

    async def until(self, happened):
        async with asyncio.timeout(wire.SECONDS):
            while not await happened():  # noqa: ASYNC110 - polled, bounded
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def serving(folder, yaml, *, count=2):
    """Ready; killed where the test has not ended it."""
    crew = Crew(None, folder, *free_ports(), count)
    (folder / "config.yaml").write_text(crew.head + yaml)
    command = [sys.executable, "-m", "proxy.cli", "serve", "--config", "config.yaml"]
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        crew.process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=env, stdout=out, stderr=err)
    try:
        await crew.until(crew.ready)
        yield crew
    finally:
        with contextlib.suppress(ProcessLookupError):
            crew.process.kill()
        await crew.process.wait()


async def ended(crew, number=signal.SIGTERM):
    crew.process.send_signal(number)
    async with asyncio.timeout(wire.SECONDS):
        return await crew.process.wait()


def config(url, plugins="[]", route="default"):
    return (
        f'upstreams: {{up: {{base_url: "{url}/v1"}}}}\nplugins: {plugins}\nroutes: [{{name: {route}, targets: [up]}}]\n'
    )


async def times(crew, count):
    """So many requests, each on a connection of its own; their statuses."""
    return [message.status for message in await asyncio.gather(*(wire.fetch(crew.url, POST) for _ in range(count)))]


async def test_two_workers_are_shown_as_one_and_one_that_dies_is_replaced(tmp_path):
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        serving(tmp_path, config(upstream.url, "[{metering: {ledger: ledger.jsonl}}]")) as crew,
    ):
        assert set(await times(crew, 40)) == {200}
        state = await crew.state()
        assert [(one["worker"], one["number"], one["ready"]) for one in state["workers"]] == [
            (0, 0, True),
            (1, 0, True),
        ]
        shares = [one["upstreams"]["up"]["pool"]["open"] for one in state["workers"]]
        assert all(shares), "each has had some"
        await crew.counts(40)
        assert await crew.metrics("weir_request_duration_seconds_count") == {'endpoint="chat",route="default"': 40}
        assert await crew.metrics("weir_workers") == {"": 2}

        ledger = tmp_path / "ledger.jsonl"
        await wire.until(lambda: len(ledger.read_text().splitlines()) == 40)  # else a kill may lose a tenth of a second
        victim = (await crew.pids())[0]
        os.kill(victim, signal.SIGKILL)
        assert set(await times(crew, 40)) == {200}  # what waits at its door is its successor's
        await crew.until(crew.ready)
        [died] = crew.said("a worker has died, and is replaced")
        assert (died["pid"], died["exit"]) == (victim, "SIGKILL")
        assert await crew.metrics("weir_worker_starts_total") == {"": 3}
        await crew.counts(80)
        assert await ended(crew) == 0
    lines = [orjson.loads(line) for line in ledger.read_text().splitlines()]
    assert len({line["id"] for line in lines}) == 80
    access = [orjson.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert {line["id"] for line in access} >= {line["id"] for line in lines}


async def test_renewing_the_workers_drops_nothing(tmp_path):
    first, *rest = chat_events(["a"] * 20)
    go_on, stop, statuses = asyncio.Event(), asyncio.Event(), []

    async def script(received, up):
        if received.headers.get("x-stream"):
            await up.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n", first)
            await go_on.wait()
            await up.send(*rest)
            up.close()
        else:
            await testing.chat("hi")(received, up)

    async def keeps_asking(crew):
        """On one connection, until it is told to close it, then on the next."""
        while not stop.is_set():
            async with wire.connected(crew.url) as client:
                goes_on = True
                while goes_on and not stop.is_set():
                    await client.send(KEPT)
                    message = await client.answer("POST")
                    statuses.append(message.status)
                    goes_on = message.head.get("connection") != "close"

    async with (
        testing.upstream(script) as upstream,
        serving(tmp_path, config(upstream.url)) as crew,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(wire.connected(crew.url)) for _ in range(10)]
        streams = []
        for client in clients:
            await client.send(HEAD % (len(ASK), b"x-stream: 1\r\n") + ASK)
            streams.append(await client.start("POST"))
        asking = [asyncio.ensure_future(keeps_asking(crew)) for _ in range(8)]
        before = await crew.pids()
        crew.process.send_signal(signal.SIGUSR2)

        async def renewed():
            return [one["number"] for one in (await crew.state())["workers"]].count(1) == 2

        await crew.until(renewed)
        done = len(statuses)
        await wire.until(lambda: len(statuses) > done + 50)
        stop.set()
        await asyncio.gather(*asking)
        go_on.set()
        messages = [await stream.whole() for stream in streams]
        for client in clients:
            client.leave()
        assert {message.body for message in messages} == {b"".join([first, *rest])}
        assert set(statuses) == {200}

        async def gone():
            return not set(before) & set(await crew.pids())

        await crew.until(gone)
        await crew.counts(len(statuses) + 10)
        assert not crew.said("a worker has died, and is replaced")
        assert await ended(crew) == 0


async def test_all_take_a_config_or_none_and_the_sum_of_limits_is_the_limit(tmp_path):
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        serving(tmp_path, config(upstream.url)) as crew,
    ):
        before = (await crew.state())["config"]["hash"]
        (tmp_path / "config.yaml").write_text(crew.head + config(upstream.url, "[{nothing: {}}]"))

        async def reloaded():
            return (await crew.state())["config"]["reload"] is not None

        await crew.until(reloaded)
        state = await crew.state()
        assert {one["config"]["hash"] for one in state["workers"]} == {before} == {state["config"]["hash"]}
        assert "plugins[0].nothing" in state["config"]["reload"]["problems"][0]
        assert await crew.metrics("weir_config_last_reload_successful") == {"": 0}

        limited = "[{rate_limit: {by: route, requests: 5/hour}}]"
        (tmp_path / "config.yaml").write_text(crew.head + config(upstream.url, limited, "limited"))
        crew.process.send_signal(signal.SIGHUP)

        async def taken():
            return (await crew.state())["config"]["hash"] != before

        await crew.until(taken)
        state = await crew.state()
        assert {one["config"]["hash"] for one in state["workers"]} == {state["config"]["hash"]}
        statuses = await times(crew, 60)
        assert (statuses.count(200), statuses.count(429)) == (4, 56)  # two workers, each with half of five
        assert (await crew.metrics("weir_config_reloads_total")) == {
            'result="ok"': 1,
            'result="failed"': 1,
            'result="unchanged"': 0,
        }

        os.kill((await crew.pids())[0], signal.SIGKILL)  # its successor begins with the config in use

        async def replaced():
            workers = (await crew.state())["workers"]
            return len(workers) == 2 and sum(one["number"] for one in workers) == 1

        await crew.until(replaced)
        state = await crew.state()
        assert {one["config"]["hash"] for one in state["workers"]} == {state["config"]["hash"]}
        assert await ended(crew) == 0


@pytest.mark.parametrize("count", [1, 2])
async def test_a_stop_under_load_lets_all_streams_end(tmp_path, count):
    first, *rest = chat_events(["a"] * 20)
    go_on = asyncio.Event()

    async def script(received, up):
        await up.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n", first)
        await go_on.wait()
        await up.send(*rest)
        up.close()

    async with (
        testing.upstream(script) as upstream,
        serving(tmp_path, config(upstream.url), count=count) as crew,
        contextlib.AsyncExitStack() as stack,
    ):
        streams = []
        for _ in range(30):
            client = await stack.enter_async_context(wire.connected(crew.url))
            await client.send(KEPT)
            streams.append(await client.start("POST"))
        ending = asyncio.ensure_future(ended(crew))
        await wire.until(lambda: len(crew.said("draining")) == count)
        ready = await crew.asks("/readyz")
        assert (ready.status, ready.body) == (503, b"draining\n")
        late = await wire.fetch(crew.url, b"GET //x HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (late.status, late.head.get("connection")) == (400, "close")
        assert (await crew.asks("/livez")).status == 200
        go_on.set()
        assert {(await stream.whole()).body for stream in streams} == {b"".join([first, *rest])}
        assert await ending == 0
    lines = [orjson.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert sorted(line["outcome"] for line in lines) == ["client_error", *["ok"] * 30]


async def test_workers_end_with_the_process_that_started_them(tmp_path):
    async with serving(tmp_path, config("http://127.0.0.1:1")) as crew:
        crew.process.kill()
        await crew.process.wait()
        await wire.until(lambda: len(crew.said("stopped")) == 2)


async def test_what_cannot_start_is_told_and_exits_with_1(tmp_path):
    yaml = 'plugins: [{keys: {use: "tests.test_app:Order", fails: true}}]\n'
    text = 'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0", workers: 2}\n' + config("http://127.0.0.1:1").replace(
        "plugins: []\n", yaml
    )
    (tmp_path / "config.yaml").write_text(text)
    command = [sys.executable, "-m", "proxy.cli", "serve", "--config", "config.yaml"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=env, stderr=asyncio.subprocess.PIPE)
    _, told = await asyncio.wait_for(process.communicate(), wire.SECONDS)
    assert process.returncode == 1
    assert b"config.yaml:3 plugins[0].keys: plugin 'keys' cannot start: RuntimeError: the store is away" in told


# -- sockets


def test_an_address_that_somebody_has_is_refused_although_ports_are_shared():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"127.0.0.1:{port}: address already in use"):
            workers.listening(Address("127.0.0.1", port), 2)


@pytest.mark.parametrize("count", [1, 3])
def test_every_worker_has_sockets_on_the_same_port(count):
    found = workers.listening(Address("127.0.0.1", 0), count)
    try:
        assert len(found) == count
        assert len({sock.getsockname() for own in found for sock in own}) == 1
        assert len({sock.fileno() for own in found for sock in own}) == count
    finally:
        for own in found:
            for sock in own:
                sock.close()
