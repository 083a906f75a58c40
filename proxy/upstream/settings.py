"""An upstream's settings in config.yaml."""

import pathlib
import re
import ssl
import urllib.parse
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from proxy.headers import CREDENTIALS, HOP_BY_HOP, is_value
from proxy.prices import Prices, UsdPerHour
from proxy.scalars import (
    HEADER_NAME,
    Duration,
    DurationOrNone,
    ExistingFile,
    FilePath,
    NotSet,
    OptionalText,
    Placement,
    positive,
    written,
)
from proxy.targets import Capacity, Health, Load, Part, Watched
from proxy.wording import fault

_NOTHING = "lets nothing through"

Limit = Annotated[DurationOrNone, positive(_NOTHING, "write a longer time, or none for no limit")]
Span = Annotated[Duration, positive(_NOTHING, "write a longer time")]


class Timeouts(Part):
    connect: Span = written("5s", "until the connection stands, with TLS")
    first_byte: Limit = written("120s", "from the end of the request to the first byte of its answer")
    idle: Limit = written("60s", "the longest silence within an answer")
    total: Limit = Field(default=None, description="the whole attempt")


def _authorities(file: pathlib.Path | None) -> pathlib.Path | None:
    if file is None:
        return None
    try:
        ssl.create_default_context(cafile=file)
    except OSError:
        raise fault("{value} has no certificates that can be read", "write a PEM file of authorities") from None
    return file


class Tls(Part):
    ca_file: Annotated[ExistingFile | None, NotSet, AfterValidator(_authorities)] = Field(
        default=None, description="PEM file of the authorities to trust instead of the system's"
    )
    verify: bool = Field(default=True, description="false accepts any certificate")


def _command(words: list[str]) -> list[str]:
    if not words or not words[0]:
        raise fault("names no program", "write it as a list, as in [gcloud, auth, print-access-token]")
    return words


class Token(Part):
    command: Annotated[list[str], AfterValidator(_command)] | None = Field(
        default=None, repr=False, description="run without a shell in the config's folder; it prints the token"
    )
    file: Annotated[FilePath | None, NotSet] = Field(
        default=None, description="holds the token; it is read again when it changes"
    )
    refresh: Span = written("45m", "how old a token may get; sooner where it says when it expires")
    timeout: Span = written("10s", "how long the command may run")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.command is None and self.file is None:
            raise fault("names neither a command nor a file", "add `command: [...]` or `file: ...`")
        if self.command is not None and self.file is not None:
            raise fault("names a command and a file", "keep one of the two", key="file")
        return self


def _key(key: SecretStr | None) -> SecretStr | None:
    if key is None:
        return None
    text = key.get_secret_value().strip()
    if not is_value(text):
        raise fault("is blank, or holds a line break or another character that no key has", "write the key alone")
    if re.fullmatch(r"\$[A-Z_][A-Z0-9_]*", text):
        raise fault("is the name of a variable, as a shell writes it", "write it as ${NAME}")
    return SecretStr(text)


def _version(version: str | None) -> str | None:
    if version is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", version):
        raise fault("{value} is not a version of Azure's API", "write it as in 2024-10-21")
    return version


def _deployments(deployments: dict[str, str]) -> dict[str, str]:
    for model, name in deployments.items():
        if name in {"", ".", ".."}:
            raise fault("is no name of a deployment", "write the name that Azure shows", key=model)
    return deployments


def _headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        for is_wrong, what, fix in _header_faults(name.lower(), value):
            if is_wrong:
                raise fault(what, fix, key=name)
    if len({name.lower() for name in headers}) < len(headers):
        raise fault("names a header twice", "keep one of the two")
    return headers


def _header_faults(name: str, value: SecretStr) -> Iterator[tuple[bool, str, str]]:
    yield not re.fullmatch(HEADER_NAME, name), "is no name of a header", "write it as in HTTP-Referer"
    yield name in CREDENTIALS, "carries a credential", "write it as `api_key`, with `api_key_in: header:NAME`"
    what = "says how the request is sent, or is Weir's own"
    is_framing = name in HOP_BY_HOP | {"host", "expect", "accept-encoding"} or name.startswith(("content-", "x-weir-"))
    yield is_framing, what, "remove it"
    yield not is_value(value.get_secret_value().strip()), "holds nothing, or what no header can", "write plain ASCII"


def _base_url(url: str) -> str:
    found = next((wrong for is_wrong, wrong in _url_faults(url) if is_wrong), None)
    if found:
        raise fault(found, "write it as in https://api.openai.com/v1")
    return url.rstrip("/")


def _url_faults(url: str) -> Iterator[tuple[bool, str]]:
    """In order; a later one may rely on the earlier. None repeats the URL: it may hold a password."""
    yield not re.fullmatch(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*", url), "holds a character that no URL can have"
    yield not url.startswith(("http://", "https://")), "must start with http:// or https://"
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        yield True, "has no valid host and port"
        return
    yield "@" in parts.netloc, "must not hold a user name or a password (api_key is the place for a credential)"
    yield not host or port == 0 or parts.netloc.endswith(":"), "has no valid host and port"
    yield "?" in url or "#" in url, "must not have a query or a fragment"
    is_endpoint = parts.path.rstrip("/").endswith(("/completions", "/embeddings", "/responses"))
    yield is_endpoint, "ends in an endpoint, which each request names itself"


class Upstream(Part):
    kind: Literal["openai", "azure", "tgi"] = Field(default="openai", description="the API that it speaks")
    base_url: Annotated[str, AfterValidator(_base_url)] = Field(
        description="openai: what an SDK's base_url would be; azure: the resource's root; tgi: the server's root",
        examples=["https://api.openai.com/v1"],
    )
    api_key: Annotated[SecretStr | None, NotSet, AfterValidator(_key)] = Field(
        default=None, description="sent to the upstream instead of the caller's credential"
    )
    api_key_in: Placement | None = Field(
        default=None, description="where the key goes; by default `bearer`, and for azure `header:api-key`"
    )
    token: Token | None = Field(default=None, description="instead of api_key: an OAuth token that is renewed")
    api_version: Annotated[OptionalText, AfterValidator(_version)] = Field(
        default=None, description="azure: its `api-version`", examples=["2024-10-21"]
    )
    deployments: Annotated[dict[str, str], AfterValidator(_deployments)] = Field(
        default_factory=dict, description="azure: deployment by model; without one the model's name is the deployment's"
    )
    headers: Annotated[dict[str, SecretStr], AfterValidator(_headers)] = Field(
        default_factory=dict, description="fields that each request to it has, instead of the caller's of these names"
    )
    auth: Literal["replace", "passthrough"] = Field(
        default="replace", description="passthrough: the caller's own credential and cookies go up"
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="how long each part of an attempt may take")
    on_disconnect: Literal["cancel", "drain"] = Field(
        default="cancel", description="when the caller leaves: end the upstream's work, or read its answer to the end"
    )
    include_usage: bool = Field(
        default=True,
        description="false: metering does not ask it for the usage of streams, since it refuses to be asked",
    )
    normalize: bool = Field(
        default=True,
        description="tgi: what would break OpenAI's clients is repaired; false passes every answer as it came",
    )
    replay_safe: bool = Field(
        default=False,
        description="a request that it took and then dropped without a word may be sent once more, work done or not",
    )
    max_connections: int = Field(default=1000, ge=1, description="open at the same time; more requests wait")
    max_waiting: int = Field(default=1000, ge=0, description="how many may wait, up to `connect`; more are refused")
    health: Health | None = Field(default=None, description="how it is asked for; without it, only requests show it")
    load: Watched = Field(
        default_factory=Load,
        description="how its own metrics are read on routes with `balance: queue` or `queue`; off: not",
    )
    capacity: Capacity | None = Field(
        default=None, description="what it takes at most; on such routes TGI is asked for what is not set"
    )
    cold_start: Span | None = Field(
        default=None, description="how long it may be loading its model, or starting, before that is a failure"
    )
    keepalive: Duration | None = Field(
        default=None, description="how long a connection is kept unused; the pool chooses when it is not set"
    )
    tls: Tls = Field(default_factory=Tls, description="how the upstream's certificate is checked")
    prices: Prices = Field(
        default_factory=dict, description="what its models cost, before what a prices.yaml says: prices by name or glob"
    )
    usd_per_hour: UsdPerHour = Field(
        default=None, description="what it costs by the hour, shared among its requests; then no price list counts"
    )
    without_api_key: Literal["demo"] | None = Field(
        default=None, description="demo: the built-in demo upstream answers while api_key is empty"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for is_wrong, what, fix, key in (*_credential_faults(self), *_azure_faults(self), *_tgi_faults(self)):
            if is_wrong:
                raise fault(what, fix, key=key)
        return self

    @property
    def is_demo(self) -> bool:
        """Whether the built-in demo answers in its place, for want of a key."""
        return self.without_api_key == "demo" and self.api_key is None and self.token is None


def _credential_faults(upstream: Upstream) -> Iterator[tuple[bool, str, str, str]]:
    """Whether it is so, what is wrong, how to fix it, and the key."""
    passes, one = upstream.auth == "passthrough", "remove one of the two"
    yield bool(passes and upstream.api_key), "passthrough sends the caller's key, and api_key is set", one, "auth"
    yield bool(passes and upstream.token), "passthrough sends the caller's key, and token is set", one, "auth"
    yield bool(passes and upstream.api_key_in), "passthrough sends the caller's key", "remove this", "api_key_in"
    place, key = upstream.api_key_in, "api_key_in"
    is_theirs = place is not None and place.name.lower() in {name.lower() for name in upstream.headers}
    yield is_theirs, "names a header that `headers` has, too", "keep one of the two", key
    yield bool(upstream.api_key and upstream.token), "api_key and token are two credentials", one, "token"
    yield bool(upstream.token and upstream.api_key_in), "a token always goes as bearer", "remove this", "api_key_in"


def _tgi_faults(upstream: Upstream) -> Iterator[tuple[bool, str, str, str]]:
    is_alone = "normalize" in upstream.model_fields_set and upstream.kind != "tgi"
    yield is_alone, f"only kind tgi has this key, and this is {upstream.kind}", "remove it", "normalize"
    what, fix = "ends in /v1, and of kind tgi it is the server's root", "write it as in http://tgi:8080"
    yield upstream.kind == "tgi" and upstream.base_url.endswith("/v1"), what, fix, "base_url"


def _azure_faults(upstream: Upstream) -> Iterator[tuple[bool, str, str, str]]:
    version, deployments = upstream.api_version, upstream.deployments
    if upstream.kind != "azure":
        what = f"only kind azure has this key, and this is {upstream.kind}"
        yield version is not None, what, "remove it, or set `kind: azure`", "api_version"
        yield bool(deployments), what, "remove it, or set `kind: azure`", "deployments"
        return
    segments = urllib.parse.urlsplit(upstream.base_url).path.split("/")
    is_v1 = segments[-2:] == ["openai", "v1"]
    what = "is neither a resource's root nor ends in /openai/v1"
    yield "openai" in segments and not is_v1, what, "write it as in https://NAME.openai.azure.com", "base_url"
    what, fix = "missing key 'api_version'", "add `api_version: 2024-10-21`, or end base_url in /openai/v1"
    yield version is None and not is_v1, what, fix, "api_version"
    what = "where base_url ends in /openai/v1 the request's model is the deployment"
    yield bool(deployments) and is_v1, what, "name it as a target's `model`", "deployments"
