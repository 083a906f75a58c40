"""What people think of answers: handed in at the admin port, taken by plugins that know which exchange is meant.

Of the last exchanges is remembered who takes their feedback, and with which facts. Feedback often comes late, or to
another replica: what nobody remembers is taken as well, without facts.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from proxy.errors import ClientFault, NotFound
from proxy.wording import Refusal, fault, worded

ROOM = 10_000
"""Exchanges that are remembered: a few megabytes."""

MAX_BYTES = 16 * 1024


def _printable(text: str | None) -> str | None:
    if text is not None and not text.isprintable():
        raise fault("has control characters", "send a short name")
    return text


def _score(score: float) -> float:
    if not 0 <= score <= 1:
        raise fault("{value} is no score", "send a number from 0, for useless, to 1, for right")
    return score


class Feedback(BaseModel):
    """`score` is from 0, useless, to 1, right."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    request_id: Annotated[str, Field(pattern=r"^req_[0-9a-f]{24}$")]
    score: Annotated[float, AfterValidator(_score)]
    label: Annotated[str | None, Field(max_length=64), AfterValidator(_printable)] = None
    comment: Annotated[str | None, Field(max_length=2000)] = None


Take = Callable[[Feedback, Any], None]
"""Called with the facts that were remembered, or with None."""


class Inbox:
    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._takers: list[Take] = []
        self._known: OrderedDict[str, tuple[Take, Any]] = OrderedDict()

    @contextlib.contextmanager
    def open(self, take: Take) -> Iterator[None]:
        """Until it is left, `take` gets what nobody remembers; of several takers the first."""
        self._takers.append(take)
        try:
            yield
        finally:
            self._takers.remove(take)

    def remember(self, request_id: str, take: Take, facts: Any) -> None:
        self._known[request_id] = take, facts
        if len(self._known) > self._room:
            self._known.popitem(last=False)

    def remembers(self, request_id: str) -> bool:
        return request_id in self._known

    def hand_in(self, body: bytes) -> tuple[str, bool]:
        """The request id, and whether it is remembered. Raises ClientFault or, where nobody takes it, NotFound."""
        feedback = _read(body)
        take, facts = self._known.get(feedback.request_id, (None, None))
        if take is None and not self._takers:
            raise NotFound("no plugin of this config takes feedback; metering does", code="no_feedback")
        (take or self._takers[0])(feedback, facts)
        return feedback.request_id, take is not None


def _read(body: bytes) -> Feedback:
    try:
        return Feedback.model_validate_json(body)
    except ValidationError as refused:
        error = refused.errors(include_url=False)[0]
        if error["type"] == "json_invalid":
            raise ClientFault("the body is not valid JSON", code="invalid_json") from None
        path = tuple(error["loc"])
        value = str(error["input"]) if isinstance(error["input"], int | float) else "the value"
        what, fix = worded(Refusal(error, Feedback, path, value, str))
        where = ".".join(map(str, path))
        raise ClientFault(f"{where + ': ' if where else ''}{what}; {fix}", param=where or None) from None
