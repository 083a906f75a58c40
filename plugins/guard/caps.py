"""Numbers of a request that a config bounds: tokens of the answer, and how many answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from proxy.plugin import ClientFault, fault, replace_value, top_level_values

if TYPE_CHECKING:
    from plugins.guard.endpoints import Endpoint

SHOWN = 100
"""Characters of an app's text that an error repeats."""

_ALONE = {"do_sample": True}
"""TGI samples where a request has no parameters, and where it has some only if they say so."""


class MaxTokens(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    default: int | None = Field(
        default=None, ge=1, description="what a request that names none gets; without it, the ceiling"
    )
    ceiling: int | None = Field(default=None, ge=1, description="the most that a request may ask for")
    over: Literal["reject", "cap"] = Field(
        default="reject", description="what more than the ceiling meets: a 400, or the ceiling in its place"
    )
    field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="the key that a chat request which names none gets"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.default is None and self.ceiling is None:
            raise fault("has neither default nor ceiling", "set one of them, as in {ceiling: 4096}")
        if self.default and self.ceiling and self.default > self.ceiling:
            raise fault("the default is above the ceiling", "lower it, or raise the ceiling", "default")
        return self

    def changes(self, endpoint: Endpoint, holder: dict[str, Any]) -> dict[str, int]:
        """What to write into the object that holds the caps; raises ClientFault."""
        given = {key: value for key in endpoint.caps if (value := holder.get(key)) is not None}
        if not given:
            return {self.field if self.field in endpoint.caps else endpoint.caps[0]: self._default()}
        if self.ceiling is None:
            return {}
        over = [key for key, value in given.items() if number(endpoint.named(key), value) > self.ceiling]
        if over and self.over == "reject":
            raise above(endpoint.named(over[0]), given[over[0]], self.ceiling, "tokens")
        return dict.fromkeys(over, self.ceiling)

    def _default(self) -> int:
        default = self.ceiling if self.default is None else self.default
        assert default is not None
        return default


def judge_choices(endpoint: Endpoint, holder: dict[str, Any], limit: int) -> None:
    for key in endpoint.choices:
        value = holder.get(key)
        if value is not None and number(endpoint.named(key), value) > limit:
            raise above(endpoint.named(key), value, limit, "answers")


def holder_of(endpoint: Endpoint, value: dict[str, Any]) -> dict[str, Any]:
    """The object that caps and choices lie in; raises ClientFault where it is none."""
    holder = value.get(endpoint.inside) if endpoint.inside else value
    if holder is not None and not isinstance(holder, dict):
        raise ClientFault(f"'{endpoint.inside}' must be an object", code="invalid_type", param=endpoint.inside)
    return holder or {}


def written(endpoint: Endpoint, body: bytes, changes: dict[str, int]) -> bytes:
    """`body` with the changes in that object, and every other byte as it was."""
    if not endpoint.inside:
        return _replaced(body, changes)
    for start, end in top_level_values(body, endpoint.inside):
        if body[start:end] != b"null":
            return body[:start] + _replaced(body[start:end], changes) + body[end:]
    return replace_value(body, endpoint.inside, {**_ALONE, **changes})


def _replaced(body: bytes, changes: dict[str, int]) -> bytes:
    for key, value in changes.items():
        body = replace_value(body, key, value)
    return body


def number(param: str, value: object) -> int:
    """Raises ClientFault. Some servers take 0 and below for no limit at all, and texts for their numbers."""
    if not isinstance(value, int) or isinstance(value, bool):
        what = f"'{param}' is {shown(value)}; send a whole number from 1"
        raise ClientFault(what, code="invalid_type", param=param)
    if value < 1:
        raise ClientFault(f"'{param}' is {value}; send a number from 1", code="integer_below_min_value", param=param)
    return value


def above(param: str, value: int, limit: int, what: str) -> ClientFault:
    return ClientFault(
        f"'{param}' is {value}, and at most {limit} {what} are allowed here; ask for {limit} or fewer",
        code="integer_above_max_value",
        param=param,
    )


def shown(value: object) -> str:
    match value:
        case str(text):
            return f"'{text[:SHOWN]}'"
        case bool() | int() | float():
            return str(value).lower()
        case list():
            return "a list"
        case _:
            return "an object"
