"""A stream at the pace at which it came; who leaves early leaves nothing running."""

import asyncio

from plugins.cache.entry import Entry
from plugins.cache.replay import Replay
from plugins.cache.ride import Paced
from proxy import testing

BODY = b"data: a\n\ndata: b\n\ndata: c\n\n"
ENTRY = Entry(0.0, True, "up", None, ((0, 9), (30, 9), (30, 9)), BODY)


class Relay:
    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.came, self.over = [], asyncio.Event()

    def feed(self, chunk):
        self.came.append((self.loop.time(), chunk))

    def end(self, trailers):
        self.over.set()


async def test_each_piece_in_its_time():
    relay, replay = Relay(), Replay(ENTRY)
    replay.flight.join().attach(relay)
    await asyncio.wait_for(relay.over.wait(), 5)
    (first, _), (second, _), (third, _) = relay.came
    assert [chunk for _, chunk in relay.came] == [BODY[:9], BODY[9:18], BODY[18:]]
    assert min(second - first, third - second) > 0.02


async def test_who_leaves_stops_it():
    relay, replay = Relay(), Replay(ENTRY)
    passenger = replay.flight.join()
    passenger.attach(relay)
    await asyncio.sleep(0.01)
    passenger.cancel()
    await asyncio.sleep(0.1)
    assert len(relay.came) == 1


async def test_the_pace_is_what_was_measured():
    flight = Paced(100, lambda flight: None, testing.exchange())
    await asyncio.sleep(0.02)
    flight.feed(b"abc")
    flight.feed(b"d")
    (first, size), second = flight.pace()
    assert first >= 15
    assert (size, second) == (3, (0, 1))
