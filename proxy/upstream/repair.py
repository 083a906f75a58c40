"""What TGI's OpenAI routes say that breaks OpenAI's clients, said as they expect it, sans-io.

- Empty ids. The same role, and a tool call's id and type, in every chunk: clients that join deltas double them.
- `finish_reason: ""` before the end, and TGI's own `eos_token` and `stop_sequence` at it.
- Tool calls as an object instead of a list, with arguments that are no text or an id that is none; streams of tool
  calls without any finish_reason, and answers with tool calls that end with `stop`.
- A usage for each prompt of a streamed completion, where the request asked for one event with all.
- The choices of many prompts in the order in which they were done.

Nearly all of it is said in bytes that cannot stand within a JSON string, whose quotes are escaped, so that they are
replaced without parsing; only events that are about tools or errors, or have a usage to be summed, are written anew.
And nearly all events of a stream differ only in their text: what stands before and behind it is looked at once.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import orjson

from proxy.sse import Event, Reader
from proxy.upstream.taxonomy import error_in

if TYPE_CHECKING:
    from proxy.errors import ProxyError
    from proxy.headers import Fields
    from proxy.upstream.incoming import Receiver

_NO_ID = b'"id":""'
_ROLE = b'"role":"assistant",'
_REASON = b'"finish_reason":"'
_REASONS = (
    (b'"finish_reason":""', b'"finish_reason":null'),
    (b'"finish_reason":"eos_token"', b'"finish_reason":"stop"'),
    (b'"finish_reason":"stop_sequence"', b'"finish_reason":"stop"'),
)
_SAID_ALL = frozenset({"stop", "eos_token", "stop_sequence"})
_OPENINGS = (b'"content":"', b'"text":"')

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_SHELL = ("object", "id", "created", "model", "system_fingerprint")


def repaired_body(body: bytes, prefix: bytes) -> bytes:
    """A whole answer; the very same object where there is nothing to repair. `prefix`: what its id begins with."""
    repaired = body
    if _has_calls(body) or body.count(b'"finish_reason":') > 1:
        repaired = _rewritten(body)
    if _NO_ID in repaired:
        repaired = repaired.replace(_NO_ID, _new_id(prefix), 1)
    return _with_reasons(repaired) if _REASON in repaired else repaired


class Repair:
    """Stands before the receiver of an event stream, and hands on whole events only."""

    __slots__ = ("_calls", "_frame", "_has_role", "_id", "_is_finished", "_reader", "_receiver", "_shell", "_sum")

    def __init__(self, receiver: Receiver, prefix: bytes, *, sums: bool) -> None:
        """`sums`: the usages of all choices become one event, at the end."""
        self._receiver = receiver
        self._reader = Reader()
        self._id = _new_id(prefix)
        self._has_role = self._is_finished = False
        self._calls: set[Any] = set()
        self._sum = [0, 0, 0] if sums else None
        self._shell: dict[str, Any] = {}
        self._frame: _Frame | None = None

    def feed(self, chunk: bytes) -> None:
        reader, frame = self._reader, self._frame
        if reader.is_clear and chunk.endswith(b"\n\n"):
            if frame is not None and frame.holds(chunk):
                self._receiver.feed(frame.around(chunk))
                return
            if not self._reads(chunk):
                goes_on = self._has_role or _ROLE not in chunk
                repaired = self._plain(chunk)
                self._frame = _frame(chunk, repaired) if goes_on else None
                self._receiver.feed(repaired)
                return
        repaired = b"".join([self._event(event) for event in reader.feed(chunk)])
        if repaired:
            self._receiver.feed(repaired)

    def end(self, trailers: Fields) -> None:
        self._release()
        self._receiver.end(trailers)

    def fail(self, error: ProxyError) -> None:
        self._release()
        self._receiver.fail(error)

    def _release(self) -> None:
        """What stands unterminated, and what was taken out and not told yet."""
        rest = b"".join([self._event(event) for event in self._reader.end()])
        if rest := rest or self._missing_usage():
            self._receiver.feed(rest)

    def _reads(self, chunk: bytes) -> bool:
        """Whether these events are to be looked at one by one."""
        has_usage = self._sum is not None and b'"usage":{' in chunk
        return bool(self._shell) or has_usage or b'"error":' in chunk or _has_calls(chunk)

    def _plain(self, raw: bytes) -> bytes:
        raw = raw.replace(_NO_ID, self._id)
        if _ROLE in raw:
            if self._has_role:
                raw = raw.replace(_ROLE, b"")
            else:
                self._has_role = True
                head, _, rest = raw.partition(_ROLE)
                raw = b"%b%b%b" % (head, _ROLE, rest.replace(_ROLE, b""))
        return _with_reasons(raw) if _REASON in raw else raw

    def _event(self, event: Event) -> bytes:
        if event.data is None or not self._reads(event.raw):
            return self._plain(event.raw)
        if event.is_done:
            return self._missing_finish() + self._missing_usage() + event.raw
        try:
            value = event.json()
            if not isinstance(value, dict):
                return event.raw
            return self._written(value) if value.get("choices") else self._told(event, value)
        except (AttributeError, TypeError, ValueError):  # nothing that we know how to repair
            return event.raw

    def _told(self, event: Event, value: dict[str, Any]) -> bytes:
        """An error, or the usage of all."""
        error = error_in(200, value)
        if error is not None:
            return Event.of(error.body()).raw
        if value.get("usage") and self._sum is not None:
            self._sum = [0, 0, 0]
        return self._missing_finish() + self._plain(event.raw)

    def _written(self, value: dict[str, Any]) -> bytes:
        self._shell = {name: value[name] for name in _SHELL if name in value}
        for choice in value["choices"]:
            delta = choice.get("delta") or {}
            if calls := delta.get("tool_calls"):
                delta["tool_calls"] = [self._fragment(*each) for each in enumerate(_listed(calls))]
            if choice.get("finish_reason"):
                self._is_finished = True
                if self._calls and choice["finish_reason"] in _SAID_ALL:
                    choice["finish_reason"] = "tool_calls"
        self._take_usage(value)
        return self._plain(Event.of_json(value).raw)

    def _fragment(self, place: int, call: dict[str, Any]) -> dict[str, Any]:
        """A part of a call: its id and type belong to the first one alone."""
        index = call.setdefault("index", place)
        if index in self._calls:
            call.pop("id", None)
            call.pop("type", None)
        else:
            self._calls.add(index)
            call["id"] = _id_of_call(call)
        return _with_text_arguments(call)

    def _take_usage(self, value: dict[str, Any]) -> None:
        usage = value.get("usage")
        if self._sum is not None and isinstance(usage, dict):
            counts = [count if isinstance(count := usage.get(name), int) else 0 for name in _COUNTS]
            self._sum = [before + count for before, count in zip(self._sum, counts, strict=True)]
            value["usage"] = None

    def _missing_finish(self) -> bytes:
        """How the tool calls ended, where that was never said."""
        if not self._calls or self._is_finished:
            return b""
        self._is_finished = True
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}
        return self._plain(Event.of_json({**self._shell, "choices": [choice], "usage": None}).raw)

    def _missing_usage(self) -> bytes:
        if self._sum is None or not any(self._sum):
            return b""
        usage = dict(zip(_COUNTS, self._sum, strict=True))
        self._sum = [0, 0, 0]
        return self._plain(Event.of_json({**self._shell, "choices": [], "usage": usage}).raw)


class _Frame:
    """What stands around the text of an event, as it came and as it goes."""

    __slots__ = ("_head", "_is_same", "_new_head", "_new_tail", "_size", "_tail", "_tail_size")

    def __init__(self, head: bytes, tail: bytes, new_head: bytes, new_tail: bytes) -> None:
        self._head, self._tail, self._new_head, self._new_tail = head, tail, new_head, new_tail
        self._size, self._tail_size = len(head), len(tail)
        self._is_same = (head, tail) == (new_head, new_tail)

    def holds(self, event: bytes) -> bool:
        """Between two quotes without another one is one string, and so one event."""
        last = len(event) - self._tail_size
        is_alike = last >= self._size and event.startswith(self._head) and event.endswith(self._tail)
        return is_alike and event.find(b'"', self._size, last) < 0

    def around(self, event: bytes) -> bytes:
        if self._is_same:
            return event
        return b"%b%b%b" % (self._new_head, event[self._size : -self._tail_size], self._new_tail)


def _frame(event: bytes, repaired: bytes) -> _Frame | None:
    """Of an event that goes on with a text; None where it is not alone, or is not so simple."""
    for opening in _OPENINGS:
        start, new_start = event.find(opening) + len(opening), repaired.find(opening) + len(opening)
        end, new_end = event.find(b'"', start), repaired.find(b'"', new_start)
        if start >= len(opening) and event.count(b"\n\n") == 1 and event[start:end] == repaired[new_start:new_end]:
            return _Frame(event[:start], event[end:], repaired[:new_start], repaired[new_end:])
    return None


def _rewritten(body: bytes) -> bytes:
    """With its tool calls and the order of its choices as they should be."""
    try:
        value = orjson.loads(body)
        choices = value["choices"]
        ordered = sorted(choices, key=lambda choice: choice["index"])
        is_changed = ordered != choices
        value["choices"] = ordered
        for choice in ordered:
            is_changed |= _repair_calls(choice)
    except (AttributeError, KeyError, TypeError, ValueError):  # nothing that we know how to repair
        return body
    return orjson.dumps(value) if is_changed else body


def _repair_calls(choice: dict[str, Any]) -> bool:
    """Whether there were any."""
    message = choice.get("message") or {}
    calls = message.get("tool_calls")
    if not calls:
        return False
    message["tool_calls"] = [_whole_call(call) for call in _listed(calls)]
    if choice.get("finish_reason") in _SAID_ALL:
        choice["finish_reason"] = "tool_calls"
    return True


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    call["id"] = _id_of_call(call)
    return _with_text_arguments(call)


def _with_text_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if isinstance(function, dict) and not isinstance(function.get("arguments", ""), str | None):
        function["arguments"] = orjson.dumps(function["arguments"]).decode()
    return call


def _id_of_call(call: dict[str, Any]) -> str:
    """Its own, as text; a new one where that is empty."""
    identity = call.get("id")
    return f"call_{secrets.token_hex(12)}" if identity in {None, ""} else str(identity)


def _has_calls(raw: bytes) -> bool:
    return b'"tool_calls":[' in raw or b'"tool_calls":{' in raw


def _listed(calls: Any) -> list[Any]:
    return calls if isinstance(calls, list) else [calls]


def _new_id(prefix: bytes) -> bytes:
    return b'"id":"%b%b"' % (prefix, secrets.token_hex(12).encode())


def _with_reasons(raw: bytes) -> bytes:
    for said, meant in _REASONS:
        raw = raw.replace(said, meant)
    return raw
