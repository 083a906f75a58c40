"""Sends one response: picks its relay, writes its header with Weir's own fields, and lets the body run."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import orjson

from proxy import json_relay
from proxy.answer import Answer, InBandError, in_band_error
from proxy.buffer import decoded_body, events_of, filtered_body
from proxy.chain import mode_of
from proxy.encoding import decoder_for, is_plain
from proxy.errors import OK, BadAnswer, Interrupted, Outcome, error_body
from proxy.fault import fault_in_band, outcome_of
from proxy.json_relay import JsonRelay
from proxy.plugin import FailureMode
from proxy.pulse import Pulse
from proxy.relay import EventRelay, Pipe, StreamRelay, TapRelay, error_event
from proxy.response import Response
from proxy.stages import BodyFilter, EventFilter, Heartbeat
from proxy.tunnel import Tunnel
from proxy.upstream.incoming import Incoming

if TYPE_CHECKING:
    from proxy.chain import Placed
    from proxy.downstream import Downstream
    from proxy.encoding import Decoder
    from proxy.exchange import Exchange
    from proxy.headers import Fields

_BODILESS = frozenset({204, 304})
_WAYS = 1024


async def send(exchange: Exchange, response: Response, stages: list[Placed], downstream: Downstream) -> None:
    """Write the response, and leave its outcome on the exchange; raises ProxyError only while nothing was written."""
    exchange.response, exchange.error = response, response.error
    if response.status == 101 and response.incoming is not None:
        await _join(exchange, response, cast("Incoming", response.incoming), downstream)
        return
    if downstream.is_early and not _continues(response):
        _tell_late(exchange, response, downstream)
        return
    heartbeat = None
    if stages:
        stages = _able(exchange, response, stages)
        heartbeat, stages = _apart(stages)
    if stages and any(isinstance(placed.stage, BodyFilter) for placed in stages):
        response = await _filtered(exchange, response, stages)
        stages = []
    relay = _relay(exchange, response, stages, downstream)
    _start(exchange, response, relay, downstream)
    pulse = _pulse(relay, heartbeat, downstream)
    try:
        _run(response, relay, downstream)
        if response.incoming is not None:
            await response.incoming.over()
    finally:
        if pulse is not None:
            pulse.stop()
        downstream.source = None
        exchange.outcome = _outcome(exchange, response, relay)
        relay.close(exchange.outcome)


async def _join(exchange: Exchange, response: Response, incoming: Incoming, downstream: Downstream) -> None:
    """From its 101 on an exchange is two streams of bytes: no framing, no stages."""
    tunnel = Tunnel(exchange, downstream, incoming)
    own = _own_lines(exchange, has_id=bool(response.field(b"x-request-id")))
    downstream.switch(response.reason, response.fields(), own)
    exchange.answered = time.monotonic()
    try:
        await tunnel.run()
    finally:
        exchange.outcome = tunnel.outcome or Outcome.CLIENT_ABORT


def _run(response: Response, relay: Pipe, downstream: Downstream) -> None:
    if response.incoming is not None:
        downstream.source = response.incoming
        response.incoming.attach(relay)
    else:
        if response.body:
            relay.feed(response.body)
        if relay.outcome is None:
            relay.end([])
    downstream.flush()


async def _filtered(exchange: Exchange, response: Response, stages: list[Placed]) -> Response:
    """The buffer relay's answer: a body that is here, with a length of its own."""
    try:
        body = await decoded_body(response)
    except Interrupted as error:
        raise BadAnswer(error.message, code=error.error_code) from error
    outcome = _read_whole(exchange, response, body)
    body = await filtered_body(body, stages, exchange, outcome)
    answer = Response.of_fields(response, _without(response.fields(), b"content-length", b"content-encoding"))
    answer.body = body
    return answer


def _read_whole(exchange: Exchange, response: Response, body: bytes) -> Outcome:
    """What the core wants to know of a body that is held; raises BadAnswer where a stream is not whole."""
    if not response.is_event_stream:
        json_relay.read(exchange, response, body)
        return OK if exchange.told is None else outcome_of(fault_in_band(exchange.told))
    answer = _answer(exchange, response)
    for event in events_of(body):
        answer.see(event)
    answer.report(exchange)
    if answer.error is None and not answer.is_whole():
        raise BadAnswer("the upstream ended its answer before it was complete", code="upstream_stream_interrupted")
    return OK if answer.error is None else Outcome.STREAM_INTERRUPTED


def _able(exchange: Exchange, response: Response, stages: list[Placed]) -> list[Placed]:
    """The stages that have something to read here; raises BadAnswer where a closed filter cannot."""
    encoding = response.field(b"content-encoding")
    if _is_bodiless(exchange, response):
        return []
    if is_plain(encoding) or decoder_for(encoding) is not None:
        return stages
    if any(isinstance(p.stage, EventFilter | BodyFilter) and mode_of(p.plugin) is FailureMode.CLOSED for p in stages):
        raise BadAnswer("the upstream answered in an encoding that no plugin can read, though `identity` was asked for")
    return []


def _is_bodiless(exchange: Exchange, response: Response) -> bool:
    return exchange.request.method == "HEAD" or response.status in _BODILESS


def _relay(exchange: Exchange, response: Response, stages: list[Placed], downstream: Downstream) -> Pipe:
    """Beside an encoding that is known the body can be read; any other is relayed as bytes."""
    if _is_bodiless(exchange, response):
        return Pipe(exchange, downstream)
    encoding = response.field(b"content-encoding")
    if not encoding or is_plain(encoding):
        return _decoded(exchange, response, stages, downstream, None)
    decoder = decoder_for(encoding)
    return _decoded(exchange, response, stages, downstream, decoder) if decoder else Pipe(exchange, downstream)


def _decoded(
    exchange: Exchange, response: Response, stages: list[Placed], downstream: Downstream, decoder: Decoder | None
) -> Pipe:
    if response.is_event_stream:
        filters = any(isinstance(placed.stage, EventFilter) for placed in stages)
        kind = EventRelay if filters else StreamRelay
        return kind(exchange, downstream, stages, decoder, _answer(exchange, response))
    if _may_say_more(exchange, response, decoder):
        return JsonRelay(exchange, downstream, stages, decoder, response)
    return TapRelay(exchange, downstream, stages, decoder) if stages else Pipe(exchange, downstream)


def _may_say_more(exchange: Exchange, response: Response, decoder: Decoder | None) -> bool:
    """Whether it is an upstream's JSON that may be an error, or whose usage somebody asks for."""
    incoming = response.incoming
    if isinstance(incoming, Incoming) and decoder is None and not exchange.chain.reads_usage:
        body = incoming.at_hand
        if body is not None and body.find(b'"error"') < 0:  # `in` on bytes first raises and drops a TypeError
            return False
    return incoming is not None and response.content_type.endswith(b"json")


def _apart(stages: list[Placed]) -> tuple[Heartbeat | None, list[Placed]]:
    """The shortest heartbeat, and the other stages."""
    beats = [placed.stage for placed in stages if isinstance(placed.stage, Heartbeat)]
    if not beats:
        return None, stages
    others = [placed for placed in stages if not isinstance(placed.stage, Heartbeat)]
    return min(beats, key=lambda heartbeat: heartbeat.interval), others


def _pulse(relay: Pipe, heartbeat: Heartbeat | None, downstream: Downstream) -> Pulse | None:
    if heartbeat is None or not isinstance(relay, StreamRelay):
        return None
    return Pulse(downstream, heartbeat, relay.may_beat)


def _answer(exchange: Exchange, response: Response) -> Answer:
    expected = exchange.request.generates and response.status == 200
    return Answer(expected=expected, reads_usage=exchange.chain.reads_usage and exchange.usage is None)


def _start(exchange: Exchange, response: Response, relay: Pipe, downstream: Downstream) -> None:
    added, fields = response.take_lines(), response.fields()
    is_framed = bool(response.field(b"content-length"))
    if isinstance(relay, StreamRelay):
        is_decoded = isinstance(relay, EventRelay)
        fields = _without(fields, b"content-length", b"content-encoding" if is_decoded else b"")
        is_framed = False
    elif response.incoming is None:
        length = b"%d" % len(response.body)
        if response.field(b"content-length") != length:
            fields = [*_without(fields, b"content-length"), (b"Content-Length", length)]
        is_framed = True
    exchange.answered = time.monotonic()
    if downstream.is_early:
        downstream.is_early = False
        return
    own = added + _own_lines(exchange, has_id=bool(response.field(b"x-request-id")))
    downstream.start(response.status, response.reason, fields, own, is_framed=is_framed)


def _continues(response: Response) -> bool:
    """Whether the body can follow a header that was not the upstream's."""
    return response.status == 200 and response.is_event_stream and is_plain(response.field(b"content-encoding"))


def begin_early(exchange: Exchange, downstream: Downstream) -> bool:
    """A stream's header before the upstream has answered; whether it has begun."""
    if not downstream.is_started:
        fields = [(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-cache")]
        downstream.start(200, None, fields, _own_lines(exchange, has_id=False), is_framed=False)
        downstream.is_early = True
    return True


def _tell_late(exchange: Exchange, response: Response, downstream: Downstream) -> None:
    """What cannot be an answer's status any more, since a stream has begun: its one event, and a cut."""
    if response.incoming is not None:
        response.incoming.cancel()
        response = Response.of_error(BadAnswer("the upstream answered without a stream"))
        exchange.response, exchange.error = response, response.error
    told = _told(response.body) or InBandError(f"the upstream answered {response.status}")
    body = error_body(told.message, told.type or "upstream_error", told.code)
    downstream.write(error_event(exchange, body))
    downstream.abort()
    exchange.outcome = _outcome_of(response)


def _told(body: bytes) -> InBandError | None:
    try:
        return in_band_error(orjson.loads(body))
    except ValueError:  # an encoding that passes as it came
        return None


def _own_lines(exchange: Exchange, *, has_id: bool) -> bytes:
    """Weir's own header fields; `x-request-id` only where the upstream sent none."""
    lines = f"x-weir-request-id: {exchange.id}\r\n"
    if not has_id:
        lines += f"x-request-id: {exchange.id}\r\n"
    served_by = exchange.served_by
    upstream = "" if served_by is None else served_by.target.upstream
    return lines.encode() + _way_lines(exchange.route, exchange.detour, upstream, len(exchange.attempts))


@lru_cache(_WAYS)
def _way_lines(route: str, detour: str, upstream: str, attempts: int) -> bytes:
    lines = f"x-weir-route: {route}\r\n" if route else ""
    if detour:
        lines += f"x-weir-detour: {detour}\r\n"
    if upstream:
        lines += f"x-weir-upstream: {upstream}\r\nx-weir-attempts: {attempts}\r\n"
    return lines.encode()


def _outcome(exchange: Exchange, response: Response, relay: Pipe) -> Outcome:
    """How the exchange ended, seen from the app."""
    if relay.outcome is not OK:
        return relay.outcome or Outcome.CLIENT_ABORT
    return _outcome_of(response) if exchange.told is None else outcome_of(fault_in_band(exchange.told))


def _outcome_of(response: Response) -> Outcome:
    if response.error is not None:
        return response.error.outcome
    if response.status >= 500:
        return Outcome.UPSTREAM_ERROR
    return Outcome.CLIENT_ERROR if response.status >= 400 else OK


def _without(fields: Fields, *names: bytes) -> Fields:
    return [field for field in fields if field[0].lower() not in names]
