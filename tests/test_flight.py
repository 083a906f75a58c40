"""Many readers of one answer: all get every byte, at their own pace, and none can hurt the others."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import flight as module
from proxy import testing
from proxy.errors import Interrupted
from proxy.flight import Flight

ROOM = 100


class Source:
    """An upstream's answer, fed by hand."""

    is_pushed = True

    def __init__(self, *early):
        self.early, self.said = early, []
        self.receiver = None
        self.done = asyncio.Event()

    def attach(self, receiver):
        self.receiver = receiver
        for chunk in self.early:
            receiver.feed(chunk)

    async def over(self):
        await self.done.wait()

    def finish(self):
        self.said.append("finish")
        self.done.set()

    def cancel(self):
        self.said.append("cancel")

    def pause(self):
        self.said.append("pause")

    def resume(self):
        self.said.append("resume")

    def interrupt(self, error):
        self.said.append(error)


class App:
    """A relay: what it was given, and how that ended."""

    def __init__(self, passenger):
        self.passenger, self.got, self.end_ = passenger, b"", None
        passenger.attach(self)

    def feed(self, chunk):
        self.got += chunk

    def end(self, trailers):
        self.end_ = trailers

    def fail(self, error):
        self.end_ = error


class Flown:
    def __init__(self, *early, room=ROOM, leads=True):
        self.overs = []
        self.exchange = testing.exchange()
        self.flight = Flight(room, self.overs.append, self.exchange)
        self.source = Source(*early)
        self.leader = App(self.flight.board(self.source)) if leads else None

    def join(self, **options):
        return App(self.flight.join(**options))


async def test_who_joins_late_gets_it_from_the_start():
    flown = Flown(b"a")
    flown.flight.feed(b"b")
    late = flown.join()
    assert late.got == b"ab"
    flown.flight.feed(b"c")
    flown.flight.end([(b"t", b"1")])
    assert flown.leader.got == late.got == flown.join().got == b"abc"
    assert flown.leader.end_ == late.end_ == [(b"t", b"1")]
    assert flown.overs == [flown.flight]
    assert flown.flight.is_open


@given(st.lists(st.sampled_from(["feed", "join", "pause", "resume"]), max_size=40))
def test_whatever_happens_all_get_the_same_bytes(steps):
    async def fly():
        flown, fed, apps = Flown(room=10_000), b"", []
        for place, step in enumerate(steps):
            if step == "feed":
                fed += b"%d," % place
                flown.flight.feed(b"%d," % place)
            elif step == "join":
                apps.append(flown.join())
            else:
                for app in apps[place % 2 :: 2]:
                    getattr(app.passenger, step)()
        flown.flight.end([])
        for app in apps:
            app.passenger.resume()
        assert {app.got for app in (flown.leader, *apps)} == {fed}
        assert all(app.end_ == [] for app in apps)

    asyncio.run(fly())


async def test_a_slow_reader_slows_nobody_within_the_bound():
    flown = Flown()
    slow = flown.join()
    slow.passenger.pause()
    flown.flight.feed(b"x" * 90)
    flown.flight.end([])
    assert (len(flown.leader.got), flown.leader.end_, slow.got) == (90, [], b"")
    slow.passenger.resume()
    assert (len(slow.got), slow.end_) == (90, [])
    assert flown.source.said == []


async def test_beyond_the_bound_who_lags_behind_the_others_is_let_go():
    flown = Flown()
    slow = flown.join()
    slow.passenger.pause()
    for _ in range(12):
        flown.flight.feed(b"x" * 10)
    assert slow.end_.error_code == "downstream_stalled"
    assert (len(flown.leader.got), flown.leader.end_) == (120, None)
    assert not flown.flight.is_open
    assert len(flown.flight.chunks) == 0  # nothing more than is needed is held
    flown.flight.end([])
    assert flown.leader.end_ == []


async def test_where_all_are_slow_the_upstream_is():
    flown = Flown()
    flown.leader.passenger.pause()
    for _ in range(12):
        flown.flight.feed(b"x" * 10)
    assert flown.source.said == ["pause"]
    flown.leader.passenger.resume()
    assert flown.source.said == ["pause", "resume"]
    assert len(flown.leader.got) == 120


async def test_what_is_there_goes_down_in_pieces_as_the_reader_takes_them(monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 4)
    flown = Flown(*[b"xy"] * 6)
    taken = []

    class Careful(App):
        def feed(self, chunk):
            taken.append(chunk)
            self.passenger.pause()

    late = Careful(flown.flight.join())
    assert taken == [b"xyxy"]
    late.passenger.resume()
    assert taken == [b"xyxy", b"xyxy"]


async def test_a_reader_that_takes_nothing_is_given_up_after_a_while(monkeypatch):
    monkeypatch.setattr(module, "STALL_SECONDS", 0.01)
    flown = Flown()
    flown.leader.passenger.pause()
    flown.flight.feed(b"x")
    await asyncio.sleep(0.05)
    assert flown.leader.end_.error_code == "downstream_stalled"
    assert flown.source.said == ["finish"]


async def test_it_lives_until_its_last_reader_leaves():
    flown = Flown()
    one, other = flown.join(), flown.join()
    flown.leader.passenger.cancel()
    one.passenger.cancel()
    flown.flight.feed(b"still")
    assert (other.got, flown.source.said, flown.overs) == (b"still", [], [])
    other.passenger.cancel()
    assert (flown.source.said, flown.overs) == (["finish"], [flown.flight])
    assert not flown.flight.is_open


async def test_its_readers_hold_the_leaders_exchange():
    flown, stopped = Flown(), []
    one, other = flown.join(), flown.join()
    assert flown.exchange.leave(lambda: stopped.append("now"))
    one.passenger.cancel()
    assert not stopped
    other.passenger.finish()
    assert stopped == ["now"]


async def test_the_leaders_exchange_lasts_as_long_as_others_read():
    flown = Flown()
    other = flown.join()
    lasting = asyncio.ensure_future(flown.leader.passenger.over())
    flown.leader.passenger.finish()
    await asyncio.sleep(0)
    assert not lasting.done()
    other.passenger.cancel()
    await asyncio.wait_for(lasting, 1)


async def test_a_reader_waits_until_it_has_had_all():
    flown = Flown()
    slow = flown.join()
    slow.passenger.pause()
    waiting = asyncio.ensure_future(slow.passenger.over())
    flown.flight.feed(b"x")
    flown.flight.end([])
    await asyncio.sleep(0)
    assert not waiting.done()
    slow.passenger.resume()
    await asyncio.wait_for(waiting, 1)
    await slow.passenger.over()  # and not again


async def test_what_breaks_off_breaks_off_for_all_and_lets_nobody_in():
    flown, error = Flown(b"a"), Interrupted("gone")
    other = flown.join()
    flown.flight.fail(error)
    assert flown.leader.end_ is other.end_ is error
    assert (flown.leader.got, other.got) == (b"a", b"a")
    assert not flown.flight.is_open


async def test_an_answer_that_its_leader_must_look_after_ends_with_it():
    flown = Flown()
    flown.source.is_pushed = False
    other = flown.join()
    flown.leader.passenger.cancel()
    assert isinstance(other.end_, Interrupted)
    assert flown.source.said == ["cancel"]


async def test_who_is_let_go_before_its_relay_is_there_is_told_then():
    flown = Flown()
    waiting = flown.flight.join()
    for _ in range(12):
        flown.flight.feed(b"x" * 10)
    assert App(waiting).end_.error_code == "downstream_stalled"


async def test_a_stop_is_told_to_each_reader():
    flown, error = Flown(), Interrupted("Weir is shutting down", code="shutting_down")
    other = flown.join()
    for app in (flown.leader, other):
        app.passenger.interrupt(error)
    assert flown.leader.end_ is other.end_ is error
    assert flown.source.said == ["finish"]


async def test_a_guard_stands_before_one_relay():
    class Loud:
        def __init__(self, receiver):
            self.feed = lambda chunk: receiver.feed(chunk.upper())
            self.end, self.fail = receiver.end, receiver.fail

    flown = Flown(b"a")
    loud = flown.join(guard=Loud)
    flown.flight.feed(b"b")
    flown.flight.end([])
    assert (flown.leader.got, loud.got, loud.end_) == (b"ab", b"AB", [])


async def test_a_flight_without_an_upstream_is_fed_by_who_made_it():
    overs = []
    flight = Flight(ROOM, overs.append)
    app = App(flight.join())
    flight.feed(b"a")
    assert app.got == b"a"
    app.passenger.cancel()
    assert overs == [flight]


def test_every_split_of_the_room_is_kept_to():
    async def fly(sizes):
        flown = Flown()
        for size in sizes:
            flown.flight.feed(b"x" * size)
        assert flown.flight.is_open == (sum(sizes) <= ROOM)
        assert len(flown.leader.got) == sum(sizes)

    for sizes in ((100,), (101,), (50, 50), (50, 51), (99, 1, 1)):
        asyncio.run(fly(sizes))


@pytest.mark.parametrize("ends", ["end", "fail"])
async def test_a_reader_that_leaves_at_the_end_changes_nothing(ends):
    flown = Flown()
    getattr(flown.flight, ends)([] if ends == "end" else Interrupted("gone"))
    flown.leader.passenger.cancel()
    assert (flown.source.said, flown.overs) == ([], [flown.flight])
