"""The settings of failover."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from proxy.plugin import Duration, DurationOrNone, PluginConfig, Share, Size, fault, written

MOST_ATTEMPTS = 32


def _timed(seconds: float | None) -> float | None:
    if seconds == 0:
        raise fault("no time at all lets nothing through", "write a longer time")
    return seconds


def _some(share: float) -> float:
    if not share:
        raise fault("is no budget", "write more, as in 10%, or `max_attempts: 1` for no retries")
    return share


Time = Annotated[Duration, AfterValidator(_timed)]
TimeOrNone = Annotated[DurationOrNone, AfterValidator(_timed)]


class Backoff(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    first: Time = written("100ms", "the first pause is a random part of this, each further one of twice as much")
    most: Time = written(
        "2s", "the longest of them, and of the `retry-after` that is waited for while other targets are left"
    )

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.first > self.most:
            raise fault("the first pause is longer than the most", "lower it, or raise most", "first")
        return self


class FailoverConfig(PluginConfig):
    max_attempts: int = Field(
        default=3, ge=1, le=MOST_ATTEMPTS, description="tries of one request, over all its targets"
    )
    deadline: Time = written("120s", "how long all tries of a request may take together, until its answer begins")
    first_byte: TimeOrNone = Field(
        default=None, description="how long a target may take to begin its answer, below its own `timeouts.first_byte`"
    )
    first_token: TimeOrNone = written(
        "30s", "how long a stream may take to its first token, while other targets are left"
    )
    retry_budget: Annotated[Share, AfterValidator(_some)] = written(
        "10%", "further tries that all requests of this process may make, as a share of the requests"
    )
    backoff: Backoff = Field(default_factory=Backoff, description="the pauses before the same target is asked again")
    hold: Literal["none", "full"] = Field(
        default="none", description="full: answers are held to their end, so that one which breaks off can be replaced"
    )
    continue_midstream: bool = Field(
        default=False, description="another target goes on with a text that breaks off amid its stream"
    )
    hold_bytes: Size = written("64KiB", "of what comes before the first token; longer beginnings go down unjudged")
    hold_full_bytes: Size = written("1MiB", "likewise with `hold: full`, of the whole answer")
