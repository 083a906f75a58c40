"""A server's own load, read now and then: whose words they are, what it takes, and what comes of a server that is mute."""

import logging

import pytest

from proxy.fit import Capacity
from proxy.targets import Load
from proxy.upstream.readings import PAGE_BYTES, Readings
from proxy.upstream.work import Reading, Work
from tests.upstream.double import opened, refusing, serving, silent
from tests.upstream.test_dialects import PAGES

INFO = b'{"model_id": "m", "max_concurrent_requests": 128, "max_input_tokens": 4095, "max_total_tokens": 4096}'


def pages(**told):
    """Answers GETs by their path, `_` for `/`; others with 404."""

    async def script(peer):
        while head := await peer.request():
            path = head.start.split()[1].decode()
            body = told.get(path.strip("/").replace("/", "_"))
            status = b"404 Not Found" if body is None else b"200 OK"
            body = body or b""
            await peer.send(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))

    return script


async def read(upstream, times=1, **settings):
    upstream.work = upstream.work or Work()
    readings = Readings(upstream, Load.model_validate(settings))
    for _ in range(times):
        await readings.look()
    return upstream.work.reading


@pytest.mark.parametrize("name", [name for name in PAGES if name != "trtllm"])
async def test_whose_words_they_are_is_found_out(name):
    async with serving(pages(metrics=PAGES[name].encode())) as server, opened(server.url) as upstream:
        told = await read(upstream)
    assert told == (Reading(0.0, 15.0) if name == "triton" else Reading(12.0, 3.0))
    assert [head.start for head in server.heads][:1] == [b"GET /metrics HTTP/1.1"]


async def test_where_tensorrt_llm_has_them_is_found_too():
    async with serving(pages(prometheus_metrics=PAGES["trtllm"].encode())) as server, opened(server.url) as upstream:
        assert await read(upstream, 2) == Reading(12.0, 3.0)
    paths = [head.start.split()[1] for head in server.heads]
    assert paths[:3] == [b"/metrics", b"/prometheus/metrics", b"/prometheus/metrics"]


async def test_it_is_a_get_with_our_credential_beside_the_pool():
    async with (
        serving(pages(metrics=PAGES["vllm"].encode())) as server,
        opened(server.url, api_key="sk-ours", max_connections=1) as upstream,
    ):
        await upstream.pool.fresh()
        assert await read(upstream, server="vllm")
    assert server.heads[0].get("authorization") == "Bearer sk-ours"
    assert server.heads[0].get("connection") == "close"


async def test_another_port_gets_no_credential():
    async with (
        serving(pages(own=PAGES["triton"].encode())) as metrics,
        opened("http://127.0.0.1:1/v1", api_key="sk-ours") as upstream,
    ):
        assert await read(upstream, server="triton", port=metrics.port, path="/own") == Reading(0.0, 15.0)
    assert metrics.heads[0].get("authorization") is None


async def test_its_own_requests_are_not_others():
    async with serving(pages(metrics=PAGES["tgi"].encode())) as server, opened(server.url) as upstream:
        upstream.work, upstream.in_flight = Work(), 4
        for _ in range(4):
            upstream.work.begin()
        await read(upstream, server="tgi")
        assert upstream.work.load() == 15.0


async def test_tgi_says_what_it_takes_and_the_config_knows_better():
    async with (
        serving(pages(metrics=PAGES["tgi"].encode(), info=INFO)) as server,
        opened(server.url.removesuffix("/v1"), kind="tgi", capacity={"concurrent": 16}) as upstream,
    ):
        await read(upstream)
        assert upstream.capacity == Capacity(16, 4095, 4096)
        await read(upstream, 3)
    asked = [head.start.split()[1] for head in server.heads]
    assert asked.count(b"/info") <= 2 < asked.count(b"/metrics")


@pytest.mark.parametrize("info", [b"no json", b"[]", b'{"max_total_tokens": -1}', None])
async def test_an_info_that_says_nothing_changes_nothing(info):
    told = {"metrics": PAGES["tgi"].encode(), **({} if info is None else {"info": info})}
    async with serving(pages(**told)) as server, opened(server.url, capacity={"concurrent": 16}) as upstream:
        await read(upstream)
        assert upstream.capacity == Capacity(16)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (pages(), "GET /prometheus/metrics was answered with 404"),
        (pages(metrics=b"python_info 1\n"), "GET /prometheus/metrics was answered with 404"),
        (silent, "no answer within 0.1 s"),
    ],
)
async def test_who_says_nothing_is_asked_less_often_and_told_of_once(script, why, caplog):
    caplog.set_level(logging.INFO, "weir.load")
    pauses = []
    async with serving(script) as server, opened(server.url) as upstream:
        readings = Readings(upstream, Load.model_validate({"timeout": "100ms"}))
        for _ in range(7):
            await readings.look()
            pauses.append(readings.pause)
    assert pauses == [4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert caplog.messages == [f"upstream 'up' does not tell its load: {why}"]


async def test_nobody_there_is_no_reading(caplog):
    caplog.set_level(logging.INFO, "weir.load")
    with refusing() as port:
        async with opened(f"http://127.0.0.1:{port}/v1") as upstream:
            assert await read(upstream) is None
    assert "connection refused" in caplog.text


async def test_a_page_without_end_is_not_read_to_it():
    async def endless(peer):
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\ntgi_queue_size 3\ntgi_batch_current_size 12\n")
        sent = 0
        while True:
            sent += 2**16
            assert sent < 4 * PAGE_BYTES
            await peer.send(b"x" * 65535 + b"\n")

    async with serving(endless) as server, opened(server.url) as upstream:
        assert await read(upstream, server="tgi", timeout="20s") == Reading(12.0, 3.0)
