"""Workers asked over their sockets: who is ready, who is silent, and a config that only some can take."""

import asyncio
import contextlib

import orjson
import pytest
from aiohttp import web

from proxy.crew import Crew, Worker
from proxy.reload import Report

COMMITTED = []
STARTED = Report("old", ["/etc/weir/config.yaml"])
NEW = Report("new", ["/etc/weir/config.yaml", "/etc/weir/key"], changes=["route 'a' added"])


class Double:
    """A worker's inner door: answers what it is told to, and notes what it was asked."""

    def __init__(self, report=NEW):
        self.report = report
        self.status = 200
        self.remembers = "nothing"
        self.asked = []
        self.hangs = asyncio.Event()
        self.hangs.set()

    async def answer(self, request):
        self.asked.append(request.path)
        await self.hangs.wait()
        if request.path == "/prepare":
            return web.Response(body=orjson.dumps(self.report._asdict()))
        if request.path.startswith("/remembers/"):
            return web.Response(status=200 if request.path.endswith(self.remembers) else 404)
        body = b'{"in_flight": 0}' if request.path == "/state" else b""
        return web.Response(status=self.status, body=body)


@contextlib.asynccontextmanager
async def crew_of(folder, *doubles):
    """Slot by slot; None is a worker that lives and has not opened its door."""
    crew = Crew(folder, len(doubles), STARTED, lambda: COMMITTED.append("committed"))
    async with contextlib.AsyncExitStack() as stack:
        for slot, double in enumerate(doubles):
            worker = Worker(slot, 0)
            worker.file(folder, "here").write_text("1")
            if double is not None:
                app = web.Application()
                app.router.add_route("*", "/{path:.*}", double.answer)
                runner = web.AppRunner(app, shutdown_timeout=0.1)
                await runner.setup()
                stack.push_async_callback(runner.cleanup)
                await web.UnixSite(runner, str(worker.file(folder, "sock"))).start()
        stack.push_async_callback(crew.close)
        yield crew


async def test_all_are_ready_or_it_is_said_who_is_not(tmp_path):
    one, other = Double(), Double()
    async with crew_of(tmp_path, one, other) as crew:
        assert await crew.readiness() == ""
        assert await crew.alive() == ""
        other.status = 503
        assert await crew.readiness() == "draining"
    async with crew_of(tmp_path, Double(), None) as crew:
        (tmp_path / "1-0.sock").unlink()
        assert await crew.readiness() == "not ready: worker 1"
        assert await crew.alive() == ""


async def test_a_worker_that_does_not_answer_is_not_alive(tmp_path, monkeypatch):
    monkeypatch.setattr("proxy.crew.Crew._ask.__defaults__", ("GET", 0.05))
    stuck = Double()
    async with crew_of(tmp_path, Double(), stuck) as crew:
        stuck.hangs.clear()
        assert await crew.alive() == "worker 1 does not answer"
        stuck.hangs.set()


async def test_a_config_is_taken_by_all(tmp_path):
    one, other = Double(), Double()
    COMMITTED.clear()
    async with crew_of(tmp_path, one, other) as crew:
        assert await crew.reloads.reload() == "ok"
        assert COMMITTED == ["committed"]
        assert one.asked == other.asked == ["/prepare", "/commit"]
        assert (await crew.state())["config"]["hash"] == "new"


@pytest.mark.parametrize(
    ("report", "problems", "passing"),
    [
        (
            Report("old", ["/x"], ["config.yaml:1 routes: wrong; mend it"]),
            ["config.yaml:1 routes: wrong; mend it"],
            False,
        ),
        (NEW._replace(hash="newer"), ["the file changed while it was read"], True),
    ],
)
async def test_what_one_does_not_take_nobody_takes(tmp_path, report, problems, passing):
    one, other = Double(), Double(report)
    async with crew_of(tmp_path, one, other) as crew:
        told = await crew.prepare()
        assert (list(told.problems), told.passing) == (problems, passing)
        assert one.asked == other.asked == ["/prepare", "/discard"]


async def test_without_a_worker_the_files_are_looked_at_all_the_same(tmp_path):
    async with crew_of(tmp_path) as crew:
        told = await crew.prepare()
    assert told == STARTED._replace(problems=["no worker is there"], passing=True, changes=[])


async def test_one_that_began_with_an_older_config_is_brought_up(tmp_path):
    class Behind(Double):
        async def answer(self, request):
            if request.path == "/measured":
                return web.Response(body=orjson.dumps({"hash": "older", "metrics": []}))
            return await super().answer(request)

    behind = Behind(NEW._replace(hash="old"))
    async with crew_of(tmp_path, behind) as crew:
        await crew.look()
        assert behind.asked == ["/prepare", "/commit"]
    ahead = Behind(NEW)
    async with crew_of(tmp_path, ahead) as crew:
        await crew.look()
        assert ahead.asked == ["/prepare", "/discard"]


async def test_a_drain_reaches_those_that_come_later(tmp_path):
    one = Double()
    async with crew_of(tmp_path, one) as crew:
        await crew.begin_drain()
        assert await crew.readiness() == "draining"
        one.status = 404
        await crew.look()
        assert one.asked.count("/drain") == 2


async def test_feedback_goes_to_who_remembers_the_exchange_and_else_to_the_first(tmp_path):
    one, other = Double(), Double()
    other.remembers = "req_b"
    async with crew_of(tmp_path, one, other) as crew:
        assert await crew.take_feedback(b'{"request_id": "req_b", "score": 1}') == (200, b"")
        assert (one.asked, other.asked) == (["/remembers/req_b"], ["/remembers/req_b", "/feedback"])
        assert await crew.take_feedback(b'{"request_id": "../drain"') == (200, b"")
        assert one.asked[1:] == ["/remembers/none", "/feedback"]
    async with crew_of(tmp_path / "empty") as crew:
        status, body = await crew.take_feedback(b"{}")
        assert (status, b"no worker answers" in body) == (503, True)
