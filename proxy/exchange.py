"""An exchange: one request of the app, its attempts and its response, and the facts that plugins leave on it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import orjson
from multidict import CIMultiDict
from typing_extensions import override

from proxy.errors import ClientFault, Outcome, ProxyError
from proxy.headers import Fields, decode, encode, unbroken
from proxy.stages import BodyFilter, EventFilter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from multidict import CIMultiDictProxy

    from proxy.admission import Admission
    from proxy.answer import InBandError
    from proxy.fault import Fault
    from proxy.stages import Heartbeat
    from proxy.upstream.incoming import Flow, Incoming
    from proxy.upstream.pace import Pace
    from proxy.usage import Usage

T = TypeVar("T")
D = TypeVar("D")


class Key(Generic[T]):
    """The typed name of a fact on an exchange: `PRINCIPAL: Key[Principal] = Key("principal")`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    @override
    def __repr__(self) -> str:
        return f"Key({self.name!r})"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who pays. `labels` are for the ledger; `metric` is the name in metrics: `other` where the config lacks it."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    metric: str = "other"


@dataclass(frozen=True, slots=True)
class Saved:
    """What an answer that no upstream was asked for would have used: `upstream`, asked for `model`, gave it before.

    `served`: the model that it says has answered.
    """

    upstream: str
    model: str | None
    served: str | None
    usage: Usage


PRINCIPAL: Key[Principal] = Key("principal")
SAVED: Key[Saved] = Key("saved")
"""Set by who answers in an upstream's place: the ledger says what that has saved."""
EARLY: Key[Heartbeat] = Key("early")
"""Set in `on_request`: the answer is a stream, and begins with this heartbeat where the upstream takes longer."""


class Target:
    """An upstream, and the model to ask it for (None: the one that the app named); or `static`, the text of an answer.

    A static target has no upstream (""). `weight` is its share of the route, `context_window` is in tokens, if known.
    """

    __slots__ = ("context_window", "model", "static", "upstream", "weight")

    def __init__(
        self,
        upstream: str,
        model: str | None = None,
        *,
        weight: int = 1,
        context_window: int | None = None,
        static: str | None = None,
    ) -> None:
        self.upstream = upstream
        self.model = model
        self.weight = weight
        self.context_window = context_window
        self.static = static

    @override
    def __repr__(self) -> str:
        return f"Target({self.upstream!r}, model={self.model!r})" if self.static is None else "Target(static)"


class Hold(NamedTuple):
    """How an answer is held until it is known to serve: to its first token or, `whole`, to its end.

    After `size` bytes it goes down as it is. After `seconds` without a token the attempt has failed if one of
    `exchange.others` could serve now and `gives_way` wants that (None: always); else the slow answer goes down.
    """

    size: int
    seconds: float = math.inf
    whole: bool = False
    gives_way: Callable[[Exchange, Attempt], bool] | None = None


class Attempt:
    """One try of one target. `headers` and `body` are this try's own: the next one starts from the request again.

    Plugins set, in `on_attempt`: `first_byte`, its own limit in seconds; `deadline`, what is left to its request, which
    is nobody's fault; and `hold`, how its answer is looked at before it goes down. In `on_attempt_end`, where `fault`
    says what was wrong: `retry`, whether the next target is tried, with `again` this one once more, and the `pause`
    before that in seconds.
    With `continues`, the next target goes on with a text that breaks off, if `on_attempt_end` wants it tried.
    """

    __slots__ = (
        "_fields",
        "_headers",
        "again",
        "body",
        "continues",
        "deadline",
        "delivered_tokens",
        "error",
        "fault",
        "first_byte",
        "hold",
        "is_over",
        "number",
        "outcome",
        "pace",
        "pause",
        "retry",
        "started",
        "status",
        "target",
    )

    def __init__(self, number: int, target: Target, fields: Fields, body: bytes | None) -> None:
        self.number = number
        self.target = target
        self._fields = fields
        self._headers: CIMultiDict[str] | None = None
        self.body = body
        self.started = time.monotonic()
        self.status = 0
        self.error: ProxyError | None = None
        self.outcome: Outcome | None = None
        self.fault: Fault | None = None
        self.first_byte = self.deadline = math.inf
        self.hold: Hold | None = None
        self.retry = self.again = self.continues = False
        self.pause = 0.0
        self.pace: Pace | None = None
        self.delivered_tokens = 0
        self.is_over = False

    @property
    def headers(self) -> CIMultiDict[str]:
        """What goes up, to look at and to change; made when somebody does."""
        if self._headers is None:
            self._headers = decode(self._fields)
        return self._headers

    @property
    def is_header_seen(self) -> bool:
        return self._headers is not None

    def replace_field(self, name: bytes, value: bytes) -> None:
        """Give the field of that (lower-case) name, where there is one, another value; the header stays bytes."""
        self._fields = [(key, value if key.lower() == name else old) for key, old in self.fields()]
        self._headers = None

    def fields(self) -> Fields:
        return self._fields if self._headers is None else encode(self._headers)


class Upload(Protocol):
    """A request's body on its way in; `readany` raises ClientFault where its sender is at fault."""

    async def readany(self) -> bytes: ...
    def is_eof(self) -> bool: ...


class Request:
    """What the app asked for, as it came: `target` is path and query, never decoded. What goes up is the attempt's.

    `endpoint` is what kind of request this is, from a closed set: `chat`, `embeddings`, … or `other`.
    """

    __slots__ = (
        "_body",
        "_json",
        "_on_wanted",
        "_upload",
        "asked_model",
        "endpoint",
        "headers",
        "is_model_read",
        "is_replaced",
        "is_upgrade",
        "method",
        "model",
        "path",
        "prompt_tokens",
        "query",
        "spelled",
        "target",
        "waited",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: CIMultiDictProxy[str],
        *,
        body: bytes | None = b"",
        upload: Upload | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition("?")
        self.endpoint = endpoint_of(self.path)
        self.headers = headers
        self.spelled: Sequence[tuple[bytes, bytes]] = ()
        self.is_replaced = self.is_upgrade = False
        self.waited = 0.0
        self.model: str | None = None
        self.is_model_read = False
        self.asked_model: str | None = None
        self.prompt_tokens: int | None = None
        self._body = body if upload is None else None
        self._upload = upload
        self._json: Any = _UNREAD
        self._on_wanted: Callable[[], None] | None = None

    def fields(self) -> Sequence[tuple[bytes, bytes]]:
        """The header as it came: aiohttp has a spelling of its own for the names that it knows."""
        return self.spelled or encode(self.headers)

    @property
    def generates(self) -> bool:
        """Whether a stream that answers it ends with a terminal."""
        return self.endpoint in _GENERATING

    @property
    def is_buffered(self) -> bool:
        """Whether the whole body is at hand, so that it can be sent more than once."""
        return self._body is not None

    @property
    def at_hand(self) -> bytes | None:
        """The whole body where it has been read, else None."""
        return self._body

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def body(self) -> bytes:
        """The whole body, read on the first call; raises TooLarge."""
        if self._body is None:
            if self._on_wanted is not None:
                self._on_wanted()
            began = time.monotonic()
            self._body = b"".join([chunk async for chunk in self.upload()])
            self.waited += time.monotonic() - began
        return self._body

    async def json(self) -> Any:
        """The body as JSON, parsed once and shared: do not change it, call `replace_body`. Raises ClientFault."""
        if self._json is _UNREAD:
            try:
                self._json = orjson.loads(await self.body())
            except ValueError as error:
                raise ClientFault(f"the request body is not valid JSON: {error}", code="invalid_json") from error
        return self._json

    def replace_body(self, body: bytes, *, model: str | None = None) -> None:
        """What goes up instead; `model` where it names another one than the app did."""
        self._body = body
        self._json = _UNREAD
        self.asked_model = self.prompt_tokens = None
        self.is_replaced = True
        if model is not None:
            self.model, self.is_model_read = model, True

    async def upload(self) -> AsyncIterator[bytes]:
        """The body as it comes in, once; raises TooLarge when it passes the limit."""
        source, self._upload = self._upload, None
        while source is not None and (chunk := await source.readany()):
            yield chunk

    @property
    def expects_continue(self) -> bool:
        return self._on_wanted is not None

    def call_when_wanted(self, callback: Callable[[], None]) -> None:
        """`callback` runs when the body is wanted here: the time to ask an `Expect: 100-continue` client for it."""
        self._on_wanted = callback

    def glimpse(self) -> Any:
        """The body as JSON, where it is at hand and is some, else None; as `json()`, parsed once and shared."""
        if self._json is _UNREAD:
            try:
                self._json = orjson.loads(self._body or b"")
            except ValueError:
                return None
        return self._json

    def names_model(self) -> bool:
        """Whether the body, which is at hand, is a JSON object with a model."""
        value = self.glimpse()
        return isinstance(value, dict) and "model" in value


class Response:
    """An answer: an upstream's, whose body is still to come, or one that Weir or a plugin made, with its `body`."""

    __slots__ = ("_fields", "_headers", "_index", "_lines", "body", "error", "head_at", "incoming", "reason", "status")

    def __init__(self, status: int, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        self.status = status
        self.reason: bytes | None = None
        self.head_at = 0.0
        self.body = body
        self.error: ProxyError | None = None
        self.incoming: Flow | None = None
        self._fields: Fields = []
        self._lines = b""
        self._index: dict[bytes, bytes] | None = None
        self._headers: CIMultiDict[str] | None = CIMultiDict(headers) if headers else None

    @classmethod
    def of_json(cls, status: int, value: Any) -> Response:
        return cls(status, headers={"content-type": "application/json"}, body=orjson.dumps(value))

    @classmethod
    def of_error(cls, error: ProxyError) -> Response:
        response = cls(error.status, headers={"content-type": "application/json", **error.headers}, body=error.body())
        response.error = error
        return response

    @classmethod
    def of_incoming(cls, incoming: Incoming, fields: Fields) -> Response:
        response = cls(incoming.status)
        response.reason, response.incoming, response.head_at = incoming.reason, incoming, incoming.head_at
        response._fields, response._headers, response._index = fields, None, incoming.index
        return response

    @classmethod
    def of_fields(cls, response: Response, fields: Fields) -> Response:
        """The same answer with another header, its body to be given."""
        other = cls(response.status)
        other.reason, other.error, other.head_at = response.reason, response.error, response.head_at
        other._fields, other._headers = fields, None
        return other

    @property
    def headers(self) -> CIMultiDict[str]:
        """Decoded when first looked at: most answers pass without."""
        if self._headers is None or self._lines:
            self._headers = decode(self.fields())
        return self._headers

    @property
    def is_event_stream(self) -> bool:
        if self._headers is None and self._index is not None and b"content-type" in self._index:
            return self._index[b"content-type"][:17].lower() == b"text/event-stream"
        return self.content_type == b"text/event-stream"

    @property
    def content_type(self) -> bytes:
        return self.field(b"content-type").partition(b";")[0].strip().lower()

    def field(self, name: bytes) -> bytes:
        """The value of that (lower-case) name, or nothing, without decoding the header."""
        if name in self._lines:
            self.fields()
        if self._headers is not None or self._index is None:
            self._index = {key.lower(): value for key, value in self._read()}
        return self._index.get(name, b"")

    def fields(self) -> Fields:
        fields = self._read()
        if self._lines:
            added = [(name, value) for name, _, value in (line.partition(b": ") for line in self._lines.splitlines())]
            fields = self._fields = fields + added
            self._lines, self._headers, self._index = b"", None, None
        return fields

    def _read(self) -> Fields:
        return self._fields if self._headers is None else unbroken(encode(self._headers))

    def set_fields(self, fields: Mapping[bytes, bytes]) -> None:
        """These (lower-case) names have these values from now on; a header that nobody has decoded stays bytes."""
        if self._lines:
            self.fields()
        if self._headers is not None:
            self._headers.update(decode(list(fields.items())))
            return
        if self._index is None or not self._index.keys().isdisjoint(fields):
            self._fields = [field for field in self._fields if field[0].lower() not in fields]
        self._fields = [*self._fields, *fields.items()]
        self._index = {**self._index, **fields} if self._index is not None else None

    def put_lines(self, lines: bytes, *, instead_of: bytes) -> None:
        """Add these (lower-case) lines to the header as they are, and drop what begins with that (lower-case) text."""
        known = self._index if self._headers is None and not self._lines else None
        if known is None or instead_of in b"\n".join(known):
            self._fields = [field for field in self.fields() if not field[0].lower().startswith(instead_of)]
            self._headers = self._index = None
        self._lines = lines

    def take_lines(self) -> bytes:
        """What was added as lines, to be written behind `fields()`, which have it no more."""
        lines, self._lines = self._lines, b""
        return lines


class Exchange:
    """`exchange[KEY]` holds what plugins tell each other; everything else is the core's and read-only for them.

    `targets` are those that are left of its route, the one that is being tried among them; where that has failed, or is
    slow, `others` are those that could be tried now in its place.

    For a chain that `reads_usage`: `usage` is what the upstream reported, `model` the one that it says has answered,
    and `delivered_tokens` what was counted in the stream. `detour`, which plugins may set in `on_request`, names the
    route whose targets serve instead; the chain stays.
    """

    __slots__ = (
        "_holds",
        "_model",
        "_stop",
        "_unread",
        "_usage",
        "admission",
        "answered",
        "answered_by",
        "attempts",
        "chain",
        "delivered_tokens",
        "detour",
        "ended",
        "entered",
        "error",
        "facts",
        "first_token_at",
        "goes_on",
        "id",
        "is_static",
        "offered",
        "on_leave",
        "others",
        "outcome",
        "request",
        "response",
        "response_bytes",
        "route",
        "stages",
        "started",
        "targets",
        "told",
    )

    def __init__(self, identity: str, request: Request) -> None:
        self.id = identity
        self.request = request
        self.started = time.monotonic()
        self.route = self.detour = ""
        self.offered: tuple[Target, ...] = ()
        self.chain: Any = None
        self.entered = 0
        self.answered_by: Any = None
        self.stages: tuple[Any, ...] = ()
        self.attempts: list[Attempt] = []
        self.targets: list[Target] = []
        self.others: Sequence[Target] = ()
        self.response: Response | None = None
        self.response_bytes = 0
        self.answered = self.ended = 0.0
        self.first_token_at: float | None = None
        self.is_static = False
        self._model: str | None = None
        self._usage: Usage | None = None
        self._unread: Callable[[], None] | None = None
        self.delivered_tokens = 0
        self.error: ProxyError | None = None
        self.told: InBandError | None = None
        self.outcome: Outcome | None = None
        self.admission: Admission | None = None
        self.facts: dict[Key[Any], Any] = {}
        self.goes_on = False
        self._holds = 0
        self._stop: Callable[[], object] | None = None
        self.on_leave: Callable[[Exchange], None] | None = None

    def hold(self) -> None:
        """Until as many `release`s, the exchange goes on where its app leaves: somebody else needs its answer."""
        self._holds += 1

    def release(self) -> None:
        self._holds -= 1
        if not self._holds and self._stop is not None:
            self._stop()

    def leave(self, stop: Callable[[], object]) -> bool:
        """The app has gone; `stop` is called as soon as nobody holds the exchange. Whether it goes on for now."""
        self._stop = stop
        if self.on_leave is not None:
            self.on_leave(self)
        self.goes_on = self._holds > 0
        if not self.goes_on:
            stop()
        return self.goes_on

    @property
    def served_by(self) -> Attempt | None:
        """The attempt whose answer goes down, or the last that failed; None where no upstream's does.

        Who was asked to go on with an answer and could not has not served it.
        """
        if not self.attempts or self.is_static:
            return None
        last, response = self.attempts[-1], self.response
        if response is None or last.status == response.status:
            return last
        return next((attempt for attempt in reversed(self.attempts) if attempt.status == response.status), last)

    @property
    def is_filtered(self) -> bool:
        """In `on_response`: whether plugins behind this one change the answer's body."""
        return bool(self.stages) and any(isinstance(each.stage, EventFilter | BodyFilter) for each in self.stages)

    def note_first_token(self) -> None:
        now = self.first_token_at = time.monotonic()
        served_by = self.served_by
        if served_by is not None and served_by.pace is not None:
            served_by.pace.note(now - served_by.started, now)

    @property
    def usage(self) -> Usage | None:
        if self._unread is not None:
            self._read()
        return self._usage

    @usage.setter
    def usage(self, usage: Usage | None) -> None:
        self._usage = usage

    @property
    def model(self) -> str | None:
        if self._unread is not None:
            self._read()
        return self._model

    @model.setter
    def model(self, model: str | None) -> None:
        self._model = model

    def read_later(self, read: Callable[[], None]) -> None:
        """`read` sets usage and model when somebody asks: after the answer, and with warm caches."""
        self._unread = read

    def _read(self) -> None:
        read, self._unread = self._unread, None
        assert read is not None
        read()

    def __getitem__(self, key: Key[T]) -> T:
        value: T = self.facts[key]
        return value

    def __setitem__(self, key: Key[T], value: T) -> None:
        self.facts[key] = value

    def __contains__(self, key: Key[Any]) -> bool:
        return key in self.facts

    def get(self, key: Key[T], default: D) -> T | D:
        value: T | D = self.facts.get(key, default)
        return value


_UNREAD = object()

_ENDPOINTS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/models": "models",
    "/v1/moderations": "moderations",
    "/": "generate",
    "/generate": "generate",
    "/generate_stream": "generate",
    "/invocations": "generate",
}
_GENERATING = frozenset({"chat", "completions", "responses", "generate"})
_FAMILIES = frozenset(
    {"responses", "audio", "images", "files", "batches", "models", "uploads", "fine_tuning", "realtime"}
)


def endpoint_of(path: str) -> str:
    known = _ENDPOINTS.get(path)
    if known is not None:
        return known
    family = path[4:].partition("/")[0] if path.startswith("/v1/") else ""
    return family if family in _FAMILIES else _ENDPOINTS.get(path.rstrip("/"), "other")
