"""The settings of rate_limit."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from proxy.plugin import PluginConfig, Rate, fault

TOKENS = ("tokens", "input_tokens", "output_tokens")
DIMENSIONS = ("requests", *TOKENS)
MOST_SUBJECTS = 10_000

_HEADER = r"^header:[!#$%&'*+.^_`|~0-9A-Za-z-]+$"


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _some(rates: list[Rate]) -> tuple[Rate, ...]:
    if not rates:
        raise fault("is an empty list", "write a rate, as in 600/min, or remove it")
    if len({rate.seconds for rate in rates}) < len(rates):
        raise fault("has two rates of one period", "leave the lower one")
    return tuple(rates)


def _by(value: str) -> str:
    if value in {"principal", "route", "model"} or re.match(_HEADER, value):
        return value
    raise fault("{value} is nothing to limit by", "write principal, route, model or header:NAME")


Rates = Annotated[list[Rate], BeforeValidator(_listed, json_schema_input_type=Rate | list[Rate]), AfterValidator(_some)]


class Limits(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    requests: Rates | None = Field(
        default=None, description="a rate, as in `600/min`, or a list of rates that all hold", examples=["600/min"]
    )
    tokens: Rates | None = Field(default=None, description="of prompts and answers together", examples=["200000/min"])
    input_tokens: Rates | None = Field(default=None, description="of prompts, cached ones too")
    output_tokens: Rates | None = Field(default=None, description="of answers, reasoning too")
    concurrent: int | None = Field(default=None, ge=1, description="requests that run at the same time")
    burst: int | None = Field(
        default=None, ge=1, description="how many `requests` may come at once; without it, all of the rate"
    )

    @model_validator(mode="after")
    def _one_rate_bursts(self) -> Self:
        if self.burst is not None and (self.requests is None or len(self.requests) != 1):
            raise fault("shapes one rate of requests, and there is none or a list", "remove it", "burst")
        return self

    @property
    def is_empty(self) -> bool:
        return self.concurrent is None and not any(getattr(self, name) for name in DIMENSIONS)


class RateLimitConfig(PluginConfig, Limits):
    by: Annotated[str, AfterValidator(_by)] = Field(
        default="principal",
        description="whose requests are counted together: `principal`, `route`, `model` or `header:NAME`",
    )
    limits: dict[str, Limits] = Field(
        default_factory=dict,
        max_length=MOST_SUBJECTS,
        description="by the name of a principal, route, model or value: its own limits in place of these",
    )
    when_store_down: Literal["local", "open", "closed"] = Field(
        default="local",
        description="local: each replica enforces its part; open: nothing is limited; closed: a 503",
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.is_empty and not self.limits:
            raise fault("limits nothing", "write `requests: 600/min`, `tokens: 200000/min` or `concurrent: 50`")
        return self
