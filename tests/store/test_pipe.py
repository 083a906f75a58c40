"""One connection: answers come to those that asked, in order, or not in time, and never to another."""

import asyncio
import contextlib
import random
import time
from itertools import pairwise

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store.pipe import NOBODY, Pipe, Unanswered
from tests import wire

TIMEOUT = 0.05
ANSWERS = b"+OK\r\n:42\r\n$5\r\nva\r\nl\r\n$-1\r\n*2\r\n:1\r\n*1\r\n$0\r\n\r\n-NOSCRIPT none\r\n"
MEANING = [b"OK", 42, b"va\r\nl", None, [1, [b""]], "NOSCRIPT none"]


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def abort(self) -> None:
        self.is_aborted = True


class House:
    """A pipe on a wire that nobody reads."""

    def __init__(self) -> None:
        self.late, self.lost = [], []
        self.pipe, self.wire = Pipe(self.late.append, self.lost.append, timeout=TIMEOUT), Wire()
        self.pipe.connection_made(self.wire)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


@given(st.lists(st.integers(0, len(ANSWERS)), max_size=12))
def test_answers_may_come_in_any_pieces(cuts):
    async def ask() -> list[object]:
        house = House()
        asked = [house.pipe.call("GET", str(number)) for number in range(len(MEANING))]
        for piece in pieces(ANSWERS, cuts):
            house.pipe.data_received(piece)
        answers = [await answer for answer in asked]
        return [str(answer) if isinstance(answer, hiredis.ReplyError) else answer for answer in answers]

    assert asyncio.run(ask()) == MEANING


async def test_what_is_asked_within_a_turn_travels_together():
    house = House()
    house.pipe.call("SET", "k", b"\0\r\n", "PX", 5)
    house.pipe.send(NOBODY, "GET", "ü")
    assert house.wire.sent == []
    await asyncio.sleep(0)
    assert house.wire.sent == [
        b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\n\0\r\n\r\n$2\r\nPX\r\n$1\r\n5\r\n*2\r\n$3\r\nGET\r\n$2\r\n\xc3\xbc\r\n"
    ]
    house.pipe.connection_lost(None)


async def test_who_is_not_answered_in_time_knows_it_and_a_late_answer_is_still_its_own():
    house = House()
    first = house.pipe.call("GET", "1")
    with pytest.raises(Unanswered):
        await first
    assert house.late == [house.pipe]
    second = house.pipe.call("GET", "2")
    house.pipe.data_received(b"$3\r\none\r\n")
    assert not second.done()
    house.pipe.data_received(b"$3\r\ntwo\r\n")
    assert await second == b"two"
    house.pipe.connection_lost(None)


async def test_failures_are_in_a_row_until_an_answer_comes_in_time():
    house = House()
    for number in (1, 2):
        with pytest.raises(Unanswered):
            await house.pipe.call("GET", "late")
        assert house.pipe.failures == number
        house.pipe.data_received(b"$4\r\nlate\r\n")
        assert house.pipe.failures == number
    answer = house.pipe.call("GET", "k")
    house.pipe.data_received(b"$1\r\nv\r\n")
    assert (await answer, house.pipe.failures) == (b"v", 0)
    house.pipe.connection_lost(None)


async def test_what_nobody_waits_for_leaves_with_what_is_sent_next_or_a_moment_later():
    house = House()
    house.pipe.post("ZREM", "a", "b")
    await asyncio.sleep(0)
    assert house.wire.sent == []
    answer = house.pipe.call("GET", "k")
    await asyncio.sleep(0)
    (sent,) = house.wire.sent
    assert (sent.index(b"ZREM") < sent.index(b"GET"), answer.done()) == (True, False)
    house.pipe.post("ZREM", "c", "d")
    await wire.until(lambda: len(house.wire.sent) == 2)
    house.pipe.connection_lost(None)


async def test_those_that_are_late_together_are_one_failure_and_who_waits_for_nothing_is_none():
    house = House()
    house.pipe.send(NOBODY, "ZREM", "k", "v")
    await asyncio.sleep(2 * TIMEOUT)
    assert house.late == []
    asked = [house.pipe.call("GET", str(number)) for number in range(100)]
    await asyncio.wait(asked)
    assert house.late == [house.pipe]
    house.pipe.connection_lost(None)


async def test_who_asks_later_waits_as_long():
    """In the loop's time: a busy machine makes all waits longer, and none shorter."""
    house, loop, waited = House(), asyncio.get_running_loop(), []

    async def ask() -> None:
        began = loop.time()
        with pytest.raises(Unanswered):
            await house.pipe.call("GET", "k")
        waited.append(loop.time() - began)

    asking = []
    for _ in range(5):
        asking.append(asyncio.ensure_future(ask()))
        await asyncio.sleep(TIMEOUT / 4)
    await asyncio.gather(*asking)
    assert all(seconds >= TIMEOUT for seconds in waited)
    house.pipe.connection_lost(None)


async def test_when_it_was_the_loop_that_was_late_the_answer_is_taken():
    async with asyncio.timeout(5):
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        port, late = server.sockets[0].getsockname()[1], []
        _, made = await asyncio.get_running_loop().create_connection(
            lambda: Pipe(late.append, lambda _: None, timeout=TIMEOUT), "127.0.0.1", port
        )
        answer = made.call("PING")
        await asyncio.sleep(0.02)
        _block(3 * TIMEOUT)
        assert await answer == b"PONG"
        assert late == []
        made.close()
        server.close()
        await asyncio.sleep(0.05)


async def test_a_cancelled_question_gives_its_answer_to_nobody():
    """ChatGPT, 20 March 2023: answers went to whoever asked next."""
    house, asked = House(), {}
    for number in range(1000):
        asked[number] = house.pipe.call("GET", str(number))
    for number in random.sample(sorted(asked), 500):
        asked.pop(number).cancel()
    house.pipe.data_received(b"".join(b":%d\r\n" % number for number in range(1000)))
    assert {number: await answer for number, answer in asked.items()} == {number: number for number in asked}


async def test_who_waits_when_the_connection_is_lost_knows_it_at_once():
    house = House()
    asked = [house.pipe.call("GET", "k") for _ in range(3)]
    house.pipe.connection_lost(ConnectionResetError())
    for answer in asked:
        with pytest.raises(Unanswered):
            await answer
    with pytest.raises(Unanswered):
        await house.pipe.call("GET", "k")
    assert (house.pipe.is_open, house.lost, house.late) == (False, [house.pipe], [])


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\r\n", b"+OK\r\n+OK\r\n"], ids=["no Redis", "too many answers"]
)
async def test_what_is_no_redis_is_left(data):
    house = House()
    house.pipe.call("PING")
    house.pipe.data_received(data)
    assert house.wire.is_aborted
    house.pipe.connection_lost(None)


async def test_to_drain_is_to_wait_for_what_was_asked():
    house = House()
    answer = house.pipe.call("GET", "k")
    draining = asyncio.ensure_future(house.pipe.drain())
    await asyncio.sleep(0)
    house.pipe.data_received(b"$1\r\nv\r\n+PONG\r\n")
    await draining
    assert await answer == b"v"
    await house.pipe.drain()
    house.pipe.connection_lost(None)
    await house.pipe.drain()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(b"+PONG\r\n")
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


def _block(seconds: float) -> None:
    time.sleep(seconds)
