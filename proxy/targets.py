"""What a config says of a route's targets: which they are, which one is first, and how their health is asked.

Settings that only one kind of balance knows are errors beside another one, so that nobody waits for them to work.
"""

import re
from collections.abc import Callable
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from proxy.scalars import HEADER_NAME, Duration, OptionalText, Size, positive, written
from proxy.wording import fault

__all__ = ["Balanced", "Capacity", "Headers", "Health", "Load", "Part", "Queue", "Target", "Targets", "Watched"]


class Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


def _short(key: str, what: str, fix: str) -> Callable[[object], object]:
    """A text that stands for a mapping with that key alone."""

    def whole(value: object) -> object:
        if isinstance(value, str):
            return {key: value}
        if not isinstance(value, dict):
            raise fault(what, fix)
        return value

    return whole


def _headers(header: dict[str, str]) -> dict[str, str]:
    lowered: dict[str, str] = {}
    for name, pattern in header.items():
        if not re.fullmatch(HEADER_NAME, name):
            raise fault(f"{name!r} is not a header's name", "write it as in x-tier", key=name)
        if name.lower() in lowered:
            raise fault(f"the header {name.lower()!r} is here twice", "keep one of the two", key=name)
        lowered[name.lower()] = pattern
    return lowered


Headers = Annotated[dict[str, str], AfterValidator(_headers)]
"""By lower-case name."""


class Target(Part):
    upstream: str | None = Field(default=None, description="a name under `upstreams`", examples=["openai"])
    model: OptionalText = Field(default=None, description="replaces the model that the request names")
    weight: int = Field(default=1, ge=0, description="its share where `balance` looks at it; 0 is never the first")
    context_window: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="how many tokens its model takes, for plugins that choose by it"
    )
    static: OptionalText = Field(
        default=None, description="instead of an upstream, as the last target: the text that Weir answers itself"
    )

    @model_validator(mode="after")
    def _upstream_or_static(self) -> Self:
        if self.static is None and "static" in self.model_fields_set:
            raise fault("is empty", "write the answer's text", key="static")
        if self.static is None and self.upstream is None:
            raise fault("missing key 'upstream'", "add `upstream: openai`", key="upstream")
        for key in sorted(self.model_fields_set - {"static"}) if self.static is not None else ():
            raise fault(f"a static answer has no {key!r}", "remove one of the two", key=key)
        return self


def _static_last(targets: list[Target]) -> list[Target]:
    for place, target in enumerate(targets[:-1]):
        if target.static is not None:
            raise fault("a static answer always serves: what stands after it is never tried", "put it last", key=place)
    return targets


_target = _short("upstream", "{kind} is not a target", "write `openai` or `{upstream: openai, model: gpt-4o}`")
Targets = Annotated[
    list[Annotated[Target, BeforeValidator(_target, json_schema_input_type=str | Target)]], AfterValidator(_static_last)
]

Way = Literal["ordered", "weighted", "least_busy", "ewma", "queue", "sticky", "prefix"]
_OF: Final = {"key": "sticky", "bytes": "prefix", "spill": "prefix", "header": "weighted"}


def _key(key: str) -> str:
    name = key.removeprefix("header:")
    if key not in {"principal", "conversation"} and (name == key or not re.fullmatch(HEADER_NAME, name)):
        raise fault("{value} is nothing to stick to", "write conversation, principal or header:NAME")
    return key


class Balance(Part):
    by: Way = Field(description="how the first target is chosen", examples=["weighted"])
    key: Annotated[str, AfterValidator(_key)] = Field(
        default="conversation",
        description="sticky: whose requests stay at one target: `conversation`, `principal` or `header:NAME`",
    )
    bytes: Annotated[Size, Field(gt=0)] = written("2KiB", "prefix: how much of the prompt's beginning is compared")
    spill: Annotated[float, Field(ge=1, le=100)] = Field(
        default=1.25,
        description="prefix: how many times the average load a target may have before the next one is first",
    )
    header: Headers = Field(
        default_factory=dict,
        description="weighted: the upstream to begin with by a header's name, whatever that header says",
        examples=[{"x-canary": "gpu-b"}],
    )

    @model_validator(mode="after")
    def _own_settings(self) -> Self:
        for key in sorted(self.model_fields_set & _OF.keys()):
            if self.by != _OF[key]:
                raise fault(f"only {_OF[key]} has this key, and this is {self.by}", "remove it", key=key)
        return self


_balance = _short("by", "{kind} is not a way to balance", "write `weighted`, or `{by: sticky, key: principal}`")
Balanced = Annotated[Balance, BeforeValidator(_balance, json_schema_input_type=Way | Balance)]


Time = Annotated[Duration, positive("is no check", "write a longer time")]


def _path(path: str) -> str:
    if not re.fullmatch(r"/[!-~]*", path) or "#" in path:
        raise fault("{value} is not a path", "write it as in /health, or /v1/models")
    return path


class Health(Part):
    path: Annotated[str, AfterValidator(_path)] = Field(
        default="/health", description="what is asked for with GET; below `/v1` it continues base_url"
    )
    interval: Time = written("10s", "how often")
    timeout: Time = written("2s", "how long an answer may take")
    unhealthy_after: int = Field(default=3, ge=1, description="so many failures in a row: its targets are left out")
    healthy_after: int = Field(default=1, ge=1, description="so many answers below 400 in a row: they are back")


class Queue(Part):
    max: int = Field(
        default=100, ge=0, description="requests that wait while all its upstreams are full; more are refused"
    )
    timeout: Annotated[Duration, positive("is no queue", "write a longer time; `max: 0` refuses at once")] = written(
        "30s", "how long each may wait; then it is refused"
    )


class Capacity(Part):
    concurrent: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="requests at a time, others' too as far as its metrics tell"
    )
    input_tokens: Annotated[int, Field(ge=1)] | None = Field(default=None, description="the longest prompt")
    total_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="a prompt and the answer asked for, where it refuses more"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise fault("says nothing", "write `{concurrent: 64}`, or remove it")
        if self.input_tokens and self.total_tokens and self.input_tokens > self.total_tokens:
            raise fault("is more than total_tokens, which has the answer in it too", "lower it", key="input_tokens")
        return self


Server = Literal["auto", "off", "tgi", "vllm", "sglang", "llamacpp", "trtllm", "triton_trtllm", "triton"]


class Load(Part):
    server: Server = Field(
        default="auto", description="whose names to look for in its metrics; auto: the first that are found; off: none"
    )
    path: Annotated[str, AfterValidator(_path)] | None = Field(
        default=None, description="where its metrics are, instead of the server's usual place"
    )
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="of its metrics, where it is another one; it gets no credential"
    )
    interval: Time = written("2s", "how often they are read; a reading counts for three of it")
    timeout: Time = written("1s", "how long that may take")


_load = _short("server", "{kind} is not how a load is read", "write `vllm`, `{server: vllm, interval: 5s}`, or off")
Watched = Annotated[
    Load,
    BeforeValidator(
        lambda value: _load("off" if value is False else value), json_schema_input_type=Server | Load | Literal[False]
    ),
]
