"""Token usage out of what upstreams report: every shape of theirs, one of ours.

Providers disagree on what a count includes; here each means what `Usage` says, so that a price is all that is missing:

- Anthropic keeps the cache's tokens out of `input_tokens`, and calls them `cache_read_input_tokens`.
- xAI keeps reasoning out of `completion_tokens`, and Gemini's OpenAI layer its thoughts: only `total_tokens` has them.
- Mistral keeps a recording's tokens out of `prompt_tokens`; only `total_tokens` has them.

A count is a whole number from 0 to 2**53; anything else counts as not reported. A part is never more than its whole:
cached and written tokens are cut down to the input's, reasoning to the output's.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from typing_extensions import override

_INPUT = ("prompt_tokens", "input_tokens")
_OUTPUT = ("completion_tokens", "output_tokens")
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_COUNTS = (*_INPUT, *_OUTPUT, "prompt_n", "predicted_n", "cache_n", "input_length", "generated_tokens")
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
_CACHE_WRITE = ("cache_write_tokens", "created_cache_tokens", "cache_creation_input_tokens")
_REASONING = ("reasoning_tokens", "thinking_tokens")
_ANTHROPIC = ("cache_read_input_tokens", "cache_creation_input_tokens")
_PLAIN = frozenset({*_INPUT, *_OUTPUT, "total_tokens"})
"""A report with no other counts than these needs no closer look."""

_MAX = 2**53
"""What a JSON number holds exactly everywhere."""

_Report = Mapping[str, Any]


class Usage(NamedTuple):
    """`input_tokens` counts all of the prompt, cached too; `output_tokens` all that was generated, reasoning too."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    @override
    def __add__(self, other: "Usage") -> "Usage":  # type: ignore[override]
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


def usage_from_object(obj: _Report) -> Usage | None:
    """Of a `usage` object, llama.cpp's `timings` or TGI's `details`; None where it counts nothing that we know."""
    return _from_usage(obj) or _from_timings(obj) or _from_details(obj)


def usage_from_body(body: Any) -> Usage | None:
    """Of a whole JSON answer."""
    if isinstance(body, list) and len(body) == 1:  # TGI's POST /
        body = body[0]
    if not isinstance(body, dict):
        return None
    usage = body.get("usage")
    if isinstance(usage, dict) and (found := _from_usage(usage)):
        return found
    return next(filter(None, map(usage_from_object, _reports(body))), None)


class UsageReader:
    """Of a stream: `see` every event's JSON, then ask for the `total`.

    The last usage of each choice counts, and their sum (TGI reports /v1/completions per prompt), unless one came that
    belongs to no choice: it speaks for all. Zeros before, after or beside real counts say nothing (Ollama sends them
    with every chunk); alone they stand. Anthropic reports the prompt when it starts, and the rest at the end. Some
    upstreams report with every chunk, so only the last report is converted.
    """

    __slots__ = ("_by_choice", "_final", "_opening", "_tokens", "_zero")

    def __init__(self) -> None:
        self._opening: _Report = {}
        self._by_choice: dict[int, _Report] = {}
        self._final: _Report | None = None
        self._zero: _Report | None = None
        self._tokens = 0

    def see(self, value: Any) -> None:
        if not isinstance(value, dict):
            return
        if isinstance(value.get("token"), dict):  # TGI's own stream numbers its tokens from 1
            self._tokens = _count(value, ("index",)) or self._tokens
        if value.get("type") == "message_start":
            self._opening = _part(_part(value, ("message",)), ("usage",))
        response = value.get("response")
        for report in _reports(response if isinstance(response, dict) else value):
            self._take(report, value.get("choices"))
            return

    def total(self) -> Usage | None:
        if self._final is not None:
            return usage_from_object(_later(self._opening, self._final))
        if usages := [usage for report in self._by_choice.values() if (usage := usage_from_object(report))]:
            return sum(usages, Usage())
        if self._tokens:
            return Usage(output_tokens=self._tokens)
        return usage_from_object(_later(self._opening, self._zero or {}))

    def _take(self, report: _Report, choices: Any) -> None:
        if not any(map(report.get, _COUNTS)):
            self._zero = report
        elif isinstance(choices, list) and choices and isinstance(choices[0], dict):
            self._by_choice[_count(choices[0], ("index",)) or 0] = report
        else:
            self._final = report


def _later(opening: _Report, final: _Report) -> _Report:
    return {**opening, **{name: value for name, value in final.items() if value is not None}} if opening else final


def _reports(message: dict[str, Any]) -> list[_Report]:
    groq = message.get("x_groq")
    places = (
        message.get("usage"),
        groq.get("usage") if groq and isinstance(groq, dict) else None,
        message.get("timings"),
        message.get("details"),
    )
    return [report for report in places if report and isinstance(report, dict)]


def _from_usage(obj: _Report) -> Usage | None:
    given, made = _count(obj, _INPUT), _count(obj, _OUTPUT)
    if given is None and made is None:
        return None
    if _PLAIN.issuperset(obj) and obj.get("total_tokens") == (given or 0) + (made or 0):
        return Usage(given or 0, made or 0)
    given_details, made_details = _part(obj, _INPUT_DETAILS), _part(obj, _OUTPUT_DETAILS)
    cached = _count(given_details, _CACHED) or _count(obj, _CACHED) or 0
    written = _count(given_details, _CACHE_WRITE) or _count(obj, _CACHE_WRITE) or 0
    thought = _count(made_details, _REASONING) or _count(obj, _REASONING) or 0
    if given is not None and not given_details and _is_anthropic(obj):
        given += cached + written
    if given is not None and made is not None:
        given, made, thought = _completed(obj, given, made, cached + written, thought)
    return _bounded(given or 0, made or 0, cached, written, thought)


def _is_anthropic(obj: _Report) -> bool:
    """Layers that call it `prompt_tokens` have added the cache's (Databricks)."""
    return "prompt_tokens" not in obj and any(name in obj for name in _ANTHROPIC)


def _completed(obj: _Report, given: int, made: int, stored: int, thought: int) -> tuple[int, int, int]:
    """Input, output and reasoning, with what the total has beyond prompt and completion.

    Where that is a part which was reported, that part was left out of its whole; where none was, it is thoughts. A
    total that is less, or that nothing explains, changes nothing.
    """
    beyond = (_count(obj, ("total_tokens",)) or 0) - given - made
    if beyond <= 0:
        return given, made, thought
    if obj.get("prompt_audio_seconds") or (beyond == stored and beyond != thought):
        return given + beyond, made, thought
    if thought in (0, beyond):
        return given, made + beyond, beyond
    return given, made, thought


def _bounded(given: int, made: int, cached: int, written: int, thought: int) -> Usage:
    cached = min(cached, given)
    return Usage(given, made, cached, min(written, given - cached), min(thought, made))


def _from_timings(obj: _Report) -> Usage | None:
    given, made = _count(obj, ("prompt_n",)), _count(obj, ("predicted_n",))
    if given is None and made is None:
        return None
    cached = _count(obj, ("cache_n",)) or 0  # prompt_n is what was left to read
    return Usage((given or 0) + cached, made or 0, cached)


def _from_details(obj: _Report) -> Usage | None:
    made = _count(obj, ("generated_tokens",))
    if made is None:
        return None
    given, prefill = _count(obj, ("input_length",)), obj.get("prefill")
    if given is None and isinstance(prefill, list):
        given = len(prefill)
    return Usage(given or 0, made + _others_made(obj.get("best_of_sequences")))


def _others_made(sequences: Any) -> int:
    """TGI's `best_of` writes several answers, and counts each for itself."""
    others = sequences if isinstance(sequences, list) else []
    return sum(_count(other, ("generated_tokens",)) or 0 for other in others if isinstance(other, dict))


def _part(obj: _Report, names: tuple[str, ...]) -> _Report:
    return next((part for name in names if isinstance(part := obj.get(name), dict)), {})


def _count(obj: _Report, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = obj.get(name)
        if type(value) is int and 0 <= value <= _MAX:
            return value
    return None
