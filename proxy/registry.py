"""From the names in config.yaml to plugin instances: entry points, `use:`, strict settings, and the order checked.

Only what the YAML names is imported; what else is installed, only to say which of it gives a fact that is missing.
Everything wrong is a Problem with its line; nothing here raises for bad input.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import logging
from typing import TYPE_CHECKING, Any

from proxy.plugin import Key, Plugin, PluginConfig
from proxy.source import ConfigError, validate
from proxy.wording import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from proxy.config import Config, PluginEntry, Route
    from proxy.source import Path, Problem, Source

GROUP = "weir.plugins"
PLAIN_HOOKS = frozenset({"select_targets", "on_attempt_end", "lifespan", "state"})
EITHER_HOOKS = frozenset({"on_head", "on_request", "on_attempt", "on_response", "on_complete", "explain"})

AnyPlugin = Plugin[Any]

log = logging.getLogger("weir")


def installed() -> dict[str, importlib.metadata.EntryPoint]:
    """Every plugin that a package on this machine offers, not imported."""
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}


class Registry:
    """Builds the plugins of one config; entries with the same settings share one instance."""

    def __init__(self, source: Source, config: Config, problems: list[Problem]) -> None:
        self._source = source
        self._config = config
        self._problems = problems
        self._classes: dict[str, type[AnyPlugin] | None] = {}
        self._instances: dict[tuple[str, str], AnyPlugin | None] = {}

    @property
    def instances(self) -> list[AnyPlugin]:
        return [instance for instance in self._instances.values() if instance is not None]

    def chain(self, index: int) -> list[AnyPlugin]:
        """The plugins of route `index`, in order, with its overrides; an incomplete list where problems were noted."""
        route = self._config.routes[index]
        placed: list[tuple[AnyPlugin, Path]] = []
        for position, entry in enumerate(self._config.plugins):
            override = route.plugins.get(entry.name, {})
            if override is False:
                continue
            at: Path = ("plugins", position, entry.name)
            source = self._source
            if override:
                at = ("routes", index, "plugins", entry.name)
                source = source.overlaid(("plugins", position, entry.name), at)
            plugin = self._instance(entry, {**entry.settings, **override}, at, source)
            if plugin is not None:
                placed.append((plugin, at))
        plugins = [plugin for plugin, _ in placed]
        for place, (plugin, at) in enumerate(placed):
            self._check_needs(plugin, plugins[:place], route, at)
            self._check_followed(plugin, plugins[place + 1 :], route, at)
        return plugins

    def unrouted(self) -> list[AnyPlugin]:
        """The chain as it stands: so an entry that every route switches off is checked as well."""
        found = (
            self._instance(entry, entry.settings, ("plugins", position, entry.name), self._source)
            for position, entry in enumerate(self._config.plugins)
        )
        return [plugin for plugin in found if plugin is not None]

    def _instance(self, entry: PluginEntry, settings: dict[str, Any], at: Path, source: Source) -> AnyPlugin | None:
        key = (entry.name, repr(sorted(settings.items())))
        if key not in self._instances:
            self._instances[key] = self._build(entry.name, settings, at, source)
        return self._instances[key]

    def _build(self, name: str, settings: dict[str, Any], at: Path, source: Source) -> AnyPlugin | None:
        cls = self._class(name, _use(name, settings), at)
        if cls is None:
            return None
        config: PluginConfig | None = validate(source, cls.Config, settings, at, self._problems)
        if config is None:
            return None
        try:
            return cls(config, name=name)
        except ConfigError as error:
            self._problems.extend(error.problems)
            return None
        except (ValueError, TypeError) as error:
            self._note(
                at, f"plugin '{name}' does not accept its settings: {error}", "see `weir plugins` for what it takes"
            )
            return None
        except Exception as error:
            log.exception("plugin cannot be made", extra={"plugin": name})
            what = f"plugin '{name}' cannot be made: {type(error).__name__}: {error}"
            self._note(at, what, "the log has where it failed; without its entry here Weir starts")
            return None

    def _class(self, name: str, use: str, at: Path) -> type[AnyPlugin] | None:
        if use not in self._classes:
            found = self._import(name, use, at)
            self._classes[use] = found if found is not None and self._is_sound(name, found, at) else None
        return self._classes[use]

    def _import(self, name: str, use: str, at: Path) -> type[AnyPlugin] | None:
        module, _, attribute = use.partition(":")
        try:
            if attribute:
                return _checked(getattr(importlib.import_module(module), attribute))
            points = installed()
            if use in points:
                return _checked(points[use].load())
        except Exception as error:  # noqa: BLE001 - a plugin's module may raise anything while it is imported
            self._note(at, f"plugin '{name}' cannot be imported: {error}", "check `use:` and what is installed")
            return None
        self._note(at, f"no plugin is named '{use}'", nearest(use, points, "installed plugins"))
        return None

    def _is_sound(self, name: str, cls: type[AnyPlugin], at: Path) -> bool:
        faults = list(faults_of(cls))
        for what, fix in faults:
            self._note(at, f"plugin '{name}' ({cls.__qualname__}): {what}", fix)
        return not faults

    def _check_needs(self, plugin: AnyPlugin, before: Sequence[AnyPlugin], route: Route, at: Path) -> None:
        provided = {key for earlier in before for key in earlier.provides}
        for key in plugin.needs:
            if key not in provided:
                what = f"plugin '{plugin.name}' needs '{key.name}', which none before it gives on route '{route.name}'"
                self._note(at, what, self._remedy(plugin, key, route))

    def _remedy(self, plugin: AnyPlugin, key: Key[Any], route: Route) -> str:
        names = self._providers(key)
        off = next((name for name in names if route.plugins.get(name) is False), None)
        if off is not None:
            return f"{off} is off there: switch {plugin.name} off, too, or leave {off} on"
        return f"put {' or '.join(names) or 'a plugin that provides it'} before it"

    def _check_followed(self, plugin: AnyPlugin, behind: Sequence[AnyPlugin], route: Route, at: Path) -> None:
        for key in plugin.follows:
            for later in behind:
                if key in later.provides:
                    what = f"plugin '{plugin.name}' stands before '{later.name}', which gives '{key.name}'"
                    self._note(at, f"{what}, on route '{route.name}'", f"put {later.name} before it")

    def _providers(self, key: Key[Any]) -> list[str]:
        """Of the chain, or else of all that is installed."""
        places = ((entry, ("plugins", place, entry.name)) for place, entry in enumerate(self._config.plugins))
        chain = {entry.name: self._class(entry.name, _use(entry.name, entry.settings), at) for entry, at in places}
        named = [name for name, cls in chain.items() if cls is not None and key in cls.provides]
        return named or [name for name, point in sorted(installed().items()) if key in _provided(point)]

    def _note(self, at: Path, what: str, fix: str) -> None:
        problem = self._source.problem(at, what, fix)
        if problem not in self._problems:
            self._problems.append(problem)


def _use(name: str, settings: dict[str, Any]) -> str:
    return str(settings.get("use") or name)


def _provided(point: importlib.metadata.EntryPoint) -> tuple[Key[Any], ...]:
    try:
        return _checked(point.load()).provides
    except Exception:  # noqa: BLE001 - a plugin's module may raise anything while it is imported
        return ()


def faults_of(cls: type[AnyPlugin]) -> list[tuple[str, str]]:
    """What is wrong with a plugin class before it is ever called, as (what, fix)."""
    hooks = PLAIN_HOOKS | EITHER_HOOKS
    written = {attribute for part in cls.__mro__ if part not in Plugin.__mro__ for attribute in vars(part)}
    faults = [
        (f"there is no hook '{attribute}'", nearest(attribute, hooks, "hooks"))
        for attribute in sorted(written)
        if attribute.startswith(("on_", "select_")) and attribute not in hooks
    ]
    faults += _declaration_faults(cls)
    faults += [
        (f"hook '{hook}' has the wrong kind", f"write it as `def {hook}`")
        for hook in sorted(PLAIN_HOOKS)
        if inspect.iscoroutinefunction(inspect.unwrap(getattr(cls, hook)))
    ]
    return faults


def _declaration_faults(cls: type[AnyPlugin]) -> Iterator[tuple[str, str]]:
    if not issubclass(cls.Config, PluginConfig):
        yield "its Config is not a PluginConfig", "write it as `class Config(PluginConfig)`"
    for name in ("needs", "provides", "follows"):
        keys = getattr(cls, name)
        if not isinstance(keys, tuple) or not all(isinstance(key, Key) for key in keys):
            yield f"'{name}' is not a tuple of keys", f"write it as `{name} = (KEY,)`"
    if inspect.isasyncgenfunction(cls.lifespan):
        yield "'lifespan' is a bare generator", "put `@contextlib.asynccontextmanager` above it"


def overrides(plugin: AnyPlugin, hook: str) -> bool:
    return getattr(type(plugin), hook) is not getattr(Plugin, hook)


def _checked(found: Any) -> type[AnyPlugin]:
    if not (inspect.isclass(found) and issubclass(found, Plugin)):
        raise TypeError(f"{found!r} is not a subclass of proxy.plugin.Plugin")
    return found
