"""The settings of budget: amounts of money per period, whose they are, and what happens when they are spent."""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator
from typing_extensions import override

from plugins.budget.period import PeriodName  # noqa: TC001 - pydantic reads it
from proxy.plugin import NotSet, PluginConfig, RouteName, Share, fault, nearest, written

MICRO: Final = 1_000_000
MOST_SUBJECTS: Final = 10_000

_AMOUNT: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)/(day|week|month)")
_PLAIN: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
_BY: Final = re.compile(r"principal|route|model|label:[A-Za-z0-9_.-]{1,64}|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOW: Final = "write dollars per day, week or month, as in 50/day or 0.5/day"


@dataclass(frozen=True)
class Amount:
    """US dollars, and for how long they are."""

    usd: Decimal
    period: PeriodName

    @property
    def micro(self) -> int:
        return int(self.usd * MICRO)

    @override
    def __str__(self) -> str:
        return f"${self.usd:f} a {self.period}"


def _amount(value: object) -> Amount:
    if isinstance(value, str) and (found := _AMOUNT.fullmatch(value)):
        period: Any = found[2]
        return Amount(Decimal(found[1]), period)
    if type(value) in (int, float) or (isinstance(value, str) and _PLAIN.fullmatch(value)):
        raise fault("{value} does not say for how long", "write it with a period, as in 50/day (day, week or month)")
    if isinstance(value, str) and "$" in value:
        raise fault("{value} has a currency", "write the number alone: it is US dollars, as in 50/day")
    raise fault("{value} is not an amount per period", _HOW)


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _one_of_each(amounts: list[Amount]) -> list[Amount]:
    periods = [amount.period for amount in amounts]
    if not amounts:
        raise fault("is an empty list", _HOW)
    for place, period in enumerate(periods):
        if period in periods[:place]:
            raise fault(f"is a second amount per {period}", "keep one of the two", key=place)
    return amounts


def _by(value: str) -> str:
    if _BY.fullmatch(value):
        return value
    raise fault("{value} is nothing to budget by", "write principal, label:NAME, route, model or header:NAME")


def _zone(value: object) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(str(value))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = sorted(name for name in zoneinfo.available_timezones() if "/" in name or name == "UTC")
        fix = nearest(str(value), known, "time zones") if len(known) > 1 else "install the package tzdata"
        raise fault("no time zone is named {value}", fix if len(fix) < 100 else "as in Europe/Berlin") from None


def _level(share: float) -> float:
    if not share:
        raise fault("is no level: nothing is spent then", "write one above, as in 80%")
    return share


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        is_sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_sound = False
    if not is_sound or not re.fullmatch(r"[!-~]+", value):
        raise fault("is no URL to tell of it", "write it as in https://hooks.example.com/budget")
    return value


AmountText = Annotated[
    Amount,
    PlainValidator(_amount),
    WithJsonSchema({"type": "string", "pattern": f"^{_AMOUNT.pattern}$", "examples": ["50/day", "0.5/day"]}),
]

Amounts = Annotated[
    list[AmountText],
    BeforeValidator(_listed),
    AfterValidator(_one_of_each),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{_AMOUNT.pattern}$"}, {"type": "array"}]}),
]


class BudgetConfig(PluginConfig):
    by: Annotated[str, AfterValidator(_by)] = Field(
        default="principal",
        description="whose money is counted together: `principal`, `label:NAME`, `route`, `model` or `header:NAME`",
    )
    usd: Amounts = Field(
        description="US dollars per `day`, `week` or `month`; several as a list, which all hold", examples=["50/day"]
    )
    limits: dict[str, Amounts] = Field(
        default_factory=dict,
        max_length=MOST_SUBJECTS,
        description="by the name of a principal, label's value, route, model or value: its own amounts instead",
    )
    time_zone: Annotated[zoneinfo.ZoneInfo, PlainValidator(_zone), WithJsonSchema({"type": "string"})] = written(
        "UTC", "by whose midnight periods begin, as in `Europe/Berlin`"
    )
    warn_at: list[Annotated[Share, AfterValidator(_level)]] = Field(
        default_factory=list,
        description="parts of an amount that are logged, counted and told to `webhook`",
    )
    webhook: Annotated[str | None, NotSet, AfterValidator(lambda url: url and _url(url))] = Field(
        default=None, repr=False, description="a URL that gets a POST for each level, once per subject and period"
    )
    downgrade_to: RouteName | None = Field(
        default=None, description="a route whose targets serve what the budget does not pay for, instead of a refusal"
    )
    unpriced: Literal["allow", "reject"] = Field(
        default="allow",
        description="reject: what has no price at one of its targets is refused, before it costs",
    )
    when_store_down: Literal["local", "open", "closed"] = Field(
        default="local", description="local: each replica spends its part; open: nothing is refused; closed: a 503"
    )

    @model_validator(mode="after")
    def _tells_of_something(self) -> Self:
        if self.webhook and not self.warn_at:
            raise fault("is told of levels, and 'warn_at' names none", "add `warn_at: [80%, 100%]`", "webhook")
        return self
