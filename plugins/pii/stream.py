"""A stream's events as they go on: each leaves as soon as all its text is decided, unchanged where nothing in it is.

Events are held whole, in their order, so that what nothing was found in leaves byte-identical. Each text that comes in
pieces (a choice's content, the arguments of one of its calls, one item's output) has a channel; what comes whole, as in
`done` events, is read at once. A channel ends with its choice, or where its choice goes on with another text.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import orjson
from typing_extensions import override

from plugins.pii.answer import READ, STRUCTURE, text_of, without_tokens
from plugins.pii.channel import Channel
from proxy.plugin import Event, EventFilter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from plugins.pii.answer import Answers
    from proxy.plugin import Outcome

    Name = tuple[Any, ...]
    Path = tuple[str | int, ...]

MOST_HELD: Final = 256
"""Events; then what is held is decided as it is, so that one silent choice does not hold all others."""

LESSONS: Final = 8
"""So often the look of events is learned: where each looks otherwise, it is not worth it."""

_OF_CHOICE: Final = STRUCTURE | {"delta", "text"}
_OF_EVENT: Final = STRUCTURE | {"choices", "token", "delta"}
_OF_BLOCK: Final = ("text", "thinking", "partial_json")
_NO_TOKEN: Final = {"id": 0, "logprob": None}


class _Held:
    """`pieces`: of which channels it holds text, where that begins there and here, and the text."""

    __slots__ = ("event", "pieces", "value")

    def __init__(self, event: Event, value: Any) -> None:
        """`value`: None where it is the event's own, not parsed yet."""
        self.event = event
        self.value = value
        self.pieces: list[tuple[Channel, int, Path, str]] = []

    @property
    def is_decided(self) -> bool:
        for channel, start, _, text in self.pieces:  # noqa: SIM110 - a generator takes twice as long
            if channel.decided < start + len(text):
                return False
        return True


class _Form:
    """What the events of one channel look like around their text: those that look the same need not be parsed."""

    __slots__ = ("after", "before", "channel", "path", "size")

    def __init__(self, before: bytes, after: bytes, channel: Channel, path: Path) -> None:
        self.before = before
        self.after = after
        self.channel = channel
        self.path = path
        self.size = len(before) + len(after)

    def text(self, raw: bytes) -> bytes | None:
        """The text of an event that looks like that, where it is without escapes."""
        if len(raw) <= self.size or not (raw.startswith(self.before) and raw.endswith(self.after)):
            return None
        text = raw[len(self.before) : -len(self.after)]
        return None if b'"' in text or b"\\" in text else text


class Restoring(EventFilter):
    __slots__ = ("_answers", "_channels", "_form", "_held", "_lessons")

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._channels: dict[Name, Channel] = {}
        self._held: deque[_Held] = deque()
        self._form: _Form | None = None
        self._lessons = LESSONS

    @override
    def feed(self, event: Event) -> Iterable[Event]:
        form = self._form
        if form is not None and (text := form.text(event.raw)) is not None and len(self._held) < MOST_HELD:
            held, piece = _Held(event, None), text.decode("utf-8", "replace")
            held.pieces.append((form.channel, form.channel.fed, form.path, piece))
            self._held.append(held)
            form.channel.feed(piece)
            return self._decided()
        return self._feed(event)

    def _feed(self, event: Event) -> Iterable[Event]:
        try:
            value = event.json()
        except ValueError:
            self._end_all()
            return (*self._decided(), self._of_text(event))
        held = _Held(event, value)
        self._held.append(held)
        if isinstance(value, dict):
            self._read(held, value)
            if self._lessons and len(held.pieces) == 1 and held.value is value:
                self._learn(held)
        else:
            self._end_all()
            held.value = self._answers.of(value)
        if len(self._held) > MOST_HELD:
            self._end_all()
        return self._decided()

    @override
    def finish(self, outcome: Outcome) -> Iterable[Event]:
        self._end_all()
        return self._decided()

    def _learn(self, held: _Held) -> None:
        channel, _, path, text = held.pieces[0]
        before, mark, after = held.event.raw.partition(b':"%b"' % text.encode())
        if channel in self._channels.values() and mark and mark not in after and held.event.raw.count(b"\n") <= 2:
            self._lessons -= 1
            self._form = _Form(before + b':"', b'"' + after, channel, path)

    # -- what comes

    def _read(self, held: _Held, value: dict[str, Any]) -> None:
        choices, delta, kind = value.get("choices"), value.get("delta"), value.get("type")
        if type(choices) is list and choices:
            for at, choice in enumerate(choices):
                if type(choice) is dict:
                    self._read_choice(held, ("choices", at), choice)
        elif type(value.get("token")) is dict:
            self._read_token(held, value)
        elif type(delta) is str and type(kind) is str:
            place = tuple(map(value.get, ("item_id", "output_index", "content_index", "summary_index")))
            self._piece(held, (kind, *place), ("delta",), delta, is_json=kind.endswith("arguments.delta"))
        elif type(delta) is dict:
            self._read_block(held, value, delta)
        else:
            self._end_all()
        self._read_others(held, (), value, _OF_EVENT)

    def _read_choice(self, held: _Held, path: Path, choice: dict[str, Any]) -> None:
        index, delta, text = choice.get("index", 0), choice.get("delta"), choice.get("text")
        names = [(index, *name) for name in self._read_delta(held, (*path, "delta"), index, delta)] if delta else []
        if type(text) is str and text:
            names.append((index, "text"))
            self._piece(held, names[-1], (*path, "text"), text, is_json=self._answers.says_json)
        self._read_others(held, path, choice, _OF_CHOICE)
        if choice.get("finish_reason") is not None:
            self._end(index)
        elif names and len(self._channels) > len(names):
            self._end(index, but=names)

    def _read_delta(self, held: _Held, path: Path, index: Any, delta: Any) -> Iterator[Name]:
        """The names of the channels that it has text of, without their choice."""
        for key, member in delta.items() if type(delta) is dict else ():
            if type(member) is str:
                if member and key not in STRUCTURE:
                    self._piece(held, (index, key), (*path, key), member, is_json=self._answers.is_json(key))
                    yield (key,)
            elif type(member) is list:
                for at, part in enumerate(member):
                    yield from self._read_part(held, (*path, key, at), index, (key, _index(part, at)), part)
            elif type(member) is dict:
                yield from self._read_part(held, (*path, key), index, (key, _index(member, 0)), member)

    def _read_part(self, held: _Held, path: Path, index: Any, name: Name, part: Any) -> Iterator[Name]:
        """A tool call, a part of the content, or whatever stands in a delta: each of its texts is a channel."""
        for key, member in part.items() if type(part) is dict else ():
            if type(member) is dict:
                yield from self._read_part(held, (*path, key), index, (*name, key), member)
            elif type(member) is str and member and key not in STRUCTURE and key not in _OF_PART:
                self._piece(held, (index, *name, key), (*path, key), member, is_json=self._answers.is_json(key))
                yield (*name, key)

    def _read_token(self, held: _Held, value: dict[str, Any]) -> None:
        """TGI's own: the last event has the whole text as well."""
        token = value["token"]
        text = token.get("text")
        if type(text) is str and text and not token.get("special"):
            self._piece(held, ("token",), ("token", "text"), text, is_json=self._answers.says_json)
        if value.get("generated_text") is not None or token.get("special"):
            self._end_all()

    def _read_block(self, held: _Held, value: dict[str, Any], delta: dict[str, Any]) -> None:
        for key in _OF_BLOCK:
            if type(text := delta.get(key)) is str:
                self._piece(
                    held, ("block", value.get("index"), key), ("delta", key), text, is_json=key == "partial_json"
                )

    def _read_others(self, held: _Held, path: Path, value: dict[str, Any], but: frozenset[str]) -> None:
        """What comes whole."""
        for key, member in value.items():
            if key not in but and type(member) in READ and (after := self._answers.of(member, key)) is not member:
                held.value = _with(held.value, (*path, key), after)

    def _piece(self, held: _Held, name: Name, path: Path, text: str, *, is_json: bool) -> None:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(self._answers.sight, is_json=is_json)
        held.pieces.append((channel, channel.fed, path, text))
        channel.feed(text)

    def _end(self, index: Any, but: Iterable[Name] = ()) -> None:
        for name in [name for name in self._channels if name[0] == index and name not in but]:
            self._finish(self._channels.pop(name))

    def _finish(self, channel: Channel) -> None:
        channel.finish()
        if self._form is not None and self._form.channel is channel:
            self._form = None

    def _end_all(self) -> None:
        self._form = None
        for channel in self._channels.values():
            channel.finish()
        self._channels.clear()

    # -- what goes on

    def _decided(self) -> list[Event]:
        decided, waiting = [], self._held
        while waiting and waiting[0].is_decided:
            decided.append(_written(waiting.popleft()))
        return decided

    def _of_text(self, event: Event) -> Event:
        if event.is_done or not event.data:
            return event
        after = text_of(self._answers, event.data)
        return event if after is event.data else _with_data(event, after)


_OF_PART: Final = frozenset({"name", "data"})


def _written(held: _Held) -> Event:
    event, value = held.event, held.value
    for channel, start, path, text in held.pieces:
        if channel.changes and (new := channel.cut(start, text)) != text:
            value = _with(event.json() if value is None else value, path, new)
    return event if value is None or value is event.json() else _with_data(event, orjson.dumps(value))


def _with(value: Any, path: Path, new: Any) -> Any:
    """Another value at that place, and what spells the old text taken away on the way there."""
    if not path:
        return new
    key, rest = path[0], path[1:]
    inner = _with(value[key], rest, new)
    if isinstance(key, int):
        return [*value[:key], inner, *value[key + 1 :]]
    if key == "token":
        inner = {**inner, **_NO_TOKEN}
    return without_tokens({**value, key: inner})


def _with_data(event: Event, data: bytes) -> Event:
    """The event's other fields stay."""
    others = [line for line in event.raw.splitlines() if line and not line.startswith(b"data")]
    return Event(b"".join(line + b"\n" for line in others) + Event.of(data).raw)


def _index(part: Any, at: int) -> Any:
    return part.get("index", at) if type(part) is dict else at
