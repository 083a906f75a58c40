import asyncio
import logging
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from proxy.services import Services, Tasks


@pytest.fixture
def services() -> Services:
    return Services(CollectorRegistry())


async def test_a_task_is_held_until_it_ends():
    tasks, seen = Tasks(), []

    async def work() -> None:
        await asyncio.sleep(0)
        seen.append("done")

    tasks.start(work(), "work")
    assert len(tasks) == 1
    await tasks.drain(5)
    assert seen == ["done"]
    assert len(tasks) == 0


async def test_a_task_that_fails_is_logged_with_its_name(caplog: pytest.LogCaptureFixture):
    async def work() -> None:
        raise ZeroDivisionError

    tasks = Tasks()
    tasks.start(work(), "halving")
    await tasks.drain(5)
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert (record.levelno, record.task) == (logging.ERROR, "halving")
    assert "ZeroDivisionError" in caplog.text


async def test_a_stop_waits_for_what_is_started_meanwhile():
    tasks, seen = Tasks(), []

    async def second() -> None:
        await asyncio.sleep(0.02)
        seen.append("second")

    async def first() -> None:
        await asyncio.sleep(0.02)
        tasks.start(second(), "second")

    tasks.start(first(), "first")
    await tasks.drain(5)
    assert seen == ["second"]


async def test_a_stop_waits_so_long_and_cancels_what_still_runs():
    tasks = Tasks()
    task = tasks.start(asyncio.sleep(60), "sleeper")
    await tasks.drain(0.01)
    assert task.cancelled()


def test_a_metric_is_made_once_for_all_who_ask_by_its_name(services: Services):
    one, other = (services.counter("words_total", "words", ("route",)) for _ in range(2))
    one.add(("a",))
    other.add(("a",), 2)
    assert b'words_total{route="a"} 3.0' in generate_latest(services.metrics)


def test_a_metric_of_another_kind_under_that_name_is_an_error(services: Services):
    services.counter("words", "words")
    with pytest.raises(TypeError, match="the metric 'words' is a Counter already"):
        services.gauge("words", "words")


def test_models_that_nobody_named_share_a_label(services: Services):
    services.models.add("gpt-4o")
    assert [services.model_label(model) for model in ("gpt-4o", "gpt-4o-2", None)] == ["gpt-4o", "other", "other"]


def test_the_clock_counts_monotonic_seconds_and_tests_may_set_their_own(services: Services):
    assert abs(services.clock() - time.monotonic()) < 60
    assert Services(CollectorRegistry(), clock=lambda: 7.0).clock() == 7.0
