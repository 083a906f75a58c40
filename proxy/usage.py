"""Token usage out of what upstreams report: every shape of theirs, one of ours.

Counts stand as reported. Providers disagree on what a count includes (xAI keeps reasoning out of completion_tokens,
Anthropic keeps cached tokens out of input_tokens); that is settled where prices are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_INPUT = ("prompt_tokens", "input_tokens")
_OUTPUT = ("completion_tokens", "output_tokens")
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_COUNTS = (*_INPUT, *_OUTPUT, "prompt_n", "predicted_n", "cache_n", "input_length", "generated_tokens")
_CACHE_WRITE = ("cache_write_tokens", "created_cache_tokens")  # OpenRouter, vLLM

_Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """`input_tokens` counts all of the prompt, cached too; `output_tokens` all that was generated, reasoning too."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
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
    return next(filter(None, map(usage_from_object, _reports(body))), None)


class UsageReader:
    """Of a stream: `see` every event's JSON, then ask for the `total`.

    The last usage of each choice counts, and their sum (TGI reports /v1/completions per prompt), unless one came that
    belongs to no choice: it speaks for all. Zeros before, after or beside real counts say nothing (Ollama sends them
    with every chunk); alone they stand. Some upstreams report with every chunk, so only the last report is converted.
    """

    __slots__ = ("_by_choice", "_final", "_tokens", "_zero")

    def __init__(self) -> None:
        self._by_choice: dict[int, _Report] = {}
        self._final: _Report | None = None
        self._zero: _Report | None = None
        self._tokens = 0

    def see(self, value: Any) -> None:
        if not isinstance(value, dict):
            return
        if isinstance(value.get("token"), dict):  # TGI's own stream numbers its tokens from 1
            self._tokens = _count(value, "index") or self._tokens
        response = value.get("response")
        for report in _reports(response if isinstance(response, dict) else value):
            self._take(report, value.get("choices"))
            return

    def total(self) -> Usage | None:
        if self._final is not None:
            return usage_from_object(self._final)
        if usages := [usage for report in self._by_choice.values() if (usage := usage_from_object(report))]:
            return sum(usages, Usage())
        if self._tokens:
            return Usage(output_tokens=self._tokens)
        return usage_from_object(self._zero) if self._zero is not None else None

    def _take(self, report: _Report, choices: Any) -> None:
        if not any(map(report.get, _COUNTS)):
            self._zero = report
        elif isinstance(choices, list) and choices and isinstance(choices[0], dict):
            self._by_choice[_count(choices[0], "index") or 0] = report
        else:
            self._final = report


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
    given, made = _count(obj, *_INPUT), _count(obj, *_OUTPUT)
    if given is None and made is None:
        return None
    given_details, made_details = _part(obj, _INPUT_DETAILS), _part(obj, _OUTPUT_DETAILS)
    return Usage(
        input_tokens=given or 0,
        output_tokens=made or 0,
        cached_input_tokens=_count(given_details, "cached_tokens") or 0,
        cache_write_tokens=_count(given_details, *_CACHE_WRITE) or 0,
        reasoning_tokens=_count(made_details, "reasoning_tokens") or _count(obj, "reasoning_tokens") or 0,
    )


def _from_timings(obj: _Report) -> Usage | None:
    given, made = _count(obj, "prompt_n"), _count(obj, "predicted_n")
    if given is None and made is None:
        return None
    cached = _count(obj, "cache_n") or 0  # prompt_n is what was left to read
    return Usage((given or 0) + cached, made or 0, cached)


def _from_details(obj: _Report) -> Usage | None:
    made = _count(obj, "generated_tokens")
    if made is None:
        return None
    given, prefill = _count(obj, "input_length"), obj.get("prefill")
    if given is None and isinstance(prefill, list):
        given = len(prefill)
    return Usage(given or 0, made)


def _part(obj: _Report, names: tuple[str, ...]) -> _Report:
    return next((part for name in names if isinstance(part := obj.get(name), dict)), {})


def _count(obj: _Report, *names: str) -> int | None:
    for name in names:
        value = obj.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None
