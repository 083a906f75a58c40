"""What a stream of events says about its answer: first token, end, error, usage.

No two servers end a stream alike, and a connection that closes in order proves nothing. So an answer is whole only
when its dialect's own terminal came: `[DONE]`, a finish_reason for every choice, TGI's generated_text, or one of the
event types below. A stream of no known dialect has none of them and is taken at the transport's word.

Nearly all events of a stream differ only in their text. Once one chunk was read, another that is the same but for what
says nothing here is not parsed: same bytes up to where the chunk's own part begins, then, to the end of that line and
event, the same telling keys with the same values in the same order. Quotes inside JSON strings are escaped, so text
cannot hide a key; text that looks like one costs a parse.

Deltas are counted on the way, for answers that end without a usage: servers send one token in each, but for those that
bundle them, whose deltas are long. Tokens of so much text are then estimated from its length.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from proxy.usage import Usage, UsageReader

if TYPE_CHECKING:
    from proxy.exchange import Exchange
    from proxy.sse import Event

_TERMINALS = frozenset(
    {
        "response.completed",
        "response.incomplete",
        "response.failed",
        "speech.audio.done",
        "transcript.text.done",
        "image_generation.completed",
        "image_edit.completed",
        "message_stop",
        "done",  # ends the streams of OpenAI's threads
    }
)
_DIALECTS = (
    "response.",
    "speech.audio.",
    "transcript.text.",
    "image_generation.",
    "image_edit.",
    "message_start",
    "content_block_",
    "thread.",
)
_DELTAS = ("delta", ".partial_image")
_CONTENT = ("content", "reasoning", "reasoning_content", "tool_calls", "function_call", "refusal", "audio")

_OPENING = re.compile(rb'"(?:choices":\[\{|type":"response\.[a-z_.]+\.delta",)')
_TELLING = re.compile(rb'"(?:error|finish_reason|index|type)"[^,}]*')
_TELLING_WITH_USAGE = re.compile(rb'"(?:error|finish_reason|index|timings|type|usage)"[^,}]*')
BUNDLED = 16
"""Bytes of text per delta from which on a delta is taken for several tokens."""

TOKEN_BYTES = 4
_LESSONS = 8  # chunks learnt in vain, one after the other, before a stream is taken for one that cannot be


class InBandError(NamedTuple):
    """An error that came with a 200. `type` and `code` are the upstream's words, None where it gave none.

    `inner`: what the server behind it said, Azure's filter or OpenRouter's provider.
    """

    message: str
    type: str | None = None
    code: str | int | None = None
    inner: str | None = None


class Answer:
    """What a stream has said so far; `see` takes every event in order and never raises."""

    __slots__ = (
        "_deltas",
        "_ended",
        "_expected",
        "_finished",
        "_known",
        "_lessons",
        "_opening",
        "_plain_bytes",
        "_plain_deltas",
        "_skeleton",
        "_telling",
        "_text_bytes",
        "_told",
        "_usage",
        "error",
        "model",
        "started",
    )

    def __init__(self, *, expected: bool, reads_usage: bool = False) -> None:
        """`expected`: the endpoint is known to end its streams with a terminal."""
        self.started = False
        self.error: InBandError | None = None
        self.model: str | None = None
        self._deltas = self._text_bytes = 0
        self._plain_deltas = self._plain_bytes = self._skeleton = 0
        self._expected = expected
        self._known = False
        self._ended = False
        self._finished: dict[int, bool] = {}
        self._usage = UsageReader() if reads_usage else None
        self._telling = (_TELLING_WITH_USAGE if reads_usage else _TELLING).findall
        self._lessons = _LESSONS
        self._opening: bytes | None = None
        self._told: list[bytes] = []

    def has_ended(self) -> bool:
        """Whether its terminal came: whatever happens to the connection now, nothing is missing."""
        return self._ended or (bool(self._finished) and all(self._finished.values()))

    def is_whole(self) -> bool:
        """Where the connection ended in order."""
        return self.has_ended() or not (self._expected or self._known or self.error)

    def usage(self) -> Usage | None:
        return self._usage.total() if self._usage else None

    def report(self, exchange: Exchange) -> None:
        """Leave on the exchange what plugins ask for at its end."""
        exchange.told = self.error
        exchange.usage = self.usage() or exchange.usage
        exchange.model = self.model or exchange.model
        exchange.delivered_tokens = self.delivered_tokens()

    def delivered_tokens(self) -> int:
        """Of all the text so far, counted or estimated."""
        deltas = self._deltas + self._plain_deltas
        text = self._text_bytes + max(self._plain_bytes - self._plain_deltas * self._skeleton, 0)
        return -(-text // TOKEN_BYTES) if text > BUNDLED * deltas else deltas

    def says_nothing(self, chunk: bytes) -> bool:
        """Whether these bytes, which begin where an event does, are whole chat events that only go on with choice 0.

        A yes spares reading them; a no is not to be wondered at. Counted, not parsed: a key in quotes cannot stand in a
        JSON string, so each event has its own finish_reason and index, or the counts differ.
        """
        events = chunk.count(b"\n\n")
        if not self.started or not chunk.endswith(b"\n\n") or b'"error"' in chunk or b"\r" in chunk:
            return False
        if events != chunk.count(b'"finish_reason":null') or events != chunk.count(b'"index":0,'):
            return False
        if events != chunk.count(b'"index":'):
            return False
        usages = 0 if self._usage is None else chunk.count(b'"usage":') + chunk.count(b'"timings":')
        if usages not in {0, chunk.count(b'"usage":null')}:
            return False
        self._plain_deltas += events
        self._plain_bytes += len(chunk)
        return True

    def see(self, event: Event) -> None:
        opening = self._opening
        if opening is not None and event.raw.startswith(opening) and self._is_plain(event.raw, len(opening)):
            self._lessons = _LESSONS
            self._plain_deltas += 1
            self._plain_bytes += len(event.raw)
        else:
            self._read(event)

    def _is_plain(self, raw: bytes, start: int) -> bool:
        return (
            raw.endswith(b"}\n\n")
            and raw.find(b"\n", start) == len(raw) - 2
            and raw.find(b"\r", start) < 0
            and self._telling(raw, start) == self._told
        )

    def _read(self, event: Event) -> None:
        data = event.data
        if data is None:
            self._read_dataless(event)
            return
        try:
            value = event.json()
        except ValueError:
            value = self._read_text(event, data)
        if self.error is None and event.raw.find(b"error") >= 0:
            self.error = in_band_error(value, event.name)
        if isinstance(value, dict):
            self._read_object(value, event)

    def _read_dataless(self, event: Event) -> None:
        if event.oversized:
            self._note_kind(event.name)
        elif event.raw.startswith((b"{", b"[")) and b'"error"' in event.raw:  # a server gave up in the middle
            try:
                value = orjson.loads(event.raw)
            except ValueError:
                return
            self.error = self.error or in_band_error(value)

    def _read_text(self, event: Event, data: bytes) -> str:
        if event.is_done:
            self._ended = True
        else:
            self._note_kind(event.name)
        return data.decode(errors="replace")

    def _read_object(self, value: dict[str, Any], event: Event) -> None:
        choices, before = value.get("choices"), self._text_bytes
        if isinstance(choices, list):
            self._known = True
            for choice in choices:
                if isinstance(choice, dict):
                    self._note_choice(choice)
        if not choices:
            self._note_token(value)
            self._note_kind(value.get("type"))
            self._note_kind(event.name)
            if self._known and value.get("delta"):
                self._note_text(value["delta"])
        if self._usage:
            self._usage.see(value)
            self.model = self.model or _model(value)
        if self.started and self._lessons:
            self._learn(event.raw, self._text_bytes - before)

    def _note_choice(self, choice: dict[str, Any]) -> None:
        index, reason = choice.get("index"), choice.get("finish_reason")
        if not isinstance(index, int):
            index = 0
        if reason and reason != "error":
            self._finished[index] = True
        else:
            self._finished.setdefault(index, False)
        if (text := choice.get("text")) or (text := _content(choice.get("delta"))):
            self._note_text(text)

    def _note_token(self, value: dict[str, Any]) -> None:
        token = value.get("token")
        if isinstance(token, dict):
            self._known = True
            if token.get("text"):
                self._note_text(token["text"])
        if value.get("generated_text") is not None:
            self._ended = True

    def _note_kind(self, kind: Any) -> None:
        if not isinstance(kind, str) or not kind:
            return
        self._ended = self._ended or kind in _TERMINALS
        if kind.startswith(_DIALECTS):
            self._known = True
            self.started = self.started or kind.endswith(_DELTAS)

    def _note_text(self, text: Any) -> None:
        self.started = True
        self._deltas += 1
        self._text_bytes += len(text.encode("utf-8", "replace")) if isinstance(text, str) else 0

    def _learn(self, raw: bytes, text_bytes: int) -> None:
        """From an event whose text is so long, what the next ones are like."""
        self._lessons -= 1
        found = _OPENING.search(raw)
        if found is None:
            return
        told = self._telling(raw, found.end())
        plain = not any(b"{" in part for part in told)  # else a telling value is an object, of which this is the head
        self._opening, self._told = raw[: found.end()] if plain else None, told
        self._skeleton = len(raw) if b'"obfuscation"' in raw else len(raw) - text_bytes


def in_band_error(value: Any, name: str = "") -> InBandError | None:
    """Of an event's JSON (and `event:` name) or of a whole JSON body, in any upstream's shape."""
    if isinstance(value, list) and len(value) == 1:  # Gemini
        value = value[0]
    if not isinstance(value, dict):
        return _error_of(value or name, {}) if name == "error" else None
    detail = _detail(value, name)
    return _error_of(detail, value) if detail else None


def speaks_of_error(body: bytes) -> bool:
    """Whether JSON may be an error: most answers do not have the word as a key or value, or have a null behind it."""
    said = body.count(b'"error"')
    return said > 0 and said != body.count(b'"error":null') + body.count(b'"error": null')


def error_in_body(body: bytes) -> InBandError | None:
    """Of a whole JSON body; None also where a choice was finished all the same."""
    if not speaks_of_error(body):
        return None
    try:
        value = orjson.loads(body)
    except ValueError:
        return None
    choices = value.get("choices") if isinstance(value, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and (reason := choice.get("finish_reason")) and reason != "error":
            return None
    return in_band_error(value)


def _detail(value: dict[str, Any], name: str) -> Any:
    listed = value.get("choices")
    choices = [choice for choice in listed if isinstance(choice, dict)] if isinstance(listed, list) else []
    places = (
        value.get("error"),
        *(choice.get("error") for choice in choices),
        _inner_error(value.get("x_groq")),
        _inner_error(value.get("response")),
        (value or name) if "error" in (name, value.get("object"), value.get("type")) else None,
        'finish_reason "error"' if any(choice.get("finish_reason") == "error" for choice in choices) else None,
    )
    return next(filter(_says_something, places), None)


def _says_something(error: Any) -> bool:
    """Not an error's form with nothing in it, which jobs of OpenAI's have as long as all is well."""
    return any(value is not None for value in error.values()) if isinstance(error, dict) else bool(error)


def _inner_error(part: Any) -> Any:
    return part.get("error") if isinstance(part, dict) else None


def _error_of(detail: Any, around: dict[str, Any]) -> InBandError:
    if not isinstance(detail, dict):
        return InBandError(_text(detail), _word(around, "error_type"), _code(around, "code"))
    message = detail.get("message") or detail
    word, code = _word(detail, "type", "status", "error_type"), _code(detail, "code", "http_status_code")
    return InBandError(_text(message), word, code, _inner_word(detail))


def _inner_word(detail: dict[str, Any]) -> str | None:
    for name in ("innererror", "metadata"):
        if isinstance(inner := detail.get(name), dict):
            return _word(inner, "code", "error_type", "raw")
    return None


def _text(message: Any) -> str:
    try:
        return message if isinstance(message, str) else orjson.dumps(message).decode()
    except TypeError:  # orjson reads four times as deep as it writes
        return "an error that is nested too deeply to be shown"


def _word(obj: dict[str, Any], *names: str) -> str | None:
    return next((word for name in names if isinstance(word := obj.get(name), str)), None)


def _code(obj: dict[str, Any], *names: str) -> str | int | None:
    return next((code for name in names if type(code := obj.get(name)) in (int, str)), None)


def _content(delta: Any) -> Any:
    return next(filter(None, map(delta.get, _CONTENT)), None) if isinstance(delta, dict) else None


def _model(value: dict[str, Any]) -> str | None:
    response = value.get("response")
    model = (response if isinstance(response, dict) else value).get("model")
    return model if isinstance(model, str) and model else None
