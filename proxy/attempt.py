"""An attempt: one try of a request at one of its route's targets."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from typing_extensions import override

from proxy.headers import Fields, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from multidict import CIMultiDict

    from proxy.errors import Outcome, ProxyError
    from proxy.exchange import Exchange
    from proxy.fault import Fault
    from proxy.upstream.pace import Pace
    from proxy.upstream.work import Work


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
    After `silence` seconds without an answer it has failed likewise.
    """

    size: int
    seconds: float = math.inf
    whole: bool = False
    gives_way: Callable[[Exchange, Attempt], bool] | None = None
    silence: float = math.inf


class Attempt:
    """One try of one target. `headers` and `body` are this try's own: the next one starts from the request again.

    Plugins set, in `on_attempt`: `first_byte`, its own limit in seconds; `deadline`, what is left to its request, which
    is nobody's fault; and `hold`, how its answer is looked at before it goes down. In `on_attempt_end`, where `fault`
    says what was wrong: `retry`, whether the next target is tried, with `again` this one once more, and the `pause`
    before that in seconds.
    `busy_seconds`: when it is over, its part of the upstream's time, where that is counted.
    With `continues`, the next target goes on with a text that breaks off, if `on_attempt_end` wants it tried.
    """

    __slots__ = (
        "_fields",
        "_headers",
        "again",
        "body",
        "busy_seconds",
        "continues",
        "deadline",
        "delivered_tokens",
        "error",
        "fault",
        "first_byte",
        "hold",
        "is_over",
        "mark",
        "number",
        "outcome",
        "pace",
        "pause",
        "retry",
        "started",
        "status",
        "target",
        "work",
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
        self.work: Work | None = None
        self.mark = self.busy_seconds = 0.0
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

    def set_field(self, name: bytes, value: bytes) -> None:
        """The only field of that (lower-case) name from now on; the header stays bytes."""
        self._fields = [field for field in self.fields() if field[0].lower() != name]
        self._fields.append((name, value))
        self._headers = None

    def fields(self) -> Fields:
        return self._fields if self._headers is None else encode(self._headers)
