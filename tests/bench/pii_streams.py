"""What pii adds to a stream on its way through Weir: to the time until its first event, and to each event.

The upstream, Weir with pii, Weir without and the app are one process over real sockets; each ask is made of both Weirs
in turn, so that what all of it costs besides is in both figures, and falls out of their difference.
"""

import asyncio
import statistics
import time
import urllib.parse
from typing import NamedTuple

import orjson

from proxy import testing

ASKS, WORDS = 150, 300
TEXT = "Write to bob@example.com that card 4111 1111 1111 1111 was refused, and say so in a few plain sentences."
BODY = orjson.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": TEXT}]})
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


class Added(NamedTuple):
    """`first_event` in ms of wall time, medians of what both took; `event` in µs of processor time."""

    first_event: float
    event: float


class Took(NamedTuple):
    first_event: float
    cpu: float


async def added() -> Added:
    async with (
        testing.upstream(_repeats) as upstream,
        testing.weir(upstream, [{"pii": {}}]) as with_pii,
        testing.weir(upstream) as without,
    ):
        both = [(await _took(with_pii.url), await _took(without.url)) for _ in range(ASKS)]
    first = statistics.median(one.first_event for one, _ in both) - statistics.median(o.first_event for _, o in both)
    least = min(one.cpu for one, _ in both) - min(other.cpu for _, other in both)
    return Added(first * 1e3, least / WORDS * 1e6)


async def _repeats(received: testing.Received, up: testing.Wire) -> None:
    """A stream of the words that it was sent: with pii these are placeholders, which the app gets its values for."""
    words = received.json()["messages"][0]["content"].split()
    said = [words[place % len(words)] for place in range(WORDS)]
    events = [testing.chat_event({"role": "assistant", "content": ""}), *testing.chat_events(said)]
    await testing.stream(*events)(received, up)


async def _took(url: str) -> Took:
    parts = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    cpu, began = time.process_time(), time.perf_counter()
    writer.write(REQUEST)
    await reader.readuntil(b"data:")
    first = time.perf_counter() - began
    await reader.read()
    cpu = time.process_time() - cpu
    writer.close()
    await writer.wait_closed()
    return Took(first, cpu)
