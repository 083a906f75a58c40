"""What a new config changes, in words for a log: names and keys only, since values may be secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

    from proxy.config import Config

AT_START = ("listen", "admin", "workers")
"""Of `server`; and `redis` with them."""


def changes(old: Config, new: Config) -> list[str]:
    """None where both say the same."""
    found = [f"server: {key}" for key in _keys(old.server, new.server)]
    if old.redis != new.redis:
        found.append("redis")
    for what, before, after in _parts(old, new):
        found += _named(what, before, after)
    return found


def frozen(started: Config, new: Config) -> list[str]:
    """Keys that only a start takes, where they differ from what was started with."""
    found = [f"server.{key}" for key in AT_START if getattr(started.server, key) != getattr(new.server, key)]
    return [*found, "redis"] if started.redis != new.redis else found


def _parts(old: Config, new: Config) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    yield "upstream", old.upstreams, new.upstreams
    yield "plugin", _by_name(old.plugins), _by_name(new.plugins)
    yield "route", _by_name(old.routes), _by_name(new.routes)


def _by_name(parts: list[Any]) -> dict[str, Any]:
    return {part.name: part for part in parts}


def _named(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{what} '{name}' removed" for name in old if name not in new)
    yield from (f"{what} '{name}' added" for name in new if name not in old)
    for name in new:
        if name in old and old[name] != new[name]:
            yield f"{what} '{name}' changed: {', '.join(_keys(old[name], new[name]))}"
    if what != "upstream" and [name for name in old if name in new] != [name for name in new if name in old]:
        yield f"{what}s in another order"


def _keys(old: BaseModel, new: BaseModel) -> list[str]:
    """Of a plugin the keys of its settings."""
    before, after = _settings(old), _settings(new)
    return [key for key in dict.fromkeys((*before, *after)) if before.get(key, _NONE) != after.get(key, _NONE)]


def _settings(part: BaseModel) -> dict[str, Any]:
    fields = dict(part)
    settings = fields.get("settings")
    return settings if isinstance(settings, dict) else fields


_NONE = object()
