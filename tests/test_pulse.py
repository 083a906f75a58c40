"""A pulse beats in silences of so long, and only where it may."""

import asyncio

import pytest

from proxy.pulse import Pulse
from proxy.stages import Heartbeat
from tests import wire


class Line:
    """What was sent down, in place of a Downstream."""

    def __init__(self) -> None:
        self.beats = 0
        self.sent = 0

    def write(self, data: bytes) -> None:
        self.beats += 1
        self.sent += len(data)


@pytest.fixture
def line() -> Line:
    return Line()


async def test_it_beats_again_and_again_while_nothing_is_sent(line):
    pulse = Pulse(line, Heartbeat(0.02, b": ping\n"), lambda: True)
    await wire.until(lambda: line.beats == 3)
    pulse.stop()
    await asyncio.sleep(0.06)
    assert line.beats == 3


async def test_it_is_quiet_while_something_is_sent(line):
    pulse = Pulse(line, Heartbeat(0.5, b": ping\n"), lambda: True)
    for _ in range(30):
        line.sent += 1
        await asyncio.sleep(0.03)
    pulse.stop()
    assert line.beats == 0


async def test_it_waits_for_a_place_where_it_may(line):
    places = iter([False, False, True])
    pulse = Pulse(line, Heartbeat(0.02, b": ping\n"), lambda: next(places, False))
    await wire.until(lambda: line.beats == 1)
    await asyncio.sleep(0.06)
    pulse.stop()
    assert line.beats == 1
