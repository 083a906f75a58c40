"""One limit of one subject: what is claimed of it, what an answer's header says of it, and how a refusal words it.

Its key has the limit in it: routes share what they do not override, and what they override is counted apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from plugins.rate_limit.settings import DIMENSIONS, TOKENS
from proxy.plugin import Claim

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from plugins.rate_limit.settings import Limits
    from proxy.plugin import Rate, Usage, WhenDown

    Field = tuple[bytes, bytes]

_PERIODS = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86400.0: "day"}


class Owner(NamedTuple):
    """Whose limits they are: `kind` is what the plugin counts by, `plugin` its name, since two of them count apart."""

    plugin: str
    kind: str
    subject: str
    when_down: WhenDown


@dataclass(frozen=True, slots=True)
class Dimension:
    """`name` is the setting's, `said` names the limit; `gives` and `makes`: whether it counts prompts, and answers.

    `fields` of an answer's header say the limit and when it is whole again, `remaining` is the name of the one between.
    """

    name: str
    claim: Claim
    said: str
    gives: bool
    makes: bool
    fields: tuple[Field, ...]
    remaining: bytes
    counts_tokens: bool


class Bounds:
    """All limits of one subject, compiled: what a request claims of them, has used of them, and is told of them."""

    def __init__(self, subject: str, dims: Sequence[Dimension]) -> None:
        self.subject = subject
        self.dims = dims
        self._tokens = [(place, dim.gives, dim.makes, dim.claim) for place, dim in enumerate(dims) if dim.counts_tokens]
        self.counts_tokens = bool(self._tokens)
        self._claims = [dim.claim for dim in dims]
        self._ones = [1] * len(dims)
        self.untold = self.claims(0, 0)
        """The claims of a request that will use no tokens."""
        is_simple = len({dim.name for dim in dims}) == len(dims)
        self._lines = b"".join(map(_written, dims)) if is_simple else b""

    def claims(self, given: int, made: int) -> Sequence[Claim]:
        """Never more than the limit: what is too much for it would never pass, however long one waits."""
        claims = self._claims.copy()
        for place, gives, makes, (kind, subject, key, limit, _, seconds, when_down) in self._tokens:
            amount = min(given * gives + made * makes, limit)
            claims[place] = Claim(kind, subject, key, limit, amount, seconds, when_down)
        return claims

    def used(self, usage: Usage) -> Sequence[int]:
        used = self._ones.copy()
        for place, gives, makes, _ in self._tokens:
            used[place] = usage.input_tokens * gives + usage.output_tokens * makes
        return used

    def told(self, remaining: Sequence[int]) -> bytes:
        """The lines of an answer's header."""
        return self._lines % tuple(remaining) if self._lines else lines(self.standings(remaining))

    def standings(self, remaining: Sequence[int]) -> Iterable[tuple[Dimension, int]]:
        return zip(self.dims, remaining, strict=True)


def _written(dim: Dimension) -> bytes:
    """Its lines, with a place for what remains."""
    return b"".join([b"%b: %b\r\n" % field for field in (*dim.fields, (dim.remaining, b"%d"))])


def dimensions(limits: Limits, owner: Owner) -> list[Dimension]:
    found = [
        _rated(dimension, rate, limits.burst if dimension == "requests" else None, owner)
        for dimension in DIMENSIONS
        for rate in getattr(limits, dimension) or ()
    ]
    if limits.concurrent is not None:
        said = f"{limits.concurrent} requests at the same time"
        claim = _claim(owner, "concurrent", limits.concurrent, None)
        fields = ((b"x-ratelimit-limit-concurrent", b"%d" % limits.concurrent),)
        found.append(_dimension("concurrent", claim, said, fields))
    return found


def _rated(name: str, rate: Rate, burst: int | None, owner: Owner) -> Dimension:
    """A burst is the same rate over another span: 10 at once of 600 a minute are 10 in any second."""
    limit, seconds = (rate.amount, rate.seconds) if burst is None else (burst, rate.seconds * burst / rate.amount)
    said = f"{rate.amount} {name.replace('_', ' ')} per {_PERIODS[rate.seconds]}"
    spelled = _spelled(name)
    fields = (
        (b"x-ratelimit-limit-" + spelled, b"%d" % limit),
        (b"x-ratelimit-reset-" + spelled, duration(seconds).encode()),
    )
    said = said if burst is None else f"{said}, {burst} at once"
    return _dimension(name, _claim(owner, name, limit, seconds), said, fields)


def _dimension(name: str, claim: Claim, said: str, fields: tuple[Field, ...]) -> Dimension:
    return Dimension(
        name,
        claim,
        said,
        gives=name in {"tokens", "input_tokens"},
        makes=name in {"tokens", "output_tokens"},
        fields=fields,
        remaining=b"x-ratelimit-remaining-" + _spelled(name),
        counts_tokens=name in TOKENS,
    )


def _spelled(name: str) -> bytes:
    return name.replace("_", "-").encode()


def _claim(owner: Owner, name: str, limit: int, seconds: float | None) -> Claim:
    span = "" if seconds is None else f"/{seconds:g}"
    key = f"{owner.plugin}:{owner.kind}:{name}:{limit}{span}"
    if seconds is None:
        return Claim("slot", owner.subject, key, limit, when_down=owner.when_down)
    return Claim("window", owner.subject, key, limit, 1, seconds, owner.when_down)


def told(standings: Iterable[tuple[Dimension, int]]) -> list[Field]:
    """For an answer's header; of several limits of one kind the one that is nearest to its end."""
    nearest: dict[str, tuple[Dimension, int]] = {}
    for standing in standings:
        dimension, left = standing
        known = nearest.get(dimension.name)
        if known is None or left * known[0].claim.limit < known[1] * dimension.claim.limit:
            nearest[dimension.name] = standing
    fields: list[Field] = []
    for dimension, left in nearest.values():
        fields += dimension.fields
        fields.append((dimension.remaining, b"%d" % left))
    return fields


def lines(standings: Iterable[tuple[Dimension, int]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in told(standings)])


def duration(seconds: float) -> str:
    """As OpenAI writes one: `12ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{max(round(seconds * 1000), 1)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{rest:g}s"
    return f"{minutes}m{rest:g}s" if minutes else f"{rest:g}s"
