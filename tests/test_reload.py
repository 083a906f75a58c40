"""Another config while exchanges are under way: what they keep, what the next ones get, and what lives on."""

import asyncio
import contextlib
import io
import logging
import pathlib
import re

import orjson
import pytest

from proxy import app, testing
from proxy.lines import Lines
from proxy.plugin import Plugin, PluginConfig, Response
from proxy.testing import chat_events
from tests import wire

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {**ASK, "stream": True}
HAPPENED: list[str] = []


class TellConfig(PluginConfig):
    says: str
    fails: bool = False


class Tell(Plugin[TellConfig]):
    """Shows which config an exchange has met, and when its plugin comes and goes."""

    Config = TellConfig

    @contextlib.asynccontextmanager
    async def lifespan(self, services):
        if self.config.fails:
            raise RuntimeError("no such place")
        self._count = services.counter("told", "what was said", ("says",))
        HAPPENED.append(f"{self.config.says} in")
        try:
            yield
        finally:
            HAPPENED.append(f"{self.config.says} out")

    def on_response(self, exchange, response: Response):
        response.set_fields({b"x-told": self.config.says.encode()})

    async def on_complete(self, exchange, outcome):
        await asyncio.sleep(0.01)
        self._count.add((self.config.says,))
        HAPPENED.append(f"{self.config.says} completed")


@pytest.fixture(autouse=True)
def _nothing_happened():
    HAPPENED.clear()


def tell(says, **settings):
    return {"tell": {"use": f"{__name__}:Tell", "says": says, **settings}}


def text(url, *, plugins=(), routes="[{name: default, targets: [up]}]", server="", upstream="", more=""):
    return (
        f'server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"{server}}}\n{more}'
        f'upstreams: {{up: {{base_url: "{url}/v1"{upstream}}}}}\n'
        f"plugins: {orjson.dumps(list(plugins)).decode()}\nroutes: {routes}\n"
    )


class House:
    """A Weir with its file, and what it logs to standard output."""

    def __init__(self, weir, file, stdout):
        self.weir = weir
        self.file = file
        self.stdout = stdout

    async def says(self, yaml):
        """What became of it."""
        self.file.write_text(yaml)
        return await self.weir.reloads.reload()

    async def told(self, **fields):
        answer = await testing.ask(self.weir, {**ASK, **fields})
        return answer.headers.get("x-told")

    async def metric(self, name):
        page = await wire.fetch(self.weir.admin_url, b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        found = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", page.body.decode(), re.MULTILINE)
        return {labels: float(value) for labels, value in found}

    async def state(self):
        page = await wire.fetch(self.weir.admin_url, b"GET /state HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        return orjson.loads(page.body)


@contextlib.asynccontextmanager
async def house(folder, yaml, environ=None):
    file, stdout = folder / "config.yaml", io.BytesIO()
    if not file.exists():
        file.write_text(yaml)
    async with app.running(app.Plan.load(file, environ or {}), Lines(stdout)) as weir:
        yield House(weir, file, stdout)


@contextlib.asynccontextmanager
async def streaming(weir):
    """A stream whose first piece has come."""
    body = orjson.dumps(STREAM)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    async with wire.connected(weir.url) as client:
        await client.send(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        answer = await client.start("POST")
        await answer.until(b"}\n\n")
        yield answer


class Slow:
    """An upstream whose streams go on when they are told to."""

    def __init__(self):
        self.words = [f"word{place}" for place in range(20)]
        self.events = chat_events(self.words)
        self.pause = asyncio.Event()

    async def __call__(self, received, up):
        if b'"stream":true' not in received.body.replace(b" ", b""):
            await testing.chat("hi")(received, up)
            return
        first, *rest = self.events
        await up.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n", first)
        await self.pause.wait()
        await up.send(*rest, pause=0.001)
        up.close()


# -- what is taken, and what stays


async def test_the_next_exchange_meets_the_new_rules_and_one_under_way_keeps_the_old(tmp_path):
    slow = Slow()
    async with (
        testing.upstream(slow) as upstream,
        house(tmp_path, text(upstream.url, plugins=[tell("old")])) as home,
    ):
        async with streaming(home.weir) as answer:
            assert await home.says(text(upstream.url, plugins=[tell("new")])) == "ok"
            assert await home.told() == "new"
            assert HAPPENED[:2] == ["old in", "new in"]
            assert "old out" not in HAPPENED
            assert (await home.state())["config"]["generations"] == 2
            slow.pause.set()
            message = await answer.whole()
        await wire.until(lambda: "old out" in HAPPENED)
        assert message.head.get("x-told") == "old"
        assert message.body == b"".join(slow.events)
        assert HAPPENED.index("old completed") < HAPPENED.index("old out")
        assert (await home.state())["config"]["generations"] == 1
        assert await home.metric("told_total") == {'{says="old"}': 1, '{says="new"}': 1}
    assert HAPPENED[-1] == "new out"


async def test_a_hundred_streams_live_through_twenty_reloads(tmp_path):
    slow = Slow()
    route = '[{{name: "r{0}", targets: [{{upstream: up, model: "m{0}"}}]}}]'
    async with (
        testing.upstream(slow) as upstream,
        house(tmp_path, text(upstream.url, plugins=["metering", tell("0")])) as home,
        contextlib.AsyncExitStack() as stack,
    ):
        answers = [await stack.enter_async_context(streaming(home.weir)) for _ in range(100)]
        slow.pause.set()
        whole = [asyncio.ensure_future(answer.whole()) for answer in answers]
        for turn in range(1, 21):
            yaml = text(upstream.url, plugins=["metering", tell(str(turn))], routes=route.format(turn))
            assert await home.says(yaml) == "ok"
            assert await home.told() == str(turn)
            assert upstream.last.json()["model"] == f"m{turn}"
        messages = await asyncio.gather(*whole)
        assert {message.body for message in messages} == {b"".join(slow.events)}
        assert {message.head.get("x-told") for message in messages} == {"0"}
        await wire.until(lambda: len(home.weir._ending) == 0)
        assert await home.metric("weir_config_reloads_total") == {
            '{result="ok"}': 20,
            '{result="failed"}': 0,
            '{result="unchanged"}': 0,
        }
        assert await home.metric("weir_in_flight_requests") == {
            f'{{route="{name}"}}': 0 for name in ["default", *(f"r{turn}" for turn in range(1, 21))]
        }
    lines = [orjson.loads(line) for line in home.stdout.getvalue().splitlines()]
    assert [line["outcome"] for line in lines if line["log"] == "access"] == ["ok"] * 120
    assert len([line for line in lines if line["log"] == "ledger"]) == 120


async def test_what_is_alike_of_an_upstream_lives_on_and_what_is_not_drains(tmp_path):
    slow = Slow()
    two = "[{name: default, targets: [up]}, {name: more, match: {path: /x}, targets: [up]}]"
    async with testing.upstream(slow) as upstream, house(tmp_path, text(upstream.url)) as home:
        await home.told()
        before = home.weir.gateway.upstreams["up"]
        reordered = two.replace("[{name: default, targets: [up]}, ", "[").replace(
            "]}]", "]}, {name: b, targets: [up]}]"
        )
        assert await home.says(text(upstream.url, routes=reordered)) == "ok"
        assert home.weir.gateway.upstreams["up"] is before
        await home.told()
        assert upstream.connections == 1
        async with streaming(home.weir) as answer:
            assert await home.says(text(upstream.url, upstream=", timeouts: {idle: 9s}")) == "ok"
            after = home.weir.gateway.upstreams["up"]
            assert after is not before
            assert before.pool.open > 0
            slow.pause.set()
            assert (await answer.whole()).is_whole
        await wire.until(lambda: before.pool.open == 0)


async def test_limits_live_on(tmp_path):
    limited = [{"rate_limit": {"by": "route", "requests": "1/hour"}}]
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        house(tmp_path, text(upstream.url, plugins=limited)) as home,
    ):
        assert (await testing.ask(home.weir, ASK)).status == 200
        assert await home.says(text(upstream.url, plugins=[*limited, tell("new")])) == "ok"
        assert (await testing.ask(home.weir, ASK)).status == 429


async def test_a_breaker_lives_on_for_the_same_address(tmp_path):
    plugins = [{"circuit_breaker": {"fail_max": 1}}]
    async with (
        testing.upstream(testing.answer(b"{}", status=500)) as upstream,
        house(tmp_path, text(upstream.url, plugins=plugins)) as home,
    ):
        assert (await testing.ask(home.weir, ASK)).status == 500
        assert await home.metric("weir_breaker_state") == {'{upstream="up"}': 2}
        assert await home.says(text(upstream.url, plugins=[*plugins, tell("new")])) == "ok"
        assert (await testing.ask(home.weir, ASK)).status == 503
        moved = text(upstream.url.replace("127.0.0.1", "localhost"), plugins=plugins)
        assert await home.says(moved) == "ok"
        await wire.until(lambda: not home.weir._ending)
        assert await home.metric("weir_breaker_state") == {'{upstream="up"}': 0}


async def test_what_was_learned_lives_on(tmp_path):
    plugins = [
        {"who": {"use": "tests.plugins.budget.conftest:Who"}},
        "metering",
        {"rate_limit": {"by": "route", "tokens": "10000/min"}},
        {"budget": {"by": "principal", "usd": "5/day"}},
        "failover",
    ]
    learned = ("_unwilling", "_answers", "_usual", "_accounts", "_budget")

    def known(home):
        plugins = home.weir.gateway.router.routes[0].chain.plugins
        return {name: getattr(plugin, name) for plugin in plugins for name in learned if hasattr(plugin, name)}

    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        house(tmp_path, text(upstream.url, plugins=plugins)) as home,
    ):
        before = known(home)
        assert set(before) == set(learned)
        assert await home.says(text(upstream.url, plugins=[*plugins, tell("new")])) == "ok"
        after = known(home)
        assert all(after[name] is before[name] for name in learned)
        gone = text(upstream.url, plugins=[tell("new")])
        assert [await home.says(gone), await home.says(text(upstream.url, plugins=plugins))] == ["ok", "ok"]
        assert not any(known(home)[name] is before[name] for name in learned)


async def test_a_cache_lives_on(tmp_path):
    cached = [{"cache": {"scope": "shared"}}]
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        house(tmp_path, text(upstream.url, plugins=cached)) as home,
    ):
        assert (await testing.ask(home.weir, ASK)).headers["x-weir-cache"] == "miss"
        assert await home.says(text(upstream.url, plugins=[*cached, tell("new")])) == "ok"
        assert (await testing.ask(home.weir, ASK)).headers["x-weir-cache"] == "hit"


async def test_a_config_without_exchanges_is_left_at_once(tmp_path):
    async with house(tmp_path, text("http://127.0.0.1:1", plugins=[tell("old")])) as home:
        assert await home.says(text("http://127.0.0.1:1", plugins=[tell("new")])) == "ok"
        await wire.until(lambda: HAPPENED == ["old in", "new in", "old out"])


# -- what is refused


WRONG = [
    ("routes: [", "config.yaml:1"),
    ("upstreams: {up: {base_url: x}}\nroutes: [{name: a, targets: [up]}]\n", "config.yaml:1 upstreams.up.base_url"),
    ("", "config.yaml:1"),
]


@pytest.mark.parametrize(("yaml", "place"), WRONG, ids=["not YAML", "wrong settings", "empty"])
async def test_a_bad_file_changes_nothing_and_is_told_with_its_line(tmp_path, caplog, yaml, place):
    async with testing.upstream(testing.chat("hi")) as upstream:
        good = text(upstream.url, plugins=[tell("old")])
        async with house(tmp_path, good) as home:
            before = (await home.state())["config"]["hash"]
            assert await home.says(yaml) == "failed"
            assert await home.told() == "old"
            told = (await home.state())["config"]
            assert told["hash"] == before
            assert told["reload"]["result"] == "failed"
            assert place in told["reload"]["problems"][0]
            assert (await home.metric("weir_config_info")) == {f'{{hash="{before}"}}': 1}
            assert await home.metric("weir_config_last_reload_successful") == {"": 0}
            [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
            assert record.problems == told["reload"]["problems"]
            assert await home.says(good) == "unchanged"
            assert await home.metric("weir_config_last_reload_successful") == {"": 1}
            await wire.until(lambda: HAPPENED == ["old in", "old completed"])


async def test_a_plugin_that_cannot_start_changes_nothing(tmp_path):
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        house(tmp_path, text(upstream.url, plugins=[tell("old")])) as home,
    ):
        others = {"other": {"use": f"{__name__}:Tell", "says": "other"}}
        assert await home.says(text(upstream.url, plugins=[others, tell("new", fails=True)])) == "failed"
        assert HAPPENED == ["old in", "other in", "other out"]
        assert await home.told() == "old"
        [problem] = (await home.state())["config"]["reload"]["problems"]
    assert "plugins[1].tell: plugin 'tell' cannot start: RuntimeError: no such place" in problem


async def test_what_only_a_restart_takes_is_said_and_the_rest_is_taken(tmp_path, caplog):
    async with testing.upstream(testing.chat("hi")) as upstream, house(tmp_path, text(upstream.url)) as home:
        yaml = text(upstream.url, plugins=[tell("new")], more="redis: redis://:s3cret@127.0.0.1:1\n")
        assert await home.says(yaml.replace('admin: "127.0.0.1:0"', 'admin: "127.0.0.1:1"')) == "ok"
        assert await home.told() == "new"
        assert (await home.state())["config"]["reload"]["needs_restart"] == ["server.admin", "redis"]
    warned = [record.getMessage() for record in caplog.records if "needs a restart" in record.getMessage()]
    assert warned == [
        "a new value of 'server.admin' needs a restart: the old one stays in use",
        "a new value of 'redis' needs a restart: the old one stays in use",
    ]
    assert "s3cret" not in caplog.text


async def test_limits_of_the_edge_are_taken_at_once(tmp_path):
    async with testing.upstream(testing.chat("hi")) as upstream, house(tmp_path, text(upstream.url)) as home:
        assert await home.says(text(upstream.url, server=", max_request_bytes: 10B")) == "ok"
        assert (await testing.ask(home.weir, ASK)).status == 413


async def test_a_store_is_opened_where_only_the_new_config_needs_one(tmp_path, redis):
    more = f"redis: {redis.url}\n"
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        house(tmp_path, text(upstream.url, more=more)) as home,
    ):
        assert "store" not in await home.state()
        limited = [{"rate_limit": {"by": "route", "requests": "1/hour"}}]
        assert await home.says(text(upstream.url, plugins=limited, more=more)) == "ok"
        assert [(await testing.ask(home.weir, ASK)).status for _ in range(2)] == [200, 429]
        assert (await home.state())["store"]["kind"] == "redis"


# -- what is said


async def test_a_log_line_says_what_changed_and_no_secret(tmp_path, caplog):
    caplog.set_level(logging.INFO, "weir.reload")
    old = """
upstreams:
  one: {base_url: "http://127.0.0.1:1/v1", api_key: s3cret-1}
  two: {base_url: "http://127.0.0.1:2/v1"}
plugins: [{guard: {max_messages: 5}}]
routes: [{name: a, match: {path: /a}, targets: [one]}, {name: b, targets: [one, two]}]
"""
    new = """
upstreams:
  one: {base_url: "http://127.0.0.1:1/v1", api_key: s3cret-2, timeouts: {idle: 5s}}
  three: {base_url: "http://127.0.0.1:2/v1"}
plugins: [sse_keepalive, {guard: {max_messages: 6}}]
routes: [{name: b, match: {path: /b}, targets: [one, three]}, {name: a, match: {path: /a}, targets: [one]}, {name: c, targets: [one]}]
"""
    head = 'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
    async with house(tmp_path, head + old) as home:
        assert await home.says(head.replace("}", ", drain_timeout: 5s}") + new) == "ok"
        digest = (await home.state())["config"]["hash"]
    [record] = [record for record in caplog.records if record.name == "weir.reload"]
    assert (record.getMessage(), record.hash) == ("a new config is in use", digest)
    assert record.changes == [
        "server: drain_timeout",
        "upstream 'two' removed",
        "upstream 'three' added",
        "upstream 'one' changed: api_key, timeouts",
        "plugin 'sse_keepalive' added",
        "plugin 'guard' changed: max_messages",
        "route 'c' added",
        "route 'b' changed: match, targets",
        "routes in another order",
    ]
    assert "s3cret" not in caplog.text + str(record.__dict__)


async def test_a_comment_is_another_hash_and_no_other_config(tmp_path):
    yaml = text("http://127.0.0.1:1", plugins=[tell("old")])
    async with house(tmp_path, yaml) as home:
        before = (await home.state())["config"]["hash"]
        assert await home.says(f"# new\n{yaml}") == "unchanged"
        after = (await home.state())["config"]["hash"]
        assert after != before
        assert await home.metric("weir_config_info") == {f'{{hash="{after}"}}': 1}
        assert HAPPENED == ["old in"]


# -- how a change is seen


def by_write(file: pathlib.Path, yaml: str) -> None:
    file.write_text(yaml)


def by_rename(file: pathlib.Path, yaml: str) -> None:
    file.with_name("next").write_text(yaml)
    file.with_name("next").replace(file)


@pytest.mark.parametrize("change", [by_write, by_rename])
async def test_a_changed_file_is_seen(tmp_path, change):
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        house(tmp_path, text(upstream.url, plugins=[tell("old")])) as home,
    ):
        change(home.file, text(upstream.url, plugins=[tell("new")]))
        await wire.until(lambda: "new in" in HAPPENED)
        await wire.until(lambda: "old out" in HAPPENED)
        assert await home.told() == "new"


async def test_the_swap_of_a_mounted_config_map_with_its_secrets(tmp_path):
    async with testing.upstream(testing.chat("hi")) as upstream:

        def version(says):
            folder = tmp_path / f"..2026_{says}"
            folder.mkdir()
            (folder / "config.yaml").write_text(text(upstream.url, plugins=[tell("${file:says}")]))
            (folder / "says").write_text(says)
            return folder.name

        (tmp_path / "..data").symlink_to(version("old"))
        for name in ("config.yaml", "says"):
            (tmp_path / name).symlink_to(f"..data/{name}")
        async with house(tmp_path, "") as home:
            assert await home.told() == "old"
            (tmp_path / "..data_tmp").symlink_to(version("new"))
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            await wire.until(lambda: "new in" in HAPPENED)
            assert await home.told() == "new"


async def test_a_file_that_a_value_comes_from_is_followed_also_where_it_was_missing(tmp_path):
    async with (
        testing.upstream(testing.chat("hi")) as upstream,
        house(tmp_path, text(upstream.url, plugins=[tell("old")])) as home,
    ):
        assert await home.says(text(upstream.url, plugins=[tell("${file:says}")])) == "failed"
        (tmp_path / "says").write_text("come")
        await wire.until(lambda: "come in" in HAPPENED)
        (tmp_path / "says").write_text("changed")
        await wire.until(lambda: "changed in" in HAPPENED)


async def test_a_key_that_its_upstream_follows_is_no_other_config(tmp_path):
    (tmp_path / "key").write_text("sk-1")
    async with testing.upstream(testing.chat("hi")) as upstream:
        yaml = text(upstream.url, upstream=', api_key: "${file:key}"')
        async with house(tmp_path, yaml) as home:
            before = home.weir.gateway.upstreams["up"]
            (tmp_path / "key").write_text("sk-2")
            await wire.until(lambda: before.credential.field == (b"Authorization", b"Bearer sk-2"))
            assert await home.says(text(upstream.url, upstream=', api_key: "${file:key}"', plugins=[tell("a")])) == "ok"
            assert home.weir.gateway.upstreams["up"] is before
            await home.told()
            assert upstream.last.headers["authorization"] == "Bearer sk-2"


async def test_a_stop_in_the_middle_of_a_reload_leaves_nothing(tmp_path):
    async with house(tmp_path, text("http://127.0.0.1:1", plugins=[tell("old")])) as home:
        await home.weir.prepare()
        home.file.write_text(text("http://127.0.0.1:1", plugins=[tell("new")]))
        await home.weir.prepare()
        assert HAPPENED == ["old in", "new in"]
    assert sorted(HAPPENED[2:]) == ["new out", "old out"]
    assert len(asyncio.all_tasks()) == 1
