"""A configuration file, what may be said about its values, and its parts as pydantic models.

A value that came through `${...}` may be a secret: an error names the reference, never the value.
"""

import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, to_json

from proxy.document import ConfigError, Document, Filled, Path, Problem
from proxy.wording import Refusal, kind, worded

__all__ = ["EACH", "ConfigError", "Path", "Problem", "Source", "read_yaml", "validate"]

M = TypeVar("M", bound=BaseModel)
V = TypeVar("V")

EACH: Final = "*"
_MAX_SHOWN: Final = 60
_RECOGNISABLE: Final = 4
"""Characters from which a value is taken out of an error text wherever it stands, not only as a word of its own."""


@dataclass(frozen=True)
class Source:
    file: pathlib.Path
    data: Any = field(repr=False)
    lines: Mapping[Path, int] = field(repr=False)
    filled: Mapping[Path, Filled] = field(repr=False)
    digest: str = ""
    """Of the file as it stands, without what it refers to."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> pathlib.Path:
        return self.file.parent

    @classmethod
    def read(cls, file: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Self:
        problems: list[Problem] = []
        source = cls.scan(file, environ, problems)
        if source is None or problems:
            raise ConfigError(problems)
        return source

    @classmethod
    def scan(cls, file: str | os.PathLike[str], environ: Mapping[str, str], problems: list[Problem]) -> Self | None:
        """As `read`, but goes on where it can, so that the models' errors are told as well. None: it could not."""
        try:
            document = Document(pathlib.Path(file), environ)
        except ConfigError as refused:
            problems.extend(refused.problems)
            return None
        problems.extend(document.problems)
        return cls(document.file, document.data, document.lines, document.filled, document.digest, environ)

    def line(self, path: Path) -> int:
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def problem(self, path: Path, what: str, fix: str) -> Problem:
        return Problem(str(self.file), self.line(path), path, what, fix)

    def find(self, *steps: str) -> Iterator[tuple[Path, Any]]:
        """Paths and values that the steps lead to, EACH being every key or index; nothing where the shape differs."""
        return _found(self.data, steps, ())

    def routes(self) -> list[str] | None:
        """Their names, where this is a file that has routes."""
        named = [name for _, name in self.find("routes", EACH, "name") if isinstance(name, str)]
        return named or None

    def overlaid(self, base: Path, over: Path) -> Self:
        """Where the keys at `base` show through at `over`, as under a route's override of a plugin's settings."""

        def through(facts: Mapping[Path, V]) -> dict[Path, V]:
            below = {at[len(base) :]: fact for at, fact in facts.items() if at[: len(base)] == base}
            seen = {(*over, *at): fact for at, fact in below.items() if (*over, *at[:1]) not in self.lines}
            return seen | dict(facts)

        return replace(self, lines=through(self.lines), filled=through(self.filled))

    def failed(self, path: Path) -> bool:
        """Whether the value at the path, or one that it stands in, has a `${...}` without a value."""
        return any(filled.text is None for filled in self._above(path))

    def show(self, path: Path, value: object) -> str:
        """The value as an error may show it."""
        text = str(value) if isinstance(value, str | int | float) else ""
        for filled in (*self._above(path), *self._within(text)):
            return f"the value made from {filled.references}"
        if not isinstance(value, str):
            return text if type(value) in (int, float) else kind(value)
        return repr(value if len(value) <= _MAX_SHOWN else value[: _MAX_SHOWN - 1] + "…")

    def scrub(self, text: str) -> str:
        """The text without values that came through `${...}`; those of a few letters only where they stand alone."""
        for filled in self.filled.values():
            for secret in (filled.text, repr(filled.text)[1:-1]) if filled.text else ():
                alone = len(secret) < _RECOGNISABLE
                parts = re.split(rf"(?<!\w){re.escape(secret)}(?!\w)", text) if alone else text.split(secret)
                text = filled.references.join(parts)
        return text

    def _above(self, path: Path) -> Iterator[Filled]:
        heads = (path[:length] for length in range(len(path) + 1))
        return (self.filled[head] for head in heads if head in self.filled)

    def _within(self, text: str) -> Iterator[Filled]:
        for filled in self.filled.values():
            secret = filled.text
            if secret and (secret == text or (len(secret) >= _RECOGNISABLE and secret in text)):
                yield filled


def validate(source: Source, model: type[M], data: Any, at: Path, problems: list[Problem]) -> M | None:
    """`data`, which stands at `at`, as a model.

    Validators find the file's folder in `info.context["folder"]`, and the names of its routes in `["routes"]`.

    It goes through JSON: a strict model then takes what YAML can write for a tuple, an Enum or a Decimal, and no more.
    A key such as `12345` or `true` that came through an unquoted `${KEY}` is text where the model wants text.
    """
    result = _tried(source, model, data)
    if isinstance(result, ValidationError):
        texts = _texts(source, at, result)
        result = _tried(source, model, _retyped(data, texts, at)) if texts else result
    if not isinstance(result, ValidationError):
        return result
    found = (_problem(source, model, data, at, error) for error in result.errors(include_url=False))
    problems.extend(problem for problem in found if not source.failed(problem.path))
    return None


def read_yaml(file: str | os.PathLike[str], model: type[M], environ: Mapping[str, str] = os.environ) -> M:
    """A YAML file of a plugin's own, with all that config.yaml may have in it.

    Raises ConfigError with everything that is wrong, each as `file:line path: what; fix`.
    """
    problems: list[Problem] = []
    source = Source.scan(file, environ, problems)
    value = validate(source, model, source.data, (), problems) if source else None
    if value is None or problems:
        raise ConfigError(problems)
    return value


def _tried(source: Source, model: type[M], data: Any) -> M | ValidationError:
    json = to_json(data, inf_nan_mode="constants", fallback=lambda _unknown: {})
    try:
        return model.model_validate_json(json, context={"folder": source.folder, "routes": source.routes()})
    except ValidationError as refused:
        return refused


def _texts(source: Source, at: Path, refused: ValidationError) -> dict[Path, str]:
    wanted = [(*at, *error["loc"]) for error in refused.errors(include_url=False) if error["type"] == "string_type"]
    return {path: text for path in wanted if (text := source.filled.get(path, Filled("", None)).text) is not None}


def _retyped(data: Any, texts: Mapping[Path, str], at: Path) -> Any:
    if isinstance(data, dict):
        return {key: _retyped(value, texts, (*at, key)) for key, value in data.items()}
    if isinstance(data, list):
        return [_retyped(value, texts, (*at, index)) for index, value in enumerate(data)]
    return texts.get(at, data)


def _problem(source: Source, model: type[BaseModel], data: Any, at: Path, error: ErrorDetails) -> Problem:
    local = _real(data, error)
    value = source.show((*at, *local), error["input"])
    what, fix = worded(Refusal(error, model, local, value, source.scrub))
    key = error.get("ctx", {}).get("key", "")
    return source.problem((*at, *local, key) if key != "" else (*at, *local), what, fix)


def _real(data: Any, error: ErrorDetails) -> Path:
    """The error's path as the file has it: without what pydantic adds for unions, keys and short forms."""
    path: Path = ()
    for step in error["loc"]:
        if step in (children := _children(data)):
            path, data = (*path, step), children[step]
    return (*path, error["loc"][-1]) if error["type"] == "missing" else path


def _found(data: Any, steps: tuple[str, ...], at: Path) -> Iterator[tuple[Path, Any]]:
    if not steps:
        yield at, data
        return
    for key, child in _children(data).items():
        if steps[0] in (EACH, key):
            yield from _found(child, steps[1:], (*at, key))


def _children(data: Any) -> dict[Any, Any]:
    if isinstance(data, dict):
        return data
    return dict(enumerate(data)) if isinstance(data, list) else {}
