"""One limit of one subject: what is claimed of it, what an answer's header says of it, and how a refusal words it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from plugins.rate_limit.settings import DIMENSIONS
from proxy.plugin import Claim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plugins.rate_limit.settings import Limits
    from proxy.plugin import Rate, Standing, WhenDown

    Field = tuple[bytes, bytes]

_UNITS = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86400.0: "day"}


class Dimension(NamedTuple):
    """`name` is the setting's; `claim` is one of it; `period` is empty for `concurrent`.

    `fields` of an answer's header say the limit and when it is whole again, `remaining` is the name of the one between.
    """

    name: str
    claim: Claim
    period: str
    fields: tuple[Field, ...]
    remaining: bytes

    def claimed(self, amount: int) -> Claim:
        """Never more than the limit: what is too much for it would never pass, however long one waits."""
        kind, subject, key, limit, _, seconds, when_down = self.claim
        return Claim(kind, subject, key, limit, min(amount, limit), seconds, when_down)

    def said(self) -> str:
        what = self.name.replace("_", " ")
        return f"{what} per {self.period}" if self.period else "requests at the same time"


def dimensions(limits: Limits, subject: str, name: str, when_down: WhenDown) -> list[Dimension]:
    """`name` is the plugin's: two of them count apart."""
    found = [
        _rated(dimension, rate, limits.burst if dimension == "requests" else None, (subject, name, when_down))
        for dimension in DIMENSIONS
        for rate in getattr(limits, dimension) or ()
    ]
    if limits.concurrent is not None:
        claim = Claim("slot", subject, f"{name}:concurrent", limits.concurrent, when_down=when_down)
        found.append(Dimension("concurrent", claim, "", *_fields("concurrent", limits.concurrent, "")))
    return found


def _rated(dimension: str, rate: Rate, burst: int | None, of: tuple[str, str, WhenDown]) -> Dimension:
    """A burst is the same rate over another span: 10 at once of 600 a minute are 10 in any second."""
    subject, name, when_down = of
    limit, seconds = (rate.amount, rate.seconds) if burst is None else (burst, rate.seconds * burst / rate.amount)
    claim = Claim("window", subject, f"{name}:{dimension}:{rate.seconds:g}", limit, 1, seconds, when_down)
    fields = _fields(dimension.replace("_", "-"), limit, duration(seconds))
    return Dimension(dimension, claim, _UNITS[rate.seconds], *fields)


def _fields(name: str, limit: int, reset: str) -> tuple[tuple[Field, ...], bytes]:
    field = (f"x-ratelimit-limit-{name}".encode(), b"%d" % limit)
    ends = ((f"x-ratelimit-reset-{name}".encode(), reset.encode()),) if reset else ()
    return (field, *ends), f"x-ratelimit-remaining-{name}".encode()


def said(dims: Sequence[Dimension], standings: Sequence[Standing]) -> list[Field]:
    """For an answer's header; of several rates of one kind the one that is nearest to its end."""
    nearest: dict[str, tuple[Dimension, int]] = {}
    for dimension, (left, _) in zip(dims, standings, strict=True):
        known = nearest.get(dimension.name)
        if known is None or left * known[0].claim.limit < known[1] * dimension.claim.limit:
            nearest[dimension.name] = (dimension, left)
    fields: list[Field] = []
    for dimension, left in nearest.values():
        fields += dimension.fields
        fields.append((dimension.remaining, b"%d" % left))
    return fields


def duration(seconds: float) -> str:
    """As OpenAI writes one: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{rest:g}s"
    return f"{minutes}m{rest:g}s" if minutes else f"{rest:g}s"
