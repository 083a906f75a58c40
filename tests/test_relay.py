"""What a relay writes, when, and what its stages see: driven by hand, on a transport that only records."""

import gzip
from collections.abc import Iterable
from typing import Any

import pytest
from typing_extensions import override

from proxy import testing
from proxy.errors import DownstreamStalled, Interrupted, Outcome
from proxy.plugin import Event, EventFilter, FailureMode, Rejected, Stage, Tap
from proxy.relay import EventRelay, Pipe, StreamRelay, TapRelay
from tests.rides import Ride, Seen, SeenEvents

WORDS = testing.chat_events(["one", "two", "three"])
ODD = (
    b'data: {"choices":[{"index":0,"delta":{"content":"x","content":"\\u00e9 \\/ \\ud83d\\ude00"}}],"p":1.0,"q":1e2 }\r\n\r\n',
    b'data: {"p":-0.0, "p":12345678901234567890123, "\\u0070": 1E400}\n\n',
    b": a comment\n\n",
    b"event: ping\nid: 7\nretry: 10\ndata:no blank\ndata: two lines\n\n",
    *WORDS,
)


class Same(EventFilter):
    """Reads every event and lets it pass as it came."""

    @override
    def feed(self, event: Event) -> Iterable[Event]:
        assert isinstance(event.data, bytes)
        return (event,)


class Upper(EventFilter):
    @override
    def feed(self, event: Event) -> Iterable[Event]:
        return (event,) if event.is_done else (Event(event.raw.replace(b"two", b"TWO")),)


class Failing(EventFilter):
    """Fails at an event that has `word`."""

    def __init__(self, word: bytes, error: Exception) -> None:
        self.word = word
        self.error = error
        self.calls: list[str] = []

    @override
    def feed(self, event: Event) -> Iterable[Event]:
        self.calls.append("feed")
        if self.word in event.raw:
            raise self.error
        return (event,)

    @override
    def finish(self, outcome: Outcome) -> Iterable[Event]:
        self.calls.append(f"finish {outcome}")
        return ()


class Holding(EventFilter):
    """Holds everything until the end."""

    def __init__(self) -> None:
        self.held: list[Event] = []
        self.outcomes: list[Outcome] = []

    @override
    def feed(self, event: Event) -> Iterable[Event]:
        self.held.append(event)
        return ()

    @override
    def finish(self, outcome: Outcome) -> Iterable[Event]:
        self.outcomes.append(outcome)
        return self.held


KINDS: dict[str, tuple[type[Pipe], tuple[type[Stage], ...]]] = {
    "a pipe": (Pipe, ()),
    "a tap": (TapRelay, (Seen,)),
    "a stream that only the core watches": (StreamRelay, ()),
    "taps on a stream": (StreamRelay, (Seen, SeenEvents)),
    "a filter": (EventRelay, (Same,)),
    "filters and taps": (EventRelay, (SeenEvents, Same, Seen, Same)),
}


def ride(kind: str) -> Ride:
    relay, stages = KINDS[kind]
    return Ride(relay, *(stage() for stage in stages))


# -- bytes and writes


@pytest.mark.parametrize("kind", KINDS)
async def test_what_nobody_changes_leaves_byte_identical_through(kind: str):
    assert ride(kind).feed(ODD).end().body == b"".join(ODD)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 7, 64])
async def test_also_when_chunks_are_cut_anywhere_through(kind: str, size: int):
    whole = b"".join(ODD)
    chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert ride(kind).feed(chunks).end().body == whole


@pytest.mark.parametrize("kind", KINDS)
async def test_one_write_per_incoming_chunk_with(kind: str):
    chunks = [WORDS[0] + WORDS[1], WORDS[2], b"".join(WORDS[3:])]
    assert ride(kind).feed(chunks).transport.writes == chunks


async def test_what_two_filters_make_of_a_chunk_is_one_write():
    class Twice(EventFilter):
        @override
        def feed(self, event: Event) -> Iterable[Event]:
            return (event, event)

    through = Ride(EventRelay, Twice(), Same(), Twice()).feed([WORDS[0] + WORDS[1]])
    assert through.transport.writes == [WORDS[0] * 4 + WORDS[1] * 4]


class Skipping(EventFilter):
    """Reads only chunks that have `word`, and puts it in capitals."""

    def __init__(self, word: bytes = b"two") -> None:
        self.word = word
        self.read: list[bytes] = []

    @override
    def skips(self, chunk: bytes) -> bool:
        return self.word not in chunk

    @override
    def feed(self, event: Event) -> Iterable[Event]:
        self.read.append(event.raw)
        return (Event(event.raw.replace(self.word, self.word.upper())),)


async def test_whole_events_that_a_filter_skips_are_not_read():
    through = Ride(EventRelay, stage := Skipping()).feed(WORDS).end()
    assert through.body == b"".join(WORDS).replace(b"two", b"TWO")
    assert stage.read == [WORDS[0], WORDS[1]], "the first one is read to see how the stream begins"


@pytest.mark.parametrize("size", range(1, 80))
async def test_a_filter_that_skips_changes_the_same_however_the_stream_is_cut(size: int):
    whole = b"".join((*ODD, *WORDS))
    chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert Ride(EventRelay, Skipping()).feed(chunks).end().body == whole.replace(b"two", b"TWO")


async def test_a_chunk_is_skipped_only_where_all_filters_skip_it():
    one, other = Skipping(), Skipping(b"three")
    through = Ride(EventRelay, one, other).feed(WORDS).end()
    assert through.body == b"".join(WORDS).replace(b"two", b"TWO").replace(b"three", b"THREE")
    assert [raw.upper() for raw in other.read] == [raw.upper() for raw in WORDS[:3]]


async def test_taps_see_events_that_a_filter_would_skip():
    through = Ride(EventRelay, tap := SeenEvents(), Skipping(b"nowhere")).feed(WORDS).end()
    assert (len(tap.events), through.body) == (len(WORDS), b"".join(WORDS))


async def test_a_filter_that_cannot_tell_what_it_skips_has_to_read():
    class Unsure(Skipping):
        @override
        def skips(self, chunk: bytes) -> bool:
            raise RuntimeError("not sure")

    through = Ride(EventRelay, stage := Unsure()).feed(WORDS).end()
    assert (through.body, len(stage.read)) == (b"".join(WORDS).replace(b"two", b"TWO"), len(WORDS))


async def test_feed_is_called_within_the_read_that_brought_the_event():
    tap = SeenEvents()
    through = Ride(StreamRelay, tap)
    through.relay.feed(WORDS[0])
    assert len(tap.events) == 1, "no task, no queue: it has been called when feed returns"


async def test_a_tap_runs_after_the_write():
    order: list[int] = []

    class Late(Tap):
        @override
        def feed(self, chunk: bytes) -> None:
            order.append(len(through.transport.writes))

        @override
        def finish(self, outcome: Outcome) -> None: ...

    for kind, stages in ((TapRelay, ()), (StreamRelay, ()), (EventRelay, (Same(),))):
        through = Ride(kind, Late(), *stages)
        through.feed(WORDS[:1])
    assert order == [1, 1, 1]


# -- places


async def test_a_tap_between_two_filters_sees_what_is_right_at_its_place():
    class Louder(EventFilter):
        @override
        def feed(self, event: Event) -> Iterable[Event]:
            return (Event(event.raw.replace(b"TWO", b"TWO!")),)

    first, between, last = Seen(), Seen(), Seen()
    through = Ride(EventRelay, first, Upper(), between, Louder(), last).feed(WORDS).end()
    assert b" two" in b"".join(first.chunks)
    assert b' TWO"' in b"".join(between.chunks)
    assert b" TWO!" in b"".join(last.chunks)
    assert b"".join(last.chunks) == through.body


async def test_what_a_filter_drops_the_next_stage_never_sees_and_comments_pass_by():
    class Nothing(EventFilter):
        @override
        def feed(self, event: Event) -> Iterable[Event]:
            return ()

    tap = SeenEvents()
    through = Ride(EventRelay, Nothing(), tap).feed([*WORDS, b": still here\n\n"]).end()
    assert tap.events == []
    assert through.body == b": still here\n\n"


async def test_a_compressed_stream_is_read_by_taps_and_passes_as_it_came():
    packed, tap = gzip.compress(b"".join(WORDS)), SeenEvents()
    through = Ride(StreamRelay, tap, gzipped=True).feed([packed[:40], packed[40:]]).end()
    assert through.body == packed
    assert len(tap.events) == len(WORDS)


async def test_a_compressed_stream_reaches_filters_decoded_and_leaves_decoded():
    packed = gzip.compress(b"".join(WORDS))
    through = Ride(EventRelay, Upper(), gzipped=True).feed([packed[:40], packed[40:]]).end()
    assert through.body == b"".join(WORDS).replace(b"two", b"TWO")


async def test_what_does_not_fit_its_encoding_ends_a_filtered_stream_with_an_error():
    through = Ride(EventRelay, Same(), gzipped=True).feed([b"not gzip at all"])
    assert b"does not fit its content-encoding" in through.body
    assert through.is_cut


# -- failures


@pytest.mark.parametrize("mode", FailureMode)
@pytest.mark.parametrize("kind", [StreamRelay, EventRelay])
async def test_a_tap_that_raises_is_dropped_and_counted_and_the_stream_is_unharmed(kind: type[Pipe], mode: FailureMode):
    class Broken(Seen):
        @override
        def feed(self, chunk: bytes) -> None:
            super().feed(chunk)
            raise ZeroDivisionError

    broken, other, same = Broken(), Seen(), [Same()] if kind is EventRelay else []
    through = Ride(kind, broken, other, *same, mode=mode).feed(WORDS).end()
    assert through.body == b"".join(WORDS)
    assert (len(broken.chunks), broken.outcomes) == (1, [])
    assert (other.chunks, other.outcomes) == (WORDS, [Outcome.OK])
    assert through.failures == ["p0"]


async def test_a_closed_filter_that_fails_ends_the_stream_with_one_error_event_and_a_cut():
    failing, tap = Failing(b"two", ZeroDivisionError()), SeenEvents()
    through = Ride(EventRelay, failing, tap).feed(WORDS[:1])
    through.feed(WORDS[1:2])
    assert through.transport.writes[0] == WORDS[0]
    (error,) = through.transport.writes[1:]
    assert Event(error).json()["error"]["code"] == "plugin_failed"
    assert error.startswith(b"data: {")
    assert error.endswith(b"}\n\n")
    assert through.is_cut
    assert through.relay.outcome is Outcome.STREAM_INTERRUPTED
    assert through.failures == ["p0"]
    through.relay.close(Outcome.STREAM_INTERRUPTED)
    assert tap.outcomes == [Outcome.STREAM_INTERRUPTED]
    assert failing.calls == ["feed", "feed"], "what raised is not called again"


async def test_nothing_unfiltered_goes_down_after_a_closed_filter_failed():
    through = Ride(EventRelay, Failing(b"one", ZeroDivisionError())).feed([WORDS[0] + WORDS[1]])
    assert b"one" not in through.body
    assert b" two" not in through.body


async def test_an_open_filter_that_fails_is_left_out_from_that_event_on():
    failing = Failing(b"two", ZeroDivisionError())
    through = Ride(EventRelay, failing, Upper(), mode=FailureMode.OPEN).feed(WORDS).end()
    assert through.body == b"".join(WORDS).replace(b"two", b"TWO")
    assert through.relay.outcome is Outcome.OK
    assert through.failures == ["p0"]
    assert failing.calls == ["feed", "feed"]


@pytest.mark.parametrize("mode", FailureMode)
async def test_a_filter_that_refuses_ends_the_stream_in_either_mode_and_is_no_failure(mode: FailureMode):
    through = Ride(EventRelay, Failing(b"two", Rejected("no more of this", code="enough")), mode=mode).feed(WORDS[:2])
    assert Event(through.transport.writes[-1]).json()["error"]["code"] == "enough"
    assert through.is_cut
    assert through.failures == []


@pytest.mark.parametrize(("mode", "is_cut"), [(FailureMode.CLOSED, True), (FailureMode.OPEN, False)])
async def test_a_filter_that_fails_in_finish_is_judged_as_one_that_fails_in_feed(mode: FailureMode, is_cut: bool):
    class Late(Holding):
        @override
        def finish(self, outcome: Outcome) -> Iterable[Event]:
            raise ZeroDivisionError

    through = Ride(EventRelay, Late(), mode=mode).feed(WORDS).end()
    assert through.is_cut is is_cut
    assert through.failures == ["p0"]
    assert (through.relay.outcome is Outcome.OK) is not is_cut


# -- ends


async def test_what_a_filter_holds_comes_out_at_the_end_through_the_filters_after_it():
    holding, after = Holding(), SeenEvents()
    through = Ride(EventRelay, holding, Upper(), after).feed(WORDS)
    assert through.transport.writes == []
    assert through.end().body == b"".join(WORDS).replace(b"two", b"TWO")
    assert len(after.events) == len(WORDS)
    assert holding.outcomes == [Outcome.OK]


async def test_what_was_held_goes_down_before_the_error_of_a_cut_stream():
    holding = Holding()
    through = Ride(EventRelay, holding).feed(WORDS[:2])
    through.relay.fail(Interrupted("the upstream went"))
    through.relay.close(Outcome.STREAM_INTERRUPTED)
    assert through.body.startswith(WORDS[0] + WORDS[1] + b'data: {"error"')
    assert through.is_cut
    assert holding.outcomes == [Outcome.STREAM_INTERRUPTED]


@pytest.mark.parametrize("kind", ["taps on a stream", "filters and taps"])
async def test_finish_is_said_once_with_the_outcome_of(kind: str):
    error = b'data: {"error":{"message":"out of memory"}}\n\n'
    endings: list[tuple[Any, Outcome]] = [
        (lambda r: r.feed(WORDS).end(), Outcome.OK),
        (lambda r: r.feed(WORDS[:2]).end(), Outcome.STREAM_INTERRUPTED),
        (lambda r: r.feed([WORDS[0], error]).end(), Outcome.STREAM_INTERRUPTED),
        (lambda r: r.feed(WORDS[:2]).relay.fail(Interrupted("gone")), Outcome.STREAM_INTERRUPTED),
        (lambda r: r.feed(WORDS[:2]).relay.fail(DownstreamStalled("asleep")), Outcome.CLIENT_ABORT),
        (lambda r: r.feed(WORDS[:2]), Outcome.CLIENT_ABORT),
    ]
    for happens, outcome in endings:
        through = ride(kind)
        happens(through)
        assert through.relay.outcome in (outcome, None)
        through.relay.close(outcome)
        taps = [placed.stage for placed in through.placed if isinstance(placed.stage, Seen | SeenEvents)]
        assert [tap.outcomes for tap in taps] == [[outcome]] * 2


async def test_a_half_event_is_closed_before_the_error_is_told():
    through = Ride(EventRelay, Same()).feed([WORDS[0], b'data: {"choices"'])
    through.relay.fail(Interrupted("gone"))
    assert through.body.startswith(WORDS[0] + b'data: {"choices"\n\ndata: {"error"')


async def test_comments_and_pings_pass_at_once_also_while_a_filter_holds_events():
    through = Ride(EventRelay, Holding()).feed([WORDS[0], b": ping\n\n"])
    assert through.transport.writes == [b": ping\n\n"]
