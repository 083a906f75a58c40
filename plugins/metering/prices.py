"""From a model's name to what its tokens cost: prices.yaml, and what an upstream says for itself.

Blocks of prices are compiled once, to US dollars per token; a lookup is remembered. All sums are exact: a price has at
most 9 decimals, a token's cost 15, so that Decimal's usual 28 digits hold sums to ten trillion dollars.
"""

from __future__ import annotations

import contextlib
import decimal
import fnmatch
import functools
import pathlib
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from proxy.plugin import FEMTO, Price, PriceFile, Usage, read_yaml

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from plugins.metering.hours import Hours

_WILD: Final = re.compile(r"[*?\[]")
_EXACT: Final = decimal.Context(prec=64)
_ZERO: Final = Decimal(0)
_MILLIONTH: Final = Decimal("0.000001")
_REMEMBERED: Final = 2048
_LISTS: Final = 4
_LONGEST: Final = 256


class Rates(NamedTuple):
    """US dollars per token of a kind; `input` and `output` are for those that no other kind counts."""

    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    output: Decimal
    reasoning: Decimal


FREE: Final = Rates(_ZERO, _ZERO, _ZERO, _ZERO, _ZERO)


def rates(price: Price) -> Rates:
    if price.input is None or price.output is None:
        return FREE
    cached_input, cache_write = (price.input if own is None else own for own in (price.cached_input, price.cache_write))
    reasoning = price.output if price.reasoning is None else price.reasoning
    return Rates(*(usd * _MILLIONTH for usd in (price.input, cached_input, cache_write, price.output, reasoning)))


def cost(found: Rates | None, usage: Usage) -> Decimal | None:
    """US dollars, exact; None where there is no price, which is not the same as free."""
    if found is None:
        return None
    given, made, cached, written, thought = usage
    plus, usd = _EXACT.fma, _ZERO
    if cached or written:
        cached = min(cached, given)
        written = min(written, given - cached)
        given -= cached + written
        usd = plus(written, found.cache_write, plus(cached, found.cached_input, usd))
    if thought:
        thought = min(thought, made)
        made -= thought
        usd = plus(thought, found.reasoning, usd)
    return plus(made, found.output, plus(given, found.input, usd))


class PriceList:
    """One block of prices: names, and globs, of which the one with the longest literal beginning goes first."""

    def __init__(self, models: Mapping[str, Price]) -> None:
        self.names = {name: rates(price) for name, price in models.items() if not _WILD.search(name)}
        globs = sorted((name for name in models if name not in self.names), key=_specificity)
        self._globs = [(_matcher(glob), rates(models[glob])) for glob in globs]

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Self:
        """Of a prices.yaml. Raises ConfigError with every fault's line."""
        with contextlib.suppress(OSError):
            text = pathlib.Path(file).read_bytes()
            if b"${" not in text:
                return cls._known(pathlib.Path(file), text)
        return cls(read_yaml(file, PriceFile).models)

    @classmethod
    @functools.lru_cache(_LISTS)
    def _known(cls, file: pathlib.Path, _text: bytes) -> Self:
        """A long list takes 40 ms to read, and a reload of the config reads it again while streams run."""
        return cls(read_yaml(file, PriceFile).models)

    def named(self, *models: str) -> Rates | None:
        """Of the first model that stands here as it is."""
        return next((self.names[model] for model in models if model in self.names), None)

    def matching(self, *models: str) -> Rates | None:
        """Of the first model that a glob matches."""
        return next((found for model in models for matches, found in self._globs if matches(model)), None)


class PriceBook:
    """The list, and upstreams' own blocks, which go before it in all that they name.

    Upstreams that are paid by the hour (`hours`) have no price in the list: what their own names is paid beside it.
    """

    def __init__(
        self, listed: PriceList, upstreams: Mapping[str, PriceList], hours: Mapping[str, Hours] | None = None
    ) -> None:
        self._listed = listed
        self._upstreams = upstreams
        self._hours = hours or {}
        self._remembered = functools.lru_cache(_REMEMBERED)(self._found)
        self._fixed = functools.lru_cache(_REMEMBERED)(self._femto)
        self.femto = self._fixed if not self._hours else self._expected_femto
        """Of a token of the prompt and one of the answer, in femto-dollars, before it is served; None: no price."""

    def find(self, upstream: str, sent: str | None, served: str | None) -> Rates | None:
        """`sent`: the model that the upstream was asked for, `served`: the one that its answer names.

        An upstream's own block goes by what it was asked for, the list by what was served. None: no price.
        """
        return self._remembered(upstream, (sent or "")[:_LONGEST], (served or "")[:_LONGEST])

    def expected(self, upstream: str, sent: str | None, served: str | None) -> Rates | None:
        """As `find`, with what the time will cost that a generated token takes."""
        found, hours = self.find(upstream, sent, served), self._hours.get(upstream)
        if found is None or hours is None:
            return found
        time = hours.per_token()
        return found._replace(output=found.output + time, reasoning=found.reasoning + time)

    def time(self, upstream: str, seconds: float) -> Decimal:
        """US dollars of so much of its time."""
        hours = self._hours.get(upstream)
        return hours.cost(seconds) if hours is not None and seconds else _ZERO

    def _expected_femto(self, upstream: str, sent: str) -> tuple[int, int] | None:
        if upstream not in self._hours:
            return self._fixed(upstream, sent)
        found = self.expected(upstream, sent, "")
        return found and (int(found.input * FEMTO), int(found.output * FEMTO))

    def _femto(self, upstream: str, sent: str) -> tuple[int, int] | None:
        found = self._remembered(upstream, sent, "")
        return found and (int(found.input * FEMTO), int(found.output * FEMTO))

    def _found(self, upstream: str, sent: str, served: str) -> Rates | None:
        own, listed = self._upstreams.get(upstream), self._listed
        found = own and (own.named(sent, served) or own.matching(sent, served))
        if upstream in self._hours:
            return found or FREE
        return found or listed.named(served, sent) or listed.matching(served, sent)


def _specificity(glob: str) -> tuple[int, int, str]:
    return -len(_WILD.split(glob, 1)[0]), -len(glob), glob


def _matcher(glob: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(glob)).match
