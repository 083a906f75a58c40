"""Chats and completions, from a stream to JSON and back: what stands in the deltas stands in the message, and so on.

Deltas are merged as the SDKs do: text is joined, lists of numbered parts (tool calls) are merged by their `index`,
other lists (logprobs) are joined, and what is told once (`id`, `type`, `role`, `name`) is not doubled. Fields that are
nobody's standard are kept the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from plugins.cache.stream import DONE, event, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_ONCE: Final = frozenset({"id", "type", "role", "name", "index", "object", "model", "created", "finish_reason"})
_MESSAGE: Final = {"role": "assistant", "content": None, "refusal": None}
_PADDING: Final = "obfuscation"
_THOUGHTS: Final = ("reasoning", "reasoning_content", "reasoning_details")


# -- from a stream


def chat_of(stream: bytes) -> dict[str, Any]:
    whole, choices = _merged(stream)
    for choice in choices:
        message = {**_MESSAGE, **choice.pop("delta", {})}
        for call in message.get("tool_calls") or ():
            call.pop("index", None)
        choice["message"] = message
    return {**whole, "object": "chat.completion", "choices": [_ordered(choice, "message") for choice in choices]}


def completion_of(stream: bytes) -> dict[str, Any]:
    whole, choices = _merged(stream)
    return {**whole, "object": "text_completion", "choices": [_ordered(choice, "text") for choice in choices]}


def usage_event(stream: bytes, usage: dict[str, int]) -> bytes:
    """What a stream would have told of its usage."""
    whole, _ = _merged(stream)
    return event({**whole, "choices": [], "usage": usage})


def _merged(stream: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """All but the choices, as the last event that says something has it, and the choices."""
    whole: dict[str, Any] = {}
    choices: dict[Any, dict[str, Any]] = {}
    for value in values_of(stream):
        value.pop(_PADDING, None)
        for choice in value.pop("choices", None) or ():
            known = choices.setdefault(choice.get("index", 0), {})
            _merge(known, choice)
        whole.update((name, told) for name, told in value.items() if told is not None or name not in whole)
    return whole, [choices[index] for index in sorted(choices)]


def _merge(known: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        before = known.get(name)
        if before is None:
            known[name] = [] if isinstance(value, list) else {} if isinstance(value, dict) else value
            before = known[name]
            if not isinstance(value, list | dict):
                continue
        if isinstance(value, dict) and isinstance(before, dict):
            _merge(before, value)
        elif isinstance(value, list) and isinstance(before, list):
            _merge_lists(before, value)
        elif isinstance(value, str) and isinstance(before, str) and name not in _ONCE:
            known[name] = before + value
        elif value is not None and not (name in _ONCE and value == ""):
            known[name] = value


def _merge_lists(known: list[Any], pieces: list[Any]) -> None:
    for piece in pieces:
        index = piece.get("index") if isinstance(piece, dict) else None
        same = None if index is None else next((part for part in known if part.get("index") == index), None)
        if same is not None:
            _merge(same, piece)
        elif isinstance(piece, dict):
            known.append({})
            _merge(known[-1], piece)
        else:
            known.append(piece)


def _ordered(choice: dict[str, Any], content: str) -> dict[str, Any]:
    """As servers write it: index, content, logprobs, finish_reason, and whatever else."""
    first = {"index": choice.get("index", 0), content: choice.get(content), "logprobs": choice.get("logprobs")}
    return {**first, **choice}


# -- to a stream


def chat_events(whole: dict[str, Any], *, wants_usage: bool) -> Iterator[bytes]:
    return _events(whole, "chat.completion.chunk", _chat_steps, wants_usage=wants_usage)


def completion_events(whole: dict[str, Any], *, wants_usage: bool) -> Iterator[bytes]:
    return _events(whole, "text_completion", _text_steps, wants_usage=wants_usage)


def _events(whole: dict[str, Any], kind: str, steps: Any, *, wants_usage: bool) -> Iterator[bytes]:
    shell = {name: value for name, value in whole.items() if name not in {"choices", "usage"}}
    shell["object"] = kind
    told = {"usage": None} if wants_usage else {}
    for choice in whole["choices"]:
        for step in steps(choice):
            yield event({**shell, "choices": [{"index": choice.get("index", 0), **step}], **told})
    if wants_usage:
        yield event({**shell, "choices": [], "usage": whole.get("usage")})
    yield DONE


def _chat_steps(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    message = dict(choice.get("message") or {})
    role, content, refusal = (
        message.pop("role", "assistant"),
        message.pop("content", None),
        message.pop("refusal", None),
    )
    thoughts = [{name: message.pop(name)} for name in _THOUGHTS if message.get(name)]
    calls = message.pop("tool_calls", None) or ()
    yield _step({"role": role, "content": None if content is None else "", "refusal": None})
    for delta in thoughts:
        yield _step(delta)
    if any(message.values()):
        yield _step({name: value for name, value in message.items() if value is not None})
    logprobs = choice.get("logprobs")
    if content or refusal or logprobs:
        said = {name: text for name, text in (("content", content), ("refusal", refusal)) if text}
        yield {**_step(said), "logprobs": logprobs}
    for index, call in enumerate(calls):
        yield _step({"tool_calls": [{"index": index, **call}]})
    yield {"delta": {}, "logprobs": None, **_rest(choice, "message")}


def _text_steps(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"text": choice.get("text") or "", "logprobs": choice.get("logprobs"), "finish_reason": None}
    yield {"text": "", "logprobs": None, **_rest(choice, "text")}


def _step(delta: dict[str, Any]) -> dict[str, Any]:
    return {"delta": delta, "logprobs": None, "finish_reason": None}


def _rest(choice: dict[str, Any], content: str) -> dict[str, Any]:
    """The finish_reason, and what else a choice says."""
    return {name: value for name, value in choice.items() if name not in {"index", "logprobs", content}}
