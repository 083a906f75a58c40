"""YAML text to plain data, with the line of every value and `${...}` filled in.

PyYAML's constructors forget lines and let the last of two equal keys win, so nodes become data here. What YAML could
do behind an operator's back is bounded: depth (libyaml's composer recurses on the C stack: 100,000 brackets kill it),
tags, a second document, and the number of values that aliases unfold to. Keys are text as written, and so are dates.
"""

import contextlib
import functools
import hashlib
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from typing_extensions import override
from yaml.constructor import SafeConstructor
from yaml.reader import Reader
from yaml.resolver import Resolver

Path = tuple[str | int, ...]

UNKNOWN: Final = object()
"""Stands where a `${...}` had no value, so that it is neither empty nor of any type."""

_MAX_DEPTH: Final = 64
_MAX_VALUES: Final = 100_000
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE: Final = "tag:yaml.org,2002:merge"
_NULL: Final = "tag:yaml.org,2002:null"
_RESOLVER: Final = Resolver()
_CONSTRUCTOR: Final = SafeConstructor()
_SCALARS: Final[dict[str, Any]] = {
    _NULL: _CONSTRUCTOR.construct_yaml_null,
    "tag:yaml.org,2002:bool": _CONSTRUCTOR.construct_yaml_bool,
    "tag:yaml.org,2002:int": _CONSTRUCTOR.construct_yaml_int,
    "tag:yaml.org,2002:float": _CONSTRUCTOR.construct_yaml_float,
}
_REFERENCE: Final = re.compile(r"\$\$|\$\{(?P<body>[^}]*)(?P<end>\}?)")
_VARIABLE: Final = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^{]*))?")
_FILE: Final = "file:"
_HALF: Final = re.compile("[\ud800-\udfff]")
"""Of a surrogate pair: an escape in quotes, or a byte of the environment that is not UTF-8."""

_BARE: Final = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Problem:
    file: str
    line: int
    path: Path
    what: str
    fix: str

    @override
    def __str__(self) -> str:
        steps = "".join(map(_step, self.path)).removeprefix(".")
        text = f"{self.file}:{self.line}{steps and ' ' + steps}: {self.what}; {self.fix}"
        return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class ConfigError(Exception):
    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(dict.fromkeys(problems), key=lambda problem: (problem.file, problem.line)))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True)
class Filled:
    """A scalar that came through `${...}`: its references, and its text (None: one of them has no value)."""

    references: str
    text: str | None = field(repr=False)
    files: tuple[pathlib.Path, ...] = ()
    again: Callable[[], str] = field(default=str, repr=False, compare=False)
    """Its text as it would be filled now; raises UnfilledError."""


class Document:
    """Data, lines and problems of one file. Raises ConfigError where no data can be had at all."""

    def __init__(self, file: pathlib.Path, environ: Mapping[str, str]) -> None:
        self.file = file
        self.lines: dict[Path, int] = {(): 1}
        self.filled: dict[Path, Filled] = {}
        self.problems: list[Problem] = []
        self._environ = environ
        self._open: set[int] = set()
        text = _text(file)
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._room = len(text) + _MAX_VALUES  # what stands in the text itself always has room
        self.data = self._value(_composed(file, text), ())

    def _value(self, node: yaml.Node, at: Path) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, at)
        with self._inside(node, at):
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item, (*at, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, at)

    @contextlib.contextmanager
    def _inside(self, node: yaml.Node, at: Path) -> Iterator[None]:
        self._room -= len(node.value) + 1
        if id(node) in self._open:
            raise self._refused(at, "an alias stands inside what it repeats", "write the value out")
        if self._room < 0:
            raise self._refused(at, f"aliases add more than {_MAX_VALUES} values", "use fewer aliases")
        if len(self._open) >= _MAX_DEPTH:
            raise self._refused(at, f"aliases nest deeper than {_MAX_DEPTH} levels", "use fewer levels")
        self._open.add(id(node))
        yield
        self._open.remove(id(node))

    def _mapping(self, node: yaml.Node, at: Path) -> dict[str, Any]:
        pairs = self._pairs(node, at)
        self.lines.update({(*at, name): key.start_mark.line + 1 for name, (key, _) in pairs.items()})
        return {name: self._value(value, (*at, name)) for name, (_, value) in pairs.items()}

    def _pairs(self, node: yaml.Node, at: Path) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                merged = {**dict(self._merged(value, at)), **merged}
            elif not isinstance(key, yaml.ScalarNode):
                self._note(key, at, "a key must be text, not a list or a mapping", "write a plain key")
            elif key.value in own:
                first = own[key.value][0].start_mark.line + 1
                self._note(key, (*at, key.value), f"this key is already on line {first}", "keep one of the two")
            else:
                own[key.value] = (key, value)
        return {**merged, **own}

    def _merged(self, node: yaml.Node, at: Path) -> Iterator[tuple[str, tuple[yaml.Node, yaml.Node]]]:
        """Pairs of what `<<` names; the first of several mappings wins, so it comes last."""
        parts = reversed(node.value) if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            if isinstance(part, yaml.MappingNode):
                with self._inside(part, at):
                    yield from self._pairs(part, at).items()
            else:
                self._note(part, at, "`<<` takes a mapping or a list of mappings", "write `<<: *name`")

    def _scalar(self, node: yaml.ScalarNode, at: Path) -> Any:
        found: list[str] = []
        before = len(self.problems)
        text = _REFERENCE.sub(lambda reference: self._put(reference, at, found), node.value)
        if found and _HALF.search(text):
            self._note(node, at, f"{' and '.join(found)} is not UTF-8 text", "write it in UTF-8")
        failed = len(self.problems) > before
        if found:
            folder = self.file.parent
            again = functools.partial(_filled, node.value, self._environ, folder)
            self.filled[at] = Filled(" and ".join(found), None if failed else text, _files(node.value, folder), again)
        if failed:
            return UNKNOWN
        return text if node.style else _resolved(text)

    def _put(self, reference: re.Match[str], at: Path, found: list[str]) -> str:
        body = reference["body"]
        if body is None:
            return "$"
        found.append("${" + body.partition(":-")[0] + "}")
        try:
            return _referred(reference, self._environ, self.file.parent)
        except UnfilledError as missing:
            self.problems.append(Problem(str(self.file), self.lines[at], at, *missing.args))
            return ""

    def _note(self, node: yaml.Node, at: Path, what: str, fix: str) -> None:
        self.problems.append(Problem(str(self.file), node.start_mark.line + 1, at, what, fix))

    def _refused(self, at: Path, what: str, fix: str) -> ConfigError:
        line = next(self.lines[at[:length]] for length in range(len(at), -1, -1) if at[:length] in self.lines)
        return ConfigError([*self.problems, Problem(str(self.file), line, at, what, fix)])


class UnfilledError(Exception):
    """Arguments: what is wrong, how to fix it."""


def _filled(written: str, environ: Mapping[str, str], folder: pathlib.Path) -> str:
    return _REFERENCE.sub(lambda found: "$" if found["body"] is None else _referred(found, environ, folder), written)


def _files(written: str, folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    bodies = (reference["body"] or "" for reference in _REFERENCE.finditer(written))
    return tuple(folder / body.removeprefix(_FILE) for body in bodies if body.startswith(_FILE))


def _referred(reference: re.Match[str], environ: Mapping[str, str], folder: pathlib.Path) -> str:
    body = reference["body"]
    if not reference["end"]:
        raise UnfilledError("`${` has no `}`", "close it, or write `$$` for a plain `$`")
    if body.startswith(_FILE):
        return _content(folder / body.removeprefix(_FILE))
    variable = _VARIABLE.fullmatch(body)
    if variable is None:
        raise UnfilledError("this `${...}` is not a reference", "write ${NAME}, ${NAME:-default} or ${file:/path}")
    name, default = variable["name"], variable["default"]
    if default is not None:
        return environ.get(name) or default.replace("$$", "$")
    if name not in environ:
        raise UnfilledError(f"the variable {name} is not set", f"set it, or give a default: ${{{name}:-x}}")
    return environ[name]


def _content(file: pathlib.Path) -> str:
    try:
        return file.read_bytes().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UnfilledError(f"{str(file)!r} is not UTF-8 text", "save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise UnfilledError(
            f"{str(file)!r} cannot be read: {_reason(error)}", "mount it, or correct the path"
        ) from None


def _text(file: pathlib.Path) -> str:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _whole(file, line, "this line is not UTF-8 text", "save the file as UTF-8") from None
    except (OSError, ValueError) as error:
        raise _whole(file, 1, f"cannot be read: {_reason(error)}", "correct the path or the permissions") from error
    if odd := Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise _whole(file, line, f"the character U+{ord(odd[0]):04X} may not stand in YAML", "remove it")
    return text


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _composed(file: pathlib.Path, text: str) -> yaml.Node:
    try:
        _bound(file, yaml.parse(text, Loader=_LOADER))
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise _syntax(file, text, error) from None
    if root is None or root.tag == _NULL:
        raise _whole(file, 1, "the file is empty", "write a mapping of keys, or point to another file")
    return root


def _bound(file: pathlib.Path, events: Iterable[yaml.Event]) -> None:
    """Before composing: no second document, no tags, no depth that the C stack cannot bear."""
    depth = documents = 0
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if documents > 1:
            raise _whole(file, line, "a second document starts here", "keep one document in a file")
        if depth > _MAX_DEPTH:
            raise _too_deep(file, line)
        if tag := getattr(event, "tag", None):
            raise _whole(
                file, line, f"tags such as {tag!r} have no meaning here", "remove it; quotes make a value text"
            )
        if isinstance(event, yaml.ScalarEvent) and _HALF.search(event.value):
            raise _whole(file, line, "half of a surrogate pair is no character", "write the character itself")


def _too_deep(file: pathlib.Path, line: int) -> ConfigError:
    return _whole(file, line, f"nested deeper than {_MAX_DEPTH} levels", "use fewer levels")


def _syntax(file: pathlib.Path, text: str, error: yaml.YAMLError) -> ConfigError:
    lines = text.splitlines() or [""]
    found = _index(getattr(error, "problem_mark", None), lines)
    begun = _index(context, lines) if (context := getattr(error, "context_mark", None)) else found
    if "nesting depth" in (getattr(error, "problem", "") or ""):  # libyaml has a limit of its own, higher than ours
        return _too_deep(file, found + 1)
    what = "not valid YAML: " + ", ".join(filter(None, (getattr(error, "context", ""), getattr(error, "problem", ""))))
    fix = "check quotes, colons and indentation on this line and above it"
    if "\t" in lines[found]:
        fix = "indent with spaces, not with tabs"
    elif "alias" in what:
        fix = "put a glob that begins with `*` in quotes; of an alias, mark with `&` what it repeats"
    elif "${" in lines[found]:
        fix = 'put "${...}" in quotes where it stands inside {} or []'
    return _whole(file, found + 1, what + (f" (from line {begun + 1} on)" if begun < found else ""), fix)


def _index(mark: yaml.Mark | None, lines: list[str]) -> int:
    """Of the marked line; an end of stream stands behind the last one."""
    return min(mark.line, len(lines) - 1) if mark else 0


def _whole(file: pathlib.Path, line: int, what: str, fix: str) -> ConfigError:
    return ConfigError([Problem(str(file), line, (), what, fix)])


def _resolved(text: str) -> Any:
    """A plain scalar by YAML's rules; what only looks like a number (`0x_`) is text."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # in types-PyYAML
    try:
        return _SCALARS[tag](yaml.ScalarNode(tag, text)) if tag in _SCALARS else text
    except (ValueError, KeyError):
        return text


def _step(step: str | int) -> str:
    return f".{step}" if isinstance(step, str) and _BARE.fullmatch(step) else f"[{step!r}]"
