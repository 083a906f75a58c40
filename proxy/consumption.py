"""What an exchange used, for the ledger, limits and budgets alike: as the upstream reported, else estimated.

An estimate counts the deltas of the stream (see `exchange.delivered_tokens`) and takes the prompt for four characters a
token. A request that reached no upstream, or that an upstream refused, used nothing.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import TYPE_CHECKING, Any, NamedTuple

from proxy.answer import Answer
from proxy.errors import Outcome
from proxy.exchange import Key
from proxy.sse import Reader
from proxy.usage import Usage

if TYPE_CHECKING:
    from proxy.attempt import Attempt
    from proxy.exchange import Exchange
    from proxy.request import Request

CHARACTERS_PER_TOKEN = 4
ESTIMABLE = frozenset({"chat", "completions", "responses", "messages", "generate", "embeddings"})
"""Endpoints whose tokens can be estimated."""

PAID = ESTIMABLE | {"audio", "images", "realtime"}
"""Endpoints that cost something, reported or not."""

MOST_TOKENS = 2**20
MOST_CHOICES = 128
"""Of one answer, and of answers to one request, in an estimate: whatever is asked for."""

_LONGEST = frozenset({"max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens"})
_CHOICES = frozenset({"n", "best_of"})
_PROMPTS = ("messages", "system", "prompt", "input", "inputs", "instances", "instructions", "tools")
_NO_TEXT = frozenset({"role", "type", "id", "tool_call_id", "call_id", "image_url", "input_audio", "file", "source"})
_DEPLOYMENT = re.compile(r"/(?:deployments|engines)/([^/]+)/", re.IGNORECASE)
_NONE = Usage()
_CUT = frozenset({Outcome.CLIENT_ABORT, Outcome.STREAM_INTERRUPTED})


class Consumed(NamedTuple):
    """`usage` is what served the app, `wasted` what each attempt that did not serve had used, in order, estimated.

    `did_work`: an upstream did what it is paid for, so that an empty usage is one that nobody counted.
    """

    usage: Usage
    is_estimated: bool
    did_work: bool
    wasted: tuple[Usage, ...] = ()


_CONSUMED: Key[Consumed] = Key("consumed")


def consumed(exchange: Exchange) -> Consumed:
    """For `on_complete`, of a chain that `reads_usage`: found once, and remembered when the exchange is over."""
    known: Consumed | None = exchange.facts.get(_CONSUMED)
    if known is None:
        known = _found(exchange)
        if exchange.outcome is not None:
            exchange.facts[_CONSUMED] = known
    return known


def prompt_tokens(request: Request) -> int:
    """An estimate; 0 where the body is not at hand, or is no JSON with a prompt in it."""
    if request.prompt_tokens is None:
        request.prompt_tokens = -(-_characters(request.glimpse()) // CHARACTERS_PER_TOKEN)
    return request.prompt_tokens


def streamed_tokens(stream: bytes) -> int:
    """Of the text that a whole stream has: counted, or estimated."""
    reader, answer = Reader(len(stream) + 1), Answer(expected=True)
    for event in (*reader.feed(stream), *reader.end()):
        answer.see(event)
    return answer.delivered_tokens()


def rough_prompt_tokens(request: Request) -> int:
    """As `prompt_tokens`, and cheaper: four bytes of the body are a token, unless pictures may be in it."""
    body = request.at_hand
    if not body or request.endpoint not in ESTIMABLE or b'"data' in body:
        return prompt_tokens(request)
    return -(-len(body) // CHARACTERS_PER_TOKEN)


def output_tokens(request: Request, usual: int) -> int:
    """An estimate: as many as the request allows, else the `usual`, for each of the answers that it asks for."""
    asked = request.glimpse()
    if not isinstance(asked, dict) or request.endpoint == "embeddings":
        return 0
    if "parameters" in asked and isinstance(asked["parameters"], dict):
        asked = {**asked, **asked["parameters"]}
    choices = 1 if _CHOICES.isdisjoint(asked) else min(_largest(asked, _CHOICES) or 1, MOST_CHOICES)
    return min(_largest(asked, _LONGEST) or usual, MOST_TOKENS) * choices


def asked_model(request: Request) -> str | None:
    """The model that the app asked for, as far as it is at hand; Azure goes by its path, whatever the body says."""
    if request.asked_model is None:
        parsed, deployment = request.glimpse(), _DEPLOYMENT.search(request.path)
        model = parsed.get("model") if isinstance(parsed, dict) else request.model
        if deployment is not None:
            model = urllib.parse.unquote(deployment[1])
        if not isinstance(model, str):
            return dict(urllib.parse.parse_qsl(request.query)).get("model") if request.query else None
        request.asked_model = model
    return request.asked_model


def _found(exchange: Exchange) -> Consumed:
    request, attempt = exchange.request, exchange.served_by
    if attempt is None:
        return Consumed(_NONE, is_estimated=False, did_work=False, wasted=_wasted(exchange, None))
    wasted = () if len(exchange.attempts) == 1 else _wasted(exchange, attempt)
    if request.method != "POST" and request.endpoint != "realtime":  # GET of a response tells its usage again
        return Consumed(_NONE, is_estimated=False, did_work=False, wasted=wasted)
    has_refused = exchange.told is not None and not exchange.delivered_tokens  # within a 200, before any token
    has_served = attempt.status < 400 and attempt.error is None and not has_refused
    reported, is_cut = exchange.usage, exchange.outcome in _CUT
    if reported is None:
        return Consumed(*_estimated(exchange, has_served=has_served, is_cut=is_cut), has_served, wasted)
    completed = _completed(exchange, reported, is_cut=is_cut)
    return Consumed(completed, is_estimated=completed is not reported, did_work=True, wasted=wasted)


def _completed(exchange: Exchange, reported: Usage, *, is_cut: bool) -> Usage:
    """With an estimate of what a report leaves out: what came after it, and the prompt in TGI's native streams."""
    if is_cut and reported.output_tokens < exchange.delivered_tokens:  # at least what was delivered
        reported = reported._replace(output_tokens=exchange.delivered_tokens)
    if not reported.input_tokens and reported.output_tokens and exchange.request.endpoint == "generate":
        reported = reported._replace(input_tokens=prompt_tokens(exchange.request))
    return reported


def _estimated(exchange: Exchange, *, has_served: bool, is_cut: bool) -> tuple[Usage, bool]:
    if exchange.request.endpoint not in ESTIMABLE or not has_served:
        return _NONE, False
    made = exchange.delivered_tokens or (0 if is_cut else _characters_in_answer(exchange) // CHARACTERS_PER_TOKEN)
    return Usage(prompt_tokens(exchange.request), made), True


def _wasted(exchange: Exchange, served_by: Attempt | None) -> tuple[Usage, ...]:
    return tuple([_wasted_by(exchange, attempt) for attempt in exchange.attempts if attempt is not served_by])


def _wasted_by(exchange: Exchange, attempt: Attempt) -> Usage:
    """An attempt whose answer had begun was paid for, as far as it came; what has gone down is in the bill."""
    went_down = attempt.outcome is Outcome.STREAM_INTERRUPTED
    if attempt.status != 200 or went_down or exchange.request.endpoint not in ESTIMABLE:
        return _NONE
    return Usage(prompt_tokens(exchange.request), attempt.delivered_tokens)


def _characters_in_answer(exchange: Exchange) -> int:
    return 0 if exchange.request.endpoint == "embeddings" else exchange.response_bytes


def _largest(asked: dict[str, Any], names: frozenset[str]) -> int:
    """0 where none of them is a number above."""
    largest = 0
    for name in names.intersection(asked):
        value = asked[name]
        if type(value) is int and value > largest:
            largest = value
    return largest


def _characters(parsed: Any) -> int:
    """Of the prompt: all its text, wherever the API has it; a number is a token; no pictures."""
    waiting: list[Any] = [parsed.get(name) for name in _PROMPTS] if isinstance(parsed, dict) else []
    found = 0
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind is str:
            found += 0 if value.startswith("data:") else len(value)
        elif kind is dict:
            for key, part in value.items():
                if key not in _NO_TEXT:
                    waiting.append(part)
        elif kind is list:
            waiting += value
        elif kind is int:
            found += CHARACTERS_PER_TOKEN
    return found
