"""The buffer relay: the whole body is here before the first byte goes down, and every stage has had its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.encoding import Unreadable, decoded
from proxy.errors import BadAnswer
from proxy.sse import Event, Reader
from proxy.stages import BodyFilter, EventFilter, EventTap, Tap
from proxy.upstream.incoming import whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.chain import Placed
    from proxy.errors import Outcome
    from proxy.exchange import Exchange
    from proxy.response import Response

MAX_BYTES = 64 * 2**20


async def decoded_body(response: Response) -> bytes:
    """The response's body without its encodings; raises what broke it, or BadAnswer."""
    body = response.body if response.incoming is None else await whole(response.incoming, MAX_BYTES)
    try:
        return decoded(body, response.field(b"content-encoding"))
    except Unreadable as error:
        raise BadAnswer("the upstream's body does not fit its content-encoding") from error


async def filtered_body(body: bytes, stages: Sequence[Placed], exchange: Exchange, outcome: Outcome) -> bytes:
    """The body that goes down, after all stages in their order; raises what a closed plugin's failure means.

    `outcome` is the upstream's. Taps have seen it all now, but hear of the end when the app has it.
    """
    for placed in stages:
        try:
            body = await _through(placed, body, outcome)
        except Exception as error:  # noqa: BLE001 - judged by the failure mode
            placed.is_finished = True
            if isinstance(placed.stage, Tap | EventTap):
                exchange.chain.count(placed.plugin, type(placed.stage).__name__, exchange)
            else:
                exchange.chain.judge(placed.plugin, error, exchange)
    return body


async def _through(placed: Placed, body: bytes, outcome: Outcome) -> bytes:
    stage = placed.stage
    if isinstance(stage, BodyFilter):
        return await stage.apply(body)
    if isinstance(stage, EventFilter):
        passed = [new for event in events_of(body) for new in ((event,) if event.data is None else stage.feed(event))]
        return b"".join([event.raw for event in (*passed, *placed.finish(outcome))])
    if isinstance(stage, EventTap):
        for event in events_of(body):
            if event.data is not None:
                stage.feed(event)
    elif isinstance(stage, Tap) and body:
        stage.feed(body)
    return body


def events_of(body: bytes) -> list[Event]:
    reader = Reader(MAX_BYTES)
    return [*reader.feed(body), *reader.end()]
