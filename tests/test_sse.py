import itertools
import time
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.sse import Event, Reader

BOM = b"\xef\xbb\xbf"


def read(chunks: Iterable[bytes], **options: int) -> list[Event]:
    reader = Reader(**options)
    return [event for chunk in chunks for event in reader.feed(chunk)] + reader.end()


def dispatched(events: Iterable[Event]) -> list[tuple[str, bytes]]:
    return [(event.name, event.data) for event in events if event.data is not None]


def joined(events: Iterable[Event]) -> bytes:
    return b"".join(event.raw for event in events)


def raws(events: Iterable[Event]) -> list[bytes]:
    return [event.raw for event in events]


def parsed_at_once(stream: bytes) -> list[tuple[str, bytes]]:
    """The standard's rules, slowly; only the unterminated tail counts as an event here."""
    events, name, data = [], "", []
    lines = stream.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for line in [*lines, b""]:
        if not line:
            if data:
                events.append((name, b"\n".join(data)))
            name, data = "", []
            continue
        field, colon, value = line.partition(b":")
        if colon and value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            data.append(value)
        if field == b"event":
            name = value.decode(errors="replace")
    return events


def pieces(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


STREAMS = {
    "one": b'data: {"a": 1}\n\n',
    "three in a row": b"data: a\n\ndata: b\n\ndata: c\n\n",
    "crlf": b"data: a\r\n\r\nevent: e\r\ndata: b\r\ndata: c\r\n\r\n",
    "cr": b"data: a\r\revent: e\rdata: b\rdata: c\r\r",
    "cr, two lines": b"data: a\rdata: b\r\r",
    "cr, then lf": b"data: a\r\rdata: b\n\n",
    "mixed line ends": b"data: a\n\r\ndata: b\r\n\ndata: c\r\n\rdata: d\r\r\ndata: e\n\rdata: f\r\n\r\n",
    "crlf inside an event is no blank line": b"data: a\r\ndata: b\r\n\r\n",
    "bom": BOM + b"data: a\n\n" + BOM + b"data: not a field\n\ndata: b\n\n",
    "bom before a comment": BOM + b": hi\n\ndata: a\n\n",
    "half a bom": BOM[:2] + b"data: not a field\n\ndata: a\n\n",
    "a comment before an event": b": ping\ndata: a\n\n",
    "comments": b": ping\n\n:\n\ndata: a\n: inside\ndata: b\n\n: x\n: y\ndata: c\n\n",
    "id and retry only": b"id: 7\n\nretry: 3\n\ndata: a\nid: 8\n\n",
    "no space, two spaces": b"data:a\n\ndata:  b\n\n",
    "no colon, no value": b"data\n\ndata:\n\ndata\ndata\n\nevent\ndata: a\n\n",
    "the last event name wins": b"event: a\nevent: b\ndata: x\n\ndata: y\n\n",
    "a name without data": b"event: a\n\ndata: y\n\n",
    "unknown fields": b"data2: x\n data: y\nDATA: z\n\ndata: a\n\n",
    "stray blank lines": b"\n\n\ndata: a\n\n\n\n\r\n\r\ndata: b\n\n\n",
    "no last blank line": b"data: a\n\ndata: b\n",
    "no last line end": b'data: a\n\ndata: {"error": "x"}',
    "an open comment": b"data: a\n\n: pi",
    "utf-8": 'data: {"t": "日本語 👩‍👩‍👧 é"}\n\nevent: größe\ndata: ✓\n\n'.encode(),
    "not utf-8": b"data: \xff\xfe\xed\xa0\x80\n\nevent: \xff\ndata: \x00\n\n",
    "only a comment": b":\n",
    "empty": b"",
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_however_a_stream_is_cut_its_bytes_and_its_events_are_the_same(stream: bytes) -> None:
    expected = parsed_at_once(stream)
    cuts = [[], range(1, len(stream)), *([cut] for cut in range(len(stream) + 1))]
    for cut in cuts:
        events = read(pieces(stream, cut))
        assert joined(events) == stream
        assert dispatched(events) == expected


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_a_chunk_in_the_middle_of_a_stream_is_read_like_one_at_its_start(stream: bytes) -> None:
    stream = stream.removeprefix(BOM)
    reader = Reader()
    reader.feed(b"data: before\n\n")
    assert raws(reader.feed(stream) + reader.end()) == raws(read([stream]))


@st.composite
def cut_streams(draw: st.DrawFn) -> list[bytes]:
    text = st.binary(max_size=6) | st.text(max_size=4).map(str.encode) | st.just(b"[DONE]")
    field = st.sampled_from(
        [b"data", b"data: ", b"data:", b"event: ", b"id: ", b"retry:", b": ", b":", b"", b"\xef", BOM]
    )
    ends = draw(st.sampled_from([[b"\n"], [b"\r\n"], [b"\r"], [b"\n", b"\r\n", b"\r"]]))
    line = st.tuples(field, text, st.sampled_from(ends)).map(b"".join)
    blank = st.sampled_from(ends)
    stream = draw(st.sampled_from([b"", BOM])) + b"".join(draw(st.lists(line | blank, max_size=12)))
    return pieces(stream, draw(st.sets(st.integers(0, len(stream)), max_size=12)))


@given(cut_streams())
@example([b"data: a\r", b"\ndata: b\r\n\r", b"\n"])
@example([b"data: a\r\n", b"\r", b"\n", b"data: b\n\r", b"\n\n"])
def test_random_streams_cut_at_random_are_what_the_standard_reads_at_once(chunks: list[bytes]) -> None:
    events = read(chunks)
    assert joined(events) == b"".join(chunks)
    assert dispatched(events) == parsed_at_once(b"".join(chunks))


@given(cut_streams(), st.integers(0, 20))
def test_an_event_above_the_limit_passes_and_the_others_are_read(chunks: list[bytes], limit: int) -> None:
    stream = b"".join(chunks)
    events = read(chunks, max_event_bytes=limit)
    assert joined(events) == stream
    rest = iter(parsed_at_once(stream))
    assert all(event in rest for event in dispatched(events)), "in order, and none made up"


def test_an_event_goes_out_with_the_byte_that_ends_it() -> None:
    reader = Reader()
    assert raws(reader.feed(b"data: a\n\ndata: b\n")) == [b"data: a\n\n"]
    assert raws(reader.feed(b"\n")) == [b"data: b\n\n"]
    assert raws(reader.feed(b"data: c\r\n\r")) == [b"data: c\r\n\r"]
    assert raws(reader.feed(b"\n")) == [b"\n"]
    assert raws(reader.feed(b"data: d\r\r")) == [b"data: d\r\r"]
    assert raws(reader.feed(b"\ndata: e\n\n")) == [b"\n", b"data: e\n\n"]


def test_a_keep_alive_comment_goes_out_with_its_line() -> None:
    reader = Reader()
    for chunk in (b": ping\n", b"\n", b":\n", b"\n", b": ping\r\n", b": x\r", b"\n"):
        assert raws(reader.feed(chunk)) == [chunk]
        assert reader.at_boundary
    assert raws(reader.feed(b": x\n\ndata: a\n\n")) == [b": x\n", b"\n", b"data: a\n\n"]
    assert raws(reader.feed(b"data: b\n: inside\n")) == []
    assert not reader.at_boundary


def test_a_boundary_is_where_no_event_is_open() -> None:
    reader = Reader()
    assert reader.at_boundary
    for chunk, boundary in [
        (b"data: a", False),
        (b"\n", False),
        (b"\n", True),
        (b"data: b\n\ndata", False),
        (b": c\n\n", True),
        (b": pi", False),
        (b"ng\n", True),
        (b"", True),
        (b"data: tail", False),
    ]:
        reader.feed(chunk)
        assert reader.at_boundary is boundary, chunk
    assert dispatched(reader.end()) == [("", b"tail")]
    assert not reader.at_boundary, "the tail went out without its end"
    assert reader.end() == []


def test_an_oversized_event_passes_in_pieces_that_nobody_reads() -> None:
    reader = Reader(max_event_bytes=64)
    assert reader.feed(b"event: image_generation.completed\ndata: ") == []
    first, *more = [event for _ in range(100) for event in reader.feed(b"x" * 10)]
    assert first.raw == b"event: image_generation.completed\ndata: " + b"x" * 30
    assert raws(more) == [b"x" * 10] * 97
    assert not reader.at_boundary
    assert reader.feed(b"") == []
    assert raws(reader.feed(b"\r\n\r")) == [b"\r\n\r"]
    assert reader.at_boundary
    assert all(event.oversized and event.data is None for event in [first, *more])
    assert {event.name for event in [first, *more]} == {""}, "its name comes with its end"
    assert dispatched(reader.feed(b"data: next\n\n")) == [("", b"next")]


def test_the_last_piece_of_an_oversized_event_has_its_name() -> None:
    stream = b"event: a\ndata: " + b"x" * 100 + b"\n\n"
    for size in (1, 7, 50, 200):
        chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
        _, *before, last, following = events = read([b"data: 0\n\n", *chunks, b"data: b\n\n"], max_event_bytes=64)
        assert joined(events) == b"data: 0\n\n" + stream + b"data: b\n\n"
        assert (last.oversized, last.name, last.data) == (True, "a", None)
        assert [event.name for event in before] == [""] * len(before)
        assert (following.oversized, following.data) == (False, b"b")


def test_a_name_that_is_cut_by_the_limit_is_none() -> None:
    events = read([b"event: done", b" not\ndata: x\n\n"], max_event_bytes=10)
    assert [event.name for event in events] == ["", ""]


def test_an_oversized_comment_ends_with_its_line() -> None:
    events = read([b":" + b"x" * 50, b"y" * 50 + b"\ndata: a\n\n"], max_event_bytes=32)
    assert raws(events) == [b":" + b"x" * 50, b"y" * 50 + b"\n", b"data: a\n\n"]
    assert dispatched(events) == [("", b"a")]


def test_memory_stays_bounded() -> None:
    reader = Reader(max_event_bytes=1000)
    passed = sum(len(event.raw) for _ in range(1000) for event in reader.feed(b"data: never ends " * 10))
    assert len(reader._held) <= 1000
    assert passed == 170_000


@pytest.mark.parametrize(("size", "step"), [(300_000, 1), (4_000_000, 16_384)])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_long_events_cost_by_the_byte(size: int, step: int, end: bytes) -> None:
    stream = b"data: " + b"x" * size + 2 * end
    chunks = [stream[start : start + step] for start in range(0, len(stream), step)]
    began = time.process_time()
    assert [len(data) for _, data in dispatched(read(chunks))] == [size]
    assert time.process_time() - began < 5, "a rescan per chunk would take minutes, or gigabytes of copies"


@pytest.mark.parametrize("unit", [b"data: a\n\n", b"data: a\r\n\r\n", b":\n", b"\n", b"data: a\r\r"])
def test_chunks_of_many_small_events_cost_by_the_byte(unit: bytes) -> None:
    chunk = unit * (200_000 // len(unit))
    began = time.process_time()
    assert joined(read([chunk])) == chunk
    assert time.process_time() - began < 5


def test_events_made_here_are_read_back_as_they_were_meant() -> None:
    for data, name in [(b"x", ""), (b"", ""), (b" two\nlines\n", "größe"), (b"a\r\nb\rc", "e"), (b"[DONE]", "")]:
        event = Event.of(data, name)
        assert dispatched(read([event.raw])) == [(name, data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))]
    assert Event.of(b"x", "e").raw == b"event: e\ndata: x\n\n"
    assert Event.of_json({"error": {"message": "a\nb"}}).raw == b'data: {"error":{"message":"a\\nb"}}\n\n'
    assert Event.of_json([1], "e").json() == [1]


def test_json_is_parsed_once_and_fails_as_a_value_error() -> None:
    event = Event(b'data: {"a":\ndata: 1}\n\n')
    assert event.json() == {"a": 1}
    assert event.json() is event.json()
    for raw in (b"data: {bad\n\n", b": ping\n", b"data\n\n", b"data: \xff\n\n"):
        with pytest.raises(ValueError, match=r"."):
            Event(raw).json()


def test_done_is_recognised_with_what_servers_append() -> None:
    for raw in (
        b"data: [DONE]\n\n",
        b"data:[DONE]\r\n\r\n",
        b"data: [DONE] \n\n",
        b"data: [DONE]\r\n\n",
        b"data: [DONE]",
    ):
        assert Event(raw).is_done
    for raw in (b'data: "[DONE]"\n\n', b": [DONE]\n", b"data: [DONE]?\n\n"):
        assert not Event(raw).is_done
