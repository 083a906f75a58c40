"""config.yaml as frozen pydantic models, and how it is loaded with every problem told at once.

Cross checks read the raw tree, not the models, so that a typo in one place does not hide an error in another.
A plugin's settings stay raw here: only the plugin's own model knows them.
"""

import os
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SecretStr,
    model_validator,
)

from proxy.headers import is_value
from proxy.prices import Prices
from proxy.scalars import (
    Address,
    Duration,
    DurationOrNone,
    ExistingFile,
    FilePath,
    Name,
    NotSet,
    OptionalText,
    Placement,
    Rate,
    Size,
    written,
)
from proxy.source import EACH, ConfigError, Path, Problem, Source, validate
from proxy.store import url as store_url
from proxy.targets import Balanced, Headers, Health, Part, Target, Targets
from proxy.wording import fault, nearest

__all__ = [
    "Address",
    "Config",
    "Duration",
    "DurationOrNone",
    "Match",
    "Placement",
    "PluginEntry",
    "Rate",
    "Route",
    "Server",
    "Size",
    "Target",
    "Timeouts",
    "Tls",
    "Token",
    "Upstream",
    "load",
    "parse",
]


def _one(workers: int) -> int:
    if workers != 1:
        raise fault("{value} workers are more than this version runs", "leave it at 1 and run more replicas")
    return workers


class Server(Part):
    listen: Address = written("127.0.0.1:8080", "where the app's requests arrive")
    admin: Address = written("127.0.0.1:9090", "livez, readyz, metrics and state")
    workers: Annotated[int, AfterValidator(_one)] = Field(default=1, description="processes; this version runs 1")
    max_request_bytes: Size = written("64MiB", "a longer request body is refused with 413")
    drain_timeout: Duration = written("300s", "how long requests in flight may take to end after SIGTERM")

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.listen == self.admin and self.listen.port:
            raise fault("listen and admin share an address", "give admin another port", key="admin")
        return self


def _timed(fix: str) -> AfterValidator:
    def check(seconds: float | None) -> float | None:
        if seconds == 0:
            raise fault("no time at all lets nothing through", fix)
        return seconds

    return AfterValidator(check)


Limit = Annotated[DurationOrNone, _timed("write a longer time, or none for no limit")]


class Timeouts(Part):
    connect: Annotated[Duration, _timed("write a longer time")] = written("5s", "until the connection stands, with TLS")
    first_byte: Limit = written("120s", "from the end of the request to the first byte of its answer")
    idle: Limit = written("60s", "the longest silence within an answer")
    total: Limit = Field(default=None, description="the whole attempt")


class Tls(Part):
    ca_file: Annotated[ExistingFile | None, NotSet] = Field(
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
    refresh: Annotated[Duration, _timed("write a longer time")] = written(
        "45m", "how old a token may get; sooner where it says when it expires"
    )
    timeout: Annotated[Duration, _timed("write a longer time")] = written("10s", "how long the command may run")

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
    replay_safe: bool = Field(
        default=False,
        description="a request that it took and then dropped without a word may be sent once more, work done or not",
    )
    max_connections: int = Field(default=1000, ge=1, description="open at the same time; more requests wait")
    max_waiting: int = Field(default=1000, ge=0, description="how many may wait, up to `connect`; more are refused")
    health: Health | None = Field(default=None, description="how it is asked for; without it, only requests show it")
    keepalive: Duration | None = Field(
        default=None, description="how long a connection is kept unused; the pool chooses when it is not set"
    )
    tls: Tls = Field(default_factory=Tls, description="how the upstream's certificate is checked")
    prices: Prices = Field(
        default_factory=dict, description="what its models cost, before what a prices.yaml says: prices by name or glob"
    )
    without_api_key: Literal["demo"] | None = Field(
        default=None, description="demo: the built-in demo upstream answers while api_key is empty"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for is_wrong, what, fix, key in (*_credential_faults(self), *_azure_faults(self)):
            if is_wrong:
                raise fault(what, fix, key=key)
        return self


def _credential_faults(upstream: Upstream) -> Iterator[tuple[bool, str, str, str]]:
    """Whether it is so, what is wrong, how to fix it, and the key."""
    passes, one = upstream.auth == "passthrough", "remove one of the two"
    yield bool(passes and upstream.api_key), "passthrough sends the caller's key, and api_key is set", one, "auth"
    yield bool(passes and upstream.token), "passthrough sends the caller's key, and token is set", one, "auth"
    yield bool(passes and upstream.api_key_in), "passthrough sends the caller's key", "remove this", "api_key_in"
    yield bool(upstream.api_key and upstream.token), "api_key and token are two credentials", one, "token"
    yield bool(upstream.token and upstream.api_key_in), "a token always goes as bearer", "remove this", "api_key_in"


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


def _path(path: str | None) -> str | None:
    if path is not None and not path.startswith("/"):
        raise fault("{value} does not start with '/'", "write it as in /v1/chat/completions or /v1/*")
    return path


class Match(Part):
    """What a request must be like; a part that is not set matches everything."""

    path: Annotated[OptionalText, AfterValidator(_path)] = Field(
        default=None, description="exact, a prefix that ends in /*, or a glob", examples=["/v1/chat/completions"]
    )
    model: OptionalText = Field(default=None, description="a glob over the request's model", examples=["gpt-4o-mini*"])
    header: Headers = Field(default_factory=dict, description="globs by header name", examples=[{"x-tier": "free"}])


def _override(value: object) -> dict[str, Any] | Literal[False]:
    if value is False or isinstance(value, dict):
        return value
    raise fault(
        "must be settings or off, not {kind}",
        "write `{key: value}` to change settings, off to switch the plugin off, or remove it to leave it as it is",
    )


Override = Annotated[
    dict[str, Any] | Literal[False], PlainValidator(_override, json_schema_input_type=dict[str, Any] | Literal[False])
]


class Route(Part):
    name: Name = Field(description="unique; a label of metrics and logs", examples=["default"])
    match: Match = Field(default_factory=Match, description="which requests take this route; without it, all")
    targets: Targets = Field(min_length=1, description="in the order in which they are tried", examples=[["openai"]])
    balance: Balanced = written("ordered", "how the first target is chosen")
    plugins: dict[str, Override] = Field(
        default_factory=dict, description="other settings on this route, or off, for plugins of the chain"
    )


class PluginEntry(Part):
    name: Name
    settings: dict[str, Any]


def _entry(value: object) -> object:
    if isinstance(value, str):
        return {"name": value, "settings": {}}
    if not isinstance(value, dict) or not value:
        raise fault("{kind} is not a plugin", "write `- auth` or `- auth: {key: value}`")
    (name, settings), *others = value.items()
    if others and settings is None:
        raise fault(f"{others[0][0]!r} stands beside {name!r}, not below it", f"indent it further than {name!r}")
    if others:
        raise fault(f"{name!r} and {others[0][0]!r} are one entry", f"start {others[0][0]!r} with a `- ` of its own")
    if not isinstance(settings, dict | None):
        raise fault(
            "a plugin's settings must be a mapping", f"write `- {name}: {{key: value}}` or `- {name}`", key=name
        )
    return {"name": name, "settings": settings or {}}


_Entry = Annotated[PluginEntry, BeforeValidator(_entry, json_schema_input_type=str | dict[str, dict[str, Any] | None])]


def _store(url: str | None) -> str | None:
    if url is not None:
        store_url.parse(url)
    return url


class Config(Part):
    server: Server = Field(default_factory=Server, description="the proxy's own addresses and limits")
    redis: Annotated[OptionalText, AfterValidator(_store)] = Field(
        default=None, repr=False, description="URL of the Redis that replicas share; without it each counts for itself"
    )
    upstreams: dict[Name, Upstream] = Field(
        min_length=1, description="by name", examples=[{"openai": {"base_url": "https://api.openai.com/v1"}}]
    )
    plugins: list[_Entry] = Field(default_factory=list, description="the chain, in the order that a request meets it")
    routes: list[Route] = Field(
        min_length=1,
        description="the first that matches wins",
        examples=[[{"name": "default", "targets": ["openai"]}]],
    )


def load(file: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> tuple[Source, Config]:
    """Raises ConfigError with everything that is wrong, but for the plugins' settings."""
    problems: list[Problem] = []
    source = Source.scan(file, environ, problems)
    config = parse(source, problems) if source else None
    if source is None or config is None or problems:
        raise ConfigError(problems)
    return source, config


def parse(source: Source, problems: list[Problem]) -> Config | None:
    """Adds problems, also to a Config that it returns: None only where the models refuse."""
    config = validate(source, Config, source.data, (), problems)
    for check in (_check_routes, _check_reach, _check_chain, _check_targets, _check_canaries, _check_overrides):
        problems.extend(check(source))
    return config


def _check_routes(source: Source) -> Iterator[Problem]:
    for path, name, first in _repeated(source.find("routes", EACH, "name")):
        there = f"routes[{first[1]}] on line {source.line(first)}"
        yield source.problem(path, f"the name {source.show(path, name)} is taken by {there}", "give it another name")


def _check_reach(source: Source) -> Iterator[Problem]:
    widest = ""
    for path, route in source.find("routes", EACH):
        name = route.get("name") if isinstance(route, dict) else None
        label = source.show((*path, "name"), name) if isinstance(name, str) else "this route"
        if widest:
            yield source.problem(path, f"{label} can never match: {widest} matches everything", "put it before")
        elif _matches_everything(route):
            widest = f"routes[{path[-1]}] {label}"


def _matches_everything(route: Any) -> bool:
    match = route.get("match", {}) if isinstance(route, dict) else None
    return isinstance(match, dict) and {k: v for k, v in match.items() if v not in (None, "", {})} in (
        {},
        {"path": "/*"},
    )


def _check_chain(source: Source) -> Iterator[Problem]:
    for path, name, first in _repeated(_entries(source)):
        yield source.problem(
            path,
            f"{source.show(path, name)} is in the chain already, on line {source.line(first)}",
            f"remove one of the two, or give this one a name of its own and `use: {name}`",
        )


def _check_targets(source: Source) -> Iterator[Problem]:
    known = [str(path[-1]) for path, _ in source.find("upstreams", EACH)]
    for at, name in _targeted(source):
        if known and name not in known:
            yield source.problem(at, f"no upstream is named {source.show(at, name)}", nearest(name, known, "upstreams"))


def _check_canaries(source: Source) -> Iterator[Problem]:
    for path, name in source.find("routes", EACH, "balance", "header", EACH):
        known = [upstream for at, upstream in _targeted(source) if at[1] == path[1]]
        if isinstance(name, str) and name not in known:
            what = f"{source.show(path, name)} is no upstream of this route's targets"
            yield source.problem(path, what, nearest(name, known, "its targets"))


def _check_overrides(source: Source) -> Iterator[Problem]:
    known = [name for _, name in _entries(source)]
    for path, _ in source.find("routes", EACH, "plugins", EACH):
        name = path[-1]
        if isinstance(name, str) and name not in known:
            yield source.problem(path, f"no plugin of the chain is named {name!r}", nearest(name, known, "the chain"))


def _targeted(source: Source) -> Iterator[tuple[Path, str]]:
    """The names of upstreams that targets have."""
    for path, target in source.find("routes", EACH, "targets", EACH):
        name = target.get("upstream") if isinstance(target, dict) else target
        if isinstance(name, str):
            yield (*path, "upstream") if isinstance(target, dict) else path, name


def _entries(source: Source) -> Iterator[tuple[Path, str]]:
    for path, entry in source.find("plugins", EACH):
        if isinstance(entry, str):
            yield path, entry
        elif isinstance(entry, dict):
            yield from (((*path, name), name) for name in entry)


def _repeated(found: Iterable[tuple[Path, Any]]) -> Iterator[tuple[Path, str, Path]]:
    """Later paths of a name, with the first one's."""
    first: dict[str, Path] = {}
    for path, name in found:
        if isinstance(name, str) and first.setdefault(name, path) != path:
            yield path, name, first[name]
