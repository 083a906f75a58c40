"""Frames, cut anywhere: messages and close codes are found, what is too large or unreadable is skipped, garbage is left."""

import itertools
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.websocket import GOING_AWAY, NO_CODE, Frames, close_frame
from tests.frames import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, close, frame, text

LIMIT = 1000


def read(chunks: Iterable[bytes], limit: int = LIMIT) -> tuple[list[bytes], Frames]:
    frames = Frames(limit)
    return [message for chunk in chunks for message in frames.feed(chunk)], frames


def splits(raw: bytes) -> Iterable[list[bytes]]:
    """Whole, byte by byte, and in two at every place."""
    yield [raw]
    yield [raw[place : place + 1] for place in range(len(raw))]
    for place in range(1, len(raw)):
        yield [raw[:place], raw[place:]]


SESSION = b"".join(
    [
        text("hello"),
        frame(TEXT, b""),
        frame(PING, b"are you there?"),
        frame(TEXT, b"in ", is_final=False),
        frame(PONG, b"yes"),
        frame(CONTINUATION, "three Gr\u00fc".encode()[:-1], is_final=False),
        frame(CONTINUATION, "\u00fc".encode()[-1:] + b"ns"),
        frame(BINARY, bytes(200)),
        text("a" * 126),
        text("b" * 999),
        frame(TEXT, b"masked", mask=MASK),
        close(1000, "done"),
    ]
)
SAID = [b"hello", b"", "in three Gr\u00fcns".encode(), b"a" * 126, b"b" * 999, b"masked"]


def test_a_session_reads_the_same_wherever_it_is_cut():
    for chunks in splits(SESSION):
        said, frames = read(chunks)
        assert said == SAID
        assert (frames.close_code, frames.is_lost, frames.is_amid) == (1000, False, False)


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from([TEXT, BINARY, PING, PONG]),
        st.lists(st.binary(max_size=70), min_size=1, max_size=4),
        st.sampled_from([b"", MASK, b"\x00\x01\x00\xff"]),
    ),
    max_size=12,
)


@given(MESSAGES, st.lists(st.integers(0, 4000), max_size=20))
def test_any_session_cut_anywhere(messages: list[tuple[int, list[bytes], bytes]], cuts: list[int]):
    raw, expected = b"", []
    for opcode, parts, mask in messages:
        if opcode in (PING, PONG):
            raw += frame(opcode, parts[0], mask=mask)
            continue
        for place, part in enumerate(parts):
            is_last = place == len(parts) - 1
            raw += frame(CONTINUATION if place else opcode, part, mask=mask, is_final=is_last)
            raw += frame(PING, b"between") if not is_last else b""
        if opcode == TEXT:
            expected.append(b"".join(parts))
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    chunks = [raw[start:end] for start, end in itertools.pairwise(places)]
    said, frames = read(chunks)
    assert said == expected
    assert frames.at_boundary
    assert not frames.is_amid


@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_bytes_raise_and_cuts_change_nothing(raw: bytes, place: int):
    whole, frames = read([raw])
    said, others = read([raw[:place], raw[place:]])
    assert (said, others.close_code, others.is_lost) == (whole, frames.close_code, frames.is_lost)
    assert others.at_boundary == frames.at_boundary


GARBAGE = {
    "a reserved opcode": frame(0x3, b"x"),
    "a reserved control opcode": frame(0xB, b"x"),
    "a long ping": frame(PING, bytes(126)),
    "a ping in parts": frame(PING, b"x", is_final=False),
    "a continuation of nothing": frame(CONTINUATION, b"x"),
    "a message within a message": frame(TEXT, b"a", is_final=False) + text("b"),
    "a length beyond all bounds": bytes((0x81, 127)) + b"\xff" * 8,
    "half a close code": frame(CLOSE, b"\x03"),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_after_garbage_it_is_lost_and_looks_no_more(name: str):
    for chunks in splits(GARBAGE[name] + text("later") + close(1000)):
        said, frames = read([text("before"), *chunks])
        assert said == [b"before"]
        assert frames.is_lost
        assert not frames.at_boundary
        assert not frames.is_amid
        assert frames.close_code is None


@pytest.mark.parametrize(
    ("raw", "code"),
    [(close(), NO_CODE), (close(1000), 1000), (close(4999, "Grüße"), 4999), (close(1011, "x" * 123, mask=MASK), 1011)],
)
def test_close_codes(raw: bytes, code: int):
    for chunks in splits(raw):
        assert read(chunks)[1].close_code == code


def test_nothing_counts_after_a_close_frame():
    said, frames = read([close(1000) + text("more"), close(1011), b"\xff\xff"])
    assert (said, frames.close_code, frames.is_lost) == ([], 1000, False)


def test_what_is_larger_than_the_limit_is_skipped_and_what_follows_is_read():
    raw = text("a" * 1001) + text("b") + frame(TEXT, b"c" * 600, is_final=False) + frame(CONTINUATION, b"c" * 600)
    for chunks in ([raw], [raw[:7], raw[7:1005], raw[1005:]]):
        assert read([*chunks, text("d")])[0] == [b"b", b"d"]


def test_what_is_compressed_is_skipped_as_a_whole():
    raw = frame(TEXT, b"zip", is_final=False, reserved=0x40) + frame(CONTINUATION, b"ped") + text("plain")
    assert read([raw])[0] == [b"plain"]


def test_without_a_limit_nothing_is_handed_out_and_the_end_is_still_seen():
    said, frames = read([SESSION[:-1]], limit=0)
    assert (said, frames.is_amid) == ([], True)
    frames.feed(SESSION[-1:])
    assert frames.close_code == 1000


def test_memory_is_bounded_by_the_limit():
    """A huge message, and one in a million pieces."""
    frames = Frames(2**16)
    piece = bytes(2**16)
    tracemalloc.start()
    try:
        frames.feed(frame(TEXT, b"")[:1] + bytes((127,)) + (2**40).to_bytes(8, "big"))
        for _ in range(100):
            frames.feed(piece)
        other = Frames(2**16)
        other.feed(frame(TEXT, b"", is_final=False))
        crumb = frame(CONTINUATION, b"x", is_final=False)
        for _ in range(100_000):
            other.feed(crumb)
        assert tracemalloc.get_traced_memory()[0] < 2**18
    finally:
        tracemalloc.stop()


def test_a_boundary_is_between_frames_also_amid_a_message():
    frames = Frames(0)
    seen = []
    for chunk in (frame(TEXT, b"ab", is_final=False), frame(CONTINUATION, b"cd")):
        for place in range(len(chunk)):
            frames.feed(chunk[place : place + 1])
            seen.append((frames.at_boundary, frames.is_amid))
    assert seen == [(False, True)] * 3 + [(True, True)] + [(False, True)] * 3 + [(True, False)]


def test_the_close_frame_is_a_servers():
    assert close_frame(GOING_AWAY) == close(1001)
    assert read([close_frame(GOING_AWAY)])[1].close_code == 1001
