"""What pydantic refused, in the words of somebody who edits a YAML file: what is wrong, and how to fix it.

Pydantic's own messages are never repeated. Texts take `{value}`, `{kind}` and the error's own numbers; the caller says
how the value may be shown, since it can be a secret.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

_MAPPING: Final = ("must be a mapping, not {kind}", "write `key: value` lines below it")
_LIST: Final = ("must be a list, not {kind}", "write it as [a, b], or as lines that start with `- `")
_WHOLE: Final = ("must be a whole number, not {kind}", "write it without quotes and without a point, as in 1")
_NUMBER: Final = ("must be a number, not {kind}", "write it without quotes, as in 0.5")
_SWITCH: Final = ("must be true or false, not {kind}", "write true or false, without quotes")

_TEXTS: Final[dict[str, tuple[str, str]]] = {
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dataclass_type": _MAPPING,
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "iterable_type": _LIST,
    "string_too_short": ("must have {min_length} or more characters", "write a longer text"),
    "string_too_long": ("must have at most {max_length} characters", "write a shorter text"),
    "string_pattern_mismatch": ("{value} does not match {pattern}", "write it in that form"),
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "decimal_type": _NUMBER,
    "decimal_parsing": ("{value} is not a decimal number", 'write it in quotes, as in "0.15"'),
    "finite_number": ("must be a finite number", "write a number, as in 0.5"),
    "bool_type": _SWITCH,
    "bool_parsing": _SWITCH,
    "greater_than": ("must be more than {gt}, not {value}", "write a larger number"),
    "greater_than_equal": ("must be {ge} or more, not {value}", "write a larger number"),
    "less_than": ("must be less than {lt}, not {value}", "write a smaller number"),
    "less_than_equal": ("must be {le} or less, not {value}", "write a smaller number"),
    "multiple_of": ("must be a multiple of {multiple_of}, not {value}", "write such a number"),
    "too_short": ("must have {min_length} or more entries, not {actual_length}", "add one"),
    "too_long": ("must have at most {max_length} entries", "remove some"),
    "path_type": ("must be a path, not {kind}", "write it as text"),
    "none_required": ("must be empty, not {kind}", "remove the value"),
    "union_tag_not_found": ("lacks the key {discriminator} that says which kind it is", "add it"),
    "union_tag_invalid": ("is of no known kind", "set {discriminator} to one of {expected_tags}"),
}


@dataclass(frozen=True)
class Refusal:
    """One of pydantic's errors, its path below `model` as the YAML has it, and its value as it may be shown.

    `scrub` takes secrets out of a text that is not ours.
    """

    error: ErrorDetails
    model: type[BaseModel]
    path: tuple[str | int, ...]
    value: str
    scrub: Callable[[str], str]


def fault(what: str, fix: str, key: str | int = "") -> PydanticCustomError:
    """For validators to raise. `key`: the one below the value that is wrong, or its place in a list.

    `{value}` and `{kind}` in `what` stand for the refused value: it may be a secret, so no text writes it out.
    """
    return PydanticCustomError("fault", "{what}; {fix}", {"what": what, "fix": fix, "key": key})


def nearest(word: str, known: Collection[str], label: str) -> str:
    """The fix for a name that does not exist."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{label}: {', '.join(known) or 'none'}"


def kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int():
            return "a number"
        case float():
            return "a decimal number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def flow(value: object) -> str:
    """As YAML would have it in one line; `-` is nothing."""
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{key}: {flow(each)}" for key, each in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(flow, value)) + "]"
        case _:
            return str(value)


def worded(refusal: Refusal) -> tuple[str, str]:
    """What is wrong, and how to fix it."""
    name = refusal.error["type"]
    if refusal.error["input"] is None and name.endswith("_type"):
        return "is empty", "write a value or remove the key" + _instance(refusal)
    if name in _SPECIAL:
        return _SPECIAL[name](refusal)
    what, fix = _TEXTS.get(name) or ("{value} is not valid (" + name.replace("_", " ") + ")", "change this value")
    return _filled(what, refusal), _filled(fix, refusal) + (_instance(refusal) if name == "too_short" else "")


def fields(model: type[BaseModel], path: tuple[str | int, ...]) -> dict[str, FieldInfo]:
    """The keys that may stand where the last one of `path` stands, as they are written."""
    kinds: list[Any] = [model]
    for step in path[:-1]:
        kinds = [below for kind_ in kinds for below in _below(kind_, step)]
    models = [plain for kind_ in kinds for plain in _plain(kind_) if _is_model(plain)]
    return {key: info for found in models for key, info in _keys(found).items()}


def _filled(text: str, refusal: Refusal) -> str:
    given = {"value": refusal.value, "kind": kind(refusal.error["input"])}
    return text.format(**(refusal.error.get("ctx", {}) | given))


def _fault(refusal: Refusal) -> tuple[str, str]:
    what = refusal.error["ctx"]["what"]
    return what.replace("{value}", refusal.value).replace("{kind}", kind(refusal.error["input"])), refusal.error["ctx"][
        "fix"
    ]


def _authored(refusal: Refusal) -> tuple[str, str]:
    what, _, fix = " ".join(refusal.scrub(str(refusal.error["ctx"]["error"])).split()).partition("; ")
    return what or "is not valid", fix or "change this value"


def _unknown(refusal: Refusal) -> tuple[str, str]:
    key = str(refusal.path[-1])
    return f"unknown key {key!r}", nearest(key, fields(refusal.model, refusal.path), "valid keys")


def _text(refusal: Refusal) -> tuple[str, str]:
    is_one = isinstance(refusal.error["input"], bool | int | float)
    return f"must be text, not {kind(refusal.error['input'])}", "put it in quotes" if is_one else "write one text"


def _missing(refusal: Refusal) -> tuple[str, str]:
    key = refusal.path[-1]
    if isinstance(key, int):
        return f"must have {key + 1} or more entries", "add one"
    return f"missing key {key!r}", f"add `{_example(refusal) or f'{key}: ...'}`"


def _choice(refusal: Refusal) -> tuple[str, str]:
    given, expected = refusal.error["input"], refusal.error["ctx"]["expected"]
    near = difflib.get_close_matches(str(given), re.findall(r"'([^']*)'", expected), n=1)
    return f"{refusal.value} is not valid here", (f"did you mean {near[0]!r}? " if near else "") + f"valid: {expected}"


_SPECIAL: Final[dict[str, Callable[[Refusal], tuple[str, str]]]] = {
    "fault": _fault,
    "value_error": _authored,
    "assertion_error": _authored,
    "extra_forbidden": _unknown,
    "missing": _missing,
    "string_type": _text,
    "literal_error": _choice,
    "enum": _choice,
}


def _instance(refusal: Refusal) -> str:
    example = _example(refusal)
    return f", as in `{example}`" if example else ""


def _example(refusal: Refusal) -> str:
    """The first of the field's `examples`, as YAML."""
    info = fields(refusal.model, refusal.path).get(str(refusal.path[-1])) if refusal.path else None
    return f"{refusal.path[-1]}: {flow(info.examples[0])}" if info and info.examples else ""


def _below(kind_: Any, step: str | int) -> Iterator[Any]:
    for plain in _plain(kind_):
        if _is_model(plain):
            yield from (info.annotation for key, info in _keys(plain).items() if key == step)
        elif arguments := get_args(plain):
            yield arguments[0 if isinstance(step, int) else -1]


def _plain(kind_: Any) -> Iterator[Any]:
    """Without `Annotated`, and each member of a union."""
    if get_origin(kind_) is Annotated:
        yield from _plain(get_args(kind_)[0])
    elif get_origin(kind_) in (Union, UnionType):
        for member in get_args(kind_):
            yield from _plain(member)
    else:
        yield kind_


def _is_model(plain: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(plain, type) and issubclass(plain, BaseModel)


def _keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {info.alias or name: info for name, info in model.model_fields.items()}
