"""Server-sent events, sans-io: bytes in, events out; no byte changes and none waits longer than its event needs.

An event's `raw` is what came, so that relaying it is byte-identical; its fields are read only for those who ask.
Framing follows https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream with three
liberties: the unterminated tail is an event too (LitServe never ends its last one), a comment that stands between
events is an event without data (keep-alives must not wait for the next token), and so are stray blank lines and a BOM.
"""

import re
from typing import Any, ClassVar, NamedTuple, Self

import orjson

_BOM = b"\xef\xbb\xbf"
_UNREAD: Any = object()
_BREAK = re.compile(rb"\r\n?|\n")
_COLON, _LF, _CR = b":\n\r"


class Event:
    """One event as it came. `json()` is parsed once and shared by all who ask: read it, do not change it.

    `data` are the data lines joined by LF, None where there is no data field, as in comments; `name` is that of the
    `event:` field. Both are read when first asked for, and plain attributes from then on.
    """

    __slots__ = ("_json", "data", "name", "raw")

    data: bytes | None
    name: str

    oversized: ClassVar[bool] = False
    """A piece of an event above the reader's limit: `data` is None, and only the last piece has the event's `name`."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._json = _UNREAD

    def __getattr__(self, attribute: str) -> Any:
        """Called where a slot is empty: what was read before is had without a call."""
        if attribute not in {"data", "name"}:
            raise AttributeError(attribute)
        raw = self.raw
        if raw.startswith(b"data: ") and raw.find(b"\n\n") == raw.find(b"\n") == len(raw) - 2 and raw.find(b"\r") < 0:
            self.name, self.data = "", raw[6:-2]
        else:
            self.name, self.data = _fields(raw)
        return getattr(self, attribute)

    @classmethod
    def of(cls, data: bytes, name: str = "") -> Self:
        head = b"event: %b\n" % name.encode() if name else b""
        return cls(b"%b%b\n" % (head, b"".join(b"data: %b\n" % line for line in _BREAK.split(data))))

    @classmethod
    def of_json(cls, value: Any, name: str = "") -> Self:
        return cls.of(orjson.dumps(value), name)

    @property
    def is_done(self) -> bool:
        data = self.data
        return data is not None and data.strip() == b"[DONE]"

    def json(self) -> Any:
        """Raises ValueError where the data is no JSON, or where there is none."""
        if self._json is _UNREAD:
            self._json = orjson.loads(self.data or b"")
        return self._json


class _Piece(Event):
    __slots__ = ()
    oversized = True

    def __init__(self, raw: bytes, name: str = "") -> None:
        super().__init__(raw)
        self.name, self.data = name, None


def _fields(raw: bytes) -> tuple[str, bytes | None]:
    name, lines = "", []
    for line in raw.splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ").decode(errors="replace")
    return name, b"\n".join(lines) if lines else None


class _Endings(NamedTuple):
    """What ends a block, by the byte that it begins with."""

    comment: re.Pattern[bytes]
    blanks: re.Pattern[bytes]
    fields: re.Pattern[bytes]

    def of(self, first: int) -> re.Pattern[bytes]:
        if first == _COLON:
            return self.comment
        return self.blanks if first in (_LF, _CR) else self.fields


# A CR that ends the chunk ends its line: an LF that follows in the next chunk is a stray blank line there.
_ANY_ENDINGS = _Endings(_BREAK, re.compile(rb"[\r\n]+"), re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n?|\n)"))
_LF_ENDINGS = _Endings(re.compile(rb"\n"), re.compile(rb"\n+"), re.compile(rb"\n\n"))  # six times as fast


def _endings(data: bytes | bytearray, start: int = 0) -> _Endings:
    return _LF_ENDINGS if data.find(b"\r", start) < 0 else _ANY_ENDINGS


class Reader:
    """Cuts a byte stream into events; `raw` of all that `feed` and `end` return, joined, is the input.

    Holds at most `max_event_bytes` and the chunk at hand: a larger event passes in pieces that nobody reads. While it
    `is_clear`, bytes that end with a blank line are whole events, and it need not see them.
    """

    __slots__ = ("_first", "_fresh", "_held", "_limit", "_name", "_passed", "is_clear")

    def __init__(self, max_event_bytes: int = 4 * 1024 * 1024) -> None:
        self._limit = max_event_bytes
        self._held = bytearray()
        self._passed = b""  # the last byte of an event that went out unfinished,
        self._first = 0  # its first byte,
        self._name = ""  # and its name
        self._fresh = True
        self.is_clear = False

    @property
    def at_boundary(self) -> bool:
        """True where an event may be put in: none has begun here, or gone out, without its end."""
        return not self._held and not self._passed

    def feed(self, chunk: bytes) -> list[Event]:
        if self.is_clear:
            last = len(chunk) - 2
            first_break = chunk.find(b"\n")  # from there on: in a one-line event that is all
            if (
                first_break > 0
                and chunk.find(b"\n\n", first_break) == last
                and last < self._limit - 1
                and chunk[0] != _COLON
                and chunk.find(b"\r") < 0
            ):
                event = Event(chunk)
                if first_break == last and chunk.startswith(b"data: "):
                    event.data, event.name = chunk[6:last], ""
                return [event]
        events = self._resume(chunk)
        self.is_clear = not self._fresh and self.at_boundary
        return events

    def end(self) -> list[Event]:
        """What stands unterminated at the end of the stream, at most one event."""
        if not self._held:
            return []
        tail = bytes(self._held)
        self._held.clear()
        self._passed, self.is_clear = tail[-1:], False
        return [self._event(tail)]

    def _resume(self, chunk: bytes) -> list[Event]:
        if not chunk:
            return []
        if self._fresh:
            return self._open(chunk)
        if self._passed:
            return self._pass(chunk)
        return self._complete(chunk) if self._held else self._cut(chunk)

    def _open(self, chunk: bytes) -> list[Event]:
        chunk = bytes(self._held) + chunk
        self._held.clear()
        if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
            self._held += chunk
            return []
        self._fresh = False
        if chunk.startswith(_BOM):
            return [Event(_BOM), *self._cut(chunk[len(_BOM) :])]
        return self._cut(chunk)

    def _cut(self, chunk: bytes) -> list[Event]:
        events: list[Event] = []
        endings = _endings(chunk)
        start, size = 0, len(chunk)
        while start < size:
            found = endings.of(chunk[start]).search(chunk, start)
            if found is None:
                return events + self._hold(chunk[start:])
            end = found.end()
            events.append(self._event(chunk[start:end]))
            start = end
        return events

    def _complete(self, chunk: bytes) -> list[Event]:
        held = self._held
        seen = len(held) - 1  # the end of a line may stand there, and that of the blank one here
        held += chunk
        found = _endings(held, seen).of(held[0]).search(held, seen)
        if found is None:
            return self._hold(b"")
        event, rest = bytes(held[: found.end()]), bytes(held[found.end() :])
        held.clear()
        return [self._event(event), *self._cut(rest)]

    def _event(self, raw: bytes) -> Event:
        return Event(raw) if len(raw) <= self._limit else _Piece(raw, Event(raw).name)

    def _hold(self, rest: bytes) -> list[Event]:
        held = self._held
        held += rest
        if len(held) <= self._limit:
            return []
        piece = bytes(held)
        held.clear()
        whole_lines = piece[: max(piece.rfind(b"\n"), piece.rfind(b"\r")) + 1]
        self._passed, self._first, self._name = piece[-1:], piece[0], Event(whole_lines).name
        return [_Piece(piece)]

    def _pass(self, chunk: bytes) -> list[Event]:
        window = self._passed + chunk
        found = _endings(window).of(self._first).search(window)
        if found is None:
            self._passed = chunk[-1:]
            return [_Piece(chunk)]
        end = found.end() - len(self._passed)
        self._passed = b""
        return [_Piece(chunk[:end], self._name), *self._cut(chunk[end:])]
