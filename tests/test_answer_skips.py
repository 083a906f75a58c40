"""Of Answer's way past events that tell nothing new: it is taken, and it never leads past one that does."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.answer import Answer
from proxy.sse import Event

COUNTS = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


def data(value: Any) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(value)


def chunk(content: str, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": index, "delta": {"content": content}, "finish_reason": finish}], **more}


def told(answer: Answer) -> tuple[Any, ...]:
    return answer.is_whole(), answer.started, answer.error, answer.usage(), answer._finished


class Watched(Event):
    parsed = 0

    def json(self) -> Any:
        Watched.parsed += 1
        return super().json()


BORING = data(chunk("a", usage=None, obfuscation="ab"))
TOOL = data(
    {
        "id": "c",
        "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "type": "function"}]}, "finish_reason": None}],
    }
)
DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","n":%d,"delta":"x"}\n\n'


def parses(*raws: bytes, reads_usage: bool = True) -> int:
    Watched.parsed = 0
    answer = Answer(expected=True, reads_usage=reads_usage)
    for raw in raws:
        answer.see(Watched(raw))
    return Watched.parsed


def test_boring_events_are_not_parsed() -> None:
    assert parses(BORING, *[data(chunk(f"text {n}", usage=None)) for n in range(50)]) == 1
    assert parses(*[DELTA % n for n in range(50)]) == 1
    assert parses(*[data(chunk('a "finish_reason": "stop", "error": 1', usage=None))] * 50) == 1
    assert parses(*[TOOL] * 50) == 1


def test_a_stream_that_cannot_be_skipped_is_not_learnt_for_ever() -> None:
    grown = [data(chunk("x", usage={**COUNTS, "completion_tokens": n})) for n in range(50)]
    assert parses(*grown) == 50
    assert parses(*grown[:9], *[BORING] * 5) == 14


def test_a_stream_that_changes_now_and_then_is_learnt_anew() -> None:
    every_second = [data({**chunk("x"), "id": f"c{at // 2}"}) for at in range(100)]
    assert parses(*every_second) == 50


@pytest.mark.parametrize(
    "news",
    [
        data(chunk("", finish="stop", usage=None)),
        data(chunk("x", index=1, usage=None)),
        data(chunk("x", usage=COUNTS)),
        data(chunk("x", usage=None, error={"message": "m"})),
        data(chunk("x", usage=None, x_groq={"error": "m"})),
        data(chunk("x", usage=None, timings={"prompt_n": 1})),
        BORING.replace(b'"index":0', b'"index":01'),
        BORING.replace(b'"finish_reason":null', b'"finish_reason": "stop"'),
        BORING.replace(b'"finish_reason":null', b'"finish_reason" :"stop"'),
        BORING.replace(b',"finish_reason":null', b""),
        BORING.replace(b"]", b',{"index":1,"finish_reason":null}]'),
        BORING.replace(b"\n\n", b"\nevent: error\n\n"),
        BORING.replace(b"\n\n", b"\nevent: error\ndata: }\n\n"),
        BORING.replace(b"\n\n", b"\revent: error\rdata: }\n\n"),
        BORING.replace(b"}\n\n", b"\n\n"),
        b"data: [DONE]\n\n",
    ],
)
def test_events_with_news_are_read(news: bytes) -> None:
    assert parses(BORING, news) == 2


KEYS = st.sampled_from(
    ["content", "role", "finish_reason", "index", "error", "usage", "type", "choices", "text", 'a"error']
)
TEXT = st.sampled_from(
    [
        '"error":"',
        '"finish_reason":"stop"',
        '\\"finish_reason\\":null',
        '"index":1}',
        "error",
        "\n\n",
        '"',
        "\\",
        "x",
        "",
    ]
)
VALUE = TEXT | st.none() | st.integers(0, 2) | st.sampled_from(["stop", "error", COUNTS])
DELTAS = st.dictionaries(KEYS, TEXT, max_size=2) | st.builds(
    lambda text: {"content": "".join(text)}, st.lists(TEXT, max_size=3)
)
CHOICE = st.fixed_dictionaries(
    {"index": st.integers(0, 1), "delta": DELTAS},
    optional={"finish_reason": st.sampled_from([None, None, None, "", "stop", "error"]), "error": VALUE},
)
MORE = st.dictionaries(st.sampled_from(["usage", "error", "timings", "x", "obfuscation", "type"]), VALUE, max_size=2)
CHUNK = st.builds(lambda choices, more: {"choices": choices, **more}, st.lists(CHOICE, min_size=1, max_size=2), MORE)


@given(st.lists(CHUNK | st.builds(chunk, TEXT, usage=st.none()), max_size=8), st.booleans())
def test_what_is_skipped_would_have_told_nothing(chunks: list[dict[str, Any]], reads_usage: bool) -> None:
    quick, thorough = (Answer(expected=True, reads_usage=reads_usage) for _ in range(2))
    for value in [chunk("first"), *chunks]:
        quick.see(Event.of_json(value))
        thorough._opening = None
        thorough.see(Event.of_json(value))
        assert told(quick) == told(thorough)


@given(st.lists(CHUNK | st.builds(chunk, TEXT, usage=st.none()), max_size=12), st.integers(1, 5), st.booleans())
def test_what_is_not_even_read_would_have_told_nothing(
    chunks: list[dict[str, Any]], together: int, reads_usage: bool
) -> None:
    quick, thorough = (Answer(expected=True, reads_usage=reads_usage) for _ in range(2))
    values = [chunk("first"), *chunks]
    for start in range(0, len(values), together):
        events = [Event.of_json(value) for value in values[start : start + together]]
        skipped = quick.says_nothing(b"".join(event.raw for event in events))
        for event in events:
            thorough._opening = None
            thorough.see(event)
            if not skipped:
                quick.see(event)
        assert told(quick) == told(thorough)


def test_a_stream_of_plain_text_is_skipped_by_the_dozen() -> None:
    answer = Answer(expected=True, reads_usage=True)
    answer.see(Event(BORING))
    assert answer.says_nothing(BORING * 12)
    assert not answer.says_nothing(BORING * 12 + data(chunk("", finish="stop", usage=None)))
    assert not answer.says_nothing(BORING * 12 + b"data: [DONE]\n\n")
    assert not answer.says_nothing(BORING + b": ping\n\n")
    assert not answer.says_nothing(BORING + BORING[:-1])
