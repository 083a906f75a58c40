"""A joined exchange in the house: its outcome, its usage, its limits, and what plugins, logs and metrics see of it."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import orjson
import pytest
from typing_extensions import override

from proxy import testing, tunnel
from proxy.plugin import Exchange, Outcome, Plugin, PluginConfig, Response, Tap, Unauthorized
from tests import recording, wire
from tests.contract.double import at_rest, outcomes, upstream, weir
from tests.frames import BINARY, MASK, TEXT, accepts, close, frame, handshake, joined, rest, text

TOTAL = {"input_tokens": 20, "output_tokens": 10, "input_token_details": {"cached_tokens": 5}}


@pytest.fixture(autouse=True)
def _empty_journal() -> None:
    recording.journal.clear()
    Metering.seen.clear()


class Metering(Plugin[PluginConfig]):
    """Reads usage, offers a stage, and refuses who says so."""

    reads_usage = True
    seen: ClassVar[list[Exchange]] = []

    @override
    async def on_request(self, exchange: Exchange) -> Response | None:
        if "x-refused" in exchange.request.headers:
            raise Unauthorized("no")
        return None

    @override
    async def on_response(self, exchange: Exchange, response: Response) -> Tap | None:
        response.headers["x-seen"] = str(response.status)
        return Overfed()

    @override
    async def on_complete(self, exchange: Exchange, outcome: Outcome) -> None:
        self.seen.append(exchange)


class Overfed(Tap):
    @override
    def feed(self, chunk: bytes) -> None:
        raise AssertionError("a stage was fed")


METERING = {"metering": {"use": f"{__name__}:Metering"}}


@contextlib.asynccontextmanager
async def house(*listed: Any, settings: str = "") -> AsyncIterator[Any]:
    async with upstream(accepts) as double, testing.weir(double, listed, settings=settings) as proxy:
        yield double, proxy


def done(**usage: Any) -> bytes:
    return text(orjson.dumps({"type": "response.done", "response": {"usage": usage}}).decode())


async def test_usage_of_a_session_is_there_when_it_is_over():
    fragments = [frame(TEXT, done(**TOTAL)[4:50], is_final=False), frame(0, done(**TOTAL)[50:])]
    said = [text('{"type":"session.created","session":{"model":"gpt-realtime"}}'), done(**TOTAL), *fragments]
    said += [text('{"type":"response.output_audio.delta","delta":"AAAA"}'), done(**TOTAL), close(1000)]
    async with house(METERING) as (double, proxy), joined(proxy.url, double) as ends:
        await ends.server.send(*said)
        ends.server.close()
        assert await rest(ends.app.reader) == (b"".join(said), "FIN")
        assert not Metering.seen
        ends.app.leave()
        await wire.until(lambda: Metering.seen)
    [exchange] = Metering.seen
    assert (exchange.usage.input_tokens, exchange.usage.output_tokens, exchange.usage.cached_input_tokens) == (
        60,
        30,
        15,
    )
    assert (exchange.model, exchange.outcome) == ("gpt-realtime", Outcome.OK)
    assert exchange.first_token_at is not None


async def test_a_message_of_more_than_a_megabyte_passes_unread():
    long = text('{"type":"response.done","response":{"usage":{"input_tokens":1}},"x":"' + "x" * 2**20 + '"}')
    async with house(METERING) as (double, proxy), joined(proxy.url, double) as ends:
        await ends.server.send(long, done(**TOTAL))
        ends.server.close()
        assert (await rest(ends.app.reader))[0] == long + done(**TOTAL)
        ends.app.leave()
        await wire.until(lambda: Metering.seen)
    assert Metering.seen[0].usage.input_tokens == 20


@pytest.mark.parametrize("reads", [True, False])
async def test_compression_is_not_offered_where_messages_are_read(reads):
    listed = [METERING] if reads else []
    async with house(*listed) as (double, proxy):
        async with joined(proxy.url, double, handshake("Sec-WebSocket-Extensions: permessage-deflate")) as ends:
            ends.server.close()
        [request] = double.requests
    assert request.head.get("sec-websocket-extensions") == (None if reads else "permessage-deflate")


# -- the house's rules


async def test_plugins_meet_the_handshake_and_its_end_once_and_no_stage_is_fed():
    listed = [METERING, recording.entry("first", stage="tap"), recording.entry("second")]
    async with house(*listed) as (double, proxy):
        async with joined(proxy.url, double) as ends:
            assert ends.head.get("x-seen") == "101"
            await ends.server.send(text("a"))
            assert recording.of("on_complete", "on_attempt_end", "feed") == []
            ends.server.close()
        await recording.completed(proxy, 2)
    assert recording.of("on_response") == ["second on_response 101", "first on_response 101"]
    assert recording.of("feed", "finish") == ["first finish ok"]
    assert recording.of("on_attempt_end") == ["first on_attempt_end ok", "second on_attempt_end ok"]
    assert recording.outcomes() == ["second on_complete ok", "first on_complete ok"]


async def test_who_is_refused_gets_an_answer_and_reaches_no_upstream():
    async with house(METERING) as (double, proxy):
        answer = await wire.fetch(proxy.url, handshake("X-Refused: 1"))
        assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (401, "invalid_api_key")
        assert not double.requests
        assert await outcomes(proxy) == {"rejected": 1}


async def test_a_plugin_that_fails_before_the_101_goes_down_is_an_answer():
    async with house(recording.entry("broken", fails="on_response")) as (double, proxy):
        answer = await wire.fetch(proxy.url, handshake())
        assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (500, "plugin_failed")
        assert (await rest(double.wires[0].reader))[0] == b""
        await at_rest(proxy)


async def test_it_is_logged_and_measured_as_any_exchange():
    async with upstream(accepts) as double:
        log = io.BytesIO()
        config = (
            'server: {listen: "127.0.0.1:0", admin: "127.0.0.1:0"}\n'
            f'upstreams: {{up: {{base_url: "{double.url}/v1"}}}}\nroutes: [{{name: default, targets: [up]}}]\n'
        )
        async with testing.configured(config, log) as proxy, joined(proxy.url, double) as ends:
            await ends.server.send(text("a" * 100))
            assert proxy.in_flight == proxy.gateway.upstreams["up"].in_flight == proxy.state()["in_flight"] == 1
            ends.server.close()
            await rest(ends.app.reader)
            ends.app.leave()
            assert await at_rest(proxy) == {"ok": 1}
            page = proxy.metrics.page().decode()
    line = orjson.loads(log.getvalue().splitlines()[0])
    told = {"method": "GET", "path": "/v1/realtime", "status": 101, "outcome": "ok", "bytes": 102}
    assert {**line, **told} == line
    assert 'weir_requests_total{endpoint="realtime",outcome="ok",route="default"} 1.0' in page
    assert 'weir_attempts_total{outcome="ok",upstream="up"} 1.0' in page


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (close(1011, "sk-secret"), "upstream 'up' closed the WebSocket with code 1011"),
        (frame(TEXT, b"half of it")[:-4], "upstream 'up' ended in the middle of a message"),
        (frame(TEXT, b"half", is_final=False), "upstream 'up' ended in the middle of a message"),
    ],
    ids=["a code", "in a frame", "between frames"],
)
async def test_why_it_was_interrupted_is_known(last, told):
    async with house(METERING) as (double, proxy), joined(proxy.url, double) as ends:
        await ends.server.send(last)
        ends.server.close()
        assert await rest(ends.app.reader) == (last, "FIN")
        ends.app.leave()
        await wire.until(lambda: Metering.seen)
    [exchange] = Metering.seen
    assert (exchange.outcome, exchange.error.message) == (Outcome.STREAM_INTERRUPTED, told)
    assert exchange.error.error_code == "upstream_stream_interrupted"


# -- limits


async def test_a_socket_may_be_silent_for_longer_than_an_answer():
    async with house(settings="timeouts: {idle: 100ms}") as (double, proxy), joined(proxy.url, double) as ends:
        await asyncio.sleep(0.4)
        await ends.server.send(text("still here"))
        assert await ends.app.reader.readexactly(12) == text("still here")
        ends.server.close()


async def test_but_not_for_longer_than_its_whole_time():
    async with house(settings="timeouts: {total: 300ms}") as (double, proxy), joined(proxy.url, double) as ends:
        await ends.server.send(text("a"))
        assert await rest(ends.app.reader) == (text("a"), "RST")
        assert (await rest(ends.server.reader))[0] == b""
        assert await at_rest(proxy) == {"stream_interrupted": 1}


async def test_a_handshake_has_as_long_as_an_answer_to_begin():
    settings = "timeouts: {first_byte: 100ms}"
    async with upstream(lambda _: asyncio.sleep(30)) as double, weir(double.url, settings=settings) as proxy:
        answer = await wire.fetch(proxy.url, handshake())
    assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (504, "upstream_timeout")


async def test_an_open_socket_takes_a_connection_of_the_pool_and_gives_it_back():
    settings = "max_connections: 1, timeouts: {connect: 200ms}"
    async with house(settings=settings) as (double, proxy):
        async with joined(proxy.url, double) as ends:
            assert (await wire.fetch(proxy.url, handshake())).status == 503
            ends.server.close()
            await rest(ends.app.reader)
        await at_rest(proxy)
        async with joined(proxy.url, double) as ends:
            assert ends.head.status == 101
            double.wires[-1].close()


async def test_on_disconnect_drain_is_for_answers():
    async with house(settings="on_disconnect: drain") as (double, proxy), joined(proxy.url, double) as ends:
        await ends.server.send(text("a"))
        ends.app.leave(reset=True)
        async with asyncio.timeout(1):
            assert (await rest(ends.server.reader))[0] == b""
        assert await at_rest(proxy) == {"client_abort": 1}


@pytest.mark.parametrize("side", ["app", "server"])
async def test_the_other_side_of_one_that_has_ended_is_not_waited_for_for_ever(monkeypatch, side):
    monkeypatch.setattr(tunnel, "LINGER_SECONDS", 0.2)
    async with house() as (double, proxy), joined(proxy.url, double) as ends:
        (ends.app if side == "app" else ends.server).writer.write_eof()
        stays = ends.server if side == "app" else ends.app
        for _ in range(6):  # as long as it talks it may stay
            await stays.send(frame(BINARY, b"a", mask=MASK if side == "server" else b""))
            await asyncio.sleep(0.1)
        assert proxy.in_flight == 1
        assert await at_rest(proxy) == {"ok" if side == "server" else "client_abort": 1}


# -- the end of Weir


async def test_at_the_end_of_a_drain_the_app_is_told_that_the_server_goes_away():
    async with house() as (double, proxy), joined(proxy.url, double) as ends:
        await ends.server.send(text("a"))
        await ends.app.reader.readexactly(3)
        await proxy.drain(0.05)
        assert await rest(ends.app.reader) == (close(1001), "FIN")
        assert (await rest(ends.server.reader))[0] == b""
        await ends.app.send(frame(BINARY, bytes(1000), mask=MASK), close(1001, mask=MASK))  # who talks on is no fault
        ends.app.leave()
        assert await at_rest(proxy) == {"stream_interrupted": 1}


@pytest.mark.parametrize("last", [frame(TEXT, b"half of it")[:-4], b"what is no frame"], ids=["in a frame", "garbage"])
async def test_where_no_frame_may_stand_the_app_is_cut(last):
    async with house() as (double, proxy), joined(proxy.url, double) as ends:
        await ends.server.send(last)
        await ends.app.reader.readexactly(len(last))
        await proxy.drain(0.05)
        assert await rest(ends.app.reader) == (b"", "RST")
        assert await at_rest(proxy) == {"stream_interrupted": 1}


async def test_a_socket_that_was_closing_anyway_is_told_nothing_more():
    async with house() as (double, proxy), joined(proxy.url, double) as ends:
        await ends.server.send(close(1000))
        await ends.app.reader.readexactly(4)
        await proxy.drain(0.05)
        assert await rest(ends.app.reader) == (b"", "FIN")
        ends.app.leave()
        assert await at_rest(proxy) == {"ok": 1}


async def test_while_weir_drains_sockets_are_still_opened_and_live_on():
    async with house() as (double, proxy):
        draining = asyncio.ensure_future(_drained_when_idle(proxy))
        async with joined(proxy.url, double) as ends:
            assert ends.head.all("connection") == [b"Upgrade"]
            ends.server.close()
            await rest(ends.app.reader)
        await draining


async def _drained_when_idle(proxy: Any) -> None:
    proxy.server.is_draining = True
    await wire.until(lambda: proxy.in_flight)
    await proxy.drain(20)
