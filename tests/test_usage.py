from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.usage import Usage, UsageReader, usage_from_body, usage_from_object

OBJECTS: dict[str, tuple[dict[str, Any], Usage | None]] = {
    "openai": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "total_tokens": 1050,
            "prompt_tokens_details": {"cached_tokens": 400, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 30, "accepted_prediction_tokens": 0},
        },
        Usage(1000, 50, cached_input_tokens=400, reasoning_tokens=30),
    ),
    "tgi chat": ({"prompt_tokens": 39, "completion_tokens": 3, "total_tokens": 42}, Usage(39, 3)),
    "embeddings": ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8)),
    "sglang, flat reasoning": (
        {"prompt_tokens": 7, "completion_tokens": 9, "reasoning_tokens": 5, "prompt_tokens_details": None},
        Usage(7, 9, reasoning_tokens=5),
    ),
    "vllm": (
        {
            "prompt_tokens": 7,
            "completion_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": None, "created_cache_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        Usage(7, 9, cache_write_tokens=2),
    ),
    "openrouter": (
        {"prompt_tokens": 7, "completion_tokens": 9, "cost": 0.1, "prompt_tokens_details": {"cache_write_tokens": 3}},
        Usage(7, 9, cache_write_tokens=3),
    ),
    "responses": (
        {
            "input_tokens": 36,
            "input_tokens_details": {"cached_tokens": 6},
            "output_tokens": 87,
            "output_tokens_details": {"reasoning_tokens": 64},
            "total_tokens": 123,
        },
        Usage(36, 87, cached_input_tokens=6, reasoning_tokens=64),
    ),
    "transcription": (
        {"type": "tokens", "input_tokens": 14, "input_token_details": {"audio_tokens": 14}, "output_tokens": 45},
        Usage(14, 45),
    ),
    "transcription by duration": ({"type": "duration", "seconds": 3}, None),
    "llama.cpp timings": (
        {"cache_n": 236, "prompt_n": 1, "prompt_ms": 30.9, "predicted_n": 35, "predicted_ms": 661.0},
        Usage(237, 35, cached_input_tokens=236),
    ),
    "tgi stream details": (
        {"finish_reason": "length", "generated_tokens": 10, "seed": None, "input_length": 5},
        Usage(5, 10),
    ),
    "tgi details, best of three": (
        {
            "generated_tokens": 2,
            "prefill": [{}],
            "best_of_sequences": [{"generated_tokens": 3}, {"generated_tokens": 4}],
        },
        Usage(1, 9),
    ),
    "tgi details with prefill": (
        {"finish_reason": "length", "generated_tokens": 2, "prefill": [{"id": 1}, {"id": 2}, {"id": 3}], "tokens": []},
        Usage(3, 2),
    ),
    "xai, reasoning beside the completion": (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        Usage(32, 103, reasoning_tokens=94),
    ),
    "gemini, thoughts in the total alone": (
        {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
        Usage(20, 603, reasoning_tokens=405),
    ),
    "gemini, nothing but thoughts yet": (
        {"prompt_tokens": 20, "completion_tokens": 0, "total_tokens": 30},
        Usage(20, 10, reasoning_tokens=10),
    ),
    "anthropic": (
        {
            "input_tokens": 4,
            "cache_creation_input_tokens": 30,
            "cache_read_input_tokens": 500,
            "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 60,
            "output_tokens_details": {"thinking_tokens": 40},
        },
        Usage(534, 60, cached_input_tokens=500, cache_write_tokens=30, reasoning_tokens=40),
    ),
    "anthropic, nothing cached": (
        {"input_tokens": 4, "cache_creation_input_tokens": None, "cache_read_input_tokens": 0, "output_tokens": 6},
        Usage(4, 6),
    ),
    "anthropic's words, the whole prompt": (
        {
            "prompt_tokens": 534,
            "cache_read_input_tokens": 500,
            "cache_creation_input_tokens": 30,
            "completion_tokens": 6,
        },
        Usage(534, 6, cached_input_tokens=500, cache_write_tokens=30),
    ),
    "anthropic's words beside responses'": (
        {
            "input_tokens": 534,
            "input_tokens_details": {"cached_tokens": 500},
            "cache_read_input_tokens": 500,
            "output_tokens": 6,
        },
        Usage(534, 6, cached_input_tokens=500),
    ),
    "cached tokens outside the prompt": (
        {
            "prompt_tokens": 4,
            "completion_tokens": 6,
            "total_tokens": 510,
            "prompt_tokens_details": {"cached_tokens": 500},
        },
        Usage(504, 6, cached_input_tokens=500),
    ),
    "as many cached as reasoning": (
        {
            "prompt_tokens": 70,
            "completion_tokens": 6,
            "total_tokens": 140,
            "prompt_tokens_details": {"cached_tokens": 64},
            "completion_tokens_details": {"reasoning_tokens": 64},
        },
        Usage(70, 70, cached_input_tokens=64, reasoning_tokens=64),
    ),
    "mistral, a recording": (
        {"prompt_audio_seconds": 12, "prompt_tokens": 3, "total_tokens": 419, "completion_tokens": 41},
        Usage(378, 41),
    ),
    "deepseek": (
        {
            "prompt_tokens": 20,
            "completion_tokens": 7,
            "total_tokens": 27,
            "prompt_cache_hit_tokens": 12,
            "prompt_cache_miss_tokens": 8,
        },
        Usage(20, 7, cached_input_tokens=12),
    ),
    "moonshot, together": (
        {"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27, "cached_tokens": 16},
        Usage(20, 7, cached_input_tokens=16),
    ),
    "image": (
        {"total_tokens": 4210, "input_tokens": 50, "output_tokens": 4160, "input_tokens_details": {"image_tokens": 40}},
        Usage(50, 4160),
    ),
    "a total beyond what explains it": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 10,
            "total_tokens": 50,
            "completion_tokens_details": {"reasoning_tokens": 7},
        },
        Usage(10, 10, reasoning_tokens=7),
    ),
    "a total that says less": ({"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 5}, Usage(10, 10)),
    "a total without a completion": ({"prompt_tokens": 10, "total_tokens": 50}, Usage(10)),
    "a total without a prompt": ({"completion_tokens": 10, "total_tokens": 50}, Usage(0, 10)),
    "a total alone": ({"total_tokens": 50}, None),
    "totals that are no counts": (
        {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 2**53 + 1, "reasoning_tokens": "9"},
        Usage(10, 10),
    ),
    "parts that are more than their whole": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 8},
            "completion_tokens_details": {"reasoning_tokens": 50},
        },
        Usage(10, 5, cached_input_tokens=8, cache_write_tokens=2, reasoning_tokens=5),
    ),
    "more cached than there was": (
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1000}},
        Usage(10, 5, cached_input_tokens=10),
    ),
    "parts of nothing": ({"completion_tokens": 0, "cached_tokens": 5, "reasoning_tokens": 5}, Usage()),
    "parts that are no counts": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": -3, "cache_write_tokens": 1.0},
            "completion_tokens_details": {"reasoning_tokens": True},
        },
        Usage(10, 5),
    ),
    "the largest count": ({"prompt_tokens": 2**53, "completion_tokens": 2**53 + 1}, Usage(2**53)),
    "fractions": ({"prompt_tokens": 10.0, "completion_tokens": 5}, Usage(0, 5)),
    "explicit zero": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Usage()),
    "one count is null": ({"prompt_tokens": 5, "completion_tokens": None}, Usage(5)),
    "all counts are null": ({"prompt_tokens": None, "completion_tokens": None}, None),
    "nonsense": ({"prompt_tokens": "many", "completion_tokens": -1, "output_tokens": True}, None),
    "empty": ({}, None),
}


@pytest.mark.parametrize(("reported", "usage"), OBJECTS.values(), ids=OBJECTS.keys())
def test_every_upstreams_usage_object(reported: dict[str, Any], usage: Usage | None) -> None:
    assert usage_from_object(reported) == usage


def test_usages_add_up() -> None:
    assert Usage(1, 2, 3, 4, 5) + Usage(10, 20, 30, 40, 50) == Usage(11, 22, 33, 44, 55)


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        ({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}, Usage(1, 2)),
        (
            {"choices": [], "usage": None, "x_groq": {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}},
            Usage(1, 2),
        ),
        ({"content": "hi", "timings": {"prompt_n": 1, "predicted_n": 2}}, Usage(1, 2)),
        ({"generated_text": "hi", "details": {"generated_tokens": 2, "prefill": []}}, Usage(0, 2)),
        ([{"generated_text": "hi", "details": {"generated_tokens": 2, "prefill": [{}]}}], Usage(1, 2)),
        ({"generated_text": "hi"}, None),
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, Usage()),
        ({"usage": "none", "x_groq": 1, "timings": [], "details": "x"}, None),
        ([], None),
        ([{"usage": {"prompt_tokens": 1}}, {"usage": {"prompt_tokens": 1}}], None),
        ("text", None),
        (None, None),
    ],
)
def test_usage_of_a_whole_body(body: Any, usage: Usage | None) -> None:
    assert usage_from_body(body) == usage


def counts(given: int, made: int) -> dict[str, int]:
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


def chunk(usage: Any, *indices: int, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {}} for index in indices], "usage": usage, **more}


def token(index: int, **more: Any) -> dict[str, Any]:
    return {"index": index, "token": {"id": 1, "text": "x"}, "generated_text": None, "details": None, **more}


ZERO = counts(0, 0)
ANTHROPIC = {
    "type": "message_start",
    "message": {
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 4,
            "cache_read_input_tokens": 20,
            "output_tokens": 1,
        }
    },
}
STREAMS: dict[str, tuple[list[Any], Usage | None]] = {
    "none": ([chunk(None, 0), chunk(None, 0)], None),
    "at the end, of no choice": ([chunk(None, 0), chunk(counts(9, 2))], Usage(9, 2)),
    "on the finish chunk (mistral, litserve)": ([chunk(None, 0), chunk(counts(9, 2), 0)], Usage(9, 2)),
    "grows with every chunk (gemini)": ([chunk(counts(9, made), 0) for made in (1, 2, 3)], Usage(9, 3)),
    "grows, then of no choice (vllm)": (
        [chunk(counts(9, 1), 0), chunk(counts(9, 1), 1), chunk(counts(9, 2))],
        Usage(9, 2),
    ),
    "one per prompt (tgi completions)": (
        [chunk(counts(3, 5), 1), chunk(None, 0), chunk(counts(4, 6), 0)],
        Usage(7, 11),
    ),
    "zeros before the real one (ollama)": ([chunk(ZERO, 0), chunk(ZERO, 0), chunk(counts(9, 2))], Usage(9, 2)),
    "zeros after the real one": ([chunk(counts(9, 2), 0), chunk(ZERO, 0), chunk(ZERO)], Usage(9, 2)),
    "nothing but zeros (case 53)": ([chunk(ZERO, 0), chunk(ZERO)], Usage()),
    "groq, unasked": (
        [chunk(None, 0, x_groq={"id": "r"}), chunk(None, 0, x_groq={"usage": counts(9, 2)})],
        Usage(9, 2),
    ),
    "groq, asked": ([chunk(None, 0, x_groq={"usage": counts(9, 2)}), chunk(counts(9, 2))], Usage(9, 2)),
    "azure's first chunk": ([chunk(None, prompt_filter_results=[]), chunk(None, 0), chunk(counts(9, 2))], Usage(9, 2)),
    "sglang's extra chunk": ([{"choices": [], "sglext": {"ids": [1]}}, chunk(counts(9, 2))], Usage(9, 2)),
    "llama.cpp without include_usage": ([chunk(None, 0, timings={"prompt_n": 9, "predicted_n": 2})], Usage(9, 2)),
    "llama.cpp with include_usage": (
        [chunk(counts(8, 2), timings={"prompt_n": 3, "cache_n": 5, "predicted_n": 2})],
        Usage(8, 2),
    ),
    "responses": (
        [
            {"type": "response.created", "response": {"status": "in_progress", "usage": None}},
            {"type": "response.output_text.delta", "delta": "x"},
            {"type": "response.completed", "response": {"usage": {"input_tokens": 9, "output_tokens": 2}}},
        ],
        Usage(9, 2),
    ),
    "responses, failed": (
        [{"type": "response.failed", "response": {"error": {}, "usage": {"input_tokens": 9, "output_tokens": 1}}}],
        Usage(9, 1),
    ),
    "speech": ([{"type": "speech.audio.done", "usage": {"input_tokens": 9, "output_tokens": 2}}], Usage(9, 2)),
    "transcription by duration": (
        [{"type": "transcript.text.done", "usage": {"type": "duration", "seconds": 3}}],
        None,
    ),
    "image": (
        [
            {"type": "image_generation.partial_image", "b64_json": "x"},
            {
                "type": "image_generation.completed",
                "usage": {"input_tokens": 9, "output_tokens": 2, "total_tokens": 11},
            },
        ],
        Usage(9, 2),
    ),
    "xai, growing with every chunk": (
        [chunk({**counts(9, made), "total_tokens": 49 + made, "reasoning_tokens": 40}, 0) for made in (1, 2, 3)],
        Usage(9, 43, reasoning_tokens=40),
    ),
    "anthropic": ([ANTHROPIC, {"type": "message_delta", "usage": {"output_tokens": 15}}], Usage(29, 15, 20, 4)),
    "anthropic, counted again at the end": (
        [
            ANTHROPIC,
            {
                "type": "message_delta",
                "usage": {"input_tokens": 6, "cache_read_input_tokens": None, "output_tokens": 15},
            },
        ],
        Usage(30, 15, 20, 4),
    ),
    "anthropic, cut": ([ANTHROPIC, {"type": "content_block_delta", "delta": {"text": "x"}}], Usage(29, 1, 20, 4)),
    "anthropic, nothing said": (
        [ANTHROPIC, {"type": "message_delta", "usage": {"output_tokens": 0}}],
        Usage(29, 0, 20, 4),
    ),
    "anthropic without its usage": ([{"type": "message_start", "message": "x"}, {"type": "message_start"}], None),
    "tgi native": ([token(1), token(2), token(3, generated_text="xxx")], Usage(0, 3)),
    "tgi native, cut": ([token(1), token(2)], Usage(0, 2)),
    "tgi native with details": (
        [token(1), token(2, generated_text="xx", details={"generated_tokens": 2, "input_length": 9})],
        Usage(9, 2),
    ),
    "no objects": ([None, 1, "x", [chunk(counts(9, 2))], {"choices": 1}, {"choices": [1], "usage": 2}], None),
    "counts that are none": ([chunk({"prompt_tokens": "9"}, 0), {"usage": {"input_tokens": [1]}, "response": 1}], None),
}


@pytest.mark.parametrize(("values", "usage"), STREAMS.values(), ids=STREAMS.keys())
def test_usage_of_a_stream(values: list[Any], usage: Usage | None) -> None:
    reader = UsageReader()
    for value in values:
        reader.see(value)
    assert reader.total() == usage


NAMES = [
    "choices",
    "usage",
    "x_groq",
    "timings",
    "details",
    "response",
    "token",
    "index",
    "prompt_tokens",
    "prefill",
    "message",
    "type",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4))
def test_no_json_raises(values: list[Any]) -> None:
    reader = UsageReader()
    for value in values:
        reader.see(value)
        assert isinstance(usage_from_body(value), Usage | None)
    assert isinstance(reader.total(), Usage | None)


NUMBER = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.integers(0, 9)
COUNTS = [
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "reasoning_tokens",
    "prompt_audio_seconds",
    "prompt_n",
    "cache_n",
    "generated_tokens",
]


@given(st.dictionaries(st.sampled_from(COUNTS), NUMBER))
def test_no_part_is_more_than_its_whole_whatever_is_reported(reported):
    usage = usage_from_object(reported)
    if usage is not None:
        assert 0 <= usage.cached_input_tokens + usage.cache_write_tokens <= usage.input_tokens <= 3 * 2**53
        assert 0 <= usage.reasoning_tokens <= usage.output_tokens <= 2 * 2**53
