"""What the processes do that proxy/workers.py starts: serve at one's post, or keep the admin port for all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from proxy import admin, app, desk, process
from proxy.crew import Crew
from proxy.reload import Report

if TYPE_CHECKING:
    import pathlib
    import socket

    from proxy.plan import Plan

log = logging.getLogger("weir.workers")


async def work(plan: Plan, post: app.Post, left: pathlib.Path, tell: int, life: int) -> int:
    loop, stop, retire = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, _also, retire, stop)
    _end_with(life, stop)
    async with app.working(plan, post) as weir:
        process.calm_collector()
        os.write(tell, b"1")
        os.close(tell)
        await stop.wait()
        seconds = weir.plan.config.server.drain_timeout
        log.info("draining", extra={"in_flight": weir.in_flight})
        await (weir.retire(seconds) if retire.is_set() else weir.drain(seconds))
    new = left.with_suffix(".new")
    with contextlib.suppress(OSError):
        new.write_bytes(orjson.dumps(desk.measure(weir)))
        new.replace(left)
    log.info("stopped")
    return 0


async def keep_desk(plan: Plan, folder: pathlib.Path, workers: int, doors: list[socket.socket], life: int) -> int:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    started = Report(plan.source.digest, [str(file) for file in plan.files()])
    crew = Crew(folder, workers, started, functools.partial(_tell, os.getppid()))
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # a terminal's, which all get: the workers drain first
    loop.add_signal_handler(signal.SIGHUP, crew.reloads.ask)
    _end_with(life, stop)
    tasks = crew.services.tasks
    work = [tasks.start(crew.follow(), "workers"), tasks.start(crew.reloads.run(), "reloads")]
    runner = web.AppRunner(admin.application(crew), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    for door in doors:
        await web.SockSite(runner, door).start()
    await stop.wait()
    for task in work:
        task.cancel()
    await tasks.drain(1)
    await runner.cleanup()
    await crew.close()
    return 0


def _tell(parent: int) -> None:
    if os.getppid() == parent:
        os.kill(parent, signal.SIGUSR1)


def _also(*events: asyncio.Event) -> None:
    for event in events:
        event.set()


def _end_with(life: int, stop: asyncio.Event) -> None:
    """Where the process that has started this one is gone, nobody would ever end it."""
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(life)
        stop.set()

    loop.add_reader(life, ended)
