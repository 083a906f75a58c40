"""A config with its plugins, checked and built, but nothing started: what `weir check` looks at, and a reload."""

from __future__ import annotations

import itertools
import os
import typing
from typing import TYPE_CHECKING, Any

from proxy import balance, config
from proxy.attempt import Target
from proxy.exchange import PRINCIPAL
from proxy.registry import Registry, overrides
from proxy.source import ConfigError
from proxy.stages import BodyFilter

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Container, Mapping
    from typing import Self

    from proxy.config import Config
    from proxy.plugin import Plugin
    from proxy.source import Path, Problem, Source


class Plan:
    def __init__(self, source: Source, settings: Config) -> None:
        """Raises ConfigError with every problem of the plugins and their order."""
        problems: list[Problem] = []
        registry = Registry(source, settings, problems)
        self.source = source
        self.config = settings
        self.chains = [registry.chain(index) for index in range(len(settings.routes))]
        self.unrouted = registry.unrouted()
        self.plugins: list[Plugin[Any]] = registry.instances
        if problems:
            raise ConfigError(problems)

    @classmethod
    def load(cls, file: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Self:
        """Raises ConfigError with all that is wrong with the file, or with its plugins."""
        return cls(*config.load(file, environ))

    @property
    def uses_store(self) -> bool:
        return any(plugin.uses_store for plugin in self.plugins)

    def warnings(self) -> list[str]:
        """What works, but not as one may think."""
        found = [
            f"plugin '{plugin.name}' holds whole bodies: on streams its routes lose the time to the first token"
            for plugin in self.plugins
            if overrides(plugin, "on_response") and _holds_bodies(plugin)
        ]
        found += [
            f"route '{route.name}' sticks by principal, and no plugin of its chain says who calls: chance decides"
            for route, plugins in zip(self.config.routes, self.chains, strict=True)
            if balance.needs_principal(route.balance) and not any(PRINCIPAL in plugin.provides for plugin in plugins)
        ]
        found += [
            f"upstream '{name}': the file of its api_key is empty, so that requests go up without a credential"
            for name, upstream in self.config.upstreams.items()
            if upstream.api_key is None and upstream.without_api_key is None and self._key_files(name)
        ]
        if self.config.redis and not self.uses_store:
            found.append("redis is set, but no plugin of this config keeps anything in a store")
        workers = self.config.server.workers
        if workers > 1 and self.uses_store and not self.config.redis:
            found.append(
                f"limits are divided by the {workers} workers, each counts for itself; with redis they are exact"
            )
        return found

    def _key_files(self, upstream: str) -> tuple[pathlib.Path, ...]:
        filled = self.source.filled.get(("upstreams", upstream, "api_key"))
        return filled.files if filled is not None else ()

    def files(self) -> list[pathlib.Path]:
        """Those that a reload must look at again; a key that its upstream follows by itself is none of them."""
        authorities = [upstream.tls.ca_file for upstream in self.config.upstreams.values() if upstream.tls.ca_file]
        followed = {("upstreams", name, "api_key") for name, up in self.config.upstreams.items() if up.api_key}
        return [*files_of(self.source, followed), *authorities]

    def again(self) -> Plan:
        """What the file says now; raises ConfigError."""
        return Plan.load(self.source.file, self.source.environ)

    def everywhere(self) -> list[Plugin[Any]]:
        """Those that all routes have, with the same settings."""
        return [plugin for plugin in self.unrouted if all(plugin in chain for chain in self.chains)]

    def named_models(self) -> set[str]:
        """The models that the config names: the closed set of the `model` label."""
        routes = self.config.routes
        targets = {target.model for route in routes for target in route.targets if target.model}
        matched = {route.match.model for route in routes if route.match.model}
        return targets | {model for model in matched if not set("*?[") & set(model)}

    def problem_of(self, plugin: Plugin[Any], what: str, fix: str) -> Problem:
        """At the plugin's entry in the chain."""
        entries = enumerate(self.config.plugins)
        place = next(place for place, entry in entries if entry.name == plugin.name)
        return self.source.problem(("plugins", place, plugin.name), what, fix)


def files_of(source: Source, but: Container[Path] = ()) -> list[pathlib.Path]:
    """The file, and those that its `${file:}` name; without those at the paths `but`."""
    named = (filled.files for path, filled in source.filled.items() if path not in but)
    return list(dict.fromkeys([source.file, *itertools.chain.from_iterable(named)]))


def targets_of(settings: config.Route) -> list[Target]:
    return [
        Target(
            told.upstream or "", told.model, weight=told.weight, context_window=told.context_window, static=told.static
        )
        for told in settings.targets
    ]


def _holds_bodies(plugin: Plugin[Any]) -> bool:
    """Whether the class says, by the return type of `on_response`, that it returns a BodyFilter."""
    try:
        returned = typing.get_type_hints(type(plugin).on_response).get("return")
    except Exception:  # noqa: BLE001 - annotations of third parties may name anything
        return False
    kinds = typing.get_args(returned) or (returned,)
    return any(isinstance(kind, type) and issubclass(kind, BodyFilter) for kind in kinds)
