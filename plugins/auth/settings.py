"""What an operator writes for `auth`. A key itself never stands here, only its hash; no error repeats what does."""

from __future__ import annotations

import pathlib
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    PlainValidator,
    WithJsonSchema,
    WrapValidator,
    create_model,
    model_validator,
)

from proxy.plugin import (
    ConfigError,
    Duration,
    ExistingFile,
    Expiry,
    FailureMode,
    Labels,
    Name,
    NotSet,
    PluginConfig,
    fault,
    read_yaml,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import ValidatorFunctionWrapHandler

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]

_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")
_MAKE_ONE: Final = "write the 64 hexadecimal digits that `weir keys new` prints, in quotes"


class Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


def _digest(value: object) -> bytes:
    if isinstance(value, str) and _HASH.fullmatch(value):
        return bytes.fromhex(value)
    if isinstance(value, int | float):
        raise fault("is a number to YAML", "put the 64 digits in quotes")
    raise fault("is not a SHA-256; if it is the key itself, count it as leaked", _MAKE_ONE)


Globs = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class KeySettings(Part):
    name: Name = Field(description="whose it is: the principal of metrics and bills", examples=["search-team"])
    sha256: Annotated[bytes, PlainValidator(_digest), WithJsonSchema({"type": "string"})] = Field(
        repr=False, description="the key's hash, 64 hexadecimal digits", examples=['"5f2c1e…"']
    )
    labels: Labels = Field(default_factory=dict, description="what bills say beside the name")
    expires: Expiry | None = Field(default=None, description="from then on it is refused; a date is its end, in UTC")
    models: Globs | None = Field(default=None, description="globs over the models that it may use; without it, all")
    routes: Annotated[list[Name], Field(min_length=1)] | None = Field(
        default=None, description="the routes that it may use; without it, all"
    )


def _distinct(before: Sequence[KeySettings] = ()) -> Callable[[list[KeySettings]], list[KeySettings]]:
    def check(keys: list[KeySettings]) -> list[KeySettings]:
        names = {key.name for key in before}
        owners = {key.sha256: key.name for key in before}
        for place, key in enumerate(keys):
            if key.name in names:
                raise fault(f"another key is named {key.name!r}", "give it a name of its own", key=place)
            if key.sha256 in owners:
                raise fault(f"is the key of {owners[key.sha256]!r}", "make one of its own", key=place)
            names.add(key.name)
            owners[key.sha256] = key.name
        return keys

    return check


def read_keys(file: pathlib.Path, before: Sequence[KeySettings]) -> list[KeySettings]:
    """The keys of a file of their own, beside those `before` it. Raises ConfigError."""
    listed = Annotated[list[KeySettings], AfterValidator(_distinct(before))]
    model: Any = create_model("KeysFile", __base__=Part, keys=(listed, Field(description="as under auth")))
    found: list[KeySettings] = read_yaml(file, model).keys
    return found


def _url(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    if not isinstance(value, str) or "://" not in value:
        return handler(value)
    try:
        parts = urlsplit(value)
        is_sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        is_sound = False
    if not is_sound or not re.fullmatch(r"[!-~]+", value):
        raise fault("is no URL to fetch keys from", "write it as in https://login.example.com/jwks.json")
    return value


def _some(seconds: float) -> float:
    if not seconds:
        raise fault("no time at all would ask without a pause", "write a longer time, as in 10m")
    return seconds


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Location = Annotated[
    pathlib.Path | str,
    GetPydanticSchema(lambda _, handler: handler(Annotated[ExistingFile, WrapValidator(_url)])),
]
"""A file, or a URL as text."""

Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class JwtSettings(Part):
    jwks: Location = Field(
        description="the issuer's public keys: a URL, or a file that is read again when it changes",
        examples=["https://login.example.com/jwks.json"],
    )
    issuer: Annotated[str, Field(min_length=1)] = Field(
        description="what `iss` must be", examples=["https://login.example.com"]
    )
    audience: Annotated[Texts, BeforeValidator(_listed, json_schema_input_type=str | list[str])] = Field(
        description="what `aud` must be, or have among others; of a list, one", examples=["weir"]
    )
    algorithms: Annotated[list[Algorithm], Field(min_length=1)] = Field(
        default=["RS256", "ES256"], description="of signatures; those with a shared secret are not supported"
    )
    principal: Annotated[str, Field(min_length=1)] = Field(
        default="sub", description="the claim that says who calls; dots lead into objects"
    )
    labels: dict[Name, str] = Field(default_factory=dict, description="claims by label, likewise")
    leeway: Duration = written("30s", "how far clocks may be apart")
    refresh: Annotated[Duration, AfterValidator(_some)] = written("10m", "how often the URL is asked")
    require: list[str] = Field(default=["exp"], description="claims that must be there, beside `iss` and `aud`")
    models: Globs | None = Field(default=None, description="globs over the models that tokens may use; without it, all")
    routes: Annotated[list[Name], Field(min_length=1)] | None = Field(
        default=None, description="the routes that they may use; without it, all"
    )
    in_metrics: list[str] = Field(
        default_factory=list, description="principals that metrics name; all others are `other` there"
    )


class AuthConfig(PluginConfig):
    keys: Annotated[list[KeySettings], AfterValidator(_distinct())] = Field(
        default_factory=list, description="who may call, by the hashes of their keys"
    )
    keys_file: Annotated[ExistingFile | None, NotSet] = Field(
        default=None, description="a YAML file with more of them under `keys`; it is read again when it changes"
    )
    jwt: JwtSettings | None = Field(default=None, description="an issuer whose tokens let in as well")

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.keys and self.keys_file is None and self.jwt is None:
            raise fault("it would refuse everything", "add keys, a keys_file or jwt; `weir keys new` makes a key")
        if self.failure_mode is FailureMode.OPEN:
            raise fault("auth that fails open lets everybody in", "remove it", key="failure_mode")
        return self

    @model_validator(mode="after")
    def _readable(self) -> Self:
        """So that `weir check` sees what a start would."""
        try:
            self.all_keys()
        except ConfigError as refused:
            first = refused.problems[0]
            raise fault(str(first).removesuffix(f"; {first.fix}"), first.fix, key="keys_file") from None
        return self

    def all_keys(self) -> list[KeySettings]:
        """With those of the file. Raises ConfigError."""
        return [*self.keys, *(read_keys(self.keys_file, self.keys) if self.keys_file else ())]
