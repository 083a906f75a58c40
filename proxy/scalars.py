"""Values that YAML has no word for, each written as one: `30s`, `64MiB`, `600/min`, `127.0.0.1:8080`.

They are types for pydantic models, of the core as of plugins. A default is given as it is written: `written("30s", …)`.
"""

import ipaddress
import pathlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema

from proxy.headers import HOP_BY_HOP
from proxy.wording import fault, nearest

__all__ = [
    "HEADER_NAME",
    "Address",
    "Duration",
    "DurationOrNone",
    "ExistingFile",
    "Expiry",
    "FilePath",
    "Labels",
    "Name",
    "NotSet",
    "OptionalText",
    "Placement",
    "Rate",
    "RouteName",
    "Share",
    "Size",
    "positive",
    "written",
]

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_PERIODS: Final = {"s": 1.0, "min": 60.0, "hour": 3600.0, "day": 86400.0}
_MAX_PORT: Final = 65535

_DURATION: Final = r"^([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)$"
_SIZE: Final = r"^([0-9]{1,15})(B|KB|MB|GB|KiB|MiB|GiB)$"
_RATE: Final = r"^([1-9][0-9]{0,14})/(s|min|hour|day)$"
_ADDRESS: Final = r"^(\[[0-9A-Za-z:.%]+\]|[A-Za-z0-9_.-]*):([0-9]{1,5})$"
_ADDRESS_TO_BE: Final = rf"{_ADDRESS}|\$\{{"  # an editor sees `${WEIR_LISTEN:-...}` before it is filled in
_SHARE: Final = r"^([0-9]{1,3}(?:\.[0-9]{1,3})?)%$"
_NAME: Final = r"^[A-Za-z0-9_.-]{1,64}$"
_EXPIRY: Final = r"^([0-9]{4}-[0-9]{2}-[0-9]{2})([T ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?(Z|[+-][0-9]{2}:[0-9]{2})?$"
_MAX_LABEL: Final = 256
HEADER_NAME: Final = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PLACEMENT: Final = rf"^(bearer|header:{HEADER_NAME}|query:[A-Za-z0-9._~-]+)$"


def written(text: str, description: str) -> Any:
    """A field whose default is given as an operator would write it."""
    return Field(default=text, validate_default=True, description=description)


def positive(what: str, fix: str) -> AfterValidator:
    """Of a duration that may not be no time at all."""

    def check(seconds: float | None) -> float | None:
        if seconds == 0:
            raise fault(f"no time at all {what}", fix)
        return seconds

    return AfterValidator(check)


def _split(pattern: str, value: object) -> tuple[str, ...] | None:
    found = re.fullmatch(pattern, value) if isinstance(value, str) and not value.endswith("\n") else None
    return found.groups() if found else None


def _duration(value: object) -> float:
    if parts := _split(_DURATION, value):
        return float(parts[0]) * _SECONDS[parts[1]]
    if (isinstance(value, int | float) and not isinstance(value, bool)) or (
        isinstance(value, str) and value.isdecimal()
    ):
        raise fault("{value} has no unit", "write it with one, as in 30s (ms, s, m, h or d)")
    raise fault("{value} is not a duration", "write a number and ms, s, m, h or d, as in 30s")


def _size(value: object) -> int:
    if type(value) is int and value >= 0:
        return value
    if parts := _split(_SIZE, value):
        return int(parts[0]) * _BYTES[parts[1]]
    raise fault("{value} is not a size", "write a whole number and B, KB, MB, GB, KiB, MiB or GiB, as in 64MiB")


def _share(value: object) -> float:
    parts = _split(_SHARE, value)
    if parts is None or float(parts[0]) > 100:
        raise fault("{value} is not a share", "write a number up to 100 and %, as in 10%")
    return float(parts[0]) / 100


def _path(value: object, info: ValidationInfo) -> pathlib.Path:
    if not isinstance(value, str):
        raise fault("must be a path, not {kind}", "write it as text")
    return pathlib.Path((info.context or {}).get("folder", ""), value)


def _existing(value: object, info: ValidationInfo) -> pathlib.Path:
    path = _path(value, info)
    try:
        exists = path.is_file()
    except OSError:
        exists = False
    if not exists:
        raise fault(
            "{value} is not a file that exists", "mount it, or correct the path; it starts at this file's folder"
        )
    return path


def _name(value: str) -> str:
    if re.fullmatch(_NAME, value) and not value.endswith("\n"):
        return value
    raise fault("{value} is not a name", "write 1 to 64 letters, digits, '_', '.' or '-'")


def _route(value: str, info: ValidationInfo) -> str:
    known = (info.context or {}).get("routes")
    if known is not None and value not in known:
        raise fault("no route is named {value}", nearest(value, known, "routes"))
    return value


def _expiry(value: object) -> datetime:
    day, hour, zone = _split(_EXPIRY, value) or ("", None, None)
    if not day or (zone and not hour):
        raise fault("{value} is not a date", "write it as in 2027-01-31, or with a time, as in 2027-01-31T12:00:00Z")
    if hour and not zone:
        raise fault("{value} has no time zone", "end it with Z, as in 2027-01-31T12:00:00Z")
    try:
        if hour and zone:
            return datetime.fromisoformat(day + hour + zone).astimezone(UTC)
        return datetime.combine(date.fromisoformat(day) + timedelta(days=1), time(), UTC)
    except (ValueError, OverflowError):
        raise fault("{value} is a day or a time that there is not", "correct it") from None


def _label(value: str) -> str:
    if 0 < len(value) <= _MAX_LABEL and value.isprintable():
        return value
    raise fault(f"is empty, longer than {_MAX_LABEL} characters or has control characters", "write a short text")


_DURATION_SCHEMA: Final = {
    "type": "string",
    "pattern": _DURATION,
    "examples": ["30s", "250ms", "1.5s", "5m", "1h", "1d"],
}

Duration = Annotated[float, PlainValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
"""Seconds."""

DurationOrNone = Annotated[
    Duration | None,
    BeforeValidator(lambda value: None if value == "none" else value),
    WithJsonSchema({"anyOf": [_DURATION_SCHEMA, {"enum": ["none", None]}]}),
]
"""Seconds; the word `none` is None."""

Size = Annotated[
    int,
    PlainValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _SIZE}],
            "examples": ["64MiB", "1GB", "512KiB", "100B"],
        }
    ),
]
"""Bytes."""

Share = Annotated[
    float, PlainValidator(_share), WithJsonSchema({"type": "string", "pattern": _SHARE, "examples": ["10%", "2.5%"]})
]
"""From 0 to 1."""

ExistingFile = Annotated[
    pathlib.Path, PlainValidator(_existing), WithJsonSchema({"type": "string", "examples": ["certs/ca.pem"]})
]
"""A path that starts at the config's folder."""

FilePath = Annotated[pathlib.Path, PlainValidator(_path), WithJsonSchema({"type": "string", "examples": ["run/token"]})]
"""Likewise, of a file that may come later."""

NotSet: Final = BeforeValidator(lambda value: None if value == "" else value)
"""Empty text is no value: `${VAR:-}` of an unset variable."""

OptionalText = Annotated[str | None, NotSet]

Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": _NAME})]

RouteName = Annotated[str, AfterValidator(_route), WithJsonSchema({"type": "string", "pattern": _NAME})]
"""Of a route that config.yaml has."""

Labels = Annotated[dict[Name, Annotated[str, AfterValidator(_label)]], Field(max_length=16)]
"""What a principal's ledger lines say beside its name."""

Expiry = Annotated[
    datetime,
    PlainValidator(_expiry),
    WithJsonSchema({"type": "string", "pattern": _EXPIRY, "examples": ["2027-01-31", "2027-01-31T12:00:00Z"]}),
]
"""The moment from which on something no longer counts; a date is its end, in UTC."""


@dataclass(frozen=True)
class Rate:
    """So many in so many seconds."""

    amount: int
    seconds: float

    @classmethod
    def parse(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if parts := _split(_RATE, value):
            return cls(int(parts[0]), _PERIODS[parts[1]])
        raise fault("{value} is not a rate", "write a whole number from 1 per s, min, hour or day, as in 600/min")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(_word(cls.parse, _RATE, "600/min", "10/s", "1000/hour", "50/day"))


@dataclass(frozen=True)
class Address:
    """An empty host is every interface; port 0 is one that the system chooses; an IPv6 host has no brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        parts = _split(_ADDRESS, value)
        if parts is None or int(parts[1]) > _MAX_PORT or not _is_host(parts[0]):
            raise fault("{value} is not an address", "write host:port, as in 127.0.0.1:8080, :8080 or '[::1]:8080'")
        return cls(parts[0].strip("[]"), int(parts[1]))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(
            _word(cls.parse, _ADDRESS_TO_BE, "127.0.0.1:8080", "[::1]:8080", ":8080", "localhost:0")
        )


@dataclass(frozen=True)
class Placement:
    """Where a credential goes in a request: `bearer`, or the `header` or `query` parameter of that name."""

    where: str
    name: str = ""

    @classmethod
    def parse(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        parts = _split(_PLACEMENT, value)
        if parts is None:
            raise fault(
                "{value} is no place for a key", "write bearer, header:NAME or query:NAME, as in header:x-api-key"
            )
        where, _, name = parts[0].partition(":")
        if where == "header" and (name.lower() in HOP_BY_HOP | {"host"} or name.lower().startswith("content-")):
            raise fault("{value} is a header that says how the request is sent", "name one that carries a key")
        return cls(where, name)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(_word(cls.parse, _PLACEMENT, "bearer", "header:x-api-key", "query:key"))


def _word(parse: Callable[[object], object], pattern: str, *examples: str) -> Any:
    schema = WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})
    return Annotated[object, PlainValidator(parse), schema]


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return True
    try:
        return bool(ipaddress.IPv6Address(host.strip("[]")))
    except ValueError:
        return False
