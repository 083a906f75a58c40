"""config.yaml as frozen pydantic models, and how it is loaded with every problem told at once.

Cross checks read the raw tree, not the models, so that a typo in one place does not hide an error in another.
A plugin's settings stay raw here: only the plugin's own model knows them.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator

from proxy.scalars import Address, Duration, Name, OptionalText, Size, written
from proxy.source import EACH, ConfigError, Path, Problem, Source, validate
from proxy.store import url as store_url
from proxy.targets import Balanced, Headers, Part, Queue, Target, Targets
from proxy.upstream.settings import Timeouts, Tls, Token, Upstream
from proxy.wording import fault, nearest

__all__ = [
    "Address",
    "Config",
    "Match",
    "PluginEntry",
    "Route",
    "Server",
    "Target",
    "Timeouts",
    "Tls",
    "Token",
    "Upstream",
    "load",
    "parse",
]


class Server(Part):
    listen: Address = written("127.0.0.1:8080", "where the app's requests arrive")
    admin: Address = written("127.0.0.1:9090", "livez, readyz, metrics, state and drain")
    workers: int = Field(default=1, ge=1, le=64, description="processes that serve, each on a core of its own")
    max_request_bytes: Size = written("64MiB", "a longer request body is refused with 413")
    drain_timeout: Duration = written("300s", "how long requests in flight may take to end after SIGTERM")

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.listen == self.admin and self.listen.port:
            raise fault("listen and admin share an address", "give admin another port", key="admin")
        return self


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
    queue: Queue | None = Field(default=None, description="requests wait here while all its upstreams are full")
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
    for check in (
        _check_routes,
        _check_reach,
        _check_chain,
        _check_targets,
        _check_canaries,
        _check_queues,
        _check_overrides,
    ):
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


def _check_queues(source: Source) -> Iterator[Problem]:
    """A queue whose upstreams are never full is none."""
    bounded = {str(path[1]) for path, value in source.find("upstreams", EACH, "kind") if value == "tgi"}
    bounded |= {str(path[1]) for path, value in source.find("upstreams", EACH, "capacity", "concurrent") if value}
    for path, value in source.find("routes", EACH, "queue"):
        targeted = {name for at, name in _targeted(source) if at[1] == path[1]}
        unbounded = sorted(targeted - bounded)
        if value is not None and unbounded:
            what = f"nobody would ever wait: upstream {unbounded[0]!r} has no `capacity`, so it is never full"
            yield source.problem(path, what, "add `capacity: {concurrent: 64}` to it, or remove the queue")


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
