"""An exchange: a request of the app, its attempts and its response, and the facts that plugins leave on it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from typing_extensions import override

from proxy.stages import BodyFilter, EventFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proxy.admission import Admission
    from proxy.answer import InBandError
    from proxy.attempt import Attempt, Target
    from proxy.errors import Outcome, ProxyError
    from proxy.request import Request
    from proxy.response import Response
    from proxy.stages import Heartbeat
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
REDACTED: Key[object] = Key("redacted text")
"""Given by who takes personal data out of requests: those behind it never see any. Nothing is kept under it."""
EARLY: Key[Heartbeat] = Key("early")
"""Set in `on_request`: the answer is a stream, and begins with this heartbeat where the upstream takes longer."""


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
